//! What every agent is to enforce, what it was sent, and what it says it does: the meeting point of the compiler driver,
//! the agents' streams, their reports, and whoever asks.
//!
//! A stream pulls: when its connection can take a message, it asks for the difference between what the agent holds and what
//! is wanted now. Changes that come faster than an agent takes them therefore coalesce, and nothing queues.

mod bounds;
mod elsewhere;
mod ends;
mod entry;
mod flows;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use sluicegate_api::agent::{Acknowledgement, ReportRequest, SyncRequest};
use sluicegate_api::image::{Hash, Image, Parts};
use sluicegate_api::network::Overlay;
use tokio::sync::{Notify, watch};

use crate::flows::Flows;
use crate::ids::now;
use crate::metrics::Metrics;
pub(crate) use ends::Later;
pub use entry::{Applied, Held, Overview, Refusal, Reported};
use entry::{Entry, Stream};
pub use flows::Asked;
pub use stream::UpdateStream;

/// Revisions above this are not ours: an agent that claims one cannot be answered with a higher one for ever.
const REVISION_MAX: u64 = 1 << 62;

/// The registry of agents. All methods are short and never block on I/O.
pub struct Hub {
    inner: Mutex<Inner>,
    /// Wakes the driver: an agent waits for its first image.
    newcomers: Notify,
    /// Revision of the store that the published images stand for.
    compiled: watch::Sender<u64>,
    metrics: Metrics,
    flows: Arc<Flows>,
}

#[derive(Default)]
struct Inner {
    agents: BTreeMap<String, Entry>,
    roster: Arc<Roster>,
    next_stream: u64,
    next_query: u64,
    closing: bool,
    compilation: Compilation,
}

/// The peers there are, by id.
pub type Roster = BTreeMap<String, Member>;

/// A peer as the hub needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whether it joined as a gateway, or routes a network.
    pub gateway: bool,
}

/// One agent's image with what identifies it. Kept encoded, in parts that it shares with the image it came from.
#[derive(Debug, PartialEq, Eq)]
pub struct Compiled {
    /// [`Image::hash`].
    pub hash: Hash,
    /// The image.
    pub parts: Parts,
}

/// What the driver made for one agent.
pub(crate) struct Target {
    /// The image, the same `Arc` as before when it did not change, and what it becomes by the clock; or why there is none, and the
    /// one before it stays.
    pub(crate) image: Result<(Arc<Compiled>, Arc<[Later]>), String>,
    /// The overlay, unless it did not change; its serial is given by the hub.
    pub(crate) network: Option<Overlay>,
}

/// An agent to compile for.
pub(crate) struct Base {
    /// Its image so far.
    pub(crate) image: Option<Arc<Compiled>>,
    /// What that becomes by the clock.
    pub(crate) later: Arc<[Later]>,
    /// Whether that is the image of the state published last; not when compiling it failed, or its time came since.
    pub(crate) current: bool,
}

/// How the last compilation went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compilation {
    /// Revision of the store that the images stand for; 0 before the first.
    pub revision: u64,
    /// Why some agents, or all, still have images of an earlier revision, when that is so.
    pub error: Option<String>,
}

/// Why an agent is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The peer does not exist any more.
    #[error("this peer has been deleted from control; join again with a setup key")]
    Deleted,
    /// Another stream of the same peer took over.
    #[error("another connection of this peer took over: only one agent may run with this identity")]
    Replaced,
    /// The service ends.
    #[error("control is shutting down; connect again")]
    Closing,
    /// The revision an agent claims cannot be.
    #[error(
        "the applied revision is not one that control gives out; remove the agent's state and join again"
    )]
    Revision,
}

impl Compiled {
    /// From an encoded image; `before` itself when that is the same.
    pub fn new(parts: Parts, before: Option<Arc<Self>>) -> Arc<Self> {
        match before {
            Some(before) if before.hash == parts.hash() => before,
            _ => Arc::new(Self { hash: parts.hash(), parts }),
        }
    }

    /// The image.
    pub fn image(&self) -> Image {
        self.parts.image().expect("the bytes are the encoding of an image")
    }
}

impl Hub {
    /// No agents yet.
    pub fn new(metrics: Metrics, flows: Arc<Flows>) -> Arc<Self> {
        let compiled = watch::Sender::new(0);
        Arc::new(Self { inner: Mutex::default(), newcomers: Notify::new(), compiled, metrics, flows })
    }

    /// Begins the stream of a peer that exists. A stream of the same peer that is still there ends.
    ///
    /// `revision` is that of the store now. What the agent has in force may come from another replica that had compiled as
    /// much, so nothing is sent to it before the images here stand for that revision as well: an agent that moves from
    /// one replica to another never gets an older state. An agent that has nothing in force takes what there is.
    pub fn open(
        self: &Arc<Self>,
        peer: &str,
        request: &SyncRequest,
        revision: u64,
    ) -> Result<UpdateStream, Refused> {
        if request.applied_revision > REVISION_MAX {
            return Err(Refused::Revision);
        }
        let mut guard = self.lock();
        let inner = &mut *guard;
        if inner.closing {
            return Err(Refused::Closing);
        }
        inner.next_stream += 1;
        let id = inner.next_stream;
        let gateway = inner.roster.get(peer).is_some_and(|member| member.gateway);
        let entry = inner.agents.entry(peer.to_owned()).or_default();
        entry.hold(request, now().unsigned_abs());
        let notify = Arc::new(Notify::new());
        let next = Stream::new(id, gateway, request, entry.applied_held(), revision, notify.clone());
        if let Some(old) = entry.stream.replace(next) {
            self.metrics.streams_ended.with_label_values(&["replaced"]).inc();
            self.metrics.connected_agents.with_label_values(&[role(old.gateway)]).dec();
            old.notify.notify_one();
        }
        self.metrics.connected_agents.with_label_values(&[role(gateway)]).inc();
        drop(guard);
        self.newcomers.notify_one();
        Ok(UpdateStream::new(self.clone(), peer.to_owned(), id, notify))
    }

    /// Takes in what an agent reports. `now_ms` is the wall clock in Unix milliseconds. Flow events go to the ring and the sums.
    pub fn report(&self, peer: &str, report: ReportRequest, now_ms: u64) -> Result<(), Refused> {
        let health = report.health.map(bounds::health);
        let mut guard = self.lock();
        let entry = guard.agents.entry(peer.to_owned()).or_default();
        for acknowledgement in report.acknowledgements.iter().take(bounds::ACKNOWLEDGEMENTS) {
            self.acknowledge(peer, entry, acknowledgement, now_ms);
        }
        if let Some(list) = report.flow_list {
            entry.listed(list);
        }
        let total = report.flow_events_lost;
        let lost = entry.note_lost(total);
        if let Some(health) = health {
            entry.reported = Some(Reported { health, at_ms: now_ms });
        }
        drop(guard);
        self.metrics.flow_events_lost.inc_by(lost);
        self.flows.note_lost(peer, total, now_ms);
        self.flows.record(peer, report.flows, now_ms);
        Ok(())
    }

    /// Whether a stream of the peer is open.
    pub fn connected(&self, peer: &str) -> bool {
        self.lock().agents.get(peer).is_some_and(|entry| entry.stream.is_some())
    }

    /// The peers that have a stream here.
    pub fn streams(&self) -> Vec<String> {
        let inner = self.lock();
        inner
            .agents
            .iter()
            .filter(|(_, entry)| entry.stream.is_some())
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    /// The peers that agents with a stream here said, when they last reported, that they hear of.
    pub fn live_links(&self) -> BTreeSet<String> {
        let inner = self.lock();
        let here = inner.agents.values().filter(|entry| entry.stream.is_some());
        let reports = here.filter_map(|entry| entry.reported.as_ref());
        let links = reports.flat_map(|reported| &reported.health.links);
        links.filter(|link| link.live).map(|link| link.peer_id.clone()).collect()
    }

    /// Whether the peer was in the state last read from the store.
    pub fn knows(&self, peer: &str) -> bool {
        self.lock().roster.contains_key(peer)
    }

    /// Everything the hub knows about an agent; empty for one that never connected.
    pub fn overview(&self, peer: &str) -> Overview {
        self.lock().agents.get(peer).map(Entry::overview).unwrap_or_default()
    }

    /// The image an agent is to enforce, when it is known.
    pub fn wanted_image(&self, peer: &str) -> Option<Arc<Compiled>> {
        self.lock().agents.get(peer)?.wanted.as_ref().map(|wanted| wanted.image.clone())
    }

    /// How the last compilation went.
    pub fn compilation(&self) -> Compilation {
        self.lock().compilation.clone()
    }

    /// Resolves once the published images stand for the store's `revision` or a later one: streams send what differs from
    /// then on. Waits for ever when that revision cannot be compiled.
    pub async fn compiled(&self, revision: u64) {
        // The sender is this hub's own: it cannot be gone.
        let _ = self.compiled.subscribe().wait_for(|compiled| *compiled >= revision).await;
    }

    /// Ends every stream; agents are told to connect again.
    pub fn shut_down(&self) {
        let mut inner = self.lock();
        inner.closing = true;
        inner.agents.values().for_each(Entry::wake);
    }

    /// Resolves when an agent waits for a first image. One call of [`Hub::open`] is remembered while nobody waits.
    pub(crate) async fn newcomer(&self) {
        self.newcomers.notified().await;
    }

    /// Makes `roster` the peers there are as of the store's `revision`; streams of others end at once, unless they were opened
    /// at a later one: those peers joined meanwhile.
    pub(crate) fn set_roster(&self, roster: Arc<Roster>, revision: u64) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.agents.retain(|peer, entry| {
            let newer = entry.stream.as_ref().is_some_and(|stream| stream.opened_at > revision);
            let stays = newer || roster.contains_key(peer);
            if !stays {
                entry.wake();
                if let Some(stream) = &entry.stream {
                    self.metrics.streams_ended.with_label_values(&["deleted"]).inc();
                    self.metrics.connected_agents.with_label_values(&[role(stream.gateway)]).dec();
                }
            }
            stays
        });
        for (peer, entry) in &mut inner.agents {
            if let (Some(stream), Some(member)) = (&mut entry.stream, roster.get(peer))
                && stream.gateway != member.gateway
            {
                self.metrics.connected_agents.with_label_values(&[role(stream.gateway)]).dec();
                self.metrics.connected_agents.with_label_values(&[role(member.gateway)]).inc();
                stream.gateway = member.gateway;
            }
        }
        for (peer, member) in &*roster {
            if member.gateway && !inner.agents.contains_key(peer) {
                inner.agents.insert(peer.clone(), Entry::default());
            }
        }
        inner.roster = roster;
    }

    /// The agents to compile for: every gateway, and every peer that is connected; or of those the ones without an image.
    pub(crate) fn to_compile(&self, only_new: bool) -> BTreeMap<String, Base> {
        let inner = self.lock();
        let served = inner.agents.iter().filter(|(peer, entry)| {
            let gateway = inner.roster.get(*peer).is_some_and(|member| member.gateway);
            (gateway || entry.stream.is_some()) && !(only_new && entry.wanted.is_some())
        });
        let base = |entry: &Entry| Base {
            image: entry.wanted.as_ref().map(|wanted| wanted.image.clone()),
            later: entry.wanted.as_ref().map(|wanted| wanted.later.clone()).unwrap_or_default(),
            current: entry.is_current(),
        };
        served.map(|(peer, entry)| (peer.clone(), base(entry))).collect()
    }

    /// Publishes what was compiled from the store's `revision`: all of it at once, to those it concerns only. `whole` when
    /// it was compiled for every agent there is.
    pub(crate) fn publish(&self, revision: u64, targets: BTreeMap<String, Target>, whole: bool) {
        let mut inner = self.lock();
        let (mut unchanged, mut errors) = (0, Vec::new());
        for (peer, target) in targets {
            // Gone in the meantime, or gone and back, with nothing kept: then it is a newcomer to the next compilation.
            let entry =
                inner.agents.get_mut(&peer).filter(|entry| target.network.is_some() || entry.has_network());
            let Some(entry) = entry else { continue };
            let network = target.network.is_some_and(|network| entry.want_network(network));
            let image = match target.image {
                Ok((image, later)) => {
                    entry.compile_error = None;
                    entry.want_image(revision, image, later)
                }
                Err(error) => {
                    errors.push(format!("agent {peer} keeps its image: {error}"));
                    entry.compile_error = Some(error);
                    false
                }
            };
            unchanged += u64::from(!image);
            if network || image {
                entry.wake();
            }
        }
        self.metrics.compile_failures.inc_by(errors.len() as u64);
        if whole {
            let held_back = inner.agents.values().filter(|entry| entry.waits_for(inner.compilation.revision));
            held_back.for_each(Entry::wake);
        }
        let before = inner.compilation.error.take().filter(|_| !whole);
        inner.compilation = Compilation { revision, error: errors.into_iter().next().or(before) };
        drop(inner);
        self.metrics.images_unchanged.inc_by(unchanged);
        self.metrics.compiled_revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
        self.compiled.send_replace(revision);
    }

    /// The compilation failed: everything stays as it was, and it is shown.
    pub(crate) fn compilation_failed(&self, error: String) {
        self.metrics.compile_failures.inc();
        self.lock().compilation.error = Some(error);
    }

    fn acknowledge(&self, peer: &str, entry: &mut Entry, said: &Acknowledgement, now_ms: u64) {
        if !said.applied {
            self.metrics.refusals.inc();
            let reason = bounds::text(&said.refusal);
            tracing::warn!(peer, revision = said.revision, reason, "agent refused an image");
            entry.refused(said.revision, reason, now_ms);
            return;
        }
        if let Some(sent) = entry.applied(said, now_ms) {
            self.metrics.push_to_ack_seconds.observe(sent.elapsed().as_secs_f64());
            self.metrics.apply_seconds.observe(said.apply_microseconds as f64 / 1e6);
        }
    }

    fn next(&self, peer: &str, stream: u64) -> Result<stream::Step, Refused> {
        let mut inner = self.lock();
        if inner.closing {
            return Err(Refused::Closing);
        }
        let compiled = inner.compilation.revision;
        let now = now().unsigned_abs();
        inner.agents.get_mut(peer).ok_or(Refused::Deleted)?.next(stream, compiled, now)
    }

    fn sent(&self, peer: &str, stream: u64, what: &stream::Sending) {
        if let Some(entry) = self.lock().agents.get_mut(peer) {
            entry.sent(stream, what, Instant::now());
        }
        match what {
            stream::Sending::Flows { .. } | stream::Sending::Schedule { .. } => {}
            stream::Sending::Network(_) => self.metrics.networks_pushed.inc(),
            stream::Sending::Image { kind, bytes, .. } => {
                self.metrics.images_pushed.with_label_values(&[kind]).inc();
                self.metrics.pushed_bytes.with_label_values(&[kind]).inc_by(*bytes as u64);
            }
        }
    }

    /// The connection of a stream is gone. True when no other stream of the peer has taken its place.
    fn closed(&self, peer: &str, stream: u64) -> bool {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(entry) = inner.agents.get_mut(peer) else { return true };
        let Some(ended) = entry.stream.take_if(|current| current.id == stream) else { return false };
        if !ended.gateway {
            entry.forget_images();
        }
        let reason = if inner.closing { "shutdown" } else { "closed" };
        self.metrics.streams_ended.with_label_values(&[reason]).inc();
        self.metrics.connected_agents.with_label_values(&[role(ended.gateway)]).dec();
        true
    }

    /// The peers in the state last read from the store that route or joined as gateways.
    pub fn gateways(&self) -> BTreeSet<String> {
        let inner = self.lock();
        inner.roster.iter().filter(|(_, member)| member.gateway).map(|(peer, _)| peer.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn role(gateway: bool) -> &'static str {
    if gateway { "gateway" } else { "peer" }
}

#[cfg(test)]
mod tests;
