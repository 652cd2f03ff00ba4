//! Numbers that stay put: a thing's number follows from its own key, so that others coming and going rarely move it.
//!
//! Numbering classes, blocks and service sets one after the other would shift all of them for one newcomer, and with
//! them most words of an image. Instead each goes to the first free one of the places its key hashes to, in a table with
//! an eighth of room to spare. Linear probing would be simpler, but at that load one newcomer moves some 40 others
//! (measured: a third of an image for one policy); with independent probes it moves two or three. All move when the
//! table's size steps up.

/// Places for `keys` in a table whose place 0 is reserved: the place of each key, and the table's size.
///
/// The size is a multiple of 16 and follows from the number of keys alone. The places do not depend on the keys' order
/// unless keys are equal.
pub(super) fn assign(keys: &[u64]) -> (Vec<u32>, u32) {
    let size = table_size(keys.len());
    let by = Divisor::new(size - 1);
    let order = by_hash(keys);
    let mut places = vec![0; keys.len()];
    let mut taken = vec![false; size as usize];
    for (hash, i) in order {
        let probes = (0..PROBES).map(|n| (1 + by.remainder(mix(hash.wrapping_add(n)))) as usize);
        let place = probes.chain(1..size as usize).find(|&p| !taken[p]);
        let place = place.expect("the table is larger than the number of keys");
        taken[place] = true;
        places[i] = place as u32;
    }
    (places, size as u32)
}

/// The keys of lines of words by number, kept for as long as the line stays what it is: to compare it costs less than to hash it.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<(Box<[u32]>, u64)>);

impl Keys {
    /// The hash of a line, which is what `mix_words` makes of it.
    pub(super) fn of(&mut self, number: u32, line: &[u32]) -> u64 {
        let number = number as usize;
        if self.0.len() <= number {
            self.0.resize_with(number + 1, Default::default);
        }
        let known = &mut self.0[number];
        if known.0[..] != *line || line.is_empty() {
            *known = (line.into(), mix_words(line.iter().copied()));
        }
        known.1
    }

    /// The line that was hashed last under a number.
    pub(super) fn line(&self, number: u32) -> &[u32] {
        &self.0[number as usize].0
    }

    /// About how many bytes they take.
    pub(super) fn size(&self) -> usize {
        self.0.iter().map(|(line, _)| line.len() * 4 + 32).sum()
    }
}

/// Hash and index of each key, rising. Hashes are spread evenly, so as many buckets as keys sort them but for a few.
fn by_hash(keys: &[u64]) -> Vec<(u64, usize)> {
    let log = keys.len().next_power_of_two().trailing_zeros();
    let bucket = |hash: u64| hash.checked_shr(64 - log).unwrap_or(0) as usize;
    let mut ends = vec![0u32; 1 << log];
    let hashes: Vec<u64> = keys.iter().map(|&key| mix(key)).collect();
    hashes.iter().for_each(|&hash| ends[bucket(hash)] += 1);
    let mut total = 0;
    for end in &mut ends {
        total += *end;
        *end = total - *end;
    }
    let mut order = vec![(0, 0); keys.len()];
    for (i, &hash) in hashes.iter().enumerate() {
        let at = &mut ends[bucket(hash)];
        order[*at as usize] = (hash, i);
        *at += 1;
    }
    let mut begin = 0;
    for end in ends {
        order[begin as usize..end as usize].sort_unstable();
        begin = end;
    }
    order
}

/// A number that many are divided by: a multiplication and a subtraction take a third of the time of a division.
#[derive(Clone, Copy, Debug)]
struct Divisor {
    divisor: u64,
    /// How often it is in 2^64 - 1.
    inverse: u64,
}

impl Divisor {
    fn new(divisor: u64) -> Self {
        Self { divisor, inverse: u64::MAX / divisor }
    }

    /// What is left of a number.
    fn remainder(self, number: u64) -> u64 {
        // At most two too low.
        let quotient = (u128::from(number) * u128::from(self.inverse)) >> 64;
        let mut rest = number - quotient as u64 * self.divisor;
        while rest >= self.divisor {
            rest -= self.divisor;
        }
        rest
    }
}

/// Of 64 probes into a table that is eight ninths full, all miss once in 1,900 times; then the first free place serves.
const PROBES: u64 = 64;

/// An eighth of room, in steps of an eighth to a quarter of the size, so that a step is rare.
fn table_size(keys: usize) -> u64 {
    let wanted = keys as u64 + keys as u64 / 8 + 1;
    wanted.next_multiple_of((wanted.next_power_of_two() / 8).max(16))
}

/// A well-mixed hash of a number (the finaliser of SplitMix64). The same on every machine.
pub(super) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A hash of words in their order.
pub(crate) fn mix_words(words: impl IntoIterator<Item = u32>) -> u64 {
    words.into_iter().fold(0x9e37_79b9_7f4a_7c15, |hash, word| mix(hash.wrapping_add(u64::from(word) + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_distinct_and_never_zero() {
        for n in [0, 1, 14, 15, 100, 1000, 12345] {
            let keys: Vec<u64> = (0..n).collect();
            let (mut places, size) = assign(&keys);
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len() as u64, n);
            assert!(places.iter().all(|&p| p > 0 && p < size), "{n}");
            assert!(size.is_multiple_of(16));
        }
    }

    #[test]
    fn a_line_that_changes_has_another_key() {
        let mut keys = Keys::default();
        for line in [[1, 2], [1, 2], [1, 3], [0, 0]] {
            assert_eq!(keys.of(5, &line), mix_words(line));
            assert_eq!(keys.line(5), line);
        }
        assert_eq!(keys.of(2, &[]), mix_words([]));
    }

    #[test]
    fn a_remainder_is_what_division_leaves() {
        for divisor in [1, 2, 3, 15, 31, 6_703, 7_551, u64::from(u32::MAX), 1 << 40] {
            let by = Divisor::new(divisor);
            let near = [0, 1, divisor - 1, divisor, divisor + 1, u64::MAX, u64::MAX / divisor * divisor];
            let spread = (0..1_000).map(mix);
            for number in near.into_iter().chain(near.map(|n| n.wrapping_sub(1))).chain(spread) {
                assert_eq!(by.remainder(number), number % divisor, "{number} by {divisor}");
            }
        }
    }

    #[test]
    fn keys_are_in_the_order_of_their_hashes() {
        for n in [0, 1, 2, 3, 64, 65, 1000] {
            let keys: Vec<u64> = (0..n).map(|i| i / 2).collect();
            let mut expected: Vec<(u64, usize)> = keys.iter().map(|&key| mix(key)).zip(0..).collect();
            expected.sort_unstable();
            assert_eq!(by_hash(&keys), expected);
        }
    }

    #[test]
    fn one_more_key_moves_few() {
        let keys: Vec<u64> = (0..1000).collect();
        let (before, size) = assign(&keys);
        let more: Vec<u64> = keys.iter().copied().chain([5000]).collect();
        let (after, new_size) = assign(&more);
        assert_eq!(size, new_size);
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!(moved < 20, "{moved} of 1000 moved");
    }

    #[test]
    fn equal_keys_get_distinct_places() {
        let (places, _) = assign(&[7, 7, 7]);
        assert_eq!(places.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    }
}
