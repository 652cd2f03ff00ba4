//! IPv4 and IPv6 as one type parameter, so that every behaviour is written once and exists twice.

use crate::classify::{Judgement, Lines, classify4, classify6};

/// An IP version.
pub trait Family: Copy + 'static {
    /// An address in network order.
    type Address: Copy + Eq + Default + core::fmt::Debug + AsRef<[u8]>;
    /// The version number in the header.
    const VERSION: u8;
    /// The IP protocol number of this family's ICMP.
    const ICMP: u8;
    /// ICMP type of an echo request.
    const ECHO_REQUEST: u8;
    /// ICMP type of an echo reply.
    const ECHO_REPLY: u8;

    /// Judges a packet by an image.
    fn classify(
        image: &(impl Lines + ?Sized),
        source: Self::Address,
        destination: Self::Address,
        axis: u32,
    ) -> Judgement;

    /// Whether a packet may carry the address as source or destination across the gateway: not multicast, broadcast,
    /// loopback, link-local or unspecified.
    fn is_routable(address: Self::Address) -> bool;

    /// Whether `address` is inside the prefix given by `network` and `mask`.
    fn within(address: Self::Address, network: Self::Address, mask: Self::Address) -> bool;

    /// The one's complement sum of the address, for checksums; not folded.
    fn sum(address: Self::Address) -> u32;

    /// The address as 16 bytes; IPv4 as IPv4-mapped IPv6 (RFC 4291 2.5.5.2).
    fn mapped(address: Self::Address) -> [u8; 16];

    /// Whether the ICMP type reports an error about another packet.
    fn is_icmp_error(icmp_type: u8) -> bool;
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl Family for V4 {
    type Address = [u8; 4];
    const VERSION: u8 = 4;
    const ICMP: u8 = 1;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn classify(
        image: &(impl Lines + ?Sized),
        source: [u8; 4],
        destination: [u8; 4],
        axis: u32,
    ) -> Judgement {
        classify4(image, u32::from_be_bytes(source), u32::from_be_bytes(destination), axis)
    }

    #[inline(always)]
    fn is_routable(address: [u8; 4]) -> bool {
        let [a, b, ..] = address;
        // RFC 6890: this network, loopback, link local, multicast and everything above it.
        !(a == 0 || a == 127 || (a == 169 && b == 254) || a >= 224)
    }

    #[inline(always)]
    fn within(address: [u8; 4], network: [u8; 4], mask: [u8; 4]) -> bool {
        let word = u32::from_ne_bytes;
        word(mask) != 0 && word(address) & word(mask) == word(network)
    }

    #[inline(always)]
    fn sum(address: [u8; 4]) -> u32 {
        let word = u32::from_be_bytes(address);
        (word >> 16) + (word & 0xffff)
    }

    #[inline(always)]
    fn mapped(address: [u8; 4]) -> [u8; 16] {
        let [a, b, c, d] = address;
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
    }

    #[inline(always)]
    fn is_icmp_error(icmp_type: u8) -> bool {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792).
        matches!(icmp_type, 3 | 4 | 5 | 11 | 12)
    }
}

impl Family for V6 {
    type Address = [u8; 16];
    const VERSION: u8 = 6;
    const ICMP: u8 = 58;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn classify(
        image: &(impl Lines + ?Sized),
        source: [u8; 16],
        destination: [u8; 16],
        axis: u32,
    ) -> Judgement {
        classify6(image, halves(source), halves(destination), axis)
    }

    #[inline(always)]
    fn is_routable(address: [u8; 16]) -> bool {
        let (high, low) = halves(address);
        let multicast = high >> 56 == 0xff;
        let link_local = high >> 54 == 0xfe80 >> 6;
        // ::, ::1 and the IPv4-mapped and -compatible ranges, which must not be on the wire.
        let special = high == 0 && low >> 48 == 0;
        !(multicast || link_local || special)
    }

    #[inline(always)]
    fn within(address: [u8; 16], network: [u8; 16], mask: [u8; 16]) -> bool {
        let (a, n, m) = (halves(address), halves(network), halves(mask));
        (m.0 | m.1) != 0 && a.0 & m.0 == n.0 && a.1 & m.1 == n.1
    }

    #[inline(always)]
    fn sum(address: [u8; 16]) -> u32 {
        let (high, low) = halves(address);
        let fold = |x: u64| (x >> 48) + (x >> 32 & 0xffff) + (x >> 16 & 0xffff) + (x & 0xffff);
        (fold(high) + fold(low)) as u32
    }

    #[inline(always)]
    fn mapped(address: [u8; 16]) -> [u8; 16] {
        address
    }

    #[inline(always)]
    fn is_icmp_error(icmp_type: u8) -> bool {
        // RFC 4443: error messages have the high bit clear.
        icmp_type < 128
    }
}

#[inline(always)]
fn halves(address: [u8; 16]) -> (u64, u64) {
    let whole = u128::from_be_bytes(address);
    ((whole >> 64) as u64, whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_cross() {
        let v6 = |s: &str| V6::is_routable(s.parse::<core::net::Ipv6Addr>().unwrap().octets());
        let v4 = |s: &str| V4::is_routable(s.parse::<core::net::Ipv4Addr>().unwrap().octets());
        for bad in ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255"] {
            assert!(!v4(bad), "{bad}");
        }
        for bad in ["::", "::1", "fe80::1", "febf::1", "ff02::1", "::ffff:1.2.3.4"] {
            assert!(!v6(bad), "{bad}");
        }
        assert!(v4("10.0.0.1") && v4("100.64.0.1") && v6("fd00::1") && v6("2001:db8::1") && v6("fec0::1"));
    }

    #[test]
    fn an_unset_prefix_contains_nothing() {
        assert!(!V4::within([1, 2, 3, 4], [0; 4], [0; 4]));
        assert!(V4::within([100, 64, 3, 4], [100, 64, 0, 0], [255, 255, 0, 0]));
        assert!(!V6::within([1; 16], [0; 16], [0; 16]));
    }
}
