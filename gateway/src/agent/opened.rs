//! Which addresses of names are open by now: answers to questions for names wait for that.

use std::collections::HashSet;
use std::net::IpAddr;

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
        let waiting = &mut self.around.waiting;
        waiting.retain(|check| !check.is_over());
        if waiting.is_empty() {
            return;
        }
        let (Some(network), Some(image)) = (&self.network, self.policy.image()) else { return };
        let open = Open::of(waiting, network, &self.plan, image);
        for check in waiting {
            check.tell(check.addresses.iter().copied().filter(|address| open.has(check, *address)).collect());
        }
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
}

impl<'a> Open<'a> {
    /// A router has an address open when the image in force has it as the resource's; others, when a route leads to a router of it,
    /// WireGuard lets it through, and the image in force lets this host send there.
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
        }
        open
    }

    fn has(&self, check: &Check, address: IpAddr) -> bool {
        let of_side = match check.side {
            Side::Routed => &self.routed,
            Side::Reached => &self.reached,
        };
        of_side.contains(&(&*check.resource, address))
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
