//! The image as the engine reads it: its lines, and the searches among them as global functions.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use sluicegate_engine::classify::{
    Line, Lines, Wide, better, decide, decide_cell, find_cell, outcome, read_cells, search4, search6,
    settle_cells,
};
use sluicegate_engine::image::LINE;

use crate::maps::{IMAGE, IMAGE_LINES, constant};

/// The cells of the column in hand.
#[map]
static CELLS: PerCpuArray<Line> = PerCpuArray::with_max_entries(1, 0);

/// One half of the double buffer. Its number is not known to be 0 or 1 to the compiler, which would make a branch of the
/// multiplication; where there is no such half, there are no lines.
pub struct Half(pub u32);

impl Lines for Half {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        let lines = constant(&IMAGE_LINES);
        if index >= lines {
            return None;
        }
        IMAGE.get(self.0.wrapping_mul(lines).wrapping_add(index))
    }

    #[inline(always)]
    fn clear_mask(&self, word: u64) -> u32 {
        let mut mask = word;
        // SAFETY: two instructions on a register.
        unsafe {
            core::arch::asm!("{0} s>>= 63", "{0} ^= -1", inout(reg) mask, options(pure, nomem, nostack));
        }
        mask as u32
    }

    #[inline(always)]
    fn search4(&self, starts: u32, len: u32, key: u32) -> u32 {
        verified_search4(self.0, starts, len, key)
    }

    #[inline(always)]
    fn search6(&self, starts: u32, len: u32, key: Wide) -> u32 {
        verified_search6(self.0, starts, len, key.0, key.1)
    }

    #[inline(always)]
    fn outcome(&self, cell: u32, axis: u32) -> u32 {
        verified_outcome(self.0, cell, axis)
    }

    #[inline(always)]
    fn decide(&self, rows: u32, columns: u32, axis: u32) -> u32 {
        verified_decide(self.0, rows, columns, axis)
    }

    #[inline(always)]
    fn decide_cell(&self, row: u32, column: u32, axis: u32) -> u32 {
        verified_decide_cell(self.0, row, column, axis)
    }

    #[inline(always)]
    fn better(&self, best: u32, next: u32) -> u32 {
        verified_better(self.0, best, next)
    }

    #[inline(always)]
    fn cell(&self, row: u32, column: u32) -> Option<u32> {
        let cell = verified_cell(self.0, row, column);
        (cell >> 32 == 0).then_some(cell as u32)
    }

    #[inline(always)]
    fn read_cells(&self, _: &mut Line, rows: u32, column: u32) -> Option<u32> {
        let count = verified_read_cells(self.0, rows, column);
        (count <= LINE as u32).then_some(count)
    }

    #[inline(always)]
    fn settle_cells(&self, _: &Line, count: u32, axis: u32, best: u32) -> u32 {
        verified_settle_cells(self.0, count, axis, best)
    }
}

/// Global functions are verified once, with any arguments, instead of along every path that leads to them: inline, the
/// searches took the verifier past a million instructions.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_search4(half: u32, starts: u32, len: u32, key: u32) -> u32 {
    search4(&Half(half), starts, len, key)
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_search6(half: u32, starts: u32, len: u32, high: u64, low: u64) -> u32 {
    search6(&Half(half), starts, len, (high, low))
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_outcome(half: u32, cell: u32, axis: u32) -> u32 {
    outcome(&Half(half), cell, axis)
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_decide(half: u32, rows: u32, columns: u32, axis: u32) -> u32 {
    decide(&Half(half), rows, columns, axis)
}

/// As [`verified_search4`]. More than a word where the image ends early.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_cell(half: u32, row: u32, column: u32) -> u64 {
    find_cell(&Half(half), row, column).map_or(u64::MAX, u64::from)
}

/// As [`verified_search4`]. More than a line holds where the image ends early.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_read_cells(half: u32, rows: u32, column: u32) -> u32 {
    cells().and_then(|cells| read_cells(&Half(half), cells, rows, column)).unwrap_or(u32::MAX)
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_settle_cells(half: u32, count: u32, axis: u32, best: u32) -> u32 {
    cells().map_or(0, |cells| settle_cells(&Half(half), cells, count, axis, best))
}

#[inline(always)]
fn cells() -> Option<&'static mut Line> {
    // SAFETY: the entry of this processor; the programs run with bottom halves off, so none interrupts another.
    CELLS.get_ptr_mut(0).map(|cells| unsafe { &mut *cells })
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_decide_cell(half: u32, row: u32, column: u32, axis: u32) -> u32 {
    decide_cell(&Half(half), row, column, axis)
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_better(half: u32, best: u32, next: u32) -> u32 {
    better(&Half(half), best, next)
}
