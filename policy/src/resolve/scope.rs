//! What concerns one agent: the halves that reach it, the halves it opens flows by, and what it routes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::{Bits, Half, Resolved, SetId, numbers};

/// One agent's share of the rules.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// The agent; `None` for one that is unknown or may not take part: nothing concerns it.
    pub(crate) me: Option<u32>,
    /// Halves that have the agent's own addresses, or a resource it routes, among their destinations. Rising.
    pub(crate) inbound: Vec<u32>,
    /// Halves that have the agent among their sources. Rising.
    pub(crate) outbound: Vec<u32>,
    /// Sets that hold the agent's own addresses. Rising.
    pub(crate) own_sets: Vec<SetId>,
    /// Resources the agent routes, each with the sets that hold it (rising).
    pub(crate) routed_resources: BTreeMap<u32, Vec<SetId>>,
    /// Prefixes the agent routes, by (network, resource, prefix).
    pub(crate) routed: Vec<Routed>,
}

/// A prefix the agent routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Routed {
    /// Its route number.
    pub(crate) number: u16,
    pub(crate) resource: u32,
    pub(crate) prefix: IpNet,
    pub(crate) metric: u16,
    pub(crate) masquerade: bool,
}

impl Scope {
    /// Collects what concerns the agent.
    pub(crate) fn new(r: &Resolved, agent: &str) -> Self {
        let Some(me) = r.peer(agent) else { return Self::default() };
        let own_sets = r.sets.of_peer(me);
        let mut routed_resources = BTreeMap::new();
        let mut routed = Vec::new();
        for &network in r.routed_networks(me) {
            let network = &r.networks[network as usize];
            let Some(routing) = network.routers.iter().find(|x| x.peer == me) else { continue };
            for resource in network.resources.clone() {
                routed_resources.insert(resource, r.sets.of_resource(resource));
                let prefixes = r.resources[resource as usize].prefixes.iter();
                let (metric, masquerade) = (routing.metric, routing.masquerade);
                let new = |&prefix: &IpNet| Routed { number: 0, resource, prefix, metric, masquerade };
                routed.extend(prefixes.map(new));
            }
        }
        let named = routed.iter().map(|x: &Routed| (&*r.resources[x.resource as usize].id, x.prefix));
        let numbers = numbers(named);
        routed.iter_mut().zip(numbers).for_each(|(routed, number)| routed.number = number);
        let sets = own_sets.iter().chain(routed_resources.values().flatten());
        let inbound = rising(sets.flat_map(|&set| r.halves_to(set)).copied());
        let outbound = rising(own_sets.iter().flat_map(|&set| r.halves_from(set)).copied());
        Self { me: Some(me), inbound, outbound, own_sets, routed_resources, routed }
    }

    /// Resources the agent reaches through routers, each with the destination sets of its outbound halves that hold it
    /// (rising). Those it routes itself, and those nobody routes, are not among them.
    pub(crate) fn remote_resources(&self, r: &Resolved) -> BTreeMap<u32, Vec<SetId>> {
        let mut remote: BTreeMap<u32, Vec<SetId>> = BTreeMap::new();
        let Some(me) = self.me else { return remote };
        for set in self.destinations(r) {
            for &resource in r.sets.resources(set) {
                if !r.routes_resource(me, resource) && !r.routers(resource).is_empty() {
                    remote.entry(resource).or_default().push(set);
                }
            }
        }
        remote
    }

    /// Where its outbound halves lead to, rising.
    pub(crate) fn destinations(&self, r: &Resolved) -> Vec<SetId> {
        rising(self.outbound.iter().map(|&h| r.written.halves[h as usize].destination))
    }

    /// Peers the agent talks to: those any rule joins it with, the routers of resources its rules open, and those that
    /// may reach the resources it routes.
    pub(crate) fn neighbours(&self, r: &Resolved) -> Bits {
        let mut neighbours = Bits::new(r.peers.len());
        let Some(me) = self.me else { return neighbours };
        let sources = halves_to(r, &self.own_sets).map(|half| half.source);
        for set in rising(sources.chain(self.destinations(r))) {
            r.sets.peers(set).iter().for_each(|&p| neighbours.insert(p));
        }
        for (&resource, sets) in &self.routed_resources {
            for half in halves_to(r, sets).filter(|half| r.accepts(half)) {
                let users = r.sets.peers(half.source).iter().filter(|&&p| !r.routes_resource(p, resource));
                users.for_each(|&p| neighbours.insert(p));
            }
        }
        for &resource in self.opened_resources(r).iter() {
            r.routers(resource).iter().for_each(|router| neighbours.insert(router.peer));
        }
        neighbours.remove(me);
        neighbours
    }

    /// Who may ask the agent for the name of each domain resource that it routes: those to whom an accept rule opens it and who do not
    /// route it themselves. A place among the distinct lists; of whom nobody may ask for there is none.
    pub(crate) fn askers(&self, r: &Resolved) -> (BTreeMap<u32, usize>, Vec<Bits>) {
        let (mut of, mut lists) = (BTreeMap::new(), Vec::<Bits>::new());
        // Many names are opened by the same rules to the same groups.
        let mut known = FxHashMap::<(u32, Vec<SetId>), Option<usize>>::default();
        let mut numbers = FxHashMap::<Bits, usize>::default();
        for (&resource, sets) in &self.routed_resources {
            let entry = &r.resources[resource as usize];
            if !entry.named {
                continue;
            }
            let sources = rising(halves_to(r, sets).filter(|half| r.accepts(half)).map(|half| half.source));
            let place = known.entry((entry.network, sources)).or_insert_with_key(|(_, sources)| {
                let mut list = Bits::new(r.peers.len());
                let users = sources.iter().flat_map(|&set| r.sets.peers(set)).copied();
                users.filter(|&p| !r.routes_resource(p, resource)).for_each(|p| list.insert(p));
                list.iter().next()?;
                Some(*numbers.entry(list).or_insert_with_key(|list| {
                    lists.push(list.clone());
                    lists.len() - 1
                }))
            });
            of.extend(place.map(|place| (resource, place)));
        }
        (of, lists)
    }

    /// Resources the agent reaches through routers because an accept rule opens them to it, rising.
    pub(crate) fn opened_resources(&self, r: &Resolved) -> Vec<u32> {
        let Some(me) = self.me else { return Vec::new() };
        let accepts = self.outbound.iter().map(|&h| &r.written.halves[h as usize]).filter(|h| r.accepts(h));
        let sets = rising(accepts.map(|h| h.destination));
        let mut opened: Vec<u32> = sets.into_iter().flat_map(|set| r.sets.resources(set)).copied().collect();
        opened.sort_unstable();
        opened.dedup();
        opened.retain(|&q| !r.routes_resource(me, q) && !r.routers(q).is_empty());
        opened
    }
}

/// Halves that have any of the sets among their destinations, rising.
fn halves_to<'a>(r: &'a Resolved, sets: &[SetId]) -> impl Iterator<Item = &'a Half> {
    let halves = rising(sets.iter().flat_map(|&set| r.halves_to(set)).copied());
    halves.into_iter().map(|half| &r.written.halves[half as usize])
}

fn rising(items: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut items: Vec<u32> = items.collect();
    items.sort_unstable();
    items.dedup();
    items
}
