//! Judging a packet by an image: the four look-ups of [`crate::image`], the same code in the kernel and in user space.

use crate::flow::Side;
use crate::image::{Attributes, Decision, INTERVALS_LOG_MAX, LINE, PAGE, Places, SERVICE_LOG_MAX, header};

/// One 64-byte line of an image.
pub type Line = [u32; LINE];

/// Reads lines of one image. A line that is not there reads as `None`, and whatever was sought is denied.
pub trait Lines {
    /// Line `index` of the image.
    fn line(&self, index: u32) -> Option<&Line>;

    /// Word `index` of the image; 0 where there is none.
    #[inline(always)]
    fn word(&self, index: u32) -> u32 {
        match self.line(index / LINE as u32) {
            Some(line) => line[index as usize % LINE],
            None => 0,
        }
    }

    /// All ones when `a <= b`, else 0: a mask instead of a branch. A branching search is three times slower, and doubles
    /// the verifier's states at every step.
    #[inline(always)]
    fn le_mask(&self, a: u32, b: u32) -> u32 {
        self.clear_mask((i64::from(b) - i64::from(a)) as u64)
    }

    /// All ones when the top bit of `word` is clear, else 0. A method because compilers see through the arithmetic and make a
    /// branch of it after all, where their idea of the processor says so: the kernel's implementation is in assembly.
    #[inline(always)]
    fn clear_mask(&self, word: u64) -> u32 {
        !(word as i64 >> 63) as u32
    }

    /// Index of the last of `len` (a power of two) IPv4 intervals that starts at or below `key`. The searches are
    /// methods so that the kernel can verify each once, as a function of its own: inline, their exits would multiply.
    #[inline(always)]
    fn search4(&self, starts: u32, len: u32, key: u32) -> u32 {
        search4(self, starts, len, key)
    }

    /// The same for IPv6.
    #[inline(always)]
    fn search6(&self, starts: u32, len: u32, key: Wide) -> u32 {
        search6(self, starts, len, key)
    }

    /// What a cell decides that is not empty.
    #[inline(always)]
    fn outcome(&self, cell: u32, axis: u32) -> u32 {
        outcome(self, cell, axis)
    }

    /// The word of the decision between rows and columns. Methods like the searches, for the same reason.
    #[inline(always)]
    fn decide(&self, rows: u32, columns: u32, axis: u32) -> u32 {
        decide(self, rows, columns, axis)
    }

    /// What a row decides in a column.
    #[inline(always)]
    fn decide_cell(&self, row: u32, column: u32, axis: u32) -> u32 {
        decide_cell(self, row, column, axis)
    }

    /// The decision that holds where two were found.
    #[inline(always)]
    fn better(&self, best: u32, next: u32) -> u32 {
        better(self, best, next)
    }

    /// The cell of a row and a column; `None` where the image ends early.
    #[inline(always)]
    fn cell(&self, row: u32, column: u32) -> Option<u32> {
        find_cell(self, row, column)
    }

    /// Reads the cells of `rows` in a column, and returns how many there are; `None` where the image ends early. The kernel has no
    /// room for `cells` on its stack and keeps them elsewhere.
    #[inline(always)]
    fn read_cells(&self, cells: &mut Line, rows: u32, column: u32) -> Option<u32> {
        read_cells(self, cells, rows, column)
    }

    /// The better of `best` and what any of the first `count` cells that were read decides.
    #[inline(always)]
    fn settle_cells(&self, cells: &Line, count: u32, axis: u32, best: u32) -> u32 {
        settle_cells(self, cells, count, axis, best)
    }
}

impl Lines for [Line] {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        self.get(index as usize)
    }
}

/// An IPv6 address or interval start as two host-order halves, most significant first.
pub type Wide = (u64, u64);

/// What an image says about one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The deciding rule, if any.
    pub decision: Decision,
    /// How the destination is reached.
    pub attributes: Attributes,
    /// Whose the source address is.
    pub source: Source,
}

/// Whose a source address is: of a peer, of the agent itself, of either as far as the image says, or of nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source(pub(crate) u8);

impl Source {
    const PEER: u8 = 1;
    const OWN: u8 = 2;

    #[inline(always)]
    const fn of(rows: u32, own: u32) -> Self {
        Self(match rows {
            0 => 0,
            _ if own == 0 => Self::PEER | Self::OWN,
            rows if rows == own => Self::OWN,
            _ => Self::PEER,
        })
    }

    /// Whether a flow with this source may be opened from a side: from the host with its own address, from the overlay
    /// with a peer's. Anything else is spoofed.
    #[inline(always)]
    pub const fn may_open(self, side: Side) -> bool {
        match side {
            Side::Overlay => self.0 & Self::PEER != 0,
            Side::Local => self.0 & Self::OWN != 0,
            Side::Site => false,
        }
    }
}

/// Judges an IPv4 packet. Addresses in host order; `axis` is the folded protocol and port ([`crate::image::axis`]).
#[inline(always)]
pub fn classify4(image: &(impl Lines + ?Sized), source: u32, destination: u32, axis: u32) -> Judgement {
    let Some(head) = image.line(0) else { return Judgement::default() };
    let host = source.wrapping_sub(head[header::HOSTS4_BASE]);
    let rows = if host < head[header::HOSTS4_LEN] {
        image.word(head[header::HOSTS4].wrapping_add(host))
    } else {
        let i = image.search4(head[header::SRC4], head[header::SRC4_LEN], source);
        image.word(head[header::SRC4_CLASS].wrapping_add(i))
    };
    let i = image.search4(head[header::DST4], head[header::DST4_LEN], destination);
    let destination_class = image.word(head[header::DST4_CLASS].wrapping_add(i));
    judge(image, rows, destination_class, axis)
}

/// Judges an IPv6 packet; otherwise as [`classify4`].
#[inline(always)]
pub fn classify6(image: &(impl Lines + ?Sized), source: Wide, destination: Wide, axis: u32) -> Judgement {
    let Some(head) = image.line(0) else { return Judgement::default() };
    let i = image.search6(head[header::SRC6], head[header::SRC6_LEN], source);
    let rows = image.word(head[header::SRC6_CLASS].wrapping_add(i));
    let dst_len = head[header::DST6_LEN];
    let Some(head) = image.line(1) else { return Judgement::default() };
    let i = image.search6(head[header::DST6 - LINE], dst_len, destination);
    let destination_class = image.word(head[header::DST6_CLASS - LINE].wrapping_add(i));
    judge(image, rows, destination_class, axis)
}

#[inline(always)]
fn judge(image: &(impl Lines + ?Sized), rows: u32, destination: u32, axis: u32) -> Judgement {
    let Some(head) = image.line(1) else { return Judgement::default() };
    let class = head[header::CLASSES - LINE].wrapping_add(destination.wrapping_mul(2));
    let own = head[header::OWN - LINE];
    // A class's two words are on one line.
    let Some(line) = image.line(class / LINE as u32) else { return Judgement::default() };
    let at = (class as usize % LINE) & !1;
    let (attributes, columns) = (Attributes(line[at]), line[at + 1]);
    let decision = Decision(image.decide(rows, columns, axis));
    Judgement { decision, attributes, source: Source::of(rows, own) }
}

/// [`Lines::decide`], for whoever implements it.
#[inline(always)]
pub fn decide(image: &(impl Lines + ?Sized), rows: u32, columns: u32, axis: u32) -> u32 {
    let mut cells = [0; LINE];
    // Of a part of the cells nothing is decided: a drop may be among the others.
    let mut best_of = |column: u32, best: u32| {
        let count = image.read_cells(&mut cells, rows, column)?;
        Some(image.settle_cells(&cells, count, axis, best))
    };
    if Places(columns).list().is_none() {
        if Places(rows).list().is_none() {
            return image.decide_cell(rows, columns, axis);
        }
        return best_of(columns, 0).unwrap_or(0);
    }
    let Some(list) = list(image, header::COLUMN_LISTS, columns) else { return 0 };
    let mut best = 0;
    for &column in list {
        if column == 0 {
            break;
        }
        let Some(next) = best_of(column, best) else { return 0 };
        best = next;
    }
    best
}

/// [`Lines::read_cells`], for whoever implements it. None is looked at here: reading does not wait for what was read, so that
/// lines which no cache holds are on their way together.
#[inline(always)]
pub fn read_cells(image: &(impl Lines + ?Sized), cells: &mut Line, rows: u32, column: u32) -> Option<u32> {
    if Places(rows).list().is_none() {
        cells[0] = image.cell(rows, column)?;
        return Some(1);
    }
    let mut count = 0;
    for (cell, &row) in cells.iter_mut().zip(list(image, header::ROW_LISTS, rows)?) {
        if row == 0 {
            break;
        }
        *cell = image.cell(row, column)?;
        count += 1;
    }
    Some(count)
}

/// [`Lines::settle_cells`], for whoever implements it.
#[inline(always)]
pub fn settle_cells(image: &(impl Lines + ?Sized), cells: &Line, count: u32, axis: u32, best: u32) -> u32 {
    let mut best = best;
    // Downwards, and so with one number less at hand: of decisions the better one holds in whatever order.
    let mut left = count;
    while left != 0 && left <= LINE as u32 {
        left -= 1;
        let cell = cells[left as usize % LINE];
        if cell != 0 {
            best = image.better(best, image.outcome(cell, axis));
        }
    }
    best
}

/// The line of the rows or columns that `places` lists, whose lists are at header word `lists` of line 1.
#[inline(always)]
fn list(image: &(impl Lines + ?Sized), lists: usize, places: u32) -> Option<&Line> {
    let first = image.line(1)?[lists - LINE] / LINE as u32;
    image.line(first.wrapping_add(Places(places).list()?))
}

/// [`Lines::decide_cell`], for whoever implements it.
#[inline(always)]
pub fn decide_cell(image: &(impl Lines + ?Sized), row: u32, column: u32, axis: u32) -> u32 {
    let Some(cell) = image.cell(row, column) else { return 0 };
    if cell == 0 { 0 } else { image.outcome(cell, axis) }
}

/// [`Lines::cell`], for whoever implements it. Page 0 has no blocks but block 0, and block 0 no cells but empty
/// ones: whether a pair has any is not asked on the way, since every branch that goes unforeseen waits for its line.
#[inline(always)]
pub fn find_cell(image: &(impl Lines + ?Sized), row: u32, column: u32) -> Option<u32> {
    const LINE_WORDS: u32 = LINE as u32;
    let head = image.line(1)?;
    let page = row.wrapping_mul(head[header::ROW_PAGES - LINE]).wrapping_add(column / PAGE as u32);
    let page = at(image, head[header::ROWS - LINE].wrapping_add(page))?;
    let block = page.wrapping_mul(LINE_WORDS).wrapping_add(column / LINE_WORDS % LINE_WORDS);
    let block = at(image, head[header::PAGES - LINE].wrapping_add(block))?;
    let first = head[header::BLOCKS - LINE].wrapping_add(block.wrapping_mul(LINE_WORDS));
    at(image, first.wrapping_add(column % LINE_WORDS))
}

/// [`Lines::better`], for whoever implements it: drop beats accept, and of one action the first in the order of the rules.
#[inline(always)]
pub fn better(image: &(impl Lines + ?Sized), best: u32, next: u32) -> u32 {
    if next == 0 || next == best {
        return best;
    }
    if best == 0 {
        return next;
    }
    match (Decision(best).accepts(), Decision(next).accepts()) {
        (false, true) => best,
        (true, false) => next,
        _ => {
            let Some(head) = image.line(1) else { return 0 };
            let rank =
                |decision| image.word(head[header::RANKS - LINE].wrapping_add(Decision(decision).slot()));
            if rank(best) <= rank(next) { best } else { next }
        }
    }
}

/// [`Lines::search4`], for whoever implements it.
#[inline(always)]
pub fn search4(image: &(impl Lines + ?Sized), starts: u32, len: u32, key: u32) -> u32 {
    let mut index = 0;
    let mut step = len / 2;
    for _ in 0..INTERVALS_LOG_MAX {
        if step == 0 {
            break;
        }
        let Some(start) = at(image, starts.wrapping_add(index).wrapping_add(step)) else { return 0 };
        index = index.wrapping_add(step & image.le_mask(start, key));
        step /= 2;
    }
    index
}

/// [`Lines::search6`], for whoever implements it.
#[inline(always)]
pub fn search6(image: &(impl Lines + ?Sized), starts: u32, len: u32, key: Wide) -> u32 {
    let mut index = 0u32;
    let mut step = len / 2;
    for _ in 0..INTERVALS_LOG_MAX {
        if step == 0 {
            break;
        }
        let Some(start) = wide(image, starts.wrapping_add(index.wrapping_add(step).wrapping_mul(4))) else {
            return 0;
        };
        index = index.wrapping_add(step & image.clear_mask(wide_difference(start, key)));
        step /= 2;
    }
    index
}

/// The word at `offset`. A search gives up at once where an image ends early: going on with a made-up value would give
/// the verifier two states per step.
#[inline(always)]
fn at(image: &(impl Lines + ?Sized), offset: u32) -> Option<u32> {
    image.line(offset / LINE as u32).map(|line| line[offset as usize % LINE])
}

/// The four-word start at `offset`. Starts are aligned to four words, so one never crosses a line.
#[inline(always)]
fn wide(image: &(impl Lines + ?Sized), offset: u32) -> Option<Wide> {
    let line = image.line(offset / LINE as u32)?;
    let i = (offset as usize % LINE) & !3;
    let join = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    Some((join(line[i], line[i + 1]), join(line[i + 2], line[i + 3])))
}

/// A word whose top bit is set exactly when `a > b`: the borrow of b - a over both halves. Written out, because the compiler turns
/// comparisons of 64-bit halves into branches.
#[inline(always)]
const fn wide_difference(a: Wide, b: Wide) -> u64 {
    let low = borrow(b.1, a.1, b.1.wrapping_sub(a.1)) >> 63;
    borrow(b.0, a.0, b.0.wrapping_sub(a.0).wrapping_sub(low))
}

/// A word whose top bit is the borrow out of `x - y` (and a borrow in), given the difference `d`: the full subtractor's.
#[inline(always)]
const fn borrow(x: u64, y: u64, d: u64) -> u64 {
    (!x & y) | ((!x | y) & d)
}

/// [`Lines::outcome`], for whoever implements it: the decision of the last entry of its service set that starts at or below
/// `axis`, where it names one.
#[inline(always)]
pub fn outcome(image: &(impl Lines + ?Sized), cell: u32, axis: u32) -> u32 {
    if Decision(cell).is_set() {
        return cell;
    }
    let Some(head) = image.line(1) else { return 0 };
    let set = head[header::SERVICES - LINE].wrapping_add((cell >> 4) * 16);
    // The mask is for the verifier, which sees by it that the loop ends: there are no larger sets.
    let mut step = ((1u32 << (cell & 15)) / 2) & ((1 << SERVICE_LOG_MAX) - 1);
    let mut index = 0u32;
    while step != 0 {
        let Some(start) = at(image, set.wrapping_add(index.wrapping_add(step).wrapping_mul(2))) else {
            return 0;
        };
        index = index.wrapping_add(step & image.le_mask(start, axis));
        step /= 2;
    }
    at(image, set.wrapping_add(index.wrapping_mul(2)).wrapping_add(1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_agree_with_comparison() {
        let edges = [0, 1, 2, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX];
        for a in edges {
            for b in edges {
                let lines: &[Line] = &[];
                assert_eq!(lines.le_mask(a, b), if a <= b { u32::MAX } else { 0 }, "{a} {b}");
                let wide = |x: u32| (u64::from(x) << 32, u64::from(x));
                let masked = |a, b| lines.clear_mask(wide_difference(a, b));
                assert_eq!(masked(wide(a), wide(b)), if a <= b { u32::MAX } else { 0 });
                let (low_a, low_b) = ((7, u64::from(a)), (7, u64::from(b)));
                assert_eq!(masked(low_a, low_b), if a <= b { u32::MAX } else { 0 });
            }
        }
    }
}
