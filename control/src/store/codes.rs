//! One-time codes of built-in users (RFC 6238): six digits by SHA-1 for 30 seconds each, what every authenticator knows.

use subtle::ConstantTimeEq;
use totp_rs::{Algorithm, TOTP};

use super::attempts::forget_inside;
use super::credentials::{Credential, credential_of, end_logins, state_of};
use super::error::{invalid, not_found};
use super::first_codes::are_required;
use super::sql;
use super::write::{Meta, Write};
use super::{Activity, Result, Store, StoreError, User, users};
use crate::passwords::Place;

/// Seconds that a code is of.
const STEP: i64 = 30;
/// Wrong codes while they are being switched on after which a new secret is needed.
const WRONG: i64 = 5;

impl Store {
    /// A new secret for one-time codes of a built-in user, as an `otpauth` URL; the password must be right. It counts once a code
    /// of it was shown.
    pub async fn begin_codes(&self, user: &User, password: &str) -> Result<String> {
        let known = self.knows_password(user, password, &Place::take()?).await?;
        let mut write = self.write(&user.actor()).await?;
        let current = credential_of(write.db(), &user.id).await?;
        let Some(credential) = current.filter(|current| current.password == known.password) else {
            return invalid("the password was changed meanwhile");
        };
        forget_inside(&mut write, &credential.login).await?;
        if credential.totp_on {
            write.commit().await?;
            return invalid("one-time codes are on already: switch them off first");
        }
        let url = new_secret(&mut write, &credential).await?;
        write.commit().await?;
        Ok(url)
    }

    /// Switches one-time codes on, by one of them.
    pub async fn confirm_codes(&self, user: &User, code: &str) -> Result<()> {
        let mut write = self.write(&user.actor()).await?;
        let credential = credential_of(write.db(), &user.id).await?;
        let Some(credential) = credential.filter(|own| !own.totp_on && !own.totp_secret.is_empty()) else {
            return invalid("no secret waits for a code of it: begin again");
        };
        let fits = switch_on(&mut write, user, &credential, code).await?;
        write.commit().await?;
        match fits {
            true => Ok(()),
            false => invalid("the code is wrong: look whether the clocks here and there are right"),
        }
    }

    /// Switches the own one-time codes off; the password must be right. Where they are asked of everybody, every login of the user ends.
    pub async fn end_own_codes(&self, user: &User, password: &str) -> Result<()> {
        let known = self.knows_password(user, password, &Place::take()?).await?;
        self.end_codes(user, &user.id, Some(&known.login)).await
    }

    /// Switches the one-time codes of a user off who has lost the device.
    pub async fn end_codes_of(&self, caller: &User, id: &str) -> Result<()> {
        self.end_codes(caller, id, None).await
    }

    async fn end_codes(&self, caller: &User, id: &str, tried: Option<&str>) -> Result<()> {
        let mut write = self.write(&caller.actor()).await?;
        let user = users::user(write.db(), id).await?;
        // What the caller is may have changed while the request waited.
        let caller = users::user(write.db(), &caller.id).await?;
        users::may_grant(&caller, user.role)?;
        if let Some(login) = tried {
            forget_inside(&mut write, login).await?;
        }
        let Some(before) = credential_of(write.db(), id).await? else {
            return not_found("password of user", id);
        };
        sql::query(
            "UPDATE credentials SET totp_on = FALSE, totp_secret = $1, totp_step = 0 WHERE user_id = $2",
        )
        .bind([].as_slice())
        .bind(id)
        .execute(write.db())
        .await?;
        if before.totp_on {
            let after = state_of(&mut write, id).await?;
            let meta = Meta::name(&user.name).before(&before.state()).after(&after);
            write.event(Activity::OneTimeCodesOff, id, meta).await?;
            if are_required(write.db()).await? {
                end_logins(&mut write, id).await?;
            }
        }
        write.commit().await
    }
}

/// Another secret for the codes of a user who has none, as an `otpauth` URL.
pub(super) async fn new_secret(write: &mut Write, credential: &Credential) -> Result<String> {
    let secret: [u8; 20] = rand::random();
    let url = totp(&secret, &credential.login)?.get_url();
    sql::query("UPDATE credentials SET totp_secret = $1, totp_step = 0 WHERE user_id = $2")
        .bind(secret.as_slice())
        .bind(&credential.user_id)
        .execute(write.db())
        .await?;
    Ok(url)
}

/// Switches the codes of a user on whose secret waits for one, if this is one; else notes that it is not.
pub(super) async fn switch_on(
    write: &mut Write,
    user: &User,
    credential: &Credential,
    code: &str,
) -> Result<bool> {
    let Some(step) = step_of(&credential.totp_secret, code, write.at())? else {
        // Below zero it counts what was wrong: no code has been taken yet.
        let wrong = credential.totp_step - 1;
        let (secret, step) = match wrong > -WRONG {
            true => (credential.totp_secret.as_slice(), wrong),
            false => ([].as_slice(), 0),
        };
        sql::query("UPDATE credentials SET totp_secret = $1, totp_step = $2 WHERE user_id = $3")
            .bind(secret)
            .bind(step)
            .bind(&user.id)
            .execute(write.db())
            .await?;
        return Ok(false);
    };
    sql::query("UPDATE credentials SET totp_on = TRUE, totp_step = $1 WHERE user_id = $2")
        .bind(step)
        .bind(&user.id)
        .execute(write.db())
        .await?;
    let meta = Meta::name(&user.name).before(&credential.state()).after(&state_of(write, &user.id).await?);
    write.event(Activity::OneTimeCodesOn, &user.id, meta).await?;
    Ok(true)
}

/// The step whose code this is, if it is of now or of the one before or after. Every candidate is compared, whichever fits.
pub(super) fn step_of(secret: &[u8], code: &str, at: i64) -> Result<Option<i64>> {
    let totp = totp(secret, "")?;
    let step = at.div_euclid(1000 * STEP);
    let mut found = None;
    for candidate in [step - 1, step, step + 1] {
        // Before 1970 there are no steps.
        let Ok(time) = u64::try_from(candidate * STEP) else { continue };
        let expected = totp.generate(time);
        if bool::from(expected.as_bytes().ct_eq(code.trim().as_bytes())) {
            found = Some(candidate);
        }
    }
    Ok(found)
}

fn totp(secret: &[u8], account: &str) -> Result<TOTP> {
    let issuer = Some("Sluicegate".to_owned());
    // A colon parts issuer and account in the URL.
    let account = account.replace(':', "_");
    let made = TOTP::new(Algorithm::SHA1, 6, 1, STEP.unsigned_abs(), secret.to_vec(), issuer, account);
    made.map_err(|error| StoreError::Invalid(format!("one-time codes cannot be made for this user: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // Appendix B, SHA-1: the last six of its eight digits.
        let secret = b"12345678901234567890";
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            let step = seconds / STEP;
            assert_eq!(step_of(secret, code, seconds * 1000).unwrap(), Some(step), "{seconds}");
            for (away, found) in [(-2, false), (-1, true), (1, true), (2, false)] {
                let at = (seconds + away * STEP) * 1000;
                assert_eq!(step_of(secret, code, at).unwrap().is_some(), found, "{seconds} {away}");
            }
            assert_eq!(step_of(secret, &code[..5], seconds * 1000).unwrap(), None);
        }
        assert_eq!(step_of(secret, "", 59_000).unwrap(), None);
    }
}
