//! What the unix socket answers under `/v1` beside the status.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query as Parameters, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_stream::wrappers::ReceiverStream;

use super::capture::{Line, Wanted};
use super::events::FlowEvent;
use super::trace::Request;
use crate::serve::{Asker, Query, busy};

/// The pages of this module.
pub(crate) fn routes() -> Router<Asker> {
    Router::new()
        .route("/v1/flows", get(flows))
        .route("/v1/events", get(events))
        .route("/v1/drops", get(drops))
        .route("/v1/top", get(top))
        .route("/v1/trace", post(trace))
        .route("/v1/capture", get(capture))
}

async fn flows(State(asker): State<Asker>) -> Response {
    asker.ask(Query::Flows).await.map_or_else(busy, |flows| Json(flows).into_response())
}

async fn top(State(asker): State<Asker>) -> Response {
    asker.ask(Query::Top).await.map_or_else(busy, |top| Json(top).into_response())
}

/// The drop counters, and the last drops that were told.
async fn drops(State(asker): State<Asker>) -> Response {
    let Some(top) = asker.ask(Query::Top).await else { return busy() };
    let (recent, _) = asker.feed().watch(usize::MAX, is_drop);
    Json(json!({
        "schema": "sluicegate.gateway.drops/1",
        "time_ms": top.time_ms,
        "drops": top.drops,
        "events": top.events,
        "recent": recent.iter().map(AsRef::as_ref).collect::<Vec<&FlowEvent>>(),
    }))
    .into_response()
}

/// Follows one packet that nobody sent; 422 when what was asked makes no packet.
async fn trace(State(asker): State<Asker>, body: Result<Json<Request>, JsonRejection>) -> Response {
    let request = match body {
        Ok(Json(request)) => request,
        Err(why) => return refused(&why.body_text()),
    };
    match asker.ask(|answer| Query::Trace(Box::new(request), answer)).await {
        Some(Ok(trace)) => {
            Json(json!({ "schema": "sluicegate.gateway.trace/1", "trace": trace })).into_response()
        }
        Some(Err(why)) => refused(&why),
        None => busy(),
    }
}

/// Packets as they are judged, one JSON document a line, until the reader goes away.
async fn capture(State(asker): State<Asker>, wanted: Result<Parameters<Wanted>, QueryRejection>) -> Response {
    let wanted = match wanted {
        Ok(Parameters(wanted)) => wanted,
        Err(why) => return refused(&why.body_text()),
    };
    match asker.ask(|answer| Query::Capture(wanted, answer)).await {
        Some(Ok(lines)) => {
            let text = ReceiverStream::new(lines).map(|lines| Ok::<_, Infallible>(text(&lines)));
            ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(text)).into_response()
        }
        Some(Err(why)) => refused(&why),
        None => busy(),
    }
}

fn text(lines: &[Line]) -> String {
    // Plain texts and numbers always encode.
    lines.iter().map(|line| serde_json::to_string(line).unwrap_or_default() + "\n").collect()
}

pub(super) fn refused(why: &str) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "message": why }))).into_response()
}

/// How an event stream begins, and what it holds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Kinds, by commas; all of them when absent.
    kind: Option<String>,
    /// First send this many of the last ones.
    #[serde(default)]
    replay: usize,
}

const KINDS: [&str; 4] = ["start", "end", "drop", "revoke"];

async fn events(State(asker): State<Asker>, Parameters(query): Parameters<EventsQuery>) -> Response {
    let kinds: Vec<String> =
        query.kind.iter().flat_map(|kinds| kinds.split(',')).map(str::to_owned).collect();
    if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        return refused(&format!("'{unknown}' is no kind of event; there are {}", KINDS.join(", ")));
    }
    let wanted = move |event: &FlowEvent| kinds.is_empty() || kinds.iter().any(|kind| kind == event.kind);
    let (recent, coming) = asker.feed().watch(query.replay, &wanted);
    let watching = Watching { recent: recent.into(), coming, wanted };
    Sse::new(stream::unfold(watching, next)).keep_alive(KeepAlive::default()).into_response()
}

struct Watching<W> {
    recent: VecDeque<Arc<FlowEvent>>,
    coming: Receiver<Arc<FlowEvent>>,
    wanted: W,
}

async fn next<W: Fn(&FlowEvent) -> bool>(
    mut watching: Watching<W>,
) -> Option<(Result<Event, Infallible>, Watching<W>)> {
    let event = loop {
        if let Some(event) = watching.recent.pop_front() {
            break sse(&event);
        }
        match watching.coming.recv().await {
            Ok(event) if (watching.wanted)(&event) => break sse(&event),
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                break Event::default().event("lost").data(json!({ "missed": missed }).to_string());
            }
            Err(RecvError::Closed) => return None,
        }
    };
    Some((Ok(event), watching))
}

fn sse(event: &FlowEvent) -> Event {
    // Plain texts and numbers always encode.
    Event::default().data(serde_json::to_string(event).unwrap_or_default())
}

fn is_drop(event: &FlowEvent) -> bool {
    matches!(event.kind, "drop" | "revoke")
}
