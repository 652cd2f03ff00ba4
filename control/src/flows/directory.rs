//! Who is behind an address, and what a rule is called: the state turned round for naming events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use sluicegate_policy::model::State;

use super::DecidingRule;

/// Names by address and id, built once per change of the state.
#[derive(Debug, Default)]
pub struct Directory {
    addresses: HashMap<IpAddr, Party>,
    resources: HashMap<IpNet, Party>,
    /// Prefix lengths in use, longest first: at most 33 and 129 look-ups per address.
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
    peers: HashMap<String, String>,
    /// Rule id -> (policy name, rule name).
    rules: HashMap<String, (String, String)>,
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
        let mut directory = Self::default();
        for (id, peer) in &state.peers {
            let party = Party { id: id.clone(), name: peer.name.clone(), kind: PartyKind::Peer };
            directory.addresses.insert(peer.v4.into(), party.clone());
            directory.addresses.insert(peer.v6.into(), party);
            directory.peers.insert(id.clone(), peer.name.clone());
        }
        let mut lengths = BTreeMap::<bool, BTreeSet<u8>>::new();
        for (id, resource) in state.networks.values().flat_map(|network| &network.resources) {
            for prefix in &resource.prefixes {
                let host = prefix.prefix_len() == prefix.max_prefix_len();
                let kind = if host { PartyKind::HostResource } else { PartyKind::SubnetResource };
                let party = Party { id: id.clone(), name: resource.name.clone(), kind };
                directory.resources.entry(*prefix).or_insert(party);
                lengths.entry(prefix.addr().is_ipv4()).or_default().insert(prefix.prefix_len());
            }
        }
        let longest_first =
            |v4| lengths.get(&v4).map(|set| set.iter().rev().copied().collect()).unwrap_or_default();
        (directory.lengths_v4, directory.lengths_v6) = (longest_first(true), longest_first(false));
        for policy in state.policies.values() {
            for rule in &policy.rules {
                directory.rules.insert(rule.id.clone(), (policy.name.clone(), rule.name.clone()));
            }
        }
        directory
    }

    /// The peer with this address, or the resource with the longest prefix over it.
    pub fn party(&self, address: IpAddr) -> Party {
        if let Some(peer) = self.addresses.get(&address) {
            return peer.clone();
        }
        let lengths = if address.is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        let mut covering = lengths.iter().filter_map(|length| {
            let prefix = IpNet::new(address, *length).ok()?.trunc();
            self.resources.get(&prefix)
        });
        covering.next().cloned().unwrap_or_default()
    }

    /// The peer's name, empty when it is unknown.
    pub fn peer_name(&self, id: &str) -> String {
        self.peers.get(id).cloned().unwrap_or_default()
    }

    /// The rule with its names; ids of a rule that is gone stay.
    pub fn rule(&self, policy_id: &str, rule_id: &str) -> DecidingRule {
        let (policy_name, rule_name) = self.rules.get(rule_id).cloned().unwrap_or_default();
        DecidingRule { policy_id: policy_id.to_owned(), policy_name, rule_id: rule_id.to_owned(), rule_name }
    }
}
