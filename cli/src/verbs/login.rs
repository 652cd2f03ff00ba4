//! `sluice login`: check a token, then remember it.

use serde_json::{Value, json};

use super::read;
use crate::args::{Global, Login};
use crate::client::{Client, is_exposed};
use crate::config::{Config, Target, parse_url, read_token, shown, token_from};
use crate::error::{Failure, Kind};
use crate::rest::User;
use crate::terminal::Terminal;

const HOW: &str = "sluice login --url URL --token-file FILE";

/// Asks control who the token's user is and stores the login only if it answers.
pub(crate) async fn run(global: &Global, login: &Login, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let Some(url) = &global.url else {
        return Err(Failure::usage("login needs --url").next(HOW));
    };
    let url = parse_url(url)?;
    let token = match (login.token.as_deref(), &global.token_file) {
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
    if is_exposed(&url) {
        terminal.note(format!(
            "warning: the token crosses the network to {} unencrypted; use https there",
            url.host_str().unwrap_or_default()
        ));
    }
    let target = Target { url, token };
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
