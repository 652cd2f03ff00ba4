//! Reading the IPv4 and IPv6 headers, extension headers included.

use crate::family::{Address4, Address6, Family, V4, V6};
use crate::packet::{Network, Packet};
use crate::reason::DropReason;
use crate::work::{settle, settled};

/// Extension headers walked at the most; a longer chain is not one a host sends (RFC 8504 5.3 allows the limit).
const EXTENSIONS_MAX: u32 = 6;
/// Longest a chain may be, bytes: keeps offsets small for the verifier.
const CHAIN_MAX: u32 = 512;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT: u8 = 59;
const DESTINATION: u8 = 60;

/// An IPv4 header without options.
const HEADER: u32 = 20;
/// Options that a header has room for, each of one byte.
const OPTIONS_MAX: u32 = 40;
const END: u8 = 0;
const NOTHING: u8 = 1;
/// Loose and strict source routes (RFC 791 3.1).
const LOOSE: u8 = 131;
const STRICT: u8 = 137;

/// A family whose network header can be read.
pub trait Header: Family {
    /// Reads the network header into `network`. `Err` when not even the addresses can be trusted.
    fn network(packet: &impl Packet, network: &mut Network<Self::Address>) -> Result<(), DropReason>;

    /// Offset of the TTL or hop limit.
    const TTL: u32;

    /// Bytes that both addresses take, with which a header without options ends.
    const ADDRESSES: u32 = 2 * size_of::<Self::Address>() as u32;

    /// Reads the network header that an ICMP error quotes from offset `start` on, as far as `end`; offsets in `quoted` count
    /// from where those of `packet` do. The quoted packet's own length is not trusted: most of it is missing.
    fn quoted(
        packet: &impl Packet,
        start: u32,
        end: u32,
        quoted: &mut Network<Self::Address>,
    ) -> Result<(), DropReason>;

    /// Writes the packet's source and destination addresses; checksums are the caller's.
    #[inline(always)]
    fn write_addresses(
        packet: &mut impl Packet,
        source: &Self::Address,
        destination: &Self::Address,
    ) -> bool {
        Self::write_addresses_at(packet, 0, source, destination)
    }

    /// Writes the addresses of the header that starts at `start`.
    fn write_addresses_at(
        packet: &mut impl Packet,
        start: u32,
        source: &Self::Address,
        destination: &Self::Address,
    ) -> bool;
}

impl Header for V4 {
    const TTL: u32 = 8;

    #[inline(always)]
    fn write_addresses_at(
        packet: &mut impl Packet,
        start: u32,
        source: &Address4,
        destination: &Address4,
    ) -> bool {
        packet.write(start + 12, Self::fetch(source).0)
            && packet.write(start + 16, Self::fetch(destination).0)
    }

    #[inline(always)]
    fn network(packet: &impl Packet, network: &mut Network<Address4>) -> Result<(), DropReason> {
        let Some(h) = packet.read::<20>(0) else { return Err(DropReason::Malformed) };
        if h[0] >> 4 != 4 {
            return Err(DropReason::BadVersion);
        }
        let transport = u32::from(h[0] & 15) * 4;
        let length = u32::from(u16::from_be_bytes([h[2], h[3]]));
        if transport < 20 || length < transport || length > packet.length() {
            return Err(DropReason::Malformed);
        }
        network.source = Address4([h[12], h[13], h[14], h[15]]);
        network.destination = Address4([h[16], h[17], h[18], h[19]]);
        network.ttl = h[8];
        network.protocol = h[9];
        network.transport = transport;
        network.length = length;
        network.piece.clear();
        // Offset in units of eight bytes, and whether more fragments follow (RFC 791 3.1).
        let word = u16::from_be_bytes([h[6], h[7]]);
        network.problem = if word & 0x3fff == 0 {
            None
        } else {
            let id = u32::from(u16::from_be_bytes([h[4], h[5]]));
            network.piece.set(id, h[9], word & 0x1fff, word & 0x2000 != 0, length - transport)
        };
        if transport > HEADER && !packet.has_plain_options(transport) {
            network.problem = Some(DropReason::BadOption);
        }
        Ok(())
    }

    #[inline(always)]
    fn quoted(
        packet: &impl Packet,
        start: u32,
        end: u32,
        quoted: &mut Network<Address4>,
    ) -> Result<(), DropReason> {
        let Some(h) = packet.read::<20>(start).filter(|_| start + 20 <= end) else {
            return Err(DropReason::IcmpError);
        };
        let header = u32::from(h[0] & 15) * 4;
        let later = u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0;
        if h[0] >> 4 != 4 || header < 20 || later {
            return Err(DropReason::IcmpError);
        }
        quoted.source = Address4([h[12], h[13], h[14], h[15]]);
        quoted.destination = Address4([h[16], h[17], h[18], h[19]]);
        quoted.protocol = h[9];
        quoted.transport = start + header;
        Ok(())
    }
}

impl Header for V6 {
    const TTL: u32 = 7;

    #[inline(always)]
    fn write_addresses_at(
        packet: &mut impl Packet,
        start: u32,
        source: &Address6,
        destination: &Address6,
    ) -> bool {
        packet.write(start + 8, Self::fetch(source).0) && packet.write(start + 24, Self::fetch(destination).0)
    }

    #[inline(always)]
    fn network(packet: &impl Packet, network: &mut Network<Address6>) -> Result<(), DropReason> {
        let Some(h) = packet.read::<8>(0) else { return Err(DropReason::Malformed) };
        let Some(source) = packet.read::<16>(8) else { return Err(DropReason::Malformed) };
        network.source = Address6(source);
        let Some(destination) = packet.read::<16>(24) else { return Err(DropReason::Malformed) };
        network.destination = Address6(destination);
        if h[0] >> 4 != 6 {
            return Err(DropReason::BadVersion);
        }
        let length = 40 + u32::from(u16::from_be_bytes([h[4], h[5]]));
        if length > packet.length() {
            return Err(DropReason::Malformed);
        }
        network.ttl = h[7];
        network.protocol = h[6];
        network.transport = 40;
        network.length = length;
        network.piece.clear();
        network.problem = if is_extension(h[6]) { walk(packet, CHAIN_MAX, network, false) } else { None };
        Ok(())
    }

    #[inline(always)]
    fn quoted(
        packet: &impl Packet,
        start: u32,
        end: u32,
        quoted: &mut Network<Address6>,
    ) -> Result<(), DropReason> {
        let Some(h) = packet.read::<8>(start).filter(|_| start + 40 <= end) else {
            return Err(DropReason::IcmpError);
        };
        let (Some(source), Some(destination)) = (packet.read::<16>(start + 8), packet.read::<16>(start + 24))
        else {
            return Err(DropReason::IcmpError);
        };
        quoted.source = Address6(source);
        quoted.destination = Address6(destination);
        quoted.protocol = h[6];
        quoted.transport = start + 40;
        quoted.length = end;
        quoted.piece.clear();
        let problem = if is_extension(h[6]) { walk(packet, start + CHAIN_MAX, quoted, true) } else { None };
        if h[0] >> 4 != 6 || problem.is_some() || quoted.piece.is_later() {
            return Err(DropReason::IcmpError);
        }
        Ok(())
    }
}

/// Whether the options of an IPv4 header that ends at `end` can be walked, and name no source route: its destination would not
/// be where the packet goes in the end, so that nobody could judge it by that (RFC 7126 4.3, 4.4).
///
/// `place` is memory for where the walk is; `settle` tells why.
#[inline(always)]
pub fn has_plain_options(packet: &impl Packet, end: u32, place: &mut u32) -> bool {
    settle(place, HEADER);
    for _ in 0..OPTIONS_MAX {
        let at = settled(place);
        if at >= end {
            return at == end;
        }
        // With the byte before: the packet may end with this one.
        let Some([_, kind]) = packet.read::<2>(at.wrapping_sub(1)) else { return false };
        if kind == END {
            return true;
        }
        let mut length = 1;
        if kind != NOTHING {
            let Some([_, told]) = packet.read::<2>(at) else { return false };
            // The last byte of the header has no length behind it.
            if kind == LOOSE || kind == STRICT || told < 2 || at + 1 == end {
                return false;
            }
            length = u32::from(told);
        }
        settle(place, at + length);
    }
    settled(place) == end
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | NO_NEXT | DESTINATION)
}

/// Follows the chain of extension headers (RFC 8200 4) to the transport header, which starts no later than `limit`, or in a
/// later fragment to what follows the fragment header; `quoted` says that the packet was cut off. What cannot be walked is a problem, never a match.
#[inline(always)]
fn walk(
    packet: &impl Packet,
    limit: u32,
    network: &mut Network<Address6>,
    quoted: bool,
) -> Option<DropReason> {
    let mut fragmented = false;
    for _ in 0..EXTENSIONS_MAX {
        if !is_extension(network.protocol) {
            return None;
        }
        let header = packet.read::<8>(network.transport).filter(|_| network.transport + 8 <= network.length);
        let (Some(header), false) = (header, network.protocol == NO_NEXT) else {
            return Some(DropReason::BadExtension);
        };
        let [next, units, _, left, ..] = header;
        // RFC 5095: to be routed on by whoever is named there, past every rule for that destination.
        if network.protocol == ROUTING && left != 0 {
            return Some(DropReason::BadExtension);
        }
        // RFC 4302 2.2 counts in words less two, every other header in eight bytes less one; a fragment header is eight.
        let units = u32::from(units);
        let length = match network.protocol {
            AUTHENTICATION => (units + 2) * 4,
            FRAGMENT => 8,
            _ => (units + 1) * 8,
        };
        let transport = network.transport + length;
        if transport > limit || transport > network.length {
            return Some(DropReason::BadExtension);
        }
        let is_fragment = network.protocol == FRAGMENT;
        network.protocol = next;
        network.transport = transport;
        if is_fragment {
            if fragmented {
                return Some(DropReason::BadExtension);
            }
            fragmented = true;
            let [_, _, a, b, c, d, e, f] = header;
            let word = u16::from_be_bytes([a, b]);
            let id = u32::from_be_bytes([c, d, e, f]);
            let (start, data) = (word >> 3, network.length - transport);
            // Of a quoted fragment most is missing: where it starts is all there is to know.
            let problem = if quoted {
                network.piece.start = start;
                None
            } else {
                network.piece.set(id, next, start, word & 1 != 0, data)
            };
            if problem.is_some() || network.piece.is_later() {
                return problem;
            }
        }
    }
    if is_extension(network.protocol) { Some(DropReason::BadExtension) } else { None }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::packet::Slice;

    fn problem<F: Header>(mut packet: Vec<u8>) -> Option<DropReason> {
        let mut network = Network::<F::Address>::default();
        F::network(&Slice(&mut packet), &mut network).unwrap();
        network.problem
    }

    fn with_options(options: &[u8]) -> Option<DropReason> {
        let words = options.len().div_ceil(4);
        let mut packet = [&[0x45 + words as u8, 0, 0, 20 + 4 * words as u8][..], &[0; 16], options].concat();
        (packet[8], packet[9]) = (64, 47);
        packet.resize(20 + 4 * words, 0);
        problem::<V4>(packet)
    }

    /// A rule for its destination says nothing of where such a packet goes in the end.
    #[test]
    fn a_source_route_of_ipv4_is_refused_wherever_it_stands() {
        for kind in [LOOSE, STRICT] {
            for before in [&[][..], &[1], &[1; 33], &[7, 7, 4, 0, 0, 0, 0], &[148, 4, 0, 0]] {
                let options = [before, &[kind, 7, 4, 10, 0, 0, 77]].concat();
                assert_eq!(with_options(&options), Some(DropReason::BadOption), "{options:?}");
            }
        }
        for options in
            [&[1; 40][..], &[148, 4, 0, 0], &[7, 7, 4, 131, 137, 131, 137], &[0, 131, 7, 4], &[1, 1, 1, 0]]
        {
            assert_eq!(with_options(options), None, "{options:?}");
        }
        for options in [&[7, 0, 0, 0][..], &[7, 1, 0, 0], &[7, 5, 0, 0], &[1, 1, 1, 7], &[7, 255, 0, 0]] {
            assert_eq!(with_options(options), Some(DropReason::BadOption), "{options:?}");
        }
    }

    #[test]
    fn a_routing_header_of_ipv6_must_be_at_its_end() {
        for kind in [0, 2, 3, 4] {
            for (left, said) in [(0, None), (1, Some(DropReason::BadExtension))] {
                let mut packet = [&[0x60, 0, 0, 0, 0, 16, ROUTING, 64][..], &[0; 32]].concat();
                packet.extend([47, 0, kind, left, 0, 0, 0, 0]);
                packet.extend([0; 8]);
                assert_eq!(problem::<V6>(packet), said, "type {kind}, {left} left");
            }
        }
    }
}
