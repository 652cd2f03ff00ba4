use serde_json::json;

use crate::harness::{Server, message, text};

#[tokio::test]
async fn networks_are_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let network = server.owner.created("/api/networks", json!({"name": "site", "description": "d"})).await;
    assert_eq!(
        (&network["routers"], &network["policies"], &network["routing_peers_count"]),
        (&json!([]), &json!([]), &json!(0))
    );
    let path = format!("/api/networks/{}", text(&network, "id"));
    assert_eq!(server.owner.get(&path).await, (200, network.clone()));
    assert_eq!(server.owner.get("/api/networks").await, (200, json!([network])));
    let revision = server.store.revision().await.unwrap();
    assert_eq!(server.owner.put(&path, json!({"name": "site", "description": "d"})).await.0, 200);
    assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");
    let (_, changed) = server.owner.put(&path, json!({"name": "lab"})).await;
    assert_eq!((&changed["name"], &changed["description"]), (&json!("lab"), &json!("")));
    assert_eq!(server.owner.post("/api/networks", json!({"name": "lab"})).await.0, 409);
    assert_eq!(server.owner.post("/api/networks", json!({"name": ""})).await.0, 422);
    assert_eq!(server.owner.delete(&path).await, (200, json!({})));
    for answer in [server.owner.get(&path).await, server.owner.delete(&path).await] {
        assert_eq!(answer.0, 404);
    }
    assert_eq!(server.owner.put(&path, json!({"name": "x"})).await.0, 404);
}

#[tokio::test]
async fn resources_are_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let network = server.network("site").await;
    let group = server.group("servers").await;
    let path = format!("/api/networks/{network}/resources");
    let kinds = [
        ("10.0.0.5", "host", "10.0.0.5"),
        ("10.0.1.5/32", "host", "10.0.1.5/32"),
        ("10.0.2.5/24", "subnet", "10.0.2.5/24"),
        ("2001:DB8::1", "host", "2001:DB8::1"),
        ("2001:db8::/32", "subnet", "2001:db8::/32"),
        ("*.Example.org", "domain", "*.example.org"),
    ];
    for (address, kind, shown) in kinds {
        let body = json!({"name": address, "address": address, "enabled": true, "groups": [group]});
        let resource = server.owner.created(&path, body.clone()).await;
        assert_eq!((&resource["type"], &resource["address"]), (&json!(kind), &json!(shown)));
        assert_eq!(resource["groups"][0]["name"], "servers");
        let one = format!("{path}/{}", text(&resource, "id"));
        assert_eq!(server.owner.get(&one).await, (200, resource));
        let revision = server.store.revision().await.unwrap();
        assert_eq!(server.owner.put(&one, body).await.0, 200);
        assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");
    }
    let (_, list) = server.owner.get(&path).await;
    assert_eq!(list.as_array().unwrap().len(), kinds.len());
    let state = server.store.state().await.unwrap();
    let prefixes = |name: &str| {
        let resource =
            state.networks[&network].resources.values().find(|resource| resource.name == name).unwrap();
        resource.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(prefixes("10.0.2.5/24"), ["10.0.2.0/24"]);
    assert_eq!(prefixes("10.0.0.5"), ["10.0.0.5/32"]);
    assert_eq!(prefixes("*.Example.org"), Vec::<String>::new());

    let one = format!("{path}/{}", text(&list[0], "id"));
    let (status, changed) =
        server.owner.put(&one, json!({"name": "moved", "address": "10.9.9.9", "groups": []})).await;
    assert_eq!((status, &changed["groups"], &changed["enabled"]), (200, &json!([]), &json!(false)));
    assert_eq!(server.owner.delete(&one).await, (200, json!({})));
    assert_eq!(server.owner.get(&one).await.0, 404);
}

#[tokio::test]
async fn wrong_resources_are_refused() {
    let server = Server::start().await;
    let (network, other) = (server.network("site").await, server.network("other").await);
    let path = format!("/api/networks/{network}/resources");
    let resource = server.resource(&network, "db", "10.0.0.5").await;
    let all = server.all().await;
    for body in [
        json!({"name": "", "address": "10.0.0.1"}),
        json!({"name": "x", "address": ""}),
        json!({"name": "x", "address": "10.0.0.0/33"}),
        json!({"name": "x", "address": "not a name"}),
        json!({"name": "x", "address": "10.0.0.1", "groups": ["nothing"]}),
        json!({"name": "x", "address": "10.0.0.1", "groups": [all]}),
        json!({"name": "db", "address": "10.0.0.1"}),
    ] {
        assert_eq!(server.owner.post(&path, body.clone()).await.0, 422, "{body}");
    }
    let body = json!({"name": "x", "address": "10.0.0.1"});
    assert_eq!(server.owner.post("/api/networks/nothing/resources", body).await.0, 404);
    assert_eq!(server.owner.get(&format!("/api/networks/{other}/resources/{resource}")).await.0, 404);
    assert_eq!(server.owner.get(&format!("{path}/nothing")).await.0, 404);
}

#[tokio::test]
async fn routers_are_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let network = server.network("site").await;
    let (first, second) = (server.peer("gw1").await, server.peer("gw2").await);
    let group = text(
        &server.owner.created("/api/groups", json!({"name": "gws", "peers": [first.id, second.id]})).await,
        "id",
    );
    let path = format!("/api/networks/{network}/routers");
    let body =
        json!({"peer": first.id, "peer_groups": null, "metric": 100, "masquerade": true, "enabled": true});
    let router = server.owner.created(&path, body.clone()).await;
    assert_eq!((&router["peer"], &router["metric"]), (&json!(first.id), &json!(100)));
    let grouped =
        json!({"peer": "", "peer_groups": [group], "metric": 200, "masquerade": false, "enabled": true});
    let grouped = server.owner.created(&path, grouped).await;
    assert!(grouped.get("peer").is_none());

    let one = format!("{path}/{}", text(&router, "id"));
    assert_eq!(server.owner.get(&one).await, (200, router.clone()));
    let revision = server.store.revision().await.unwrap();
    assert_eq!(server.owner.put(&one, body).await.0, 200);
    assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");
    assert_eq!(server.owner.get("/api/networks/routers").await, (200, json!([router, grouped])));
    assert_eq!(server.owner.get(&path).await.1.as_array().unwrap().len(), 2);
    let (_, shown) = server.owner.get(&format!("/api/networks/{network}")).await;
    assert_eq!((&shown["routing_peers_count"], shown["routers"].as_array().unwrap().len()), (&json!(2), 2));

    let state = server.store.state().await.unwrap();
    let routers = &state.networks[&network].routers;
    assert_eq!(routers[&text(&grouped, "id")].peers.len(), 2);
    assert!(routers[&text(&router, "id")].masquerade);

    let (_, changed) =
        server.owner.put(&one, json!({"peer": second.id, "metric": 1, "enabled": false})).await;
    assert_eq!(
        (&changed["peer"], &changed["metric"], &changed["enabled"]),
        (&json!(second.id), &json!(1), &json!(false))
    );
    assert_eq!(server.owner.delete(&one).await, (200, json!({})));
    assert_eq!(server.owner.delete(&one).await.0, 404);
}

#[tokio::test]
async fn wrong_routers_are_refused() {
    let server = Server::start().await;
    let network = server.network("site").await;
    let peer = server.peer("gw").await.id;
    let group = server.group("gws").await;
    let path = format!("/api/networks/{network}/routers");
    for body in [
        json!({"peer": peer, "metric": 0}),
        json!({"peer": peer, "metric": 10000}),
        json!({"peer": peer}),
        json!({"metric": 1}),
        json!({"peer": peer, "peer_groups": [group], "metric": 1}),
        json!({"peer": "nobody", "metric": 1}),
        json!({"peer_groups": ["nothing"], "metric": 1}),
    ] {
        assert_eq!(server.owner.post(&path, body.clone()).await.0, 422, "{body}");
    }
    assert_eq!(server.owner.post("/api/networks/x/routers", json!({"peer": peer, "metric": 1})).await.0, 404);
}

#[tokio::test]
async fn what_a_policy_names_is_not_deleted_and_a_network_takes_the_rest_with_it() {
    let server = Server::start().await;
    let network = server.network("site").await;
    let resource = server.resource(&network, "db", "10.0.0.5").await;
    let peer = server.peer("gw").await.id;
    server
        .owner
        .created(&format!("/api/networks/{network}/routers"), json!({"peer": peer, "metric": 1}))
        .await;
    let all = server.all().await;
    let rule = json!({"name": "r", "action": "accept", "protocol": "all", "sources": [all],
        "destinationResource": {"id": resource, "type": "host"}});
    let policy = server.owner.created("/api/policies", json!({"name": "p", "rules": [rule]})).await;
    let (_, shown) = server.owner.get(&format!("/api/networks/{network}")).await;
    assert_eq!(shown["policies"], json!([policy["id"]]));

    let answer = server.owner.delete(&format!("/api/networks/{network}/resources/{resource}")).await;
    assert_eq!((answer.0, message(&answer)), (400, "network resource has been linked to policy: p"));
    let answer = server.owner.delete(&format!("/api/networks/{network}")).await;
    assert_eq!((answer.0, message(&answer)), (400, "network has been linked to policy: p"));

    server.owner.delete(&format!("/api/policies/{}", text(&policy, "id"))).await;
    assert_eq!(server.owner.delete(&format!("/api/networks/{network}")).await.0, 200);
    assert_eq!(server.owner.get("/api/networks/routers").await, (200, json!([])));
    assert_eq!(server.owner.delete(&format!("/api/peers/{peer}")).await.0, 200);
}
