//! Machines whose posture a change turns: the definitions to be, by what the machines said last.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sluicegate_policy::model::State;
use utoipa::ToSchema;

use crate::store::Failing;

/// How many machines of either side are named.
const NAMED: usize = 12;

/// Machines that stand otherwise by the posture checks that policies ask of them, judged by what they reported last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Turns {
    /// Pairs of a machine and a check it comes to fail.
    pub failing: u64,
    /// Some of those.
    pub fails: Vec<Turn>,
    /// Pairs of a machine and a check it failed, and passes or is not asked any more.
    pub passing: u64,
    /// Some of those.
    pub passes: Vec<Turn>,
}

/// A machine and a check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct Turn {
    /// Peer name.
    pub peer: String,
    /// Name of the posture check.
    pub check: String,
    /// Why it fails, or failed.
    pub why: String,
}

impl Turns {
    /// What turns between two lists of who fails what.
    pub(super) fn between(before: &[Failing], after: &[Failing], state: &State) -> Self {
        let pairs = |list: &[Failing]| -> BTreeMap<(String, String), Turn> {
            let each = list.iter().map(|one| {
                let name = state.peers.get(&one.peer).map_or(&one.peer, |peer| &peer.name);
                let (check, why) = (one.check.name.clone(), one.verdict.to_string());
                ((one.peer.clone(), check.clone()), Turn { peer: name.clone(), check, why })
            });
            each.collect()
        };
        let (was, is) = (pairs(before), pairs(after));
        let only = |some: &BTreeMap<(String, String), Turn>, other: &BTreeMap<(String, String), Turn>| {
            let turns =
                some.iter().filter(|(key, _)| !other.contains_key(*key)).map(|(_, turn)| turn.clone());
            turns.collect::<BTreeSet<Turn>>()
        };
        let (fails, passes) = (only(&is, &was), only(&was, &is));
        Self {
            failing: fails.len() as u64,
            fails: fails.into_iter().take(NAMED).collect(),
            passing: passes.len() as u64,
            passes: passes.into_iter().take(NAMED).collect(),
        }
    }
}
