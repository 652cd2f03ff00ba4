//! Checks an image before anything reads it: refused as a whole, with what is wrong and where.
//!
//! Every check is written once, over any part of a section: [`validate_with`] asks it of everything, [`revalidate`] of what
//! was changed in an image that was good.

mod changed;
mod claims;
mod sections;

use core::ops::Range;

pub use self::changed::revalidate;
pub use self::claims::Claims;
use self::sections::{Holds, Plain, Sections};
use crate::classify::Line;
use crate::image::*;

/// Lines of service sets that [`validate`] remembers.
const REMEMBERED: usize = 1024;

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
    /// A class, row, column, page, block, slot, list or route number is out of its range, or a list goes on after its end;
    /// holds the word's index.
    Reference(usize),
    /// A service set is malformed; holds the word index of the cell that names it.
    Services(usize),
    /// Row, column or class 0 was given a decision or an attribute: "nobody" would be let in.
    Nobody,
    /// There are lists, whose decisions are compared, and fewer ranks than rule slots.
    Ranks,
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
            Self::Nobody => f.write_str("row, column, class, page or block 0, which is nobody's, has rights"),
            Self::Ranks => f.write_str("it has lists of rows or columns, and not a rank for every rule"),
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
impl core::error::Error for InvalidImage {}

/// Checks that every look-up in `lines` stays inside and finds what the layout promises.
pub fn validate(lines: &[Line]) -> Result<(), InvalidImage> {
    validate_with(lines, &mut Claims::new([0; REMEMBERED]))
}

/// As [`validate`], and notes which service sets the cells name: one that is known is not read again, and [`revalidate`]
/// goes by it. [`Claims::new`] says how much memory that takes.
pub fn validate_with<M: AsMut<[u32]>>(lines: &[Line], claims: &mut Claims<M>) -> Result<(), InvalidImage> {
    let words = lines.as_flattened();
    claims.forget();
    let sections = Sections::of(words)?;
    let image = Checked { words, sections: &sections };
    for plain in &sections.plain {
        image.plain(plain, plain.range())?;
    }
    for at in sections.blocks.clone() {
        image.cell(at, claims)?;
    }
    image.nobody()?;
    claims.stand_for(words, sections.service_lines());
    Ok(())
}

/// An image whose sections are known to be inside it.
struct Checked<'a> {
    words: &'a [u32],
    sections: &'a Sections,
}

impl Checked<'_> {
    /// Checks the words of `range`, which is a part of the section.
    fn plain(&self, section: &Plain, range: Range<usize>) -> Result<(), InvalidImage> {
        let bad = |i: usize| Err(InvalidImage::Reference(range.start + i));
        let part = &self.words[range.clone()];
        match section.holds {
            Holds::Below(limit) => match part.iter().position(|&word| word >= limit) {
                Some(i) => bad(i),
                None => Ok(()),
            },
            Holds::Places(places) => match part.iter().position(|&word| !places.has(word)) {
                Some(i) => bad(i),
                None => Ok(()),
            },
            Holds::Lists(limit) => {
                let lists = section.whole(&range, LIST_MAX);
                let goes_on = |list: &[u32]| list.windows(2).any(|pair| pair[0] == 0 && pair[1] != 0);
                let wrong = |list: &[u32]| list.iter().any(|&word| word >= limit) || goes_on(list);
                match self.words[lists.clone()].chunks(LIST_MAX).position(wrong) {
                    Some(i) => Err(InvalidImage::Reference(lists.start + i * LIST_MAX)),
                    None => Ok(()),
                }
            }
            Holds::Classes { routes, columns } => {
                let classes = section.whole(&range, 2);
                let wrong = |class: &[u32]| {
                    let beyond = Attributes(class[0]).route().is_some_and(|route| u32::from(route) >= routes);
                    beyond || !columns.has(class[1])
                };
                let part = &self.words[classes.clone()];
                match part.chunks(2).position(wrong) {
                    Some(i) => Err(InvalidImage::Reference(classes.start + i * 2)),
                    None if classes.start == section.start && part.iter().take(2).any(|&word| word != 0) => {
                        Err(InvalidImage::Nobody)
                    }
                    None => Ok(()),
                }
            }
            Holds::Rising { width, len_at } => {
                // The starts that the range touches, and the one before and after them.
                let first = ((range.start - section.start) / width).saturating_sub(1);
                let last = ((range.end - section.start).div_ceil(width) + 1).min(section.len / width);
                let starts = &self.words[section.start + first * width..section.start + last * width];
                let pairs = starts.chunks(width).zip(starts.chunks(width).skip(1));
                let mut rises = pairs.map(|(a, b)| a < b || b.iter().all(|&w| w == u32::MAX));
                let from_zero = first > 0 || starts.iter().take(width).all(|&w| w == 0);
                if from_zero && rises.all(|rises| rises) {
                    Ok(())
                } else {
                    Err(InvalidImage::Intervals(len_at))
                }
            }
        }
    }

    /// Checks the cell at word `at`, and notes the service set that it names.
    fn cell<M: AsMut<[u32]>>(&self, at: usize, claims: &mut Claims<M>) -> Result<(), InvalidImage> {
        let cell = self.words[at];
        if cell == 0 {
            return Ok(());
        }
        if Decision(cell).is_set() {
            return self.decision(at, Decision(cell));
        }
        let (line, log) = (cell >> 4, cell & 15);
        if !(3..=SERVICE_LOG_MAX).contains(&log) || !self.sections.holds_set(line, log) {
            return Err(InvalidImage::Services(at));
        }
        match claims.claim(line, log) {
            true => Ok(()),
            false => self.set(at, line, log),
        }
    }

    /// Checks a service set that is inside its section; `at` is the word of a cell that names it.
    fn set(&self, at: usize, line: u32, log: u32) -> Result<(), InvalidImage> {
        let start = self.sections.services.start + line as usize * LINE;
        let set = &self.words[start..start + (2 << log)];
        let rises = set.chunks(2).zip(set.chunks(2).skip(1)).all(|(a, b)| a[0] < b[0] || b[0] == u32::MAX);
        if set[0] != 0 || !rises {
            return Err(InvalidImage::Services(at));
        }
        set.chunks(2).enumerate().try_for_each(|(i, e)| self.decision(start + 2 * i + 1, Decision(e[1])))
    }

    fn decision(&self, at: usize, decision: Decision) -> Result<(), InvalidImage> {
        let known = if decision.is_set() { decision.slot() < self.sections.slots } else { decision.0 == 0 };
        if known { Ok(()) } else { Err(InvalidImage::Reference(at)) }
    }

    /// Class 0 has no right, as a source nor as a destination, and page 0 and block 0 are empty: look-ups go through them like
    /// through any other. The rows are known to name pages, and the pages blocks, that are there.
    fn nobody(&self) -> Result<(), InvalidImage> {
        let (rows, width) = (&self.words[self.sections.rows.clone()], self.sections.row_pages);
        let line = |section: &Range<usize>, number: u32| {
            &self.words[section.start + number as usize * LINE..][..LINE]
        };
        let page = |number: u32| line(&self.sections.pages, number);
        let block = |number: u32| line(&self.sections.blocks, number);
        let empty = |line: &[u32]| line.iter().all(|&word| word == 0);
        let nothing = empty(page(0)) && empty(block(0));
        let as_source = rows[..width].iter().flat_map(|&p| page(p)).any(|&b| !empty(block(b)));
        let as_destination = rows.iter().step_by(width).any(|&p| block(page(p)[0])[0] != 0);
        if !nothing || as_source || as_destination { Err(InvalidImage::Nobody) } else { Ok(()) }
    }
}
