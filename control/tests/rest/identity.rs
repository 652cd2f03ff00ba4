//! People who log in with a real identity provider.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sluicegate_control::identity::oidc::OidcOptions;
use sluicegate_control::identity::{Identity, IdentityOptions};
use sluicegate_control::store::EnrolledPeer;
use sluicegate_policy::Compiler;

use crate::harness::{Server, Session, message, text};
use crate::provider::{CLIENT, Provider};

struct Site {
    provider: Provider,
    server: Server,
}

impl Site {
    async fn start() -> Self {
        let provider = Provider::start();
        let oidc = Some(OidcOptions::new(&provider.issuer, CLIENT));
        let identity = Identity::new(&IdentityOptions { oidc, ..IdentityOptions::default() }).unwrap();
        let server = Server::start_known(tempfile::tempdir().unwrap(), identity).await;
        Site { provider, server }
    }

    /// A session with a fresh token of somebody at the provider.
    async fn login(&self, subject: &str) -> Session {
        let token = self.provider.token(subject, "n").await;
        self.server.owner.with_authorization(Some(&format!("Bearer {token}")))
    }

    /// The same with a token of a later second than any before: only such a token's groups are news.
    async fn login_later(&self, subject: &str) -> Session {
        let token = self.later_token(subject).await;
        self.server.owner.with_authorization(Some(&format!("Bearer {token}")))
    }

    async fn later_token(&self, subject: &str) -> String {
        let before = issued(&self.provider.token(subject, "n").await);
        loop {
            let token = self.provider.token(subject, "n").await;
            if issued(&token) > before {
                return token;
            }
        }
    }

    /// A machine that somebody lets join.
    async fn machine(&self, subject: &str, hostname: &str) -> EnrolledPeer {
        let key = self.login(subject).await.created("/api/login/machine", json!({})).await;
        self.server.enroll(&text(&key, "key"), hostname).await.unwrap()
    }

    async fn person(&self, subject: &str, groups: &[&str]) {
        let email = format!("{subject}@example.org");
        let claims = json!({"name": subject, "email": email, "email_verified": true, "groups": groups});
        self.provider.person(subject, claims).await;
    }

    async fn settings(&self, change: impl FnOnce(&mut Value)) {
        let (_, accounts) = self.server.owner.get("/api/accounts").await;
        let mut settings = accounts[0]["settings"].clone();
        change(&mut settings);
        let path = format!("/api/accounts/{}", text(&accounts[0], "id"));
        assert_eq!(self.server.owner.put(&path, json!({"settings": settings})).await.0, 200);
    }

    async fn no_approval(&self) {
        self.settings(|settings| settings["extra"]["user_approval_required"] = json!(false)).await;
    }

    /// The id of the user with this name.
    async fn id(&self, name: &str) -> String {
        let (_, users) = self.server.owner.get("/api/users").await;
        let users = users.as_array().unwrap();
        text(users.iter().find(|user| user["name"] == name).unwrap(), "id")
    }

    /// The names of a user's groups.
    async fn groups_of(&self, name: &str) -> Vec<String> {
        let (_, user) = self.server.owner.get(&format!("/api/users/{}", self.id(name).await)).await;
        let (_, groups) = self.server.owner.get("/api/groups").await;
        let groups = groups.as_array().unwrap().iter();
        let own = user["auto_groups"].as_array().unwrap();
        let mut names: Vec<String> =
            groups.filter(|group| own.contains(&group["id"])).map(|group| text(group, "name")).collect();
        names.sort();
        names
    }
}

/// When a token was issued, Unix seconds.
fn issued(token: &str) -> i64 {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["iat"].as_i64().unwrap()
}

#[tokio::test]
async fn who_was_invited_comes_in_with_the_role_and_who_was_not_waits_for_approval() {
    let site = Site::start().await;
    site.person("ann", &[]).await;
    site.person("bob", &[]).await;
    let invite = json!({"email": "Ann@Example.org", "name": "Ann", "role": "admin", "auto_groups": []});
    let invited = site.server.owner.created("/api/users", invite).await;
    assert_eq!(invited["status"], "invited");

    let ann = site.login("ann").await;
    let (status, me) = ann.get("/api/users/current").await;
    assert_eq!(
        (status, &me["id"], &me["role"], &me["status"]),
        (200, &invited["id"], &json!("admin"), &json!("active"))
    );
    assert_ne!(me["last_login"], "0001-01-01T00:00:00Z");
    assert_eq!(ann.get("/api/groups").await.0, 200);

    let bob = site.login("bob").await;
    let answer = bob.get("/api/users/current").await;
    assert_eq!(answer.0, 403);
    assert!(message(&answer).contains("approval"), "{answer:?}");
    let id = site.id("bob").await;
    let (_, waiting) = ann.get(&format!("/api/users/{id}")).await;
    assert_eq!((&waiting["pending_approval"], &waiting["role"]), (&json!(true), &json!("user")));
    let (status, approved) = ann.post(&format!("/api/users/{id}/approve"), json!({})).await;
    assert_eq!((status, &approved["pending_approval"]), (200, &json!(false)));
    assert_eq!(ann.post(&format!("/api/users/{id}/approve"), json!({})).await.0, 422);
    assert_eq!(ann.delete(&format!("/api/users/{id}/reject")).await.0, 422);
    assert_eq!(bob.get("/api/users/current").await.0, 200);
    assert_eq!(bob.get("/api/groups").await.0, 403, "the lowest role");

    // Rejected, and back at the door.
    site.person("carl", &[]).await;
    let carl = site.login("carl").await;
    assert_eq!(carl.get("/api/users/current").await.0, 403);
    let id = site.id("carl").await;
    assert_eq!(ann.delete(&format!("/api/users/{id}/reject")).await, (200, json!({})));
    assert_eq!(ann.get(&format!("/api/users/{id}")).await.0, 404);

    let codes = site.server.codes().await;
    for code in ["user.invite", "user.join", "user.approve", "user.reject"] {
        assert!(codes.iter().any(|known| known == code), "{code} is not in {codes:?}");
    }
}

#[tokio::test]
async fn an_address_that_the_provider_has_not_verified_takes_no_invitation() {
    let site = Site::start().await;
    let invite = json!({"email": "ann@example.org", "name": "Ann", "role": "admin", "auto_groups": []});
    let invited = site.server.owner.created("/api/users", invite).await;
    for verified in [json!({"email_verified": false}), json!({})] {
        let mut claims = json!({"name": "mallory", "email": "ann@example.org"});
        claims.as_object_mut().unwrap().extend(verified.as_object().unwrap().clone());
        site.provider.person("mallory", claims).await;
        assert_eq!(site.login("mallory").await.get("/api/users/current").await.0, 403);
    }
    let (_, still) = site.server.owner.get(&format!("/api/users/{}", text(&invited, "id"))).await;
    assert_eq!(still["status"], "invited");
}

#[tokio::test]
async fn a_blocked_user_is_refused_at_once_and_so_is_a_token_of_another_audience() {
    let site = Site::start().await;
    site.no_approval().await;
    site.person("ann", &[]).await;
    let ann = site.login("ann").await;
    assert_eq!(ann.get("/api/users/current").await.0, 200);
    let path = format!("/api/users/{}", site.id("ann").await);
    let change = |blocked: bool| json!({"role": "user", "auto_groups": [], "is_blocked": blocked});
    assert_eq!(site.server.owner.put(&path, change(true)).await.0, 200);
    let answer = ann.get("/api/users/current").await;
    assert_eq!(answer.0, 403);
    assert!(message(&answer).contains("blocked"));
    assert_eq!(site.server.owner.put(&path, change(false)).await.0, 200);
    assert_eq!(ann.get("/api/users/current").await.0, 200);

    let oidc = Some(OidcOptions::new(&site.provider.issuer, "another"));
    let identity = Identity::new(&IdentityOptions { oidc, ..IdentityOptions::default() }).unwrap();
    let other = Server::start_known(tempfile::tempdir().unwrap(), identity).await;
    let header = ann.authorization.clone().unwrap();
    let answer = other.owner.with_authorization(Some(&header)).get("/api/users/current").await;
    assert_eq!(answer.0, 401);
    assert!(message(&answer).contains("audience"), "{answer:?}");
    // `Token` is for tokens of ours.
    let header = header.replace("Bearer", "Token");
    assert_eq!(site.server.owner.with_authorization(Some(&header)).get("/api/users/current").await.0, 401);
}

#[tokio::test]
async fn a_login_is_exchanged_for_a_session_that_ends() {
    let site = Site::start().await;
    site.no_approval().await;
    site.person("ann", &[]).await;
    let anybody = site.server.owner.with_authorization(None);
    let (_, methods) = anybody.get("/api/login").await;
    assert_eq!(methods["oidc"]["issuer"], site.provider.issuer);

    let token = site.provider.token("ann", "mine").await;
    let wrong = json!({"token": token, "nonce": "yours"});
    assert_eq!(anybody.post("/api/login/oidc", wrong).await.0, 401);
    let login = anybody.created("/api/login/oidc", json!({"token": token, "nonce": "mine"})).await;
    let ann = site.server.owner.with_authorization(Some(&format!("Bearer {}", text(&login, "token"))));
    let (_, me) = ann.get("/api/users/current").await;
    assert_eq!(me["id"], login["user_id"]);
    assert_eq!(ann.post("/api/logout", json!({})).await, (200, json!({})));
    assert_eq!(ann.get("/api/users/current").await.0, 401);

    let login = anybody.created("/api/login/oidc", json!({"token": token})).await;
    let ann = site.server.owner.with_authorization(Some(&format!("Token {}", text(&login, "token"))));
    assert_eq!(ann.get("/api/users/current").await.0, 200);
    site.server.store.expire_sessions().await.unwrap();
    assert_eq!(ann.get("/api/users/current").await.0, 401);
    let everything = format!("{:?}", site.server.store.events().await.unwrap());
    assert!(everything.contains("dashboard.login"));
    assert!(!everything.contains("sgs_") && !everything.contains(&token), "no secret in the trail");
}

#[tokio::test]
async fn groups_follow_the_claim_to_the_users_peers_and_an_operators_groups_are_left_alone() {
    let site = Site::start().await;
    site.no_approval().await;
    site.settings(|settings| settings["jwt_groups_enabled"] = json!(true)).await;
    let own = site.server.group("operators").await;
    site.person("ann", &["dev", "ops", "operators", "All", "bad\u{1b}"]).await;
    assert_eq!(site.login("ann").await.get("/api/users/current").await.0, 200);
    assert_eq!(site.groups_of("ann").await, ["dev", "ops"]);
    let (_, groups) = site.server.owner.get("/api/groups?name=dev").await;
    assert_eq!(groups[0]["issued"], "jwt");

    let id = site.id("ann").await;
    let peer = site.machine("ann", "laptop").await;
    let login = format!("/api/peers/{}/login", peer.id);
    assert_eq!(site.login("ann").await.post(&login, json!({})).await.0, 200);
    assert_eq!(site.server.owner.post(&login, json!({})).await.0, 404, "somebody else's");
    assert_eq!(site.server.owner.post("/api/login/machine", json!({})).await.0, 422, "a program");
    let of_peer = async || -> Vec<String> {
        let (_, peer) = site.server.owner.get(&format!("/api/peers/{}", peer.id)).await;
        assert_eq!(peer["user_id"], id);
        let mut names: Vec<String> =
            peer["groups"].as_array().unwrap().iter().map(|group| text(group, "name")).collect();
        names.sort();
        names
    };
    assert_eq!(of_peer().await, ["All", "dev", "ops"]);
    // One given by hand stays when the claim changes.
    let (_, user) = site.server.owner.get(&format!("/api/users/{id}")).await;
    let mut all = user["auto_groups"].as_array().unwrap().clone();
    all.push(json!(own));
    let change = json!({"role": "user", "auto_groups": all, "is_blocked": false});
    assert_eq!(site.server.owner.put(&format!("/api/users/{id}"), change).await.0, 200);
    assert_eq!(of_peer().await, ["All", "dev", "operators", "ops"]);
    site.person("ann", &["ops", "new"]).await;
    assert_eq!(site.login_later("ann").await.get("/api/users/current").await.0, 200);
    assert_eq!(site.groups_of("ann").await, ["new", "operators", "ops"]);
    assert_eq!(of_peer().await, ["All", "new", "operators", "ops"]);

    // No propagation: the user's groups change, the peer's stay.
    site.settings(|settings| settings["groups_propagation_enabled"] = json!(false)).await;
    site.person("ann", &[]).await;
    assert_eq!(site.login_later("ann").await.get("/api/users/current").await.0, 200);
    assert_eq!(site.groups_of("ann").await, ["operators"]);
    assert_eq!(of_peer().await, ["All", "new", "operators", "ops"]);

    // The own peers are what the lowest role sees, where it sees anything; their login it renews in either case, by name too.
    let ann = site.login("ann").await;
    assert_eq!(ann.get("/api/peers").await.0, 403);
    assert_eq!(ann.post(&login, json!({})).await.0, 200);
    let by_name = "/api/peers/laptop/login";
    let (status, renewed) = ann.post(by_name, json!({})).await;
    assert_eq!((status, &renewed["id"]), (200, &json!(peer.id)));
    assert_eq!(site.server.owner.post(by_name, json!({})).await.0, 404, "somebody else's");
    site.settings(|settings| settings["regular_users_view_blocked"] = json!(false)).await;
    let (_, peers) = ann.get("/api/peers").await;
    assert_eq!(peers.as_array().unwrap().len(), 1);
    assert_eq!(ann.get(&format!("/api/peers/{}", peer.id)).await.0, 200);
    let other = site.server.peer("other").await;
    assert_eq!(ann.get(&format!("/api/peers/{}", other.id)).await.0, 404);
}

#[tokio::test]
async fn who_logs_in_without_the_claim_has_left_the_last_group_and_a_bearer_without_it_says_nothing() {
    let site = Site::start().await;
    site.no_approval().await;
    site.settings(|settings| settings["jwt_groups_enabled"] = json!(true)).await;
    let anybody = site.server.owner.with_authorization(None);
    site.person("ann", &["dev"]).await;
    let first = site.provider.token("ann", "n").await;
    anybody.created("/api/login/oidc", json!({"token": first})).await;
    assert_eq!(site.groups_of("ann").await, ["dev"]);

    site.provider.person("ann", json!({"name": "ann"})).await;
    assert_eq!(site.login_later("ann").await.get("/api/users/current").await.0, 200);
    assert_eq!(site.groups_of("ann").await, ["dev"], "not a login");
    let token = site.later_token("ann").await;
    anybody.created("/api/login/oidc", json!({"token": token})).await;
    assert_eq!(site.groups_of("ann").await, [""; 0]);
    // An older one of either kind brings nothing back.
    anybody.created("/api/login/oidc", json!({"token": first})).await;
    assert_eq!(site.groups_of("ann").await, [""; 0]);
}

#[tokio::test]
async fn a_file_and_a_rollback_leave_it_to_the_provider_whose_peers_are_in_its_groups() {
    let site = Site::start().await;
    site.no_approval().await;
    site.settings(|settings| settings["jwt_groups_enabled"] = json!(true)).await;
    site.person("ann", &["dev"]).await;
    assert_eq!(site.login("ann").await.get("/api/users/current").await.0, 200);
    site.machine("ann", "laptop").await;
    site.server.peer("robot").await;
    let owner = &site.server.owner;
    let members = async || -> Vec<String> {
        let (_, groups) = owner.get("/api/groups?name=dev").await;
        groups[0]["peers"].as_array().unwrap().iter().map(|peer| text(peer, "name")).collect()
    };
    let file = "groups: [{name: dev, peers: [laptop]}, {name: mine}]";
    let applied = owner.created("/api/policy-file/apply", json!({ "file": file })).await;
    let by_default = "policy 'Default', which is not in the file, lets every peer reach every peer";
    assert_eq!(
        (&applied["plan"]["warnings"], members().await),
        (&json!([by_default]), vec!["laptop".to_owned()])
    );

    // The provider takes it away, and nothing here gives it back.
    site.person("ann", &[]).await;
    assert_eq!(site.login_later("ann").await.get("/api/users/current").await.0, 200);
    assert_eq!(members().await, [""; 0]);
    let back = json!({ "revision": applied["revision"] });
    owner.created("/api/policy-file/rollback", back).await;
    assert_eq!(members().await, [""; 0]);
    let file = "groups: [{name: dev, peers: [laptop, robot]}]";
    let applied = owner.created("/api/policy-file/apply", json!({ "file": file })).await;
    assert_eq!(members().await, ["robot"]);
    assert!(applied["plan"]["warnings"].to_string().contains("identity provider"), "{applied}");
}

#[tokio::test]
async fn who_is_in_none_of_the_groups_that_may_log_in_is_kept_out() {
    let site = Site::start().await;
    site.no_approval().await;
    site.settings(|settings| settings["jwt_allow_groups"] = json!(["staff"])).await;
    site.person("ann", &["staff"]).await;
    site.person("eve", &["visitors"]).await;
    site.provider.person("gus", json!({"name": "gus"})).await;
    assert_eq!(site.login("ann").await.get("/api/users/current").await.0, 200);
    for who in ["eve", "gus"] {
        let answer = site.login(who).await.get("/api/users/current").await;
        assert_eq!(answer.0, 403, "{who}");
        assert!(message(&answer).contains("group"), "{answer:?}");
    }
    // Nobody was made of them.
    let (_, users) = site.server.owner.get("/api/users").await;
    assert_eq!(users.as_array().unwrap().len(), 2);
}

/// NetBird lists it among the others' offline peers; agents here have no such list: it is in none at all.
#[tokio::test]
async fn c_3_a_peer_whose_login_expired_takes_part_in_nothing_until_the_setting_is_off() {
    let site = Site::start().await;
    site.no_approval().await;
    site.person("ann", &[]).await;
    let (laptop, other) = (site.machine("ann", "laptop").await, site.server.peer("other").await);
    let owner = &site.server.owner;
    let listed = async |peer: &str| {
        let (_, peers) = owner.get(&format!("/api/peers/{peer}/accessible-peers")).await;
        peers.as_array().unwrap().iter().map(|peer| text(peer, "id")).collect::<Vec<_>>()
    };
    let check = async |connected: bool| {
        let compiler = Compiler::new(Arc::new(site.server.store.state().await.unwrap())).unwrap();
        for (peer, to) in [(&laptop.id, &other.id), (&other.id, &laptop.id)] {
            let remote: Vec<String> = compiler.network(peer).peers.iter().map(|id| id.to_string()).collect();
            assert_eq!(remote.contains(to), connected, "{peer} {remote:?}");
            assert_eq!(listed(peer).await.contains(to), connected, "{peer}");
            let known = owner.get(&format!("/api/peers/{to}")).await.1;
            for address in ["ip", "ipv6"] {
                let address = text(&known, address);
                let path = format!("/api/explain?source={peer}&destination={address}&service=22/tcp");
                let (status, told) = owner.get(&path).await;
                assert_eq!((status, &told["allowed"]), (200, &json!(connected)), "{peer} {address}: {told}");
            }
        }
        let (_, shown) = owner.get(&format!("/api/peers/{}", laptop.id)).await;
        assert_eq!(shown["login_expired"], !connected);
    };
    check(true).await;
    site.server.store.age_peer(&laptop.id, 25 * 3_600_000).await.unwrap();
    assert_eq!(site.server.store.expire_peers().await.unwrap(), 1);
    check(false).await;
    site.settings(|settings| settings["peer_login_expiration_enabled"] = json!(false)).await;
    check(true).await;
}
