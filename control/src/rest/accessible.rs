//! Which peers a peer and its policies have to do with: those at the other end of a rule that names it.

use std::collections::{BTreeSet, HashMap};

use sluicegate_policy::model::{End, State};

/// The answer for every peer of a state.
///
/// Peers are numbered, and a set of them is a row of bits. Each side of a rule is added up once, and that to what faces each end, a
/// group as a rule, of the other side: as many rows as the rule has ends, and not as it has pairs of them. Of a peer is added up only
/// what faces the few ends that it is in. Of ten thousand peers in five groups each, with ten thousand rules from one to another of a
/// thousand groups, those are ninety thousand rows of 1.2 KB.
pub(super) struct Accessible<'a> {
    /// Ids of the peers that are let in, by number.
    ids: Vec<&'a str>,
    /// Who is at the other end of rules that name an end.
    reach: Vec<Members>,
    /// The ends that each peer is in and that some rule names, by number.
    own: Vec<Vec<usize>>,
}

/// A set of peers, one bit each.
#[derive(Clone)]
struct Members(Vec<u64>);

impl Members {
    fn of(count: usize, numbers: impl Iterator<Item = usize>) -> Self {
        let mut members = Self(vec![0; count.div_ceil(64)]);
        numbers.for_each(|number| members.0[number / 64] |= 1 << (number % 64));
        members
    }

    fn add(&mut self, others: &Self) {
        self.0.iter_mut().zip(&others.0).for_each(|(own, other)| *own |= other);
    }

    fn contains(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    fn numbers(&self) -> impl Iterator<Item = usize> {
        let bits = |(index, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| 64 * index + bit)
        };
        self.0.iter().enumerate().filter(|(_, word)| **word != 0).flat_map(bits)
    }

    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Named<'a> {
    Group(&'a str),
    Peer(&'a str),
}

impl<'a> Accessible<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        let allowed = state.peers.iter().filter(|(_, peer)| peer.allowed);
        let ids: Vec<&str> = allowed.map(|(id, _)| id.as_str()).collect();
        let mut ends = Vec::new();
        let mut known = HashMap::new();
        let mut number = |end: Named<'a>| {
            *known.entry(end).or_insert_with(|| {
                ends.push(Members::of(ids.len(), numbers(&ids, state, end).into_iter()));
                ends.len() - 1
            })
        };
        let rules = state.policies.values().filter(|policy| policy.enabled).flat_map(|policy| &policy.rules);
        let rules: Vec<[Vec<usize>; 2]> = rules
            .filter(|rule| rule.enabled)
            .map(|rule| [&rule.sources, &rule.destinations].map(|end| named(end).map(&mut number).collect()))
            .collect();
        let nobody = Members::of(ids.len(), std::iter::empty());
        let mut reach = vec![nobody.clone(); ends.len()];
        for [sources, destinations] in &rules {
            for (near, far) in [(sources, destinations), (destinations, sources)] {
                let mut union = nobody.clone();
                far.iter().for_each(|end| union.add(&ends[*end]));
                near.iter().for_each(|end| reach[*end].add(&union));
            }
        }
        let mut own = vec![Vec::new(); ids.len()];
        for (end, _) in reach.iter().enumerate().filter(|(_, reach)| reach.numbers().next().is_some()) {
            ends[end].numbers().for_each(|peer: usize| own[peer].push(end));
        }
        Self { ids, reach, own }
    }

    /// Ids of the peers that `peer` has to do with.
    pub(super) fn of(&self, peer: &str) -> BTreeSet<&'a str> {
        let Ok(number) = self.ids.binary_search(&peer) else { return BTreeSet::new() };
        let union = self.union(number);
        union.numbers().filter(|other| *other != number).map(|other| self.ids[other]).collect()
    }

    /// How many they are, of every peer that has to do with any.
    pub(super) fn counts(&self) -> HashMap<&'a str, usize> {
        let concerned = (0..self.ids.len()).filter(|number| !self.own[*number].is_empty());
        let count = |number: usize| {
            let union = self.union(number);
            (self.ids[number], union.count() - usize::from(union.contains(number)))
        };
        concerned.map(count).collect()
    }

    fn union(&self, number: usize) -> Members {
        let mut union = Members::of(self.ids.len(), std::iter::empty());
        self.own[number].iter().for_each(|end| union.add(&self.reach[*end]));
        union
    }
}

/// Numbers of the peers of an end that are let in.
fn numbers(ids: &[&str], state: &State, end: Named<'_>) -> Vec<usize> {
    let number = |id: &str| ids.binary_search(&id).ok();
    match end {
        Named::Peer(id) => number(id).into_iter().collect(),
        Named::Group(id) => {
            let group = state.groups.get(id);
            group.into_iter().flat_map(|group| &group.peers).filter_map(|id| number(id)).collect()
        }
    }
}

fn named(end: &End) -> impl Iterator<Item = Named<'_>> {
    let (groups, peer) = match end {
        End::Groups(groups) => (Some(groups), None),
        End::Peer(id) => (None, Some(id)),
        End::Resource(_) => (None, None),
    };
    let groups = groups.into_iter().flatten().map(|id| Named::Group(id));
    groups.chain(peer.map(|id| Named::Peer(id)))
}

#[cfg(test)]
mod tests {

    use sluicegate_policy::model::{Action, Group, Peer, Policy, Rule, Service};

    use super::*;

    fn rule(sources: End, destinations: End) -> Rule {
        Rule {
            id: "r".into(),
            name: "r".into(),
            slot: 0,
            enabled: true,
            action: Action::Accept,
            bidirectional: false,
            service: Service::All,
            sources,
            destinations,
        }
    }

    /// Seventy peers, so that there is more than one word of bits; `p03` is not let in.
    fn state(rules: Vec<Rule>) -> State {
        let ids = (0..70u8).map(|n| format!("p{n:02}"));
        let peers = ids.clone().zip(0u8..).map(|(id, n)| {
            let (v4, v6) = ([100, 64, 0, n].into(), [0xfd64, 0, 0, 0, 0, 0, 0, u16::from(n)].into());
            (id.clone(), Peer { name: id, v4, v6, allowed: n != 3 })
        });
        let group = |range: std::ops::Range<usize>| Group {
            name: "g".into(),
            peers: ids.clone().skip(range.start).take(range.len()).collect(),
            ..Group::default()
        };
        let policy = Policy {
            name: "p".into(),
            enabled: true,
            posture_failed: Default::default(),
            rules: rules.into(),
        };
        State {
            overlay_v4: "100.64.0.0/16".parse().unwrap(),
            overlay_v6: "fd64::/64".parse().unwrap(),
            peers: peers.collect(),
            groups: [("low".into(), group(0..5)), ("high".into(), group(60..70))].into(),
            networks: Default::default(),
            policies: [("p".into(), policy)].into(),
        }
    }

    fn groups(id: &str) -> End {
        End::Groups([id.to_owned()].into())
    }

    #[test]
    fn both_ends_of_a_rule_have_to_do_with_each_other_and_nobody_with_itself() {
        let state =
            state(vec![rule(groups("low"), groups("high")), rule(End::Peer("p00".into()), groups("low"))]);
        let accessible = Accessible::new(&state);
        let high: BTreeSet<String> = (60..70).map(|n| format!("p{n}")).collect();
        let low: BTreeSet<String> = [0, 1, 2, 4].map(|n| format!("p{n:02}")).into();
        let of = |id: &str| accessible.of(id).into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(of("p65"), low, "who is not let in is not there");
        assert_eq!(of("p00"), high.iter().chain(&low).filter(|id| *id != "p00").cloned().collect());
        assert_eq!(of("p04"), high.into_iter().chain(["p00".into()]).collect());
        assert_eq!((of("p03"), of("p30")), (BTreeSet::new(), BTreeSet::new()));
        let counts = accessible.counts();
        for id in state.peers.keys() {
            assert_eq!(counts.get(id.as_str()).copied().unwrap_or_default(), of(id).len(), "{id}");
        }
    }

    /// Rule by rule and peer by peer.
    fn plainly<'a>(state: &'a State, peer: &str) -> BTreeSet<&'a str> {
        let is_in = |end: &End, id: &str| match end {
            End::Groups(groups) => groups
                .iter()
                .any(|group| state.groups.get(group).is_some_and(|group| group.peers.contains(id))),
            End::Peer(peer) => peer == id,
            End::Resource(_) => false,
        };
        let mut found = BTreeSet::new();
        for rule in state.policies.values().filter(|policy| policy.enabled).flat_map(|policy| &policy.rules) {
            for (near, far) in [(&rule.sources, &rule.destinations), (&rule.destinations, &rule.sources)] {
                if rule.enabled && state.peers[peer].allowed && is_in(near, peer) {
                    let others = state.peers.iter().filter(|(id, other)| other.allowed && is_in(far, id));
                    found.extend(others.map(|(id, _)| id.as_str()).filter(|id| *id != peer));
                }
            }
        }
        found
    }

    #[test]
    fn every_end_of_one_side_has_to_do_with_every_end_of_the_other_and_not_of_its_own() {
        let several = |ids: &[&str]| End::Groups(ids.iter().map(|id| (*id).to_owned()).collect());
        let mut state = state(vec![rule(several(&["low", "nothing"]), several(&["high", "middle"]))]);
        let peers = ["p30".to_owned(), "p31".to_owned()].into();
        let middle = Group { name: "g".into(), peers, ..Group::default() };
        state.groups.insert("middle".into(), middle);
        let accessible = Accessible::new(&state);
        let count = |id: &str| accessible.of(id).len();
        assert_eq!((count("p00"), count("p30"), count("p60")), (12, 4, 4));
        assert!(!accessible.of("p30").contains("p31"));
    }

    #[test]
    fn whatever_the_rules_are_it_is_what_a_plain_look_at_each_of_them_finds() {
        use rand::{RngExt, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(4);
        let mut most = 0;
        for _ in 0..40 {
            let mut end = || match random.random_range(0..6) {
                0 => End::Peer(format!("p{:02}", random.random_range(0..80))),
                1 => End::Resource("r".into()),
                _ => End::Groups(
                    (0..random.random_range(0..4))
                        .map(|_| format!("g{}", random.random_range(0..12)))
                        .collect(),
                ),
            };
            let rules = (0..8).map(|_| rule(end(), end())).collect();
            let mut state = state(rules);
            for group in 0..10 {
                let ids = state.peers.keys().filter(|_| random.random_ratio(1, 9)).cloned().collect();
                let group = (format!("g{group}"), Group { name: "g".into(), peers: ids, ..Group::default() });
                state.groups.insert(group.0, group.1);
            }
            let mut policy = state.policies["p"].clone();
            policy.rules = policy
                .rules
                .iter()
                .cloned()
                .map(|rule| Rule { enabled: random.random_ratio(5, 6), ..rule })
                .collect();
            state.policies.insert("p".into(), policy.clone());
            state.policies.insert("q".into(), Policy { enabled: random.random(), ..policy });
            let accessible = Accessible::new(&state);
            let counts = accessible.counts();
            for id in state.peers.keys() {
                let plain = plainly(&state, id);
                assert_eq!(accessible.of(id), plain, "{id}");
                assert_eq!(counts.get(id.as_str()).copied().unwrap_or_default(), plain.len(), "{id}");
                most = most.max(plain.len());
            }
        }
        assert!(most > 30, "{most}");
    }
}
