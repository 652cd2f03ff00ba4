//! One-time codes where the account asks them of everybody who logs in by password (`local_mfa_enabled`).
//!
//! Who has none yet makes their secret at the login itself, by address and password alone, and the first code of it switches them on and
//! logs in. Until then nobody is logged in.

use super::account::account;
use super::attempts::Source;
use super::codes::{new_secret, switch_on};
use super::credentials::{Credential, credential_of};
use super::error::invalid;
use super::sql::Connection;
use super::write::Write;
use super::{Actor, Result, Store, User, sign_in, users};

/// Whether the account asks one-time codes of everybody who logs in by password.
pub(super) async fn are_required(db: &mut Connection) -> Result<bool> {
    Ok(account(db).await?.settings.local_mfa_enabled)
}

/// What a code is worth of a user who has to have codes and has none.
pub(super) enum First {
    /// It is the first of a secret, and codes are on.
    On,
    /// It is wrong; that it was tried has been written.
    Wrong,
    /// No secret waits for one, or none was shown.
    Missing,
}

/// Switches the codes of a user on who shows the first one.
pub(super) async fn first_code(
    write: &mut Write,
    user: &User,
    credential: &Credential,
    code: &str,
) -> Result<First> {
    if credential.totp_secret.is_empty() || code.trim().is_empty() {
        return Ok(First::Missing);
    }
    write.act_as(user.actor());
    match switch_on(write, user, credential, code).await? {
        true => Ok(First::On),
        false => Ok(First::Wrong),
    }
}

impl Store {
    /// A secret for one-time codes of the user whose address and password these are and who cannot log in without, as an `otpauth` URL;
    /// `None` for whoever has codes already, and as [`Store::password_login`] gives it.
    pub async fn begin_first_codes(
        &self,
        from: &Source,
        address: &str,
        password: &str,
    ) -> Result<Option<String>> {
        let (attempt, fits) = self.try_password(from, address, password, "").await?;
        let Some(tried) = attempt.credential.as_ref().filter(|_| fits) else {
            self.count_login(if attempt.paused { "paused" } else { "refused" });
            return Ok(None);
        };
        let mut write = self.write(&Actor::system()).await?;
        let current = credential_of(write.db(), &tried.user_id).await?;
        // Who has codes learns nothing of the password without one.
        let Some(current) = current.filter(|own| own.password == tried.password && !own.totp_on) else {
            self.count_login("refused");
            return Ok(None);
        };
        sign_in::admit(&users::user(write.db(), &current.user_id).await?)?;
        if !are_required(write.db()).await? {
            return invalid(
                "one-time codes are not asked of everybody here: log in without, and switch them on then",
            );
        }
        attempt.forgive(&mut write, from).await?;
        let url = new_secret(&mut write, &current).await?;
        write.commit().await?;
        Ok(Some(url))
    }
}
