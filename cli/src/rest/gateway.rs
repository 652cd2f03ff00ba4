//! `/api/gateways`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::or_default;

/// One gateway as control sees it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// Peer id.
    pub id: String,
    /// Peer name.
    pub name: String,
    /// Whether its stream is open.
    pub connected: bool,
    /// Overlay IPv4 address.
    pub ip: String,
    /// Overlay IPv6 address.
    pub ipv6: String,
    /// Underlay address of its WireGuard.
    #[serde(deserialize_with = "or_default")]
    pub endpoint: String,
    /// Operating system.
    pub os: String,
    /// Kernel release.
    pub kernel_version: String,
    /// Agent version.
    pub version: String,
    /// `ebpf` or `userspace`; empty before the first report.
    #[serde(deserialize_with = "or_default")]
    pub datapath: String,
    /// Networks it routes.
    pub networks: Vec<Membership>,
    /// Image wanted and in force.
    pub image: ImageState,
    /// Totals since the datapath was loaded.
    pub counters: Option<Counters>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What a person should know of, each a sentence.
    pub degraded: Vec<String>,
    /// WireGuard, by peer.
    pub links: Vec<Link>,
    /// RFC 3339.
    #[serde(deserialize_with = "or_default")]
    pub last_report: String,
    /// RFC 3339.
    pub last_seen: String,
}

/// A network that a gateway routes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Membership {
    /// Network name.
    pub network_name: String,
    /// 1 to 9999, lower is better.
    pub metric: u16,
    /// Whether sources become the gateway's address.
    pub masquerade: bool,
    /// Whether the router counts.
    pub enabled: bool,
}

/// Image wanted and in force.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ImageState {
    /// Revision it is to enforce.
    pub revision_wanted: Option<u64>,
    /// Revision it says is in force.
    pub revision_applied: Option<u64>,
    /// SHA-256, hex.
    #[serde(deserialize_with = "or_default")]
    pub hash_applied: String,
    /// Whether both are the same image.
    pub in_sync: bool,
    /// How long applying took, milliseconds.
    pub apply_time_ms: Option<f64>,
    /// RFC 3339.
    #[serde(deserialize_with = "or_default")]
    pub applied_at: String,
    /// The last image it refused.
    pub last_refusal: Option<Refusal>,
    /// Why the wanted image is not that of the newest policies.
    #[serde(deserialize_with = "or_default")]
    pub compile_error: String,
}

/// An image that a gateway refused.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// Its revision.
    pub revision: u64,
    /// The gateway's reason.
    pub reason: String,
    /// RFC 3339.
    pub at: String,
}

/// Totals since the datapath was loaded.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Live flows.
    pub flows: u64,
    /// Flows started.
    pub flows_started: u64,
    /// Packets forwarded or delivered.
    pub packets_forwarded: u64,
    /// Bytes of those.
    pub bytes_forwarded: u64,
    /// Packets dropped, all reasons.
    pub packets_dropped: u64,
    /// Flow events lost on the way to control.
    pub flow_events_lost: u64,
}

/// WireGuard towards one peer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Peer id.
    pub peer_id: String,
    /// Its name; empty when it is gone.
    pub peer_name: String,
    /// Where its packets come from.
    pub endpoint: String,
    /// RFC 3339.
    #[serde(deserialize_with = "or_default")]
    pub last_handshake: String,
    /// Whether it answers.
    pub live: bool,
}

/// `/api/gateways/{id}/rules`: what one rule admitted and refused there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RuleTraffic {
    /// Policy name.
    pub policy_name: String,
    /// Rule name.
    pub rule_name: String,
    /// `accept` or `drop`.
    pub action: String,
    /// Flows admitted.
    pub flows: u64,
    /// Packets refused.
    pub drops: u64,
    /// Packets of its flows.
    pub packets: u64,
    /// Bytes of its flows.
    pub bytes: u64,
}

impl Gateway {
    /// What is wrong with it; nothing when all is well.
    pub fn problems(&self) -> Vec<String> {
        let image = &self.image;
        let mut problems = Vec::new();
        if !self.connected {
            problems.push(match image.revision_applied {
                Some(applied) => {
                    format!("away from control; enforced revision {applied} when last seen")
                }
                None => "away from control; enforced nothing when last seen".to_owned(),
            });
        }
        if !image.compile_error.is_empty() {
            problems.push(format!("gets no new image: {}", image.compile_error));
        }
        match (image.revision_wanted, image.revision_applied) {
            (Some(wanted), Some(applied)) if self.connected && !image.in_sync => {
                problems.push(format!("enforces revision {applied}, not {wanted}"));
            }
            (Some(wanted), None) if self.connected => {
                problems.push(format!("enforces nothing yet; revision {wanted} is wanted"))
            }
            _ => {}
        }
        if let (Some(refusal), false) = (&image.last_refusal, image.in_sync) {
            problems.push(format!("refused revision {}: {}", refusal.revision, refusal.reason));
        }
        problems.extend(self.degraded.iter().cloned());
        problems
    }
}
