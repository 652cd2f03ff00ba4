//! The accounts that are measured, of any size and the same every time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluicegate_policy::model::*;

/// The agent whose image is measured: it routes every network.
pub(crate) const GATEWAY: &str = "gateway";

/// As many rules, and a tenth as many resources and peers. *Teams* as people write them, or *random* groups.
pub(crate) fn of_size(rules: usize, random: bool) -> State {
    let (resources, peers) = ((rules / 10).clamp(100, 10_000), (rules / 10).clamp(100, 10_000));
    account(rules, resources, peers, random)
}

/// The account with other ports in one rule: one of a team's from the `nth` policy on, since rules for everybody are few, and
/// rarely changed.
pub(crate) fn with_a_changed_rule(state: &State, nth: usize) -> State {
    let mut state = state.clone();
    let team = |policy: &&mut Policy| match &policy.rules[0].sources {
        End::Groups(ids) => ids.iter().all(|id| id.starts_with("team") || id.starts_with("group")),
        _ => false,
    };
    let policy = state.policies.values_mut().skip(nth).find(team).expect("a policy");
    policy.rules[0].service = Service::Tcp(vec![4444..=4445]);
    state
}

/// Pseudo-random and the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

fn account(rules: usize, resources: usize, peers: usize, random: bool) -> State {
    let mut dice = Dice(7);
    let mut state = State {
        overlay_v4: "100.64.0.0/16".parse().expect("a range"),
        overlay_v6: "fd5c:1::/64".parse().expect("a range"),
        peers: Default::default(),
        groups: Default::default(),
        networks: Default::default(),
        policies: Default::default(),
    };
    let machine = |state: &mut State, id: String, host: u32| {
        let v4 = Ipv4Addr::from_bits(0x6440_0000 | host);
        let v6 = Ipv6Addr::from_bits(0xfd5c_0001u128 << 96 | u128::from(host));
        state.peers.insert(id.clone(), Peer { name: id, v4, v6, allowed: true });
    };
    machine(&mut state, GATEWAY.into(), 1);
    let teams = (peers / 20).clamp(1, 500);
    let services = (resources / 10).clamp(1, 1_000);
    let chance_groups = (rules / 100).clamp(10, 1_000);
    for i in 0..peers {
        let id = format!("peer{i:05}");
        machine(&mut state, id.clone(), 16 + i as u32);
        let groups = if random {
            (0..5).map(|_| format!("group{:04}", dice.roll(chance_groups))).collect()
        } else {
            let team = i * teams / peers;
            let (department, location) =
                (format!("department{:02}", team / 10), format!("location{:02}", team % 20));
            vec!["All".to_owned(), department, format!("team{team:03}"), location]
        };
        for group in groups {
            member(&mut state, group).peers.insert(id.clone());
        }
    }
    sites(&mut state, resources);
    let names: Vec<String> = state.networks.values().flat_map(|n| n.resources.keys().cloned()).collect();
    for (i, id) in names.iter().enumerate() {
        let groups = if random {
            (0..2).map(|_| format!("group{:04}", dice.roll(chance_groups))).collect()
        } else {
            vec![format!("service{:04}", i * services / resources)]
        };
        for group in groups {
            member(&mut state, group).resources.insert(id.clone());
        }
    }
    for i in 0..rules {
        let (source, destination) = if random {
            let group =
                |dice: &mut Dice| End::Groups([format!("group{:04}", dice.roll(chance_groups))].into());
            (group(&mut dice), group(&mut dice))
        } else {
            let team = dice.roll(teams);
            let source = match dice.roll(100) {
                0..80 => format!("team{team:03}"),
                80..94 => format!("department{:02}", team / 10),
                94..99 => format!("location{:02}", team % 20),
                _ => "All".to_owned(),
            };
            let destination = match dice.roll(100) {
                0..85 => End::Groups([format!("service{:04}", dice.roll(services))].into()),
                _ => End::Resource(names[dice.roll(resources)].clone()),
            };
            (End::Groups([source].into()), destination)
        };
        let rule = rule(i as u32, &mut dice, source, destination);
        let policy = Policy {
            name: rule.name.clone(),
            enabled: true,
            posture_failed: Default::default(),
            rules: vec![rule].into(),
        };
        state.policies.insert(format!("policy{i:06}"), policy);
    }
    state
}

fn member(state: &mut State, group: String) -> &mut Group {
    state.groups.entry(group.clone()).or_insert_with(|| Group { name: group, ..Group::default() })
}

/// Networks of up to 500 resources that nest.
fn sites(state: &mut State, resources: usize) {
    for i in 0..resources {
        let (site, at) = (i / 500, i % 500);
        let network = state.networks.entry(format!("net{site:02}")).or_insert_with(|| {
            let peers = BTreeSet::from([GATEWAY.to_owned()]);
            let router = Router { peers, metric: 100, masquerade: true, enabled: true };
            let routers = BTreeMap::from([(format!("router{site:02}"), router)]);
            Network { name: format!("site {site}"), resources: BTreeMap::new(), routers }
        });
        // The site, 15 floors of it, 84 segments in the floors, and hosts in the segments.
        let (host, lengths) = match at {
            0 => (0, (16, 48)),
            1..16 => (at << 12, (20, 52)),
            16..100 => ((at * 3) << 8, (24, 56)),
            _ => (((16 + at % 84) * 3) << 8 | (at / 84 + 7), (32, 128)),
        };
        let v4 = Ipv4Addr::from_bits(0x0a00_0000 | (site as u32) << 16 | host as u32);
        let v6 = Ipv6Addr::from_bits(
            0xfd20u128 << 112 | (site as u128) << 80 | (host as u128 >> 8) << 72 | (host as u128 & 255),
        );
        let prefixes = vec![
            IpNet::V4(Ipv4Net::new(v4, lengths.0).expect("a length").trunc()),
            IpNet::V6(Ipv6Net::new(v6, lengths.1).expect("a length").trunc()),
        ];
        let id = format!("resource{i:05}");
        network.resources.insert(
            id.clone(),
            Resource { name: id, prefixes, enabled: true, domain: None, distribution: None },
        );
    }
}

fn rule(slot: u32, dice: &mut Dice, sources: End, destinations: End) -> Rule {
    let port = 1 + dice.roll(9000) as u16;
    let service = match dice.roll(20) {
        0 => Service::All,
        1 => Service::Icmp,
        2..4 => Service::Udp(vec![port..=port]),
        4..6 => Service::Tcp(vec![port..=port + 100]),
        _ => Service::Tcp(vec![port..=port, 443..=443]),
    };
    let action = if dice.roll(50) == 0 { Action::Drop } else { Action::Accept };
    let (id, name) = (format!("rule{slot:06}"), format!("rule {slot}"));
    Rule { id, name, slot, enabled: true, action, bidirectional: false, service, sources, destinations }
}
