//! Probes through the tunnel: whether a peer is there is asked inside WireGuard, where nobody else can answer.
//!
//! A probe is a packet of [`super::inside`] with a number, and its answer has the same.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::inside::{self, HEADER, Inside};

/// Bytes of a probe or a reply, before WireGuard.
pub(super) const LENGTH: usize = HEADER + 8;
/// Between probes of who is not probed briskly, where the brisk ones do not come more rarely.
const NOW_AND_THEN: Duration = Duration::from_secs(1);
/// Probes of a target whose round trip is measured when they are answered; older ones are answers all the same.
const ON_THE_WAY: usize = 32;
const MAGIC: [u8; 5] = *b"SLPR\x01";
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// What was sent and what was answered.
pub(super) struct Probes {
    out: mpsc::Sender<Vec<u8>>,
    interval: Duration,
    state: Mutex<State>,
    sooner: Notify,
}

#[derive(Default)]
struct State {
    own: Option<Ipv6Addr>,
    sequence: u64,
    targets: HashMap<Ipv6Addr, Target>,
}

#[derive(Default)]
struct Target {
    /// The newest at the end; more are on their way than one where a round trip is longer than the interval.
    sent: VecDeque<(u64, Instant)>,
    answered: Option<Instant>,
    round_trip: Option<Duration>,
    brisk: bool,
    /// Brisk for a moment, because it may have to stand in for another.
    hurried: bool,
    /// Probes and replies that were sent to it.
    carried: u64,
}

impl Target {
    fn due(&self, interval: Duration, now: Instant) -> Instant {
        let interval = if self.brisk || self.hurried { interval } else { interval.max(NOW_AND_THEN) };
        self.sent.back().map_or(now, |(_, at)| *at + interval)
    }
}

impl Probes {
    /// Probes and replies leave by `out`; when it is full they are lost, as on any network.
    /// `interval` is between brisk ones.
    pub(super) fn new(out: mpsc::Sender<Vec<u8>>, interval: Duration) -> Self {
        Self { out, interval, state: Mutex::default(), sooner: Notify::new() }
    }

    pub(super) fn set_own(&self, address: Ipv6Addr) {
        self.state().own = Some(address);
        self.sooner.notify_one();
    }

    /// Probes exactly these from now on.
    pub(super) fn set_targets(&self, targets: impl IntoIterator<Item = Ipv6Addr>) {
        let mut state = self.state();
        let mut old = std::mem::take(&mut state.targets);
        state.targets = targets.into_iter().map(|t| (t, old.remove(&t).unwrap_or_default())).collect();
        self.sooner.notify_one();
    }

    /// Whether a target is probed at the interval, or now and then.
    pub(super) fn set_brisk(&self, address: Ipv6Addr, brisk: bool) {
        if let Some(target) = self.state().targets.get_mut(&address).filter(|t| t.brisk != brisk) {
            target.brisk = brisk;
            self.sooner.notify_one();
        }
    }

    /// Probes exactly these at the interval as well, until it is said again.
    pub(super) fn hurry(&self, addresses: &BTreeSet<Ipv6Addr>) {
        let mut sooner = false;
        for (address, target) in &mut self.state().targets {
            let hurried = addresses.contains(address);
            sooner |= hurried && !target.hurried;
            target.hurried = hurried;
        }
        if sooner {
            self.sooner.notify_one();
        }
    }

    /// Sends the probes that are due, and says when the next one is.
    pub(super) fn send(&self, now: Instant) -> Instant {
        let state = &mut *self.state();
        let mut next = now + NOW_AND_THEN;
        let Some(own) = state.own else { return next };
        for (address, target) in &mut state.targets {
            if target.due(self.interval, now) <= now {
                state.sequence += 1;
                if target.sent.len() == ON_THE_WAY {
                    target.sent.pop_front();
                }
                target.sent.push_back((state.sequence, now));
                let sent = self.out.try_send(packet(own, *address, REQUEST, state.sequence));
                target.carried += u64::from(sent.is_ok());
            }
            next = next.min(target.due(self.interval, now));
        }
        next
    }

    /// Returns when a probe is due before the time that [`Probes::send`] gave.
    pub(super) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    /// How many probes and replies were sent to a target.
    pub(super) fn carried(&self, address: Ipv6Addr) -> u64 {
        self.state().targets.get(&address).map_or(0, |t| t.carried)
    }

    /// When `address` last answered, and how long that took.
    pub(super) fn answered(&self, address: Ipv6Addr) -> (Option<Instant>, Option<Duration>) {
        self.state().targets.get(&address).map_or((None, None), |t| (t.answered, t.round_trip))
    }

    /// Whether `packet` was a probe: then it has been answered or noted, and goes no further.
    pub(super) fn consume(&self, packet: &[u8]) -> bool {
        let Some((source, destination, kind, sequence)) = parse(packet) else { return false };
        let mut state = self.state();
        if state.own != Some(destination) {
            return true;
        }
        match kind {
            REQUEST => {
                let sent = self.out.try_send(self::packet(destination, source, REPLY, sequence));
                if let Some(target) = state.targets.get_mut(&source) {
                    target.carried += u64::from(sent.is_ok());
                }
            }
            REPLY => {
                let Some(target) = state.targets.get_mut(&source) else { return true };
                let now = Instant::now();
                if let Some((_, sent)) = target.sent.iter().find(|(s, _)| *s == sequence) {
                    target.round_trip = Some(now.saturating_duration_since(*sent));
                }
                target.answered = Some(now);
            }
            _ => {}
        }
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, sequence: u64) -> Vec<u8> {
    inside::packet(source, destination, MAGIC, kind, &sequence.to_be_bytes())
}

fn parse(packet: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr, u8, u64)> {
    let Inside { source, destination, kind, body } = inside::parse(packet, MAGIC)?;
    let sequence = body.first_chunk().map(|sequence| u64::from_be_bytes(*sequence))?;
    Some((source, destination, kind, sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    fn end(own: Ipv6Addr) -> (Probes, mpsc::Receiver<Vec<u8>>) {
        let (tx, rx) = mpsc::channel(4);
        let probes = Probes::new(tx, Duration::from_millis(50));
        probes.set_own(own);
        (probes, rx)
    }

    #[test]
    fn a_probe_is_answered_and_the_answer_noted() {
        let (asking, mut asked) = end(A);
        let (answering, mut answers) = end(B);
        asking.set_targets([B]);
        asking.send(Instant::now());
        assert!(answering.consume(&asked.try_recv().unwrap()));
        assert_eq!(asking.answered(B), (None, None));
        assert!(asking.consume(&answers.try_recv().unwrap()));
        let (at, round_trip) = asking.answered(B);
        assert!(at.is_some() && round_trip.is_some());
    }

    #[test]
    fn a_brisk_target_is_probed_at_the_interval_and_another_now_and_then() {
        let (probes, mut out) = end(A);
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        probes.set_targets([B]);
        assert_eq!(probes.send(at(0)), at(1000));
        assert_eq!(probes.send(at(999)), at(1000));
        assert_eq!(probes.send(at(1000)), at(2000));
        probes.set_brisk(B, true);
        assert_eq!(probes.send(at(1040)), at(1050));
        assert_eq!(probes.send(at(1050)), at(1100));
        assert_eq!(probes.carried(B), 3);
        assert_eq!(std::iter::from_fn(|| out.try_recv().ok()).count(), 3);
        probes.set_brisk(B, false);
        assert_eq!(probes.send(at(1100)), at(2050));
        probes.hurry(&[B].into());
        assert_eq!(probes.send(at(1101)), at(1151));
        probes.hurry(&[A].into());
        assert_eq!(probes.send(at(1151)), at(2101));
    }

    #[test]
    fn a_round_trip_longer_than_the_interval_is_measured() {
        let (asking, mut asked) = end(A);
        let (answering, mut answers) = end(B);
        asking.set_targets([B]);
        asking.set_brisk(B, true);
        let start = Instant::now();
        for n in 0..100 {
            asking.send(start + Duration::from_millis(50) * n);
            let probe = asked.try_recv().unwrap();
            // All but the third from the end are lost.
            if n == 97 {
                assert!(answering.consume(&probe));
            }
        }
        assert!(asking.consume(&answers.try_recv().unwrap()));
        assert!(matches!(asking.answered(B), (Some(_), Some(_))));
        assert_eq!(asking.state().targets[&B].sent.len(), ON_THE_WAY);
    }

    #[test]
    fn a_probe_for_another_address_is_swallowed_unanswered() {
        let (probes, mut out) = end(A);
        assert!(probes.consume(&packet(B, B, REQUEST, 1)));
        assert!(out.try_recv().is_err());
    }

    #[test]
    fn an_answer_nobody_asked_for_is_not_noted() {
        let (probes, _out) = end(A);
        assert!(probes.consume(&packet(B, A, REPLY, 1)));
        assert_eq!(probes.answered(B), (None, None));
    }

    #[test]
    fn other_packets_pass() {
        let (probes, _out) = end(A);
        let mut udp = packet(B, A, REQUEST, 1);
        udp[6] = 17;
        assert!(!probes.consume(&udp));
        assert!(!probes.consume(&packet(B, A, REQUEST, 1)[..LENGTH - 1]));
        assert!(!probes.consume(&[]));
    }
}
