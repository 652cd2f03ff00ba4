//! ICMP errors: the packet they quote, the flow it belongs to, and the translation of header and quotation.
//!
//! An error that comes from a side quotes a packet that the gateway sent out to that side. The mirror image of the quoted
//! tuple is therefore the key of the half whose packets come from there: what translates them translates the error, and,
//! mirrored, its quotation (RFC 5508 4.2). An error creates nothing, keeps nothing alive and moves no state (RFC 5927 3).

use crate::checksum::{adjust, difference};
use crate::flow::{Side, TRANSLATED};
use crate::network::Header;
use crate::packet::{Packet, protocol};
use crate::reason::DropReason;
use crate::stage::Refusal;
use crate::tables::{Egresses, Stage, Tables};
use crate::translate::{Translated, adjust_header};
use crate::work::{Work, settle, settled};

/// Bytes of an ICMP header, before the quotation.
const ICMP: u32 = 8;
/// Bytes of the transport header that an error must quote (RFC 792): ports, or type, code and id.
const QUOTED: u32 = 8;
/// The quoted transport header starts no later than this, so that packet offsets stay small for the verifier.
const START_MAX: u32 = 992;
/// Bytes from the IP header on in which everything lies that is read or written of an error.
pub const REACH: u32 = START_MAX + 20;

/// Reads the packet that the error in hand quotes: makes `work.key` the key of the half the error belongs to, and
/// `work.quoted` the quoted header. False where the quotation tells no flow: too short, a later fragment, an ICMP message
/// that is no echo.
#[inline(always)]
pub fn read<F: Header>(packet: &impl Packet, work: &mut Work<F::Address>) -> bool {
    let Work { network, quoted, key, side, .. } = work;
    if F::quoted(packet, network.transport + ICMP, network.length, quoted).is_err() {
        return false;
    }
    let at = quoted.transport;
    if at > START_MAX || at + QUOTED > network.length {
        return false;
    }
    let Some(head) = packet.read::<6>(at) else { return false };
    let word = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
    let (source_port, destination_port) = match quoted.protocol {
        protocol::TCP | protocol::UDP => (word(0), word(2)),
        p if p == F::ICMP => match head[0] {
            kind if kind == F::ECHO_REQUEST => (word(4), 0),
            kind if kind == F::ECHO_REPLY => (0, word(4)),
            _ => return false,
        },
        _ => (0, 0),
    };
    // An error is for the sender of what it quotes.
    if quoted.source != network.destination {
        return false;
    }
    let sent =
        Translated { source: quoted.source, destination: quoted.destination, source_port, destination_port };
    key.set_mirror(&sent, quoted.protocol, *side);
    true
}

/// Finds the flow that an ICMP error's quotation belongs to, and works out how the error leaves. `Ok(false)`: there is no such
/// flow. One that may be over or may have lost its rule is judged anew; not within the stage that finds it: what judges it would be
/// below that on the stack.
#[inline(always)]
pub(crate) fn follow<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    if !tables.relate(side, work)? {
        return Ok(false);
    }
    if !work.half.over && work.half.epoch == work.active.epoch() {
        return Ok(true);
    }
    let stage = if settled(&work.scratch) == 0 { Stage::Confirmed } else { Stage::HalfOpen };
    if !tables.renew(stage, side, work)? {
        return Ok(false);
    }
    leave_by_flow(work);
    Ok(true)
}

/// The error leaves as the packets of the flow in `work.half`.
#[inline(always)]
fn leave_by_flow<A: Copy>(work: &mut Work<A>) {
    let Work { half, leaving, .. } = work;
    leaving.to = half.to;
    leaving.hop = half.hop;
    leaving.route = half.route;
    leaving.rule = half.rule + 1;
    leaving.exit = half.exit;
    leaving.translated = half.flags & TRANSLATED != 0;
}

/// The stage for an ICMP error: finds the flow, and leaves in `work.scratch` whether it is half open. `Ok(false)`: there is none.
#[inline(always)]
pub fn relate<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let Work { key, half, now, scratch, .. } = work;
    let now = *now;
    // In the order in which flows move.
    let half_open = tables.with_flow(Stage::HalfOpen, key, |flow| half.set(flow, now)).is_some();
    if !half_open && tables.with_flow(Stage::Confirmed, key, |flow| half.set(flow, now)).is_none() {
        return Ok(false);
    }
    settle(scratch, half_open.into());
    // Routers on the way may tell of errors beyond the gateway, and beyond another one; a peer, and this host, of their
    // own packets alone.
    let ends_here = matches!(side, Side::Local) || matches!(side, Side::Overlay) && !half.is_reply();
    if ends_here && work.network.source != key.source {
        return Err(DropReason::SpoofedSource.into());
    }
    leave_by_flow(work);
    Ok(true)
}

/// Gives the error and its quotation the addresses and ports that the other side knows, with every checksum that covers
/// them. False when a byte that [`read`] has seen is not there.
#[inline(always)]
pub fn rewrite<F: Header>(packet: &mut impl Packet, work: &Work<F::Address>) -> bool {
    let Work { network, quoted, key, leaving, .. } = work;
    let to = &leaving.to;
    let start = network.transport + ICMP;
    let at = quoted.transport;

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
    if !written || !F::write_addresses_at(packet, start, &to.destination, &to.source) {
        return false;
    }

    // The sender of the error shows as itself, unless it is the far end of the flow, which may have another name here.
    let source = if network.source == key.source { &to.source } else { &network.source };
    let outer = difference(
        F::sum(network.source) + F::sum(network.destination),
        F::sum(*source) + F::sum(to.destination),
    );
    let pseudo = if F::VERSION == 6 { outer } else { 0 };
    packet.adjust_checksum(network.transport + 2, pseudo, changed, false)
        && (F::VERSION == 6 || adjust_header(packet, outer))
        && F::write_addresses(packet, source, &to.destination)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use crate::family::{Address4, Address6, Family, V4, V6};
    use crate::packet::{Network, Slice, Transport};

    /// A family, and how its packets are put together.
    trait Wire: Header {
        /// Client behind the gateway, gateway, server, router on the way.
        const WHO: [Self::Address; 4];
        fn header(
            protocol: u8,
            length: usize,
            source: Self::Address,
            destination: Self::Address,
            out: &mut [u8],
        ) -> usize;
    }

    const fn v4(last: u8) -> Address4 {
        Address4([10, 0, last, 1])
    }

    const fn v6(last: u8) -> Address6 {
        Address6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 1])
    }

    impl Wire for V4 {
        const WHO: [Address4; 4] = [v4(1), v4(2), v4(3), v4(4)];
        fn header(
            protocol: u8,
            length: usize,
            source: Address4,
            destination: Address4,
            out: &mut [u8],
        ) -> usize {
            out[..20].fill(0);
            out[0] = 0x45;
            out[2..4].copy_from_slice(&(20 + length as u16).to_be_bytes());
            out[8] = 64;
            out[9] = protocol;
            out[12..16].copy_from_slice(&source.0);
            out[16..20].copy_from_slice(&destination.0);
            let sum = checksum::of(&out[..20], 0);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
            20
        }
    }

    impl Wire for V6 {
        const WHO: [Address6; 4] = [v6(1), v6(2), v6(3), v6(4)];
        fn header(
            protocol: u8,
            length: usize,
            source: Address6,
            destination: Address6,
            out: &mut [u8],
        ) -> usize {
            out[..40].fill(0);
            out[0] = 0x60;
            out[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            out[6] = protocol;
            out[7] = 64;
            out[8..24].copy_from_slice(&source.0);
            out[24..40].copy_from_slice(&destination.0);
            40
        }
    }

    /// Sum of the pseudo-header.
    fn pseudo<F: Family>(source: F::Address, destination: F::Address, protocol: u8, length: usize) -> u32 {
        F::sum(source) + F::sum(destination) + u32::from(protocol) + length as u32
    }

    const fn checksum_at(protocol: u8) -> usize {
        match protocol {
            6 => 16,
            17 => 6,
            _ => 2,
        }
    }

    /// Whether the checksum covers the pseudo-header.
    fn covers<F: Family>(protocol: u8) -> bool {
        F::VERSION == 6 || protocol != F::ICMP
    }

    /// A packet of 28 bytes of transport from the gateway's port 40000 to the server's 80; its length.
    fn sent<F: Wire>(protocol: u8, out: &mut [u8]) -> usize {
        let [_, gateway, server, _] = F::WHO;
        let at = F::header(protocol, 28, gateway, server, out);
        let segment = &mut out[at..at + 28];
        (0..).zip(&mut *segment).for_each(|(i, byte)| *byte = i * 9);
        if protocol == F::ICMP {
            segment[..8].copy_from_slice(&[F::ECHO_REQUEST, 0, 0, 0, 0x9c, 0x40, 0, 1]);
        } else {
            segment[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        }
        let field = checksum_at(protocol);
        segment[field..field + 2].fill(0);
        let initial = if covers::<F>(protocol) { pseudo::<F>(gateway, server, protocol, 28) } else { 0 };
        let sum = checksum::of(segment, initial);
        segment[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        at + 28
    }

    /// The router's error about it; its length.
    fn error<F: Wire>(quotation: &[u8], from: F::Address, out: &mut [u8]) -> usize {
        let gateway = F::WHO[1];
        let length = 8 + quotation.len();
        let at = F::header(F::ICMP, length, from, gateway, out);
        let message = &mut out[at..at + length];
        message[..8].copy_from_slice(&[if F::VERSION == 4 { 11 } else { 3 }, 0, 0, 0, 0, 0, 0, 0]);
        message[8..].copy_from_slice(quotation);
        let initial = if F::VERSION == 6 { pseudo::<F>(from, gateway, F::ICMP, length) } else { 0 };
        let sum = checksum::of(message, initial);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        at + length
    }

    fn work<F: Wire>(packet: &impl Packet) -> Work<F::Address> {
        let mut work = Work { side: Side::Site as u8, ..Work::default() };
        F::network(packet, &mut work.network).unwrap();
        work.transport = Transport { quotes: true, ..Transport::default() };
        work
    }

    fn translates<F: Wire>(protocol: u8, quoted_bytes: usize, from: F::Address) {
        let [client, gateway, server, _] = F::WHO;
        let mut quotation = [0; 128];
        sent::<F>(protocol, &mut quotation);
        let start = if F::VERSION == 4 { 20 } else { 40 };
        let mut bytes = [0; 256];
        let length = error::<F>(&quotation[..start + quoted_bytes], from, &mut bytes);
        let mut packet = Slice(&mut bytes[..length]);
        let mut work = work::<F>(&packet);
        assert!(read::<F>(&packet, &mut work));
        let ports = match protocol {
            6 | 17 => (80, 40000),
            p if p == F::ICMP => (0, 40000),
            _ => (0, 0),
        };
        assert_eq!((work.key.source, work.key.destination), (server, gateway));
        assert_eq!(
            (work.key.source_port, work.key.destination_port, work.key.protocol),
            (ports.0, ports.1, protocol)
        );

        let port = if ports.1 == 0 { 0 } else { 1234 };
        work.leaving.to =
            Translated { source: server, destination: client, source_port: ports.0, destination_port: port };
        assert!(rewrite::<F>(&mut packet, &work));

        let (mut after, mut inner) = (Network::default(), Network::default());
        F::network(&packet, &mut after).unwrap();
        F::quoted(&packet, start as u32 + 8, length as u32, &mut inner).unwrap();
        assert_eq!((after.source, after.destination), (from, client));
        let bytes = &bytes[..length];
        let message = &bytes[start..];
        let initial = if F::VERSION == 6 { pseudo::<F>(from, client, F::ICMP, message.len()) } else { 0 };
        assert_eq!(checksum::of(message, initial), 0, "the error's own checksum, protocol {protocol}");
        let quoted = &message[8..];
        assert_eq!((inner.source, inner.destination), (client, server));
        if F::VERSION == 4 {
            assert_eq!(checksum::of(&bytes[..20], 0), 0);
            assert_eq!(checksum::of(&quoted[..20], 0), 0);
        }
        let segment = &quoted[start..];
        match protocol {
            6 | 17 => assert_eq!(segment[..4], [0x04, 0xd2, 0, 80]),
            p if p == F::ICMP => assert_eq!(segment[4..6], [0x04, 0xd2]),
            _ => {}
        }
        if quoted_bytes == 28 && ports.1 != 0 {
            let initial = if covers::<F>(protocol) { pseudo::<F>(client, server, protocol, 28) } else { 0 };
            let zero = checksum::of(segment, initial);
            assert_eq!(zero, 0, "the quoted checksum, protocol {protocol}");
        }
    }

    /// Every checksum is right again, of whole quotations and of those that end before the quoted checksum.
    #[test]
    fn header_and_quotation_are_translated() {
        for bytes in [8, 16, 17, 18, 20, 28] {
            for protocol in [6, 17, 132] {
                translates::<V4>(protocol, bytes, V4::WHO[3]);
                translates::<V6>(protocol, bytes, V6::WHO[3]);
            }
            translates::<V4>(1, bytes, V4::WHO[2]);
            translates::<V6>(58, bytes, V6::WHO[2]);
        }
    }

    fn refuses<F: Wire>(spoil: impl FnOnce(&mut [u8]), bytes: usize) {
        let mut quotation = [0; 128];
        sent::<F>(6, &mut quotation);
        spoil(&mut quotation);
        let start = if F::VERSION == 4 { 20 } else { 40 };
        let mut buffer = [0; 256];
        let length = error::<F>(&quotation[..start + bytes], F::WHO[3], &mut buffer);
        let packet = Slice(&mut buffer[..length]);
        assert!(!read::<F>(&packet, &mut work::<F>(&packet)));
    }

    #[test]
    fn a_quotation_that_tells_no_flow_is_refused() {
        refuses::<V4>(|_| {}, 7);
        refuses::<V6>(|_| {}, 7);
        refuses::<V4>(|q| q[0] = 0x55, 8);
        refuses::<V4>(|q| q[0] = 0x44, 8);
        refuses::<V6>(|q| q[0] = 0x40, 8);
        // A later fragment has no ports.
        refuses::<V4>(|q| q[7] = 1, 28);
        refuses::<V6>(
            |q| {
                q[6] = 44;
                q[40..48].copy_from_slice(&[6, 0, 0, 8, 0, 0, 0, 1]);
            },
            28,
        );
        // An error about an error (RFC 1122 3.2.2).
        refuses::<V4>(|q| (q[9], q[20]) = (1, 3), 28);
        refuses::<V6>(|q| (q[6], q[40]) = (58, 1), 28);
        // One that is not for the sender of what it quotes.
        refuses::<V4>(|q| q[15] ^= 1, 28);
        refuses::<V6>(|q| q[23] ^= 1, 28);
    }

    /// RFC 768: no checksum stays none, and 0 is written as all ones.
    #[test]
    fn a_quoted_udp_checksum_never_becomes_none() {
        let mut bytes = [0, 0, 0xed, 0xcb];
        assert_eq!(replace(&mut Slice(&mut bytes), 0, 5, true), Some(0));
        assert_eq!(
            replace(&mut Slice(&mut bytes), 2, difference(0, 0xedcb), true),
            Some(difference(0xedcb, 0xffff))
        );
        assert_eq!(bytes, [0, 0, 0xff, 0xff]);
    }
}
