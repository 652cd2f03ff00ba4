//! Addresses that no name may stand for: whoever writes its records would open this machine, its links or the overlay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What is wrong with `address`, which is no IPv4-mapped one, as that of a resource; `overlay` is the overlay's own prefixes.
pub(super) fn why(address: IpAddr, overlay: &[IpNet]) -> Option<&'static str> {
    if overlay.iter().any(|prefix| prefix.contains(&address)) {
        return Some("in the overlay");
    }
    if address.is_unspecified() {
        return Some("unspecified");
    }
    if address.is_loopback() {
        return Some("loopback");
    }
    if address.is_multicast() {
        return Some("multicast");
    }
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("broadcast"),
        // RFC 1122 3.2.1.3: "this network", as a source alone.
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("unspecified"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(v6) if is_compatible(v6) => Some("IPv4-compatible"),
        IpAddr::V6(v6) if is_metadata(v6) => Some("a cloud's metadata service"),
        IpAddr::V6(v6) => why(translated(v6)?.into(), overlay),
        IpAddr::V4(_) => None,
    }
}

/// RFC 4291 2.5.5.1, deprecated there.
fn is_compatible(address: Ipv6Addr) -> bool {
    address.to_bits() >> 32 == 0
}

/// fd00:ec2::/32, where EC2 has services that are IPv4's link-local ones.
fn is_metadata(address: Ipv6Addr) -> bool {
    address.segments()[..2] == [0xfd00, 0xec2]
}

/// The IPv4 address to which a translator brings packets for one of 64:ff9b::/96 (RFC 6052 2.1).
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    (bits >> 32 == 0x64_ff9b << 64).then(|| Ipv4Addr::from_bits(bits as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_other_machines_are_taken() {
        let overlay = ["100.90.0.0/16".parse().unwrap(), "fd5c::/64".parse().unwrap()];
        for (address, wrong) in [
            ("0.0.0.0", Some("unspecified")),
            ("0.0.0.9", Some("unspecified")),
            ("::", Some("unspecified")),
            ("127.0.0.1", Some("loopback")),
            ("127.9.9.9", Some("loopback")),
            ("::1", Some("loopback")),
            ("169.254.169.254", Some("link-local")),
            ("fe80::1", Some("link-local")),
            ("febf::1", Some("link-local")),
            ("224.0.0.1", Some("multicast")),
            ("ff02::1", Some("multicast")),
            ("255.255.255.255", Some("broadcast")),
            ("::192.0.2.1", Some("IPv4-compatible")),
            ("fd00:ec2::254", Some("a cloud's metadata service")),
            ("fd00:ec2:ffff::1", Some("a cloud's metadata service")),
            ("64:ff9b::169.254.169.254", Some("link-local")),
            ("64:ff9b::127.0.0.1", Some("loopback")),
            ("64:ff9b::", Some("unspecified")),
            ("64:ff9b::0.0.0.9", Some("unspecified")),
            ("64:ff9b::224.0.0.1", Some("multicast")),
            ("64:ff9b::255.255.255.255", Some("broadcast")),
            ("64:ff9b::100.90.3.4", Some("in the overlay")),
            ("64:ff9b::192.0.2.1", None),
            ("64:ff9b::100.91.0.1", None),
            ("64:ff9b:0:0:0:1:7f00:1", None),
            ("64:ff9b:1::127.0.0.1", None),
            ("fd00:ec1::254", None),
            ("fd00:ec3::254", None),
            ("100.90.3.4", Some("in the overlay")),
            ("fd5c::9", Some("in the overlay")),
            ("100.91.0.1", None),
            ("fd5c:0:0:1::9", None),
            ("10.0.0.1", None),
            ("192.0.2.1", None),
            ("2001:db8::1", None),
            ("fd00::1", None),
        ] {
            assert_eq!(why(address.parse().unwrap(), &overlay), wrong, "{address}");
        }
    }
}
