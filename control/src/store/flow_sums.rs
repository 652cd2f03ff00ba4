//! What flows there were, summed up by day: what a policy was used for is asked of this, over all replicas and restarts.
//!
//! It is no part of the account: nothing here is in the audit trail or raises the revision. Sums are written in batches, which take
//! turns among each other, and in SQLite with changes too, which wait for one batch at the most. A day has a bounded number of rows,
//! and so has a source in it; events beyond are counted, so that whoever reads knows what is missing. The account's settings decide
//! what may be kept, also here: they are looked at in the transaction that writes, and what they forbid from now on is forgotten in
//! the one that changes them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use sqlx::FromRow;

use super::account::{FlowLog, account};
use super::error::parse;
use super::sql::{self, Connection, Driver, Pick};
use super::{Result, Store, unit};
use crate::ids::{DAY, now};

/// The advisory lock of whoever writes sums: "sluicefl" in ASCII.
const SUMS_LOCK: i64 = 0x736c_7569_6365_666c;
/// Rows of one day.
pub const OF_A_DAY: usize = 131_072;
/// Where a number of packets or bytes stops rising.
const CEILING: u64 = 1 << 61;

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowVerdict {
    /// A rule admitted it.
    Accept,
    /// A packet was refused.
    Drop,
    /// A change ended it.
    Revoke,
}

impl FlowVerdict {
    /// Rows of one source in a day, with this verdict. What has no peer as its source counts as one source.
    pub fn of_a_source(self) -> usize {
        match self {
            FlowVerdict::Accept | FlowVerdict::Revoke => 4_096,
            FlowVerdict::Drop => 512,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            FlowVerdict::Accept => "accept",
            FlowVerdict::Drop => "drop",
            FlowVerdict::Revoke => "revoke",
        }
    }
}

/// Flows that are summed up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Days since 1970, UTC.
    pub day: i64,
    /// Peer id of the source; empty where it is none.
    pub peer: String,
    /// What became of them.
    pub verdict: FlowVerdict,
    /// Address of a source that is no peer; else empty.
    pub source: String,
    /// Peer or resource id, or the address of what is neither.
    pub destination: String,
    /// Of the addresses: 4 or 6.
    pub version: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// The destination's; the type of ICMP; 0 where the protocol has none.
    pub port: u16,
    /// The policy that decided, if any.
    pub policy_id: String,
    /// Its rule.
    pub rule_id: String,
    /// Whether whoever told of them is where they come into the overlay. A flow may be told of there, and where it leaves.
    pub enters: bool,
}

/// How many they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowAmount {
    /// An address that the destination had.
    pub address: IpAddr,
    /// Events of beginnings.
    pub begun: u64,
    /// Other events: ends, drops, revocations.
    pub ended: u64,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes in both directions.
    pub bytes: u64,
    /// Unix milliseconds.
    pub first_seen: i64,
    /// Unix milliseconds.
    pub last_seen: i64,
}

impl FlowAmount {
    /// As much more.
    pub fn add(&mut self, more: &Self) {
        self.begun += more.begun;
        self.ended += more.ended;
        self.packets = self.packets.saturating_add(more.packets).min(CEILING);
        self.bytes = self.bytes.saturating_add(more.bytes).min(CEILING);
        self.first_seen = self.first_seen.min(more.first_seen);
        self.last_seen = self.last_seen.max(more.last_seen);
    }
}

/// The events of a policy on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowDay {
    /// All of them.
    pub events: u64,
    /// Those that are in no sum.
    pub unfit: u64,
    /// When the first was seen, Unix milliseconds.
    pub first_seen: i64,
}

impl FlowDay {
    /// As many more.
    pub fn add(&mut self, more: &Self) {
        self.events += more.events;
        self.unfit += more.unfit;
        self.first_seen = self.first_seen.min(more.first_seen);
    }
}

/// What is written at once.
#[derive(Clone, Debug, Default)]
pub struct FlowBatch {
    /// Sums.
    pub sums: Vec<(FlowKey, FlowAmount)>,
    /// The events that these are of, and those that did not fit so far, by day and policy id.
    pub days: BTreeMap<(i64, String), FlowDay>,
    /// How many events each agent says it has lost since it started, and when it said so, by peer id.
    pub lost: BTreeMap<String, (u64, i64)>,
}

impl FlowBatch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty() && self.days.is_empty() && self.lost.is_empty()
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Rows, new or greater.
    pub rows: u64,
    /// Events that did not fit.
    pub unfit: u64,
}

/// How whole an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCoverage {
    /// When the first event of any policy was seen, of those that are counted; Unix milliseconds.
    pub first_seen: Option<i64>,
    /// Events of the policy.
    pub events: u64,
    /// Those of them that are in no sum.
    pub unfit: u64,
    /// Events of whatever policy that agents lost.
    pub lost: u64,
    /// How often a control ended without having written what it had heard last.
    pub broken_off: u64,
}

/// How long a writer may be away before it is taken for gone, in milliseconds: when the database was away, all of them were, and
/// come back.
pub(super) const GRACE: i64 = 60_000;
/// Forgets the writers that have been away since a time (Unix milliseconds): every one but those that said that nothing was left.
pub(super) const FORGET_WRITERS: &str =
    "DELETE FROM flow_writers WHERE at < $1 AND replica NOT IN (SELECT id FROM replicas)";
/// Takes note of how many they were, on the day and at the time when that was found (Unix milliseconds).
pub(super) const NOTE_BREAK: &str =
    "INSERT INTO flow_days (day, policy_id, events, unfit, lost, broken_off, first_seen)
     VALUES ($1, '', 0, 0, 0, $2, $3)
     ON CONFLICT (day, policy_id) DO UPDATE SET broken_off = flow_days.broken_off + excluded.broken_off";

#[derive(FromRow)]
struct Row {
    day: i64,
    peer: String,
    source: String,
    destination: String,
    version: i64,
    protocol: i64,
    port: i64,
    rule_id: String,
    enters: bool,
    address: String,
    begun: i64,
    ended: i64,
    packets: i64,
    bytes: i64,
    first_seen: i64,
    last_seen: i64,
}

impl Store {
    /// Adds to the sums; `None`, with nothing written, where the account's settings of flow events are not `log` any more, and in a unit,
    /// which holds what this would wait for. Where nothing is to be kept, nothing is written either, and that is all there is to do.
    pub async fn add_flow_sums(&self, log: &FlowLog, batch: &FlowBatch) -> Result<Option<Added>> {
        if unit::is_within() {
            return Ok(None);
        }
        let mut db = self.inner.database.aside(&self.inner.shared.observed).await?;
        lock(&mut db).await?;
        if account(&mut db).await?.settings.flow_log() != *log {
            return Ok(None);
        }
        if !log.enabled {
            return Ok(Some(Added::default()));
        }
        sql::query("INSERT INTO flow_writers (replica, at) VALUES ($1, $2) ON CONFLICT (replica) DO UPDATE SET at = excluded.at")
            .bind(&self.inner.shared.id)
            .bind(now())
            .execute(&mut db)
            .await?;
        let mut room = Room::default();
        let mut days = batch.days.clone();
        let mut added = Added::default();
        for (key, amount) in &batch.sums {
            if raise(&mut db, key, amount).await? {
                added.rows += 1;
            } else if room.admits(&mut db, key).await? {
                insert(&mut db, key, amount).await?;
                added.rows += 1;
            } else {
                let unfit = amount.begun + amount.ended;
                added.unfit += unfit;
                let more = FlowDay { events: 0, unfit, first_seen: amount.first_seen };
                days.entry((key.day, key.policy_id.clone())).and_modify(|day| day.add(&more)).or_insert(more);
            }
        }
        for ((day, policy), of) in &days {
            note_day(&mut db, *day, policy, of, 0).await?;
        }
        for (peer, (total, at)) in &batch.lost {
            let lost = lost_since(&mut db, peer, *total).await?;
            if lost > 0 {
                let day = FlowDay { events: 0, unfit: 0, first_seen: *at };
                note_day(&mut db, at.div_euclid(DAY), "", &day, lost).await?;
            }
        }
        db.commit().await?;
        Ok(Some(added))
    }

    /// Says that this replica has written what it heard, and hears no more.
    pub async fn flow_sums_are_whole(&self) -> Result<()> {
        sql::query("DELETE FROM flow_writers WHERE replica = $1")
            .bind(&self.inner.shared.id)
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }

    /// Hands every sum of flows that the policy admitted to `each`, from a day on; how whole that is.
    pub async fn flow_sums(
        &self,
        policy: &str,
        from_day: i64,
        mut each: impl FnMut(FlowKey, FlowAmount) + Send,
    ) -> Result<FlowCoverage> {
        let mut db = self.read().await?;
        let mut wrong = None;
        let nothing: Vec<Row> = sql::query_as(
            "SELECT day, peer, source, destination, version, protocol, port, rule_id, enters, address, begun, ended, packets,
             bytes, first_seen, last_seen FROM flow_sums WHERE day >= $1 AND policy_id = $2 AND verdict = 'accept'",
        )
        .bind(from_day)
        .bind(policy)
        .fetch_picked(&mut db, |row: &Row| match row.read(policy) {
            Ok((key, amount)) => {
                each(key, amount);
                Pick::Skip
            }
            Err(error) => {
                wrong = Some(error);
                Pick::Stop
            }
        })
        .await?;
        debug_assert!(nothing.is_empty(), "handed on, and not kept");
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        let days: Vec<(String, i64, i64, i64, i64, i64)> = sql::query_as(
            "SELECT policy_id, events, unfit, lost, broken_off, first_seen FROM flow_days WHERE day >= $1 ORDER BY day",
        )
        .bind(from_day)
        .fetch_all(&mut db)
        .await?;
        let mut coverage = FlowCoverage::default();
        for (of, events, unfit, lost, broken_off, first_seen) in days {
            coverage.first_seen = Some(coverage.first_seen.map_or(first_seen, |first| first.min(first_seen)));
            coverage.lost += lost.unsigned_abs();
            coverage.broken_off += broken_off.unsigned_abs();
            if of == policy {
                coverage.events += events.unsigned_abs();
                coverage.unfit += unfit.unsigned_abs();
            }
        }
        Ok(coverage)
    }

    /// Removes the sums of days before one, a day at a time, and what was noted of agents that are gone; how many sums.
    pub async fn prune_flow_sums(&self, before_day: i64) -> Result<u64> {
        let mut removed = 0;
        loop {
            let oldest: Option<i64> = sql::query_scalar("SELECT min(day) FROM flow_days WHERE day < $1")
                .bind(before_day)
                .fetch_one(&mut self.reader().await?)
                .await?;
            let Some(oldest) = oldest else { break };
            let mut db = self.writer().await?;
            let sums =
                sql::query("DELETE FROM flow_sums WHERE day <= $1").bind(oldest).execute(&mut db).await?;
            removed += sums.rows_affected();
            sql::query("DELETE FROM flow_days WHERE day <= $1").bind(oldest).execute(&mut db).await?;
        }
        sql::query("DELETE FROM flow_reporters WHERE peer_id NOT IN (SELECT id FROM peers)")
            .execute(&mut self.writer().await?)
            .await?;
        Ok(removed)
    }
}

impl Row {
    fn read(&self, policy: &str) -> Result<(FlowKey, FlowAmount)> {
        let number = |value: i64| value.unsigned_abs();
        let key = FlowKey {
            day: self.day,
            peer: self.peer.clone(),
            verdict: FlowVerdict::Accept,
            source: self.source.clone(),
            destination: self.destination.clone(),
            version: u8::try_from(self.version).unwrap_or_default(),
            protocol: u8::try_from(self.protocol).unwrap_or_default(),
            port: u16::try_from(self.port).unwrap_or_default(),
            policy_id: policy.to_owned(),
            rule_id: self.rule_id.clone(),
            enters: self.enters,
        };
        let amount = FlowAmount {
            address: parse("flow_sums.address", &self.address)?,
            begun: number(self.begun),
            ended: number(self.ended),
            packets: number(self.packets),
            bytes: number(self.bytes),
            first_seen: self.first_seen,
            last_seen: self.last_seen,
        };
        Ok((key, amount))
    }
}

/// How many more rows there may be.
#[derive(Default)]
struct Room {
    days: HashMap<i64, usize>,
    sources: HashMap<(i64, String, FlowVerdict), usize>,
}

impl Room {
    /// Whether there is room for a row, which is taken then.
    async fn admits(&mut self, db: &mut Connection, key: &FlowKey) -> Result<bool> {
        let of_day = match self.days.entry(key.day) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let rows: i64 = sql::query_scalar("SELECT count(*) FROM flow_sums WHERE day = $1")
                    .bind(key.day)
                    .fetch_one(&mut *db)
                    .await?;
                unknown.insert(left(OF_A_DAY, rows))
            }
        };
        let of_source = match self.sources.entry((key.day, key.peer.clone(), key.verdict)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let rows: i64 = sql::query_scalar(
                    "SELECT count(*) FROM flow_sums WHERE day = $1 AND peer = $2 AND verdict = $3",
                )
                .bind(key.day)
                .bind(&key.peer)
                .bind(key.verdict.as_str())
                .fetch_one(&mut *db)
                .await?;
                unknown.insert(left(key.verdict.of_a_source(), rows))
            }
        };
        let admitted = *of_day > 0 && *of_source > 0;
        if admitted {
            (*of_day, *of_source) = (*of_day - 1, *of_source - 1);
        }
        Ok(admitted)
    }
}

fn left(most: usize, rows: i64) -> usize {
    most.saturating_sub(usize::try_from(rows).unwrap_or(usize::MAX))
}

/// In PostgreSQL one writes sums at a time, or two that raise the same rows would wait for each other.
async fn lock(db: &mut Connection) -> Result<()> {
    if let Driver::Postgres(_) = db.driver() {
        sql::query("SELECT pg_advisory_xact_lock($1)").bind(SUMS_LOCK).execute(db).await?;
    }
    Ok(())
}

/// A number as a column takes it.
fn column(number: u64) -> i64 {
    i64::try_from(number.min(CEILING)).unwrap_or(i64::MAX)
}

/// Adds to a row that is there; whether it is.
async fn raise(db: &mut Connection, key: &FlowKey, amount: &FlowAmount) -> Result<bool> {
    let done = sql::query(
        "UPDATE flow_sums SET begun = begun + $12, ended = ended + $13,
         packets = CASE WHEN packets < $14 THEN packets + $15 ELSE $16 END,
         bytes = CASE WHEN bytes < $17 THEN bytes + $18 ELSE $16 END,
         first_seen = CASE WHEN first_seen < $19 THEN first_seen ELSE $19 END,
         last_seen = CASE WHEN last_seen > $20 THEN last_seen ELSE $20 END
         WHERE day = $1 AND peer = $2 AND verdict = $3 AND source = $4 AND destination = $5 AND version = $6 AND protocol = $7
         AND port = $8 AND policy_id = $9 AND rule_id = $10 AND enters = $11",
    );
    let (packets, bytes, ceiling) = (column(amount.packets), column(amount.bytes), column(CEILING));
    let done = bind_key(done, key)
        .bind(column(amount.begun))
        .bind(column(amount.ended))
        .bind(ceiling - packets)
        .bind(packets)
        .bind(ceiling)
        .bind(ceiling - bytes)
        .bind(bytes)
        .bind(amount.first_seen)
        .bind(amount.last_seen)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

async fn insert(db: &mut Connection, key: &FlowKey, amount: &FlowAmount) -> Result<()> {
    let query = sql::query(
        "INSERT INTO flow_sums (day, peer, verdict, source, destination, version, protocol, port, policy_id, rule_id, enters,
         address, begun, ended, packets, bytes, first_seen, last_seen)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
    );
    bind_key(query, key)
        .bind(amount.address.to_string())
        .bind(column(amount.begun))
        .bind(column(amount.ended))
        .bind(column(amount.packets))
        .bind(column(amount.bytes))
        .bind(amount.first_seen)
        .bind(amount.last_seen)
        .execute(db)
        .await?;
    Ok(())
}

fn bind_key(query: sql::Query<()>, key: &FlowKey) -> sql::Query<()> {
    query
        .bind(key.day)
        .bind(&key.peer)
        .bind(key.verdict.as_str())
        .bind(&key.source)
        .bind(&key.destination)
        .bind(u32::from(key.version))
        .bind(u32::from(key.protocol))
        .bind(key.port)
        .bind(&key.policy_id)
        .bind(&key.rule_id)
        .bind(key.enters)
}

async fn note_day(db: &mut Connection, day: i64, policy: &str, of: &FlowDay, lost: u64) -> Result<()> {
    sql::query(
        "INSERT INTO flow_days (day, policy_id, events, unfit, lost, broken_off, first_seen) VALUES ($1, $2, $3, $4, $5, 0, $6)
         ON CONFLICT (day, policy_id) DO UPDATE SET events = flow_days.events + excluded.events,
         unfit = flow_days.unfit + excluded.unfit, lost = flow_days.lost + excluded.lost,
         first_seen = CASE WHEN flow_days.first_seen < excluded.first_seen THEN flow_days.first_seen
         ELSE excluded.first_seen END",
    )
    .bind(day)
    .bind(policy)
    .bind(column(of.events))
    .bind(column(of.unfit))
    .bind(column(lost).min(i64::from(u32::MAX)))
    .bind(of.first_seen)
    .execute(db)
    .await?;
    Ok(())
}

/// How many events an agent has lost since it said last. One that says less than before has started again.
async fn lost_since(db: &mut Connection, peer: &str, total: u64) -> Result<u64> {
    let before: Option<i64> = sql::query_scalar("SELECT lost FROM flow_reporters WHERE peer_id = $1")
        .bind(peer)
        .fetch_optional(&mut *db)
        .await?;
    let (before, total) = (before.unwrap_or_default(), column(total));
    if total != before {
        sql::query(
            "INSERT INTO flow_reporters (peer_id, lost) VALUES ($1, $2) ON CONFLICT (peer_id) DO UPDATE SET lost = excluded.lost",
        )
        .bind(peer)
        .bind(total)
        .execute(db)
        .await?;
    }
    let lost = if total < before { total } else { total - before };
    Ok(lost.unsigned_abs())
}

/// Takes note of every writer, none of which is there any more.
pub(super) async fn break_off(db: &mut Connection) -> Result<()> {
    let gone = sql::query(FORGET_WRITERS).bind(i64::MAX).execute(&mut *db).await?.rows_affected();
    if gone > 0 {
        let now = now();
        sql::query(NOTE_BREAK).bind(now.div_euclid(DAY)).bind(column(gone)).bind(now).execute(db).await?;
    }
    Ok(())
}

/// Forgets what the settings do not let control keep from now on. Of flows between peers that are in none of the groups, also those that
/// an agent in one of them told of: nobody kept who that was.
pub(super) async fn forget(db: &mut Connection, before: &FlowLog, after: &FlowLog) -> Result<()> {
    if before == after {
        return Ok(());
    }
    lock(db).await?;
    if !after.enabled {
        // In the order of whoever takes note of those that are gone.
        sql::query("DELETE FROM flow_writers").execute(&mut *db).await?;
        sql::query("DELETE FROM flow_days").execute(&mut *db).await?;
        sql::query("DELETE FROM flow_sums").execute(db).await?;
        return Ok(());
    }
    if before.counters && !after.counters {
        sql::query("UPDATE flow_sums SET packets = 0, bytes = 0 WHERE packets > 0 OR bytes > 0")
            .execute(db)
            .await?;
    }
    if after.is_narrower_than(before) {
        forget_others(db, &after.groups).await?;
    }
    Ok(())
}

/// Sums of flows of peers that are in none of the groups `$1`: ids, with spaces before, between and after them.
macro_rules! of_others {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " WHERE peer NOT IN (SELECT peer_id FROM group_peers WHERE replace($1, ' ' || group_id || ' ', '') <> $1)
             AND destination NOT IN (SELECT peer_id FROM group_peers WHERE replace($1, ' ' || group_id || ' ', '') <> $1) ",
            $after
        )
    };
}

/// The events stay counted, and as many are in no sum any more: an answer that they are missing in is not whole.
const COUNT_OTHERS: &str = of_others!(
    "INSERT INTO flow_days (day, policy_id, events, unfit, lost, broken_off, first_seen)
     SELECT day, policy_id, 0, CAST(sum(begun + ended) AS BIGINT), 0, 0, min(first_seen) FROM flow_sums",
    "GROUP BY day, policy_id
     ON CONFLICT (day, policy_id) DO UPDATE SET unfit = flow_days.unfit + excluded.unfit"
);
const FORGET_OTHERS: &str = of_others!("DELETE FROM flow_sums", "");

async fn forget_others(db: &mut Connection, groups: &[String]) -> Result<()> {
    let groups = format!(" {} ", groups.join(" "));
    sql::query(COUNT_OTHERS).bind(&groups).execute(&mut *db).await?;
    sql::query(FORGET_OTHERS).bind(&groups).execute(db).await?;
    Ok(())
}
