//! Random states over a small fixed world, whose parts meet often.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use sluicegate_policy::model::*;

use crate::case::{Exit, SLOTS};
use crate::random::Random;

pub const PEERS: [&str; 6] = ["pa", "pb", "pc", "pd", "pe", "pf"];
const GROUPS: [&str; 4] = ["ga", "gb", "gc", "gd"];
/// Ports in rules and packets; ranges end at some of them.
pub const PORTS: [u16; 10] = [0, 5, 22, 53, 80, 81, 443, 8080, 9100, 65535];
/// The gateway's addresses on its two site devices, 11 and 12.
pub const EGRESS: [[&str; 2]; 2] = [["10.1.2.1", "fd01:1::1"], ["192.168.7.1", "fd02::1"]];
/// Nested, disjoint, everything, and around the overlay.
const PREFIXES: [&str; 14] = [
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "192.168.7.0/24",
    "0.0.0.0/0",
    "100.64.0.0/16",
    "fd01:1::/32",
    "fd01:1::/64",
    "fd01:1::5/128",
    "fd02::/64",
    "::/0",
    "10.0.0.0/8",
    "fd00::/8",
    "fd5c:1::/48",
];
const TARGETS4: [&str; 8] =
    ["10.1.2.3", "10.1.2.4", "10.1.9.9", "10.7.0.1", "192.168.7.7", "8.8.8.8", "100.64.0.200", "100.64.7.7"];
const TARGETS6: [&str; 8] = [
    "fd01:1::5",
    "fd01:1::6",
    "fd01:1:9::9",
    "fd07::1",
    "fd02::7",
    "2001:db8::8",
    "fd5c:1::c8",
    "fd5c:1:7::7",
];
/// Addresses of the gateway's devices, with the lengths of their prefixes: one in another's network, one that is somebody's
/// target, links of two, and networks within networks.
const PLACES: [(&str, u8); 14] = [
    ("10.1.2.1", 24),
    ("10.1.2.200", 24),
    ("10.1.2.3", 32),
    ("10.1.9.9", 16),
    ("10.7.0.1", 8),
    ("192.168.7.1", 30),
    ("192.168.7.7", 31),
    ("fd01:1::1", 64),
    ("fd01:1::c8", 64),
    ("fd01:1::5", 128),
    ("fd01:1:9::9", 32),
    ("fd07::1", 8),
    ("fd02::1", 64),
    ("fd02::7", 127),
];
/// What some of those make of addresses, and what lies beside it.
const ENDS4: [&str; 10] = [
    "10.1.2.255",
    "10.1.2.0",
    "10.1.2.200",
    "10.1.2.254",
    "10.1.255.255",
    "10.1.0.0",
    "10.255.255.255",
    "192.168.7.3",
    "192.168.7.6",
    "192.168.7.255",
];
const ENDS6: [&str; 10] = [
    "fd01:1::",
    "fd01:1::c8",
    "fd01:1::1:0",
    "fd01:1::ffff:ffff:ffff:ffff",
    "fd01:1:9::",
    "fd00::",
    "fd01:1::4",
    "fd02::",
    "fd02::6",
    "fd02::1",
];
const STRANGERS4: [&str; 7] =
    ["224.0.0.251", "255.255.255.255", "127.0.0.1", "169.254.1.1", "0.0.0.0", "240.0.0.1", "239.1.2.3"];
const STRANGERS6: [&str; 7] = ["ff02::1", "fe80::1", "::1", "::", "ff0e::1", "::ffff:10.1.2.3", "::10.1.2.3"];

/// Both overlay ranges.
pub fn overlay() -> [(IpAddr, u8); 2] {
    [("100.64.0.0".parse().expect("an address"), 24), ("fd5c:1::".parse().expect("an address"), 64)]
}

/// The overlay address of a peer.
pub fn peer(id: &str, six: bool) -> IpAddr {
    let i = PEERS.iter().position(|p| *p == id).expect("a peer") as u16;
    if six {
        // The order of IPv6 addresses is not that of IPv4 addresses.
        IpAddr::V6(Ipv6Addr::new(0xfd5c, 1, 0, 0, 0, 0, 0, 9 - i))
    } else {
        IpAddr::V4(Ipv4Addr::new(100, 64, 0, 4 + i as u8))
    }
}

/// Somebody worth talking to.
pub fn destination(r: &mut Random, six: bool) -> IpAddr {
    if r.chance(35) {
        let id = if r.chance(50) { PEERS[0] } else { r.pick(&PEERS) };
        return peer(id, six);
    }
    let target = r.pick(if six { &TARGETS6 } else { &TARGETS4 });
    target.parse().expect("an address")
}

/// Some of the addresses that the gateway's devices may have, by what was picked for something else.
pub fn addresses(exits: &[Exit]) -> Vec<(IpAddr, u8)> {
    let some = PLACES.iter().zip(exits).filter(|(_, exit)| exit.mtu == 1500);
    some.map(|((address, length), _)| (address.parse().expect("an address"), *length)).collect()
}

/// An address at the ends of a network of the gateway's devices, or one that they have; by a port.
pub fn edge_of_network(port: u16, six: bool) -> IpAddr {
    let ends = if six { &ENDS6 } else { &ENDS4 };
    ends[PORTS.iter().position(|p| *p == port).unwrap_or(0)].parse().expect("an address")
}

/// A destination whose words, added to those of the source, carry twice when they are folded to sixteen bits: the edge of
/// checksum arithmetic, which random addresses meet once in ten thousand.
pub fn edge(source: IpAddr) -> IpAddr {
    let words = |address: IpAddr| -> u32 {
        crate::packets::octets(address).chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum()
    };
    let with = |last: u16| -> IpAddr {
        let [a, b] = last.to_be_bytes();
        match source {
            IpAddr::V4(_) => Ipv4Addr::new(10, 1, a, b).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfd01, 1, 0, 0, 0xffff, 0xffff, 0xffff, last).into(),
        }
    };
    with(0xffff - (words(source) + words(with(0))) as u16)
}

/// An address that must not cross the gateway.
pub fn stranger(r: &mut Random, six: bool) -> IpAddr {
    r.pick(if six { &STRANGERS6 } else { &STRANGERS4 }).parse().expect("an address")
}

/// A whole account.
pub fn state(r: &mut Random) -> State {
    let [(_, bits4), (_, bits6)] = overlay();
    let peers = PEERS.iter().map(|id| {
        let (IpAddr::V4(v4), IpAddr::V6(v6)) = (peer(id, false), peer(id, true)) else { unreachable!() };
        let allowed = *id == PEERS[0] || r.chance(92);
        (id.to_string(), Peer { name: id.to_string(), v4, v6, allowed })
    });
    let mut state = State {
        overlay_v4: format!("100.64.0.0/{bits4}").parse().expect("a prefix"),
        overlay_v6: format!("fd5c:1::/{bits6}").parse().expect("a prefix"),
        peers: peers.collect(),
        groups: Default::default(),
        networks: Default::default(),
        policies: Default::default(),
    };
    for i in 0..1 + r.below(2) {
        state.networks.insert(format!("n{i}"), network(r, i));
    }
    for id in GROUPS {
        let group = group(r, &state);
        state.groups.insert(id.into(), group);
    }
    let mut slot = 0;
    for i in 0..2 + r.below(4) {
        let rules = (0..1 + r.below(3)).map(|_| {
            slot += 1;
            rule(r, slot - 1, &state)
        });
        let mut rules: Vec<Rule> = rules.collect();
        if i == 0 && r.chance(70) {
            // One broad right, so that there is traffic for the others to carve up.
            rules[0].action = Action::Accept;
            rules[0].sources = End::Groups(["ga", "gb", "gc", "gd"].map(String::from).into());
            rules[0].destinations = rules[0].sources.clone();
            rules[0].service = if r.chance(60) { Service::All } else { Service::Tcp(Vec::new()) };
        }
        let failed = if r.chance(20) { r.some(&PEERS, 20) } else { Vec::new() };
        let policy = Policy {
            name: format!("policy {i}"),
            enabled: r.chance(92),
            posture_failed: failed.into_iter().map(String::from).collect(),
            rules: rules.into(),
        };
        state.policies.insert(format!("p{i}"), policy);
    }
    state
}

/// Changes a state a little: rights come and go; sometimes nothing does.
pub fn change(r: &mut Random, state: &mut Arc<State>) {
    if r.chance(15) {
        return; // The same once more, under a new revision.
    }
    if r.chance(6) {
        *state = Arc::new(self::state(r));
        return;
    }
    let mut new = State::clone(state);
    for _ in 0..1 + r.below(2) {
        let policies: Vec<String> = new.policies.keys().cloned().collect();
        let policy = new.policies.get_mut(&r.pick(&policies)).expect("it is there");
        let at = r.below(policy.rules.len());
        match r.below(9) {
            0 => policy.enabled = !policy.enabled,
            1 => policy.rules[at].enabled = !policy.rules[at].enabled,
            2 => policy.rules[at].action = other(policy.rules[at].action),
            3 => policy.rules[at].service = service(r),
            4 => {
                let peer = r.pick(&PEERS).to_string();
                if !policy.posture_failed.remove(&peer) {
                    policy.posture_failed.insert(peer);
                }
            }
            5 => {
                let peer = new.peers.get_mut(r.pick(&PEERS[1..])).expect("it is there");
                peer.allowed = !peer.allowed;
            }
            6 => {
                let id = r.pick(&GROUPS);
                let group = group(r, &new);
                new.groups.insert(id.into(), group);
            }
            7 => {
                let slot = policy.rules[at].slot;
                let rule = rule(r, slot, state);
                policy.rules[at] = rule;
            }
            _ => {
                // Routers and prefixes move, and with them route numbers and masquerade.
                let i = r.below(new.networks.len());
                new.networks.insert(format!("n{i}"), network(r, i));
            }
        }
    }
    *state = Arc::new(new);
}

fn other(action: Action) -> Action {
    if action == Action::Accept { Action::Drop } else { Action::Accept }
}

fn network(r: &mut Random, i: usize) -> Network {
    let resources = (0..1 + r.below(3)).map(|k| {
        let prefixes = (0..1 + r.below(2)).map(|_| r.pick(&PREFIXES).parse().expect("a prefix")).collect();
        (
            format!("n{i}-r{k}"),
            Resource {
                name: format!("resource {k}"),
                prefixes,
                enabled: r.chance(92),
                domain: None,
                distribution: None,
            },
        )
    });
    let resources = resources.collect();
    let mut routers = BTreeMap::new();
    for k in 0..1 + r.below(2) {
        let mut peers: BTreeSet<String> = r.some(&PEERS, 15).into_iter().map(String::from).collect();
        if r.chance(80) {
            peers.insert(PEERS[0].into());
        }
        let router = Router {
            peers,
            metric: r.pick(&[100, 200, 200]),
            masquerade: r.chance(55),
            enabled: r.chance(92),
        };
        routers.insert(format!("n{i}-g{k}"), router);
    }
    Network { name: format!("network {i}"), resources, routers }
}

fn resources(state: &State) -> Vec<String> {
    state.networks.values().flat_map(|n| n.resources.keys().cloned()).collect()
}

fn group(r: &mut Random, state: &State) -> Group {
    Group {
        name: "a group".into(),
        peers: r.some(&PEERS, 55).into_iter().map(String::from).collect(),
        resources: r.some(&resources(state), 50).into_iter().collect(),
    }
}

fn rule(r: &mut Random, slot: u32, state: &State) -> Rule {
    assert!((slot as usize) < SLOTS);
    Rule {
        id: format!("rule {slot}"),
        name: format!("rule {slot}"),
        slot,
        enabled: r.chance(95),
        action: if r.chance(78) { Action::Accept } else { Action::Drop },
        bidirectional: r.chance(40),
        service: service(r),
        sources: end(r, state, false),
        destinations: end(r, state, true),
    }
}

fn end(r: &mut Random, state: &State, destination: bool) -> End {
    let resources = resources(state);
    match r.below(10) {
        0 => End::Peer(r.pick(&PEERS).into()),
        1 if destination && !resources.is_empty() => End::Resource(r.pick(&resources)),
        2 => End::Groups(r.some(&["ga", "gb", "nobody"], 50).into_iter().map(String::from).collect()),
        _ => {
            let count = 1 + r.below(2);
            End::Groups((0..count).map(|_| r.pick(&GROUPS).to_string()).collect())
        }
    }
}

fn service(r: &mut Random) -> Service {
    let ports = |r: &mut Random| -> Vec<RangeInclusive<u16>> {
        (0..r.below(4))
            .map(|_| {
                let (a, b) = (r.pick(&PORTS), r.pick(&PORTS));
                if r.chance(50) { a..=a } else { a.min(b)..=a.max(b) }
            })
            .collect()
    };
    match r.below(10) {
        0..3 => Service::All,
        3 => Service::Icmp,
        4..8 => Service::Tcp(ports(r)),
        _ => Service::Udp(ports(r)),
    }
}
