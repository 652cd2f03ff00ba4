//! Hashes of passwords: argon2id (RFC 9106) with the parameters of OWASP's password storage guide (19 MiB, two passes).
//!
//! Each takes a core and its memory for a while, so that few are made at once and few may wait.

use std::ops::RangeInclusive;
use std::sync::OnceLock;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Argon2, password_hash};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Shortest and longest password, in characters: what is longer is no better, and costs as much as it is long.
pub const LENGTH: RangeInclusive<usize> = 12..=256;
/// Least number of different characters in a password.
const DIFFERENT: usize = 5;
/// Hashes that are made at once.
static TURNS: Semaphore = Semaphore::const_new(2);
/// Those and the ones that wait for their turn: a few seconds of work.
static PLACES: Semaphore = Semaphore::const_new(64);
/// Of those, the ones for logins from where their user has not come before: whoever fills them keeps nobody else out.
static STRANGERS: Semaphore = Semaphore::const_new(48);

/// Why no hash was made.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// There is a queue already.
    #[error("too many passwords are being looked at just now: try again in some seconds")]
    Busy,
    /// The stored hash cannot be read, or there is no memory for a new one.
    #[error("a password's hash failed: {0}")]
    Failed(String),
}

/// What is wrong with a password that somebody chose for the user of this address; `None` if nothing is.
pub fn objection(password: &str, address: &str) -> Option<String> {
    if !LENGTH.contains(&password.chars().count()) {
        return Some(format!("the password must have {} to {} characters", LENGTH.start(), LENGTH.end()));
    }
    let mut different: Vec<char> = password.chars().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < DIFFERENT {
        return Some(format!("the password must have at least {DIFFERENT} different characters"));
    }
    (password.to_lowercase() == address.trim().to_lowercase())
        .then(|| "the password must not be the e-mail address".to_owned())
}

/// A place among the passwords that are looked at or wait for it. Taken before an attempt is counted: who finds none has not tried.
#[derive(Debug)]
pub struct Place {
    _permit: SemaphorePermit<'static>,
    _stranger: Option<SemaphorePermit<'static>>,
}

impl Place {
    /// A place, if one is free.
    pub fn take() -> Result<Self, HashError> {
        let permit = PLACES.try_acquire().map_err(|_| HashError::Busy)?;
        Ok(Place { _permit: permit, _stranger: None })
    }

    /// As [`Place::take`], of the part that is for those who may be anybody.
    pub fn for_stranger() -> Result<Self, HashError> {
        let stranger = STRANGERS.try_acquire().map_err(|_| HashError::Busy)?;
        Ok(Place { _stranger: Some(stranger), ..Self::take()? })
    }

    /// The hash of a password as a PHC string.
    pub async fn hash(&self, password: String) -> Result<String, HashError> {
        let work = move || {
            let salt: [u8; 16] = rand::random();
            let salt = SaltString::encode_b64(&salt)?;
            Ok(Argon2::default().hash_password(password.as_bytes(), &salt)?.to_string())
        };
        self.work(work).await
    }

    /// Whether a password is the one of a stored hash. Without a hash it takes as long, and it is not.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, HashError> {
        static NOBODY: OnceLock<String> = OnceLock::new();
        let nobody = match NOBODY.get() {
            Some(nobody) => nobody.clone(),
            None => {
                let made = self.hash(String::from("nobody's")).await?;
                NOBODY.get_or_init(|| made).clone()
            }
        };
        let known = stored.is_some();
        let work = move || {
            // Longer than any that was set: not worth the work of hashing it.
            let fits = password.chars().take(LENGTH.end() + 1).count() <= *LENGTH.end();
            let password = if fits { password.as_str() } else { "" };
            let stored = stored.unwrap_or(nobody);
            let parsed = PasswordHash::new(&stored)?;
            let right = Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok();
            Ok(right && known && fits)
        };
        self.work(work).await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> password_hash::Result<T> + Send + 'static,
    ) -> Result<T, HashError> {
        let failed = |error: &dyn std::fmt::Display| HashError::Failed(error.to_string());
        // Nobody closes it.
        let _turn = TURNS.acquire().await.map_err(|error| failed(&error))?;
        let done = tokio::task::spawn_blocking(work).await.map_err(|error| failed(&error))?;
        done.map_err(|error| failed(&error))
    }
}

/// The hash of a password as a PHC string, where there is a place.
pub async fn hash(password: String) -> Result<String, HashError> {
    Place::take()?.hash(password).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_is_argon2id_with_a_salt_of_its_own_and_fits_one_password() {
        let place = Place::take().unwrap();
        let password = "correct horse battery".to_owned();
        let (one, two) = (hash(password.clone()).await.unwrap(), hash(password.clone()).await.unwrap());
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, two);
        assert!(place.verify(password.clone(), Some(one.clone())).await.unwrap());
        assert!(!place.verify("correct horse batterz".into(), Some(one.clone())).await.unwrap());
        assert!(!place.verify(password, None).await.unwrap());
        assert!(!place.verify("x".repeat(100_000), Some(one)).await.unwrap());
        assert!(!place.verify("nobody's".into(), None).await.unwrap(), "nobody has a password");
        let empty = hash(String::new()).await.unwrap();
        assert!(!place.verify("x".repeat(257), Some(empty)).await.unwrap(), "too long is not empty");
    }

    #[test]
    fn a_password_that_is_easily_guessed_is_refused() {
        for (password, why) in [
            ("short", "12 to 256"),
            (&"aB3".repeat(100), "12 to 256"),
            ("aaaaaaaaaaaaaaaaaaaa", "different"),
            ("Ann@Example.org", "e-mail"),
        ] {
            assert!(objection(password, "ann@example.org").unwrap().contains(why), "{password}");
        }
        assert_eq!(objection("correct horse battery", "ann@example.org"), None);
        assert_eq!(objection("ÄÖÜäöüßéèêëç", ""), None);
    }
}
