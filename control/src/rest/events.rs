//! `/api/events/audit`, and the chain through it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use serde::Serialize;
use sluicegate_audit as chain;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult};
use super::time::rfc3339;
use crate::app::App;
use crate::store::{self, EVENTS_LIMIT, EventFilter};

/// Events in one page of the chain at most.
const PAGE: usize = 1_000;
/// Longest text to be looked for, in bytes.
const TEXT_LIMIT: usize = 1_000;

/// An audit event.
#[derive(Debug, Serialize, ToSchema)]
pub struct Event {
    /// Rises with every event.
    pub id: String,
    /// RFC 3339.
    pub timestamp: String,
    /// What happened, as a sentence.
    pub activity: String,
    /// What happened, as a code.
    pub activity_code: String,
    /// Id of the user, setup key or `sys`.
    pub initiator_id: String,
    /// Its name.
    pub initiator_name: String,
    /// Its e-mail address, may be empty.
    pub initiator_email: String,
    /// Id of what it was done to.
    pub target_id: String,
    /// Names; `before` and `after` as JSON text; `revision`, the account revision the change made.
    pub meta: BTreeMap<String, String>,
}

/// Which events; what is not given excludes nothing, and everything that is given must hold.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the description of what `filter` reads by name")]
pub struct EventQuery {
    /// Codes, with commas between them: `policy.add,policy.update`.
    code: Option<String>,
    /// Id, name or e-mail address of who did it, exactly.
    initiator: Option<String>,
    /// Id or name of what it was done to, exactly.
    target: Option<String>,
    /// Not before this time, RFC 3339.
    from: Option<String>,
    /// Before this time, RFC 3339.
    until: Option<String>,
    /// A text anywhere in the event, without regard to case.
    search: Option<String>,
    /// Older than the event with this id: the last one of the page before.
    before: Option<i64>,
    /// No more than this many, 1 to 10000.
    limit: Option<u32>,
}

/// Which part of the chain.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "the description of what `page` reads by name")]
pub struct ChainQuery {
    /// After the event with this id; from the first one on when it is left out.
    after: Option<i64>,
    /// No more than this many, 1 to 1000.
    limit: Option<u32>,
}

/// A part of the chain through the audit trail, with both of its ends as they were at the same moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditChain {
    /// What the trail begins with.
    pub anchor: ChainAnchor,
    /// The newest event.
    pub head: ChainHead,
    /// Events in the order of their ids; none after the last.
    pub events: Vec<ChainEvent>,
}

/// The last event that retention removed.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChainAnchor {
    /// Its id; 0 when nothing was removed.
    pub id: i64,
    /// Its hash; 64 zeros when nothing was removed.
    pub hash: String,
    /// How many events were removed, ever.
    pub removed: i64,
}

/// A place in the chain.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChainHead {
    /// The event's id.
    pub id: i64,
    /// Its hash.
    pub hash: String,
}

/// An event as it is stored and hashed.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChainEvent {
    /// Rises with every event.
    pub id: i64,
    /// Unix milliseconds.
    pub at: i64,
    /// The account revision the change made.
    pub revision: i64,
    /// What happened, as a code.
    pub code: String,
    /// Id of the user, setup key or `sys`.
    pub initiator_id: String,
    /// Its name.
    pub initiator_name: String,
    /// Its e-mail address, may be empty.
    pub initiator_email: String,
    /// Id of what it was done to.
    pub target_id: String,
    /// The details: the text of a JSON object, byte for byte as it is stored.
    pub meta: String,
    /// Hash of the event before it.
    pub previous: String,
    /// SHA-256 over `previous` and the fields above, as docs/security.md says.
    pub hash: String,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(page))
}

/// Audit events, newest first: ten thousand, or fewer where their details are long. For older ones name the last id as
/// `before`; a page without events is the end.
#[utoipa::path(get, path = "/api/events/audit", tag = "Events", params(EventQuery),
    responses((status = 200, body = [Event])))]
async fn list(State(app): State<App>, Query(query): Query<Vec<(String, String)>>) -> ApiResult<Vec<Event>> {
    let filter = filter(Given::of(
        query,
        &["code", "initiator", "target", "from", "until", "search", "before", "limit"],
    )?)?;
    Ok(Json(app.store.find_events(&filter).await?.into_iter().map(event).collect()))
}

/// The chain through the audit trail, oldest first, for whoever verifies it.
#[utoipa::path(get, path = "/api/events/audit/chain", tag = "Events", params(ChainQuery),
    responses((status = 200, body = AuditChain)))]
async fn page(State(app): State<App>, Query(query): Query<Vec<(String, String)>>) -> ApiResult<AuditChain> {
    let given = Given::of(query, &["after", "limit"])?;
    let page = app.store.chain(given.id("after")?, given.limit(PAGE)?).await?;
    Ok(Json(AuditChain {
        anchor: ChainAnchor { id: page.anchor.id, hash: page.anchor.hash, removed: page.anchor.removed },
        head: ChainHead { id: page.head.id, hash: page.head.hash },
        events: page.links.into_iter().map(link).collect(),
    }))
}

fn filter(mut given: Given) -> Result<EventFilter, ApiError> {
    let codes = match given.0.remove("code") {
        Some(codes) => codes.split(',').map(|code| code.trim().to_owned()).collect(),
        None => Vec::new(),
    };
    let known = |code: &String| {
        code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.')
            && !code.is_empty()
    };
    if let Some(code) = codes.iter().find(|code| !known(code)) {
        return Err(ApiError::invalid(format!(
            "code: {code:?} is no code of an event; one looks like policy.add, and commas stand between several"
        )));
    }
    let (from, until) = (given.time("from")?, given.time("until")?);
    if let (Some(from), Some(until)) = (from, until)
        && from >= until
    {
        return Err(ApiError::invalid("from: no time is from then on and before `until`: exchange the two"));
    }
    Ok(EventFilter {
        codes,
        from,
        until,
        before: given.id("before")?,
        limit: given.limit(EVENTS_LIMIT)?,
        initiator: given.text("initiator")?,
        target: given.text("target")?,
        search: given.text("search")?,
    })
}

/// The parameters of a query, each once.
struct Given(BTreeMap<String, String>);

impl Given {
    fn of(query: Vec<(String, String)>, known: &[&str]) -> Result<Self, ApiError> {
        let mut given = BTreeMap::new();
        for (name, value) in query {
            if !known.contains(&name.as_str()) {
                return Err(ApiError::bad_request(format!(
                    "{name:?} is no parameter of this path; there are {}",
                    known.join(", ")
                )));
            }
            if given.contains_key(&name) {
                return Err(ApiError::bad_request(format!("{name} is given twice")));
            }
            given.insert(name, value);
        }
        Ok(Given(given))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.0.remove(name) {
            Some(text) if text.is_empty() || text.len() > TEXT_LIMIT => {
                Err(ApiError::invalid(format!("{name}: a text of 1 to {TEXT_LIMIT} bytes is needed")))
            }
            text => Ok(text),
        }
    }

    fn id(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.0.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => Err(ApiError::invalid(format!("{name}: {text:?} is no id of an event"))),
        }
    }

    fn limit(&self, most: usize) -> Result<usize, ApiError> {
        let Some(text) = self.0.get("limit") else { return Ok(most) };
        match text.parse() {
            Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
            _ => Err(ApiError::invalid(format!("limit: {text:?} is no number from 1 to {most}"))),
        }
    }

    /// In Unix milliseconds, rounded up: nothing happened between two of them.
    fn time(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.0.get(name) else { return Ok(None) };
        let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) else {
            return Err(ApiError::invalid(format!(
                "{name}: {text:?} is no time; one looks like 2026-11-22T14:00:00Z (in a URL, + is %2B)"
            )));
        };
        let nanoseconds = time.unix_timestamp_nanos();
        let milliseconds =
            nanoseconds.div_euclid(1_000_000) + i128::from(nanoseconds.rem_euclid(1_000_000) > 0);
        Ok(i64::try_from(milliseconds).ok())
    }
}

fn event(event: store::Event) -> Event {
    let mut meta = event.meta;
    meta.insert("revision".into(), event.revision.to_string());
    Event {
        id: event.id.to_string(),
        timestamp: rfc3339(event.at),
        activity: event.activity.into(),
        activity_code: event.code,
        initiator_id: event.initiator.id,
        initiator_name: event.initiator.name,
        initiator_email: event.initiator.email,
        target_id: event.target_id,
        meta,
    }
}

fn link(link: chain::Link) -> ChainEvent {
    let chain::Link { event, previous, hash } = link;
    ChainEvent {
        id: event.id,
        at: event.at,
        revision: event.revision,
        code: event.code,
        initiator_id: event.initiator_id,
        initiator_name: event.initiator_name,
        initiator_email: event.initiator_email,
        target_id: event.target_id,
        meta: event.meta,
        previous,
        hash,
    }
}
