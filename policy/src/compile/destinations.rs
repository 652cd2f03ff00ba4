//! Where flows go: a class for every kind of destination, and the intervals of addresses that belong to it.

use std::ops::RangeInclusive;
use std::slice;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use sluicegate_engine::image::Attributes;

use super::intervals::{Span, Traits, merge, splice, sweep};
use super::lanes::Lanes;
use super::slots;
use crate::resolve::{Resolved, Scope, SetId};

/// Destination classes of one agent's image.
#[derive(Debug)]
pub(super) struct Destinations {
    /// First address and class; the first starts at 0.
    pub(super) v4: Vec<(u128, u32)>,
    /// The same in IPv6.
    pub(super) v6: Vec<(u128, u32)>,
    /// The number of classes, 0 included.
    pub(super) count: u32,
    /// The classes in use.
    pub(super) classes: Vec<DestinationClass>,
}

/// One kind of destination.
#[derive(Debug)]
pub(super) struct DestinationClass {
    pub(super) number: u32,
    /// Stays the same whatever rules come and go.
    pub(super) key: u64,
    pub(super) attributes: Attributes,
    /// Which halves lead here, see [`inbound`] and [`outbound`]. Rising.
    pub(super) sets: Vec<u32>,
}

/// The destination set of inbound halves, as an element of [`DestinationClass::sets`].
pub(super) fn inbound(set: SetId) -> u32 {
    set << 1
}

/// The destination set of outbound halves: the agent's own flows and those of others never share a cell.
pub(super) fn outbound(set: SetId) -> u32 {
    set << 1 | 1
}

impl Destinations {
    pub(super) fn new(r: &Resolved, scope: &Scope) -> Self {
        let mut kinds = Kinds::default();
        let peers = peers(r, scope, &mut kinds);
        // Of most gateways only their own addresses: then all others need not be looked through.
        let alone = scope.me.filter(|_| scope.outbound.is_empty());
        let spans = spans(r, scope);
        let net4 = &r.state.overlay_v4;
        let net6 = &r.state.overlay_v6;
        let v4_max = u128::from(u32::MAX);
        let overlay4 = u128::from(net4.network().to_bits())..=u128::from(net4.broadcast().to_bits());
        let overlay6 = net6.network().to_bits()..=net6.broadcast().to_bits();
        let [by_v4, by_v6] =
            [&r.peers.by_v4, &r.peers.by_v6].map(|all| alone.as_ref().map_or(&all[..], slice::from_ref));
        let kind = |&peer: &u32| peers[peer as usize];
        let order4 = by_v4.iter().map(|p| (u128::from(r.peers[*p as usize].v4), kind(p)));
        let order6 = by_v6.iter().map(|p| (r.peers[*p as usize].v6, kind(p)));
        let (spans4, spans6) = spans;
        let v4 = family(&mut kinds, spans4, overlay4, order4, v4_max);
        let v6 = family(&mut kinds, spans6, overlay6, order6, u128::MAX);
        kinds.number(v4, v6)
    }
}

/// Everything known about kinds of destination while they are being found; kind 0 is nobody.
#[derive(Default)]
struct Kinds {
    numbers: FxHashMap<Traits, u32>,
    kinds: Vec<Traits>,
}

impl Kinds {
    fn intern(&mut self, traits: Traits) -> u32 {
        if traits == Traits::default() {
            return 0;
        }
        *self.numbers.entry(traits).or_insert_with_key(|traits| {
            self.kinds.push(traits.clone());
            self.kinds.len() as u32
        })
    }

    /// Turns kinds into classes.
    fn number(self, mut v4: Vec<(u128, u32)>, mut v6: Vec<(u128, u32)>) -> Destinations {
        // A class is placed by its first address: whatever rules come and go, it stays where it is.
        let mut keys: Vec<Option<u64>> = vec![None; self.kinds.len() + 1];
        for (family, intervals) in [(4, &v4), (6, &v6)] {
            for &(start, kind) in intervals.iter().filter(|i| i.1 != 0) {
                let words =
                    [family, (start >> 96) as u32, (start >> 64) as u32, (start >> 32) as u32, start as u32];
                keys[kind as usize].get_or_insert_with(|| slots::mix_words(words));
            }
        }
        let used: Vec<usize> = (1..keys.len()).filter(|&k| keys[k].is_some()).collect();
        let keys: Vec<u64> = used.iter().filter_map(|&k| keys[k]).collect();
        let (places, count) = slots::assign(&keys);
        let mut number_of = vec![0; self.kinds.len() + 1];
        let mut classes = Vec::with_capacity(used.len());
        for ((&kind, &number), &key) in used.iter().zip(&places).zip(&keys) {
            number_of[kind] = number;
            let traits = &self.kinds[kind - 1];
            let attributes = Attributes(traits.attributes | traits.route);
            classes.push(DestinationClass { number, key, attributes, sets: traits.sets.clone() });
        }
        for interval in v4.iter_mut().chain(&mut v6) {
            interval.1 = number_of[interval.1 as usize];
        }
        Destinations { v4, v6, count, classes }
    }
}

/// The kind of each peer's own addresses.
fn peers(r: &Resolved, scope: &Scope, kinds: &mut Kinds) -> Vec<u32> {
    let mut of_peer = vec![0; r.peers.len()];
    let Some(me) = scope.me else { return of_peer };
    let sets = scope.destinations(r);
    let mut lanes = Lanes::new(if sets.is_empty() { 0 } else { r.peers.len() }, None);
    for set in sets {
        let others: Vec<u32> = r.sets.peers(set).iter().copied().filter(|&p| p != me).collect();
        lanes.add(outbound(set), &others, 0);
    }
    let mut kind_of: Vec<Option<u32>> = vec![None; lanes.len()];
    for (peer, kind) in of_peer.iter_mut().enumerate().take(lanes.members()) {
        let Some(same) = lanes.of(peer as u32).next() else { continue };
        *kind = *kind_of[same as usize].get_or_insert_with(|| {
            let mut sets: Vec<u32> = lanes.sets(same).collect();
            // Added in rising order, told in falling order.
            sets.reverse();
            kinds.intern(Traits { sets, attributes: Attributes::REMOTE, route: 0 })
        });
    }
    let leads_here = |set: &&SetId| !r.halves_to(**set).is_empty();
    let sets = scope.own_sets.iter().filter(leads_here).map(|&s| inbound(s)).collect();
    of_peer[me as usize] = kinds.intern(Traits { sets, attributes: Attributes::LOCAL, route: 0 });
    of_peer
}

/// The prefixes of resources the agent routes and of those it reaches, IPv4 and IPv6.
fn spans(r: &Resolved, scope: &Scope) -> (Vec<Span>, Vec<Span>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let mut push = |prefix: &IpNet, traits: Traits| match prefix {
        IpNet::V4(p) => {
            let (first, last) = (u128::from(p.network().to_bits()), u128::from(p.broadcast().to_bits()));
            v4.push(Span { first, last, traits });
        }
        IpNet::V6(p) => v6.push(Span { first: p.network().to_bits(), last: p.broadcast().to_bits(), traits }),
    };
    for routed in &scope.routed {
        let sets = scope.routed_resources[&routed.resource].iter();
        let sets = sets.filter(|&&s| !r.halves_to(s).is_empty()).map(|&s| inbound(s)).collect();
        let masquerade = if routed.masquerade { Attributes::MASQUERADE } else { 0 };
        push(
            &routed.prefix,
            Traits { sets, attributes: 0, route: Attributes::ROUTED | masquerade | u32::from(routed.number) },
        );
    }
    for (resource, sets) in scope.remote_resources(r) {
        let sets: Vec<u32> = sets.into_iter().map(outbound).collect();
        for prefix in &r.resources[resource as usize].prefixes {
            push(prefix, Traits { sets: sets.clone(), attributes: Attributes::REMOTE, route: 0 });
        }
    }
    (v4, v6)
}

/// The intervals of one family: resources everywhere but in the overlay, which belongs to the peers.
fn family(
    kinds: &mut Kinds,
    spans: Vec<Span>,
    overlay: RangeInclusive<u128>,
    peers: impl Iterator<Item = (u128, u32)>,
    max: u128,
) -> Vec<(u128, u32)> {
    let outer: Vec<(u128, u32)> =
        sweep(spans, max).into_iter().map(|(start, traits)| (start, kinds.intern(traits))).collect();
    let mut inner = vec![(*overlay.start(), 0)];
    for (address, kind) in peers.filter(|p| p.1 != 0) {
        match inner.last_mut() {
            Some(last) if last.0 == address => last.1 = kind,
            _ => inner.push((address, kind)),
        }
        if address < *overlay.end() {
            inner.push((address + 1, 0));
        }
    }
    merge(splice(&outer, (*overlay.start(), *overlay.end()), &inner, max))
}
