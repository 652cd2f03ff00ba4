//! Checks an image before anything reads it: refused as a whole, with what is wrong and where.

use crate::classify::Line;
use crate::image::*;

/// Cells that [`validate`] remembers.
const GOOD: usize = 1024;

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidImage {
    /// Shorter than its header, or not a whole number of lines, or another length than the header says.
    Length,
    /// Not an image at all.
    Magic,
    /// Written for another layout; holds the version found.
    Layout(u32),
    /// A reserved header word is not zero: written by something newer; holds the word's index.
    Reserved(usize),
    /// A section leaves the image, or does not start a line; holds the header word of its offset.
    Section(usize),
    /// An interval array is empty, not a power of two, too long, or does not rise from 0; holds the header word of its length.
    Intervals(usize),
    /// A class, block, slot or route number is out of its range; holds the word's index.
    Reference(usize),
    /// A service set is malformed; holds the word index of the cell that names it.
    Services(usize),
    /// Class 0 was given a decision or an attribute: "nobody" would be let in.
    Nobody,
}

#[cfg(not(target_arch = "bpf"))]
impl core::fmt::Display for InvalidImage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length => f.write_str("its length is not the one its header says"),
            Self::Magic => f.write_str("it does not start with the image magic"),
            Self::Layout(found) => write!(f, "it has layout {found}, this agent reads layout {LAYOUT}"),
            Self::Reserved(word) => write!(f, "header word {word} is reserved and not zero"),
            Self::Section(word) => {
                write!(f, "the section of header word {word} leaves the image or is not aligned")
            }
            Self::Intervals(word) => {
                write!(f, "the intervals of header word {word} are not a rising power of two from zero")
            }
            Self::Reference(word) => write!(f, "word {word} names something the image does not have"),
            Self::Services(word) => write!(f, "the cell at word {word} names a malformed service set"),
            Self::Nobody => f.write_str("class 0, which is nobody, has rights"),
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
impl core::error::Error for InvalidImage {}

/// Checks that every look-up in `lines` stays inside and finds what the layout promises.
pub fn validate(lines: &[Line]) -> Result<(), InvalidImage> {
    validate_with(lines, &mut [0; GOOD])
}

/// As [`validate`], with memory for cells that were found good, all zero: cells name the same service sets again and again,
/// and one that is remembered is not read again. A large image takes a large one.
pub fn validate_with(lines: &[Line], good: &mut [u32]) -> Result<(), InvalidImage> {
    let image = Checked { words: lines.as_flattened() };
    image.header()?;
    image.classes()?;
    image.matrix(good)?;
    Ok(())
}

struct Checked<'a> {
    words: &'a [u32],
}

impl Checked<'_> {
    fn header(&self) -> Result<(), InvalidImage> {
        let words = self.words;
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

    /// The words of a section whose offset is in header word `at`.
    fn section(&self, at: usize, len: usize) -> Result<&[u32], InvalidImage> {
        let start = self.words[at] as usize;
        let end = start.checked_add(len).filter(|&end| end <= self.words.len());
        match end {
            Some(end) if start.is_multiple_of(LINE) => Ok(&self.words[start..end]),
            _ => Err(InvalidImage::Section(at)),
        }
    }

    fn classes(&self) -> Result<(), InvalidImage> {
        let sources = self.words[header::SRC_CLASSES];
        let destinations = self.words[header::DST_CLASSES];
        if sources == 0 || destinations == 0 {
            return Err(InvalidImage::Nobody);
        }
        if self.words[header::OWN] >= sources {
            return Err(InvalidImage::Reference(header::OWN));
        }
        self.references(header::HOSTS4, self.words[header::HOSTS4_LEN] as usize, sources)?;
        self.intervals(header::SRC4_LEN, 1, sources)?;
        self.intervals(header::SRC6_LEN, 4, sources)?;
        self.intervals(header::DST4_LEN, 1, destinations)?;
        self.intervals(header::DST6_LEN, 4, destinations)?;
        let attributes = self.section(header::ATTRIBUTES, destinations as usize)?;
        let routes = self.words[header::ROUTES];
        let bad = |a: &u32| Attributes(*a).route().is_some_and(|route| u32::from(route) >= routes);
        if let Some(i) = attributes.iter().position(bad) {
            return Err(InvalidImage::Reference(self.words[header::ATTRIBUTES] as usize + i));
        }
        if attributes[0] != 0 || routes > ROUTES_MAX || self.words[header::RULE_SLOTS] > SLOTS_MAX {
            return Err(InvalidImage::Nobody);
        }
        Ok(())
    }

    fn references(&self, at: usize, len: usize, limit: u32) -> Result<(), InvalidImage> {
        match self.section(at, len)?.iter().position(|&class| class >= limit) {
            Some(i) => Err(InvalidImage::Reference(self.words[at] as usize + i)),
            None => Ok(()),
        }
    }

    fn intervals(&self, at: usize, width: usize, limit: u32) -> Result<(), InvalidImage> {
        let len = self.words[at] as usize;
        if !len.is_power_of_two() || len > 1 << INTERVALS_LOG_MAX {
            return Err(InvalidImage::Intervals(at));
        }
        let starts = self.section(at + 1, len * width)?;
        let rises = starts
            .chunks(width)
            .zip(starts.chunks(width).skip(1))
            .all(|(a, b)| a < b || b.iter().all(|&w| w == u32::MAX));
        if starts[..width].iter().any(|&w| w != 0) || !rises {
            return Err(InvalidImage::Intervals(at));
        }
        self.references(at + 2, len, limit)
    }

    fn matrix(&self, good: &mut [u32]) -> Result<(), InvalidImage> {
        let sources = self.words[header::SRC_CLASSES] as usize;
        let destinations = self.words[header::DST_CLASSES] as usize;
        let row_blocks = self.words[header::ROW_BLOCKS] as usize;
        if row_blocks != destinations.div_ceil(LINE) {
            return Err(InvalidImage::Section(header::ROW_BLOCKS));
        }
        let rows = sources.checked_mul(row_blocks).ok_or(InvalidImage::Section(header::ROWS))?;
        let blocks = self.words[header::BLOCKS_LEN];
        self.references(header::ROWS, rows, blocks)?;
        let cells = self.section(header::BLOCKS, blocks as usize * LINE)?;
        self.section(header::SERVICES, self.words[header::SERVICES_LEN] as usize * 2)?;
        let places = good.len().max(1);
        for (i, &cell) in cells.iter().enumerate() {
            let place = (u64::from(cell).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % places;
            if good.get(place) == Some(&cell) {
                continue;
            }
            self.cell(self.words[header::BLOCKS] as usize + i, cell)?;
            if let Some(known) = good.get_mut(place) {
                *known = cell;
            }
        }
        let rows = self.section(header::ROWS, rows)?;
        let nobody_as_source =
            rows[..row_blocks].iter().any(|&b| cells[b as usize * LINE..][..LINE].iter().any(|&c| c != 0));
        let nobody_as_destination = rows.iter().step_by(row_blocks).any(|&b| cells[b as usize * LINE] != 0);
        if nobody_as_source || nobody_as_destination { Err(InvalidImage::Nobody) } else { Ok(()) }
    }

    fn cell(&self, at: usize, cell: u32) -> Result<(), InvalidImage> {
        if cell == 0 {
            return Ok(());
        }
        if Decision(cell).is_set() {
            return self.decision(at, Decision(cell));
        }
        let entries = self.words[header::SERVICES_LEN] as usize;
        let (first, log) = ((cell >> 4) as usize * 8, cell & 15);
        if !(3..=SERVICE_LOG_MAX).contains(&log) || first + (1 << log) > entries {
            return Err(InvalidImage::Services(at));
        }
        let start = self.words[header::SERVICES] as usize + first * 2;
        let set = &self.words[start..start + (2 << log)];
        let rises = set.chunks(2).zip(set.chunks(2).skip(1)).all(|(a, b)| a[0] < b[0] || b[0] == u32::MAX);
        if set[0] != 0 || !rises {
            return Err(InvalidImage::Services(at));
        }
        set.chunks(2).enumerate().try_for_each(|(i, e)| self.decision(start + 2 * i + 1, Decision(e[1])))
    }

    fn decision(&self, at: usize, decision: Decision) -> Result<(), InvalidImage> {
        let known = if decision.is_set() {
            decision.slot() < self.words[header::RULE_SLOTS]
        } else {
            decision.0 == 0
        };
        if known { Ok(()) } else { Err(InvalidImage::Reference(at)) }
    }
}
