//! Who a rule names: ids become numbers, groups become members, each rule becomes one or two halves.
//!
//! A *half* is one direction of a rule: sources that open flows, destinations they open them to. The forward half goes
//! from the rule's sources to its destinations; a rule that is bidirectional between peers has a mirror half from its
//! destination peers to its source peers. Peers that fail the policy's posture checks are in no source of an accept rule; since the
//! source end is filtered before anything else, they are not at the far end of its mirror half either. A drop rule keeps them out as
//! everybody else.
//!
//! Resources that are distributed to some groups only are the destinations of halves of their own, one for each distinct list of
//! groups, whose sources are the rule's peers in these groups.
//!
//! The ends of halves are interned as *sets*, and a set's members are counted out only when somebody asks for them.

mod lists;
mod members;
mod peers;
mod routes;
mod scope;
mod sets;
mod written;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;

use crate::compile::CompileError;
use crate::model::{Rule, State};

pub(crate) use lists::{Bits, Lists};
use peers::Turned;
pub(crate) use peers::{Numbering, Peers};
pub(crate) use routes::numbers;
pub(crate) use scope::{Routed, Scope};
pub(crate) use sets::{SetId, Sets};
use written::Named;
pub(crate) use written::Written;

/// An enabled resource. Numbered in the order of (network id, resource id).
#[derive(Debug)]
pub(crate) struct ResourceEntry {
    pub(crate) id: Arc<str>,
    pub(crate) network: u32,
    /// Masked, sorted, without those inside the overlay ranges.
    pub(crate) prefixes: Vec<IpNet>,
    /// Whether it has a name that its routers look up.
    pub(crate) named: bool,
}

/// A network.
#[derive(Debug)]
pub(crate) struct NetworkEntry {
    pub(crate) id: Arc<str>,
    /// One entry for each peer that routes: its enabled router of lowest metric, the first by id among equals.
    /// In the order of (metric, peer id).
    pub(crate) routers: Vec<Routing>,
    /// Its resources' numbers.
    pub(crate) resources: Range<u32>,
}

/// How one peer routes a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Routing {
    pub(crate) peer: u32,
    pub(crate) metric: u16,
    pub(crate) masquerade: bool,
}

/// An enabled rule of an enabled policy. Numbered in the order of (policy id, index).
#[derive(Debug)]
pub(crate) struct RuleEntry {
    pub(crate) policy: u32,
    /// Index in the policy.
    pub(crate) index: u32,
    pub(crate) slot: u32,
    pub(crate) accept: bool,
    /// Where in `Written::ranges` its service is.
    ranges: Range<u32>,
}

/// One direction of a rule. Numbered in the order of rules, the forward half first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Half {
    pub(crate) rule: u32,
    pub(crate) source: SetId,
    pub(crate) destination: SetId,
}

/// A state with everything looked up once.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) state: Arc<State>,
    // What follows from peers alone, and from peers and networks, is shared by states that have the very same of these.
    pub(crate) peers: Arc<Peers>,
    pub(crate) resources: Arc<Vec<ResourceEntry>>,
    pub(crate) networks: Arc<Vec<NetworkEntry>>,
    /// Networks each peer routes.
    routes: Arc<Lists>,
    pub(crate) sets: Sets,
    pub(crate) written: Arc<Written>,
}

/// How many sets that no rule has any more are kept, beside as many as there are in use.
const SETS_LEFT: usize = 1024;

impl Resolved {
    /// Looks everything up. Refused when the state breaks what `model` promises. What has already been looked up `before`, in
    /// parts of the state that are one and the same, is taken from there: the result does not differ.
    pub(crate) fn new(state: Arc<State>, before: Option<&Self>) -> Result<Self, CompileError> {
        let same_overlay = before.filter(|before| {
            let old = &before.state;
            (old.overlay_v4, old.overlay_v6) == (state.overlay_v4, state.overlay_v6)
        });
        // Where peers have the numbers that they had: who came or went.
        let mut followed = None;
        let peers = match same_overlay {
            Some(before) if before.state.peers.is_same(&state.peers) => {
                followed = Some((before, Turned::new()));
                before.peers.clone()
            }
            Some(before) => match before.peers.after(&state, &before.state) {
                Some((peers, turned)) => {
                    followed = Some((before, turned));
                    Arc::new(peers)
                }
                None => Arc::new(Peers::new(&state)?),
            },
            None => Arc::new(Peers::new(&state)?),
        };
        let same_networks =
            followed.as_ref().filter(|(before, _)| before.state.networks.is_same(&state.networks));
        let (networks, resources, routes) = match same_networks {
            Some((before, turned)) if !routed_by(&state, turned) => {
                (before.networks.clone(), before.resources.clone(), before.routes.clone())
            }
            _ => {
                let (networks, resources) = networks(&state, &peers);
                let routed = networks.iter().zip(0..);
                let routes: Vec<(u32, u32)> =
                    routed.flat_map(|(n, i)| n.routers.iter().map(move |r| (r.peer, i))).collect();
                let routes = Lists::new(peers.len(), &routes);
                (Arc::new(networks), Arc::new(resources), Arc::new(routes))
            }
        };
        let numbers = || resources.iter().zip(0..).map(|(r, i)| (r.id.clone(), i)).collect();
        let numbered = followed.as_ref().and_then(|(before, turned)| {
            let resources = (!Arc::ptr_eq(&resources, &before.resources)).then(numbers);
            let old = (&before.sets, &*before.state);
            let (sets, other) = Sets::after(&state, old, peers.clone(), turned, resources)?;
            Some((sets, before, Named { peers: turned, resources: other }))
        });
        let (sets, written) = match numbered {
            Some((mut sets, before, named)) => {
                if before.state.policies.is_same(&state.policies) && !named.by_any(&state) {
                    (sets, before.written.clone())
                } else {
                    let old = (&*before.written, &*before.state, &named);
                    let written = Written::new(&state, &mut sets, Some(old))?;
                    if written.unused_sets(&sets) <= sets.len() / 2 + SETS_LEFT {
                        (sets, Arc::new(written))
                    } else {
                        sets.forget();
                        let written = Written::new(&state, &mut sets, None)?;
                        (sets, Arc::new(written))
                    }
                }
            }
            None => {
                let mut sets = Sets::new(&state, peers.clone(), numbers());
                let written = Written::new(&state, &mut sets, None)?;
                (sets, Arc::new(written))
            }
        };
        Ok(Self { state, peers, resources, networks, routes, sets, written })
    }

    /// A peer's number, if it may take part.
    pub(crate) fn peer(&self, id: &str) -> Option<u32> {
        self.peers.number(id)
    }

    /// The peer that owns an overlay address, if it may take part.
    pub(crate) fn peer_at(&self, address: IpAddr) -> Option<u32> {
        self.peers.at(address)
    }

    /// Whether the address belongs to the overlay, where no resource is.
    pub(crate) fn in_overlay(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => self.state.overlay_v4.contains(&a),
            IpAddr::V6(a) => self.state.overlay_v6.contains(&a),
        }
    }

    /// The axis ranges of a rule.
    pub(crate) fn service(&self, rule: u32) -> &[Range<u32>] {
        self.written.service(rule)
    }

    /// The rule as the state has it.
    pub(crate) fn rule(&self, rule: u32) -> (&str, &crate::model::Policy, &Rule) {
        let entry = &self.written.rules[rule as usize];
        let id = &*self.written.policies[entry.policy as usize];
        let policy = &self.state.policies[id];
        (id, policy, &policy.rules[entry.index as usize])
    }

    /// Whether a half belongs to an accept rule.
    pub(crate) fn accepts(&self, half: &Half) -> bool {
        self.written.rules[half.rule as usize].accept
    }

    /// Networks the peer routes.
    pub(crate) fn routed_networks(&self, peer: u32) -> &[u32] {
        self.routes.get(peer)
    }

    /// Whether the peer routes the network of the resource.
    pub(crate) fn routes_resource(&self, peer: u32, resource: u32) -> bool {
        self.routes.get(peer).binary_search(&self.resources[resource as usize].network).is_ok()
    }

    /// Who routes the resource.
    pub(crate) fn routers(&self, resource: u32) -> &[Routing] {
        &self.networks[self.resources[resource as usize].network as usize].routers
    }

    /// Halves whose sources are the set.
    pub(crate) fn halves_from(&self, set: SetId) -> &[u32] {
        self.written.halves_from(set)
    }

    /// Halves whose destinations are the set.
    pub(crate) fn halves_to(&self, set: SetId) -> &[u32] {
        self.written.halves_to(set)
    }
}

/// Whether a rule admits its mirror image between peers.
pub(crate) fn effectively_bidirectional(rule: &Rule) -> bool {
    rule.bidirectional || rule.service.always_bidirectional()
}

/// Whether one of these peers is a router.
fn routed_by(state: &State, peers: &Turned<'_>) -> bool {
    let mut routers = state.networks.values().flat_map(|network| network.routers.values());
    !peers.is_empty() && routers.any(|router| peers.iter().any(|&peer| router.peers.contains(peer)))
}

fn networks(state: &State, peers: &Peers) -> (Vec<NetworkEntry>, Vec<ResourceEntry>) {
    let inside_overlay = |p: &IpNet| match p {
        IpNet::V4(p) => state.overlay_v4.contains(p),
        IpNet::V6(p) => state.overlay_v6.contains(p),
    };
    let mut networks = Vec::with_capacity(state.networks.len());
    let mut resources = Vec::new();
    for (id, network) in &state.networks {
        let start = resources.len() as u32;
        for (resource_id, resource) in network.resources.iter().filter(|(_, r)| r.enabled) {
            let prefixes: BTreeSet<IpNet> =
                resource.prefixes.iter().map(IpNet::trunc).filter(|p| !inside_overlay(p)).collect();
            resources.push(ResourceEntry {
                id: resource_id.as_str().into(),
                network: networks.len() as u32,
                prefixes: prefixes.into_iter().collect(),
                named: resource.domain.is_some(),
            });
        }
        // The stable sort keeps routers of equal metric in the order of their ids, and the first of a peer stays.
        let mut enabled: Vec<_> = network.routers.values().filter(|r| r.enabled).collect();
        enabled.sort_by_key(|r| r.metric);
        let mut seen = BTreeSet::new();
        let mut routers = Vec::new();
        for router in enabled {
            for (peer_id, peer) in router.peers.iter().filter_map(|p| Some((p, peers.number(p)?))) {
                if seen.insert(peer) {
                    let routing = Routing { peer, metric: router.metric, masquerade: router.masquerade };
                    routers.push((router.metric, peer_id, routing));
                }
            }
        }
        routers.sort_by_key(|&(metric, peer_id, _)| (metric, peer_id));
        let routers = routers.into_iter().map(|(_, _, routing)| routing).collect();
        networks.push(NetworkEntry {
            id: id.as_str().into(),
            routers,
            resources: start..resources.len() as u32,
        });
    }
    (networks, resources)
}
