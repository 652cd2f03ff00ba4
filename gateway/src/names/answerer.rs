//! Answers what other agents ask of this one as a router: looks up, waits until what was found is open here, and answers.
//!
//! Who asks is known by the address that WireGuard has checked. Bounds are those of one asker and of all: a question beyond them is
//! dropped, and asked again.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;

use super::gate::{Gate, Side};
use super::question::{self, Question};
use super::tally::{Came, Tally};
use super::watcher::{AGAIN, Ask};
use super::{Answer, Wanted, is_domain};
use crate::overlay::{Heard, Questions};

/// Questions that are worked on at the same time.
const AT_ONCE: usize = 256;
/// Of one asker.
const OF_ONE: usize = 16;
/// How long a name is waited for: for a bit longer than it is looked up, so that what was known of it is there then.
const LOOK: Duration = Duration::from_millis(5500);
/// Questions of one asker at once, after a while without any.
const BURST: f64 = 100.0;
/// Questions of one asker a second after that.
const RATE: f64 = 20.0;
/// Askers that are remembered for it.
const ASKERS: usize = 8192;

/// Answers for as long as it runs.
pub struct Answerer {
    questions: Arc<Questions>,
    heard: mpsc::Receiver<Heard>,
    wanted: watch::Receiver<Option<Wanted>>,
    /// Whether it holds now who may ask; `None` until that is known.
    heeds: watch::Receiver<Option<bool>>,
    tally: Arc<Tally>,
    worker: Worker,
    askers: HashMap<Ipv6Addr, Budget>,
    /// What is worked on.
    under_way: BTreeSet<(Ipv6Addr, u64)>,
    /// The same by the tasks that do it.
    of_task: HashMap<task::Id, (Ipv6Addr, u64)>,
    work: JoinSet<()>,
}

/// What one answer takes.
#[derive(Clone)]
struct Worker {
    ask: mpsc::Sender<Ask>,
    gate: Gate,
}

/// How many questions an asker may ask now.
struct Budget {
    left: f64,
    since: Instant,
}

impl Answerer {
    pub(super) fn new(
        questions: Arc<Questions>,
        heard: mpsc::Receiver<Heard>,
        (wanted, heeds): (watch::Receiver<Option<Wanted>>, watch::Receiver<Option<bool>>),
        ask: mpsc::Sender<Ask>,
        gate: Gate,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            questions,
            heard,
            wanted,
            heeds,
            tally,
            worker: Worker { ask, gate },
            askers: HashMap::new(),
            under_way: BTreeSet::new(),
            of_task: HashMap::new(),
            work: JoinSet::new(),
        }
    }

    /// Runs until nobody can ask any more.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                heard = self.heard.recv() => match heard {
                    Some(heard) => self.hear(heard),
                    None => return,
                },
                Some(done) = self.work.join_next_with_id() => self.done(done),
            }
        }
    }

    fn hear(&mut self, heard: Heard) {
        // It is asked again.
        let Some(heeds) = *self.heeds.borrow() else { return };
        let of = (heard.from, heard.id);
        if self.under_way.contains(&of) {
            return self.questions.wait(&heard);
        }
        let of_one = self.under_way.range((heard.from, 0)..=(heard.from, u64::MAX)).count();
        let is_crowded = of_one >= OF_ONE || self.under_way.len() >= AT_ONCE;
        if is_crowded || !self.may_ask_more(heard.from) {
            return self.tally.note(Came::Limited);
        }
        let Some(question) = question::decode(&heard.body) else {
            return self.tally.note(Came::Malformed);
        };
        if !heeds || !self.may_ask(heard.from, &question.resource) || !is_domain(&question.name) {
            return self.refuse(&heard, &question);
        }
        let (worker, questions, tally) = (self.worker.clone(), self.questions.clone(), self.tally.clone());
        self.begin(of, async move {
            let (came, answer) = worker.answer(&question).await;
            tally.note(came);
            questions.answer(&heard, &answer);
        });
    }

    fn begin(&mut self, of: (Ipv6Addr, u64), work: impl Future<Output = ()> + Send + 'static) {
        self.under_way.insert(of);
        let task = self.work.spawn(work).id();
        self.of_task.insert(task, of);
    }

    /// Makes room where work came to an end, or broke down.
    fn done(&mut self, done: Result<(task::Id, ()), JoinError>) {
        let task = match done {
            Ok((task, ())) => task,
            Err(broken) => {
                tracing::error!("a question was not answered: {broken}");
                broken.id()
            }
        };
        if let Some(of) = self.of_task.remove(&task) {
            self.under_way.remove(&of);
        }
    }

    fn refuse(&self, heard: &Heard, question: &Question) {
        self.tally.note(Came::Refused);
        self.questions.answer(heard, &plain(question, ResponseCode::Refused));
    }

    fn may_ask(&self, who: Ipv6Addr, resource: &str) -> bool {
        let wanted = self.wanted.borrow();
        let askers = wanted.as_ref().and_then(|wanted| wanted.askers.get(resource));
        askers.is_some_and(|askers| askers.contains(&who))
    }

    /// Takes a question from an asker's budget; whether there was one.
    fn may_ask_more(&mut self, who: Ipv6Addr) -> bool {
        let now = Instant::now();
        if self.askers.len() >= ASKERS && !self.askers.contains_key(&who) {
            self.askers.retain(|_, budget| budget.at(now) < BURST);
            if self.askers.len() >= ASKERS {
                return false;
            }
        }
        let budget = self.askers.entry(who).or_insert(Budget { left: BURST, since: now });
        let left = budget.at(now);
        let may = left >= 1.0;
        *budget = Budget { left: if may { left - 1.0 } else { left }, since: now };
        may
    }
}

impl Budget {
    fn at(&self, now: Instant) -> f64 {
        (self.left + now.saturating_duration_since(self.since).as_secs_f64() * RATE).min(BURST)
    }
}

impl Worker {
    async fn answer(&self, question: &Question) -> (Came, Vec<u8>) {
        let Some(is_v6) = question::family(&question.query) else {
            return (Came::Nothing, plain(question, ResponseCode::NoError));
        };
        let failed = || (Came::Failed, plain(question, ResponseCode::ServFail));
        let (answer, answers) = oneshot::channel();
        let (resource, name) = (question.resource.clone(), question.name.clone());
        if self.ask.send(Ask::Name { resource, name, answer }).await.is_err() {
            return failed();
        }
        let answers = match tokio::time::timeout(LOOK, answers).await {
            Ok(Ok(Some(answers))) => answers,
            Ok(Ok(None)) => return (Came::Refused, plain(question, ResponseCode::Refused)),
            // It found no room among others, or others keep it waiting.
            Ok(Err(_)) | Err(_) => return failed(),
        };
        let is_nowhere = answers.iter().all(|answer| matches!(answer, Answer::Nothing { exists: false, .. }));
        let [v4, v6] = answers;
        match if is_v6 { v6 } else { v4 } {
            Answer::Addresses { addresses, ttl } => self.open(question, addresses, ttl).await,
            Answer::Nothing { .. } if is_nowhere => (Came::Nothing, plain(question, ResponseCode::NXDomain)),
            Answer::Nothing { .. } => (Came::Nothing, plain(question, ResponseCode::NoError)),
            Answer::Failed(_) => failed(),
        }
    }

    /// Waits until the addresses are open here, and answers with those that are.
    async fn open(&self, question: &Question, addresses: BTreeSet<IpAddr>, ttl: Duration) -> (Came, Vec<u8>) {
        let begun = Instant::now();
        let say_again = async {
            loop {
                tokio::time::sleep(AGAIN).await;
                // Nobody listening is nobody who waits.
                let _ = self.ask.send(Ask::Again).await;
            }
        };
        let open = tokio::select! {
            open = self.gate.pass(Side::Routed, &question.resource, &addresses) => open,
            open = say_again => open,
        };
        match open.is_empty() {
            true => (Came::Late, plain(question, ResponseCode::ServFail)),
            false => {
                let left = ttl.saturating_sub(begun.elapsed());
                (Came::Answered, question::answer(&question.query, ResponseCode::NoError, &open, left))
            }
        }
    }
}

/// An answer without addresses.
fn plain(question: &Question, code: ResponseCode) -> Vec<u8> {
    question::answer(&question.query, code, &BTreeSet::new(), Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::super::gate::Gate;
    use super::*;

    #[tokio::test]
    async fn work_that_breaks_down_makes_room_as_work_that_ends_does() {
        let (questions, heard) = Questions::new();
        let (_wanted, wanted) = watch::channel(None);
        let (_heeds, heeds) = watch::channel(Some(true));
        let (ask, _asks) = mpsc::channel(1);
        let (gate, _checks) = Gate::new();
        let tally = Arc::<Tally>::default();
        let mut answerer = Answerer::new(questions, heard, (wanted, heeds), ask, gate, tally);
        let asker: Ipv6Addr = "fd5c::3".parse().unwrap();
        answerer.begin((asker, 1), async { panic!("the test breaks it") });
        answerer.begin((asker, 2), async {});
        assert_eq!((answerer.under_way.len(), answerer.of_task.len()), (2, 2));
        while let Some(done) = answerer.work.join_next_with_id().await {
            answerer.done(done);
        }
        assert_eq!((answerer.under_way.len(), answerer.of_task.len()), (0, 0));
    }
}
