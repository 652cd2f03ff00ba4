//! Building packets from nothing, with every checksum computed in full.

use std::net::IpAddr;

/// TCP flag bits (RFC 9293 3.1).
pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
}

/// What goes behind the IP header.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A segment with these flags and this much data.
    Tcp { source: u16, destination: u16, flags: u8, data: usize },
    /// A datagram; without checksum where `unchecked` (IPv4 only).
    Udp { source: u16, destination: u16, data: usize, unchecked: bool },
    /// An ICMP or ICMPv6 message of this type and code with an id (or whatever lies at its place).
    Icmp { kind: u8, code: u8, id: u16, data: usize },
    /// An ICMP or ICMPv6 error that quotes these bytes.
    Error { kind: u8, code: u8, quote: Vec<u8> },
    /// Anything else.
    Other { protocol: u8, data: usize },
}

/// A packet before it is written down.
#[derive(Clone, Debug)]
pub struct Draft {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    pub payload: Payload,
    /// IPv6 extension headers before the payload: number and length in units of eight bytes.
    pub extensions: Vec<(u8, u8)>,
    /// IPv4 options, at most 40 bytes.
    pub options: Vec<u8>,
    /// Segments left in every routing header.
    pub segments_left: u8,
    /// IPv4 flags and fragment offset.
    pub fragment: u16,
    /// TCP options, at most 40 bytes.
    pub tcp_options: Vec<u8>,
}

impl Draft {
    /// An ordinary packet.
    pub fn new(source: IpAddr, destination: IpAddr, payload: Payload) -> Self {
        Self {
            source,
            destination,
            ttl: 64,
            payload,
            extensions: Vec::new(),
            options: Vec::new(),
            segments_left: 0,
            fragment: 0x4000,
            tcp_options: Vec::new(),
        }
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let segment = self.segment(1, &pseudo(self.source, self.destination));
                let header = 20 + self.options.len().next_multiple_of(4);
                let mut bytes = vec![0; header];
                bytes[0] = 0x40 | (header / 4) as u8;
                bytes[2..4].copy_from_slice(&((header + segment.len()) as u16).to_be_bytes());
                bytes[4..6].copy_from_slice(&[0x12, 0x34]);
                bytes[6..8].copy_from_slice(&self.fragment.to_be_bytes());
                bytes[8] = self.ttl;
                bytes[9] = self.protocol(1);
                bytes[12..16].copy_from_slice(&source.octets());
                bytes[16..20].copy_from_slice(&destination.octets());
                bytes[20..20 + self.options.len()].copy_from_slice(&self.options);
                let sum = checksum(&[&bytes]);
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
                bytes.extend(segment);
                bytes
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let segment = self.segment(58, &pseudo(self.source, self.destination));
                let mut chain = Vec::new();
                for (i, &(_, units)) in self.extensions.iter().enumerate() {
                    let at = chain.len();
                    let next = self.extensions.get(i + 1).map_or(self.protocol(58), |e| e.0);
                    chain.resize(at + (usize::from(units) + 1) * 8, 0);
                    chain[at] = next;
                    chain[at + 1] = if self.extensions[i].0 == 51 { units * 2 } else { units };
                    chain[at + 3] = if self.extensions[i].0 == 43 { self.segments_left } else { 0 };
                }
                let mut bytes = vec![0; 40];
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&((chain.len() + segment.len()) as u16).to_be_bytes());
                bytes[6] = self.extensions.first().map_or(self.protocol(58), |e| e.0);
                bytes[7] = self.ttl;
                bytes[8..24].copy_from_slice(&source.octets());
                bytes[24..40].copy_from_slice(&destination.octets());
                bytes.extend(chain);
                bytes.extend(segment);
                bytes
            }
            _ => panic!("one family a packet"),
        }
    }

    fn protocol(&self, icmp: u8) -> u8 {
        match self.payload {
            Payload::Tcp { .. } => 6,
            Payload::Udp { .. } => 17,
            Payload::Icmp { .. } | Payload::Error { .. } => icmp,
            Payload::Other { protocol, .. } => protocol,
        }
    }

    fn segment(&self, icmp: u8, addresses: &[u8]) -> Vec<u8> {
        let filling = |n: usize| (0..n).map(|i| (i * 7) as u8);
        let mut bytes = Vec::new();
        let at = match &self.payload {
            &Payload::Tcp { source, destination, flags, data } => {
                bytes.extend([source.to_be_bytes(), destination.to_be_bytes()].concat());
                let words = 5 + self.tcp_options.len().div_ceil(4);
                bytes.extend([0, 0, 1, 0, 0, 0, 2, 0, (words << 4) as u8, flags, 0x20, 0, 0, 0, 0, 0]);
                bytes.extend(&self.tcp_options);
                bytes.resize(words * 4, 0);
                bytes.extend(filling(data));
                16
            }
            &Payload::Udp { source, destination, data, unchecked } => {
                bytes.extend([source.to_be_bytes(), destination.to_be_bytes()].concat());
                bytes.extend(((8 + data) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(filling(data));
                if unchecked && self.source.is_ipv4() {
                    return bytes;
                }
                6
            }
            &Payload::Icmp { kind, code, id, data } => {
                bytes.extend([kind, code, 0, 0]);
                bytes.extend(id.to_be_bytes());
                bytes.extend([0, 9]);
                bytes.extend(filling(data));
                2
            }
            Payload::Error { kind, code, quote } => {
                bytes.extend([*kind, *code, 0, 0, 0, 0, 5, 220]);
                bytes.extend(quote);
                2
            }
            &Payload::Other { data, .. } => return filling(data).collect(),
        };
        let protocol = self.protocol(icmp);
        let tail = [0, protocol, (bytes.len() >> 8) as u8, bytes.len() as u8];
        let sum = match self.payload {
            // ICMP for IPv4 covers no addresses (RFC 792).
            Payload::Icmp { .. } | Payload::Error { .. } if icmp == 1 => checksum(&[&bytes]),
            _ => checksum(&[addresses, &tail, &bytes]),
        };
        let sum = if protocol == 17 && sum == 0 { 0xffff } else { sum };
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }
}

/// The addresses of a pseudo-header.
pub fn pseudo(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    [octets(source), octets(destination)].concat()
}

/// An address in network order.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The Internet checksum over several pieces, all but the last of even length (RFC 1071).
pub fn checksum(pieces: &[&[u8]]) -> u16 {
    !sum(pieces)
}

/// The one's complement sum.
pub fn sum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for piece in pieces {
        for pair in piece.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}
