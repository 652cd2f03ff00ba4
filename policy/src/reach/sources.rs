//! What one source reaches in one state: for each destination that some rule leads to, the packets that every agent on the
//! way admits. The same reading as `evaluate::explain`'s, for all destinations at once; and beside it what is admitted by the gateways
//! that are not the first choice.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::places::{Around, Places};
use super::ranges::Ranges;
use crate::resolve::{Resolved, SetId};

/// One state, with what was settled already.
pub(crate) struct View<'a> {
    pub(crate) r: &'a Resolved,
    /// Its number among the states of `places`.
    state: usize,
    places: &'a Places,
    /// Whether gateways are looked at that are not the first choice.
    any: bool,
    /// What rules admit together, by their numbers.
    settled: FxHashMap<Vec<u32>, Arc<Ranges>>,
    sets_of_resource: Vec<Vec<SetId>>,
}

/// What a source reaches: by peer number, and by place through the gateway that its routes choose.
#[derive(Default)]
pub(crate) struct Reached {
    pub(crate) peers: FxHashMap<u32, Arc<Ranges>>,
    pub(crate) places: FxHashMap<u32, Arc<Ranges>>,
    /// By place, through any gateway that could carry it, whichever of them are alive; empty unless the view was asked for it.
    pub(crate) by_any: FxHashMap<u32, Arc<Ranges>>,
}

impl<'a> View<'a> {
    pub(crate) fn new(r: &'a Resolved, state: usize, places: &'a Places, any: bool) -> Self {
        let sets_of_resource = (0..r.resources.len() as u32).map(|q| r.sets.of_resource(q)).collect();
        Self { r, state, places, any, settled: FxHashMap::default(), sets_of_resource }
    }

    /// Everything the peer reaches. `class` gives each peer a number of those that the same rules lead to in the same way;
    /// what is said of one of a class holds for all of it but the source itself.
    pub(crate) fn from(&mut self, source: u32, class: &[u32]) -> Reached {
        let r = self.r;
        let mut to_set = FxHashMap::<SetId, Vec<u32>>::default();
        for half in r.sets.of_peer(source).into_iter().flat_map(|set| r.halves_from(set)) {
            let half = &r.written.halves[*half as usize];
            to_set.entry(half.destination).or_default().push(half.rule);
        }
        let mut reached = Reached::default();
        let mut to_class = FxHashMap::<u32, Vec<u32>>::default();
        for (set, rules) in &to_set {
            let classes: FxHashSet<u32> =
                r.sets.peers(*set).iter().map(|peer| class[*peer as usize]).collect();
            classes.into_iter().for_each(|class| to_class.entry(class).or_default().extend(rules));
        }
        for (class, rules) in to_class {
            let ranges = self.settle(rules);
            if !ranges.is_empty() {
                reached.peers.insert(class, ranges);
            }
        }

        let opened = self.opened(source, &to_set);
        let mut candidates: Vec<u32> =
            opened.iter().flat_map(|&q| self.places.of(self.state, q)).copied().collect();
        candidates.sort_unstable();
        candidates.dedup();
        for place in candidates {
            let around = &self.places.places[place as usize].around[self.state];
            let Some((chosen, by_any)) = self.place(source, &opened, &to_set, around) else { continue };
            if !chosen.is_empty() {
                reached.places.insert(place, chosen);
            }
            if !by_any.is_empty() {
                reached.by_any.insert(place, by_any);
            }
        }
        reached
    }

    /// Resources that an accept rule gives the source a route to.
    fn opened(&self, source: u32, to_set: &FxHashMap<SetId, Vec<u32>>) -> FxHashSet<u32> {
        let r = self.r;
        let accepting = to_set
            .iter()
            .filter(|(_, rules)| rules.iter().any(|&rule| r.written.rules[rule as usize].accept));
        let resources = accepting.flat_map(|(&set, _)| r.sets.resources(set)).copied();
        resources.filter(|&q| !r.routes_resource(source, q) && !r.routers(q).is_empty()).collect()
    }

    /// What the source reaches at a place, through the gateway that its routes choose, and through any. `None` where no packet
    /// crosses the overlay.
    fn place(
        &mut self,
        source: u32,
        opened: &FxHashSet<u32>,
        to_set: &FxHashMap<SetId, Vec<u32>>,
        around: &Around,
    ) -> Option<(Arc<Ranges>, Arc<Ranges>)> {
        let r = self.r;
        let own =
            around.iter().filter(|(q, _)| r.routes_resource(source, *q)).map(|(_, length)| *length).max();
        let mut choices = around.iter().filter(|(q, _)| opened.contains(q)).flat_map(|&(q, length)| {
            let id = |peer: u32| &r.peers[peer as usize].id;
            r.routers(q).iter().map(move |x| (std::cmp::Reverse(length), x.metric, id(x.peer), q, x.peer))
        });
        // A prefix of its own that is as long is the source's way, whoever is alive.
        let crosses = |length: u8| own.is_none_or(|own| own < length);
        let choices: Vec<_> = choices.by_ref().filter(|choice| crosses(choice.0.0)).collect();
        let &(.., gateway) = choices.iter().min()?;
        let rules = |concerns: &dyn Fn(u32) -> bool| -> Vec<u32> {
            let mut sets: Vec<SetId> = around
                .iter()
                .filter(|(q, _)| concerns(*q))
                .flat_map(|(q, _)| self.sets_of_resource[*q as usize].iter().copied())
                .collect();
            sets.sort_unstable();
            sets.dedup();
            sets.iter().filter_map(|set| to_set.get(set)).flatten().copied().collect()
        };
        let at_source = rules(&|q| !r.routes_resource(source, q) && !r.routers(q).is_empty());
        let at = |gateway: u32| rules(&|q| r.routes_resource(gateway, q));
        let at_gateway = at(gateway);
        let others: BTreeSet<u32> =
            choices.iter().map(|choice| choice.4).filter(|&other| self.any && other != gateway).collect();
        let others: BTreeSet<Vec<u32>> =
            others.into_iter().map(at).filter(|rules| *rules != at_gateway).collect();
        let at_source = self.settle(at_source);
        let through = |at_gateway: Arc<Ranges>| match at_source == at_gateway {
            true => at_gateway,
            false => Arc::new(at_source.and(&at_gateway)),
        };
        let chosen = through(self.settle(at_gateway));
        let mut by_any = chosen.clone();
        for rules in others {
            let other = through(self.settle(rules));
            if other != by_any {
                by_any = Arc::new(by_any.or(&other));
            }
        }
        Some((chosen, by_any))
    }

    /// What rules that meet admit together: drop beats accept.
    fn settle(&mut self, mut rules: Vec<u32>) -> Arc<Ranges> {
        rules.sort_unstable();
        rules.dedup();
        if let Some(known) = self.settled.get(&rules) {
            return known.clone();
        }
        let of = |accept: bool| {
            let some = rules.iter().filter(|&&rule| self.r.written.rules[rule as usize].accept == accept);
            Ranges::new(some.flat_map(|&rule| self.r.service(rule)).cloned().collect())
        };
        let ranges = Arc::new(of(true).minus(&of(false)));
        self.settled.insert(rules, ranges.clone());
        ranges
    }
}
