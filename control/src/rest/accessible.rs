//! Which peers a peer and its policies have to do with: those at the other end of a rule that names it.

use std::collections::{BTreeSet, HashMap};

use sluicegate_policy::model::{End, State};

/// The answer for every peer of a state.
///
/// Peers are numbered, and the peers of an end are a row of bits: of ten thousand peers with fifty ends each, the union of them all
/// is half a million rows of 1.2 KB, a tenth of a second.
pub(super) struct Accessible<'a> {
    /// Ids of the peers that are let in, by number.
    ids: Vec<&'a str>,
    /// Each end that some rule names.
    ends: Vec<Members>,
    /// The ends that face each peer.
    facing: HashMap<&'a str, BTreeSet<usize>>,
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
        let mut found = Self { ids, ends: Vec::new(), facing: HashMap::new() };
        let mut known = HashMap::new();
        for rule in state.policies.values().filter(|policy| policy.enabled).flat_map(|policy| &policy.rules) {
            if !rule.enabled {
                continue;
            }
            for (near, far) in [(&rule.sources, &rule.destinations), (&rule.destinations, &rule.sources)] {
                let far: Vec<usize> = named(far)
                    .map(|end| *known.entry(end).or_insert_with(|| found.add_end(state, end)))
                    .collect();
                let near: Vec<usize> = named(near).flat_map(|end| found.numbers(state, end)).collect();
                for number in near {
                    found.facing.entry(found.ids[number]).or_default().extend(&far);
                }
            }
        }
        found
    }

    /// Ids of the peers that `peer` has to do with.
    pub(super) fn of(&self, peer: &str) -> BTreeSet<&'a str> {
        let Some(facing) = self.facing.get(peer) else { return BTreeSet::new() };
        let union = self.union(facing);
        let others =
            self.ids.iter().enumerate().filter(|(number, id)| **id != peer && union.contains(*number));
        others.map(|(_, id)| *id).collect()
    }

    /// How many they are, of every peer.
    pub(super) fn counts(&self) -> HashMap<&'a str, usize> {
        let count = |(peer, facing): (&&'a str, &BTreeSet<usize>)| {
            let union = self.union(facing);
            let itself = self.ids.binary_search(peer).is_ok_and(|number| union.contains(number));
            (*peer, union.count() - usize::from(itself))
        };
        self.facing.iter().map(count).collect()
    }

    fn union(&self, facing: &BTreeSet<usize>) -> Members {
        let mut union = Members::of(self.ids.len(), std::iter::empty());
        facing.iter().for_each(|end| union.add(&self.ends[*end]));
        union
    }

    fn add_end(&mut self, state: &'a State, end: Named<'a>) -> usize {
        let members = Members::of(self.ids.len(), self.numbers(state, end).into_iter());
        self.ends.push(members);
        self.ends.len() - 1
    }

    /// Numbers of the peers of an end that are let in.
    fn numbers(&self, state: &'a State, end: Named<'a>) -> Vec<usize> {
        let number = |id: &str| self.ids.binary_search(&id).ok();
        match end {
            Named::Peer(id) => number(id).into_iter().collect(),
            Named::Group(id) => {
                let group = state.groups.get(id);
                group.into_iter().flat_map(|group| &group.peers).filter_map(|id| number(id)).collect()
            }
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
}
