//! Turns changes of the store into what agents are to enforce: one task, so that changes take effect in order.
//!
//! The first change after a quiet time is compiled at once; those that come while a compilation runs share the next one.
//! What cannot be compiled changes nothing: agents keep the images they have, and the reason is shown.

mod ends;
mod overlay;
mod plan;
mod resolver;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::flows::{Directory, Flows};
use crate::hub::{Hub, Roster};
use crate::ids::now;
use crate::metrics::Metrics;
use crate::store::{Reading, Store, StoreError};
use plan::Plan;
pub use plan::shared_out;

/// Two compilations do not begin within this time: a burst of changes does not keep a core busy on its own.
const GAP: Duration = Duration::from_millis(5);
/// A store that could not be read is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is asked whether it is time to read the whole state, in case that what was followed is not what is there.
const CHECK: Duration = Duration::from_secs(60);
/// The clock is looked at again after this, in case it was set.
const CLOCK: Duration = Duration::from_secs(60);

/// The driver's parts.
pub struct Driver {
    store: Store,
    hub: Arc<Hub>,
    flows: Arc<Flows>,
    metrics: Metrics,
    reading: Reading,
    directory: Arc<Directory>,
    /// The peers of the state looked at last, and of which agents and networks they are.
    roster: Option<(plan::RosterOf, Arc<Roster>)>,
    /// The state that the published images stand for.
    published: Option<Arc<Plan>>,
    /// The last revision looked at, compiled or not.
    seen: u64,
    /// When something in it ends by the clock, Unix milliseconds.
    ends_at: Option<i64>,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("the state could not be read: {0}")]
    Store(#[from] StoreError),
    #[error("revision {revision} of the policies could not be compiled: {reason}")]
    Compile { revision: u64, reason: String },
}

impl Driver {
    /// A driver over these parts.
    pub fn new(store: Store, hub: Arc<Hub>, flows: Arc<Flows>, metrics: Metrics) -> Self {
        let reading = Reading::new();
        let (directory, roster) = Default::default();
        Self {
            store,
            hub,
            flows,
            metrics,
            reading,
            directory,
            roster,
            published: None,
            seen: 0,
            ends_at: None,
        }
    }

    /// Runs until the store is gone. Every part of this may be dropped at any await.
    pub async fn run(mut self) {
        let mut changes = self.store.changes();
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let started = tokio::time::Instant::now();
            let revision = *changes.borrow_and_update();
            self.metrics.store_revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
            let outcome = self.round(revision).await;
            if let Err(error) = &outcome {
                tracing::error!(%error, "agents keep the images they have");
                self.hub.compilation_failed(error.to_string());
            }
            let unread = matches!(outcome, Err(RoundError::Store(_)));
            let ends = self.ends_at.filter(|_| !unread);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.hub.newcomer() => {}
                () = tokio::time::sleep(RETRY), if unread => {}
                () = tokio::time::sleep(until(ends)), if ends.is_some() => {}
                _ = check.tick() => self.check().await,
            }
            tokio::time::sleep_until(started + GAP).await;
        }
    }

    /// Brings every agent up to the store's revision, or only the new ones when nothing else has changed.
    async fn round(&mut self, revision: u64) -> Result<(), RoundError> {
        // A break-glass policy ends by the clock: whether that can be written as well, and by whom, is another matter.
        let ended = self.ends_at.is_some_and(|until| until <= now());
        if self.published.is_none() || self.seen < revision || ended {
            return self.follow().await;
        }
        let Some(plan) = self.published.clone() else { return Ok(()) };
        let newcomers = self.hub.to_compile(true);
        if newcomers.is_empty() {
            return Ok(());
        }
        let revision = plan.revision;
        let targets = blocking(revision, move || Ok(plan.targets(None, newcomers))).await?;
        self.hub.publish(revision, targets, false);
        Ok(())
    }

    /// Holds what is kept of the state against the store, now and then. What differs is compiled at once.
    async fn check(&mut self) {
        match self.reading.check(&self.store).await {
            Ok(None) => {}
            Ok(Some(difference)) => {
                self.metrics.state_differed.inc();
                self.seen = 0;
                tracing::error!(
                    difference,
                    "what control kept of the account was not what is in the store: a change was not seen, and is \
                     enforced from now on; please report this"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "the whole state could not be read, to hold what is kept against it")
            }
        }
    }

    /// Reads the state; peers that are no longer in it lose their streams before anything is compiled.
    async fn follow(&mut self) -> Result<(), RoundError> {
        let started = Instant::now();
        let snapshot = self.reading.read(&self.store).await?;
        self.metrics.read_seconds.observe(started.elapsed().as_secs_f64());
        let revision = snapshot.revision;
        let of = plan::RosterOf::new(&snapshot);
        let roster = match self.roster.take() {
            Some((same, roster)) if same.is_same(&of) => roster,
            _ => Arc::new(plan::roster(&snapshot)),
        };
        self.hub.set_roster(roster.clone(), revision);
        self.roster = Some((of, roster));
        self.seen = revision;
        self.ends_at = snapshot.ends_at();

        let (agents, before) = (self.hub.to_compile(false), self.published.clone());
        let started = Instant::now();
        let (flows, directory) = (self.flows.clone(), self.directory.clone());
        let compile = move || {
            // Whoever enforces this state may tell of its flows at once: they are named by it.
            let directory = Arc::new(directory.after(&snapshot.state));
            flows.set_directory(directory.clone());
            flows.set_log(&snapshot.flow_log, &snapshot.state);
            let plan = Plan::new(snapshot, before.as_deref())?;
            let targets = plan.targets(before.as_deref(), agents);
            Ok((Arc::new(plan), targets, directory))
        };
        let (plan, targets, directory) = blocking(revision, compile).await?;
        self.metrics.compile_seconds.observe(started.elapsed().as_secs_f64());
        self.hub.publish(revision, targets, true);
        self.directory = directory;
        self.published = Some(plan);
        Ok(())
    }
}

/// How long to sleep for a time in Unix milliseconds.
fn until(at: Option<i64>) -> Duration {
    let left = at.map_or(0, |at| at.saturating_sub(now()).max(0));
    Duration::from_millis(left.unsigned_abs()).min(CLOCK)
}

async fn blocking<T: Send + 'static>(
    revision: u64,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, RoundError> {
    let done = tokio::task::spawn_blocking(work).await;
    let failed = |reason| RoundError::Compile { revision, reason };
    done.map_err(|panicked| failed(panicked.to_string()))?.map_err(failed)
}
