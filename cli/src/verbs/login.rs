//! `sluice login`: take a token or log in at the identity provider, check, then remember it. `sluice logout`: forget it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::read;
use super::user::first_code;
use crate::args::{Global, Login};
use crate::client::{Client, is_exposed};
use crate::config::{Config, Target, parse_url, read_token, shown, token_from};
use crate::error::{Failure, Kind};
use crate::rest::User;
use crate::sso::{self, Offer, Provider};
use crate::terminal::Terminal;

const HOW: &str = "sluice login --url URL --sso, --user EMAIL, or --token-file FILE";

const PASSWORD: &str = "/api/login/password";
/// What control answers a password that is right, where one-time codes are asked for that the user does not have.
const NEEDS_CODES: u16 = 428;

/// `GET /api/login`.
#[derive(Deserialize)]
struct Methods {
    oidc: Option<Offer>,
}

/// Asks control who the token's user is and stores the login only if it answers.
pub(crate) async fn run(global: &Global, login: &Login, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let Some(url) = &global.url else {
        return Err(Failure::usage("login needs --url").next(HOW));
    };
    let url = parse_url(url)?;
    let exposed = is_exposed(&url);
    let warn = |terminal: &mut Terminal<'_>| {
        if exposed {
            terminal.note(format!(
                "warning: the token crosses the network to {} unencrypted; use https there",
                url.host_str().unwrap_or_default()
            ));
        }
    };
    let token = match (login.token.as_deref(), &global.token_file) {
        // A token file named by the environment gives way to what is asked for.
        _ if login.sso || login.device => {
            warn(terminal);
            at_provider(global, login, &url, terminal).await?
        }
        _ if login.user.is_some() => {
            warn(terminal);
            by_password(global, login, &url, terminal).await?
        }
        // `--token -` beats a token file named by the environment; two flags are refused by the parser.
        (Some("-"), _) => token_from(&mut *terminal.input).map_err(|why| {
            Failure::new(Kind::NotConnected, "cannot take a token from standard input").why(why)
        })?,
        (Some(_), _) => {
            return Err(Failure::usage("--token takes only '-'")
                .why("every local user can read the arguments of a running command")
                .next("sluice login --url URL --token - < FILE"));
        }
        (None, Some(file)) => read_token(file)?,
        (None, None) => return Err(Failure::usage("login needs a token").next(HOW)),
    };
    if !(login.sso || login.device || login.user.is_some()) {
        warn(terminal);
    }
    let target = Target { url: url.clone(), token };
    let client = Client::new(target.clone(), global.timeout)?;
    let answer: Value = client.get("/api/users/current").await?;
    let user: User = read(&answer, "a user")?;

    let path = Config::path(global)?;
    Config { url: shown(&target.url).to_owned(), token: target.token }.write(&path)?;
    if terminal.is_json() {
        return terminal.json("login", json!({ "url": client.url(), "user": answer, "config": path }));
    }
    let name = if user.name.is_empty() { &user.email } else { &user.name };
    let name = if name.is_empty() { &user.id } else { name };
    terminal.line(format!("Logged in to {} as {name} ({}).", client.url(), user.role))?;
    terminal.note(format!("The token is kept in {} (mode 0600).", path.display()));
    Ok(())
}

/// Ends the stored login, there and here.
pub(crate) async fn logout(global: &Global, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let path = Config::path(global)?;
    let Some((config, _)) = Config::read(&path)? else {
        return terminal.line("There is no login to end.");
    };
    let target = Target { url: parse_url(&config.url)?, token: config.token };
    let ended = Client::new(target, global.timeout)?.post::<Value>("/api/logout", &json!({})).await;
    std::fs::remove_file(&path).map_err(|error| {
        Failure::failed(format!("cannot remove the login in {}", path.display())).why(error)
    })?;
    match ended {
        // A token that control no longer takes is as good as ended.
        Ok(_) => {}
        Err(failure) if failure.what.contains("does not accept the token") => {}
        Err(failure) => {
            terminal.note(format!("warning: control was not told: {}", failure.what));
        }
    }
    if terminal.is_json() {
        return terminal.json("logout", json!({ "config": path }));
    }
    terminal
        .line(format!("Logged out; {} is gone. Personal access tokens go on being valid.", path.display()))
}

/// The token of a login as a built-in user. Whether it has one-time codes is not told to who does not know them: they are always
/// asked for.
async fn by_password(
    global: &Global,
    login: &Login,
    url: &reqwest::Url,
    terminal: &mut Terminal<'_>,
) -> Result<String, Failure> {
    let client = Client::new(Target { url: url.clone(), token: String::new() }, global.timeout)?;
    let password = terminal.secret("password")?;
    let code = terminal.secret("one-time code, empty without one")?;
    let request = |code: &str| json!({ "email": login.user, "password": password, "code": code });
    let mut answer =
        client.ask(PASSWORD, &request(&code)).await.map_err(|failure| failed(&client, failure))?;
    if matches!(&answer, Err(refused) if refused.status == NEEDS_CODES) {
        let body = json!({ "email": login.user, "password": password });
        let made = client.post(&format!("{PASSWORD}/totp"), &body).await;
        let made: Value = made.map_err(|failure| failed(&client, failure))?;
        terminal.note("One-time codes are asked of everybody here, and you have none yet.");
        let code = first_code(terminal, &made)?;
        answer = client.ask(PASSWORD, &request(&code)).await.map_err(|failure| failed(&client, failure))?;
    }
    let answer: Value = answer.map_err(|refused| {
        Failure::failed(format!("control refused POST {PASSWORD} (status {})", refused.status))
            .why(refused.message)
    })?;
    token_of(&client, &answer)
}

/// Why there is no login: control says "unauthorized" of a password as of a token.
fn failed(client: &Client, failure: Failure) -> Failure {
    if !failure.what.contains("does not accept the token") {
        return failure;
    }
    Failure::new(Kind::NotConnected, format!("control at {} did not log you in", client.url()))
        .why(failure.why.unwrap_or_default())
        .next("try again; after five failures in a row wait half a minute or longer")
}

fn token_of(client: &Client, answer: &Value) -> Result<String, Failure> {
    match answer.get("token").and_then(Value::as_str) {
        Some(token) => Ok(token.to_owned()),
        None => Err(Failure::failed(format!("control at {} gave no token", client.url()))),
    }
}

/// The token of a login at the identity provider that control names.
async fn at_provider(
    global: &Global,
    login: &Login,
    url: &reqwest::Url,
    terminal: &mut Terminal<'_>,
) -> Result<String, Failure> {
    let target = Target { url: url.clone(), token: String::new() };
    let client = Client::new(target, global.timeout)?;
    let methods: Methods = client.get("/api/login").await?;
    let Some(offer) = methods.oidc else {
        return Err(Failure::failed(format!("control at {} knows no identity provider", client.url()))
            .next("configure [oidc] there, or log in with a token: --token-file FILE"));
    };
    let provider = Provider::discover(offer, global.timeout).await?;
    let proof = match login.device {
        true => sso::by_device(&provider, terminal).await?,
        false => sso::by_browser(&provider, terminal).await?,
    };
    let mut request = json!({ "token": proof.token });
    if let Some(nonce) = proof.nonce {
        request["nonce"] = json!(nonce);
    }
    let answer: Value = client.post("/api/login/oidc", &request).await?;
    token_of(&client, &answer)
}
