//! The engine's event records as events.

use std::net::{IpAddr, Ipv6Addr};

use sluicegate_engine::event::{Event as Record, EventKind as RecordKind};
use sluicegate_engine::flow::Side;
use sluicegate_engine::reason::DropReason;

use super::{Event, EventKind};

/// Reads a record. An unknown kind is a drop: the only kind whose detail is in another field.
pub(crate) fn from_record(record: &Record) -> Event {
    let kind = if record.kind == RecordKind::Start as u8 {
        EventKind::Start
    } else if record.kind == RecordKind::Revoke as u8 {
        EventKind::Revoke
    } else {
        EventKind::Drop(DropReason::from_number(record.reason).unwrap_or(DropReason::Internal).name())
    };
    let translated =
        (record.translated != [0; 16]).then(|| (address(record.translated), record.translated_port));
    Event {
        kind,
        side: Side::from_number(record.side).name(),
        source: address(record.source),
        source_port: record.source_port,
        destination: address(record.destination),
        destination_port: record.destination_port,
        protocol: record.protocol,
        rule: record.rule.checked_sub(1),
        route: None,
        translated,
        packets: record.packets,
        bytes: record.bytes,
    }
}

fn address(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}
