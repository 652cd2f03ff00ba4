//! How frames travel below the devices an operator names: VLAN devices have another below them, where XDP runs and whose
//! frames carry tags, and not every device can send what XDP redirects to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, xdp::DevMapHash};
use sluicegate_engine::flow::Side;
use sluicegate_engine::hop::Link;

use super::load;
use super::netdev;
use super::netlink::{self, Vlan};
use crate::datapath::device;

/// Tags that XDP reads and writes at the most: 802.1Q within 802.1ad.
const TAGS_MAX: usize = 2;

/// A device, and the one below it whose frames carry its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    /// Index of the device itself.
    pub(super) index: u32,
    /// Index and name of the device below all VLANs; the device itself when it is none.
    pub(super) base: (u32, String),
    /// Its tags, outermost first.
    pub(super) vlans: Vec<Vlan>,
    /// Its own link-layer address.
    pub(super) mac: [u8; 6],
}

impl Wire {
    /// The wire of the device called `name`; `None` when it is not there or not an Ethernet.
    pub(super) fn of(name: &str) -> Option<Self> {
        let index = device::index(name)?;
        let mac = netlink::link(index).ok()?.mac?;
        let (mut at, mut vlans) = (index, Vec::new());
        // A chain longer than the tags XDP reads is judged by TC; a loop there cannot be.
        while let Some((below, vlan)) = netlink::link(at).ok()?.vlan {
            vlans.insert(0, vlan);
            at = below;
            if vlans.len() > TAGS_MAX {
                return Some(Self { index, base: (index, name.to_owned()), vlans: Vec::new(), mac });
            }
        }
        Some(Self { index, base: (at, device::name(at).ok()?), vlans, mac })
    }

    /// How a program sends by it; by XDP when the device below `sends`.
    fn link(&self, sends: bool) -> Link {
        let mut tags = [0; 8];
        for (tag, vlan) in tags.chunks_exact_mut(4).zip(&self.vlans) {
            let [[a, b], [c, d]] = [vlan.protocol.to_be_bytes(), vlan.id.to_be_bytes()];
            tag.copy_from_slice(&[a, b, c, d]);
        }
        Link {
            device: if sends { self.base.0 } else { 0 },
            mac: self.mac,
            tags_length: self.vlans.len() as u16 * 4,
            tags,
        }
    }

    /// The ids as the programs key them: one in the lower half, or the outer one above the inner.
    fn key(&self) -> [u32; 2] {
        [self.base.0, self.vlans.iter().fold(0, |key, vlan| key << 16 | u32::from(vlan.id))]
    }
}

/// The maps that tell the XDP programs about wires, and what is in them.
pub(super) struct Wires {
    sides: HashMap<MapData, [u32; 2], u32>,
    senders: DevMapHash<MapData>,
    written: BTreeMap<[u32; 2], u32>,
    sending: BTreeSet<u32>,
    /// Links by index of the device an operator named.
    links: BTreeMap<u32, Link>,
}

impl Wires {
    pub(super) fn new(ebpf: &mut Ebpf, bpf_dir: &Path) -> anyhow::Result<Self> {
        let sides: HashMap<MapData, [u32; 2], u32> = load::take(ebpf, "VLANS")?;
        let written = sides.iter().filter_map(Result::ok).collect();
        let senders = Map::DevMapHash(load::pinned(bpf_dir, "DEVICES")?);
        Ok(Self {
            sides,
            senders: senders.try_into().context("map DEVICES is of another kind")?,
            written,
            sending: BTreeSet::new(),
            links: BTreeMap::new(),
        })
    }

    /// Looks at `overlay` (where it is an Ethernet) and the `site` devices as they are now. Whether any link is another than
    /// before; `whole_path` says that XDP sends frames at all.
    pub(super) fn refresh(
        &mut self,
        overlay: Option<&str>,
        site: &[String],
        whole_path: bool,
    ) -> anyhow::Result<bool> {
        let wires = overlay
            .map(|name| (name, Side::Overlay))
            .into_iter()
            .chain(site.iter().map(|name| (name.as_str(), Side::Site)))
            .filter_map(|(name, side)| Some((Wire::of(name)?, side)));
        let (mut sides, mut links, mut sending) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for (wire, side) in wires {
            if !wire.vlans.is_empty() {
                sides.insert(wire.key(), side as u32);
            }
            let sends = whole_path && netdev::sends_frames(wire.base.0).unwrap_or(false);
            if sends {
                sending.insert(wire.base.0);
            }
            links.insert(wire.index, wire.link(sends));
        }
        self.write_sides(sides)?;
        for gone in self.sending.difference(&sending) {
            // The kernel takes a device out by itself when it goes.
            let _ = self.senders.remove(*gone);
        }
        for index in &sending {
            self.senders
                .insert(*index, *index, None, 0)
                .with_context(|| format!("device {index} could not be written to map DEVICES"))?;
        }
        self.sending = sending;
        let changed = self.links != links;
        self.links = links;
        Ok(changed)
    }

    /// How frames leave by the device with this index.
    pub(super) fn link(&self, index: u32) -> Link {
        self.links.get(&index).copied().unwrap_or_default()
    }

    /// Whether XDP sends by the device called `name`.
    pub(super) fn sends(&self, name: &str) -> bool {
        device::index(name).is_some_and(|index| self.link(index).device != 0)
    }

    fn write_sides(&mut self, sides: BTreeMap<[u32; 2], u32>) -> anyhow::Result<()> {
        for gone in self.written.keys().filter(|key| !sides.contains_key(*key)) {
            let _ = self.sides.remove(gone);
        }
        for (key, side) in &sides {
            if self.written.get(key) != Some(side) {
                self.sides.insert(key, side, 0).context("map VLANS could not be written")?;
            }
        }
        self.written = sides;
        Ok(())
    }
}

/// The name of the device below all VLANs of `name`, where XDP runs for it; `name` itself when it is none, or not there.
pub(super) fn base(name: &str) -> String {
    Wire::of(name).map_or_else(|| name.to_owned(), |wire| wire.base.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_written_outermost_first_and_keyed_the_same() {
        let vlan = |protocol, id| Vlan { protocol, id };
        let wire = |vlans| Wire { index: 9, base: (4, "eth0".into()), vlans, mac: [2, 0, 0, 0, 0, 1] };
        let none = wire(vec![]);
        assert_eq!((none.link(true).tags_length, none.link(true).device, none.link(false).device), (0, 4, 0));
        let one = wire(vec![vlan(0x8100, 100)]);
        assert_eq!((one.link(true).tags, one.key()), ([0x81, 0, 0, 100, 0, 0, 0, 0], [4, 100]));
        let two = wire(vec![vlan(0x88a8, 7), vlan(0x8100, 0x123)]);
        assert_eq!(two.link(true).tags, [0x88, 0xa8, 0, 7, 0x81, 0, 1, 0x23]);
        assert_eq!((two.link(true).tags_length, two.key()), (8, [4, 7 << 16 | 0x123]));
    }
}
