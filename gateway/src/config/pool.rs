//! Addresses to masquerade with, as they are written: `203.0.113.8-203.0.113.15`, or one address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::Deserialize;

/// Addresses in one pool at the most: each is a series of the metrics that count ports in use.
const POOL_MAX: u16 = 256;

/// Addresses of one family that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Pool {
    first: IpAddr,
    count: u16,
}

impl Pool {
    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// How many addresses there are: 1 to 256.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Every address, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let first = self.first;
        (0..self.count).map(move |i| match first {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + u32::from(i)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + u128::from(i)).into()),
        })
    }
}

impl std::fmt::Display for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.first)?;
        match self.addresses().last().filter(|last| *last != self.first) {
            Some(last) => write!(f, "-{last}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{text:?} is not a pool of addresses: {why}; write it as 203.0.113.8-203.0.113.15")
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|e| wrong(&e.to_string()));
        let (first, last) = (address(first)?, address(last)?);
        let steps = match (first, last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => i128::from(b.to_bits()) - i128::from(a.to_bits()),
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                // The packet path adds to the last 16 bits alone.
                let prefix = |a: Ipv6Addr| a.to_bits() >> 16;
                if prefix(a) != prefix(b) {
                    return Err(wrong("its addresses differ in more than the last 16 bits"));
                }
                i128::from(b.segments()[7]) - i128::from(a.segments()[7])
            }
            _ => return Err(wrong("its ends are of two families")),
        };
        if steps < 0 {
            return Err(wrong("its end comes before its start"));
        }
        let all = Self { first, count: u16::try_from(steps + 1).unwrap_or(u16::MAX) };
        if all.count > POOL_MAX {
            return Err(wrong(&format!("it has more than {POOL_MAX} addresses")));
        }
        if let Some(bad) = all.addresses().find(|address| !is_usable(*address)) {
            return Err(wrong(&format!("{bad} is no address a packet can come from")));
        }
        Ok(all)
    }
}

/// `pools` as they are, or why they cannot be: one range of each family for a device.
pub(super) fn checked(pools: BTreeMap<String, Vec<Pool>>) -> Result<BTreeMap<String, Vec<Pool>>, String> {
    for (device, ranges) in &pools {
        for four in [true, false] {
            if ranges.iter().filter(|range| range.first.is_ipv4() == four).count() > 1 {
                let family = if four { "IPv4" } else { "IPv6" };
                return Err(format!(
                    "[masquerade] pools: {device} has several {family} ranges; give it one contiguous range of each family"
                ));
            }
        }
    }
    Ok(pools)
}

fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, ..] = v4.octets();
            !(a == 0 || v4.is_loopback() || v4.is_link_local() || a >= 224)
        }
        IpAddr::V6(v6) => !(v6.to_bits() >> 48 == 0 || v6.is_unicast_link_local() || v6.is_multicast()),
    }
}

impl TryFrom<String> for Pool {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_both_families_and_single_addresses_are_pools() {
        for (text, count, last) in [
            ("203.0.113.8-203.0.113.15", 8, "203.0.113.15"),
            ("203.0.113.250-203.0.114.5", 12, "203.0.114.5"),
            ("203.0.113.8", 1, "203.0.113.8"),
            ("2001:db8::100-2001:db8::10f", 16, "2001:db8::10f"),
            ("2001:db8::7", 1, "2001:db8::7"),
        ] {
            let pool: Pool = text.parse().unwrap();
            assert_eq!(pool.count(), count, "{text}");
            assert_eq!(pool.addresses().last().unwrap().to_string(), last);
            assert_eq!(pool.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_pool_is_refused_with_why() {
        for (text, why) in [
            ("203.0.113.8-2001:db8::1", "two families"),
            ("203.0.113.9-203.0.113.8", "before its start"),
            ("203.0.113.0-203.0.114.0", "more than 256"),
            ("2001:db8::ffff-2001:db8::1:2", "last 16 bits"),
            ("2001:db8::-2001:db8::100", "more than 256"),
            ("224.0.0.1", "224.0.0.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("fe80::1-fe80::2", "fe80::1"),
            ("ff02::1", "ff02::1"),
            ("eth1", "invalid"),
            ("", "invalid"),
        ] {
            let refusal = text.parse::<Pool>().unwrap_err();
            assert!(refusal.contains(why), "{text}: {refusal}");
        }
    }
}
