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
mod routes;
mod scope;
mod sets;
mod written;

use std::collections::BTreeSet;
use std::mem;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::compile::CompileError;
use crate::model::{Rule, State};

pub(crate) use lists::{Bits, Lists};
pub(crate) use routes::numbers;
pub(crate) use scope::{Routed, Scope};
pub(crate) use sets::{SetId, Sets};
use written::Written;

/// A peer that may take part. Numbered in the order of their IPv4 addresses.
#[derive(Debug)]
pub(crate) struct PeerEntry {
    pub(crate) id: Arc<str>,
    pub(crate) v4: u32,
    pub(crate) v6: u128,
}

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
    pub(crate) peers: Arc<Vec<PeerEntry>>,
    /// Peers in the order of their IPv6 addresses.
    pub(crate) by_v6: Arc<Vec<u32>>,
    /// Which of `by_v6` have the address directly behind that of the one before; the first, whether it has the first of all.
    pub(crate) adjoining: Arc<Vec<bool>>,
    peer_numbers: Arc<FxHashMap<Arc<str>, u32>>,
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
        let same_peers = before.filter(|before| {
            let old = &before.state;
            (old.overlay_v4, old.overlay_v6) == (state.overlay_v4, state.overlay_v6)
                && old.peers.is_same(&state.peers)
        });
        let (peers, by_v6, adjoining, peer_numbers) = match same_peers {
            Some(Self { peers, by_v6, adjoining, peer_numbers, .. }) => {
                (peers.clone(), by_v6.clone(), adjoining.clone(), peer_numbers.clone())
            }
            None => {
                let (peers, by_v6) = peers(&state)?;
                let numbers = peers.iter().enumerate().map(|(i, p)| (p.id.clone(), i as u32)).collect();
                let adjoining = adjoining(by_v6.iter().map(|&peer| peers[peer as usize].v6));
                (Arc::new(peers), Arc::new(by_v6), Arc::new(adjoining), Arc::new(numbers))
            }
        };
        let same_networks = same_peers.filter(|before| before.state.networks.is_same(&state.networks));
        let (networks, resources, routes) = match same_networks {
            Some(before) => (before.networks.clone(), before.resources.clone(), before.routes.clone()),
            None => {
                let (networks, resources) = networks(&state, &peer_numbers);
                let routed = networks.iter().zip(0..);
                let routes: Vec<(u32, u32)> =
                    routed.flat_map(|(n, i)| n.routers.iter().map(move |r| (r.peer, i))).collect();
                let routes = Lists::new(peers.len(), &routes);
                (Arc::new(networks), Arc::new(resources), Arc::new(routes))
            }
        };
        let numbered = same_networks.and_then(|before| {
            let sets = Sets::after(&state, &before.sets, &before.state)?;
            Some((sets, &before.written, &*before.state))
        });
        let (sets, written) = match numbered {
            Some((sets, written, old)) if old.policies.is_same(&state.policies) => (sets, written.clone()),
            Some((mut sets, before, old)) => {
                let written = Written::new(&state, &mut sets, Some((before, old)))?;
                if written.unused_sets(&sets) <= sets.len() / 2 + SETS_LEFT {
                    (sets, Arc::new(written))
                } else {
                    sets.forget();
                    let written = Written::new(&state, &mut sets, None)?;
                    (sets, Arc::new(written))
                }
            }
            None => {
                let numbers = resources.iter().zip(0..).map(|(r, i)| (r.id.clone(), i)).collect();
                let mut sets = Sets::new(&state, peer_numbers.clone(), numbers);
                let written = Written::new(&state, &mut sets, None)?;
                (sets, Arc::new(written))
            }
        };
        Ok(Self { state, peers, by_v6, adjoining, peer_numbers, resources, networks, routes, sets, written })
    }

    /// A peer's number, if it may take part.
    pub(crate) fn peer(&self, id: &str) -> Option<u32> {
        self.peer_numbers.get(id).copied()
    }

    /// The peer that owns an overlay address, if it may take part.
    pub(crate) fn peer_at(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(a) => self.peers.binary_search_by_key(&a.to_bits(), |p| p.v4).ok().map(|i| i as u32),
            IpAddr::V6(a) => {
                let at =
                    self.by_v6.binary_search_by_key(&a.to_bits(), |&i| self.peers[i as usize].v6).ok()?;
                Some(self.by_v6[at])
            }
        }
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

fn peers(state: &State) -> Result<(Vec<PeerEntry>, Vec<u32>), CompileError> {
    let mut peers = Vec::with_capacity(state.peers.len());
    for (id, peer) in state.peers.iter().filter(|(_, p)| p.allowed) {
        let outside = match (state.overlay_v4.contains(&peer.v4), state.overlay_v6.contains(&peer.v6)) {
            (true, true) => None,
            (false, _) => Some((IpAddr::V4(peer.v4), IpNet::V4(state.overlay_v4))),
            (_, false) => Some((IpAddr::V6(peer.v6), IpNet::V6(state.overlay_v6))),
        };
        if let Some((address, overlay)) = outside {
            return Err(CompileError::OutsideOverlay { peer: id.clone(), address, overlay });
        }
        peers.push(PeerEntry { id: id.as_str().into(), v4: peer.v4.to_bits(), v6: peer.v6.to_bits() });
    }
    peers.sort_unstable_by_key(|p| p.v4);
    let mut by_v6: Vec<u32> = (0..peers.len() as u32).collect();
    by_v6.sort_unstable_by_key(|&i| peers[i as usize].v6);
    let twin = |a: &PeerEntry, b: &PeerEntry, address: IpAddr| {
        let mut ids = [a.id.to_string(), b.id.to_string()];
        ids.sort();
        Err(CompileError::SharedAddress { peers: ids, address })
    };
    if let Some([a, b]) = peers.array_windows().find(|[a, b]| a.v4 == b.v4) {
        return twin(a, b, IpAddr::V4(a.v4.into()));
    }
    let v6 = |i: u32| &peers[i as usize];
    if let Some(&[a, b]) = by_v6.array_windows().find(|&&[a, b]| v6(a).v6 == v6(b).v6) {
        return twin(v6(a), v6(b), IpAddr::V6(v6(a).v6.into()));
    }
    Ok((peers, by_v6))
}

fn adjoining(rising: impl Iterator<Item = u128>) -> Vec<bool> {
    let mut next = Some(0);
    rising.map(|address| mem::replace(&mut next, address.checked_add(1)) == Some(address)).collect()
}

fn networks(state: &State, peers: &FxHashMap<Arc<str>, u32>) -> (Vec<NetworkEntry>, Vec<ResourceEntry>) {
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
            for (peer_id, peer) in router.peers.iter().filter_map(|p| Some((p, *peers.get(p.as_str())?))) {
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
