//! What judges packets now, to be looked at and never touched.

use std::hash::Hash;

use sluicegate_engine::classify::Line;
use sluicegate_engine::family::{Address4, Address6, V4, V6};
use sluicegate_engine::flow::{Flow, Key};
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey};
use sluicegate_engine::network::Header;
use sluicegate_engine::tables::{Active, Config, Egress, Egresses, Stage};

/// The tables of a datapath, read-only: what a traced packet is judged by.
pub trait Live {
    /// The clock, ticks.
    fn now(&self) -> u64;

    /// Ticks in a second.
    fn hz(&self) -> u32;

    /// What the operator set.
    fn config(&self) -> Config;

    /// The image in force.
    fn active(&self) -> Active;

    /// Its lines; none before a first image.
    fn image(&self) -> &[Line];

    /// Where a route leaves, by the image in force.
    fn egress(&self, route: u16) -> Option<Egress>;

    /// An IPv4 half-entry.
    fn flow4(&self, stage: Stage, key: &Key<Address4>) -> Option<Flow<Address4>>;

    /// An IPv6 half-entry.
    fn flow6(&self, stage: Stage, key: &Key<Address6>) -> Option<Flow<Address6>>;

    /// What an IPv4 source opened lately; `None` when nothing is known of it.
    fn openings4(&self, source: &Address4) -> Option<Openings>;

    /// The same of an IPv6 source.
    fn openings6(&self, source: &Address6) -> Option<Openings>;

    /// An entry of an IPv4 port mapping.
    fn mapping4(&self, key: &MappingKey<Address4>) -> Option<Mapping<Address4>>;

    /// An entry of an IPv6 port mapping.
    fn mapping6(&self, key: &MappingKey<Address6>) -> Option<Mapping<Address6>>;

    /// What an address is to this host; IPv4 in its mapped form.
    fn host_address(&self, address: &[u8; 16]) -> Option<HostAddress>;

    /// Whether a port is left out of masquerading, because the host uses it.
    fn is_hosts(&self, port: u16) -> bool;

    /// Whether the table of confirmed flows had no room left for another half-entry of this IP version when last looked.
    fn is_full(&self, version: u8) -> bool;
}

/// Picks a family's flows out of [`Live`].
pub trait LiveFamily: Header + Egresses<Address: Hash> {
    /// A half-entry.
    fn flow(live: &dyn Live, stage: Stage, key: &Key<Self::Address>) -> Option<Flow<Self::Address>>;

    /// What a source opened lately.
    fn openings(live: &dyn Live, source: &Self::Address) -> Option<Openings>;

    /// An entry of a port mapping.
    fn mapping(live: &dyn Live, key: &MappingKey<Self::Address>) -> Option<Mapping<Self::Address>>;
}

impl LiveFamily for V4 {
    fn flow(live: &dyn Live, stage: Stage, key: &Key<Address4>) -> Option<Flow<Address4>> {
        live.flow4(stage, key)
    }

    fn openings(live: &dyn Live, source: &Address4) -> Option<Openings> {
        live.openings4(source)
    }

    fn mapping(live: &dyn Live, key: &MappingKey<Address4>) -> Option<Mapping<Address4>> {
        live.mapping4(key)
    }
}

impl LiveFamily for V6 {
    fn flow(live: &dyn Live, stage: Stage, key: &Key<Address6>) -> Option<Flow<Address6>> {
        live.flow6(stage, key)
    }

    fn openings(live: &dyn Live, source: &Address6) -> Option<Openings> {
        live.openings6(source)
    }

    fn mapping(live: &dyn Live, key: &MappingKey<Address6>) -> Option<Mapping<Address6>> {
        live.mapping6(key)
    }
}
