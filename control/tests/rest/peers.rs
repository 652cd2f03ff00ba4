use serde_json::json;
use sluicegate_control::store::PeerFacts;

use crate::harness::{Server, message, text};

#[tokio::test]
async fn peers_are_listed_filtered_changed_and_deleted() {
    let server = Server::start().await;
    let (web, db) = (server.peer("web").await, server.peer("db").await);
    let (_, list) = server.owner.get("/api/peers").await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["accessible_peers_count"], 1);
    assert_eq!(list[0]["role"], "peer");
    let found = async |query: String| {
        let (_, list) = server.owner.get(&format!("/api/peers?{query}")).await;
        list.as_array().unwrap().iter().map(|peer| text(peer, "name")).collect::<Vec<_>>()
    };
    assert_eq!(found("name=db".into()).await, ["db"]);
    assert_eq!(found("name=d".into()).await, Vec::<String>::new());
    assert_eq!(found(format!("ip={}", web.ip)).await, ["web"]);
    assert_eq!(found(format!("ip={}", web.ipv6)).await, ["web"]);
    assert_eq!(found(format!("ip={}&name=db", web.ip)).await, Vec::<String>::new());

    let path = format!("/api/peers/{}", web.id);
    let (status, peer) = server.owner.put(&path, json!({"name": "www", "ssh_enabled": false})).await;
    assert_eq!((status, &peer["name"], &peer["ssh_enabled"]), (200, &json!("www"), &json!(false)));
    assert_eq!(peer["dns_label"], "www.sluicegate.internal");
    let revision = server.store.revision().await.unwrap();
    assert_eq!(server.owner.put(&path, json!({"name": "www", "ssh_enabled": false})).await.0, 200);
    assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");

    assert_eq!(server.owner.put(&path, json!({"name": ""})).await.0, 422);
    assert_eq!(server.owner.put(&path, json!({"name": "db"})).await.0, 409);
    assert_eq!(server.owner.delete(&path).await, (200, json!({})));
    for answer in [server.owner.get(&path).await, server.owner.delete(&path).await] {
        assert_eq!(answer.0, 404);
    }
    assert_eq!(server.owner.put(&path, json!({"name": "x"})).await.0, 404);
    assert!(server.store.peer(&db.id).await.is_ok());
}

#[tokio::test]
async fn an_address_is_changed_only_to_a_free_one_of_the_range() {
    let server = Server::start().await;
    let (web, db) = (server.peer("web").await, server.peer("db").await);
    let state = server.store.state().await.unwrap();
    let path = format!("/api/peers/{}", web.id);
    let put = async |field: &str, address: String| {
        let mut body = json!({"name": "web"});
        body[field] = json!(address);
        server.owner.put(&path, body).await.0
    };
    assert_eq!(put("ip", db.ip.to_string()).await, 409);
    assert_eq!(put("ip", "192.0.2.1".into()).await, 422);
    assert_eq!(put("ip", state.overlay_v4.network().to_string()).await, 422);
    assert_eq!(put("ip", state.overlay_v4.broadcast().to_string()).await, 422);
    assert_eq!(put("ip", "nonsense".into()).await, 422);
    assert_eq!(put("ipv6", db.ipv6.to_string()).await, 409);
    assert_eq!(put("ipv6", "2001:db8::1".into()).await, 422);
    let free = state.overlay_v4.hosts().find(|ip| *ip != web.ip && *ip != db.ip).unwrap();
    assert_eq!(put("ip", free.to_string()).await, 200);
    assert_eq!(server.store.state().await.unwrap().peers[&web.id].v4, free);
}

#[tokio::test]
async fn accessible_peers_are_those_at_the_other_end_of_a_rule() {
    let server = Server::start().await;
    let (a, b, c) = (server.peer("a").await, server.peer("b").await, server.peer("c").await);
    let (_, policies) = server.owner.get("/api/policies").await;
    server.owner.delete(&format!("/api/policies/{}", text(&policies[0], "id"))).await;
    let rule = json!({"name": "r", "enabled": true, "action": "accept", "protocol": "tcp", "ports": ["22"],
        "sourceResource": {"id": a.id, "type": "peer"}, "destinationResource": {"id": b.id, "type": "peer"}});
    server.owner.created("/api/policies", json!({"name": "p", "enabled": true, "rules": [rule]})).await;
    let of = async |id: &str| {
        let (status, list) = server.owner.get(&format!("/api/peers/{id}/accessible-peers")).await;
        assert_eq!(status, 200);
        list.as_array().unwrap().iter().map(|peer| text(peer, "name")).collect::<Vec<_>>()
    };
    assert_eq!(of(&a.id).await, ["b"]);
    assert_eq!(of(&b.id).await, ["a"]);
    assert_eq!(of(&c.id).await, Vec::<String>::new());
    assert_eq!(server.owner.get("/api/peers/nobody/accessible-peers").await.0, 404);
    let (_, list) = server.owner.get("/api/peers").await;
    let counts: Vec<i64> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| peer["accessible_peers_count"].as_i64().unwrap())
        .collect();
    assert_eq!(counts, [1, 1, 0]);
}

#[tokio::test]
async fn a_peer_that_a_router_or_a_policy_names_is_not_deleted() {
    let server = Server::start().await;
    let peer = server.peer("gw").await;
    let path = format!("/api/peers/{}", peer.id);
    let network = server.network("site").await;
    let routers = format!("/api/networks/{network}/routers");
    let router =
        server.owner.created(&routers, json!({"peer": peer.id, "metric": 10, "enabled": true})).await;
    let answer = server.owner.delete(&path).await;
    assert_eq!((answer.0, message(&answer)), (400, "peer has been linked to network router: site"));
    server.owner.delete(&format!("{routers}/{}", text(&router, "id"))).await;

    let all = server.all().await;
    let rule = json!({"name": "r", "action": "accept", "protocol": "icmp", "sources": [all],
        "destinationResource": {"id": peer.id, "type": "peer"}});
    let policy = server.owner.created("/api/policies", json!({"name": "p", "rules": [rule]})).await;
    let answer = server.owner.delete(&path).await;
    assert_eq!((answer.0, message(&answer)), (400, "peer has been linked to policy: p"));
    server.owner.delete(&format!("/api/policies/{}", text(&policy, "id"))).await;
    assert_eq!(server.owner.delete(&path).await.0, 200);
}

#[tokio::test]
async fn what_an_agent_says_of_itself_is_shown_and_only_an_endpoint_is_a_change() {
    let server = Server::start().await;
    let peer = server.peer("gw").await;
    let path = format!("/api/peers/{}", peer.id);
    let revision = server.store.revision().await.unwrap();
    let facts = PeerFacts {
        connection_ip: Some("::ffff:192.0.2.7".parse().unwrap()),
        version: "9.9".into(),
        ..PeerFacts::default()
    };
    server.store.peer_seen(&peer.id, &facts).await.unwrap();
    let (_, shown) = server.owner.get(&path).await;
    assert_eq!((&shown["connected"], &shown["connection_ip"]), (&json!(true), &json!("192.0.2.7")));
    assert_eq!((&shown["version"], &shown["os"]), (&json!("9.9"), &json!("linux")));
    server.store.peer_disconnected(&peer.id).await.unwrap();
    let (_, shown) = server.owner.get(&path).await;
    assert_eq!(shown["connected"], false);
    assert_eq!(server.store.revision().await.unwrap(), revision);

    let endpoint = Some("198.51.100.1:51820".parse().unwrap());
    assert!(server.store.set_peer_endpoint(&peer.id, endpoint).await.unwrap());
    assert!(!server.store.set_peer_endpoint(&peer.id, endpoint).await.unwrap());
    assert_eq!(server.store.revision().await.unwrap(), revision + 1);
    assert_eq!(server.store.snapshot().await.unwrap().agents[&peer.id].endpoint, endpoint);
    assert!(server.store.peer_seen("nobody", &facts).await.is_err());
}

#[tokio::test]
async fn no_peer_is_given_an_ssh_server_but_what_was_stored_may_stay() {
    let server = Server::start().await;
    let peer = server.peer("web").await.id;
    let path = format!("/api/peers/{peer}");
    let on = |name: &str| json!({"name": name, "ssh_enabled": true});
    let answer = server.owner.put(&path, on("web")).await;
    assert_eq!(answer.0, 422);
    assert!(
        message(&answer).contains("ssh_enabled is not supported: agents have no SSH server"),
        "{answer:?}"
    );
    server.sql("UPDATE peers SET ssh_enabled = TRUE").await;
    let (status, changed) = server.owner.put(&path, on("www")).await;
    assert_eq!((status, &changed["name"], &changed["ssh_enabled"]), (200, &json!("www"), &json!(true)));
    let (status, changed) = server.owner.put(&path, json!({"name": "www", "ssh_enabled": false})).await;
    assert_eq!((status, &changed["ssh_enabled"]), (200, &json!(false)));
    assert_eq!(server.codes().await.last().unwrap(), "peer.ssh.disable");
    assert_eq!(server.owner.put(&path, on("www")).await.0, 422);
}
