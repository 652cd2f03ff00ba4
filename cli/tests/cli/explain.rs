//! `policy explain`.

use serde_json::{Value, json};

use crate::fake::Fake;
use crate::golden;
use crate::run::{Ran, Shell};
use crate::site;

fn rule(policy: &str, rule: &str, action: &str, service: &str) -> Value {
    json!({"policy_id": "y1", "policy_name": policy, "rule_id": "l1", "rule_name": rule, "action": action, "service": service})
}

fn answer(verdict: &str, rule: Value) -> Value {
    json!({
        "allowed": verdict == "allowed", "verdict": verdict, "summary": "a sentence", "service": "443/tcp",
        "source": {"peer_id": "p1", "name": "alice-laptop", "address": "100.90.0.2", "resources": []},
        "destination": {"peer_id": null, "name": null, "address": "10.20.0.10", "resources": ["web-1"]},
        "rule": rule, "gateway": null, "judgements": [], "missing": [], "near_misses": []
    })
}

fn gateway() -> Value {
    json!({"peer_id": "p3", "name": "gw-a", "metric": 100, "network": "berlin", "resource": "web-1", "prefix": "10.20.0.10/32",
           "masquerade": true, "others": [{"peer_id": "p4", "name": "gw-b", "metric": 200,
           "why": "its metric 200 is higher than 100"}]})
}

async fn explain(answer: Value, extra: &[&str]) -> (Ran, String) {
    let mut data = site::data();
    data.explain = answer;
    let fake = Fake::start(data).await;
    let words = ["policy", "explain", "alice-laptop", "10.20.0.10:443/tcp"];
    let ran = Shell::new(&fake.url).run(&[&words[..], extra].concat()).await;
    let asked = fake.data().asked.concat();
    (ran, asked)
}

#[tokio::test]
async fn an_allowed_flow_names_rule_and_gateway() {
    let mut told = answer("allowed", rule("users-to-web", "https", "accept", "tcp/443"));
    told["gateway"] = gateway();
    told["judgements"] =
        json!([{"agent_id": "p1", "agent_name": "alice-laptop", "accepts": true, "rule": null}]);
    let (ran, asked) = explain(told, &[]).await;
    assert_eq!(asked, "GET /api/explain?source=alice-laptop&destination=10.20.0.10&service=443%2Ftcp");
    golden::check("explain-allowed.txt", &ran.ok());
}

#[tokio::test]
async fn a_denied_flow_is_exit_code_4_and_names_what_is_missing() {
    let mut told = answer("no_rule", Value::Null);
    told["missing"] = json!([{"what": "source_in_no_rule", "sentence": "no enabled accept rule has bob among its sources"}]);
    told["near_misses"] = json!([{"rule": rule("users-to-web", "https", "accept", "tcp/443"),
        "unmet": [{"what": "source_not_in", "sentence": "the source is not in group engineering"}]}]);
    let (ran, _) = explain(told.clone(), &[]).await;
    assert_eq!((ran.code, ran.err.as_str()), (4, ""));
    golden::check("explain-denied.txt", &ran.out);

    let (ran, _) = explain(told, &["--output", "json"]).await;
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &json["schema"]), (4, &json!("sluicegate.policy-explain/1")));
}

#[tokio::test]
async fn agents_that_disagree_are_told_apart() {
    let accept = rule("users-to-web", "users-to-web", "accept", "all");
    let mut told = answer("dropped", rule("lock", "no web", "drop", "tcp/443"));
    told["gateway"] = gateway();
    told["judgements"] = json!([
        {"agent_id": "p1", "agent_name": "alice-laptop", "accepts": true, "rule": accept},
        {"agent_id": "p3", "agent_name": "gw-a", "accepts": false, "rule": told["rule"]}]);
    let (ran, _) = explain(told, &[]).await;
    assert_eq!(ran.code, 4);
    golden::check("explain-dropped.txt", &ran.out);
}

#[tokio::test]
async fn an_unknown_peer_is_a_failure_and_no_denial() {
    let mut told = answer("unknown", Value::Null);
    told["missing"] =
        json!([{"what": "no_such_peer", "sentence": "no peer has the id, name or address `alice-laptop`"}]);
    let (ran, _) = explain(told, &[]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.err,
        "cannot explain alice-laptop -> 10.20.0.10:443/tcp\n   why: no peer has the id, name or address `alice-laptop`\n  \
         next: see `sluice peer list` and `sluice network list`"
    );
}
