//! How often passwords may be tried, so that they cannot be guessed, and so that nobody keeps a user out by guessing.
//!
//! Each place that somebody comes from has its own count for an address, with pauses that grow. All places from which the user
//! has not logged in before share another one, which leaks: what many places try together is bounded by it (at most 100 an hour,
//! OWASP ASVS 4.0 2.2.1), and no place from which the user has come before is held up by it. Whoever shows a one-time code that
//! is good is let try once, whatever passwords were tried; the code is used up by that. Codes that were wrong in a pause are counted in turn, or
//! who knows the password would try them all: the places that are not known share one count, which leaks as well, and each known one has its
//! own; while it is full, no code is looked at. Who is logged in already and is asked for the password again has a count of its own, which nobody
//! outside can raise. An address that nobody has is counted like any other.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::codes::step_of;
use super::credentials::{Credential, login};
use super::sql::{self, Connection};
use super::write::Write;
use super::{Actor, Result, Store};
use crate::buckets;
use crate::ids::now;

/// Failures in a row after which a place is left alone for a while.
const FAILURES: i64 = 5;
/// For how long at first, in milliseconds; twice that after each further failure.
const PAUSE: i64 = 30_000;
/// And at most.
const PAUSE_MAX: i64 = 900_000;
/// Failures that all strangers together have at once; and wrong one-time codes in pauses.
const BURST: i64 = 20;
/// After how long they have one of them back, in milliseconds: with [`BURST`] it is 80 in any hour.
const LEAK: i64 = 60_000;
/// After this, failures are forgotten, in milliseconds: no sooner than the longest pause ends and what leaks is empty.
const REMEMBERED: i64 = 3_600_000;
/// For how long a place is known after a login from there, in milliseconds: 90 days.
const KNOWN: i64 = 90 * 24 * 3_600_000;
/// Places of a user that are known; a further one takes the place of the one that was seen least recently.
const PLACES: i64 = 20;
/// What codes are compared with where there are none, as that takes time too.
const NO_SECRET: &[u8] = &[0; 20];

/// Where somebody comes from who tries a password: an IPv4 address, the /64 of an IPv6 one, or nobody knows where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source(String);

impl Source {
    /// Whom an address stands for.
    pub fn of(address: Option<IpAddr>) -> Self {
        Source(match address.map(buckets::source) {
            Some(prefix @ IpAddr::V6(_)) => format!("{prefix}/64"),
            Some(address) => address.to_string(),
            None => String::new(),
        })
    }
}

/// Who tries.
#[derive(Clone, Copy)]
pub(super) enum Trier<'a> {
    /// Somebody who wants to log in from there, with this one-time code.
    At(&'a Source, &'a str),
    /// The user itself, who is logged in.
    Inside,
}

/// An attempt that has been counted.
pub(super) struct Attempt {
    /// Whether it comes in a pause.
    pub(super) paused: bool,
    /// What it is to be held against; `None` in a pause, and for an address that nobody has.
    pub(super) credential: Option<Credential>,
    /// The step of the one-time code that let it through in a pause, and that is used up.
    pub(super) step: Option<i64>,
    /// Whether the strangers' count has one more by it.
    stranger: bool,
}

/// What is counted separately of an address.
enum Scope<'a> {
    Place(&'a Source),
    Strangers,
    Inside,
    /// One-time codes that were wrong in a pause, from all places that are not known.
    Codes,
    /// And from a known one.
    CodesAt(&'a Source),
}

/// Failures, and when the last one was, Unix milliseconds; of what leaks, since when none has leaked away.
type Count = (i64, i64);

impl Scope<'_> {
    fn key(&self) -> String {
        match self {
            Scope::Place(source) => format!("at {}", source.0),
            Scope::Strangers => "strangers".into(),
            Scope::Inside => "inside".into(),
            Scope::Codes => "codes".into(),
            Scope::CodesAt(source) => format!("codes at {}", source.0),
        }
    }

    /// Whether failures are let go one by one; else all at once, after a pause that grows with them.
    fn leaks(&self) -> bool {
        match self {
            Scope::Strangers | Scope::Codes | Scope::CodesAt(_) => true,
            Scope::Place(_) | Scope::Inside => false,
        }
    }

    /// What is left of a count after some time. A failure in the future is one of now: the clock was set back since.
    fn left(&self, (failures, since): Count, at: i64) -> Count {
        let since = since.min(at);
        if !self.leaks() {
            return (failures, since);
        }
        let leaked = (at - since) / LEAK;
        (failures - leaked.min(failures), since + leaked * LEAK)
    }

    /// Whether nobody may try just now, by what is left of the count.
    fn is_paused(&self, (failures, since): Count, at: i64) -> bool {
        match self.leaks() {
            true => failures >= BURST,
            false => paused_until(failures, since) > at,
        }
    }

    /// One failure more, by what is left of the count.
    fn counted(&self, (failures, since): Count, at: i64) -> Count {
        match self.leaks() && failures > 0 {
            true => (failures + 1, since),
            false => (failures + 1, at),
        }
    }
}

impl Store {
    /// Whether the user of this address has logged in from there before.
    pub(super) async fn is_known(&self, address: &str, source: &Source) -> Result<bool> {
        let found: Option<i64> = sql::query_scalar(
            "SELECT k.seen_at FROM known_sources k JOIN credentials c ON c.user_id = k.user_id
             WHERE c.login = $1 AND k.source = $2",
        )
        .bind(login(address))
        .bind(&source.0)
        .fetch_optional(&mut self.reader().await?)
        .await?;
        Ok(found.is_some_and(|seen| seen > now() - KNOWN))
    }

    /// Counts an attempt as failed before it is looked at, so that many at once are not free. One that comes in a pause makes it no
    /// longer: else anybody could keep a place out for ever.
    pub(super) async fn begin_attempt(&self, trier: Trier<'_>, address: &str) -> Result<Attempt> {
        let mut write = self.write(&Actor::system()).await?;
        let (at, address) = (write.at(), login(address));
        let hash = digest(&address);
        // Nor is any of what a clock that was far ahead has noted kept until that time comes.
        sql::query("DELETE FROM password_attempts WHERE failed_at < $1 OR failed_at > $2")
            .bind(at - REMEMBERED)
            .bind(at + REMEMBERED)
            .execute(write.db())
            .await?;
        let credential: Option<Credential> = sql::query_as("SELECT * FROM credentials WHERE login = $1")
            .bind(&address)
            .fetch_optional(write.db())
            .await?;
        let user = credential.as_ref().map(|own| own.user_id.as_str()).unwrap_or_default();
        let (scopes, shown) = match trier {
            Trier::Inside => (vec![Scope::Inside], None),
            Trier::At(source, code) if is_known(write.db(), user, source, at).await? => {
                (vec![Scope::Place(source)], Some((Scope::CodesAt(source), code)))
            }
            Trier::At(source, code) => {
                (vec![Scope::Place(source), Scope::Strangers], Some((Scope::Codes, code)))
            }
        };
        let mut counts = Vec::new();
        for scope in &scopes {
            counts.push((scope, left(&mut write, &hash, scope).await?));
        }
        let paused = counts.iter().any(|(scope, count)| scope.is_paused(*count, at));
        let mut attempt = Attempt { paused, credential, step: None, stranger: !paused && counts.len() > 1 };
        if paused {
            attempt.pass_by_code(&mut write, &hash, shown).await?;
        } else {
            for (scope, count) in counts {
                let count = scope.counted(count, at);
                set(&mut write, &hash, scope, count).await?;
            }
        }
        write.commit().await?;
        Ok(attempt)
    }

    /// Lets the pauses after failed attempts be over; for tests.
    #[doc(hidden)]
    pub async fn end_pauses(&self) -> Result<()> {
        sql::query("UPDATE password_attempts SET failed_at = failed_at - $1")
            .bind(PAUSE_MAX)
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }

    /// Lets every place be forgotten that users have come from; for tests.
    #[doc(hidden)]
    pub async fn forget_sources(&self) -> Result<()> {
        sql::query("UPDATE known_sources SET seen_at = seen_at - $1")
            .bind(KNOWN)
            .execute(&mut self.writer().await?)
            .await?;
        Ok(())
    }
}

impl Attempt {
    /// In a pause, only a one-time code lets through. It is used up by that, whatever the password is: each is good for one try.
    async fn pass_by_code(
        &mut self,
        write: &mut Write,
        hash: &[u8; 32],
        shown: Option<(Scope<'_>, &str)>,
    ) -> Result<()> {
        if let Some((scope, code)) = shown.filter(|(_, code)| !code.trim().is_empty()) {
            self.step = self.use_code(write, hash, &scope, code).await?;
        }
        match self.step {
            Some(_) => self.paused = false,
            None => self.credential = None,
        }
        Ok(())
    }

    /// Uses up a code that is good, and counts one that is not, or that is for nobody; after too many of those it looks at none.
    async fn use_code(
        &self,
        write: &mut Write,
        hash: &[u8; 32],
        scope: &Scope<'_>,
        code: &str,
    ) -> Result<Option<i64>> {
        let at = write.at();
        let count = left(write, hash, scope).await?;
        if scope.is_paused(count, at) {
            return Ok(None);
        }
        let own = self.credential.as_ref().filter(|own| own.totp_on);
        let found = step_of(own.map_or(NO_SECRET, |own| own.totp_secret.as_slice()), code, at)?;
        if let (Some(own), Some(step)) = (own, found)
            && step > own.totp_step
        {
            use_up(write, &own.user_id, step).await?;
            return Ok(Some(step));
        }
        set(write, hash, scope, scope.counted(count, at)).await?;
        Ok(None)
    }

    /// The attempt was no failure after all: the place it came from is known from now on.
    pub(super) async fn succeeded(&self, write: &mut Write, own: &Credential, source: &Source) -> Result<()> {
        self.forgive(write, source).await?;
        now_known(write, &own.user_id, source).await
    }

    /// The attempt was no failure, for the password was right.
    pub(super) async fn forgive(&self, write: &mut Write, source: &Source) -> Result<()> {
        let Some(own) = &self.credential else { return Ok(()) };
        let hash = digest(&own.login);
        forget(write, &hash, &Scope::Place(source)).await?;
        if self.stranger {
            sql::query(
                "UPDATE password_attempts SET failures = failures - 1
                 WHERE login_hash = $1 AND scope = $2 AND failures > 0",
            )
            .bind(hash.as_slice())
            .bind(Scope::Strangers.key())
            .execute(write.db())
            .await?;
        }
        Ok(())
    }
}

/// Marks the code of a step as used.
pub(super) async fn use_up(write: &mut Write, user: &str, step: i64) -> Result<()> {
    sql::query("UPDATE credentials SET totp_step = $1 WHERE user_id = $2")
        .bind(step)
        .bind(user)
        .execute(write.db())
        .await?;
    Ok(())
}

/// Forgets what was tried of an address, wherever, and the places that its user is known at: it has another password.
pub(super) async fn start_anew(write: &mut Write, user: &str, login: &str) -> Result<()> {
    sql::query("DELETE FROM password_attempts WHERE login_hash = $1")
        .bind(digest(login).as_slice())
        .execute(write.db())
        .await?;
    sql::query("DELETE FROM known_sources WHERE user_id = $1").bind(user).execute(write.db()).await?;
    Ok(())
}

/// Whoever is logged in has shown to know the password.
pub(super) async fn forget_inside(write: &mut Write, login: &str) -> Result<()> {
    forget(write, &digest(login), &Scope::Inside).await
}

/// Notes that a user has come from there, who has proved to be it.
pub(super) async fn now_known(write: &mut Write, user: &str, source: &Source) -> Result<()> {
    let at = write.at();
    sql::query(
        "INSERT INTO known_sources (user_id, source, seen_at) VALUES ($1, $2, $3)
         ON CONFLICT (user_id, source) DO UPDATE SET seen_at = $3",
    )
    .bind(user)
    .bind(&source.0)
    .bind(at)
    .execute(write.db())
    .await?;
    sql::query(
        "DELETE FROM known_sources WHERE user_id = $1 AND (seen_at <= $2 OR source NOT IN
         (SELECT source FROM known_sources WHERE user_id = $1 ORDER BY seen_at DESC, source LIMIT $3))",
    )
    .bind(user)
    .bind(at - KNOWN)
    .bind(PLACES)
    .execute(write.db())
    .await?;
    Ok(())
}

async fn is_known(db: &mut Connection, user: &str, source: &Source, at: i64) -> Result<bool> {
    let seen: Option<i64> =
        sql::query_scalar("SELECT seen_at FROM known_sources WHERE user_id = $1 AND source = $2")
            .bind(user)
            .bind(&source.0)
            .fetch_optional(db)
            .await?;
    Ok(seen.is_some_and(|seen| seen > at - KNOWN))
}

async fn read(db: &mut Connection, hash: &[u8; 32], scope: &Scope<'_>) -> Result<Count> {
    let count: Option<Count> = sql::query_as(
        "SELECT failures, failed_at FROM password_attempts WHERE login_hash = $1 AND scope = $2",
    )
    .bind(hash.as_slice())
    .bind(scope.key())
    .fetch_optional(db)
    .await?;
    Ok(count.unwrap_or_default())
}

/// What is left of a count just now. One from a clock that was set back since is noted as of now, so that its pause ends.
async fn left(write: &mut Write, hash: &[u8; 32], scope: &Scope<'_>) -> Result<Count> {
    let at = write.at();
    let noted = read(write.db(), hash, scope).await?;
    let count = scope.left(noted, at);
    if noted.1 > at {
        set(write, hash, scope, count).await?;
    }
    Ok(count)
}

async fn set(write: &mut Write, hash: &[u8; 32], scope: &Scope<'_>, count: Count) -> Result<()> {
    sql::query(
        "INSERT INTO password_attempts (login_hash, scope, failures, failed_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (login_hash, scope) DO UPDATE SET failures = $3, failed_at = $4",
    )
    .bind(hash.as_slice())
    .bind(scope.key())
    .bind(count.0)
    .bind(count.1)
    .execute(write.db())
    .await?;
    Ok(())
}

async fn forget(write: &mut Write, hash: &[u8; 32], scope: &Scope<'_>) -> Result<()> {
    sql::query("DELETE FROM password_attempts WHERE login_hash = $1 AND scope = $2")
        .bind(hash.as_slice())
        .bind(scope.key())
        .execute(write.db())
        .await?;
    Ok(())
}

fn digest(login: &str) -> [u8; 32] {
    Sha256::digest(login).into()
}

/// Until when nobody may try from a place, Unix milliseconds.
fn paused_until(failures: i64, failed_at: i64) -> i64 {
    match failures - FAILURES {
        over @ 0.. => failed_at + (PAUSE << over.min(10)).min(PAUSE_MAX),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_quarter_of_an_hour() {
        let pauses: Vec<i64> = [4, 5, 6, 9, 10, 1000].map(|failures| paused_until(failures, 0)).into();
        assert_eq!(pauses, [0, 30_000, 60_000, 480_000, 900_000, 900_000]);
    }

    #[test]
    fn strangers_together_have_eighty_attempts_in_an_hour_and_never_wait_for_more_than_a_minute() {
        let (start, mut count) = (1_700_000_000_000, Count::default());
        let (mut tried, mut longest, mut last) = (0, 0, start);
        for at in (start..start + REMEMBERED).step_by(1000) {
            let left = Scope::Strangers.left(count, at);
            if !Scope::Strangers.is_paused(left, at) {
                count = Scope::Strangers.counted(left, at);
                (tried, longest, last) = (tried + 1, longest.max(at - last), at);
            }
        }
        assert_eq!((tried, longest), (79, LEAK));
        assert_eq!(Scope::Strangers.left(count, last + BURST * LEAK).0, 0);
        const { assert!(BURST * LEAK <= REMEMBERED && PAUSE_MAX <= REMEMBERED) };
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_pause_longer() {
        let (at, source) = (1_700_000_000_000, Source::default());
        for (scope, failures) in [
            (Scope::Place(&source), 1000),
            (Scope::Inside, 1000),
            (Scope::Strangers, BURST),
            (Scope::Codes, BURST),
            (Scope::CodesAt(&source), BURST),
        ] {
            let (count, later) = (scope.left((failures, at + REMEMBERED), at), at + PAUSE_MAX);
            assert_eq!(count, (failures, at), "{}", scope.key());
            assert!(scope.is_paused(count, at), "{}", scope.key());
            assert!(!scope.is_paused(scope.left(count, later), later), "{}", scope.key());
        }
    }

    #[test]
    fn a_place_is_an_ipv4_address_or_an_ipv6_64() {
        let of = |text: &str| Source::of(Some(text.parse().unwrap()));
        assert_eq!(of("192.0.2.7").0, "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7").0, "192.0.2.7");
        assert_eq!(of("2001:db8::1:2").0, "2001:db8::/64");
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(Source::of(None), Source::default());
    }
}
