//! Rows as they are worked out: outcomes by column while they change, then pages of blocks of outcomes, each kept once.

use rustc_hash::FxHashMap;
use sluicegate_engine::image::{LINE, PAGE};

use super::outcomes::{NOTHING, Outcomes};
use super::shares::Share;
use super::slots::{assign, mix_words};

type Block = [u32; LINE];

/// The distinct rows of one agent.
pub(super) struct Rows<'a> {
    /// Column number by index.
    columns: &'a [u32],
    /// Pages in a row.
    pub(super) width: u32,
    /// The row in hand: outcome by index of the column.
    row: Vec<u32>,
    /// (column, outcome before), the last change last.
    changes: Vec<(u32, u32)>,
    blocks: Kept<Block>,
    pages: Kept<Block>,
    /// (page in the row, page's number) of the pages of each distinct row that are not empty.
    rows: Kept<Vec<(u32, u32)>>,
    scratch: Vec<(u32, u32)>,
}

/// Things by number; the first is the empty one.
struct Kept<T> {
    all: Vec<T>,
    numbers: FxHashMap<T, u32>,
}

impl<T: Clone + Eq + std::hash::Hash> Kept<T> {
    fn new(empty: T) -> Self {
        Self { all: vec![empty.clone()], numbers: FxHashMap::from_iter([(empty, 0)]) }
    }

    fn number(&mut self, thing: &T) -> u32 {
        if let Some(&number) = self.numbers.get(thing) {
            return number;
        }
        let number = self.all.len() as u32;
        self.all.push(thing.clone());
        self.numbers.insert(thing.clone(), number);
        number
    }
}

/// The words of rows, pages and blocks.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) rows: Vec<u32>,
    pub(super) pages: Vec<u32>,
    pub(super) blocks: Vec<u32>,
}

impl<'a> Rows<'a> {
    /// For columns with these numbers, all of which are below `count`.
    pub(super) fn new(columns: &'a [u32], count: u32) -> Self {
        Self {
            columns,
            width: count.div_ceil(PAGE as u32),
            row: vec![NOTHING; columns.len()],
            changes: Vec::new(),
            blocks: Kept::new([NOTHING; LINE]),
            pages: Kept::new([0; LINE]),
            rows: Kept::new(Vec::new()),
            scratch: Vec::new(),
        }
    }

    /// Lets the row in hand meet a share. Returns how many changes there were before.
    pub(super) fn meet(&mut self, share: &Share, outcomes: &mut Outcomes<'_>) -> usize {
        let before = self.changes.len();
        for &(column, outcome) in share {
            let cell = &mut self.row[column as usize];
            let met = outcomes.meet(*cell, outcome);
            if met != *cell {
                self.changes.push((column, *cell));
                *cell = met;
            }
        }
        before
    }

    /// Takes back all but the first `left` changes.
    pub(super) fn take_back(&mut self, left: usize) {
        for (column, outcome) in self.changes.drain(left..).rev() {
            self.row[column as usize] = outcome;
        }
    }

    /// The number, among distinct rows, of the row in hand; 0 is the empty one.
    pub(super) fn keep(&mut self) -> u32 {
        // What is not empty was changed from empty once.
        let cells = self.changes.iter().filter(|change| change.1 == NOTHING);
        let cells = cells.map(|&(column, _)| (self.columns[column as usize], self.row[column as usize]));
        self.scratch.clear();
        self.scratch.extend(cells);
        self.scratch.sort_unstable();
        let mut row = Vec::new();
        for cells in self.scratch.chunk_by(|a, b| a.0 / PAGE as u32 == b.0 / PAGE as u32) {
            let mut page = [0; LINE];
            for cells in cells.chunk_by(|a, b| a.0 / LINE as u32 == b.0 / LINE as u32) {
                let mut block = [NOTHING; LINE];
                cells.iter().for_each(|&(column, outcome)| block[column as usize % LINE] = outcome);
                page[cells[0].0 as usize / LINE % LINE] = self.blocks.number(&block);
            }
            row.push((cells[0].0 / PAGE as u32, self.pages.number(&page)));
        }
        self.rows.number(&row)
    }

    /// Words that blocks and pages take at the least.
    pub(super) fn words(&self) -> usize {
        (self.blocks.all.len() + self.pages.all.len()) * LINE
    }

    /// Every outcome in any block, rising.
    pub(super) fn outcomes(&self) -> Vec<u32> {
        let mut used: Vec<u32> = Vec::new();
        for block in &self.blocks.all {
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

    /// Everything at its place, given the cell of each outcome. `numbers` has (place, number among distinct rows) of the rows;
    /// all places are below `count`.
    pub(super) fn place(&self, cells: &[u32], numbers: &[(u32, u32)], count: u32) -> Placed {
        let blocks = self.blocks.all.iter().map(|block| block.map(|outcome| cells[outcome as usize]));
        let (block_places, blocks) = place(blocks.collect());
        let pages = self.pages.all.iter().map(|page| page.map(|block| block_places[block as usize]));
        let (page_places, pages) = place(pages.collect());
        let mut rows = vec![0; (count * self.width) as usize];
        for &(at, row) in numbers {
            for &(i, page) in &self.rows.all[row as usize] {
                rows[(at * self.width + i) as usize] = page_places[page as usize];
            }
        }
        Placed { rows, pages, blocks }
    }
}

/// Where each goes, and the words of all. The first, which is empty, stays the first.
fn place(lines: Vec<Block>) -> (Vec<u32>, Vec<u32>) {
    let keys: Vec<u64> = lines[1..].iter().map(|line| mix_words(line.iter().copied())).collect();
    let (mut places, size) = assign(&keys);
    places.insert(0, 0);
    let mut words = vec![0; size as usize * LINE];
    for (line, &place) in lines.iter().zip(&places) {
        words[place as usize * LINE..][..LINE].copy_from_slice(line);
    }
    (places, words)
}
