//! Who opens flows: kinds of sources, each with a row of its own.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use super::lanes::Lanes;
use super::shares::Alone;
use crate::resolve::{Resolved, Scope, SetId};

/// The sources of one agent's image.
#[derive(Debug)]
pub(super) struct Sources {
    /// Peers by the sets that inbound halves start at; without the agent itself, which is the source of outbound halves, and of
    /// no others.
    pub(super) lanes: Lanes,
    /// Peers the agent knows: neighbours without a right are told from strangers, since a packet of theirs is not spoofed, it
    /// is not permitted.
    pub(super) known: Vec<bool>,
}

impl Sources {
    /// `rows` has what the row of a set is alone, for each set that inbound halves start at; `price` as
    /// in [`Lanes`]. Breaks off when all rows take more than about `most` words.
    pub(super) fn new(
        r: &Resolved,
        scope: &Scope,
        rows: &FxHashMap<SetId, Alone>,
        price: Option<u64>,
        most: u64,
    ) -> Self {
        let known = known(r, scope, rows.keys().copied());
        // Which lane a set gets depends on those before it: their order must not depend on how they are numbered.
        let key = |set: SetId| if price.is_some() { r.sets.key(set) } else { 0 };
        let order = |set: SetId, row: &Alone| (Reverse(r.sets.peers(set).len()), key(set), row.first);
        let mut sets: Vec<_> = rows.iter().map(|(&set, row)| (order(set, row), set, row.words)).collect();
        sets.sort_unstable();
        let mut lanes = Lanes::new(r.peers.len(), price).of_count(r.peers.by_v4.len());
        let mut others = Vec::new();
        for (_, set, weight) in sets {
            others.clear();
            others.extend(r.sets.peers(set).iter().copied().filter(|&peer| Some(peer) != scope.me));
            lanes.add(set, &others, weight);
            if lanes.weight() > most {
                break;
            }
        }
        Self { lanes, known }
    }
}

/// Whom the agent knows: its neighbours, members of these sets, which are those that inbound halves start at, and itself.
pub(super) fn known(r: &Resolved, scope: &Scope, sets: impl Iterator<Item = SetId>) -> Vec<bool> {
    let mut known = vec![false; r.peers.len()];
    // Whoever opens flows to the agent is in one of the sets. Neighbours beside are whom the agent opens flows to.
    for set in sets.chain(scope.destinations(r)) {
        r.sets.peers(set).iter().for_each(|&peer| known[peer as usize] = true);
    }
    let routers = scope.opened_resources(r).into_iter().flat_map(|resource| r.routers(resource));
    routers.map(|router| router.peer).chain(scope.me).for_each(|peer| known[peer as usize] = true);
    known
}
