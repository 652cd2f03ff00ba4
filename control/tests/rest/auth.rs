use serde_json::{Value, json};

use crate::harness::{Server, message, text};

#[tokio::test]
async fn a_1_without_a_header_nothing_is_answered() {
    let server = Server::start().await;
    for header in [None, Some(""), Some("Token"), Some("Token "), Some("Basic abc")] {
        let answer = server.owner.with_authorization(header).get("/api/groups").await;
        assert_eq!((answer.0, message(&answer)), (401, "no valid authentication provided"), "{header:?}");
    }
}

#[tokio::test]
async fn a_2_a_bad_token_is_invalid() {
    let server = Server::start().await;
    let unknown = sluicegate_control::secret::new_token();
    for header in
        [format!("Token {unknown}"), format!("Bearer {unknown}"), "Token nbp_short".into(), "Token x".into()]
    {
        let answer = server.owner.with_authorization(Some(&header)).get("/api/groups").await;
        assert_eq!((answer.0, message(&answer)), (401, "token invalid"), "{header}");
    }
    let answer = server.owner.with_authorization(Some("Bearer aaa.bbb.ccc")).get("/api/groups").await;
    assert_eq!(answer.0, 401);
    assert!(message(&answer).starts_with("token invalid") && message(&answer).contains("identity provider"));
}

#[tokio::test]
async fn the_scheme_has_no_case_and_a_token_may_come_as_bearer() {
    let server = Server::start().await;
    let header = server.owner.authorization.clone().unwrap();
    let token = header.strip_prefix("Token ").unwrap();
    for scheme in ["token", "TOKEN", "Bearer", "bearer"] {
        let session = server.owner.with_authorization(Some(&format!("{scheme} {token}")));
        assert_eq!(session.get("/api/groups").await.0, 200, "{scheme}");
    }
}

#[tokio::test]
async fn a_token_is_listed_without_its_text_used_and_deleted() {
    let server = Server::start().await;
    let user = server
        .owner
        .created("/api/users", json!({"name": "ci", "role": "admin", "is_service_user": true}))
        .await;
    let path = format!("/api/users/{}/tokens", user["id"].as_str().unwrap());
    for days in [0, 366, -1] {
        assert_eq!(server.owner.post(&path, json!({"name": "t", "expires_in": days})).await.0, 422, "{days}");
    }
    assert_eq!(server.owner.post(&path, json!({"name": " ", "expires_in": 1})).await.0, 422);

    let made = server.owner.created(&path, json!({"name": "t", "expires_in": 30})).await;
    let plain = made["plain_token"].as_str().unwrap();
    assert!(plain.starts_with("nbp_") && plain.len() == 40);
    let (_, list) = server.owner.get(&path).await;
    assert!(!list.to_string().contains(plain));
    assert_eq!(list[0]["name"], "t");
    assert!(list[0].get("last_used").is_none());

    let session = server.owner.with_token(plain);
    assert_eq!(session.get("/api/groups").await.0, 200);
    let one = format!("{path}/{}", made["personal_access_token"]["id"].as_str().unwrap());
    let (status, token) = server.owner.get(&one).await;
    assert_eq!(status, 200);
    assert!(token["last_used"].is_string());

    assert_eq!(server.owner.delete(&one).await, (200, json!({})));
    assert_eq!(session.get("/api/groups").await.0, 401);
    assert_eq!(server.owner.delete(&one).await.0, 404);
    assert_eq!(server.owner.get(&one).await.0, 404);
    let codes = server.codes().await;
    assert!(codes.ends_with(&["personal.access.token.create".into(), "personal.access.token.delete".into()]));
}

#[tokio::test]
async fn a_blocked_user_is_refused_at_once() {
    let server = Server::start().await;
    let admin = server.user("admin").await;
    let (_, me) = admin.get("/api/users/current").await;
    let path = format!("/api/users/{}", me["id"].as_str().unwrap());
    let (status, user) =
        server.owner.put(&path, json!({"role": "admin", "auto_groups": [], "is_blocked": true})).await;
    assert_eq!((status, &user["status"]), (200, &json!("blocked")));
    assert_eq!(admin.get("/api/groups").await.0, 401);
    server.owner.put(&path, json!({"role": "admin", "auto_groups": [], "is_blocked": false})).await;
    assert_eq!(admin.get("/api/groups").await.0, 200);
}

#[tokio::test]
async fn unknown_paths_methods_and_bodies_are_answered_in_json() {
    let server = Server::start().await;
    assert_eq!(server.owner.get("/api/nothing").await.0, 404);
    assert_eq!(server.owner.get("/").await.0, 404);
    assert_eq!(server.owner.delete("/api/groups").await.0, 405);
    assert_eq!(server.owner.get("/api/users?service_user=perhaps").await.0, 400);
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(1024 * 1024));
    assert_eq!(server.owner.send(reqwest::Method::POST, "/api/groups", Some(large)).await.0, 413);
}

#[tokio::test]
async fn a_5_malformed_json_is_a_bad_request_on_every_path_that_takes_a_body() {
    let server = Server::start().await;
    let all = server.all().await;
    let posts = ["/api/users", "/api/groups", "/api/setup-keys", "/api/policies", "/api/networks"];
    for path in posts {
        for body in ["", "{", "[]", "\"x\"", "{\"name\": 5}"] {
            let answer = server.owner.send(reqwest::Method::POST, path, Some(body.into())).await;
            assert_eq!(answer.0, 400, "{path} {body}");
            assert!(message(&answer).starts_with("couldn't parse JSON request"), "{answer:?}");
        }
    }
    let put = format!("/api/groups/{all}");
    assert_eq!(server.owner.send(reqwest::Method::PUT, &put, Some("{".into())).await.0, 400);
}

/// Reads a stream to its end, which must come although nobody closes it.
async fn ends(mut stream: reqwest::Response) {
    let read = async { while stream.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), read).await.expect("the stream ends");
}

#[tokio::test]
async fn a_stream_ends_with_the_right_to_it() {
    let server = Server::start().await;
    let user = |sessions: &Value, role: &str| -> String {
        let users = sessions.as_array().unwrap();
        text(users.iter().find(|user| user["role"] == role).unwrap(), "id")
    };

    let auditor = server.user("auditor").await;
    let stream = auditor.stream("/api/flows/stream").await;
    let (_, users) = server.owner.get("/api/users").await;
    let path = format!("/api/users/{}", user(&users, "auditor"));
    let change = |role: &str, blocked: bool| json!({"role": role, "auto_groups": [], "is_blocked": blocked});
    assert_eq!(server.owner.put(&path, change("auditor", true)).await.0, 200);
    ends(stream).await;

    let admin = server.user("admin").await;
    let demoted = admin.stream("/api/flows/stream").await;
    let (_, users) = server.owner.get("/api/users").await;
    let path = format!("/api/users/{}", user(&users, "admin"));
    assert_eq!(server.owner.put(&path, change("user", false)).await.0, 200);
    ends(demoted).await;

    let other = server.user("network_admin").await;
    let deleted = other.stream("/api/flows/stream").await;
    let (_, users) = server.owner.get("/api/users").await;
    let tokens = format!("/api/users/{}/tokens", user(&users, "network_admin"));
    let (_, list) = server.owner.get(&tokens).await;
    assert_eq!(server.owner.delete(&format!("{tokens}/{}", text(&list[0], "id"))).await.0, 200);
    ends(deleted).await;
}
