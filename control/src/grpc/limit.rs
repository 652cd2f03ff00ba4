//! Attempts to join per source address: a token bucket each, in bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Attempts at once: a site's machines may join together from behind one address.
const BURST: f64 = 120.0;
/// Attempts per second after that.
const RATE: f64 = 2.0;
/// Addresses remembered; one that has been quiet for a minute is forgotten first.
const SOURCES: usize = 16_384;

/// The buckets.
#[derive(Default)]
pub(super) struct SourceLimit {
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * RATE).min(BURST);
        self.at = now;
    }
}

impl SourceLimit {
    /// Counts an attempt; when there were too many, how long to wait for the next.
    pub(super) fn attempt(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let source = source(from);
        if buckets.len() >= SOURCES && !buckets.contains_key(&source) {
            buckets.retain(|_, bucket| {
                bucket.refill(now);
                bucket.tokens < BURST
            });
            if buckets.len() >= SOURCES {
                // More attackers than memory: newcomers wait.
                return Err(Duration::from_secs(60));
            }
        }
        let bucket = buckets.entry(source).or_insert(Bucket { tokens: BURST, at: now });
        bucket.refill(now);
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / RATE));
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
        for i in 0..SOURCES as u32 {
            limit.attempt(ip(i), start).unwrap();
        }
        assert!(limit.attempt(ip(u32::MAX), start).is_err());
        limit.attempt(ip(u32::MAX), start + Duration::from_secs(60)).unwrap();
    }
}
