//! One engine for every packet of the process: tables behind a lock, and where packets go from it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sluicegate_engine::family::{Address4, Address6, V4, V6};
use sluicegate_engine::flow::Side;
use sluicegate_engine::packet::Packet;
use sluicegate_engine::pipeline::{Verdict, process, version};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::Tables;
use sluicegate_engine::work::Work;

use super::capture::Capture;
use super::site::SiteSender;
use super::tables::UserTables;

/// Ticks in a second: milliseconds, which wrap after 49 days.
pub(super) const HZ: u32 = 1000;

/// Judges packets, one at a time.
pub(super) struct Judge {
    state: Mutex<State>,
    start: Instant,
}

/// What the lock protects.
pub(super) struct State {
    pub(super) tables: UserTables,
    /// By device index.
    pub(super) senders: HashMap<u32, Arc<SiteSender>>,
    /// Packets that were to leave and could not, and why the last one could not.
    pub(super) unsent: (u64, String),
    /// While somebody asks for packets.
    pub(super) capture: Option<Capture>,
    work4: Work<Address4>,
    work6: Work<Address6>,
}

/// What becomes of a packet.
pub(super) enum Fate {
    /// Nothing more; the host has its own copy where it should have one.
    Done,
    /// To the host's stack.
    Host,
    /// Into the overlay.
    Overlay,
    /// Out of a site device.
    Site(Arc<SiteSender>),
    /// What the packet holds now, back to where it came from.
    Back,
}

impl Judge {
    pub(super) fn new(tables: UserTables) -> Self {
        let state = State {
            tables,
            senders: HashMap::new(),
            unsent: (0, String::new()),
            capture: None,
            work4: Work::default(),
            work6: Work::default(),
        };
        Self { state: Mutex::new(state), start: Instant::now() }
    }

    /// The time, ticks.
    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Judges a packet and rewrites it in place.
    pub(super) fn judge(&self, packet: &mut impl Packet, side: Side) -> Fate {
        let now = self.now();
        let state = &mut *self.state();
        let record = state.capture.as_ref().map(|_| Capture::before(packet));
        let version = version(packet);
        let verdict = match version {
            Some(4) => process::<V4, _, _>(packet, side, &mut state.tables, now, &mut state.work4),
            Some(6) => process::<V6, _, _>(packet, side, &mut state.tables, now, &mut state.work6),
            _ if side == Side::Site => Verdict::Pass,
            _ => {
                Tables::<V4>::count_dropped(&mut state.tables, DropReason::BadVersion);
                Verdict::Drop(DropReason::BadVersion)
            }
        };
        if let (Some(capture), Some(record)) = (&mut state.capture, record) {
            match version {
                Some(4) => capture.finish::<V4>(record, &state.work4, verdict),
                Some(6) => capture.finish::<V6>(record, &state.work6, verdict),
                _ => {}
            }
        }
        match (verdict, side) {
            (Verdict::Drop(_), _) | (Verdict::Pass | Verdict::Host, Side::Site) => Fate::Done,
            // What the host sends passes as it was sent: into the overlay.
            (Verdict::Pass | Verdict::Host, Side::Local) | (Verdict::Overlay, _) => Fate::Overlay,
            (Verdict::Pass | Verdict::Host, Side::Overlay) => Fate::Host,
            (Verdict::Answer, _) => Fate::Back,
            (Verdict::Site(device), _) => match state.senders.get(&device) {
                Some(sender) => Fate::Site(sender.clone()),
                None => {
                    state.unsent.0 += 1;
                    state.unsent.1 = format!("the site device with index {device} is not there");
                    Fate::Done
                }
            },
        }
    }

    /// What sends by the site device with this index.
    pub(super) fn sender(&self, device: u32) -> Option<Arc<SiteSender>> {
        self.state().senders.get(&device).cloned()
    }

    /// Notes that a packet could not be sent.
    pub(super) fn unsent(&self, why: impl std::fmt::Display) {
        let mut state = self.state();
        state.unsent.0 += 1;
        state.unsent.1 = why.to_string();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two packets leaves whole tables behind: counters at the worst are one short.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
