//! Peers whose user has to log in again: because the login is too old, or because the peer was away for too long. Peers that
//! a setup key made never expire.

use std::sync::atomic::Ordering;

use super::account::account;
use super::peers::{self, Expired};
use super::sql;
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Settings, Store};
use crate::ids::now;

impl Store {
    /// Marks the peers that have expired by now, and lifts the mark where settings have changed; how many moved.
    pub async fn expire_peers(&self) -> Result<usize> {
        // Most of the time there is nothing to do, and nobody has to wait for that.
        let (settings, now, since) = (self.account().await?.settings, now(), self.started());
        let rows: Vec<Row> = sql::query_as(ROWS).fetch_all(&mut self.reader().await?).await?;
        if rows.iter().all(|row| row.wanted(&settings, now, since) == row.expired) {
            return Ok(0);
        }
        let mut write = self.write(&Actor::system()).await?;
        let moved = apply(&mut write).await?;
        write.commit().await?;
        Ok(moved)
    }

    /// What happened before control started it has not seen: a peer that was connected then had no chance to come back.
    fn started(&self) -> i64 {
        self.inner.started.load(Ordering::Relaxed)
    }

    /// Lets this control have started at another time, Unix milliseconds; for tests of absence.
    #[doc(hidden)]
    pub fn start_at(&self, at: i64) {
        self.inner.started.store(at, Ordering::Relaxed);
    }

    /// Lets the login of a peer be older; for tests of expiry, which settings can only ask for in seconds.
    #[doc(hidden)]
    pub async fn age_peer(&self, id: &str, milliseconds: i64) -> Result<()> {
        sql::query("UPDATE peers SET last_login = last_login - $1, last_seen = last_seen - $1 WHERE id = $2")
            .bind(milliseconds)
            .bind(id)
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }
}

/// As [`Store::expire_peers`], in a change under way.
pub(super) async fn apply(write: &mut Write) -> Result<usize> {
    let (settings, at, since) = (account(write.db()).await?.settings, write.at(), write.store().started());
    let rows: Vec<Row> = sql::query_as(ROWS).fetch_all(write.db()).await?;
    let mut moved = 0;
    for row in rows {
        let wanted = row.wanted(&settings, at, since);
        if wanted == row.expired {
            continue;
        }
        let before = peers::peer(write.db(), &row.id).await?;
        sql::query("UPDATE peers SET expired = $1 WHERE id = $2")
            .bind(wanted)
            .bind(&row.id)
            .execute(write.db())
            .await?;
        let after = peers::peer(write.db(), &row.id).await?;
        // Where an expiry is lifted, what lifted it has its own event.
        if !wanted.is_empty() {
            let meta = Meta::name(&after.name).with("reason", wanted).before(&before).after(&after);
            write.event(Activity::PeerLoginExpire, &row.id, meta).await?;
        }
        moved += 1;
    }
    Ok(moved)
}

const ROWS: &str = "SELECT id, last_login, last_seen, connected, login_expiration_enabled, inactivity_expiration_enabled, \
     expired FROM peers WHERE user_id <> '' ORDER BY id";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    last_login: i64,
    last_seen: i64,
    connected: bool,
    login_expiration_enabled: bool,
    inactivity_expiration_enabled: bool,
    expired: String,
}

impl Row {
    /// Why it is expired now, by a control that has seen who is there since `started`.
    fn wanted(&self, settings: &Settings, now: i64, started: i64) -> &'static str {
        let over = |since: i64, seconds: i64| since.saturating_add(seconds.saturating_mul(1000)) <= now;
        let login = settings.peer_login_expiration_enabled
            && self.login_expiration_enabled
            && over(self.last_login, settings.peer_login_expiration);
        let inactivity = settings.peer_inactivity_expiration_enabled
            && self.inactivity_expiration_enabled
            // Who has been away too long does not come back by connecting.
            && (self.expired == Expired::text(Some(Expired::Inactivity))
                || (!self.connected && over(self.last_seen.max(started), settings.peer_inactivity_expiration)));
        Expired::text(match (login, inactivity) {
            (true, _) => Some(Expired::Login),
            (false, true) => Some(Expired::Inactivity),
            (false, false) => None,
        })
    }
}
