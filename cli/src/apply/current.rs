//! What control has, as its REST interface tells it.

use serde_json::Value;

use crate::apply::Spec;
use crate::client::Client;
use crate::error::Failure;
use crate::rest::{Group, Named, Network, Peer, Policy, Resource, Router};
use crate::verbs::{read, read_all};

/// Everything a policy file can name.
#[derive(Clone, Debug, Default)]
pub struct Current {
    /// Peers.
    pub peers: Vec<Peer>,
    /// Groups.
    pub groups: Vec<Group>,
    /// Networks with what is in them.
    pub networks: Vec<CurrentNetwork>,
    /// Policies, each also as control said it: what a file cannot say is sent back unchanged.
    pub policies: Vec<(Policy, Value)>,
    /// Posture checks, when the file names some.
    pub posture_checks: Vec<Named>,
}

/// A network with what is in it.
#[derive(Clone, Debug, Default)]
pub struct CurrentNetwork {
    /// The network itself.
    pub network: Network,
    /// Its resources.
    pub resources: Vec<Resource>,
    /// Its routers.
    pub routers: Vec<Router>,
}

impl Current {
    /// Reads all that `spec` could name; one request per kind, and two more per network.
    pub async fn fetch(client: &Client, spec: &Spec) -> Result<Self, Failure> {
        let peers: Vec<Value> = client.get("/api/peers").await?;
        let groups: Vec<Value> = client.get("/api/groups").await?;
        let policies: Vec<Value> = client.get("/api/policies").await?;
        let mut networks = Vec::new();
        for item in client.get::<Vec<Value>>("/api/networks").await? {
            let network: Network = read(&item, "a network")?;
            let resources: Vec<Value> =
                client.get(&format!("/api/networks/{}/resources", network.id)).await?;
            let routers: Vec<Value> = client.get(&format!("/api/networks/{}/routers", network.id)).await?;
            networks.push(CurrentNetwork {
                network,
                resources: read_all(&resources, "a resource")?,
                routers: read_all(&routers, "a router")?,
            });
        }
        let policies = policies
            .into_iter()
            .map(|value| Ok((read::<Policy>(&value, "a policy")?, value)))
            .collect::<Result<_, Failure>>()?;
        let posture = spec.policies.iter().any(|policy| policy.posture_checks.is_some());
        let posture_checks = if posture { client.get("/api/posture-checks").await? } else { Vec::new() };
        Ok(Current {
            peers: read_all(&peers, "a peer")?,
            groups: read_all(&groups, "a group")?,
            networks,
            policies,
            posture_checks,
        })
    }

    /// All resources with the id of their network.
    pub fn resources(&self) -> impl Iterator<Item = (&str, &Resource)> {
        self.networks.iter().flat_map(|n| n.resources.iter().map(move |r| (n.network.id.as_str(), r)))
    }
}
