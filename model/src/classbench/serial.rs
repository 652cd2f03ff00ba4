//! What the classifier alone costs: look-ups one after the other, of which none overlaps with the next.

use std::collections::HashSet;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use sluicegate_engine::classify::{Judgement, Line, classify4, classify6};
use sluicegate_engine::image::axis;
use sluicegate_policy::model::State;

use super::{Header, Trace};
use crate::random::Random;

/// Look-ups of one round, at the least.
const LOOKUPS: usize = 200_000;
/// Headers of the trace that are gone around in.
const HOT: usize = 1024;
/// Headers of a uniform round: more than a cache holds of what they lead to.
const UNIFORM: usize = 1 << 18;

/// Which headers are looked up in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// 64 of the trace, again and again.
    Hot64,
    /// 1,024 of it.
    Hot1024,
    /// Any peer and any address of a resource, at services that are common.
    Uniform,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hot64, Self::Hot1024, Self::Uniform];

    /// As in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot64 => "hot64",
            Self::Hot1024 => "hot1024",
            Self::Uniform => "uniform",
        }
    }
}

/// Traffic for a rule set, in both families.
pub struct Traffic<'a> {
    state: &'a State,
    hot: Vec<Header>,
    seed: u64,
}

impl<'a> Traffic<'a> {
    /// By seed.
    pub fn new(state: &'a State, seed: u64) -> Self {
        Self { state, hot: hot(state, seed), seed }
    }

    /// What is looked up in a round; nothing, where no resource has an address of the family.
    pub fn packets(&self, pattern: Pattern, six: bool) -> Packets {
        let trace = self.hot.iter().copied().filter(|header| header.source.is_ipv6() == six);
        let headers = match pattern {
            Pattern::Hot64 => trace.take(64).collect(),
            Pattern::Hot1024 => trace.collect(),
            Pattern::Uniform => uniform(self.state, six, self.seed),
        };
        Packets { six, all: headers.iter().map(Packet::new).collect() }
    }
}

/// Headers of one family as the classifier takes them.
pub struct Packets {
    six: bool,
    all: Vec<Packet>,
}

struct Packet {
    source: u128,
    destination: u128,
    l4: u32,
}

impl Packets {
    /// How many different ones.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Nanoseconds a look-up in `lines`, an image's: each address depends on what the look-up before came to.
    pub fn round(&self, lines: &[Line]) -> f64 {
        // Nothing, but the compiler does not know it: the next look-up waits for the one before.
        let zero = black_box(0u32);
        let times = LOOKUPS.div_ceil(self.all.len());
        let mut last = 0;
        let start = Instant::now();
        for _ in 0..times {
            for packet in &self.all {
                let wait = last & zero;
                let judged: Judgement = if self.six {
                    let wide = |x: u128| ((x >> 64) as u64, x as u64 ^ u64::from(wait));
                    classify6(lines, wide(packet.source), wide(packet.destination), packet.l4)
                } else {
                    classify4(lines, packet.source as u32 ^ wait, packet.destination as u32 ^ wait, packet.l4)
                };
                last = judged.decision.0 ^ judged.attributes.0;
            }
        }
        black_box(last);
        start.elapsed().as_secs_f64() * 1e9 / (times * self.all.len()) as f64
    }
}

impl Packet {
    fn new(header: &Header) -> Self {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(a) => a.to_bits().into(),
            IpAddr::V6(a) => a.to_bits(),
        };
        Self { source: bits(header.source), destination: bits(header.destination), l4: header.l4 }
    }
}

/// Distinct headers of a trace, [`HOT`] of each family where there are so many.
fn hot(state: &State, seed: u64) -> Vec<Header> {
    let mut trace = Trace::new(state, seed);
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    let mut missing = [HOT, HOT];
    for _ in 0..200_000 {
        let header = trace.fresh();
        let left = &mut missing[usize::from(header.source.is_ipv6())];
        if *left > 0 && seen.insert(header) {
            *left -= 1;
            kept.push(header);
        }
        if missing == [0, 0] {
            break;
        }
    }
    kept
}

fn uniform(state: &State, six: bool, seed: u64) -> Vec<Header> {
    let mut r = Random::new(seed);
    let peers: Vec<IpAddr> =
        state.peers.values().map(|p| if six { p.v6.into() } else { p.v4.into() }).collect();
    let resources = state.networks.values().flat_map(|n| n.resources.values());
    let prefixes: Vec<IpNet> =
        resources.flat_map(|r| r.prefixes.iter().copied()).filter(|p| p.addr().is_ipv6() == six).collect();
    if prefixes.is_empty() {
        return Vec::new();
    }
    let within = |r: &mut Random, prefix: &IpNet| match prefix {
        IpNet::V4(p) => IpAddr::V4((p.network().to_bits() | r.next() as u32 & p.hostmask().to_bits()).into()),
        IpNet::V6(p) => {
            IpAddr::V6((p.network().to_bits() | u128::from(r.next()) & p.hostmask().to_bits()).into())
        }
    };
    (0..UNIFORM)
        .map(|_| {
            let prefix = r.pick(&prefixes);
            let l4 = r.pick(&[axis::TCP, axis::UDP]) | r.pick(&[22, 53, 80, 443, 3389, 8080, 50_000]);
            Header { source: r.pick(&peers), destination: within(&mut r, &prefix), l4 }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classbench::{Kind, Size, state};

    #[test]
    fn every_pattern_has_headers_of_both_families_and_of_that_family_alone() {
        let state = state(Kind::Acl, Size::of(100), 1);
        let traffic = Traffic::new(&state, 1);
        for six in [false, true] {
            for (pattern, most) in Pattern::ALL.into_iter().zip([64, HOT, UNIFORM]) {
                let packets = traffic.packets(pattern, six);
                assert!((1..=most).contains(&packets.len()), "{pattern:?}: {}", packets.len());
                let wide = packets.all.iter().any(|packet| packet.destination > u128::from(u32::MAX));
                assert_eq!(wide, six, "{pattern:?}");
            }
        }
    }
}
