use serde_json::json;

use crate::harness::Server;

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let server = Server::start().await;
    let group = server.group("ops").await;
    let network = server.network("site").await;
    let resource = server.resource(&network, "db", "10.0.0.5").await;
    let peer = server.peer("gw").await;
    server.store.peer_seen(&peer.id, &Default::default()).await.unwrap();
    let rule = json!({"name": "r", "enabled": true, "action": "accept", "protocol": "tcp", "ports": ["5432"],
        "sources": [group], "destinationResource": {"id": resource, "type": "host"}});
    server.owner.created("/api/policies", json!({"name": "p", "enabled": true, "rules": [rule]})).await;
    let paths = [
        "/api/accounts",
        "/api/groups",
        "/api/policies",
        "/api/networks",
        "/api/setup-keys",
        "/api/events/audit",
    ];
    let mut before = Vec::new();
    for path in paths {
        before.push(server.owner.get(path).await);
    }
    let snapshot = server.store.snapshot().await.unwrap();

    let server = Server::start_in(server.stop().await).await;
    for (path, before) in paths.into_iter().zip(before) {
        assert_eq!(server.owner.get(path).await, before, "{path}");
    }
    let again = server.store.snapshot().await.unwrap();
    assert_eq!(
        (again.revision, &again.state, &again.agents),
        (snapshot.revision, &snapshot.state, &snapshot.agents)
    );
    assert_eq!(*server.store.changes().borrow(), snapshot.revision);
    let (_, shown) = server.owner.get(&format!("/api/peers/{}", peer.id)).await;
    assert_eq!(shown["connected"], false, "no stream outlives control");
}
