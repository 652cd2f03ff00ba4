use serde_json::{Value, json};

use crate::harness::{Server, message, text};

fn body(name: &str, key: &str, rules: &[&str]) -> Value {
    json!({"name": name, "wg_pub_key": key, "rules": rules})
}

const KEY: &str = "3cjQNjPUtxvGkVoDKDKcGBL3pDbXAcVEHNiGHs42mDw=";
const OTHER_KEY: &str = "qs3R8yL0qDCFeGL8XVzPvKCIzKmfTVzqxyMl4RGhFAs=";

#[tokio::test]
async fn temporary_access_opens_what_it_names_and_nothing_else_and_goes_with_its_peer() {
    let server = Server::start().await;
    let (target, other) = (server.peer("target").await, server.peer("other").await);
    let path = format!("/api/peers/{}/temporary-access", target.id);
    let made =
        server.owner.created(&path, body("support", KEY, &["tcp/80", "udp/100-200", "netbird-ssh/22"])).await;
    let id = text(&made, "id");
    assert_eq!(made["rules"], json!(["tcp/80", "udp/100-200", "netbird-ssh/22"]));
    assert_eq!(
        made["remote"]["allowed_ips"],
        json!([format!("{}/32", target.ip), format!("{}/128", target.ipv6)])
    );
    let (_, peer) = server.owner.get(&format!("/api/peers/{id}")).await;
    assert_eq!(
        (&peer["name"], &peer["ephemeral"], &peer["groups"]),
        (&json!("support"), &json!(true), &json!([]))
    );
    assert_eq!(made["addresses"][0], format!("{}/32", text(&peer, "ip")));

    let (_, policy) = server.owner.get(&format!("/api/policies/{id}")).await;
    assert_eq!(policy["name"], "temporary access of support");
    let rules = policy["rules"].as_array().unwrap();
    let protocols: Vec<&Value> = rules.iter().map(|rule| &rule["protocol"]).collect();
    assert_eq!(protocols, ["tcp", "udp", "netbird-ssh"]);
    assert_eq!(rules[0]["sourceResource"], json!({"id": id, "type": "peer"}));
    assert_eq!(rules[1]["port_ranges"], json!([{"start": 100, "end": 200}]));

    // The account's policy from All to All says nothing of it.
    for (source, destination, service, allowed) in [
        ("support", "target", "80/tcp", true),
        ("support", "target", "150/udp", true),
        ("support", "target", "22/tcp", true),
        ("support", "target", "81/tcp", false),
        ("support", "other", "80/tcp", false),
        ("target", "support", "80/tcp", false),
    ] {
        let path = format!("/api/explain?source={source}&destination={destination}&service={service}");
        let (_, told) = server.owner.get(&path).await;
        assert_eq!(told["allowed"], allowed, "{path}: {told}");
    }

    let later = sluicegate_control::ids::now() + 1;
    assert_eq!(server.store.peers_without_agent().await.unwrap(), std::slice::from_ref(&id));
    server.store.peers_heard(&[id.clone(), other.id]).await.unwrap();
    assert_eq!(server.store.delete_stale_ephemeral(0).await.unwrap(), 0, "somebody hears of it");
    assert_eq!(server.store.delete_stale_ephemeral(later + 60_000).await.unwrap(), 1);
    assert_eq!(server.owner.get(&format!("/api/peers/{id}")).await.0, 404);
    assert_eq!(server.owner.get(&format!("/api/policies/{id}")).await.0, 404);
    let codes = server.codes().await;
    assert_eq!(
        codes[codes.len() - 4..],
        ["peer.user.add", "policy.add", "policy.delete", "user.peer.delete"]
    );
}

#[tokio::test]
async fn a_peer_with_temporary_access_is_deleted_like_any_other() {
    let server = Server::start().await;
    let target = server.peer("target").await;
    let path = format!("/api/peers/{}/temporary-access", target.id);
    let made = server.owner.created(&path, body("target", KEY, &["all"])).await;
    assert_eq!(made["name"], "target-1", "names are unique");
    let answer = server.owner.delete(&format!("/api/peers/{}", target.id)).await;
    assert_eq!(
        (answer.0, message(&answer)),
        (400, "peer has been linked to policy: temporary access of target-1")
    );
    assert_eq!(server.owner.delete(&format!("/api/peers/{}", text(&made, "id"))).await.0, 200);
    assert_eq!(server.owner.delete(&format!("/api/peers/{}", target.id)).await.0, 200);
}

#[tokio::test]
async fn wrong_requests_for_temporary_access_are_refused_and_leave_nothing() {
    let server = Server::start().await;
    let target = server.peer("target").await;
    let path = format!("/api/peers/{}/temporary-access", target.id);
    let nothing = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (body, said) in [
        (body("", KEY, &["all"]), "name"),
        (body("x", "no key", &["all"]), "no WireGuard key"),
        (body("x", "c2hvcnQ=", &["all"]), "no WireGuard key"),
        (body("x", nothing, &["all"]), "is empty"),
        (body("x", KEY, &[]), "0 of them"),
        (body("x", KEY, &["all"; 65]), "65 of them"),
        (body("x", KEY, &["tcp/0"]), "not a port"),
        (body("x", KEY, &["tcp/90-80"]), "before it starts"),
        (body("x", KEY, &["quic/443"]), "does not start with a protocol"),
    ] {
        let answer = server.owner.post(&path, body.clone()).await;
        assert!(answer.0 == 422 && message(&answer).contains(said), "{body}: {answer:?}");
    }
    let answer = server.owner.post("/api/peers/nobody/temporary-access", body("x", KEY, &["all"])).await;
    assert_eq!(answer.0, 404);
    server.owner.created(&path, body("x", KEY, &["tcp/1"])).await;
    assert_eq!(server.owner.post(&path, body("y", KEY, &["tcp/1"])).await.0, 409);
    server.owner.created(&path, body("y", OTHER_KEY, &["tcp/1"])).await;
    let (_, peers) = server.owner.get("/api/peers").await;
    assert_eq!(peers.as_array().unwrap().len(), 3);
    let network_admin = server.user("network_admin").await;
    assert_eq!(network_admin.post(&path, body("z", KEY, &["all"])).await.0, 403);
}
