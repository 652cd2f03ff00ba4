//! Token buckets, one for each caller, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Callers remembered; one that has been quiet for long enough is forgotten first.
const CALLERS: usize = 16_384;
/// How long newcomers wait when there are more callers than that.
const CROWDED: Duration = Duration::from_secs(60);

/// So many attempts at once, and so many per second after that, for each caller.
pub(crate) struct Buckets<K> {
    burst: f64,
    rate: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

struct Bucket {
    tokens: f64,
    at: Instant,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Both above zero; `rate` is per second.
    pub(crate) fn new(burst: f64, rate: f64) -> Self {
        Buckets { burst, rate, buckets: Mutex::default() }
    }

    /// Counts an attempt; when there were too many, how long to wait for the next.
    pub(crate) fn attempt(&self, caller: K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.lock();
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

    /// As if one attempt of this caller had not been.
    pub(crate) fn give_back(&self, caller: &K) {
        if let Some(bucket) = self.lock().get_mut(caller) {
            bucket.tokens = (bucket.tokens + 1.0).min(self.burst);
        }
    }

    /// Whether this caller has been here, and is not forgotten.
    pub(crate) fn knows(&self, caller: &K) -> bool {
        self.lock().contains_key(caller)
    }

    /// As if this caller had never been here.
    pub(crate) fn forget(&self, caller: &K) {
        self.lock().remove(caller);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Bucket>> {
        self.buckets.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Whom an address stands for: one IPv6 customer commonly has a /64.
pub(crate) fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_source_is_its_64_and_a_mapped_one_is_ipv4() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(source(ip("2001:db8::1")), source(ip("2001:db8::ffff:1:2:3")));
        assert_ne!(source(ip("2001:db8::1")), source(ip("2001:db8:0:1::1")));
        assert_eq!(source(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn memory_is_bounded_and_quiet_callers_are_forgotten() {
        let (buckets, start) = (Buckets::new(120.0, 2.0), Instant::now());
        for i in 0..CALLERS {
            buckets.attempt(i, start).unwrap();
        }
        assert!(buckets.attempt(CALLERS, start).is_err());
        assert!(buckets.knows(&0) && !buckets.knows(&CALLERS));
        buckets.attempt(CALLERS, start + Duration::from_secs(60)).unwrap();
        assert!(!buckets.knows(&0) && buckets.knows(&CALLERS));
    }
}
