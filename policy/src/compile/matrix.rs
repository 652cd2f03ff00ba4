//! What is decided between each kind of source and each kind of destination: cells, in shared blocks, in rows.

use rustc_hash::FxHashMap;
use sluicegate_engine::image::{Cell, Decision, LINE, SERVICE_LOG_MAX};

use super::destinations::{Destinations, inbound, outbound};
use super::services::{Candidate, decide};
use super::slots::{assign, mix_words};
use super::sources::{SourceClass, Sources};
use super::{CompileError, WORDS_MAX};
use crate::resolve::{Resolved, Scope};

/// The class matrix of one agent's image, as words.
#[derive(Debug)]
pub(super) struct Matrix {
    /// Blocks in a row.
    pub(super) row_blocks: u32,
    /// Block numbers by source class.
    pub(super) rows: Vec<u32>,
    /// Blocks of 16 cells; block 0 decides nothing.
    pub(super) blocks: Vec<u32>,
    /// Service entries, two words each.
    pub(super) services: Vec<u32>,
    /// Rules that decide anything, rising.
    pub(super) rules: Vec<u32>,
}

impl Matrix {
    pub(super) fn new(
        r: &Resolved,
        scope: &Scope,
        agent: &str,
        sources: &Sources,
        destinations: &Destinations,
    ) -> Result<Self, CompileError> {
        let row_blocks = destinations.count.div_ceil(LINE as u32);
        let too_large = |words: u64| CompileError::Words {
            agent: agent.into(),
            words,
            sources: u64::from(sources.count),
            destinations: u64::from(destinations.count),
            max: WORDS_MAX as u64,
        };
        let row_words = u64::from(sources.count) * u64::from(row_blocks);
        if row_words > WORDS_MAX as u64 {
            return Err(too_large(row_words));
        }
        let columns = Columns::new(destinations);
        let mut cells = Cells::new(r, agent);
        let halves = Halves::new(r, scope, sources);
        let mut contents = Flat::default();
        for class in &sources.classes {
            halves.row(class, &columns, &mut cells, &mut contents.items)?;
            contents.end();
        }
        let (words, services) = cells.words();
        let mut blocks = Blocks::new(row_blocks);
        let mut rows_blocks = Flat::default();
        for content in contents.iter() {
            let cells = content.iter().filter(|c| words[c.1 as usize] != 0);
            let cells = cells.flat_map(|&(profile, cell)| {
                let word = words[cell as usize];
                columns.classes[profile as usize].iter().map(move |&class| (class, word))
            });
            blocks.row(cells, &mut rows_blocks.items);
            rows_blocks.end();
            let words = row_words + (blocks.contents.len() * LINE) as u64;
            if words > WORDS_MAX as u64 {
                return Err(too_large(words));
            }
        }
        let (places, block_words) = blocks.words();
        let mut rows = vec![0; row_words as usize];
        for (class, row) in sources.classes.iter().zip(rows_blocks.iter()) {
            let start = (class.number * row_blocks) as usize;
            for &(at, block) in row {
                rows[start + at as usize] = places[block as usize];
            }
        }
        Ok(Self { row_blocks, rows, blocks: block_words, services, rules: cells.deciding() })
    }
}

/// Lists of pairs, one after the other.
#[derive(Default)]
struct Flat {
    items: Vec<(u32, u32)>,
    ends: Vec<usize>,
}

impl Flat {
    /// Ends the list that was being appended to `items`.
    fn end(&mut self) {
        self.ends.push(self.items.len());
    }

    fn iter(&self) -> impl Iterator<Item = &[(u32, u32)]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(&start, &end)| &self.items[start..end])
    }
}

/// Destination classes by what leads to them; those that differ only in how they are reached share a profile.
struct Columns {
    /// Class numbers of each profile.
    classes: Vec<Vec<u32>>,
    /// (set, profile), rising.
    by_set: Vec<(u32, u32)>,
}

impl Columns {
    fn new(destinations: &Destinations) -> Self {
        let mut numbers: FxHashMap<&[u32], u32> = FxHashMap::default();
        let mut classes: Vec<Vec<u32>> = Vec::new();
        let mut by_set = Vec::new();
        for class in destinations.classes.iter().filter(|c| !c.sets.is_empty()) {
            let profile = *numbers.entry(&class.sets).or_insert_with(|| {
                let profile = classes.len() as u32;
                classes.push(Vec::new());
                by_set.extend(class.sets.iter().map(|&set| (set, profile)));
                profile
            });
            classes[profile as usize].push(class.number);
        }
        by_set.sort_unstable();
        Self { classes, by_set }
    }

    fn of(&self, set: u32) -> impl Iterator<Item = u32> + '_ {
        range(&self.by_set, set)
    }
}

/// The halves of one agent, by where they start.
struct Halves<'a> {
    r: &'a Resolved,
    /// (source set, half), rising.
    inbound: Vec<(u32, u32)>,
    outbound: &'a [u32],
    sources: &'a Sources,
}

impl<'a> Halves<'a> {
    fn new(r: &'a Resolved, scope: &'a Scope, sources: &'a Sources) -> Self {
        let mut inbound: Vec<(u32, u32)> =
            scope.inbound.iter().map(|&h| (r.halves[h as usize].source, h)).collect();
        inbound.sort_unstable();
        Self { r, inbound, outbound: &scope.outbound, sources }
    }

    /// Appends the cells of one source class that any rule reaches: (profile, cell), rising by profile.
    fn row(
        &self,
        class: &SourceClass,
        columns: &Columns,
        cells: &mut Cells<'_>,
        row: &mut Vec<(u32, u32)>,
    ) -> Result<(), CompileError> {
        let mut meets: Vec<(u32, u32)> = Vec::new();
        let mut meet = |half: u32, key: fn(u32) -> u32| {
            let half = &self.r.halves[half as usize];
            meets.extend(columns.of(key(half.destination)).map(|profile| (profile, half.rule)));
        };
        if class.own {
            self.outbound.iter().for_each(|&h| meet(h, outbound));
        } else {
            self.sources
                .sets(class)
                .iter()
                .flat_map(|&set| range(&self.inbound, set))
                .for_each(|h| meet(h, inbound));
        }
        meets.sort_unstable();
        meets.dedup();
        let mut rules = Vec::new();
        for group in meets.chunk_by(|a, b| a.0 == b.0) {
            rules.clear();
            rules.extend(group.iter().map(|m| m.1));
            row.push((group[0].0, cells.meeting(&rules)?));
        }
        Ok(())
    }
}

fn range(pairs: &[(u32, u32)], key: u32) -> impl Iterator<Item = u32> + '_ {
    let start = pairs.partition_point(|p| p.0 < key);
    pairs[start..].iter().take_while(move |p| p.0 == key).map(|p| p.1)
}

/// Outcomes of rules that meet, each worked out once.
struct Cells<'a> {
    r: &'a Resolved,
    agent: &'a str,
    /// Cell number by the only rule; `UNKNOWN` where it was not asked for.
    alone: Vec<u32>,
    /// Cell number by the rules that meet.
    meetings: FxHashMap<Box<[u32]>, u32>,
    outcomes: Vec<Outcome>,
    /// Service sets: (first value, deciding rule + 1).
    sets: Vec<Vec<(u32, u32)>>,
    set_numbers: FxHashMap<Vec<(u32, u32)>, u32>,
}

enum Outcome {
    /// One decision for everything: the deciding rule, if any.
    Decided(Option<u32>),
    /// A service set.
    Services(u32),
}

const UNKNOWN: u32 = u32::MAX;

impl<'a> Cells<'a> {
    fn new(r: &'a Resolved, agent: &'a str) -> Self {
        Self {
            r,
            agent,
            alone: vec![UNKNOWN; r.rules.len()],
            meetings: FxHashMap::default(),
            outcomes: Vec::new(),
            sets: Vec::new(),
            set_numbers: FxHashMap::default(),
        }
    }

    /// The cell in which these rules meet; rising.
    fn meeting(&mut self, rules: &[u32]) -> Result<u32, CompileError> {
        // Most rules meet no other: no hashing for them.
        if let &[rule] = rules {
            if self.alone[rule as usize] == UNKNOWN {
                self.alone[rule as usize] = self.settle(rules)?;
            }
            return Ok(self.alone[rule as usize]);
        }
        if let Some(&cell) = self.meetings.get(rules) {
            return Ok(cell);
        }
        let cell = self.settle(rules)?;
        self.meetings.insert(rules.into(), cell);
        Ok(cell)
    }

    fn settle(&mut self, rules: &[u32]) -> Result<u32, CompileError> {
        let candidates: Vec<Candidate<'_>> = rules
            .iter()
            .map(|&rule| Candidate {
                accept: self.r.rules[rule as usize].accept,
                ranges: self.r.service(rule),
            })
            .collect();
        let intervals = decide(&candidates);
        if intervals.len() > 1 << SERVICE_LOG_MAX {
            return Err(CompileError::Services {
                agent: self.agent.into(),
                rules: rules.len(),
                first_rule: self.r.rule(rules[0]).2.id.clone(),
                entries: intervals.len(),
            });
        }
        let outcome = match intervals[..] {
            [(_, winner)] => Outcome::Decided(winner.map(|w| rules[w])),
            _ => {
                let set: Vec<(u32, u32)> = intervals
                    .into_iter()
                    .map(|(at, winner)| (at, winner.map_or(0, |w| rules[w] + 1)))
                    .collect();
                let next = self.sets.len() as u32;
                let number = *self.set_numbers.entry(set).or_insert_with_key(|set| {
                    self.sets.push(set.clone());
                    next
                });
                Outcome::Services(number)
            }
        };
        let cell = self.outcomes.len() as u32;
        self.outcomes.push(outcome);
        Ok(cell)
    }

    fn decision(&self, rule: u32) -> Decision {
        let rule = &self.r.rules[rule as usize];
        if rule.accept { Decision::accept(rule.slot) } else { Decision::drop(rule.slot) }
    }

    /// The word of each cell, and the service entries. Sets of one size are together, smallest first.
    fn words(&self) -> (Vec<u32>, Vec<u32>) {
        let mut entries = Vec::new();
        let mut set_words = vec![0; self.sets.len()];
        for log in 3..=SERVICE_LOG_MAX {
            let of_size = |set: &[(u32, u32)]| set.len().next_power_of_two().trailing_zeros().max(3) == log;
            let sized: Vec<usize> = (0..self.sets.len()).filter(|&i| of_size(&self.sets[i])).collect();
            // The two common sizes have a table even without sets: the first one would move all larger sets.
            if sized.is_empty() && (log > 4 || self.sets.is_empty()) {
                continue;
            }
            let encoded: Vec<Vec<u32>> = sized.iter().map(|&i| self.encode(&self.sets[i], log)).collect();
            let keys: Vec<u64> = encoded.iter().map(|set| mix_words(set.iter().copied())).collect();
            let (places, size) = assign(&keys);
            let base = entries.len();
            entries.resize(base + ((size as usize) << (log + 1)), 0);
            for ((&set, words), &place) in sized.iter().zip(&encoded).zip(&places) {
                let start = base + ((place as usize) << (log + 1));
                entries[start..start + words.len()].copy_from_slice(words);
                set_words[set] = Cell::services(start as u32 / 2, log).0;
            }
        }
        let word = |outcome: &Outcome| match *outcome {
            Outcome::Decided(None) => 0,
            Outcome::Decided(Some(rule)) => Cell::decided(self.decision(rule)).0,
            Outcome::Services(set) => set_words[set as usize],
        };
        (self.outcomes.iter().map(word).collect(), entries)
    }

    /// A service set of `1 << log` entries; what is not needed repeats the last decision.
    fn encode(&self, set: &[(u32, u32)], log: u32) -> Vec<u32> {
        let decision = |rule: u32| if rule == 0 { Decision::NONE.0 } else { self.decision(rule - 1).0 };
        let last = set.last().map_or(0, |e| decision(e.1));
        let mut words: Vec<u32> = set.iter().flat_map(|&(start, rule)| [start, decision(rule)]).collect();
        while words.len() < 2 << log {
            words.extend([u32::MAX, last]);
        }
        words
    }

    /// Rules that decide anything.
    fn deciding(&self) -> Vec<u32> {
        let decided = self.outcomes.iter().filter_map(|o| match o {
            Outcome::Decided(rule) => *rule,
            Outcome::Services(_) => None,
        });
        let mut rules: Vec<u32> = decided.collect();
        rules.extend(self.sets.iter().flatten().filter(|e| e.1 != 0).map(|e| e.1 - 1));
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

/// Blocks of 16 cells, each kept once.
struct Blocks {
    numbers: FxHashMap<[u32; LINE], u32>,
    contents: Vec<[u32; LINE]>,
    /// The row being cut into blocks: all zero between rows.
    scratch: Vec<[u32; LINE]>,
    touched: Vec<u32>,
}

impl Blocks {
    fn new(row_blocks: u32) -> Self {
        let scratch = vec![[0; LINE]; row_blocks as usize];
        Self { numbers: FxHashMap::default(), contents: Vec::new(), scratch, touched: Vec::new() }
    }

    /// Appends the blocks of a row that are not empty, (where, block), from (destination class, cell word) pairs.
    fn row(&mut self, cells: impl Iterator<Item = (u32, u32)>, row: &mut Vec<(u32, u32)>) {
        for (class, word) in cells {
            let at = class / LINE as u32;
            let block = &mut self.scratch[at as usize];
            if *block == [0; LINE] {
                self.touched.push(at);
            }
            block[class as usize % LINE] = word;
        }
        for at in self.touched.drain(..) {
            let block = std::mem::take(&mut self.scratch[at as usize]);
            let number = *self.numbers.entry(block).or_insert_with(|| {
                self.contents.push(block);
                self.contents.len() as u32 - 1
            });
            row.push((at, number));
        }
    }

    /// Where each block goes, and all blocks' words.
    fn words(&self) -> (Vec<u32>, Vec<u32>) {
        let keys: Vec<u64> = self.contents.iter().map(|block| mix_words(block.iter().copied())).collect();
        let (places, size) = assign(&keys);
        let mut words = vec![0; size as usize * LINE];
        for (block, &place) in self.contents.iter().zip(&places) {
            words[place as usize * LINE..][..LINE].copy_from_slice(block);
        }
        (places, words)
    }
}
