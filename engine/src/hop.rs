//! Next hops: how a packet's last leg over an Ethernet is known without a look-up.
//!
//! The kernel resolves neighbours, not the engine. A packet whose flow has no good neighbour is given to the kernel to
//! send; on its way out of the device, with the neighbour's address in front of it, it is seen once more, and the address
//! is kept in its flow, and beside it for other flows between the same addresses. For a while, packets then leave without a
//! route look-up; when the while is over the kernel is asked again, which also keeps the neighbour from growing stale.

use crate::family::{Address4, Address6};
use crate::flow::{Exit, Hop, KNOWN, Key, SENDS, Side};
use crate::packet::{Packet, transport};
use crate::stage::Refusal;
use crate::tables::{Active, Config, Egresses, Stage, Tables};
use crate::work::Work;

/// How frames are sent by a device that the programs may send by: what goes in front of the IP header, and from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Link {
    /// Index of the device that XDP sends by: for a VLAN device the one below it. Also where XDP does not send any more: a
    /// packet may be on its way there that was judged when it did.
    pub device: u32,
    /// Its own link-layer address, the source of what leaves.
    pub mac: [u8; 6],
    /// Bytes of VLAN tags in front of the EtherType: 0, 4 or 8.
    pub tags_length: u8,
    /// Not zero when XDP sends by the device.
    pub sends: u8,
    /// The tags as they are on the wire (IEEE 802.1Q 9.3), outermost first.
    pub tags: [u8; 8],
}

const _: () = assert!(size_of::<Link>() == 20);

/// Whose frames arrive on a device with certain VLAN tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Wire {
    /// `Side`.
    pub side: u16,
    /// Not zero when XDP can send by the device: then it carries what it can the whole way.
    pub sends: u16,
    /// Its link-layer address: what is for another one is none of the gateway's business.
    pub mac: [u8; 6],
    /// Zero.
    pub padding: u16,
}

const _: () = assert!(size_of::<Wire>() == 12);

/// Key of a neighbour: of packets with these addresses as they leave by this device. With the source, since a host may route
/// by it, and spread flows over several routers by both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct NeighbourKey<A> {
    /// Source on the wire.
    pub source: A,
    /// Destination on the wire.
    pub destination: A,
    /// Index of the device.
    pub device: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<NeighbourKey<Address4>>() == 16 && size_of::<NeighbourKey<Address6>>() == 40);

/// Neighbours remembered in each family; the least recently used makes room.
pub const NEIGHBOURS: u32 = 4096;

/// In the key of a [`Wire`], with a VLAN id: the tag is a service tag (IEEE 802.1ad).
pub const SERVICE: u32 = 0x8000;

/// Looks for the neighbour to which the packets in `half` go, when the one they were last sent to is not good any more: another
/// flow between the same addresses may have asked. `Ok(false)`: there is none that XDP can send to.
#[inline(always)]
pub fn meet<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    stage: Stage,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let Work { half, neighbour, active, now, .. } = work;
    let (exit, route) = (Exit::from_number(half.exit), half.route);
    (neighbour.source, neighbour.destination) = (half.to.source, half.to.destination);
    let hop = find::<F, T>(tables, *active, exit, route, neighbour, *now);
    if hop.known & SENDS == 0 {
        return Ok(false);
    }
    let _ = tables.with_flow(stage, &work.key, |flow| flow.hop = hop);
    work.half.hop = hop;
    Ok(true)
}

/// The neighbour of packets that leave by `exit` with the addresses in `key`, whose device this fills in; none where it is not
/// known, or not good any more.
#[inline(always)]
pub(crate) fn find<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    active: Active,
    exit: Exit,
    route: u16,
    key: &mut NeighbourKey<F::Address>,
    now: u32,
) -> Hop {
    let Some((device, sends)) = devices::<F, T>(tables, active, exit, route) else { return Hop::default() };
    let Config { hop_lifetime: lifetime, hops_since: since, .. } = *tables.config();
    (key.device, key.reserved) = (device, 0);
    let Some(hop) = tables.neighbour(key).filter(|hop| hop.is_good(now, lifetime, since)) else {
        return Hop::default();
    };
    Hop { known: known(sends), ..hop }
}

/// The device by which packets leave, and how XDP sends by it; `None` for the host's own.
#[inline(always)]
fn devices<F: Egresses, T: Tables<F>>(
    tables: &T,
    active: Active,
    exit: Exit,
    route: u16,
) -> Option<(u32, u8)> {
    match exit {
        Exit::Site => tables.egress(active, route).map(|egress| (egress.device, egress.link.sends)),
        Exit::Overlay => {
            let config = tables.config();
            Some((config.overlay_device, config.overlay_link.sends))
        }
        Exit::Host => None,
    }
}

/// What [`Hop::known`] says of a neighbour by a device of which [`Link::sends`] is this.
#[inline(always)]
const fn known(sends: u8) -> u16 {
    if sends == 0 { KNOWN } else { KNOWN | SENDS }
}

/// Remembers `mac` as the neighbour by which `packet`, on its way out of `device`, leaves. Its flow's answers come from
/// `answers`.
#[inline(always)]
pub fn learn<F, P, T>(
    packet: &P,
    device: u32,
    answers: Side,
    tables: &mut T,
    now: u64,
    mac: [u8; 6],
    work: &mut Work<F::Address>,
) where
    F: Egresses,
    P: Packet,
    T: Tables<F>,
{
    if F::network(packet, &mut work.network).is_err() || work.network.problem.is_some() {
        return;
    }
    let Work { network, key, other, neighbour, .. } = work;
    // A later fragment does not tell its flow.
    if network.piece.is_later() {
        return;
    }
    let Ok(transport) = transport::<F>(packet, network) else { return };
    *other = Key {
        source: network.destination,
        destination: network.source,
        source_port: transport.destination_port,
        destination_port: transport.source_port,
        protocol: network.protocol,
        side: answers as u8,
        padding: 0,
    };
    for stage in [Stage::Confirmed, Stage::HalfOpen] {
        let found = tables.with_flow(stage, other, |answer| *key = answer.other_key(network.protocol));
        if found.is_none() {
            continue;
        }
        let Some(route) = tables.with_flow(stage, key, |flow| flow.route) else { return };
        let exit = if matches!(answers, Side::Site) { Exit::Site } else { Exit::Overlay };
        let Some((leads, sends)) = devices::<F, T>(tables, tables.active(), exit, route) else { return };
        // It was on its way by a device that its flow has left since: who answers there is nobody's neighbour here.
        if leads != device {
            return;
        }
        let hop = Hop { learned: now as u32, mac, known: known(sends) };
        let _ = tables.with_flow(stage, key, |flow| {
            if flow.route == route {
                flow.hop = hop;
            }
        });
        *neighbour =
            NeighbourKey { source: network.source, destination: network.destination, device, reserved: 0 };
        tables.set_neighbour(neighbour, &hop);
        return;
    }
}
