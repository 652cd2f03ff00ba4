//! What others know of names, and tell of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::table::Table;
use super::{Lookups, Resolve, Row, Wanted, Watcher};
use crate::control::Outbox;

/// The agent's end.
pub struct Handle {
    table: Shared,
    wanted: watch::Sender<Option<Wanted>>,
    opened: Arc<Notify>,
    in_question: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    idle: watch::Sender<BTreeSet<IpAddr>>,
}

/// The table, of which each holds the lock for moments.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Table>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two ends. `wanted` is `None` until that is known, and nothing is said of names before; `stood_for` is what resources stood
/// for when this agent last ran: flows that go on over a restart keep it.
pub fn start<R: Resolve>(
    resolver: R,
    wanted: Option<Wanted>,
    stood_for: BTreeMap<String, BTreeSet<IpAddr>>,
    outbox: Arc<Outbox>,
) -> (Handle, Watcher<R>) {
    let mut table = Table::new(stood_for);
    if let Some(wanted) = &wanted {
        table.want(wanted, Instant::now());
    }
    let table = Shared(Arc::new(Mutex::new(table)));
    let (wanted, wanted_now) = watch::channel(wanted);
    let (asked, in_question) = watch::channel(Arc::default());
    let (idle, idle_now) = watch::channel(BTreeSet::new());
    let opened = Arc::new(Notify::new());
    let watcher = Watcher::new(resolver, table.clone(), wanted_now, opened.clone(), asked, idle_now, outbox);
    (Handle { table, wanted, opened, in_question, idle }, watcher)
}

impl Handle {
    /// From now on this is to be looked up.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|now| {
            let differs = now.as_ref() != Some(&wanted);
            *now = Some(wanted);
            differs
        });
    }

    /// A stream to control has opened, which has not heard of names yet.
    pub fn stream_opened(&self) {
        self.opened.notify_one();
    }

    /// Takes where all live flows go, as of now. It is asked for only while an address stays just because of that.
    pub fn flows(&self, destinations: impl Iterator<Item = IpAddr>) {
        let asked = self.in_question.borrow().clone();
        if asked.is_empty() {
            return;
        }
        let mut idle = BTreeSet::clone(&asked);
        for destination in destinations {
            idle.remove(&destination);
        }
        if !idle.is_empty() {
            self.idle.send_replace(idle);
        }
    }

    /// Every name, and what it stands for.
    pub fn rows(&self) -> Vec<Row> {
        self.table.lock().rows()
    }

    /// How looks came out.
    pub fn lookups(&self) -> Lookups {
        self.table.lock().lookups()
    }

    /// Conditions a person should know of, each a sentence; a bounded number.
    pub fn degraded(&self) -> Vec<String> {
        self.table.lock().trouble()
    }
}
