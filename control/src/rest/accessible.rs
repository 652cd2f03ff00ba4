//! Which peers a peer and its policies have to do with: those at the other end of a rule that names it.

use std::collections::{BTreeSet, HashMap};

use sluicegate_policy::model::{End, State};

/// The answer for every peer of a state.
pub(super) struct Accessible<'a> {
    state: &'a State,
    /// The ends that face each peer.
    facing: HashMap<&'a str, BTreeSet<Facing<'a>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Facing<'a> {
    Group(&'a str),
    Peer(&'a str),
}

impl<'a> Accessible<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        let mut facing = HashMap::<&str, BTreeSet<Facing<'_>>>::new();
        for rule in state.policies.values().filter(|policy| policy.enabled).flat_map(|policy| &policy.rules) {
            if !rule.enabled {
                continue;
            }
            for (near, far) in [(&rule.sources, &rule.destinations), (&rule.destinations, &rule.sources)] {
                let far = ends(far);
                for peer in peers(state, near) {
                    facing.entry(peer).or_default().extend(&far);
                }
            }
        }
        Accessible { state, facing }
    }

    /// Ids of the peers that `peer` has to do with.
    pub(super) fn of(&self, peer: &str) -> BTreeSet<&'a str> {
        let mut found = self.facing.get(peer).map(|facing| self.union(facing)).unwrap_or_default();
        found.remove(peer);
        found
    }

    /// How many they are, of every peer; peers that face the same ends share the work.
    pub(super) fn counts(&self) -> HashMap<&'a str, usize> {
        let mut unions = HashMap::<&BTreeSet<Facing<'_>>, BTreeSet<&str>>::new();
        self.facing
            .iter()
            .map(|(peer, facing)| {
                let union = unions.entry(facing).or_insert_with(|| self.union(facing));
                (*peer, union.len() - usize::from(union.contains(peer)))
            })
            .collect()
    }

    fn union(&self, facing: &BTreeSet<Facing<'a>>) -> BTreeSet<&'a str> {
        let mut union = BTreeSet::new();
        for end in facing {
            match end {
                Facing::Peer(id) => union.extend(allowed(self.state, id)),
                Facing::Group(id) => union.extend(group_peers(self.state, id)),
            }
        }
        union
    }
}

fn ends(end: &End) -> Vec<Facing<'_>> {
    match end {
        End::Groups(groups) => groups.iter().map(|id| Facing::Group(id)).collect(),
        End::Peer(id) => vec![Facing::Peer(id)],
        End::Resource(_) => Vec::new(),
    }
}

fn peers<'a>(state: &'a State, end: &'a End) -> Vec<&'a str> {
    match end {
        End::Groups(groups) => groups.iter().flat_map(|id| group_peers(state, id)).collect(),
        End::Peer(id) => allowed(state, id).into_iter().collect(),
        End::Resource(_) => Vec::new(),
    }
}

fn group_peers<'a>(state: &'a State, id: &str) -> impl Iterator<Item = &'a str> {
    state.groups.get(id).into_iter().flat_map(|group| &group.peers).filter_map(|id| allowed(state, id))
}

fn allowed<'a>(state: &'a State, id: &str) -> Option<&'a str> {
    state.peers.get_key_value(id).filter(|(_, peer)| peer.allowed).map(|(id, _)| id.as_str())
}
