//! Reading a packet, by the RFCs and docs/packet-semantics.md: the model's own eyes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sluicegate_engine::DropReason;
use sluicegate_engine::image::axis;

/// What the network header says.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    /// The transport protocol.
    pub protocol: u8,
    /// Offset of the transport header.
    pub transport: usize,
    /// Declared length, from the IP header on.
    pub length: usize,
    /// First byte of an ICMP message.
    icmp_type: u8,
}

/// What the transport header says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transport {
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP flags.
    pub flags: u8,
    /// Protocol and port as policies see it.
    pub axis: u32,
    pub kind: Kind,
}

/// What a packet can do for a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Tcp,
    /// UDP and unknown protocols: opens and answers.
    Datagram,
    EchoRequest,
    EchoReply,
}

impl Header {
    /// The family's ICMP.
    pub fn icmp(&self) -> u8 {
        if self.source.is_ipv6() { 58 } else { 1 }
    }

    pub fn is_echo_request(&self) -> bool {
        self.icmp_type == if self.source.is_ipv6() { 128 } else { 8 }
    }
}

/// The header, and what stands in the way of reading on.
pub fn network(bytes: &[u8], six: bool) -> Result<(Header, Option<DropReason>), DropReason> {
    let least = if six { 40 } else { 20 };
    if bytes.len() < least {
        return Err(DropReason::Malformed);
    }
    if bytes[0] >> 4 != if six { 6 } else { 4 } {
        return Err(DropReason::BadVersion);
    }
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (mut header, problem);
    if six {
        let address = |at: usize| {
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).expect("sixteen bytes")))
        };
        header = Header {
            source: address(8),
            destination: address(24),
            ttl: bytes[7],
            protocol: bytes[6],
            transport: 40,
            length: 40 + usize::from(word(4)),
            icmp_type: 0,
        };
        if header.length > bytes.len() {
            return Err(DropReason::Malformed);
        }
        problem = walk(bytes, &mut header).err();
    } else {
        let address = |at: usize| {
            IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).expect("four bytes")))
        };
        header = Header {
            source: address(12),
            destination: address(16),
            ttl: bytes[8],
            protocol: bytes[9],
            transport: usize::from(bytes[0] & 15) * 4,
            length: usize::from(word(2)),
            icmp_type: 0,
        };
        if header.transport < 20 || header.length < header.transport || header.length > bytes.len() {
            return Err(DropReason::Malformed);
        }
        // Everything but "don't fragment" and the reserved bit (RFC 791 3.1).
        let fragmented = word(6) & 0x2000 != 0 || word(6) & 0x1fff != 0;
        problem = fragmented.then_some(DropReason::Fragment);
    }
    if problem.is_none() && header.protocol == header.icmp() && header.transport < header.length {
        header.icmp_type = bytes[header.transport];
    }
    Ok((header, problem))
}

/// Follows IPv6 extension headers: at most six, at most 512 bytes from the IP header on.
fn walk(bytes: &[u8], header: &mut Header) -> Result<(), DropReason> {
    let known = [0, 43, 44, 51, 59, 60];
    let mut count = 0;
    while known.contains(&header.protocol) {
        count += 1;
        if count > 6 || header.protocol == 59 || header.transport + 8 > header.length {
            return Err(DropReason::BadExtension);
        }
        if header.protocol == 44 {
            return Err(DropReason::Fragment);
        }
        let units = usize::from(bytes[header.transport + 1]);
        let length = if header.protocol == 51 { (units + 2) * 4 } else { (units + 1) * 8 };
        let end = header.transport + length;
        if end > 512 || end > header.length {
            return Err(DropReason::BadExtension);
        }
        header.protocol = bytes[header.transport];
        header.transport = end;
    }
    Ok(())
}

/// The transport header of a packet without a problem.
pub fn transport(bytes: &[u8], header: &Header) -> Result<Transport, DropReason> {
    let segment = &bytes[header.transport..header.length];
    let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    match header.protocol {
        6 => {
            if segment.len() < 20 {
                return Err(DropReason::Malformed);
            }
            let offset = usize::from(segment[12] >> 4) * 4;
            if offset < 20 || offset > segment.len() {
                return Err(DropReason::Malformed);
            }
            Ok(Transport {
                source_port: word(0),
                destination_port: word(2),
                flags: segment[13],
                axis: axis::TCP | u32::from(word(2)),
                kind: Kind::Tcp,
            })
        }
        17 => {
            if segment.len() < 8 || (header.source.is_ipv6() && word(6) == 0) {
                return Err(DropReason::Malformed);
            }
            Ok(Transport {
                source_port: word(0),
                destination_port: word(2),
                flags: 0,
                axis: axis::UDP | u32::from(word(2)),
                kind: Kind::Datagram,
            })
        }
        p if p == header.icmp() => {
            if segment.len() < 8 {
                return Err(DropReason::Malformed);
            }
            let (class, request, reply, error) = if header.source.is_ipv6() {
                (axis::ICMPV6, 128, 129, segment[0] < 128)
            } else {
                (axis::ICMP, 8, 0, [3, 4, 5, 11, 12].contains(&segment[0]))
            };
            let axis = class | u32::from(word(0));
            if error {
                Err(DropReason::IcmpError)
            } else if segment[0] == request {
                Ok(Transport { source_port: word(4), axis, kind: Kind::EchoRequest, ..Transport::default() })
            } else if segment[0] == reply {
                Ok(Transport {
                    destination_port: word(4),
                    axis,
                    kind: Kind::EchoReply,
                    ..Transport::default()
                })
            } else {
                Err(DropReason::NotOpening)
            }
        }
        other => Ok(Transport {
            axis: axis::OTHER | u32::from(other),
            kind: Kind::Datagram,
            ..Transport::default()
        }),
    }
}

/// Whether an address may cross the gateway (RFC 6890).
pub fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let first = a.octets()[0];
            first != 0 && first != 127 && first < 224 && !a.is_link_local()
        }
        IpAddr::V6(a) => {
            let compatible = a.segments()[..5] == [0; 5];
            !(a.is_multicast() || a.segments()[0] & 0xffc0 == 0xfe80 || compatible)
        }
    }
}
