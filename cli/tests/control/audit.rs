//! The audit trail through the command line, and what is done to it behind control's back.

use std::os::unix::fs::PermissionsExt;

use sluicegate_control::store::{Actor, GroupChange};
use sqlx::{ConnectOptions, Connection, Executor};

use super::Control;

impl Control {
    async fn behind(&self, text: &'static str) {
        let file = self._dir.path().join("control.db");
        let mut db = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
        db.execute(text).await.unwrap();
        db.close().await.unwrap();
    }

    async fn with_groups(number: usize) -> Self {
        let control = Control::start().await;
        for number in 0..number {
            let change = GroupChange { name: format!("group {number}"), ..GroupChange::default() };
            control.store.create_group(&Actor::system(), change).await.unwrap();
        }
        control
    }
}

#[tokio::test]
async fn the_trail_is_listed_by_filters_and_pages() {
    // More than one page of what is asked for at once.
    let control = Control::with_groups(1_100).await;
    let list = async |words: &[&str]| -> Vec<String> {
        let json = control.shell.run(&[&["audit", "list", "--output", "json"], words].concat()).await.json();
        let events = json["events"].as_array().unwrap();
        events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    };
    let everything = list(&["--limit", "0"]).await;
    assert_eq!(everything.len(), 1_103);
    assert_eq!(everything.first().map(String::as_str), Some("1103"));
    assert_eq!(list(&[]).await, everything[..50]);
    assert_eq!(list(&["--limit", "1050", "--code", "group.add,group.update"]).await, everything[..1050]);
    assert_eq!(list(&["--limit", "5", "--before", "1000"]).await, ["999", "998", "997", "996", "995"]);
    assert_eq!(list(&["--target", "group 7"]).await, ["11"]);
    assert_eq!(list(&["--search", "GROUP 1099"]).await, ["1103"]);
    assert_eq!(list(&["--who", "nobody"]).await, Vec::<String>::new());
    // By the shell's clock it is 2026-11-22 12:00, and by control's it is now.
    assert_eq!(list(&["--until", "2000-01-01"]).await, Vec::<String>::new());
    assert_eq!(list(&["--since", "2000-01-01T00:00:00Z", "--limit", "0"]).await, everything);
    let ran = control.shell.run(&["audit", "list", "--since", "soon"]).await;
    assert_eq!((ran.code, ran.err.contains("'soon' is no time")), (2, true), "{}", ran.err);
    let ran = control.shell.run(&["audit", "list", "--code", "Group"]).await;
    assert_eq!((ran.code, ran.err.contains("policy.add")), (1, true), "{}", ran.err);
    let out = control.shell.run(&["audit", "list", "--who", "nobody"]).await.ok();
    assert_eq!(out, "No such event.\n");
}

#[tokio::test]
async fn a_whole_trail_is_verified_and_a_changed_one_is_named() {
    let control = Control::with_groups(1_100).await;
    let shell = &control.shell;
    let out = shell.run(&["audit", "verify"]).await.ok();
    assert!(out.starts_with("Whole    1,103 events\nHead     1103:"), "{out}");
    let json = shell.run(&["audit", "verify", "--output", "json"]).await.json();
    assert_eq!((&json["whole"], &json["events"], &json["broken"]), (&true.into(), &1_103.into(), &().into()));
    let head = format!("{}:{}", json["head"]["id"], json["head"]["hash"].as_str().unwrap());
    assert!(shell.run(&["audit", "verify", "--head", &head]).await.ok().contains(&head));
    let other = format!("500:{}", "ab".repeat(32));
    let ran = shell.run(&["audit", "verify", "--head", &other]).await;
    assert_eq!((ran.code, ran.err.contains("event 500 has not the hash")), (5, true), "{}", ran.err);
    assert_eq!(shell.run(&["audit", "verify", "--head", "500"]).await.code, 2);

    control.behind("UPDATE events SET initiator_name = 'somebody' WHERE id = 1050").await;
    let ran = shell.run(&["audit", "verify"]).await;
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("broken: event 1050 was changed"), "{}", ran.err);
    assert!(ran.err.contains("1,049 events before it follow each other, up to 1049:"), "{}", ran.err);
    let ran = shell.run(&["audit", "verify", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&json["broken"]["kind"], &json["broken"]["event"]), (&"changed".into(), &1_050.into()));

    control.behind("DELETE FROM events WHERE id BETWEEN 3 AND 4").await;
    let ran = shell.run(&["audit", "verify"]).await;
    assert!(ran.err.contains("missing after event 2: event 5 does not follow"), "{}", ran.err);
}

#[tokio::test]
async fn an_export_verifies_by_itself_and_never_overwrites() {
    let control = Control::with_groups(30).await;
    let shell = &control.shell;
    let file = shell.path("audit.jsonl");
    let path = file.to_str().unwrap();
    let ran = shell.run(&["audit", "export", path]).await;
    assert!(ran.err.contains("Wrote "), "{}", ran.err);
    assert!(ran.ok().starts_with("Whole    33 events\n"));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(shell.run(&["audit", "export", path]).await.code, 2);

    // Without login or control.
    let verify = async |words: &[&str]| {
        shell.bare(&[&["audit", "verify", "--from-file", path], words].concat(), "").await
    };
    let whole = verify(&[]).await.ok();
    assert_eq!(whole, shell.run(&["audit", "verify"]).await.ok());
    let lines: Vec<String> = std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 35);
    type Edit = dyn Fn(&mut Vec<String>);
    let edits: [(&str, &Edit); 7] = [
        ("event 9 was changed", &|lines| lines[9] = lines[9].replace("group ", "Group ")),
        ("missing after event 8: event 10", &|lines| drop(lines.remove(9))),
        ("event 10 stands at another place", &|lines| lines.swap(9, 10)),
        ("event 9 was inserted", &|lines| lines.insert(10, lines[9].clone())),
        ("cut off", &|lines| lines.truncate(20)),
        ("missing after event 30", &|lines| drop(lines.drain(31..34))),
        ("line 12 of", &|lines| lines[11] = "{}".into()),
    ];
    for (says, edit) in edits {
        let mut edited = lines.clone();
        edit(&mut edited);
        std::fs::write(&file, edited.join("\n") + "\n").unwrap();
        let ran = verify(&[]).await;
        assert_eq!((ran.code, ran.err.contains(says)), (5, true), "{says}: {}", ran.err);
    }
    std::fs::write(&file, "something else\n{}\n").unwrap();
    assert_eq!(verify(&[]).await.code, 2);
    assert_eq!(shell.bare(&["audit", "verify", "--from-file", "/nonexistent"], "").await.code, 1);
}

#[tokio::test]
async fn who_may_not_read_events_is_refused() {
    let control = Control::start().await;
    let owner = control.store.users().await.unwrap().remove(0);
    let new = sluicegate_control::store::NewUser {
        name: "robot".into(),
        email: String::new(),
        role: sluicegate_control::store::UserRole::User,
        is_service_user: true,
        auto_groups: vec![],
    };
    let robot = control.store.create_user(&owner, new).await.unwrap();
    let (_, token) = control.store.create_token(&owner, &robot.id, "t", 1).await.unwrap();
    let shell = super::Shell::with_token(&control.url, &token);
    let file = shell.path("audit.jsonl");
    for words in [&["audit", "list"][..], &["audit", "verify"], &["audit", "export", file.to_str().unwrap()]]
    {
        let ran = shell.run(words).await;
        assert_eq!((ran.code, ran.err.contains("may not")), (1, true), "{words:?}: {}", ran.err);
    }
    assert!(!file.exists(), "nothing is left of an export that failed");
}
