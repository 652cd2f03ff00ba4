//! Which agents a change can touch.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::Compiler;
use crate::model::{Network, Peer, Policy, Shared, State};
use crate::resolve::{Bits, Resolved};

impl Compiler {
    /// The agents whose image or network view may differ between `old` and this: whoever is not among them has the very
    /// same of both. One that is among them may turn out unchanged; comparing hashes tells.
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
    groups: BTreeSet<&'a str>,
    networks: BTreeSet<&'a str>,
    policies: BTreeSet<&'a str>,
    /// Policies of which nothing changed but who passes their posture checks: those peers.
    flipped: BTreeMap<&'a str, Rc<BTreeSet<&'a str>>>,
    /// Changed peers, those that entered or left a group, and those that pass or fail anew.
    moved: BTreeSet<&'a str>,
}

impl<'a> Change<'a> {
    fn between(old: &'a State, new: &'a State) -> Self {
        let same_peer = |a: &Peer, b: &Peer| (a.v4, a.v6, a.allowed) == (b.v4, b.v6, b.allowed);
        let same_network =
            |a: &Network, b: &Network| (&a.resources, &a.routers) == (&b.resources, &b.routers);
        let peers = differences(&old.peers, &new.peers, same_peer);
        let groups = differences(&old.groups, &new.groups, |a, b| {
            (&a.peers, &a.resources) == (&b.peers, &b.resources)
        });
        let mut moved = peers.clone();
        for &id in &groups {
            let members = |state: &'a State| state.groups.get(id).map(|g| &g.peers);
            let left = |one: &'a State, other: &'a State| {
                let stays = move |p: &String| members(other).is_some_and(|m| m.contains(p));
                members(one).into_iter().flatten().filter(move |p| !stays(p)).map(String::as_str)
            };
            moved.extend(left(old, new));
            moved.extend(left(new, old));
        }
        let flipped = flips(old, new);
        moved.extend(flipped.values().flat_map(|peers| peers.iter()));
        let same_policy =
            |a: &Policy, b: &Policy| (&a.name, a.enabled, &a.rules) == (&b.name, b.enabled, &b.rules);
        Self {
            overlay: (old.overlay_v4, old.overlay_v6) != (new.overlay_v4, new.overlay_v6),
            peers,
            groups,
            networks: differences(&old.networks, &new.networks, same_network),
            policies: differences(&old.policies, &new.policies, same_policy),
            flipped,
            moved,
        }
    }
}

fn differences<'a, T>(
    old: &'a Shared<BTreeMap<String, T>>,
    new: &'a Shared<BTreeMap<String, T>>,
    same: impl Fn(&T, &T) -> bool,
) -> BTreeSet<&'a str> {
    if old.is_same(new) {
        return BTreeSet::new();
    }
    let gone_or_changed =
        old.iter().filter(|(id, a)| new.get(*id).is_none_or(|b| !same(a, b))).map(|(id, _)| id);
    let added = new.keys().filter(|id| !old.contains_key(*id));
    gone_or_changed.chain(added).map(String::as_str).collect()
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
    let flips = |(id, a): (&'a String, &'a Policy)| {
        let b = new.policies.get(id)?;
        if a.posture_failed.is_same(&b.posture_failed) {
            return None;
        }
        let turned = between(a, b);
        (!turned.is_empty()).then_some((id.as_str(), turned))
    };
    if old.policies.is_same(&new.policies) {
        return BTreeMap::new();
    }
    old.policies.iter().filter_map(flips).collect()
}

/// The numbers, in one of the two states, of what a change touches.
struct Touched {
    groups: Vec<bool>,
    peers: Vec<bool>,
    networks: Vec<bool>,
}

impl Touched {
    fn new(change: &Change<'_>, r: &Resolved) -> Self {
        let state = &*r.state;
        let routed_by = |network: &Network| {
            let mut routers = network.routers.values().flat_map(|router| &router.peers);
            !change.peers.is_empty() && routers.any(|p| change.peers.contains(p.as_str()))
        };
        let network_ids: BTreeSet<&str> = state
            .networks
            .iter()
            .filter(|(id, network)| change.networks.contains(id.as_str()) || routed_by(network))
            .map(|(id, _)| id.as_str())
            .collect();
        let resources: Vec<&String> =
            network_ids.iter().flat_map(|&id| state.networks[id].resources.keys()).collect();
        let group = |(id, group): (&String, &crate::model::Group)| {
            change.groups.contains(id.as_str())
                || change.peers.iter().any(|&p| group.peers.contains(p))
                || resources.iter().any(|&q| group.resources.contains(q))
        };
        Self {
            groups: state.groups.iter().map(group).collect(),
            peers: r.peers.iter().map(|p| change.peers.contains(&*p.id)).collect(),
            networks: r.networks.iter().map(|n| network_ids.contains(&*n.id)).collect(),
        }
    }

    fn agents(&self, change: &Change<'_>, r: &Resolved) -> Bits {
        let mut agents = Bits::new(r.peers.len());
        if change.overlay {
            (0..r.peers.len() as u32).for_each(|p| agents.insert(p));
            return agents;
        }
        for (network, _) in r.networks.iter().zip(&self.networks).filter(|(_, touched)| **touched) {
            network.routers.iter().for_each(|router| agents.insert(router.peer));
        }
        let sets: Vec<bool> = (0..r.sets.len() as u32).map(|set| self.set(r, set)).collect();
        let mut users = BTreeSet::new();
        let mut served = BTreeSet::new();
        for half in &r.halves {
            let policy = &r.policies[r.rules[half.rule as usize].policy as usize];
            let rewritten = change.policies.contains(&**policy);
            // Whoever opens flows sees the far end change, and whoever accepts them the near end.
            if rewritten || sets[half.destination as usize] {
                users.insert(half.source);
            }
            if rewritten || sets[half.source as usize] {
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
        for &resource in served.iter().flat_map(|&set| r.sets.resources(set)) {
            r.routers(resource).iter().for_each(|router| agents.insert(router.peer));
        }
        // Resources that entered or left a group, or changed: their routers.
        for (set, _) in sets.iter().enumerate().filter(|(_, touched)| **touched) {
            for &resource in r.sets.resources(set as u32) {
                r.routers(resource).iter().for_each(|router| agents.insert(router.peer));
            }
        }
        agents
    }

    fn set(&self, r: &Resolved, set: u32) -> bool {
        r.sets.names(
            set,
            |group| self.groups[group as usize],
            |peer| self.peers[peer as usize],
            |resource| self.networks[r.resources[resource as usize].network as usize],
        )
    }
}
