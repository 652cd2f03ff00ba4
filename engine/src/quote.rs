//! ICMP errors: the packet they quote, the flow it belongs to, and the translation of header and quotation.
//!
//! An error that comes from a side quotes a packet that the gateway sent out to that side. The mirror image of the quoted
//! tuple is therefore the key of the half whose packets come from there: what translates them translates the error, and,
//! mirrored, its quotation (RFC 5508 4.2). An error creates nothing, keeps nothing alive and moves no state (RFC 5927 3).

use crate::checksum::{adjust, difference};
use crate::flow::{Side, TRANSLATED};
use crate::network::Header;
use crate::packet::{Network, Packet, protocol};
use crate::reason::DropReason;
use crate::stage::Refusal;
use crate::tables::{Egresses, Stage, Tables};
use crate::translate::{Translated, adjust_header};
use crate::work::Work;

/// Bytes of an ICMP header, before the quotation.
const ICMP: u32 = 8;
/// Bytes of the transport header that an error must quote (RFC 792): ports, or type, code and id.
const QUOTED: u32 = 8;
/// The quoted transport header starts no later than this, so that packet offsets stay small for the verifier.
const START_MAX: u32 = 992;
/// Bytes from the IP header on in which everything lies that is read or written of an error.
pub const REACH: u32 = START_MAX + 20;

/// Reads the packet that the error in hand quotes: makes `work.key` the key of the half the error belongs to, and
/// `work.quoted` the quoted header. `Err` where the quotation tells no flow: too short, a later fragment, an ICMP message
/// that is no echo.
#[inline(always)]
pub fn read<F: Header>(packet: &impl Packet, work: &mut Work<F::Address>) -> Result<(), DropReason> {
    let Work { network, quoted, key, side, .. } = work;
    let start = network.transport + ICMP;
    let end = network.length.min(REACH);
    let view = Quotation { packet, start };
    F::quoted(&view, end.saturating_sub(start), quoted)?;
    let at = start + quoted.transport;
    if at > START_MAX || at + QUOTED > network.length {
        return Err(DropReason::IcmpError);
    }
    let Some(head) = packet.read::<6>(at) else { return Err(DropReason::IcmpError) };
    let word = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
    let (source_port, destination_port) = match quoted.protocol {
        protocol::TCP | protocol::UDP => (word(0), word(2)),
        p if p == F::ICMP => match head[0] {
            kind if kind == F::ECHO_REQUEST => (word(4), 0),
            kind if kind == F::ECHO_REPLY => (0, word(4)),
            _ => return Err(DropReason::IcmpError),
        },
        _ => (0, 0),
    };
    // An error is for the sender of what it quotes.
    if quoted.source != network.destination {
        return Err(DropReason::IcmpError);
    }
    let sent = Translated {
        source: quoted.source,
        destination: quoted.destination,
        source_port,
        destination_port,
    };
    key.set_mirror(&sent, quoted.protocol, *side);
    Ok(())
}

/// The stage for an ICMP error: finds the flow its quotation belongs to, and works out how the error leaves.
/// `Ok(false)`: there is no such flow.
#[inline(always)]
pub fn relate<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let Work { key, half, now, .. } = work;
    let now = *now;
    let stage = if tables.with_flow(Stage::Confirmed, key, |flow| half.set(flow, now)).is_some() {
        Stage::Confirmed
    } else if tables.with_flow(Stage::HalfOpen, key, |flow| half.set(flow, now)).is_some() {
        Stage::HalfOpen
    } else {
        return Ok(false);
    };
    // Routers on the way may tell of errors beyond the gateway, and beyond another one; a peer, and this host, of their
    // own packets alone.
    let ends_here = matches!(side, Side::Local) || matches!(side, Side::Overlay) && !half.is_reply();
    if ends_here && work.network.source != key.source {
        return Err(DropReason::SpoofedSource.into());
    }
    let suspect = half.over || half.epoch != work.active.epoch();
    if suspect && !tables.renew(stage, side, work)? {
        return Ok(false);
    }
    let Work { half, leaving, .. } = work;
    leaving.to = half.to;
    leaving.hop = half.hop;
    leaving.route = half.route;
    leaving.rule = half.rule + 1;
    leaving.exit = half.exit;
    leaving.translated = half.flags & TRANSLATED != 0;
    Ok(true)
}

/// Gives the error and its quotation the addresses and ports that the other side knows, with every checksum that covers
/// them. False when a byte that [`read`] has seen is not there.
#[inline(always)]
pub fn rewrite<F: Header>(packet: &mut impl Packet, work: &Work<F::Address>) -> bool {
    let Work { network, quoted, key, leaving, .. } = work;
    let to = &leaving.to;
    let start = network.transport + ICMP;
    let at = start + quoted.transport;

    let addresses =
        difference(F::sum(key.source) + F::sum(key.destination), F::sum(to.source) + F::sum(to.destination));
    let ports = |source: u16, destination: u16| u32::from(source) + u32::from(destination);
    let ports =
        difference(ports(key.source_port, key.destination_port), ports(to.source_port, to.destination_port));
    // What the error's own checksum has to follow: everything that changes in the quotation.
    let mut changed = addresses + ports;

    if F::VERSION == 4 {
        let Some(change) = replace(packet, start + 10, addresses, false) else { return false };
        changed += change;
    }
    let field = match quoted.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        p if p == F::ICMP => 2,
        _ => 0,
    };
    // Most errors quote no more of a segment than its ports and a sequence number.
    if field != 0 && at + field + 2 <= network.length {
        let pseudo = if F::VERSION == 4 && quoted.protocol == F::ICMP { 0 } else { addresses };
        let zero_is_none = quoted.protocol == protocol::UDP;
        let Some(change) = replace(packet, at + field, pseudo + ports, zero_is_none) else { return false };
        changed += change;
    }
    let written = match quoted.protocol {
        protocol::TCP | protocol::UDP => {
            let [a, b] = to.destination_port.to_be_bytes();
            let [c, d] = to.source_port.to_be_bytes();
            packet.write(at, [a, b, c, d])
        }
        // Of the two ids one is always zero.
        p if p == F::ICMP => packet.write(at + 4, (to.source_port | to.destination_port).to_be_bytes()),
        _ => true,
    };
    let mut view = Quotation { packet: &mut *packet, start };
    if !written || !F::write_addresses(&mut view, to.destination, to.source) {
        return false;
    }

    // The sender of the error shows as itself, unless it is the far end of the flow, which may have another name here.
    let source = if network.source == key.source { to.source } else { network.source };
    let outer = difference(
        F::sum(network.source) + F::sum(network.destination),
        F::sum(source) + F::sum(to.destination),
    );
    let pseudo = if F::VERSION == 6 { outer } else { 0 };
    packet.adjust_checksum(network.transport + 2, pseudo, changed, false)
        && (F::VERSION == 6 || adjust_header(packet, outer))
        && F::write_addresses(packet, source, to.destination)
}

/// Adjusts a checksum inside the quotation, which nobody offloads; returns by how much the field itself changed.
#[inline(always)]
fn replace(packet: &mut impl Packet, at: u32, change: u32, zero_is_none: bool) -> Option<u32> {
    let old = packet.read::<2>(at).map(u16::from_be_bytes)?;
    if zero_is_none && old == 0 {
        return Some(0);
    }
    let new = match adjust(old, change) {
        0 if zero_is_none => 0xffff,
        new => new,
    };
    packet.write(at, new.to_be_bytes()).then(|| difference(u32::from(old), u32::from(new)))
}

/// The quoted packet as a packet: offsets count from its IP header.
struct Quotation<P> {
    packet: P,
    start: u32,
}

impl<P: Packet> Packet for Quotation<&P> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.packet.read(self.start + offset)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, _offset: u32, _bytes: [u8; N]) -> bool {
        false
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.packet.length().saturating_sub(self.start)
    }
}

impl<P: Packet> Packet for Quotation<&mut P> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.packet.read(self.start + offset)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        self.packet.write(self.start + offset, bytes)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.packet.length().saturating_sub(self.start)
    }
}
