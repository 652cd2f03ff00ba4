use serde_json::{Value, json};
use sluicegate_control::store::Actor;

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

/// What refers to a group `G`, in the order in which it is named: kind and name, where it is made, of what.
async fn users_of_a_group(server: &Server) -> Vec<(&'static str, String, Value)> {
    let network = server.network("site").await;
    let (all, peer) = (server.all().await, server.peer("gw").await.id);
    let [resources, routers] = ["resources", "routers"].map(|kind| format!("/api/networks/{network}/{kind}"));
    let route = |more: Value| {
        let mut route = json!({"network_id": "r", "network": "10.7.0.0/16", "metric": 9});
        route.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        route
    };
    let cases = [
        (
            "network resource: db",
            resources.as_str(),
            json!({"name": "db", "address": "10.0.0.5", "groups": ["G"]}),
        ),
        ("route: r", "/api/routes", route(json!({"peer_groups": ["G"], "groups": [all]}))),
        ("route: r", "/api/routes", route(json!({"peer": peer, "groups": ["G"]}))),
        (
            "route: r",
            "/api/routes",
            route(json!({"peer": peer, "groups": [all], "access_control_groups": ["G"]})),
        ),
        (
            "name server groups: n",
            "/api/dns/nameservers",
            json!({"name": "n", "nameservers": [{"ip": "9.9.9.9", "ns_type": "udp", "port": 53}], "primary": true,
                "groups": ["G"]}),
        ),
        (
            "policy: p",
            "/api/policies",
            json!({"name": "p", "rules": [{"name": "r", "action": "accept", "protocol": "all",
                "sources": [all], "destinations": ["G"]}]}),
        ),
        ("setup key: k", "/api/setup-keys", json!({"name": "k", "type": "one-off", "auto_groups": ["G"]})),
        (
            "user: svc",
            "/api/users",
            json!({"name": "svc", "role": "user", "is_service_user": true, "auto_groups": ["G"]}),
        ),
        ("network router: site", routers.as_str(), json!({"peer_groups": ["G"], "metric": 9})),
        (
            "DNS zone: z",
            "/api/dns/zones",
            json!({"name": "z", "domain": "z.example", "distribution_groups": ["G"]}),
        ),
    ];
    cases.into_iter().map(|(link, path, body)| (link, path.to_owned(), body)).collect()
}

/// Makes one of these of a group; where it is then.
async fn made(server: &Server, path: &str, body: &Value, group: &str) -> String {
    let body = body.to_string().replace("\"G\"", &format!("\"{group}\""));
    let (status, made) = server.owner.send(reqwest::Method::POST, path, Some(body)).await;
    assert_eq!(status, 200, "{made}");
    format!("{path}/{}", text(&made, "id"))
}

/// Tries to delete a group that is in use by this.
async fn is_linked(server: &Server, group: &str, link: &str) {
    let answer = server.owner.delete(&format!("/api/groups/{group}")).await;
    assert_eq!((answer.0, message(&answer)), (400, format!("group has been linked to {link}").as_str()));
}

#[tokio::test]
async fn a_9_a_group_in_use_is_not_deleted_and_the_link_is_named() {
    let server = Server::start().await;
    for (link, path, body) in users_of_a_group(&server).await {
        let group = server.group(link).await;
        let made = made(&server, &path, &body, &group).await;
        is_linked(&server, &group, link).await;
        assert_eq!(server.owner.delete(&made).await.0, 200);
        assert_eq!(server.owner.delete(&format!("/api/groups/{group}")).await.0, 200);
    }
}

/// Has the settings name these groups. Those whose peers may expose services can only have been stored by an earlier version.
async fn name_in_settings(server: &Server, traffic: &[&str], expose: &[&str], unmanaged: &[&str]) {
    let mut settings = server.store.account().await.unwrap().settings;
    settings.extra.network_traffic_logs_groups = traffic.iter().map(|id| (*id).to_owned()).collect();
    settings.peer_expose_groups = Vec::new();
    let account = server.store.update_settings(&Actor::system(), settings).await.unwrap();
    let mut stored = account.settings;
    stored.peer_expose_groups = expose.iter().map(|id| (*id).to_owned()).collect();
    let stored = serde_json::to_string(&stored).unwrap();
    server.sql(&format!("UPDATE account SET settings = '{stored}'")).await;
    let dns = json!({"disabled_management_groups": unmanaged});
    assert_eq!(server.owner.put("/api/dns/settings", dns).await.0, 200);
}

#[tokio::test]
async fn a_9_a_group_that_settings_name_is_not_deleted_and_the_setting_is_named() {
    let server = Server::start().await;
    for (name, link) in [
        ("traffic", "account setting: network_traffic_logs_groups"),
        ("exposers", "account setting: peer_expose_groups"),
        ("unmanaged", "disabled DNS management groups: unmanaged"),
    ] {
        let group = server.group(name).await;
        let own = [group.as_str()];
        let of = |wanted: &str| if name == wanted { own.as_slice() } else { &[] };
        name_in_settings(&server, of("traffic"), of("exposers"), of("unmanaged")).await;
        is_linked(&server, &group, link).await;
        name_in_settings(&server, &[], &[], &[]).await;
        assert_eq!(server.owner.delete(&format!("/api/groups/{group}")).await.0, 200, "{link}");
    }
}

#[tokio::test]
async fn a_9_of_several_links_of_a_group_the_first_in_netbirds_order_is_named() {
    let server = Server::start().await;
    let group = server.group("busy").await;
    let own = [group.as_str()];
    let mut links = Vec::new();
    for (link, path, body) in users_of_a_group(&server).await {
        // One route of the prefix is enough.
        if links.last().is_none_or(|(known, _)| *known != link) {
            links.push((link, Some(made(&server, &path, &body, &group).await)));
        }
    }
    links.insert(1, ("account setting: network_traffic_logs_groups", None));
    links.push(("disabled DNS management groups: busy", None));
    links.push(("account setting: peer_expose_groups", None));
    assert_eq!(links.len(), 11);
    name_in_settings(&server, &own, &own, &own).await;
    for (link, made) in links {
        is_linked(&server, &group, link).await;
        match (made, link) {
            (Some(made), _) => assert_eq!(server.owner.delete(&made).await.0, 200, "{link}"),
            (None, "account setting: network_traffic_logs_groups") => {
                name_in_settings(&server, &[], &own, &own).await;
            }
            (None, "disabled DNS management groups: busy") => {
                name_in_settings(&server, &[], &own, &[]).await;
            }
            _ => name_in_settings(&server, &[], &[], &[]).await,
        }
    }
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
