//! The canonical form of policy files, their schema, and what differs between two of them.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sluicegate_policy::file::*;
use sluicegate_policy::model::{Action, Service};
use sluicegate_policy::posture::{
    Action as Side, Checks, GeoLocation, Location, MinKernelVersion, MinVersion, NetworkRange, OsVersion,
    Process, ProcessCheck,
};

/// Names that a careless writer of YAML gets wrong.
const NAMES: [&str; 20] = [
    "web",
    "Büro 2",
    "true",
    "no",
    "1e3",
    "0x10",
    "2026-11-22",
    "10.0.0.1",
    "a: b",
    "a #b",
    "# c",
    "- d",
    "[e]",
    "{f}",
    "\"g\"",
    "it's",
    "a,b",
    "~",
    " lead",
    "tab\tand\nline",
];

fn name() -> impl Strategy<Value = String> {
    select(&NAMES[..]).prop_map(str::to_owned)
}

fn names(least: usize) -> impl Strategy<Value = Vec<String>> {
    let known =
        NAMES.iter().filter(|name| !name.starts_with(' ')).map(|name| (*name).to_owned()).collect::<Vec<_>>();
    subsequence(known, least..5)
}

fn text() -> impl Strategy<Value = Option<String>> {
    option::of(select(&["for: all", "two\nlines", "# no comment", "plain", "x"][..]).prop_map(str::to_owned))
}

fn service() -> impl Strategy<Value = Service> {
    let one = select(&["all", "icmp", "tcp", "udp", "tcp/443", "udp/53,5353", "tcp/1-9,20-65535"][..]);
    one.prop_map(|text| sluicegate_policy::service::parse(text).unwrap())
}

fn end() -> impl Strategy<Value = End> {
    let plain = || select(&["web", "db 1", "laptop"][..]).prop_map(str::to_owned);
    prop_oneof![3 => names(1).prop_map(End::Groups), 1 => plain().prop_map(End::Peer)]
}

fn rule(name: String) -> impl Strategy<Value = Rule> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (text(), flags, service(), end(), end(), option::of(names(0))).prop_map(
        move |(description, (enabled, drop, bidirectional), service, from, to, ssh)| {
            let ports = matches!(&service, Service::Tcp(ports) if !ports.is_empty());
            let ssh = ssh.filter(|_| ports);
            Rule {
                name: name.clone(),
                description,
                enabled,
                action: if drop { Action::Drop } else { Action::Accept },
                bidirectional: bidirectional && !service.always_bidirectional(),
                ssh: ssh.map(|names| {
                    names.into_iter().map(|name| (name, vec!["root".to_owned()])).collect::<BTreeMap<_, _>>()
                }),
                service,
                from,
                to,
            }
        },
    )
}

fn policy(index: usize) -> impl Strategy<Value = Policy> {
    let rules = proptest::collection::vec(name().prop_flat_map(rule), 1..4);
    (text(), any::<bool>(), option::of(1u32..600_000), option::of(names(0)), rules).prop_map(
        move |(description, enabled, break_glass, posture_checks, rules)| Policy {
            name: NAMES[index].to_owned(),
            description,
            enabled: enabled && break_glass.is_none(),
            break_glass,
            posture_checks,
            rules,
        },
    )
}

fn network(index: usize) -> impl Strategy<Value = Network> {
    let address = select(&["10.0.0.1", "10.0.0.0/8", "fd00::/64", "*.example.com", "::1"][..]);
    let resource = (text(), address, option::of(names(0)), any::<bool>());
    let via = prop_oneof![name().prop_map(Via::Peer), names(1).prop_map(Via::Groups)];
    let router = (via, 1u16..=9999, any::<bool>(), any::<bool>());
    (text(), proptest::collection::vec(resource, 0..3), proptest::collection::vec(router, 0..3)).prop_map(
        move |(description, resources, routers)| Network {
            name: NAMES[index].to_owned(),
            description,
            resources: (resources.into_iter().enumerate())
                .map(|(number, (description, address, groups, enabled))| Resource {
                    name: format!("{}{index}{number}", NAMES[(index + number) % NAMES.len()]),
                    description,
                    address: address.to_owned(),
                    groups,
                    enabled,
                })
                .collect(),
            routers: (routers.into_iter())
                .map(|(via, metric, masquerade, enabled)| Router { via, metric, masquerade, enabled })
                .collect(),
        },
    )
}

fn posture_check(index: usize) -> BoxedStrategy<PostureCheck> {
    let version =
        || select(&["1", "6.1", "1.10", "v14.2.1", "0.2.0-beta.1", "1.2+3"][..]).prop_map(str::to_owned);
    let side = || select(&[Side::Allow, Side::Deny][..]);
    let least = || option::of(version().prop_map(|min_version| MinVersion { min_version }));
    let kernel =
        || option::of(version().prop_map(|min_kernel_version| MinKernelVersion { min_kernel_version }));
    let systems =
        (least(), least(), least(), kernel(), kernel()).prop_map(|(android, darwin, ios, linux, windows)| {
            OsVersion { android, darwin, ios, linux, windows }
        });
    // Norway is no truth value.
    let city = option::of(
        select(&["Berlin", "Saint-Denis", "a/b", " lead", "it's: #1"][..]).prop_map(str::to_owned),
    );
    let place = (select(&["DE", "NO", "ON"][..]), city)
        .prop_map(|(country, city_name)| Location { country_code: country.to_owned(), city_name });
    let places = (proptest::collection::vec(place, 1..4), side())
        .prop_map(|(locations, action)| GeoLocation { locations, action });
    let range = select(&["10.0.0.0/8", "10.0.0.5/24", "192.0.2.1/32", "fd00::/8", "::/0"][..]);
    let ranges = (proptest::collection::vec(range, 1..4), side()).prop_map(|(ranges, action)| NetworkRange {
        ranges: ranges.into_iter().map(|range| range.parse().unwrap()).collect(),
        action,
    });
    let path = select(&["/usr/bin/a b", "/opt/x: y", "/bin/#1"][..]).prop_map(str::to_owned);
    let windows = select(&[r"C:\Program Files\x.exe", r#""q""#][..]).prop_map(str::to_owned);
    let process =
        (path.clone(), option::of(path), option::of(windows)).prop_map(|(linux, mac_path, windows_path)| {
            Process { linux_path: Some(linux), mac_path, windows_path }
        });
    let processes = proptest::collection::vec(process, 1..3).prop_map(|processes| ProcessCheck { processes });
    let systems = systems.prop_filter("empty", |systems| *systems != OsVersion::default());
    (text(), least(), option::of(systems), option::of(places), option::of(ranges), option::of(processes))
        .prop_map(move |(description, client_version, os_version, location, network_range, processes)| {
            let checks = Checks { client_version, os_version, location, network_range, processes };
            PostureCheck { name: NAMES[index].to_owned(), description, checks }
        })
        .prop_filter("empty", |check| check.checks != Checks::default())
        .boxed()
}

fn test() -> impl Strategy<Value = Vec<Test>> {
    let target = prop_oneof![
        select(&["web", "db 1"][..]).prop_map(|name| Target::Group(name.to_owned())),
        select(&["web", "db 1"][..]).prop_map(|name| Target::Resource(name.to_owned())),
        select(&["10.0.0.1", "fd00::1"][..]).prop_map(|address| Target::Address(address.parse().unwrap())),
    ];
    let claim = (target, service()).prop_map(|(to, service)| Claim { to, service });
    let claims = proptest::collection::vec(claim.boxed(), 1..3);
    option::of((name(), end(), claims.clone(), claims)).prop_map(|test| {
        let test =
            test.map(|(name, from, may_reach, may_not_reach)| Test { name, from, may_reach, may_not_reach });
        test.into_iter().collect()
    })
}

fn file() -> BoxedStrategy<PolicyFile> {
    let groups = proptest::collection::vec(option::of(names(0)), 0..4);
    let networks = (option::of(network(0).boxed()), option::of(network(8).boxed()));
    let policies = (option::of(policy(1).boxed()), option::of(policy(9).boxed()));
    let checks = (option::of(posture_check(2)), option::of(posture_check(7)));
    let checks = option::of(checks.prop_map(|(a, b)| a.into_iter().chain(b).collect::<Vec<_>>()));
    (groups, checks, networks, policies, test().boxed())
        .prop_map(|(groups, posture_checks, networks, policies, tests)| PolicyFile {
            posture_checks,
            groups: (groups.into_iter().enumerate())
                .map(|(index, peers)| Group { name: NAMES[index * 4].to_owned(), peers })
                .collect(),
            networks: [networks.0, networks.1].into_iter().flatten().collect(),
            policies: [policies.0, policies.1].into_iter().flatten().collect(),
            tests,
        })
        .boxed()
}

/// Whether the first leaves the second as it is.
fn said(wanted: &Option<String>, has: &Option<String>) -> bool {
    wanted.is_none() || wanted.as_deref().unwrap_or_default() == has.as_deref().unwrap_or_default()
}

/// Checks as sets: their order and host bits do not count.
fn form(check: &PostureCheck) -> (String, BTreeSet<String>) {
    let Checks { client_version, os_version, location, network_range, processes } = &check.checks;
    let sides =
        (location.as_ref().map(|check| check.action), network_range.as_ref().map(|check| check.action));
    let mut set = BTreeSet::new();
    set.extend(location.iter().flat_map(|check| &check.locations).map(|place| format!("{place:?}")));
    set.extend(network_range.iter().flat_map(|check| &check.ranges).map(|range| range.trunc().to_string()));
    set.extend(processes.iter().flat_map(|check| &check.processes).map(|process| format!("{process:?}")));
    (format!("{client_version:?} {os_version:?} {sides:?} {}", processes.is_some()), set)
}

proptest! {
    #[test]
    fn a_written_file_reads_the_same_and_is_canonical(file in file()) {
        let text = write(&file);
        let read = parse(&text);
        prop_assert_eq!(read.as_ref(), Ok(&file), "{}", text);
        let formatted = format(&text);
        prop_assert_eq!(formatted, Ok(text));
    }

    #[test]
    fn differences_are_none_for_the_same_and_never_keep_what_differs(a in file(), b in file()) {
        let writes = |changes: Vec<Change>| changes.into_iter().filter(Change::writes).count();
        prop_assert_eq!(writes(differences(&a, &a, Prune::Everything)), 0);
        let changes = differences(&a, &b, Prune::Everything);
        let named = |doing: &Doing| changes.iter().filter(|c| c.item == Item::Policy && c.doing == *doing).count();
        let (had, wants): (BTreeSet<_>, BTreeSet<_>) =
            (a.policies.iter().map(|p| &p.name).collect(), b.policies.iter().map(|p| &p.name).collect());
        prop_assert_eq!(named(&Doing::Create), wants.difference(&had).count());
        prop_assert_eq!(named(&Doing::Delete), had.difference(&wants).count());
        // Where either says nothing of posture checks, nothing happens to them; else what is not the same is named.
        let checks = |file: &PolicyFile| file.posture_checks.clone();
        let told: Vec<&Change> =
            changes.iter().filter(|change| change.item == Item::PostureCheck && change.writes()).collect();
        match (checks(&a), checks(&b)) {
            (Some(has), Some(wanted)) => {
                let same = |one: &PostureCheck| wanted.iter().any(|other| {
                    other.name == one.name && said(&other.description, &one.description) && form(other) == form(one)
                });
                let only = |one: &&PostureCheck| !has.iter().any(|other| other.name == one.name);
                let differ = has.iter().filter(|one| !same(one)).count() + wanted.iter().filter(only).count();
                prop_assert_eq!(told.len(), differ, "{:?}", told);
            }
            _ => prop_assert!(told.is_empty()),
        }
        prop_assert!(differences(&a, &b, Prune::Nothing).iter().all(|change| change.doing != Doing::Delete));
    }
}

#[test]
fn tests_that_come_change_and_go_are_differences() {
    let file = |tests: &str| parse(&format!("tests: [{tests}]")).unwrap();
    let kept = "{name: kept, from: a, may_reach: ['b tcp']}";
    let has = file(&format!(
        "{kept}, {{name: gone, from: a, may_reach: ['b tcp']}}, {{name: t, from: a, may_reach: ['b tcp/1']}}"
    ));
    let wanted = file(&format!(
        "{kept}, {{name: t, from: c, may_reach: ['b tcp/2']}}, {{name: new, from: a, may_reach: ['b tcp']}}"
    ));
    let told: Vec<(Item, String, Doing)> =
        differences(&has, &wanted, Prune::Policies).into_iter().map(|c| (c.item, c.name, c.doing)).collect();
    let words = ["from: a -> c", "may reach: +'b tcp/2' -'b tcp/1'"].map(str::to_owned).to_vec();
    assert_eq!(
        told,
        [
            (Item::Test, "t".to_owned(), Doing::Update(words)),
            (Item::Test, "new".to_owned(), Doing::Create),
            (Item::Test, "gone".to_owned(), Doing::Delete),
        ]
    );
}

#[test]
fn comments_stay_with_what_they_are_about() {
    let text = "\
# Who may reach what.
policies:   # all of it
    # the web
    -   name:   web
        rules:
            # everybody
            -   {from: [a,
                        b,   # and b
                        c], to: web, service: 'tcp/443', action: accept, enabled: true}   # open
groups:
- name: a
  peers: [x, z] # two
# the end
";
    let formatted = format(text).unwrap();
    assert_eq!(
        formatted,
        "\
groups:
  - name: a
    peers: [x, z]  # two

# Who may reach what.
policies:  # all of it
  # the web
  - name: web
    rules:
      # everybody
      - from:
          - a
          - b  # and b
          - c
        to: web
        service: tcp/443  # open
# the end
",
        "{formatted}"
    );
    assert_eq!(format(&formatted).as_ref(), Ok(&formatted));
}

#[test]
fn the_three_tier_example_keeps_its_comment_and_meaning() {
    let formatted = format(THREE_TIER).unwrap();
    assert!(formatted.starts_with("# Three tiers behind a pair of gateways"), "{formatted}");
    assert_eq!(parse(&formatted).unwrap(), parse(THREE_TIER).unwrap());
    assert_eq!(format(&formatted).unwrap(), formatted);
}

/// `UPDATE_GOLDEN=1` writes the file that docs/ publishes.
#[test]
fn the_published_schema_is_that_of_the_reader() {
    let published = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy-file.schema.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&published, schema()).unwrap();
    }
    let text = std::fs::read_to_string(published).unwrap_or_default();
    assert_eq!(text, schema(), "run with UPDATE_GOLDEN=1 when the change is meant");
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    for section in ["groups", "posture_checks", "networks", "policies", "tests"] {
        assert!(schema["properties"][section]["description"].is_string(), "{section}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn an_unknown_field_names_the_one_that_was_meant() {
    let message = |text: &str| parse(text).unwrap_err().to_string();
    let said = message("policies:\n  - name: p\n    rule: []\n");
    assert!(said.starts_with("line 3, column 5: unknown field `rule`: did you mean `rules`?"), "{said}");
    let said = message(
        "policies:\n  - name: p\n    rules:\n      - {from: a, to: b, service: all, action: Accept}\n",
    );
    assert!(said.starts_with("line 4") && said.contains("did you mean `accept`?"), "{said}");
}

#[test]
fn names_that_stand_for_nothing_are_named_with_their_place() {
    let text = "\
groups:
  - {name: dev, peers: [alice, bobb]}
networks:
  - name: n
    resources:
      - {name: web, address: 10.0.0.1, groups: [deb]}
    routers:
      - {peer: gw}
policies:
  - name: p
    rules:
      - {from: dev, to: resource:wep, service: tcp/1}
      - {from: [All, ops], to: peer:alice, service: tcp/1}
tests:
  - {name: t, from: dev, may_reach: ['nothing tcp/1', '10.0.0.1 tcp/1']}
";
    let known = Known { peers: ["alice".into(), "bob".into()].into(), ..Known::default() };
    let said = unknown_names(text, &parse(text).unwrap(), &known).unwrap_err().to_string();
    assert_eq!(
        said,
        "\
line 2, column 32: there is no peer `bobb` (did you mean `bob`?): it has to join first
line 6, column 49: there is no group `deb` (did you mean `dev`?): list it under `groups`
line 8, column 16: there is no peer `gw`: it has to join first
line 12, column 25: there is no resource `wep` (did you mean `web`?): list it under a network
line 13, column 22: there is no group `ops`: list it under `groups`
line 15, column 38: there is no group `nothing`: list it under `groups`"
    );
    let known = Known {
        peers: ["alice", "bobb", "gw"].map(str::to_owned).into(),
        groups: ["deb", "ops", "nothing"].map(str::to_owned).into(),
        resources: ["wep".to_owned()].into(),
        ..Known::default()
    };
    assert_eq!(unknown_names(text, &parse(text).unwrap(), &known), Ok(()));
}

#[test]
fn a_break_glass_policy_is_off_and_bounded() {
    let file = |glass: &str| {
        let rule = "    rules: [{from: a, to: b, service: all}]\n";
        parse(&format!("policies:\n  - name: p\n    break_glass: {glass}\n{rule}"))
    };
    let policy = file("{max: 4h}").unwrap().policies.remove(0);
    assert_eq!((policy.enabled, policy.break_glass), (false, Some(4 * 3600)));
    for wrong in ["{max: 8d}", "{max: 0s}", "{max: soon}"] {
        let said = file(wrong).unwrap_err().to_string();
        assert!(said.starts_with("line 3, column 24: ") && said.contains("between 1s and 7d"), "{said}");
    }
    let both = file("{max: 4h}\n    enabled: true").unwrap_err().to_string();
    assert!(both.contains("line 4, column 14") && both.contains("break-glass on"), "{both}");
}

#[test]
fn a_file_alone_has_the_peers_it_names_and_says_what_it_does_not() {
    let file = parse(THREE_TIER).unwrap();
    let alone = file.alone().unwrap();
    let peers: Vec<&str> = alone.state.peers.keys().map(String::as_str).collect();
    assert_eq!(peers, ["alice", "bob", "gateway-1", "gateway-2", "probe"]);
    assert_eq!(alone.state.groups["All"].peers.len(), 5);
    assert!(alone.remarks.is_empty(), "{:?}", alone.remarks);
    let text = "policies: [{name: p, rules: [{from: dev, to: 'resource:web', service: all}]}]\ngroups: [{name: x}]\n";
    let alone = parse(text).unwrap().alone().unwrap();
    assert_eq!(
        alone.remarks,
        [
            "group `dev` is not in the file",
            "resource `web` is not in the file",
            "the file does not say who is in group `x`"
        ]
    );
}
