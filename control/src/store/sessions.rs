//! Logins of people: a token for some hours, of which the store has the hash.

use serde::Serialize;
use sqlx::FromRow;
use subtle::ConstantTimeEq;

use super::sql;
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Store, StoreError, User, UserRole, join_keys, users};
use crate::ids::{new_id, now};
use crate::secret::{new_session, session_hash};

/// How long a login lasts, in milliseconds: a working day.
const LIFETIME: i64 = 12 * 3600 * 1000;

/// Logins of a user that may be open at a time; a further one ends the one that was used least recently.
const MOST: i64 = 50;
/// `last_used` is written at most this often, in milliseconds: a read must not cost a write.
const USE_RESOLUTION: i64 = 60_000;

/// How, from where and by which program somebody logs in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// `password` or `oidc`.
    pub method: String,
    /// Address of who asked; empty where that is not known.
    pub address: String,
    /// As the program calls itself.
    pub client: String,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
pub struct Session {
    /// Session id.
    pub id: String,
    /// Who is logged in.
    pub user_id: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// `password` or `oidc`; empty for one of an earlier version.
    pub method: String,
    /// The address it was made from.
    pub address: String,
    /// The program it was made by.
    pub client: String,
    /// Unix milliseconds, to the minute.
    pub last_used: Option<i64>,
}

impl Store {
    /// Logs an admitted user in; beside the session the text of its token, which is not kept.
    pub async fn create_session(&self, user: &User, via: &Via) -> Result<(Session, String)> {
        let mut write = self.write(&user.actor()).await?;
        let user = users::user(write.db(), &user.id).await?;
        super::sign_in::admit(&user)?;
        let (text, at) = (new_session(), write.at());
        let session = Session {
            id: new_id(),
            user_id: user.id.clone(),
            created_at: at,
            expires_at: at + LIFETIME,
            method: via.method.clone(),
            address: via.address.clone(),
            client: via.client.clone(),
            last_used: None,
        };
        let Some(hash) = session_hash(&text) else {
            return super::error::invalid("the session's token is malformed");
        };
        sql::query("DELETE FROM sessions WHERE expires_at <= $1").bind(at).execute(write.db()).await?;
        let open: i64 = sql::query_scalar("SELECT count(*) FROM sessions WHERE user_id = $1")
            .bind(&user.id)
            .fetch_one(write.db())
            .await?;
        if open >= MOST {
            make_room(&mut write, &user, open - MOST + 1).await?;
        }
        sql::query(
            "INSERT INTO sessions (id, user_id, hash, created_at, expires_at, method, address, client)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&session.id)
        .bind(&user.id)
        .bind(hash.as_slice())
        .bind(at)
        .bind(session.expires_at)
        .bind(&session.method)
        .bind(&session.address)
        .bind(&session.client)
        .execute(write.db())
        .await?;
        sql::query("UPDATE users SET last_login = $1 WHERE id = $2")
            .bind(at)
            .bind(&user.id)
            .execute(write.db())
            .await?;
        let meta = Meta::name(&user.name).after(&session);
        write.event(Activity::DashboardLogin, &user.id, meta).await?;
        write.commit().await?;
        Ok((session, text))
    }

    /// Who is logged in with this token; `None` for an unknown or expired one, and for a user who may do nothing.
    pub async fn session_user(&self, text: &str) -> Result<Option<User>> {
        let Some(hash) = session_hash(text) else { return Ok(None) };
        type Row = (String, String, Vec<u8>, i64, Option<i64>);
        let row: Option<Row> =
            sql::query_as("SELECT id, user_id, hash, expires_at, last_used FROM sessions WHERE hash = $1")
                .bind(hash.as_slice())
                .fetch_optional(&mut self.reader().await?)
                .await?;
        let Some((id, user, stored, expires_at, last_used)) = row else { return Ok(None) };
        // The index found it by comparing; what decides takes the same time for every difference.
        if !bool::from(stored.ct_eq(&hash)) || expires_at <= now() {
            return Ok(None);
        }
        let user = self.user(&user).await?;
        if !user.is_admitted() {
            return Ok(None);
        }
        if last_used.is_none_or(|at| at + USE_RESOLUTION <= now()) {
            self.session_used(&id).await;
        }
        Ok(Some(user))
    }

    /// Notes that a login was used. A store that cannot write still answers reads.
    async fn session_used(&self, id: &str) {
        let noted = async {
            let used = sql::query("UPDATE sessions SET last_used = $1 WHERE id = $2").bind(now()).bind(id);
            used.execute(&mut self.writer().await?).await
        };
        if let Err(error) = noted.await {
            tracing::warn!(session = id, %error, "the time of a login's use was not kept");
        }
    }

    /// The id of the login with this token, if there is one.
    pub async fn session_id(&self, text: &str) -> Result<Option<String>> {
        let Some(hash) = session_hash(text) else { return Ok(None) };
        sql::query_scalar("SELECT id FROM sessions WHERE hash = $1")
            .bind(hash.as_slice())
            .fetch_optional(&mut self.reader().await?)
            .await
    }

    /// The open logins of a user, the newest first.
    pub async fn sessions(&self, user: &str) -> Result<Vec<Session>> {
        let mut db = self.read().await?;
        users::user(&mut db, user).await?;
        sql::query_as(
            "SELECT id, user_id, created_at, expires_at, method, address, client, last_used FROM sessions
             WHERE user_id = $1 AND expires_at > $2 ORDER BY created_at DESC, id",
        )
        .bind(user)
        .bind(now())
        .fetch_all(&mut db)
        .await
    }

    /// Ends a login of `user`: the own, or, for an administrator, that of a user of no higher role. Keys for machines that the
    /// user's logins have made and nobody has used end too: which login made which is not kept.
    pub async fn end_session_of(&self, caller: &User, user: &str, id: &str) -> Result<()> {
        let mut write = self.write(&caller.actor()).await?;
        // What the caller is may have changed while the request waited.
        let caller = users::user(write.db(), &caller.id).await?;
        let owner = users::user(write.db(), user).await?;
        if caller.id != owner.id {
            if !caller.is_admitted() || caller.role < UserRole::Admin {
                return Err(StoreError::Denied("logins of other users are ended by administrators".into()));
            }
            users::may_grant(&caller, owner.role)?;
        }
        let before: Option<Session> = sql::query_as(
            "SELECT id, user_id, created_at, expires_at, method, address, client, last_used FROM sessions
             WHERE user_id = $1 AND id = $2",
        )
        .bind(user)
        .bind(id)
        .fetch_optional(write.db())
        .await?;
        let Some(before) = before else { return super::error::not_found("session", id) };
        sql::query("DELETE FROM sessions WHERE id = $1").bind(id).execute(write.db()).await?;
        join_keys::end_unused(&mut write, user).await?;
        write.event(Activity::SessionEnd, user, Meta::name(&owner.name).before(&before)).await?;
        write.commit().await
    }

    /// Ends the login with this token, and unused keys as [`Store::end_session_of`] does. What is not there is ended.
    pub async fn end_session(&self, text: &str) -> Result<()> {
        let Some(hash) = session_hash(text) else { return Ok(()) };
        let mut write = self.write(&Actor::system()).await?;
        let user: Option<String> =
            sql::query_scalar("DELETE FROM sessions WHERE hash = $1 RETURNING user_id")
                .bind(hash.as_slice())
                .fetch_optional(write.db())
                .await?;
        if let Some(user) = user {
            join_keys::end_unused(&mut write, &user).await?;
        }
        write.commit().await
    }

    /// Lets every login end now; for tests of expiry.
    #[doc(hidden)]
    pub async fn expire_sessions(&self) -> Result<()> {
        sql::query("UPDATE sessions SET expires_at = $1")
            .bind(now())
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }
}

/// Ends the logins of a user that were not used for the longest time. Keys for machines stay: nobody has said that a login is not
/// to be trusted.
async fn make_room(write: &mut Write, user: &User, count: i64) -> Result<()> {
    let oldest: Vec<Session> = sql::query_as(
        "SELECT id, user_id, created_at, expires_at, method, address, client, last_used FROM sessions
         WHERE user_id = $1 ORDER BY COALESCE(last_used, created_at), created_at, id LIMIT $2",
    )
    .bind(&user.id)
    .bind(count)
    .fetch_all(write.db())
    .await?;
    for before in &oldest {
        sql::query("DELETE FROM sessions WHERE id = $1").bind(&before.id).execute(write.db()).await?;
        write.event(Activity::SessionEnd, &user.id, Meta::name(&user.name).before(before)).await?;
    }
    Ok(())
}
