//! Many short lists of numbers in two arrays.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;

/// Lists 0..n, each rising and without duplicates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lists {
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    /// From (list, item) pairs in any order; `count` is the number of lists.
    pub(crate) fn new(count: usize, pairs: &[(u32, u32)]) -> Self {
        let mut ends = vec![0u32; count + 1];
        pairs.iter().for_each(|&(list, _)| ends[list as usize] += 1);
        let mut total = 0;
        for end in &mut ends {
            total += *end;
            *end = total - *end;
        }
        // Each entry is now where its list begins, and moves to its end as the list is filled.
        let mut unsorted = vec![0; pairs.len()];
        for &(list, item) in pairs {
            unsorted[ends[list as usize] as usize] = item;
            ends[list as usize] += 1;
        }
        let mut lists =
            Self { starts: Vec::with_capacity(count + 1), items: Vec::with_capacity(pairs.len()) };
        let mut begin = 0;
        for &end in &ends[..count] {
            lists.starts.push(lists.items.len() as u32);
            let list = &mut unsorted[begin as usize..end as usize];
            if !list.is_sorted() {
                list.sort_unstable();
            }
            let mut last = None;
            lists.items.extend(list.iter().copied().filter(|&item| last.replace(item) != Some(item)));
            begin = end;
        }
        lists.starts.push(lists.items.len() as u32);
        lists
    }

    /// These, with others in the place of some, and as many more empty ones as make `count`. Each of `changed` is rising, without
    /// duplicates, and among 0..count.
    pub(crate) fn with(&self, changed: &BTreeMap<u32, Vec<u32>>, count: usize) -> Self {
        let more: usize = changed.values().map(Vec::len).sum();
        let mut lists = Self {
            starts: Vec::with_capacity(count + 1),
            items: Vec::with_capacity(self.items.len() + more),
        };
        let mut from = 0;
        for (&list, items) in changed {
            lists.append(self, from..list as usize);
            lists.starts.push(lists.items.len() as u32);
            lists.items.extend_from_slice(items);
            from = list as usize + 1;
        }
        lists.append(self, from..count);
        lists.starts.push(lists.items.len() as u32);
        lists
    }

    fn append(&mut self, other: &Self, which: Range<usize>) {
        let there = which.start..which.end.min(other.starts.len().saturating_sub(1)).max(which.start);
        if !there.is_empty() {
            let (begin, end) = (other.starts[there.start], other.starts[there.end]);
            let here = self.items.len() as u32;
            self.starts.extend(other.starts[there.clone()].iter().map(|start| start - begin + here));
            self.items.extend_from_slice(&other.items[begin as usize..end as usize]);
        }
        let empty = which.len() - there.len();
        self.starts.extend(std::iter::repeat_n(self.items.len() as u32, empty));
    }

    /// One list; empty beyond the last.
    pub(crate) fn get(&self, list: u32) -> &[u32] {
        match self.starts.get(list as usize..list as usize + 2) {
            Some(&[start, end]) => &self.items[start as usize..end as usize],
            _ => &[],
        }
    }
}

/// A set of small numbers. Two are equal when they have the same members, whatever they have room for.
#[derive(Clone, Debug, Eq)]
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

    /// Up to the last member.
    fn words(&self) -> &[u64] {
        let len = self.0.iter().rposition(|&word| word != 0).map_or(0, |last| last + 1);
        &self.0[..len]
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

impl PartialEq for Bits {
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
    }
}

impl Hash for Bits {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_deduplicated() {
        let lists = Lists::new(3, &[(2, 5), (0, 9), (2, 1), (0, 9)]);
        assert_eq!(
            (lists.get(0), lists.get(1), lists.get(2), lists.get(3)),
            (&[9][..], &[][..], &[1, 5][..], &[][..])
        );
    }

    #[test]
    fn some_lists_are_replaced_and_the_others_stay() {
        let lists = Lists::new(4, &[(0, 1), (1, 2), (1, 3), (3, 4)]);
        for changed in [vec![], vec![(0, vec![7, 8])], vec![(1, vec![]), (3, vec![5, 6])], vec![(2, vec![9])]]
        {
            let changed: BTreeMap<u32, Vec<u32>> = changed.into_iter().collect();
            for (count, list) in [4, 6].into_iter().flat_map(|count| (0..7).map(move |list| (count, list))) {
                let with = lists.with(&changed, count);
                let expected = changed.get(&list).map_or(lists.get(list), Vec::as_slice);
                assert_eq!(with.get(list), expected, "{list} of {changed:?}");
            }
        }
    }

    #[test]
    fn bits_are_a_set() {
        let mut bits = Bits::new(130);
        for i in [0, 63, 64, 129] {
            bits.insert(i);
        }
        bits.remove(63);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 64, 129]);
        let mut wider = Bits::new(500);
        [0, 64].into_iter().for_each(|i| wider.insert(i));
        assert_ne!(bits, wider);
        bits.remove(129);
        assert_eq!(bits, wider);
    }
}
