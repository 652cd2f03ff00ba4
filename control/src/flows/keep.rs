//! Which events are kept: the account's settings, with the peers of the groups that they name.

use std::collections::{BTreeMap, HashSet};

use sluicegate_policy::model::{Group, Shared, State};

use super::FlowRecord;
use super::directory::PartyKind;
use crate::store::FlowLog;

/// What is kept of which peers' flows.
#[derive(Clone, Debug)]
pub(super) struct Keep {
    log: FlowLog,
    /// The peers of the groups, where flows are limited to any.
    peers: Option<HashSet<String>>,
    /// What they were found in.
    groups: Shared<BTreeMap<String, Group>>,
}

impl Default for Keep {
    /// Everything, until the account was read.
    fn default() -> Self {
        let log = FlowLog { enabled: true, groups: Vec::new(), counters: true };
        Self { log, peers: None, groups: Shared::default() }
    }
}

impl Keep {
    /// By the account's settings and groups; the same where nothing of them has changed.
    pub(super) fn after(self, log: &FlowLog, state: &State) -> Self {
        if self.log == *log && (log.groups.is_empty() || self.groups.is_same(&state.groups)) {
            return self;
        }
        let peers = (!log.groups.is_empty()).then(|| {
            let groups = log.groups.iter().filter_map(|id| state.groups.get(id));
            groups.flat_map(|group| group.peers.iter().cloned()).collect()
        });
        Self { log: log.clone(), peers, groups: state.groups.clone() }
    }

    /// The settings.
    pub(super) fn log(&self) -> &FlowLog {
        &self.log
    }

    /// Whether a peer's flows are kept.
    pub(super) fn is_in(&self, id: &str) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.contains(id))
    }

    /// Whether an event is kept: any, or one of a peer of the groups, as source, destination or reporter.
    pub(super) fn admits(&self, record: &FlowRecord) -> bool {
        let ends = [&record.source, &record.destination].map(|end| &end.party);
        self.log.enabled
            && (self.is_in(&record.reporter.id)
                || ends.iter().any(|party| party.kind == PartyKind::Peer && self.is_in(&party.id)))
    }

    /// The event as it is kept.
    pub(super) fn kept(&self, mut record: FlowRecord) -> Option<FlowRecord> {
        if !self.log.counters {
            (record.packets, record.bytes) = (0, 0);
        }
        self.admits(&record).then_some(record)
    }
}
