//! Many short lists of numbers in two arrays.

/// Lists 0..n, each rising and without duplicates.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    /// From (list, item) pairs in any order; `count` is the number of lists.
    pub(crate) fn new(count: usize, mut pairs: Vec<(u32, u32)>) -> Self {
        if !pairs.is_sorted() {
            pairs.sort_unstable();
        }
        pairs.dedup();
        let mut starts = Vec::with_capacity(count + 1);
        let mut next = 0;
        for list in 0..=count as u32 {
            while pairs.get(next).is_some_and(|p| p.0 < list) {
                next += 1;
            }
            starts.push(next as u32);
        }
        Self { starts, items: pairs.into_iter().map(|p| p.1).collect() }
    }

    /// One list; empty beyond the last.
    pub(crate) fn get(&self, list: u32) -> &[u32] {
        match self.starts.get(list as usize..list as usize + 2) {
            Some(&[start, end]) => &self.items[start as usize..end as usize],
            _ => &[],
        }
    }
}

/// A set of small numbers.
#[derive(Clone, Debug)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    pub(crate) fn insert(&mut self, i: u32) {
        self.0[i as usize / 64] |= 1 << (i % 64);
    }

    pub(crate) fn remove(&mut self, i: u32) {
        self.0[i as usize / 64] &= !(1 << (i % 64));
    }

    /// The members, rising.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().flat_map(|(i, &word)| {
            std::iter::successors(Some(word), |w| Some(w & w.wrapping_sub(1)))
                .take_while(|&w| w != 0)
                .map(move |w| i as u32 * 64 + w.trailing_zeros())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_deduplicated() {
        let lists = Lists::new(3, vec![(2, 5), (0, 9), (2, 1), (0, 9)]);
        assert_eq!(
            (lists.get(0), lists.get(1), lists.get(2), lists.get(3)),
            (&[9][..], &[][..], &[1, 5][..], &[][..])
        );
    }

    #[test]
    fn bits_are_a_set() {
        let mut bits = Bits::new(130);
        for i in [0, 63, 64, 129] {
            bits.insert(i);
        }
        bits.remove(63);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 64, 129]);
    }
}
