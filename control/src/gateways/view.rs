//! The bodies, made of what the store and the hub know.

use std::collections::BTreeMap;

use serde::Serialize;
use sluicegate_api::agent::{Health, RuleCounter};
use sluicegate_api::image::Hash;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use crate::hub::{Compiled, Overview};
use crate::store::{Network, Peer, Role, Router};

/// One agent as control sees it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Gateway {
    /// Peer id.
    pub id: String,
    /// Peer name.
    pub name: String,
    /// `gateway` or `peer`: how it joined.
    pub role: &'static str,
    /// Whether its stream is open.
    pub connected: bool,
    /// Overlay IPv4 address.
    pub ip: String,
    /// Overlay IPv6 address.
    pub ipv6: String,
    /// Underlay `IP:PORT` of its WireGuard, when it has a fixed one.
    pub endpoint: Option<String>,
    /// The address its last connection to control came from.
    pub connection_ip: String,
    /// Operating system.
    pub os: String,
    /// Kernel release.
    pub kernel_version: String,
    /// Agent version.
    pub version: String,
    /// `ebpf` or `userspace`; absent before the first report.
    pub datapath: Option<String>,
    /// The networks it routes.
    pub networks: Vec<Membership>,
    /// The image it is to enforce and the one it enforces.
    pub image: ImageState,
    /// Totals since its datapath was loaded; absent before the first report.
    pub counters: Option<Counters>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Conditions a person should know of, each a sentence.
    pub degraded: Vec<String>,
    /// WireGuard, by peer.
    pub links: Vec<Link>,
    /// When it last reported; RFC 3339.
    pub last_report: Option<String>,
    /// When it last connected or left; RFC 3339.
    pub last_seen: String,
}

/// A network that an agent routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Membership {
    /// Network id.
    pub network_id: String,
    /// Network name.
    pub network_name: String,
    /// Router id.
    pub router_id: String,
    /// 1..=9999, lower is better.
    pub metric: i64,
    /// Whether sources are replaced by the router's address.
    pub masquerade: bool,
    /// Whether the router counts.
    pub enabled: bool,
}

/// The image of an agent: wanted, in force, and what went wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct ImageState {
    /// Revision it is to enforce; absent until it has been compiled.
    pub revision_wanted: Option<u64>,
    /// Revision it says is in force; absent before the first.
    pub revision_applied: Option<u64>,
    /// SHA-256 of the wanted image, hex.
    pub hash_wanted: Option<String>,
    /// SHA-256 of the image in force, hex.
    pub hash_applied: Option<String>,
    /// Whether it enforces what it is to enforce.
    pub in_sync: bool,
    /// How long applying took on the agent, milliseconds.
    pub apply_time_ms: Option<f64>,
    /// When control heard that it is in force; RFC 3339.
    pub applied_at: Option<String>,
    /// The last image it refused, also when a later one was applied.
    pub last_refusal: Option<LastRefusal>,
    /// Why the wanted image is not that of the newest policies.
    pub compile_error: Option<String>,
}

/// An image that an agent refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LastRefusal {
    /// Its revision.
    pub revision: u64,
    /// The agent's reason.
    pub reason: String,
    /// When; RFC 3339.
    pub at: String,
}

/// Totals since the datapath was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counters {
    /// Live flows now.
    pub flows: u64,
    /// Flows started.
    pub flows_started: u64,
    /// Packets forwarded or delivered.
    pub packets_forwarded: u64,
    /// Bytes of those.
    pub bytes_forwarded: u64,
    /// Packets dropped, all reasons.
    pub packets_dropped: u64,
    /// Flow events lost before they reached control.
    pub flow_events_lost: u64,
}

/// WireGuard towards one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Link {
    /// The other peer's id.
    pub peer_id: String,
    /// Its name, empty when it is gone.
    pub peer_name: String,
    /// Where its packets come from.
    pub endpoint: String,
    /// The last handshake; RFC 3339, absent when there was none.
    pub last_handshake: Option<String>,
    /// Whether it answers.
    pub live: bool,
}

/// What one rule admitted and refused at one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct RuleTraffic {
    /// Policy id.
    pub policy_id: String,
    /// Policy name.
    pub policy_name: String,
    /// Rule id.
    pub rule_id: String,
    /// Rule name.
    pub rule_name: String,
    /// `accept` or `drop`.
    pub action: &'static str,
    /// Flows admitted.
    pub flows: u64,
    /// Packets refused by this rule.
    pub drops: u64,
    /// Packets of its flows.
    pub packets: u64,
    /// Bytes of its flows.
    pub bytes: u64,
}

const KEEPS_GRANTS: &str = "this agent's version is too old to end grants by itself: a break-glass policy that is on here ends with the \
                            word of control, and while control is away only with the agent's max_policy_age; install the \
                            release of control there";

pub(super) fn joined_as_gateway(peer: &Peer) -> bool {
    peer.role == Role::Gateway
}

/// What an agent says of itself, and what it is too old to say.
fn degraded(overview: &Overview) -> Vec<String> {
    let reported = overview.reported.as_ref().map(|reported| reported.health.degraded.clone());
    let keeps = overview.keeps_grants.then(|| KEEPS_GRANTS.to_owned());
    reported.unwrap_or_default().into_iter().chain(keeps).collect()
}

pub(super) fn gateway(
    peer: Peer,
    overview: &Overview,
    networks: &[(Network, Vec<Router>)],
    names: &BTreeMap<String, String>,
) -> Gateway {
    let health = overview.reported.as_ref().map(|reported| &reported.health);
    Gateway {
        role: if joined_as_gateway(&peer) { "gateway" } else { "peer" },
        connected: overview.connected,
        networks: networks.iter().flat_map(|(network, routers)| member(&peer, network, routers)).collect(),
        image: image(overview),
        datapath: health.map(|health| health.datapath.clone()),
        counters: health.map(|health| counters(health, overview.events_lost)),
        drops: health.map(|health| health.drops.clone().into_iter().collect()).unwrap_or_default(),
        degraded: degraded(overview),
        links: health.map(|health| links(health, names)).unwrap_or_default(),
        last_report: overview.reported.as_ref().map(|reported| rfc3339(reported.at_ms)),
        last_seen: rfc3339(peer.last_seen.unsigned_abs()),
        id: peer.id,
        name: peer.name,
        ip: peer.ip.to_string(),
        ipv6: peer.ipv6.to_string(),
        endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
        connection_ip: peer.connection_ip,
        os: peer.os,
        kernel_version: peer.kernel_version,
        version: peer.version,
    }
}

/// The rules of the wanted image with what was counted for them, in the order of their slots.
pub(super) fn rules(image: Option<&Compiled>, overview: &Overview) -> Vec<RuleTraffic> {
    let counted = overview.reported.iter().flat_map(|reported| &reported.health.rules);
    let counted: BTreeMap<u32, &RuleCounter> = counted.map(|counter| (counter.slot, counter)).collect();
    let Some(image) = image else { return Vec::new() };
    let named = image.parts.rules().into_iter().map(|(slot, info)| {
        let counter = counted.get(&slot).copied().copied().unwrap_or_default();
        RuleTraffic {
            policy_id: info.policy_id,
            policy_name: info.policy_name,
            rule_id: info.rule_id,
            rule_name: info.rule_name,
            action: if info.accept { "accept" } else { "drop" },
            flows: counter.flows,
            drops: counter.drops,
            packets: counter.packets,
            bytes: counter.bytes,
        }
    });
    named.collect()
}

fn member(peer: &Peer, network: &Network, routers: &[Router]) -> Vec<Membership> {
    let routes = |router: &&Router| {
        router.peer.as_deref() == Some(&peer.id)
            || router.peer_groups.iter().any(|id| peer.groups.iter().any(|group| group.id == *id))
    };
    let membership = |router: &Router| Membership {
        network_id: network.id.clone(),
        network_name: network.name.clone(),
        router_id: router.id.clone(),
        metric: router.metric,
        masquerade: router.masquerade,
        enabled: router.enabled,
    };
    routers.iter().filter(routes).map(membership).collect()
}

fn image(overview: &Overview) -> ImageState {
    let (wanted, applied) = (overview.wanted, overview.applied);
    ImageState {
        revision_wanted: wanted.map(|held| held.revision),
        revision_applied: applied.map(|applied| applied.held.revision),
        hash_wanted: wanted.map(|held| hex(&held.hash)),
        hash_applied: applied.map(|applied| hex(&applied.held.hash)),
        in_sync: wanted.is_some_and(|held| applied.is_some_and(|applied| applied.held.hash == held.hash)),
        apply_time_ms: applied.and_then(|applied| applied.microseconds).map(|us| us as f64 / 1000.0),
        applied_at: applied.filter(|applied| applied.at_ms > 0).map(|applied| rfc3339(applied.at_ms)),
        last_refusal: overview.refusal.as_ref().map(|refusal| LastRefusal {
            revision: refusal.revision,
            reason: refusal.reason.clone(),
            at: rfc3339(refusal.at_ms),
        }),
        compile_error: overview.compile_error.clone(),
    }
}

fn counters(health: &Health, flow_events_lost: u64) -> Counters {
    Counters {
        flows: health.flows,
        flows_started: health.flows_started,
        packets_forwarded: health.packets_forwarded,
        bytes_forwarded: health.bytes_forwarded,
        packets_dropped: health.drops.values().fold(0, |sum: u64, count| sum.saturating_add(*count)),
        flow_events_lost,
    }
}

fn links(health: &Health, names: &BTreeMap<String, String>) -> Vec<Link> {
    let link = |state: &sluicegate_api::agent::LinkState| Link {
        peer_id: state.peer_id.clone(),
        peer_name: names.get(&state.peer_id).cloned().unwrap_or_default(),
        endpoint: state.endpoint.clone(),
        last_handshake: (state.last_handshake_ms > 0).then(|| rfc3339(state.last_handshake_ms)),
        live: state.live,
    };
    health.links.iter().map(link).collect()
}

fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rfc3339(milliseconds: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}
