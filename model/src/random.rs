//! The generator of chance: the same numbers for the same seed, on every machine and in every version.
//!
//! A fuzzer drives the same choices by its own bytes: each choice reads as many as it needs, so that a changed byte changes
//! one choice.

/// SplitMix64, maybe with a tape recorder, or a tape.
#[derive(Clone, Debug)]
pub struct Random(Source);

#[derive(Clone, Debug)]
enum Source {
    Seed(u64),
    /// The seed's choices, and the tape that tells them.
    Recorder(u64, Vec<u8>),
    /// What is left of the tape, from its end.
    Tape(Vec<u8>),
}

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(Source::Seed(seed))
    }

    /// Reads choices from bytes; where they end, every choice is the first.
    pub fn tape(bytes: &[u8]) -> Self {
        Self(Source::Tape(bytes.iter().rev().copied().collect()))
    }

    /// Starts from a seed, and writes down a tape.
    pub fn recorder(seed: u64) -> Self {
        Self(Source::Recorder(seed, Vec::new()))
    }

    /// The tape that gives all choices made so far; empty if it was not to be written down.
    pub fn recorded(&self) -> &[u8] {
        match &self.0 {
            Source::Recorder(_, tape) => tape,
            _ => &[],
        }
    }

    /// Whether a tape has been read to its end. A seed has none.
    pub fn is_spent(&self) -> bool {
        matches!(&self.0, Source::Tape(rest) if rest.is_empty())
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.take(8, 0)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        let width = if n <= 1 << 8 { 1 } else { 8 };
        (self.take(width, n as u64) % n as u64) as usize
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Each with the given chance.
    pub fn some<T: Clone>(&mut self, from: &[T], percent: usize) -> Vec<T> {
        from.iter().filter(|_| self.chance(percent)).cloned().collect()
    }

    /// Up to `n` bytes as they are; fewer where a tape ends.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        match &mut self.0 {
            Source::Seed(_) | Source::Recorder(..) => (0..n).map(|_| self.take(1, 256) as u8).collect(),
            Source::Tape(rest) => rest.split_off(rest.len().saturating_sub(n)).into_iter().rev().collect(),
        }
    }

    /// 64 random bits; from a tape, as many bytes. What is written down is less than `below`, unless that is 0.
    fn take(&mut self, bytes: usize, below: u64) -> u64 {
        match &mut self.0 {
            Source::Seed(state) => split_mix(state),
            Source::Recorder(state, tape) => {
                let value = split_mix(state);
                let value = if below == 0 { value } else { value % below };
                tape.extend_from_slice(&value.to_be_bytes()[8 - bytes..]);
                value
            }
            Source::Tape(rest) => {
                (0..bytes).fold(0, |value, _| value << 8 | u64::from(rest.pop().unwrap_or(0)))
            }
        }
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_numbers_it_always_gave() {
        let mut r = Random::new(1);
        assert_eq!([r.next(), r.next()], [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]);
        assert!(!r.is_spent());
    }

    #[test]
    fn a_recorded_tape_gives_the_same_choices() {
        let play = |r: &mut Random| -> Vec<usize> {
            (0..100)
                .map(|i| if i % 9 == 0 { r.bytes(i).len() + r.next() as usize } else { r.below(1 + i * i) })
                .collect()
        };
        let mut recorder = Random::recorder(5);
        let told = play(&mut recorder);
        assert_eq!(play(&mut Random::tape(recorder.recorded())), told);
        // Raw bytes aside, it makes the choices of the seed alone.
        assert_eq!(Random::recorder(5).below(7), Random::new(5).below(7));
    }

    #[test]
    fn a_tape_is_read_a_byte_a_choice_and_then_gives_the_first() {
        let mut r = Random::tape(&[7, 1, 2, 3, 199]);
        assert_eq!(r.below(10), 7);
        assert_eq!(r.bytes(3), [1, 2, 3]);
        assert!(!r.chance(50));
        assert!(r.is_spent());
        assert_eq!((r.below(5), r.pick(&["a", "b"]), r.bytes(2)), (0, "a", Vec::new()));
    }
}
