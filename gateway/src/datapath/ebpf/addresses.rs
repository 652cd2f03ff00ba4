//! What the programs know of this host's own addresses: no flow is opened to them, and to no broadcast.

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use sluicegate_engine::family::{Address4, Address6};
use sluicegate_engine::host::HostAddress;

use super::load::take;
use super::pod::{Plain, Raw};
use crate::datapath::host::{HostAddresses, host_addresses};

/// Addresses each map holds.
const MOST: usize = 16_384;

/// The maps of both families.
pub(super) struct AddressMaps {
    four: HashMap<MapData, Raw<Address4>, u32>,
    six: HashMap<MapData, Raw<Address6>, u32>,
    /// As of the last look.
    known: HostAddresses,
    too_many: Option<String>,
}

impl AddressMaps {
    /// Takes the maps out of `ebpf`, and looks for the first time.
    pub(super) fn new(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let mut maps = Self {
            four: take(ebpf, "HOST_ADDRESSES4")?,
            six: take(ebpf, "HOST_ADDRESSES6")?,
            known: HostAddresses::new(),
            too_many: None,
        };
        maps.look()?;
        Ok(maps)
    }

    /// Makes the maps say which addresses the host has now. Those that are gone make room first.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        let now = host_addresses().context("the host's addresses could not be read")?;
        if now == self.known {
            return Ok(());
        }
        let mut room = [MOST; 2];
        let mut kept = HostAddresses::new();
        for (address, what) in &now {
            let room = &mut room[usize::from(four(address).is_none())];
            if *room > 0 {
                *room -= 1;
                kept.insert(*address, *what);
            }
        }
        self.too_many = (kept.len() < now.len()).then(|| {
            format!(
                "the host has {} addresses and broadcasts, the programs know {} of them, and flows to the others are not \
                 refused",
                now.len(),
                kept.len()
            )
        });
        for address in self.known.keys().filter(|address| !kept.contains_key(*address)) {
            let removed = match four(address) {
                Some(v4) => self.four.remove(&Raw(v4)),
                None => self.six.remove(&Raw(Address6(*address))),
            };
            match removed {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(e).context("a map of the host's addresses could not be written"),
            }
        }
        for (address, what) in kept.iter().filter(|(address, what)| self.known.get(*address) != Some(what)) {
            let written = match four(address) {
                Some(v4) => put(&mut self.four, v4, *what),
                None => put(&mut self.six, Address6(*address), *what),
            };
            written.context("a map of the host's addresses could not be written")?;
        }
        self.known = kept;
        Ok(())
    }

    /// What an address is to this host, as of the last look; IPv4 in its mapped form.
    pub(super) fn get(&self, address: &[u8; 16]) -> Option<HostAddress> {
        self.known.get(address).copied()
    }

    /// What a person should know of it.
    pub(super) fn degraded(&self) -> Option<&String> {
        self.too_many.as_ref()
    }
}

fn put<A: Plain>(
    map: &mut HashMap<MapData, Raw<A>, u32>,
    address: A,
    what: HostAddress,
) -> Result<(), MapError> {
    map.insert(Raw(address), what as u32, 0)
}

/// The IPv4 address in its mapped form.
fn four(address: &[u8; 16]) -> Option<Address4> {
    std::net::Ipv6Addr::from(*address).to_ipv4_mapped().map(Address4::from)
}
