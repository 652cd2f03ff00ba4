//! One agent: what it is to have, what it was sent, what it says it has.

use std::sync::Arc;
use std::time::Instant;

use sluicegate_api::agent::{Acknowledgement, FlowList, Health, SyncRequest};
use sluicegate_api::image::Hash;
use sluicegate_api::network::Overlay;
use tokio::sync::Notify;

use super::flows::Asking;
use super::stream::{Sending, Step};
use super::{Compiled, Later, Refused, ends};

#[derive(Default)]
pub(super) struct Entry {
    pub(super) wanted: Option<Wanted>,
    pub(super) stream: Option<Stream>,
    pub(super) reported: Option<Reported>,
    pub(super) compile_error: Option<String>,
    network: Option<Arc<Overlay>>,
    network_serial: u64,
    /// Images that deltas can start from: the one in force and the one in flight.
    bases: Vec<Arc<Compiled>>,
    applied: Option<Applied>,
    refusal: Option<Refusal>,
    /// The highest revision this agent was offered, may reach by itself or says it has: the next one is above it.
    pub(super) floor: u64,
    /// By the clock another image is wanted than the one published last.
    pub(super) ahead: bool,
    events_lost: u64,
}

#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) revision: u64,
    pub(super) image: Arc<Compiled>,
    /// What it becomes by the clock, in the order of time.
    pub(super) later: Arc<[Later]>,
}

/// The stream that serves an agent now.
pub(super) struct Stream {
    pub(super) id: u64,
    pub(super) gateway: bool,
    pub(super) notify: Arc<Notify>,
    /// Whether the agent answers when it is asked for its flows.
    pub(super) lists_flows: bool,
    /// Whether the agent takes from its image by itself what ends.
    follows_schedules: bool,
    /// What it was told of that; `None` when it may know something else.
    pub(super) told: Option<Arc<[Later]>>,
    /// That question, while it is not answered.
    pub(super) asking: Option<Asking>,
    /// What the agent holds once it has taken everything sent so far.
    holds: Option<Held>,
    /// Revision of the store when the stream was opened: the peer was there then.
    pub(super) opened_at: u64,
    /// Nothing is sent before the images stand for this revision of the store.
    not_before: u64,
    /// The overlay that the agent has once it has taken everything sent so far.
    network_sent: Option<Arc<Overlay>>,
    /// Whether the agent takes what is different of an overlay.
    follows_network: bool,
    in_flight: Option<(Held, Instant)>,
    /// After a refusal nothing is known about the agent's base.
    snapshot_next: bool,
    /// The image that was sent once more after a refusal.
    retried: Option<Hash>,
    /// The image that was refused twice: nothing is sent until another is wanted.
    parked: Option<Hash>,
}

/// An image by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Revision.
    pub revision: u64,
    /// [`sluicegate_api::image::Image::hash`].
    pub hash: Hash,
}

/// An image that an agent says is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Which.
    pub held: Held,
    /// When control heard of it, Unix milliseconds; 0 when it was in force before this stream.
    pub at_ms: u64,
    /// How long applying took, microseconds; absent when it was in force before this stream.
    pub microseconds: Option<u64>,
}

/// An image that an agent would not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its revision.
    pub revision: u64,
    /// The agent's words.
    pub reason: String,
    /// When control heard of it, Unix milliseconds.
    pub at_ms: u64,
}

/// The last health report.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// As sent.
    pub health: Health,
    /// When it came, Unix milliseconds.
    pub at_ms: u64,
}

/// A copy of what is known about an agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// Whether a stream is open.
    pub connected: bool,
    /// Serial of the overlay it is to build, which rises with every change of it; 0 before the first.
    pub network_serial: u64,
    /// The image it is to enforce.
    pub wanted: Option<Held>,
    /// The image it enforces.
    pub applied: Option<Applied>,
    /// The last refusal, also when a later image was applied.
    pub refusal: Option<Refusal>,
    /// The last health report.
    pub reported: Option<Reported>,
    /// Why the wanted image is not that of the newest state.
    pub compile_error: Option<String>,
    /// Flow events it lost, since it started.
    pub events_lost: u64,
    /// Whether something of its image ends by the clock, and it will not know by itself: its version is too old.
    pub keeps_grants: bool,
}

impl Stream {
    pub(super) fn new(
        id: u64,
        gateway: bool,
        request: &SyncRequest,
        holds: Option<Held>,
        opened_at: u64,
        notify: Arc<Notify>,
    ) -> Self {
        Self {
            id,
            gateway,
            notify,
            lists_flows: request.lists_flows,
            follows_schedules: request.follows_schedules,
            told: (request.scheduled == 0).then(Arc::default),
            asking: None,
            holds,
            opened_at,
            not_before: if request.applied_revision > 0 { opened_at } else { 0 },
            network_sent: None,
            follows_network: request.follows_network,
            in_flight: None,
            snapshot_next: false,
            retried: None,
            parked: None,
        }
    }

    /// Whether the agent can have come to this image by itself: it has taken everything sent so far, and that was another one.
    pub(super) fn could_have_gone_to(&self, held: Held) -> bool {
        self.in_flight.is_none() && self.holds != Some(held)
    }

    /// The agent holds this image without having been sent it.
    pub(super) fn holds(&mut self, held: Held) {
        self.holds = Some(held);
    }
}

impl Entry {
    pub(super) fn wake(&self) {
        if let Some(stream) = &self.stream {
            stream.notify.notify_one();
        }
    }

    /// A new stream begins: what the agent says it has in force is what it has.
    pub(super) fn hold(&mut self, request: &SyncRequest, now_ms: u64) {
        self.applied = match Hash::try_from(request.applied_hash.as_slice()) {
            Ok(hash) if request.applied_revision > 0 => {
                let held = Held { revision: request.applied_revision, hash };
                let known = self.applied.filter(|applied| applied.held == held);
                Some(known.unwrap_or(Applied { held, at_ms: 0, microseconds: None }))
            }
            _ => None,
        };
        self.floor = self.floor.max(request.applied_revision);
        if let Some(held) = self.applied_held() {
            self.follow(held, now_ms);
        }
        self.raise_wanted(request.applied_revision);
    }

    pub(super) fn applied_held(&self) -> Option<Held> {
        self.applied.map(|applied| applied.held)
    }

    /// Whether what is wanted is what was published last.
    pub(super) fn is_current(&self) -> bool {
        self.compile_error.is_none() && !self.ahead
    }

    pub(super) fn has_network(&self) -> bool {
        self.network.is_some()
    }

    /// Sets the overlay; false when it is the one already wanted.
    pub(super) fn want_network(&mut self, mut network: Overlay) -> bool {
        network.rest.serial = self.network_serial;
        if self.network.as_deref() == Some(&network) {
            return false;
        }
        self.network_serial += 1;
        network.rest.serial = self.network_serial;
        self.network = Some(Arc::new(network));
        true
    }

    /// Sets the image, under a revision above every one this agent knows, and what it becomes by the clock; false when both are
    /// what is already wanted.
    pub(super) fn want_image(
        &mut self,
        store_revision: u64,
        image: Arc<Compiled>,
        later: Arc<[Later]>,
    ) -> bool {
        self.ahead = false;
        if let Some(wanted) = self.wanted.as_mut().filter(|wanted| wanted.image.hash == image.hash) {
            let same = ends::knows(&wanted.later, &later);
            wanted.later = later;
            return !same;
        }
        // An agent that already enforces this image keeps it under its own revision.
        let in_force = self.applied.filter(|applied| applied.held.hash == image.hash);
        let revision = match in_force {
            Some(applied) if self.wanted.is_none() => applied.held.revision,
            _ => store_revision.max(self.floor + 1),
        };
        self.floor = self.floor.max(revision);
        self.wanted = Some(Wanted { revision, image, later });
        true
    }

    /// Whether the stream was held back while the images stood for the store's revision `compiled`.
    pub(super) fn waits_for(&self, compiled: u64) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.not_before > compiled)
    }

    /// What the stream is to send next, when the images stand for the store's revision `compiled`.
    pub(super) fn next(&mut self, stream: u64, compiled: u64, now_ms: u64) -> Result<Step, Refused> {
        self.pass_ends(now_ms);
        let Some(current) = self.stream.as_mut().filter(|current| current.id == stream) else {
            return Err(Refused::Replaced);
        };
        if let Some(query) = current.asking.as_ref().and_then(Asking::unsent) {
            return Ok(Step::Flows(query));
        }
        if current.not_before > compiled {
            return Ok(Step::Wait);
        }
        let Some(network) = &self.network else { return Ok(Step::Wait) };
        if current.network_sent.as_ref().is_none_or(|sent| sent.rest.serial != network.rest.serial) {
            let base = current.network_sent.clone().filter(|_| current.follows_network);
            return Ok(Step::Network { base, network: network.clone() });
        }
        let Some(wanted) = &mut self.wanted else { return Ok(Step::Wait) };
        let hash = wanted.image.hash;
        let later = if current.follows_schedules { wanted.later.clone() } else { Arc::default() };
        if current.parked == Some(hash) {
            return Ok(Step::Wait);
        }
        if let Some(held) = current.holds.filter(|held| held.hash == hash && !current.snapshot_next) {
            // There and back before anything was sent: the agent's revision stands.
            wanted.revision = held.revision;
            if !current.follows_schedules
                || current.told.as_ref().is_some_and(|told| ends::knows(told, &later))
            {
                return Ok(Step::Wait);
            }
            self.floor = self.floor.max(wanted.revision + later.len() as u64);
            return Ok(Step::Schedule { revision: wanted.revision, image: wanted.image.clone(), later });
        }
        let base = current.holds.filter(|_| !current.snapshot_next);
        let base = base.and_then(|held| {
            let image = self.bases.iter().find(|image| image.hash == held.hash)?;
            Some((held.revision, image.clone()))
        });
        self.floor = self.floor.max(wanted.revision + later.len() as u64);
        Ok(Step::Image { base, revision: wanted.revision, image: wanted.image.clone(), later })
    }

    /// The stream has handed a message to its connection.
    pub(super) fn sent(&mut self, stream: u64, what: &Sending, now: Instant) {
        let Some(current) = self.stream.as_mut().filter(|current| current.id == stream) else { return };
        match what {
            Sending::Flows { query } => current.asking.iter_mut().for_each(|asking| asking.sent(*query)),
            Sending::Network(network) => current.network_sent = Some(network.clone()),
            Sending::Schedule { later } => current.told = Some(later.clone()),
            Sending::Image { revision, image, later, .. } => {
                current.told = Some(later.clone());
                let held = Held { revision: *revision, hash: image.hash };
                current.holds = Some(held);
                current.in_flight = Some((held, now));
                current.snapshot_next = false;
                current.parked = None;
                self.keep(image.clone());
            }
        }
    }

    /// The agent enforces an image. When it is the one last sent: since when it was under way.
    pub(super) fn applied(&mut self, said: &Acknowledgement, now_ms: u64) -> Option<Instant> {
        let hash = Hash::try_from(said.hash.as_slice()).ok()?;
        let held = Held { revision: said.revision, hash };
        if self.applied.is_some_and(|applied| applied.held.revision > said.revision) {
            return None;
        }
        self.applied = Some(Applied { held, at_ms: now_ms, microseconds: Some(said.apply_microseconds) });
        self.floor = self.floor.max(said.revision);
        if self.stream.as_ref().is_none_or(|stream| stream.in_flight.is_none_or(|(sent, _)| sent != held)) {
            self.went_ahead(held, now_ms);
            self.raise_wanted(said.revision);
            return None;
        }
        let stream = self.stream.as_mut()?;
        let (_, since) = stream.in_flight.take_if(|(sent, _)| *sent == held)?;
        stream.retried = None;
        self.prune();
        Some(since)
    }

    /// The agent would not apply an image. The last one sent is sent once more, whole; after a second refusal the agent is
    /// left alone until another image is wanted.
    pub(super) fn refused(&mut self, revision: u64, reason: String, now_ms: u64) {
        self.refusal = Some(Refusal { revision, reason, at_ms: now_ms });
        let in_force = self.applied_held();
        let Some(stream) = &mut self.stream else { return };
        let Some((sent, _)) = stream.in_flight.take_if(|(sent, _)| sent.revision == revision) else {
            return;
        };
        stream.holds = in_force;
        // It goes by what it was told with the image that it has.
        stream.told = None;
        stream.snapshot_next = true;
        if stream.retried.replace(sent.hash) == Some(sent.hash) {
            stream.parked = Some(sent.hash);
        }
        stream.notify.notify_one();
    }

    /// The agent says which flows it has, where that was asked.
    pub(super) fn listed(&mut self, list: FlowList) {
        let asking = self
            .stream
            .as_mut()
            .and_then(|stream| stream.asking.take_if(|asking| asking.is_answered_by(&list)));
        if let Some(asking) = asking {
            asking.answer(list);
        }
    }

    /// Events lost since the last report. A lower count means that the agent has started again.
    pub(super) fn note_lost(&mut self, total: u64) -> u64 {
        let before = std::mem::replace(&mut self.events_lost, total);
        total.checked_sub(before).unwrap_or(total)
    }

    /// A peer that is not connected costs no memory for images.
    pub(super) fn forget_images(&mut self) {
        self.wanted = None;
        self.ahead = false;
        self.network = None;
        self.bases.clear();
    }

    pub(super) fn overview(&self) -> Overview {
        Overview {
            connected: self.stream.is_some(),
            network_serial: self.network_serial,
            wanted: self.wanted.as_ref().map(|w| Held { revision: w.revision, hash: w.image.hash }),
            applied: self.applied,
            refusal: self.refusal.clone(),
            reported: self.reported.clone(),
            compile_error: self.compile_error.clone(),
            events_lost: self.events_lost,
            keeps_grants: self.stream.as_ref().is_some_and(|stream| !stream.follows_schedules)
                && self.wanted.as_ref().is_some_and(|wanted| !wanted.later.is_empty()),
        }
    }

    /// The wanted image must be newer than what the agent has, unless it is what the agent has.
    fn raise_wanted(&mut self, applied_revision: u64) {
        let applied = self.applied_held();
        let Some(wanted) = &mut self.wanted else { return };
        match applied {
            Some(held) if held.hash == wanted.image.hash => wanted.revision = held.revision,
            _ if wanted.revision <= applied_revision => {
                self.floor += 1;
                wanted.revision = self.floor;
            }
            _ => {}
        }
    }

    pub(super) fn keep(&mut self, image: Arc<Compiled>) {
        self.bases.retain(|base| base.hash != image.hash);
        self.bases.push(image);
        self.prune();
    }

    /// Only what the agent may hold is worth keeping: an image takes a quarter of a megabyte or more.
    fn prune(&mut self) {
        let holds = self.stream.as_ref().and_then(|stream| stream.holds);
        let held = [holds, self.applied_held()];
        self.bases.retain(|base| held.iter().flatten().any(|held| held.hash == base.hash));
    }
}
