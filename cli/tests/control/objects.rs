//! Routes, nameservers, zones, records, temporary access and posture checks, made, changed and deleted by the command line.

use serde_json::{Value, json};
use sluicegate_control::store::{Enrollment, Role};

use crate::Control;
use crate::run::Shell;

async fn world() -> Control {
    let control = Control::start().await;
    control.join().await;
    for group in ["users", "gateways", "guards"] {
        let file = format!("groups:\n  - name: {group}\n    peers: [alice]\n");
        control.apply(&file, &[]).await.ok();
    }
    control
}

/// The only object of a JSON list.
async fn only(shell: &Shell, words: &[&str], field: &str) -> Value {
    let listed = shell.run(&[words, &["--output", "json"]].concat()).await.json();
    let items = listed[field].as_array().unwrap_or_else(|| panic!("{listed}"));
    assert_eq!(items.len(), 1, "{listed}");
    items[0].clone()
}

/// A command that changes nothing: code, and words of what it says.
async fn wrong(shell: &Shell, words: &[&str], code: u8, says: &str) {
    let ran = shell.run(words).await;
    assert!(ran.code == code && ran.err.contains(says), "{words:?}: {} {}", ran.code, ran.err);
}

#[tokio::test]
async fn routes_are_made_changed_shown_and_deleted() {
    let control = world().await;
    let shell = &control.shell;
    assert!(shell.run(&["route", "list"]).await.ok().starts_with("No routes."));
    let made = shell
        .run(&["route", "create", "lab", "10.9.0.0/24", "--peer", "gateway-1", "--group", "users"])
        .await
        .ok();
    assert!(made.starts_with("Made the route lab ("), "{made}");
    let route = only(shell, &["route", "list"], "routes").await;
    assert_eq!(
        [
            &route["network"],
            &route["metric"],
            &route["masquerade"],
            &route["enabled"],
            &route["skip_auto_apply"]
        ],
        [&json!("10.9.0.0/24"), &json!(100), &json!(true), &json!(true), &json!(false)]
    );
    let table = shell.run(&["route", "list"]).await.ok();
    assert!(table.contains("gateway-1") && table.contains("users"), "{table}");

    // What is not named stays.
    let id = route["id"].as_str().unwrap();
    let change = [
        "route",
        "update",
        "lab",
        "--metric",
        "50",
        "--masquerade",
        "off",
        "--access-control-group",
        "guards",
    ];
    assert!(shell.run(&change).await.ok().starts_with("Changed the route lab ("));
    let changed = only(shell, &["route", "list"], "routes").await;
    assert_eq!(
        [&changed["metric"], &changed["masquerade"], &changed["groups"], &changed["peer"]],
        [&json!(50), &json!(false), &route["groups"], &route["peer"]]
    );
    let shown = shell.run(&["route", "show", id]).await.ok();
    assert!(shown.contains("Open to         what policies say of guards"), "{shown}");
    // From a peer to groups, to the other family, and open again.
    let change = [
        "route",
        "update",
        id,
        "--peer-group",
        "gateways",
        "--network",
        "fd09::/64",
        "--name",
        "lab6",
        "--open",
    ];
    // An empty name, as of a shell variable that is not set, opens nothing.
    for more in [
        &["--access-control-group", ""][..],
        &["--access-control-group", "guards", "--access-control-group", ""],
    ] {
        let update = [&["route", "update", id][..], more].concat();
        wrong(shell, &update, 2, "--access-control-group has no name").await;
        let create = ["route", "create", "open", "10.7.0.0/24", "--peer", "gateway-1", "--group", "users"];
        wrong(shell, &[&create[..], more].concat(), 2, "--access-control-group has no name").await;
    }
    let both = ["route", "update", id, "--open", "--access-control-group", "guards"];
    wrong(shell, &both, 2, "cannot be used with").await;
    let several = ["route", "update", id, "--group", "users", "--group", ""];
    wrong(shell, &several, 2, "a name in a list of several is empty").await;
    assert_eq!(only(shell, &["route", "list"], "routes").await, changed);
    shell.run(&change).await.ok();
    let moved = shell.run(&["route", "show", "lab6", "--output", "json"]).await.json();
    let moved = &moved["route"];
    assert_eq!((moved.get("peer"), &moved["network"]), (None, &json!("fd09::/64")), "{moved}");
    assert_eq!(
        (moved["peer_groups"].as_array().unwrap().len(), &moved["access_control_groups"]),
        (1, &json!([]))
    );

    wrong(shell, &["route", "show", "lab"], 2, "there is no route 'lab'").await;
    wrong(
        shell,
        &["route", "create", "x", "10.9.0.0/24", "--peer", "nobody", "--group", "users"],
        2,
        "no peer 'nobody'",
    )
    .await;
    wrong(
        shell,
        &["route", "create", "x", "10.9.0.0/24", "--peer", "alice", "--group", "none"],
        2,
        "no group 'none'",
    )
    .await;
    wrong(
        shell,
        &["route", "create", "x", "nonsense", "--peer", "alice", "--group", "users"],
        1,
        "is no prefix",
    )
    .await;
    wrong(shell, &["route", "create", "x", "10.9.0.0/24", "--peer", "alice"], 1, "groups").await;
    wrong(
        shell,
        &["route", "create", "x", "10.9.0.0/24", "--peer", "a", "--peer-group", "b"],
        2,
        "cannot be used with",
    )
    .await;
    wrong(shell, &["route", "update", "lab6", "--metric", "0"], 2, "1..=9999").await;
    // Two of a name are told apart by their ids.
    shell
        .run(&["route", "create", "lab6", "10.8.0.0/24", "--peer", "gateway-2", "--group", "users"])
        .await
        .ok();
    wrong(shell, &["route", "delete", "lab6"], 2, "name one by its id: ").await;
    let deleted = shell.run(&["route", "delete", id, "--output", "json"]).await.json();
    assert_eq!((&deleted["schema"], &deleted["deleted"]["id"]), (&json!("sluicegate.deleted/1"), &json!(id)));
    assert!(shell.run(&["route", "delete", "lab6"]).await.ok().starts_with("Deleted the route lab6 ("));
    assert!(control.store.routes().await.unwrap().is_empty());
}

#[tokio::test]
async fn nameservers_and_settings_are_made_changed_shown_and_deleted() {
    let control = world().await;
    let shell = &control.shell;
    let list = ["dns", "nameserver", "list"];
    assert!(shell.run(&list).await.ok().starts_with("No nameserver groups."));
    let create = [
        "dns",
        "nameserver",
        "create",
        "quad9",
        "--server",
        "9.9.9.9",
        "--server",
        "[2620:fe::fe]:5353",
        "--group",
        "users",
        "--primary",
        "on",
    ];
    assert!(shell.run(&create).await.ok().starts_with("Made the nameserver group quad9 ("));
    wrong(shell, &create, 1, "already exists").await;
    let made = only(shell, &list, "nameserver_groups").await;
    assert_eq!(made["nameservers"][1], json!({"ip": "2620:fe::fe", "ns_type": "udp", "port": 5353}));
    let table = shell.run(&list).await.ok();
    assert!(table.contains("9.9.9.9, [2620:fe::fe]:5353  every name  users"), "{table}");
    let change = [
        "dns",
        "nameserver",
        "update",
        "quad9",
        "--primary",
        "off",
        "--domain",
        "corp.example",
        "--domain",
        "lab.example",
        "--enabled",
        "off",
    ];
    shell.run(&change).await.ok();
    let shown = shell.run(&["dns", "nameserver", "show", "quad9"]).await.ok();
    assert!(shown.contains("corp.example, lab.example") && shown.contains("Enabled      off"), "{shown}");
    assert_eq!(only(shell, &list, "nameserver_groups").await["nameservers"], made["nameservers"]);
    wrong(shell, &["dns", "nameserver", "update", "quad9", "--primary", "on"], 1, "domains").await;
    wrong(
        shell,
        &["dns", "nameserver", "create", "x", "--server", "dns.example"],
        2,
        "no address of a nameserver",
    )
    .await;
    shell.run(&["dns", "nameserver", "delete", "quad9"]).await.ok();
    wrong(shell, &["dns", "nameserver", "show", "quad9"], 2, "sluice dns nameserver list").await;

    let show = ["dns", "settings", "show"];
    assert!(shell.run(&show).await.ok().starts_with("Every peer gets"));
    let set = ["dns", "settings", "set", "--unmanaged-group", "users", "--unmanaged-group", "guards"];
    assert!(shell.run(&set).await.ok().ends_with("neither nameservers nor zones: guards, users\n"));
    let told = shell.run(&[&show[..], &["--output", "json"]].concat()).await.json();
    assert_eq!(told["dns_settings"]["disabled_management_groups"].as_array().unwrap().len(), 2);
    assert!(
        shell
            .run(&["dns", "settings", "set", "--unmanaged-group", ""])
            .await
            .ok()
            .starts_with("Every peer gets")
    );
}

#[tokio::test]
async fn zones_and_records_are_made_changed_shown_and_deleted() {
    let control = world().await;
    let shell = &control.shell;
    shell.run(&["dns", "zone", "create", "lab.example", "--group", "users"]).await.ok();
    shell.run(&["dns", "zone", "update", "lab.example", "--search", "on", "--name", "the lab"]).await.ok();
    let zone = only(shell, &["dns", "zone", "list"], "dns_zones").await;
    assert_eq!(
        [&zone["name"], &zone["enable_search_domain"], &zone["enabled"], &zone["domain"]],
        [&json!("the lab"), &json!(true), &json!(true), &json!("lab.example")]
    );
    for (kind, content) in [("a", "10.20.0.10"), ("AAAA", "fd00:20::10")] {
        let made = shell
            .run(&["dns", "record", "create", "lab.example", "www.lab.example", kind, content])
            .await
            .ok();
        assert!(made.starts_with("Made the record www.lab.example ("), "{made}");
    }
    shell
        .run(&[
            "dns",
            "record",
            "create",
            "the lab",
            "mail.lab.example",
            "CNAME",
            "www.lab.example",
            "--ttl",
            "60",
        ])
        .await
        .ok();
    let shown = shell.run(&["dns", "zone", "show", "lab.example"]).await.ok();
    for word in [
        "Searched  on",
        "For       users",
        "A      10.20.0.10",
        "AAAA   fd00:20::10",
        "CNAME  www.lab.example",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    wrong(shell, &["dns", "record", "delete", "lab.example", "www.lab.example"], 2, "by its id").await;
    wrong(shell, &["dns", "record", "create", "lab.example", "www.lab.example", "MX", "x"], 2, "MX").await;
    wrong(shell, &["dns", "record", "create", "lab.example", "b.lab.example", "A", "fd00::1"], 1, "refused")
        .await;
    shell.run(&["dns", "record", "update", "lab.example", "mail.lab.example", "--ttl", "30"]).await.ok();
    let records = shell.run(&["dns", "record", "list", "lab.example", "--output", "json"]).await.json();
    let records = records["dns_records"].as_array().unwrap();
    let mail = records.iter().find(|record| record["name"] == "mail.lab.example").unwrap();
    assert_eq!((&mail["ttl"], &mail["content"], records.len()), (&json!(30), &json!("www.lab.example"), 3));
    shell.run(&["dns", "record", "delete", "lab.example", mail["id"].as_str().unwrap()]).await.ok();
    assert!(!shell.run(&["dns", "record", "list", "lab.example"]).await.ok().contains("mail"));
    shell.run(&["dns", "zone", "delete", "lab.example"]).await.ok();
    assert!(shell.run(&["dns", "zone", "list"]).await.ok().starts_with("No zones."));
}

#[tokio::test]
async fn temporary_access_is_granted_listed_and_revoked() {
    let control = world().await;
    let shell = &control.shell;
    assert_eq!(shell.run(&["access", "list"]).await.ok(), "Nobody has temporary access.\n");
    let key = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    let grant = [
        "access",
        "grant",
        "bob",
        "--name",
        "contractor",
        "--public-key",
        key,
        "--rule",
        "tcp/443",
        "--rule",
        "udp/8000-8999",
        "--rule",
        "icmp",
    ];
    let ran = shell.run(&grant).await;
    assert!(ran.err.contains("contractor may open tcp/443, udp/8000-8999, icmp on bob."), "{}", ran.err);
    let configuration = ran.ok();
    let bob = control.store.peers(Some("bob"), None).await.unwrap().remove(0);
    assert!(
        configuration.starts_with("[Interface]\n# PrivateKey") && configuration.contains("/128\n"),
        "{configuration}"
    );
    assert!(
        configuration.contains(&format!("AllowedIPs = {}/32, {}/128\n", bob.ip, bob.ipv6)),
        "{configuration}"
    );
    let one = only(shell, &["access", "list"], "access").await;
    assert_eq!(
        [&one["name"], &one["to"], &one["rules"]],
        [&json!("contractor"), &json!(["bob"]), &json!(["tcp/443", "udp/8000-8999", "icmp"])]
    );
    let explained = |port: &'static str| {
        let to = format!("{}:{port}/tcp", bob.ip);
        async move { shell.run(&["policy", "explain", "contractor", &to]).await.code }
    };
    assert_eq!((explained("443").await, explained("444").await), (0, 4));
    let table = shell.run(&["access", "list"]).await.ok();
    assert!(table.contains("contractor  bob  tcp/443, udp/8000-8999, icmp"), "{table}");
    wrong(shell, &grant, 1, "belongs to peer contractor already").await;
    for (rule, says) in [("tcp/0", "rules"), ("quic/443", "rules"), ("tcp/90-80", "rules")] {
        let words = ["access", "grant", "bob", "--name", "x", "--public-key", key, "--rule", rule];
        wrong(shell, &words, 1, says).await;
    }
    wrong(
        shell,
        &["access", "grant", "bob", "--name", "x", "--public-key", "short", "--rule", "all"],
        1,
        "no WireGuard key",
    )
    .await;
    wrong(
        shell,
        &["access", "grant", "nobody", "--name", "x", "--public-key", key, "--rule", "all"],
        2,
        "no peer",
    )
    .await;
    // Only what was granted for a while is revoked by this.
    wrong(shell, &["access", "revoke", "alice"], 2, "sluice access list").await;
    shell.run(&["access", "revoke", "contractor"]).await.ok();
    assert_eq!(shell.run(&["access", "list"]).await.ok(), "Nobody has temporary access.\n");
    assert!(control.store.peers(Some("contractor"), None).await.unwrap().is_empty());
    assert!(control.store.policies().await.unwrap().iter().all(|policy| !policy.name.contains("contractor")));
}

#[tokio::test]
async fn posture_checks_are_made_changed_judged_and_deleted() {
    let control = world().await;
    let shell = &control.shell;
    let file = shell.path("checks.json");
    std::fs::write(&file, r#"{"nb_version_check": {"min_version": "0.1.0"}}"#).unwrap();
    let file = file.to_str().unwrap();
    let create = ["posture", "create", "fresh", "--checks", file, "--description", "new agents"];
    assert!(shell.run(&create).await.ok().starts_with("Made the posture check fresh ("));
    wrong(shell, &create, 1, "exists").await;
    let status = ["posture", "status", "fresh"];
    assert!(shell.run(&status).await.ok().contains("no policy asks for it"));
    let policy = "policies:\n  - name: web\n    posture_checks: [fresh]\n    rules:\n      - {from: users, to: guards, service: 'tcp/443'}\n";
    control.apply(policy, &[]).await.ok();
    assert!(shell.run(&status).await.ok().contains("no machine fails it"));

    std::fs::write(file, r#"{"nb_version_check": {"min_version": "9.0.0"}}"#).unwrap();
    shell.run(&["posture", "update", "fresh", "--checks", file]).await.ok();
    let told = shell.run(&[&status[..], &["--output", "json"]].concat()).await.json();
    let fails = told["posture_status"][0]["fails"].as_array().unwrap();
    assert!(
        fails.iter().any(|one| one["peer"] == "alice" && one["why"].as_str().unwrap().contains("0.1.0")),
        "{told}"
    );
    let table = shell.run(&["posture", "status"]).await.ok();
    assert!(table.contains("fresh  alice"), "{table}");
    shell.run(&["posture", "update", "fresh", "--name", "newest"]).await.ok();
    let shown = shell.run(&["posture", "show", "newest"]).await.ok();
    for word in ["new agents", "web", "alice: ", "\"min_version\": \"9.0.0\""] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let text = r#"{"nb_version_check": {"min_version": "0.1.0"}}"#;
    let token = shell.path("token");
    let from_input = [
        "posture",
        "update",
        "newest",
        "--checks",
        "-",
        "--url",
        &control.url,
        "--token-file",
        token.to_str().unwrap(),
    ];
    shell.bare(&from_input, text).await.ok();
    assert!(shell.run(&["posture", "status"]).await.ok().contains("no machine fails it"));
    std::fs::write(file, "[]").unwrap();
    wrong(shell, &["posture", "create", "x", "--checks", file], 2, "no JSON object").await;
    std::fs::write(file, r#"{"moon_phase": {}}"#).unwrap();
    wrong(shell, &["posture", "create", "x", "--checks", file], 1, "moon_phase").await;
    wrong(shell, &["posture", "create", "x", "--checks", "/nowhere"], 2, "/nowhere").await;
    wrong(shell, &["posture", "delete", "newest"], 1, "web").await;
    control.apply("policies: []\n", &["--prune"]).await.ok();
    shell.run(&["posture", "delete", "newest"]).await.ok();
    assert!(shell.run(&["posture", "status"]).await.ok().starts_with("No posture checks."));
}

/// Somebody else's change between reading and writing is not overwritten: control is told which version was read.
#[tokio::test]
async fn a_change_names_the_version_it_was_made_of() {
    let list = || async { axum::Json(json!([{"id": "r", "network_id": "lab"}])) };
    let one = || async { ([("etag", "\"7\"")], axum::Json(json!({"id": "r", "network_id": "lab"}))) };
    let replace = |headers: axum::http::HeaderMap| async move {
        let known = headers.get("if-match").is_some_and(|version| version == "\"7\"");
        let message = if known { "it is at 8 now" } else { "no version" };
        (axum::http::StatusCode::PRECONDITION_FAILED, axum::Json(json!({"message": message, "code": 412})))
    };
    let app = axum::Router::new()
        .route("/api/routes", axum::routing::get(list))
        .route("/api/routes/r", axum::routing::get(one).put(replace));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shell = Shell::new(&format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    wrong(&shell, &["route", "update", "lab", "--metric", "5"], 1, "it is at 8 now").await;
}

#[tokio::test]
async fn a_peer_is_shown_with_the_labels_it_joined_with() {
    let control = Control::start().await;
    let words = ["setup-key", "create", "--name", "services", "--allow-dns-labels"];
    let file = control.shell.run(&words).await.ok();
    let (key, _) = file.trim().split_once("#sha256:").unwrap();
    let enrollment = Enrollment {
        setup_key: key.into(),
        wireguard_public_key: [9; 32],
        identity_key: [9; 32],
        role: Role::Peer,
        hostname: "web".into(),
        os: "linux".into(),
        kernel_version: "6.12.0".into(),
        version: "0.1.0".into(),
        connection_ip: None,
        dns_labels: vec!["mail".into(), "imap".into()],
    };
    let joined = control.store.enroll(&enrollment).await.unwrap();
    let out = control.shell.run(&["peer", "show", "web"]).await.ok();
    for line in [
        "Name        web".to_owned(),
        format!("IPv4        {}", joined.ip),
        format!("IPv6        {}", joined.ipv6),
        "DNS name    web.sluicegate.internal".into(),
        "DNS labels  imap, mail".into(),
        "State       away".into(),
    ] {
        assert!(out.lines().any(|shown| shown == line), "{line}\n{out}");
    }
    let shown = control.shell.run(&["peer", "show", &joined.id, "--output", "json"]).await.json();
    assert_eq!(shown["peer"]["extra_dns_labels"], serde_json::json!(["imap", "mail"]));
    let unknown = control.shell.run(&["peer", "show", "nobody"]).await;
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("there is no peer 'nobody'"), "{}", unknown.err);
}
