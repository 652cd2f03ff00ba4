//! Who is in which group, by numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::peers::Turned;
use super::{Lists, Peers};
use crate::compile::in_one;
use crate::model::{Group, Shared, State};

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

/// Whatever gives members their numbers.
pub(super) trait Numbers {
    fn of(&self, id: &str) -> Option<u32>;

    /// One more than the highest.
    fn count(&self) -> usize;
}

impl Numbers for FxHashMap<Arc<str>, u32> {
    fn of(&self, id: &str) -> Option<u32> {
        self.get(id).copied()
    }

    fn count(&self) -> usize {
        self.len()
    }
}

impl Numbers for Peers {
    fn of(&self, id: &str) -> Option<u32> {
        self.number(id)
    }

    fn count(&self) -> usize {
        self.len()
    }
}

impl Membership {
    pub(super) fn new(state: &State, peers: &Peers, resources: &impl Numbers) -> Self {
        Self {
            peers: Arc::new(Sides::new(state, |group| &group.peers, peers)),
            resources: Arc::new(Sides::new(state, |group| &group.resources, resources)),
        }
    }

    /// Of a state that has the groups of `old`, which this is of. Of its peers only those that are `turned` have other numbers than
    /// `before`; all resources may, if there are `other_resources`.
    pub(super) fn after(
        &self,
        state: &State,
        old: &State,
        peers: &Peers,
        resources: &impl Numbers,
        (turned, before): (&Turned<'_>, &Peers),
        other_resources: bool,
    ) -> Self {
        let of_group: Members = |group| &group.resources;
        let resources = match other_resources {
            true => Arc::new(Sides::new(state, of_group, resources)),
            false => self.resources.after(state, old, of_group, [resources; 2], &Turned::new()),
        };
        Self { peers: self.peers.after(state, old, |group| &group.peers, [before, peers], turned), resources }
    }
}

type Members = fn(&Group) -> &Shared<BTreeSet<String>>;

impl Sides {
    fn new(state: &State, members: Members, numbers: &impl Numbers) -> Self {
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        for (group, number) in state.groups.values().zip(0..) {
            let known = members(group).iter().filter_map(|id| numbers.of(id));
            pairs.extend(known.map(|member| (number, member)));
        }
        let of_group = Lists::new(state.groups.len(), &pairs);
        pairs.iter_mut().for_each(|pair| *pair = (pair.1, pair.0));
        Self { of_group, groups_of: Lists::new(numbers.count(), &pairs) }
    }

    /// Of a state that follows another, with the numbers of both.
    fn after(
        self: &Arc<Self>,
        state: &State,
        old: &State,
        members: Members,
        [was, is]: [&impl Numbers; 2],
        turned: &Turned<'_>,
    ) -> Arc<Self> {
        let mut changed: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut moved: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for ((now, before), group) in state.groups.values().zip(old.groups.values()).zip(0..) {
            let (now, before) = (members(now), members(before));
            let (left, entered) = if now.is_same(before) { Default::default() } else { in_one(before, now) };
            let of_turned = turned.iter().copied();
            let left = left.into_iter().chain(of_turned.clone().filter(|&id| before.contains(id)));
            let entered = entered.into_iter().chain(of_turned.filter(|&id| now.contains(id)));
            let left: BTreeSet<u32> = left.filter_map(|id| was.of(id)).collect();
            let entered: BTreeSet<u32> = entered.filter_map(|id| is.of(id)).collect();
            if left.is_empty() && entered.is_empty() {
                continue;
            }
            let list = changed.entry(group).or_insert_with(|| self.of_group.get(group).to_vec());
            let both = left.iter().map(|&member| (member, false)).chain(entered.iter().map(|&m| (m, true)));
            for (member, enters) in both {
                turn(list, member, enters);
                let groups = moved.entry(member).or_insert_with(|| self.groups_of.get(member).to_vec());
                turn(groups, group, enters);
            }
        }
        if changed.is_empty() {
            return self.clone();
        }
        let of_group = self.of_group.with(&changed, state.groups.len());
        Arc::new(Self { of_group, groups_of: self.groups_of.with(&moved, is.count()) })
    }
}

/// Lets an item be in a rising list, or not.
fn turn(list: &mut Vec<u32>, item: u32, is_in: bool) {
    match list.binary_search(&item) {
        Err(at) if is_in => list.insert(at, item),
        Ok(at) if !is_in => drop(list.remove(at)),
        _ => {}
    }
}
