//! Whether packets go to a peer, beside probes and WireGuard's own: read off its counters, so that carrying packets costs
//! nothing for it.

use std::time::{Duration, Instant};

use super::probe;

/// How long after its last packet a link counts as in use.
const IN_USE: Duration = Duration::from_secs(2);
/// A link that has said nothing for this long is probed now and then, whatever is sent to it: it is known to be dead.
const GONE: Duration = Duration::from_secs(3);
/// Bytes of an empty WireGuard message, a keepalive.
const KEEPALIVE: u64 = 32;
/// Bytes of a WireGuard message with a probe, which is padded to 16 bytes.
const PROBE: u64 = KEEPALIVE + probe::LENGTH.next_multiple_of(16) as u64;

/// What was sent to a peer until the last look, and since when it has been in use.
#[derive(Default)]
pub(super) struct Usage {
    sent: u64,
    probes: u64,
    /// Bytes of probes that were counted and are not in `sent` yet.
    waiting: u64,
    used: Option<Instant>,
    brisk_since: Option<Instant>,
}

impl Usage {
    /// How long the link has been, without a break, one that is to be probed briskly. `sent` is all bytes sent to the peer,
    /// `probes` the number of probes and replies among them, `heard` when anything came from it.
    ///
    /// A handshake counts as use: a few brisk probes more do no harm. Probes that are lost before they are encrypted hide as
    /// many bytes of others, two of them at the most.
    pub(super) fn brisk(
        &mut self,
        sent: u64,
        probes: u64,
        heard: Option<Instant>,
        now: Instant,
    ) -> Option<Duration> {
        let own = self.waiting + probes.saturating_sub(self.probes) * PROBE;
        let grown = sent.saturating_sub(self.sent);
        (self.sent, self.probes, self.waiting) = (sent, probes, own.saturating_sub(grown).min(2 * PROBE));
        let others = grown.saturating_sub(own);
        if others > KEEPALIVE {
            self.used = Some(now);
        }
        let within =
            |at: Option<Instant>, time| at.is_some_and(|at| now.saturating_duration_since(at) < time);
        let brisk = within(self.used, IN_USE) && within(heard, GONE);
        self.brisk_since = brisk.then(|| self.brisk_since.unwrap_or(now));
        self.brisk_since.map(|since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(100);

    #[test]
    fn packets_make_a_link_brisk_until_they_cease() {
        let (mut usage, mut now) = (Usage::default(), Instant::now());
        assert_eq!(usage.brisk(60, 0, Some(now), now), Some(Duration::ZERO));
        now += IN_USE - LOOK;
        assert_eq!(usage.brisk(60, 0, Some(now), now), Some(IN_USE - LOOK));
        now += LOOK;
        assert_eq!(usage.brisk(60, 0, Some(now), now), None);
        assert_eq!(usage.brisk(124, 0, Some(now), now), Some(Duration::ZERO));
    }

    #[test]
    fn probes_replies_and_keepalives_are_no_use() {
        let (mut usage, now) = (Usage::default(), Instant::now());
        for n in 1..100 {
            let look = now + LOOK * n;
            let n = u64::from(n);
            assert_eq!(usage.brisk(n * (2 * PROBE + KEEPALIVE), n * 2, Some(look), look), None);
        }
    }

    #[test]
    fn a_probe_on_its_way_is_no_use_when_it_leaves_and_a_lost_one_hides_little() {
        let (mut usage, now) = (Usage::default(), Instant::now());
        assert_eq!(usage.brisk(0, 1, Some(now), now), None);
        assert_eq!(usage.brisk(PROBE, 1, Some(now), now), None);
        assert_eq!(usage.brisk(PROBE, 1000, Some(now), now), None);
        assert_eq!(usage.brisk(4 * PROBE, 1000, Some(now), now), Some(Duration::ZERO));
    }

    #[test]
    fn a_link_known_to_be_dead_is_not_brisk() {
        let (mut usage, now) = (Usage::default(), Instant::now());
        assert_eq!(usage.brisk(1000, 0, None, now), None);
        assert_eq!(usage.brisk(2000, 0, Some(now), now + GONE), None);
        assert!(usage.brisk(3000, 0, Some(now), now + GONE - LOOK).is_some());
    }
}
