use std::collections::HashSet;

use serde_json::json;
use sluicegate_control::store::{EnrollError, Enrollment, Role};
use tokio::task::JoinSet;

use crate::harness::{Server, enrollment, text};

#[tokio::test]
async fn a_13_a_key_in_lower_case_is_accepted() {
    let server = Server::start().await;
    let key = server.setup_key("one-off", 0, &[]).await;
    server.enroll(&format!(" {} \n", key.to_lowercase()), "web").await.unwrap();
}

#[tokio::test]
async fn a_14_used_up_expired_revoked_and_unknown_keys_are_refused_and_leave_nothing() {
    let server = Server::start().await;
    let state = async |index: usize| {
        let (_, keys) = server.owner.get("/api/setup-keys").await;
        text(&keys[index], "state")
    };
    let one_off = server.setup_key("one-off", 0, &[]).await;
    server.enroll(&one_off, "a").await.unwrap();
    assert!(matches!(server.enroll(&one_off, "b").await, Err(EnrollError::Overused(_))));
    assert_eq!(state(0).await, "overused");

    let twice = server.setup_key("reusable", 2, &[]).await;
    server.enroll(&twice, "c").await.unwrap();
    server.enroll(&twice, "d").await.unwrap();
    assert!(matches!(server.enroll(&twice, "e").await, Err(EnrollError::Overused(_))));

    let expired = server.setup_key("reusable", 0, &[]).await;
    let (_, keys) = server.owner.get("/api/setup-keys").await;
    server.store.expire_setup_key(&text(&keys[2], "id")).await.unwrap();
    assert!(matches!(server.enroll(&expired, "f").await, Err(EnrollError::Expired(_))));
    assert_eq!(state(2).await, "expired");

    let revoked = server.setup_key("reusable", 0, &[]).await;
    let (_, keys) = server.owner.get("/api/setup-keys").await;
    server.owner.put(&format!("/api/setup-keys/{}", text(&keys[3], "id")), json!({"revoked": true})).await;
    assert!(matches!(server.enroll(&revoked, "g").await, Err(EnrollError::Revoked(_))));

    for unknown in ["", "nonsense", "00000000-0000-4000-8000-000000000000"] {
        assert!(matches!(server.enroll(unknown, "h").await, Err(EnrollError::UnknownKey)));
    }
    let (_, peers) = server.owner.get("/api/peers").await;
    assert_eq!(peers.as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_joins_at_once_on_a_one_off_key_make_one_peer() {
    let server = Server::start().await;
    let key = server.setup_key("one-off", 0, &[]).await;
    let mut joins = JoinSet::new();
    for number in 0..50 {
        let (store, request) = (server.store.clone(), enrollment(&key, &format!("host{number}")));
        joins.spawn(async move { store.enroll(&request).await });
    }
    let results = joins.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(
        results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .all(|error| matches!(error, EnrollError::Overused(_)))
    );
    let (_, peers) = server.owner.get("/api/peers").await;
    assert_eq!(peers.as_array().unwrap().len(), 1);
    let (_, keys) = server.owner.get("/api/setup-keys").await;
    assert_eq!((&keys[0]["used_times"], &keys[0]["state"]), (&json!(1), &json!("overused")));
}

#[tokio::test]
async fn a_peer_gets_groups_a_free_name_and_addresses_of_its_own() {
    let server = Server::start().await;
    let group = server.group("web").await;
    let key = server.setup_key("reusable", 0, &[&group]).await;
    let (mut names, mut labels, mut addresses) = (HashSet::new(), HashSet::new(), HashSet::new());
    for _ in 0..5 {
        let peer = server.enroll(&key, "Web 1.local").await.unwrap();
        let (_, shown) = server.owner.get(&format!("/api/peers/{}", peer.id)).await;
        let groups: Vec<&str> =
            shown["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
        assert_eq!(groups, ["All", "web"]);
        assert_eq!(shown["hostname"], "Web 1.local");
        assert!(text(&shown, "dns_label").ends_with(".sluicegate.internal"));
        let state = server.store.state().await.unwrap();
        assert!(state.overlay_v4.contains(&peer.ip) && state.overlay_v6.contains(&peer.ipv6));
        assert!(u32::from(peer.ip) > u32::from(state.overlay_v4.network()) + 1);
        assert!(peer.ip != state.overlay_v4.broadcast());
        names.insert(peer.name);
        labels.insert(text(&shown, "dns_label"));
        addresses.insert(peer.ip.to_string());
        addresses.insert(peer.ipv6.to_string());
    }
    assert_eq!((names.len(), labels.len(), addresses.len()), (5, 5, 10));
    assert!(names.contains("Web 1.local") && names.contains("Web 1.local-4"));
    assert!(server.codes().await.contains(&"peer.setupkey.add".to_owned()));
}

#[tokio::test]
async fn a_small_range_runs_out_with_its_own_reason_and_is_filled_to_the_last_address() {
    let server = Server::start().await;
    let (_, accounts) = server.owner.get("/api/accounts").await;
    let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
    server.owner.put(&path, json!({"settings": {"network_range": "10.1.0.0/28"}})).await;
    let key = server.setup_key("reusable", 0, &[]).await;
    // 16 addresses without network, first and broadcast.
    for number in 0..13 {
        server.enroll(&key, &format!("h{number}")).await.unwrap();
    }
    assert!(matches!(server.enroll(&key, "late").await, Err(EnrollError::NoAddress(_))));
    let (_, keys) = server.owner.get("/api/setup-keys").await;
    assert_eq!(keys[0]["used_times"], 13);
}

#[tokio::test]
async fn an_answer_that_was_lost_can_be_asked_for_again_and_nobody_else_gets_it() {
    let server = Server::start().await;
    let key = server.setup_key("one-off", 0, &[]).await;
    let request = enrollment(&key, "web");
    let first = server.store.enroll(&request).await.unwrap();
    let again = server.store.enroll(&request).await.unwrap();
    assert!(first.created && !again.created);
    assert_eq!((&first.id, first.ip), (&again.id, again.ip));

    // A public key is no secret: whoever shows it with another identity or setup key is somebody else.
    let other_key = server.setup_key("reusable", 0, &[]).await;
    for stranger in [
        sluicegate_control::store::Enrollment { identity_key: [7; 32], ..request.clone() },
        sluicegate_control::store::Enrollment { setup_key: other_key, ..request.clone() },
        sluicegate_control::store::Enrollment { role: Role::Gateway, ..request.clone() },
    ] {
        assert!(matches!(server.store.enroll(&stranger).await, Err(EnrollError::KnownWireguardKey(_))));
    }
    let (_, keys) = server.owner.get("/api/setup-keys").await;
    server.owner.put(&format!("/api/setup-keys/{}", text(&keys[0], "id")), json!({"revoked": true})).await;
    assert!(matches!(server.store.enroll(&request).await, Err(EnrollError::Revoked(_))));

    let empty = sluicegate_control::store::Enrollment { wireguard_public_key: [0; 32], ..request };
    assert!(matches!(server.store.enroll(&empty).await, Err(EnrollError::EmptyWireguardKey)));
}

#[tokio::test]
async fn an_ephemeral_peer_that_stays_away_is_removed_and_others_are_not() {
    let server = Server::start().await;
    let body = json!({"name": "k", "type": "reusable", "ephemeral": true});
    let key = text(&server.owner.created("/api/setup-keys", body).await, "key");
    let away = server.enroll(&key, "away").await.unwrap();
    let here = server.enroll(&key, "here").await.unwrap();
    let lasting = server.peer("lasting").await;
    server.store.peer_seen(&here.id, &Default::default()).await.unwrap();
    let later = sluicegate_control::ids::now() + 1;
    assert_eq!(server.store.delete_stale_ephemeral(0).await.unwrap(), 0);
    assert_eq!(server.store.delete_stale_ephemeral(later).await.unwrap(), 1);
    assert!(server.store.peer(&away.id).await.is_err());
    assert!(server.store.peer(&here.id).await.is_ok() && server.store.peer(&lasting.id).await.is_ok());
}

#[tokio::test]
async fn extra_dns_labels_are_given_where_the_key_allows_them_and_nobody_has_them() {
    let server = Server::start().await;
    let body = json!({"name": "services", "type": "reusable", "expires_in": 86400, "usage_limit": 0, "auto_groups": [],
        "allow_extra_dns_labels": true});
    let key = text(&server.owner.created("/api/setup-keys", body).await, "key");
    let asking = |hostname: &str, labels: &[&str]| Enrollment {
        dns_labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..enrollment(&key, hostname)
    };
    let uses = async || server.owner.get("/api/setup-keys").await.1[0]["used_times"].as_u64().unwrap();
    let first = asking("web", &["Mail", "imap", "mail"]);
    let web = server.store.enroll(&first).await.unwrap();
    let (_, shown) = server.owner.get(&format!("/api/peers/{}", web.id)).await;
    assert_eq!(shown["extra_dns_labels"], json!(["imap", "mail"]));
    assert_eq!(shown["dns_label"], "web.sluicegate.internal");
    assert_eq!(server.owner.get("/api/peers").await.1[0]["extra_dns_labels"], json!(["imap", "mail"]));
    let (_, events) = server.owner.get("/api/events/audit?code=peer.setupkey.add").await;
    let after: serde_json::Value =
        serde_json::from_str(events[0]["meta"]["after"].as_str().unwrap()).unwrap();
    assert_eq!(after["extra_dns_labels"], json!(["imap", "mail"]));

    // The same machine may ask again for the same, and for nothing else.
    assert!(!server.store.enroll(&first).await.unwrap().created);
    let other = Enrollment { dns_labels: vec!["smtp".into()], ..first.clone() };
    assert!(matches!(server.store.enroll(&other).await, Err(EnrollError::DnsLabels(_))));

    let revision = server.store.revision().await.unwrap();
    for (hostname, labels, why) in [
        ("a", &["free", "imap"][..], "imap belongs to peer web already"),
        ("b", &["WEB"], "web belongs to peer web already"),
        ("c", &["c"], "c is what this machine is called already"),
        ("d", &["free", "two.labels"], "'two.labels' is no DNS label"),
    ] {
        let refused = server.store.enroll(&asking(hostname, labels)).await.unwrap_err().to_string();
        assert!(refused.starts_with("extra DNS labels: ") && refused.contains(why), "{refused}");
    }
    let plain = server.setup_key("reusable", 0, &[]).await;
    let refused = server.store.enroll(&Enrollment { setup_key: plain, ..asking("e", &["free"]) }).await;
    assert!(refused.unwrap_err().to_string().contains("setup key key does not allow them"));
    assert_eq!(uses().await, 1, "nothing is half applied");
    assert_eq!(server.owner.get("/api/peers").await.1.as_array().unwrap().len(), 1);
    assert_eq!(server.store.revision().await.unwrap(), revision + 1, "the other key");

    // Names made by control keep clear of them, and they are free when the peer is gone.
    let late = server.store.enroll(&asking("mail", &[])).await.unwrap();
    assert_eq!(server.store.peer(&late.id).await.unwrap().dns_label, "mail-1");
    let path = format!("/api/peers/{}", late.id);
    assert_eq!(
        server.owner.put(&path, json!({"name": "imap"})).await.1["dns_label"],
        "imap-1.sluicegate.internal"
    );
    assert_eq!(server.owner.delete(&format!("/api/peers/{}", web.id)).await.0, 200);
    let again = server.store.enroll(&asking("f", &["mail"])).await.unwrap();
    assert_eq!(server.store.peer(&again.id).await.unwrap().extra_dns_labels, ["mail"]);
}
