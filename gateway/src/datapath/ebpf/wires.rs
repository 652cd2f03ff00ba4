//! How frames travel below the devices an operator names: VLAN devices have another below them, where XDP runs and whose
//! frames carry tags, and not every device can send what XDP redirects to it.

use std::collections::BTreeMap;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, xdp::DevMapHash};
use sluicegate_engine::flow::Side;
use sluicegate_engine::hop::{self, Link, SERVICE};

use super::load;
use super::netdev;
use super::netlink::{self, Vlan};
use super::pins::Pins;
use super::pod::Raw;
use crate::datapath::{XdpMode, device};

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
    /// Whether it is up, as an operator wants it.
    pub(super) up: bool,
}

impl Wire {
    /// The wire of the device called `name`; `None` when it is not there or not an Ethernet.
    pub(super) fn of(name: &str) -> Option<Self> {
        let index = device::index(name)?;
        let own = netlink::link(index).ok()?;
        let (mac, up) = (own.mac?, own.up);
        let (mut at, mut vlans) = (index, Vec::new());
        // A chain longer than the tags XDP reads is judged by TC; a loop there cannot be.
        while let Some((below, vlan)) = netlink::link(at).ok()?.vlan {
            vlans.insert(0, vlan);
            at = below;
            if vlans.len() > TAGS_MAX {
                return Some(Self { index, base: (index, name.to_owned()), vlans: Vec::new(), mac, up });
            }
        }
        Some(Self { index, base: (at, device::name(at).ok()?), vlans, mac, up })
    }

    /// How a program sends by it; by XDP when it `sends`.
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

    /// The tags as the programs key them: one in the lower half, or the outer one above the inner.
    fn key(&self) -> [u32; 2] {
        let tag = |vlan: &Vlan| u32::from(vlan.id) | if vlan.protocol == 0x88a8 { SERVICE } else { 0 };
        [self.base.0, self.vlans.iter().fold(0, |key, vlan| key << 16 | tag(vlan))]
    }
}

/// The maps that tell the XDP programs about wires, and what is in them.
pub(super) struct Wires {
    wires: HashMap<MapData, [u32; 2], Raw<hop::Wire>>,
    senders: DevMapHash<MapData>,
    written: BTreeMap<[u32; 2], hop::Wire>,
    /// Names of the devices XDP sends by, by index.
    sending: BTreeMap<u32, String>,
    /// Links by index of the device an operator named.
    links: BTreeMap<u32, Link>,
}

impl Wires {
    pub(super) fn new(ebpf: &mut Ebpf, pins: &Pins) -> anyhow::Result<Self> {
        let wires: HashMap<MapData, [u32; 2], Raw<hop::Wire>> = load::take(ebpf, "WIRES")?;
        let written = wires.iter().filter_map(Result::ok).map(|(key, wire)| (key, wire.0)).collect();
        let senders: DevMapHash<MapData> =
            Map::DevMapHash(pins.open("DEVICES")?).try_into().context("map DEVICES is of another kind")?;
        let named = |index: u32| (index, device::name(index).unwrap_or_default());
        let sending = senders.iter().filter_map(Result::ok).map(|(index, _)| named(index)).collect();
        Ok(Self { wires, senders, written, sending, links: BTreeMap::new() })
    }

    /// Looks at `overlay` (where it is an Ethernet) and the `site` devices as they are now. Whether any link is another than
    /// before; `sends` says whether XDP sends by the device with this index.
    pub(super) fn refresh(
        &mut self,
        overlay: Option<&str>,
        site: &[String],
        sends: impl Fn(&(u32, String)) -> bool,
    ) -> anyhow::Result<bool> {
        let wires = overlay
            .map(|name| (name, Side::Overlay))
            .into_iter()
            .chain(site.iter().map(|name| (name.as_str(), Side::Site)))
            .filter_map(|(name, side)| Some((Wire::of(name)?, side)));
        let (mut seen, mut links, mut sending) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (wire, side) in wires {
            let sends = wire.up && sends(&wire.base);
            if sends {
                sending.insert(wire.base.0, wire.base.1.clone());
            }
            if wire.up {
                let told =
                    hop::Wire { side: side as u16, sends: u16::from(sends), mac: wire.mac, padding: 0 };
                seen.insert(wire.key(), told);
            }
            links.insert(wire.index, wire.link(sends));
        }
        self.write_wires(seen)?;
        for gone in self.sending.keys().filter(|index| !sending.contains_key(*index)) {
            // The kernel takes a device out by itself when it goes.
            let _ = self.senders.remove(*gone);
        }
        // One that is there is not written again: the kernel takes the old entry out before it puts the new one in, and what is
        // redirected in between is lost.
        for index in sending.keys() {
            if self.senders.get(*index, 0).is_ok() {
                continue;
            }
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

    /// Whether XDP sends by the device called `name`, for itself or for VLANs on it.
    pub(super) fn sends(&self, name: &str) -> bool {
        self.sending.values().any(|sending| sending == name)
    }

    fn write_wires(&mut self, wires: BTreeMap<[u32; 2], hop::Wire>) -> anyhow::Result<()> {
        for gone in self.written.keys().filter(|key| !wires.contains_key(*key)) {
            let _ = self.wires.remove(gone);
        }
        for (key, wire) in &wires {
            if self.written.get(key) != Some(wire) {
                self.wires.insert(key, Raw(*wire), 0).context("map WIRES could not be written")?;
            }
        }
        self.written = wires;
        Ok(())
    }
}

/// Whether frames that XDP redirects to the device with this index are sent: by the stack's XDP by any, by a driver's where
/// that driver can.
pub(super) fn device_sends(index: u32, mode: XdpMode) -> bool {
    match mode {
        XdpMode::Generic => true,
        XdpMode::Native => netdev::sends_frames(index).unwrap_or(false),
        XdpMode::Off | XdpMode::Refused => false,
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
        let wire =
            |vlans| Wire { index: 9, base: (4, "eth0".into()), vlans, mac: [2, 0, 0, 0, 0, 1], up: true };
        let none = wire(vec![]);
        assert_eq!((none.link(true).tags_length, none.link(true).device, none.link(false).device), (0, 4, 0));
        let one = wire(vec![vlan(0x8100, 100)]);
        assert_eq!((one.link(true).tags, one.key()), ([0x81, 0, 0, 100, 0, 0, 0, 0], [4, 100]));
        let two = wire(vec![vlan(0x88a8, 7), vlan(0x8100, 0x123)]);
        assert_eq!(two.link(true).tags, [0x88, 0xa8, 0, 7, 0x81, 0, 1, 0x23]);
        assert_eq!((two.link(true).tags_length, two.key()), (8, [4, (7 | SERVICE) << 16 | 0x123]));
    }
}
