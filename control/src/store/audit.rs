//! The audit trail: one event per change, written in the change's own transaction as the next link of the chain.

use std::collections::BTreeMap;

use sluicegate_audit as chain;
use sqlx::FromRow;

use super::activity::Activity;
use super::error::corrupt;
use super::sql::{self, Connection, Pick};
use super::{Actor, Result, Store};

/// Events in one answer at most.
pub const EVENTS_LIMIT: usize = 10_000;
/// Their details together at most, in bytes: an event of a policy with a thousand rules has half a megabyte of them.
pub(super) const BYTES: usize = 16 << 20;
/// Events asked of the database at once where it cannot tell by itself which of them are wanted.
const CHUNK: usize = 1_000;

/// An audit event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Rises with every event.
    pub id: i64,
    /// Unix milliseconds.
    pub at: i64,
    /// The account revision the change made.
    pub revision: u64,
    /// What happened, as a code: `policy.add`.
    pub code: String,
    /// What happened, as a sentence.
    pub activity: &'static str,
    /// Who did it.
    pub initiator: Actor,
    /// What it was done to.
    pub target_id: String,
    /// Names, and `before` and `after` as JSON text.
    pub meta: BTreeMap<String, String>,
}

/// Which events are wanted; what is empty or absent excludes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFilter {
    /// Any of these codes.
    pub codes: Vec<String>,
    /// The initiator's id, name or e-mail address, exactly.
    pub initiator: Option<String>,
    /// The target's id, or its name as the event has it, exactly.
    pub target: Option<String>,
    /// Not before this time, Unix milliseconds.
    pub from: Option<i64>,
    /// Before this time, Unix milliseconds.
    pub until: Option<i64>,
    /// A text anywhere in the event, without regard to case.
    pub search: Option<String>,
    /// Older than the event with this id.
    pub before: Option<i64>,
    /// No more than this many, and never more than [`EVENTS_LIMIT`].
    pub limit: usize,
}

impl Default for EventFilter {
    fn default() -> Self {
        EventFilter {
            codes: Vec::new(),
            initiator: None,
            target: None,
            from: None,
            until: None,
            search: None,
            before: None,
            limit: EVENTS_LIMIT,
        }
    }
}

impl EventFilter {
    /// What the database leaves to us: what is inside the details, and case, which each database knows differently.
    fn takes(&self, row: &Row, meta: &BTreeMap<String, String>) -> bool {
        let is = |wanted: &Option<String>, fields: &[&String]| {
            wanted.as_ref().is_none_or(|wanted| fields.contains(&wanted))
        };
        if !is(&self.initiator, &[&row.initiator_id, &row.initiator_name, &row.initiator_email]) {
            return false;
        }
        let named = meta.get("name").into_iter().chain([&row.target_id]).collect::<Vec<_>>();
        if !is(&self.target, &named) {
            return false;
        }
        let Some(search) = &self.search else { return true };
        let search = search.to_lowercase();
        let who = [&row.initiator_id, &row.initiator_name, &row.initiator_email];
        let fields = who.into_iter().chain([&row.code, &row.target_id]).chain(meta.values());
        let mut texts = fields.map(String::as_str).chain([Activity::text_of(&row.code)]);
        texts.any(|text| text.to_lowercase().contains(&search))
    }

    fn is_for_the_database(&self) -> bool {
        self.initiator.is_none() && self.target.is_none() && self.search.is_none()
    }
}

impl Store {
    /// The newest events, newest first: as many as one answer holds.
    pub async fn events(&self) -> Result<Vec<Event>> {
        self.find_events(&EventFilter::default()).await
    }

    /// The events that a filter takes, newest first: as many as one answer holds. The next are those before the last.
    pub async fn find_events(&self, filter: &EventFilter) -> Result<Vec<Event>> {
        self.newest_events(filter, BYTES).await
    }

    /// Events whose details are not longer than `bytes` together, but at least one if there is any.
    async fn newest_events(&self, filter: &EventFilter, bytes: usize) -> Result<Vec<Event>> {
        let limit = filter.limit.min(EVENTS_LIMIT);
        let chunk = if filter.is_for_the_database() { limit } else { CHUNK };
        let codes =
            if filter.codes.is_empty() { String::new() } else { format!(",{},", filter.codes.join(",")) };
        let (mut db, mut events, mut sum) = (self.read().await?, Vec::new(), 0);
        let mut before = filter.before.unwrap_or(i64::MAX);
        loop {
            let (mut seen, mut full) = (0, false);
            let rows: Vec<Row> = sql::query_as(
                "SELECT id, at, revision, code, initiator_id, initiator_name, initiator_email, target_id, meta
                 FROM events WHERE id < $1 AND at >= $2 AND at < $3 AND ($4 = '' OR $4 LIKE '%,' || code || ',%')
                 ORDER BY id DESC LIMIT $5",
            )
            .bind(before)
            .bind(filter.from.unwrap_or(i64::MIN))
            .bind(filter.until.unwrap_or(i64::MAX))
            .bind(&codes)
            .bind(i64::try_from(chunk).unwrap_or(i64::MAX))
            .fetch_picked(&mut db, |row: &Row| {
                seen += 1;
                before = row.id;
                // What cannot be read is taken, so that it is told.
                if row.meta().is_ok_and(|meta| !filter.takes(row, &meta)) {
                    return Pick::Skip;
                }
                let first = sum == 0 && events.is_empty();
                sum += row.meta.len();
                full = !first && sum > bytes;
                if full { Pick::Stop } else { Pick::Take }
            })
            .await?;
            for row in rows {
                if events.len() < limit {
                    events.push(row.event()?);
                }
            }
            if full || seen < chunk || events.len() >= limit {
                return Ok(events);
            }
        }
    }
}

/// Appends an event to a change under way, which is going to make the next revision.
pub(super) async fn append(
    db: &mut Connection,
    at: i64,
    actor: &Actor,
    activity: Activity,
    target: &str,
    meta: &BTreeMap<String, String>,
) -> Result<()> {
    let meta = serde_json::to_string(meta).map_err(|error| corrupt("events.meta")(error.into()))?;
    let (head, head_hash, newest, revision): (i64, String, i64, i64) = sql::query_as(
        "SELECT c.head_id, c.head_hash, (SELECT coalesce(max(id), 0) FROM events), a.revision
         FROM audit_chain c, account a",
    )
    .fetch_one(db)
    .await?;
    let event = chain::Event {
        // What somebody put in after the head keeps its id, and stands out of the chain.
        id: head.max(newest) + 1,
        at,
        revision: revision + 1,
        code: activity.code().into(),
        initiator_id: actor.id.clone(),
        initiator_name: actor.name.clone(),
        initiator_email: actor.email.clone(),
        target_id: target.into(),
        meta,
    };
    let chain::Link { event, previous, hash } = event.link(&head_hash);
    sql::query(
        "INSERT INTO events (id, at, revision, code, initiator_id, initiator_name, initiator_email, target_id, meta,
         previous, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(event.id)
    .bind(event.at)
    .bind(event.revision)
    .bind(event.code)
    .bind(event.initiator_id)
    .bind(event.initiator_name)
    .bind(event.initiator_email)
    .bind(event.target_id)
    .bind(event.meta)
    .bind(previous)
    .bind(&hash)
    .execute(db)
    .await?;
    sql::query("UPDATE audit_chain SET head_id = $1, head_hash = $2")
        .bind(event.id)
        .bind(hash)
        .execute(db)
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct Row {
    id: i64,
    at: i64,
    revision: i64,
    code: String,
    initiator_id: String,
    initiator_name: String,
    initiator_email: String,
    target_id: String,
    meta: String,
}

impl Row {
    fn meta(&self) -> serde_json::Result<BTreeMap<String, String>> {
        serde_json::from_str(&self.meta)
    }

    fn event(self) -> Result<Event> {
        let meta = self.meta().map_err(|error| corrupt("events.meta")(error.into()))?;
        Ok(Event {
            id: self.id,
            at: self.at,
            revision: self.revision.unsigned_abs(),
            activity: Activity::text_of(&self.code),
            code: self.code,
            initiator: Actor {
                id: self.initiator_id,
                name: self.initiator_name,
                email: self.initiator_email,
            },
            target_id: self.target_id,
            meta,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::NetworkChange;

    #[tokio::test]
    async fn the_newest_events_are_given_until_there_are_too_many_or_they_are_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        for name in ["a", "b", "c"] {
            let change = NetworkChange { name: name.into(), description: "x".repeat(1000) };
            store.create_network(&Actor::system(), change).await.unwrap();
        }
        let names = async |filter: EventFilter, bytes| -> Vec<String> {
            let events = store.newest_events(&filter, bytes).await.unwrap();
            events.into_iter().map(|event| event.meta["name"].clone()).collect()
        };
        let limit = |limit| EventFilter { limit, ..EventFilter::default() };
        let search = |search: &str| EventFilter { search: Some(search.into()), ..limit(10) };
        assert_eq!(names(limit(2), usize::MAX).await, ["c", "b"]);
        assert_eq!(names(limit(10), 2500).await, ["c", "b"]);
        assert_eq!(names(limit(10), 1).await, ["c"]);
        assert_eq!(names(search("XXX"), usize::MAX).await, ["c", "b", "a"]);
        assert_eq!(names(search("XXX"), 1).await, ["c"]);
    }
}
