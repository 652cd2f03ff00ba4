use reqwest::Method;
use serde_json::{Value, json};
use sluicegate_control::rest::limits::Rates;
use sluicegate_control::store::TOKEN_FILE;

use crate::harness::{Server, Session, Whole, text};
use crate::{postgres, stores};

async fn put(session: &Session, path: &str, tag: &str, body: Value) -> Whole {
    session.ask(Method::PUT, path, &[("If-Match", tag)], Some(body.to_string())).await
}

async fn tag(session: &Session, path: &str) -> String {
    let shown = session.ask(Method::GET, path, &[], None).await;
    shown.header("etag").unwrap().to_owned()
}

async fn post(session: &Session, path: &str, key: &str, body: &Value) -> Whole {
    session.ask(Method::POST, path, &[("Idempotency-Key", key)], Some(body.to_string())).await
}

#[tokio::test]
async fn of_two_who_change_what_they_read_one_is_told_and_nothing_is_lost() {
    let server = Server::start().await;
    let path = format!("/api/groups/{}", server.group("ops").await);
    let read = tag(&server.owner, &path).await;
    let changes = (0..8).map(|i| {
        let (owner, path, read) = (server.owner.clone(), path.clone(), read.clone());
        tokio::spawn(
            async move { put(&owner, &path, &read, json!({"name": format!("ops{i}")})).await.status },
        )
    });
    let mut statuses = Vec::new();
    for change in changes.collect::<Vec<_>>() {
        statuses.push(change.await.unwrap());
    }
    statuses.sort();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);

    let refused = put(&server.owner, &path, &read, json!({"name": "late"})).await;
    let now = tag(&server.owner, &path).await;
    assert!(refused.body["message"].as_str().unwrap().contains(&now), "{}", refused.body);
    let revision = server.store.revision().await.unwrap();
    let changed = put(&server.owner, &path, &format!("{read}, {now}"), json!({"name": "again"})).await;
    assert_eq!((changed.status, &changed.body["name"]), (200, &json!("again")));
    assert_eq!(changed.header("etag").unwrap(), tag(&server.owner, &path).await);
    assert_eq!(server.store.revision().await.unwrap(), revision + 1);
    assert_eq!(*server.store.changes().borrow(), revision + 1);

    let delete =
        async |tag: &str| server.owner.ask(Method::DELETE, &path, &[("If-Match", tag)], None).await.status;
    assert_eq!(delete(&now).await, 412);
    assert_eq!(delete("*").await, 200);
    // Without an object there is nothing to compare: the request is refused as it would be anyway.
    assert_eq!(delete("*").await, 404);
    assert_eq!(put(&server.owner, &path, &now, json!({"name": "x"})).await.status, 404);
}

#[tokio::test]
async fn a_machine_that_joins_changes_no_policy() {
    let server = Server::start().await;
    let (_, policies) = server.owner.get("/api/policies").await;
    let path = format!("/api/policies/{}", text(&policies[0], "id"));
    let read = tag(&server.owner, &path).await;
    let all = server.all().await;
    server.peer("machine").await;
    assert_eq!(tag(&server.owner, &path).await, read);
    let rule = json!({"name": "Default", "enabled": true, "action": "accept", "bidirectional": true,
        "protocol": "all", "sources": [all], "destinations": [all]});
    let body = json!({"name": "Default", "enabled": false, "rules": [rule]});
    let changed = put(&server.owner, &path, &read, body).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_ne!(tag(&server.owner, &path).await, read);
}

#[tokio::test]
async fn a_question_is_answered_anew_whatever_its_key() {
    let server = Server::start().await;
    let (_, export) = server.owner.get("/api/policy-file").await;
    let file = json!({"file": text(&export, "file")});
    for (path, body) in [
        ("/api/policy-file/plan", &file),
        ("/api/policy-file/test", &file),
        ("/api/policy-file/suggest", &json!({"policy": "Default"})),
    ] {
        for _ in 0..2 {
            let answer = post(&server.owner, path, "q-1", body).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            assert_eq!(answer.header("idempotent-replayed"), None, "{path}");
        }
    }
}

#[tokio::test]
async fn where_nothing_is_shown_there_is_no_revision_to_compare() {
    let server = Server::start().await;
    let headers = [("If-Match", "*")];
    let answer = server.owner.ask(Method::DELETE, "/api/break-glass/nothing", &headers, None).await;
    assert_eq!(answer.status, 412, "{}", answer.body);
    assert_eq!(server.owner.delete("/api/break-glass/nothing").await.0, 404);
}

#[tokio::test]
async fn a_condition_goes_with_every_refusal_and_leaves_nothing_of_it() {
    let server = Server::start().await;
    let path = format!("/api/groups/{}", server.group("ops").await);
    let read = tag(&server.owner, &path).await;
    let revision = server.store.revision().await.unwrap();
    for (tag, body, status) in [
        (read.as_str(), json!({"name": ""}), 422),
        (&read, json!({"name": "ops", "peers": ["nobody"]}), 422),
        (&read, json!({"name": "All"}), 409),
        (&read, json!({"name": 7}), 400),
        ("ops", json!({"name": "ops"}), 400),
    ] {
        assert_eq!(put(&server.owner, &path, tag, body.clone()).await.status, status, "{tag} {body}");
    }
    let auditor = server.user("auditor").await;
    assert_eq!(put(&auditor, &path, &read, json!({"name": "x"})).await.status, 403);
    // The auditor and its token.
    assert_eq!(server.store.revision().await.unwrap(), revision + 2);
    assert_eq!(tag(&auditor, &path).await, read, "whoever may read an object sees its revision");
    assert_eq!(put(&server.owner, &path, &read, json!({"name": "ops"})).await.status, 200);
}

#[tokio::test]
async fn a_creation_that_is_sent_again_is_answered_again_and_not_done_again() {
    let server = Server::start().await;
    let body = json!({"name": "k", "type": "reusable", "expires_in": 86400, "auto_groups": []});
    let first = post(&server.owner, "/api/setup-keys", "k-1", &body).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None));
    let revision = server.store.revision().await.unwrap();
    let again = post(&server.owner, "/api/setup-keys", "k-1", &body).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(
        again.body, first.body,
        "the key's text is shown once more: its first answer may have been lost"
    );
    assert!(!text(&again.body, "key").contains('*'));

    let other =
        post(&server.owner, "/api/setup-keys", "k-1", &json!({"name": "other", "type": "one-off"})).await;
    assert_eq!(other.status, 422);
    assert_eq!(post(&server.owner, "/api/groups", "k-1", &body).await.status, 422);
    assert_eq!(server.store.revision().await.unwrap(), revision);

    // Another user's keys are its own, and another token of the same user is not shown what the first was told.
    let admin = server.user("admin").await;
    assert_eq!(post(&admin, "/api/setup-keys", "k-1", &body).await.header("idempotent-replayed"), None);
    let (_, me) = server.owner.get("/api/users/current").await;
    let tokens = format!("/api/users/{}/tokens", text(&me, "id"));
    let token = server.owner.created(&tokens, json!({"name": "second", "expires_in": 1})).await;
    let second = server.owner.with_token(&text(&token, "plain_token"));
    assert_eq!(post(&second, "/api/setup-keys", "k-1", &body).await.status, 409);

    let server = Server::start_in(server.stop().await).await;
    let again = post(&server.owner, "/api/setup-keys", "k-1", &body).await;
    assert_eq!((again.status, &again.body), (200, &first.body), "after a restart");
    let (_, keys) = server.owner.get("/api/setup-keys").await;
    let named = keys.as_array().unwrap().iter().filter(|key| key["name"] == "k").count();
    assert_eq!(named, 2, "the owner's and the admin's");
}

#[tokio::test]
async fn requests_of_one_key_at_once_are_one() {
    let server = Server::start().await;
    let body = json!({"name": "ops"});
    let sent: Vec<_> = (0..8)
        .map(|_| {
            let (owner, body) = (server.owner.clone(), body.clone());
            tokio::spawn(async move { post(&owner, "/api/groups", "same", &body).await })
        })
        .collect();
    let mut answers = Vec::new();
    for answer in sent {
        answers.push(answer.await.unwrap());
    }
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    assert_eq!(answers.iter().filter(|answer| answer.header("idempotent-replayed").is_none()).count(), 1);
    assert_eq!(server.codes().await.iter().filter(|code| *code == "group.add").count(), 1);
}

#[tokio::test]
async fn a_refused_creation_is_not_kept() {
    let server = Server::start().await;
    let body = json!({"name": "ops"});
    let id = server.group("ops").await;
    assert_eq!(post(&server.owner, "/api/groups", "once", &body).await.status, 409);
    server.owner.delete(&format!("/api/groups/{id}")).await;
    assert_eq!(post(&server.owner, "/api/groups", "once", &body).await.status, 200);
    for wrong in ["", "with blanks in it", &"x".repeat(256)] {
        let answer = post(&server.owner, "/api/groups", wrong, &json!({"name": "x"})).await;
        assert_eq!(answer.status, 400, "{wrong:?}");
    }
}

#[tokio::test]
async fn another_replica_knows_what_one_has_answered() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = postgres::database();
    stores::belongs(one.path(), &url);
    stores::belongs(two.path(), &url);
    let one = Server::start_with(one, Rates::default()).await;
    std::fs::copy(one.directory.path().join(TOKEN_FILE), two.path().join(TOKEN_FILE)).unwrap();
    let two = Server::start_with(two, Rates::default()).await;
    let body = json!({"name": "ops"});
    let (first, again) = tokio::join!(
        post(&one.owner, "/api/groups", "k", &body),
        post(&two.owner, "/api/groups", "k", &body)
    );
    assert_eq!((first.status, again.status, &first.body), (200, 200, &again.body));
    let path = format!("/api/groups/{}", text(&first.body, "id"));
    let read = tag(&two.owner, &path).await;
    let (first, second) = tokio::join!(
        put(&one.owner, &path, &read, json!({"name": "a"})),
        put(&two.owner, &path, &read, json!({"name": "b"}))
    );
    let mut statuses = [first.status, second.status];
    statuses.sort();
    assert_eq!(statuses, [200, 412]);
}
