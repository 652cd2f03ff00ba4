//! Pools of addresses to masquerade with: which one a device has, and what a person must know of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Pool;
use crate::netlink::{Netlink, NetlinkError, Target};

/// Addresses named in one sentence; the others are counted.
const NAMED: usize = 4;

/// The pool of `device` for the family of `prefix`.
pub(super) fn of<'a>(
    pools: &'a BTreeMap<String, Vec<Pool>>,
    device: &str,
    prefix: &IpNet,
) -> Option<&'a Pool> {
    pools.get(device)?.iter().find(|pool| pool.first().is_ipv4() == prefix.addr().is_ipv4())
}

/// What is wrong with the pools, as sentences. `sites` are the site devices that are there, by index.
pub(super) async fn trouble(
    netlink: &Netlink,
    pools: &BTreeMap<String, Vec<Pool>>,
    sites: &BTreeMap<u32, String>,
) -> Result<Vec<String>, NetlinkError> {
    let mut sentences = Vec::new();
    for (device, ranges) in pools {
        let Some((index, _)) = sites.iter().find(|(_, name)| *name == device) else {
            sentences
                .push(format!("[masquerade] pools names {device}, which is no site device that is there"));
            continue;
        };
        let own = netlink.addresses(*index).await?;
        for pool in ranges {
            let mut missing = Vec::new();
            for address in unanswered(pool, &own) {
                // Another device of this host may have it: the kernel answers for all of them on each.
                let here = netlink.route_to(address).await?;
                if here.is_none_or(|route| route.target != Target::Here) {
                    missing.push(address);
                }
            }
            sentences.extend(sentence(device, &missing));
        }
    }
    Ok(sentences)
}

/// Addresses of `pool` on the link of a device with the addresses `own`, and not among them: neighbours ask for them,
/// and nobody answers. An address outside every link must be routed to this host, which then need not have it.
fn unanswered(pool: &Pool, own: &[IpNet]) -> Vec<IpAddr> {
    let on_link = |address: &IpAddr| own.iter().any(|net| net.contains(address));
    let is_own = |address: &IpAddr| own.iter().any(|net| net.addr() == *address);
    pool.addresses().filter(|address| on_link(address) && !is_own(address)).collect()
}

fn sentence(device: &str, missing: &[IpAddr]) -> Option<String> {
    let first = missing.first()?;
    let named: Vec<String> = missing.iter().take(NAMED).map(IpAddr::to_string).collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let bits = if first.is_ipv4() { 32 } else { 128 };
    let s = if missing.len() == 1 { "" } else { "es" };
    Some(format!(
        "pool address{s} {}{more} of {device} lie on its link but are not this host's, so answers to them are lost; run \
         `ip address add {first}/{bits} dev {device}` for each, or take them out of [masquerade] pools",
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_on_the_link_that_nobody_answers_for_are_named_with_what_to_run() {
        let own: Vec<IpNet> =
            ["203.0.113.8/24", "2001:db8::1/64"].iter().map(|a| a.parse().unwrap()).collect();
        let missing = unanswered(&"203.0.113.8-203.0.113.15".parse().unwrap(), &own);
        assert_eq!(missing.len(), 7);
        let text = sentence("eth1", &missing).unwrap();
        assert!(text.contains("203.0.113.9, ") && text.contains("and 3 more"), "{text}");
        assert!(text.contains("ip address add 203.0.113.9/32 dev eth1"), "{text}");
        let missing = unanswered(&"2001:db8::1-2001:db8::2".parse().unwrap(), &own);
        assert!(sentence("eth1", &missing).unwrap().contains("ip address add 2001:db8::2/128 dev eth1"));
        // Routed to this host, not on its link: it need not have them.
        assert!(unanswered(&"198.51.100.0-198.51.100.7".parse().unwrap(), &own).is_empty());
        assert_eq!(sentence("eth1", &[]), None);
    }

    #[test]
    fn a_device_has_a_pool_for_each_family() {
        let ranges = vec!["203.0.113.8".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        let pools = BTreeMap::from([("eth1".to_owned(), ranges)]);
        let first = |device: &str, prefix: &str| {
            of(&pools, device, &prefix.parse().unwrap()).map(|pool| pool.first().to_string())
        };
        assert_eq!(first("eth1", "10.0.0.0/8").as_deref(), Some("203.0.113.8"));
        assert_eq!(first("eth1", "::/0").as_deref(), Some("2001:db8::7"));
        assert_eq!(first("eth2", "10.0.0.0/8"), None);
    }
}
