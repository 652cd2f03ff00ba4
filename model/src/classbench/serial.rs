//! What the classifier alone costs: look-ups one after the other, of which none overlaps with the next.

use std::collections::HashSet;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use ipnet::IpNet;
use sluicegate_engine::classify::{Judgement, Line};
use sluicegate_engine::family::{Family, V4, V6};
use sluicegate_engine::image::axis;
use sluicegate_engine::judged::{BUCKETS, Bucket, bucket};
use sluicegate_engine::tables::Active;
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
    source: IpAddr,
    destination: IpAddr,
    l4: u32,
}

/// How the classifier is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// As the engine asks it: what it said of such a packet before is kept; see `sluicegate_engine::judged`.
    AsForPackets,
    /// Each time anew.
    Anew,
}

/// The image of a round. Whatever revision it has, it is the only one.
const ACTIVE: Active = Active::new(0, 1);

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
    pub fn round(&self, lines: &[Line], asked: Asked) -> f64 {
        if self.six {
            self.round_of::<V6>(lines, asked, |address| match address {
                IpAddr::V6(v6) => v6.into(),
                IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
            })
        } else {
            self.round_of::<V4>(lines, asked, |address| match address {
                IpAddr::V4(v4) => v4.into(),
                IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED.into(),
            })
        }
    }

    fn round_of<F: Family>(
        &self,
        lines: &[Line],
        asked: Asked,
        address: impl Fn(IpAddr) -> F::Address,
    ) -> f64 {
        let all: Vec<(F::Address, F::Address, u32)> =
            self.all.iter().map(|p| (address(p.source), address(p.destination), p.l4)).collect();
        let mut buckets = vec![Bucket::default(); BUCKETS as usize];
        // Nothing, but the compiler does not know it: the next look-up waits for the one before.
        let zero = black_box(0u32);
        let times = LOOKUPS.div_ceil(all.len());
        let mut last = 0;
        let start = Instant::now();
        for _ in 0..times {
            for &(source, destination, l4) in &all {
                let wait = (last & zero) as u16;
                let (source, destination) = (F::plus(source, wait), F::plus(destination, wait));
                let judged = match asked {
                    Asked::Anew => F::classify(lines, source, destination, l4),
                    Asked::AsForPackets => judge::<F>(&mut buckets, lines, source, destination, l4),
                };
                last = judged.decision.0 ^ judged.attributes.0;
            }
        }
        black_box(last);
        start.elapsed().as_secs_f64() * 1e9 / (times * all.len()) as f64
    }
}

/// As the tables of the datapath do.
fn judge<F: Family>(
    buckets: &mut [Bucket<F::Address>],
    lines: &[Line],
    source: F::Address,
    destination: F::Address,
    l4: u32,
) -> Judgement {
    let bucket = &mut buckets[bucket::<F>(source, destination, l4) as usize];
    bucket.find::<F>(ACTIVE, source, destination, l4).unwrap_or_else(|place| {
        let judgement = F::classify(lines, source, destination, l4);
        bucket.keep(place, ACTIVE, judgement);
        judgement
    })
}

impl Packet {
    fn new(header: &Header) -> Self {
        Self { source: header.source, destination: header.destination, l4: header.l4 }
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
    use sluicegate_engine::image::LINE;
    use sluicegate_policy::Compiler;

    use super::*;
    use crate::classbench::{GATEWAY, Kind, Size, state};

    /// What a round measures comes to what the image says.
    #[test]
    fn what_is_kept_is_what_the_image_says() {
        let state = state(Kind::Firewall, Size::of(300), 1);
        let image = Compiler::new(state.clone().into()).unwrap().compile(GATEWAY).unwrap();
        let lines = image.words.as_chunks::<LINE>().0;
        let traffic = Traffic::new(&state, 1);
        let mut rights = 0;
        for pattern in Pattern::ALL {
            let mut four = vec![Bucket::default(); BUCKETS as usize];
            let mut six = vec![Bucket::default(); BUCKETS as usize];
            let packets = [false, true].map(|six| traffic.packets(pattern, six));
            for Packet { source, destination, l4 } in
                packets.iter().flat_map(|packets| &packets.all).take(20_000)
            {
                for _ in 0..2 {
                    let (kept, anew) = match (*source, *destination) {
                        (IpAddr::V4(s), IpAddr::V4(d)) => (
                            judge::<V4>(&mut four, lines, s.into(), d.into(), *l4),
                            V4::classify(lines, s.into(), d.into(), *l4),
                        ),
                        (IpAddr::V6(s), IpAddr::V6(d)) => (
                            judge::<V6>(&mut six, lines, s.into(), d.into(), *l4),
                            V6::classify(lines, s.into(), d.into(), *l4),
                        ),
                        mixed => panic!("{mixed:?}"),
                    };
                    assert_eq!(kept, anew, "{source} {destination} {l4:#x}");
                    rights += u32::from(anew.decision.accepts());
                }
            }
        }
        assert!(rights > 1000, "{rights}");
    }

    #[test]
    fn every_pattern_has_headers_of_both_families_and_of_that_family_alone() {
        let state = state(Kind::Acl, Size::of(100), 1);
        let traffic = Traffic::new(&state, 1);
        for six in [false, true] {
            for (pattern, most) in Pattern::ALL.into_iter().zip([64, HOT, UNIFORM]) {
                let packets = traffic.packets(pattern, six);
                assert!((1..=most).contains(&packets.len()), "{pattern:?}: {}", packets.len());
                let of_it =
                    |packet: &Packet| [packet.source, packet.destination].map(|a| a.is_ipv6()) == [six; 2];
                assert!(packets.all.iter().all(of_it), "{pattern:?}");
            }
        }
    }
}
