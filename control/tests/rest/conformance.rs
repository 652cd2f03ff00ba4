//! Every operation of NetBird's document: what is served answers as the document says, the rest is in `docs/conformance.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use crate::documents::{NETBIRD, OURS, Operation};
use crate::harness::{Server, text};
use crate::local_users::identity;

/// Set to write the table in `docs/conformance.md` instead of comparing with it.
const UPDATE: &str = "UPDATE_CONFORMANCE";
/// The tag, in our document, of what is answered so that NetBird's clients go on, and is always empty.
const EMPTY: &str = "Always empty";

/// A kind of object: where it is created, and how it is created and changed. `$name` stands for the id of what is called so.
struct Kind {
    name: &'static str,
    path: &'static str,
    create: Value,
    /// `null` for what is not changed.
    update: Value,
}

fn kinds() -> Vec<Kind> {
    let kind = |name, path, create, update| Kind { name, path, create, update };
    let rule = json!({"name": "r", "enabled": true, "action": "accept", "bidirectional": false, "protocol": "tcp",
        "ports": ["443"], "sources": ["$all"], "destinations": ["$group"]});
    let mut changed = rule.clone();
    changed["ports"] = json!(["8443"]);
    let nameserver = |port: u16| {
        json!({"name": "ns", "description": "", "nameservers": [{"ip": "192.0.2.53", "ns_type": "udp", "port": port}],
            "enabled": true, "groups": ["$all"], "primary": true, "domains": [], "search_domains_enabled": false})
    };
    let route = |metric: u16| {
        json!({"network_id": "lab", "description": "", "enabled": true, "peer": "$peer", "network": "10.9.0.0/24",
            "metric": metric, "masquerade": true, "groups": ["$all"], "keep_route": false})
    };
    let zone = |search: bool| {
        json!({"name": "zone", "domain": "example.com", "enabled": true, "enable_search_domain": search,
            "distribution_groups": ["$all"]})
    };
    let record = |ttl: u16| json!({"name": "a.example.com", "type": "A", "content": "192.0.2.1", "ttl": ttl});
    let posture = |version: &str| json!({"name": "version", "description": "", "checks": {"nb_version_check": {"min_version": version}}});
    let resource =
        |address: &str| json!({"name": "db", "address": address, "enabled": true, "groups": ["$group"]});
    vec![
        kind(
            "group",
            "/api/groups",
            json!({"name": "ops", "peers": ["$peer"]}),
            json!({"name": "ops2", "peers": []}),
        ),
        kind(
            "key",
            "/api/setup-keys",
            json!({"name": "k", "type": "reusable", "expires_in": 86400, "auto_groups": ["$group"], "usage_limit": 0}),
            json!({"revoked": true, "auto_groups": []}),
        ),
        kind(
            "network",
            "/api/networks",
            json!({"name": "site"}),
            json!({"name": "site", "description": "d"}),
        ),
        kind("resource", "/api/networks/$network/resources", resource("10.0.0.5"), resource("10.0.0.6")),
        kind(
            "router",
            "/api/networks/$network/routers",
            json!({"peer": "$peer", "metric": 9, "masquerade": true, "enabled": true}),
            json!({"peer": "$peer", "metric": 10, "masquerade": true, "enabled": true}),
        ),
        kind("posture", "/api/posture-checks", posture("1.0.0"), posture("1.2.0")),
        kind(
            "policy",
            "/api/policies",
            json!({"name": "p", "enabled": true, "rules": [rule]}),
            json!({"name": "p", "enabled": true, "rules": [changed]}),
        ),
        kind("route", "/api/routes", route(9999), route(100)),
        kind("nameserver", "/api/dns/nameservers", nameserver(53), nameserver(5353)),
        kind("zone", "/api/dns/zones", zone(false), zone(true)),
        kind("record", "/api/dns/zones/$zone/records", record(300), record(600)),
        kind(
            "user",
            "/api/users",
            json!({"name": "ci", "role": "user", "is_service_user": true, "auto_groups": []}),
            json!({"role": "auditor", "is_blocked": false, "auto_groups": ["$group"]}),
        ),
        kind("token", "/api/users/$user/tokens", json!({"name": "t", "expires_in": 30}), Value::Null),
    ]
}

/// Operations that no object above needs, and what else there is to see.
const OTHERS: [(&str, &str); 32] = [
    ("GET", "/api/accounts"),
    ("GET", "/api/peers"),
    ("GET", "/api/peers/$peer"),
    ("GET", "/api/peers/$peer/accessible-peers"),
    ("GET", "/api/peers/$peer/ingress/ports"),
    ("GET", "/api/peers/$peer/jobs"),
    ("GET", "/api/networks/routers"),
    ("GET", "/api/users/current"),
    ("GET", "/api/users/invites"),
    ("GET", "/api/events/audit"),
    ("GET", "/api/events/proxy"),
    ("GET", "/api/events/network-traffic"),
    ("GET", "/api/instance"),
    ("GET", "/api/instance/version"),
    ("GET", "/api/dns/settings"),
    ("GET", "/api/locations/countries"),
    ("GET", "/api/locations/countries/$country/cities"),
    ("GET", "/api/identity-providers"),
    ("GET", "/api/ingress/peers"),
    ("GET", "/api/reverse-proxies/services"),
    ("GET", "/api/reverse-proxies/clusters"),
    ("GET", "/api/reverse-proxies/domains"),
    ("GET", "/api/reverse-proxies/proxy-tokens"),
    ("GET", "/api/agent-network/providers"),
    ("GET", "/api/agent-network/catalog/providers"),
    ("GET", "/api/agent-network/policies"),
    ("GET", "/api/agent-network/guardrails"),
    ("GET", "/api/agent-network/budget-rules"),
    ("GET", "/api/agent-network/consumption"),
    ("GET", "/api/agent-network/usage/overview"),
    ("GET", "/api/agent-network/access-logs"),
    ("GET", "/api/agent-network/access-log-sessions?page=2&page_size=10"),
];

/// What is served and is not tried here, each with the test that does.
const ELSEWHERE: [(&str, &str, &str); 11] = [
    ("POST", "/api/peers/{}/temporary-access", "needs a WireGuard key"),
    ("POST", "/api/setup", "a server without an account"),
    ("POST", "/api/users/{}/approve", "a user who waits"),
    ("DELETE", "/api/users/{}/reject", "a user who waits"),
    ("PUT", "/api/users/{}/password", "built-in users"),
    ("POST", "/api/users/{}/invite", "built-in users"),
    ("POST", "/api/users/invites", "built-in users"),
    ("DELETE", "/api/users/invites/{}", "built-in users"),
    ("GET", "/api/users/invites/{}", "built-in users"),
    ("POST", "/api/users/invites/{}/accept", "built-in users"),
    ("POST", "/api/users/invites/{}/regenerate", "built-in users"),
];

#[tokio::test]
async fn every_operation_of_netbirds_that_is_served_answers_in_its_shape() {
    let server = Server::start_known(tempfile::tempdir().unwrap(), identity(false)).await;
    let owner = &server.owner;
    let mut ids = BTreeMap::from([("all", server.all().await), ("peer", server.peer("web").await.id)]);
    let mut made = Vec::new();
    for Kind { name, path, create, update } in kinds() {
        if !OURS.operations().contains_key(&operation("POST", path)) {
            continue;
        }
        let path = with_ids(path, &ids);
        let fill = |body: &Value| with_ids(&body.to_string(), &ids);
        let created = owner.send(Method::POST, &path, Some(fill(&create))).await;
        assert_eq!(created.0, 200, "{name}: {}", created.1);
        // A token is created with its text beside it.
        let object = created.1.get("personal_access_token").unwrap_or(&created.1);
        let one = format!("{path}/{}", text(object, "id"));
        assert_eq!(owner.get(&path).await.0, 200, "{path}");
        if OURS.operations().contains_key(&operation("GET", &format!("{}/x", template_of(&path, &ids)))) {
            assert_eq!(owner.get(&one).await.0, 200, "{one}");
        }
        if !update.is_null() {
            holds_against_lost_updates(&server, &one, fill(&update)).await;
        }
        ids.insert(name, text(object, "id"));
        made.push(one);
    }
    let account = owner.get("/api/accounts").await.1[0].clone();
    let settings = json!({"settings": account["settings"]}).to_string();
    holds_against_lost_updates(&server, &format!("/api/accounts/{}", text(&account, "id")), settings).await;
    let peer = with_ids("/api/peers/$peer", &ids);
    holds_against_lost_updates(&server, &peer, json!({"name": "www", "ssh_enabled": false}).to_string())
        .await;
    if let (200, settings) = owner.get("/api/dns/settings").await {
        holds_against_lost_updates(&server, "/api/dns/settings", settings.to_string()).await;
    }
    ids.insert("country", "GB".into());
    for (method, path) in OTHERS {
        if OURS.operations().contains_key(&operation(method, path)) {
            let answer = owner.send(method.parse().unwrap(), &with_ids(path, &ids), None).await;
            assert_eq!(answer.0, 200, "{path}: {}", answer.1);
        }
    }
    for one in made.into_iter().rev().chain([peer]) {
        let stale = owner.ask(Method::DELETE, &one, &[("If-Match", "\"stale\"")], None).await;
        assert_eq!(stale.status, 412, "{one}: {}", stale.body);
        assert_eq!(owner.delete(&one).await, (200, json!({})), "{one}");
    }

    let served = owner.served.lock().unwrap().clone();
    let elsewhere: BTreeSet<Operation> =
        ELSEWHERE.iter().map(|(method, path, _)| ((*method).into(), (*path).into())).collect();
    let ours = OURS.operations();
    let missed: Vec<_> = NETBIRD
        .operations()
        .into_keys()
        .filter(|operation| ours.contains_key(operation))
        .filter(|operation| !served.contains(operation) && !elsewhere.contains(operation))
        .collect();
    assert!(
        missed.is_empty(),
        "served, and no answer of theirs was held against NetBird's document: {missed:?}"
    );
}

/// A PUT is done on the revision that was read, answers with the next one, and is refused on any other.
async fn holds_against_lost_updates(server: &Server, path: &str, body: String) {
    let owner = &server.owner;
    let put = async |tag: &str| owner.ask(Method::PUT, path, &[("If-Match", tag)], Some(body.clone())).await;
    let read = owner.ask(Method::GET, path, &[], None).await;
    assert_eq!(put("\"stale\"").await.status, 412, "{path}");
    assert_eq!(owner.get(path).await.1, read.body, "{path}");
    let changed = put(read.header("etag").unwrap()).await;
    assert_eq!(changed.status, 200, "{path}: {}", changed.body);
    let now = owner.ask(Method::GET, path, &[], None).await;
    assert_eq!((changed.header("etag"), &changed.body), (now.header("etag"), &now.body), "{path}");
}

fn operation(method: &str, path: &str) -> Operation {
    let path = path.split('?').next().unwrap();
    let parts = path.split('/').map(|part| if part.starts_with('$') || part == "x" { "{}" } else { part });
    (method.into(), parts.collect::<Vec<_>>().join("/"))
}

fn with_ids(text: &str, ids: &BTreeMap<&str, String>) -> String {
    // The longest names first: none is the beginning of another then.
    let mut names: Vec<_> = ids.iter().collect();
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    names.into_iter().fold(text.to_owned(), |text, (name, id)| text.replace(&format!("${name}"), id))
}

fn template_of(path: &str, ids: &BTreeMap<&str, String>) -> String {
    path.split('/')
        .map(|part| if ids.values().any(|id| id == part) { "x" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

#[tokio::test]
async fn what_is_not_served_is_listed_and_answers_404() {
    let (ours, names) = (OURS.operations(), NETBIRD.written());
    let mut rows: BTreeMap<String, [Vec<String>; 3]> = BTreeMap::new();
    let server = Server::start().await;
    for (operation, _) in NETBIRD.operations() {
        let column = match ours.get(&operation) {
            Some(served) if served["tags"][0] == EMPTY => 1,
            Some(_) => 0,
            None => 2,
        };
        let (method, path) = operation;
        if column == 2 {
            let (status, _) =
                server.owner.send(method.parse().unwrap(), &path.replace("{}", "x"), None).await;
            let known = OURS.knows(&path.replace("{}", "x"));
            assert!(status == 404 || status == 405 && known, "{method} {path}: {status}");
        }
        rows.entry(path).or_default()[column].push(method);
    }
    let table: String = rows
        .iter()
        .map(|(path, [served, empty, absent])| {
            format!(
                "| `{}` | {} | {} | {} |\n",
                names[path],
                served.join(" "),
                empty.join(" "),
                absent.join(" ")
            )
        })
        .collect();
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let head = "| path | served | always empty | not served |\n|---|---|---|---|\n";
    let start = page.find(head).expect("docs/conformance.md has lost its table") + head.len();
    let end = start
        + page[start..]
            .lines()
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.len() + 1)
            .sum::<usize>();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&file, format!("{}{table}{}", &page[..start], &page[end..])).unwrap();
        return;
    }
    assert!(
        page[start..end] == table,
        "docs/conformance.md does not say what is served: run this test with {UPDATE}=1 and look at the difference"
    );
}

/// NetBird applies every rule of a policy that leads to one of the route's groups, here only the rule that does: `sister` opens nothing.
#[tokio::test]
async fn c_8_and_9_a_route_is_open_to_its_groups_or_by_the_policies_of_its_access_control_groups() {
    let server = Server::start().await;
    let (_, policies) = server.owner.get("/api/policies").await;
    server.owner.delete(&format!("/api/policies/{}", text(&policies[0], "id"))).await;
    let (router, all) = (server.peer("gw").await.id, server.all().await);
    server.peer("user").await;
    let (one, two, other) =
        (server.group("one").await, server.group("two").await, server.group("other").await);
    let routes = [
        ("route1", "10.1.0.0/16", Some(&one)),
        ("route2", "10.2.0.0/16", Some(&two)),
        ("route3", "10.3.0.0/16", None),
        // An exit without guards is open towards everything, so it comes last.
        ("exit", "0.0.0.0/0", None),
    ];
    let route = async |(name, network, guard): (&str, &str, Option<&String>)| {
        let guards: Vec<_> = guard.into_iter().collect();
        let body = json!({"network_id": name, "description": "", "enabled": true, "peer": router, "network": network,
            "metric": 100, "masquerade": true, "groups": [all], "keep_route": false, "access_control_groups": guards});
        server.owner.created("/api/routes", body).await;
    };
    for guarded in &routes[..3] {
        route(*guarded).await;
    }
    for (name, group, port) in [("web", &one, "443"), ("names", &two, "53")] {
        let rule = |destination: &str, port: &str| {
            json!({"name": port, "enabled": true, "action": "accept", "protocol": "tcp", "ports": [port],
                "sources": [all], "destinations": [destination]})
        };
        let rules = [rule(group, port), rule(&other, "8080")];
        server.owner.created("/api/policies", json!({"name": name, "enabled": true, "rules": rules})).await;
    }
    let check = async |id: &str, destination: &str, service: &str, allowed: bool| {
        let path = format!("/api/explain?source=user&destination={destination}&service={service}");
        let (status, told) = server.owner.get(&path).await;
        assert_eq!((status, &told["allowed"]), (200, &json!(allowed)), "{id} {service}: {told}");
    };
    for (id, destination, service, allowed) in [
        ("C-9 route1", "10.1.0.1", "443/tcp", true),
        ("C-9 route1", "10.1.0.1", "53/tcp", false),
        ("C-9 route2", "10.2.0.1", "53/tcp", true),
        ("C-9 route2", "10.2.0.1", "443/tcp", false),
        ("C-9 sister", "10.1.0.1", "8080/tcp", false),
        ("C-9 route3", "10.3.0.1", "8080/tcp", true),
        ("C-8", "10.3.0.1", "icmp", true),
        ("C-8", "10.3.0.1", "5353/udp", true),
        ("C-8 exit", "203.0.113.9", "443/tcp", false),
    ] {
        check(id, destination, service, allowed).await;
    }
    route(routes[3]).await;
    check("C-8 exit", "203.0.113.9", "443/tcp", true).await;
    check("C-8 exit", "2001:db8::9", "443/tcp", true).await;
}

/// The protocol of rules that NetBird widens to 22022 by agents' own SSH server: here it is TCP 22, whatever a peer says of SSH.
#[tokio::test]
async fn c_17_netbird_ssh_is_port_22_and_no_other() {
    let server = Server::start().await;
    let (_, policies) = server.owner.get("/api/policies").await;
    server.owner.delete(&format!("/api/policies/{}", text(&policies[0], "id"))).await;
    let (user, host) = (server.peer("user").await.id, server.peer("host").await.id);
    let (users, hosts) = (server.group("users").await, server.group("hosts").await);
    for (group, name, peer) in [(&users, "users", &user), (&hosts, "hosts", &host)] {
        let body = json!({"name": name, "peers": [peer]});
        assert_eq!(server.owner.put(&format!("/api/groups/{group}"), body).await.0, 200);
    }
    let body = json!({"name": "host", "ssh_enabled": true, "login_expiration_enabled": false, "inactivity_expiration_enabled": false});
    assert_eq!(server.owner.put(&format!("/api/peers/{host}"), body).await.0, 422);
    // One for which an earlier version stored it.
    server.sql("UPDATE peers SET ssh_enabled = TRUE WHERE name = 'host'").await;
    let rule = json!({"name": "ssh", "enabled": true, "action": "accept", "protocol": "netbird-ssh",
        "sources": [users], "destinations": [hosts]});
    let policy = json!({"name": "ssh", "enabled": true, "rules": [rule]});
    let made = server.owner.created("/api/policies", policy).await;
    for (service, allowed) in [
        ("22/tcp", true),
        ("22022/tcp", false),
        ("22022/udp", false),
        ("22/udp", false),
        ("44338/tcp", false),
    ] {
        let path = format!("/api/explain?source=user&destination=host&service={service}");
        let (status, told) = server.owner.get(&path).await;
        assert_eq!((status, &told["allowed"]), (200, &json!(allowed)), "{service}: {told} {made}");
    }
}
