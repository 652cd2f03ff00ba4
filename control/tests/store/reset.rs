//! A lost password of the owner, helped at the server by the built binary while control goes on.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use sluicegate_control::ids::now;
use sluicegate_control::store::{Actor, FirstUser, Location, Reading, Source, Store, User, UserRole, Via};
use sqlx::ConnectOptions;
use tempfile::TempDir;
use totp_rs::TOTP;

use crate::postgres;
use crate::world::{check_trail, group, open};

const OLGA: &str = "olga@example.org";
const PASSWORD: &str = "correct horse battery";

fn reset(url: &str, flags: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluicegate-control"))
        .args(["user", "reset-password", "--store", url])
        .args(flags)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it reads anything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn done(url: &str, flags: &[&str], input: &str) -> String {
    let output = reset(url, flags, input);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(url: &str, flags: &[&str], input: &str) -> String {
    let output = reset(url, flags, input);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Both kinds of store, by URL, each with a data directory.
fn stores() -> [(TempDir, String); 2] {
    let [first, second] = [(), ()].map(|()| tempfile::tempdir().unwrap());
    let file = format!("sqlite:{}", first.path().join("control.db").display());
    [(first, file), (second, postgres::database())]
}

/// The first person, who is the owner.
async fn olga(store: &Store) -> User {
    let owner = store.users().await.unwrap().into_iter().find(|user| user.role == UserRole::Owner).unwrap();
    let first =
        FirstUser { email: OLGA.into(), name: "Olga".into(), password: PASSWORD.into(), token_days: Some(7) };
    store.set_up(&owner.actor(), first).await.unwrap().unwrap().0
}

#[tokio::test]
async fn the_owners_password_and_codes_are_reset_at_the_server_while_control_runs() {
    for (directory, url) in stores() {
        let store = open(&Location::parse(&url, None).unwrap(), directory.path()).await;
        let olga = olga(&store).await;
        let mut reading = Reading::new();
        reading.read(&store).await.unwrap();
        let totp = TOTP::from_url(store.begin_codes(&olga, PASSWORD).await.unwrap()).unwrap();
        let begun = now() / 1000;
        let code = |steps: i64| totp.generate((begun + steps * 30).unsigned_abs());
        store.confirm_codes(&olga, &code(-1)).await.unwrap();
        let home = Source::default();
        let logs_in = async |password: &str, code: &str| {
            store.password_login(&home, OLGA, password, code).await.unwrap().is_some()
        };
        for _ in 0..6 {
            assert!(!logs_in("wrong password", "").await);
        }
        let (_, login) = store.create_session(&olga, &Via::default()).await.unwrap();
        let (key, _) = store.create_join_key(&olga).await.unwrap();
        let (_, link) = store.invite_user(&olga, &olga.id).await.unwrap();

        let said = done(&url, &["--email", " OLGA@example.org"], "another password\n");
        assert!(said.contains("olga@example.org (owner)") && said.contains("--totp"), "{said}");
        assert!(said.contains("tokens go on: 1"), "{said}");
        assert!(!said.contains("another password"), "{said}");
        assert_eq!(store.session_user(&login).await.unwrap(), None);
        assert!(store.accept_invite(&home, &link, PASSWORD).await.is_err());
        assert!(!key.is_empty());
        assert!(!logs_in(PASSWORD, &code(0)).await);
        assert!(!logs_in("another password", "").await, "codes stay on");
        assert!(logs_in("another password", &code(0)).await, "and no pause is left");

        let said = done(&url, &["--email", OLGA, "--totp"], "a third password\r\n");
        assert!(said.contains("one-time codes are off"), "{said}");
        assert!(logs_in("a third password", "").await);

        let events = store.events().await.unwrap();
        let by_server = |code: &str| {
            let found = events.iter().filter(|event| event.code == code && event.target_id == olga.id);
            found.filter(|event| event.initiator.id == "server").count()
        };
        assert_eq!((by_server("user.password.reset"), by_server("user.totp.disable")), (2, 1));
        let one = events.iter().find(|event| event.code == "user.password.reset").unwrap();
        assert!(one.initiator.name.ends_with("of control's host"), "{one:?}");
        assert_eq!(one.activity, "User password reset at the server");
        assert!(!format!("{events:?}").contains("password\""), "no secret in the trail");
        // Control goes on from there.
        store.create_group(&Actor::system(), group("after")).await.unwrap();
        assert!(reading.read(&store).await.unwrap() == store.snapshot().await.unwrap());
        check_trail(&store).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_reset_that_cannot_be_says_why_and_changes_nothing() {
    for (directory, url) in stores() {
        if url.starts_with("sqlite:") {
            let said = refused(&url, &["--email", OLGA], "another password\n");
            assert!(said.contains("there is no such file") && said.contains("--data-dir"), "{said}");
            assert!(!directory.path().join("control.db").exists(), "nothing is left behind");
        } else {
            let said = refused(&url, &["--email", OLGA], "another password\n");
            assert!(said.contains("holds no account") && said.contains("--store"), "{said}");
        }
        let location = Location::parse(&url, None).unwrap();
        let store = open(&location, directory.path()).await;
        let none = refused(&url, &["--email", OLGA], "another password\n");
        assert!(none.contains("there are none"), "{none}");
        olga(&store).await;
        for (email, input, why) in [
            ("ann@example.org", "another password\n", "built-in users: olga@example.org"),
            (OLGA, "short\n", "12 to 256"),
            (OLGA, "olga@example.org\n", "e-mail address"),
            (OLGA, "", "standard input is empty"),
            (OLGA, "\n", "standard input is empty"),
        ] {
            let said = refused(&url, &["--email", email], input);
            assert!(said.contains(why), "{email}, {input:?}: {said}");
        }
        let login = store.password_login(&Source::default(), OLGA, PASSWORD, "").await.unwrap();
        assert!(login.is_some());
        store.close().await;
        drop(store);

        // Of a version before: whoever serves it brings it forward, and nobody else.
        const OLDER: &str = "DELETE FROM _sqlx_migrations WHERE version >= 14";
        match &location {
            Location::Sqlite(file) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
                sqlx::query(OLDER).execute(&mut options.connect().await.unwrap()).await.unwrap();
            }
            Location::Postgres(options) => {
                sqlx::query(OLDER).execute(&mut options.connect().await.unwrap()).await.unwrap();
            }
        }
        let said = refused(&url, &["--email", OLGA], "another password\n");
        assert!(said.contains("its schema is 13") && said.contains("start this version's control"), "{said}");
    }
}
