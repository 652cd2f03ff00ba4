//! How frames travel below the devices an operator names: VLAN devices have another below them, where XDP runs and whose
//! frames carry tags, and not every device can send what XDP redirects to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

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
use crate::tun::index_of;

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
    /// The wire of the device called `name`; `None` when it is not there or not an Ethernet. An error says that the kernel could
    /// not be asked, not that the device is gone.
    pub(super) fn of(name: &str) -> io::Result<Option<Self>> {
        match Self::read(name) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => Ok(None),
            read => read,
        }
    }

    fn read(name: &str) -> io::Result<Option<Self>> {
        let index = index_of(name)?;
        let own = netlink::link(index)?;
        let Some(mac) = own.mac else { return Ok(None) };
        let (up, mut at, mut vlans) = (own.up, index, Vec::new());
        // A chain longer than the tags XDP reads is judged by TC; a loop there cannot be.
        while let Some((below, vlan)) = netlink::link(at)?.vlan {
            vlans.insert(0, vlan);
            at = below;
            if vlans.len() > TAGS_MAX {
                let base = (index, name.to_owned());
                return Ok(Some(Self { index, base, vlans: Vec::new(), mac, up }));
            }
        }
        Ok(Some(Self { index, base: (at, device::name(at)?), vlans, mac, up }))
    }

    /// How a program sends by it; by XDP if it `sends`.
    fn link(&self, sends: bool) -> Link {
        let mut tags = [0; 8];
        for (tag, vlan) in tags.chunks_exact_mut(4).zip(&self.vlans) {
            let [[a, b], [c, d]] = [vlan.protocol.to_be_bytes(), vlan.id.to_be_bytes()];
            tag.copy_from_slice(&[a, b, c, d]);
        }
        Link {
            device: self.base.0,
            mac: self.mac,
            tags_length: self.vlans.len() as u8 * 4,
            sends: sends.into(),
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
    /// Those it does not send by any more, and still can.
    retiring: BTreeSet<u32>,
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
        Ok(Self { wires, senders, written, sending, retiring: BTreeSet::new(), links: BTreeMap::new() })
    }

    /// Looks at `overlay` (where it is an Ethernet) and the `site` devices as they are now. Whether any link is another than
    /// before; `sends` says whether XDP sends by the device with this index. With an error, everything is as it was.
    ///
    /// By a device that XDP does not send by any more it still can, until [`Wires::retire`]: flows that were judged a moment ago
    /// are on their way there.
    pub(super) fn refresh(
        &mut self,
        overlay: Option<&str>,
        site: &[String],
        sends: impl Fn(&(u32, String)) -> io::Result<bool>,
    ) -> anyhow::Result<bool> {
        let named = overlay
            .map(|name| (name, Side::Overlay))
            .into_iter()
            .chain(site.iter().map(|name| (name.as_str(), Side::Site)));
        let (mut seen, mut links, mut sending) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, side) in named {
            let unasked = || format!("the kernel could not be asked about device {name}");
            let Some(wire) = Wire::of(name).with_context(unasked)? else { continue };
            let sends = wire.up && sends(&wire.base).with_context(unasked)?;
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
        self.write_wires(seen)?;
        let gone = self.sending.keys().filter(|index| !sending.contains_key(*index));
        self.retiring.extend(gone);
        self.retiring.retain(|index| !sending.contains_key(index));
        self.sending = sending;
        // Of a device that is gone from here: what was judged a moment ago leaves by it still.
        for (index, link) in self.links.iter().filter(|(_, link)| self.retiring.contains(&link.device)) {
            links.entry(*index).or_insert(Link { sends: 0, ..*link });
        }
        let changed = self.links != links;
        self.links = links;
        Ok(changed)
    }

    /// Whether there is something for [`Wires::retire`].
    pub(super) fn is_retiring(&self) -> bool {
        !self.retiring.is_empty()
    }

    /// Takes out of their map the devices that XDP does not send by any more. No packet may be on its way that was judged
    /// before the programs were told.
    pub(super) fn retire(&mut self) {
        for gone in std::mem::take(&mut self.retiring) {
            // The kernel takes a device out by itself when it goes.
            let _ = self.senders.remove(gone);
        }
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
/// that driver can. An error says that the kernel could not be asked.
pub(super) fn device_sends(index: u32, mode: XdpMode) -> io::Result<bool> {
    match mode {
        XdpMode::Generic => Ok(true),
        XdpMode::Native => netdev::sends_frames(index).or_else(|e| {
            let knows_none = e.kind() == io::ErrorKind::Unsupported || e.raw_os_error() == Some(libc::ENODEV);
            if knows_none { Ok(false) } else { Err(e) }
        }),
        XdpMode::Off | XdpMode::Refused => Ok(false),
    }
}

/// The name of the device below all VLANs of `name`, where XDP runs for it; `name` itself when it is none, or not there.
pub(super) fn base(name: &str) -> String {
    Wire::of(name).ok().flatten().map_or_else(|| name.to_owned(), |wire| wire.base.1)
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
        let link = |sends| none.link(sends);
        assert_eq!((link(true).tags_length, link(true).device, link(true).sends), (0, 4, 1));
        assert_eq!((link(false).device, link(false).sends), (4, 0));
        let one = wire(vec![vlan(0x8100, 100)]);
        assert_eq!((one.link(true).tags, one.key()), ([0x81, 0, 0, 100, 0, 0, 0, 0], [4, 100]));
        let two = wire(vec![vlan(0x88a8, 7), vlan(0x8100, 0x123)]);
        assert_eq!(two.link(true).tags, [0x88, 0xa8, 0, 7, 0x81, 0, 1, 0x23]);
        assert_eq!((two.link(true).tags_length, two.key()), (8, [4, (7 | SERVICE) << 16 | 0x123]));
    }
}
