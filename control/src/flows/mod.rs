//! Flow events as agents report them: the most recent ones in a ring, a live stream for whoever watches, and sums in the store.
//!
//! Nothing here grows: the ring overwrites its oldest event, a slow watcher misses events and is told how many, and what fits into no sum is
//! counted. The ring is this process's own, and lists single events; what a policy was used for is asked of the sums.
//! What the account's settings do not let control keep is neither in the ring nor shown to watchers.

mod directory;
pub mod http;
mod keep;
pub mod netbird;
mod sums;
mod write;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::Serialize;
use sluicegate_api::agent::FlowEvent;
use sluicegate_api::agent::flow_event::Kind;
use sluicegate_policy::model::State;
use tokio::sync::broadcast;

use crate::metrics::Metrics;
use crate::store::FlowLog;
use crate::text::printable;
pub use directory::{Directory, Party, PartyKind};
use keep::Keep;
use sums::Sums;

/// Label values of `flow_events_total`.
pub(crate) const KINDS: [&str; 4] = ["start", "end", "drop", "revoke"];
/// Events kept. One takes about half a kilobyte.
const RING: usize = 16_384;
/// Longest text of an event that is kept, in characters; ids, addresses and reasons are shorter.
const TEXT: usize = 128;
/// Events a watcher may be behind before it misses some.
const WATCH: usize = 4_096;

/// Why there are no events, and what next.
pub(crate) const OFF: &str = "control keeps no flow events: the account's setting network_traffic_logs_enabled is off; \
    turn it on by PUT /api/accounts/{id}, and events come from then on";

/// The ring and the stream.
pub struct Flows {
    inner: Mutex<Inner>,
    /// Whose turn it is to write sums.
    writing: tokio::sync::Mutex<()>,
    metrics: Metrics,
}

struct Inner {
    ring: VecDeque<Arc<FlowRecord>>,
    capacity: usize,
    next: u64,
    directory: Arc<Directory>,
    keep: Keep,
    sums: Sums,
    /// `None` once the service shuts down.
    watchers: Option<broadcast::Sender<Arc<FlowRecord>>>,
}

/// What a watcher gets: without gap and without overlap.
pub struct Watch {
    /// Events before now, oldest first.
    pub replay: VecDeque<Arc<FlowRecord>>,
    /// Events from now on.
    pub live: broadcast::Receiver<Arc<FlowRecord>>,
}

/// One event with the names that control can give to its ends, as `GET /api/flows/stream` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FlowRecord {
    /// Rises by one with each event control keeps; starts again with the process.
    pub sequence: u64,
    /// When the agent saw it, Unix milliseconds.
    pub time_ms: u64,
    /// When control received it, Unix milliseconds.
    pub received_ms: u64,
    /// `start`, `end`, `drop` or `revoke`.
    pub kind: &'static str,
    /// The agent that judged the packet.
    pub reporter: Reporter,
    /// IP protocol number.
    pub protocol: u32,
    /// Who sent the first packet.
    pub source: FlowEnd,
    /// Where it went.
    pub destination: FlowEnd,
    /// The rule that decided; empty ids when none matched.
    pub rule: DecidingRule,
    /// Why, for `drop` and `revoke`; else empty.
    pub drop_reason: String,
    /// Packets of the flow in both directions, for `end` and `revoke`; 0 where the account's settings turn counting off.
    pub packets: u64,
    /// Bytes of the flow in both directions, likewise.
    pub bytes: u64,
    /// Source address and port after masquerade, or empty.
    pub translated_source: String,
    /// Where the first packet came from: `overlay`, `site` or `local`.
    pub direction: String,
}

/// The agent that reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Reporter {
    /// Peer id.
    pub id: String,
    /// Peer name.
    pub name: String,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FlowEnd {
    /// Address without port.
    pub address: String,
    /// Port; for ICMP the id at the source, and type * 256 + code at the destination.
    pub port: u32,
    /// The peer or resource behind the address, when control knows one.
    #[serde(flatten)]
    pub party: Party,
}

/// The rule that decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct DecidingRule {
    /// Policy id.
    pub policy_id: String,
    /// Policy name at the time.
    pub policy_name: String,
    /// Rule id.
    pub rule_id: String,
    /// Rule name at the time.
    pub rule_name: String,
}

impl Flows {
    /// An empty ring of the default size.
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Self::with_capacity(metrics, RING)
    }

    fn with_capacity(metrics: Metrics, capacity: usize) -> Arc<Self> {
        let inner = Inner {
            ring: VecDeque::with_capacity(capacity.min(1024)),
            capacity,
            next: 1,
            directory: Arc::default(),
            keep: Keep::default(),
            sums: Sums::default(),
            watchers: Some(broadcast::channel(WATCH).0),
        };
        Arc::new(Self { inner: Mutex::new(inner), writing: tokio::sync::Mutex::default(), metrics })
    }

    /// From now on events are named by this directory.
    pub fn set_directory(&self, directory: Arc<Directory>) {
        self.lock().directory = directory;
    }

    /// From now on events are kept by these settings of the account in this state. What was kept and would not be any more is
    /// forgotten when the settings change; that somebody leaves a group changes nothing of what was.
    pub fn set_log(&self, log: &FlowLog, state: &State) {
        let mut inner = self.lock();
        let before = std::mem::take(&mut inner.keep);
        let old = before.log().clone();
        inner.keep = before.after(log, state);
        if old != *log {
            let Inner { ring, keep, sums, .. } = &mut *inner;
            sums.keep(&old, log, |id| keep.is_in(id));
            let kept = |record: &Arc<FlowRecord>| keep.kept(record.as_ref().clone()).map(Arc::new);
            *ring = ring.iter().filter_map(kept).collect();
        }
    }

    /// Which events are kept.
    pub fn log(&self) -> FlowLog {
        self.lock().keep.log().clone()
    }

    /// Takes in what `reporter` (a peer id) saw, in order. Events without a known kind are not kept, nor are those that the
    /// account's settings do not want.
    pub fn record(&self, reporter: &str, events: Vec<FlowEvent>, received_ms: u64) {
        if events.is_empty() {
            return;
        }
        let directory = self.lock().directory.clone();
        let records: Vec<FlowRecord> =
            events.into_iter().filter_map(|event| name(&directory, reporter, event, received_ms)).collect();
        let (kinds, unfit) = self.lock().append(records);
        for kind in kinds {
            self.metrics.flow_events.with_label_values(&[kind]).inc();
        }
        self.metrics.flow_events_unfit.inc_by(unfit);
    }

    /// Takes note of how many events an agent says that it has lost since it started, while any are kept.
    pub fn note_lost(&self, reporter: &str, total: u64, received_ms: u64) {
        let at = i64::try_from(received_ms).unwrap_or(i64::MAX);
        let mut inner = self.lock();
        if inner.keep.log().enabled {
            inner.sums.note_lost(reporter, total, at);
        }
    }

    /// The events in the ring, oldest first.
    pub fn recent(&self) -> Vec<Arc<FlowRecord>> {
        self.lock().ring.iter().cloned().collect()
    }

    /// The last `replay` events, and every one after them. `None` when the service is shutting down.
    pub fn watch(&self, replay: usize) -> Option<Watch> {
        let inner = self.lock();
        let live = inner.watchers.as_ref()?.subscribe();
        let from = inner.ring.len().saturating_sub(replay);
        Some(Watch { replay: inner.ring.range(from..).cloned().collect(), live })
    }

    /// Ends every stream, so that open watchers do not hold up the shutdown.
    pub fn close(&self) {
        self.lock().watchers = None;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    /// Appends what is to be kept, and gives its kinds and how much of it fits into no sum.
    fn append(&mut self, records: Vec<FlowRecord>) -> (Vec<&'static str>, u64) {
        let mut kinds = Vec::with_capacity(records.len());
        let mut unfit = 0;
        for record in records {
            let Some(mut record) = self.keep.kept(record) else { continue };
            unfit += u64::from(!self.sums.add(&self.directory, &record));
            kinds.push(record.kind);
            record.sequence = self.next;
            self.next += 1;
            let record = Arc::new(record);
            if self.ring.len() == self.capacity {
                self.ring.pop_front();
            }
            self.ring.push_back(record.clone());
            if let Some(watchers) = &self.watchers {
                // An error means that nobody watches.
                let _ = watchers.send(record);
            }
        }
        (kinds, unfit)
    }
}

fn name(directory: &Directory, reporter: &str, event: FlowEvent, received_ms: u64) -> Option<FlowRecord> {
    let kind = match event.kind() {
        Kind::Start => "start",
        Kind::End => "end",
        Kind::Drop => "drop",
        Kind::Revoke => "revoke",
        Kind::Unspecified => return None,
    };
    let text = |text: &str| printable(text, TEXT);
    Some(FlowRecord {
        sequence: 0,
        time_ms: event.time_ms,
        received_ms,
        kind,
        reporter: Reporter { id: reporter.to_owned(), name: directory.peer_name(reporter) },
        protocol: event.protocol,
        source: end(directory, text(&event.source), event.source_port),
        destination: end(directory, text(&event.destination), event.destination_port),
        rule: directory.rule(&text(&event.policy_id), &text(&event.rule_id)),
        drop_reason: text(&event.drop_reason),
        packets: event.packets,
        bytes: event.bytes,
        translated_source: text(&event.translated_source),
        direction: text(&event.direction),
    })
}

fn end(directory: &Directory, address: String, port: u32) -> FlowEnd {
    let party = address.parse::<IpAddr>().map(|address| directory.party(address)).unwrap_or_default();
    FlowEnd { address, port, party }
}

#[cfg(test)]
mod tests;
