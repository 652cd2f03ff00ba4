//! The process itself: exit codes, closed pipes, help.

use std::process::{Command, Stdio};

fn sluice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    for name in ["SLUICE_URL", "SLUICE_TOKEN_FILE", "SLUICE_CONFIG", "SLUICE_OUTPUT"] {
        command.env_remove(name);
    }
    command
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for words in [&["peers"][..], &["policy", "explain", "a", "10.0.0.1:443"], &["login"], &[]] {
        let done = sluice().args(words).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn failures_are_json_when_json_is_wanted() {
    let done = sluice()
        .args(["peer", "list", "--output", "json", "--config", "/nonexistent/cli.toml"])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(3));
    let error: serde_json::Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!((&error["schema"], &error["error"]["exit_code"]), (&"sluicegate.error/1".into(), &3.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_is_silent() {
    let mut data = crate::site::data();
    // More than a pipe holds, so that the write fails however late the reader goes.
    data.peers = (0..20_000)
        .map(|n| serde_json::json!({ "id": format!("p{n}"), "name": format!("peer-{n}") }))
        .collect();
    let fake = crate::fake::Fake::start(data).await;
    let shell = crate::run::Shell::new(&fake.url);
    let mut child = sluice()
        .args(["peer", "list", "--timeout", "1m", "--url", &fake.url, "--token-file"])
        .arg(shell.path("token"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let done = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stderr).as_ref()), (Some(0), ""));
}

/// What each verb's help says, so that a change of the command line is seen in review.
#[test]
fn help_is_as_written_down() {
    let verbs: [&[&str]; 43] = [
        &[],
        &["login"],
        &["status"],
        &["gateway", "list"],
        &["gateway", "show"],
        &["policy"],
        &["policy", "list"],
        &["policy", "validate"],
        &["policy", "fmt"],
        &["policy", "plan"],
        &["policy", "apply"],
        &["policy", "diff"],
        &["policy", "test"],
        &["policy", "explain"],
        &["policy", "export"],
        &["policy", "history"],
        &["policy", "rollback"],
        &["policy", "break-glass", "on"],
        &["policy", "suggest"],
        &["peer", "list"],
        &["peer"],
        &["group", "list"],
        &["setup-key", "create"],
        &["setup-key", "list"],
        &["user"],
        &["user", "invite"],
        &["network", "list"],
        &["route"],
        &["route", "create"],
        &["route", "update"],
        &["dns"],
        &["dns", "nameserver", "create"],
        &["dns", "zone", "create"],
        &["dns", "record", "create"],
        &["access"],
        &["access", "grant"],
        &["posture"],
        &["posture", "create"],
        &["flow", "watch"],
        &["audit", "list"],
        &["audit", "verify"],
        &["audit", "export"],
        &["setup-key"],
    ];
    let mut seen = String::new();
    for verb in verbs {
        let done = sluice().args(verb).arg("--help").env("COLUMNS", "100").output().unwrap();
        assert_eq!(done.status.code(), Some(0));
        seen.push_str(&format!(
            "$ sluice {}\n{}\n",
            [verb, &["--help"]].concat().join(" "),
            String::from_utf8(done.stdout).unwrap()
        ));
    }
    crate::golden::check("help.txt", &seen);
}
