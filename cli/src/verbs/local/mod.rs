//! Verbs that ask the agent on this host instead of control.

pub(crate) mod capture;
pub(crate) mod events;

pub(crate) mod flows;
mod live;
mod pcapng;
pub(crate) mod top;
pub(crate) mod trace;

use serde::Deserialize;

use crate::human::NONE;

/// One end of a flow, as the agent tells it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct End {
    pub(crate) address: String,
    pub(crate) port: u32,
    pub(crate) name: String,
}

/// A rule, as the agent tells it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rule {
    pub(crate) policy_name: String,
    pub(crate) rule_id: String,
    pub(crate) rule_name: String,
}

impl End {
    /// `name address:port`, as far as there are any.
    pub(crate) fn text(&self, has_ports: bool) -> String {
        let address = match has_ports {
            true if self.address.contains(':') => format!("[{}]:{}", self.address, self.port),
            true => format!("{}:{}", self.address, self.port),
            false => self.address.clone(),
        };
        if self.name.is_empty() { address } else { format!("{} {address}", self.name) }
    }
}

impl Rule {
    /// `policy / rule`, or one of them where a policy of one rule gave it its own name; empty when there is none.
    pub(crate) fn text(&self) -> String {
        let rule = if self.rule_name.is_empty() { &self.rule_id } else { &self.rule_name };
        match self.policy_name.as_str() {
            "" => rule.clone(),
            policy if policy == rule => rule.clone(),
            policy => format!("{policy} / {rule}"),
        }
    }
}

/// The name of an IP protocol, and whether it has ports.
pub(crate) fn protocol(number: u32) -> (String, bool) {
    match number {
        1 => ("icmp".to_owned(), false),
        58 => ("icmp6".to_owned(), false),
        6 => ("tcp".to_owned(), true),
        17 => ("udp".to_owned(), true),
        132 => ("sctp".to_owned(), false),
        other => (other.to_string(), false),
    }
}

/// Text, or `-` for none.
pub(crate) fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}
