//! Who is in which group, by numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Lists;
use crate::model::{Group, Shared, State};

type Numbers = FxHashMap<Arc<str>, u32>;

/// Members of groups, and groups of members.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) peers: Arc<Sides>,
    pub(super) resources: Arc<Sides>,
}

/// One kind of members.
#[derive(Debug)]
pub(super) struct Sides {
    /// The members of each group.
    pub(super) of_group: Lists,
    /// The groups of each member.
    pub(super) groups_of: Lists,
}

impl Membership {
    pub(super) fn new(state: &State, peers: &Numbers, resources: &Numbers) -> Self {
        Self {
            peers: Arc::new(Sides::new(state, |group| &group.peers, peers)),
            resources: Arc::new(Sides::new(state, |group| &group.resources, resources)),
        }
    }

    /// Of a state that has the groups, peers and resources of `old`, which this is of.
    pub(super) fn after(&self, state: &State, old: &State, peers: &Numbers, resources: &Numbers) -> Self {
        let after = |sides: &Arc<Sides>, members: Members, numbers: &Numbers| {
            let groups = state.groups.values().zip(old.groups.values()).zip(0..);
            let changed = groups.filter(|((group, was), _)| !members(group).is_same(members(was)));
            let changed: BTreeMap<u32, Vec<u32>> =
                changed.map(|((group, _), number)| (number, known(members(group), numbers))).collect();
            if changed.is_empty() { sides.clone() } else { Arc::new(sides.with(changed)) }
        };
        Self {
            peers: after(&self.peers, |group| &group.peers, peers),
            resources: after(&self.resources, |group| &group.resources, resources),
        }
    }
}

type Members = fn(&Group) -> &Shared<BTreeSet<String>>;

impl Sides {
    fn new(state: &State, members: Members, numbers: &Numbers) -> Self {
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        for (group, number) in state.groups.values().zip(0..) {
            pairs.extend(known(members(group), numbers).into_iter().map(|member| (number, member)));
        }
        let of_group = Lists::new(state.groups.len(), &pairs);
        pairs.iter_mut().for_each(|pair| *pair = (pair.1, pair.0));
        Self { of_group, groups_of: Lists::new(numbers.len(), &pairs) }
    }

    /// This, with other members in some groups.
    fn with(&self, mut changed: BTreeMap<u32, Vec<u32>>) -> Self {
        let mut moved: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (&group, now) in &mut changed {
            now.sort_unstable();
            let before = self.of_group.get(group);
            let mut groups_of = |member: u32, enters: bool| {
                let groups = moved.entry(member).or_insert_with(|| self.groups_of.get(member).to_vec());
                match groups.binary_search(&group) {
                    Err(at) if enters => groups.insert(at, group),
                    Ok(at) if !enters => drop(groups.remove(at)),
                    _ => {}
                }
            };
            before.iter().filter(|m| now.binary_search(m).is_err()).for_each(|&m| groups_of(m, false));
            now.iter().filter(|m| before.binary_search(m).is_err()).for_each(|&m| groups_of(m, true));
        }
        Self { of_group: self.of_group.with(&changed), groups_of: self.groups_of.with(&moved) }
    }
}

fn known(ids: &BTreeSet<String>, numbers: &Numbers) -> Vec<u32> {
    ids.iter().filter_map(|id| numbers.get(id.as_str()).copied()).collect()
}
