//! The packet that a trace follows: made up from what the asker says.

use std::net::IpAddr;

use sluicegate_engine::family::{Family, V4, V6};
use sluicegate_engine::flow::Side;
use sluicegate_engine::packet::{protocol, tcp};

/// A packet that nobody sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Where it would come from.
    pub side: Side,
    /// Source and destination, of one family.
    pub source: IpAddr,
    /// See `source`.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port, or the id of an echo message.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// TCP flag bits.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Length from the IP header on; headers at the least.
    pub length: u16,
}

/// TCP flags by the names they are asked for.
pub const TCP_FLAGS: [(&str, u8); 5] = [
    ("syn", tcp::SYN),
    ("ack", tcp::ACK),
    ("syn-ack", tcp::SYN | tcp::ACK),
    ("fin", tcp::FIN | tcp::ACK),
    ("rst", tcp::RST),
];

impl Probe {
    /// Whether the packet is ICMP of its family.
    pub fn is_icmp(&self) -> bool {
        self.protocol == icmp(self.source.is_ipv6())
    }

    /// The packet from its IP header on, with checksums.
    pub fn bytes(&self) -> Vec<u8> {
        let mut payload = self.transport();
        let header = if self.source.is_ipv4() { 20 } else { 40 };
        payload.resize(payload.len().max(usize::from(self.length).saturating_sub(header)), 0);
        self.seal(&mut payload);
        let mut bytes = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = (header + payload.len()) as u16;
                let mut head = vec![
                    0x45,
                    0,
                    (total >> 8) as u8,
                    total as u8,
                    0,
                    0,
                    0x40,
                    0,
                    self.ttl,
                    self.protocol,
                    0,
                    0,
                ];
                head.extend(source.octets());
                head.extend(destination.octets());
                let sum = checksum(&[&head]);
                head[10..12].copy_from_slice(&sum.to_be_bytes());
                head
            }
            (source, destination) => {
                let mut head = vec![0x60, 0, 0, 0];
                head.extend((payload.len() as u16).to_be_bytes());
                head.extend([self.protocol, self.ttl]);
                head.extend(octets(source));
                head.extend(octets(destination));
                head
            }
        };
        bytes.append(&mut payload);
        bytes
    }

    fn transport(&self) -> Vec<u8> {
        let ports = [self.source_port.to_be_bytes(), self.destination_port.to_be_bytes()].concat();
        match self.protocol {
            protocol::TCP => {
                let rest = [0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, self.tcp_flags, 0xff, 0xff, 0, 0, 0, 0];
                [ports, rest.to_vec()].concat()
            }
            protocol::UDP => [ports, vec![0, 8, 0, 0]].concat(),
            _ if self.is_icmp() => {
                let six = self.source.is_ipv6();
                // What a site sends of its own accord opens nothing: from there an echo is an answer.
                let kind = match (six, self.side) {
                    (false, Side::Site) => V4::ECHO_REPLY,
                    (false, _) => V4::ECHO_REQUEST,
                    (true, Side::Site) => V6::ECHO_REPLY,
                    (true, _) => V6::ECHO_REQUEST,
                };
                let [high, low] = self.source_port.to_be_bytes();
                vec![kind, 0, 0, 0, high, low, 0, 1]
            }
            _ => vec![0; 8],
        }
    }

    /// Fills in length and checksum of the transport header.
    fn seal(&self, payload: &mut [u8]) {
        let length = payload.len() as u16;
        let at = match self.protocol {
            protocol::TCP => 16,
            protocol::UDP => {
                payload[4..6].copy_from_slice(&length.to_be_bytes());
                6
            }
            _ if self.is_icmp() => 2,
            _ => return,
        };
        let pseudo = [octets(self.source), octets(self.destination)].concat();
        let tail = [0, self.protocol, (length >> 8) as u8, length as u8];
        // ICMP for IPv4 covers no addresses (RFC 792); a UDP checksum of zero means none (RFC 768).
        let sum = match self.protocol == V4::ICMP {
            true => checksum(&[payload]),
            false => checksum(&[&pseudo, &tail, payload]),
        };
        let sum = if sum == 0 && self.protocol == protocol::UDP { 0xffff } else { sum };
        payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The number of ICMP for IPv4, or for IPv6.
pub fn icmp(six: bool) -> u8 {
    if six { V6::ICMP } else { V4::ICMP }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The Internet checksum over pieces, all but the last of even length (RFC 1071).
fn checksum(pieces: &[&[u8]]) -> u16 {
    let words = pieces.iter().flat_map(|piece| piece.chunks(2));
    let sum: u32 =
        words.map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn probe(side: Side, source: &str, destination: &str, protocol: u8) -> Probe {
        Probe {
            side,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            source_port: 50_000,
            destination_port: 443,
            tcp_flags: tcp::SYN,
            ttl: 64,
            length: 0,
        }
    }

    #[test]
    fn packets_carry_right_lengths_and_checksums() {
        for (source, destination) in [("100.64.0.2", "10.9.0.7"), ("fd64::2", "fd09::7")] {
            let six = source.contains(':');
            for (protocol, length) in [(6, if six { 60 } else { 40 }), (17, 1000), (icmp(six), 28), (47, 0)] {
                let probe = Probe { length, ..probe(Side::Overlay, source, destination, protocol) };
                let bytes = probe.bytes();
                let header = if six { 40 } else { 20 };
                let payload = &bytes[header..];
                assert!(bytes.len() >= usize::from(length));
                if six {
                    assert_eq!(usize::from(u16::from_be_bytes([bytes[4], bytes[5]])), payload.len());
                } else {
                    assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len());
                    assert_eq!(checksum(&[&bytes[..20]]), 0);
                }
                let pseudo = [octets(probe.source), octets(probe.destination)].concat();
                let tail = [0, protocol, (payload.len() >> 8) as u8, payload.len() as u8];
                match protocol {
                    1 => assert_eq!(checksum(&[payload]), 0),
                    47 => {}
                    _ => assert_eq!(checksum(&[&pseudo, &tail, payload]), 0, "{probe:?}"),
                }
            }
        }
    }
}
