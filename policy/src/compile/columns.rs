//! Columns: what rules lead to, told apart as far as rules tell it apart.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;
use sluicegate_engine::image::Places;

use super::destinations::Destinations;
use super::lanes::Lanes;
use super::shares::Alone;
use super::short;
use super::slots::{assign, mix_words};

/// The columns of one agent's image. Destination classes that differ only in how they are reached have the same.
pub(super) struct Columns {
    /// Columns of each of `Destinations::classes`.
    pub(super) of_class: Vec<Places>,
    /// Lists of columns, as words.
    pub(super) lists: Vec<u32>,
    /// The number of each column, by index.
    pub(super) numbers: Vec<u32>,
    /// One more than the highest number.
    pub(super) count: u32,
    /// (set, index of a column it leads to), rising.
    pub(super) by_set: Vec<(u32, u32)>,
}

impl Columns {
    /// `alone` has what the column is that a set alone leads to, for each set; `price` as in [`Lanes`]; `key` tells sets apart
    /// whatever their number.
    pub(super) fn new(
        destinations: &Destinations,
        alone: &FxHashMap<u32, Alone>,
        price: Option<u64>,
        key: impl Fn(u32) -> u64,
    ) -> Self {
        // Which lane a set gets depends on those before it: their order must not depend on how they are numbered.
        let first = |set: &u32| alone.get(set).map_or(0, |column| column.first);
        let order = |set: &u32| if price.is_some() { (key(*set), first(set)) } else { (0, 0) };
        let profiles = Profiles::new(destinations, order);
        let mut lanes = Lanes::new(profiles.keys.len(), price);
        for (set, members) in &profiles.sets {
            lanes.add(*set, members, alone.get(set).map_or(0, |column| column.words));
        }
        // A column is placed by the first of its profiles, and in one lane of several by the lane's first set: whatever rules
        // come and go, it stays where it is.
        let mut index = vec![None; lanes.len()];
        let mut first: Vec<(u32, u64)> = Vec::new();
        for (profile, &profile_key) in profiles.keys.iter().enumerate() {
            for kind in lanes.of(profile as u32) {
                let next = first.len() as u32;
                let column = *index[kind as usize].get_or_insert(next);
                if column == next {
                    first.push((kind, profile_key));
                }
                let known = &mut first[column as usize].1;
                *known = profile_key.min(*known);
            }
        }
        let placed = |&(kind, profile): &(u32, u64)| match price {
            None => profile,
            Some(_) => {
                let root = lanes.sets(kind).last().map_or(0, &key);
                mix_words([profile as u32, (profile >> 32) as u32, root as u32, (root >> 32) as u32])
            }
        };
        let (numbers, count) = assign(&first.iter().map(placed).collect::<Vec<_>>());
        let mut by_set: Vec<(u32, u32)> = Vec::new();
        for (&(kind, _), column) in first.iter().zip(0..) {
            by_set.extend(lanes.sets(kind).map(|set| (set, column)));
        }
        by_set.sort_unstable();
        let of_profile: Vec<Vec<u32>> = (0..profiles.keys.len() as u32)
            .map(|profile| {
                let columns = lanes.of(profile).filter_map(|kind| index[kind as usize]);
                let mut list: Vec<u32> = columns.map(|column| numbers[column as usize]).collect();
                list.sort_unstable();
                list
            })
            .collect();
        let (places, lists) = short::lists(&of_profile);
        let of_class = profiles.of_class.iter().map(|p| p.map_or(Places::one(0), |p| places[p as usize]));
        Self { of_class: of_class.collect(), lists, numbers, count, by_set }
    }

    /// The columns that a set leads to.
    pub(super) fn of(&self, set: u32) -> impl Iterator<Item = u32> + '_ {
        let start = self.by_set.partition_point(|p| p.0 < set);
        self.by_set[start..].iter().take_while(move |p| p.0 == set).map(|p| p.1)
    }
}

/// What leads to destination classes: a profile is a list of sets that at least one class has.
struct Profiles {
    /// Profile of each class; none where no rule leads.
    of_class: Vec<Option<u32>>,
    /// The lowest of the keys of each profile's classes.
    keys: Vec<u64>,
    /// Profiles of each set: large sets first, among equals by their order.
    sets: Vec<(u32, Vec<u32>)>,
}

impl Profiles {
    fn new(destinations: &Destinations, order: impl Fn(&u32) -> (u64, u32)) -> Self {
        let mut numbers: FxHashMap<&[u32], u32> = FxHashMap::default();
        let (mut of_class, mut keys) = (Vec::new(), Vec::new());
        let mut sets: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
        for class in &destinations.classes {
            if class.sets.is_empty() {
                of_class.push(None);
                continue;
            }
            let profile = *numbers.entry(&class.sets).or_insert_with(|| {
                let profile = keys.len() as u32;
                keys.push(class.key);
                class.sets.iter().for_each(|&set| sets.entry(set).or_default().push(profile));
                profile
            });
            let key: &mut u64 = &mut keys[profile as usize];
            *key = class.key.min(*key);
            of_class.push(Some(profile));
        }
        let mut sets: Vec<(u32, Vec<u32>)> = sets.into_iter().collect();
        sets.sort_by_cached_key(|(set, members)| (Reverse(members.len()), order(set), *set));
        Self { of_class, keys, sets }
    }
}
