//! When control was last heard of, and how long the image in force may stand by that.

use std::time::{Duration, Instant};

/// When control was last heard of, and what it thinks of this agent.
#[derive(Default)]
pub(super) struct Contact {
    /// Whether the stream is open.
    pub(super) connected: bool,
    /// Control knows this agent no more. Only a stream that opens again changes that: what control answered before it
    /// changed its mind may arrive late.
    pub(super) expelled: bool,
    /// Whether something of the image in force has ended by the clock, and control has said nothing since.
    pub(super) ended: bool,
    /// Last word, Unix milliseconds.
    pub(super) last_ms: Option<u64>,
    /// Why the stream is not open.
    pub(super) error: Option<String>,
    /// When the image in force may no longer be enforced, as the datapath was told; `None` is never.
    pub(super) expires: Option<Instant>,
    /// When the datapath was last told a deadline by what control said.
    pub(super) deadline_set: Option<Instant>,
    /// When the last word was last written to disk.
    pub(super) remembered: Option<Instant>,
}

impl Contact {
    /// How long the image in force may be enforced from now on, where it may stand `max_age` without word from control and
    /// the last word on disk is `passed` ago; `None` is for ever.
    pub(super) fn allowance(&self, max_age: Option<Duration>, passed: Option<Duration>) -> Option<Duration> {
        if self.expelled {
            return Some(Duration::ZERO);
        }
        // A clock that was set back counts as no time passed, and so does a stream that is open.
        let passed = passed.filter(|_| !self.connected).unwrap_or_default();
        max_age.map(|age| age.saturating_sub(passed))
    }

    /// Notes what the datapath is told: for how long from `now` on the image in force may be enforced.
    pub(super) fn allowed(&mut self, allowance: Option<Duration>, now: Instant) {
        self.expires = allowance.and_then(|allowance| now.checked_add(allowance));
    }

    /// For how long from `now` on the image in force may be enforced; `None` is for ever.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.expires.map(|at| at.saturating_duration_since(now))
    }

    /// Whether the image in force may no longer be enforced at `now`.
    pub(super) fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| now >= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Option<Duration> = Some(Duration::from_secs(86_400));
    const HOUR: Option<Duration> = Some(Duration::from_secs(3_600));

    #[test]
    fn an_image_stands_for_its_age_since_the_last_word() {
        let away = Contact::default();
        assert_eq!(away.allowance(DAY, HOUR), Some(Duration::from_secs(82_800)));
        assert_eq!(away.allowance(HOUR, DAY), Some(Duration::ZERO));
        assert_eq!(away.allowance(DAY, None), DAY);
        assert_eq!(away.allowance(None, DAY), None);
        let connected = Contact { connected: true, ..Contact::default() };
        assert_eq!(connected.allowance(HOUR, DAY), HOUR);
    }

    #[test]
    fn an_image_expires_when_its_allowance_is_used_up_and_lives_again_with_a_new_one() {
        let (mut contact, now) = (Contact::default(), Instant::now());
        assert!(!contact.expired(now));
        contact.allowed(HOUR, now);
        assert!(!contact.expired(now));
        assert!(contact.expired(now + Duration::from_secs(3_600)));
        contact.allowed(Some(Duration::ZERO), now);
        assert!(contact.expired(now));
        contact.allowed(None, now);
        assert!(!contact.expired(now + Duration::from_secs(86_400)));
        contact.allowed(Some(Duration::MAX), now);
        assert!(!contact.expired(now));
    }

    #[test]
    fn who_was_expelled_enforces_nothing_any_more_whatever_was_configured() {
        let expelled = Contact { expelled: true, ..Contact::default() };
        for age in [None, DAY] {
            assert_eq!(expelled.allowance(age, None), Some(Duration::ZERO));
        }
    }
}
