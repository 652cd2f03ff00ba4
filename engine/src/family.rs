//! IPv4 and IPv6 as one type parameter, so that every behaviour is written once and exists twice.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::classify::{Judgement, Lines, classify4, classify6};

/// An IP version.
pub trait Family: Copy + 'static {
    /// An address in network order.
    type Address: Copy + Eq + Default + core::fmt::Debug;
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

    /// The address as one word, alike for equal ones: for choosing a place in a table.
    fn fold(address: Self::Address) -> u32;

    /// The address at `place`, read there and then. Where it is only passed on, the compiler else reads it as soon as it is known
    /// and keeps it on the stack, of which the kernel's programs have little.
    fn fetch(place: &Self::Address) -> Self::Address;

    /// The address `steps` after this one. Only the last 16 bits of an IPv6 address count on, without carry.
    fn plus(address: Self::Address, steps: u16) -> Self::Address;

    /// How many steps `address` comes after `first`, as [`Self::plus`] counts them; `u32::MAX` where it does not.
    fn steps(first: Self::Address, address: Self::Address) -> u32;

    /// The address as 16 bytes; IPv4 as IPv4-mapped IPv6 (RFC 4291 2.5.5.2).
    fn mapped(address: Self::Address) -> [u8; 16];

    /// Whether the ICMP type reports an error about another packet.
    fn is_icmp_error(icmp_type: u8) -> bool;

    /// Whether an ICMP error of this type crosses the gateway, when it quotes a flow.
    fn quotes_flow(icmp_type: u8) -> bool;
}

/// An IPv4 address in network order, aligned as one word: the compiler copies a plain byte array byte by byte, which cost
/// IPv6 packets a third of a microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct Address4(pub [u8; 4]);

/// An IPv6 address in network order, aligned as two words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(8))]
pub struct Address6(pub [u8; 16]);

impl From<Ipv4Addr> for Address4 {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.octets())
    }
}

impl From<Ipv6Addr> for Address6 {
    fn from(address: Ipv6Addr) -> Self {
        Self(address.octets())
    }
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl Family for V4 {
    type Address = Address4;
    const VERSION: u8 = 4;
    const ICMP: u8 = 1;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn classify(
        image: &(impl Lines + ?Sized),
        source: Address4,
        destination: Address4,
        axis: u32,
    ) -> Judgement {
        classify4(image, u32::from_be_bytes(source.0), u32::from_be_bytes(destination.0), axis)
    }

    #[inline(always)]
    fn is_routable(address: Address4) -> bool {
        let [a, b, ..] = address.0;
        // RFC 6890: this network, loopback, link local, multicast and everything above it.
        !(a == 0 || a == 127 || (a == 169 && b == 254) || a >= 224)
    }

    #[inline(always)]
    fn within(address: Address4, network: Address4, mask: Address4) -> bool {
        let word = |address: Address4| u32::from_ne_bytes(address.0);
        word(mask) != 0 && word(address) & word(mask) == word(network)
    }

    #[inline(always)]
    fn sum(address: Address4) -> u32 {
        let word = u32::from_be_bytes(address.0);
        (word >> 16) + (word & 0xffff)
    }

    #[inline(always)]
    fn fold(address: Address4) -> u32 {
        // Hosts in the low bits: products bring them up.
        u32::from_be_bytes(address.0)
    }

    #[inline(always)]
    fn fetch(place: &Address4) -> Address4 {
        // SAFETY: a reference is good for reading, and the address is aligned as a word.
        Address4(unsafe { (&raw const *place).cast::<u32>().read_volatile() }.to_ne_bytes())
    }

    #[inline(always)]
    fn plus(address: Address4, steps: u16) -> Address4 {
        Address4(u32::from_be_bytes(address.0).wrapping_add(u32::from(steps)).to_be_bytes())
    }

    #[inline(always)]
    fn steps(first: Address4, address: Address4) -> u32 {
        u32::from_be_bytes(address.0).wrapping_sub(u32::from_be_bytes(first.0))
    }

    #[inline(always)]
    fn mapped(address: Address4) -> [u8; 16] {
        (0xffff_u128 << 32 | u128::from(u32::from_be_bytes(address.0))).to_be_bytes()
    }

    #[inline(always)]
    fn is_icmp_error(icmp_type: u8) -> bool {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792).
        matches!(icmp_type, 3 | 4 | 5 | 11 | 12)
    }

    #[inline(always)]
    fn quotes_flow(icmp_type: u8) -> bool {
        // Source quench is no more (RFC 6633), and a redirect is for the link it was sent on.
        matches!(icmp_type, 3 | 11 | 12)
    }
}

impl Family for V6 {
    type Address = Address6;
    const VERSION: u8 = 6;
    const ICMP: u8 = 58;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn classify(
        image: &(impl Lines + ?Sized),
        source: Address6,
        destination: Address6,
        axis: u32,
    ) -> Judgement {
        classify6(image, halves(source), halves(destination), axis)
    }

    #[inline(always)]
    fn is_routable(address: Address6) -> bool {
        let (high, low) = halves(address);
        let multicast = high >> 56 == 0xff;
        let link_local = high >> 54 == 0xfe80 >> 6;
        // ::, ::1 and the IPv4-mapped and -compatible ranges, which must not be on the wire.
        let special = high == 0 && low >> 48 == 0;
        !(multicast || link_local || special)
    }

    #[inline(always)]
    fn within(address: Address6, network: Address6, mask: Address6) -> bool {
        let (a, n, m) = (halves(address), halves(network), halves(mask));
        (m.0 | m.1) != 0 && a.0 & m.0 == n.0 && a.1 & m.1 == n.1
    }

    #[inline(always)]
    fn sum(address: Address6) -> u32 {
        let (high, low) = halves(address);
        let fold = |x: u64| (x >> 48) + (x >> 32 & 0xffff) + (x >> 16 & 0xffff) + (x & 0xffff);
        (fold(high) + fold(low)) as u32
    }

    #[inline(always)]
    fn fold(address: Address6) -> u32 {
        let (high, low) = halves(address);
        // Neither prefixes nor interface ids that differ in a few bits may cancel out: Knuth's and xxHash's odd numbers.
        ((high.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ low.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)) >> 32) as u32
    }

    #[inline(always)]
    fn fetch(place: &Address6) -> Address6 {
        let words = (&raw const *place).cast::<u64>();
        // SAFETY: a reference is good for reading, and the address is aligned as two words.
        let [first, second] = unsafe { [words.read_volatile(), words.add(1).read_volatile()] };
        let [a, b, c, d, e, f, g, h] = first.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = second.to_ne_bytes();
        Address6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    #[inline(always)]
    fn plus(address: Address6, steps: u16) -> Address6 {
        let (high, low) = halves(address);
        let last = (low as u16).wrapping_add(steps);
        let low = low & !0xffff | u64::from(last);
        Address6((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    #[inline(always)]
    fn steps(first: Address6, address: Address6) -> u32 {
        let (a, b) = (halves(first), halves(address));
        if a.0 != b.0 || (a.1 ^ b.1) >> 16 != 0 {
            return u32::MAX;
        }
        (b.1 as u32 & 0xffff).wrapping_sub(a.1 as u32 & 0xffff)
    }

    #[inline(always)]
    fn mapped(address: Address6) -> [u8; 16] {
        address.0
    }

    #[inline(always)]
    fn is_icmp_error(icmp_type: u8) -> bool {
        // RFC 4443: error messages have the high bit clear.
        icmp_type < 128
    }

    #[inline(always)]
    fn quotes_flow(icmp_type: u8) -> bool {
        // Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443 3).
        matches!(icmp_type, 1..=4)
    }
}

#[inline(always)]
fn halves(address: Address6) -> (u64, u64) {
    let whole = u128::from_be_bytes(address.0);
    ((whole >> 64) as u64, whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_cross() {
        let v6 = |s: &str| V6::is_routable(s.parse::<Ipv6Addr>().unwrap().into());
        let v4 = |s: &str| V4::is_routable(s.parse::<Ipv4Addr>().unwrap().into());
        for bad in ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255"] {
            assert!(!v4(bad), "{bad}");
        }
        for bad in ["::", "::1", "fe80::1", "febf::1", "ff02::1", "::ffff:1.2.3.4"] {
            assert!(!v6(bad), "{bad}");
        }
        assert!(v4("10.0.0.1") && v4("100.64.0.1") && v6("fd00::1") && v6("2001:db8::1") && v6("fec0::1"));
    }

    #[test]
    fn steps_lead_where_plus_does() {
        let v4 = |s: &str| Address4::from(s.parse::<Ipv4Addr>().unwrap());
        let v6 = |s: &str| Address6::from(s.parse::<Ipv6Addr>().unwrap());
        assert_eq!(V4::plus(v4("203.0.113.250"), 10), v4("203.0.114.4"));
        assert_eq!(V6::plus(v6("2001:db8::fff0"), 15), v6("2001:db8::ffff"));
        for steps in [0, 1, 255] {
            assert_eq!(V4::steps(v4("10.0.0.1"), V4::plus(v4("10.0.0.1"), steps)), u32::from(steps));
            assert_eq!(V6::steps(v6("fd00::1"), V6::plus(v6("fd00::1"), steps)), u32::from(steps));
        }
        assert!(V4::steps(v4("10.0.0.2"), v4("10.0.0.1")) > 0xffff);
        assert!(V6::steps(v6("fd00::2"), v6("fd00::1")) > 0xffff);
        assert!(V6::steps(v6("fd00::1"), v6("fd01::1")) > 0xffff);
        assert!(V6::steps(v6("fd00::1"), v6("fd00::1:1")) > 0xffff);
    }

    #[test]
    fn an_unset_prefix_contains_nothing() {
        assert!(!V4::within(Address4([1, 2, 3, 4]), Address4([0; 4]), Address4([0; 4])));
        assert!(V4::within(Address4([100, 64, 3, 4]), Address4([100, 64, 0, 0]), Address4([255, 255, 0, 0])));
        assert!(!V6::within(Address6([1; 16]), Address6([0; 16]), Address6([0; 16])));
    }
}
