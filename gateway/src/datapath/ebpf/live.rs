//! The pinned maps, to be looked at.

use aya::Ebpf;
use aya::maps::{HashMap as BpfMap, MapData};
use sluicegate_engine::classify::Line;
use sluicegate_engine::family::{Address4, Address6};
use sluicegate_engine::flow::{Flow, Key};
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey};
use sluicegate_engine::tables::{Active, Config, Egress, Stage};

use super::EbpfDatapath;
use super::pod::{Plain, Raw};
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
        self.datapath.ways.get(self.active().half(), route)
    }

    fn flow4(&self, stage: Stage, key: &Key<Address4>) -> Option<Flow<Address4>> {
        self.datapath.flows4.get(stage, key)
    }

    fn flow6(&self, stage: Stage, key: &Key<Address6>) -> Option<Flow<Address6>> {
        self.datapath.flows6.get(stage, key)
    }

    fn openings4(&self, source: &Address4) -> Option<Openings> {
        openings(&self.datapath.ebpf, "OPENINGS4", source)
    }

    fn mapping4(&self, key: &MappingKey<Address4>) -> Option<Mapping<Address4>> {
        self.datapath.mappings4.get(key)
    }

    fn openings6(&self, source: &Address6) -> Option<Openings> {
        openings(&self.datapath.ebpf, "OPENINGS6", source)
    }

    fn mapping6(&self, key: &MappingKey<Address6>) -> Option<Mapping<Address6>> {
        self.datapath.mappings6.get(key)
    }

    fn host_address(&self, address: &[u8; 16]) -> Option<HostAddress> {
        self.datapath.addresses.get(address)
    }

    fn is_hosts(&self, port: u16) -> bool {
        self.datapath.ports.has(port)
    }

    fn is_full(&self, version: u8) -> bool {
        let entries =
            if version == 4 { self.datapath.flows4.entries() } else { self.datapath.flows6.entries() };
        entries >= u64::from(self.datapath.sizes.flow_entries)
    }
}

/// An entry of the map called `name`; looking does not make it more recently used.
fn openings<A: Plain>(ebpf: &Ebpf, name: &str, source: &A) -> Option<Openings> {
    let map: BpfMap<&MapData, Raw<A>, Raw<Openings>> = ebpf.map(name)?.try_into().ok()?;
    map.get(&Raw(*source), 0).ok().map(|openings| openings.0)
}
