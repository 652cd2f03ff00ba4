//! What is decided between each kind of source and each kind of destination: cells, in shared blocks, in rows.
//!
//! A row is never worked out rule by rule. Each source set has a *share*: what the rules that start there decide for each
//! destination. Source classes are the leaves of a tree whose every step down adds one source set (`partition`), so one row
//! goes down the tree, meets the share of each step, and takes it back on the way up. The cost is that of the shares along
//! the tree, whatever the number of rules that overlap in a cell.
//!
//! What keeps a large matrix small, step by step: equal blocks of 16 cells are kept once; source classes whose rows came
//! out equal become one class; equal outcomes are one service set.

use rustc_hash::FxHashMap;
use sluicegate_engine::image::LINE;

use super::destinations::{Destinations, inbound, outbound};
use super::outcomes::{NOTHING, Outcomes, Words};
use super::slots::{assign, mix_words};
use super::sources::Sources;
use super::{CompileError, WORDS_MAX};
use crate::resolve::{Resolved, Scope};

/// The class matrix of one agent's image, as words.
#[derive(Debug)]
pub(super) struct Matrix {
    /// Number of each of `Sources::classes`.
    pub(super) numbers: Vec<u32>,
    /// How many source classes there are, 0 included.
    pub(super) count: u32,
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
        let columns = Columns::new(destinations);
        let mut outcomes = Outcomes::new(r, agent);
        let shares = Shares::new(r, scope, &columns, &mut outcomes)?;
        let mut rows = Rows::new(&columns, destinations.count.div_ceil(LINE as u32));
        let too_large = |words: usize| CompileError::Words {
            agent: agent.into(),
            words: words as u64,
            sources: sources.classes.len() as u64 + 1,
            destinations: u64::from(destinations.count),
            max: WORDS_MAX as u64,
        };
        walk(sources, &shares, &mut outcomes, &mut rows, &too_large)?;

        let (numbers, count) = rows.number(r, sources);
        let row_words = u64::from(count) * u64::from(rows.width);
        if row_words + rows.block_words() as u64 > WORDS_MAX as u64 {
            return Err(too_large(row_words as usize + rows.block_words()));
        }
        let words = outcomes.words(&rows.outcomes())?;
        let (places, blocks) = rows.blocks(&words.cells);
        let mut placed = vec![0; row_words as usize];
        for (&row, &number) in rows.of_class.iter().zip(&numbers) {
            let start = (number * rows.width) as usize;
            for (to, &block) in placed[start..].iter_mut().zip(rows.row(row)) {
                *to = places[block as usize];
            }
        }
        let Words { services, rules, .. } = words;
        Ok(Self { numbers, count, row_blocks: rows.width, rows: placed, blocks, services, rules })
    }
}

impl Matrix {
    /// The number of a class by its index + 1 in `Sources::classes`; 0 is nobody.
    pub(super) fn number(&self, class: u32) -> u32 {
        if class == 0 { 0 } else { self.numbers[class as usize - 1] }
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
        let start = self.by_set.partition_point(|p| p.0 < set);
        self.by_set[start..].iter().take_while(move |p| p.0 == set).map(|p| p.1)
    }
}

/// What the rules that start at a set decide: (profile, outcome), rising by profile.
type Share = Vec<(u32, u32)>;

/// The shares of one agent.
struct Shares {
    of_set: FxHashMap<u32, Share>,
    own: Share,
}

impl Shares {
    fn new(
        r: &Resolved,
        scope: &Scope,
        columns: &Columns,
        outcomes: &mut Outcomes<'_>,
    ) -> Result<Self, CompileError> {
        let half = |&h: &u32| &r.halves[h as usize];
        let mut halves: Vec<[u32; 3]> =
            scope.inbound.iter().map(half).map(|h| [h.source, inbound(h.destination), h.rule]).collect();
        halves.sort_unstable();
        halves.dedup();
        let mut of_set = FxHashMap::default();
        for from in halves.chunk_by(|a, b| a[0] == b[0]) {
            of_set.insert(from[0][0], share(from, columns, outcomes)?);
        }
        let mut own: Vec<[u32; 3]> =
            scope.outbound.iter().map(half).map(|h| [0, outbound(h.destination), h.rule]).collect();
        own.sort_unstable();
        own.dedup();
        Ok(Self { of_set, own: share(&own, columns, outcomes)? })
    }
}

/// From halves of one source: (source, destination set, rule), rising.
fn share(halves: &[[u32; 3]], columns: &Columns, outcomes: &mut Outcomes<'_>) -> Result<Share, CompileError> {
    let mut pairs: Share = Vec::new();
    let mut rules = Vec::new();
    for to in halves.chunk_by(|a, b| a[1] == b[1]) {
        rules.clear();
        rules.extend(to.iter().map(|h| h[2]));
        let outcome = outcomes.of_rules(&rules);
        pairs.extend(columns.of(to[0][1]).map(|profile| (profile, outcome)));
    }
    pairs.sort_unstable();
    let mut share: Share = Vec::with_capacity(pairs.len());
    for (profile, outcome) in pairs {
        match share.last_mut() {
            Some(last) if last.0 == profile => last.1 = outcomes.meet(last.1, outcome),
            _ => share.push((profile, outcome)),
        }
    }
    outcomes.check_room()?;
    Ok(share)
}

/// Works out the row of every source class.
fn walk(
    sources: &Sources,
    shares: &Shares,
    outcomes: &mut Outcomes<'_>,
    rows: &mut Rows<'_>,
    too_large: &dyn Fn(usize) -> CompileError,
) -> Result<(), CompileError> {
    enum Step {
        Down(u32),
        /// Back to the row of so many changes.
        Up(usize),
    }
    rows.of_class = vec![0; sources.classes.len()];
    if let Some(own) = sources.own() {
        let changes = rows.meet(&shares.own, outcomes);
        rows.keep(own);
        rows.take_back(changes);
    }
    let tree = sources.tree();
    let mut steps = vec![Step::Down(0)];
    while let Some(step) = steps.pop() {
        let node = match step {
            Step::Up(changes) => {
                rows.take_back(changes);
                continue;
            }
            Step::Down(node) => node,
        };
        let before = match shares.of_set.get(&tree.set(node)) {
            Some(share) => rows.meet(share, outcomes),
            None => rows.changes.len(),
        };
        if let Some(class) = tree.class(node) {
            rows.keep(class);
            if rows.block_words() > WORDS_MAX {
                return Err(too_large(rows.block_words()));
            }
        }
        outcomes.check_room()?;
        steps.push(Step::Up(before));
        steps.extend(tree.children(node).iter().map(|&child| Step::Down(child)));
    }
    Ok(())
}

/// Rows as they are worked out: outcomes by profile while they change, then blocks of outcomes that are kept once.
struct Rows<'a> {
    columns: &'a Columns,
    /// Blocks in a row.
    width: u32,
    /// The row in hand: outcome by profile.
    row: Vec<u32>,
    /// (profile, outcome before), the last change last.
    changes: Vec<(u32, u32)>,
    /// The row in hand by destination class: all zero between rows.
    scratch: Vec<[u32; LINE]>,
    /// Blocks of outcomes; block 0 is empty.
    contents: Vec<[u32; LINE]>,
    block_numbers: FxHashMap<[u32; LINE], u32>,
    /// Distinct rows, one after the other.
    kept: Vec<u32>,
    row_numbers: FxHashMap<u64, Vec<u32>>,
    /// Row of each source class.
    of_class: Vec<u32>,
}

impl<'a> Rows<'a> {
    fn new(columns: &'a Columns, width: u32) -> Self {
        Self {
            columns,
            width,
            row: vec![NOTHING; columns.classes.len()],
            changes: Vec::new(),
            scratch: vec![[NOTHING; LINE]; width as usize],
            contents: vec![[NOTHING; LINE]],
            block_numbers: FxHashMap::from_iter([([NOTHING; LINE], 0)]),
            kept: Vec::new(),
            row_numbers: FxHashMap::default(),
            of_class: Vec::new(),
        }
    }

    /// Lets the row in hand meet a share. Returns how many changes there were before.
    fn meet(&mut self, share: &Share, outcomes: &mut Outcomes<'_>) -> usize {
        let before = self.changes.len();
        for &(profile, outcome) in share {
            let cell = &mut self.row[profile as usize];
            let met = outcomes.meet(*cell, outcome);
            if met != *cell {
                self.changes.push((profile, *cell));
                *cell = met;
            }
        }
        before
    }

    /// Takes back all but the first `left` changes.
    fn take_back(&mut self, left: usize) {
        for (profile, outcome) in self.changes.drain(left..).rev() {
            self.row[profile as usize] = outcome;
        }
    }

    /// Keeps the row in hand as that of a source class.
    fn keep(&mut self, class: u32) {
        for (&outcome, classes) in self.row.iter().zip(&self.columns.classes).filter(|c| *c.0 != NOTHING) {
            for &class in classes {
                self.scratch[class as usize / LINE][class as usize % LINE] = outcome;
            }
        }
        let start = self.kept.len();
        for block in &mut self.scratch {
            let block = std::mem::replace(block, [NOTHING; LINE]);
            let number = *self.block_numbers.entry(block).or_insert_with(|| {
                self.contents.push(block);
                self.contents.len() as u32 - 1
            });
            self.kept.push(number);
        }
        let (kept, row) = self.kept.split_at(start);
        let same = self.row_numbers.entry(mix_words(row.iter().copied())).or_default();
        let width = self.width as usize;
        let known = same.iter().copied().find(|&k| kept[k as usize * width..][..width] == *row);
        let number = (start / width.max(1)) as u32;
        match known {
            Some(_) => self.kept.truncate(start),
            None => same.push(number),
        }
        self.of_class[class as usize] = known.unwrap_or(number);
    }

    fn row(&self, number: u32) -> &[u32] {
        &self.kept[(number * self.width) as usize..][..self.width as usize]
    }

    /// Words that the blocks take at the least.
    fn block_words(&self) -> usize {
        self.contents.len() * LINE
    }

    /// Numbers for source classes: those with equal rows have the same, but the agent's own has its own. A number is placed
    /// by the address of the first member: whatever rules come and go, it stays where it is.
    fn number(&self, r: &Resolved, sources: &Sources) -> (Vec<u32>, u32) {
        let mut merged: FxHashMap<(u32, bool), u32> = FxHashMap::default();
        let mut first: Vec<u32> = Vec::new();
        let mut index = Vec::with_capacity(sources.classes.len());
        for (class, &row) in sources.classes.iter().zip(&self.of_class) {
            let own = class.node.is_none();
            let next = first.len() as u32;
            let merged = *merged.entry((row, own)).or_insert(next);
            if merged == next {
                first.push(class.first);
            }
            first[merged as usize] = first[merged as usize].min(class.first);
            index.push(merged);
        }
        let keys: Vec<u64> = first.iter().map(|&peer| u64::from(r.peers[peer as usize].v4)).collect();
        let (places, count) = assign(&keys);
        (index.into_iter().map(|merged| places[merged as usize]).collect(), count)
    }

    /// Every outcome in any block, rising.
    fn outcomes(&self) -> Vec<u32> {
        let mut used: Vec<u32> = Vec::new();
        for block in &self.contents {
            used.extend(block.iter().filter(|&&outcome| outcome != NOTHING));
            if used.len() > 1 << 22 {
                used.sort_unstable();
                used.dedup();
            }
        }
        used.sort_unstable();
        used.dedup();
        used
    }

    /// Where each block goes, and all blocks' words. The empty block stays block 0.
    fn blocks(&mut self, cells: &[u32]) -> (Vec<u32>, Vec<u32>) {
        for cell in self.contents.as_flattened_mut() {
            *cell = cells[*cell as usize];
        }
        let keys: Vec<u64> =
            self.contents[1..].iter().map(|block| mix_words(block.iter().copied())).collect();
        let (mut places, size) = assign(&keys);
        places.insert(0, 0);
        let mut words = vec![0; size as usize * LINE];
        for (block, &place) in self.contents.iter().zip(&places) {
            words[place as usize * LINE..][..LINE].copy_from_slice(block);
        }
        (places, words)
    }
}
