//! Looks names up for as long as it runs, and tells control.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use sluicegate_api::agent::Learned;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::handle::Shared;
use super::table::Found;
use super::{Answer, Answers, Resolve, Wanted};
use crate::control::Outbox;
use crate::system;

/// Names that are looked up at the same time; and as many that somebody waits for.
const AT_ONCE: usize = 32;
/// How long a name is looked up that somebody waits for.
const LOOK: Duration = Duration::from_secs(5);
/// Reports of what somebody waits for are at least this far apart.
const SOON: Duration = Duration::from_millis(100);
/// The same of what control was told already and has not opened: it may not have taken it.
pub(super) const AGAIN: Duration = Duration::from_millis(400);
/// Between looks at what is due; and other reports are at least this far apart.
const TICK: Duration = Duration::from_secs(1);
/// Control is told at least this often, for it may have been unable to take it.
const REPEAT: Duration = Duration::from_secs(60);
/// Between looks at the files by which names are looked up.
const REVIEW: Duration = Duration::from_secs(5);

/// What somebody waits for.
pub(super) enum Ask {
    /// What a name of a resource stands for; `None` where the resource has no such name.
    Name { resource: String, name: String, answer: oneshot::Sender<Option<Answers>> },
    /// What was found is not open yet: control may not have taken it in.
    Again,
}

/// Looks names up for as long as it runs.
pub struct Watcher<R> {
    resolver: Arc<R>,
    table: Shared,
    wanted: watch::Receiver<Option<Wanted>>,
    opened: Arc<Notify>,
    in_question: watch::Sender<Arc<BTreeSet<IpAddr>>>,
    idle: watch::Receiver<BTreeSet<IpAddr>>,
    asks: mpsc::Receiver<Ask>,
    outbox: Arc<Outbox>,
    /// Names to be looked up as soon as there is room.
    waiting: VecDeque<String>,
    looks: JoinSet<(String, Answers)>,
    /// Those that somebody waits for, as the two above.
    asked: VecDeque<String>,
    asked_looks: JoinSet<(String, Answers)>,
    /// Who waits for a name.
    waiters: HashMap<String, Vec<oneshot::Sender<Option<Answers>>>>,
    reviewed: Option<Instant>,
    /// What control was told last.
    told: Learned,
    told_at: Option<Instant>,
    /// Whether something may be different from what it was told.
    news: bool,
    /// How far apart reports are, where somebody waits for control to be told.
    soon: Option<Duration>,
    /// Whether it is to be told in any case.
    again: bool,
}

impl<R: Resolve> Watcher<R> {
    pub(super) fn new(
        resolver: R,
        table: Shared,
        wanted: watch::Receiver<Option<Wanted>>,
        opened: Arc<Notify>,
        (in_question, idle): (watch::Sender<Arc<BTreeSet<IpAddr>>>, watch::Receiver<BTreeSet<IpAddr>>),
        asks: mpsc::Receiver<Ask>,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            resolver: Arc::new(resolver),
            table,
            wanted,
            opened,
            in_question,
            idle,
            asks,
            outbox,
            waiting: VecDeque::new(),
            looks: JoinSet::new(),
            asked: VecDeque::new(),
            asked_looks: JoinSet::new(),
            waiters: HashMap::new(),
            reviewed: None,
            told: Learned::default(),
            told_at: None,
            news: true,
            soon: None,
            again: false,
        }
    }

    /// Runs until nobody wants anything any more.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pause = self.soon.unwrap_or(TICK);
            let soon = self.told_at.map_or_else(Instant::now, |last| last + pause);
            tokio::select! {
                _ = ticks.tick() => self.tick().await,
                () = tokio::time::sleep_until(soon), if self.soon.is_some() => {}
                wanted = self.wanted.changed() => {
                    if wanted.is_err() {
                        return;
                    }
                    self.want().await;
                }
                Some(done) = self.looks.join_next() => {
                    // A look comes to an end by itself, whatever happens in it.
                    if let Ok((name, answers)) = done {
                        self.answered(&name, answers);
                    }
                }
                Some(done) = self.asked_looks.join_next() => {
                    if let Ok((name, answers)) = done {
                        self.answered(&name, answers);
                    }
                }
                Some(ask) = self.asks.recv() => self.ask(ask),
                () = self.opened.notified() => self.again = true,
                Ok(()) = self.idle.changed() => self.let_go(),
            }
            self.look();
            self.tell();
        }
    }

    async fn want(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone().unwrap_or_default();
        self.table.lock().want(&wanted, Instant::now());
        self.news = true;
        self.tick().await;
    }

    async fn tick(&mut self) {
        let may_look = self.table.lock().may_look();
        if may_look && self.reviewed.is_none_or(|last| last.elapsed() >= REVIEW) {
            if self.resolver.renewed().await && self.reviewed.is_some() {
                tracing::info!("names are looked up anew: resolv.conf or the hosts file is another one");
                self.table.lock().look_again(Instant::now());
            }
            self.reviewed = Some(Instant::now());
        }
        self.waiting.extend(self.table.lock().take_due(Instant::now()));
        // What has been held for too long goes also where nobody answers for flows.
        self.news |= self.table.lock().let_go(&BTreeSet::new(), Instant::now());
        self.ask_for_flows();
    }

    fn ask(&mut self, ask: Ask) {
        let Ask::Name { resource, name, answer } = ask else {
            self.again = true;
            return self.hurry(AGAIN);
        };
        let found = self.table.lock().ask(&resource, &name, Instant::now());
        match found {
            // Who does not wait any more needs no answer.
            Found::NotOurs => drop(answer.send(None)),
            Found::NoRoom => drop(answer),
            Found::Known(answers) => {
                drop(answer.send(Some(answers)));
                // It may be another resource's from now on, too.
                self.news = true;
                self.hurry(SOON);
            }
            Found::Unknown { begins } => {
                self.waiters.entry(name.clone()).or_default().push(answer);
                if begins {
                    self.asked.push_back(name);
                }
            }
        }
    }

    /// Has control told at most this long after the last report.
    fn hurry(&mut self, pause: Duration) {
        self.soon = Some(self.soon.map_or(pause, |soon| soon.min(pause)));
    }

    /// Begins to look up what waits.
    fn look(&mut self) {
        for (waiting, looks, patience) in [
            (&mut self.asked, &mut self.asked_looks, LOOK),
            (&mut self.waiting, &mut self.looks, Duration::MAX),
        ] {
            while looks.len() < AT_ONCE
                && let Some(name) = waiting.pop_front()
            {
                if !self.table.lock().wants(&name) {
                    self.waiters.remove(&name);
                    continue;
                }
                let resolver = self.resolver.clone();
                looks.spawn(async move {
                    let look = AssertUnwindSafe(resolver.look(&name)).catch_unwind();
                    let why = match tokio::time::timeout(patience, look).await {
                        Ok(Ok(answers)) => return (name, answers),
                        Ok(Err(_)) => "the resolver broke down over the answer".to_owned(),
                        Err(_) => format!("no answer within {} s", patience.as_secs()),
                    };
                    (name, [Answer::Failed(why.clone()), Answer::Failed(why)])
                });
            }
        }
    }

    fn answered(&mut self, name: &str, answers: Answers) {
        let (now, unix_ms) = (Instant::now(), system::unix_ms());
        let sentences = self.table.lock().answer(name, answers, now, unix_ms, early());
        for sentence in sentences {
            tracing::warn!("{sentence}");
        }
        self.news = true;
        if let Some(waiters) = self.waiters.remove(name) {
            // What found no room is not known any more, and they hear nothing.
            let given = self.table.lock().given(name, now);
            for (waiter, given) in waiters.into_iter().zip(std::iter::repeat(given)) {
                let _ = given.map(|given| waiter.send(Some(given)));
            }
            self.hurry(SOON);
        }
        self.table.lock().forget_empty(name);
        self.ask_for_flows();
    }

    fn let_go(&mut self) {
        let idle = self.idle.borrow_and_update().clone();
        self.news |= self.table.lock().let_go(&idle, Instant::now());
        self.ask_for_flows();
    }

    fn ask_for_flows(&self) {
        let asked = self.table.lock().in_question(Instant::now());
        self.in_question.send_if_modified(|now| {
            let differs = **now != asked;
            if differs {
                *now = Arc::new(asked);
            }
            differs
        });
    }

    /// Tells control where there is something to tell, no more than once in a while.
    fn tell(&mut self) {
        let pause = self.soon.unwrap_or(TICK);
        let late = self.told_at.is_none_or(|last| last.elapsed() >= pause);
        let repeat = self.told_at.is_some_and(|last| last.elapsed() >= REPEAT) && self.table.lock().any();
        if !late || !(self.news || self.again || repeat) {
            return;
        }
        let Some(learned) = self.table.lock().learned() else {
            self.soon = None;
            return;
        };
        if self.again || repeat || learned != self.told {
            self.told_at = Some(Instant::now());
            self.told = learned.clone();
            self.outbox.learned(learned);
        }
        (self.news, self.soon, self.again) = (false, None, false);
    }
}

/// Between nine tenths and the whole: names that were wanted together do not come together for ever, and what is over is there anew
/// before it is.
fn early() -> f64 {
    // The standard library seeds each of these from the system's random numbers.
    let random = RandomState::new().build_hasher().finish();
    0.9 + (random % 1000) as f64 / 10_000.0
}
