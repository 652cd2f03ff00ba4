//! The tables in this process, to be looked at.

use std::ops::Deref;
use std::sync::MutexGuard;

use sluicegate_engine::classify::Line;
use sluicegate_engine::family::{Address4, Address6};
use sluicegate_engine::flow::{Flow, Key};
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey};
use sluicegate_engine::tables::{Active, Config, Egress, Stage};

use super::judge::State;
use super::tables::UserTables;
use crate::datapath::Live;

/// User-space tables at one moment; they are locked for as long as this lives.
pub struct LiveTables<T> {
    tables: T,
    now: u64,
}

/// The lock on a judge's tables.
pub(super) struct Locked<'a>(pub(super) MutexGuard<'a, State>);

impl Deref for Locked<'_> {
    type Target = UserTables;

    fn deref(&self) -> &UserTables {
        &self.0.tables
    }
}

impl<T: Deref<Target = UserTables>> LiveTables<T> {
    /// `tables` at `now`, ticks.
    pub fn new(tables: T, now: u64) -> Self {
        Self { tables, now }
    }
}

impl<T: Deref<Target = UserTables>> Live for LiveTables<T> {
    fn now(&self) -> u64 {
        self.now
    }

    fn hz(&self) -> u32 {
        self.tables.hz()
    }

    fn config(&self) -> Config {
        *self.tables.config_ref()
    }

    fn active(&self) -> Active {
        self.tables.in_force()
    }

    fn image(&self) -> &[Line] {
        self.tables.image()
    }

    fn egress(&self, route: u16) -> Option<Egress> {
        self.tables.egress_of(route)
    }

    fn flow4(&self, stage: Stage, key: &Key<Address4>) -> Option<Flow<Address4>> {
        self.tables.peek4(stage, key)
    }

    fn flow6(&self, stage: Stage, key: &Key<Address6>) -> Option<Flow<Address6>> {
        self.tables.peek6(stage, key)
    }

    fn openings4(&self, source: &Address4) -> Option<Openings> {
        self.tables.peek_openings4(source)
    }

    fn mapping4(&self, key: &MappingKey<Address4>) -> Option<Mapping<Address4>> {
        self.tables.peek_mapping4(key)
    }

    fn openings6(&self, source: &Address6) -> Option<Openings> {
        self.tables.peek_openings6(source)
    }

    fn mapping6(&self, key: &MappingKey<Address6>) -> Option<Mapping<Address6>> {
        self.tables.peek_mapping6(key)
    }

    fn host_address(&self, address: &[u8; 16]) -> Option<HostAddress> {
        self.tables.host_address_of(address)
    }

    fn is_hosts(&self, _: u16) -> bool {
        // Each masquerade port is a socket of the host's own here: the host sees to it.
        false
    }

    fn is_full(&self, version: u8) -> bool {
        self.tables.is_full(version)
    }
}
