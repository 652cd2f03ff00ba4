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
    /// Of which part of a datagram it is, when it is not whole.
    pub fragment: Option<Fragment>,
}

/// What the fragmentation fields say. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub id: u32,
    /// The protocol they name: in IPv6 perhaps a further extension header.
    pub protocol: u8,
    pub start: usize,
    /// Where it ends; only the last may end within eight bytes.
    pub end: usize,
    pub more: bool,
}

impl Fragment {
    /// `None` for a packet that is whole.
    fn read(
        id: u32,
        protocol: u8,
        offset: u16,
        more: bool,
        bytes: usize,
    ) -> Result<Option<Self>, DropReason> {
        if offset == 0 && !more {
            return Ok(None);
        }
        let start = usize::from(offset) * 8;
        let fits = start + bytes <= 65_535 && bytes > 0 && (!more || bytes.is_multiple_of(8));
        let read = Self { id, protocol, start, end: start + bytes, more };
        if fits { Ok(Some(read)) } else { Err(DropReason::Malformed) }
    }
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
    /// An ICMP error about a packet that it quotes.
    Error,
    /// A later fragment: no transport header.
    Later,
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
    let (mut header, mut problem);
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
            fragment: None,
        };
        if header.length > bytes.len() {
            return Err(DropReason::Malformed);
        }
        problem = walk(bytes, 0, &mut header).err();
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
            fragment: None,
        };
        if header.transport < 20 || header.length < header.transport || header.length > bytes.len() {
            return Err(DropReason::Malformed);
        }
        let (offset, more) = (word(6) & 0x1fff, word(6) & 0x2000 != 0);
        let data = header.length - header.transport;
        match Fragment::read(word(4).into(), header.protocol, offset, more, data) {
            Ok(fragment) => (header.fragment, problem) = (fragment, None),
            Err(reason) => problem = Some(reason),
        }
        if !has_plain_options(&bytes[20..header.transport]) {
            problem = Some(DropReason::BadOption);
        }
    }
    let whole = header.fragment.is_none_or(|fragment| fragment.start == 0);
    if problem.is_none() && whole && header.protocol == header.icmp() && header.transport < header.length {
        header.icmp_type = bytes[header.transport];
    }
    Ok((header, problem))
}

/// Whether IPv4 options can be walked to their end, and none of them is a source route.
fn has_plain_options(options: &[u8]) -> bool {
    match options {
        [] | [0, ..] => true,
        [1, rest @ ..] => has_plain_options(rest),
        [131 | 137, ..] => false,
        [_, length, ..] if *length >= 2 && usize::from(*length) <= options.len() => {
            has_plain_options(&options[usize::from(*length)..])
        }
        _ => false,
    }
}

/// Follows IPv6 extension headers: at most six, at most 512 bytes from the IP header, which is at `start`.
fn walk(bytes: &[u8], start: usize, header: &mut Header) -> Result<(), DropReason> {
    let known = [0, 43, 44, 51, 59, 60];
    let mut count = 0;
    let mut fragments = 0;
    while known.contains(&header.protocol) {
        count += 1;
        if count > 6 || header.protocol == 59 || header.transport + 8 > header.length {
            return Err(DropReason::BadExtension);
        }
        let at = header.transport;
        // A routing header that is not at its end.
        if header.protocol == 43 && bytes[at + 3] != 0 {
            return Err(DropReason::BadExtension);
        }
        let units = usize::from(bytes[at + 1]);
        let length = match header.protocol {
            44 => 8,
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        let fragment = header.protocol == 44;
        let end = at + length;
        if end > start + 512 || end > header.length {
            return Err(DropReason::BadExtension);
        }
        header.protocol = bytes[at];
        header.transport = end;
        if fragment {
            fragments += 1;
            if fragments > 1 {
                return Err(DropReason::BadExtension);
            }
            let word = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]);
            let id = u32::from_be_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]);
            let data = if start == 0 { header.length - end } else { 8 };
            header.fragment = Fragment::read(id, header.protocol, word >> 3, word & 1 != 0, data)?;
            if word >> 3 != 0 {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    pub protocol: u8,
    /// Offset of its IP header.
    pub start: usize,
    /// Offset of its transport header.
    pub transport: usize,
}

/// Reads what the ICMP error with this header quotes; `None` where it tells no flow.
pub fn quote(bytes: &[u8], header: &Header) -> Option<Quote> {
    let start = header.transport + 8;
    let quoted = &bytes[..header.length];
    let six = header.source.is_ipv6();
    if quoted.len() < start + if six { 40 } else { 20 } || quoted[start] >> 4 != if six { 6 } else { 4 } {
        return None;
    }
    let address = |at: usize| -> IpAddr {
        if six {
            Ipv6Addr::from(<[u8; 16]>::try_from(&quoted[at..at + 16]).expect("sixteen bytes")).into()
        } else {
            Ipv4Addr::from(<[u8; 4]>::try_from(&quoted[at..at + 4]).expect("four bytes")).into()
        }
    };
    let mut inner = Header {
        source: address(start + if six { 8 } else { 12 }),
        destination: address(start + if six { 24 } else { 16 }),
        ttl: 0,
        protocol: quoted[start + if six { 6 } else { 9 }],
        transport: start + if six { 40 } else { usize::from(quoted[start] & 15) * 4 },
        length: header.length,
        icmp_type: 0,
        fragment: None,
    };
    let later = if six {
        walk(quoted, start, &mut inner).ok()?;
        inner.fragment.is_some_and(|fragment| fragment.start != 0)
    } else {
        quoted[start + 6] & 0x1f != 0 || quoted[start + 7] != 0
    };
    let short = !six && quoted[start] & 15 < 5;
    let segment = quoted.get(inner.transport..).filter(|segment| segment.len() >= 8)?;
    if later || short || inner.transport > 992 || inner.source != header.destination {
        return None;
    }
    let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    let (from, to) = match inner.protocol {
        6 | 17 => (word(0), word(2)),
        p if p == header.icmp() => match (six, segment[0]) {
            (false, 8) | (true, 128) => (word(4), 0),
            (false, 0) | (true, 129) => (0, word(4)),
            _ => return None,
        },
        _ => (0, 0),
    };
    Some(Quote {
        source: (inner.source, from),
        destination: (inner.destination, to),
        protocol: inner.protocol,
        start,
        transport: inner.transport,
    })
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
            let (class, request, reply, error, quotes) = if header.source.is_ipv6() {
                (axis::ICMPV6, 128, 129, segment[0] < 128, (1..=4).contains(&segment[0]))
            } else {
                let error = [3, 4, 5, 11, 12].contains(&segment[0]);
                (axis::ICMP, 8, 0, error, [3, 11, 12].contains(&segment[0]))
            };
            let axis = class | u32::from(word(0));
            if error && quotes && header.fragment.is_none() {
                Ok(Transport { axis, kind: Kind::Error, ..Transport::default() })
            } else if error {
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
