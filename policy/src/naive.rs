//! The oracle: what an agent decides about a packet, by linear scan over the model. It shares nothing with the compiler
//! but the numbers of routes, and says nothing the normative text does not say; slow, and meant to be read.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use sluicegate_engine::image::{Attributes, Decision, axis};

use crate::model::{Action, End, Group, Network, Peer, Policy, Resource, Router, Rule, Service, State};
use crate::resolve::numbers;

/// What the image of `agent` must say about a packet: the deciding rule, and how the destination is reached.
/// `l4` is a value of [`axis`].
pub fn decide(
    state: &State,
    agent: &str,
    source: IpAddr,
    destination: IpAddr,
    l4: u32,
) -> (Decision, Attributes) {
    let Some(me) = state.peers.get_key_value(agent).filter(|(_, peer)| peer.allowed).map(|(id, _)| id) else {
        return (Decision::NONE, Attributes::default());
    };
    let scene = Scene { state, me, target: target(state, destination), destination };
    let attributes = scene.attributes();
    let Some(opener) = peer_at(state, source) else { return (Decision::NONE, attributes) };
    let mut first_accept = None;
    for rule in enabled_rules(state) {
        if scene.matches(rule, opener) && covers(&rule.1.service, l4) {
            match rule.1.action {
                Action::Drop => return (Decision::drop(rule.1.slot), attributes),
                Action::Accept => first_accept = first_accept.or(Some(rule.1.slot)),
            }
        }
    }
    (first_accept.map_or(Decision::NONE, Decision::accept), attributes)
}

/// Whether an accept rule opens a resource to a peer, whoever routes it: what the peer may ask routers for, if it has a name.
pub fn opens(state: &State, peer: &str, resource: &str) -> bool {
    let me = state.peers.get_key_value(peer).filter(|(_, peer)| peer.allowed).map(|(id, _)| id);
    let entry = state.networks.values().find_map(|network| network.resources.get_key_value(resource));
    let (Some(me), Some((id, resource))) = (me, entry.filter(|(_, resource)| resource.enabled)) else {
        return false;
    };
    let scene = Scene { state, me, target: Target::Peer(None), destination: Ipv4Addr::UNSPECIFIED.into() };
    enabled_rules(state).filter(|(_, rule)| rule.action == Action::Accept).any(|(policy, rule)| {
        let is_source = scene.has_peer(&rule.sources, me) && !excluded(policy, rule, me);
        is_source && scene.is_for(resource, me) && scene.has_resource(&rule.destinations, id)
    })
}

/// What is at an address: in the overlay ranges one peer or nothing, elsewhere every resource around it.
enum Target<'a> {
    Peer(Option<&'a String>),
    Resources(Vec<(&'a Network, &'a String, &'a Resource)>),
}

struct Scene<'a> {
    state: &'a State,
    me: &'a String,
    target: Target<'a>,
    destination: IpAddr,
}

impl Scene<'_> {
    /// Whether the rule lets `opener` open flows to the target, as far as this agent is concerned.
    fn matches(&self, (policy, rule): (&Policy, &Rule), opener: &String) -> bool {
        let own = opener == self.me;
        match &self.target {
            Target::Peer(None) => false,
            Target::Peer(Some(peer)) => {
                let involved = own != (*peer == self.me);
                let mirrored = rule.bidirectional || without_ports(&rule.service);
                let is_source =
                    |end: &End, id: &String| self.has_peer(end, id) && !excluded(policy, rule, id);
                let forward = is_source(&rule.sources, opener) && self.has_peer(&rule.destinations, peer);
                let mirror = is_source(&rule.destinations, opener) && is_source(&rule.sources, peer);
                involved && (forward || (mirrored && mirror))
            }
            Target::Resources(around) => around.iter().any(|(network, id, resource)| {
                let involved = if own {
                    !routes(network, self.me) && self.has_router(network)
                } else {
                    routes(network, self.me)
                };
                let is_source = self.has_peer(&rule.sources, opener) && !excluded(policy, rule, opener);
                let distributed = self.is_for(resource, opener);
                involved && is_source && distributed && self.has_resource(&rule.destinations, id)
            }),
        }
    }

    fn attributes(&self) -> Attributes {
        let mut word = 0;
        if matches!(self.target, Target::Peer(Some(peer)) if peer == self.me) {
            word |= Attributes::LOCAL;
        }
        if enabled_rules(self.state).any(|rule| self.matches(rule, self.me)) {
            word |= Attributes::REMOTE;
        }
        // Every prefix routed by this agent; the longest around the address, the first of equals.
        let mut longest: Option<(u8, u32)> = None;
        let routed = self.routed();
        let numbers = numbers(routed.iter().map(|(id, prefix, _)| (id.as_str(), *prefix)));
        for (number, (_, prefix, router)) in numbers.into_iter().zip(routed) {
            let longer = longest.is_none_or(|(length, _)| prefix.prefix_len() > length);
            if matches!(self.target, Target::Resources(_)) && prefix.contains(&self.destination) && longer {
                let masquerade = if router.masquerade { Attributes::MASQUERADE } else { 0 };
                longest = Some((prefix.prefix_len(), Attributes::ROUTED | masquerade | u32::from(number)));
            }
        }
        Attributes(word | longest.map_or(0, |(_, route)| route))
    }

    fn routed(&self) -> Vec<(&String, IpNet, &Router)> {
        let mut routed = Vec::new();
        for network in self.state.networks.values() {
            let mine = network.routers.values().filter(|r| r.enabled && r.peers.contains(self.me));
            let Some(router) = mine.min_by_key(|r| r.metric) else { continue };
            for (id, resource) in network.resources.iter().filter(|(_, r)| r.enabled) {
                let mut prefixes: Vec<IpNet> = resource.prefixes.iter().map(IpNet::trunc).collect();
                prefixes.sort();
                prefixes.dedup();
                prefixes.retain(|p| !overlays(self.state).iter().any(|overlay| overlay.contains(p)));
                routed.extend(prefixes.into_iter().map(|p| (id, p, router)));
            }
        }
        routed
    }

    /// Whether a resource is distributed to a peer.
    fn is_for(&self, resource: &Resource, peer: &String) -> bool {
        match &resource.distribution {
            Some(bound) => self.groups(&bound.groups).any(|group| group.peers.contains(peer)),
            None => true,
        }
    }

    fn has_router(&self, network: &Network) -> bool {
        self.state.peers.keys().any(|id| routes(network, id) && self.state.peers[id].allowed)
    }

    fn has_peer(&self, end: &End, id: &String) -> bool {
        match end {
            End::Groups(ids) => self.groups(ids).any(|group| group.peers.contains(id)),
            End::Peer(peer) => peer == id,
            End::Resource(_) => false,
        }
    }

    fn has_resource(&self, end: &End, id: &String) -> bool {
        match end {
            End::Groups(ids) => self.groups(ids).any(|group| group.resources.contains(id)),
            End::Resource(resource) => resource == id,
            End::Peer(_) => false,
        }
    }

    fn groups(&self, ids: &BTreeSet<String>) -> impl Iterator<Item = &Group> {
        ids.iter().filter_map(|id| self.state.groups.get(id))
    }
}

fn enabled_rules(state: &State) -> impl Iterator<Item = (&Policy, &Rule)> {
    let enabled = state.policies.values().filter(|p| p.enabled);
    enabled.flat_map(|p| p.rules.iter().filter(|r| r.enabled).map(move |r| (p, r)))
}

/// Whether posture takes a peer out of a rule's sources: out of what lets it in, never out of what keeps it out.
fn excluded(policy: &Policy, rule: &Rule, peer: &str) -> bool {
    rule.action == Action::Accept && policy.posture_failed.contains(peer)
}

fn target(state: &State, address: IpAddr) -> Target<'_> {
    if overlays(state).iter().any(|overlay| overlay.contains(&address)) {
        return Target::Peer(peer_at(state, address));
    }
    let resources = state.networks.values().flat_map(|n| n.resources.iter().map(move |(id, r)| (n, id, r)));
    Target::Resources(
        resources.filter(|(_, _, r)| r.enabled && r.prefixes.iter().any(|p| p.contains(&address))).collect(),
    )
}

fn overlays(state: &State) -> [IpNet; 2] {
    [state.overlay_v4.into(), state.overlay_v6.into()]
}

fn peer_at(state: &State, address: IpAddr) -> Option<&String> {
    let owns =
        |peer: &Peer| peer.allowed && (IpAddr::V4(peer.v4) == address || IpAddr::V6(peer.v6) == address);
    state.peers.iter().find(|(_, peer)| owns(peer)).map(|(id, _)| id)
}

fn routes(network: &Network, peer: &String) -> bool {
    network.routers.values().any(|r| r.enabled && r.peers.contains(peer))
}

fn without_ports(service: &Service) -> bool {
    match service {
        Service::All | Service::Icmp => true,
        Service::Tcp(ports) | Service::Udp(ports) => ports.is_empty(),
    }
}

fn covers(service: &Service, l4: u32) -> bool {
    let (class, port) = (l4 & 0xffff_0000, (l4 & 0xffff) as u16);
    let listed = |ports: &[RangeInclusive<u16>]| ports.is_empty() || ports.iter().any(|p| p.contains(&port));
    match service {
        Service::All => true,
        Service::Icmp => class == axis::ICMP || class == axis::ICMPV6,
        Service::Tcp(ports) => class == axis::TCP && listed(ports),
        Service::Udp(ports) => class == axis::UDP && listed(ports),
    }
}
