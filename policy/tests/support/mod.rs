//! States and packets for tests: a fixed small world whose parts meet often, and look-ups in compiled images.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sluicegate_api::image::Image;
use sluicegate_engine::classify::{Line, classify4, classify6};
use sluicegate_engine::image::{Attributes, Decision, axis};
use sluicegate_policy::model::*;
use sluicegate_policy::{Compiler, Limits};

pub(crate) const PEERS: [&str; 6] = ["pa", "pb", "pc", "pd", "pe", "pf"];
pub(crate) const GROUPS: [&str; 4] = ["ga", "gb", "gc", "gd"];
pub(crate) const NETWORKS: [&str; 3] = ["na", "nb", "nc"];
pub(crate) const RESOURCES: [&str; 3] = ["r1", "r2", "r3"];

/// Nested and disjoint, up to the ends of both address spaces, around and inside the overlay ranges.
pub(crate) const PREFIXES: [&str; 20] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "10.1.2.4/31",
    "100.64.0.0/10",
    "100.64.0.8/29",
    "100.64.1.0/24",
    "255.255.255.255/32",
    "0.0.0.0/32",
    "::/0",
    "fd00::/8",
    "fd01:1::/32",
    "fd01:1::/64",
    "fd01:1::5/128",
    "fd5c:1::/48",
    "fd5c:1::4/126",
    "::/128",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
];

/// Addresses at the edges of [`PREFIXES`].
pub(crate) const ADDRESSES: [&str; 28] = [
    "0.0.0.0",
    "0.0.0.1",
    "8.8.8.8",
    "9.255.255.255",
    "10.0.0.0",
    "10.1.0.0",
    "10.1.1.255",
    "10.1.2.0",
    "10.1.2.3",
    "10.1.2.4",
    "10.1.2.5",
    "10.1.2.6",
    "10.1.3.0",
    "10.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.64.1.7",
    "100.64.0.200",
    "255.255.255.255",
    "::",
    "::1",
    "2001:db8::1",
    "fd01:1::5",
    "fd01:1::6",
    "fd01:1:0:1::",
    "fd5c:1::77",
    "fd5c:1:0:1::",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
];

pub(crate) fn v4(i: usize) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, 0, 4 + i as u8)
}

pub(crate) fn v6(i: usize) -> Ipv6Addr {
    // The order of IPv6 addresses is not that of IPv4 addresses.
    format!("fd5c:1::{:x}", 9 - i).parse().unwrap()
}

/// A state with the six peers and nothing else.
pub(crate) fn world() -> State {
    let peer = |(i, id): (usize, &&str)| {
        (id.to_string(), Peer { name: format!("peer {id}"), v4: v4(i), v6: v6(i), allowed: true })
    };
    State {
        overlay_v4: "100.64.0.0/24".parse().unwrap(),
        overlay_v6: "fd5c:1::/64".parse().unwrap(),
        peers: PEERS.iter().enumerate().map(peer).collect(),
        groups: Default::default(),
        networks: Default::default(),
        policies: Default::default(),
    }
}

pub(crate) fn names(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|s| s.to_string()).collect()
}

fn members(universe: &'static [&'static str], most: usize) -> impl Strategy<Value = BTreeSet<String>> {
    subsequence(universe, 0..=most.min(universe.len())).prop_map(|ids| names(&ids))
}

fn resource_id(network: usize, resource: usize) -> String {
    format!("{}-{}", NETWORKS[network], RESOURCES[resource])
}

fn all_resources() -> Vec<String> {
    (0..NETWORKS.len()).flat_map(|n| (0..RESOURCES.len()).map(move |r| resource_id(n, r))).collect()
}

fn group(id: &'static str) -> impl Strategy<Value = (String, Group)> {
    (members(&PEERS, 4), subsequence(all_resources(), 0..4)).prop_map(move |(peers, resources)| {
        (
            id.to_string(),
            Group {
                name: format!("group {id}"),
                peers: peers.into(),
                resources: resources.into_iter().collect(),
            },
        )
    })
}

/// Mostly to everybody; else to some groups, to one that is not there, or to nobody.
fn distribution() -> impl Strategy<Value = Option<Distribution>> {
    const BOUND: [&str; 5] = ["ga", "gb", "gc", "gd", "unknown"];
    let bound = (members(&BOUND, 2), any::<bool>());
    prop_oneof![2 => Just(None), 1 => bound.prop_map(|(groups, by_choice)| Some(Distribution { groups, by_choice }))]
}

fn network(index: usize) -> impl Strategy<Value = (String, Network)> {
    let domain = proptest::option::of(select(&["db.example.org", "*.example.org"][..]));
    let resource = (subsequence(&PREFIXES[..], 0..4), domain, proptest::bool::weighted(0.85), distribution())
        .prop_map(|(prefixes, domain, enabled, distribution)| Resource {
            name: "a resource".into(),
            prefixes: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
            domain: domain.map(str::to_owned),
            enabled,
            distribution,
        });
    let router = (members(&PEERS, 2), 1u16..4, any::<bool>(), proptest::bool::weighted(0.85))
        .prop_map(|(peers, metric, masquerade, enabled)| Router { peers, metric, masquerade, enabled });
    let resources = proptest::collection::vec(resource, 1..=RESOURCES.len());
    let routers = proptest::collection::vec(router, 0..3);
    (resources, routers).prop_map(move |(resources, routers)| {
        let resources = resources.into_iter().enumerate().map(|(i, r)| (resource_id(index, i), r)).collect();
        let routers = routers
            .into_iter()
            .enumerate()
            .map(|(i, r)| (format!("{}-router{i}", NETWORKS[index]), r))
            .collect();
        (NETWORKS[index].to_string(), Network { name: format!("network {index}"), resources, routers })
    })
}

fn end() -> impl Strategy<Value = End> {
    const GROUPS_AND_UNKNOWN: [&str; 5] = ["ga", "gb", "gc", "gd", "unknown"];
    prop_oneof![
        6 => members(&GROUPS_AND_UNKNOWN, 3).prop_map(End::Groups),
        2 => select(&["pa", "pb", "pc", "pd", "pe", "pf", "unknown"][..]).prop_map(|p| End::Peer(p.into())),
        2 => select([all_resources(), vec!["unknown".to_string()]].concat()).prop_map(End::Resource),
    ]
}

fn ports() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    let range = select(
        &[(80, 80), (443, 443), (0, 65535), (80, 90), (85, 100), (65535, 65535), (9, 3), (1000, 2000)][..],
    )
    .prop_map(|(a, b)| a..=b);
    proptest::collection::vec(range, 0..3)
}

fn service() -> impl Strategy<Value = Service> {
    prop_oneof![
        2 => Just(Service::All),
        1 => Just(Service::Icmp),
        4 => ports().prop_map(Service::Tcp),
        2 => ports().prop_map(Service::Udp),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    (end(), end(), service(), proptest::bool::weighted(0.25), any::<bool>(), proptest::bool::weighted(0.9))
        .prop_map(|(sources, destinations, service, drop, bidirectional, enabled)| Rule {
            id: String::new(),
            name: "a rule".into(),
            slot: 0,
            enabled,
            action: if drop { Action::Drop } else { Action::Accept },
            bidirectional,
            service,
            sources,
            destinations,
        })
}

fn policy() -> impl Strategy<Value = Policy> {
    let failed = prop_oneof![3 => Just(BTreeSet::new()), 1 => members(&PEERS, 3)];
    let failed = failed.prop_map(|peers| peers.into_iter().collect());
    (failed, proptest::bool::weighted(0.9), proptest::collection::vec(rule(), 1..4)).prop_map(
        |(posture_failed, enabled, rules)| Policy {
            name: "a policy".into(),
            enabled,
            posture_failed,
            rules: rules.into(),
        },
    )
}

/// Any state over the small world.
pub(crate) fn states() -> impl Strategy<Value = State> {
    let groups = (group("ga"), group("gb"), group("gc"), group("gd"));
    let networks = (network(0), network(1), network(2));
    let allowed = proptest::collection::vec(proptest::bool::weighted(0.9), PEERS.len());
    (groups, networks, proptest::collection::vec(policy(), 0..6), allowed).prop_map(
        |(g, n, policies, allowed)| {
            let mut state = world();
            state.peers.values_mut().zip(allowed).for_each(|(peer, allowed)| peer.allowed = allowed);
            state.groups = [g.0, g.1, g.2, g.3].into_iter().collect();
            state.networks = [n.0, n.1, n.2].into_iter().collect();
            for (i, mut policy) in policies.into_iter().enumerate() {
                for (j, rule) in policy.rules.iter_mut().enumerate() {
                    rule.id = format!("rule{i}-{j}");
                    // Slots follow no order.
                    rule.slot = (i * 7 + j * 29) as u32 % 101;
                }
                state.policies.insert(format!("policy{i}"), policy);
            }
            state
        },
    )
}

/// A state and one that a few changes made of it.
pub(crate) fn changed_states() -> impl Strategy<Value = (State, State)> {
    (states(), states(), proptest::collection::vec(0u8..10, 1..3)).prop_map(|(old, other, changes)| {
        let mut new = old.clone();
        for change in changes {
            match change {
                0 => new.peers = other.peers.clone(),
                1 => swap_one(&mut new.groups, &other.groups),
                2 => swap_one(&mut new.networks, &other.networks),
                3 => swap_one(&mut new.policies, &other.policies),
                4 => new.policies.values_mut().take(1).for_each(|p| p.enabled = !p.enabled),
                5 => new.peers.values_mut().take(1).for_each(|p| p.v4 = Ipv4Addr::new(100, 64, 0, 99)),
                6 => drop(new.groups.pop_first()),
                7 => flip(&mut new.policies, "pa"),
                8 => PEERS.iter().for_each(|peer| flip(&mut new.policies, peer)),
                _ => new.networks.values_mut().take(1).for_each(|n| {
                    n.routers.values_mut().for_each(|r| r.masquerade = !r.masquerade);
                }),
            }
        }
        (old, new)
    })
}

/// The peer passes what it failed, and the other way round.
fn flip(policies: &mut BTreeMap<String, Policy>, peer: &str) {
    for policy in policies.values_mut() {
        if !policy.posture_failed.remove(peer) {
            policy.posture_failed.insert(peer.to_owned());
        }
    }
}

fn swap_one<T: Clone>(into: &mut BTreeMap<String, T>, from: &BTreeMap<String, T>) {
    if let Some((id, value)) = from.last_key_value() {
        into.insert(id.clone(), value.clone());
    }
}

/// Source, destination and protocol/port of a packet.
pub(crate) type Packet = (IpAddr, IpAddr, u32);

pub(crate) fn packets(count: usize) -> impl Strategy<Value = Vec<Packet>> {
    let peer = || {
        (0..PEERS.len(), any::<bool>())
            .prop_map(|(i, six)| if six { IpAddr::V6(v6(i)) } else { v4(i).into() })
    };
    let address = || select(&ADDRESSES[..]).prop_map(|a| a.parse::<IpAddr>().unwrap());
    let source = prop_oneof![9 => peer(), 1 => address()];
    let destination = prop_oneof![1 => peer(), 1 => address()];
    let l4 = prop_oneof![
        4 => select(&[0u32, 79, 80, 85, 90, 91, 100, 101, 443, 1000, 2000, 2001, 65535][..])
            .prop_flat_map(|port| select(vec![axis::TCP | port, axis::UDP | port])),
        1 => select(&[axis::ICMP | 8 << 8, axis::ICMPV6 | 128 << 8, axis::OTHER | 47, axis::OTHER, axis::END - 1][..]),
    ];
    let same_family =
        (source, destination, l4).prop_filter("one family", |(s, d, _)| s.is_ipv4() == d.is_ipv4());
    proptest::collection::vec(same_family, count)
}

/// What a compiled image says about a packet, by the code the gateways run.
pub(crate) fn look_up(image: &Image, (source, destination, l4): Packet) -> (Decision, Attributes) {
    let (lines, rest) = image.words.as_chunks::<16>();
    assert!(rest.is_empty());
    let lines: &[Line] = lines;
    let halves = |a: Ipv6Addr| ((a.to_bits() >> 64) as u64, a.to_bits() as u64);
    let judgement = match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => classify4(lines, s.to_bits(), d.to_bits(), l4),
        (IpAddr::V6(s), IpAddr::V6(d)) => classify6(lines, halves(s), halves(d), l4),
        _ => panic!("a packet of two families"),
    };
    (judgement.decision, judgement.attributes)
}

/// Limits that let sources and destinations have lists: of every set a row and a column of its own, or of a few.
pub(crate) fn apart(look_up: u64) -> Limits {
    Limits { together: 0, look_up, ..Limits::default() }
}

/// The compiler as it is, and with lists of both lengths.
pub(crate) fn every_compiler(state: &State) -> [Compiler; 3] {
    [Limits::default(), apart(0), apart(100)].map(|limits| compiler(state).with_limits(limits))
}

pub(crate) fn compiler(state: &State) -> sluicegate_policy::Compiler {
    sluicegate_policy::Compiler::new(Arc::new(state.clone())).unwrap()
}

pub(crate) fn prefix(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn groups(ids: &[&str]) -> End {
    End::Groups(names(ids))
}

/// An accept rule, one way. Its slot is set when it enters a state.
pub(crate) fn accept(sources: End, destinations: End, service: &str) -> Rule {
    Rule {
        id: String::new(),
        name: "a rule".into(),
        slot: 0,
        enabled: true,
        action: Action::Accept,
        bidirectional: false,
        service: sluicegate_policy::service::parse(service).unwrap(),
        sources,
        destinations,
    }
}

pub(crate) fn drop_rule(sources: End, destinations: End, service: &str) -> Rule {
    Rule { action: Action::Drop, ..accept(sources, destinations, service) }
}

/// Adds an enabled policy.
pub(crate) fn add_policy(state: &mut State, id: &str, mut rules: Vec<Rule>) {
    let slots = state.policies.values().map(|p| p.rules.len()).sum::<usize>();
    for (i, rule) in rules.iter_mut().enumerate() {
        rule.slot = (slots + i) as u32;
        rule.id = format!("{id}-{i}");
    }
    let policy =
        Policy { name: id.into(), enabled: true, posture_failed: Default::default(), rules: rules.into() };
    state.policies.insert(id.into(), policy);
}

pub(crate) fn add_group(state: &mut State, id: &str, peers: &[&str], resources: &[&str]) {
    let group = Group { name: id.into(), peers: names(peers).into(), resources: names(resources).into() };
    state.groups.insert(id.into(), group);
}

/// Adds a network with one enabled resource for each (id, prefixes) and one enabled router for each (peer, metric).
pub(crate) fn add_network(
    state: &mut State,
    id: &str,
    resources: &[(&str, &[&str])],
    routers: &[(&str, u16)],
) {
    let resource = |(id, prefixes): &(&str, &[&str])| {
        let prefixes = prefixes.iter().map(|p| prefix(p)).collect();
        (
            id.to_string(),
            Resource { name: id.to_string(), prefixes, enabled: true, domain: None, distribution: None },
        )
    };
    let router = |(peer, metric): &(&str, u16)| {
        let router = Router { peers: names(&[peer]), metric: *metric, masquerade: true, enabled: true };
        (format!("{id}-{peer}"), router)
    };
    let network = Network {
        name: id.into(),
        resources: resources.iter().map(resource).collect(),
        routers: routers.iter().map(router).collect(),
    };
    state.networks.insert(id.into(), network);
}

/// Whether the agent's image accepts a packet.
pub(crate) fn accepts(state: &State, agent: &str, source: &str, destination: &str, l4: u32) -> bool {
    let packet = (source.parse().unwrap(), destination.parse().unwrap(), l4);
    look_up(&compiler(state).compile(agent).unwrap(), packet).0.accepts()
}

pub(crate) const fn tcp(port: u32) -> u32 {
    axis::TCP | port
}

pub(crate) const fn udp(port: u32) -> u32 {
    axis::UDP | port
}

pub(crate) const ECHO: u32 = axis::ICMP | 8 << 8;
pub(crate) const ECHO_V6: u32 = axis::ICMPV6 | 128 << 8;
