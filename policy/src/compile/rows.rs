//! Rows as they are worked out: outcomes by column while they change, then pages of blocks of outcomes, each kept once.

use rustc_hash::FxHashMap;
use sluicegate_engine::image::{LINE, PAGE};

use super::outcomes::{NOTHING, Outcomes};
use super::shares::Share;
use super::slots::{Keys, assign};

type Block = [u32; LINE];

/// The distinct rows of one agent, and perhaps some that it had.
#[derive(Debug)]
pub(super) struct Rows {
    /// Column number by index.
    columns: Vec<u32>,
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
    block_keys: Keys,
    page_keys: Keys,
}

/// Things by number; the first is the empty one.
#[derive(Debug)]
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

/// Numbers of the pages and blocks that some rows have, the empty ones included; rising.
pub(super) struct Used {
    pages: Vec<u32>,
    blocks: Vec<u32>,
}

impl Used {
    /// Words that they take at the least.
    pub(super) fn words(&self) -> usize {
        (self.pages.len() + self.blocks.len()) * LINE
    }
}

/// The words of rows, pages and blocks.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) rows: Vec<u32>,
    pub(super) pages: Vec<u32>,
    pub(super) blocks: Vec<u32>,
}

impl Rows {
    /// For columns with these numbers, all of which are below `count`.
    pub(super) fn new(columns: Vec<u32>, count: u32) -> Self {
        Self {
            width: count.div_ceil(PAGE as u32),
            row: vec![NOTHING; columns.len()],
            columns,
            changes: Vec::new(),
            blocks: Kept::new([NOTHING; LINE]),
            pages: Kept::new([0; LINE]),
            rows: Kept::new(Vec::new()),
            scratch: Vec::new(),
            block_keys: Keys::default(),
            page_keys: Keys::default(),
        }
    }

    /// Lets the row in hand meet a share. Returns how many changes there were before.
    pub(super) fn meet(&mut self, share: &Share, outcomes: &mut Outcomes) -> usize {
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

    /// How many rows are known, in use or not; the empty one included.
    pub(super) fn len(&self) -> usize {
        self.rows.all.len()
    }

    /// About how many bytes they take: everything is there twice, as what is known and as what is looked up.
    pub(super) fn size(&self) -> usize {
        let rows: usize = self.rows.all.iter().map(|row| row.len() * size_of::<(u32, u32)>() + 48).sum();
        let lines = (self.blocks.all.len() + self.pages.all.len()) * (size_of::<Block>() + 4);
        2 * (rows + lines) + self.block_keys.size() + self.page_keys.size()
    }

    /// Number of each column, by its index.
    pub(super) fn columns(&self) -> &[u32] {
        &self.columns
    }

    /// What the rows of these numbers are made of.
    pub(super) fn used(&self, rows: impl Iterator<Item = u32>) -> Used {
        let mut pages = vec![false; self.pages.all.len()];
        rows.flat_map(|row| &self.rows.all[row as usize]).for_each(|&(_, page)| pages[page as usize] = true);
        pages[0] = true;
        let pages = marked(&pages);
        let mut blocks = vec![false; self.blocks.all.len()];
        pages.iter().flat_map(|&page| self.pages.all[page as usize]).for_each(|b| blocks[b as usize] = true);
        blocks[0] = true;
        Used { pages, blocks: marked(&blocks) }
    }

    /// Every outcome in a block that is used, rising, of so many.
    pub(super) fn outcomes(&self, used: &Used, count: usize) -> Vec<u32> {
        let mut outcomes = vec![false; count];
        for &block in &used.blocks {
            self.blocks.all[block as usize].iter().for_each(|&outcome| outcomes[outcome as usize] = true);
        }
        outcomes[NOTHING as usize] = false;
        marked(&outcomes)
    }

    /// Everything that is used at its place, given the cell of each outcome. `numbers` has (place, number among distinct rows) of
    /// the rows; all places are below `count`.
    pub(super) fn place(&mut self, used: &Used, cells: &[u32], numbers: &[(u32, u32)], count: u32) -> Placed {
        let (block_places, blocks) = place(&self.blocks.all, &used.blocks, &mut self.block_keys, cells);
        let (page_places, pages) = place(&self.pages.all, &used.pages, &mut self.page_keys, &block_places);
        let mut rows = vec![0; (count * self.width) as usize];
        for &(at, row) in numbers {
            for &(i, page) in &self.rows.all[row as usize] {
                rows[(at * self.width + i) as usize] = page_places[page as usize];
            }
        }
        Placed { rows, pages, blocks }
    }
}

fn marked(marks: &[bool]) -> Vec<u32> {
    marks.iter().zip(0..).filter(|(marked, _)| **marked).map(|(_, number)| number).collect()
}

/// Where each of `used` goes, by its number, and the words of all, which are those of `words` that they name. The first, which
/// is empty, stays the first.
fn place(all: &[Block], used: &[u32], keys: &mut Keys, words: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut key = |&number: &u32| keys.of(number, &all[number as usize].map(|at| words[at as usize]));
    let hashes: Vec<u64> = used[1..].iter().map(&mut key).collect();
    let (places, size) = assign(&hashes);
    let mut place_of = vec![0; all.len()];
    let mut lines = vec![0; size as usize * LINE];
    for (&number, place) in used[1..].iter().zip(places) {
        place_of[number as usize] = place;
        lines[place as usize * LINE..][..LINE].copy_from_slice(keys.line(number));
    }
    (place_of, lines)
}
