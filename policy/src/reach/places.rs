//! Where flows can go beside peers: the address space cut at every edge of a resource's prefix, and pieces behind the same
//! resources taken together. A prefix costs two edges, however large it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::resolve::Resolved;

/// Resources around an address, each with the length of its longest prefix that is. Rising.
pub(crate) type Around = Vec<(u32, u8)>;

/// Addresses of one family behind the same resources, by prefixes of the same lengths, in every state that is compared.
#[derive(Debug)]
pub(crate) struct Place {
    /// The first of them.
    pub(crate) address: IpAddr,
    /// What is around them, for each state.
    pub(crate) around: Vec<Around>,
}

/// Every place that some resource is around.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) places: Vec<Place>,
    /// For each state, the places each resource is around.
    by_resource: Vec<Vec<Vec<u32>>>,
}

impl Places {
    pub(crate) fn new(states: &[&Resolved]) -> Self {
        let mut places = Vec::new();
        for six in [false, true] {
            family(states, six, &mut places);
        }
        let mut by_resource: Vec<Vec<Vec<u32>>> =
            states.iter().map(|state| vec![Vec::new(); state.resources.len()]).collect();
        for (place, number) in places.iter().zip(0..) {
            for (around, index) in place.around.iter().zip(&mut by_resource) {
                around.iter().for_each(|(resource, _)| index[*resource as usize].push(number));
            }
        }
        Self { places, by_resource }
    }

    /// The places a resource is around in a state.
    pub(crate) fn of(&self, state: usize, resource: u32) -> &[u32] {
        &self.by_resource[state][resource as usize]
    }
}

/// What begins or ends at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    Begins(usize, u32, u8),
    Ends(usize, u32, u8),
    OverlayBegins(usize),
    OverlayEnds(usize),
}

fn family(states: &[&Resolved], six: bool, places: &mut Vec<Place>) {
    let mut edges = BTreeMap::<u128, Vec<Edge>>::new();
    // An end beyond the last address is never reached.
    let mut edge = |range: (u128, Option<u128>), begins, ends| {
        edges.entry(range.0).or_default().push(begins);
        if let Some(end) = range.1 {
            edges.entry(end).or_default().push(ends);
        }
    };
    for (number, state) in states.iter().enumerate() {
        let overlay: IpNet = if six { state.state.overlay_v6.into() } else { state.state.overlay_v4.into() };
        edge(bounds(&overlay), Edge::OverlayBegins(number), Edge::OverlayEnds(number));
        for (resource, index) in state.resources.iter().zip(0..) {
            for prefix in resource.prefixes.iter().filter(|prefix| prefix.addr().is_ipv6() == six) {
                let length = prefix.prefix_len();
                edge(bounds(prefix), Edge::Begins(number, index, length), Edge::Ends(number, index, length));
            }
        }
    }

    let mut known = FxHashMap::<Vec<Around>, ()>::default();
    let mut active: Vec<BTreeMap<u32, BTreeSet<u8>>> = vec![BTreeMap::new(); states.len()];
    let mut overlay = vec![false; states.len()];
    for (address, here) in edges {
        for edge in here {
            match edge {
                Edge::Begins(state, resource, length) => {
                    active[state].entry(resource).or_default().insert(length);
                }
                Edge::Ends(state, resource, length) => {
                    if let Some(lengths) = active[state].get_mut(&resource) {
                        lengths.remove(&length);
                        if lengths.is_empty() {
                            active[state].remove(&resource);
                        }
                    }
                }
                Edge::OverlayBegins(state) => overlay[state] = true,
                Edge::OverlayEnds(state) => overlay[state] = false,
            }
        }
        let around: Vec<Around> = active
            .iter()
            .zip(&overlay)
            .map(|(active, overlay)| {
                let longest =
                    |(resource, lengths): (&u32, &BTreeSet<u8>)| Some((*resource, *lengths.last()?));
                if *overlay { Vec::new() } else { active.iter().filter_map(longest).collect() }
            })
            .collect();
        if around.iter().any(|around| !around.is_empty()) && known.insert(around.clone(), ()).is_none() {
            let address = if six {
                IpAddr::V6(Ipv6Addr::from_bits(address))
            } else {
                IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(address).unwrap_or(u32::MAX)))
            };
            places.push(Place { address, around });
        }
    }
}

/// The first address, and the first one after; none after the last of IPv6.
fn bounds(prefix: &IpNet) -> (u128, Option<u128>) {
    match prefix {
        IpNet::V4(prefix) => {
            let first = u128::from(prefix.network().to_bits());
            (first, Some(first + (1u128 << (32 - prefix.prefix_len()))))
        }
        IpNet::V6(prefix) => {
            let first = prefix.network().to_bits();
            let size = 1u128.checked_shl(128 - u32::from(prefix.prefix_len()));
            (first, size.and_then(|size| first.checked_add(size)))
        }
    }
}
