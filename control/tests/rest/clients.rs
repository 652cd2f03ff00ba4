//! Programs of others that use this API: NetBird's Python client, an exporter of accounts, and a fuzzer of what our document says.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;
use sluicegate_control::identity::oidc::OidcOptions;
use sluicegate_control::identity::{Identity, IdentityOptions, LocalUsers};
use sluicegate_control::rest::limits::Rates;
use sluicegate_control::store::{Actor, UserRole};
use tokio::process::Command;

use crate::documents::OURS;
use crate::harness::{Server, Session, text};
use crate::provider::{CLIENT, Provider};

/// For how many seconds the fuzzer goes on, with another seed each time; without it, it tries a fixed number of fixed requests.
const FUZZ_SECONDS: &str = "SLUICEGATE_FUZZ_SECONDS";
/// What the fuzzer holds each answer to.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance";

/// A program of the project's Python environment.
fn program(name: &str) -> Command {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin").join(name);
    assert!(path.exists(), "there is no {}: run `cargo xtask setup`, which installs it", path.display());
    let mut command = Command::new(path);
    command.kill_on_drop(true);
    command
}

/// What a program printed; it must have succeeded.
async fn printed(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let (printed, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{printed}\n{said}");
    printed.into_owned()
}

fn token(session: &Session) -> String {
    session.authorization.as_deref().unwrap().strip_prefix("Token ").unwrap().to_owned()
}

#[tokio::test]
async fn netbirds_python_client_creates_reads_updates_and_deletes_each_kind_of_object() {
    let provider = Provider::start();
    let server = Server::start_known(tempfile::tempdir().unwrap(), everything_on(&provider)).await;
    for name in ["bob", "carl"] {
        let claims = json!({"name": name, "email": format!("{name}@example.org"), "email_verified": true});
        provider.person(name, claims).await;
        let token = format!("Bearer {}", provider.token(name, "n").await);
        let (status, answer) = server.owner.with_authorization(Some(&token)).get("/api/users/current").await;
        assert_eq!(status, 403, "{answer}");
    }
    let peer = server.peer("web").await;
    let paths: Vec<String> = OURS.written().into_keys().collect();
    let mut client = program("python");
    client
        .args(["-B", "-W", "ignore::DeprecationWarning"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rest/client.py"))
        .env("SERVER", server.owner.url())
        .env("TOKEN", token(&server.owner))
        .env("PEER", &peer.id)
        .env("PATHS", paths.join("\n"));
    let printed = printed(client).await;
    let done: Vec<&str> = printed.lines().collect();
    let mut kinds = vec![
        "group",
        "setup key",
        "network",
        "resource",
        "router",
        "policy",
        "posture check",
        "route",
        "nameserver group",
        "zone",
        "record",
        "DNS settings",
        "token",
        "user",
        "approval",
        "account",
        "temporary access",
        "peer",
        "places",
        "events and the rest",
        "invitation",
        "password",
        "instance",
        "refusals",
    ];
    if !paths.iter().any(|path| path == "/api/posture-checks") {
        kinds.retain(|kind| *kind != "posture check");
    }
    assert_eq!(done, kinds);
}

/// Built-in users and an identity provider.
fn everything_on(provider: &Provider) -> Identity {
    let oidc = Some(OidcOptions::new(&provider.issuer, CLIENT));
    let local_users = LocalUsers { enabled: true, open_setup: false };
    Identity::new(&IdentityOptions { oidc, local_users }).unwrap()
}

#[tokio::test]
async fn netbirdexport_exports_the_account() {
    let server = Server::start().await;
    server.peer("web").await;
    server.group("ops").await;
    let directory = tempfile::tempdir().unwrap();
    let mut export = program("netbirdexport");
    export
        .args(["--url", server.owner.url(), "--out"])
        .arg(directory.path())
        .args(["--resources", "peers,users,setup-keys,groups,policies,routes,nameservers"])
        .env("NETBIRD_TOKEN", token(&server.owner));
    printed(export).await;
    for (file, path) in [
        ("peers", "/api/peers"),
        ("users", "/api/users"),
        ("setup-keys", "/api/setup-keys"),
        ("groups", "/api/groups"),
        ("policies", "/api/policies"),
        ("routes", "/api/routes"),
        ("nameservers", "/api/dns/nameservers"),
    ] {
        let exported = std::fs::read_to_string(directory.path().join(format!("{file}.json"))).unwrap();
        let exported: serde_json::Value = serde_json::from_str(&exported).unwrap();
        let ids = |list: &serde_json::Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|object| text(object, "id")).collect()
        };
        assert_eq!(ids(&exported), ids(&server.owner.get(path).await.1), "{file}");
    }
}

#[tokio::test]
async fn no_request_that_our_document_allows_or_forbids_ends_in_a_failure_or_an_answer_it_does_not_describe()
{
    let server =
        Server::start_with(tempfile::tempdir().unwrap(), Rates { burst: 0, ..Rates::default() }).await;
    // Something to find.
    let peer = server.peer("web").await;
    server.group("ops").await;
    let network = server.network("site").await;
    server.resource(&network, "db", "10.0.0.5").await;
    let router = json!({"peer": peer.id, "metric": 9, "masquerade": true, "enabled": true});
    server.owner.created(&format!("/api/networks/{network}/routers"), router).await;

    // Users and tokens last, by somebody who may delete itself.
    fuzz(&server.owner, &["--exclude-path-regex", "^/(healthz|readyz|api/flows/stream|api/users)"]).await;
    assert_eq!(server.owner.get("/api/users/current").await.0, 200, "the fuzzer had lost its token");
    let admin = server.user("admin").await;
    fuzz(&admin, &["--include-path-regex", "^/api/users"]).await;
}

#[tokio::test]
async fn nor_does_any_where_people_log_in_and_a_policy_is_for_emergencies() {
    let provider = Provider::start();
    let rates = Rates { burst: 0, ..Rates::default() };
    let server = Server::start_known_with(rates, everything_on(&provider)).await;
    let (peer, all) = (server.peer("web").await, server.all().await);
    // Somebody who logs in by password, somebody of the provider who waits, a link, a login.
    provider.person("bob", json!({"name": "bob", "email": "bob@example.org", "email_verified": true})).await;
    let token = format!("Bearer {}", provider.token("bob", "n").await);
    assert_eq!(server.owner.with_authorization(Some(&token)).get("/api/users/current").await.0, 403);
    let invite = json!({"email": "ann@example.org", "name": "Ann", "role": "user", "auto_groups": []});
    let invite = server.owner.created("/api/users/invites", invite).await;
    let link = format!("/api/users/invites/{}/accept", text(&invite, "invite_token"));
    server.owner.created(&link, json!({"password": "correct horse battery"})).await;
    let eve = json!({"email": "eve@example.org", "name": "Eve", "role": "user", "auto_groups": []});
    server.owner.created("/api/users/invites", eve).await;
    let rule = json!({"name": "r", "enabled": true, "action": "accept", "protocol": "all", "bidirectional": false,
        "sources": [all], "destinations": [all]});
    let policy = json!({"name": "emergency", "enabled": false, "rules": [rule]});
    let policy = text(&server.owner.created("/api/policies", policy).await, "id");
    server.store.limit_break_glass(&Actor::system(), &policy, Some(3600)).await.unwrap();
    server.store.break_glass_on(&Actor::system(), &policy, 3600, "a test").await.unwrap();

    const HERE: &str = "^/api/(login|logout|setup|instance|break-glass|policies|peers/[^/]+/login|oauth)";
    fuzz(&server.owner, &["--include-path-regex", HERE]).await;
    let owner = server.store.users().await.unwrap();
    assert!(owner.iter().any(|user| user.role == UserRole::Owner), "{owner:?}");
    assert!(server.store.peer(&peer.id).await.is_ok());
    let admin = server.user("admin").await;
    fuzz(&admin, &["--include-path-regex", "^/api/users"]).await;
}

async fn fuzz(session: &Session, operations: &[&str]) {
    let mut fuzzer = program("schemathesis");
    let directory = tempfile::tempdir().unwrap();
    fuzzer
        .current_dir(directory.path())
        .args(["run", &format!("{}/api/openapi.json", session.url()), "--checks", CHECKS])
        .args(["-H", &format!("Authorization: {}", session.authorization.as_deref().unwrap())])
        .args([
            "--phases",
            "examples,coverage,fuzzing,stateful",
            "--warnings",
            "off",
            "--continue-on-failure",
        ])
        .args(operations);
    match std::env::var(FUZZ_SECONDS) {
        Ok(seconds) => fuzzer.args(["--max-time", &seconds]),
        Err(_) => fuzzer.args(["--seed", "1", "--max-examples", "4", "--no-shrink"]),
    };
    printed(fuzzer).await;
}
