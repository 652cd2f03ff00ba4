//! The overlay of one agent, as it is told.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sluicegate_api::agent::{Name, NetworkConfig, PeerSet, RemotePeer, Route, RoutedPrefix, Router};
use sluicegate_api::network::Overlay;
use sluicegate_policy::NetworkView;
use sluicegate_policy::model::{Peer, Shared, State};

use crate::store::Agent;

/// Every agent as others are told of it: written once, however many overlays it is in and for as long as it stays what it is.
pub(super) struct Remotes {
    agents: Shared<BTreeMap<String, Agent>>,
    peers: Shared<BTreeMap<String, Peer>>,
    remotes: Arc<HashMap<Arc<str>, Remote>>,
}

#[derive(Clone)]
struct Remote {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    endpoint: Option<SocketAddr>,
    told: Arc<RemotePeer>,
}

impl Remotes {
    /// Those of one state; what is as in `before` is shared with it.
    pub(super) fn new(
        agents: &Shared<BTreeMap<String, Agent>>,
        peers: &Shared<BTreeMap<String, Peer>>,
        before: Option<&Self>,
    ) -> Self {
        let (known, parts) = (before.map(|before| &before.remotes), (agents.clone(), peers.clone()));
        let of = |remotes| Self { agents: parts.0, peers: parts.1, remotes };
        if let Some(before) = before.filter(|b| b.agents.is_same(agents) && b.peers.is_same(peers)) {
            return of(before.remotes.clone());
        }
        let mut changed = Vec::new();
        let mut count = 0;
        let mut peers = peers.iter().peekable();
        for (id, agent) in agents.iter() {
            while peers.next_if(|(other, _)| *other < id).is_some() {}
            let Some((_, peer)) = peers.next_if(|(other, _)| *other == id) else { continue };
            count += 1;
            let same =
                known.and_then(|known| known.get(id.as_str())).is_some_and(|remote| remote.is(peer, agent));
            if !same {
                changed.push((id, Remote::new(id, peer, agent)));
            }
        }
        match known {
            Some(known) if changed.is_empty() && known.len() == count => of(known.clone()),
            _ => {
                let mut remotes = known.map(|known| HashMap::clone(known)).unwrap_or_default();
                remotes.extend(changed.into_iter().map(|(id, remote)| (Arc::from(id.as_str()), remote)));
                if remotes.len() > count {
                    remotes.retain(|id, _| agents.contains_key(&**id));
                }
                of(Arc::new(remotes))
            }
        }
    }

    fn of(&self, id: &str) -> Option<Arc<RemotePeer>> {
        self.remotes.get(id).map(|remote| remote.told.clone())
    }
}

impl Remote {
    fn new(id: &str, peer: &Peer, agent: &Agent) -> Self {
        let told = RemotePeer {
            id: id.to_owned(),
            name: peer.name.clone(),
            wireguard_public_key: agent.wireguard_public_key.to_vec(),
            endpoint: agent.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default(),
            address_v4: peer.v4.to_string(),
            address_v6: peer.v6.to_string(),
            dns_labels: agent.dns_labels.to_vec(),
        };
        Self { v4: peer.v4, v6: peer.v6, endpoint: agent.endpoint, told: Arc::new(told) }
    }

    fn is(&self, peer: &Peer, agent: &Agent) -> bool {
        (self.v4, self.v6, self.endpoint) == (peer.v4, peer.v6, agent.endpoint)
            && self.told.name == peer.name
            && *self.told.wireguard_public_key == agent.wireguard_public_key
            && *self.told.dns_labels == *agent.dns_labels
    }
}

pub(super) fn router(router: &sluicegate_policy::network::RouterChoice) -> Router {
    Router { peer_id: router.peer_id.to_string(), metric: router.metric.into() }
}

/// The overlay as the agent is to build it, without what it is told of names and of flows; `None` for an agent that is not in the
/// state.
pub(super) fn overlay(
    view: &NetworkView,
    agent: &str,
    state: &State,
    agents: &BTreeMap<String, Agent>,
    remotes: &Remotes,
) -> Option<Overlay> {
    let own = state.peers.get(agent)?;
    let route = |route: &sluicegate_policy::network::Route| Route {
        network_id: route.network_id.to_string(),
        resource_id: route.resource_id.to_string(),
        prefix: route.prefix.to_string(),
        routers: route.routers.iter().map(router).collect(),
        choice: route.choice.as_deref().unwrap_or_default().to_owned(),
    };
    let routed = |routed: &sluicegate_policy::network::RoutedPrefix| RoutedPrefix {
        route: routed.route.into(),
        network_id: routed.network_id.to_string(),
        resource_id: routed.resource_id.to_string(),
        prefix: routed.prefix.to_string(),
        masquerade: routed.masquerade,
        metric: routed.metric.into(),
    };
    let name = |name: &sluicegate_policy::network::Name| Name {
        resource_id: name.resource_id.to_string(),
        name: name.name.clone(),
        askers: name.askers.map_or(0, |place| place as u32 + 1),
    };
    let askers = |peers: &Vec<u32>| PeerSet { peers: peers.clone() };
    let rest = NetworkConfig {
        address_v4: format!("{}/{}", own.v4, state.overlay_v4.prefix_len()),
        address_v6: format!("{}/{}", own.v6, state.overlay_v6.prefix_len()),
        routes: view.routes.iter().map(route).collect(),
        routed: view.routed.iter().map(routed).collect(),
        protocol: sluicegate_api::PROTOCOL,
        watched: agents.get(agent).map(|agent| agent.watched.to_vec()).unwrap_or_default(),
        names: view.names.iter().map(name).collect(),
        askers: view.askers.iter().map(askers).collect(),
        login_expired: agents.get(agent).is_some_and(|agent| agent.login_expired),
        ..NetworkConfig::default()
    };
    // All of them, or none: others are told of by their places.
    let peers = view.peers.iter().map(|id| remotes.of(id)).collect::<Option<_>>()?;
    Some(Overlay { rest, peers })
}

#[cfg(test)]
mod tests;
