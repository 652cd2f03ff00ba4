//! Policy files: what the account has as one, what a file would change, and its application as one transaction with its
//! tests; revisions, and bringing them back.
//!
//! A plan is the application itself, in a transaction that is never made: so it says what the application would say.

mod asked;
mod carry;
mod current;
pub mod glass;
pub mod http;
mod plan;
mod posture;
mod queue;
pub mod suggest;
pub mod traffic;

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use sluicegate_policy::Compiler;
use sluicegate_policy::file::{self, FileError, Item, PolicyFile, Prune, Test};
use sluicegate_policy::reach::{self, Checked};

use crate::flows::{FlowRecord, Flows};
use crate::geo::Places;
use crate::hub::Hub;
use crate::store::{Actor, FlowLog, PolicyRevision, RevisionKind, Snapshot, Store, StoreError};
use carry::{Stopped, carry_out};
use current::Current;
pub use plan::{GatewayPlan, Plan, PlannedChange};
pub use posture::Turns;
pub(crate) use queue::Queue;

/// What policy files need of control; clones share it.
#[derive(Clone)]
pub struct Files {
    pub(crate) store: Store,
    pub(crate) hub: Arc<Hub>,
    pub(crate) flows: Arc<Flows>,
    pub(crate) places: Places,
    pub(crate) plans: Arc<Queue>,
}

/// What the account is to become.
pub(crate) enum Wish {
    /// What a file says; what it does not name is left, or goes as `Prune` has it.
    File {
        /// The file.
        text: String,
        /// What happens to the rest.
        prune: Prune,
    },
    /// What an earlier revision was.
    Revision(i64),
}

/// Why nothing was planned or applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The file makes no sense, or uses what is not there.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something could not be done.
    #[error("{at}: {cause}")]
    Stopped {
        /// On what.
        at: String,
        /// Why.
        cause: StoreError,
    },
    /// What it was planned for is not there any more.
    #[error(
        "the account's policies are not what this was planned for (now {now}): somebody changed them meanwhile; plan again"
    )]
    Moved {
        /// The version now.
        now: String,
    },
    /// A test does not hold.
    #[error("{} of {} tests fail; nothing was written", .0.iter().filter(|test| !test.holds).count(), .0.len())]
    Tests(Vec<Checked>),
    /// A revision that was kept makes no sense as a file.
    #[error(
        "revision {number} was kept, and cannot be read as a policy file, so nobody knows which tests are in force: {error}"
    )]
    Unreadable {
        /// Its number.
        number: i64,
        /// Why.
        error: FileError,
    },
    /// The outcome makes no sense as a file.
    #[error("nothing was written: with it, the account could not be read as a policy file again: {0}")]
    Unwritable(FileError),
    /// The outcome cannot be compiled for some agent.
    #[error("nothing is written: agents could not be given what would come of it: {0}")]
    Images(String),
    /// The outcome cannot be compiled.
    #[error("the policies could not be compiled: {0}")]
    Compile(String),
    /// There is nothing to suggest from.
    #[error(
        "nothing can be suggested: {}; let them come for as long as the suggestion is to cover",
        crate::flows::OFF
    )]
    FlowsOff,
    /// Too many plan at the same time.
    #[error("too many plans are being worked out now; nothing was changed: plan again in a moment")]
    Busy,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Stopped> for Refusal {
    fn from(stopped: Stopped) -> Self {
        Refusal::Stopped { at: stopped.at, cause: stopped.cause }
    }
}

/// A change as it was carried out in a transaction.
pub(crate) struct Carried {
    pub(crate) before: Snapshot,
    pub(crate) after: Snapshot,
    /// Of the state before.
    pub(crate) version: String,
    pub(crate) changes: Vec<file::Change>,
    pub(crate) posture: Turns,
    pub(crate) checked: Vec<Checked>,
    pub(crate) remarks: Vec<String>,
    /// Names of the policies that the file does not name, and that stay.
    pub(crate) left_alone: Vec<String>,
    /// The number under which the outcome was kept; none when nothing was written.
    pub(crate) revision: Option<i64>,
}

/// How an application is bound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    /// The version of the account's policies that it was planned for.
    pub(crate) expected: Option<String>,
    /// What the actor says about it.
    pub(crate) message: String,
    /// Whether tests that fail are only reported.
    pub(crate) despite_tests: bool,
}

/// What is going on while a change is looked at.
pub(crate) struct Now {
    /// Flow events, oldest first.
    records: Vec<Arc<FlowRecord>>,
    /// Of which flows there are events.
    log: FlowLog,
    /// Live flows as gateways count them.
    reported: u64,
}

/// How many failures of each claim are named.
const EXAMPLES: usize = 5;

impl Files {
    /// Does it, and takes it back.
    pub(crate) async fn try_out(&self, actor: &Actor, wish: &Wish) -> Result<Carried, Refusal> {
        let unit = self.store.unit().await?;
        let bounds = Bounds { despite_tests: true, ..Bounds::default() };
        unit.run(self.carry(actor, wish, &bounds)).await
    }

    /// Does it.
    pub(crate) async fn apply(
        &self,
        actor: &Actor,
        wish: &Wish,
        bounds: &Bounds,
    ) -> Result<Carried, Refusal> {
        let unit = self.store.unit().await?;
        let carried = unit.run(self.carry(actor, wish, bounds)).await?;
        // What agents cannot be given must not be written: they would keep what they have, and nobody who asked would know.
        let compiled = tokio::task::spawn_blocking(move || compiles(&carried).map(|()| carried)).await;
        let carried = compiled.unwrap_or_else(|error| Err(Refusal::Compile(error.to_string())))?;
        unit.commit().await?;
        Ok(carried)
    }

    /// The account as a file, its tests included, and its version.
    pub(crate) async fn export(&self) -> Result<(String, String), Refusal> {
        let unit = self.store.unit().await?;
        let (file, _) = unit.run(self.whole()).await?;
        let text = file::write(&file.file);
        let version = version(&text);
        Ok((text, version))
    }

    /// The tests of the last revision, judged as things are.
    pub(crate) async fn check(&self) -> Result<Vec<Checked>, Refusal> {
        let unit = self.store.unit().await?;
        let (current, snapshot) = unit
            .run(async {
                let (current, _) = self.whole().await?;
                Ok::<_, Refusal>((current, self.store.snapshot().await?))
            })
            .await?;
        drop(unit);
        let policies = current.policies.values();
        let glass =
            policies.filter(|policy| policy.break_glass.is_some()).map(|policy| policy.id.clone()).collect();
        judge(snapshot, glass, current.file.tests).await
    }

    /// What was heard of flows.
    pub(crate) fn now(&self) -> Now {
        let gateways = self.hub.gateways();
        let reported = gateways.iter().filter_map(|id| self.hub.overview(id).reported);
        let reported = reported.fold(0_u64, |sum, reported| sum.saturating_add(reported.health.flows));
        Now { records: self.flows.recent(), reported, log: self.flows.log() }
    }

    /// The account with the tests kept last, and the last revision.
    async fn whole(&self) -> Result<(Current, Option<PolicyRevision>), Refusal> {
        let mut current = Current::read(&self.store).await?;
        let last = self.store.last_policy_revision().await?;
        if let Some(last) = &last {
            let unreadable = |error| Refusal::Unreadable { number: last.number, error };
            current.file.tests = file::parse(&last.file).map_err(unreadable)?.tests;
        }
        Ok((current, last))
    }

    async fn carry(&self, actor: &Actor, wish: &Wish, bounds: &Bounds) -> Result<Carried, Refusal> {
        let store = &self.store;
        let (current, last) = self.whole().await?;
        let before_text = file::write(&current.file);
        let version = version(&before_text);
        if let Some(expected) = &bounds.expected
            && *expected != version
        {
            return Err(Refusal::Moved { now: version });
        }
        let (mut wanted, prune, kind) = self.wanted(&current, wish).await?;
        let mut remarks = carry::provided(&mut wanted, &current);
        remarks.extend(carry::unlimited(&mut wanted, &current));
        if let Wish::Revision(number) = wish
            && wanted.posture_checks.is_none()
        {
            remarks.push(format!(
                "revision {number} does not say what posture checks asked for: their definitions stay as they are"
            ));
        }
        let before = store.snapshot().await?;
        let failing = store.failing(None).await?;
        let changes = file::differences(&current.file, &wanted, prune);
        self.can_be_located(wish, &wanted, &changes)?;
        remarks.extend(carry_out(store, actor, &current, &wanted, &changes).await?);
        let after = store.snapshot().await?;
        let posture = Turns::between(&failing, &store.failing(None).await?, &after.state);
        let mut outcome = Current::read(store).await?;
        outcome.file.tests.clone_from(&wanted.tests);
        let policies = outcome.policies.values();
        let glass =
            policies.filter(|policy| policy.break_glass.is_some()).map(|policy| policy.id.clone()).collect();
        let checked = judge(after.clone(), glass, wanted.tests.clone()).await?;
        if !bounds.despite_tests && checked.iter().any(|test| !test.holds) {
            return Err(Refusal::Tests(checked));
        }

        let after_text = file::write(&outcome.file);
        let mut revision = None;
        if after_text != before_text {
            // Its tests are read from it from now on.
            file::parse(&after_text).map_err(Refusal::Unwritable)?;
            // What was there is kept as well, or nobody could go back to it.
            if last.is_none_or(|last| last.file != before_text) {
                store.keep_policy_revision(actor, RevisionKind::Elsewhere, "", &before_text).await?;
            }
            revision = Some(store.keep_policy_revision(actor, kind, &bounds.message, &after_text).await?);
        }
        let named = |name: &String| wanted.policies.iter().any(|policy| policy.name == *name);
        let left_alone = outcome.policies.into_keys().filter(|name| !named(name)).collect();
        Ok(Carried { before, after, version, changes, posture, checked, remarks, left_alone, revision })
    }

    /// Refuses definitions that ask for a place where there is no geo database, as the REST interface does.
    fn can_be_located(
        &self,
        wish: &Wish,
        wanted: &PolicyFile,
        changes: &[file::Change],
    ) -> Result<(), FileError> {
        let Err(error) = self.places.database() else { return Ok(()) };
        let written = |name: &str| {
            let of = |change: &&file::Change| change.item == Item::PostureCheck && change.name == name;
            changes.iter().find(of).is_some_and(file::Change::writes)
        };
        let mut checks = wanted.posture_checks.iter().flatten().enumerate();
        let asks = |check: &file::PostureCheck| check.checks.location.is_some() && written(&check.name);
        let Some((index, check)) = checks.find(|(_, check)| asks(check)) else { return Ok(()) };
        // A revision is in no file of whoever asks for it.
        let text = if let Wish::File { text, .. } = wish { text } else { "" };
        let message = format!(
            "every machine would fail where posture check `{}` asks for a place: {error}",
            check.name
        );
        Err(file::problem_at(text, &format!("posture_checks/{index}/geo_location"), message))
    }

    /// What is wanted, as a file whose names all stand for something.
    async fn wanted(
        &self,
        current: &Current,
        wish: &Wish,
    ) -> Result<(PolicyFile, Prune, RevisionKind), Refusal> {
        let (text, mut wanted, prune, kind) = match wish {
            Wish::File { text, prune } => (text.clone(), file::parse(text)?, *prune, RevisionKind::Apply),
            Wish::Revision(number) => {
                let revision = self.store.policy_revision(*number).await?;
                let then = file::parse(&revision.file)
                    .map_err(|error| Refusal::Unreadable { number: *number, error })?;
                let wanted = carry::as_of(then, revision.at, current);
                (revision.file, wanted, Prune::Everything, RevisionKind::Rollback)
            }
        };
        file::unknown_names(&text, &wanted, &current.known())?;
        if let Wish::File { .. } = wish {
            file::unserved(&text, &wanted, &current.file)?;
        }
        if prune == Prune::Nothing {
            // What the file does not name stays, tests as well.
            let named = |test: &&Test| !wanted.tests.iter().any(|other| other.name == test.name);
            let kept: Vec<Test> = current.file.tests.iter().filter(named).cloned().collect();
            wanted.tests.splice(0..0, kept);
        }
        Ok((wanted, prune, kind))
    }
}

/// Judges tests with every break-glass policy off: those are for when things are not as they should be.
async fn judge(snapshot: Snapshot, glass: Vec<String>, tests: Vec<Test>) -> Result<Vec<Checked>, Refusal> {
    let judged = tokio::task::spawn_blocking(move || {
        let mut state = snapshot.state;
        for id in glass {
            if let Some(policy) = state.policies.get_mut(&id) {
                policy.enabled = false;
            }
        }
        // Nothing is asked: a state that cannot be compiled is shown elsewhere.
        if tests.is_empty() { Ok(Vec::new()) } else { reach::check(&state, &tests, EXAMPLES) }
    });
    match judged.await {
        Ok(judged) => judged.map_err(|error| Refusal::Compile(error.to_string())),
        Err(error) => Err(Refusal::Compile(error.to_string())),
    }
}

/// What tells one state of what files describe from another: the first 16 digits of SHA-256 in hex of it as a file.
fn version(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Compiles what every agent that the change concerns would get, as it will be once the change is made. One for which things could
/// not be compiled before is no reason to refuse what does not mend it.
fn compiles(carried: &Carried) -> Result<(), Refusal> {
    let prepare = |snapshot: &Snapshot| Compiler::new(Arc::new(snapshot.state.clone()));
    let after = prepare(&carried.after).map_err(|error| Refusal::Images(error.to_string()))?;
    let before = prepare(&carried.before).ok();
    let concerned: BTreeSet<Arc<str>> = match &before {
        Some(before) => after.affected(before),
        None => carried.after.agents.keys().map(|id| Arc::from(id.as_str())).collect(),
    };
    let concerned: Vec<Arc<str>> = concerned.into_iter().collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = concerned.len().div_ceil(threads).max(1);
    let failed = |agents: &[Arc<str>]| {
        agents.iter().find_map(|agent| {
            let error = after.compile(agent).err()?;
            let was_fine = before.as_ref().is_some_and(|before| before.compile(agent).is_ok());
            was_fine.then(|| error.to_string())
        })
    };
    let failed = &failed;
    let first = std::thread::scope(|scope| {
        let parts: Vec<_> = concerned.chunks(share).map(|part| scope.spawn(move || failed(part))).collect();
        parts
            .into_iter()
            .find_map(|part| part.join().unwrap_or_else(|_| Some("compiling it panicked".to_owned())))
    });
    first.map_or(Ok(()), |error| Err(Refusal::Images(error)))
}

/// Both states, ready to be compared, with stand-ins for addresses not known yet.
fn compilers(before: &Snapshot, after: &Snapshot) -> Result<[Compiler; 2], Refusal> {
    let (mut old, mut new) = (before.state.clone(), after.state.clone());
    reach::stand_in(&mut [&mut old, &mut new]);
    let prepare = |state| Compiler::new(Arc::new(state)).map_err(|error| Refusal::Compile(error.to_string()));
    Ok([prepare(old)?, prepare(new)?])
}
