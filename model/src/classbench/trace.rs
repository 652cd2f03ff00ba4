//! Traffic for a rule set: headers at the corners of rules, a few rules far more often than the rest, in bursts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use sluicegate_engine::image::axis;
use sluicegate_policy::model::{End, Rule, Service, State};

use super::GATEWAY;
use crate::random::Random;

/// What a classifier sees of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// A value of [`axis`].
    pub l4: u32,
}

/// An endless trace.
pub struct Trace<'a> {
    state: &'a State,
    /// In the order of how much traffic they get.
    rules: Vec<&'a Rule>,
    peers: Vec<&'a str>,
    random: Random,
    burst: (Option<Header>, usize),
}

/// The tail of bursts, and of how traffic is spread over rules: the lower, the longer.
const PARETO: f64 = 1.1;
/// Copies of a header at the most.
const BURST_MAX: usize = 500;

impl<'a> Trace<'a> {
    /// By seed. The same rules are the busy ones in every trace of one seed.
    pub fn new(state: &'a State, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7ace);
        let mut rules: Vec<&Rule> = state.policies.values().flat_map(|p| &p.rules).collect();
        for i in (1..rules.len()).rev() {
            rules.swap(i, random.below(i + 1));
        }
        let peers = state.peers.keys().map(String::as_str).collect();
        Self { state, rules, peers, random, burst: (None, 0) }
    }

    /// The next packet: one more of a burst, or the first of another.
    pub fn next(&mut self) -> Header {
        if let (Some(header), left) = &mut self.burst
            && *left > 0
        {
            *left -= 1;
            return *header;
        }
        let length = (self.pareto() as usize).clamp(1, BURST_MAX);
        let header = self.fresh();
        self.burst = (Some(header), length - 1);
        header
    }

    /// A header without a burst.
    pub fn fresh(&mut self) -> Header {
        let rank = (self.pareto() - 1.0) * self.rules.len() as f64 / 50.0;
        let rule = self.rules[rank as usize % self.rules.len()];
        let six = self.random.chance(40);
        let source = self.source(rule, six);
        let destination = self.destination(rule, six);
        // The family is the destination's, if it has but one.
        let source = if source.is_ipv6() == destination.is_ipv6() { source } else { self.source(rule, !six) };
        Header { source, destination, l4: self.l4(&rule.service, destination.is_ipv6()) }
    }

    /// At least 1.
    fn pareto(&mut self) -> f64 {
        let uniform = (self.random.next() >> 11) as f64 / (1u64 << 53) as f64;
        (1.0 - uniform).powf(-1.0 / PARETO)
    }

    fn peer(&self, id: &str, six: bool) -> IpAddr {
        match self.state.peers.get(id) {
            Some(peer) if six => peer.v6.into(),
            Some(peer) => peer.v4.into(),
            None => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    fn source(&mut self, rule: &Rule, six: bool) -> IpAddr {
        let r = &mut self.random;
        let id = match &rule.sources {
            _ if r.chance(6) => r.pick(&self.peers),
            End::Peer(id) => id,
            End::Groups(ids) => {
                let groups: Vec<_> = ids.iter().filter_map(|id| self.state.groups.get(id)).collect();
                let members = &groups[r.below(groups.len())].peers;
                match r.below(4) {
                    _ if members.is_empty() => GATEWAY,
                    0 => members.first().expect("not empty"),
                    1 => members.last().expect("not empty"),
                    // Far into a large set takes long: near its start will do.
                    _ => members.iter().nth(r.below(members.len().min(500))).expect("not empty"),
                }
            }
            End::Resource(_) => GATEWAY,
        };
        let address = self.peer(id, six);
        if !self.random.chance(2) {
            return address;
        }
        // Nobody, more often than not.
        match address {
            IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits().wrapping_sub(7)).into(),
            IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() ^ 1 << 40).into(),
        }
    }

    fn destination(&mut self, rule: &Rule, six: bool) -> IpAddr {
        let r = &mut self.random;
        let id = match &rule.destinations {
            End::Peer(id) => return self.peer(id, six),
            End::Resource(id) => id,
            End::Groups(ids) => {
                let group = ids.first().and_then(|id| self.state.groups.get(id));
                let resources = group.map(|g| &g.resources).filter(|all| !all.is_empty());
                let Some(resources) = resources.filter(|_| !r.chance(5)) else {
                    return self.peer(GATEWAY, six);
                };
                resources.iter().nth(r.below(resources.len().min(500))).expect("not empty")
            }
        };
        let resource = self.state.networks.values().find_map(|network| network.resources.get(id));
        let prefixes = resource.map(|r| r.prefixes.as_slice()).unwrap_or_default();
        let fitting = prefixes.iter().find(|p| matches!(p, IpNet::V6(_)) == six).or(prefixes.first());
        let Some(prefix) = fitting else { return self.peer(GATEWAY, six) };
        corner(r, prefix)
    }

    fn l4(&mut self, service: &Service, six: bool) -> u32 {
        let r = &mut self.random;
        let icmp = if six { axis::ICMPV6 | 128 << 8 } else { axis::ICMP | 8 << 8 };
        let (class, ports) = match service {
            _ if r.chance(4) => return r.below(axis::END as usize) as u32,
            Service::Icmp => return icmp,
            Service::All if r.chance(30) => return icmp,
            Service::All => (axis::TCP, [].as_slice()),
            Service::Tcp(ports) => (axis::TCP, ports.as_slice()),
            Service::Udp(ports) => (axis::UDP, ports.as_slice()),
        };
        class | u32::from(port(r, ports))
    }
}

/// A first, a last, a neighbour of both, or any.
fn corner(r: &mut Random, prefix: &IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(p) => {
            let (first, last) = (p.network().to_bits(), p.broadcast().to_bits());
            Ipv4Addr::from_bits(match r.below(8) {
                0 | 1 => first,
                2 | 3 => last,
                4 => first.wrapping_sub(1),
                5 => last.wrapping_add(1),
                _ => first + ((u64::from(last - first) * (r.next() >> 32)) >> 32) as u32,
            })
            .into()
        }
        IpNet::V6(p) => {
            let (first, last) = (p.network().to_bits(), p.broadcast().to_bits());
            Ipv6Addr::from_bits(match r.below(8) {
                0 | 1 => first,
                2 | 3 => last,
                4 => first.wrapping_sub(1),
                5 => last.wrapping_add(1),
                _ => first | ((u128::from(r.next()) << r.below(60)) & (last - first)),
            })
            .into()
        }
    }
}

fn port(r: &mut Random, ports: &[RangeInclusive<u16>]) -> u16 {
    if ports.is_empty() {
        return r.pick(&[0, 22, 80, 443, 1024, 50_000, 65_535]);
    }
    let range = r.pick(ports);
    let (first, last) = (*range.start(), *range.end());
    match r.below(8) {
        0 | 1 => first,
        2 | 3 => last,
        4 => first.wrapping_sub(1),
        5 => last.wrapping_add(1),
        _ => first + r.below(usize::from(last - first) + 1) as u16,
    }
}
