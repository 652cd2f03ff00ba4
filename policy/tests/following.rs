//! Whoever follows a state change by change has, after each, the images of one who compiles that state from scratch, word by
//! word and name by name: whatever was kept from the states before, and whichever image it had encoded.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use sluicegate_api::image::Parts;
use sluicegate_policy::model::*;
use sluicegate_policy::{Compiler, Limits};
use support::*;

/// One change: what, to which, and how; and for each agent two bits: whether its image is asked for after it, and another way than
/// by the one that it had. A gateway that a change does not concern is not compiled: what is kept of it may be of a state long before.
type Step = (u8, usize, usize, u16);

/// Bits for all agents.
const AGENTS: usize = PEERS.len() + 1;

fn agents() -> impl Iterator<Item = &'static str> {
    PEERS.into_iter().chain(["unknown"])
}

fn turn(set: &mut Shared<BTreeSet<String>>, id: &str) {
    if !set.remove(id) {
        set.insert(id.to_owned());
    }
}

fn nth<T>(map: &mut Shared<BTreeMap<String, T>>, n: usize) -> Option<&mut T>
where
    T: Clone,
{
    let count = map.len().max(1);
    map.values_mut().nth(n % count)
}

fn free_slot(state: &State) -> u32 {
    state.policies.values().flat_map(|policy| &policy.rules).map(|rule| rule.slot + 1).max().unwrap_or(0)
}

/// Changes what a person or a peer changes at a time. Everything else stays shared with the state before.
fn change(state: &mut State, &(what, which, how, _): &Step) {
    let peer = PEERS[how % PEERS.len()];
    match what {
        0..4 => {
            let Some(group) = nth(&mut state.groups, which) else { return };
            turn(&mut group.peers, peer);
        }
        4 => {
            let ids: Vec<String> =
                state.networks.values().flat_map(|network| network.resources.keys().cloned()).collect();
            let Some(group) = nth(&mut state.groups, which) else { return };
            ids.get(how % ids.len().max(1)).into_iter().for_each(|id| turn(&mut group.resources, id));
        }
        5..8 => {
            let slot = free_slot(state);
            let Some(policy) = nth(&mut state.policies, which) else { return };
            let count = policy.rules.len();
            let Some(rule) = policy.rules.get_mut(how % count.max(1)) else { return };
            match how / 8 % 6 {
                0 => rule.enabled = !rule.enabled,
                1 => rule.bidirectional = !rule.bidirectional,
                2 => std::mem::swap(&mut rule.sources, &mut rule.destinations),
                3 => rule.action = Action::Drop,
                4 => rule.slot = slot,
                _ => rule.service = Service::Tcp(vec![80..=80 + how as u16 % 9]),
            }
        }
        8..11 => {
            let Some(policy) = nth(&mut state.policies, which) else { return };
            if !policy.posture_failed.remove(peer) {
                policy.posture_failed.insert(peer.to_owned());
            }
        }
        11 => nth(&mut state.policies, which).into_iter().for_each(|policy| policy.enabled = !policy.enabled),
        12 => {
            // A policy comes or goes, ahead of others or behind them.
            let id = ["a", "policy1a", "z"][which % 3];
            if state.policies.remove(id).is_none()
                && let Some(mut policy) = nth(&mut state.policies, how).cloned()
            {
                policy.rules.iter_mut().zip(free_slot(state)..).for_each(|(rule, slot)| {
                    rule.slot = slot;
                    rule.id = format!("{id}-{slot}");
                });
                state.policies.insert(id.to_owned(), policy);
            }
        }
        13 => nth(&mut state.peers, which).into_iter().for_each(|peer| peer.allowed = !peer.allowed),
        14 => {
            // Names are in images as well.
            let name = format!("name {how}");
            if let Some(network) = nth(&mut state.networks, which).filter(|_| how % 3 == 0) {
                network.resources.values_mut().take(1).for_each(|resource| resource.name = name.clone());
            } else if let Some(policy) = nth(&mut state.policies, which) {
                let count = policy.rules.len().max(1);
                match how % 3 {
                    1 => policy.name = name,
                    _ => policy
                        .rules
                        .get_mut(how % count)
                        .into_iter()
                        .for_each(|rule| rule.name = name.clone()),
                }
            }
        }
        15 => {
            let Some(network) = nth(&mut state.networks, which) else { return };
            match how % 4 {
                0 => network.resources.values_mut().take(1).for_each(|r| r.enabled = !r.enabled),
                3 => network.resources.values_mut().take(1).for_each(|r| {
                    let name = ["db.example.org", "*.example.org"][how / 4 % 2];
                    r.domain = if r.domain.is_none() { Some(name.to_owned()) } else { None };
                }),
                1 => network.routers.values_mut().take(1).for_each(|r| r.masquerade = !r.masquerade),
                _ => drop(network.resources.pop_first()),
            }
        }
        16..19 => {
            // A peer comes or goes, and groups and rules that name it stay as they are; or it comes into a group at once.
            let id = [PEERS[how % PEERS.len()], "newcomer"][which % 2];
            let known = state.peers.remove(id).is_some();
            if let Some(group) = nth(&mut state.groups, which).filter(|_| how % 4 == 0) {
                turn(&mut group.peers, id);
            }
            if known && how % 3 != 0 {
                return;
            }
            // Ahead of the others, behind them, or between.
            let free = (1..16).filter(|&n| state.peers.values().all(|p| p.v4.octets()[3] != n));
            let free6 = (1..16).filter(|&n| state.peers.values().all(|p| p.v6.segments()[7] != u16::from(n)));
            let (free, free6): (Vec<u8>, Vec<u8>) = (free.collect(), free6.collect());
            let v4 = [100, 64, 0, free[how % free.len()]].into();
            let v6 = format!("fd5c:1::{:x}", free6[which % free6.len()]).parse().unwrap();
            state.peers.insert(id.to_owned(), Peer { name: id.to_owned(), v4, v6, allowed: true });
        }
        19 => {
            // A resource has another prefix, or there is one more, ahead of others or behind them.
            let prefixes = vec![PREFIXES[how % PREFIXES.len()].parse().unwrap()];
            let Some(network) = nth(&mut state.networks, which) else { return };
            let Some((id, first)) = network.resources.first_key_value() else { return };
            let (mut id, mut resource) = (id.clone(), first.clone());
            if how / 20 % 2 == 0 {
                id = format!("{}{id}", ["a", "z"][which / 4 % 2]);
            }
            resource.prefixes = prefixes;
            network.resources.insert(id.clone(), resource);
            if let Some(group) = nth(&mut state.groups, how) {
                group.resources.insert(id);
            }
        }
        _ => {
            if state.groups.remove("ge").is_none() {
                state.groups.insert("ge".to_owned(), Group::default());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn images_are_those_of_one_who_starts_anew(
        mut state in states(),
        to_everybody in any::<bool>(),
        steps in vec((0u8..21, 0usize..64, 0usize..64, any::<u16>()), 1..16),
    ) {
        if to_everybody {
            // Otherwise nearly every state has a resource that is distributed, and its sets are made anew.
            let resources = state.networks.values_mut().flat_map(|network| network.resources.values_mut());
            resources.for_each(|resource| resource.distribution = None);
        }
        let limits = [Limits::default(), apart(0), apart(100)];
        let mut followers = limits.map(|limits| compiler(&state).with_limits(limits).remembering());
        let encoded = |follower: &Compiler| -> BTreeMap<&str, Parts> {
            agents().map(|agent| (agent, follower.compile_parts(agent, None).unwrap())).collect()
        };
        let mut had = followers.each_ref().map(encoded);
        for step in &steps {
            change(&mut state, step);
            for ((follower, limits), had) in followers.iter_mut().zip(limits).zip(&mut had) {
                let scratch = compiler(&state).with_limits(limits);
                let next = Compiler::after(Arc::new(state.clone()), follower).unwrap();
                let affected = next.affected(follower);
                let asked = |place: usize| step.3 >> place & 1 != 0 || ptr::eq(step, steps.last().unwrap());
                for (place, agent) in agents().enumerate().filter(|(place, _)| asked(*place)) {
                    let image = scratch.compile(agent).unwrap();
                    match (step.3 >> (AGENTS + place) & 1, step.2 % 2) {
                        // What the follower has is not what it was told last.
                        (1, 0) => prop_assert_eq!(&next.compile(agent).unwrap(), &image, "{} after {:?}", agent, step),
                        (1, _) => {
                            let parts = next.compile_parts(agent, None).unwrap();
                            prop_assert_eq!(&parts.image().unwrap(), &image, "{} after {:?}", agent, step);
                        }
                        _ => {
                            let parts = next.compile_parts(agent, had.get(agent)).unwrap();
                            prop_assert_eq!(&parts.image().unwrap(), &image, "{} after {:?}", agent, step);
                            prop_assert_eq!(parts.hash(), image.hash());
                            had.insert(agent, parts);
                        }
                    }
                    prop_assert_eq!(next.network(agent), scratch.network(agent), "{} after {:?}", agent, step);
                    // With lists, rows and columns of others may change places: it says the same all the same.
                    if !affected.contains(agent) && limits == Limits::default() {
                        prop_assert_eq!(follower.compile(agent).unwrap(), image, "{} after {:?}", agent, step);
                    }
                    let same = follower.network(agent) == next.network(agent);
                    prop_assert!(same || !next.same_network(follower, agent), "{} after {:?}", agent, step);
                    if !affected.contains(agent) {
                        prop_assert!(same, "{} after {:?}", agent, step);
                    }
                }
                *follower = next;
            }
        }
    }
}

/// Numbers of those who went are given up now and then, all at once.
#[test]
fn a_follower_of_peers_that_come_and_go_all_the_time_is_never_other_than_one_who_starts_anew() {
    let mut state = world();
    let members = names(&["pa", "newcomer"]).into();
    state.groups.insert("ga".to_owned(), Group { name: "ga".into(), peers: members, ..Group::default() });
    let rule = |slot: u32, sources, destinations| Rule {
        id: format!("rule{slot}"),
        name: String::new(),
        slot,
        enabled: true,
        action: Action::Accept,
        bidirectional: true,
        service: Service::All,
        sources,
        destinations,
    };
    let (peer, group) = (|id: &str| End::Peer(id.to_owned()), || End::Groups(names(&["ga"])));
    let rules = vec![rule(1, group(), peer("pb")), rule(2, peer("newcomer"), peer("pc"))];
    let policy = Policy {
        name: String::new(),
        enabled: true,
        posture_failed: Default::default(),
        rules: rules.into(),
    };
    state.policies.insert("policy".to_owned(), policy);
    let mut follower = compiler(&state).remembering();
    let mut had: BTreeMap<&str, Parts> = BTreeMap::new();
    for turn in 0..2_600u32 {
        if state.peers.remove("newcomer").is_none() {
            let (n, name) = (20 + turn % 100, "newcomer".to_owned());
            let (v4, v6) = ([100, 64, 0, n as u8].into(), format!("fd5c:1::{n:x}").parse().unwrap());
            state.peers.insert(name.clone(), Peer { name, v4, v6, allowed: true });
        }
        follower = Compiler::after(Arc::new(state.clone()), &follower).unwrap();
        let scratch = (turn % 50 > 47).then(|| compiler(&state));
        for agent in ["pa", "pb", "pc", "newcomer"] {
            let parts = follower.compile_parts(agent, had.get(agent)).unwrap();
            if let Some(scratch) = &scratch {
                assert_eq!(parts.image().unwrap(), scratch.compile(agent).unwrap(), "{agent} after {turn}");
                assert_eq!(follower.network(agent), scratch.network(agent), "{agent} after {turn}");
            }
            had.insert(agent, parts);
        }
    }
}
