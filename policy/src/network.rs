//! Whom an agent talks to, what it reaches through routers, and what it routes itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use crate::resolve::{Resolved, Scope};

/// The overlay as one agent is to build it. Equal states give equal views.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkView {
    /// Ids of the remote peers the agent must be able to talk to, in order: those any enabled rule (accept or drop) joins
    /// it with, the routers of `routes`, and, for a gateway, the peers that may reach what it routes. Mutual: whoever is
    /// in this list has the agent in its own.
    pub peers: Vec<Arc<str>>,
    /// Prefixes reached through routers: of enabled resources that an accept rule opens to the agent, without those that it
    /// routes itself, whichever resource they are of. By (network, resource, prefix). Two resources may share a prefix.
    pub routes: Vec<Route>,
    /// Prefixes the agent routes, by (network, resource, prefix).
    pub routed: Vec<RoutedPrefix>,
    /// Names of enabled domain resources that the agent routes, and is to look up; by resource.
    pub names: Vec<Name>,
}

/// One prefix and who reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Network id.
    pub network_id: Arc<str>,
    /// Resource id.
    pub resource_id: Arc<str>,
    /// The prefix, masked.
    pub prefix: IpNet,
    /// At least one, by (metric, peer id): the first live one carries the traffic.
    pub routers: Vec<RouterChoice>,
    /// Where the agent takes it only when asked to, the name it is asked for by.
    pub choice: Option<Arc<str>>,
}

/// A router of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterChoice {
    /// Peer id.
    pub peer_id: Arc<str>,
    /// 1..=9999, lower is better.
    pub metric: u16,
}

/// A prefix the agent routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedPrefix {
    /// The number by which the image's destination attributes name it.
    pub route: u16,
    /// Network id.
    pub network_id: Arc<str>,
    /// Resource id.
    pub resource_id: Arc<str>,
    /// The prefix, masked.
    pub prefix: IpNet,
    /// Whether the source becomes the agent's own address.
    pub masquerade: bool,
    /// 1..=9999, lower is better.
    pub metric: u16,
}

/// The name of a domain resource that the agent routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Resource id.
    pub resource_id: Arc<str>,
    /// A name, or a wildcard as in `model::Resource::domain`.
    pub name: String,
}

impl NetworkView {
    pub(crate) fn new(r: &Resolved, scope: &Scope) -> Self {
        let mut peers: Vec<Arc<str>> =
            scope.neighbours(r).iter().map(|p| r.peers[p as usize].id.clone()).collect();
        peers.sort_unstable();
        Self { peers, routes: routes(r, scope), routed: routed(r, scope), names: names(r, scope) }
    }
}

fn routes(r: &Resolved, scope: &Scope) -> Vec<Route> {
    let own: BTreeSet<IpNet> = scope.routed.iter().map(|routed| routed.prefix).collect();
    let mut routes = Vec::new();
    for number in scope.opened_resources(r) {
        let resource = &r.resources[number as usize];
        let router = |x: &crate::resolve::Routing| RouterChoice {
            peer_id: r.peers[x.peer as usize].id.clone(),
            metric: x.metric,
        };
        let routers: Vec<RouterChoice> = r.routers(number).iter().map(router).collect();
        let network_id = &r.networks[resource.network as usize].id;
        let entry = &r.state.networks[&**network_id].resources[&*resource.id];
        let by_choice = entry.distribution.as_ref().is_some_and(|bound| bound.by_choice);
        let choice: Option<Arc<str>> = by_choice.then(|| entry.name.as_str().into());
        let prefixes = resource.prefixes.iter().filter(|prefix| !own.contains(prefix));
        routes.extend(prefixes.map(|&prefix| Route {
            network_id: network_id.clone(),
            resource_id: resource.id.clone(),
            prefix,
            routers: routers.clone(),
            choice: choice.clone(),
        }));
    }
    routes
}

fn routed(r: &Resolved, scope: &Scope) -> Vec<RoutedPrefix> {
    let prefix = |routed: &crate::resolve::Routed| {
        let resource = &r.resources[routed.resource as usize];
        RoutedPrefix {
            route: routed.number,
            network_id: r.networks[resource.network as usize].id.clone(),
            resource_id: resource.id.clone(),
            prefix: routed.prefix,
            masquerade: routed.masquerade,
            metric: routed.metric,
        }
    };
    scope.routed.iter().map(prefix).collect()
}

fn names(r: &Resolved, scope: &Scope) -> Vec<Name> {
    let name = |&number: &u32| {
        let resource = &r.resources[number as usize];
        let network = &r.networks[resource.network as usize].id;
        let name = r.state.networks[&**network].resources[&*resource.id].domain.clone()?;
        Some(Name { resource_id: resource.id.clone(), name })
    };
    scope.routed_resources.keys().filter_map(name).collect()
}
