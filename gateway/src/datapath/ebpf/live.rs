//! The pinned maps, to be looked at.

use sluicegate_engine::classify::Line;
use sluicegate_engine::family::{Address4, Address6};
use sluicegate_engine::flow::{Flow, Key};
use sluicegate_engine::tables::{Active, Config, Egress, Stage};

use super::EbpfDatapath;
use crate::datapath::Live;

/// What the programs judge by.
pub(super) struct LiveMaps<'a> {
    pub(super) datapath: &'a EbpfDatapath,
    pub(super) now: u64,
}

impl Live for LiveMaps<'_> {
    fn now(&self) -> u64 {
        self.now
    }

    fn hz(&self) -> u32 {
        self.datapath.hz
    }

    fn config(&self) -> Config {
        self.datapath.settings
    }

    fn active(&self) -> Active {
        self.datapath.images.active()
    }

    fn image(&self) -> &[Line] {
        self.datapath.images.lines()
    }

    fn egress(&self, route: u16) -> Option<Egress> {
        self.datapath.egress.get(&u32::from(route), 0).ok().map(|egress| egress.0)
    }

    fn flow4(&self, stage: Stage, key: &Key<Address4>) -> Option<Flow<Address4>> {
        self.datapath.flows4.get(stage, key)
    }

    fn flow6(&self, stage: Stage, key: &Key<Address6>) -> Option<Flow<Address6>> {
        self.datapath.flows6.get(stage, key)
    }

    fn is_full(&self, version: u8) -> bool {
        let entries =
            if version == 4 { self.datapath.flows4.entries() } else { self.datapath.flows6.entries() };
        entries >= u64::from(self.datapath.sizes.flow_entries)
    }
}
