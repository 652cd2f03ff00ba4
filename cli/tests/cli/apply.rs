//! `policy apply`: what is planned, printed and written.

use serde_json::{Value, json};

use crate::fake::Fake;
use crate::golden;
use crate::run::{Ran, Shell};
use crate::site;

/// Against the site's account: something new, something changed and something unchanged of every kind.
const FILE: &str = r#"
groups:
  - name: engineering
    peers: [alice-laptop, bob-laptop]
  - name: contractors
    peers: [bob-laptop]
  - name: web
networks:
  - name: berlin
    description: the site
    resources:
      - {name: web-1, address: 10.20.0.10, groups: [web]}
      - {name: web-1-v6, address: "fd00:20::10", groups: [web]}
    routers:
      - {peer: gw-a, metric: 100}
      - {peer: gw-b, metric: 300}
  - name: lisbon
    resources:
      - {name: printers, address: 10.30.0.0/24, groups: [contractors]}
    routers:
      - {groups: [gateways], metric: 50, masquerade: false}
policies:
  - name: users-to-web
    rules:
      - {name: https, from: [engineering, contractors], to: web, service: "tcp/443,8443"}
      - {name: no telnet, from: engineering, to: "resource:web-1", service: tcp/23, action: drop}
      - {name: ping, from: engineering, to: web, service: icmp}
  - name: printing
    description: from anywhere
    enabled: false
    rules:
      - {from: "peer:bob-laptop", to: "resource:printers", service: "tcp/9100,515-520"}
"#;

struct Case {
    fake: Fake,
    shell: Shell,
}

impl Case {
    async fn new() -> Self {
        let fake = Fake::start(site::data()).await;
        let shell = Shell::new(&fake.url);
        Case { fake, shell }
    }

    async fn apply(&self, file: &str, extra: &[&str]) -> Ran {
        let path = self.shell.path("policy.yaml");
        std::fs::write(&path, file).unwrap();
        self.shell.run(&[&["policy", "apply", "-f", path.to_str().unwrap()], extra].concat()).await
    }

    fn writes(&self) -> usize {
        self.fake.data().writes.len()
    }
}

#[tokio::test]
async fn a_file_is_applied_once_and_then_writes_nothing() {
    let case = Case::new().await;
    let dry = case.apply(FILE, &["--dry-run"]).await;
    assert_eq!(
        dry.err,
        "Left alone, because the file does not name them: 'Default' (--prune deletes them).\n"
    );
    golden::check("apply-dry-run.txt", &dry.ok());
    assert_eq!(case.writes(), 0, "a dry run writes nothing");

    let first = case.apply(FILE, &[]).await;
    golden::check("apply.txt", &first.ok());
    let writes = case.writes();
    assert_eq!(writes, 9);
    let log: Vec<Value> = case
        .fake
        .data()
        .writes
        .iter()
        .map(|(m, p, body)| json!({"request": format!("{m} {p}"), "body": body}))
        .collect();
    golden::check("apply-writes.json", &format!("{:#}\n", json!(log)));

    let second = case.apply(FILE, &[]).await.ok();
    assert_eq!(second, "0 created, 0 updated, 0 deleted, 13 unchanged.\n");
    assert_eq!(case.writes(), writes, "a second run writes nothing");
}

#[tokio::test]
async fn what_the_file_does_not_say_stays() {
    let case = Case::new().await;
    case.apply(FILE, &[]).await.ok();
    let data = case.fake.data();
    let policy = data.policies.iter().find(|p| p["name"] == "users-to-web").unwrap();
    assert_eq!(policy["description"], "browsers");
    assert_eq!(
        policy["source_posture_checks"],
        json!(["c1"]),
        "dropping a posture check would let more through"
    );
    assert_eq!(
        (&policy["rules"][0]["id"], &policy["rules"][1]["id"]),
        (&json!("l1"), &json!("l2")),
        "rules keep their ids"
    );
    let web = data.groups.iter().find(|g| g["name"] == "web").unwrap();
    assert_eq!(web["resources"], json!([{"id": "r1", "type": "host"}]));
    assert!(data.policies.iter().any(|p| p["name"] == "Default"));
}

#[tokio::test]
async fn prune_deletes_only_policies_and_only_when_asked() {
    let case = Case::new().await;
    let file = "groups: [{name: engineering}]\npolicies: []\n";
    let ran = case.apply(file, &["--prune", "--dry-run"]).await.ok();
    assert_eq!(
        ran,
        "delete    policy    Default\ndelete    policy    users-to-web\n\n\
         Would be: 0 created, 0 updated, 2 deleted, 1 unchanged. Nothing was written.\n"
    );
    assert_eq!(case.writes(), 0);
    case.apply(file, &["--prune"]).await.ok();
    let paths: Vec<_> =
        case.fake.data().writes.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(paths, ["DELETE /api/policies/y0", "DELETE /api/policies/y1"]);
}

#[tokio::test]
async fn every_fault_is_told_before_anything_is_written() {
    let case = Case::new().await;
    let file = r#"
groups:
  - {name: new, peers: [carol-laptop]}
networks:
  - name: lisbon
    resources: [{name: web-1, address: 10.0.0.1, groups: [nowhere]}]
    routers: [{peer: gw-z}]
policies:
  - name: p
    posture_checks: [virus scanner]
    rules: [{name: r, from: new, to: "resource:missing", service: all}]
"#;
    let ran = case.apply(file, &[]).await;
    assert_eq!(ran.code, 2);
    golden::check(
        "apply-faults.txt",
        &format!(
            "{}\n",
            ran.err.replace(&case.fake.url, "URL").replace(case.shell.dir.path().to_str().unwrap(), "DIR")
        ),
    );
    assert_eq!(case.writes(), 0);

    let ran =
        case.apply("policies:\n  - name: p\n    rules: [{from: a, to: b, service: tcp/99999}]\n", &[]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("line 3, column ") && ran.err.contains("nothing was written"), "{}", ran.err);
    assert_eq!(case.fake.data().asked.iter().filter(|asked| asked.contains("/api/policies")).count(), 1);
}

#[tokio::test]
async fn names_that_stand_for_two_objects_are_refused() {
    let case = Case::new().await;
    {
        let mut data = case.fake.data();
        let twin = json!({"id": "p9", "name": "bob-laptop", "groups": []});
        data.peers.push(twin);
        let twin = json!({"id": "g9", "name": "web", "issued": "jwt", "peers": [], "resources": []});
        data.groups.push(twin);
    }
    let ran = case.apply(FILE, &[]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("2 peers are called 'bob-laptop'"), "{}", ran.err);
    assert!(ran.err.contains("group 'web': control has 2 of that name"), "{}", ran.err);
    assert_eq!(case.writes(), 0);
}

#[tokio::test]
async fn a_failure_half_way_says_what_was_written_and_the_next_run_does_the_rest() {
    let case = Case::new().await;
    case.fake.data().fail_write = Some((3, 422, "invalid resource".into()));
    let ran = case.apply(FILE, &[]).await;
    assert_eq!(ran.code, 1);
    let shown = ran.err.replace(case.shell.dir.path().to_str().unwrap(), "DIR");
    golden::check("apply-stopped.txt", &format!("{}{shown}\n", ran.out));
    assert_eq!(case.writes(), 3);

    case.fake.data().fail_write = None;
    let rest = case.apply(FILE, &[]).await.ok();
    assert!(rest.ends_with("4 created, 2 updated, 0 deleted, 7 unchanged.\n"), "{rest}");
    assert_eq!(case.writes(), 9, "no step was taken twice");
}

#[tokio::test]
async fn json_tells_every_change() {
    let case = Case::new().await;
    let json = case.apply(FILE, &["--output", "json"]).await.json();
    golden::check("apply.json", &format!("{json:#}\n"));
}

#[tokio::test]
async fn a_file_comes_from_standard_input() {
    let case = Case::new().await;
    let ran = case.shell.feed(&["policy", "apply", "-f", "-"], "groups: [{name: new}]\n").await.ok();
    assert_eq!(ran, "create    group     new\n\n1 created, 0 updated, 0 deleted, 0 unchanged.\n");
    let ran = case.shell.run(&["policy", "apply", "-f", "/nonexistent.yaml"]).await;
    assert_eq!(ran.code, 2);
}

#[tokio::test]
async fn posture_checks_and_the_order_of_rules_are_compared() {
    let case = Case::new().await;
    let file = |checks: &str| {
        format!(
            "policies:\n  - name: users-to-web\n    posture_checks: {checks}\n    rules:\n\
             \x20     - {{name: no telnet, from: engineering, to: 'resource:web-1', service: tcp/23, action: drop}}\n\
             \x20     - {{name: https, from: engineering, to: web, service: tcp/443}}\n"
        )
    };
    let out = case.apply(&file("[kernel]"), &[]).await.ok();
    assert!(out.contains("posture checks: disk encrypted -> kernel"), "{out}");
    assert!(out.contains("order of rules: https, no telnet -> no telnet, https"), "{out}");
    assert_eq!(
        case.apply(&file("[kernel]"), &[]).await.ok(),
        "0 created, 0 updated, 0 deleted, 1 unchanged.\n"
    );
    let out = case.apply(&file("[]"), &[]).await.ok();
    assert!(out.contains("posture checks: kernel -> none"), "{out}");
}

#[tokio::test]
async fn an_ssh_rule_stays_one() {
    let case = Case::new().await;
    case.fake.data().policies.push(json!({"id": "y2", "name": "ssh", "description": "", "enabled": true, "rules": [
        {"id": "l3", "name": "ssh", "description": "", "enabled": true, "action": "accept", "bidirectional": false,
         "protocol": "netbird-ssh", "ports": ["22"], "authorized_groups": {"g1": ["root"]},
         "sources": [{"id": "g1", "name": "engineering"}], "destinations": [{"id": "g0", "name": "All"}]}]}));
    let file = "policies: [{name: ssh, description: changed, rules: [{from: engineering, to: All, service: netbird-ssh/22}]}]";
    case.apply(file, &[]).await.ok();
    let (_, _, body) = case.fake.data().writes[0].clone();
    assert_eq!(body["rules"][0]["protocol"], "netbird-ssh");
    assert_eq!(body["rules"][0]["authorized_groups"], json!({"g1": ["root"]}));
}
