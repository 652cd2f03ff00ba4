//! Short lists of rows or columns, each kept once.

use std::collections::BTreeSet;

use sluicegate_engine::image::{LIST_MAX, Places};

use super::slots::{assign, mix_words};

/// Lists as words, and what stands for each: `lists` are rising and without 0; an empty one is nobody.
pub(super) fn lists(lists: &[Vec<u32>]) -> (Vec<Places>, Vec<u32>) {
    let distinct: BTreeSet<&[u32]> = lists.iter().map(Vec::as_slice).filter(|list| list.len() > 1).collect();
    let distinct: Vec<&[u32]> = distinct.into_iter().collect();
    let keys: Vec<u64> = distinct.iter().map(|list| mix_words(list.iter().copied())).collect();
    let (places, size) = if keys.is_empty() { (Vec::new(), 0) } else { assign(&keys) };
    let mut words = vec![0; size as usize * LIST_MAX];
    for (list, &place) in distinct.iter().zip(&places) {
        words[place as usize * LIST_MAX..][..list.len()].copy_from_slice(list);
    }
    let find = |list: &Vec<u32>| match list[..] {
        [] => Places::one(0),
        [number] => Places::one(number),
        _ => Places::listed(distinct.binary_search(&&list[..]).map_or(0, |i| places[i])),
    };
    (lists.iter().map(find).collect(), words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_one_is_that_one_and_equal_lists_are_kept_once() {
        let (places, words) = lists(&[vec![], vec![7], vec![1, 2], vec![1, 2, 3], vec![1, 2]]);
        assert_eq!(places[..2], [Places::one(0), Places::one(7)]);
        assert_eq!(places[2], places[4]);
        let line = |i: usize| &words[places[i].list().map_or(0, |list| list as usize) * LIST_MAX..][..4];
        assert_eq!((line(2), line(3)), (&[1, 2, 0, 0][..], &[1, 2, 3, 0][..]));
        assert!(lists(&[vec![], vec![7]]).1.is_empty());
    }
}
