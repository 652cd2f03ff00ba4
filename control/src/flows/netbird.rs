//! A flow event in the shape of NetBird's `NetworkTrafficEvent`.
//!
//! Where it fits: one record is one event (nothing is aggregated, so the window is a moment), revocations are drops, and bytes and packets of
//! both directions are counted as received, since agents do not tell them apart. Users, places, systems and names of machines are
//! those of whoever asks: as they are now, and not as they were.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Serialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::{FlowEnd, FlowRecord, PartyKind};
use crate::geo::Places;
use crate::store::{Machine, Owner};

/// NetBird's `NetworkTrafficEvent`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NetworkTrafficEvent)]
#[expect(missing_docs, reason = "NetBird's OpenAPI document describes each field")]
pub struct TrafficEvent {
    pub id: String,
    pub flow_id: String,
    pub reporter_id: String,
    pub receive_timestamp: String,
    pub source: TrafficEndpoint,
    pub destination: TrafficEndpoint,
    pub user: TrafficUser,
    pub policy: TrafficPolicy,
    pub icmp: TrafficIcmp,
    pub protocol: u32,
    pub direction: &'static str,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub num_of_starts: u64,
    pub num_of_ends: u64,
    pub num_of_drops: u64,
    pub window_start: String,
    pub window_end: String,
    pub events: Vec<TrafficSubEvent>,
}

/// NetBird's `NetworkTrafficEndpoint`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "NetBird's OpenAPI document describes each field")]
pub struct TrafficEndpoint {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: PartyKind,
    pub name: String,
    pub geo_location: TrafficLocation,
    pub os: Option<String>,
    pub address: String,
    pub dns_label: Option<String>,
}

/// NetBird's `NetworkTrafficLocation`: where a peer's connection to control comes from, or where an address is that is nobody's; empty where that
/// is not known.
#[derive(Debug, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "NetBird's OpenAPI document describes each field")]
pub struct TrafficLocation {
    pub city_name: String,
    pub country_code: String,
}

/// NetBird's `NetworkTrafficUser`: whose machine the source is; empty where it is nobody's, as of peers that joined by a setup key.
#[derive(Debug, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "NetBird's OpenAPI document describes each field")]
pub struct TrafficUser {
    pub id: String,
    pub email: String,
    pub name: String,
}

/// NetBird's `NetworkTrafficPolicy`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "NetBird's OpenAPI document describes each field")]
pub struct TrafficPolicy {
    pub id: String,
    pub name: String,
}

/// NetBird's `NetworkTrafficICMP`; zeroes for other protocols.
#[derive(Debug, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "NetBird's OpenAPI document describes each field")]
pub struct TrafficIcmp {
    #[serde(rename = "type")]
    pub kind: u32,
    pub code: u32,
}

/// NetBird's `NetworkTrafficSubEvent`.
#[derive(Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "NetBird's OpenAPI document describes each field")]
pub struct TrafficSubEvent {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub timestamp: String,
}

const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

/// What is known of machines and addresses beside what events say.
pub(super) struct Known<'a> {
    pub(super) machines: &'a HashMap<String, Machine>,
    pub(super) places: &'a Places,
}

impl Known<'_> {
    /// The machine at an end, when a peer is there.
    fn machine(&self, end: &FlowEnd) -> Option<&Machine> {
        let is_peer = end.party.kind == PartyKind::Peer;
        self.machines.get(&end.party.id).filter(|_| is_peer)
    }

    /// Whose machine opened the flow.
    pub(super) fn user(&self, record: &FlowRecord) -> Option<&Owner> {
        self.machine(&record.source)?.user.as_ref()
    }

    fn location(&self, end: &FlowEnd) -> TrafficLocation {
        if let Some(machine) = self.machine(end) {
            let (city_name, country_code) = (machine.city_name.clone(), machine.country_code.clone());
            return TrafficLocation { city_name, country_code };
        }
        let address = end.address.parse().ok().filter(|_| end.party.kind == PartyKind::Unknown);
        let place = address.and_then(|address| self.places.of(address)).unwrap_or_default();
        TrafficLocation { city_name: place.city_name, country_code: place.country_code }
    }
}

pub(super) fn event(record: &FlowRecord, known: &Known<'_>) -> TrafficEvent {
    let at = rfc3339(record.time_ms);
    let kind = event_type(record);
    let count = |wanted| u64::from(kind == wanted);
    TrafficEvent {
        id: record.sequence.to_string(),
        flow_id: flow_id(record),
        reporter_id: record.reporter.id.clone(),
        receive_timestamp: rfc3339(record.received_ms),
        source: endpoint(record, &record.source, known),
        destination: endpoint(record, &record.destination, known),
        user: known.user(record).map(user).unwrap_or_default(),
        policy: TrafficPolicy { id: record.rule.policy_id.clone(), name: record.rule.policy_name.clone() },
        icmp: icmp(record),
        protocol: record.protocol,
        direction: direction(record),
        rx_bytes: record.bytes,
        rx_packets: record.packets,
        tx_bytes: 0,
        tx_packets: 0,
        num_of_starts: count("TYPE_START"),
        num_of_ends: count("TYPE_END"),
        num_of_drops: count("TYPE_DROP"),
        window_start: at.clone(),
        window_end: at.clone(),
        events: vec![TrafficSubEvent { kind, timestamp: at }],
    }
}

pub(super) fn event_type(record: &FlowRecord) -> &'static str {
    match record.kind {
        "start" => "TYPE_START",
        "end" => "TYPE_END",
        _ => "TYPE_DROP",
    }
}

/// As the reporter sees the first packet: from the overlay it comes in, from its site or itself it goes out to the overlay.
pub(super) fn direction(record: &FlowRecord) -> &'static str {
    match record.direction.as_str() {
        "overlay" => "INGRESS",
        "site" | "local" => "EGRESS",
        _ => "DIRECTION_UNKNOWN",
    }
}

/// `ROUTED` when a resource is at either end.
pub(super) fn connection_type(record: &FlowRecord) -> &'static str {
    let resource =
        |end: &FlowEnd| matches!(end.party.kind, PartyKind::HostResource | PartyKind::SubnetResource);
    if resource(&record.source) || resource(&record.destination) { "ROUTED" } else { "P2P" }
}

fn user(owner: &Owner) -> TrafficUser {
    TrafficUser { id: owner.id.clone(), email: owner.email.clone(), name: owner.name.clone() }
}

fn endpoint(record: &FlowRecord, end: &FlowEnd, known: &Known<'_>) -> TrafficEndpoint {
    let machine = known.machine(end);
    let address = match end.address.parse::<IpAddr>() {
        Ok(address) if record.protocol == ICMP || record.protocol == ICMPV6 => address.to_string(),
        Ok(IpAddr::V6(address)) => format!("[{address}]:{}", end.port),
        _ => format!("{}:{}", end.address, end.port),
    };
    TrafficEndpoint {
        id: end.party.id.clone(),
        kind: end.party.kind,
        name: end.party.name.clone(),
        geo_location: known.location(end),
        os: machine.map(|machine| machine.os.clone()).filter(|os| !os.is_empty()),
        address,
        dns_label: machine.map(|machine| machine.dns_name.clone()),
    }
}

fn icmp(record: &FlowRecord) -> TrafficIcmp {
    match record.protocol {
        ICMP | ICMPV6 => {
            TrafficIcmp { kind: record.destination.port >> 8, code: record.destination.port & 0xff }
        }
        _ => TrafficIcmp::default(),
    }
}

/// The same for every event of one conversation at one reporter, in UUID's form.
fn flow_id(record: &FlowRecord) -> String {
    let (from, to) = (&record.source, &record.destination);
    let tuple = [record.reporter.id.as_str(), &from.address, &to.address].join("|");
    let hash = Sha256::digest(format!("{tuple}|{}|{}|{}", record.protocol, from.port, to.port));
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn rfc3339(milliseconds: u64) -> String {
    let nanoseconds = i128::from(milliseconds) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_default()
}
