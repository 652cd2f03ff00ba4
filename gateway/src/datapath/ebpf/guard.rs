//! What the underlay guard goes by, in its maps: the port, the rate, the devices, and the host's own addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData};
use sluicegate_engine::guard::{Guard, Limit};

use super::load::take;
use super::pod::Raw;
use super::wires;
use crate::datapath::device::Assigned;
use crate::datapath::{GuardSettings, GuardState, device, host};

/// Source prefixes that are remembered; the least recently seen make room. 64 bytes each or so.
pub(super) const SOURCES: u32 = 65_536;
/// Addresses the guard's map holds.
const ADDRESSES_MAX: usize = 4096;

/// The guard's maps.
pub(super) struct GuardMaps {
    settings: GuardSettings,
    guard: Array<MapData, Raw<Guard>>,
    devices: HashMap<MapData, u32, u32>,
    addresses: HashMap<MapData, [u8; 16], u32>,
    now: Guard,
    too_many: Option<String>,
}

impl GuardMaps {
    /// Takes the maps out of `ebpf`. The port is the one an earlier agent set, until [`Self::set_port`].
    pub(super) fn new(ebpf: &mut Ebpf, settings: &GuardSettings, hz: u32) -> anyhow::Result<Self> {
        let guard: Array<MapData, Raw<Guard>> = take(ebpf, "GUARD")?;
        let port = guard.get(&0, 0).map(|raw| raw.0.port).unwrap_or_default();
        let limit = Limit::new(settings.handshakes_per_second, settings.burst, hz);
        let mut maps = Self {
            settings: settings.clone(),
            guard,
            devices: take(ebpf, "GUARD_DEVICES")?,
            addresses: take(ebpf, "GUARD_ADDRESSES")?,
            now: Guard { limit, port, ..Guard::default() },
            too_many: None,
        };
        maps.refresh()?;
        maps.write()?;
        Ok(maps)
    }

    /// WireGuard listens on this UDP port.
    pub(super) fn set_port(&mut self, port: u16) -> anyhow::Result<()> {
        self.now.port = port;
        self.write()
    }

    /// Makes the maps say which devices there are and which addresses the host has now.
    pub(super) fn refresh(&mut self) -> anyhow::Result<()> {
        // XDP runs below VLANs.
        let devices = self.settings.devices.iter().filter_map(|name| device::index(&wires::base(name)));
        settle(&mut self.devices, devices.collect()).context("map GUARD_DEVICES could not be written")?;
        let assigned = device::addresses().context("the host's addresses could not be read")?;
        let mut addresses = heard(&assigned);
        self.too_many = None;
        if addresses.len() > ADDRESSES_MAX {
            self.too_many = Some(format!(
                "the host has {} addresses and the underlay guard knows {ADDRESSES_MAX} of them; the others are not guarded",
                addresses.len()
            ));
            addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
        }
        settle(&mut self.addresses, addresses).context("map GUARD_ADDRESSES could not be written")
    }

    /// What it does now.
    pub(super) fn state(&self) -> GuardState {
        GuardState {
            devices: self.settings.devices.clone(),
            port: self.now.port,
            handshakes_per_second: self.settings.handshakes_per_second,
            burst: self.settings.burst,
        }
    }

    /// What a person should know of it.
    pub(super) fn degraded(&self) -> Option<&String> {
        self.too_many.as_ref()
    }

    fn write(&mut self) -> anyhow::Result<()> {
        self.guard.set(0, Raw(self.now), 0).context("map GUARD could not be written")
    }
}

/// Every address at which this host hears what is sent: those of every device, and the broadcast addresses of their IPv4
/// networks, which the kernel hears whether or not they were set with the address.
fn heard(assigned: &[Assigned]) -> BTreeSet<[u8; 16]> {
    let mut all = BTreeSet::new();
    for Assigned { address, length, broadcast } in assigned {
        all.insert(host::mapped(*address));
        all.extend(broadcast.map(|v4| host::mapped(v4.into())));
        if let IpAddr::V4(v4) = address
            && *length < 31
            && !v4.is_loopback()
        {
            all.insert(host::mapped(Ipv4Addr::from_bits(v4.to_bits() | u32::MAX >> length).into()));
        }
    }
    all
}

/// Makes `wanted` the keys of `map`; what stays is at no time missing. Those that go first make room.
fn settle<K: aya::Pod + Ord>(
    map: &mut HashMap<MapData, K, u32>,
    wanted: BTreeSet<K>,
) -> Result<(), aya::maps::MapError> {
    let there = map.keys().collect::<Result<BTreeSet<K>, _>>()?;
    for key in there.difference(&wanted) {
        map.remove(key)?;
    }
    for key in wanted.difference(&there) {
        map.insert(key, 1, 0)?;
    }
    Ok(())
}
