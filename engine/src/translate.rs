//! Rewriting a packet: TTL, addresses, ports or ICMP id, and every checksum they are in.

use crate::checksum::{adjust, difference};
use crate::network::Header;
use crate::packet::{Network, Packet, Transport, protocol};

/// Addresses and ports a packet leaves with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translated<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port, or ICMP echo request id.
    pub source_port: u16,
    /// Destination port, or ICMP echo reply id.
    pub destination_port: u16,
}

/// Takes one from the TTL or hop limit. The caller has checked that it is above one.
#[inline(always)]
pub fn decrement_ttl<F: Header>(packet: &mut impl Packet) -> bool {
    if F::VERSION == 4 && !adjust_header(packet, difference(0x0100, 0)) {
        return false;
    }
    // Two bytes at a time: the verifier does not follow a bounds check for a single byte, which compiles to `>=`.
    let Some(mut pair) = packet.read::<2>(F::TTL & !1) else { return false };
    let ttl = &mut pair[F::TTL as usize & 1];
    *ttl = ttl.wrapping_sub(1);
    packet.write(F::TTL & !1, pair)
}

/// Gives the packet new addresses and ports.
#[inline(always)]
pub fn translate<F: Header>(
    packet: &mut impl Packet,
    network: &Network<F::Address>,
    transport: &Transport,
    to: &Translated<F::Address>,
) -> bool {
    let old = F::sum(network.source) + F::sum(network.destination);
    let new = F::sum(to.source) + F::sum(to.destination);
    let addresses = difference(old, new);
    let old = u32::from(transport.source_port) + u32::from(transport.destination_port);
    let new = u32::from(to.source_port) + u32::from(to.destination_port);
    let ports = difference(old, new);

    let at = network.transport;
    let rewritten = match network.protocol {
        // Ports and checksum are in the first fragment.
        _ if network.piece.is_later() => true,
        protocol::TCP => {
            packet.adjust_checksum(at + 16, addresses, ports, false) && write_ports(packet, at, to)
        }
        protocol::UDP => {
            packet.adjust_checksum(at + 6, addresses, ports, true) && write_ports(packet, at, to)
        }
        p if p == F::ICMP => {
            // ICMPv6 covers the pseudo-header (RFC 4443 2.3), ICMP does not. Of the two ids one is always zero.
            let pseudo = if F::VERSION == 6 { addresses } else { 0 };
            let id = to.source_port | to.destination_port;
            packet.adjust_checksum(at + 2, pseudo, ports, false) && packet.write(at + 4, id.to_be_bytes())
        }
        _ => true,
    };
    let header = F::VERSION == 6 || adjust_header(packet, addresses);
    rewritten && header && F::write_addresses(packet, &to.source, &to.destination)
}

#[inline(always)]
fn write_ports<A>(packet: &mut impl Packet, at: u32, to: &Translated<A>) -> bool {
    let [a, b] = to.source_port.to_be_bytes();
    let [c, d] = to.destination_port.to_be_bytes();
    packet.write(at, [a, b, c, d])
}

/// Adjusts the IPv4 header checksum, which no device offloads on the way in.
#[inline(always)]
pub(crate) fn adjust_header(packet: &mut impl Packet, difference: u32) -> bool {
    let Some(old) = packet.read::<2>(10).map(u16::from_be_bytes) else { return false };
    packet.write(10, adjust(old, difference).to_be_bytes())
}
