//! What a running agent answers: metrics and health over TCP, its status over a unix socket.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};

use crate::local;
use crate::local::capture::{Line, Wanted};
use crate::local::events::Feed;
use crate::local::flows::Flows;
use crate::local::top::Top;
use crate::local::trace::{Request, Trace};
use crate::metrics::Metrics;
use crate::status::Status;
use crate::system;

/// A question to the agent.
#[derive(Debug)]
pub enum Query {
    /// Its status.
    Status(oneshot::Sender<Box<Status>>),
    /// Its live flows.
    Flows(oneshot::Sender<Flows>),
    /// Its counters, by rule, resource and reason.
    Top(oneshot::Sender<Box<Top>>),
    /// Packets as they are judged, or why there can be none.
    Capture(Wanted, oneshot::Sender<Result<mpsc::Receiver<Vec<Line>>, String>>),
    /// What would become of a packet, or why there can be no such packet.
    Trace(Box<Request>, oneshot::Sender<Result<Box<Trace>, String>>),
}

/// How long the agent may take to answer itself before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// 2025-01-01: a clock before this has not been set.
const SANE_CLOCK_MS: u64 = 1_735_689_600_000;

/// Asks the agent.
#[derive(Clone)]
pub struct Asker {
    queries: mpsc::Sender<Query>,
    metrics: Arc<Metrics>,
    feed: Arc<Feed>,
}

impl Asker {
    /// Asks through `queries`; events come through `feed`.
    pub fn new(queries: mpsc::Sender<Query>, metrics: Arc<Metrics>, feed: Arc<Feed>) -> Self {
        Self { queries, metrics, feed }
    }

    /// Where flow events come from.
    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(crate) async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.queries.send(query(answer)).await.ok()?;
            answered.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    }
}

/// Serves `/metrics`, `/healthz`, `/livez` and `/readyz` on `address` until the process ends.
pub async fn tcp(address: SocketAddr, asker: Asker) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("metrics cannot be served on {address}; is it in use?"))?;
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(asker);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(())
}

/// Serves `/v1/status` and the pages of [`local`] on the unix socket `path` (0660) until the process ends.
pub async fn unix(path: &Path, asker: Asker) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("{} cannot be made for the socket", dir.display()))?;
    }
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        bail!(
            "a second gateway on the same host: another one answers on {}; give this one its own --socket",
            path.display()
        );
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| {
                format!("{} cannot be removed; it is a leftover of an earlier run", path.display())
            });
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("the socket {} cannot be made", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("the permissions of {} cannot be set", path.display()))?;
    let app = Router::new().route("/v1/status", get(status)).merge(local::http::routes()).with_state(asker);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(())
}

async fn metrics(State(asker): State<Asker>) -> Response {
    let Some(status) = asker.ask(Query::Status).await else { return busy() };
    match asker.metrics.render(&status) {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e:#}\n")).into_response(),
    }
}

/// Ready while an image is in force, whether or not control is there now: a gateway that enforces is not to be replaced
/// because control is away. An image that has outlived its age forwards nothing.
async fn ready(State(asker): State<Asker>) -> Response {
    let Some(status) = asker.ask(Query::Status).await else { return busy() };
    let policy = status.policy.revision.is_some();
    let fresh = policy && !status.policy.expired;
    let clock = system::unix_ms() > SANE_CLOCK_MS;
    let checks = json!({
        "policy_applied": policy,
        "policy_fresh": fresh,
        "datapath_attached": status.datapath.kind,
        "clock_sane": clock,
        "control_connected": status.control.connected,
        "degraded": status.degraded,
    });
    let ready = fresh && clock;
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({ "ready": ready, "checks": checks }))).into_response()
}

async fn status(State(asker): State<Asker>) -> Response {
    match asker.ask(Query::Status).await {
        Some(status) => Json(*status).into_response(),
        None => busy(),
    }
}

pub(crate) fn busy() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the agent is starting or does not answer\n").into_response()
}
