//! The answer to a query, as data for a machine and as sentences for a person.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::{NearMiss, Query};
use crate::model::{Action, Policy, Rule, State};
use crate::resolve::{Resolved, Routing};

/// Why a flow is admitted, or what is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The answer.
    pub verdict: Verdict,
    /// The answer in one sentence.
    pub summary: String,
    /// Who opens the flow, when known.
    pub source: Option<Endpoint>,
    /// Where it goes, when known.
    pub destination: Option<Endpoint>,
    /// The packet, as `443/tcp`.
    pub service: String,
    /// The rule that decides, when one does.
    pub rule: Option<RuleRef>,
    /// The gateway that carries the flow to a resource, when the source has a route.
    pub carrier: Option<Carrier>,
    /// What each agent on the way says: first the source, then the far end or the gateway.
    pub judgements: Vec<Judgement>,
    /// Facts that stand in the way.
    pub missing: Vec<Missing>,
    /// Without a deciding rule: those that come nearest.
    pub near_misses: Vec<NearMiss>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every agent on the way has an accept rule for it.
    Allowed,
    /// A drop rule decides.
    Dropped,
    /// No rule matches: default deny.
    NoRule,
    /// The packets never cross the overlay: the source is the destination, or routes it itself.
    NotJudged,
    /// Source or destination could not be told.
    Unknown,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Peer id, for a peer.
    pub peer_id: Option<String>,
    /// Peer name, for a peer.
    pub name: Option<String>,
    /// The address.
    pub address: IpAddr,
    /// Names of the resources around the address, enabled or not.
    pub resources: Vec<String>,
}

/// A rule, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// Policy id.
    pub policy_id: String,
    /// Policy name.
    pub policy_name: String,
    /// Rule id.
    pub rule_id: String,
    /// Rule name.
    pub rule_name: String,
    /// Accept or drop.
    pub action: Action,
    /// Which packets, as in a policy file.
    pub service: String,
}

/// What one agent on the way says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// Peer id of the agent.
    pub agent_id: String,
    /// Peer name of the agent.
    pub agent_name: String,
    /// Whether it admits the flow.
    pub accepts: bool,
    /// The rule that decides there, if any.
    pub rule: Option<RuleRef>,
}

/// The gateway that carries a flow, as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Carrier {
    /// It.
    pub router: RouterRef,
    /// Network name.
    pub network: String,
    /// Resource name.
    pub resource: String,
    /// The prefix by which it is reached.
    pub prefix: IpNet,
    /// Whether the destination sees the gateway's address.
    pub masquerade: bool,
    /// Gateways that could carry it and do not, next best first.
    pub others: Vec<Loser>,
}

/// A gateway, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouterRef {
    /// Peer id.
    pub peer_id: String,
    /// Peer name.
    pub name: String,
    /// Its metric, lower is better.
    pub metric: u16,
}

/// A gateway that was not chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loser {
    /// It.
    pub router: RouterRef,
    /// Why not.
    pub why: String,
}

/// A fact that stands in the way, whatever one rule says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Missing {
    /// No peer has this id, name or address.
    NoSuchPeer {
        /// What was asked for.
        text: String,
    },
    /// Neither an address nor the name of a peer or resource.
    NoSuchDestination {
        /// What was asked for.
        text: String,
    },
    /// Several have this name.
    Ambiguous {
        /// What was asked for.
        text: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// A domain resource of which no address is known yet.
    NoAddress {
        /// Its name.
        resource: String,
    },
    /// The peer may not take part: not approved, expired or blocked.
    NotAllowed {
        /// Its name.
        peer: String,
    },
    /// The peer is a source of no enabled accept rule.
    SourceInNoRule {
        /// Its name.
        peer: String,
    },
    /// The peer or resource is a destination of no enabled accept rule.
    DestinationInNoRule {
        /// Its name.
        name: String,
    },
    /// An overlay address that no peer has.
    NobodyAtAddress {
        /// The address.
        address: IpAddr,
    },
    /// The address is in no resource.
    InNoResource {
        /// The address.
        address: IpAddr,
    },
    /// The resource is switched off.
    ResourceDisabled {
        /// Its name.
        resource: String,
    },
    /// The source may open the flow, but its longest route leads into another network, where no rule admits it.
    CarriedElsewhere {
        /// Name of the gateway.
        router: String,
        /// Name of its network.
        network: String,
        /// The prefix that draws the flow there.
        prefix: IpNet,
    },
    /// Nobody routes the network of the resource.
    NoRouter {
        /// Network name.
        network: String,
        /// Network id.
        network_id: String,
        /// How many routers it has.
        routers: usize,
        /// How many of them are switched off.
        disabled: usize,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::NoSuchPeer { text } => write!(f, "no peer has the id, name or address `{text}`"),
            Missing::NoSuchDestination { text } => {
                write!(f, "`{text}` is neither an address nor the id or name of a peer or resource")
            }
            Missing::Ambiguous { text, ids } => {
                write!(f, "`{text}` is the name of several: use one of the ids {}", ids.join(", "))
            }
            Missing::NoAddress { resource } => write!(f, "no address of resource {resource} is known yet"),
            Missing::NotAllowed { peer } => {
                write!(f, "peer {peer} may not take part: it is not approved, has expired or is blocked")
            }
            Missing::SourceInNoRule { peer } => {
                write!(f, "no enabled accept rule has {peer} among its sources")
            }
            Missing::DestinationInNoRule { name } => write!(f, "no enabled accept rule leads to {name}"),
            Missing::NobodyAtAddress { address } => write!(f, "no peer has the overlay address {address}"),
            Missing::InNoResource { address } => write!(f, "{address} is in no resource"),
            Missing::ResourceDisabled { resource } => write!(f, "resource {resource} is disabled"),
            Missing::CarriedElsewhere { router, network, prefix } => {
                write!(
                    f,
                    "the route to {prefix} leads through {router} into network {network}, where no rule admits it"
                )
            }
            Missing::NoRouter { network, routers: 0, .. } => write!(f, "network {network} has no router"),
            Missing::NoRouter { network, routers, disabled, .. } => {
                write!(
                    f,
                    "none of the {routers} routers of network {network} can carry it ({disabled} disabled)"
                )
            }
        }
    }
}

impl Explanation {
    pub(super) fn new(query: &Query) -> Self {
        Self {
            verdict: Verdict::Unknown,
            summary: String::new(),
            source: None,
            destination: None,
            service: query.probe.to_string(),
            rule: None,
            carrier: None,
            judgements: Vec::new(),
            missing: Vec::new(),
            near_misses: Vec::new(),
        }
    }

    pub(super) fn finish(mut self, verdict: Verdict) -> Self {
        self.verdict = verdict;
        self.summary = self.sentence();
        self
    }

    /// Whether the flow is admitted.
    pub fn allowed(&self) -> bool {
        self.verdict == Verdict::Allowed
    }

    fn sentence(&self) -> String {
        let rule = self.rule.as_ref().map(ToString::to_string).unwrap_or_default();
        let missing = self.missing.first().map(ToString::to_string);
        match self.verdict {
            Verdict::Allowed => match &self.carrier {
                Some(carrier) => format!("allowed by {rule}, through {}", carrier.router.name),
                None => format!("allowed by {rule}"),
            },
            Verdict::Dropped => format!("dropped by {rule}"),
            Verdict::NotJudged => "not judged: the source reaches it without the overlay".into(),
            Verdict::Unknown => missing.unwrap_or_default(),
            Verdict::NoRule => match (missing, self.near_misses.first()) {
                (Some(missing), _) => format!("denied: {missing}"),
                (None, Some(near)) => {
                    let unmet: Vec<String> = near.unmet.iter().map(ToString::to_string).collect();
                    format!("denied: no rule matches; nearest is {}, but {}", near.rule, unmet.join(" and "))
                }
                (None, None) => "denied: no rule matches".into(),
            },
        }
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rule_name == self.policy_name {
            write!(f, "policy `{}`", self.policy_name)
        } else {
            write!(f, "policy `{}`, rule `{}`", self.policy_name, self.rule_name)
        }
    }
}

impl Endpoint {
    pub(super) fn peer(state: &State, id: &String, v6: bool) -> Self {
        let peer = &state.peers[id];
        let address = if v6 { IpAddr::V6(peer.v6) } else { IpAddr::V4(peer.v4) };
        Self { peer_id: Some(id.clone()), name: Some(peer.name.clone()), address, resources: Vec::new() }
    }
}

impl RuleRef {
    pub(super) fn new(r: &Resolved, rule: u32) -> Self {
        let (id, policy, model) = r.rule(rule);
        Self::of(id, policy, model)
    }

    pub(super) fn of(policy_id: &str, policy: &Policy, rule: &Rule) -> Self {
        Self {
            policy_id: policy_id.into(),
            policy_name: policy.name.clone(),
            rule_id: rule.id.clone(),
            rule_name: rule.name.clone(),
            action: rule.action,
            service: rule.service.to_string(),
        }
    }
}

impl Judgement {
    pub(super) fn new(r: &Resolved, agent: u32, rule: Option<u32>) -> Self {
        let id = &*r.peers[agent as usize].id;
        Self {
            agent_id: id.into(),
            agent_name: r.state.peers[id].name.clone(),
            accepts: rule.is_some_and(|rule| r.written.rules[rule as usize].accept),
            rule: rule.map(|rule| RuleRef::new(r, rule)),
        }
    }
}

impl Carrier {
    pub(super) fn new(
        r: &Resolved,
        resource: u32,
        prefix: IpNet,
        winner: Routing,
        others: Vec<Loser>,
    ) -> Self {
        let resource = &r.resources[resource as usize];
        let network = &r.state.networks[&*r.networks[resource.network as usize].id];
        Self {
            router: RouterRef::new(r, winner),
            network: network.name.clone(),
            resource: network.resources[&*resource.id].name.clone(),
            prefix,
            masquerade: winner.masquerade,
            others,
        }
    }
}

impl RouterRef {
    pub(super) fn new(r: &Resolved, routing: Routing) -> Self {
        let id = &*r.peers[routing.peer as usize].id;
        Self { peer_id: id.into(), name: r.state.peers[id].name.clone(), metric: routing.metric }
    }
}
