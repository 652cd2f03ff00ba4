//! Who may do what: groups, and rules between them.

use std::ops::RangeInclusive;

use sluicegate_policy::model::{Action, End, Group, Policy, Rule, Service, State};

use super::places::{peer, weighted};
use super::shape::Shape;
use super::{GATEWAY, Size};
use crate::random::Random;

/// Ports that rules name again and again.
const WELL_KNOWN: [u16; 16] =
    [443, 80, 22, 53, 25, 3389, 445, 389, 636, 993, 5432, 3306, 1433, 8080, 8443, 6443];
/// Roles that cut across the subtrees of the peers.
const ROLES: usize = 8;
/// Depth of the smallest subtree of the peers that is a group.
const DEPTH: usize = 7;

/// Fills the state with policies of that many rules in all.
pub(super) fn policies(r: &mut Random, shape: &Shape, size: Size, resources: &[String], state: &mut State) {
    roles(r, size.peers, state);
    let mut slot = 0;
    let mut broad = shape.broad;
    while (slot as usize) < size.rules {
        let count = (1 + r.below(shape.chain)).min(size.rules - slot as usize);
        let rules = (0..count)
            .map(|_| {
                slot += 1;
                rule(r, shape, size, resources, state, (slot - 1, &mut broad))
            })
            .collect();
        let failing = if r.chance(2) { vec![peer(r.below(size.peers))] } else { Vec::new() };
        let policy = Policy {
            name: format!("policy {slot}"),
            enabled: true,
            posture_failed: failing.into_iter().collect(),
            rules,
        };
        state.policies.insert(format!("policy{slot:06}"), policy);
    }
}

fn roles(r: &mut Random, peers: usize, state: &mut State) {
    for role in 0..ROLES {
        let name = format!("role{role}");
        state.groups.insert(name.clone(), Group { name, ..Group::default() });
    }
    for i in 0..peers {
        // The first roles are the common ones.
        let role = r.below(ROLES).min(r.below(ROLES));
        let group = state.groups.get_mut(&format!("role{role}")).expect("made above");
        group.peers.insert(peer(i));
    }
}

fn rule(
    r: &mut Random,
    shape: &Shape,
    size: Size,
    resources: &[String],
    state: &mut State,
    (slot, broad): (u32, &mut usize),
) -> Rule {
    let action = if r.chance(shape.drops) { Action::Drop } else { Action::Accept };
    let sources = source(r, shape, size.peers, state);
    let (destinations, width) = destination(r, shape, resources, state, broad);
    let mut service = service(r, shape);
    // What has many destinations has a port: an open door, or a drop, beside which no other rule means anything is not written.
    if width > 1 && without_ports(&service) && service != Service::Icmp {
        service = Service::Tcp(vec![well_known(r)]);
    }
    Rule {
        id: format!("rule{slot:06}"),
        name: format!("rule {slot}"),
        slot,
        enabled: r.chance(99),
        action,
        bidirectional: r.chance(shape.both_ways),
        service,
        sources,
        destinations,
    }
}

fn without_ports(service: &Service) -> bool {
    match service {
        Service::All | Service::Icmp => true,
        Service::Tcp(ports) | Service::Udp(ports) => ports.is_empty(),
    }
}

/// The first ones more often.
fn well_known(r: &mut Random) -> RangeInclusive<u16> {
    let port = WELL_KNOWN[r.below(WELL_KNOWN.len()).min(r.below(WELL_KNOWN.len()))];
    port..=port
}

fn source(r: &mut Random, shape: &Shape, peers: usize, state: &mut State) -> End {
    let depth = match weighted(r, &shape.sources) {
        0 => 0,
        1 => 1 + r.below(DEPTH),
        2 => {
            // Two roles now and then.
            let role = |r: &mut Random| format!("role{}", r.below(ROLES));
            let first = role(r);
            let second = if r.chance(25) { role(r) } else { first.clone() };
            return End::Groups([first, second].into());
        }
        _ => return End::Peer(peer(r.below(peers))),
    };
    // Down the tree, by the heavy branch more often.
    let (mut first, mut count) = (0, peers);
    for level in 0..depth {
        let half = count.div_ceil(2);
        if r.chance(shape.skew) == (level % 2 == 0) || count == 1 {
            count = half;
        } else {
            (first, count) = (first + half, count - half);
        }
    }
    let id = format!("peers{first:05}-{count:05}");
    state.groups.entry(id.clone()).or_insert_with(|| Group {
        name: id.clone(),
        peers: (first..first + count).map(peer).collect(),
        resources: Default::default(),
    });
    End::Groups([id].into())
}

/// An end, and how many resources it is.
fn destination(
    r: &mut Random,
    shape: &Shape,
    resources: &[String],
    state: &mut State,
    broad: &mut usize,
) -> (End, usize) {
    let count = resources.len();
    // A few resources are what most rules are about.
    let favourite =
        |r: &mut Random| r.below(count).min(if r.chance(shape.skew) { count } else { r.below(count) });
    let (first, width) = match weighted(r, &shape.destinations) {
        1 => {
            // Neighbours: 64 at the most, in powers of two.
            let width = (2 << r.below(6)).min(count);
            (favourite(r) / width * width, width)
        }
        2 if *broad > 0 => {
            *broad -= 1;
            (0, count)
        }
        3 => return (End::Peer(GATEWAY.into()), 1),
        _ => return (End::Resource(resources[favourite(r)].clone()), 1),
    };
    let id = format!("resources{first:05}-{width:05}");
    state.groups.entry(id.clone()).or_insert_with(|| Group {
        name: id.clone(),
        // A group may hold the gateway itself beside what it routes.
        peers: if first % 64 == 0 { [GATEWAY.to_owned()].into() } else { Default::default() },
        resources: resources[first..(first + width).min(count)].iter().cloned().collect(),
    });
    (End::Groups([id].into()), width)
}

fn service(r: &mut Random, shape: &Shape) -> Service {
    let protocol = weighted(r, &shape.protocols);
    if protocol < 2 {
        return if protocol == 0 { Service::All } else { Service::Icmp };
    }
    let ports = match weighted(r, &shape.ports) {
        0 => vec![],
        1 => vec![well_known(r)],
        2 => {
            let port = 1024 + r.below(20_000) as u16;
            vec![port..=port]
        }
        3 => vec![if r.chance(50) { 1024..=65535 } else { 49152..=65535 }],
        4 => vec![1..=1023],
        5 => {
            let bits = 4 + r.below(10);
            let (a, b) = (r.below(65_536) as u16, r.below(1 << bits) as u16);
            vec![a..=a.saturating_add(b)]
        }
        _ => (0..2 + r.below(5))
            .map(|_| {
                let port = r.pick(&WELL_KNOWN);
                port..=port.saturating_add(r.below(3) as u16)
            })
            .collect(),
    };
    if protocol == 2 { Service::Tcp(ports) } else { Service::Udp(ports) }
}
