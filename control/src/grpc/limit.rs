//! How often agents may try to join, and move.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::buckets::{Buckets, source};

/// Joins from one address at once: a site's machines may join together from behind one address.
const BURST: f64 = 120.0;
/// Joins per second after that.
const RATE: f64 = 2.0;
/// Times that one agent may say at once that its endpoint is another: each is a change that every agent hears of.
const MOVES_BURST: f64 = 20.0;
/// Such times per second after that.
const MOVES_RATE: f64 = 0.1;

/// Times that one router may say at once that names stand for something else: each is a change of the account.
const NAMES_BURST: f64 = 60.0;
/// Such times per second after that. What is not heard is said again: while somebody waits for it within half a second, else a minute later.
const NAMES_RATE: f64 = 2.0;

/// Attempts to join, per source address.
pub(super) struct SourceLimit(Buckets<IpAddr>);

/// Changes that an agent makes by what it says of itself (its endpoint, a verdict that turns), per peer id.
pub(super) struct MoveLimit(Buckets<String>);

/// Changes that a router makes by what it learns of names, per peer id.
pub(super) struct NamesLimit(Buckets<String>);

/// Logins of machines that may be begun at once from one address: each may be a question to the identity provider.
const BEGIN_BURST: f64 = 30.0;
/// Such logins per second after that.
const BEGIN_RATE: f64 = 0.2;
/// Questions what became of a login, from one address: sixteen machines wait there at most, and each asks every two seconds.
const ASK_BURST: f64 = 120.0;
/// Such questions per second after that.
const ASK_RATE: f64 = 16.0;

/// Logins of machines, per source address.
pub(super) struct LoginLimit {
    begun: Buckets<IpAddr>,
    asked: Buckets<IpAddr>,
}

impl Default for LoginLimit {
    fn default() -> Self {
        LoginLimit { begun: Buckets::new(BEGIN_BURST, BEGIN_RATE), asked: Buckets::new(ASK_BURST, ASK_RATE) }
    }
}

impl LoginLimit {
    /// Counts a login that is to begin; when there were too many, how long to wait for the next.
    pub(super) fn begin(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        self.begun.attempt(source(from), now)
    }

    /// Counts a question; when there were too many, how long to wait for the next.
    pub(super) fn ask(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        self.asked.attempt(source(from), now)
    }
}

impl Default for NamesLimit {
    fn default() -> Self {
        NamesLimit(Buckets::new(NAMES_BURST, NAMES_RATE))
    }
}

impl NamesLimit {
    /// Counts a change; whether there were not too many.
    pub(super) fn admits(&self, peer: &str, now: Instant) -> bool {
        self.0.attempt(peer.to_owned(), now).is_ok()
    }
}

impl Default for SourceLimit {
    fn default() -> Self {
        SourceLimit(Buckets::new(BURST, RATE))
    }
}

impl SourceLimit {
    /// Counts an attempt; when there were too many, how long to wait for the next.
    pub(super) fn attempt(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        self.0.attempt(source(from), now)
    }
}

impl Default for MoveLimit {
    fn default() -> Self {
        MoveLimit(Buckets::new(MOVES_BURST, MOVES_RATE))
    }
}

impl MoveLimit {
    /// Counts a change; when there were too many, how long to wait for the next.
    pub(super) fn attempt(&self, peer: &str, now: Instant) -> Result<(), Duration> {
        self.0.attempt(peer.to_owned(), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds_per_source() {
        let (limit, start) = (SourceLimit::default(), Instant::now());
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..120 {
            limit.attempt(a, start).unwrap();
        }
        assert_eq!(limit.attempt(a, start), Err(Duration::from_millis(500)));
        limit.attempt(b, start).unwrap();
        limit.attempt(a, start + Duration::from_secs(1)).unwrap();
        limit.attempt(a, start + Duration::from_secs(1)).unwrap();
        assert!(limit.attempt(a, start + Duration::from_secs(1)).is_err());
    }
}
