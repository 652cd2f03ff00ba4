use serde_json::{Value, json};

use crate::harness::{Server, text};

fn rule(name: &str, group: &str) -> Value {
    json!({"name": name, "enabled": true, "action": "accept", "bidirectional": false, "protocol": "tcp",
        "ports": ["443"], "sources": [group], "destinations": [group]})
}

/// `rule` with some fields set, or with `null` removed.
fn with(mut rule: Value, fields: Value) -> Value {
    for (field, value) in fields.as_object().unwrap() {
        rule[field] = value.clone();
    }
    rule
}

fn policy(name: &str, rules: &[Value]) -> Value {
    json!({"name": name, "description": "d", "enabled": true, "source_posture_checks": null, "rules": rules})
}

#[tokio::test]
async fn all_rules_of_a_policy_are_kept_with_their_own_ids() {
    let server = Server::start().await;
    let (all, ops) = (server.all().await, server.group("ops").await);
    let rules = [
        rule("web", &all),
        with(
            rule("range", &ops),
            json!({"ports": [], "port_ranges": [{"start": 8080, "end": 8083}], "protocol": "udp"}),
        ),
        with(
            rule("no", &all),
            json!({"action": "drop", "ports": [], "protocol": "icmp", "bidirectional": true}),
        ),
        with(rule("ssh", &ops), json!({"protocol": "netbird-ssh", "ports": [], "authorized_groups": {}})),
    ];
    let made = server.owner.created("/api/policies", policy("p", &rules)).await;
    let ids: std::collections::BTreeSet<String> =
        made["rules"].as_array().unwrap().iter().map(|rule| text(rule, "id")).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(made["rules"][0]["ports"], json!(["443"]));
    assert_eq!(made["rules"][0]["bidirectional"], false);
    assert!(made["rules"][0].get("port_ranges").is_none());
    assert_eq!(made["rules"][1]["port_ranges"], json!([{"start": 8080, "end": 8083}]));
    assert_eq!(made["rules"][1]["sources"][0]["name"], "ops");
    assert_eq!(made["rules"][2]["sources"][0]["name"], "All", "a group is shown in every rule that names it");
    assert_eq!(made["rules"][2]["bidirectional"], true);
    assert_eq!(made["rules"][3]["protocol"], "netbird-ssh");

    let path = format!("/api/policies/{}", text(&made, "id"));
    assert_eq!(server.owner.get(&path).await, (200, made.clone()));
    let (_, list) = server.owner.get("/api/policies").await;
    assert_eq!(list[1], made);
    assert_eq!(server.owner.delete(&path).await, (200, json!({})));
    assert_eq!(server.owner.get(&path).await.0, 404);
}

#[tokio::test]
async fn a_3_a_policy_without_name_or_rules_is_refused() {
    let server = Server::start().await;
    let all = server.all().await;
    assert_eq!(server.owner.post("/api/policies", policy("", &[rule("r", &all)])).await.0, 422);
    assert_eq!(server.owner.post("/api/policies", policy("  ", &[rule("r", &all)])).await.0, 422);
    assert_eq!(server.owner.post("/api/policies", policy("p", &[])).await.0, 422);
    assert_eq!(server.owner.post("/api/policies", json!({})).await.0, 422);
}

#[tokio::test]
async fn a_4_an_unknown_policy_is_not_found() {
    let server = Server::start().await;
    let all = server.all().await;
    assert_eq!(server.owner.get("/api/policies/unknown").await.0, 404);
    assert_eq!(server.owner.delete("/api/policies/unknown").await.0, 404);
    assert_eq!(server.owner.put("/api/policies/unknown", policy("p", &[rule("r", &all)])).await.0, 404);
}

#[tokio::test]
async fn a_15_wrong_ports_are_refused() {
    let server = Server::start().await;
    let all = server.all().await;
    for fields in [
        json!({"port_ranges": [{"start": 1, "end": 2}]}),
        json!({"ports": ["0"]}),
        json!({"ports": ["65536"]}),
        json!({"ports": ["-1"]}),
        json!({"ports": ["http"]}),
        json!({"ports": [""]}),
        json!({"protocol": "icmp"}),
        json!({"protocol": "all"}),
        json!({"ports": [], "protocol": "icmp", "port_ranges": [{"start": 1, "end": 2}]}),
        json!({"ports": [], "port_ranges": [{"start": 0, "end": 2}]}),
        json!({"ports": [], "port_ranges": [{"start": 1, "end": 65536}]}),
        json!({"ports": [], "port_ranges": [{"start": 2, "end": 1}]}),
        json!({"ports": [], "port_ranges": [{"start": 65537, "end": 65538}]}),
    ] {
        let body = policy("p", &[with(rule("r", &all), fields.clone())]);
        assert_eq!(server.owner.post("/api/policies", body).await.0, 422, "{fields}");
    }
    for fields in [
        json!({"ports": ["1", "65535"]}),
        json!({"ports": [], "port_ranges": [{"start": 1, "end": 65535}]}),
        json!({"ports": [], "protocol": "udp"}),
    ] {
        let body = policy(&fields.to_string(), &[with(rule("r", &all), fields.clone())]);
        assert_eq!(server.owner.post("/api/policies", body).await.0, 200, "{fields}");
    }
}

#[tokio::test]
async fn what_a_rule_names_must_exist_and_be_what_it_says() {
    let server = Server::start().await;
    let all = server.all().await;
    let network = server.network("site").await;
    let resource = server.resource(&network, "db", "10.0.0.5").await;
    let peer = server.peer("web").await.id;
    let wrong = [
        json!({"sources": ["nothing"]}),
        json!({"sources": [all, "nothing"]}),
        json!({"destinations": []}),
        json!({"sources": null}),
        json!({"sourceResource": {"id": peer, "type": "peer"}}),
        json!({"destinations": [], "destinationResource": {"id": "nothing", "type": "host"}}),
        json!({"destinations": [], "destinationResource": {"id": "nothing", "type": "peer"}}),
        json!({"destinations": [], "destinationResource": {"id": resource, "type": "subnet"}}),
        json!({"destinations": [], "destinationResource": {"id": resource, "type": "peer"}}),
        json!({"action": "allow"}),
        json!({"action": ""}),
        json!({"protocol": "gre"}),
        json!({"name": ""}),
        json!({"protocol": "netbird-ssh", "authorized_groups": {"nothing": []}}),
        json!({"id": "nothing"}),
    ];
    for fields in wrong {
        let body = policy("p", &[with(rule("r", &all), fields.clone())]);
        assert_eq!(server.owner.post("/api/policies", body).await.0, 422, "{fields}");
    }
    let mut body = policy("p", &[rule("r", &all)]);
    body["source_posture_checks"] = json!(["check"]);
    assert_eq!(server.owner.post("/api/policies", body).await.0, 422);
    let (_, policies) = server.owner.get("/api/policies").await;
    assert_eq!(policies.as_array().unwrap().len(), 1, "nothing was half applied");

    let right = with(
        rule("r", &all),
        json!({"sources": [], "sourceResource": {"id": peer, "type": "peer"},
        "destinations": null, "destinationResource": {"id": resource, "type": "host"}}),
    );
    let made = server.owner.created("/api/policies", policy("p", &[right])).await;
    assert_eq!(made["rules"][0]["sourceResource"], json!({"id": peer, "type": "peer"}));
    assert_eq!(made["rules"][0]["destinationResource"], json!({"id": resource, "type": "host"}));
}

#[tokio::test]
async fn a_second_policy_of_a_name_is_refused() {
    let server = Server::start().await;
    let all = server.all().await;
    assert_eq!(server.owner.post("/api/policies", policy("Default", &[rule("r", &all)])).await.0, 409);
    let made = server.owner.created("/api/policies", policy("p", &[rule("r", &all)])).await;
    let path = format!("/api/policies/{}", text(&made, "id"));
    assert_eq!(server.owner.put(&path, policy("Default", &[rule("r", &all)])).await.0, 409);
}

#[tokio::test]
async fn a_put_keeps_rules_it_names_by_id_or_name_and_slots_are_dense() {
    let server = Server::start().await;
    let all = server.all().await;
    let body = policy("p", &[rule("a", &all), rule("b", &all), rule("c", &all)]);
    let made = server.owner.created("/api/policies", body.clone()).await;
    let path = format!("/api/policies/{}", text(&made, "id"));
    let ids: Vec<String> = (0..3).map(|index| text(&made["rules"][index], "id")).collect();
    let slots = async || {
        let policies = server.store.policies().await.unwrap();
        policies[1].rules.iter().map(|rule| (rule.spec.name.clone(), rule.slot)).collect::<Vec<_>>()
    };
    // `Default` has slot 0.
    assert_eq!(slots().await, [("a".into(), 1), ("b".into(), 2), ("c".into(), 3)]);

    let revision = server.store.revision().await.unwrap();
    assert_eq!(server.owner.put(&path, body).await, (200, made.clone()));
    assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");

    // c by name goes first, a by id is renamed, b goes, d comes and takes b's slot.
    let renamed = with(rule("a2", &all), json!({"id": ids[0]}));
    let (status, changed) =
        server.owner.put(&path, policy("p", &[rule("c", &all), renamed, rule("d", &all)])).await;
    assert_eq!(status, 200);
    assert_eq!(text(&changed["rules"][0], "id"), ids[2]);
    assert_eq!(text(&changed["rules"][1], "id"), ids[0]);
    assert!(!ids.contains(&text(&changed["rules"][2], "id")));
    assert_eq!(slots().await, [("c".into(), 3), ("a2".into(), 1), ("d".into(), 2)]);

    let (_, default) = server.owner.get("/api/policies").await;
    let foreign = with(rule("x", &all), json!({"id": default[0]["rules"][0]["id"]}));
    assert_eq!(server.owner.put(&path, policy("p", &[foreign])).await.0, 422);
    let twice = with(rule("x", &all), json!({"id": ids[0]}));
    assert_eq!(server.owner.put(&path, policy("p", &[twice.clone(), twice])).await.0, 422);
    assert_eq!(server.owner.get(&path).await, (200, changed));

    let (_, events) = server.owner.get("/api/events/audit").await;
    assert_eq!(events[0]["activity_code"], "policy.update");
    let before: Value = serde_json::from_str(events[0]["meta"]["before"].as_str().unwrap()).unwrap();
    let after: Value = serde_json::from_str(events[0]["meta"]["after"].as_str().unwrap()).unwrap();
    assert_eq!((&before["rules"][0]["name"], &after["rules"][0]["name"]), (&json!("a"), &json!("c")));
    assert_eq!(events[0]["initiator_name"], "bootstrap");
}

#[tokio::test]
async fn a_port_named_twice_is_kept_once() {
    let server = Server::start().await;
    let group = server.group("g").await;
    let ports = json!({"protocol": "tcp", "ports": ["443", "80", "443", "80", "8080"]});
    let body = policy("p", &[with(rule("r", &group), ports)]);
    let created = server.owner.created("/api/policies", body).await;
    assert_eq!(created["rules"][0]["ports"], json!(["443", "80", "8080"]));
}

#[tokio::test]
async fn no_rule_is_limited_to_local_users_but_what_was_stored_may_stay() {
    let server = Server::start().await;
    let (all, ops) = (server.all().await, server.group("ops").await);
    let ssh = with(rule("ssh", &ops), json!({"protocol": "netbird-ssh", "ports": []}));
    let limited = |users: Value| policy("p", &[with(ssh.clone(), json!({"authorized_groups": users}))]);
    for users in [json!({ops.clone(): ["root"]}), json!({ops.clone(): []}), json!({"nothing": ["root"]})] {
        let (status, answer) = server.owner.post("/api/policies", limited(users.clone())).await;
        assert_eq!(status, 422, "{users}");
        let message = text(&answer, "message");
        assert!(
            message.contains("rule ssh: authorized_groups is not supported: agents have no SSH"),
            "{message}"
        );
        assert!(message.contains("leave it out"), "{message}");
    }
    let other =
        policy("p", &[with(rule("web", &ops), json!({"authorized_groups": {ops.clone(): ["root"]}}))]);
    assert_eq!(server.owner.post("/api/policies", other).await.0, 422, "whatever the protocol");

    let made = server.owner.created("/api/policies", policy("p", std::slice::from_ref(&ssh))).await;
    let path = format!("/api/policies/{}", text(&made, "id"));
    assert_eq!(server.owner.put(&path, limited(json!({ops.clone(): ["root"]}))).await.0, 422);
    server
        .sql(&format!("UPDATE rules SET authorized_groups = '{{\"{ops}\":[\"root\"]}}' WHERE name = 'ssh'"))
        .await;
    let stored = json!({ops.clone(): ["root"]});
    assert_eq!(server.owner.get(&path).await.1["rules"][0]["authorized_groups"], stored);
    let mut put = limited(stored.clone());
    put["description"] = json!("another");
    let (status, changed) = server.owner.put(&path, put.clone()).await;
    assert_eq!((status, &changed["rules"][0]["authorized_groups"]), (200, &stored), "{changed}");
    put["rules"][0]["sources"] = json!([ops, all]);
    assert_eq!(server.owner.put(&path, put).await.0, 422, "its groups are the sources no more");
    assert_eq!(server.owner.put(&path, limited(json!({ops: ["root", "admin"]}))).await.0, 422);
    let (status, changed) = server.owner.put(&path, policy("p", std::slice::from_ref(&ssh))).await;
    assert_eq!((status, changed["rules"][0].get("authorized_groups")), (200, None));
    assert_eq!(server.owner.put(&path, limited(stored)).await.0, 422, "what is gone is gone");
}
