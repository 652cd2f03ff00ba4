//! The datapath's events and counters in control's words.

use std::net::{IpAddr, SocketAddr};

use sluicegate_api::agent::{FlowEvent, Health, LinkState, RuleCounter, flow_event};

use super::policy::Policy;
use crate::datapath::{Counters, Event, EventKind, Kind};

/// The name of a datapath in reports, tables and metrics.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Ebpf => "ebpf",
        Kind::Userspace => "userspace",
    }
}

/// An event, with the names behind its rule slot.
pub(super) fn flow_event(event: &Event, policy: &Policy, time_ms: u64) -> FlowEvent {
    let (kind, drop_reason) = match event.kind {
        EventKind::Start => (flow_event::Kind::Start, ""),
        EventKind::End => (flow_event::Kind::End, ""),
        EventKind::Drop(reason) => (flow_event::Kind::Drop, reason),
        EventKind::Revoke => (flow_event::Kind::Revoke, "revoked"),
    };
    let rule = event.rule.and_then(|slot| policy.rule(slot));
    FlowEvent {
        time_ms,
        kind: kind.into(),
        protocol: event.protocol.into(),
        source: event.source.to_string(),
        source_port: event.source_port.into(),
        destination: event.destination.to_string(),
        destination_port: event.destination_port.into(),
        rule_id: rule.map(|r| r.rule_id.clone()).unwrap_or_default(),
        policy_id: rule.map(|r| r.policy_id.clone()).unwrap_or_default(),
        drop_reason: drop_reason.into(),
        packets: event.packets,
        bytes: event.bytes,
        translated_source: event.translated.map(|t| endpoint(t).to_string()).unwrap_or_default(),
        direction: event.side.into(),
    }
}

/// The health of this moment.
pub(super) fn health(
    kind: Kind,
    revision: u64,
    flows: usize,
    counters: &Counters,
    degraded: Vec<String>,
    links: Vec<LinkState>,
) -> Health {
    let rule = |r: &crate::datapath::RuleCounters| RuleCounter {
        slot: r.slot,
        flows: r.flows,
        drops: r.drops,
        packets: r.packets,
        bytes: r.bytes,
    };
    Health {
        datapath: kind_name(kind).into(),
        revision,
        flows: flows as u64,
        flows_started: counters.flows_started,
        packets_forwarded: counters.forwarded.iter().map(|f| f.1).sum(),
        bytes_forwarded: counters.forwarded.iter().map(|f| f.2).sum(),
        drops: counters.drops.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect(),
        rules: counters.rules.iter().map(rule).collect(),
        degraded,
        links,
    }
}

fn endpoint((address, port): (IpAddr, u16)) -> SocketAddr {
    SocketAddr::new(address, port)
}
