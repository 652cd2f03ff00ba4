//! The parts of control's REST objects that `sluice` reads. Unknown fields are ignored: JSON output passes on what
//! control said, whole.

pub mod explain;
pub mod gateway;
pub mod plan;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `/api/users/current`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct User {
    /// Id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// E-mail address; service users have none.
    pub email: String,
    /// `owner`, `admin`, `user`, ...
    pub role: String,
}

/// `/api/peers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Host name it told.
    pub hostname: String,
    /// Its name in the overlay's zone.
    #[serde(deserialize_with = "or_default")]
    pub dns_label: String,
    /// Labels it asked for beside the first of that.
    #[serde(deserialize_with = "or_default")]
    pub extra_dns_labels: Vec<String>,
    /// Overlay IPv4 address.
    pub ip: String,
    /// Overlay IPv6 address, when it has one.
    #[serde(deserialize_with = "or_default")]
    pub ipv6: String,
    /// Whether its stream is open.
    pub connected: bool,
    /// RFC 3339.
    #[serde(deserialize_with = "or_default")]
    pub last_seen: String,
    /// Operating system.
    pub os: String,
    /// The agent's version.
    pub version: String,
    /// Groups it is in.
    #[serde(deserialize_with = "or_default")]
    pub groups: Vec<Named>,
    /// Posture checks that policies ask of it and that it fails.
    #[serde(deserialize_with = "or_default")]
    pub posture_failures: Vec<PostureFailure>,
}

/// A posture check that a peer fails.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PostureFailure {
    /// Id of the check.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// `/api/posture-checks`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PostureCheck {
    /// Id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// What it asks for, by kind.
    pub checks: Value,
}

/// An id with its name: a group or peer inside another object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Named {
    /// Id.
    pub id: String,
    /// Display name.
    pub name: String,
}

/// `/api/groups`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Group {
    /// Id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// `api`, `integration` or `jwt`.
    #[serde(deserialize_with = "or_default")]
    pub issued: String,
    /// Member peers.
    #[serde(deserialize_with = "or_default")]
    pub peers: Vec<Named>,
    /// Member resources.
    #[serde(deserialize_with = "or_default")]
    pub resources: Vec<Reference>,
}

/// A resource or peer named by id and type.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub struct Reference {
    /// Id.
    pub id: String,
    /// `peer`, `host`, `subnet` or `domain`.
    pub r#type: String,
}

/// `/api/policies`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// What it is for.
    #[serde(deserialize_with = "or_default")]
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Posture checks its sources must pass.
    #[serde(deserialize_with = "or_default")]
    pub source_posture_checks: Vec<String>,
    /// Its rules, in order.
    #[serde(deserialize_with = "or_default")]
    pub rules: Vec<Rule>,
}

/// One line of a policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Id.
    #[serde(deserialize_with = "or_default")]
    pub id: String,
    /// Display name.
    pub name: String,
    /// What it is for.
    #[serde(deserialize_with = "or_default")]
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// `accept` or `drop`.
    pub action: String,
    /// Whether the mirror image is admitted as well.
    pub bidirectional: bool,
    /// `all`, `tcp`, `udp`, `icmp` or `netbird-ssh`.
    pub protocol: String,
    /// Destination ports as text.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<String>,
    /// Destination port ranges.
    #[serde(deserialize_with = "or_default")]
    pub port_ranges: Vec<PortRange>,
    /// Source groups.
    #[serde(deserialize_with = "or_default")]
    pub sources: Vec<Named>,
    /// One peer or resource as the source.
    #[serde(rename = "sourceResource", deserialize_with = "reference")]
    pub source_resource: Option<Reference>,
    /// Destination groups.
    #[serde(deserialize_with = "or_default")]
    pub destinations: Vec<Named>,
    /// One peer or resource as the destination.
    #[serde(rename = "destinationResource", deserialize_with = "reference")]
    pub destination_resource: Option<Reference>,
}

/// Ports from `start` to `end`, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct PortRange {
    /// First port.
    pub start: u16,
    /// Last port.
    pub end: u16,
}

/// `/api/networks`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// What it is.
    #[serde(deserialize_with = "or_default")]
    pub description: String,
}

/// `/api/networks/{id}/resources`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// Id.
    pub id: String,
    /// `host`, `subnet` or `domain`.
    pub r#type: String,
    /// Display name.
    pub name: String,
    /// What it is.
    #[serde(deserialize_with = "or_default")]
    pub description: String,
    /// Address, prefix or domain.
    pub address: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Groups it is in.
    #[serde(deserialize_with = "or_default")]
    pub groups: Vec<Named>,
}

/// `/api/networks/{id}/routers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Router {
    /// Id.
    pub id: String,
    /// The routing peer's id, or empty.
    #[serde(deserialize_with = "or_default")]
    pub peer: String,
    /// Ids of groups whose members route, when there is no peer.
    #[serde(deserialize_with = "or_default")]
    pub peer_groups: Vec<String>,
    /// 1 to 9999, lower is better.
    pub metric: u16,
    /// Whether the source becomes the router's address.
    pub masquerade: bool,
    /// Whether it counts.
    pub enabled: bool,
}

/// `/api/setup-keys`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SetupKey {
    /// Id.
    pub id: String,
    /// The key: whole only in the answer to its creation.
    pub key: String,
    /// What it is for.
    pub name: String,
    /// RFC 3339, or nothing for never.
    #[serde(deserialize_with = "or_default")]
    pub expires: String,
    /// `one-off` or `reusable`.
    pub r#type: String,
    /// `valid`, `overused`, `expired` or `revoked`.
    pub state: String,
    /// How often it was used.
    pub used_times: u64,
    /// How often it may be; 0 is any number.
    pub usage_limit: u64,
    /// RFC 3339.
    #[serde(deserialize_with = "or_default")]
    pub last_used: String,
    /// Ids of groups that machines join on arrival.
    #[serde(deserialize_with = "or_default")]
    pub auto_groups: Vec<String>,
}

/// `/api/events/audit`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuditEvent {
    /// Rises with every event.
    pub id: String,
    /// RFC 3339.
    pub timestamp: String,
    /// What happened, for people.
    pub activity: String,
    /// What happened, for programs.
    pub activity_code: String,
    /// Who did it.
    pub initiator_id: String,
    /// Who did it, by name.
    #[serde(deserialize_with = "or_default")]
    pub initiator_name: String,
    /// To what.
    pub target_id: String,
    /// Details; `name` is the target's.
    #[serde(deserialize_with = "or_default")]
    pub meta: BTreeMap<String, Value>,
}

/// `/api/events/audit/chain`.
#[derive(Clone, Debug, Deserialize)]
pub struct AuditChain {
    /// What the trail begins with.
    pub anchor: sluicegate_audit::Anchor,
    /// The newest event.
    pub head: sluicegate_audit::Head,
    /// Events in the order of their ids.
    pub events: Vec<sluicegate_audit::Link>,
}

impl Rule {
    /// `tcp 80, 443, 8000-8100`, `icmp`, `all`.
    pub fn service(&self) -> String {
        let ports = self.ports.iter().cloned().chain(self.port_ranges.iter().map(PortRange::to_string));
        let ports = ports.collect::<Vec<_>>().join(", ");
        if ports.is_empty() { self.protocol.clone() } else { format!("{} {ports}", self.protocol) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start == self.end {
            write!(f, "{}", self.start)
        } else {
            write!(f, "{}-{}", self.start, self.end)
        }
    }
}

impl Resource {
    /// How a rule refers to it.
    pub fn reference(&self) -> Reference {
        Reference { id: self.id.clone(), r#type: self.r#type.clone() }
    }
}

/// Takes `null` as the empty value.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Takes `null` and a reference without id as none.
fn reference<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Reference>, D::Error> {
    Ok(Option::<Reference>::deserialize(from)?.filter(|reference| !reference.id.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_empty() {
        let rule: Rule = serde_json::from_str(
            r#"{"id":"r","name":"n","enabled":true,"action":"accept","protocol":"tcp","ports":null,"port_ranges":
                [{"start":80,"end":80},{"start":8000,"end":8100}],"sources":null,"destinationResource":{"id":"","type":""}}"#,
        )
        .unwrap();
        assert_eq!(rule.service(), "tcp 80, 8000-8100");
        assert_eq!((rule.sources, rule.destination_resource), (vec![], None));
    }
}
