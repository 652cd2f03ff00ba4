//! Login, and what happens without one.

use std::os::unix::fs::PermissionsExt;

use crate::fake::{Fake, TOKEN};
use crate::run::Shell;
use crate::site;

#[tokio::test]
async fn a_login_is_checked_kept_and_used() {
    let fake = Fake::start(site::data()).await;
    let shell = Shell::new(&fake.url);
    let out = shell.run(&["login"]).await.ok();
    assert_eq!(out, format!("Logged in to {} as bootstrap (owner).\n", fake.url));
    let config = shell.path("cli.toml");
    assert_eq!(std::fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);

    let out = shell.bare(&["status"], "").await.ok();
    assert_eq!(
        out,
        format!(
            "Control   {}, as bootstrap (owner)\n\
             Gateways  2 of 2 connected, 1 of 2 enforce the newest image\n\
             Peers     3 of 4 connected\n\
             Policies  1 on, 1 off\n\
             Networks  1 network\n\
             Problems  gw-b: enforces revision 6, not 7\n",
            fake.url
        )
    );
}

#[tokio::test]
async fn a_token_comes_from_standard_input_but_never_from_the_command_line() {
    let fake = Fake::start(site::data()).await;
    let shell = Shell::new(&fake.url);
    let ran = shell.bare(&["login", "--url", &fake.url, "--token", TOKEN], "").await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("every local user can read"), "{}", ran.err);
    shell.bare(&["login", "--url", &fake.url, "--token", "-"], &format!("{TOKEN}\n")).await.ok();
    assert!(std::fs::read_to_string(shell.path("cli.toml")).unwrap().contains(TOKEN));
}

#[tokio::test]
async fn a_wrong_token_is_not_kept() {
    let fake = Fake::start(site::data()).await;
    let shell = Shell::new(&fake.url);
    let ran = shell.bare(&["login", "--url", &fake.url, "--token", "-"], "nbp_wrong").await;
    assert_eq!(ran.code, 3);
    assert_eq!(
        ran.err,
        format!(
            "control at {0} does not accept the token\n   why: token invalid\n  \
             next: run `sluice login --url {0} --token-file FILE` with a valid token",
            fake.url
        )
    );
    assert!(!shell.path("cli.toml").exists());
}

#[tokio::test]
async fn not_logged_in_and_not_reached_are_exit_code_3() {
    let shell = Shell::new("http://127.0.0.1:1");
    let ran = shell.bare(&["peer", "list"], "").await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("sluice login"), "{}", ran.err);

    let ran = shell.run(&["peer", "list"]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.starts_with("cannot reach control at http://127.0.0.1:1\n   why: "), "{}", ran.err);
    assert!(ran.err.contains("refused"), "{}", ran.err);
}

#[tokio::test]
async fn something_else_on_the_port_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/api/peers", axum::routing::get(|| async { "<html>hello</html>" }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let shell = Shell::new(&url);
    let ran = shell.run(&["peer", "list"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("cannot read the answer to GET"), "{}", ran.err);
    let ran = shell.run(&["group", "list"]).await;
    assert!(ran.err.contains("has no /api/groups"), "{}", ran.err);
}

#[tokio::test]
async fn silence_ends_at_the_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shell = Shell::new(&url);
    // Connections are taken by the system's queue and never answered.
    for words in [&["peer", "list"][..], &["flow", "watch"]] {
        let ran = shell.run(&[words, &["--timeout", "100ms"]].concat()).await;
        assert_eq!(ran.code, 3);
        assert!(ran.err.contains("did not answer in time"), "{}", ran.err);
    }
    drop(listener);
}
