//! Keys by which a person lets one machine join as the person's own: good once, for some minutes, made only for somebody who
//! has just logged in.

use subtle::ConstantTimeEq;

use super::enroll::{EnrollError, EnrolledPeer, Enrollment, enroll_as};
use super::error::invalid;
use super::sql;
use super::write::Write;
use super::{Actor, Result, Store, User, machine_logins, sign_in, users};
use crate::ids::now;
use crate::secret::{join_key_hash, new_join_key};

/// How long a key is good for, in milliseconds.
const LIFETIME: i64 = 600_000;
/// Keys of one user that may be there at a time.
const KEYS: i64 = 20;

impl Store {
    /// Makes a key for a machine of `user`: its text, which is not kept, and until when it is good (Unix milliseconds).
    pub async fn create_join_key(&self, user: &User) -> Result<(String, i64)> {
        if user.is_service_user {
            return invalid("machines of service users join with a setup key");
        }
        let mut write = self.write(&user.actor()).await?;
        // What the user may do may have changed while the request waited.
        sign_in::admit(&users::user(write.db(), &user.id).await?)?;
        let (text, at) = (new_join_key(), write.at());
        let Some(hash) = join_key_hash(&text) else { return invalid("the key is malformed") };
        sql::query("DELETE FROM join_keys WHERE expires_at <= $1").bind(at).execute(write.db()).await?;
        let there: i64 = sql::query_scalar("SELECT count(*) FROM join_keys WHERE user_id = $1")
            .bind(&user.id)
            .fetch_one(write.db())
            .await?;
        if there >= KEYS {
            return invalid(format!("{there} keys were made within ten minutes: use those, or wait"));
        }
        sql::query("INSERT INTO join_keys (hash, user_id, expires_at, identity_key) VALUES ($1, $2, $3, $4)")
            .bind(hash.as_slice())
            .bind(&user.id)
            .bind(at + LIFETIME)
            .bind([].as_slice())
            .execute(write.db())
            .await?;
        write.commit().await?;
        Ok((text, at + LIFETIME))
    }

    /// Makes a peer of the user whose key this is. The first machine to use it is the only one: it may ask again when the
    /// answer was lost, while the peer that it made is there.
    pub(super) async fn enroll_by_join_key(&self, request: &Enrollment) -> Result<EnrolledPeer, EnrollError> {
        let Some(hash) = join_key_hash(&request.setup_key) else { return Err(EnrollError::UnknownKey) };
        let key = || {
            sql::query_as("SELECT hash, user_id, expires_at, identity_key FROM join_keys WHERE hash = $1")
                .bind(hash.as_slice())
        };
        type Row = (Vec<u8>, String, i64, Vec<u8>);
        // Unknown keys are turned away before they can queue for the writer.
        let known: Option<Row> = key().fetch_optional(&mut self.reader().await?).await?;
        if known.is_none() {
            return Err(EnrollError::UnknownKey);
        }
        let mut write = self.write(&Actor::system()).await?;
        let row: Option<Row> = key().fetch_optional(write.db()).await?;
        let Some((stored, user, expires_at, used_by)) = row else { return Err(EnrollError::UnknownKey) };
        // The index found it by comparing; what decides takes the same time for every difference.
        if !bool::from(stored.ct_eq(&hash)) {
            return Err(EnrollError::UnknownKey);
        }
        if expires_at <= write.at() {
            return Err(EnrollError::Expired(NAME.into()));
        }
        if !used_by.is_empty() && used_by != request.identity_key {
            return Err(EnrollError::Overused(NAME.into()));
        }
        let peer = enroll_as(&mut write, &user, request).await?;
        if !used_by.is_empty() && peer.created {
            // What it made is gone: nothing of this is committed.
            return Err(EnrollError::Overused(NAME.into()));
        }
        sql::query("UPDATE join_keys SET identity_key = $1 WHERE hash = $2")
            .bind(request.identity_key.as_slice())
            .bind(hash.as_slice())
            .execute(write.db())
            .await?;
        write.commit().await?;
        Ok(peer)
    }

    /// Lets every key end now; for tests of expiry.
    #[doc(hidden)]
    pub async fn expire_join_keys(&self) -> Result<()> {
        sql::query("UPDATE join_keys SET expires_at = $1")
            .bind(now())
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }
}

/// Ends what a user's logins could still let in. A key that a machine has used stays: it is good for that machine alone, which may
/// ask again.
pub(super) async fn end_unused(write: &mut Write, user: &str) -> Result<()> {
    machine_logins::end_unused(write, user).await?;
    sql::query("DELETE FROM join_keys WHERE user_id = $1 AND length(identity_key) = 0")
        .bind(user)
        .execute(write.db())
        .await?;
    Ok(())
}

/// What messages call such a key.
const NAME: &str = "of a login";
