use serde_json::{Value, json};

use crate::harness::{Server, message, text};

fn quad9(group: &str) -> Value {
    json!({"name": "Quad9", "description": "d", "enabled": true, "primary": true, "groups": [group], "domains": [],
        "search_domains_enabled": false, "nameservers": [{"ip": "9.9.9.9", "ns_type": "udp", "port": 53},
        {"ip": "2620:FE::fe", "ns_type": "udp", "port": 53}]})
}

#[tokio::test]
async fn nameserver_groups_are_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let users = server.group("users").await;
    let made = server.owner.created("/api/dns/nameservers", quad9(&users)).await;
    assert_eq!(made["nameservers"][1], json!({"ip": "2620:fe::fe", "ns_type": "udp", "port": 53}));
    let path = format!("/api/dns/nameservers/{}", text(&made, "id"));
    assert_eq!(server.owner.get(&path).await, (200, made.clone()));
    assert_eq!(server.owner.get("/api/dns/nameservers").await, (200, json!([made])));
    let revision = server.store.revision().await.unwrap();
    assert_eq!(server.owner.put(&path, quad9(&users)).await.0, 200);
    assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");

    let mut split = quad9(&users);
    split["primary"] = json!(false);
    split["domains"] = json!(["Corp.Example.", "internal", "corp.example"]);
    split["search_domains_enabled"] = json!(true);
    let (status, shown) = server.owner.put(&path, split).await;
    assert_eq!((status, &shown["domains"]), (200, &json!(["corp.example", "internal"])), "{shown}");
    assert_eq!(server.owner.delete(&path).await, (200, json!({})));
    for answer in [server.owner.get(&path).await, server.owner.put(&path, quad9(&users)).await] {
        assert_eq!(answer.0, 404);
    }
    assert_eq!(server.owner.delete(&path).await.0, 404);
    let codes = server.codes().await;
    for code in ["nameserver.group.add", "nameserver.group.update", "nameserver.group.delete"] {
        assert_eq!(codes.iter().filter(|seen| *seen == code).count(), 1, "{code}");
    }
}

#[tokio::test]
async fn wrong_nameserver_groups_are_refused() {
    let server = Server::start().await;
    let users = server.group("users").await;
    server.owner.created("/api/dns/nameservers", quad9(&users)).await;
    let one = |ip: &str, kind: &str, port: i64| json!([{"ip": ip, "ns_type": kind, "port": port}]);
    let four: Vec<Value> =
        (1..5).map(|i| json!({"ip": format!("9.9.9.{i}"), "ns_type": "udp", "port": 53})).collect();
    let wrong: [(&str, Value, &str); 15] = [
        ("name", json!("Quad9"), "already exists"),
        ("name", json!(""), "name"),
        ("name", json!("x".repeat(41)), "40 characters"),
        ("nameservers", json!([]), "1 and 3"),
        ("nameservers", json!(four), "1 and 3"),
        ("nameservers", one("dns.example", "udp", 53), "no IP address"),
        ("nameservers", one("0.0.0.0", "udp", 53), "answers nobody"),
        ("nameservers", one("9.9.9.9", "https", 53), "ns_type"),
        ("nameservers", one("9.9.9.9", "udp", 0), "port 0"),
        ("nameservers", one("9.9.9.9", "udp", 65536), "port 65536"),
        ("groups", json!([]), "at least one group"),
        ("groups", json!(["nothing"]), "nothing does not exist"),
        ("primary", json!(false), "domains must be named"),
        ("domains", json!(["a.example"]), "domains must be empty"),
        ("search_domains_enabled", json!(true), "needs domains"),
    ];
    for (field, value, said) in wrong {
        let mut body = quad9(&users);
        body["name"] = json!("other");
        body[field] = value;
        let answer = server.owner.post("/api/dns/nameservers", body.clone()).await;
        assert!(answer.0 == 422 && message(&answer).contains(said), "{body}: {answer:?}");
    }
    let mut body = quad9(&users);
    body["name"] = json!("other");
    body["primary"] = json!(false);
    for domain in ["", "a..b", "*.example", "-a.example", "a b"] {
        body["domains"] = json!([domain]);
        assert_eq!(server.owner.post("/api/dns/nameservers", body.clone()).await.0, 422, "{domain:?}");
    }
}

#[tokio::test]
async fn groups_whose_names_are_not_managed_are_set_and_told_apart_in_events() {
    let server = Server::start().await;
    let (a, b) = (server.group("a").await, server.group("b").await);
    let settings = |groups: &[&String]| json!({"disabled_management_groups": groups});
    assert_eq!(server.owner.get("/api/dns/settings").await, (200, settings(&[])));
    assert_eq!(server.owner.put("/api/dns/settings", settings(&[&a])).await, (200, settings(&[&a])));
    let revision = server.store.revision().await.unwrap();
    assert_eq!(server.owner.put("/api/dns/settings", settings(&[&a])).await.0, 200);
    assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");
    assert_eq!(server.owner.put("/api/dns/settings", settings(&[&b])).await, (200, settings(&[&b])));
    assert_eq!(server.owner.get("/api/dns/settings").await, (200, settings(&[&b])));
    let nothing = "nothing".to_owned();
    assert_eq!(server.owner.put("/api/dns/settings", settings(&[&nothing])).await.0, 422);
    let codes = server.codes().await;
    let code = |end: &str| format!("dns.setting.disabled.management.group.{end}");
    assert_eq!(codes[codes.len() - 3..], [code("add"), code("add"), code("delete")]);
}

#[tokio::test]
async fn zones_and_records_are_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let users = server.group("users").await;
    let zone = json!({"name": "Office", "domain": "Corp.Example.", "enable_search_domain": true,
        "distribution_groups": [users]});
    let made = server.owner.created("/api/dns/zones", zone.clone()).await;
    assert_eq!((&made["domain"], &made["enabled"]), (&json!("corp.example"), &json!(true)));
    assert_eq!(made["records"], json!([]));
    let path = format!("/api/dns/zones/{}", text(&made, "id"));
    let records = format!("{path}/records");
    let contents = [
        ("A", "corp.example", "192.0.2.1", "192.0.2.1"),
        ("AAAA", "www.corp.example", "2001:DB8::1", "2001:db8::1"),
        ("CNAME", "alias.corp.example.", "WWW.corp.example.", "www.corp.example"),
    ];
    for (kind, name, content, shown) in contents {
        let body = json!({"name": name, "type": kind, "content": content, "ttl": 300});
        let record = server.owner.created(&records, body.clone()).await;
        assert_eq!((&record["type"], &record["content"]), (&json!(kind), &json!(shown)));
        let one = format!("{records}/{}", text(&record, "id"));
        assert_eq!(server.owner.get(&one).await, (200, record));
        let revision = server.store.revision().await.unwrap();
        assert_eq!(server.owner.put(&one, body).await.0, 200);
        assert_eq!(server.store.revision().await.unwrap(), revision, "an identical PUT writes nothing");
    }
    let (_, shown) = server.owner.get(&path).await;
    let (_, list) = server.owner.get(&records).await;
    assert_eq!((shown["records"].as_array().unwrap().len(), &shown["records"]), (3, &list));
    assert_eq!(server.owner.get("/api/dns/zones").await, (200, json!([shown])));

    let one = format!("{records}/{}", text(&list[0], "id"));
    let body = json!({"name": "x.corp.example", "type": "A", "content": "192.0.2.9", "ttl": 0});
    let (status, changed) = server.owner.put(&one, body.clone()).await;
    assert_eq!((status, &changed["ttl"], &changed["name"]), (200, &json!(0), &json!("x.corp.example")));
    let mut renamed = zone.clone();
    renamed["name"] = json!("Branch");
    renamed["enabled"] = json!(false);
    let (status, shown) = server.owner.put(&path, renamed).await;
    assert_eq!(
        (status, &shown["name"], shown["records"].as_array().unwrap().len()),
        (200, &json!("Branch"), 3)
    );
    assert_eq!(server.owner.delete(&one).await, (200, json!({})));
    for answer in
        [server.owner.get(&one).await, server.owner.delete(&one).await, server.owner.put(&one, body).await]
    {
        assert_eq!(answer.0, 404);
    }
    assert_eq!(server.owner.delete(&path).await, (200, json!({})));
    for path in [&path, &records] {
        assert_eq!(server.owner.get(path).await.0, 404);
    }
    let codes = server.codes().await;
    let counts = [
        ("dns.zone.create", 1),
        ("dns.zone.update", 1),
        ("dns.zone.delete", 1),
        ("dns.zone.record.create", 3),
        ("dns.zone.record.update", 1),
        ("dns.zone.record.delete", 3),
    ];
    for (code, times) in counts {
        assert_eq!(codes.iter().filter(|seen| *seen == code).count(), times, "{code}");
    }
}

#[tokio::test]
async fn wrong_zones_and_records_are_refused() {
    let server = Server::start().await;
    let users = server.group("users").await;
    let zone = |domain: &str| json!({"name": "z", "domain": domain, "distribution_groups": [users]});
    let made = server.owner.created("/api/dns/zones", zone("corp.example")).await;
    let path = format!("/api/dns/zones/{}", text(&made, "id"));
    let own = server.store.account().await.unwrap().settings.dns_domain().to_owned();
    for (domain, status, said) in [
        ("CORP.example", 409, "already exists"),
        ("single", 422, "no domain name"),
        ("a..example", 422, "no domain name"),
        (own.as_str(), 422, "peers' own names"),
    ] {
        let answer = server.owner.post("/api/dns/zones", zone(domain)).await;
        assert!(answer.0 == status && message(&answer).contains(said), "{domain}: {answer:?}");
    }
    for (groups, said) in [(json!([]), "at least one group"), (json!(["nothing"]), "does not exist")] {
        let mut body = zone("other.example");
        body["distribution_groups"] = groups;
        let answer = server.owner.post("/api/dns/zones", body).await;
        assert!(answer.0 == 422 && message(&answer).contains(said), "{answer:?}");
    }
    let answer = server.owner.put(&path, zone("moved.example")).await;
    assert!(answer.0 == 422 && message(&answer).contains("keeps its domain"), "{answer:?}");

    let records = format!("{path}/records");
    let record = |name: &str, kind: &str, content: &str, ttl: i64| json!({"name": name, "type": kind, "content": content, "ttl": ttl});
    server.owner.created(&records, record("www.corp.example", "A", "192.0.2.1", 60)).await;
    server.owner.created(&records, record("c.corp.example", "CNAME", "www.corp.example", 60)).await;
    for (body, status, said) in [
        (record("www.corp.example", "A", "192.0.2.1", 9), 409, "this record already"),
        (record("www.corp.example", "CNAME", "b.example", 9), 409, "no CNAME"),
        (record("c.corp.example", "A", "192.0.2.2", 9), 409, "no CNAME"),
        (record("www.other.example", "A", "192.0.2.1", 9), 422, "not in the zone"),
        (record("xcorp.example", "A", "192.0.2.1", 9), 422, "not in the zone"),
        (record("a.corp.example", "MX", "b.example", 9), 422, "type"),
        (record("a.corp.example", "A", "2001:db8::1", 9), 422, "no IPv4 address"),
        (record("a.corp.example", "AAAA", "192.0.2.1", 9), 422, "no IPv6 address"),
        (record("a.corp.example", "CNAME", "not a name", 9), 422, "no domain name"),
        (record("a.corp.example", "A", "192.0.2.1", -1), 422, "ttl"),
        (record("a.corp.example", "A", "192.0.2.1", 1 << 31), 422, "ttl"),
    ] {
        let answer = server.owner.post(&records, body.clone()).await;
        assert!(answer.0 == status && message(&answer).contains(said), "{body}: {answer:?}");
    }
    let body = record("a.corp.example", "A", "192.0.2.1", 9);
    assert_eq!(server.owner.post("/api/dns/zones/nothing/records", body).await.0, 404);
}
