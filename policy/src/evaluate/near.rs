//! Rules that nearly admit a flow, and what each of them lacks.

use std::fmt;

use serde::Serialize;

use super::endpoints::Destination;
use super::report::RuleRef;
use crate::model::{Action, End, Policy, Rule, State};
use crate::resolve::{Resolved, effectively_bidirectional};
use crate::service::Probe;

/// An accept rule that would admit the flow if it were not for this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// What it lacks; at least one, and the fewer the nearer.
    pub unmet: Vec<Unmet>,
}

/// A condition of a rule that a flow does not meet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Unmet {
    /// The policy is switched off.
    PolicyDisabled,
    /// The rule is switched off.
    RuleDisabled,
    /// A peer fails the policy's posture checks.
    PostureFailed {
        /// Its name.
        peer: String,
        /// Which of them, and why; empty when nobody said.
        reason: String,
    },
    /// The source is not among the rule's sources.
    SourceNotIn {
        /// Names of what the rule admits.
        expected: Vec<String>,
    },
    /// The destination is not among the rule's destinations.
    DestinationNotIn {
        /// Names of what the rule opens.
        expected: Vec<String>,
    },
    /// The protocol or port is another.
    Service {
        /// What the rule admits, as in a policy file.
        offered: String,
    },
    /// The rule admits flows from the destination to the source only.
    OneWay,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unmet::PolicyDisabled => f.write_str("its policy is disabled"),
            Unmet::RuleDisabled => f.write_str("it is disabled"),
            Unmet::PostureFailed { peer, reason } if reason.is_empty() => {
                write!(f, "{peer} fails the posture checks of its policy")
            }
            Unmet::PostureFailed { peer, reason } => {
                write!(f, "{peer} fails the posture checks of its policy: {reason}")
            }
            Unmet::SourceNotIn { expected } => write!(f, "the source is not in {}", list(expected)),
            Unmet::DestinationNotIn { expected } => write!(f, "the destination is not in {}", list(expected)),
            Unmet::Service { offered } => write!(f, "it admits {offered}"),
            Unmet::OneWay => f.write_str("it admits flows in the other direction only"),
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "anything that exists".into() } else { names.join(", ") }
}

/// Rules further away than this are not near.
const UNMET_MAX: usize = 2;
/// More than a person reads.
const MISSES_MAX: usize = 10;

/// The accept rules that lack the least, in their order.
pub(super) fn misses(r: &Resolved, from: &String, to: &Destination<'_>, probe: Probe) -> Vec<NearMiss> {
    let flow = Flow { state: &r.state, from, to, l4: probe.axis(to.address) };
    let rules = r.state.policies.iter().flat_map(|(id, p)| p.rules.iter().map(move |rule| (id, p, rule)));
    let accepts = rules.filter(|(_, _, rule)| rule.action == Action::Accept);
    let mut misses: Vec<NearMiss> = accepts
        .map(|(id, policy, rule)| NearMiss {
            rule: RuleRef::of(id, policy, rule),
            unmet: flow.unmet(policy, rule),
        })
        .filter(|miss| (1..=UNMET_MAX).contains(&miss.unmet.len()))
        .collect();
    let least = misses.iter().map(|m| m.unmet.len()).min();
    misses.retain(|m| Some(m.unmet.len()) == least);
    misses.truncate(MISSES_MAX);
    misses
}

struct Flow<'a> {
    state: &'a State,
    from: &'a String,
    to: &'a Destination<'a>,
    l4: u32,
}

impl Flow<'_> {
    /// What a rule lacks, in the direction in which it lacks less.
    fn unmet(&self, policy: &Policy, rule: &Rule) -> Vec<Unmet> {
        let mut common = Vec::new();
        if !policy.enabled {
            common.push(Unmet::PolicyDisabled);
        }
        if !rule.enabled {
            common.push(Unmet::RuleDisabled);
        }
        if !rule.service.axis_ranges().iter().any(|range| range.contains(&self.l4)) {
            common.push(Unmet::Service { offered: rule.service.to_string() });
        }
        let mut forward = self.ends(policy, &rule.sources, &rule.destinations, false);
        if let Some(peer) = self.to.peer {
            let mut mirror = self.ends(policy, &rule.destinations, &rule.sources, true);
            mirror.extend((!effectively_bidirectional(rule)).then_some(Unmet::OneWay));
            // Only a rule that names both ends the other way round is a one-way rule in the way.
            let turned = self.has_peer(&rule.destinations, self.from) && self.has_peer(&rule.sources, peer);
            if turned && mirror.len() < forward.len() {
                forward = mirror;
            }
        }
        common.extend(forward);
        common
    }

    fn ends(&self, policy: &Policy, sources: &End, destinations: &End, mirror: bool) -> Vec<Unmet> {
        let mut unmet = Vec::new();
        let fails = |id: &String| policy.posture_failed.contains(id);
        let failed = |id: &String| Unmet::PostureFailed {
            peer: self.state.peers[id].name.clone(),
            reason: policy.posture_failed.reason(id).unwrap_or_default().to_owned(),
        };
        if !self.has_peer(sources, self.from) {
            unmet.push(Unmet::SourceNotIn { expected: self.names(sources) });
        } else if fails(self.from) {
            unmet.push(failed(self.from));
        }
        let hits = self.to.resources.iter().filter(|x| !mirror && self.has_resource(destinations, x.2));
        let bounds: Vec<_> = hits.map(|x| x.3.distribution.as_ref()).collect();
        let hit = match self.to.peer {
            Some(peer) => self.has_peer(destinations, peer),
            None => !bounds.is_empty(),
        };
        // Every resource it could be is distributed to others.
        let elsewhere: Vec<End> =
            bounds.iter().filter_map(|bound| Some(End::Groups((*bound)?.groups.clone()))).collect();
        if self.to.peer.is_none()
            && hit
            && elsewhere.len() == bounds.len()
            && !elsewhere.iter().any(|groups| self.has_peer(groups, self.from))
        {
            unmet.push(Unmet::SourceNotIn { expected: self.names(&elsewhere[0]) });
        }
        match self.to.peer.filter(|peer| mirror && fails(peer)) {
            _ if !hit => unmet.push(Unmet::DestinationNotIn { expected: self.names(destinations) }),
            Some(peer) => unmet.push(failed(peer)),
            None => {}
        }
        unmet
    }

    fn has_peer(&self, end: &End, id: &String) -> bool {
        match end {
            End::Groups(ids) => {
                ids.iter().filter_map(|g| self.state.groups.get(g)).any(|g| g.peers.contains(id))
            }
            End::Peer(peer) => peer == id,
            End::Resource(_) => false,
        }
    }

    fn has_resource(&self, end: &End, id: &String) -> bool {
        match end {
            End::Groups(ids) => {
                ids.iter().filter_map(|g| self.state.groups.get(g)).any(|g| g.resources.contains(id))
            }
            End::Resource(resource) => resource == id,
            End::Peer(_) => false,
        }
    }

    fn names(&self, end: &End) -> Vec<String> {
        match end {
            End::Groups(ids) => ids
                .iter()
                .filter_map(|g| self.state.groups.get(g))
                .map(|g| format!("group {}", g.name))
                .collect(),
            End::Peer(id) => {
                self.state.peers.get(id).map(|p| format!("peer {}", p.name)).into_iter().collect()
            }
            End::Resource(id) => {
                let mut all = self.state.networks.values().filter_map(|n| n.resources.get(id));
                all.next().map(|q| format!("resource {}", q.name)).into_iter().collect()
            }
        }
    }
}
