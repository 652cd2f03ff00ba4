//! Built-in users, for sites without an identity provider: logins by password.
//!
//! Whoever tries learns nothing but that it failed: an unknown address costs the same work and gets the same answer as a wrong
//! password, a wrong code, or an address that was tried too often.

use sha2::{Digest, Sha256};
use sqlx::FromRow;

use super::codes::step_of;
use super::error::invalid;
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Store, StoreError, User};
use crate::ids::now;
use crate::passwords::{self, Place};

/// What a built-in user's `issuer` is; no identity provider's, for that is a URL.
pub(super) const LOCAL: &str = "local";
/// Failures in a row after which an address is left alone for a while.
const FAILURES: i64 = 5;
/// For how long at first, in milliseconds; twice that after each further failure.
const PAUSE: i64 = 30_000;
/// And at most.
const PAUSE_MAX: i64 = 900_000;
/// After this, failures are forgotten, in milliseconds.
const REMEMBERED: i64 = 3_600_000;

/// What a built-in user proves itself by.
#[derive(FromRow)]
pub(super) struct Credential {
    pub(super) user_id: String,
    pub(super) login: String,
    pub(super) password: String,
    pub(super) totp_secret: Vec<u8>,
    pub(super) totp_on: bool,
    pub(super) totp_step: i64,
}

impl Store {
    /// The user whose address, password and code these are; `None` for every other, and for one that was tried too often.
    pub async fn password_login(&self, address: &str, password: &str, code: &str) -> Result<Option<User>> {
        let place = Place::take()?;
        let (paused, attempt) = self.begin_attempt(address).await?;
        let logins = &self.inner.shared.observed.logins;
        let stored = attempt.as_ref().map(|credential| credential.password.clone());
        let fits = place.verify(password.to_owned(), stored).await?;
        drop(place);
        let accepted = match attempt.filter(|_| fits) {
            Some(credential) => self.accept(credential, code).await?,
            None => None,
        };
        let result = match (&accepted, paused) {
            (Some(_), _) => "accepted",
            (None, true) => "paused",
            (None, false) => "refused",
        };
        logins.with_label_values(&[result]).inc();
        let Some(user) = accepted else { return Ok(None) };
        let user = self.user(&user).await?;
        super::sign_in::admit(&user)?;
        Ok(Some(user))
    }

    /// The id of the user whose password it was, if the code is right as well.
    async fn accept(&self, tried: Credential, code: &str) -> Result<Option<String>> {
        let mut write = self.write(&Actor::system()).await?;
        // Read again where it is written: a code is good once, and the password may have been changed meanwhile.
        let current = credential_of(write.db(), &tried.user_id).await?;
        let Some(current) = current.filter(|current| current.password == tried.password) else {
            return Ok(None);
        };
        let step = match current.totp_on {
            true => match step_of(&current.totp_secret, code, write.at())? {
                Some(step) if step > current.totp_step => step,
                _ => return Ok(None),
            },
            false => current.totp_step,
        };
        sql::query("UPDATE credentials SET totp_step = $1 WHERE user_id = $2")
            .bind(step)
            .bind(&current.user_id)
            .execute(write.db())
            .await?;
        forget_attempts(&mut write, &current.login).await?;
        write.commit().await?;
        Ok(Some(current.user_id))
    }

    /// Counts an attempt as failed before it is looked at, so that many at once are not free: whether the address is left alone
    /// just now, and if not, what the attempt is to be held against. An address that nobody has is counted like any other, and
    /// so costs the same.
    async fn begin_attempt(&self, address: &str) -> Result<(bool, Option<Credential>)> {
        let mut write = self.write(&Actor::system()).await?;
        let (at, address) = (write.at(), login(address));
        let key = digest(&address);
        sql::query("DELETE FROM password_attempts WHERE failed_at < $1")
            .bind(at - REMEMBERED)
            .execute(write.db())
            .await?;
        let before: Option<(i64, i64)> =
            sql::query_as("SELECT failures, failed_at FROM password_attempts WHERE login_hash = $1")
                .bind(key.as_slice())
                .fetch_optional(write.db())
                .await?;
        let (failures, failed_at) = before.unwrap_or_default();
        let paused = paused_until(failures, failed_at) > at;
        // What comes in a pause makes it no longer: else anybody could keep a user out for ever.
        let (failures, failed_at) = if paused { (failures, failed_at) } else { (failures + 1, at) };
        sql::query(
            "INSERT INTO password_attempts (login_hash, failures, failed_at) VALUES ($1, $2, $3)
             ON CONFLICT (login_hash) DO UPDATE SET failures = $2, failed_at = $3",
        )
        .bind(key.as_slice())
        .bind(failures)
        .bind(failed_at)
        .execute(write.db())
        .await?;
        let found: Option<Credential> = sql::query_as("SELECT * FROM credentials WHERE login = $1")
            .bind(&address)
            .fetch_optional(write.db())
            .await?;
        write.commit().await?;
        Ok((paused, found.filter(|_| !paused)))
    }

    /// Whether this is the password of a user; counted like a login, so that it is no easier to guess.
    pub(super) async fn knows_password(
        &self,
        user: &User,
        password: &str,
        place: &Place,
    ) -> Result<Credential> {
        let stored = {
            let mut db = self.reader().await?;
            credential_of(&mut db, &user.id).await?
        };
        let Some(stored) = stored else { return invalid("this user has no password here") };
        let (_, attempt) = self.begin_attempt(&stored.login).await?;
        let stored = attempt.as_ref().map(|credential| credential.password.clone());
        match (place.verify(password.to_owned(), stored).await?, attempt) {
            (true, Some(credential)) => Ok(credential),
            _ => Err(StoreError::Denied("the password is wrong, or was tried too often".into())),
        }
    }

    /// Gives a built-in user another password; the old one must be right. All of its logins end.
    pub async fn change_password(&self, user: &User, old: &str, new: &str) -> Result<()> {
        if let Some(why) = passwords::objection(new, &user.email) {
            return invalid(why);
        }
        let place = Place::take()?;
        let known = self.knows_password(user, old, &place).await?;
        let hash = place.hash(new.to_owned()).await?;
        drop(place);
        let mut write = self.write(&user.actor()).await?;
        let current = credential_of(write.db(), &user.id).await?;
        if current.is_none_or(|current| current.password != known.password) {
            return invalid("the password was changed meanwhile");
        }
        set_password(&mut write, &user.id, &known.login, &hash).await?;
        write.event(Activity::PasswordChange, &user.id, Meta::name(&user.name)).await?;
        write.commit().await
    }

    /// Lets the pause after failed attempts be over; for tests.
    #[doc(hidden)]
    pub async fn end_pauses(&self) -> Result<()> {
        sql::query("UPDATE password_attempts SET failed_at = $1")
            .bind(now() - PAUSE_MAX)
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }
}

/// Gives a user a password, whose hash has been made before; every login that the one before gave ends, keys for machines too, and what was tried is
/// forgotten.
pub(super) async fn set_password(write: &mut Write, user: &str, address: &str, hash: &str) -> Result<()> {
    let at = write.at();
    let login = login(address);
    sql::query(
        "INSERT INTO credentials (user_id, login, password, changed_at, totp_secret, totp_on, totp_step)
         VALUES ($1, $2, $3, $4, $5, FALSE, 0)
         ON CONFLICT (user_id) DO UPDATE SET password = $3, changed_at = $4",
    )
    .bind(user)
    .bind(&login)
    .bind(hash)
    .bind(at)
    .bind([].as_slice())
    .execute(write.db())
    .await?;
    forget_attempts(write, &login).await?;
    sql::query("DELETE FROM sessions WHERE user_id = $1").bind(user).execute(write.db()).await?;
    sql::query("DELETE FROM join_keys WHERE user_id = $1").bind(user).execute(write.db()).await?;
    Ok(())
}

/// What addresses are compared by.
pub(super) fn login(address: &str) -> String {
    address.trim().to_lowercase()
}

/// What a user proves itself by, if it is a built-in one.
pub(super) async fn credential_of(db: &mut Connection, user: &str) -> Result<Option<Credential>> {
    sql::query_as("SELECT * FROM credentials WHERE user_id = $1").bind(user).fetch_optional(db).await
}

fn digest(login: &str) -> [u8; 32] {
    Sha256::digest(login).into()
}

/// Until when nobody may try an address, Unix milliseconds.
fn paused_until(failures: i64, failed_at: i64) -> i64 {
    match failures - FAILURES {
        over @ 0.. => failed_at + (PAUSE << over.min(10)).min(PAUSE_MAX),
        _ => 0,
    }
}

/// Somebody who may has come.
pub(super) async fn forget_attempts(write: &mut Write, login: &str) -> Result<()> {
    sql::query("DELETE FROM password_attempts WHERE login_hash = $1")
        .bind(digest(login).as_slice())
        .execute(write.db())
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_quarter_of_an_hour() {
        let pauses: Vec<i64> = [4, 5, 6, 9, 10, 1000].map(|failures| paused_until(failures, 0)).into();
        assert_eq!(pauses, [0, 30_000, 60_000, 480_000, 900_000, 900_000]);
    }
}
