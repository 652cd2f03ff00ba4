//! Every number control shows at `/metrics`: names, help and labels in one place. Labels are bounded: never an address,
//! a name or an id. The list is frozen in `metrics/names.txt`.

mod http;

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use sluicegate_policy::posture::Kind;

pub use http::{count_requests, metrics_page};

use crate::store::{Failing, Observed, Turn};

/// Pushes, compilations and requests: 0.5 ms to 4 s, doubling; the targets (10 ms, 50 ms, 1 s) fall inside.
fn seconds() -> Vec<f64> {
    (0..14).map(|step| 0.0005 * f64::from(1u32 << step)).collect()
}

/// The instruments, each registered once. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Streams that are open, by role.
    pub connected_agents: IntGaugeVec,
    /// Streams ended, by reason.
    pub streams_ended: IntCounterVec,
    /// Images pushed, by kind (`snapshot`, `delta`).
    pub images_pushed: IntCounterVec,
    /// Encoded bytes of those.
    pub pushed_bytes: IntCounterVec,
    /// Agents that a change did not concern.
    pub images_unchanged: IntCounter,
    /// Network configurations pushed.
    pub networks_pushed: IntCounter,
    /// One reading of the account from the store, as far as it has changed.
    pub read_seconds: Histogram,
    /// Times at which what was kept of the account was not what is in the store.
    pub state_differed: IntCounter,
    /// One compilation of everything that a change concerns.
    pub compile_seconds: Histogram,
    /// Compilations that failed, or states that could not be read.
    pub compile_failures: IntCounter,
    /// From the moment an image is handed to the connection to the agent's acknowledgement.
    pub push_to_ack_seconds: Histogram,
    /// The agents' own account of how long applying took.
    pub apply_seconds: Histogram,
    /// Images refused by agents.
    pub refusals: IntCounter,
    /// The store's revision as last seen.
    pub store_revision: IntGauge,
    /// The store's revision as last compiled.
    pub compiled_revision: IntGauge,
    /// Enrolments, by result.
    pub enrolments: IntCounterVec,
    /// Logins of people for machines, by what became of them.
    pub machine_logins: IntCounterVec,
    /// Flow events received, by kind.
    pub flow_events: IntCounterVec,
    /// Flow events that agents report as lost before they reached control.
    pub flow_events_lost: IntCounter,
    /// Rows of sums of flow events written to the store.
    pub flow_sums_written: IntCounter,
    /// Flow events that are in no sum.
    pub flow_events_unfit: IntCounter,
    /// Flow events that slow watchers of the stream missed.
    pub flow_watch_lost: IntCounter,
    /// REST requests by route, method and status.
    pub http_requests: IntCounterVec,
    /// How long they took.
    pub http_seconds: HistogramVec,
    /// Break-glass policies that are on.
    pub break_glass_on: IntGauge,
    /// When the first of them ends; 0 while none is on.
    pub break_glass_until: Gauge,
    /// End of validity of the certificates in use.
    pub certificate_expiry: GaugeVec,
    /// Peers that fail what policies ask of them, by kind of check.
    pub posture_failing: IntGaugeVec,
    /// Verdicts that turned, by what they are now.
    pub posture_turns: IntCounterVec,
    /// When the geo database in use was made.
    pub geo_built: IntGauge,
}

impl Metrics {
    /// A registry of its own: several services can live in one process.
    ///
    /// # Errors
    /// Only when a name is malformed or taken, which the tests exclude.
    pub fn new() -> Result<Self, prometheus::Error> {
        let make = Maker(Registry::new());
        make.gauge_vec("build_info", "Always 1; the labels say what runs.", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        make.gauge("start_time_seconds", "When this process started, in Unix seconds.")?
            .set(start.as_secs_f64());
        let metrics = Self {
            connected_agents: make.int_gauge_vec(
                "connected_agents",
                "Agents with an open stream.",
                &["role"],
            )?,
            streams_ended: make.counter_vec(
                "sync_streams_ended_total",
                "Agents' streams that ended.",
                &["reason"],
            )?,
            images_pushed: make.counter_vec("images_pushed_total", "Images sent to agents.", &["kind"])?,
            pushed_bytes: make.counter_vec(
                "images_pushed_bytes_total",
                "Encoded size of images sent.",
                &["kind"],
            )?,
            images_unchanged: make.counter(
                "images_unchanged_total",
                "Agents that a change did not concern, so that nothing was sent to them.",
            )?,
            networks_pushed: make
                .counter("network_configs_pushed_total", "Overlay configurations sent to agents.")?,
            read_seconds: make.histogram("read_seconds", "Reading what has changed of the account.")?,
            state_differed: make.counter(
                "state_differed_total",
                "Times at which what was kept of the account was not what is in the store: a fault of control.",
            )?,
            compile_seconds: make
                .histogram("compile_seconds", "Compiling all images that a change may concern.")?,
            compile_failures: make
                .counter("compile_failures_total", "Compilations that failed; the old images stay.")?,
            push_to_ack_seconds: make.histogram(
                "push_to_ack_seconds",
                "From sending an image to the agent's word that it is in force.",
            )?,
            apply_seconds: make
                .histogram("apply_seconds", "Applying an image, as measured by the agents.")?,
            refusals: make.counter("image_refusals_total", "Images that agents refused as a whole.")?,
            store_revision: make.int_gauge("store_revision", "Revision of the store.")?,
            compiled_revision: make
                .int_gauge("compiled_revision", "Revision of the store the images stand for.")?,
            enrolments: make.counter_vec("enrolments_total", "Attempts to join.", &["result"])?,
            machine_logins: make.counter_vec(
                "machine_logins_total",
                "Logins of people for machines, by what became of them.",
                &["result"],
            )?,
            flow_events: make.counter_vec(
                "flow_events_total",
                "Flow events received from agents and kept.",
                &["kind"],
            )?,
            flow_events_lost: make
                .counter("flow_events_lost_total", "Flow events that agents lost before sending.")?,
            flow_sums_written: make.counter(
                "flow_sums_written_total",
                "Rows of sums of flow events, new or greater, written to the store.",
            )?,
            flow_events_unfit: make.counter(
                "flow_events_unfit_total",
                "Flow events that are in no sum: too many different ones of a source or of a day, or without sense.",
            )?,
            flow_watch_lost: make
                .counter("flow_watch_lost_total", "Flow events that slow stream readers missed.")?,
            http_requests: make.counter_vec(
                "http_requests_total",
                "HTTP requests.",
                &["route", "method", "status"],
            )?,
            http_seconds: make.histogram_vec(
                "http_request_duration_seconds",
                "HTTP requests.",
                &["route", "method"],
            )?,
            break_glass_on: make.int_gauge(
                "break_glass_policies_on",
                "Break-glass policies that are on: more than 0 is somebody's emergency.",
            )?,
            break_glass_until: make.gauge(
                "break_glass_until_timestamp_seconds",
                "When the first break-glass policy that is on ends, in Unix seconds; 0 while none is on.",
            )?,
            certificate_expiry: make.gauge_vec(
                "certificate_expiry_timestamp_seconds",
                "End of validity of a certificate, in Unix seconds.",
                &["certificate"],
            )?,
            posture_failing: make.int_gauge_vec(
                "posture_failing_peers",
                "Peers that fail a posture check which a policy asks of them.",
                &["check"],
            )?,
            posture_turns: make.counter_vec(
                "posture_turns_total",
                "Verdicts of posture checks on peers that became others.",
                &["result"],
            )?,
            geo_built: make.int_gauge(
                "geo_database_build_timestamp_seconds",
                "When the geo database in use was made, in Unix seconds; 0 without one.",
            )?,
            registry: make.0,
        };
        metrics.touch();
        Ok(metrics)
    }

    /// Puts the store's instruments on the page; once.
    pub fn show_store(&self, store: &Observed) -> Result<(), prometheus::Error> {
        store.collectors().into_iter().try_for_each(|collector| self.registry.register(collector))
    }

    /// Counts verdicts that turned.
    pub fn count_turns(&self, turns: &[Turn]) {
        for turn in turns {
            let result = if turn.verdict.passed() { "pass" } else { "fail" };
            self.posture_turns.with_label_values(&[result]).inc();
        }
    }

    /// Shows how many peers fail each kind of check.
    pub fn show_failing(&self, failing: &[Failing]) {
        for kind in Kind::ALL {
            let fails =
                |failing: &&Failing| failing.verdict.failures.iter().any(|failure| failure.kind == kind);
            let peers: HashSet<&str> =
                failing.iter().filter(fails).map(|failing| failing.peer.as_str()).collect();
            let count = i64::try_from(peers.len()).unwrap_or(i64::MAX);
            self.posture_failing.with_label_values(&[kind.name()]).set(count);
        }
    }

    /// The page in Prometheus' text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Series that exist from the start, so that a rate over the first event is not lost.
    fn touch(&self) {
        for role in ["gateway", "peer"] {
            self.connected_agents.with_label_values(&[role]).set(0);
        }
        for kind in ["snapshot", "delta"] {
            self.images_pushed.with_label_values(&[kind]).reset();
            self.pushed_bytes.with_label_values(&[kind]).reset();
        }
        for reason in ["closed", "replaced", "deleted", "shutdown"] {
            self.streams_ended.with_label_values(&[reason]).reset();
        }
        for result in crate::grpc::ENROLMENT_RESULTS {
            self.enrolments.with_label_values(&[result]).reset();
        }
        for result in crate::grpc::LOGIN_RESULTS {
            self.machine_logins.with_label_values(&[result]).reset();
        }
        self.show_failing(&[]);
        for result in ["pass", "fail"] {
            self.posture_turns.with_label_values(&[result]).reset();
        }
        for kind in crate::flows::KINDS {
            self.flow_events.with_label_values(&[kind]).reset();
        }
    }
}

struct Maker(Registry);

impl Maker {
    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("sluicegate_control_{name}"), help)
    }

    fn register<T: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<T>,
    ) -> prometheus::Result<T> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(Self::opts(name, help)))
    }

    fn counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Self::opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::with_opts(Self::opts(name, help)))
    }

    fn gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        self.register(GaugeVec::new(Self::opts(name, help), labels))
    }

    fn int_gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(Self::opts(name, help)))
    }

    fn int_gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Self::opts(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(seconds());
        self.register(Histogram::with_opts(opts))
    }

    fn histogram_vec(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(seconds());
        self.register(HistogramVec::new(opts, labels))
    }
}

#[cfg(test)]
mod tests;
