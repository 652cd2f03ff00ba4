//! Rules that meet on one source and destination, as intervals of the protocol/port axis with the rule that decides.

use std::collections::BTreeSet;
use std::ops::Range;

use sluicegate_engine::image::axis;

/// A rule, as far as deciding needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) accept: bool,
    /// Rising, disjoint.
    pub(super) ranges: &'a [Range<u32>],
}

/// Intervals as (first value, deciding rule): the first starts at 0, neighbours differ, the last one reaches to the end.
/// The rule is an index into `rules`, which are in their order; `None` where no rule matches.
///
/// Any drop rule beats every accept rule; among rules of one action the first decides.
pub(super) fn decide(rules: &[Candidate<'_>]) -> Vec<(u32, Option<usize>)> {
    let mut edges: Vec<(u32, bool, usize)> = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        // Drops rank before accepts.
        let rank = if rule.accept { rules.len() + i } else { i };
        edges.extend(rule.ranges.iter().flat_map(|r| [(r.start, true, rank), (r.end, false, rank)]));
    }
    edges.sort_unstable();
    let mut intervals: Vec<(u32, Option<usize>)> = vec![(0, None)];
    let mut live: BTreeSet<usize> = BTreeSet::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((at, enters, rank)) = edges.next() {
        if enters {
            live.insert(rank);
        } else {
            live.remove(&rank);
        }
        if edges.peek().is_some_and(|next| next.0 == at) || at >= axis::END {
            continue;
        }
        let rule = live.first().map(|rank| rank % rules.len());
        match intervals.last_mut() {
            Some(last) if last.0 == at => last.1 = rule,
            Some(last) if last.1 == rule => {}
            _ => intervals.push((at, rule)),
        }
    }
    intervals
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "one range of values is meant, not its values")]
mod tests {
    use super::*;

    #[test]
    fn drop_wins_and_the_first_of_its_kind_is_named() {
        let all = [0..axis::END];
        let web = [axis::TCP + 80..axis::TCP + 81];
        let ports = [axis::TCP + 70..axis::TCP + 90];
        let accept = |ranges| Candidate { accept: true, ranges };
        let drop = |ranges| Candidate { accept: false, ranges };
        assert_eq!(decide(&[accept(&all)]), [(0, Some(0))]);
        assert_eq!(
            decide(&[accept(&all), drop(&web)]),
            [(0, Some(0)), (axis::TCP + 80, Some(1)), (axis::TCP + 81, Some(0))]
        );
        assert_eq!(
            decide(&[drop(&web), accept(&web), drop(&ports)]),
            [
                (0, None),
                (axis::TCP + 70, Some(2)),
                (axis::TCP + 80, Some(0)),
                (axis::TCP + 81, Some(2)),
                (axis::TCP + 90, None)
            ]
        );
        assert_eq!(
            decide(&[accept(&web), accept(&ports), accept(&web)]),
            [
                (0, None),
                (axis::TCP + 70, Some(1)),
                (axis::TCP + 80, Some(0)),
                (axis::TCP + 81, Some(1)),
                (axis::TCP + 90, None)
            ]
        );
        assert_eq!(decide(&[drop(&all), accept(&all)]), [(0, Some(0))]);
        assert_eq!(decide(&[accept(&[])]), [(0, None)]);
    }
}
