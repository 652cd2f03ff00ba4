//! Where each route of an image leaves the host, by the host's own routes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use ipnet::IpNet;
use sluicegate_api::image::RouteInfo;

use super::pools;
use crate::config::Pool;
use crate::datapath::{Egress, device};
use crate::netlink::{Netlink, NetlinkError, Target};

/// Where routes leave, and what a person should know about those that do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    /// For the datapath.
    pub egress: Vec<Egress>,
    /// Name of the device each prefix leaves by.
    pub devices: BTreeMap<IpNet, String>,
    /// MTU of each of these devices. The datapath reads it when it is told where routes leave: a change is a reason to.
    pub mtus: BTreeMap<String, u32>,
    /// Prefixes that cannot be reached, each a sentence.
    pub degraded: Vec<String>,
}

/// What decides where prefixes leave.
#[derive(Clone, Copy)]
pub(super) struct Host<'a> {
    pub netlink: &'a Netlink,
    /// Site devices that are there now, by index.
    pub sites: &'a BTreeMap<u32, String>,
    /// Site devices that should be there.
    pub wanted: &'a [String],
    /// Addresses to masquerade with, by device.
    pub pools: &'a BTreeMap<String, Vec<Pool>>,
}

/// What was looked up: of an image that names a thousand prefixes, a new one costs looking up the prefixes it adds.
#[derive(Default)]
pub(super) struct Lookups {
    /// By prefix, and whether it is masqueraded.
    ways: BTreeMap<(IpNet, bool), Result<Way, String>>,
    mtus: BTreeMap<String, u32>,
    pools: Option<Vec<String>>,
}

/// Where a prefix leaves.
#[derive(Clone, Debug)]
struct Way {
    device: u32,
    name: String,
    source: Option<IpAddr>,
    pool: u16,
}

impl Lookups {
    /// Looks up where every route of `routes` leaves, so far as that is not known since [`Lookups::default`].
    pub(super) async fn resolve(
        &mut self,
        host: Host<'_>,
        routes: &BTreeMap<u32, RouteInfo>,
    ) -> Result<Resolved, NetlinkError> {
        let mut resolved = Resolved::default();
        for (number, route) in routes {
            let key = (route.prefix, route.masquerade);
            if let Entry::Vacant(unknown) = self.ways.entry(key) {
                unknown.insert(one(host, route).await?);
            }
            // The datapath refuses an image with larger numbers.
            let Ok(number) = u16::try_from(*number) else { continue };
            let way = match &self.ways[&key] {
                Ok(way) => way,
                Err(why) => {
                    resolved.degraded.push(format!("resource {} cannot be reached: {why}", route.prefix));
                    continue;
                }
            };
            if !self.mtus.contains_key(&way.name) {
                let mtu = host.netlink.link(&way.name).await?.map_or(0, |link| link.mtu);
                self.mtus.insert(way.name.clone(), mtu);
            }
            resolved.mtus.insert(way.name.clone(), self.mtus[&way.name]);
            resolved.devices.insert(route.prefix, way.name.clone());
            resolved.egress.push(way.egress(number));
        }
        if self.pools.is_none() {
            self.pools = Some(pools::trouble(host.netlink, host.pools, host.sites).await?);
        }
        resolved.degraded.extend(self.pools.iter().flatten().cloned());
        let missing = host.wanted.iter().filter(|device| !host.sites.values().any(|site| site == *device));
        resolved.degraded.extend(
            missing.map(|d| format!("site device {d} is not there; what lies behind it cannot be reached")),
        );
        Ok(resolved)
    }
}

impl Way {
    fn egress(&self, route: u16) -> Egress {
        let (source_v4, source_v6) = match self.source {
            Some(IpAddr::V4(v4)) => (Some(v4), None),
            Some(IpAddr::V6(v6)) => (None, Some(v6)),
            None => (None, None),
        };
        Egress { route, device: self.device, source_v4, source_v6, pool: [self.pool; 2] }
    }
}

async fn one(host: Host<'_>, routed: &RouteInfo) -> Result<Result<Way, String>, NetlinkError> {
    let mut route = None;
    for sample in samples(&routed.prefix) {
        route = host.netlink.route_to(sample).await?;
        // An address of this host's own, or a network address, says nothing about the prefix.
        if matches!(route, Some(r) if r.target != Target::Here) {
            break;
        }
    }
    let Some(route) = route else { return Ok(Err("this host has no route to it".into())) };
    let Target::Device(index) = route.target else { return Ok(Err("it is this host itself".into())) };
    let Some(name) = host.sites.get(&index) else {
        // A device that has just gone has no name any more.
        let name = device::name(index).unwrap_or_else(|_| format!("number {index}"));
        return Ok(Err(format!(
            "this host's route to it leaves by device {name}, which is no site device; name it with --site-device"
        )));
    };
    let pool = pools::of(host.pools, name, &routed.prefix);
    let mut source = pool.map(Pool::first).or(route.source);
    if source.is_none() {
        source = source_on(&host.netlink.addresses(index).await?, &routed.prefix);
    }
    if routed.masquerade && source.is_none() {
        return Ok(Err(format!("{name} has no address to masquerade with")));
    }
    Ok(Ok(Way { device: index, name: name.clone(), source, pool: pool.map_or(1, Pool::count) }))
}

/// Addresses inside `prefix` by which to look its route up: the first few after the network address, and the last.
fn samples(prefix: &IpNet) -> Vec<IpAddr> {
    let mut samples: Vec<IpAddr> = prefix.hosts().take(3).collect();
    // `hosts` of a wide IPv6 prefix is an iterator over all of it: its end is computed, not walked to.
    let last = match prefix.broadcast() {
        IpAddr::V4(v4) if prefix.prefix_len() < 31 => IpAddr::V4(u32::from(v4).wrapping_sub(1).into()),
        other => other,
    };
    if !samples.contains(&last) {
        samples.push(last);
    }
    samples
}

/// The address of a device that is nearest to `prefix`: in it, or else any of its family that is good beyond the link.
fn source_on(addresses: &[IpNet], prefix: &IpNet) -> Option<IpAddr> {
    let beyond = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    let family = |a: &&IpNet| a.addr().is_ipv4() == prefix.addr().is_ipv4() && beyond(a.addr());
    let near = addresses.iter().filter(family).find(|a| prefix.contains(&a.addr()));
    near.or_else(|| addresses.iter().find(family)).map(IpNet::addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_addresses_a_host_could_have() {
        let of = |p: &str| samples(&p.parse().unwrap()).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("10.0.0.0/24"), ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.254"]);
        assert_eq!(of("10.0.0.7/32"), ["10.0.0.7"]);
        assert_eq!(of("fd00::7/128"), ["fd00::7"]);
        assert_eq!(of("10.0.0.0/31"), ["10.0.0.0", "10.0.0.1"]);
        assert!(of("fd00::/8").len() >= 3);
    }

    #[test]
    fn the_source_is_of_the_right_family_and_near() {
        let addresses: Vec<IpNet> =
            ["192.0.2.1/24", "10.0.0.5/24", "2001:db8::5/64"].iter().map(|a| a.parse().unwrap()).collect();
        let source = |p: &str| source_on(&addresses, &p.parse().unwrap()).map(|a| a.to_string());
        assert_eq!(source("10.0.0.0/24").as_deref(), Some("10.0.0.5"));
        assert_eq!(source("172.16.0.0/12").as_deref(), Some("192.0.2.1"));
        assert_eq!(source("2001:db8:1::/48").as_deref(), Some("2001:db8::5"));
        assert_eq!(source_on(&addresses[..2], &"fd00::/8".parse().unwrap()), None);
        for (address, prefix) in [("fe80::5/64", "2001:db8:1::/48"), ("169.254.0.5/16", "10.0.0.0/24")] {
            let link_local = address.parse().unwrap();
            assert_eq!(source_on(&[link_local], &prefix.parse().unwrap()), None, "{address}");
        }
    }

    /// Packets that no longer fit would leave, or such that do would be dropped, until something else changed.
    #[test]
    fn another_mtu_of_a_site_device_is_another_way_out() {
        let lab = sluicegate_lab::Lab::new().unwrap();
        let host = lab.namespace("host").unwrap();
        host.ip(&["link", "add", "site0", "type", "bridge"]).unwrap();
        host.ip(&["link", "set", "site0", "up"]).unwrap();
        for address in ["10.9.0.1/24", "fd09::1/64"] {
            host.address("site0", address).unwrap();
        }
        let route = |prefix: &str| RouteInfo {
            prefix: prefix.parse().unwrap(),
            network_id: "net".into(),
            resource_id: "res".into(),
            resource_name: "resource".into(),
            masquerade: true,
        };
        let routes: BTreeMap<u32, RouteInfo> = [(7, route("10.9.0.0/24")), (300, route("fd09::/64"))].into();
        let mut pools = BTreeMap::new();
        let resolved = |pools: &BTreeMap<String, Vec<Pool>>| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let netlink = Netlink::open().unwrap();
                let index = netlink.link("site0").await.unwrap().unwrap().index;
                let sites = [(index, "site0".to_owned())].into();
                let host = Host { netlink: &netlink, sites: &sites, wanted: &["site0".to_owned()], pools };
                Lookups::default().resolve(host, &routes).await.unwrap()
            })
        };
        let before = host.enter(|| resolved(&pools)).unwrap();
        assert_eq!((before.egress.len(), before.degraded.len()), (2, 0), "{before:?}");
        assert_eq!((before.egress[0].route, before.egress[1].route), (7, 300));
        assert_eq!(before, host.enter(|| resolved(&pools)).unwrap());
        host.ip(&["link", "set", "site0", "mtu", "1300"]).unwrap();
        let after = host.enter(|| resolved(&pools)).unwrap();
        assert_eq!((after.egress.clone(), after.mtus["site0"]), (before.egress.clone(), 1300));
        assert_ne!(before, after);

        let ranges = vec!["10.9.0.1-10.9.0.4".parse().unwrap(), "fd08::8-fd08::f".parse().unwrap()];
        pools.insert("site0".to_owned(), ranges);
        let pooled = host.enter(|| resolved(&pools)).unwrap();
        assert_eq!((pooled.egress[0].source_v4, pooled.egress[0].pool[0]), (Some([10, 9, 0, 1].into()), 4));
        assert_eq!((pooled.egress[1].source_v6, pooled.egress[1].pool[1]), ("fd08::8".parse().ok(), 8));
        // The addresses of the link are not there yet; those that must be routed here need not be.
        assert!(
            pooled.degraded.len() == 1 && pooled.degraded[0].contains("10.9.0.2/32 dev site0"),
            "{pooled:?}"
        );
        for address in ["10.9.0.2/32", "10.9.0.3/32", "10.9.0.4/32"] {
            host.address("site0", address).unwrap();
        }
        assert!(host.enter(|| resolved(&pools)).unwrap().degraded.is_empty());
        pools.insert("site9".to_owned(), Vec::new());
        assert!(host.enter(|| resolved(&pools)).unwrap().degraded[0].contains("site9"));
    }
}
