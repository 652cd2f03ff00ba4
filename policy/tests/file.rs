//! The policy file: what it says, and what it says about mistakes.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

use sluicegate_policy::file::{End, PolicyFile, THREE_TIER, Via, parse};
use sluicegate_policy::model::{Action, Service};
use sluicegate_policy::posture::Checks;

fn read(text: &str) -> PolicyFile {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The problems of a file, as (line, column, part of the message).
fn problems(text: &str) -> Vec<(u64, u64, String)> {
    parse(text).unwrap_err().problems.into_iter().map(|p| (p.line, p.column, p.message)).collect()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|s| s.to_string()).collect()
}

#[test]
fn the_three_tier_example_reads_as_documented() {
    let file = read(THREE_TIER);
    assert_eq!(
        file.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(),
        ["engineering", "contractors", "monitoring", "web", "metrics", "database"]
    );
    assert_eq!(file.groups[0].peers, Some(strings(&["alice"])));
    assert_eq!(file.groups[5].peers, None);
    let site = &file.networks[0];
    assert_eq!(site.resources[1].address, "fd20::10");
    assert_eq!(site.resources[3].groups, Some(strings(&["database"])));
    assert_eq!(site.routers[1].via, Via::Peer("gateway-2".into()));
    assert_eq!((site.routers[0].metric, site.routers[1].metric), (100, 200));
    assert!(site.routers[0].masquerade && site.routers[0].enabled);
    let [users, monitoring] = &file.policies[..] else { panic!("two policies") };
    assert!(users.enabled);
    let rule = &users.rules[0];
    assert_eq!(rule.name, "web for users");
    assert_eq!(rule.from, End::Groups(strings(&["engineering", "contractors"])));
    assert_eq!(rule.to, End::Groups(strings(&["web"])));
    assert_eq!(rule.service, Service::Tcp(vec![443..=443]));
    assert_eq!((rule.action, rule.bidirectional, rule.enabled), (Action::Accept, false, true));
    assert_eq!(monitoring.rules[0].name, "scrape");
    // The database is for nobody: no rule leads to it.
    let to_database = |end: &End| matches!(end, End::Groups(g) if g.iter().any(|g| g == "database"));
    assert!(!file.policies.iter().flat_map(|p| &p.rules).any(|r| to_database(&r.to)));
}

#[test]
fn every_field_is_read() {
    let file = read(
        "
networks:
  - name: lab
    resources:
      - {name: all, address: 0.0.0.0/0, enabled: false, description: everything, groups: one}
      - {name: wild, address: '*.example.com', groups: []}
    routers:
      - {groups: [gateways], metric: 9999, masquerade: false, enabled: false}
policies:
  - name: p
    enabled: false
    posture_checks: [recent]
    rules:
      - {from: 'peer:my laptop', to: 'resource:wild', service: all, action: drop, enabled: false}
      - {from: All, to: 'peer:printer', service: udp, bidirectional: true, name: second, description: d}
      - {from: All, to: All, service: icmp}
",
    );
    let lab = &file.networks[0];
    assert!(!lab.resources[0].enabled && lab.resources[0].groups == Some(strings(&["one"])));
    assert_eq!(lab.resources[1].groups, Some(vec![]));
    assert_eq!(lab.routers[0].via, Via::Groups(strings(&["gateways"])));
    assert!(!lab.routers[0].masquerade && !lab.routers[0].enabled);
    let policy = &file.policies[0];
    assert!(!policy.enabled && policy.posture_checks == Some(strings(&["recent"])));
    assert_eq!(policy.rules[0].from, End::Peer("my laptop".into()));
    assert_eq!(policy.rules[0].to, End::Resource("wild".into()));
    assert_eq!((policy.rules[0].action, policy.rules[0].enabled), (Action::Drop, false));
    assert_eq!(policy.rules[1].service, Service::Udp(vec![]));
    assert!(policy.rules[1].bidirectional);
    assert_eq!(policy.rules[2].name, "p 3");
    assert_eq!(read(""), PolicyFile::default());
}

#[test]
fn posture_checks_are_read_in_the_form_that_they_are_judged_in() {
    let file = read(
        r#"
posture_checks:
  - name: laptops
    description: what every laptop has
    client_version: 0.10
    os_version: {linux: 6.1, darwin: "14.2", windows: 10.0.19045, android: 13, ios: 17}
    geo_location: {allow: [de, NO, AT/Vienna]}
    network_range: {deny: [192.0.2.0/24, "fd00::/8", 198.51.100.7]}
    processes:
      - {linux_path: /usr/bin/agent, mac_path: /Applications/Agent, windows_path: 'C:\Agent.exe'}
  - {name: home, geo_location: {deny: US}}
"#,
    );
    let [laptops, home] = &file.posture_checks.unwrap()[..] else { panic!("two") };
    assert_eq!(laptops.description.as_deref(), Some("what every laptop has"));
    // In the words of the REST interface: both mean the same.
    let same =
        |checks: &Checks, json: serde_json::Value| assert_eq!(serde_json::to_value(checks).unwrap(), json);
    same(
        &laptops.checks,
        serde_json::json!({
            "nb_version_check": {"min_version": "0.10"},
            "os_version_check": {
                "android": {"min_version": "13"}, "darwin": {"min_version": "14.2"}, "ios": {"min_version": "17"},
                "linux": {"min_kernel_version": "6.1"}, "windows": {"min_kernel_version": "10.0.19045"},
            },
            "geo_location_check": {"action": "allow", "locations": [
                {"country_code": "DE"}, {"country_code": "NO"}, {"country_code": "AT", "city_name": "Vienna"}]},
            "peer_network_range_check":
                {"action": "deny", "ranges": ["192.0.2.0/24", "fd00::/8", "198.51.100.7/32"]},
            "process_check": {"processes": [{"linux_path": "/usr/bin/agent", "mac_path": "/Applications/Agent",
                "windows_path": "C:\\Agent.exe"}]},
        }),
    );
    same(
        &home.checks,
        serde_json::json!({"geo_location_check": {"action": "deny", "locations": [{"country_code": "US"}]}}),
    );
    assert_eq!(read("groups: []").posture_checks, None);
    assert_eq!(read("posture_checks: []").posture_checks, Some(vec![]));
}

#[test]
fn every_mistake_in_posture_checks_has_its_place() {
    let found = problems(
        "posture_checks:
  - name: a
  - name: a
    client_version: six
  - name: b
    os_version: {}
    geo_location: {allow: [DE], deny: [US]}
    network_range: {}
    processes: []
  - name: c
    os_version: {linux: '6.x', windows: '10'}
    geo_location: {allow: [Germany, DE/]}
    network_range: {deny: [10.0.0.0/33, here, '::ffff:10.0.0.0/104', 10.0.0.0/8]}
    processes:
      - {}
      - {linux_path: bin/x}
  - name: ' '
    geo_location: {allow: []}
",
    );
    for (line, column, part) in [
        (2, 11, "`a` asks for nothing"),
        (3, 11, "`a` is already in line 2"),
        (4, 21, "\"six\" is no version"),
        (6, 17, "names no system"),
        (7, 19, "either `allow` or `deny`"),
        (8, 20, "either `allow` or `deny`"),
        (9, 16, "names no process"),
        (11, 25, "\"6.x\" is no version"),
        (12, 28, "\"Germany\" is not of two letters"),
        (12, 37, "`DE/` names no city"),
        (13, 28, "`10.0.0.0/33` is no prefix"),
        (13, 41, "`here` is no prefix"),
        (13, 47, "write it as an IPv4 range"),
        (15, 9, "needs linux_path"),
        (16, 9, "does not begin at the root"),
        (17, 11, "empty name"),
        (18, 19, "names nothing to allow or deny"),
    ] {
        let hit = found.iter().any(|p| (p.0, p.1) == (line, column) && p.2.contains(part));
        assert!(hit, "line {line}, column {column}: {part}\n{found:#?}");
    }
    assert_eq!(found.len(), 17, "{found:#?}");
    let unknown = problems("posture_checks:\n  - name: a\n    geo_locations: {}\n");
    assert!(unknown[0].2.contains("did you mean `geo_location`?"), "{unknown:?}");
}

#[test]
fn yaml_mistakes_name_line_and_column() {
    let unknown = problems("policies:\n  - name: p\n    colour: blue\n    rules: []\n");
    assert_eq!((unknown.len(), unknown[0].0, unknown[0].1), (1, 3, 5), "{unknown:?}");
    assert!(unknown[0].2.contains("colour"), "{unknown:?}");
    for (text, line, part) in [
        ("groups: [\n", 1, ""),
        ("groups:\n  - name: [a]\n", 2, ""),
        ("groups:\n  - {name: a, name: b}\n", 2, "name"),
        ("policies:\n  - name: p\n", 2, "rules"),
        ("policies:\n  - name: p\n    enabled: maybe\n    rules: []\n", 3, ""),
        (
            "policies:\n  - name: p\n    rules:\n      - {from: a, to: b, service: all, action: reject}\n",
            4,
            "reject",
        ),
        ("policies:\n  - name: p\n    rules:\n      - {from: {a: b}, to: b, service: all}\n", 4, ""),
    ] {
        let found = problems(text);
        assert_eq!((found.len(), found[0].0), (1, line), "{text}: {found:?}");
        assert!(found[0].2.contains(part), "{text}: {found:?}");
    }
}

#[test]
fn a_file_is_read_whatever_the_number_of_its_names() {
    let names: Vec<String> = (0..260_000).map(|i| format!("p{i}")).collect();
    let file = read(&format!("groups: [{{name: g, peers: [{}]}}]", names.join(",")));
    assert_eq!(file.groups[0].peers.as_ref().unwrap().len(), names.len());
}

#[test]
fn a_group_is_not_called_as_a_peer_or_a_resource_is() {
    let found = problems("groups:\n  - name: peer:a\n  - name: resource:b\n  - name: peers:c\n");
    assert_eq!(found.iter().map(|problem| problem.0).collect::<Vec<_>>(), [2, 3], "{found:?}");
    assert!(found[0].2.contains("`peer:`") && found[1].2.contains("`resource:`"), "{found:?}");
}

#[test]
fn every_mistake_is_listed_with_its_place() {
    let found = problems(
        "groups:
  - name: a
  - name: a
  - name: All
  - name: ''
    peers: [x, x]
networks:
  - name: n
    resources:
      - {name: r, address: 10.0.0.0/33}
      - {name: r, address: 10.0.0.256}
    routers:
      - {peer: g, metric: 10000}
      - {metric: 1}
      - {peer: g, groups: [h]}
policies:
  - name: p
    rules: []
  - name: q
    rules:
      - {name: x, from: [], to: b, service: tcp/99999}
      - {name: x, from: 'resource:r', to: ['peer:b', c], service: all}
",
    );
    let expected = [
        (3, "group `a` is already in line 2"),
        (4, "All holds every peer"),
        (5, "empty name"),
        (6, "`x` is named twice"),
        (10, "`10.0.0.0/33` is not an address"),
        (11, "resource `r` is already in line 10"),
        (11, "`10.0.0.256` is not an address"),
        (13, "metric 10000 is not between 1 and 9999"),
        (14, "either `peer` or `groups`"),
        (15, "either `peer` or `groups`"),
        (17, "policy `p` has no rules"),
        (21, "`from` must name at least one"),
        (21, "`99999` in `tcp/99999` is not a port"),
        (22, "resource `r` cannot open flows"),
        (22, "`to` takes either groups, or one peer:NAME"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, column, message), (expected_line, part)) in found.iter().zip(expected) {
        assert_eq!(*line, expected_line, "{message}");
        assert!(*column > 0 && message.contains(part), "{message} / {part}");
    }
    let text = parse("groups:\n  - name: a\n  - name: a\n").unwrap_err().to_string();
    assert_eq!(text, "line 3, column 11: group `a` is already in line 2; names are unique");
}
