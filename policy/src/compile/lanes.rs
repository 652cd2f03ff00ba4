//! Tells the members of sets apart, in one or several lanes.
//!
//! Members in exactly the same sets of a lane are one *kind* there: the lane's kinds are the leaves of a tree whose every
//! step down adds one set. In one lane a member is of one kind, and kinds may be as many as the sets have combinations. In
//! several lanes a member is of one kind in each lane that has a set of its own, so that what sets decide is looked up in several
//! places, and their combinations need not be written down.

use sluicegate_engine::image::LIST_MAX;

/// Kinds of members, by lane.
#[derive(Debug)]
pub(super) struct Lanes {
    /// (lane, kind) of each member, in the order in which it came to them.
    of_member: Vec<Vec<(u32, u32)>>,
    /// How many of these numbers are members at all.
    count: usize,
    kinds: Vec<Kind>,
    /// What a look-up more for every member is worth, in words; `None` for one lane.
    price: Option<u64>,
    lanes: Vec<Lane>,
    /// Words that all kinds with members take.
    weight: u64,
}

/// What [`Lanes::choose`] counts in a lane.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// Words of combinations.
    words: u64,
    /// Members that have a kind in it, and those of them that have no room for another lane.
    inside: u32,
    full_inside: u32,
    touched: bool,
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    /// The kind of its members before the last set it is in told them apart; itself for the first of a lane.
    parent: u32,
    set: u32,
    /// Where this kind's members went when `split_by` was the set last seen.
    split: u32,
    split_by: u32,
    /// Members in no further set.
    members: u32,
    /// Words its sets take.
    weight: u64,
    /// Members of the set in hand that are of this kind.
    inside: u32,
}

const NONE: u32 = u32::MAX;

impl Lanes {
    /// For members 0 to `members`, all of them in no set. See [`Lanes::price`].
    pub(super) fn new(members: usize, price: Option<u64>) -> Self {
        let of_member = vec![Vec::new(); members];
        Self { of_member, count: members, kinds: Vec::new(), price, lanes: Vec::new(), weight: 0 }
    }

    /// This, where only so many of the numbers are members'.
    #[must_use]
    pub(super) fn of_count(self, count: usize) -> Self {
        Self { count, ..self }
    }

    /// Tells members of `set` from others. To be called once for each set, large sets first. `weight` is about how many words
    /// a row or column of the set alone takes.
    pub(super) fn add(&mut self, set: u32, members: &[u32], weight: u64) {
        if members.is_empty() {
            return;
        }
        let lane = self.choose(members, weight);
        if lane as usize == self.lanes.len() {
            self.lanes.push(Lane::default());
        }
        let mut fresh = NONE;
        for &member in members {
            let mut at = self.of_member[member as usize].iter_mut().find(|entry| entry.0 == lane);
            let kind = at.as_ref().map(|entry| entry.1);
            let next = self.kinds.len() as u32;
            let into = match kind {
                Some(kind) => {
                    let known = &mut self.kinds[kind as usize];
                    if known.split_by != set {
                        (known.split, known.split_by) = (next, set);
                    }
                    known.members -= 1;
                    self.weight -= if known.members == 0 { known.weight } else { 0 };
                    known.split
                }
                None if fresh == NONE => {
                    fresh = next;
                    next
                }
                None => fresh,
            };
            if into == next {
                let before = kind.map_or(0, |kind| self.kinds[kind as usize].weight);
                let parent = kind.unwrap_or(next);
                let weight = before + weight;
                let kind = Kind { parent, set, split: 0, split_by: NONE, members: 0, weight, inside: 0 };
                self.kinds.push(kind);
            }
            let into_kind = &mut self.kinds[into as usize];
            into_kind.members += 1;
            self.weight += if into_kind.members == 1 { into_kind.weight } else { 0 };
            match &mut at {
                Some(entry) => entry.1 = into,
                None => self.of_member[member as usize].push((lane, into)),
            }
        }
    }

    /// The lane in which a set costs least: words for the combinations it makes there, or a look-up for its members. The
    /// first lane always has room; another one only while none of the members would have more than a list holds.
    fn choose(&mut self, members: &[u32], weight: u64) -> u32 {
        let (Some(price), 1..) = (self.price, self.lanes.len()) else { return 0 };
        let is_full = |entries: &[(u32, u32)]| {
            entries.len() >= LIST_MAX - usize::from(entries.iter().all(|entry| entry.0 != 0))
        };
        let (mut full, mut touched) = (0, vec![0]);
        self.lanes[0].touched = true;
        for &member in members {
            let entries = &self.of_member[member as usize];
            let is_full = u32::from(is_full(entries));
            full += is_full;
            for &(number, kind) in entries {
                self.kinds[kind as usize].inside += 1;
                let lane = &mut self.lanes[number as usize];
                lane.inside += 1;
                lane.full_inside += is_full;
                if !std::mem::replace(&mut lane.touched, true) {
                    touched.push(number);
                }
            }
        }
        // Each kind counts once, whoever of its members comes first.
        for entry in members.iter().flat_map(|&member| &self.of_member[member as usize]) {
            let kind = &mut self.kinds[entry.1 as usize];
            let inside = std::mem::take(&mut kind.inside);
            if inside > 0 {
                self.lanes[entry.0 as usize].words +=
                    weight + if inside < kind.members { kind.weight } else { 0 };
            }
        }
        let look_ups = |members: u64| price * members / self.count as u64;
        let mut best = None;
        if full == 0 {
            best = Some((weight + look_ups(members.len() as u64), self.lanes.len() as u32));
        }
        for number in touched {
            let lane = std::mem::take(&mut self.lanes[number as usize]);
            let outside = members.len() as u64 - u64::from(lane.inside);
            let cost = lane.words + if outside > 0 { weight + look_ups(outside) } else { 0 };
            if (number == 0 || lane.full_inside == full) && best.is_none_or(|best| (cost, number) < best) {
                best = Some((cost, number));
            }
        }
        best.map_or(0, |(_, lane)| lane)
    }

    /// The kinds of a member; none for a member of no set.
    pub(super) fn of(&self, member: u32) -> impl Iterator<Item = u32> + '_ {
        self.of_member[member as usize].iter().map(|entry| entry.1)
    }

    /// How many members there may be.
    pub(super) fn members(&self) -> usize {
        self.of_member.len()
    }

    /// How many kind numbers there are; some have no members.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Whether a kind has members.
    pub(super) fn in_use(&self, kind: u32) -> bool {
        self.kinds[kind as usize].members > 0
    }

    /// Words that all kinds take.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    /// The set that was added last to a kind.
    pub(super) fn set(&self, kind: u32) -> u32 {
        self.kinds[kind as usize].set
    }

    /// The first set of the lane of a kind, along its way.
    fn parent(&self, kind: u32) -> Option<u32> {
        let parent = self.kinds[kind as usize].parent;
        (parent != kind).then_some(parent)
    }

    /// The sets of a kind, the last added first.
    pub(super) fn sets(&self, kind: u32) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(Some(kind), |&kind| self.parent(kind)).map(|kind| self.set(kind))
    }

    /// The kinds that begin a lane's tree, and the children of each kind; without branches that lead to no member.
    pub(super) fn trees(&self) -> (Vec<u32>, Vec<Vec<u32>>) {
        let mut needed = vec![false; self.kinds.len()];
        for kind in (0..self.kinds.len() as u32).filter(|&kind| self.in_use(kind)) {
            let mut at = Some(kind);
            while let Some(kind) = at.filter(|&kind| !std::mem::replace(&mut needed[kind as usize], true)) {
                at = self.parent(kind);
            }
        }
        let (mut roots, mut children) = (Vec::new(), vec![Vec::new(); self.kinds.len()]);
        for kind in (0..self.kinds.len() as u32).filter(|&kind| needed[kind as usize]) {
            match self.parent(kind) {
                Some(parent) => children[parent as usize].push(kind),
                None => roots.push(kind),
            }
        }
        (roots, children)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(lanes: &Lanes, member: u32) -> Vec<Vec<u32>> {
        lanes.of(member).map(|kind| lanes.sets(kind).collect()).collect()
    }

    #[test]
    fn in_one_lane_members_of_the_same_sets_are_of_one_kind() {
        let mut lanes = Lanes::new(5, None);
        lanes.add(10, &[0, 1, 2], 1);
        lanes.add(11, &[1, 2, 3], 1);
        lanes.add(12, &[0], 1);
        assert_eq!(lanes.of(1).collect::<Vec<_>>(), lanes.of(2).collect::<Vec<_>>());
        let seen: Vec<_> = (0..5).map(|member| kinds(&lanes, member)).collect();
        assert_eq!(
            seen,
            [vec![vec![12, 10]], vec![vec![11, 10]], vec![vec![11, 10]], vec![vec![11]], vec![]]
        );
        // Of {10} alone nobody is left; the tree keeps it as a way to the others.
        assert_eq!(lanes.weight(), 2 + 2 + 1);
        let (roots, children) = lanes.trees();
        assert_eq!((roots.len(), children[roots[0] as usize].len()), (2, 2));
    }

    #[test]
    fn sets_that_multiply_get_lanes_of_their_own_and_nobody_more_than_a_list_holds() {
        // Member i is in the sets whose bits are set in i: in one lane, as many kinds as members.
        let members = |bit: u32| (0..1 << 18u32).filter(|i| i & 1 << bit != 0).collect::<Vec<_>>();
        let mut lanes = Lanes::new(1 << 18, Some(64));
        (0..18).for_each(|bit| lanes.add(bit, &members(bit), 1_000));
        assert!((0..1 << 18).all(|member| lanes.of(member).count() <= LIST_MAX));
        assert_eq!(lanes.of((1 << 18) - 1).count(), LIST_MAX);
        let mut all: Vec<u32> = lanes.of((1 << 18) - 1).flat_map(|kind| lanes.sets(kind)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..18).collect::<Vec<_>>());
        assert!(lanes.len() < 100, "{}", lanes.len());
    }

    #[test]
    fn a_look_up_that_is_dear_is_not_made() {
        let mut lanes = Lanes::new(4, Some(1 << 20));
        lanes.add(1, &[0, 1], 10);
        lanes.add(2, &[1, 2], 10);
        assert_eq!((kinds(&lanes, 1), kinds(&lanes, 3)), (vec![vec![2, 1]], vec![]));
    }
}
