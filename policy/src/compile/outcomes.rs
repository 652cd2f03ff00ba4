//! What rules that meet decide over protocols and ports: step functions from the axis to the deciding rule, each kept once.
//!
//! Rules have ranks: every drop rule before every accept rule, and among rules of one action in their order. So the rule
//! that decides is the one of lowest rank, and two outcomes meet in the lower rank of both at every value. Meeting is
//! associative and does not mind repetition, which is what lets the matrix be put together from shares (`matrix`).

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use sluicegate_engine::image::{Cell, Decision, SERVICE_LOG_MAX, axis};

use super::CompileError;
use super::services::{Candidate, decide};
use super::slots::{Keys, assign};
use crate::resolve::{Bits, Resolved};

/// Number of the outcome of no rule at all.
pub(super) const NOTHING: u32 = 0;

/// The rank of no rule.
const NOBODY: u32 = u32::MAX;
/// The rank of the first accept rule. Rules are fewer: each has a slot below `SLOTS_MAX`.
const ACCEPTS: u32 = 1 << 31;

/// (first value, rank of the rule that decides from there), rising, neighbours different, the first at 0.
type Steps = Arc<[(u32, u32)]>;

/// Every outcome met so far. They name rules by their ranks alone: what holds for these holds for other rules as well.
#[derive(Debug)]
pub(super) struct Outcomes {
    all: Vec<Steps>,
    numbers: FxHashMap<Steps, u32>,
    /// What two outcomes meet in, by their numbers, the lower one first.
    met: FxHashMap<(u32, u32), u32>,
    scratch: Vec<(u32, u32)>,
    steps: usize,
    /// The most steps that are kept.
    most: usize,
    /// Of service sets, as they are written.
    keys: Keys,
}

impl Outcomes {
    pub(super) fn new(most: usize) -> Self {
        let mut this = Self {
            all: Vec::new(),
            numbers: FxHashMap::default(),
            met: FxHashMap::default(),
            scratch: vec![(0, NOBODY)],
            steps: 0,
            most,
            keys: Keys::default(),
        };
        this.intern();
        this
    }

    /// The outcome where these rules meet; rising.
    pub(super) fn of_rules(&mut self, r: &Resolved, rules: &[u32]) -> u32 {
        let rank = |rule: u32| if r.written.rules[rule as usize].accept { ACCEPTS + rule } else { rule };
        self.scratch.clear();
        if let &[rule] = rules {
            alone(r.service(rule), rank(rule), &mut self.scratch);
            return self.intern();
        }
        let candidate = |&rule: &u32| {
            let accept = r.written.rules[rule as usize].accept;
            Candidate { accept, ranges: r.service(rule) }
        };
        let candidates: Vec<Candidate<'_>> = rules.iter().map(candidate).collect();
        let intervals = decide(&candidates).into_iter();
        let step = |(at, winner): (u32, Option<usize>)| (at, winner.map_or(NOBODY, |w| rank(rules[w])));
        self.scratch.extend(intervals.map(step));
        self.intern()
    }

    /// What two outcomes meet in.
    pub(super) fn meet(&mut self, a: u32, b: u32) -> u32 {
        if a == b || b == NOTHING {
            return a;
        }
        if a == NOTHING {
            return b;
        }
        let key = (a.min(b), a.max(b));
        if let Some(&met) = self.met.get(&key) {
            return met;
        }
        let (first, second) = (self.all[a as usize].clone(), self.all[b as usize].clone());
        merge(&first, &second, &mut self.scratch);
        let met = self.intern();
        self.met.insert(key, met);
        met
    }

    /// The number of the outcome in `scratch`.
    fn intern(&mut self) -> u32 {
        if let Some(&number) = self.numbers.get(&self.scratch[..]) {
            return number;
        }
        let steps: Steps = self.scratch[..].into();
        let number = self.all.len() as u32;
        self.steps += steps.len();
        self.all.push(steps.clone());
        self.numbers.insert(steps, number);
        number
    }

    /// Refuses when so many outcomes were met that the image cannot become anything but too large.
    pub(super) fn check_room(&self, agent: &str) -> Result<(), CompileError> {
        if self.steps <= self.most {
            return Ok(());
        }
        Err(CompileError::Outcomes {
            agent: agent.into(),
            outcomes: self.all.len(),
            steps: self.steps,
            max: self.most,
        })
    }

    /// How many there are, the one of no rule included.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// About how many bytes they take.
    pub(super) fn size(&self) -> usize {
        self.steps * size_of::<(u32, u32)>() + self.all.len() * 64 + self.met.len() * 16 + self.keys.size()
    }

    /// The cell word of each of `used` (rising, without duplicates), by outcome number; the service entries; and the rules
    /// that decide anything, rising.
    pub(super) fn words(&mut self, r: &Resolved, agent: &str, used: &[u32]) -> Result<Words, CompileError> {
        let mut cells = vec![0; self.all.len()];
        let mut rules = Bits::new(r.written.rules.len());
        let mut sets: Vec<u32> = Vec::new();
        for &outcome in used {
            let steps = &self.all[outcome as usize];
            steps.iter().filter(|s| s.1 != NOBODY).for_each(|s| rules.insert(rule(s.1)));
            match steps[..] {
                [(_, rank)] => cells[outcome as usize] = Cell::decided(decision(r, rank)).0,
                _ if steps.len() > 1 << SERVICE_LOG_MAX => return Err(too_many_steps(r, agent, steps)),
                _ => sets.push(outcome),
            }
        }
        let services = self.services(r, &sets, &mut cells);
        Ok(Words { cells, services, rules: rules.iter().collect() })
    }

    /// The service entries, whose places go into `cells`. Sets of one size are together, smallest first.
    fn services(&mut self, r: &Resolved, sets: &[u32], cells: &mut [u32]) -> Vec<u32> {
        let mut entries = Vec::new();
        for log in 3..=SERVICE_LOG_MAX {
            let of_size = |&&set: &&u32| {
                self.all[set as usize].len().next_power_of_two().trailing_zeros().max(3) == log
            };
            let sized: Vec<u32> = sets.iter().filter(of_size).copied().collect();
            // The two common sizes have a table even without sets: the first one would move all larger sets.
            if sized.is_empty() && (log > 4 || sets.is_empty()) {
                continue;
            }
            let mut words = Vec::new();
            let keys: Vec<u64> = sized
                .iter()
                .map(|&set| {
                    encode(r, &self.all[set as usize], log, &mut words);
                    self.keys.of(set, &words)
                })
                .collect();
            let (places, size) = assign(&keys);
            let base = entries.len();
            entries.resize(base + ((size as usize) << (log + 1)), 0);
            for (&set, &place) in sized.iter().zip(&places) {
                let words = self.keys.line(set);
                let start = base + ((place as usize) << (log + 1));
                entries[start..start + words.len()].copy_from_slice(words);
                cells[set as usize] = Cell::services(start as u32 / 2, log).0;
            }
        }
        entries
    }
}

/// A service set of `1 << log` entries; what is not needed repeats the last decision.
fn encode(r: &Resolved, steps: &[(u32, u32)], log: u32, words: &mut Vec<u32>) {
    words.clear();
    words.extend(steps.iter().flat_map(|&(start, rank)| [start, decision(r, rank).0]));
    let last = steps.last().map_or(Decision::NONE.0, |s| decision(r, s.1).0);
    while words.len() < 2 << log {
        words.extend([u32::MAX, last]);
    }
}

fn rule(rank: u32) -> u32 {
    rank & !ACCEPTS
}

fn decision(r: &Resolved, rank: u32) -> Decision {
    if rank == NOBODY {
        return Decision::NONE;
    }
    let rule = &r.written.rules[rule(rank) as usize];
    if rule.accept { Decision::accept(rule.slot) } else { Decision::drop(rule.slot) }
}

fn too_many_steps(r: &Resolved, agent: &str, steps: &[(u32, u32)]) -> CompileError {
    let mut rules: Vec<u32> = steps.iter().filter(|s| s.1 != NOBODY).map(|s| rule(s.1)).collect();
    rules.sort_unstable();
    rules.dedup();
    CompileError::Services {
        agent: agent.into(),
        rules: rules.len(),
        first_rule: rules.first().map(|&rule| r.rule(rule).2.id.clone()).unwrap_or_default(),
        entries: steps.len(),
    }
}

/// What [`Outcomes::words`] makes.
pub(super) struct Words {
    pub(super) cells: Vec<u32>,
    pub(super) services: Vec<u32>,
    pub(super) rules: Vec<u32>,
}

/// The steps of one rule of these ranges, which rise and do not meet.
fn alone(ranges: &[Range<u32>], rank: u32, into: &mut Vec<(u32, u32)>) {
    into.push((0, NOBODY));
    for range in ranges {
        match into.last_mut() {
            Some(last) if last.0 == range.start => last.1 = rank,
            _ => into.push((range.start, rank)),
        }
        if range.end < axis::END {
            into.push((range.end, NOBODY));
        }
    }
}

/// The lower of two step functions at every value.
fn merge(a: &[(u32, u32)], b: &[(u32, u32)], into: &mut Vec<(u32, u32)>) {
    into.clear();
    let (mut i, mut j, mut at) = (0, 0, 0);
    loop {
        let rank = a[i].1.min(b[j].1);
        if into.last().is_none_or(|last| last.1 != rank) {
            into.push((at, rank));
        }
        let next = |steps: &[(u32, u32)], i: usize| steps.get(i + 1).map_or(u32::MAX, |s| s.0);
        at = next(a, i).min(next(b, j));
        if at == u32::MAX {
            return;
        }
        i += usize::from(next(a, i) == at);
        j += usize::from(next(b, j) == at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "one range of values is meant, not its values")]
    fn a_rule_alone_is_what_it_is_among_others() {
        let all = [0..axis::END];
        let first = [0..7, 9..10];
        let last = [5..7, axis::END - 1..axis::END];
        for ranges in [&[][..], &all, &first, &last] {
            let mut steps = Vec::new();
            alone(ranges, 3, &mut steps);
            let decided = decide(&[Candidate { accept: true, ranges }]);
            let decided: Vec<_> =
                decided.into_iter().map(|(at, rule)| (at, rule.map_or(NOBODY, |_| 3))).collect();
            assert_eq!(steps, decided);
        }
    }

    #[test]
    fn the_lower_rank_holds_at_every_value_and_equal_neighbours_are_joined() {
        let mut met = Vec::new();
        merge(&[(0, NOBODY), (10, 3), (20, NOBODY)], &[(0, 5), (15, 2), (20, 3)], &mut met);
        assert_eq!(met, [(0, 5), (10, 3), (15, 2), (20, 3)]);
        merge(&[(0, 1)], &[(0, 2), (7, 9)], &mut met);
        assert_eq!(met, [(0, 1)]);
    }
}
