//! The order of rules as one number for each, such that a rule that comes or goes changes the numbers of few others.
//!
//! Numbering the rules one after the other would shift all behind a newcomer. Instead the order is cut into runs, runs into
//! chapters, at rules that their own slot picks: a rank is (chapter, run in it, place in the run). A newcomer shifts the rest of its
//! run, some 32 ranks; one in 64 cuts a run and shifts the runs of its chapter, one in 4,096 shifts the chapters.

use super::slots::mix;

/// Bits of the place in a run, and of the run in a chapter.
const BITS: u32 = 11;

/// The rank of each of `slots`, which are in the order of their rules: rising.
pub(super) fn ranks(slots: &[u32]) -> Vec<u32> {
    let mut ranks = Vec::with_capacity(slots.len());
    let (mut chapter, mut run, mut place) = (0u64, 0u64, 0u64);
    for &slot in slots {
        let hash = mix(u64::from(slot) ^ 0x72_616e_6b73);
        if hash.is_multiple_of(4096) {
            (chapter, run, place) = (chapter + 1, 0, 0);
        } else if hash.is_multiple_of(64) {
            (run, place) = (run + 1, 0);
        }
        if run >> BITS != 0 || place >> BITS != 0 || chapter >> (32 - 2 * BITS) != 0 {
            // Slots that no cut falls on for so long are next to impossible: then one after the other.
            return (0..slots.len() as u32).collect();
        }
        ranks.push((chapter << (2 * BITS) | run << BITS | place) as u32);
        place += 1;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_rise_and_a_newcomer_moves_few() {
        let slots: Vec<u32> = (0..200_000).collect();
        let before = ranks(&slots);
        assert!(before.is_sorted_by(|a, b| a < b));
        let moved: usize = (0..100)
            .map(|i| {
                let at = i * 1_999;
                let mut more = slots.clone();
                more.insert(at, 1_000_000 + i as u32);
                let mut after = ranks(&more);
                assert!(after.is_sorted_by(|a, b| a < b));
                after.remove(at);
                before.iter().zip(&after).filter(|(a, b)| a != b).count()
            })
            .sum();
        assert!(moved < 100 * 200, "{moved} for a hundred");
    }

    #[test]
    fn slots_without_a_cut_are_numbered_one_after_the_other() {
        let uncut =
            (0..).find(|&slot| !mix(u64::from(slot) ^ 0x72_616e_6b73).is_multiple_of(64)).unwrap_or(0);
        let many = ranks(&vec![uncut; 5_000]);
        assert_eq!(many, (0..5_000).collect::<Vec<_>>());
    }
}
