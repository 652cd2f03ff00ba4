//! What the engine remembers of a flow, in the agent's words.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use sluicegate_engine::family::{Family, V4, V6};
use sluicegate_engine::flow::{Exit, Flow, Key, Side, State, TRANSLATED};
use sluicegate_engine::packet::protocol;

use super::{Event, EventKind, FlowRecord};

/// A flow by its first half; packets and bytes are that half's, and idle is zero.
pub(crate) fn flow<F: Family>(key: &Key<F::Address>, flow: &Flow<F::Address>) -> FlowRecord {
    FlowRecord {
        source: address::<F>(key.source),
        source_port: key.source_port,
        destination: address::<F>(key.destination),
        destination_port: key.destination_port,
        protocol: key.protocol,
        side: Side::from_number(key.side).name(),
        rule: flow.rule,
        route: matches!(Exit::from_number(flow.exit), Exit::Site).then_some(flow.route),
        translated: translated::<F>(flow),
        packets: flow.packets,
        bytes: flow.bytes,
        replies: (0, 0),
        confirmed: State::from_number(flow.state).is_confirmed(),
        state: State::from_number(flow.state).name(),
        idle: Duration::ZERO,
    }
}

/// That a flow ended, by its first half; packets and bytes are that half's.
pub(crate) fn end<F: Family>(key: &Key<F::Address>, half: &Flow<F::Address>) -> Event {
    ended(&flow::<F>(key, half))
}

/// That a flow ended which was last seen as `flow`.
pub(crate) fn ended(flow: &FlowRecord) -> Event {
    let destination_port = match flow.protocol {
        // An echo request, the only ICMP that opens a flow.
        V4::ICMP => u16::from(V4::ECHO_REQUEST) << 8,
        V6::ICMP => u16::from(V6::ECHO_REQUEST) << 8,
        protocol::TCP | protocol::UDP => flow.destination_port,
        _ => 0,
    };
    Event {
        kind: EventKind::End,
        side: flow.side,
        source: flow.source,
        source_port: flow.source_port,
        destination: flow.destination,
        destination_port,
        protocol: flow.protocol,
        rule: Some(flow.rule),
        route: flow.route,
        translated: flow.translated,
        packets: flow.packets,
        bytes: flow.bytes,
    }
}

fn translated<F: Family>(flow: &Flow<F::Address>) -> Option<(IpAddr, u16)> {
    (flow.flags & TRANSLATED != 0).then(|| (address::<F>(flow.source), flow.source_port))
}

fn address<F: Family>(address: F::Address) -> IpAddr {
    mapped(F::mapped(address))
}

fn mapped(address: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(address).to_canonical()
}
