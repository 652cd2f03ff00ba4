//! Which service sets the cells of an image name: what a change to the sets can break.

use crate::image::{HEADER, LINE};

/// For each line of the service section, how many cells name a set that starts there; of the last image that was found good.
///
/// Its memory is a word for each such line, all zero at first, and an image has at most one for each of its lines. With less
/// it still serves [`validate_with`](super::validate_with), and [`revalidate`](super::revalidate) looks at whole images.
#[derive(Clone, Debug)]
pub struct Claims<M> {
    /// Cells << 4 | log2 of the set's entries; 0 when no cell names one.
    lines: M,
    /// Lines from this one on were never claimed.
    used: usize,
    /// No claimed set has more entries than 2 to the power of this.
    longest: u32,
    /// Every claim is in `lines`: all sets start at lines it has, and none starts where one of another length does.
    whole: bool,
    /// `lines` and `header` are those of an image that was found good.
    known: bool,
    header: [u32; HEADER],
}

impl<M: AsMut<[u32]>> Claims<M> {
    /// No claims, in memory that is all zero.
    pub fn new(lines: M) -> Self {
        Self { lines, used: 0, longest: 0, whole: true, known: false, header: [0; HEADER] }
    }

    /// The header of the image that the claims are of; none when they are of none, or not all of them are known.
    pub(super) fn of(&self) -> Option<[u32; HEADER]> {
        (self.known && self.whole).then_some(self.header)
    }

    /// Begins anew.
    pub(super) fn forget(&mut self) {
        // Memory that was never written is not there yet.
        self.lines.as_mut().iter_mut().take(self.used).for_each(|claims| *claims = 0);
        (self.used, self.longest, self.whole, self.known) = (0, 0, true, false);
    }

    /// Until [`Claims::stand_for`], these are the claims of no image.
    pub(super) fn unsettle(&mut self) {
        self.known = false;
    }

    /// The image they are of was found good; its sets can start at `lines` lines.
    pub(super) fn stand_for(&mut self, words: &[u32], lines: usize) {
        self.header.copy_from_slice(&words[..HEADER]);
        self.known = self.lines.as_mut().len() >= lines;
    }

    /// A cell names a set; true when another one does, so that it was looked at before.
    pub(super) fn claim(&mut self, line: u32, log: u32) -> bool {
        self.longest = self.longest.max(log);
        self.used = self.used.max(line as usize + 1);
        match self.lines.as_mut().get_mut(line as usize) {
            Some(claims @ 0) => {
                *claims = 1 << 4 | log;
                false
            }
            // An image has fewer cells than a word can count in 28 bits.
            Some(claims) if *claims & 15 == log => {
                *claims += 1 << 4;
                true
            }
            _ => {
                self.whole = false;
                false
            }
        }
    }

    /// A cell that named a set does not any more.
    pub(super) fn release(&mut self, line: u32, log: u32) {
        match self.lines.as_mut().get_mut(line as usize) {
            Some(claims) if *claims & 15 == log && *claims >> 4 > 0 => {
                *claims -= 1 << 4;
                if *claims >> 4 == 0 {
                    *claims = 0;
                }
            }
            _ => self.whole = false,
        }
    }

    /// Lines that the longest set takes, at least 1.
    pub(super) fn reach(&self) -> usize {
        (2usize << self.longest).div_ceil(LINE)
    }

    /// Log2 of the entries of the set that starts at a line, if cells name one.
    pub(super) fn at(&mut self, line: usize) -> Option<u32> {
        let claims = *self.lines.as_mut().get(line)?;
        (claims != 0).then_some(claims & 15)
    }
}
