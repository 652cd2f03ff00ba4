//! Route numbers: by what number an agent's image, its flows and its counters name a prefix that it routes.
//!
//! A number follows from its resource and prefix. Numbers by position would all change for one resource that comes or goes
//! ahead of them, and with them most attribute words of the image, what flows remember, and what counters stand for. Here
//! each route takes the first free one of the places that its own hash names, in a table at most half full: others that come
//! and go hardly ever move it. All may move when the table doubles, beyond 1,024 routes.

use ipnet::IpNet;
use sluicegate_engine::image::ROUTES_MAX;

/// Places of a small table: few enough for a gateway to read a counter of each every second, and enough that of 100 routes
/// one more moves another once in 40 times.
const PLACES_MIN: usize = 2048;
/// Places tried; in a table half full all are taken once in 2^64 times, then the first free one serves.
const PROBES: u64 = 64;

/// The number of each route, given as resource id and masked prefix, no two of them equal. More than [`ROUTES_MAX`] cannot be
/// numbered: the compiler refuses them, and those left over have number 0.
pub(crate) fn numbers<'a>(routes: impl Iterator<Item = (&'a str, IpNet)>) -> Vec<u16> {
    let mut order: Vec<(u64, usize)> =
        routes.enumerate().map(|(i, (resource, prefix))| (hash(resource, &prefix), i)).collect();
    order.sort_unstable();
    let places = (order.len() * 2).next_power_of_two().clamp(PLACES_MIN, ROUTES_MAX as usize);
    let mut numbers = vec![0; order.len()];
    let mut taken = vec![false; places];
    let mut lowest = 0;
    for (hash, i) in order {
        let probes = (0..PROBES).map(|n| mix(hash.wrapping_add(n)) as usize % places);
        let place = probes.into_iter().find(|&place| !taken[place]).or_else(|| {
            lowest += taken[lowest..].iter().take_while(|taken| **taken).count();
            (lowest < places).then_some(lowest)
        });
        let Some(place) = place else { break };
        taken[place] = true;
        numbers[i] = place as u16;
    }
    numbers
}

/// The same on every machine and in every version: a gateway's flows outlive both.
fn hash(resource: &str, prefix: &IpNet) -> u64 {
    let (address, family) = match prefix {
        IpNet::V4(prefix) => (u128::from(prefix.network().to_bits()), 4),
        IpNet::V6(prefix) => (prefix.network().to_bits(), 6),
    };
    let words = [family, u64::from(prefix.prefix_len()), (address >> 64) as u64, address as u64];
    let bytes = resource.bytes().map(u64::from);
    words
        .into_iter()
        .chain(bytes)
        .fold(0x9e37_79b9_7f4a_7c15, |hash, word| mix(hash.wrapping_add(word).wrapping_add(1)))
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Routes of both families.
    fn routes(count: u32) -> Vec<(String, IpNet)> {
        let prefix = |i: u32| match i % 2 {
            0 => IpNet::V4(ipnet::Ipv4Net::new_assert((0x0a00_0000 + (i << 4)).into(), 28)),
            _ => IpNet::V6(ipnet::Ipv6Net::new_assert(((0xfd01 << 112) + u128::from(i)).into(), 128)),
        };
        (0..count).map(|i| (format!("resource {}", i / 3), prefix(i))).collect()
    }

    fn of(routes: &[(String, IpNet)]) -> Vec<u16> {
        numbers(routes.iter().map(|(resource, prefix)| (resource.as_str(), *prefix)))
    }

    #[test]
    fn numbers_are_distinct_up_to_the_last_route() {
        for count in [0, 1, 12, 1024, 1025, 40_000, ROUTES_MAX] {
            let numbers: BTreeSet<u16> = of(&routes(count)).into_iter().collect();
            assert_eq!(numbers.len(), count as usize);
        }
        assert_eq!(of(&routes(ROUTES_MAX + 3)).len(), ROUTES_MAX as usize + 3);
    }

    #[test]
    fn a_route_that_comes_or_goes_leaves_the_others_their_numbers() {
        let all = routes(200);
        let before = of(&all);
        let mut moved = 0;
        for gone in 0..all.len() {
            let (mut fewer, mut expected) = (all.clone(), before.clone());
            fewer.remove(gone);
            expected.remove(gone);
            moved += of(&fewer).iter().zip(&expected).filter(|(now, before)| now != before).count();
        }
        assert!(
            moved < all.len() / 10,
            "{moved} numbers changed when {} routes went, one at a time",
            all.len()
        );
    }

    #[test]
    fn numbers_depend_on_no_order() {
        let mut all = routes(300);
        let before: BTreeSet<_> = of(&all).into_iter().zip(all.clone()).collect();
        all.reverse();
        assert_eq!(before, of(&all).into_iter().zip(all).collect());
    }

    /// Flows that live through an upgrade of control keep their numbers.
    #[test]
    fn numbers_are_what_they_always_were() {
        let [v4, v6] = ["10.1.0.0/16", "fd01::/48"].map(|prefix| prefix.parse().unwrap());
        assert_eq!(numbers([("web", v4), ("web", v6)].into_iter()), [423, 1888]);
    }
}
