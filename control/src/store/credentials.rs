//! Built-in users, for sites without an identity provider: logins by password.
//!
//! Whoever tries learns nothing but that it failed: an unknown address costs the same work and gets the same answer as a wrong
//! password, a wrong code, or an address that was tried too often.

use serde::Serialize;
use sqlx::FromRow;

use super::attempts::{Attempt, Source, Trier, now_known, start_anew, use_up};
use super::codes::step_of;
use super::error::invalid;
use super::first_codes::{First, are_required, first_code};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Store, StoreError, User, machine_logins, users};
use crate::passwords::{self, Place};

/// What a built-in user's `issuer` is; no identity provider's, for that is a URL.
pub(super) const LOCAL: &str = "local";
/// What a built-in user proves itself by.
#[derive(FromRow)]
pub(super) struct Credential {
    pub(super) user_id: String,
    pub(super) login: String,
    pub(super) password: String,
    pub(super) totp_secret: Vec<u8>,
    pub(super) totp_on: bool,
    pub(super) totp_step: i64,
    pub(super) changed_at: i64,
}

/// What events tell of a credential: nothing that helps to guess it.
#[derive(Serialize)]
pub(super) struct CredentialState {
    /// When the password was set, Unix milliseconds.
    changed_at: i64,
    /// Whether one-time codes are asked for.
    totp_on: bool,
}

impl Credential {
    /// What events tell of it.
    pub(super) fn state(&self) -> CredentialState {
        CredentialState { changed_at: self.changed_at, totp_on: self.totp_on }
    }
}

impl Store {
    /// The user whose address, password and code these are; `None` for every other, and where there were too many attempts.
    pub async fn password_login(
        &self,
        from: &Source,
        address: &str,
        password: &str,
        code: &str,
    ) -> Result<Option<User>> {
        let (attempt, fits) = self.try_password(from, address, password, code).await?;
        let accepted = if fits { self.accept(&attempt, from, code).await } else { Ok(None) };
        match &accepted {
            Ok(Some(_)) => self.count_login("accepted"),
            Ok(None) if attempt.paused => self.count_login("paused"),
            Ok(None) | Err(StoreError::NeedsCodes) => self.count_login("refused"),
            Err(_) => {}
        }
        let Some(user) = accepted? else { return Ok(None) };
        let user = self.user(&user).await?;
        super::sign_in::admit(&user)?;
        Ok(Some(user))
    }

    /// A counted attempt, and whether the password is that of its address.
    pub(super) async fn try_password(
        &self,
        from: &Source,
        address: &str,
        password: &str,
        code: &str,
    ) -> Result<(Attempt, bool)> {
        let place = match self.is_known(address, from).await? {
            true => Place::take()?,
            false => Place::for_stranger()?,
        };
        let attempt = self.begin_attempt(Trier::At(from, code), address).await?;
        let stored = attempt.credential.as_ref().map(|credential| credential.password.clone());
        let fits = place.verify(password.to_owned(), stored).await?;
        Ok((attempt, fits))
    }

    /// What came of a login.
    pub(super) fn count_login(&self, result: &str) {
        self.inner.shared.observed.logins.with_label_values(&[result]).inc();
    }

    /// The id of the user whose password it was, if the code is right as well.
    async fn accept(&self, attempt: &Attempt, from: &Source, code: &str) -> Result<Option<String>> {
        let Some(tried) = &attempt.credential else { return Ok(None) };
        let mut write = self.write(&Actor::system()).await?;
        // Read again where it is written: a code is good once, and the password may have been changed meanwhile.
        let current = credential_of(write.db(), &tried.user_id).await?;
        let Some(current) = current.filter(|current| current.password == tried.password) else {
            return Ok(None);
        };
        match (current.totp_on, attempt.step) {
            (false, _) if are_required(write.db()).await? => {
                let user = users::user(write.db(), &current.user_id).await?;
                super::sign_in::admit(&user)?;
                match first_code(&mut write, &user, &current, code).await? {
                    First::On => {}
                    First::Wrong => {
                        write.commit().await?;
                        return Ok(None);
                    }
                    First::Missing => {
                        attempt.forgive(&mut write, from).await?;
                        write.commit().await?;
                        return Err(StoreError::NeedsCodes);
                    }
                }
            }
            (false, _) => {}
            // Used up when it let the attempt through; another one since is another attempt's.
            (true, Some(step)) if step == current.totp_step => {}
            (true, Some(_)) => return Ok(None),
            (true, None) => match step_of(&current.totp_secret, code, write.at())? {
                Some(step) if step > current.totp_step => {
                    use_up(&mut write, &current.user_id, step).await?;
                }
                _ => return Ok(None),
            },
        }
        attempt.succeeded(&mut write, &current, from).await?;
        write.commit().await?;
        Ok(Some(current.user_id))
    }

    /// Whether this is the password of a user who is logged in; counted as well, so that it is no easier to guess.
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
        let attempt = self.begin_attempt(Trier::Inside, &stored.login).await?;
        let stored = attempt.credential.as_ref().map(|credential| credential.password.clone());
        match (place.verify(password.to_owned(), stored).await?, attempt.credential) {
            (true, Some(credential)) => Ok(credential),
            _ => Err(StoreError::Denied("the password is wrong, or was tried too often".into())),
        }
    }

    /// Gives a built-in user another password; the old one must be right. All of its logins end.
    pub async fn change_password(&self, user: &User, from: &Source, old: &str, new: &str) -> Result<()> {
        if let Some(why) = passwords::objection(new, &user.email) {
            return invalid(why);
        }
        let place = Place::take()?;
        let known = self.knows_password(user, old, &place).await?;
        let hash = place.hash(new.to_owned()).await?;
        drop(place);
        let mut write = self.write(&user.actor()).await?;
        let current = credential_of(write.db(), &user.id).await?;
        let Some(before) = current.filter(|current| current.password == known.password) else {
            return invalid("the password was changed meanwhile");
        };
        set_password(&mut write, &user.id, &known.login, &hash).await?;
        now_known(&mut write, &user.id, from).await?;
        let meta =
            Meta::name(&user.name).before(&before.state()).after(&state_of(&mut write, &user.id).await?);
        write.event(Activity::PasswordChange, &user.id, meta).await?;
        write.commit().await
    }
}

/// Gives a user a password, whose hash has been made before; every login that the one before gave ends, keys for machines too, and what was
/// tried is forgotten, with the places that the user is known at.
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
    start_anew(write, user, &login).await?;
    end_logins(write, user).await
}

/// Ends every login of a user, and what it could let in.
pub(super) async fn end_logins(write: &mut Write, user: &str) -> Result<()> {
    machine_logins::end_unused(write, user).await?;
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

/// What events tell of a user's credential as it is now, if there is one.
pub(super) async fn state_of(write: &mut Write, user: &str) -> Result<Option<CredentialState>> {
    Ok(credential_of(write.db(), user).await?.as_ref().map(Credential::state))
}
