//! Nested prefixes as disjoint intervals; prefixes are never counted out, only their boundaries.

/// One prefix, as a range of addresses, with what it brings.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) first: u128,
    pub(super) last: u128,
    /// What the prefix brings by itself.
    pub(super) traits: Traits,
}

/// What holds for an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Traits {
    /// Sets of rules, rising.
    pub(super) sets: Vec<u32>,
    /// An attribute word without its route.
    pub(super) attributes: u32,
    /// The route's bits of the attribute word: those of the longest prefix that has any.
    pub(super) route: u32,
}

impl Traits {
    /// What holds inside `inner`, which lies within this: every set of both; the inner route where there is one.
    /// `equal` when both are the same prefix: then the route of the first stays.
    fn with(&self, inner: &Self, equal: bool) -> Self {
        let mut sets = [&self.sets[..], &inner.sets[..]].concat();
        sets.sort_unstable();
        sets.dedup();
        let keep = inner.route == 0 || (equal && self.route != 0);
        let route = if keep { self.route } else { inner.route };
        Self { sets, attributes: self.attributes | inner.attributes, route }
    }
}

/// Intervals as (first address, what holds there up to the next): the first starts at 0. `max` is the family's last
/// address. Spans are prefixes: two of them are nested or disjoint. Among equal ones the order given decides.
pub(super) fn sweep(mut spans: Vec<Span>, max: u128) -> Vec<(u128, Traits)> {
    spans.sort_by_key(|s| (s.first, std::cmp::Reverse(s.last)));
    let mut intervals = vec![(0, Traits::default())];
    // The prefixes around the current address, outermost first, each with all that holds inside it.
    let mut around: Vec<(u128, u128, Traits)> = Vec::new();
    let leave = |around: &mut Vec<(u128, u128, Traits)>, intervals: &mut Vec<(u128, Traits)>, until: u128| {
        while let Some((_, last, _)) = around.last().filter(|a| a.1 < until) {
            let next = last + 1;
            around.pop();
            set(intervals, next, around.last().map(|a| a.2.clone()).unwrap_or_default());
        }
    };
    for span in spans {
        leave(&mut around, &mut intervals, span.first);
        let inside = match around.last() {
            Some((first, last, traits)) => {
                traits.with(&span.traits, (*first, *last) == (span.first, span.last))
            }
            None => span.traits,
        };
        set(&mut intervals, span.first, inside.clone());
        around.push((span.first, span.last, inside));
    }
    // What ends with the address space needs no boundary.
    leave(&mut around, &mut intervals, max);
    intervals
}

fn set(intervals: &mut Vec<(u128, Traits)>, at: u128, traits: Traits) {
    match intervals.last_mut() {
        Some(last) if last.0 == at => last.1 = traits,
        _ => intervals.push((at, traits)),
    }
}

/// `outer` with everything from `first` to `last` replaced by `inner`, which starts at `first`. `max` as in [`sweep`].
pub(super) fn splice<T: Copy>(
    outer: &[(u128, T)],
    (first, last): (u128, u128),
    inner: &[(u128, T)],
    max: u128,
) -> Vec<(u128, T)> {
    let before = outer.partition_point(|i| i.0 < first);
    let mut joined = outer[..before].to_vec();
    joined.extend_from_slice(inner);
    if last < max {
        let after = outer.partition_point(|i| i.0 <= last + 1);
        joined.push((last + 1, outer[after - 1].1));
        joined.extend_from_slice(&outer[after..]);
    }
    joined
}

/// Joins neighbours of one value.
pub(super) fn merge<T: PartialEq>(mut intervals: Vec<(u128, T)>) -> Vec<(u128, T)> {
    intervals.dedup_by(|next, kept| next.1 == kept.1);
    intervals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first: u128, last: u128, set: u32, route: u32) -> Span {
        Span { first, last, traits: Traits { sets: vec![set], attributes: 0, route } }
    }

    fn seen(spans: &[Span]) -> Vec<(u128, Vec<u32>, u32)> {
        sweep(spans.to_vec(), 255).into_iter().map(|(a, t)| (a, t.sets, t.route)).collect()
    }

    #[test]
    fn an_address_has_the_sets_of_every_prefix_around_it_and_the_route_of_the_longest() {
        assert_eq!(
            seen(&[span(64, 127, 1, 10), span(64, 95, 2, 0), span(80, 83, 3, 30)]),
            [
                (0, vec![], 0),
                (64, vec![1, 2], 10),
                (80, vec![1, 2, 3], 30),
                (84, vec![1, 2], 10),
                (96, vec![1], 10),
                (128, vec![], 0),
            ]
        );
    }

    #[test]
    fn the_whole_space_and_its_last_address_have_no_end() {
        assert_eq!(
            seen(&[span(0, 255, 1, 10), span(255, 255, 2, 20)]),
            [(0, vec![1], 10), (255, vec![1, 2], 20)]
        );
        assert_eq!(seen(&[span(0, 0, 1, 0)]), [(0, vec![1], 0), (1, vec![], 0)]);
    }

    #[test]
    fn of_equal_prefixes_the_first_routes() {
        assert_eq!(
            seen(&[span(8, 15, 1, 10), span(8, 15, 2, 20), span(8, 15, 3, 0)])[1],
            (8, vec![1, 2, 3], 10)
        );
        assert_eq!(seen(&[span(8, 15, 1, 0), span(8, 15, 2, 20)])[1], (8, vec![1, 2], 20));
    }

    #[test]
    fn a_splice_takes_the_place_of_what_was_there() {
        let outer = [(0, 'a'), (10, 'b'), (20, 'c')];
        assert_eq!(
            splice(&outer, (5, 14), &[(5, 'x'), (7, 'y')], 255),
            [(0, 'a'), (5, 'x'), (7, 'y'), (15, 'b'), (20, 'c')]
        );
        assert_eq!(splice(&outer, (5, 19), &[(5, 'x')], 255), [(0, 'a'), (5, 'x'), (20, 'c')]);
        assert_eq!(splice(&outer, (0, 255), &[(0, 'x')], 255), [(0, 'x')]);
    }
}
