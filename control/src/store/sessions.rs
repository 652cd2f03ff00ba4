//! Logins of people: a token for some hours, of which the store has the hash.

use serde::Serialize;
use subtle::ConstantTimeEq;

use super::sql;
use super::write::Meta;
use super::{Activity, Result, Store, User, users};
use crate::ids::{new_id, now};
use crate::secret::{new_session, session_hash};

/// How long a login lasts, in milliseconds: a working day.
const LIFETIME: i64 = 12 * 3600 * 1000;

/// A login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Session id.
    pub id: String,
    /// Who is logged in.
    pub user_id: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub expires_at: i64,
}

impl Store {
    /// Logs an admitted user in; beside the session the text of its token, which is not kept.
    pub async fn create_session(&self, user: &User) -> Result<(Session, String)> {
        let mut write = self.write(&user.actor()).await?;
        let user = users::user(write.db(), &user.id).await?;
        super::sign_in::admit(&user)?;
        let (text, at) = (new_session(), write.at());
        let session =
            Session { id: new_id(), user_id: user.id.clone(), created_at: at, expires_at: at + LIFETIME };
        let Some(hash) = session_hash(&text) else {
            return super::error::invalid("the session's token is malformed");
        };
        sql::query("DELETE FROM sessions WHERE expires_at <= $1").bind(at).execute(write.db()).await?;
        sql::query(
            "INSERT INTO sessions (id, user_id, hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(&session.id)
        .bind(&user.id)
        .bind(hash.as_slice())
        .bind(at)
        .bind(session.expires_at)
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
        let row: Option<(String, Vec<u8>, i64)> =
            sql::query_as("SELECT user_id, hash, expires_at FROM sessions WHERE hash = $1")
                .bind(hash.as_slice())
                .fetch_optional(&mut self.reader().await?)
                .await?;
        let Some((user, stored, expires_at)) = row else { return Ok(None) };
        // The index found it by comparing; what decides takes the same time for every difference.
        if !bool::from(stored.ct_eq(&hash)) || expires_at <= now() {
            return Ok(None);
        }
        let user = self.user(&user).await?;
        Ok(user.is_admitted().then_some(user))
    }

    /// Ends the login with this token. What is not there is ended.
    pub async fn end_session(&self, text: &str) -> Result<()> {
        let Some(hash) = session_hash(text) else { return Ok(()) };
        sql::query("DELETE FROM sessions WHERE hash = $1")
            .bind(hash.as_slice())
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
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
