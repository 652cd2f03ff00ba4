//! Rows as they are worked out: outcomes by column while they change, then pages of blocks of outcomes, each kept once.

use rustc_hash::FxHashMap;
use sluicegate_engine::image::{LINE, PAGE};

use super::lines::{Line as Block, Lines};
use super::outcomes::{NOTHING, Outcomes};
use super::shares::Share;
use super::words::Tables;

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
    /// Where blocks and pages were the last time.
    pub(super) placed: Placed,
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

/// Pages and blocks at their places, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) blocks: Lines,
    pub(super) pages: Lines,
    /// The cell of each outcome.
    cells: Vec<u32>,
}

impl Placed {
    /// About how many bytes they take.
    fn size(&self) -> usize {
        self.blocks.size() + self.pages.size() + self.cells.len() * 4
    }

    /// In the order of their sections.
    pub(super) fn tables(&self) -> Tables<'_> {
        [&self.blocks, &self.pages]
    }
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
            placed: Placed::default(),
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
        2 * (rows + lines) + self.placed.size()
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

    /// Puts everything that is used at its place, given the cell of each outcome. The words of rows: `numbers` has (place, number
    /// among distinct rows) of the rows; all places are below `count`.
    pub(super) fn place(
        &mut self,
        used: &Used,
        cells: Vec<u32>,
        numbers: &[(u32, u32)],
        count: u32,
    ) -> Vec<u32> {
        let Placed { blocks, pages, cells: before } = &mut self.placed;
        let changed = (0..).zip(&cells).filter(|(i, cell)| before.get(*i as usize) != Some(*cell));
        let has = Marks::new(cells.len(), changed.map(|(outcome, _)| outcome));
        let all = &self.blocks.all;
        let line = |block: u32| all[block as usize].map(|outcome| cells[outcome as usize]);
        blocks.place(&used.blocks[1..], |block| !has.any(&all[block as usize]), line);
        let has = Marks::new(all.len(), blocks.moved().iter().copied());
        let all = &self.pages.all;
        let line = |page: u32| all[page as usize].map(|block| blocks.place_of(block));
        pages.place(&used.pages[1..], |page| !has.any(&all[page as usize]), line);
        *before = cells;
        let mut rows = vec![0; (count * self.width) as usize];
        for &(at, row) in numbers {
            for &(i, page) in &self.rows.all[row as usize] {
                rows[(at * self.width + i) as usize] = pages.place_of(page);
            }
        }
        rows
    }
}

/// Some of the first numbers.
struct Marks(Option<Vec<bool>>);

impl Marks {
    fn new(count: usize, which: impl Iterator<Item = u32>) -> Self {
        let mut marks = None;
        for number in which {
            marks.get_or_insert_with(|| vec![false; count])[number as usize] = true;
        }
        Self(marks)
    }

    /// Whether one of these is among them.
    fn any(&self, numbers: &Block) -> bool {
        let marks = self.0.as_ref();
        marks.is_some_and(|marks| numbers.iter().fold(false, |any, &number| any | marks[number as usize]))
    }
}

fn marked(marks: &[bool]) -> Vec<u32> {
    marks.iter().zip(0..).filter(|(marked, _)| **marked).map(|(_, number)| number).collect()
}
