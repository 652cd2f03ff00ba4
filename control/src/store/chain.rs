//! The chain through the audit trail as it is stored: what verification reads, what retention removes, and the links of
//! events that were written before there was a chain.

use sluicegate_audit::{Anchor, Event, Head, Link, Pruned};
use sqlx::FromRow;

use super::activity::Activity;
use super::audit::BYTES;
use super::error::corrupt;
use super::sql::{self, Connection, Pick};
use super::write::Meta;
use super::{Actor, Result, Store};

/// Events that are given their hashes, or verified before they are removed, in one statement.
const CHUNK: i64 = 1_000;
/// Events that retention removes in one change at most: the others wait for it no longer than some seconds.
const PRUNE_AT_ONCE: i64 = 50_000;

/// A part of the chain, with both of its ends as they were at the same moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainPage {
    /// What the trail begins with.
    pub anchor: Anchor,
    /// The newest event.
    pub head: Head,
    /// Events in the order of their ids.
    pub links: Vec<Link>,
}

impl Store {
    /// The first `limit` events after the one with the id `after`, or from the first on; fewer where they are long.
    pub async fn chain(&self, after: Option<i64>, limit: usize) -> Result<ChainPage> {
        let mut db = self.read().await?;
        let (head, anchor) = ends(&mut db).await?;
        let mut sum = 0;
        let rows: Vec<Row> = sql::query_as("SELECT * FROM events WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.unwrap_or(i64::MIN))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_picked(&mut db, |row: &Row| {
                let first = sum == 0;
                sum += row.meta.len();
                if first || sum <= BYTES { Pick::Take } else { Pick::Stop }
            })
            .await?;
        Ok(ChainPage { anchor, head, links: rows.into_iter().map(Row::link).collect() })
    }

    /// The newest event's place in the chain.
    pub async fn audit_head(&self) -> Result<Head> {
        Ok(ends(&mut self.reader().await?).await?.0)
    }

    /// Removes the oldest events, those before `before` (Unix milliseconds), and says so in an event; how many. The first
    /// event that is newer ends it, and so does one that does not follow in the chain: that is an error, for what is
    /// removed is verified first.
    pub async fn prune_events(&self, before: i64) -> Result<u64> {
        let mut removed = 0;
        loop {
            let some = self.prune_some(before).await?;
            removed += some;
            if some < PRUNE_AT_ONCE.unsigned_abs() {
                return Ok(removed);
            }
        }
    }

    async fn prune_some(&self, before: i64) -> Result<u64> {
        let mut write = self.write(&Actor::system()).await?;
        let (_, mut anchor) = ends(write.db()).await?;
        let stays: Option<i64> = sql::query_scalar("SELECT min(id) FROM events WHERE at >= $1")
            .bind(before)
            .fetch_one(write.db())
            .await?;
        let removed_before = anchor.removed;
        let mut broken = None;
        loop {
            let mut seen = 0;
            let none: Vec<Row> =
                sql::query_as("SELECT * FROM events WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3")
                    .bind(if anchor.removed == 0 { i64::MIN } else { anchor.id })
                    .bind(stays.unwrap_or(i64::MAX))
                    .bind(CHUNK)
                    .fetch_picked(write.db(), |row: &Row| {
                        seen += 1;
                        let link = row.clone().link();
                        if link.previous != anchor.hash || link.event.id <= anchor.id || !link.is_whole() {
                            broken = Some(link.event.id);
                            return Pick::Stop;
                        }
                        anchor.id = link.event.id;
                        anchor.hash = link.hash;
                        anchor.removed += 1;
                        Pick::Skip
                    })
                    .await?;
            debug_assert!(none.is_empty(), "verified, and not kept");
            if let Some(id) = broken {
                let why = format!("event {id} does not follow in the chain; `sluice audit verify` says more");
                return Err(corrupt("events.hash")(why.into()));
            }
            if seen < CHUNK || anchor.removed - removed_before >= PRUNE_AT_ONCE {
                break;
            }
        }
        let removed = anchor.removed - removed_before;
        if removed == 0 {
            return Ok(0);
        }
        sql::query("DELETE FROM events WHERE id <= $1").bind(anchor.id).execute(write.db()).await?;
        sql::query("UPDATE audit_chain SET anchor_id = $1, anchor_hash = $2, anchor_removed = $3")
            .bind(anchor.id)
            .bind(&anchor.hash)
            .bind(anchor.removed)
            .execute(write.db())
            .await?;
        let meta = Meta::default().with("removed", removed.to_string());
        let meta =
            Pruned { anchor }.meta().into_iter().fold(meta, |meta, (key, value)| meta.with(key, value));
        write.event(Activity::AuditPrune, "", meta).await?;
        write.commit().await?;
        Ok(removed.unsigned_abs())
    }

    /// Gives the events of a store from before there was a chain their hashes, in their order, in one transaction.
    pub(super) async fn link_old_events(&self) -> Result<()> {
        if ends(&mut self.reader().await?).await?.0.id != 0 {
            return Ok(());
        }
        let mut db = self.begin().await?;
        // Another replica may have been first.
        let (mut head, _) = ends(&mut db).await?;
        if head.id != 0 {
            return Ok(());
        }
        let mut after = i64::MIN;
        loop {
            let rows: Vec<Row> = sql::query_as("SELECT * FROM events WHERE id > $1 ORDER BY id LIMIT $2")
                .bind(after)
                .bind(CHUNK)
                .fetch_all(&mut db)
                .await?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            for row in rows {
                let link = row.link().event.link(&head.hash);
                sql::query("UPDATE events SET previous = $1, hash = $2 WHERE id = $3")
                    .bind(&link.previous)
                    .bind(&link.hash)
                    .bind(link.event.id)
                    .execute(&mut db)
                    .await?;
                head = link.head();
            }
        }
        sql::query("UPDATE audit_chain SET head_id = $1, head_hash = $2")
            .bind(head.id)
            .bind(head.hash)
            .execute(&mut db)
            .await?;
        db.commit().await
    }
}

async fn ends(db: &mut Connection) -> Result<(Head, Anchor)> {
    let (head, head_hash, anchor, anchor_hash, removed): (i64, String, i64, String, i64) =
        sql::query_as("SELECT head_id, head_hash, anchor_id, anchor_hash, anchor_removed FROM audit_chain")
            .fetch_one(db)
            .await?;
    Ok((Head { id: head, hash: head_hash }, Anchor { id: anchor, hash: anchor_hash, removed }))
}

#[derive(Clone, FromRow)]
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
    previous: String,
    hash: String,
}

impl Row {
    fn link(self) -> Link {
        let event = Event {
            id: self.id,
            at: self.at,
            revision: self.revision,
            code: self.code,
            initiator_id: self.initiator_id,
            initiator_name: self.initiator_name,
            initiator_email: self.initiator_email,
            target_id: self.target_id,
            meta: self.meta,
        };
        Link { event, previous: self.previous, hash: self.hash }
    }
}
