use serde_json::json;

use crate::harness::{Server, message, text};

#[tokio::test]
async fn groups_are_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let peer = server.peer("web").await;
    let network = server.network("site").await;
    let resource = server.resource(&network, "db", "10.0.0.5").await;
    let body = json!({"name": "ops", "peers": [peer.id], "resources": [{"id": resource, "type": "host"}]});
    let group = server.owner.created("/api/groups", body.clone()).await;
    assert_eq!(
        (&group["peers_count"], &group["resources_count"], &group["issued"]),
        (&json!(1), &json!(1), &json!("api"))
    );
    assert_eq!(group["peers"][0], json!({"id": peer.id, "name": "web"}));

    let path = format!("/api/groups/{}", text(&group, "id"));
    assert_eq!(server.owner.get(&path).await, (200, group.clone()));
    let (_, found) = server.owner.get("/api/groups?name=ops").await;
    assert_eq!(found, json!([group]));
    assert_eq!(server.owner.get("/api/groups?name=nobody").await.0, 404);

    let revision = server.store.revision().await.unwrap();
    assert_eq!(server.owner.put(&path, body).await.0, 200);
    assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");

    let (status, changed) = server.owner.put(&path, json!({"name": "ops2", "peers": null})).await;
    assert_eq!((status, &changed["name"], &changed["peers_count"]), (200, &json!("ops2"), &json!(0)));
    assert_eq!(server.owner.delete(&path).await, (200, json!({})));
    assert_eq!(server.owner.get(&path).await.0, 404);
    assert_eq!(server.owner.delete(&path).await.0, 404);
}

#[tokio::test]
async fn wrong_groups_are_refused() {
    let server = Server::start().await;
    let network = server.network("site").await;
    let resource = server.resource(&network, "db", "10.0.0.5").await;
    for body in [
        json!({"name": ""}),
        json!({}),
        json!({"name": "x", "peers": ["nobody"]}),
        json!({"name": "x", "resources": [{"id": "nothing", "type": "host"}]}),
        json!({"name": "x", "resources": [{"id": resource, "type": "subnet"}]}),
    ] {
        assert_eq!(server.owner.post("/api/groups", body.clone()).await.0, 422, "{body}");
    }
    assert_eq!(server.owner.get("/api/groups?name=x").await.0, 404);
}

#[tokio::test]
async fn a_8_group_all_is_neither_changed_nor_deleted_and_holds_every_peer() {
    let server = Server::start().await;
    let path = format!("/api/groups/{}", server.all().await);
    assert_eq!(server.owner.delete(&path).await.0, 422);
    assert_eq!(server.owner.put(&path, json!({"name": "Everyone"})).await.0, 422);
    let peer = server.peer("web").await;
    let (_, all) = server.owner.get(&path).await;
    assert_eq!(all["peers"], json!([{"id": peer.id, "name": "web"}]));
    server.owner.delete(&format!("/api/peers/{}", peer.id)).await;
    let (_, all) = server.owner.get(&path).await;
    assert_eq!(all["peers"], json!([]));
}

#[tokio::test]
async fn a_9_a_group_in_use_is_not_deleted_and_the_link_is_named() {
    let server = Server::start().await;
    let network = server.network("site").await;
    let routers = format!("/api/networks/{network}/routers");
    let resources = format!("/api/networks/{network}/resources");
    let all = server.all().await;
    let peer = server.peer("gw").await.id;
    let cases = [
        (
            "network resource: db",
            resources.as_str(),
            json!({"name": "db", "address": "10.0.0.5", "groups": ["G"]}),
        ),
        ("network router: site", routers.as_str(), json!({"peer_groups": ["G"], "metric": 9})),
        ("setup key: k", "/api/setup-keys", json!({"name": "k", "type": "one-off", "auto_groups": ["G"]})),
        (
            "user: svc",
            "/api/users",
            json!({"name": "svc", "role": "user", "is_service_user": true, "auto_groups": ["G"]}),
        ),
        (
            "route: r",
            "/api/routes",
            json!({"network_id": "r", "network": "10.7.0.0/16", "peer_groups": ["G"], "groups": [all], "metric": 9}),
        ),
        (
            "route: r",
            "/api/routes",
            json!({"network_id": "r", "network": "10.7.0.0/16", "peer": peer, "groups": ["G"], "metric": 9}),
        ),
        (
            "route: r",
            "/api/routes",
            json!({"network_id": "r", "network": "10.7.0.0/16", "peer": peer, "groups": [all], "metric": 9,
                "access_control_groups": ["G"]}),
        ),
        (
            "name server groups: n",
            "/api/dns/nameservers",
            json!({"name": "n", "nameservers": [{"ip": "9.9.9.9", "ns_type": "udp", "port": 53}], "primary": true,
                "groups": ["G"]}),
        ),
        (
            "DNS zone: z",
            "/api/dns/zones",
            json!({"name": "z", "domain": "z.example", "distribution_groups": ["G"]}),
        ),
        (
            "policy: p",
            "/api/policies",
            json!({"name": "p", "rules": [{"name": "r", "action": "accept", "protocol": "all",
                "sources": [all], "destinations": ["G"]}]}),
        ),
    ];
    for (link, path, body) in cases {
        let group = server.group(link).await;
        let body = body.to_string().replace("\"G\"", &format!("\"{group}\""));
        let (status, made) = server.owner.send(reqwest::Method::POST, path, Some(body)).await;
        assert_eq!(status, 200, "{made}");
        let answer = server.owner.delete(&format!("/api/groups/{group}")).await;
        assert_eq!((answer.0, message(&answer)), (400, format!("group has been linked to {link}").as_str()));

        let made = format!("{path}/{}", text(&made, "id"));
        assert_eq!(server.owner.delete(&made).await.0, 200);
        assert_eq!(server.owner.delete(&format!("/api/groups/{group}")).await.0, 200);
    }

    let group = server.group("unmanaged").await;
    let settings = |groups| json!({"disabled_management_groups": groups});
    assert_eq!(server.owner.put("/api/dns/settings", settings(json!([group]))).await.0, 200);
    let answer = server.owner.delete(&format!("/api/groups/{group}")).await;
    let said = "group has been linked to disabled DNS management groups: unmanaged";
    assert_eq!((answer.0, message(&answer)), (400, said));
    assert_eq!(server.owner.put("/api/dns/settings", settings(json!([]))).await.0, 200);
    assert_eq!(server.owner.delete(&format!("/api/groups/{group}")).await.0, 200);
}

#[tokio::test]
async fn a_10_a_second_group_of_a_name_is_refused() {
    let server = Server::start().await;
    server.group("a").await;
    let b = server.group("b").await;
    for name in ["a", " a ", "All"] {
        assert_eq!(server.owner.post("/api/groups", json!({"name": name})).await.0, 409, "{name}");
    }
    assert_eq!(server.owner.put(&format!("/api/groups/{b}"), json!({"name": "a"})).await.0, 409);
}

#[tokio::test]
async fn names_are_bounded_and_hold_nothing_a_terminal_obeys() {
    let server = Server::start().await;
    for name in ["x".repeat(256), "a\u{0}b".into(), "\u{1b}[2Ja".into(), "a\u{202e}b".into(), "a\nb".into()] {
        let policy = json!({"name": name, "enabled": true, "rules": []});
        let key = json!({"name": name, "type": "reusable", "expires_in": 0, "auto_groups": []});
        let user = json!({"name": name, "role": "user", "is_service_user": true});
        for (path, body) in [
            ("/api/groups", json!({"name": name})),
            ("/api/networks", json!({"name": name})),
            ("/api/policies", policy),
            ("/api/setup-keys", key),
            ("/api/users", user),
        ] {
            let (status, answer) = server.owner.post(path, body).await;
            let message = answer["message"].as_str().unwrap();
            assert!(status == 422 && message.contains("name must not"), "{path} {name:?}: {answer}");
        }
    }
    let long = json!({"name": "n", "description": "x".repeat(4097)});
    assert_eq!(server.owner.post("/api/networks", long).await.0, 422);
    server.group(&"ü".repeat(255)).await;
}
