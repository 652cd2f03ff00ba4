//! Which addresses of names are open by now: answers to questions for names wait for that.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use sluicegate_api::image::Image;
use sluicegate_engine::classify::{Line, classify4, classify6};
use sluicegate_engine::image::LINE;

use super::Agent;
use super::network::Network;
use super::routing::Plan;
use crate::names::{Check, Routers, Side};
use crate::overlay::Overlay;

impl<O: Overlay> Agent<'_, O> {
    /// Tells answers that wait what of them is open.
    pub(super) fn tell_what_is_open(&mut self) {
        let is_enforced = self.is_enforced();
        let waiting = &mut self.around.waiting;
        waiting.retain(|check| !check.is_over());
        if waiting.is_empty() {
            return;
        }
        let (Some(network), Some(image)) = (&self.network, self.policy.image()) else { return };
        if !is_enforced {
            return waiting.iter().for_each(|check| check.tell(BTreeSet::new()));
        }
        let open = Open::of(waiting, network, &self.plan, image);
        for check in waiting {
            check.tell(check.addresses.iter().copied().filter(|address| open.has(check, *address)).collect());
        }
    }

    /// Lets others ask for names as control said last, for as long as that holds: not after an end that it may have said more of.
    pub(super) fn heed_askers(&self) {
        self.around.domains.heed_askers(self.is_enforced() && !self.around.contact.ended);
    }

    /// Whether anything may be forwarded by the image in force.
    fn is_enforced(&self) -> bool {
        let contact = &self.around.contact;
        !contact.expelled && !contact.expired(Instant::now()) && !self.policy.is_shut()
    }

    /// Tells of whom names can be asked.
    pub(super) fn tell_routers(&self) {
        let Some(network) = &self.network else { return };
        let asked = network.asked.values().flatten().map(|(_, router)| *router).collect::<HashSet<_>>();
        let live = network.peers.values().filter(|peer| asked.contains(&peer.v6));
        let live = live.filter(|peer| self.routing.live(&peer.key)).map(|peer| peer.v6).collect();
        self.around.domains.ask_of(Routers { of: network.asked.clone(), live });
    }
}

/// What is open of what is asked for, by the resource's id.
#[derive(Debug, Default)]
struct Open<'a> {
    routed: HashSet<(&'a str, IpAddr)>,
    reached: HashSet<(&'a str, IpAddr)>,
    /// What this host routes itself, whichever resource's.
    own: HashSet<IpAddr>,
}

impl<'a> Open<'a> {
    /// A router has an address open when the image in force has it as the resource's; others, when a route leads to a router of it,
    /// WireGuard lets it through, and the image in force lets this host send there. What a host reaches outside the overlay is open to
    /// it: where control has a route there that is not taken for that, and where it routes the address itself, of which control has none.
    fn of(waiting: &[Check], network: &'a Network, plan: &Plan, image: &'a Image) -> Self {
        let mut open = Self::default();
        let wanted = |side| {
            let checks = waiting.iter().filter(move |check| check.side == side);
            let rows = checks.flat_map(|check| check.addresses.iter().map(|a| (&*check.resource, *a)));
            rows.collect::<HashSet<_>>()
        };
        let routed = wanted(Side::Routed);
        if !routed.is_empty() {
            let all =
                image.routes.values().filter_map(|route| Some((&*route.resource_id, one(route.prefix)?)));
            open.routed.extend(all.filter(|row| routed.contains(row)));
        }
        let reached = wanted(Side::Reached);
        if !reached.is_empty() {
            let led = network.routes.iter().filter(|route| plan.routes.contains(&route.prefix));
            let all = led.filter_map(|route| Some((&*route.resource, one(route.prefix)?)));
            let (lines, _) = image.words.as_chunks::<LINE>();
            open.reached.extend(
                all.filter(|row| reached.contains(row))
                    .filter(|(_, address)| remote(lines, network, *address)),
            );
            let refused = network.routes.iter().filter(|route| plan.outside.contains(&route.prefix));
            let refused = refused.filter_map(|route| Some((&*route.resource, one(route.prefix)?)));
            open.reached.extend(refused.filter(|row| reached.contains(row)));
            let own: HashSet<IpAddr> =
                network.routed.iter().filter_map(|routed| one(routed.prefix)).collect();
            open.own = reached.iter().map(|(_, address)| *address).filter(|a| own.contains(a)).collect();
        }
        open
    }

    fn has(&self, check: &Check, address: IpAddr) -> bool {
        let row = (&*check.resource, address);
        match check.side {
            Side::Routed => self.routed.contains(&row),
            Side::Reached => self.reached.contains(&row) || self.own.contains(&address),
        }
    }
}

/// The address, where a prefix is one of it alone.
fn one(prefix: IpNet) -> Option<IpAddr> {
    (prefix.prefix_len() == prefix.max_prefix_len()).then(|| prefix.addr())
}

/// Whether rules lead from this host to the address through the overlay.
fn remote(image: &[Line], network: &Network, address: IpAddr) -> bool {
    let wide = |address: std::net::Ipv6Addr| {
        let bits = address.to_bits();
        ((bits >> 64) as u64, bits as u64)
    };
    let judged = match address {
        IpAddr::V4(v4) => classify4(image, network.own_v4.addr().into(), v4.into(), 0),
        IpAddr::V6(v6) => classify6(image, wide(network.own_v6.addr()), wide(v6), 0),
    };
    judged.attributes.remote()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sluicegate_api::agent;

    use super::super::network::tests::{config, route};
    use super::super::routing::Routing;
    use super::*;

    const FAILOVER: crate::config::Failover = crate::config::Failover {
        probe_interval: std::time::Duration::from_secs(1),
        dead_after: std::time::Duration::from_secs(3),
        return_after: std::time::Duration::from_secs(2),
    };

    /// Which of `asked` are open as the resource's, to a host whose rules lead nowhere.
    fn reached(config: &agent::NetworkConfig, resource: &str, asked: &[&str]) -> Vec<String> {
        let network = Network::try_from(config).unwrap();
        let mut routing = Routing::default();
        routing.decide(&network, &FAILOVER, Instant::now());
        let control = ["198.51.100.9", "2001:db8:9::9"].map(|address| address.parse().unwrap());
        let plan = routing.plan(&network, &BTreeMap::new(), &control);
        let addresses = asked.iter().map(|address| address.parse().unwrap()).collect();
        let (check, _opened) = Check::new(Side::Reached, resource, addresses);
        let image = Image::default();
        let waiting = [check];
        let open = Open::of(&waiting, &network, &plan, &image);
        let check = &waiting[0];
        let open = check.addresses.iter().filter(|address| open.has(check, **address));
        open.map(IpAddr::to_string).collect()
    }

    #[test]
    fn what_must_be_reached_outside_the_overlay_is_open_to_the_host_that_reaches_it_there() {
        let outside = ["192.0.2.1", "198.51.100.9", "2001:db8::2", "2001:db8:9::9"];
        let prefixes = ["192.0.2.1/32", "198.51.100.9/32", "2001:db8::2/128", "2001:db8:9::9/128"];
        let mut config = config();
        config.routes = prefixes.map(|prefix| route(prefix, &[("g1", 100)])).into();
        assert_eq!(reached(&config, "res", &outside), outside);
        assert_eq!(reached(&config, "another", &outside), [""; 0]);
        config.routes.clear();
        assert_eq!(reached(&config, "res", &outside), [""; 0], "control says nothing of it");
    }

    #[test]
    fn what_a_host_routes_itself_is_open_to_it_whichever_resource_it_is_of() {
        let own = ["10.9.0.7", "fd09::7"];
        let prefixes = ["10.9.0.7/32", "fd09::7/128", "10.8.0.0/24", "fd08::/64"];
        let routed = prefixes.map(|prefix| agent::RoutedPrefix {
            resource_id: "res".into(),
            prefix: prefix.into(),
            ..Default::default()
        });
        let config = agent::NetworkConfig { routed: routed.into(), ..config() };
        let asked = [&own[..], &["10.8.0.7", "fd08::7"]].concat();
        for resource in ["res", "another"] {
            assert_eq!(reached(&config, resource, &asked), own);
        }
    }
}
