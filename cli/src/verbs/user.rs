//! `sluice user`: who there is, and built-in users' invitations, passwords and one-time codes.

use serde::Deserialize;
use serde_json::{Value, json};

use super::setup_key::group_ids;
use super::{read, read_all};
use crate::args::{Codes, Global, Invite, SetUp, User as Asked};
use crate::client::Client;
use crate::config::{Config, Target, parse_url, shown};
use crate::error::Failure;
use crate::human::ago;
use crate::terminal::{Terminal, Tone, cell, text};

/// `/api/users`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    id: String,
    name: String,
    email: String,
    role: String,
    status: String,
    last_login: String,
    is_service_user: bool,
    pending_approval: bool,
}

/// What came of an invitation.
#[derive(Debug, Deserialize)]
struct Made {
    email: String,
    invite_token: String,
}

/// Everything but `accept`, which needs no login.
pub(crate) async fn run(client: &Client, terminal: &mut Terminal<'_>, asked: Asked) -> Result<(), Failure> {
    match asked {
        Asked::List => list(client, terminal).await,
        Asked::Setup(options) => set_up(client, terminal, &options).await,
        Asked::Invite(options) => invite(client, terminal, &options).await,
        Asked::Reset { user } => {
            let id = find(client, &user).await?.id;
            let made = client.post(&format!("/api/users/{id}/invite"), &json!({})).await?;
            show(client, terminal, made)
        }
        // Done before there was a login.
        Asked::Accept => Ok(()),
        Asked::Password => password(client, terminal).await,
        Asked::Sessions { user } => sessions(client, terminal, user.as_deref()).await,
        Asked::EndSession { session, user } => end(client, terminal, &session, user.as_deref()).await,
        Asked::Totp(Codes::On) => codes_on(client, terminal).await,
        Asked::Totp(Codes::Off { user }) => codes_off(client, terminal, user.as_deref()).await,
    }
}

async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/users").await?;
    if terminal.is_json() {
        return terminal.json("users", json!({ "users": items }));
    }
    let mut users: Vec<User> = read_all(&items, "a user")?;
    users.sort_by(|a, b| (&a.email, &a.name).cmp(&(&b.email, &b.name)));
    let now = terminal.now;
    let rows = users.iter().map(|user| {
        let (tone, state) = match (user.status.as_str(), user.pending_approval) {
            ("blocked", _) => (Tone::Bad, "blocked"),
            (_, true) => (Tone::Warn, "waits for approval"),
            ("invited", _) => (Tone::Warn, "invited"),
            (other, _) => (Tone::Good, other),
        };
        vec![
            text(if user.name.is_empty() { &user.email } else { &user.name }),
            text(&user.email),
            text(&user.role),
            text(if user.is_service_user { "program" } else { "person" }),
            cell(tone, state),
            text(if user.last_login.starts_with("0001") {
                "never".to_owned()
            } else {
                ago(&user.last_login, now)
            }),
            text(&user.id),
        ]
    });
    let headers = ["NAME", "~EMAIL", "ROLE", "KIND", "STATE", "~LOGIN", "~ID"];
    terminal.table(&headers, rows.collect(), "No users.")
}

async fn set_up(client: &Client, terminal: &mut Terminal<'_>, options: &SetUp) -> Result<(), Failure> {
    let password = terminal.new_secret("new password")?;
    let body = json!({ "email": options.email, "name": options.name, "password": password });
    let made: Value = client.post("/api/setup", &body).await?;
    if terminal.is_json() {
        return terminal.json("user-setup", made);
    }
    terminal.line(format!("{} is the owner now; the user of this token is an admin.", options.email))?;
    terminal.note(format!("Log in: sluice login --url {} --user {}", client.url(), options.email));
    Ok(())
}

async fn invite(client: &Client, terminal: &mut Terminal<'_>, options: &Invite) -> Result<(), Failure> {
    let body = json!({
        "email": options.email,
        "name": options.name.as_ref().unwrap_or(&options.email),
        "role": options.role,
        "auto_groups": group_ids(client, &options.groups).await?,
        "expires_in": options.expires_in.as_secs(),
    });
    let made = client.post("/api/users/invites", &body).await?;
    show(client, terminal, made)
}

fn show(client: &Client, terminal: &mut Terminal<'_>, made: Value) -> Result<(), Failure> {
    let invite: Made = read(&made, "an invitation")?;
    if terminal.is_json() {
        return terminal.json("invite", json!({ "invite": made }));
    }
    terminal.line(invite.invite_token)?;
    terminal.note(format!(
        "The secret is shown only now: give it to {}, who sets a password with it:\n  sluice user accept --url {}",
        invite.email,
        client.url()
    ));
    Ok(())
}

/// Uses an invitation, at the control that is named or that there is a login to.
pub(crate) async fn accept(global: &Global, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let url = match &global.url {
        Some(url) => parse_url(url)?,
        None => match Config::read(&Config::path(global)?)? {
            Some((config, _)) => parse_url(&config.url)?,
            None => {
                return Err(Failure::usage("user accept needs --url").next("sluice user accept --url URL"));
            }
        },
    };
    let client = Client::new(Target { url: url.clone(), token: String::new() }, global.timeout)?;
    let secret = terminal.secret("invitation")?;
    let secret = secret.trim();
    if secret.is_empty() || !secret.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
        return Err(Failure::usage("that is no secret of an invitation").next("it begins with nbi_"));
    }
    let path = format!("/api/users/invites/{secret}");
    let invited: Value = client.get(&path).await.map_err(|failure| hide(failure, secret))?;
    let email = invited.get("email").and_then(Value::as_str).unwrap_or_default().to_owned();
    terminal.note(format!("The invitation is for {email}."));
    let password = terminal.new_secret("new password")?;
    let done: Result<Value, Failure> =
        client.post(&format!("{path}/accept"), &json!({ "password": password })).await;
    done.map_err(|failure| hide(failure, secret))?;
    if terminal.is_json() {
        return terminal.json("user-accept", json!({ "email": email }));
    }
    terminal.line(format!("The password of {email} is set."))?;
    terminal.note(format!("Log in: sluice login --url {} --user {email}", shown(&url)));
    Ok(())
}

/// A failure names the path, which has the secret in it.
fn hide(mut failure: Failure, secret: &str) -> Failure {
    failure.what = failure.what.replace(secret, "nbi_...");
    failure
}

async fn password(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let me = current(client).await?;
    let old = terminal.secret("password")?;
    let new = terminal.new_secret("new password")?;
    let body = json!({ "old_password": old, "new_password": new });
    let done: Result<Value, Failure> = client.put(&format!("/api/users/{}/password", me.id), &body).await;
    done.map_err(wrong)?;
    if terminal.is_json() {
        return terminal.json("user-password", json!({ "user": me.id }));
    }
    terminal.line("The password is changed, and every login has ended.")?;
    terminal.note(format!("Log in: sluice login --url {} --user {}", client.url(), me.email));
    Ok(())
}

/// `/api/users/{id}/sessions`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Session {
    id: String,
    is_current: bool,
    method: String,
    address: String,
    client: String,
    created_at: String,
    last_used: String,
}

async fn sessions(client: &Client, terminal: &mut Terminal<'_>, user: Option<&str>) -> Result<(), Failure> {
    let items: Vec<Value> =
        client.get(&format!("/api/users/{}/sessions", id_of(client, user).await?)).await?;
    if terminal.is_json() {
        return terminal.json("sessions", json!({ "sessions": items }));
    }
    let sessions: Vec<Session> = read_all(&items, "a login")?;
    let now = terminal.now;
    let rows = sessions.iter().map(|session| {
        vec![
            text(&session.id),
            if session.is_current { cell(Tone::Good, "this one") } else { text("") },
            text(&session.method),
            text(&session.address),
            text(&session.client),
            text(ago(&session.created_at, now)),
            text(ago(&session.last_used, now)),
        ]
    });
    let headers = ["ID", "", "BY", "FROM", "~PROGRAM", "MADE", "~USED"];
    terminal.table(&headers, rows.collect(), "No logins. Personal access tokens are none.")
}

async fn end(
    client: &Client,
    terminal: &mut Terminal<'_>,
    session: &str,
    user: Option<&str>,
) -> Result<(), Failure> {
    let path = format!("/api/users/{}/sessions/{session}", id_of(client, user).await?);
    let _: Value = client.delete(&path).await?;
    if terminal.is_json() {
        return terminal.json("session-end", json!({ "session": session }));
    }
    terminal.line("The login has ended.")
}

/// The id of the user who is named, or else of the own.
async fn id_of(client: &Client, user: Option<&str>) -> Result<String, Failure> {
    match user {
        Some(user) => Ok(find(client, user).await?.id),
        None => Ok(current(client).await?.id),
    }
}

async fn codes_on(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let path = format!("/api/users/{}/totp", current(client).await?.id);
    let body = json!({ "password": terminal.secret("password")? });
    let made: Result<Value, Failure> = client.post(&path, &body).await;
    let code = first_code(terminal, &made.map_err(wrong)?)?;
    let _: Value = client.post(&format!("{path}/confirm"), &json!({ "code": code })).await?;
    if terminal.is_json() {
        return terminal.json("user-totp", json!({ "on": true }));
    }
    terminal.line("Logins need a one-time code from now on.")
}

/// Shows the secret of one-time codes that control has made, and asks for a code of it.
pub(super) fn first_code(terminal: &mut Terminal<'_>, made: &Value) -> Result<String, Failure> {
    let url = made.get("url").and_then(Value::as_str).unwrap_or_default();
    // Not a result: what is asked for next depends on it.
    terminal.note(format!(
        "Add this to an authenticator, as a QR code or by its secret; it is shown only now:\n  {url}"
    ));
    terminal.secret("code that it shows")
}

async fn codes_off(client: &Client, terminal: &mut Terminal<'_>, user: Option<&str>) -> Result<(), Failure> {
    let (id, body) = match user {
        Some(user) => (find(client, user).await?.id, json!({})),
        None => (current(client).await?.id, json!({ "password": terminal.secret("password")? })),
    };
    let done: Result<Value, Failure> = client.delete_with(&format!("/api/users/{id}/totp"), &body).await;
    done.map_err(|failure| if user.is_some() { failure } else { wrong(failure) })?;
    let methods: Value = client.get("/api/login").await?;
    let required = methods.get("codes_required").and_then(Value::as_bool).unwrap_or_default();
    if terminal.is_json() {
        return terminal.json("user-totp", json!({ "on": false }));
    }
    terminal.line(match required {
        true => "Every login has ended; the next one sets up one-time codes anew, which are asked of everybody here.",
        false => "Logins need no one-time code any more.",
    })
}

/// What was refused is the password, or the kind of token, and no other role would help.
fn wrong(mut failure: Failure) -> Failure {
    if failure.what.contains("may not do this") {
        failure.what = "control refused it".into();
        failure.next = None;
    }
    failure
}

async fn current(client: &Client) -> Result<User, Failure> {
    let me: Value = client.get("/api/users/current").await?;
    read(&me, "a user")
}

/// The user with this id or address.
async fn find(client: &Client, wanted: &str) -> Result<User, Failure> {
    let items: Vec<Value> = client.get("/api/users").await?;
    let users: Vec<User> = read_all(&items, "a user")?;
    let mut found =
        users.into_iter().filter(|user| user.id == wanted || user.email.eq_ignore_ascii_case(wanted));
    match (found.next(), found.next()) {
        (Some(user), None) => Ok(user),
        (None, _) => {
            Err(Failure::usage(format!("there is no user '{wanted}'")).next("see `sluice user list`"))
        }
        (Some(_), Some(_)) => Err(Failure::usage(format!("several users have the address '{wanted}'"))
            .next("name one by its id, of `sluice user list`")),
    }
}
