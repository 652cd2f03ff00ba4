//! The stream of one agent: turns "what is wanted" into messages, one at a time, when the connection can take one.

use std::sync::Arc;

use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{Delta, FlowsQuery, NetworkChange, Schedule, Snapshot, SyncUpdate};
use sluicegate_api::network::Overlay;
use tokio::sync::Notify;

use super::{Compiled, Hub, Later, Refused, ends};
use crate::ids::now;

/// Encoded images shorter than this are compared in well under a millisecond: no thread change for them.
const INLINE_BYTES: usize = 16_384;
/// Overlays with fewer peers and prefixes are compared or copied in well under a millisecond.
const INLINE_ENTRIES: usize = 1_000;

/// What is to be sent next.
pub(super) enum Step {
    Wait,
    Flows(FlowsQuery),
    Network {
        base: Option<Arc<Overlay>>,
        network: Arc<Overlay>,
    },
    Image {
        base: Option<(u64, Arc<Compiled>)>,
        revision: u64,
        image: Arc<Compiled>,
        later: Arc<[Later]>,
    },
    /// What becomes by the clock of an image that the agent has.
    Schedule {
        revision: u64,
        image: Arc<Compiled>,
        later: Arc<[Later]>,
    },
}

/// What was handed to the connection.
pub(super) enum Sending {
    Flows { query: u64 },
    Network(Arc<Overlay>),
    Image { revision: u64, image: Arc<Compiled>, later: Arc<[Later]>, kind: &'static str, bytes: usize },
    Schedule { later: Arc<[Later]> },
}

/// The updates of one agent, in order. Dropping it ends the agent's presence.
pub struct UpdateStream {
    hub: Arc<Hub>,
    peer: String,
    id: u64,
    notify: Arc<Notify>,
    on_end: Option<Box<dyn FnOnce() + Send>>,
}

impl UpdateStream {
    pub(super) fn new(hub: Arc<Hub>, peer: String, id: u64, notify: Arc<Notify>) -> Self {
        Self { hub, peer, id, notify, on_end: None }
    }

    /// Calls `f` when the agent has gone: not when another stream of it has taken over.
    pub fn on_end(&mut self, f: impl FnOnce() + Send + 'static) {
        self.on_end = Some(Box::new(f));
    }

    /// The next update, once there is one.
    pub async fn next(&mut self) -> Result<SyncUpdate, Refused> {
        loop {
            let only = |update| SyncUpdate { update: Some(update), schedule: None };
            let (sending, update) = match self.hub.next(&self.peer, self.id)? {
                Step::Wait => {
                    self.notify.notified().await;
                    continue;
                }
                Step::Flows(query) => (Sending::Flows { query: query.id }, only(Update::Flows(query))),
                Step::Network { base, network } => {
                    let update = overlay(base, network.clone()).await;
                    (Sending::Network(network), only(update))
                }
                Step::Image { base, revision, image, later } => {
                    let schedule = schedule(revision, &image, &later).await;
                    let (sending, update) = encode(base, revision, image, later).await;
                    let schedule = (!schedule.ends.is_empty()).then_some(schedule);
                    (sending, SyncUpdate { update: Some(update), schedule })
                }
                Step::Schedule { revision, image, later } => {
                    let schedule = Some(schedule(revision, &image, &later).await);
                    (Sending::Schedule { later }, SyncUpdate { update: None, schedule })
                }
            };
            self.hub.sent(&self.peer, self.id, &sending);
            return Ok(update);
        }
    }
}

impl Drop for UpdateStream {
    fn drop(&mut self) {
        if self.hub.closed(&self.peer, self.id)
            && let Some(f) = self.on_end.take()
        {
            f();
        }
    }
}

/// What is different of an overlay when it is known what the agent has, else all of it.
async fn overlay(base: Option<Arc<Overlay>>, network: Arc<Overlay>) -> Update {
    if network.peers.len() + network.rest.routes.len() + network.rest.routed.len() <= INLINE_ENTRIES {
        return overlay_now(base.as_deref(), &network);
    }
    let (spare_base, spare) = (base.clone(), network.clone());
    let made = tokio::task::spawn_blocking(move || overlay_now(base.as_deref(), &network));
    // The pool only refuses while the runtime ends.
    made.await.unwrap_or_else(|_| overlay_now(spare_base.as_deref(), &spare))
}

fn overlay_now(base: Option<&Overlay>, network: &Overlay) -> Update {
    match base {
        Some(base) => Update::NetworkChange(NetworkChange::between(base, network)),
        None => Update::Network(network.whole()),
    }
}

/// What becomes of an image, as it is told now.
async fn schedule(revision: u64, image: &Arc<Compiled>, later: &Arc<[Later]>) -> Schedule {
    let (image, later) = (image.clone(), later.clone());
    let (spare_image, spare) = (image.clone(), later.clone());
    if later.is_empty() || image.parts.encoded_len() <= INLINE_BYTES {
        return ends::schedule(revision, &image, &later, now().unsigned_abs());
    }
    let made =
        tokio::task::spawn_blocking(move || ends::schedule(revision, &image, &later, now().unsigned_abs()));
    // The pool only refuses while the runtime ends.
    made.await.unwrap_or_else(|_| ends::schedule(revision, &spare_image, &spare, now().unsigned_abs()))
}

async fn encode(
    base: Option<(u64, Arc<Compiled>)>,
    revision: u64,
    image: Arc<Compiled>,
    later: Arc<[Later]>,
) -> (Sending, Update) {
    if image.parts.encoded_len() <= INLINE_BYTES {
        return encode_now(base, revision, image, later);
    }
    let (spare_base, spare, spare_later) = (base.clone(), image.clone(), later.clone());
    match tokio::task::spawn_blocking(move || encode_now(base, revision, image, later)).await {
        Ok(encoded) => encoded,
        // The pool only refuses while the runtime ends.
        Err(_) => encode_now(spare_base, revision, spare, spare_later),
    }
}

/// A delta when the base is known and it is shorter than the image, else the image.
fn encode_now(
    base: Option<(u64, Arc<Compiled>)>,
    revision: u64,
    image: Arc<Compiled>,
    later: Arc<[Later]>,
) -> (Sending, Update) {
    let hash = image.hash.to_vec();
    if let Some((base_revision, base)) = base {
        let delta = base.parts.difference(&image.parts).encode();
        if delta.len() < image.parts.encoded_len() {
            let bytes = delta.len();
            let base_hash = base.hash.to_vec();
            let update = Update::Delta(Delta { base_revision, base_hash, revision, hash, delta });
            return (Sending::Image { revision, image, later, kind: "delta", bytes }, update);
        }
    }
    let bytes = image.parts.encoded_len();
    let update = Update::Snapshot(Snapshot { revision, hash, image: image.parts.encode() });
    (Sending::Image { revision, image, later, kind: "snapshot", bytes }, update)
}
