//! Personal access tokens.

use serde::Serialize;
use sqlx::FromRow;
use subtle::ConstantTimeEq;

use super::error::{invalid, not_found};
use super::sql::{self, Connection};
use super::write::Meta;
use super::{Activity, Result, Store, StoreError, User, UserRole, text, users};
use crate::ids::{DAY, new_id, now};
use crate::secret::{SecretHash, new_token, token_hash};

/// Days a token may live.
const DAYS: std::ops::RangeInclusive<i64> = 1..=365;
/// Tokens that a user may have, expired ones as well until they are deleted.
const MOST: i64 = 100;
/// `last_used` is written at most this often, in milliseconds: a read must not cost a write.
const USE_RESOLUTION: i64 = 60_000;

/// A stored token; its text is known only to whoever created it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
pub struct Token {
    /// Token id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// User id.
    pub created_by: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// Unix milliseconds, to the minute.
    pub last_used: Option<i64>,
}

impl Store {
    /// The user a token text belongs to; `None` for an unknown or expired token, and for a user who is blocked or not approved.
    pub async fn authenticate(&self, text: &str) -> Result<Option<User>> {
        type Row = (String, String, Vec<u8>, i64, Option<i64>);
        let Some(hash) = token_hash(text) else { return Ok(None) };
        let row: Option<Row> =
            sql::query_as("SELECT id, user_id, hash, expires_at, last_used FROM tokens WHERE hash = $1")
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
            self.token_used(&id).await;
        }
        Ok(Some(user))
    }

    /// Every token of a user, by id.
    pub async fn tokens(&self, user: &str) -> Result<Vec<Token>> {
        let mut tx = self.read().await?;
        users::user(&mut tx, user).await?;
        sql::query_as(
            "SELECT id, name, created_by, created_at, expires_at, last_used FROM tokens WHERE user_id = $1 ORDER BY id",
        )
        .bind(user)
        .fetch_all(&mut tx)
        .await
    }

    /// One token of a user.
    pub async fn token(&self, user: &str, id: &str) -> Result<Token> {
        match self.tokens(user).await?.into_iter().find(|token| token.id == id) {
            Some(token) => Ok(token),
            None => not_found("token", id),
        }
    }

    /// Creates a token for a user; beside it its text, which is not kept.
    pub async fn create_token(
        &self,
        caller: &User,
        user: &str,
        name: &str,
        days: i64,
    ) -> Result<(Token, String)> {
        let name = &text::name("token", name)?;
        if !DAYS.contains(&days) {
            return invalid(format!("expires_in: {days} days is not between 1 and 365"));
        }
        let mut write = self.write(&caller.actor()).await?;
        let owner = users::user(write.db(), user).await?;
        may_handle(write.db(), caller, &owner).await?;
        let there: i64 = sql::query_scalar("SELECT count(*) FROM tokens WHERE user_id = $1")
            .bind(user)
            .fetch_one(write.db())
            .await?;
        if there >= MOST {
            return invalid(format!(
                "this user has {there} tokens, and {MOST} is the most: delete those that nobody uses"
            ));
        }
        let (text, at) = (new_token(), write.at());
        let id = insert(write.db(), user, &caller.id, name, &text, at, at + days * DAY).await?;
        let after = stored(write.db(), user, &id).await?;
        let meta = Meta::name(name).with("username", &owner.name).with("user_id", user).after(&after);
        write.event(Activity::TokenCreate, &id, meta).await?;
        write.commit().await?;
        Ok((after, text))
    }

    /// Deletes a token, which opens nothing from then on.
    pub async fn delete_token(&self, caller: &User, user: &str, id: &str) -> Result<()> {
        let mut write = self.write(&caller.actor()).await?;
        let owner = users::user(write.db(), user).await?;
        may_handle(write.db(), caller, &owner).await?;
        let before = stored(write.db(), user, id).await?;
        sql::query("DELETE FROM tokens WHERE id = $1").bind(id).execute(write.db()).await?;
        let meta =
            Meta::name(&before.name).with("username", owner.name).with("user_id", user).before(&before);
        write.event(Activity::TokenDelete, id, meta).await?;
        write.commit().await
    }

    /// Whether a token with this hash is stored.
    pub(super) async fn knows_token(&self, hash: &SecretHash) -> Result<bool> {
        let found: i64 = sql::query_scalar("SELECT count(*) FROM tokens WHERE hash = $1")
            .bind(hash.as_slice())
            .fetch_one(&mut self.reader().await?)
            .await?;
        Ok(found > 0)
    }

    /// Notes that a token was used. A store that cannot write still answers reads.
    async fn token_used(&self, id: &str) {
        let noted = async {
            let used = sql::query("UPDATE tokens SET last_used = $1 WHERE id = $2").bind(now()).bind(id);
            used.execute(&mut self.writer().await?).await
        };
        if let Err(error) = noted.await {
            tracing::warn!(token = id, %error, "the time of a token's use was not kept");
        }
    }
}

/// Whether `caller` may handle the tokens of `owner` now: what it is may have changed while the request waited. A token acts
/// as its user, so nobody handles those of people, nor those of a role above the own.
async fn may_handle(db: &mut Connection, caller: &User, owner: &User) -> Result<()> {
    let caller = users::user(db, &caller.id).await?;
    if !caller.is_admitted() {
        return Err(StoreError::Denied("the user is blocked or waits for approval".into()));
    }
    if caller.id == owner.id {
        return Ok(());
    }
    if !owner.is_service_user || caller.role < UserRole::Admin {
        return Err(StoreError::Denied("tokens of other users cannot be changed".into()));
    }
    users::may_grant(&caller, owner.role)
}

/// One token of a user, as the connection's transaction sees it.
pub(super) async fn stored(db: &mut Connection, user: &str, id: &str) -> Result<Token> {
    let token = sql::query_as(
        "SELECT id, name, created_by, created_at, expires_at, last_used FROM tokens WHERE user_id = $1 AND id = $2",
    )
    .bind(user)
    .bind(id)
    .fetch_optional(db)
    .await?;
    match token {
        Some(token) => Ok(token),
        None => not_found("token", id),
    }
}

/// Writes a token; its id.
pub(super) async fn insert(
    db: &mut Connection,
    user: &str,
    created_by: &str,
    name: &str,
    text: &str,
    at: i64,
    expires_at: i64,
) -> Result<String> {
    let Some(hash) = token_hash(text) else { return invalid("the token is malformed") };
    let id = new_id();
    sql::query(
        "INSERT INTO tokens (id, user_id, name, hash, created_by, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&id)
    .bind(user)
    .bind(name)
    .bind(hash.as_slice())
    .bind(created_by)
    .bind(at)
    .bind(expires_at)
    .execute(db)
    .await?;
    Ok(id)
}
