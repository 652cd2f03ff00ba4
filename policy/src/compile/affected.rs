//! Which agents a change can touch.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::Compiler;
use crate::model::{Group, Network, Peer, Policy, Shared, State};
use crate::resolve::{Bits, Resolved};

impl Compiler {
    /// The agents whose image or network view may differ between `old` and this: whoever is not among them has the very
    /// same of both; where an image has lists of rows or columns, one that says the same of every packet, in which rows of
    /// others may have other places. One that is among them may turn out unchanged; comparing hashes tells.
    ///
    /// Found by comparing the states and following each difference, in both states, to the agents it concerns.
    pub fn affected(&self, old: &Compiler) -> BTreeSet<Arc<str>> {
        let change = Change::between(old.state(), self.state());
        let mut agents: BTreeSet<Arc<str>> = change.moved.iter().map(|&id| Arc::from(id)).collect();
        for resolved in [&old.resolved, &self.resolved] {
            let numbers = Touched::new(&change, resolved).agents(&change, resolved);
            agents.extend(numbers.iter().map(|p| resolved.peers[p as usize].id.clone()));
        }
        agents
    }
}

/// What differs between two states, by id. A name counts only where an image carries it: of policies, rules, resources.
struct Change<'a> {
    overlay: bool,
    peers: BTreeSet<&'a str>,
    /// Groups with other peers.
    groups: BTreeSet<&'a str>,
    /// Networks with other routers.
    networks: BTreeSet<&'a str>,
    resources: BTreeSet<&'a str>,
    /// Resources that entered or left a group.
    placed: BTreeSet<&'a str>,
    policies: BTreeSet<&'a str>,
    /// Policies of which nothing changed but who passes their posture checks: those peers.
    flipped: BTreeMap<&'a str, Rc<BTreeSet<&'a str>>>,
    /// Changed peers, those that entered or left a group, and those that pass or fail anew.
    moved: BTreeSet<&'a str>,
}

impl<'a> Change<'a> {
    fn between(old: &'a State, new: &'a State) -> Self {
        let same_peer = |a: &Peer, b: &Peer| (a.v4, a.v6, a.allowed) == (b.v4, b.v6, b.allowed);
        let peers = differences(&old.peers, &new.peers, same_peer);
        let groups = differences(&old.groups, &new.groups, |a, b| a.peers == b.peers);
        let mut moved = peers.clone();
        for &id in &groups {
            let members = |state: &'a State| state.groups.get(id).map(|g| &g.peers);
            moved.extend(turned(members(old), members(new)));
        }
        let flipped = flips(old, new);
        moved.extend(flipped.values().flat_map(|peers| peers.iter()));
        let same_policy =
            |a: &Policy, b: &Policy| (a.enabled, &a.rules, &a.name) == (b.enabled, &b.rules, &b.name);
        let (mut resources, mut placed) = (BTreeSet::new(), BTreeSet::new());
        for (_, a, b) in joined(&old.networks, &new.networks) {
            let of = |network: Option<&'a Network>| network.map(|network| &network.resources);
            resources.extend(differing(of(a), of(b)));
        }
        for (_, a, b) in joined(&old.groups, &new.groups) {
            let of = |group: Option<&'a Group>| group.map(|group| &group.resources);
            placed.extend(turned(of(a), of(b)));
        }
        Self {
            overlay: (old.overlay_v4, old.overlay_v6) != (new.overlay_v4, new.overlay_v6),
            peers,
            groups,
            networks: differences(&old.networks, &new.networks, |a, b| a.routers == b.routers),
            resources,
            placed,
            policies: differences(&old.policies, &new.policies, same_policy),
            flipped,
            moved,
        }
    }
}

/// Every id of two maps, with what is there under it; nothing when both are one and the same.
fn joined<'a, T>(
    old: &'a Shared<BTreeMap<String, T>>,
    new: &'a Shared<BTreeMap<String, T>>,
) -> impl Iterator<Item = (&'a str, Option<&'a T>, Option<&'a T>)> {
    let maps = (!old.is_same(new)).then(|| side_by_side(old.iter(), new.iter()));
    maps.into_iter().flatten().map(|(id, a, b)| (id.as_str(), a, b))
}

/// Both of two rising sequences, in order: each key, with what either has.
pub(crate) fn side_by_side<'a, K: Ord + 'a, T: 'a>(
    old: impl Iterator<Item = (&'a K, &'a T)>,
    new: impl Iterator<Item = (&'a K, &'a T)>,
) -> impl Iterator<Item = (&'a K, Option<&'a T>, Option<&'a T>)> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (Some(a), Some(b)) => a.0.cmp(b.0),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let a = old.next_if(|_| order.is_le());
        let b = new.next_if(|_| order.is_ge());
        let key = a.or(b)?.0;
        Some((key, a.map(|a| a.1), b.map(|b| b.1)))
    })
}

fn differences<'a, T>(
    old: &'a Shared<BTreeMap<String, T>>,
    new: &'a Shared<BTreeMap<String, T>>,
    same: impl Fn(&T, &T) -> bool,
) -> BTreeSet<&'a str> {
    let differs = |a: Option<&T>, b: Option<&T>| !a.zip(b).is_some_and(|(a, b)| same(a, b));
    joined(old, new).filter(|&(_, a, b)| differs(a, b)).map(|(id, ..)| id).collect()
}

/// Ids of what is in one map only, or differs.
fn differing<'a, T: PartialEq>(
    old: Option<&'a BTreeMap<String, T>>,
    new: Option<&'a BTreeMap<String, T>>,
) -> impl Iterator<Item = &'a str> {
    let both = side_by_side(old.into_iter().flatten(), new.into_iter().flatten());
    both.filter(|(_, a, b)| a != b).map(|(id, ..)| id.as_str())
}

/// Who is in one of two sets.
fn turned<'a>(
    old: Option<&'a Shared<BTreeSet<String>>>,
    new: Option<&'a Shared<BTreeSet<String>>>,
) -> impl Iterator<Item = &'a str> {
    let sets = match (old, new) {
        (Some(old), Some(new)) if old.is_same(new) => None,
        sets => Some(sets),
    };
    static NOBODY: BTreeSet<String> = BTreeSet::new();
    sets.into_iter().flat_map(|(old, new)| {
        let [old, new] = [old, new].map(|set| set.map_or(&NOBODY, |set| &**set));
        let (left, entered) = in_one(old, new);
        left.into_iter().chain(entered)
    })
}

/// Who is in the first set only, and who in the second.
pub(crate) fn in_one<'a>(
    one: &'a BTreeSet<String>,
    other: &'a BTreeSet<String>,
) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut left, mut entered) = (Vec::new(), Vec::new());
    let present = |set: &'a BTreeSet<String>| set.iter().map(|id| (id, &()));
    for (id, was, is) in side_by_side(present(one), present(other)) {
        match (was, is) {
            (Some(()), None) => left.push(id.as_str()),
            (None, Some(())) => entered.push(id.as_str()),
            _ => {}
        }
    }
    (left, entered)
}

/// Who passes or fails anew, by policy, of those that are in both states.
fn flips<'a>(old: &'a State, new: &'a State) -> BTreeMap<&'a str, Rc<BTreeSet<&'a str>>> {
    // Thousands of policies may have the same two lists.
    let mut known: BTreeMap<(usize, usize), Rc<BTreeSet<&'a str>>> = BTreeMap::new();
    let mut between = |a: &'a Policy, b: &'a Policy| {
        let only = |one: &'a Policy, other: &'a Policy| {
            let one = one.posture_failed.peers().map(String::as_str);
            one.filter(|peer| !other.posture_failed.contains(peer))
        };
        let lists = (a.posture_failed.address(), b.posture_failed.address());
        let turned = || Rc::new(only(a, b).chain(only(b, a)).collect());
        known.entry(lists).or_insert_with(turned).clone()
    };
    let flips = |(id, a, b): (&'a str, Option<&'a Policy>, Option<&'a Policy>)| {
        let (a, b) = a.zip(b)?;
        if a.posture_failed.is_same(&b.posture_failed) {
            return None;
        }
        let turned = between(a, b);
        (!turned.is_empty()).then_some((id, turned))
    };
    joined(&old.policies, &new.policies).filter_map(flips).collect()
}

/// The numbers, in one of the two states, of what a change touches.
struct Touched {
    /// Groups with a peer that changed, entered or left.
    groups: Vec<bool>,
    /// Groups with a resource that changed, entered, or left.
    groups_of_resources: Vec<bool>,
    peers: Vec<bool>,
    resources: Vec<bool>,
}

fn touched_peers(change: &Change<'_>, r: &Resolved) -> Vec<bool> {
    let mut touched = vec![false; r.peers.len()];
    change.peers.iter().filter_map(|id| r.peer(id)).for_each(|peer| touched[peer as usize] = true);
    touched
}

impl Touched {
    fn new(change: &Change<'_>, r: &Resolved) -> Self {
        let state = &*r.state;
        let routed_by = |network: &Network| {
            let mut routers = network.routers.values().flat_map(|router| &router.peers);
            !change.peers.is_empty() && routers.any(|p| change.peers.contains(p.as_str()))
        };
        let mut resources: BTreeSet<&str> = change.resources.union(&change.placed).copied().collect();
        for (id, network) in &state.networks {
            if change.networks.contains(id.as_str()) || routed_by(network) {
                resources.extend(network.resources.keys().map(String::as_str));
            }
        }
        let group = |(id, group): (&String, &Group)| {
            change.groups.contains(id.as_str()) || change.peers.iter().any(|&p| group.peers.contains(p))
        };
        Self {
            groups: state.groups.iter().map(group).collect(),
            groups_of_resources: (state.groups.values())
                .map(|group| resources.iter().any(|&q| group.resources.contains(q)))
                .collect(),
            peers: touched_peers(change, r),
            resources: r.resources.iter().map(|q| resources.contains(&*q.id)).collect(),
        }
    }

    fn agents(&self, change: &Change<'_>, r: &Resolved) -> Bits {
        let mut agents = Bits::new(r.peers.len());
        if change.overlay {
            r.peers.by_v4.iter().for_each(|&p| agents.insert(p));
            return agents;
        }
        let sets = 0..r.sets.len() as u32;
        let near: Vec<bool> = sets.clone().map(|set| self.has_other_peers(r, set)).collect();
        let far: Vec<bool> = sets.map(|set| near[set as usize] || self.has_other_resources(r, set)).collect();
        let mut users = BTreeSet::new();
        let mut served = BTreeSet::new();
        for half in &r.written.halves {
            let policy = &r.written.policies[r.written.rules[half.rule as usize].policy as usize];
            let rewritten = change.policies.contains(&**policy);
            // Whoever opens flows sees the far end change, and whoever accepts them the near end.
            if rewritten || far[half.destination as usize] {
                users.insert(half.source);
            }
            if rewritten || near[half.source as usize] {
                served.insert(half.destination);
            }
            let Some(flipped) = change.flipped.get(&**policy).filter(|_| r.accepts(half)) else { continue };
            // In the state in which such a peer passes, it is in the half's set.
            let has = |set: u32| {
                let members = r.sets.peers(set);
                flipped.iter().filter_map(|peer| r.peer(peer)).any(|p| members.binary_search(&p).is_ok())
            };
            if has(half.source) {
                served.insert(half.destination);
            }
            // A mirror half ends at the rule's sources.
            if !r.sets.takes_resources(half.destination) && has(half.destination) {
                users.insert(half.source);
            }
        }
        for &set in users.iter().chain(&served) {
            r.sets.peers(set).iter().for_each(|&p| agents.insert(p));
        }
        let touched =
            self.resources.iter().zip(0..).filter(|(touched, _)| **touched).map(|(_, resource)| resource);
        for resource in served.iter().flat_map(|&set| r.sets.resources(set)).copied().chain(touched) {
            r.routers(resource).iter().for_each(|router| agents.insert(router.peer));
        }
        agents
    }

    fn has_other_peers(&self, r: &Resolved, set: u32) -> bool {
        r.sets.names(set, |group| self.groups[group as usize], |peer| self.peers[peer as usize], |_| false)
    }

    fn has_other_resources(&self, r: &Resolved, set: u32) -> bool {
        let resource = |resource: u32| self.resources[resource as usize];
        r.sets.names(set, |group| self.groups_of_resources[group as usize], |_| false, resource)
    }
}
