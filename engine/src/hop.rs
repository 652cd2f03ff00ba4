//! Next hops: how a packet's last leg over an Ethernet is known without a look-up.
//!
//! The kernel resolves neighbours, not the engine. A packet whose flow has no good neighbour is given to the kernel to
//! send; on its way out of the device, with the neighbour's address in front of it, it is seen once more, and the address
//! is kept in its flow. For a while, packets of that direction then leave without a route look-up; when the while is over
//! the kernel is asked again, which also keeps the neighbour from growing stale.

use crate::flow::{Hop, KNOWN, Key, SENDS, Side};
use crate::packet::{Packet, transport};
use crate::tables::{Egresses, Stage, Tables};
use crate::work::Work;

/// How frames are sent by a device that the programs may send by: what goes in front of the IP header, and from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Link {
    /// Index of the device that XDP sends by: for a VLAN device the one below it; 0 when XDP cannot send there.
    pub device: u32,
    /// Its own link-layer address, the source of what leaves.
    pub mac: [u8; 6],
    /// Bytes of VLAN tags in front of the EtherType: 0, 4 or 8.
    pub tags_length: u16,
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

/// In the key of a [`Wire`], with a VLAN id: the tag is a service tag (IEEE 802.1ad).
pub const SERVICE: u32 = 0x8000;

/// Remembers `mac` as the neighbour by which `packet`, on its way out, leaves. Its flow's answers come from `answers`.
#[inline(always)]
pub fn learn<F, P, T>(
    packet: &P,
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
    let Work { network, key, other, .. } = work;
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
        let device = match answers {
            Side::Site => tables.egress(route).map_or(0, |egress| egress.link.device),
            _ => tables.config().overlay_link.device,
        };
        let known = if device == 0 { KNOWN } else { KNOWN | SENDS };
        let hop = Hop { learned: now as u32, mac, known };
        let _ = tables.with_flow(stage, key, |flow| flow.hop = hop);
        return;
    }
}
