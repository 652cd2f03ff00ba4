//! Built-in users over HTTP.

use reqwest::Method;
use serde_json::{Value, json};
use sluicegate_control::identity::{Identity, IdentityOptions, LocalUsers};
use totp_rs::TOTP;

use crate::harness::{Server, Session, message, text};

const PASSWORD: &str = "correct horse battery";

pub(crate) fn identity(open_setup: bool) -> Identity {
    let local_users = LocalUsers { enabled: true, open_setup };
    Identity::new(&IdentityOptions { local_users, ..IdentityOptions::default() }).unwrap()
}

async fn start(open_setup: bool) -> Server {
    Server::start_known(tempfile::tempdir().unwrap(), identity(open_setup)).await
}

fn credentials(email: &str, password: &str) -> Value {
    json!({"email": email, "password": password})
}

/// A session of somebody who logged in.
fn logged_in(server: &Server, login: &Value) -> Session {
    server.owner.with_authorization(Some(&format!("Bearer {}", text(login, "token"))))
}

#[tokio::test]
async fn the_first_person_is_made_by_the_owners_token_and_logs_in_as_the_owner() {
    let server = start(false).await;
    let anybody = server.owner.with_authorization(None);
    assert_eq!(anybody.get("/api/instance").await, (200, json!({"setup_required": true})));
    let first = json!({"email": "own@example.org", "password": PASSWORD, "name": "Olga", "create_pat": true,
        "pat_expire_in": 2});
    let refused = anybody.post("/api/setup", first.clone()).await;
    assert_eq!(refused.0, 401);
    assert!(message(&refused).contains("bootstrap-token"), "{refused:?}");
    assert_eq!(server.user("admin").await.post("/api/setup", first.clone()).await.0, 403);
    assert_eq!(server.owner.with_token("nbp_wrong").post("/api/setup", first.clone()).await.0, 401);
    assert_eq!(anybody.get("/api/instance").await.1["setup_required"], true);
    let short = json!({"email": "own@example.org", "password": "short", "name": ""});
    assert_eq!(server.owner.post("/api/setup", short).await.0, 422);

    let whole = server.owner.ask(Method::POST, "/api/setup", &[], Some(first.to_string())).await;
    assert_eq!(whole.status, 200, "{}", whole.body);
    assert_eq!(whole.header("cache-control"), Some("no-store"));
    assert_eq!(whole.body["email"], "own@example.org");
    let (_, me) =
        server.owner.with_token(&text(&whole.body, "personal_access_token")).get("/api/users/current").await;
    assert_eq!(
        (&me["role"], &me["id"], &me["name"]),
        (&json!("owner"), &whole.body["user_id"], &json!("Olga"))
    );
    assert_eq!(server.owner.get("/api/users/current").await.1["role"], "admin");
    assert_eq!(anybody.get("/api/instance").await, (200, json!({"setup_required": false})));
    assert_eq!(server.owner.post("/api/setup", first).await.0, 412);
    let login = anybody.created("/api/login/password", credentials("OWN@example.org", PASSWORD)).await;
    assert_eq!(logged_in(&server, &login).get("/api/users/current").await.1["role"], "owner");
}

#[tokio::test]
async fn where_the_configuration_says_so_anybody_is_the_first_person_once() {
    let server = start(true).await;
    let anybody = server.owner.with_authorization(None);
    let first = json!({"email": "own@example.org", "password": PASSWORD, "name": ""});
    let made = anybody.created("/api/setup", first.clone()).await;
    assert!(made.get("personal_access_token").is_none());
    assert_eq!(anybody.post("/api/setup", first).await.0, 412);
}

#[tokio::test]
async fn an_invited_user_sets_a_password_logs_in_and_takes_codes() {
    let server = start(false).await;
    let anybody = server.owner.with_authorization(None);
    assert_eq!(anybody.get("/api/login").await.1["passwords"], true);
    let group = server.group("ops").await;
    let body = json!({"email": "ann@example.org", "name": "Ann", "role": "user", "auto_groups": [group]});
    let invite = server.owner.created("/api/users/invites", body).await;
    let link = format!("/api/users/invites/{}", text(&invite, "invite_token"));
    let (_, list) = server.owner.get("/api/users/invites").await;
    assert!(list[0].get("invite_token").is_none() && list[0]["expired"] == false);
    let (status, info) = anybody.get(&link).await;
    assert_eq!((status, &info["valid"], &info["email"]), (200, &json!(true), &json!("ann@example.org")));
    assert_eq!(anybody.get("/api/users/invites/nbi_guess").await.0, 404);
    assert_eq!(anybody.post(&format!("{link}/accept"), json!({"password": "short"})).await.0, 422);
    let accepted = anybody.post(&format!("{link}/accept"), json!({"password": PASSWORD})).await;
    assert_eq!(accepted, (200, json!({"success": true})));
    assert_eq!(anybody.post(&format!("{link}/accept"), json!({"password": PASSWORD})).await.0, 404);

    let wrong = anybody.post("/api/login/password", credentials("ann@example.org", "wrong password")).await;
    let nobody = anybody.post("/api/login/password", credentials("bob@example.org", "wrong password")).await;
    assert_eq!(wrong, nobody, "nobody learns who is there");
    assert_eq!(wrong.0, 401, "{}", message(&wrong));
    let login = anybody.created("/api/login/password", credentials("ann@example.org", PASSWORD)).await;
    let ann = logged_in(&server, &login);
    let (_, me) = ann.get("/api/users/current").await;
    assert_eq!((&me["email"], &me["role"]), (&json!("ann@example.org"), &json!("user")));
    assert_eq!(me["auto_groups"], json!([group]));
    assert_eq!(ann.get("/api/users/invites").await.0, 403);

    let own = format!("/api/users/{}", text(&me, "id"));
    assert_eq!(ann.post(&format!("{own}/totp"), json!({"password": "wrong password"})).await.0, 403);
    let (status, codes) = ann.post(&format!("{own}/totp"), json!({"password": PASSWORD})).await;
    assert_eq!(status, 200);
    let totp = TOTP::from_url(text(&codes, "url")).unwrap();
    let code =
        |steps: i64| totp.generate((sluicegate_control::ids::now() / 1000 + steps * 30).unsigned_abs());
    assert_eq!(ann.post(&format!("{own}/totp/confirm"), json!({"code": "12345"})).await.0, 422);
    assert_eq!(ann.post(&format!("{own}/totp/confirm"), json!({"code": code(0)})).await, (200, json!({})));
    assert_eq!(anybody.post("/api/login/password", credentials("ann@example.org", PASSWORD)).await, wrong);
    let with_code = json!({"email": "ann@example.org", "password": PASSWORD, "code": code(1)});
    anybody.created("/api/login/password", with_code).await;

    // Where the user is logged in.
    let (status, sessions) = ann.get(&format!("{own}/sessions")).await;
    let sessions = sessions.as_array().unwrap().clone();
    assert_eq!((status, sessions.len()), (200, 2));
    assert_eq!(sessions.iter().filter(|session| session["is_current"] == true).count(), 1);
    assert!(sessions.iter().all(|session| session["method"] == "password"), "{sessions:?}");
    let other = sessions.iter().find(|session| session["is_current"] == false).unwrap();
    let one = format!("{own}/sessions/{}", text(other, "id"));
    assert_eq!(server.user("auditor").await.delete(&one).await.0, 403);
    assert_eq!(ann.delete(&one).await, (200, json!({})));
    assert_eq!(ann.delete(&one).await.0, 404);
    assert_eq!(server.owner.get(&format!("{own}/sessions")).await.1.as_array().unwrap().len(), 1);

    // A machine joins by the login, and is the user's with its groups; not by a token made long ago.
    let key = ann.created("/api/login/machine", json!({})).await;
    let laptop = server.enroll(&text(&key, "key"), "laptop").await.unwrap();
    let (_, peer) = server.owner.get(&format!("/api/peers/{}", laptop.id)).await;
    assert_eq!(peer["user_id"], me["id"]);
    assert!(peer["groups"].as_array().unwrap().iter().any(|own| own["id"] == group.as_str()), "{peer}");
    assert!(server.enroll(&text(&key, "key"), "another").await.is_err());
    let renew = format!("/api/peers/{}/login", laptop.id);
    assert_eq!(ann.post(&renew, json!({})).await.0, 200);
    let unused = ann.created("/api/login/machine", json!({})).await;

    // Nobody else's, and not with a token made long ago.
    assert_eq!(server.owner.put(&format!("{own}/password"), json!({})).await.0, 403);
    assert_eq!(server.owner.post(&format!("{own}/totp"), json!({})).await.0, 403);
    let token = ann.created(&format!("{own}/tokens"), json!({"name": "t", "expires_in": 1})).await;
    let program = server.owner.with_token(&text(&token, "plain_token"));
    let delete = |session: Session, body: Value| {
        let path = format!("{own}/totp");
        async move { session.send(Method::DELETE, &path, Some(body.to_string())).await.0 }
    };
    assert_eq!(delete(program.clone(), json!({"password": PASSWORD})).await, 403);
    let change = json!({"old_password": PASSWORD, "new_password": "another password"});
    assert_eq!(program.put(&format!("{own}/password"), change.clone()).await.0, 403);
    assert_eq!(program.post("/api/login/machine", json!({})).await.0, 403);
    assert_eq!(program.post(&renew, json!({})).await.0, 403);
    assert_eq!(delete(ann.clone(), json!({"password": "wrong password"})).await, 403);
    assert_eq!(delete(ann.clone(), json!({"password": PASSWORD})).await, 200);
    let (_, again) = ann.post(&format!("{own}/totp"), json!({"password": PASSWORD})).await;
    let again = TOTP::from_url(text(&again, "url")).unwrap();
    let now = again.generate((sluicegate_control::ids::now() / 1000).unsigned_abs());
    assert_eq!(ann.post(&format!("{own}/totp/confirm"), json!({"code": now})).await.0, 200);
    assert_eq!(delete(server.owner.clone(), json!({})).await, 200, "a lost device");
    assert_eq!(ann.put(&format!("{own}/password"), change).await.0, 200);
    assert_eq!(ann.get("/api/users/current").await.0, 401, "every login ends");
    assert!(server.enroll(&text(&unused, "key"), "late").await.is_err(), "and what it could have let in");

    let reset = server.owner.created(&format!("{own}/invite"), json!({})).await;
    let link = format!("/api/users/invites/{}/accept", text(&reset, "invite_token"));
    anybody.created(&link, json!({"password": "a third password"})).await;
    anybody.created("/api/login/password", credentials("ann@example.org", "a third password")).await;
    let codes = server.codes().await;
    for code in [
        "user.invite.link.create",
        "user.invite.link.accept",
        "user.password.change",
        "user.totp.enable",
        "user.totp.disable",
        "user.invite",
    ] {
        assert!(codes.iter().any(|known| known == code), "{code} is not in {codes:?}");
    }
}

#[tokio::test]
async fn where_the_account_asks_for_codes_a_login_is_refused_until_they_are_set_up() {
    let server = start(false).await;
    let anybody = server.owner.with_authorization(None);
    let body = json!({"email": "ann@example.org", "name": "Ann", "role": "user", "auto_groups": []});
    let invite = server.owner.created("/api/users/invites", body).await;
    let link = format!("/api/users/invites/{}/accept", text(&invite, "invite_token"));
    anybody.created(&link, json!({"password": PASSWORD})).await;
    let own = credentials("ann@example.org", PASSWORD);
    let early = anybody.post("/api/login/password/totp", own.clone()).await;
    assert_eq!(early.0, 422, "{early:?}");
    let ann = logged_in(&server, &anybody.created("/api/login/password", own.clone()).await);

    let (_, accounts) = server.owner.get("/api/accounts").await;
    let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
    assert_eq!(anybody.get("/api/login").await.1["codes_required"], false);
    server.owner.put(&path, json!({"settings": {"local_mfa_enabled": true}})).await;
    assert_eq!(anybody.get("/api/login").await.1["codes_required"], true);
    assert_eq!(ann.get("/api/users/current").await.0, 200, "until its end");
    let wrong = anybody.post("/api/login/password", credentials("ann@example.org", "wrong password")).await;
    assert_eq!(wrong.0, 401);
    let refused = anybody.post("/api/login/password", own.clone()).await;
    assert_eq!(refused.0, 428, "{refused:?}");
    assert!(message(&refused).contains("POST /api/login/password/totp"), "{refused:?}");
    assert!(refused.1.get("token").is_none());

    let totp = "/api/login/password/totp";
    assert_eq!(anybody.post(totp, credentials("ann@example.org", "wrong password")).await, wrong);
    assert_eq!(anybody.post(totp, credentials("bob@example.org", PASSWORD)).await, wrong);
    let codes = anybody.created(totp, own.clone()).await;
    let made = TOTP::from_url(text(&codes, "url")).unwrap();
    let now = made.generate((sluicegate_control::ids::now() / 1000).unsigned_abs());
    let with_code = json!({"email": "ann@example.org", "password": PASSWORD, "code": now});
    let login = anybody.created("/api/login/password", with_code).await;
    let ann = logged_in(&server, &login);
    let (_, me) = ann.get("/api/users/current").await;
    assert_eq!(me["email"], "ann@example.org");
    assert_eq!(anybody.post("/api/login/password", own.clone()).await, wrong, "as ever with codes");
    assert_eq!(anybody.post(totp, own.clone()).await, wrong);

    let body = Some(json!({"password": PASSWORD}).to_string());
    let path = format!("/api/users/{}/totp", text(&me, "id"));
    assert_eq!(ann.send(Method::DELETE, &path, body).await.0, 200);
    assert_eq!(ann.get("/api/users/current").await.0, 401, "nobody works on without codes");
    assert_eq!(anybody.post("/api/login/password", own).await.0, 428);
    let codes = server.codes().await;
    assert!(codes.contains(&"account.setting.local.mfa.enable".to_owned()), "{codes:?}");
}

#[tokio::test]
async fn an_administrators_codes_and_password_are_not_reset_by_a_token_made_long_ago() {
    let server = start(false).await;
    let anybody = server.owner.with_authorization(None);
    let first = json!({"email": "own@example.org", "password": PASSWORD, "name": "Olga"});
    server.owner.created("/api/setup", first).await;
    let login = anybody.created("/api/login/password", credentials("own@example.org", PASSWORD)).await;
    let owner = logged_in(&server, &login);
    let (_, me) = owner.get("/api/users/current").await;
    let token = json!({"name": "t", "expires_in": 1});
    let token = owner.created(&format!("/api/users/{}/tokens", text(&me, "id")), token).await;
    let program = server.owner.with_token(&text(&token, "plain_token"));
    for (role, status) in [("admin", 403), ("network_admin", 200)] {
        let email = format!("{role}@example.org");
        let body = json!({"email": email, "name": role, "role": role, "auto_groups": []});
        let invite = owner.created("/api/users/invites", body).await;
        let link = format!("/api/users/invites/{}/accept", text(&invite, "invite_token"));
        anybody.created(&link, json!({"password": PASSWORD})).await;
        let login = anybody.created("/api/login/password", credentials(&email, PASSWORD)).await;
        let path = format!("/api/users/{}", text(&login, "user_id"));

        let codes = format!("{path}/totp");
        let refused = program.send(Method::DELETE, &codes, Some("{}".into())).await;
        assert_eq!(refused.0, status, "{role}: {refused:?}");
        let refused = program.post(&format!("{path}/invite"), json!({})).await;
        assert_eq!(refused.0, status, "{role}: {refused:?}");
        assert_eq!(owner.send(Method::DELETE, &codes, Some("{}".into())).await.0, 200);
        let reset = owner.created(&format!("{path}/invite"), json!({})).await;
        let again = format!("/api/users/invites/{}/regenerate", text(&reset, "id"));
        assert_eq!(program.post(&again, json!({})).await.0, status, "{role}");
        assert_eq!(owner.post(&again, json!({})).await.0, 200);
    }
}

#[tokio::test]
async fn an_invitation_is_renewed_taken_back_and_refused_when_it_has_expired() {
    let server = start(false).await;
    let anybody = server.owner.with_authorization(None);
    let body = json!({"email": "ann@example.org", "name": "Ann", "role": "user", "auto_groups": [], "expires_in": 3600});
    let invite = server.owner.created("/api/users/invites", body.clone()).await;
    assert_eq!(server.owner.post("/api/users/invites", body.clone()).await.0, 409);
    let one = format!("/api/users/invites/{}", text(&invite, "id"));
    assert_eq!(server.owner.post(&format!("{one}/regenerate"), json!({"expires_in": 60})).await.0, 422);
    let renewed = server.owner.created(&format!("{one}/regenerate"), json!({})).await;
    let path = |token: &str| format!("/api/users/invites/{token}");
    assert_eq!(anybody.get(&path(&text(&invite, "invite_token"))).await.0, 404);
    let link = path(&text(&renewed, "invite_token"));
    assert_eq!(anybody.get(&link).await.0, 200);
    server.store.expire_invites().await.unwrap();
    assert_eq!(anybody.get(&link).await.1["valid"], false);
    assert_eq!(anybody.post(&format!("{link}/accept"), json!({"password": PASSWORD})).await.0, 412);
    assert_eq!(server.owner.delete(&one).await, (200, json!({})));
    assert_eq!(anybody.get(&link).await.0, 404);
    // The secret of the link is not its id, nor the other way round.
    let invite = server.owner.created("/api/users/invites", body).await;
    assert_eq!(anybody.get(&path(&text(&invite, "id"))).await.0, 404);
    assert_eq!(server.owner.delete(&path(&text(&invite, "invite_token"))).await.0, 404);
}

#[tokio::test]
async fn without_built_in_users_nothing_of_them_is_served() {
    let server = Server::start().await;
    assert_eq!(server.owner.get("/api/instance").await, (200, json!({"setup_required": false})));
    assert_eq!(server.owner.get("/api/login").await.1["passwords"], false);
    assert_eq!(server.owner.get("/api/users/invites").await.0, 412);
    for path in [
        "/api/setup",
        "/api/login/password",
        "/api/login/password/totp",
        "/api/users/invites",
        "/api/users/invites/nbi_x/accept",
        "/api/users/x/invite",
    ] {
        assert_eq!(
            server.owner.post(path, json!({"email": "a@b", "password": PASSWORD})).await.0,
            412,
            "{path}"
        );
    }
}
