//! `sluice policy` without any control: files validated, formatted, tested and explained by themselves.

use sluicegate_policy::file::{THREE_TIER, schema};

use crate::run::{Ran, Shell};

const TESTS: &str = "
tests:
  - name: users reach the web
    from: [engineering, contractors]
    may_reach: ['resource:web-server tcp/443', 'fd20::10 tcp/443']
    may_not_reach: ['database all']
";

/// No control answers here.
fn shell() -> Shell {
    Shell::new("http://127.0.0.1:9")
}

async fn on_file(shell: &Shell, text: &str, words: &[&str]) -> Ran {
    let path = shell.path("site.yml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let words: Vec<&str> = words.iter().map(|word| if *word == "FILE" { path } else { word }).collect();
    let ran = shell.bare(&words, text).await;
    Ran { out: ran.out.replace(path, "site.yml"), err: ran.err.replace(path, "site.yml"), ..ran }
}

#[tokio::test]
async fn a_file_is_validated_alone_and_every_mistake_has_its_place() {
    let shell = shell();
    let out = on_file(&shell, THREE_TIER, &["policy", "validate", "--offline", "-f", "FILE"]).await.ok();
    assert!(
        out.starts_with("site.yml makes sense: 6 groups, 0 posture checks, 1 networks, 2 policies, 0 tests."),
        "{out}"
    );
    let wrong = THREE_TIER.replace("metric: 100", "metric: 0").replace("tcp/9100", "tcp/99100");
    let ran = on_file(&shell, &wrong, &["policy", "validate", "--offline", "-f", "FILE"]).await;
    assert_eq!(ran.code, 2);
    assert_eq!(
        ran.err,
        "cannot use site.yml\n   why: line 23, column 35: metric 0 is not between 1 and 9999\n        \
         line 36, column 18: `99100` in `tcp/99100` is not a port; write numbers from 1 to 65535 and ranges like 8000-8999\n  next: correct the file; nothing was written"
    );
    let ran =
        on_file(&shell, &wrong, &["policy", "validate", "--offline", "-f", "-", "--output", "json"]).await;
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&said["schema"], &said["valid"]), (&"sluicegate.policy-validate/1".into(), &false.into()));
    assert_eq!((&said["problems"][1]["line"], &said["problems"][1]["column"]), (&36.into(), &18.into()));
    assert_eq!(shell.bare(&["policy", "schema"], "").await.ok(), schema());
}

#[tokio::test]
async fn local_users_for_ssh_are_no_use_and_validation_says_so() {
    let shell = shell();
    let limited = "policies:\n  - name: p\n    rules:\n      - {from: All, to: All, service: netbird-ssh/22, ssh_users: {All: [root]}}\n";
    let ran = on_file(&shell, limited, &["policy", "validate", "--offline", "-f", "FILE"]).await;
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("line 4, column 55: `ssh_users` is not supported: agents have no SSH server"),
        "{}",
        ran.err
    );
    let served = limited.replace(", ssh_users: {All: [root]}", "");
    on_file(&shell, &served, &["policy", "validate", "--offline", "-f", "FILE"]).await.ok();
}

#[tokio::test]
async fn a_file_is_formatted_in_place_once() {
    let shell = shell();
    let ugly = "policies: # all\n- {name: p, rules: [{from: All, service: tcp/1, to: All}]}\n";
    let ran = on_file(&shell, ugly, &["policy", "fmt", "--check", "-f", "FILE"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (7, ""));
    assert_eq!(std::fs::read_to_string(shell.path("site.yml")).unwrap(), ugly);
    let out = on_file(&shell, ugly, &["policy", "fmt", "-f", "FILE"]).await.ok();
    assert_eq!(out, "site.yml: written\n");
    let formatted = std::fs::read_to_string(shell.path("site.yml")).unwrap();
    assert_eq!(
        formatted,
        "policies:  # all\n  - name: p\n    rules:\n      - from: All\n        to: All\n        service: tcp/1\n"
    );
    assert_eq!(on_file(&shell, ugly, &["policy", "fmt", "-f", "-"]).await.ok(), formatted);
    on_file(&shell, &formatted, &["policy", "fmt", "--check", "-f", "FILE"]).await.ok();
    assert_eq!(on_file(&shell, "groups: [", &["policy", "fmt", "-f", "FILE"]).await.code, 2);
    assert_eq!(std::fs::read_to_string(shell.path("site.yml")).unwrap(), "groups: [");
}

#[tokio::test]
async fn tests_and_flows_are_judged_alone() {
    let shell = shell();
    let file = format!("{THREE_TIER}{TESTS}");
    let out = on_file(&shell, &file, &["policy", "test", "--offline", "-f", "FILE"]).await.ok();
    assert_eq!(out, "Tests: 1 of 1 hold\n  holds  users reach the web (6 of 6 pairs)\n");
    let open = file.replace("to: web, service: tcp/443", "to: [web, database], service: tcp/443");
    let ran = on_file(&shell, &open, &["policy", "test", "--offline", "-f", "FILE"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (6, ""));
    assert_eq!(
        ran.out,
        "Tests: 0 of 1 hold\n  FAILS  users reach the web (4 of 6 pairs)\n           \
         alice may not reach database-server (10.20.0.20) tcp/443: policy 'web for users', rule 'web for users' admits it\n           \
         bob may not reach database-server (10.20.0.20) tcp/443: policy 'web for users', rule 'web for users' admits it\n"
    );
    let json =
        on_file(&shell, &open, &["policy", "test", "--offline", "-f", "FILE", "--output", "json"]).await;
    let said: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&said["hold"], &said["tests"][0]["wrong"]), (&false.into(), &2.into()));

    for (flow, code, says) in [
        ("10.20.0.10:443/tcp", 0, "through  gateway-1 (metric 100)"),
        ("[fd20::10]:443/tcp", 0, "policy 'web for users'"),
        ("database-server:443/tcp", 4, "no enabled accept rule leads to database-server"),
    ] {
        let words = ["policy", "explain", "--offline", "-f", "FILE", "alice", flow];
        let ran = on_file(&shell, &file, &words).await;
        assert!(ran.code == code && ran.out.contains(says), "{flow}: {}{}", ran.out, ran.err);
    }
    assert_eq!(
        shell.bare(&["policy", "explain", "-f", "x", "a", "b:1/tcp"], "").await.code,
        2,
        "it would ask control"
    );
}
