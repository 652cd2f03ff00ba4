//! Whom an agent talks to, what it reaches through routers, what it routes itself, and who is asked for which names.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use crate::resolve::{Bits, Resolved, Scope};

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
    /// Who may ask the agent for names that it routes: places in `peers`, rising. No list is empty, and no two are the same.
    pub askers: Vec<Vec<u32>>,
    /// Names to be asked of routers: of enabled domain resources that an accept rule opens to the agent, without names that it
    /// routes itself, whichever resource they are of. By (network, resource). Two resources may share a name.
    pub asked: Vec<AskedName>,
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
    /// Those to whom an accept rule opens the resource and who do not route it themselves: a place in [`NetworkView::askers`].
    /// `None` is nobody.
    pub askers: Option<usize>,
}

/// The name of a domain resource that the agent reaches through routers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedName {
    /// Resource id.
    pub resource_id: Arc<str>,
    /// A name, or a wildcard as in `model::Resource::domain`.
    pub name: String,
    /// Whom to ask: at least one, by (metric, peer id).
    pub routers: Vec<RouterChoice>,
}

impl NetworkView {
    pub(crate) fn new(r: &Resolved, scope: &Scope) -> Self {
        let neighbours = scope.neighbours(r);
        let mut peers: Vec<Arc<str>> = neighbours.iter().map(|p| r.peers[p as usize].id.clone()).collect();
        peers.sort_unstable();
        let opened = scope.opened_resources(r);
        let (names, lists) = names(r, scope);
        let askers = askers(r, &neighbours, lists);
        let asked = asked(r, &opened, &names);
        Self { peers, routes: routes(r, scope, &opened), routed: routed(r, scope), names, askers, asked }
    }
}

fn routes(r: &Resolved, scope: &Scope, opened: &[u32]) -> Vec<Route> {
    let own: BTreeSet<IpNet> = scope.routed.iter().map(|routed| routed.prefix).collect();
    let mut routes = Vec::new();
    for &number in opened {
        let resource = &r.resources[number as usize];
        let routers = routers(r, number);
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

fn routers(r: &Resolved, resource: u32) -> Vec<RouterChoice> {
    let router = |x: &crate::resolve::Routing| RouterChoice {
        peer_id: r.peers[x.peer as usize].id.clone(),
        metric: x.metric,
    };
    r.routers(resource).iter().map(router).collect()
}

/// The name of a resource, if it is that of a domain.
fn name(r: &Resolved, resource: u32) -> Option<String> {
    let resource = &r.resources[resource as usize];
    let network = &r.networks[resource.network as usize].id;
    r.state.networks[&**network].resources[&*resource.id].domain.clone()
}

/// The names an agent routes, and the lists of those who may ask for them, by number.
fn names(r: &Resolved, scope: &Scope) -> (Vec<Name>, Vec<Bits>) {
    let (of, lists) = scope.askers(r);
    let name = |&number: &u32| {
        let resource_id = r.resources[number as usize].id.clone();
        Some(Name { resource_id, name: name(r, number)?, askers: of.get(&number).copied() })
    };
    (scope.routed_resources.keys().filter_map(name).collect(), lists)
}

/// Lists of peers as places among the neighbours, whose order is that of their ids.
fn askers(r: &Resolved, neighbours: &Bits, lists: Vec<Bits>) -> Vec<Vec<u32>> {
    if lists.is_empty() {
        return Vec::new();
    }
    let mut order: Vec<u32> = neighbours.iter().collect();
    order.sort_unstable_by(|&a, &b| r.peers[a as usize].id.cmp(&r.peers[b as usize].id));
    let mut places = vec![0; r.peers.len()];
    order.iter().zip(0..).for_each(|(&peer, place)| places[peer as usize] = place);
    let placed = |list: Bits| {
        let mut list: Vec<u32> = list.iter().map(|peer| places[peer as usize]).collect();
        list.sort_unstable();
        list
    };
    lists.into_iter().map(placed).collect()
}

fn asked(r: &Resolved, opened: &[u32], own: &[Name]) -> Vec<AskedName> {
    let own: BTreeSet<&str> = own.iter().map(|own| own.name.as_str()).collect();
    let asked = |&number: &u32| {
        let name = name(r, number).filter(|name| !own.contains(name.as_str()))?;
        let resource_id = r.resources[number as usize].id.clone();
        Some(AskedName { resource_id, name, routers: routers(r, number) })
    };
    opened.iter().filter(|&&number| r.resources[number as usize].named).filter_map(asked).collect()
}
