//! One compilation: pure, on its own thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluicegate_api::agent::{NetworkConfig, RemotePeer, Route, RoutedPrefix, Router};
use sluicegate_policy::model::State;
use sluicegate_policy::{Compiler, NetworkView};

use crate::hub::{Base, Compiled, Member, Target};
use crate::store::{Agent, Role, Snapshot};

/// A state of the store, ready to compile from.
pub(super) struct Plan {
    pub(super) revision: u64,
    compiler: Compiler,
    agents: BTreeMap<String, Agent>,
}

impl Plan {
    /// Prepares a state; the error says what in it cannot be compiled.
    pub(super) fn new(snapshot: Snapshot) -> Result<Self, String> {
        let Snapshot { revision, state, agents, .. } = snapshot;
        let compiler = Compiler::new(Arc::new(state)).map_err(|error| error.to_string())?;
        Ok(Self { revision, compiler, agents })
    }

    /// Images and overlays of these agents. One whose image is of the state `before`, and which the difference does not
    /// touch, is not compiled again.
    pub(super) fn targets(
        &self,
        before: Option<&Plan>,
        agents: BTreeMap<String, Base>,
    ) -> BTreeMap<String, Target> {
        let change = before.map(|before| Change {
            affected: self.compiler.affected(&before.compiler),
            overlay: self.overlay_differs(before),
        });
        let target = |(agent, base): (String, Base)| {
            let known = base.image.as_ref().filter(|_| base.current).zip(change.as_ref());
            let untouched = known.filter(|(_, change)| !change.affected.contains(agent.as_str()));
            let network = match untouched {
                Some((_, change)) if !change.overlay => None,
                _ => Some(network(
                    &self.compiler.network(&agent),
                    &agent,
                    self.compiler.state(),
                    &self.agents,
                )?),
            };
            let image = match untouched {
                Some((image, _)) => Ok(image.clone()),
                None => self.compile(&agent, base.image),
            };
            Some((agent, Target { image, network }))
        };
        agents.into_iter().filter_map(target).collect()
    }

    /// Whether a peer that was there before is reached or called differently: that is in overlays, but in no image.
    fn overlay_differs(&self, before: &Plan) -> bool {
        let name = |plan: &Plan, id: &str| plan.compiler.state().peers.get(id).map(|peer| peer.name.clone());
        before.agents.iter().any(|(id, old)| {
            self.agents.get(id).is_some_and(|new| new != old || name(self, id) != name(before, id))
        })
    }

    fn compile(&self, agent: &str, before: Option<Arc<Compiled>>) -> Result<Arc<Compiled>, String> {
        let image = self.compiler.compile(agent).map_err(|error| error.to_string())?;
        Ok(Compiled::new(&image, before))
    }
}

/// What differs from the state before.
struct Change {
    /// Agents whose image or overlay may differ because of rules, networks or groups.
    affected: BTreeSet<Arc<str>>,
    /// Whether any agent's overlay may differ because of how peers are reached or called.
    overlay: bool,
}

/// The peers there are, and which of them are gateways: those that joined as one, and those that route a network.
pub(super) fn roster(snapshot: &Snapshot) -> BTreeMap<String, Member> {
    let networks = snapshot.state.networks.values();
    let routers: BTreeSet<&String> =
        networks.flat_map(|n| n.routers.values()).flat_map(|r| &r.peers).collect();
    let member = |(id, agent): (&String, &Agent)| {
        let gateway = agent.role == Role::Gateway || routers.contains(id);
        (id.clone(), Member { gateway })
    };
    snapshot.agents.iter().map(member).collect()
}

/// The overlay as the agent is to build it; `None` for an agent that is not in the state.
fn network(
    view: &NetworkView,
    agent: &str,
    state: &State,
    agents: &BTreeMap<String, Agent>,
) -> Option<NetworkConfig> {
    let own = state.peers.get(agent)?;
    let remote = |id: &Arc<str>| {
        let (peer, agent) = (state.peers.get(&**id)?, agents.get(&**id)?);
        Some(RemotePeer {
            id: id.to_string(),
            name: peer.name.clone(),
            wireguard_public_key: agent.wireguard_public_key.to_vec(),
            endpoint: agent.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default(),
            address_v4: peer.v4.to_string(),
            address_v6: peer.v6.to_string(),
        })
    };
    let route = |route: &sluicegate_policy::network::Route| Route {
        network_id: route.network_id.to_string(),
        resource_id: route.resource_id.to_string(),
        prefix: route.prefix.to_string(),
        routers: (route.routers.iter())
            .map(|router| Router { peer_id: router.peer_id.to_string(), metric: router.metric.into() })
            .collect(),
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
    Some(NetworkConfig {
        serial: 0,
        address_v4: format!("{}/{}", own.v4, state.overlay_v4.prefix_len()),
        address_v6: format!("{}/{}", own.v6, state.overlay_v6.prefix_len()),
        peers: view.peers.iter().filter_map(remote).collect(),
        routes: view.routes.iter().map(route).collect(),
        routed: view.routed.iter().map(routed).collect(),
        protocol: sluicegate_api::PROTOCOL,
        watched: agents.get(agent).map(|agent| agent.watched.to_vec()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
