//! Attempts per caller: a token bucket each, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Joins from one address at once: a site's machines may join together from behind one address.
const BURST: f64 = 120.0;
/// Joins per second after that.
const RATE: f64 = 2.0;
/// Times that one agent may say at once that its endpoint is another: each is a change that every agent hears of.
const MOVES_BURST: f64 = 20.0;
/// Such times per second after that.
const MOVES_RATE: f64 = 0.1;
/// Callers remembered; one that has been quiet for long enough is forgotten first.
const CALLERS: usize = 16_384;
/// How long newcomers wait when there are more callers than that.
const CROWDED: Duration = Duration::from_secs(60);

/// Attempts to join, per source address.
pub(super) struct SourceLimit(Buckets<IpAddr>);

/// Changes of an agent's endpoint, per peer id.
pub(super) struct MoveLimit(Buckets<String>);

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

struct Buckets<K> {
    burst: f64,
    rate: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(burst: f64, rate: f64) -> Self {
        Buckets { burst, rate, buckets: Mutex::default() }
    }

    fn attempt(&self, caller: K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let refill = |bucket: &mut Bucket| {
            let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
            bucket.tokens = (bucket.tokens + passed * self.rate).min(self.burst);
            bucket.at = now;
        };
        if buckets.len() >= CALLERS && !buckets.contains_key(&caller) {
            buckets.retain(|_, bucket| {
                refill(bucket);
                bucket.tokens < self.burst
            });
            if buckets.len() >= CALLERS {
                // More attackers than memory: newcomers wait.
                return Err(CROWDED);
            }
        }
        let bucket = buckets.entry(caller).or_insert(Bucket { tokens: self.burst, at: now });
        refill(bucket);
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / self.rate));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

/// One IPv6 customer commonly has a /64.
fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
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

    #[test]
    fn an_ipv6_source_is_its_64_and_a_mapped_one_is_ipv4() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(source(ip("2001:db8::1")), source(ip("2001:db8::ffff:1:2:3")));
        assert_ne!(source(ip("2001:db8::1")), source(ip("2001:db8:0:1::1")));
        assert_eq!(source(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn memory_is_bounded_and_quiet_sources_are_forgotten() {
        let (limit, start) = (SourceLimit::default(), Instant::now());
        let ip = |i: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(i));
        for i in 0..CALLERS as u32 {
            limit.attempt(ip(i), start).unwrap();
        }
        assert!(limit.attempt(ip(u32::MAX), start).is_err());
        limit.attempt(ip(u32::MAX), start + Duration::from_secs(60)).unwrap();
    }
}
