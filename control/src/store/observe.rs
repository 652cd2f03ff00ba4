//! What the store shows of itself: how long its database takes, how it fails, and what this replica knows.

use std::time::Instant;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::{Result, StoreError};

/// 0.1 ms to 6.5 s, four times each step: SQLite's own times and a database far away both fall inside.
const SECONDS: [f64; 9] = [0.0001, 0.0004, 0.0016, 0.0064, 0.0256, 0.1024, 0.4096, 1.6384, 6.5536];

/// What was asked of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// A statement that only reads.
    Read,
    /// A statement that writes.
    Write,
    /// Waiting for a connection and beginning a transaction; of a change, also for its turn.
    Begin,
    /// Making a change durable.
    Commit,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Begin, Self::Commit];

    fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Begin => "begin",
            Self::Commit => "commit",
        }
    }
}

/// The store's instruments; [`crate::metrics::Metrics`] puts them on its page.
pub struct Observed {
    seconds: HistogramVec,
    errors: IntCounterVec,
    info: IntGaugeVec,
    /// Logins by password, by what came of them.
    pub(super) logins: IntCounterVec,
    /// Whether this replica does the work that one of them does.
    pub(super) leader: IntGauge,
    /// Replicas that have been heard of lately, this one included.
    pub(super) replicas: IntGauge,
    /// When another replica's notification came last, Unix seconds; 0 before the first.
    pub(super) notified: IntGauge,
    /// Changes that were found by looking, because no notification came.
    pub(super) polled: IntCounter,
}

impl Observed {
    /// Fresh instruments over a database of this kind.
    pub(crate) fn new(backend: &str) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("sluicegate_control_store_{name}"), help);
        let gauge = |name: &str, help: &str| IntGauge::with_opts(opts(name, help));
        let seconds = opts("operation_seconds", "Time that the store's database took, by kind of operation.");
        let seconds = HistogramOpts::from(seconds).buckets(SECONDS.to_vec());
        let observed = Self {
            seconds: HistogramVec::new(seconds, &["kind"])?,
            errors: IntCounterVec::new(
                opts("errors_total", "Operations that the store's database did not do, by kind of failure."),
                &["reason"],
            )?,
            info: IntGaugeVec::new(opts("info", "Always 1; the label says which database."), &["backend"])?,
            logins: IntCounterVec::new(
                Opts::new(
                    "sluicegate_control_password_logins_total",
                    "Logins by password: accepted, refused, or paused after too many.",
                ),
                &["result"],
            )?,
            leader: gauge("leader", "1 on the replica that does the work of which there is one.")?,
            replicas: gauge("replicas", "Replicas of control that share the store.")?,
            notified: gauge(
                "last_notification_timestamp_seconds",
                "When the database last told of a change, in Unix seconds; 0 before the first.",
            )?,
            polled: IntCounter::with_opts(opts(
                "polled_changes_total",
                "Changes of other replicas found by looking, because no notification came.",
            ))?,
        };
        for operation in Operation::ALL {
            observed.seconds.with_label_values(&[operation.label()]);
        }
        for reason in StoreError::REASONS {
            observed.errors.with_label_values(&[reason]).reset();
        }
        for result in ["accepted", "refused", "paused"] {
            observed.logins.with_label_values(&[result]).reset();
        }
        observed.info.with_label_values(&[backend]).set(1);
        observed.leader.set(1);
        observed.replicas.set(1);
        Ok(observed)
    }

    /// Everything that is to be registered.
    pub(crate) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.seconds.clone()),
            Box::new(self.errors.clone()),
            Box::new(self.info.clone()),
            Box::new(self.logins.clone()),
            Box::new(self.leader.clone()),
            Box::new(self.replicas.clone()),
            Box::new(self.notified.clone()),
            Box::new(self.polled.clone()),
        ]
    }

    /// Notes how an operation that began at `started` went.
    pub(super) fn done<T>(
        &self,
        operation: Operation,
        started: Instant,
        outcome: sqlx::Result<T>,
    ) -> Result<T> {
        self.seconds.with_label_values(&[operation.label()]).observe(started.elapsed().as_secs_f64());
        outcome.or_else(|error| self.failed(error))
    }

    /// Notes a failure.
    pub(super) fn failed<T>(&self, error: sqlx::Error) -> Result<T> {
        let error = StoreError::from(error);
        if let Some(reason) = error.reason() {
            self.errors.with_label_values(&[reason]).inc();
        }
        Err(error)
    }
}
