//! The live flows, with names.

use std::net::SocketAddr;

use serde::Serialize;

use super::names::{End, Names, Resource, Rule};
use crate::datapath::FlowRecord;

/// Names the document and its version.
pub const SCHEMA: &str = "sluicegate.gateway.flows/1";

/// Every live flow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flows {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// As of the last sweep, in no order.
    pub flows: Vec<Flow>,
}

/// One live flow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Where it was opened from: `overlay` or `local`.
    pub direction: &'static str,
    /// Who opened it, as the access control sees it.
    pub source: End,
    /// Where to; the port of ICMP is 0.
    pub destination: End,
    /// The source as the destination sees it, when it differs: `ADDRESS:PORT`.
    pub translated_source: String,
    /// `syn_sent`, `established`, `unreplied`, ...
    pub state: &'static str,
    /// Whether it was answered: then it is never evicted.
    pub confirmed: bool,
    /// Seconds since the last packet of either direction.
    pub idle_seconds: f64,
    /// From the opener.
    pub forward: Carried,
    /// Replies.
    pub replies: Carried,
    /// The rule that admits it.
    pub rule: Rule,
    /// The resource it is for.
    pub resource: Option<Resource>,
}

/// What one direction carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Carried {
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}

/// The document over `flows`.
pub fn document(flows: &[FlowRecord], names: &Names) -> Flows {
    Flows { schema: SCHEMA, flows: flows.iter().map(|flow| self::flow(flow, names)).collect() }
}

fn flow(flow: &FlowRecord, names: &Names) -> Flow {
    let (packets, bytes) = flow.replies;
    let translated = flow.translated.map(|(address, port)| SocketAddr::new(address, port).to_string());
    Flow {
        protocol: flow.protocol,
        direction: flow.side,
        source: names.end(flow.source, flow.source_port),
        destination: names.end(flow.destination, flow.destination_port),
        translated_source: translated.unwrap_or_default(),
        state: flow.state,
        confirmed: flow.confirmed,
        idle_seconds: flow.idle.as_secs_f64(),
        forward: Carried {
            packets: flow.packets.saturating_sub(packets),
            bytes: flow.bytes.saturating_sub(bytes),
        },
        replies: Carried { packets, bytes },
        rule: names.told(Some(flow.rule)),
        resource: flow.route.and_then(|route| names.route(route)).map(Resource::from),
    }
}
