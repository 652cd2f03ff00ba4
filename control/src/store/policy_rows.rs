//! Policies and rules as the store's rows have them.

use sqlx::FromRow;

use super::error::corrupt;
use super::{Action, End, Protocol, Result, Rule, RuleSpec};

#[derive(FromRow)]
pub(super) struct PolicyRow {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) enabled: bool,
    pub(super) break_glass: Option<i64>,
    pub(super) break_glass_until: Option<i64>,
    pub(super) break_glass_reason: String,
}

#[derive(FromRow)]
pub(super) struct RuleRow {
    pub(super) id: String,
    pub(super) policy_id: String,
    slot: i64,
    name: String,
    description: String,
    enabled: bool,
    action: String,
    bidirectional: bool,
    protocol: String,
    ports: String,
    port_ranges: String,
    authorized_groups: String,
    source_peer: Option<String>,
    source_resource: Option<String>,
    destination_peer: Option<String>,
    destination_resource: Option<String>,
}

impl RuleRow {
    pub(super) fn rule(self, sources: Vec<String>, destinations: Vec<String>) -> Result<Rule> {
        let end = |peer: Option<String>, resource: Option<String>, groups| match (peer, resource) {
            (Some(peer), _) => End::Peer(peer),
            (None, Some(resource)) => End::Resource(resource),
            (None, None) => End::Groups(groups),
        };
        let unknown = |column, text: &str| corrupt(column)(format!("{text:?} is unknown").into());
        let spec = RuleSpec {
            action: Action::parse(&self.action).ok_or_else(|| unknown("rules.action", &self.action))?,
            protocol: Protocol::parse(&self.protocol)
                .ok_or_else(|| unknown("rules.protocol", &self.protocol))?,
            ports: json("rules.ports", &self.ports)?,
            port_ranges: json("rules.port_ranges", &self.port_ranges)?,
            authorized_groups: json("rules.authorized_groups", &self.authorized_groups)?,
            sources: end(self.source_peer, self.source_resource, sources),
            destinations: end(self.destination_peer, self.destination_resource, destinations),
            name: self.name,
            description: self.description,
            enabled: self.enabled,
            bidirectional: self.bidirectional,
        };
        let slot = u32::try_from(self.slot).map_err(|error| corrupt("rules.slot")(Box::new(error)))?;
        Ok(Rule { id: self.id, slot, spec })
    }
}

fn json<T: serde::de::DeserializeOwned>(column: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| corrupt(column)(error.into()))
}
