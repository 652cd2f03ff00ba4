//! `/api/explain`.

use std::fmt;

use serde::Deserialize;

use super::or_default;

/// What the rules say about a flow.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Explanation {
    /// Whether every agent on the way admits it.
    pub allowed: bool,
    /// `allowed`, `dropped`, `no_rule`, `not_judged` or `unknown`.
    pub verdict: String,
    /// The answer in one sentence.
    pub summary: String,
    /// The packet.
    pub service: String,
    /// Who opens it, when known.
    pub source: Option<End>,
    /// Where it goes, when known.
    pub destination: Option<End>,
    /// The rule that decides.
    pub rule: Option<RuleRef>,
    /// The gateway that carries it.
    pub gateway: Option<Carrier>,
    /// What each agent on the way says.
    pub judgements: Vec<Judgement>,
    /// What stands in the way.
    pub missing: Vec<Fact>,
    /// Rules that come nearest.
    pub near_misses: Vec<NearMiss>,
}

/// One end of a flow.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct End {
    /// Peer name, for a peer.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// The address.
    pub address: String,
    /// Resources around the address.
    pub resources: Vec<String>,
}

/// A rule, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RuleRef {
    /// Policy name.
    pub policy_name: String,
    /// Rule name.
    pub rule_name: String,
    /// `accept` or `drop`.
    pub action: String,
    /// Which packets, as in a policy file.
    pub service: String,
}

/// The gateway that carries a flow.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Carrier {
    /// Peer name.
    pub name: String,
    /// Its metric.
    pub metric: u16,
    /// Network name.
    pub network: String,
    /// Resource name.
    pub resource: String,
    /// The prefix by which it is reached.
    pub prefix: String,
    /// Whether the destination sees the gateway's address.
    pub masquerade: bool,
    /// Gateways that were not chosen.
    pub others: Vec<Loser>,
}

/// A gateway that was not chosen.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Loser {
    /// Peer name.
    pub name: String,
    /// Why not.
    pub why: String,
}

/// What one agent says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Judgement {
    /// Peer name.
    pub agent_name: String,
    /// Whether it admits the flow.
    pub accepts: bool,
    /// The rule that decides there.
    pub rule: Option<RuleRef>,
}

/// Something that is missing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Fact {
    /// For a person.
    pub sentence: String,
}

/// A rule that nearly admits the flow.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleRef,
    /// What the flow lacks for it.
    pub unmet: Vec<Fact>,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name.as_str(), &self.resources[..]) {
            ("", []) => f.write_str(&self.address),
            ("", resources) => write!(f, "{} ({})", self.address, resources.join(", ")),
            (name, _) => write!(f, "{name} ({})", self.address),
        }
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.policy_name == self.rule_name {
            write!(f, "policy '{}'", self.policy_name)
        } else {
            write!(f, "policy '{}', rule '{}'", self.policy_name, self.rule_name)
        }
    }
}
