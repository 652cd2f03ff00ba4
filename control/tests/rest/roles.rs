use reqwest::Method;
use serde_json::{Value, json};

use sluicegate_control::store::Actor;

use crate::harness::{Server, Session, text};

/// Every documented operation that needs a token, with its parameters filled in.
async fn operations(session: &Session) -> Vec<(Method, String)> {
    let (_, document) = session.get("/api/openapi.json").await;
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(path, item)| {
        let path: Vec<&str> =
            path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
        let path = path.join("/");
        let methods =
            item.as_object().unwrap().iter().filter(|(_, operation)| operation.get("security").is_some());
        methods
            .map(move |(method, _)| (method.to_uppercase().parse().unwrap(), path.clone()))
            .collect::<Vec<_>>()
    });
    operations.collect()
}

async fn refused(session: &Session, filter: impl Fn(&Method) -> bool) -> Vec<String> {
    let mut refused = Vec::new();
    for (method, path) in operations(session).await {
        // The stream of flows never ends where it is allowed.
        if !filter(&method) || path == "/api/flows/stream" {
            continue;
        }
        let body = (method != Method::GET).then(|| json!({}).to_string());
        let (status, _) = session.send(method.clone(), &path, body).await;
        if status == 403 {
            refused.push(format!("{method} {path}"));
        }
    }
    refused
}

#[tokio::test]
async fn nothing_that_is_documented_as_protected_is_answered_without_a_token() {
    let server = Server::start().await;
    let nobody = server.owner.with_authorization(None);
    let operations = operations(&nobody).await;
    assert!(operations.len() > 40, "{operations:?}");
    for (method, path) in operations {
        assert_eq!(nobody.send(method.clone(), &path, Some("{}".into())).await.0, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn owner_and_admin_are_refused_nothing() {
    let server = Server::start().await;
    assert_eq!(refused(&server.owner, |_| true).await, Vec::<String>::new());
    assert_eq!(refused(&server.user("admin").await, |_| true).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_auditor_reads_everything_and_changes_nothing() {
    let server = Server::start().await;
    let auditor = server.user("auditor").await;
    let reads = refused(&auditor, |method| *method == Method::GET).await;
    // Logins and tokens are nobody's but their user's.
    assert_eq!(reads, ["GET /api/users/x/sessions", "GET /api/users/x/tokens", "GET /api/users/x/tokens/x"]);
    let changes = operations(&auditor).await.into_iter().filter(|(method, _)| *method != Method::GET);
    // These carry a file and change nothing; and everybody may log in on machines, and leave.
    let questions = [
        "POST /api/login/device",
        "POST /api/login/machine",
        "POST /api/logout",
        "POST /api/peers/x/login",
        "POST /api/policy-file/plan",
        "POST /api/policy-file/suggest",
        "POST /api/policy-file/test",
    ];
    let changes = changes.map(|(method, path)| format!("{method} {path}"));
    let changes: Vec<String> = changes.filter(|change| !questions.contains(&change.as_str())).collect();
    assert_eq!(refused(&auditor, |method| *method != Method::GET).await, changes);
}

#[tokio::test]
async fn a_network_admin_changes_networks_routes_names_groups_and_policies_only() {
    let server = Server::start().await;
    let network_admin = server.user("network_admin").await;
    let mut refused = refused(&network_admin, |_| true).await;
    refused.sort();
    // Logins and tokens of others are not even seen; of accounts, peers, setup keys and users nothing is changed.
    let expected = [
        "DELETE /api/peers/x",
        "DELETE /api/setup-keys/x",
        "DELETE /api/users/invites/x",
        "DELETE /api/users/x",
        "DELETE /api/users/x/reject",
        "DELETE /api/users/x/sessions/x",
        "DELETE /api/users/x/tokens/x",
        "DELETE /api/users/x/totp",
        "GET /api/users/x/sessions",
        "GET /api/users/x/tokens",
        "GET /api/users/x/tokens/x",
        "POST /api/peers/x/temporary-access",
        "POST /api/setup-keys",
        "POST /api/users",
        "POST /api/users/invites",
        "POST /api/users/invites/x/regenerate",
        "POST /api/users/x/approve",
        "POST /api/users/x/invite",
        "POST /api/users/x/tokens",
        "POST /api/users/x/totp",
        "POST /api/users/x/totp/confirm",
        "PUT /api/accounts/x",
        "PUT /api/peers/x",
        "PUT /api/setup-keys/x",
        "PUT /api/users/x",
        "PUT /api/users/x/password",
    ];
    assert_eq!(refused, expected);
    assert_eq!(network_admin.post("/api/groups", json!({"name": "g"})).await.0, 200);
}

/// Whether the account keeps its views from users of role `user`.
async fn block_views(server: &Server, blocked: bool) {
    let mut settings = server.store.account().await.unwrap().settings;
    settings.regular_users_view_blocked = blocked;
    server.store.update_settings(&Actor::system(), settings).await.unwrap();
}

#[tokio::test]
async fn a_user_sees_itself_and_its_tokens() {
    let server = Server::start().await;
    server.peer("somebody").await;
    let user = server.user("user").await;
    for path in [
        "/api/accounts",
        "/api/groups",
        "/api/policies",
        "/api/networks",
        "/api/routes",
        "/api/dns/nameservers",
        "/api/dns/settings",
        "/api/dns/zones",
        "/api/setup-keys",
        "/api/events/audit",
    ] {
        assert_eq!(user.get(path).await.0, 403, "{path}");
    }
    let (status, refused) = user.get("/api/peers").await;
    assert_eq!(status, 403);
    assert!(text(&refused, "message").contains("regular_users_view_blocked is on"), "{refused}");
    let (_, me) = user.get("/api/users/current").await;
    assert_eq!(me["permissions"]["is_restricted"], true);
    block_views(&server, false).await;
    assert_eq!(user.get("/api/peers").await, (200, json!([])));
    let (_, me) = user.get("/api/users/current").await;
    let (status, users) = user.get("/api/users").await;
    assert_eq!((status, users.as_array().unwrap().len(), &users[0]["id"]), (200, 1, &me["id"]));
    assert_eq!(me["permissions"]["is_restricted"], false);
    assert_eq!(me["permissions"]["modules"]["groups"]["read"], false);

    let own = format!("/api/users/{}/tokens", me["id"].as_str().unwrap());
    assert_eq!(user.post(&own, json!({"name": "mine", "expires_in": 1})).await.0, 200);
    let (_, users) = server.owner.get("/api/users").await;
    let owner = users.as_array().unwrap().iter().find(|user| user["role"] == "owner").unwrap()["id"].clone();
    let others = format!("/api/users/{}/tokens", owner.as_str().unwrap());
    assert_eq!(user.post(&others, json!({"name": "theirs", "expires_in": 1})).await.0, 403);
}

#[tokio::test]
async fn of_everything_documented_a_user_is_refused_all_but_its_own() {
    let server = Server::start().await;
    let user = server.user("user").await;
    let admitted = async || {
        let mut admitted = Vec::new();
        for (method, path) in operations(&user).await {
            let body = (method != Method::GET).then(|| "{}".to_owned());
            let answer = user.ask(method.clone(), &path, &[], body).await;
            if answer.status != 403 {
                admitted.push(format!("{method} {path}"));
            }
        }
        admitted.sort();
        admitted
    };
    // What is the own, a list that is always empty, and logins on own machines, and the end of the own login.
    let own = [
        "GET /api/ingress/peers",
        "GET /api/peers",
        "GET /api/peers/x",
        "GET /api/peers/x/accessible-peers",
        "GET /api/peers/x/ingress/ports",
        "GET /api/peers/x/jobs",
        "GET /api/users",
        "GET /api/users/current",
        "POST /api/login/device",
        "POST /api/login/machine",
        "POST /api/logout",
        "POST /api/peers/x/login",
    ];
    let views = ["/api/peers", "/api/ingress"];
    let is_view = |operation: &str| {
        operation.strip_prefix("GET ").is_some_and(|path| views.iter().any(|view| path.starts_with(view)))
    };
    let no_view: Vec<_> = own.into_iter().filter(|operation| !is_view(operation)).collect();
    assert_eq!(admitted().await, no_view, "a new account keeps its views from users");
    // The other roles are kept from nothing by it: `owner_and_admin_are_refused_nothing` and the others run with it.
    assert_eq!(server.user("auditor").await.get("/api/peers").await.0, 200);
    block_views(&server, false).await;
    assert_eq!(admitted().await, own);
    let gateway = server.peer("gateway").await.id;
    for path in [
        "/api/gateways".to_owned(),
        format!("/api/gateways/{gateway}"),
        format!("/api/gateways/{gateway}/rules"),
        format!("/api/explain?source={gateway}&destination={gateway}&service=icmp"),
        "/api/flows/stream".to_owned(),
    ] {
        assert_eq!(user.get(&path).await.0, 403, "{path}");
    }
    // Whether a peer of others is there cannot be told from one that is not.
    for part in ["", "/jobs", "/ingress/ports", "/accessible-peers"] {
        let path = |id: &str| format!("/api/peers/{id}{part}");
        assert_eq!(user.get(&path(&gateway)).await.0, 404, "{part}");
        assert_eq!(user.get(&path("nobody")).await.0, 404, "{part}");
        assert_eq!(server.owner.get(&path(&gateway)).await.0, 200, "{part}");
    }
}

#[tokio::test]
async fn nobody_rises_above_the_own_role() {
    let server = Server::start().await;
    let admin = server.user("admin").await;
    let (_, users) = server.owner.get("/api/users").await;
    let id = |role: &str| -> Value {
        users.as_array().unwrap().iter().find(|user| user["role"] == role).unwrap()["id"].clone()
    };
    let (owner, own) = (id("owner"), id("admin"));
    let (owner, own) = (owner.as_str().unwrap(), own.as_str().unwrap());

    let token = json!({"name": "t", "expires_in": 1});
    assert_eq!(admin.post(&format!("/api/users/{owner}/tokens"), token).await.0, 403);
    let body = json!({"name": "x", "role": "owner", "is_service_user": true});
    assert_eq!(admin.post("/api/users", body).await.0, 422);
    let promote = json!({"role": "owner", "auto_groups": [], "is_blocked": false});
    assert_eq!(admin.put(&format!("/api/users/{own}"), promote).await.0, 403);
    let demote = json!({"role": "user", "auto_groups": [], "is_blocked": true});
    assert_eq!(admin.put(&format!("/api/users/{owner}"), demote).await.0, 403);
    assert_eq!(admin.delete(&format!("/api/users/{owner}")).await.0, 403);
    assert_eq!(admin.delete(&format!("/api/users/{own}")).await.0, 403);
    assert_eq!(server.owner.delete(&format!("/api/users/{owner}")).await.0, 403);
}
