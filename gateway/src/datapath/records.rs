//! What the engine remembers of a flow, in the agent's words.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use sluicegate_engine::family::Family;
use sluicegate_engine::flow::{Flow, Key, Side, State, TRANSLATED};
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
        rule: flow.rule,
        translated: translated::<F>(flow),
        packets: flow.packets,
        bytes: flow.bytes,
        state: State::from_number(flow.state).name(),
        idle: Duration::ZERO,
    }
}

/// That a flow ended, by its first half; packets and bytes are that half's.
pub(crate) fn end<F: Family>(key: &Key<F::Address>, flow: &Flow<F::Address>) -> Event {
    let destination_port = match key.protocol {
        // An echo request, the only ICMP that opens a flow.
        p if p == F::ICMP => u16::from(F::ECHO_REQUEST) << 8,
        protocol::TCP | protocol::UDP => key.destination_port,
        _ => 0,
    };
    Event {
        kind: EventKind::End,
        side: Side::from_number(key.side).name(),
        source: address::<F>(key.source),
        source_port: key.source_port,
        destination: address::<F>(key.destination),
        destination_port,
        protocol: key.protocol,
        rule: Some(flow.rule),
        translated: translated::<F>(flow),
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
