//! `GET /api/events/network-traffic` and `GET /api/flows/stream`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::broadcast::error::RecvError;
use utoipa::{IntoParams, ToSchema};

use super::netbird::{self, Known, TrafficEvent};
use super::{FlowRecord, Flows, Watch};
use crate::gateways::error;
use crate::geo::Places;
use crate::metrics::Metrics;
use crate::rest::error::ApiError;
use crate::store::Store;

const PAGE_SIZE: usize = 1000;
const PAGE_SIZE_MAX: usize = 50_000;

/// NetBird's filters of traffic events; every one given must match.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TrafficQuery {
    /// Page, from 1.
    #[param(minimum = 1)]
    page: Option<usize>,
    /// Events on a page, 1 to 50000; 1000 when absent.
    #[param(minimum = 1, maximum = 50000)]
    page_size: Option<usize>,
    /// The user whose machine the source is now; the empty text for machines of nobody.
    user_id: Option<String>,
    /// The agent that reported.
    reporter_id: Option<String>,
    /// Peer or resource id of the source.
    source_id: Option<String>,
    /// Peer or resource id of the destination.
    destination_id: Option<String>,
    /// IP protocol number.
    protocol: Option<u32>,
    /// `TYPE_UNKNOWN`, `TYPE_START`, `TYPE_END` or `TYPE_DROP`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// `P2P` or `ROUTED`.
    connection_type: Option<String>,
    /// `INGRESS`, `EGRESS` or `DIRECTION_UNKNOWN`.
    direction: Option<String>,
    /// Part of a name or address of either end, without regard to case.
    search: Option<String>,
    /// Events at or after this time, RFC 3339.
    start_date: Option<String>,
    /// Events at or before this time, RFC 3339.
    end_date: Option<String>,
}

/// NetBird's `NetworkTrafficEventsResponse`.
#[derive(Debug, Serialize, ToSchema)]
pub struct TrafficPage {
    /// Newest first.
    data: Vec<TrafficEvent>,
    /// The page asked for.
    page: usize,
    /// Most events on a page.
    page_size: usize,
    /// Events that match.
    total_records: usize,
    /// Pages they fill.
    total_pages: usize,
}

/// How a stream begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// First send this many of the most recent events.
    #[serde(default)]
    replay: usize,
}

/// The recent flow events, newest first, in NetBird's shape: the last 16,384 that this replica has heard since it started. None while the account's
/// `network_traffic_logs_enabled` is off.
#[utoipa::path(get, path = "/api/events/network-traffic", tag = "Events", params(TrafficQuery), responses(
    (status = 200, body = TrafficPage), (status = 400, description = "A parameter has no such value")))]
pub async fn network_traffic(
    State(flows): State<Arc<Flows>>,
    State(store): State<Store>,
    State(places): State<Places>,
    Query(query): Query<TrafficQuery>,
) -> Response {
    let machines = match store.machines().await {
        Ok(machines) => machines,
        Err(error) => return ApiError::from(error).into_response(),
    };
    match page(&flows.recent(), &query, &Known { machines: &machines, places: &places }) {
        Ok(page) => Json(page).into_response(),
        Err(message) => error(StatusCode::BAD_REQUEST, message),
    }
}

/// Flow events as they come: server-sent events whose data is a `FlowRecord`. An event of type `lost` says how many this
/// reader missed because it was slow; one of type `off`, at the beginning, that none will come, and why.
#[utoipa::path(get, path = "/api/flows/stream", tag = "Flows", params(StreamQuery), responses(
    (status = 200, body = FlowRecord, content_type = "text/event-stream"),
    (status = 503, description = "Control is shutting down")))]
pub async fn flow_stream(State(flows): State<Arc<Flows>>, Query(query): Query<StreamQuery>) -> Response {
    match flows.watch(query.replay) {
        Some(watch) => {
            let off = stream::iter((!flows.log().enabled).then(|| Ok(off())));
            let events = off.chain(events(watch, flows.metrics.clone()));
            Sse::new(events).keep_alive(KeepAlive::default()).into_response()
        }
        None => error(StatusCode::SERVICE_UNAVAILABLE, "control is shutting down; connect again"),
    }
}

fn events(watch: Watch, metrics: Metrics) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((watch, metrics), |(mut watch, metrics)| async {
        if let Some(record) = watch.replay.pop_front() {
            return Some((Ok(data(&record)), (watch, metrics)));
        }
        let event = match watch.live.recv().await {
            Ok(record) => data(&record),
            Err(RecvError::Lagged(missed)) => {
                metrics.flow_watch_lost.inc_by(missed);
                Event::default().event("lost").data(format!("{{\"missed\":{missed}}}"))
            }
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event), (watch, metrics)))
    })
}

fn off() -> Event {
    Event::default().event("off").data(serde_json::json!({ "message": super::OFF }).to_string())
}

fn data(record: &FlowRecord) -> Event {
    // A record is plain text and numbers, which always serialise, and JSON has no line breaks outside strings.
    Event::default().data(serde_json::to_string(record).unwrap_or_default())
}

/// The matching events of one page, or what is wrong with the query.
fn page(records: &[Arc<FlowRecord>], query: &TrafficQuery, known: &Known<'_>) -> Result<TrafficPage, String> {
    let (number, size) = (query.page.unwrap_or(1), query.page_size.unwrap_or(PAGE_SIZE));
    if number == 0 {
        return Err("page must be at least 1".into());
    }
    if size == 0 || size > PAGE_SIZE_MAX {
        return Err(format!("page_size must be between 1 and {PAGE_SIZE_MAX}"));
    }
    let filter = Filter::new(query, known)?;
    let matching: Vec<&Arc<FlowRecord>> =
        records.iter().rev().filter(|record| filter.matches(record)).collect();
    let skip = (number - 1).saturating_mul(size);
    Ok(TrafficPage {
        data: matching.iter().skip(skip).take(size).map(|record| netbird::event(record, known)).collect(),
        page: number,
        page_size: size,
        total_records: matching.len(),
        total_pages: matching.len().div_ceil(size),
    })
}

struct Filter<'a> {
    query: &'a TrafficQuery,
    known: &'a Known<'a>,
    search: Option<String>,
    from: Option<i128>,
    until: Option<i128>,
}

impl<'a> Filter<'a> {
    fn new(query: &'a TrafficQuery, known: &'a Known<'a>) -> Result<Self, String> {
        one_of("type", &query.kind, &["TYPE_UNKNOWN", "TYPE_START", "TYPE_END", "TYPE_DROP"])?;
        one_of("connection_type", &query.connection_type, &["P2P", "ROUTED"])?;
        one_of("direction", &query.direction, &["INGRESS", "EGRESS", "DIRECTION_UNKNOWN"])?;
        Ok(Self {
            query,
            known,
            search: query.search.as_ref().map(|text| text.to_lowercase()),
            from: date("start_date", &query.start_date)?,
            until: date("end_date", &query.end_date)?,
        })
    }

    fn matches(&self, record: &FlowRecord) -> bool {
        let (query, at) = (self.query, i128::from(record.time_ms) * 1_000_000);
        let is = |wanted: &Option<String>, seen: &str| wanted.as_ref().is_none_or(|wanted| wanted == seen);
        is(&query.user_id, self.known.user(record).map_or("", |user| &user.id))
            && is(&query.reporter_id, &record.reporter.id)
            && is(&query.source_id, &record.source.party.id)
            && is(&query.destination_id, &record.destination.party.id)
            && query.protocol.is_none_or(|protocol| protocol == record.protocol)
            && is(&query.kind, netbird::event_type(record))
            && is(&query.connection_type, netbird::connection_type(record))
            && is(&query.direction, netbird::direction(record))
            && self.search.as_ref().is_none_or(|text| contains(record, text))
            && self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at <= until)
    }
}

fn contains(record: &FlowRecord, lower_case: &str) -> bool {
    let texts = [&record.source, &record.destination].map(|end| [&end.party.name, &end.address]);
    texts.iter().flatten().any(|text| text.to_lowercase().contains(lower_case))
}

fn one_of(name: &str, value: &Option<String>, known: &[&str]) -> Result<(), String> {
    match value {
        Some(value) if !known.contains(&value.as_str()) => {
            Err(format!("{name} must be one of {}", known.join(", ")))
        }
        _ => Ok(()),
    }
}

fn date(name: &str, value: &Option<String>) -> Result<Option<i128>, String> {
    let parse = |text: &String| {
        let at = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|_| format!("{name} must be a time like 2026-01-31T23:59:59Z"))?;
        Ok(at.unix_timestamp_nanos())
    };
    value.as_ref().map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::tests::record;
    use super::*;
    use crate::store::{Machine, Owner};

    fn query(text: &str) -> Result<TrafficPage, String> {
        let uri = format!("http://control/?{text}").parse().unwrap();
        let records: Vec<_> = (0..5).map(|i| Arc::new(record(i))).collect();
        let owner = |id: &str| Some(Owner { id: id.to_owned(), ..Owner::default() });
        let machine = |id| Machine { user: owner(id), ..Machine::default() };
        let machines =
            HashMap::from([("peer-3".to_owned(), machine("ann")), ("res".to_owned(), machine("bob"))]);
        let known = Known { machines: &machines, places: &Places::none() };
        page(&records, &Query::<TrafficQuery>::try_from_uri(&uri).map_err(|e| e.to_string())?.0, &known)
    }

    fn ids(text: &str) -> Vec<String> {
        query(text).unwrap().data.into_iter().map(|event| event.id).collect()
    }

    #[test]
    fn pages_are_newest_first_and_count_what_matches() {
        assert_eq!(ids("page_size=2"), ["4", "3"]);
        let last = query("page=3&page_size=2").unwrap();
        assert_eq!((last.total_records, last.total_pages, last.data.len()), (5, 3, 1));
        assert!(ids("page=9&page_size=2").is_empty());
    }

    #[test]
    fn every_filter_narrows() {
        assert_eq!(ids("type=TYPE_DROP"), ["4", "2", "0"]);
        assert_eq!(ids("protocol=6&source_id=peer-1"), ["1"]);
        assert_eq!(ids("search=NAME-3"), ["3"]);
        assert_eq!(ids("start_date=1970-01-01T00:00:01Z&end_date=1970-01-01T00:00:02Z"), ["2", "1"]);
        assert_eq!(ids("direction=EGRESS"), [""; 0]);
        assert_eq!(ids("connection_type=ROUTED").len(), 5);
        assert_eq!((ids("user_id=ann"), ids("user_id=").len()), (vec!["3".to_owned()], 4));
        assert_eq!(ids("user_id=bob"), [""; 0], "a resource is nobody's machine");
        assert_eq!(ids("reporter_id=gw").len(), 5);
    }

    #[test]
    fn values_that_do_not_exist_are_named() {
        for (text, word) in [
            ("page=0", "page"),
            ("page_size=50001", "page_size"),
            ("type=START", "TYPE_START"),
            ("start_date=yesterday", "start_date"),
            ("direction=UP", "INGRESS"),
        ] {
            let message = query(text).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
