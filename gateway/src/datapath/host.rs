//! What addresses are to this host: its own, and those of its networks that are no single host's.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use sluicegate_engine::host::HostAddress;

use super::device::{self, Assigned};

/// What addresses are to this host; IPv4 in its mapped form.
pub(crate) type HostAddresses = BTreeMap<[u8; 16], HostAddress>;

/// Those of every device now.
pub(crate) fn host_addresses() -> io::Result<HostAddresses> {
    Ok(of(&device::addresses()?))
}

/// What follows from these addresses of devices. One that a device has is the host's own, whatever else it is.
pub(crate) fn of(assigned: &[Assigned]) -> HostAddresses {
    let mut all = HostAddresses::new();
    let set = |a: &Assigned| a.broadcast.map(|v4| (v4.into(), HostAddress::Broadcast));
    for (address, what) in assigned.iter().flat_map(|a| HostAddress::of(a.address, a.length).chain(set(a))) {
        let known = all.entry(mapped(address)).or_insert(what);
        *known = (*known).min(what);
    }
    all
}

/// As 16 bytes; IPv4 as IPv4-mapped IPv6 (RFC 4291 2.5.5.2).
pub(crate) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_address_is_no_broadcast_of_another_network() {
        let assigned =
            |address: &str, length| Assigned { address: address.parse().unwrap(), length, broadcast: None };
        for order in [[0, 1], [1, 0]] {
            let both = [assigned("10.1.2.255", 32), assigned("10.1.2.1", 24)];
            let all = of(&order.map(|i: usize| both[i]));
            let is = |address: &str| all.get(&mapped(address.parse().unwrap())).copied();
            assert_eq!((is("10.1.2.255"), is("10.1.2.1")), (Some(HostAddress::Own), Some(HostAddress::Own)));
            assert_eq!((is("10.1.2.0"), is("10.1.2.2")), (Some(HostAddress::Broadcast), None));
        }
    }

    #[test]
    fn a_broadcast_address_that_was_set_is_one_and_the_far_end_of_a_link_is_none() {
        let lab = sluicegate_lab::Lab::new().unwrap();
        let host = lab.namespace("host").unwrap();
        host.bridge("plain").unwrap();
        for address in [
            "10.7.0.1/24 brd 10.7.0.99",
            "10.8.0.1/32 brd 10.8.0.255 label plain:8",
            "10.9.0.1 peer 10.9.0.2",
            "10.10.0.1 peer 10.10.0.2/32 brd 10.10.0.3",
            // As clouds set it.
            "10.11.0.1/32 brd 10.11.0.1",
            // Another address has it.
            "10.12.0.1/32 brd 10.7.0.1",
            "fd09::1 peer fd09::2",
        ] {
            let words = ["address", "add"].into_iter().chain(address.split(' ')).chain(["dev", "plain"]);
            host.ip(&words.collect::<Vec<_>>()).unwrap();
        }
        let all = host.enter(host_addresses).unwrap().unwrap();
        let is = |address: &str| all.get(&mapped(address.parse().unwrap())).copied();
        for own in ["10.7.0.1", "10.8.0.1", "10.9.0.1", "10.10.0.1", "10.11.0.1", "10.12.0.1", "fd09::1"] {
            assert_eq!(is(own), Some(HostAddress::Own), "{own}");
        }
        for broadcast in ["10.7.0.0", "10.7.0.99", "10.7.0.255", "10.8.0.255", "10.10.0.3"] {
            assert_eq!(is(broadcast), Some(HostAddress::Broadcast), "{broadcast}");
        }
        for other in ["10.9.0.2", "10.10.0.2", "fd09::2"] {
            assert_eq!(is(other), None, "{other}");
        }
    }

    #[test]
    fn addresses_of_devices_are_known_with_their_networks() {
        let lab = sluicegate_lab::Lab::new().unwrap();
        let host = lab.namespace("host").unwrap();
        host.bridge("plain").unwrap();
        for address in ["10.7.0.1/24", "10.7.0.9/24", "10.8.0.1/31", "fd07::5/64", "fd08::1/127"] {
            host.address("plain", address).unwrap();
        }
        let all = host.enter(host_addresses).unwrap().unwrap();
        let is = |address: &str| all.get(&mapped(address.parse().unwrap())).copied();
        for own in ["10.7.0.1", "10.7.0.9", "10.8.0.1", "fd07::5", "fd07::", "fd08::1", "127.0.0.1"] {
            assert_eq!(is(own), Some(HostAddress::Own), "{own}");
        }
        for broadcast in ["10.7.0.0", "10.7.0.255"] {
            assert_eq!(is(broadcast), Some(HostAddress::Broadcast), "{broadcast}");
        }
        for other in ["10.7.0.2", "10.8.0.0", "fd07::6", "fd08::"] {
            assert_eq!(is(other), None, "{other}");
        }
    }
}
