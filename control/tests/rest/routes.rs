use serde_json::{Value, json};

use crate::harness::{Server, message, text};

/// A route of one peer to a prefix, for one group.
fn body(name: &str, network: &str, peer: &str, group: &str) -> Value {
    json!({"network_id": name, "description": "d", "enabled": true, "peer": peer, "network": network, "metric": 100,
        "masquerade": true, "groups": [group], "keep_route": false})
}

#[tokio::test]
async fn routes_are_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let (peer, other) = (server.peer("gw").await.id, server.peer("gw2").await.id);
    let (users, servers) = (server.group("users").await, server.group("servers").await);
    let routers = json!({"name": "routers", "peers": [peer, other]});
    let routers = text(&server.owner.created("/api/groups", routers).await, "id");

    for (network, kind, shown) in [
        ("10.64.3.9/16", "IPv4", "10.64.0.0/16"),
        ("2001:DB8:1::/48", "IPv6", "2001:db8:1::/48"),
        ("0.0.0.0/0", "IPv4", "0.0.0.0/0"),
        ("192.0.2.1/32", "IPv4", "192.0.2.1/32"),
    ] {
        let body = body(network, network, &peer, &users);
        let route = server.owner.created("/api/routes", body.clone()).await;
        assert_eq!((&route["network_type"], &route["network"]), (&json!(kind), &json!(shown)));
        assert_eq!((&route["skip_auto_apply"], &route["access_control_groups"]), (&json!(false), &json!([])));
        assert!(route.get("peer_groups").is_none() && route.get("domains").is_none(), "{route}");
        let path = format!("/api/routes/{}", text(&route, "id"));
        assert_eq!(server.owner.get(&path).await, (200, route));
        let revision = server.store.revision().await.unwrap();
        assert_eq!(server.owner.put(&path, body).await.0, 200);
        assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");
    }
    let (_, list) = server.owner.get("/api/routes").await;
    assert_eq!(list.as_array().unwrap().len(), 4);

    let path = format!("/api/routes/{}", text(&list[0], "id"));
    let changed = json!({"network_id": "berlin", "description": "", "enabled": false, "peer": null, "metric": 9999,
        "peer_groups": [routers], "network": "10.65.0.0/16", "masquerade": false, "groups": [users, servers],
        "keep_route": true, "access_control_groups": [servers], "skip_auto_apply": true});
    let (status, shown) = server.owner.put(&path, changed.clone()).await;
    assert_eq!(status, 200, "{shown}");
    for field in ["network_id", "enabled", "peer_groups", "network", "metric", "masquerade", "keep_route"] {
        assert_eq!(shown[field], changed[field], "{field}");
    }
    assert_eq!((shown.get("peer"), &shown["skip_auto_apply"]), (None, &json!(true)));
    assert_eq!(shown["access_control_groups"], json!([servers]));
    assert_eq!(shown["groups"].as_array().unwrap().len(), 2);

    let answer = server.owner.delete(&format!("/api/peers/{peer}")).await;
    assert_eq!(answer.0, 400);
    assert!(message(&answer).starts_with("peer has been linked to route: "), "{answer:?}");
    for route in list.as_array().unwrap() {
        assert_eq!(
            server.owner.delete(&format!("/api/routes/{}", text(route, "id"))).await,
            (200, json!({}))
        );
    }
    assert_eq!(server.owner.get(&path).await.0, 404);
    assert_eq!(server.owner.put(&path, changed).await.0, 404);
    assert_eq!(server.owner.delete(&path).await.0, 404);
    assert_eq!(server.owner.delete(&format!("/api/peers/{peer}")).await.0, 200);
    let codes = server.codes().await;
    for (code, times) in [("route.add", 4), ("route.update", 1), ("route.delete", 4)] {
        assert_eq!(codes.iter().filter(|seen| *seen == code).count(), times, "{code}");
    }
}

#[tokio::test]
async fn wrong_routes_are_refused() {
    let server = Server::start().await;
    let peer = server.peer("gw").await.id;
    let users = server.group("users").await;
    let all = server.all().await;
    let wrong: [(&str, Value, &str); 15] = [
        ("network_id", json!(""), "name"),
        ("network_id", json!("x".repeat(41)), "40 characters"),
        ("network", json!("10.0.0.0/33"), "no prefix"),
        ("network", json!(""), "network must be set"),
        ("network", json!("127.0.0.0/8"), "no router carries"),
        ("network", json!("ff02::/16"), "no router carries"),
        ("domains", json!(["example.org"]), "network and domains"),
        ("metric", json!(0), "between 1 and 9999"),
        ("metric", json!(10000), "between 1 and 9999"),
        ("peer", json!("nobody"), "nobody does not exist"),
        ("peer", json!(null), "either peer or peer_groups"),
        ("peer_groups", json!([users]), "cannot be set together"),
        ("groups", json!([]), "at least one group"),
        ("access_control_groups", json!(["nothing"]), "nothing does not exist"),
        ("access_control_groups", json!([all]), "access_control_groups: group All"),
    ];
    for (field, value, said) in wrong {
        let mut body = body("r", "10.64.0.0/16", &peer, &users);
        body[field] = value;
        let answer = server.owner.post("/api/routes", body.clone()).await;
        assert!(answer.0 == 422 && message(&answer).contains(said), "{body}: {answer:?}");
    }
    let mut named = body("r", "", &peer, &users);
    named["domains"] = json!(["example.org"]);
    let answer = server.owner.post("/api/routes", named).await;
    assert!(answer.0 == 422 && message(&answer).contains("network resource"), "{answer:?}");
    assert_eq!(server.owner.get("/api/routes").await, (200, json!([])));
}

#[tokio::test]
async fn a_second_route_of_a_peer_to_a_prefix_is_refused_by_name_or_by_group() {
    let server = Server::start().await;
    let (peer, other) = (server.peer("gw").await.id, server.peer("gw2").await.id);
    let users = server.group("users").await;
    let routers = json!({"name": "routers", "peers": [peer]});
    let routers = text(&server.owner.created("/api/groups", routers).await, "id");
    server.owner.created("/api/routes", body("a", "10.64.0.0/16", &peer, &users)).await;
    server.owner.created("/api/routes", body("exit", "0.0.0.0/0", &peer, &users)).await;
    let mut by_group = body("b", "10.64.0.0/16", "", &users);
    by_group["peer_groups"] = json!([routers]);
    for again in [
        body("b", "10.64.7.7/16", &peer, &users),
        body("b", "0.0.0.0/0", &peer, &users),
        body("b", "::/0", &peer, &users),
        by_group,
    ] {
        let answer = server.owner.post("/api/routes", again.clone()).await;
        assert!(answer.0 == 409 && message(&answer).contains("gw has a route to"), "{again}: {answer:?}");
    }
    server.owner.created("/api/routes", body("a", "10.64.0.0/16", &other, &users)).await;
    server.owner.created("/api/routes", body("a", "10.64.0.0/17", &peer, &users)).await;
}

#[tokio::test]
async fn explain_knows_whom_a_route_is_for_and_through_whom_it_leads() {
    let server = Server::start().await;
    let (_, policies) = server.owner.get("/api/policies").await;
    server.owner.delete(&format!("/api/policies/{}", text(&policies[0], "id"))).await;
    let (near, far) = (server.peer("near").await.id, server.peer("far").await.id);
    let (user, _) = (server.peer("user").await, server.peer("stranger").await);
    let users =
        text(&server.owner.created("/api/groups", json!({"name": "users", "peers": [user.id]})).await, "id");
    let all = server.all().await;
    let guarded = server.group("guarded").await;
    server.owner.created("/api/routes", body("open", "10.64.0.0/16", &near, &users)).await;
    let mut second = body("open", "10.64.0.0/16", &far, &users);
    second["metric"] = json!(200);
    server.owner.created("/api/routes", second).await;
    let mut closed = body("closed", "10.65.0.0/16", &near, &users);
    closed["access_control_groups"] = json!([guarded]);
    server.owner.created("/api/routes", closed).await;

    let explain = async |source: &str, destination: &str, service: &str| {
        let path = format!("/api/explain?source={source}&destination={destination}&service={service}");
        let (status, told) = server.owner.get(&path).await;
        assert_eq!(status, 200, "{told}");
        told
    };
    let told = explain("user", "10.64.1.1", "443/tcp").await;
    assert_eq!(
        (&told["allowed"], &told["rule"]["policy_name"]),
        (&json!(true), &json!("route open")),
        "{told}"
    );
    assert_eq!((&told["gateway"]["name"], &told["gateway"]["metric"]), (&json!("near"), &json!(100)));
    assert_eq!(explain("stranger", "10.64.1.1", "443/tcp").await["allowed"], false);
    assert_eq!(explain("user", "10.65.1.1", "443/tcp").await["allowed"], false);

    let rule = json!({"name": "https", "enabled": true, "action": "accept", "protocol": "tcp", "ports": ["443"],
        "sources": [all], "destinations": [guarded]});
    server.owner.created("/api/policies", json!({"name": "web", "enabled": true, "rules": [rule]})).await;
    assert_eq!(explain("user", "10.65.1.1", "443/tcp").await["rule"]["rule_name"], "https");
    assert_eq!(explain("user", "10.65.1.1", "80/tcp").await["allowed"], false);
    // The rule is for everybody, the route is not.
    let told = explain("stranger", "10.65.1.1", "443/tcp").await;
    assert_eq!(told["allowed"], false);
    let unmet = &told["near_misses"][0]["unmet"][0];
    assert_eq!(unmet["sentence"], "the source is not in group users", "{told}");
}
