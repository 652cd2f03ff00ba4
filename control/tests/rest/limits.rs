use reqwest::Method;
use serde_json::json;
use sluicegate_control::rest::limits::Rates;

use crate::harness::{Server, message};

#[tokio::test]
async fn too_many_requests_of_one_token_or_of_strangers_are_told_when_to_come_back() {
    let rates = Rates { burst: 40, ..Rates::default() };
    let server = Server::start_with(tempfile::tempdir().unwrap(), rates).await;
    let other = server.user("admin").await;
    assert_eq!(other.get("/api/groups").await.0, 200);
    let stranger = server.owner.with_authorization(None);
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(stranger.get("/api/groups").await.0);
    }
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    let refused = stranger.ask(Method::GET, "/api/instance", &[], None).await;
    assert_eq!((refused.status, refused.body["code"].as_i64()), (429, Some(429)));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");

    // The tokens that are known to be good have buckets of their own.
    let mut served = 0;
    while server.owner.get("/api/instance/version").await.0 == 200 {
        served += 1;
        assert!(served < 1000, "no limit");
    }
    assert!(served > 30, "{served}");
    assert_eq!(other.get("/api/groups").await.0, 200);
}

#[tokio::test]
async fn tokens_that_are_made_up_have_no_buckets_where_nobody_looks_at_them() {
    let rates = Rates { burst: 40, ..Rates::default() };
    let server = Server::start_with(tempfile::tempdir().unwrap(), rates).await;
    let mut statuses = Vec::new();
    for n in 0..8 {
        let made_up = server.owner.with_authorization(Some(&format!("Token nbp_{n}")));
        let first = made_up.get("/api/instance/version").await.0;
        statuses.push([first, made_up.get("/api/instance/version").await.0]);
    }
    assert_eq!(statuses[0], [200, 200]);
    assert_eq!(statuses.last(), Some(&[429, 429]), "{statuses:?}");
}

#[tokio::test]
async fn a_body_has_a_largest_size_and_a_deepest_nesting() {
    let server = Server::start().await;
    for (headers, length, status) in [
        (&[][..], 1024 * 1024, 422),
        (&[], 1024 * 1024 + 1, 413),
        (&[("Idempotency-Key", "k")], 1024 * 1024 + 1, 413),
    ] {
        let frame = json!({"name": ""}).to_string().len();
        let body = json!({"name": "x".repeat(length - frame)}).to_string();
        assert_eq!(body.len(), length);
        let answer = server.owner.ask(Method::POST, "/api/groups", headers, Some(body)).await;
        assert_eq!(answer.status, status, "{length}");
    }
    let deep = format!("{{\"name\":\"x\",\"more\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let answer = server.owner.send(Method::POST, "/api/groups", Some(deep)).await;
    assert!(answer.0 == 400 && message(&answer).contains("recursion limit"), "{answer:?}");
    let wrong = json!({"name": "p", "rules": [{"name": "r", "ports": ["1", 2]}]}).to_string();
    let answer = server.owner.send(Method::POST, "/api/policies", Some(wrong)).await;
    assert!(answer.0 == 400 && message(&answer).contains("rules[0].ports[1]"), "{answer:?}");
}
