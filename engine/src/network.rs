//! Reading the IPv4 and IPv6 headers, extension headers included.

use crate::family::{Address4, Address6, Family, V4, V6};
use crate::packet::{Network, Packet};
use crate::reason::DropReason;

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

/// A family whose network header can be read.
pub trait Header: Family {
    /// Reads the network header into `network`. `Err` when not even the addresses can be trusted.
    fn network(packet: &impl Packet, network: &mut Network<Self::Address>) -> Result<(), DropReason>;

    /// Offset of the TTL or hop limit.
    const TTL: u32;

    /// Writes source and destination addresses; checksums are the caller's.
    fn write_addresses(packet: &mut impl Packet, source: Self::Address, destination: Self::Address) -> bool;
}

impl Header for V4 {
    const TTL: u32 = 8;

    #[inline(always)]
    fn write_addresses(packet: &mut impl Packet, source: Address4, destination: Address4) -> bool {
        packet.write(12, source.0) && packet.write(16, destination.0)
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
        // More fragments, or an offset (RFC 791 3.1).
        let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff != 0;
        network.source = Address4([h[12], h[13], h[14], h[15]]);
        network.destination = Address4([h[16], h[17], h[18], h[19]]);
        network.ttl = h[8];
        network.protocol = h[9];
        network.transport = transport;
        network.length = length;
        network.problem = if fragment { Some(DropReason::Fragment) } else { None };
        Ok(())
    }
}

impl Header for V6 {
    const TTL: u32 = 7;

    #[inline(always)]
    fn write_addresses(packet: &mut impl Packet, source: Address6, destination: Address6) -> bool {
        packet.write(8, source.0) && packet.write(24, destination.0)
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
        network.problem = if is_extension(h[6]) { walk(packet, network) } else { None };
        Ok(())
    }
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | NO_NEXT | DESTINATION)
}

/// Follows the chain of extension headers (RFC 8200 4) to the transport header. What cannot be walked is a problem, never a
/// match.
#[inline(always)]
fn walk(packet: &impl Packet, network: &mut Network<Address6>) -> Option<DropReason> {
    for _ in 0..EXTENSIONS_MAX {
        if !is_extension(network.protocol) {
            return None;
        }
        let header = packet.read::<2>(network.transport).filter(|_| network.transport + 8 <= network.length);
        let (Some([next, units]), false) = (header, network.protocol == NO_NEXT) else {
            return Some(DropReason::BadExtension);
        };
        if network.protocol == FRAGMENT {
            return Some(DropReason::Fragment);
        }
        // RFC 4302 2.2 counts in words less two, every other header in eight bytes less one.
        let units = u32::from(units);
        let length = if network.protocol == AUTHENTICATION { (units + 2) * 4 } else { (units + 1) * 8 };
        let transport = network.transport + length;
        if transport > CHAIN_MAX || transport > network.length {
            return Some(DropReason::BadExtension);
        }
        network.protocol = next;
        network.transport = transport;
    }
    if is_extension(network.protocol) { Some(DropReason::BadExtension) } else { None }
}
