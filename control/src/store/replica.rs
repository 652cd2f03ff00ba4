//! Several control services over one PostgreSQL database: hearing of each other's changes, knowing who is there, and
//! agreeing on one that does the work of which there is one.
//!
//! Every change notifies; whoever listens follows at once. Notifications can be lost (a connection that broke, a server
//! that changed), so the revision is also looked at once a second. Signs of life go the same way: a replica that has not
//! given any for ten seconds is gone, and so are the agents' streams it had.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::AbortHandle;

use super::flow_sums;
use super::observe::Observed;
use super::questions::{self, Note};
use crate::ids::{DAY, now};

/// Where changes are told, with the new revision as text.
pub(super) const CHANNEL: &str = "sluicegate_changes";
/// How often the database is looked at, whether or not it has told anything.
const LOOK: Duration = Duration::from_secs(1);
/// A database that does not answer a look within this is asked anew, over another connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Without a sign of life for this long a replica is gone, in milliseconds of the database's clock.
const GONE: i64 = 10_000;
/// The advisory lock of the one that leads: "sluicegl" in ASCII.
const LEADER_LOCK: i64 = 0x736c_7569_6365_676c;

/// What a replica knows of the others.
pub(super) struct Shared {
    /// This replica's id, new with every start.
    pub(super) id: String,
    /// Revision of the last change that anybody has made durable.
    pub(super) revision: watch::Sender<u64>,
    /// Whether this replica does the work of which there is one.
    pub(super) leads: watch::Sender<bool>,
    /// Raised when the others have taken this replica for gone, and its agents with it.
    pub(super) returned: watch::Sender<u64>,
    /// Why this process cannot go on.
    pub(super) lost: watch::Sender<Option<String>>,
    /// What replicas tell each other of questions and answers.
    pub(super) notes: broadcast::Sender<Note>,
    pub(super) observed: Arc<Observed>,
}

impl Shared {
    /// Takes note of a revision that is durable; whether that was news.
    pub(super) fn raise(&self, revision: u64) -> bool {
        self.revision.send_if_modified(|known| {
            let newer = revision > *known;
            *known = revision.max(*known);
            newer
        })
    }
}

/// The tasks that follow the database; they end with this.
pub(super) struct Follower(Vec<AbortHandle>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Follower {
    /// Starts following.
    pub(super) fn start(shared: &Arc<Shared>, options: &PgConnectOptions) -> Self {
        let look = Arc::new(Notify::new());
        let listen = tokio::spawn(listen(shared.clone(), options.clone(), look.clone()));
        let follow = tokio::spawn(follow(shared.clone(), options.clone(), look));
        Self(vec![listen.abort_handle(), follow.abort_handle()])
    }
}

/// Takes notifications. After a break the database is looked at: what was told meanwhile is lost.
async fn listen(shared: Arc<Shared>, options: PgConnectOptions, look: Arc<Notify>) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options);
    loop {
        if let Err(error) = listen_once(&shared, &pool, &look).await {
            tracing::warn!(%error, "the store's database tells of no changes; it is looked at instead");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn listen_once(shared: &Shared, pool: &sqlx::PgPool, look: &Notify) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all([CHANNEL, questions::CHANNEL]).await?;
    look.notify_one();
    loop {
        let Some(notification) = listener.try_recv().await? else {
            look.notify_one();
            continue;
        };
        if notification.channel() == questions::CHANNEL {
            if let Some(note) = Note::read(notification.payload()) {
                // An error means that nobody asks or answers here.
                let _ = shared.notes.send(note);
            }
            continue;
        }
        shared.observed.notified.set(now() / 1000);
        if let Ok(revision) = notification.payload().parse() {
            shared.raise(revision);
        }
    }
}

/// Looks at the database once a second, over a connection of its own, to which leading is tied.
async fn follow(shared: Arc<Shared>, options: PgConnectOptions, look: Arc<Notify>) {
    let mut failing = false;
    loop {
        // Ends by failing: its connection is gone, and with it the lock of the one that leads.
        let Err(error) = follow_once(&shared, &options, &look, &mut failing).await;
        shared.leads.send_replace(false);
        shared.observed.leader.set(0);
        if !std::mem::replace(&mut failing, true) {
            tracing::error!(%error, "the store's database does not answer; agents keep the images they have");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn follow_once(
    shared: &Shared,
    options: &PgConnectOptions,
    look: &Notify,
    failing: &mut bool,
) -> sqlx::Result<std::convert::Infallible> {
    let mut db = patiently(options.connect()).await?;
    loop {
        patiently(look_once(shared, &mut db)).await?;
        if std::mem::take(failing) {
            tracing::info!("the store's database answers again");
        }
        // An early look is as good as a timely one.
        let _ = tokio::time::timeout(LOOK, look.notified()).await;
    }
}

async fn patiently<T>(work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

async fn look_once(shared: &Shared, db: &mut PgConnection) -> sqlx::Result<()> {
    // Before asking: whatever is known now is durable, so an answer below it means that the database went back.
    let known = *shared.revision.borrow();
    let found: Option<i64> =
        sqlx::query_scalar("SELECT revision FROM account").fetch_optional(&mut *db).await?;
    match found.map(i64::unsigned_abs) {
        Some(revision) if revision >= known => {
            if shared.raise(revision) {
                shared.observed.polled.inc();
            }
        }
        Some(revision) => shared.lost(format!(
            "the store's database went back from revision {known} to {revision}: a backup was restored, or a standby \
             became the primary that had not got every change; start control again, which goes by what the database \
             holds now"
        )),
        None => shared.lost("the store's database does not hold the account any more".into()),
    }
    if beat(shared, db).await? {
        shared.returned.send_modify(|times| *times += 1);
    }
    if !*shared.leads.borrow() && lead(db).await? {
        tracing::info!("this replica now does the work of which there is one");
        shared.leads.send_replace(true);
        shared.observed.leader.set(1);
    }
    if *shared.leads.borrow() {
        forget_the_gone(db).await?;
    }
    let replicas: i64 = sqlx::query_scalar("SELECT count(*) FROM replicas").fetch_one(db).await?;
    shared.observed.replicas.set(replicas);
    Ok(())
}

impl Shared {
    fn lost(&self, why: String) {
        self.lost.send_if_modified(|lost| lost.is_none() && lost.replace(why).is_none());
    }
}

/// Gives a sign of life. True when there was no trace of earlier ones.
async fn beat(shared: &Shared, db: &mut PgConnection) -> sqlx::Result<bool> {
    // xmax is 0 in a row that was inserted, and not in one that was updated.
    let row = sqlx::query(
        "INSERT INTO replicas (id, last_seen) VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
         ON CONFLICT (id) DO UPDATE SET last_seen = excluded.last_seen RETURNING xmax = 0",
    )
    .bind(&shared.id)
    .fetch_one(db)
    .await?;
    row.try_get(0)
}

async fn lead(db: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(LEADER_LOCK).fetch_one(db).await
}

/// Takes note of the writers of sums that do not come back.
async fn break_off(db: &mut PgConnection, now: i64) -> sqlx::Result<()> {
    let mut change = db.begin().await?;
    let gone =
        sqlx::query(flow_sums::FORGET_WRITERS).bind(now - flow_sums::GRACE).execute(&mut *change).await?;
    if gone.rows_affected() > 0 {
        sqlx::query(flow_sums::NOTE_BREAK)
            .bind(now.div_euclid(DAY))
            .bind(i64::try_from(gone.rows_affected()).unwrap_or(i64::MAX))
            .bind(now)
            .execute(&mut *change)
            .await?;
    }
    change.commit().await
}

/// Peers whose replica is gone are not connected, and what was asked long ago waits for no answer.
async fn forget_the_gone(db: &mut PgConnection) -> sqlx::Result<()> {
    // What they write they may still bring, when it was the database that was away: their time begins now.
    let gone: i64 = sqlx::query_scalar(
        "WITH gone AS (DELETE FROM replicas
             WHERE last_seen < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1 RETURNING id),
         away AS (UPDATE flow_writers SET at = $2 WHERE replica IN (SELECT id FROM gone))
         SELECT count(*) FROM gone",
    )
    .bind(GONE)
    .bind(now())
    .fetch_one(&mut *db)
    .await?;
    if gone > 0 {
        tracing::warn!(count = gone, "replicas of control that gave no sign of life are taken for gone");
    }
    sqlx::query(
        "DELETE FROM flow_questions WHERE until < (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1",
    )
    .bind(GONE)
    .execute(&mut *db)
    .await?;
    break_off(db, now()).await?;
    // A peer that a change has locked waits for the next look: two that lock many peers must not wait for each other.
    sqlx::query(
        "UPDATE peers SET connected = FALSE, replica = '', last_seen = $1 WHERE id IN (SELECT p.id FROM peers p
         WHERE p.connected AND NOT EXISTS (SELECT 1 FROM replicas r WHERE r.id = p.replica) FOR UPDATE SKIP LOCKED)",
    )
    // They were here until now, as far as anybody knows: their absence begins.
    .bind(now())
    .execute(db)
    .await?;
    Ok(())
}
