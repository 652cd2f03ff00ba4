//! The datapath's events and counters in control's words.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use sluicegate_api::agent::{
    FlowEvent, FlowList, FlowsQuery, Health, LinkState, LiveFlow, RuleCounter, RuleName, flow_event,
};

use super::policy::Policy;
use crate::datapath::{Counters, Event, EventKind, FlowRecord, Kind};

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

/// The most flows that are listed for control: some 80 bytes each, so a report stays well below what control takes at once.
const LISTED: usize = 32_768;

/// The flows that are live, as control asks for them.
pub(super) fn flow_list(query: &FlowsQuery, flows: &[FlowRecord], policy: &Policy) -> FlowList {
    let named = |slot: u32| {
        let rule = policy.rule(slot)?;
        Some(RuleName { policy_id: rule.policy_id.clone(), rule_id: rule.rule_id.clone() })
    };
    list(query, flows, named)
}

fn list(query: &FlowsQuery, flows: &[FlowRecord], named: impl Fn(u32) -> Option<RuleName>) -> FlowList {
    let most = LISTED.min(query.most as usize);
    let mut chosen: Vec<&FlowRecord> = flows.iter().collect();
    let rank = |flow: &&FlowRecord| (Reverse(flow.confirmed), Reverse(flow.bytes));
    if most > 0 && chosen.len() > most {
        chosen.select_nth_unstable_by_key(most - 1, rank);
    }
    chosen.truncate(most);
    let mut rules = Vec::new();
    let mut places = HashMap::<u32, u32>::new();
    let mut place = |slot: u32| {
        *places.entry(slot).or_insert_with(|| match named(slot) {
            Some(name) => {
                rules.push(name);
                rules.len() as u32
            }
            None => 0,
        })
    };
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let listed = chosen.into_iter().map(|flow| LiveFlow {
        protocol: flow.protocol.into(),
        source: bytes(flow.source),
        source_port: flow.source_port.into(),
        destination: bytes(flow.destination),
        destination_port: flow.destination_port.into(),
        translated_source: flow.translated.map(|(address, _)| bytes(address)).unwrap_or_default(),
        translated_port: flow.translated.map(|(_, port)| port.into()).unwrap_or_default(),
        rule: place(flow.rule),
        packets: flow.packets,
        bytes: flow.bytes,
        confirmed: flow.confirmed,
    });
    let listed = listed.collect();
    FlowList { query: query.id, live: flows.len() as u64, flows: listed, rules }
}

fn endpoint((address, port): (IpAddr, u16)) -> SocketAddr {
    SocketAddr::new(address, port)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn flow(number: u16, confirmed: bool, bytes: u64) -> FlowRecord {
        let v6 = number % 2 == 1;
        let address = |v4: &str, of_v6: &str| if v6 { of_v6.parse().unwrap() } else { v4.parse().unwrap() };
        FlowRecord {
            source: address("100.64.0.7", "fd64::7"),
            source_port: 40_000 + number,
            destination: address("10.20.0.10", "fd20::10"),
            destination_port: 443,
            protocol: 6,
            side: "overlay",
            rule: u32::from(number % 3),
            route: Some(1),
            translated: confirmed.then(|| (address("10.20.0.1", "fd20::1"), number)),
            packets: 9,
            bytes,
            replies: (4, bytes / 2),
            confirmed,
            state: "established",
            idle: Duration::ZERO,
        }
    }

    #[test]
    fn of_too_many_flows_the_answered_ones_and_the_largest_are_listed_and_all_are_counted() {
        let named =
            |slot: u32| (slot > 0).then(|| RuleName { policy_id: "p".into(), rule_id: format!("r{slot}") });
        let flows: Vec<FlowRecord> = (0..100).map(|n| flow(n, n < 50, u64::from(n) * 10)).collect();
        let whole = list(&FlowsQuery { id: 7, most: 1000 }, &flows, named);
        assert_eq!((whole.query, whole.live, whole.flows.len(), whole.rules.len()), (7, 100, 100, 2));
        for (said, flow) in whole.flows.iter().zip(&flows) {
            let rule = said.rule.checked_sub(1).map(|place| whole.rules[place as usize].rule_id.clone());
            assert_eq!(rule, named(flow.rule).map(|name| name.rule_id));
            let translated = flow.translated.map(|(address, port)| (address, u32::from(port)));
            let address = |bytes: &[u8]| match bytes.len() {
                4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).unwrap())),
                16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap())),
                _ => None,
            };
            assert_eq!(address(&said.source), Some(flow.source));
            assert_eq!(address(&said.destination), Some(flow.destination));
            assert_eq!(address(&said.translated_source).map(|a| (a, said.translated_port)), translated);
        }
        let some = list(&FlowsQuery { id: 8, most: 10 }, &flows, named);
        let mut listed: Vec<u64> = some.flows.iter().map(|flow| flow.bytes).collect();
        listed.sort_unstable();
        assert_eq!(listed, (40..50).map(|n| n * 10).collect::<Vec<u64>>());
        assert_eq!(some.live, 100);
        let none = list(&FlowsQuery { id: 9, most: 0 }, &flows, named);
        assert_eq!((none.live, none.flows.len()), (100, 0));
        let many = vec![flow(1, true, 1); LISTED + 3];
        let bounded = list(&FlowsQuery { id: 9, most: u32::MAX }, &many, named);
        assert_eq!((bounded.flows.len(), bounded.live), (LISTED, LISTED as u64 + 3));
        use prost::Message as _;
        assert!(bounded.encoded_len() < 4 << 20, "{}", bounded.encoded_len());
    }
}
