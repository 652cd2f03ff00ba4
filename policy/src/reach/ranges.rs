//! Sets of protocols and ports, as ranges of the image's axis.

use std::ops::Range;

use sluicegate_engine::image::axis;

/// Rising, disjoint, and no two of them touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range<u32>>);

impl Ranges {
    pub(crate) fn new(mut ranges: Vec<Range<u32>>) -> Self {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        ranges.dedup_by(|next, kept| {
            let touches = next.start <= kept.end;
            if touches {
                kept.end = kept.end.max(next.end);
            }
            touches
        });
        Self(ranges)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range<u32>> {
        self.0.iter()
    }

    /// What is in this and not in `other`.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut cuts = other.0.iter().peekable();
        for range in &self.0 {
            let mut start = range.start;
            while let Some(cut) = cuts.peek() {
                if cut.end <= start {
                    cuts.next();
                    continue;
                }
                if cut.start >= range.end {
                    break;
                }
                if cut.start > start {
                    left.push(start..cut.start);
                }
                start = cut.end;
                if cut.end >= range.end {
                    break;
                }
                cuts.next();
            }
            if start < range.end {
                left.push(start..range.end);
            }
        }
        Self(left)
    }

    /// What is in either.
    pub(crate) fn or(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// What is in both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        self.minus(&self.minus(other))
    }
}

/// Protocol and ports of a range, as in a policy file; several where it spans protocols.
pub(crate) fn text(range: &Range<u32>) -> String {
    if *range == (0..axis::END) {
        return "all".to_owned();
    }
    let classes = [axis::OTHER, axis::TCP, axis::UDP, axis::ICMP, axis::ICMPV6];
    let mut parts: Vec<String> = Vec::new();
    for class in classes {
        let (start, end) = (range.start.max(class), range.end.min(class + 0x1_0000));
        if start >= end {
            continue;
        }
        let (first, last) = (start - class, end - class - 1);
        let whole = (first, last) == (0, 0xffff);
        let span = |first: u32, last: u32| {
            if first == last { format!("{first}") } else { format!("{first}-{last}") }
        };
        let kinds = |first: u32, last: u32| {
            if first == last {
                format!(" type {}", first >> 8)
            } else {
                format!(" types {}-{}", first >> 8, last >> 8)
            }
        };
        parts.push(match class {
            // Numbers of protocols end at 255.
            axis::OTHER if first == 0 && last >= 255 => "other protocols".to_owned(),
            axis::OTHER => format!("protocol {}", span(first, last)),
            axis::TCP if whole => "tcp".to_owned(),
            axis::TCP => format!("tcp/{}", span(first, last)),
            axis::UDP if whole => "udp".to_owned(),
            axis::UDP => format!("udp/{}", span(first, last)),
            axis::ICMP if whole => "icmp".to_owned(),
            axis::ICMP => format!("icmp{}", kinds(first, last)),
            _ if whole => "icmpv6".to_owned(),
            _ => format!("icmpv6{}", kinds(first, last)),
        });
    }
    // One word of policy files stands for both families.
    if let Some(at) = parts.windows(2).position(|two| two == ["icmp", "icmpv6"]) {
        parts.remove(at + 1);
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Ranges> {
        let range = (0u32..24, 0u32..8).prop_map(|(start, length)| start..start + length);
        proptest::collection::vec(range, 0..6).prop_map(Ranges::new)
    }

    fn has(ranges: &Ranges, value: u32) -> bool {
        ranges.iter().any(|range| range.contains(&value))
    }

    proptest! {
        #[test]
        fn they_are_sets(a in ranges(), b in ranges()) {
            let (minus, and) = (a.minus(&b), a.and(&b));
            for value in 0..40 {
                prop_assert_eq!(has(&minus, value), has(&a, value) && !has(&b, value));
                prop_assert_eq!(has(&and, value), has(&a, value) && has(&b, value));
            }
            for set in [&a, &minus, &and] {
                prop_assert!(set.0.windows(2).all(|two| two[0].end < two[1].start), "{:?}", set);
            }
        }
    }

    #[test]
    fn they_are_called_as_in_policy_files() {
        for (range, says) in [
            (0..axis::END, "all"),
            (axis::TCP + 443..axis::TCP + 444, "tcp/443"),
            (axis::TCP..axis::UDP, "tcp"),
            (axis::UDP + 53..axis::UDP + 60, "udp/53-59"),
            (axis::ICMP..axis::END, "icmp"),
            (0..axis::TCP + 22, "other protocols tcp/0-21"),
            (axis::TCP + 23..axis::END, "tcp/23-65535 udp icmp"),
            (47..48, "protocol 47"),
        ] {
            assert_eq!(text(&range), says);
        }
    }
}
