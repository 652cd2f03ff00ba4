//! Who is behind an address, and what a rule is called: the state turned round for naming events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;
use sluicegate_policy::model::{Policy, Rule, State};

use super::DecidingRule;

/// Names by address and id. What follows from parts that a change leaves alone is shared.
#[derive(Debug, Default)]
pub struct Directory {
    /// What it was made from.
    of: Option<State>,
    peers: Arc<Peers>,
    resources: Arc<Resources>,
    /// Rule id -> (policy name, rule name).
    rules: Arc<HashMap<String, (String, String)>>,
}

#[derive(Debug, Default)]
struct Peers {
    addresses: HashMap<IpAddr, Party>,
    names: HashMap<String, String>,
}

#[derive(Debug, Default)]
struct Resources {
    by_prefix: HashMap<IpNet, Party>,
    names: HashMap<String, String>,
    /// Prefix lengths in use, longest first: at most 33 and 129 look-ups per address.
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
}

/// The peer or resource behind an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Party {
    /// Peer or resource id; empty when unknown.
    pub id: String,
    /// Its name; empty when unknown.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: PartyKind,
}

/// What is behind an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PartyKind {
    /// Nothing control knows.
    #[default]
    Unknown,
    /// A peer.
    Peer,
    /// A resource of one address.
    HostResource,
    /// A resource of a prefix.
    SubnetResource,
}

impl Directory {
    /// Turns `state` round.
    pub fn new(state: &State) -> Self {
        let of = Some(state.clone());
        Self { of, peers: Peers::new(state), resources: Resources::new(state), rules: rules(state) }
    }

    /// The same, for less where the state shares parts with the one this is of.
    pub fn after(&self, state: &State) -> Self {
        let Some(before) = &self.of else { return Self::new(state) };
        Self {
            of: Some(state.clone()),
            peers: match before.peers.is_same(&state.peers) {
                true => self.peers.clone(),
                false => Peers::new(state),
            },
            resources: match before.networks.is_same(&state.networks) {
                true => self.resources.clone(),
                false => Resources::new(state),
            },
            rules: match before.policies.is_same(&state.policies) {
                true => self.rules.clone(),
                false => rules(state),
            },
        }
    }

    /// The peer with this address, or the resource with the longest prefix over it.
    pub fn party(&self, address: IpAddr) -> Party {
        if let Some(peer) = self.peers.addresses.get(&address) {
            return peer.clone();
        }
        let Resources { by_prefix, lengths_v4, lengths_v6, .. } = &*self.resources;
        let lengths = if address.is_ipv4() { lengths_v4 } else { lengths_v6 };
        let mut covering = lengths.iter().filter_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            by_prefix.get(&prefix)
        });
        covering.next().cloned().unwrap_or_default()
    }

    /// The peer's name, empty when it is unknown.
    pub fn peer_name(&self, id: &str) -> String {
        self.peers.names.get(id).cloned().unwrap_or_default()
    }

    /// The resource's name, when there is one.
    pub fn resource_name(&self, id: &str) -> Option<&str> {
        self.resources.names.get(id).map(String::as_str)
    }

    /// The peer, with its name and both addresses, when there is one.
    pub fn peer(&self, id: &str) -> Option<(&str, Ipv4Addr, Ipv6Addr)> {
        let peer = self.of.as_ref()?.peers.get(id)?;
        Some((&peer.name, peer.v4, peer.v6))
    }

    /// The id of a policy that there is, else an empty one. Before any state is known, every id may be one.
    pub fn known_policy(&self, id: &str) -> String {
        let known = self.of.as_ref().is_none_or(|state| state.policies.contains_key(id));
        if known { id.to_owned() } else { String::new() }
    }

    /// The same of a rule.
    pub fn known_rule(&self, id: &str) -> String {
        let known = self.of.is_none() || self.rules.contains_key(id);
        if known { id.to_owned() } else { String::new() }
    }

    /// The rule with its names; ids of a rule that is gone stay.
    pub fn rule(&self, policy_id: &str, rule_id: &str) -> DecidingRule {
        let (policy_name, rule_name) = self.rules.get(rule_id).cloned().unwrap_or_default();
        DecidingRule { policy_id: policy_id.to_owned(), policy_name, rule_id: rule_id.to_owned(), rule_name }
    }
}

impl Peers {
    fn new(state: &State) -> Arc<Self> {
        let mut peers = Self::default();
        for (id, peer) in &state.peers {
            let party = Party { id: id.clone(), name: peer.name.clone(), kind: PartyKind::Peer };
            peers.addresses.insert(peer.v4.into(), party.clone());
            peers.addresses.insert(peer.v6.into(), party);
            peers.names.insert(id.clone(), peer.name.clone());
        }
        Arc::new(peers)
    }
}

impl Resources {
    fn new(state: &State) -> Arc<Self> {
        let (mut by_prefix, mut names) = (HashMap::new(), HashMap::new());
        let mut lengths = BTreeMap::<bool, BTreeSet<u8>>::new();
        for (id, resource) in state.networks.values().flat_map(|network| &network.resources) {
            names.insert(id.clone(), resource.name.clone());
            for prefix in &resource.prefixes {
                let host = prefix.prefix_len() == prefix.max_prefix_len();
                let kind = if host { PartyKind::HostResource } else { PartyKind::SubnetResource };
                let party = Party { id: id.clone(), name: resource.name.clone(), kind };
                by_prefix.entry(*prefix).or_insert(party);
                lengths.entry(prefix.addr().is_ipv4()).or_default().insert(prefix.prefix_len());
            }
        }
        let longest_first =
            |v4| lengths.get(&v4).map(|set| set.iter().rev().copied().collect()).unwrap_or_default();
        let (lengths_v4, lengths_v6) = (longest_first(true), longest_first(false));
        Arc::new(Self { by_prefix, names, lengths_v4, lengths_v6 })
    }
}

fn rules(state: &State) -> Arc<HashMap<String, (String, String)>> {
    let rules =
        state.policies.values().flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)));
    let names =
        |(policy, rule): (&Policy, &Rule)| (rule.id.clone(), (policy.name.clone(), rule.name.clone()));
    Arc::new(rules.map(names).collect())
}
