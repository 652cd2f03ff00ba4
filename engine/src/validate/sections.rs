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
    pub(super) row_pages: usize,
    /// Words of the pages; they are one of `plain` too.
    pub(super) pages: Range<usize>,
    /// Rule slots are below this.
    pub(super) slots: u32,
}

const PLAIN: usize = 14;

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
    /// Where sources or destinations are.
    Places(PlacesOf),
    /// Lists of numbers below this; nothing follows a 0.
    Lists(u32),
    /// Destination classes: routes are below this, columns among those, and nobody has any.
    Classes { routes: u32, columns: PlacesOf },
}

/// Which [`Places`] there are.
#[derive(Clone, Copy)]
pub(super) struct PlacesOf {
    /// Numbers of rows or columns are below this.
    numbers: u32,
    /// Numbers of lists are below this.
    lists: u32,
}

impl PlacesOf {
    /// Whether a word names one that there is.
    pub(super) fn has(self, word: u32) -> bool {
        match Places(word).list() {
            Some(list) => list < self.lists,
            None => word < self.numbers,
        }
    }

    fn admits(self, before: Self) -> bool {
        self.numbers >= before.numbers && self.lists >= before.lists
    }
}

impl Plain {
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// The things of `size` words each that `range`, a part of the section, touches.
    pub(super) fn whole(&self, range: &Range<usize>, size: usize) -> Range<usize> {
        let first = (range.start - self.start) / size * size;
        let last = (range.end - self.start).next_multiple_of(size).min(self.len);
        self.start + first..self.start + last
    }

    /// Whether words of `before` that were good there, and are at the same place, are good here.
    pub(super) fn admits(&self, before: &Self) -> bool {
        self.start == before.start
            && match (self.holds, before.holds) {
                (Holds::Below(now), Holds::Below(before)) | (Holds::Lists(now), Holds::Lists(before)) => {
                    now >= before
                }
                (Holds::Places(now), Holds::Places(before)) => now.admits(before),
                (
                    Holds::Classes { routes, columns },
                    Holds::Classes { routes: routes_before, columns: columns_before },
                ) => routes >= routes_before && columns.admits(columns_before),
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
        let intervals = |len_at: usize, width: usize, values: Holds| {
            let len = words[len_at] as usize;
            if !len.is_power_of_two() || len > 1 << INTERVALS_LOG_MAX {
                return Err(InvalidImage::Intervals(len_at));
            }
            let starts = section(len_at + 1, len * width, Holds::Rising { width, len_at })?;
            Ok([starts, section(len_at + 2, len, values)?])
        };
        let times = |count: u32, size: usize| (count as usize).saturating_mul(size);
        let (classes, rows, columns) =
            (words[header::CLASSES_LEN], words[header::ROWS_LEN], words[header::COLUMNS_LEN]);
        if classes == 0 || rows == 0 || columns == 0 {
            return Err(InvalidImage::Nobody);
        }
        let (row_lists, column_lists) = (words[header::ROW_LISTS_LEN], words[header::COLUMN_LISTS_LEN]);
        let source = PlacesOf { numbers: rows, lists: row_lists };
        if !source.has(words[header::OWN]) {
            return Err(InvalidImage::Reference(header::OWN));
        }
        let (routes, slots) = (words[header::ROUTES], words[header::RULE_SLOTS]);
        if routes > ROUTES_MAX || slots > SLOTS_MAX {
            return Err(InvalidImage::Nobody);
        }
        let ranks = words[header::RANKS_LEN];
        if (row_lists > 0 || column_lists > 0) && ranks < slots {
            return Err(InvalidImage::Ranks);
        }
        // Any word is a rank.
        section(header::RANKS, ranks as usize, Holds::Below(u32::MAX))?;
        let source = Holds::Places(source);
        let hosts = section(header::HOSTS4, words[header::HOSTS4_LEN] as usize, source)?;
        let [src4, src4_class] = intervals(header::SRC4_LEN, 1, source)?;
        let [src6, src6_class] = intervals(header::SRC6_LEN, 4, source)?;
        let [dst4, dst4_class] = intervals(header::DST4_LEN, 1, Holds::Below(classes))?;
        let [dst6, dst6_class] = intervals(header::DST6_LEN, 4, Holds::Below(classes))?;
        let destination = PlacesOf { numbers: columns, lists: column_lists };
        let holds = Holds::Classes { routes, columns: destination };
        let classes = section(header::CLASSES, times(classes, 2), holds)?;
        let row_lists = section(header::ROW_LISTS, times(row_lists, LIST_MAX), Holds::Lists(rows))?;
        let column_lists =
            section(header::COLUMN_LISTS, times(column_lists, LIST_MAX), Holds::Lists(columns))?;
        let row_pages = words[header::ROW_PAGES] as usize;
        if row_pages != (columns as usize).div_ceil(PAGE) {
            return Err(InvalidImage::Section(header::ROW_PAGES));
        }
        let (pages, blocks) = (words[header::PAGES_LEN], words[header::BLOCKS_LEN]);
        let rows = section(header::ROWS, times(rows, row_pages), Holds::Below(pages))?;
        let pages = section(header::PAGES, times(pages, LINE), Holds::Below(blocks))?;
        // What these two hold is checked cell by cell.
        let cells = Holds::Below(u32::MAX);
        let blocks = section(header::BLOCKS, times(blocks, LINE), cells)?;
        let services = section(header::SERVICES, times(words[header::SERVICES_LEN], 2), cells)?;
        Ok(Self {
            plain: [
                hosts,
                src4,
                src4_class,
                src6,
                src6_class,
                dst4,
                dst4_class,
                dst6,
                dst6_class,
                classes,
                row_lists,
                column_lists,
                rows,
                pages,
            ],
            blocks: blocks.range(),
            services: services.range(),
            rows: rows.range(),
            row_pages,
            pages: pages.range(),
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
    match header::RESERVED.into_iter().flatten().find(|&i| words[i] != 0) {
        Some(word) => Err(InvalidImage::Reserved(word)),
        None => Ok(()),
    }
}
