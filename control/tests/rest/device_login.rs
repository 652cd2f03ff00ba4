//! Machines that wait for somebody to log in, as those see and admit them who are logged in here.

use std::net::IpAddr;

use reqwest::Method;
use serde_json::json;
use sluicegate_control::secret::{machine_login_hash, new_machine_login};
use sluicegate_control::store::{Actor, Enrollment, NewMachineLogin, Person, Role, User, UserRole, Via};
use totp_rs::TOTP;

use crate::harness::{Server, Session, enrollment, message, text};
use crate::local_users::identity;

struct Waiting {
    secret: String,
    code: String,
    machine: Enrollment,
}

/// A machine that waits.
async fn waits(server: &Server, hostname: &str, role: Role, from: &str) -> Waiting {
    let secret = new_machine_login();
    let machine = Enrollment { role, setup_key: secret.clone(), ..enrollment("", hostname) };
    let new = NewMachineLogin {
        hash: machine_login_hash(&secret).unwrap(),
        identity_key: machine.identity_key,
        wireguard_public_key: machine.wireguard_public_key,
        role,
        hostname: hostname.into(),
        os: "linux".into(),
        from: Some(from.parse::<IpAddr>().unwrap()),
        peer: None,
        device: None,
    };
    let (code, _) = server.store.begin_login(&new).await.unwrap();
    Waiting { secret, code, machine }
}

/// A site where nobody has to be approved.
async fn start() -> Server {
    let server = Server::start().await;
    let mut settings = server.store.account().await.unwrap().settings;
    settings.extra.user_approval_required = false;
    let owner = server.store.users().await.unwrap().remove(0);
    server.store.update_settings(&owner.actor(), settings).await.unwrap();
    server
}

/// Somebody who is logged in.
async fn person(server: &Server, subject: &str) -> (User, Session) {
    let person = Person {
        issuer: "https://idp.example".into(),
        subject: subject.into(),
        name: subject.into(),
        email: String::new(),
        email_verified: false,
        at: 0,
    };
    let user = server.store.sign_in(&person, |_| None).await.unwrap();
    assert_eq!(user.role, UserRole::User);
    let (_, token) = server.store.create_session(&user, &Via::default()).await.unwrap();
    (user, server.owner.with_authorization(Some(&format!("Bearer {token}"))))
}

const PATH: &str = "/api/login/device";

#[tokio::test]
async fn who_is_logged_in_sees_what_waits_and_lets_it_in_as_the_own() {
    let server = start().await;
    let (user, ann) = person(&server, "ann").await;
    for from in ["192.0.2.7", "2001:db8::7"] {
        let laptop = waits(&server, "laptop", Role::Peer, from).await;
        let typed = laptop.code.to_lowercase().replace('-', "");
        let shown = ann.created(PATH, json!({ "code": typed })).await;
        assert_eq!((text(&shown, "hostname"), text(&shown, "address")), ("laptop".into(), from.into()));
        let key: String = laptop.machine.identity_key[..2].iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(text(&shown, "fingerprint").starts_with(&format!("{key}-")), "{shown}");
        assert!(shown.get("peer_id").is_none() && !shown.to_string().contains("sgl_"));
        assert!(server.store.enroll(&laptop.machine).await.is_err(), "it was only shown");

        ann.created(PATH, json!({ "code": laptop.code, "decision": "admit" })).await;
        assert_eq!(ann.post(PATH, json!({ "code": laptop.code })).await.0, 404, "a code is good once");
        let joined = server.store.enroll(&laptop.machine).await.unwrap();
        let (_, peer) = server.owner.get(&format!("/api/peers/{}", joined.id)).await;
        assert_eq!(peer["user_id"], user.id.as_str());
    }
    let trail = format!("{:?}", server.store.events().await.unwrap());
    assert!(trail.contains("peer.login.admit") && trail.contains("2001:db8::7") && !trail.contains("sgl_"));

    let other = waits(&server, "phone", Role::Peer, "192.0.2.7").await;
    ann.created(PATH, json!({ "code": other.code, "decision": "refuse" })).await;
    assert!(server.store.enroll(&other.machine).await.is_err());
    assert_eq!(ann.post(PATH, json!({ "code": other.code, "decision": "admit" })).await.0, 404);
    assert!(server.codes().await.contains(&"peer.login.refuse".to_owned()));
}

#[tokio::test]
async fn no_token_made_long_ago_no_program_and_no_wrong_role_lets_a_machine_in() {
    let server = start().await;
    let (user, ann) = person(&server, "ann").await;
    let gateway = waits(&server, "gateway", Role::Gateway, "192.0.2.7").await;
    let admit = json!({ "code": gateway.code, "decision": "admit" });
    let token =
        ann.created(&format!("/api/users/{}/tokens", user.id), json!({"name": "t", "expires_in": 1})).await;
    let program = server.owner.with_token(&text(&token, "plain_token"));
    assert_eq!(program.post(PATH, admit.clone()).await.0, 403);
    let service = server.owner.post(PATH, admit.clone()).await;
    assert_eq!(service.0, 422);
    assert!(message(&service).contains("setup key"), "{service:?}");
    assert_eq!(server.owner.with_authorization(None).post(PATH, admit.clone()).await.0, 401);
    let refused = ann.post(PATH, admit.clone()).await;
    assert_eq!(refused.0, 403);
    assert!(message(&refused).contains("may not let a gateway join"), "{refused:?}");
    assert_eq!(ann.post(PATH, json!({ "code": gateway.code })).await.0, 200, "it goes on waiting");

    let path = format!("/api/users/{}", user.id);
    let change = json!({"role": "network_admin", "is_blocked": false, "auto_groups": []});
    assert_eq!(server.owner.put(&path, change).await.0, 200);
    ann.created(PATH, admit).await;
    // With the end of the login ends what it has let in and that has not joined.
    assert_eq!(ann.post("/api/logout", json!({})).await.0, 200);
    assert!(server.store.enroll(&gateway.machine).await.is_err());
    assert_eq!(server.store.machine_login(&gateway.secret).await.unwrap(), None);
}

#[tokio::test]
async fn codes_cannot_be_guessed() {
    let server = start().await;
    let (_, ann) = person(&server, "ann").await;
    let (_, bob) = person(&server, "bob").await;
    let laptop = waits(&server, "laptop", Role::Peer, "2001:db8::7").await;
    // Good codes do not count, so that somebody may let many machines in.
    for _ in 0..20 {
        assert_eq!(ann.post(PATH, json!({ "code": laptop.code })).await.0, 200);
    }
    for guess in 0..10 {
        let code = if guess % 2 == 0 { "BBBB-BBBB" } else { "no code" };
        let wrong = ann.post(PATH, json!({ "code": code, "decision": "admit" })).await;
        assert_eq!(wrong.0, 404);
        assert!(!message(&wrong).contains(code), "{wrong:?}");
    }
    for code in [laptop.code.as_str(), "BBBB-BBBB"] {
        let slowed = ann.post(PATH, json!({ "code": code, "decision": "admit" })).await;
        assert_eq!(slowed.0, 429, "a good one is not told from a wrong one: {slowed:?}");
    }
    bob.created(PATH, json!({ "code": laptop.code, "decision": "admit" })).await;
}

#[tokio::test]
async fn a_user_lets_in_no_more_than_twenty_machines_that_have_not_joined() {
    let server = start().await;
    let (_, ann) = person(&server, "ann").await;
    for number in 0..21 {
        let from = format!("2001:db8:{number}::1");
        let machine = waits(&server, "m", Role::Peer, &from).await;
        let (status, answer) = ann.post(PATH, json!({ "code": machine.code, "decision": "admit" })).await;
        assert_eq!(status, if number < 20 { 200 } else { 422 }, "{answer}");
    }
}

#[tokio::test]
async fn another_password_or_codes_switched_off_end_what_a_login_let_in_and_that_has_not_joined() {
    const PASSWORDS: [&str; 3] = ["correct horse battery", "another password", "a third password"];
    for from in ["192.0.2.7", "2001:db8::7"] {
        let server = Server::start_known(tempfile::tempdir().unwrap(), identity(false)).await;
        let anybody = server.owner.with_authorization(None);
        let body = json!({"email": "ann@example.org", "name": "Ann", "role": "user", "auto_groups": []});
        let invite = server.owner.created("/api/users/invites", body).await;
        let link = format!("/api/users/invites/{}/accept", text(&invite, "invite_token"));
        anybody.created(&link, json!({"password": PASSWORDS[0]})).await;
        let login = async |password: &str| {
            let known = json!({"email": "ann@example.org", "password": password});
            let login = anybody.created("/api/login/password", known).await;
            server.owner.with_authorization(Some(&format!("Bearer {}", text(&login, "token"))))
        };
        let let_in = async |ann: &Session| {
            let machine = waits(&server, "thief", Role::Peer, from).await;
            ann.created(PATH, json!({ "code": machine.code, "decision": "admit" })).await;
            machine
        };
        let ended = async |machine: &Waiting, why: &str| {
            assert!(server.store.enroll(&machine.machine).await.is_err(), "{why}");
            assert_eq!(server.store.machine_login(&machine.secret).await.unwrap(), None, "{why}");
        };
        let ann = login(PASSWORDS[0]).await;
        let own = format!("/api/users/{}", text(&ann.get("/api/users/current").await.1, "id"));
        let machine = let_in(&ann).await;
        let change = json!({"old_password": PASSWORDS[0], "new_password": PASSWORDS[1]});
        assert_eq!(ann.put(&format!("{own}/password"), change).await.0, 200);
        ended(&machine, "another password").await;

        let machine = let_in(&login(PASSWORDS[1]).await).await;
        let by = Actor::at_server(0);
        server.store.reset_password(&by, "ann@example.org", PASSWORDS[2], false).await.unwrap();
        ended(&machine, "a password set on the host").await;

        let ann = login(PASSWORDS[2]).await;
        let (_, codes) = ann.post(&format!("{own}/totp"), json!({"password": PASSWORDS[2]})).await;
        let totp = TOTP::from_url(text(&codes, "url")).unwrap();
        let code = totp.generate((sluicegate_control::ids::now() / 1000).unsigned_abs());
        assert_eq!(ann.post(&format!("{own}/totp/confirm"), json!({ "code": code })).await.0, 200);
        let (_, accounts) = server.owner.get("/api/accounts").await;
        let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
        server.owner.put(&path, json!({"settings": {"local_mfa_enabled": true}})).await;
        let machine = let_in(&ann).await;
        let path = format!("{own}/totp");
        assert_eq!(server.owner.send(Method::DELETE, &path, Some("{}".into())).await.0, 200);
        ended(&machine, "codes switched off").await;
    }
}
