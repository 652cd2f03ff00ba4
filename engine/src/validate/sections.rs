//! Where an image's sections are and what holds for their words, from its header alone.

use core::ops::Range;

use super::InvalidImage;
use crate::image::*;

/// The sections of an image, all inside it.
pub(super) struct Sections {
    /// Those that can be checked by themselves.
    pub(super) plain: [Plain; PLAIN],
    /// Words of the cells.
    pub(super) blocks: Range<usize>,
    /// Words of the service entries.
    pub(super) services: Range<usize>,
    /// Words of the rows; they are one of `plain` too.
    pub(super) rows: Range<usize>,
    pub(super) row_blocks: usize,
    /// Rule slots are below this.
    pub(super) slots: u32,
}

const PLAIN: usize = 11;

/// A section that can be checked by itself.
#[derive(Clone, Copy)]
pub(super) struct Plain {
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) holds: Holds,
}

/// What is true of a section.
#[derive(Clone, Copy)]
pub(super) enum Holds {
    /// Every word is below this.
    Below(u32),
    /// Starts of `width` words each, the first one 0, rise up to those of all ones; their number is in a header word.
    Rising { width: usize, len_at: usize },
    /// Attributes of destination classes: routes are below this, and nobody has none.
    Routes(u32),
}

impl Plain {
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// Whether words of `before` that were good there, and are at the same place, are good here.
    pub(super) fn admits(&self, before: &Self) -> bool {
        self.start == before.start
            && match (self.holds, before.holds) {
                (Holds::Below(now), Holds::Below(before)) => now >= before,
                (Holds::Routes(now), Holds::Routes(before)) => now >= before,
                (Holds::Rising { width, .. }, Holds::Rising { width: before, .. }) => width == before,
                _ => false,
            }
    }
}

impl Sections {
    /// The sections of `words`, once its header is known to be good.
    pub(super) fn of(words: &[u32]) -> Result<Self, InvalidImage> {
        header(words)?;
        Self::of_header(words, words.len())
    }

    /// The sections of an image of `total` words that begins with `words`, a good header.
    pub(super) fn of_header(words: &[u32], total: usize) -> Result<Self, InvalidImage> {
        let section = |at: usize, len: usize, holds: Holds| {
            let start = words[at] as usize;
            match start.checked_add(len).filter(|&end| end <= total) {
                Some(_) if start.is_multiple_of(LINE) => Ok(Plain { start, len, holds }),
                _ => Err(InvalidImage::Section(at)),
            }
        };
        let intervals = |len_at: usize, width: usize, limit: u32| {
            let len = words[len_at] as usize;
            if !len.is_power_of_two() || len > 1 << INTERVALS_LOG_MAX {
                return Err(InvalidImage::Intervals(len_at));
            }
            let starts = section(len_at + 1, len * width, Holds::Rising { width, len_at })?;
            Ok([starts, section(len_at + 2, len, Holds::Below(limit))?])
        };
        let (sources, destinations) = (words[header::SRC_CLASSES], words[header::DST_CLASSES]);
        if sources == 0 || destinations == 0 {
            return Err(InvalidImage::Nobody);
        }
        if words[header::OWN] >= sources {
            return Err(InvalidImage::Reference(header::OWN));
        }
        let (routes, slots) = (words[header::ROUTES], words[header::RULE_SLOTS]);
        if routes > ROUTES_MAX || slots > SLOTS_MAX {
            return Err(InvalidImage::Nobody);
        }
        let hosts = section(header::HOSTS4, words[header::HOSTS4_LEN] as usize, Holds::Below(sources))?;
        let [src4, src4_class] = intervals(header::SRC4_LEN, 1, sources)?;
        let [src6, src6_class] = intervals(header::SRC6_LEN, 4, sources)?;
        let [dst4, dst4_class] = intervals(header::DST4_LEN, 1, destinations)?;
        let [dst6, dst6_class] = intervals(header::DST6_LEN, 4, destinations)?;
        let attributes = section(header::ATTRIBUTES, destinations as usize, Holds::Routes(routes))?;
        let row_blocks = words[header::ROW_BLOCKS] as usize;
        if row_blocks != (destinations as usize).div_ceil(LINE) {
            return Err(InvalidImage::Section(header::ROW_BLOCKS));
        }
        let rows = (sources as usize).checked_mul(row_blocks).ok_or(InvalidImage::Section(header::ROWS))?;
        let blocks = words[header::BLOCKS_LEN];
        let rows = section(header::ROWS, rows, Holds::Below(blocks))?;
        // What these two hold is checked cell by cell.
        let cells = Holds::Below(u32::MAX);
        let blocks = section(header::BLOCKS, blocks as usize * LINE, cells)?;
        let services = section(header::SERVICES, words[header::SERVICES_LEN] as usize * 2, cells)?;
        Ok(Self {
            plain: [
                hosts, src4, src4_class, src6, src6_class, dst4, dst4_class, dst6, dst6_class, attributes,
                rows,
            ],
            blocks: blocks.range(),
            services: services.range(),
            rows: rows.range(),
            row_blocks,
            slots,
        })
    }

    /// Lines at which a service set can start.
    pub(super) fn service_lines(&self) -> usize {
        self.services.len().div_ceil(LINE)
    }

    /// Whether a service set of 2 to the `log` entries that starts at line `line` of the services ends within them.
    pub(super) fn holds_set(&self, line: u32, log: u32) -> bool {
        line as usize * LINE + (2 << log) <= self.services.len()
    }
}

/// The header words that say what this is.
fn header(words: &[u32]) -> Result<(), InvalidImage> {
    if words.len() < HEADER {
        return Err(InvalidImage::Length);
    }
    if words[header::MAGIC] != MAGIC {
        return Err(InvalidImage::Magic);
    }
    if words[header::LAYOUT] != LAYOUT {
        return Err(InvalidImage::Layout(words[header::LAYOUT]));
    }
    if words[header::WORDS] as usize != words.len() {
        return Err(InvalidImage::Length);
    }
    match (header::OWN + 1..HEADER).find(|&i| words[i] != 0) {
        Some(word) => Err(InvalidImage::Reserved(word)),
        None => Ok(()),
    }
}
