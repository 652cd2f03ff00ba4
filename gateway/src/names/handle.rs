//! What others know of names, and tell of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::answerer::Answerer;
use super::asker::{Asker, Routers};
use super::gate::{Check, Gate};
use super::table::Table;
use super::tally::Tally;
use super::{Below, Lookups, Resolve, Row, Wanted, Watcher};
use crate::control::Outbox;
use crate::overlay::{Heard, Questions};

/// Names that somebody waits for, on their way to who looks them up.
const ASKS: usize = 64;

/// The agent's end.
pub struct Handle {
    table: Shared,
    wanted: watch::Sender<Option<Wanted>>,
    opened: Arc<Notify>,
    in_question: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    idle: watch::Sender<BTreeSet<IpAddr>>,
    routers: watch::Sender<Routers>,
    heeds: watch::Sender<Option<bool>>,
    heard: Arc<Tally>,
    asker: Asker,
    questions: Arc<Questions>,
}

/// What runs, each for as long as somebody wants anything.
pub struct Tasks<R> {
    /// Looks names up.
    pub watcher: Watcher<R>,
    /// Answers what other agents ask.
    pub answerer: Answerer,
    /// What answers wait for, for who knows what is open.
    pub checks: mpsc::Receiver<Check>,
}

/// What was known when this agent last ran: flows that go on over a restart keep it.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// What is to be looked up; `None` until that is known, and nothing is said of names before.
    pub wanted: Option<Wanted>,
    /// What resources stood for.
    pub stood_for: BTreeMap<String, BTreeSet<IpAddr>>,
    /// What was asked for below wildcards.
    pub below: Below,
}

/// The table, of which each holds the lock for moments.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Table>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agent's end, and what runs. Questions of others come by `heard`.
pub fn start<R: Resolve>(
    resolver: R,
    before: Before,
    (questions, heard): (Arc<Questions>, mpsc::Receiver<Heard>),
    outbox: Arc<Outbox>,
) -> (Handle, Tasks<R>) {
    let Before { wanted, stood_for, below } = before;
    let mut table = Table::new(stood_for, below);
    if let Some(wanted) = &wanted {
        table.want(wanted, Instant::now());
    }
    let table = Shared(Arc::new(Mutex::new(table)));
    let (wanted, wanted_now) = watch::channel(wanted);
    let (in_doubt, in_question) = watch::channel(Arc::default());
    let (idle, idle_now) = watch::channel(BTreeSet::new());
    let (routers, routers_now) = watch::channel(Routers::default());
    let (ask, asks) = mpsc::channel(ASKS);
    let (gate, checks) = Gate::new();
    let opened = Arc::new(Notify::new());
    let watcher = Watcher::new(
        resolver,
        table.clone(),
        wanted_now.clone(),
        opened.clone(),
        (in_doubt, idle_now),
        asks,
        outbox,
    );
    let tally = Arc::<Tally>::default();
    let (heeds, heeds_now) = watch::channel(None);
    let who_may_ask = (wanted_now, heeds_now);
    let answerer = Answerer::new(questions.clone(), heard, who_may_ask, ask, gate.clone(), tally.clone());
    let asker = Asker::new(questions.clone(), routers_now, gate);
    let heard = tally;
    let handle = Handle { table, wanted, opened, in_question, idle, routers, heeds, heard, asker, questions };
    (handle, Tasks { watcher, answerer, checks })
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

    /// Whether what control said of who may ask holds now. Until this is said, others are not heard; where it does not, nobody may ask.
    pub fn heed_askers(&self, holds: bool) {
        self.heeds.send_if_modified(|now| now.replace(holds) != Some(holds));
    }

    /// A stream to control has opened, which has not heard of names yet.
    pub fn stream_opened(&self) {
        self.opened.notify_one();
    }

    /// Takes where all live flows go, as of now: an address may stay just because of that, and what was asked for makes room without.
    pub fn flows(&self, destinations: impl Iterator<Item = IpAddr>) {
        let in_question = self.in_question.borrow().clone();
        let asked_for = self.table.lock().asked_for();
        if in_question.is_empty() && asked_for.is_empty() {
            return;
        }
        let mut idle = BTreeSet::clone(&in_question);
        let mut in_use = HashSet::new();
        for destination in destinations {
            idle.remove(&destination);
            if asked_for.contains(&destination) {
                in_use.insert(destination);
            }
        }
        self.table.lock().note_flows(&in_use, Instant::now());
        if !idle.is_empty() {
            self.idle.send_replace(idle);
        }
    }

    /// Every name, and what it stands for.
    pub fn rows(&self) -> Vec<Row> {
        self.table.lock().rows()
    }

    /// From now on names are asked of these.
    pub fn ask_of(&self, routers: Routers) {
        self.routers.send_if_modified(|now| {
            let differs = *now != routers;
            *now = routers;
            differs
        });
    }

    /// Asks routers for names.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// What is looked up because others asked for it, to be remembered over a restart.
    pub fn below(&self) -> Below {
        self.table.lock().below()
    }

    /// How questions came out: those asked of routers, and those that other agents asked.
    pub fn asked(&self) -> [Vec<(&'static str, u64)>; 2] {
        let mut heard = self.heard.all();
        let (malformed, lost) = (self.questions.malformed(), self.questions.lost());
        for (name, count) in &mut heard {
            match *name {
                "malformed" => *count += malformed,
                "limited" => *count += lost,
                _ => {}
            }
        }
        heard.retain(|(name, _)| *name != "silent");
        let mut asked = self.asker.tally();
        asked.retain(|(name, _)| *name != "malformed");
        [asked, heard]
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
