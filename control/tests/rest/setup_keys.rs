use serde_json::json;

use crate::harness::{FINGERPRINT, Server, text};

#[tokio::test]
async fn a_key_is_shown_once_and_masked_ever_after() {
    let server = Server::start().await;
    let body = json!({"name": "k", "type": "reusable", "expires_in": 86400, "auto_groups": null, "usage_limit": 5,
        "ephemeral": true, "allow_extra_dns_labels": true});
    let key = server.owner.created("/api/setup-keys", body).await;
    let plain = text(&key, "key");
    assert_eq!(plain.len(), 36);
    assert_eq!(key["control_fingerprint"], FINGERPRINT);
    assert_eq!(
        (&key["state"], &key["valid"], &key["ephemeral"]),
        (&json!("valid"), &json!(true), &json!(true))
    );

    let path = format!("/api/setup-keys/{}", text(&key, "id"));
    for path in [path.as_str(), "/api/setup-keys", "/api/events/audit"] {
        let (status, answer) = server.owner.get(path).await;
        assert_eq!(status, 200);
        assert!(!answer.to_string().contains(&plain), "{path}");
    }
    let (_, shown) = server.owner.get(&path).await;
    assert_eq!(text(&shown, "key"), format!("{}{}", &plain[..5], "*".repeat(31)));
    assert!(shown.get("control_fingerprint").is_none());

    let group = server.group("g").await;
    let (status, changed) = server.owner.put(&path, json!({"revoked": false, "auto_groups": [group]})).await;
    assert_eq!((status, &changed["auto_groups"]), (200, &json!([group])));
    assert_eq!(server.owner.delete(&path).await, (200, json!({})));
    assert_eq!(server.owner.get(&path).await.0, 404);
    let codes = server.codes().await;
    for code in ["setupkey.add", "setupkey.group.add", "setupkey.delete"] {
        assert!(codes.iter().any(|seen| seen == code), "{code} in {codes:?}");
    }
}

#[tokio::test]
async fn a_11_a_one_off_key_cannot_have_a_limit_above_one() {
    let server = Server::start().await;
    let body =
        |limit: i64| json!({"name": "k", "type": "one-off", "expires_in": 86400, "usage_limit": limit});
    assert_eq!(server.owner.post("/api/setup-keys", body(5)).await.0, 422);
    for limit in [0, 1] {
        let key = server.owner.created("/api/setup-keys", body(limit)).await;
        assert_eq!(key["usage_limit"], 1);
    }
}

#[tokio::test]
async fn a_12_a_revoked_key_stays_revoked() {
    let server = Server::start().await;
    let key = server.owner.created("/api/setup-keys", json!({"name": "k", "type": "reusable"})).await;
    let path = format!("/api/setup-keys/{}", text(&key, "id"));
    let (status, revoked) = server.owner.put(&path, json!({"revoked": true, "auto_groups": []})).await;
    assert_eq!((status, &revoked["state"], &revoked["valid"]), (200, &json!("revoked"), &json!(false)));
    assert_eq!(server.owner.put(&path, json!({"revoked": false, "auto_groups": []})).await.0, 422);
    let revision = server.store.revision().await.unwrap();
    assert_eq!(server.owner.put(&path, json!({"revoked": true, "auto_groups": []})).await.0, 200);
    assert_eq!(server.store.revision().await.unwrap(), revision);
}

#[tokio::test]
async fn wrong_keys_are_refused() {
    let server = Server::start().await;
    let all = server.all().await;
    for body in [
        json!({"name": "", "type": "one-off"}),
        json!({"name": "k", "type": "forever"}),
        json!({"name": "k"}),
        json!({"name": "k", "type": "reusable", "expires_in": -1}),
        json!({"name": "k", "type": "reusable", "usage_limit": -1}),
        json!({"name": "k", "type": "reusable", "auto_groups": ["nothing"]}),
        json!({"name": "k", "type": "reusable", "auto_groups": [all]}),
    ] {
        assert_eq!(server.owner.post("/api/setup-keys", body.clone()).await.0, 422, "{body}");
    }
    assert_eq!(server.owner.put("/api/setup-keys/x", json!({"revoked": true})).await.0, 404);
}
