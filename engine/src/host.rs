//! Which addresses are this host's own, and which are every host's on one of its networks: nothing behind a site has either.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is to this host, other than a neighbour's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum HostAddress {
    /// One of its devices has it.
    Own = 1,
    /// The broadcast or network address of one of its IPv4 networks.
    Broadcast = 2,
}

impl HostAddress {
    /// What follows from a device that has `own` with a prefix of `length` bits: no broadcast on links of two (RFC 3021), and in
    /// IPv6 the anycast address of the subnet's routers, of which this host is one (RFC 4291 2.6.1; RFC 6164 for links of two).
    pub fn of(own: IpAddr, length: u8) -> impl Iterator<Item = (IpAddr, Self)> {
        let length = u32::from(length);
        let others = match own {
            IpAddr::V4(own) if length < 31 => {
                let rest = u32::MAX >> length;
                let network = own.to_bits() & !rest;
                [network, network | rest]
                    .map(|bits| Some((Ipv4Addr::from_bits(bits).into(), Self::Broadcast)))
            }
            IpAddr::V6(own) if length < 127 => {
                let routers = own.to_bits() & !(u128::MAX >> length);
                [Some((Ipv6Addr::from_bits(routers).into(), Self::Own)), None]
            }
            _ => [None; 2],
        };
        core::iter::once((own, Self::Own)).chain(others.into_iter().flatten())
    }

    /// The one with this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        if number == Self::Own as u32 { Self::Own } else { Self::Broadcast }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::{String, ToString as _};
    use std::vec::Vec;

    use super::*;

    fn of(own: &str, length: u8) -> Vec<(String, HostAddress)> {
        let all = HostAddress::of(own.parse().unwrap(), length);
        all.map(|(address, what)| (address.to_string(), what)).collect()
    }

    #[test]
    fn a_network_has_a_first_and_a_last_address_and_a_subnet_its_routers() {
        let own = |address: &str| (address.to_string(), HostAddress::Own);
        let broadcast = |address: &str| (address.to_string(), HostAddress::Broadcast);
        assert_eq!(of("10.1.2.3", 24), [own("10.1.2.3"), broadcast("10.1.2.0"), broadcast("10.1.2.255")]);
        assert_eq!(of("10.1.2.3", 30), [own("10.1.2.3"), broadcast("10.1.2.0"), broadcast("10.1.2.3")]);
        assert_eq!(of("10.1.2.3", 0), [own("10.1.2.3"), broadcast("0.0.0.0"), broadcast("255.255.255.255")]);
        assert_eq!(of("fd01::5", 64), [own("fd01::5"), own("fd01::")]);
        assert_eq!(of("fd01::5", 0), [own("fd01::5"), own("::")]);
        for (address, length) in [("10.1.2.3", 31), ("10.1.2.3", 32), ("fd01::5", 127), ("fd01::5", 128)] {
            assert_eq!(of(address, length), [own(address)], "{address}/{length}");
        }
    }

    #[test]
    fn numbers_lead_back() {
        for what in [HostAddress::Own, HostAddress::Broadcast] {
            assert_eq!(HostAddress::from_number(what as u32), what);
        }
    }
}
