//! What lists look like, and their JSON.

use crate::fake::{Data, Fake};
use crate::golden;
use crate::run::Shell;
use crate::site;

const LISTS: [(&str, &[&str]); 9] = [
    ("gateways", &["gateway", "list"]),
    ("gateway", &["gateway", "show", "gw-a"]),
    ("peers", &["peer", "list"]),
    ("groups", &["group", "list"]),
    ("posture-checks", &["posture", "list"]),
    ("policies", &["policy", "list"]),
    ("networks", &["network", "list"]),
    ("setup-keys", &["setup-key", "list"]),
    ("audit-events", &["audit", "list"]),
];

#[tokio::test]
async fn tables_are_as_written_down() {
    let fake = Fake::start(site::data()).await;
    let shell = Shell::new(&fake.url);
    for (name, words) in LISTS {
        golden::check(&format!("{name}.txt"), &shell.run(words).await.ok());
    }
}

#[tokio::test]
async fn json_has_its_schema_and_everything_control_said() {
    let fake = Fake::start(site::data()).await;
    let shell = Shell::new(&fake.url);
    for (name, words) in LISTS {
        let json = shell.run(&[words, &["--output", "json"]].concat()).await.json();
        assert_eq!(json["schema"], format!("sluicegate.{name}/1"));
        golden::check(&format!("{name}.json"), &format!("{json:#}\n"));
    }
    let status = shell.run(&["status", "--output", "json"]).await.json();
    assert_eq!(
        (&status["schema"], &status["gateways"]["in_sync"]),
        (&"sluicegate.status/1".into(), &1.into())
    );
}

#[tokio::test]
async fn an_empty_account_says_what_to_do_first() {
    let data = Data { user: site::data().user, rules: serde_json::json!([]), ..Data::default() };
    let fake = Fake::start(data).await;
    let shell = Shell::new(&fake.url);
    let mut seen = String::new();
    for (_, words) in LISTS {
        if words[1] == "list" {
            seen.push_str(&format!("$ sluice {}\n{}\n", words.join(" "), shell.run(words).await.ok()));
        }
    }
    seen.push_str(&format!(
        "$ sluice status\n{}",
        shell.run(&["status"]).await.ok().replace(&fake.url, "URL")
    ));
    golden::check("empty.txt", &seen);
}

#[tokio::test]
async fn an_unknown_gateway_is_answered_with_the_known_ones() {
    let fake = Fake::start(site::data()).await;
    let ran = Shell::new(&fake.url).run(&["gateway", "show", "gw-c"]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.err,
        "there is no gateway 'gw-c'\n   why: known are gw-a, gw-b\n  next: sluice gateway list"
    );
}

#[tokio::test]
async fn audit_shows_the_newest_first_and_no_more_than_asked() {
    let fake = Fake::start(site::data()).await;
    let out = Shell::new(&fake.url).run(&["audit", "list", "--limit", "1"]).await.ok();
    assert!(out.contains("policy.add") && !out.contains("group.add"), "{out}");
}

#[tokio::test]
async fn a_new_key_is_printed_as_the_content_of_its_file() {
    let fake = Fake::start(site::data()).await;
    let shell = Shell::new(&fake.url);
    let file = format!("0A1B2C3D-0000-4000-8000-ABCDEF012345#sha256:{}\n", "5f".repeat(32));
    let words = [
        "setup-key",
        "create",
        "--name",
        "laptops",
        "--group",
        "engineering",
        "--expires-in",
        "7d",
        "--reusable",
    ];
    let ran = shell.run(&words).await;
    assert!(ran.err.contains("sluicegate-gateway join"), "{}", ran.err);
    assert_eq!(ran.ok(), file);
    let (_, _, body) = fake.data().writes[0].clone();
    assert_eq!(
        body,
        serde_json::json!({"name": "laptops", "type": "reusable", "expires_in": 604_800, "usage_limit": 0,
                           "auto_groups": ["g1"], "ephemeral": false, "allow_extra_dns_labels": false})
    );

    let path = shell.path("gw.key");
    let written =
        shell.run(&["setup-key", "create", "--name", "gw", "--key-file", path.to_str().unwrap()]).await;
    assert!(!written.ok().contains("0A1B2C3D"), "a key in a file is not printed as well");
    assert_eq!(std::fs::read_to_string(path).unwrap(), file);
    assert_eq!(fake.data().writes[1].2["usage_limit"], 1);
}

#[tokio::test]
async fn a_key_is_not_made_when_it_could_not_be_kept() {
    let fake = Fake::start(site::data()).await;
    let shell = Shell::new(&fake.url);
    let nowhere = shell.path("missing/gw.key");
    let ran =
        shell.run(&["setup-key", "create", "--name", "gw", "--key-file", nowhere.to_str().unwrap()]).await;
    assert_eq!(ran.code, 2);
    let ran = shell.run(&["setup-key", "create", "--name", "gw", "--group", "nobody"]).await;
    assert_eq!(ran.code, 2);
    assert!(fake.data().writes.is_empty());
}

#[tokio::test]
async fn a_narrow_terminal_leaves_columns_out_and_cuts_nothing() {
    let fake = Fake::start(site::data()).await;
    let mut shell = Shell::new(&fake.url);
    let mut seen = String::new();
    for width in [80, 60, 20] {
        shell.width = Some(width);
        for words in [&["peer", "list"], &["gateway", "list"], &["policy", "list"]] {
            let ran = shell.run(words).await;
            seen.push_str(&format!(
                "$ sluice {} # {width} columns\n{}{}\n",
                words.join(" "),
                ran.out,
                ran.err
            ));
        }
    }
    golden::check("narrow.txt", &seen);
}
