use serde_json::json;

use crate::harness::{Server, text};

#[tokio::test]
async fn users_are_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let group = server.group("team").await;
    let body = json!({"email": "a@example.org", "name": "Ann", "role": "user", "auto_groups": [group], "is_service_user": false});
    let ann = server.owner.created("/api/users", body.clone()).await;
    assert_eq!(
        (&ann["status"], &ann["is_current"], &ann["auto_groups"]),
        (&json!("invited"), &json!(false), &json!([group]))
    );
    assert_eq!(server.owner.post("/api/users", body).await.0, 409);

    let (_, people) = server.owner.get("/api/users?service_user=false").await;
    assert_eq!(people.as_array().unwrap().len(), 1);
    let (_, services) = server.owner.get("/api/users?service_user=true").await;
    assert_eq!(services[0]["name"], "bootstrap");

    let path = format!("/api/users/{}", text(&ann, "id"));
    let change = json!({"role": "auditor", "auto_groups": [], "is_blocked": true});
    let (status, changed) = server.owner.put(&path, change.clone()).await;
    assert_eq!((status, &changed["role"], &changed["is_blocked"]), (200, &json!("auditor"), &json!(true)));
    let revision = server.store.revision().await.unwrap();
    assert_eq!(server.owner.put(&path, change.clone()).await.0, 200);
    assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");

    assert_eq!(server.owner.delete(&path).await, (200, json!({})));
    assert_eq!(server.owner.delete(&path).await.0, 404);
    assert_eq!(server.owner.put(&path, change).await.0, 404);
    let codes = server.codes().await;
    for code in ["user.invite", "user.role.update", "user.block", "user.group.delete", "user.delete"] {
        assert!(codes.iter().any(|seen| seen == code), "{code} in {codes:?}");
    }
}

#[tokio::test]
async fn wrong_users_are_refused() {
    let server = Server::start().await;
    let all = server.all().await;
    for body in [
        json!({"name": "x", "role": "king", "is_service_user": true}),
        json!({"name": "x", "role": "", "is_service_user": true}),
        json!({"name": "", "role": "user", "is_service_user": true}),
        json!({"name": "x", "role": "user", "is_service_user": false}),
        json!({"name": "x", "role": "user", "email": "nobody", "is_service_user": false}),
        json!({"name": "x", "role": "user", "is_service_user": true, "auto_groups": ["nothing"]}),
        json!({"name": "x", "role": "user", "is_service_user": true, "auto_groups": [all]}),
    ] {
        assert_eq!(server.owner.post("/api/users", body.clone()).await.0, 422, "{body}");
    }
}

#[tokio::test]
async fn the_owner_role_is_handed_over_and_there_is_always_one() {
    let server = Server::start().await;
    server.user("admin").await;
    let (_, users) = server.owner.get("/api/users").await;
    let admin = users.as_array().unwrap().iter().find(|user| user["role"] == "admin").unwrap();
    let path = format!("/api/users/{}", text(admin, "id"));
    let promote = json!({"role": "owner", "auto_groups": [], "is_blocked": false});
    let (status, user) = server.owner.put(&path, promote.clone()).await;
    assert_eq!((status, &user["role"]), (200, &json!("owner")));
    let (_, me) = server.owner.get("/api/users/current").await;
    assert_eq!(me["role"], "admin");
    let (_, users) = server.owner.get("/api/users").await;
    assert_eq!(users.as_array().unwrap().iter().filter(|user| user["role"] == "owner").count(), 1);
    // What was the owner is an admin now, who cannot take it back.
    let back = json!({"role": "user", "auto_groups": [], "is_blocked": false});
    assert_eq!(server.owner.put(&path, back).await.0, 403);
    assert!(server.codes().await.contains(&"transferred.owner.role".to_owned()));
}

#[tokio::test]
async fn a_put_that_does_not_say_so_unblocks_nobody() {
    let server = Server::start().await;
    let body = json!({"email": "a@example.org", "name": "Ann", "role": "user", "auto_groups": []});
    let path = format!("/api/users/{}", text(&server.owner.created("/api/users", body).await, "id"));
    let block = json!({"role": "user", "auto_groups": [], "is_blocked": true});
    assert_eq!(server.owner.put(&path, block).await.1["is_blocked"], true);
    let (status, user) = server.owner.put(&path, json!({"role": "auditor", "auto_groups": []})).await;
    assert_eq!((status, &user["role"], &user["is_blocked"]), (200, &json!("auditor"), &json!(true)));
    let unblock = json!({"role": "auditor", "auto_groups": [], "is_blocked": false});
    assert_eq!(server.owner.put(&path, unblock).await.1["is_blocked"], false);
}

#[tokio::test]
async fn one_user_is_read_by_id_and_a_plain_user_reads_only_itself() {
    let server = Server::start().await;
    let user = server.user("user").await;
    let (_, me) = user.get("/api/users/current").await;
    let (_, owner) = server.owner.get("/api/users/current").await;
    let path = |user: &serde_json::Value| format!("/api/users/{}", text(user, "id"));
    assert_eq!(user.get(&path(&me)).await, (200, me.clone()));
    assert_eq!(user.get(&path(&owner)).await.0, 403);
    let (status, seen) = server.owner.get(&path(&me)).await;
    assert_eq!((status, &seen["id"], &seen["is_current"]), (200, &me["id"], &json!(false)));
    assert_eq!(server.owner.get("/api/users/nobody").await.0, 404);
}
