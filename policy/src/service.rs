//! Services as people write them (`tcp/443`, `udp/53,8000-8999`, `icmp`, `all`), and as ranges of the image's axis.

#![expect(clippy::single_range_in_vec_init, reason = "one range of values is meant, not its values")]

use std::fmt;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use sluicegate_engine::image::axis;

use crate::model::Service;

/// Reads a service: `all`, `icmp`, `tcp`, `udp`, `tcp/PORTS`, `udp/PORTS` or `netbird-ssh/PORTS` (TCP), where PORTS is
/// ports and ranges separated by commas: `443`, `80,443`, `8000-8999,9100`. Ports are 1 to 65535.
pub fn parse(text: &str) -> Result<Service, ServiceError> {
    let (protocol, ports) = match text.split_once('/') {
        Some((protocol, ports)) => (protocol, Some(parse_ports(text, ports)?)),
        None => (text, None),
    };
    match (protocol, ports) {
        ("all", None) => Ok(Service::All),
        ("icmp", None) => Ok(Service::Icmp),
        ("all" | "icmp", Some(_)) => {
            Err(ServiceError::PortsNotAllowed { text: text.into(), protocol: protocol.into() })
        }
        ("tcp", ports) => Ok(Service::Tcp(ports.unwrap_or_default())),
        ("udp", ports) => Ok(Service::Udp(ports.unwrap_or_default())),
        ("netbird-ssh", Some(ports)) => Ok(Service::Tcp(ports)),
        ("netbird-ssh", None) => Err(ServiceError::PortsMissing { text: text.into() }),
        _ => Err(ServiceError::Protocol { text: text.into() }),
    }
}

/// Why a text is not a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// The part before the slash is no protocol.
    #[error(
        "`{text}` does not start with a protocol; write all, icmp, tcp/PORTS or udp/PORTS, for example tcp/443"
    )]
    Protocol {
        /// The whole text.
        text: String,
    },
    /// Ports with a protocol that has none.
    #[error("`{text}`: {protocol} has no ports; write just `{protocol}`")]
    PortsNotAllowed {
        /// The whole text.
        text: String,
        /// The protocol.
        protocol: String,
    },
    /// A protocol that must name its port.
    #[error("`{text}` must name its port, as in tcp/22")]
    PortsMissing {
        /// The whole text.
        text: String,
    },
    /// A port that is not one.
    #[error("`{port}` in `{text}` is not a port; write numbers from 1 to 65535 and ranges like 8000-8999")]
    Port {
        /// The whole text.
        text: String,
        /// The offending part.
        port: String,
    },
    /// A range that ends before it starts.
    #[error("the range `{range}` in `{text}` ends before it starts")]
    Backwards {
        /// The whole text.
        text: String,
        /// The offending part.
        range: String,
    },
}

fn parse_ports(text: &str, ports: &str) -> Result<Vec<RangeInclusive<u16>>, ServiceError> {
    let port = |s: &str| match s.parse::<u16>() {
        Ok(port) if port > 0 && s.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err(ServiceError::Port { text: text.into(), port: s.into() }),
    };
    let range = |s: &str| match s.split_once('-') {
        None => port(s).map(|p| p..=p),
        Some((first, last)) => {
            let range = port(first)?..=port(last)?;
            if range.is_empty() {
                return Err(ServiceError::Backwards { text: text.into(), range: s.into() });
            }
            Ok(range)
        }
    };
    ports.split(',').map(range).collect()
}

impl fmt::Display for Service {
    /// The form [`parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (protocol, ports) = match self {
            Service::All => return f.write_str("all"),
            Service::Icmp => return f.write_str("icmp"),
            Service::Tcp(ports) => ("tcp", ports),
            Service::Udp(ports) => ("udp", ports),
        };
        f.write_str(protocol)?;
        for (i, range) in ports.iter().enumerate() {
            f.write_str(if i == 0 { "/" } else { "," })?;
            match range.end() == range.start() {
                true => write!(f, "{}", range.start())?,
                false => write!(f, "{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

impl Service {
    /// Whether a rule for this service holds in both directions between peers whatever its flag says: it names no port
    /// by which the two ends could be told apart.
    pub fn always_bidirectional(&self) -> bool {
        match self {
            Service::All | Service::Icmp => true,
            Service::Tcp(ports) | Service::Udp(ports) => ports.is_empty(),
        }
    }

    /// The values of [`axis`] the service covers: rising, disjoint and not adjacent.
    pub fn axis_ranges(&self) -> Vec<Range<u32>> {
        let (class, ports) = match self {
            Service::All => return vec![0..axis::END],
            Service::Icmp => return vec![axis::ICMP..axis::END],
            Service::Tcp(ports) => (axis::TCP, ports),
            Service::Udp(ports) => (axis::UDP, ports),
        };
        if ports.is_empty() {
            return vec![class..class + 0x1_0000];
        }
        let mut ranges: Vec<Range<u32>> = ports
            .iter()
            .filter(|r| !r.is_empty())
            .map(|r| class + u32::from(*r.start())..class + u32::from(*r.end()) + 1)
            .collect();
        ranges.sort_unstable_by_key(|r| (r.start, r.end));
        ranges.dedup_by(|next, kept| {
            let touches = next.start <= kept.end;
            if touches {
                kept.end = kept.end.max(next.end);
            }
            touches
        });
        ranges
    }
}

/// The protocol and port of one packet somebody asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// TCP to a port.
    Tcp(u16),
    /// UDP to a port.
    Udp(u16),
    /// An ICMP or ICMPv6 echo request, by the family of the addresses.
    Icmp,
    /// Another IP protocol, by its number.
    Protocol(u8),
}

impl Probe {
    /// Reads `443/tcp`, `tcp/443`, `53/udp`, `icmp` or a protocol number such as `47`.
    pub fn parse(text: &str) -> Result<Self, ServiceError> {
        let (a, b) = text.split_once('/').unwrap_or((text, ""));
        let (protocol, port) =
            if a.bytes().all(|c| c.is_ascii_digit()) && !b.is_empty() { (b, a) } else { (a, b) };
        let number = || match port.parse::<u16>() {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(ServiceError::Port { text: text.into(), port: port.into() }),
        };
        match protocol {
            "tcp" => Ok(Probe::Tcp(number()?)),
            "udp" => Ok(Probe::Udp(number()?)),
            "icmp" | "icmpv6" if port.is_empty() => Ok(Probe::Icmp),
            "icmp" | "icmpv6" => {
                Err(ServiceError::PortsNotAllowed { text: text.into(), protocol: protocol.into() })
            }
            other if port.is_empty() => match other.parse::<u8>() {
                Ok(1 | 58) => Ok(Probe::Icmp),
                Ok(6 | 17) => Err(ServiceError::PortsMissing { text: text.into() }),
                Ok(n) => Ok(Probe::Protocol(n)),
                Err(_) => Err(ServiceError::Protocol { text: text.into() }),
            },
            _ => Err(ServiceError::Protocol { text: text.into() }),
        }
    }

    /// The value on [`axis`] of such a packet to `destination`.
    pub fn axis(self, destination: IpAddr) -> u32 {
        const ECHO_V4: u32 = 8 << 8;
        const ECHO_V6: u32 = 128 << 8;
        match (self, destination) {
            (Probe::Tcp(port), _) => axis::TCP | u32::from(port),
            (Probe::Udp(port), _) => axis::UDP | u32::from(port),
            (Probe::Icmp, IpAddr::V4(_)) => axis::ICMP | ECHO_V4,
            (Probe::Icmp, IpAddr::V6(_)) => axis::ICMPV6 | ECHO_V6,
            (Probe::Protocol(number), _) => axis::OTHER | u32::from(number),
        }
    }
}

impl fmt::Display for Probe {
    /// The form `PORT/PROTOCOL`, which [`Probe::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Tcp(port) => write!(f, "{port}/tcp"),
            Probe::Udp(port) => write!(f, "{port}/udp"),
            Probe::Icmp => f.write_str("icmp"),
            Probe::Protocol(number) => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_and_written_alike() {
        for text in
            ["all", "icmp", "tcp", "udp", "tcp/443", "udp/53,5353", "tcp/8000-8999", "tcp/80,8000-8010"]
        {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("tcp/80,443"), Ok(Service::Tcp(vec![80..=80, 443..=443])));
        assert_eq!(parse("netbird-ssh/22"), Ok(Service::Tcp(vec![22..=22])));
        assert_eq!(parse("tcp/7-7").unwrap().to_string(), "tcp/7");
    }

    #[test]
    fn what_is_not_a_service_says_why() {
        let bad = [
            ("", "protocol"),
            ("tcp/", "not a port"),
            ("tcp/0", "not a port"),
            ("tcp/65536", "not a port"),
            ("tcp/+80", "not a port"),
            ("tcp/80,", "not a port"),
            ("tcp/http", "not a port"),
            ("tcp/90-80", "ends before it starts"),
            ("icmp/8", "has no ports"),
            ("all/1", "has no ports"),
            ("netbird-ssh", "must name its port"),
            ("sctp/9", "protocol"),
            ("TCP/9", "protocol"),
        ];
        for (text, why) in bad {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn ranges_on_the_axis_are_merged() {
        let tcp = |a: u32, b: u32| axis::TCP + a..axis::TCP + b;
        assert_eq!(
            Service::Tcp(vec![90..=95, 80..=89, 443..=443]).axis_ranges(),
            [tcp(80, 96), tcp(443, 444)]
        );
        assert_eq!(Service::Tcp(vec![]).axis_ranges(), [tcp(0, 65536)]);
        assert_eq!(Service::Tcp(vec![0..=65535]).axis_ranges(), [tcp(0, 65536)]);
        #[expect(
            clippy::reversed_empty_ranges,
            reason = "a stored range may be backwards: it matches nothing"
        )]
        let backwards = Service::Udp(vec![9..=3]);
        assert_eq!(backwards.axis_ranges(), []);
        assert_eq!(Service::Icmp.axis_ranges(), [axis::ICMP..axis::END]);
    }

    #[test]
    fn probes_are_read() {
        assert_eq!(Probe::parse("443/tcp"), Ok(Probe::Tcp(443)));
        assert_eq!(Probe::parse("udp/53"), Ok(Probe::Udp(53)));
        assert_eq!(Probe::parse("icmp"), Ok(Probe::Icmp));
        assert_eq!(Probe::parse("47"), Ok(Probe::Protocol(47)));
        for bad in ["tcp", "0/tcp", "icmp/8", "99999/udp", "quic/443", "443", "6"] {
            assert!(Probe::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Probe::Icmp.axis("fd00::1".parse().unwrap()), axis::ICMPV6 | 128 << 8);
    }
}
