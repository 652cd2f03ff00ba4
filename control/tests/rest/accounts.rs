use serde_json::{Value, json};
use sluicegate_control::identity::{Identity, IdentityOptions, LocalUsers};
use sluicegate_control::store::Actor;

use crate::harness::{Server, message, text};

#[tokio::test]
async fn a_new_account_has_all_default_and_private_ranges() {
    let server = Server::start().await;
    let (status, accounts) = server.owner.get("/api/accounts").await;
    assert_eq!((status, accounts.as_array().unwrap().len()), (200, 1));
    let settings = &accounts[0]["settings"];
    let v4: ipnet::Ipv4Net = settings["network_range"].as_str().unwrap().parse().unwrap();
    assert!(v4.prefix_len() == 16 && "100.64.0.0/10".parse::<ipnet::Ipv4Net>().unwrap().contains(&v4));
    let v6: ipnet::Ipv6Net = settings["network_range_v6"].as_str().unwrap().parse().unwrap();
    assert!(v6.prefix_len() == 64 && "fd00::/8".parse::<ipnet::Ipv6Net>().unwrap().contains(&v6));

    let all = server.all().await;
    let (_, policies) = server.owner.get("/api/policies").await;
    let rule = &policies[0]["rules"][0];
    assert_eq!(policies[0]["name"], "Default");
    assert_eq!(
        (&rule["action"], &rule["protocol"], &rule["bidirectional"]),
        (&json!("accept"), &json!("all"), &json!(true))
    );
    assert_eq!((text(&rule["sources"][0], "id"), text(&rule["destinations"][0], "id")), (all.clone(), all));
}

#[tokio::test]
async fn settings_are_replaced_as_a_whole_and_an_equal_put_writes_nothing() {
    let server = Server::start().await;
    let (_, accounts) = server.owner.get("/api/accounts").await;
    let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
    let mut settings = accounts[0]["settings"].clone();
    let revision = server.store.revision().await.unwrap();
    assert_eq!(server.owner.put(&path, json!({"settings": settings, "onboarding": null})).await.0, 200);
    assert_eq!(server.store.revision().await.unwrap(), revision);

    settings["dns_domain"] = json!("corp.example");
    settings["peer_login_expiration"] = json!(7200);
    let (status, account) = server.owner.put(&path, json!({"settings": settings})).await;
    assert_eq!((status, &account["settings"]["dns_domain"]), (200, &json!("corp.example")));
    // Left out: the default again, but for the ranges.
    let (_, account) = server.owner.put(&path, json!({"settings": {}})).await;
    assert_eq!(account["settings"]["dns_domain"], "");
    assert_eq!(account["settings"]["network_range"], accounts[0]["settings"]["network_range"]);

    assert_eq!(server.owner.put("/api/accounts/other", json!({"settings": {}})).await.0, 404);
    assert_eq!(server.owner.put(&path, json!({})).await.0, 400);
    for wrong in [
        json!({"peer_login_expiration": -1}),
        json!({"peer_login_expiration": 3599}),
        json!({"peer_inactivity_expiration": 0}),
        json!({"peer_inactivity_expiration": 599, "peer_inactivity_expiration_enabled": true}),
        json!({"network_range": "10.0.0.0/8"}),
        json!({"network_range": "10.0.0.0/29"}),
        json!({"network_range": "fd00::/64"}),
        json!({"network_range_v6": "fd00::/32"}),
        json!({"peer_expose_groups": ["nothing"]}),
        json!({"ipv6_enabled_groups": ["nothing"]}),
    ] {
        let (status, answer) = server.owner.put(&path, json!({"settings": wrong})).await;
        assert_eq!(status, 422, "{wrong}");
        let named = wrong.as_object().unwrap().keys().any(|field| text(&answer, "message").contains(field));
        assert!(named || wrong.to_string().contains("_groups"), "{wrong}: {answer}");
    }
    let least = json!({"peer_login_expiration": 3600, "peer_inactivity_expiration": 600});
    assert_eq!(server.owner.put(&path, json!({"settings": least})).await.0, 200);
}

#[tokio::test]
async fn a_new_range_gives_every_peer_an_address_inside() {
    let server = Server::start().await;
    for number in 0..3 {
        server.peer(&format!("host{number}")).await;
    }
    let (_, accounts) = server.owner.get("/api/accounts").await;
    let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
    assert_eq!(server.owner.put(&path, json!({"settings": {"network_range": "10.9.0.0/28"}})).await.0, 200);
    let range: ipnet::Ipv4Net = "10.9.0.0/28".parse().unwrap();
    let peers = server.store.peers(None, None).await.unwrap();
    assert!(peers.iter().all(|peer| range.contains(&peer.ip)), "{peers:?}");
    assert_eq!(server.store.state().await.unwrap().overlay_v4, range);
    assert!(server.codes().await.contains(&"account.network.range.update".to_owned()));
}

#[tokio::test]
async fn peers_wait_for_approval_when_the_account_asks_for_it() {
    let server = Server::start().await;
    let (_, accounts) = server.owner.get("/api/accounts").await;
    let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
    let settings = json!({"settings": {"extra": {"peer_approval_enabled": true}}});
    assert_eq!(server.owner.put(&path, settings).await.0, 200);
    let peer = server.peer("newcomer").await;
    assert!(!server.store.state().await.unwrap().peers[&peer.id].allowed);
    let path = format!("/api/peers/{}", peer.id);
    let (_, shown) = server.owner.get(&path).await;
    assert_eq!(shown["approval_required"], true);
    let (status, _) = server.owner.put(&path, json!({"name": "newcomer", "approval_required": false})).await;
    assert_eq!(status, 200);
    assert!(server.store.state().await.unwrap().peers[&peer.id].allowed);
    assert!(server.codes().await.contains(&"peer.approve".to_owned()));
}

#[tokio::test]
async fn ranges_without_host_addresses_and_names_that_are_none_are_refused() {
    let server = Server::start().await;
    let (_, accounts) = server.owner.get("/api/accounts").await;
    let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
    let with = |field: &str, value: &str| {
        let mut settings = accounts[0]["settings"].clone();
        settings[field] = json!(value);
        json!({ "settings": settings })
    };
    for range in ["127.0.0.0/16", "224.0.0.0/16", "0.0.0.0/16", "169.254.0.0/16", "255.255.0.0/16"] {
        assert_eq!(server.owner.put(&path, with("network_range", range)).await.0, 422, "{range}");
    }
    for range in ["::/64", "ff02::/64", "fe80::/64", "::ffff:0:0/96"] {
        assert_eq!(server.owner.put(&path, with("network_range_v6", range)).await.0, 422, "{range}");
    }
    assert_eq!(server.owner.put(&path, with("dns_domain", "../x y")).await.0, 422);
    let group = server.group("users").await;
    let zone = json!({"name": "z", "domain": "corp.example", "distribution_groups": [group]});
    server.owner.created("/api/dns/zones", zone).await;
    let answer = server.owner.put(&path, with("dns_domain", "Corp.example")).await;
    assert!(answer.0 == 422 && message(&answer).contains("is a zone already"), "{answer:?}");
    assert_eq!(server.owner.put(&path, with("dns_domain", "peers.corp.example")).await.0, 200);
    for range in ["10.64.0.0/16", "192.168.7.0/24", "198.18.0.0/16"] {
        assert_eq!(server.owner.put(&path, with("network_range", range)).await.0, 200, "{range}");
    }
}

#[tokio::test]
async fn what_nothing_here_could_honour_cannot_be_turned_on() {
    let server = Server::start().await;
    let (_, accounts) = server.owner.get("/api/accounts").await;
    let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
    let group = server.group("exposers").await;
    for (field, value, next) in [
        ("lazy_connection_enabled", json!(true), "leave it false"),
        ("auto_update_version", json!("latest"), "package manager"),
        ("auto_update_version", json!("0.50.1"), "package manager"),
        ("auto_update_always", json!(true), "package manager"),
        ("peer_expose_enabled", json!(true), "resource of a network"),
        ("peer_expose_groups", json!([group]), "leave it empty"),
        ("metrics_push_enabled", json!(true), "/metrics"),
        ("agent_network_only", json!(true), "no dashboard"),
    ] {
        let mut settings = accounts[0]["settings"].clone();
        settings[field] = value.clone();
        let (status, answer) = server.owner.put(&path, json!({"settings": settings})).await;
        let message = text(&answer, "message");
        assert_eq!(status, 422, "{field}: {answer}");
        assert!(message.contains(&format!("{field} is not supported: ")), "{message}");
        assert!(message.contains(next), "{field}: {message}");
        let (_, after) = server.owner.get("/api/accounts").await;
        assert_eq!(after, accounts, "{field}");
    }
    // Whole objects of what is so are taken, as clients put them back.
    let mut settings = accounts[0]["settings"].clone();
    settings["auto_update_version"] = json!("");
    settings["extra"]["network_traffic_packet_counter_enabled"] = json!(false);
    let (status, account) = server.owner.put(&path, json!({"settings": settings})).await;
    assert_eq!((status, &account["settings"]["auto_update_version"]), (200, &json!("disabled")));
}

#[tokio::test]
async fn what_the_configuration_decides_is_shown_as_it_is_and_not_put() {
    for enabled in [false, true] {
        let local_users = LocalUsers { enabled, open_setup: false };
        let options = IdentityOptions { local_users, ..IdentityOptions::default() };
        let identity = Identity::new(&options).unwrap();
        let server = Server::start_known(tempfile::tempdir().unwrap(), identity).await;
        let (_, accounts) = server.owner.get("/api/accounts").await;
        let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
        let so = json!({"embedded_idp_enabled": enabled, "local_auth_disabled": !enabled,
            "dashboard_features": {"agent_network": false}});
        let shown = |account: &Value| {
            let names = so.as_object().unwrap().keys();
            names.map(|name| (name.clone(), account["settings"][name].clone())).collect::<Value>()
        };
        assert_eq!(shown(&accounts[0]), so);
        let revision = server.store.revision().await.unwrap();
        for taken in [
            so.clone(),
            json!({}),
            json!({"embedded_idp_enabled": null, "local_auth_disabled": null, "dashboard_features": null}),
            json!({"dashboard_features": {}}),
        ] {
            let (status, account) = server.owner.put(&path, json!({"settings": taken})).await;
            assert_eq!((status, shown(&account)), (200, so.clone()), "{taken}");
        }
        assert_eq!(shown(&server.owner.get(&path).await.1), so);
        assert_eq!(server.store.revision().await.unwrap(), revision, "nothing of it is kept");
        for (wrong, why) in [
            (
                json!({"embedded_idp_enabled": !enabled}),
                format!("embedded_idp_enabled is read-only, and is {enabled}"),
            ),
            (
                json!({"local_auth_disabled": enabled}),
                format!("local_auth_disabled is read-only, and is {}", !enabled),
            ),
            (json!({"dashboard_features": {"agent_network": true}}), "there is no dashboard here".into()),
        ] {
            let (status, answer) = server.owner.put(&path, json!({"settings": wrong})).await;
            assert_eq!(status, 422, "{wrong}");
            assert!(text(&answer, "message").contains(&why), "{answer}");
        }

        // Codes can be asked for where there is somebody who could have them.
        let (status, answer) =
            server.owner.put(&path, json!({"settings": {"local_mfa_enabled": true}})).await;
        assert_eq!(status, if enabled { 200 } else { 422 }, "{answer}");
        assert!(enabled || text(&answer, "message").contains("there are no built-in users here"), "{answer}");
        assert_eq!(server.owner.get("/api/login").await.1["codes_required"], enabled);
        // Of a configuration that was another, it may stay.
        let mut settings = server.store.account().await.unwrap().settings;
        settings.local_mfa_enabled = true;
        server.store.update_settings(&Actor::system(), settings).await.unwrap();
        let (status, account) =
            server.owner.put(&path, json!({"settings": {"local_mfa_enabled": true}})).await;
        assert_eq!((status, &account["settings"]["local_mfa_enabled"]), (200, &json!(true)));
        assert_eq!(server.owner.get("/api/login").await.1["codes_required"], enabled);
    }
}

#[tokio::test]
async fn every_setting_has_a_row_in_the_table_that_says_what_it_does() {
    let page = include_str!("../../../docs/rest-api.md");
    let (_, table) = page.split_once("### Settings of the account").unwrap();
    let rows: Vec<&str> = table
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('|').nth(1))
        .collect();
    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    let of = |schema: &str| -> Vec<String> {
        let fields = &document["components"]["schemas"][schema]["properties"];
        fields.as_object().unwrap().keys().cloned().collect()
    };
    let mut fields = of("AccountSettings");
    fields.retain(|field| field != "extra");
    fields.extend(of("AccountExtraSettings").iter().map(|field| format!("extra.{field}")));
    assert!(fields.len() > 25, "{fields:?}");
    for field in &fields {
        let found = rows.iter().filter(|row| row.contains(&format!("`{field}`"))).count();
        assert_eq!(found, 1, "docs/rest-api.md, settings of the account: {field} has {found} rows");
    }
    for row in rows {
        for name in row.split('`').skip(1).step_by(2) {
            assert!(fields.iter().any(|field| field == name), "{name} is no setting");
        }
    }
}
