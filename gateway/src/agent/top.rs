//! What comes most often, in bounded memory (the space-saving algorithm: Metwally, Agrawal, El Abbadi 2005).

/// The most frequent of a stream of keys. A key that makes up more than 1/`room` of the stream is among them.
#[derive(Clone, Debug)]
pub(super) struct Top<K> {
    room: usize,
    counted: Vec<Counted<K>>,
}

/// A key and how often it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted<K> {
    pub(super) key: K,
    /// How often, at the most.
    pub(super) count: u64,
    /// How much of the count may be another key's: it came `count - error` times at the least.
    pub(super) error: u64,
    /// When it came last, Unix milliseconds.
    pub(super) last_ms: u64,
}

impl<K: PartialEq> Top<K> {
    /// Remembers `room` keys at the most.
    pub(super) fn new(room: usize) -> Self {
        Self { room: room.max(1), counted: Vec::new() }
    }

    /// Counts `key`.
    pub(super) fn note(&mut self, key: K, now_ms: u64) {
        if let Some(there) = self.counted.iter_mut().find(|there| there.key == key) {
            there.count += 1;
            there.last_ms = now_ms;
            return;
        }
        let fresh = Counted { key, count: 1, error: 0, last_ms: now_ms };
        if self.counted.len() < self.room {
            self.counted.push(fresh);
        } else if let Some(least) = self.counted.iter_mut().min_by_key(|there| there.count) {
            *least = Counted { count: least.count + 1, error: least.count, ..fresh };
        }
    }

    /// The most frequent first.
    pub(super) fn sorted(&self) -> Vec<&Counted<K>> {
        let mut sorted: Vec<&Counted<K>> = self.counted.iter().collect();
        sorted.sort_by_key(|there| std::cmp::Reverse(there.count));
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_survive_a_stream_of_others() {
        let mut top = Top::new(8);
        for i in 0..1000u64 {
            top.note(1_000_000 + i, i);
            if i % 2 == 0 {
                top.note(7, i);
            }
            if i % 3 == 0 {
                top.note(9, i);
            }
        }
        let sorted = top.sorted();
        assert_eq!(sorted.len(), 8);
        assert_eq!((sorted[0].key, sorted[1].key), (7, 9));
        for (counted, truth) in [(sorted[0], 500), (sorted[1], 334)] {
            assert!(counted.count >= truth && counted.count - counted.error <= truth, "{counted:?}");
        }
        assert_eq!(sorted[0].last_ms, 998);
    }

    #[test]
    fn what_fits_is_counted_exactly() {
        let mut top = Top::new(3);
        for key in ["a", "b", "a", "c", "a", "b"] {
            top.note(key, 5);
        }
        let counts: Vec<_> = top.sorted().iter().map(|c| (c.key, c.count, c.error)).collect();
        assert_eq!(counts, [("a", 3, 0), ("b", 2, 0), ("c", 1, 0)]);
    }
}
