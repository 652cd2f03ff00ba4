//! Who reaches what, and how a change alters it: counted, never by writing out a prefix.
//!
//! What is counted is a *pair*: a source peer, a destination, and packets. A destination is a peer, or the addresses of one
//! family that lie behind the same resources by prefixes of the same lengths before and after the change. The packets are a
//! longest range of protocols and ports, as in `tcp/8000-8999`. A pair is open when the agent the flow starts at, and the
//! peer it ends at or the gateway that the source's routes choose, both admit it, all gateways being alive.

mod checks;
mod places;
mod ranges;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::compile::Compiler;
use crate::model::State;
use crate::resolve::Resolved;
pub use checks::{Checked, check};
use places::Places;
use ranges::Ranges;
use sources::{Reached, View};

/// What a change opens and closes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Pairs that are open after it and not before.
    pub opened: Side,
    /// Pairs that were open before and are not after.
    pub closed: Side,
}

/// One direction of a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Side {
    /// How many.
    pub pairs: u64,
    /// Some of them, of different sources and destinations where there are, in the order of names.
    pub examples: Vec<Pair>,
}

/// A source, a destination and packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pair {
    /// Name of the source peer.
    pub source: String,
    /// Name of the destination: a peer, or the resource with the longest prefix around it.
    pub destination: String,
    /// An address of it: of a peer its IPv4 address.
    pub address: IpAddr,
    /// Which packets, as in a policy file.
    pub service: String,
}

/// Compares two states. At most `examples` pairs of either side are named.
pub fn compare(before: &Compiler, after: &Compiler, examples: usize) -> Difference {
    // A pair changes only where the image or the routes of its source do.
    let affected = after.affected(before);
    between(before, after, Some(&affected), examples)
}

/// Compares two states, looking at every source.
pub fn compare_all(before: &Compiler, after: &Compiler, examples: usize) -> Difference {
    between(before, after, None, examples)
}

/// Everything that is open in a state, as what it opens beside nothing.
pub fn everything(compiler: &Compiler, examples: usize) -> Side {
    let mut nothing = (**compiler.state()).clone();
    nothing.policies.clear();
    match Compiler::new(Arc::new(nothing)) {
        Ok(nothing) => compare_all(&nothing, compiler, examples).opened,
        // A state without policies is refused for what the whole one would have been.
        Err(_) => Side::default(),
    }
}

/// Where addresses begin that stand for those of a domain not yet looked up: of a block that no host has (RFC 1112 4),
/// and of the prefix for discarding (RFC 6666).
const STAND_INS: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(240, 0, 0, 0), Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0));

/// Gives each resource without addresses one of each family, the same in every state, so that rules towards domains are
/// judged as they will be once a name was looked up.
pub fn stand_in(states: &mut [&mut State]) {
    let of = |state: &State| -> Vec<String> {
        let resources = state.networks.values().flat_map(|network| &network.resources);
        resources.filter(|(_, q)| q.prefixes.is_empty()).map(|(id, _)| id.clone()).collect()
    };
    let mut ids: Vec<String> = states.iter().flat_map(|state| of(state)).collect();
    ids.sort_unstable();
    ids.dedup();
    for state in states.iter_mut() {
        for (id, resource) in state.networks.values_mut().flat_map(|network| &mut network.resources) {
            let Some(number) = ids.binary_search(id).ok().filter(|_| resource.prefixes.is_empty()) else {
                continue;
            };
            let v4 = Ipv4Addr::from_bits(STAND_INS.0.to_bits() + number as u32);
            let v6 = Ipv6Addr::from_bits(STAND_INS.1.to_bits() + number as u128);
            resource.prefixes = vec![IpAddr::from(v4).into(), IpAddr::from(v6).into()];
        }
    }
}

/// Whether an address only stands for one that is not known yet.
pub fn is_stand_in(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address >= STAND_INS.0,
        IpAddr::V6(address) => address.segments()[..4] == STAND_INS.1.segments()[..4],
    }
}

fn between(
    before: &Compiler,
    after: &Compiler,
    only: Option<&BTreeSet<Arc<str>>>,
    examples: usize,
) -> Difference {
    let states = [before.resolved(), after.resolved()];
    let places = Places::new(&states);
    let ids: BTreeSet<&Arc<str>> = states.iter().flat_map(|r| r.peers.iter().map(|(_, p)| &p.id)).collect();
    let destinations = Classes::new(&states, ids.iter().copied(), destination_key);
    let wanted = |id: &Arc<str>| only.is_none_or(|only| only.contains(id));
    let sources = Classes::new(&states, ids.iter().copied().filter(|id| wanted(id)), source_key);
    let [mut was, mut is] = [0, 1].map(|state| View::new(states[state], state, &places, false));
    let numbers = [0, 1].map(|state| destinations.numbers(states[state]));
    let mut tally =
        Tally { states, places: &places, destinations: &destinations, examples, sides: Default::default() };
    for class in &sources.classes {
        let Some(id) = class.first() else { continue };
        let reached = |view: &mut View<'_>, state: usize| {
            states[state].peer(id).map(|peer| view.from(peer, &numbers[state])).unwrap_or_default()
        };
        let (old, new) = (reached(&mut was, 0), reached(&mut is, 1));
        tally.add(class, &old, &new);
    }
    let [opened, closed] = tally.sides;
    Difference { opened, closed }
}

/// Peers that are alike in what rules say about them, in both states.
struct Classes {
    classes: Vec<Vec<Arc<str>>>,
    by_id: FxHashMap<Arc<str>, u32>,
}

/// What makes peers alike: the sets that rules have them in, and the networks they route.
type Key = (Vec<u32>, Vec<u32>);

impl Classes {
    fn new<'i>(
        states: &[&Resolved; 2],
        ids: impl Iterator<Item = &'i Arc<str>>,
        key: fn(&Resolved, u32) -> Key,
    ) -> Self {
        let mut numbers = FxHashMap::<[Option<Key>; 2], u32>::default();
        let mut classes: Vec<Vec<Arc<str>>> = Vec::new();
        let mut by_id = FxHashMap::default();
        for id in ids {
            let key = states.map(|r| r.peer(id).map(|peer| key(r, peer)));
            let number = *numbers.entry(key).or_insert_with(|| {
                classes.push(Vec::new());
                classes.len() as u32 - 1
            });
            classes[number as usize].push(id.clone());
            by_id.insert(id.clone(), number);
        }
        Self { classes, by_id }
    }

    /// The class of each peer of a state, by number.
    fn numbers(&self, r: &Resolved) -> Vec<u32> {
        let mut numbers = vec![0; r.peers.len()];
        r.peers.iter().for_each(|(number, peer)| numbers[number as usize] = self.by_id[&peer.id]);
        numbers
    }
}

fn source_key(r: &Resolved, peer: u32) -> Key {
    let sets = r.sets.of_peer(peer).into_iter().filter(|&set| !r.halves_from(set).is_empty());
    (sets.collect(), r.routed_networks(peer).to_vec())
}

fn destination_key(r: &Resolved, peer: u32) -> Key {
    let sets = r.sets.of_peer(peer).into_iter().filter(|&set| !r.halves_to(set).is_empty());
    (sets.collect(), Vec::new())
}

/// Opened and closed so far.
struct Tally<'a> {
    states: [&'a Resolved; 2],
    places: &'a Places,
    destinations: &'a Classes,
    examples: usize,
    sides: [Side; 2],
}

impl Tally<'_> {
    /// Takes note of what the peers of a class reached before and reach after.
    fn add(&mut self, sources: &[Arc<str>], old: &Reached, new: &Reached) {
        let none = Arc::new(Ranges::default());
        let both = |old: &FxHashMap<u32, Arc<Ranges>>, new: &FxHashMap<u32, Arc<Ranges>>| {
            let to: BTreeSet<u32> = old.keys().chain(new.keys()).copied().collect();
            let of = |side: &FxHashMap<u32, Arc<Ranges>>, to| side.get(&to).unwrap_or(&none).clone();
            let pairs = to.into_iter().map(|to| (to, of(old, to), of(new, to)));
            pairs.filter(|(_, old, new)| old != new).collect::<Vec<_>>()
        };
        for (class, old, new) in both(&old.peers, &new.peers) {
            let members = &self.destinations.classes[class as usize];
            let own = sources.iter().filter(|id| self.destinations.by_id.get(*id) == Some(&class)).count();
            let pairs = sources.len() as u64 * members.len() as u64 - own as u64;
            for (side, ranges) in [(0, new.minus(&old)), (1, old.minus(&new))] {
                self.sides[side].pairs += pairs * ranges.len() as u64;
                if pairs > 0 {
                    self.name_peers(side, sources, class, &ranges);
                }
            }
        }
        for (place, old, new) in both(&old.places, &new.places) {
            for (side, ranges) in [(0, new.minus(&old)), (1, old.minus(&new))] {
                self.sides[side].pairs += sources.len() as u64 * ranges.len() as u64;
                self.name_places(side, sources, place, &ranges);
            }
        }
    }

    fn name_peers(&mut self, side: usize, sources: &[Arc<str>], class: u32, ranges: &Ranges) {
        let members = &self.destinations.classes[class as usize];
        for source in sources.iter().take(self.examples) {
            let Some(to) = members.iter().find(|to| *to != source) else { continue };
            // Opened: as it is after; closed: as it was before.
            let state = &self.states[1 - side].state;
            let (Some(from), Some(peer)) = (state.peers.get(&**source), state.peers.get(&**to)) else {
                continue;
            };
            let (source, to, address) = (from.name.clone(), peer.name.clone(), peer.v4.into());
            self.name(side, source, to, address, ranges);
        }
    }

    fn name_places(&mut self, side: usize, sources: &[Arc<str>], place: u32, ranges: &Ranges) {
        let (r, place) = (self.states[1 - side], &self.places.places[place as usize]);
        let Some(&(resource, _)) = place.around[1 - side].iter().max_by_key(|(_, length)| *length) else {
            return;
        };
        let resource = &r.resources[resource as usize];
        let network = &r.state.networks[&*r.networks[resource.network as usize].id];
        let to = network.resources[&*resource.id].name.clone();
        for source in sources.iter().take(self.examples) {
            if let Some(from) = r.state.peers.get(&**source) {
                self.name(side, from.name.clone(), to.clone(), place.address, ranges);
            }
        }
    }

    fn name(&mut self, side: usize, source: String, destination: String, address: IpAddr, ranges: &Ranges) {
        let examples = &mut self.sides[side].examples;
        let known =
            |count: fn(&Pair, &Pair) -> bool, pair: &Pair| examples.iter().any(|other| count(other, pair));
        let Some(range) = ranges.iter().next() else { return };
        let pair = Pair { source, destination, address, service: ranges::text(range) };
        // A handful that shows different things says more than the first of one kind.
        let repeats = known(|a, b| (&a.destination, &a.service) == (&b.destination, &b.service), &pair);
        if examples.len() >= self.examples && repeats {
            return;
        }
        examples.push(pair);
        examples.sort();
        examples.dedup();
        let mut shown = BTreeMap::<(String, String), usize>::new();
        for pair in examples.iter() {
            *shown.entry((pair.destination.clone(), pair.service.clone())).or_default() += 1;
        }
        while examples.len() > self.examples {
            let most = shown.iter().max_by_key(|(_, count)| **count).map(|(key, _)| key.clone());
            let at = examples.iter().rposition(|pair| {
                most.as_ref().is_none_or(|most| (&pair.destination, &pair.service) == (&most.0, &most.1))
            });
            let Some(at) = at else { break };
            let gone = examples.remove(at);
            if let Some(count) = shown.get_mut(&(gone.destination, gone.service)) {
                *count -= 1;
            }
        }
    }
}
