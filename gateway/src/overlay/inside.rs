//! Packets of the agents themselves, inside the tunnel.
//!
//! Such a packet is IPv6 between overlay addresses with next header 253 (RFC 3692: for experiments) and hop limit 1, so that no host
//! or router passes it on. WireGuard has checked its source by the peer's key before it is read here. None reaches the host or
//! the datapath, so no rule opens it and no port is taken for it; an agent that does not know its kind has no use for it.

use std::net::Ipv6Addr;

const NEXT_HEADER: u8 = 253;
const IPV6: usize = 40;
/// Bytes before the body: IPv6's header, five bytes that say what it is, one that says which, and two of nothing.
pub(super) const HEADER: usize = IPV6 + 8;

/// A packet that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside<'a> {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    /// Which of its protocol's packets it is.
    pub(super) kind: u8,
    pub(super) body: &'a [u8],
}

/// A packet of the protocol that begins with `magic`. The body is shorter than 64 KiB.
pub(super) fn packet(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    magic: [u8; 5],
    kind: u8,
    body: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0; HEADER + body.len()];
    packet[0] = 6 << 4;
    packet[4..6].copy_from_slice(&((HEADER - IPV6 + body.len()) as u16).to_be_bytes());
    packet[6] = NEXT_HEADER;
    packet[7] = 1;
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    packet[40..45].copy_from_slice(&magic);
    packet[45] = kind;
    packet[HEADER..].copy_from_slice(body);
    packet
}

/// Reads a packet, where it is of the protocol that begins with `magic` and whole.
pub(super) fn parse(packet: &[u8], magic: [u8; 5]) -> Option<Inside<'_>> {
    if packet.len() < HEADER || packet[0] >> 4 != 6 || packet[6] != NEXT_HEADER || packet[40..45] != magic {
        return None;
    }
    let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).map(Ipv6Addr::from).ok();
    let length = IPV6 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    // What follows the packet is WireGuard's padding.
    let body = packet.get(HEADER..length)?;
    Some(Inside { source: address(8)?, destination: address(24)?, kind: packet[45], body })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    #[test]
    fn a_packet_is_read_as_it_was_written_without_what_pads_it() {
        let mut written = packet(A, B, *b"ABCD\x01", 7, b"body");
        let read = Inside { source: A, destination: B, kind: 7, body: b"body" };
        assert_eq!(parse(&written, *b"ABCD\x01"), Some(read));
        written.extend([0; 12]);
        assert_eq!(parse(&written, *b"ABCD\x01"), Some(read));
    }

    #[test]
    fn what_is_another_protocols_or_not_whole_is_not_read() {
        let written = packet(A, B, *b"ABCD\x01", 7, b"body");
        assert_eq!(parse(&written, *b"ABCD\x02"), None);
        assert_eq!(parse(&written[..written.len() - 1], *b"ABCD\x01"), None);
        assert_eq!(parse(&[], *b"ABCD\x01"), None);
        let changed = |at: usize, byte: u8| {
            let mut packet = written.clone();
            packet[at] = byte;
            packet
        };
        // Another next header, IPv4, and a length that ends within the header.
        for spoilt in [changed(6, 17), changed(0, 4 << 4), changed(5, 7)] {
            assert_eq!(parse(&spoilt, *b"ABCD\x01"), None, "{spoilt:?}");
        }
    }
}
