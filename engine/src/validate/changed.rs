//! What a change can have broken in an image that was good.

use core::ops::Range;

use super::claims::Claims;
use super::sections::Sections;
use super::{Checked, InvalidImage, validate_with};
use crate::classify::Line;
use crate::image::{Decision, HEADER, LINE, header};

/// Whether an image is good that came from a good one: the answer of [`validate_with`], at the cost of what was changed.
///
/// `claims` are of the image before, or of none; they become those of this one, if it is good. `before` has what words were
/// where they differ now: their offset, and they; those beyond the shorter of the two images among them.
///
/// Why it is the same answer: a section that stayed where it was and whose limits did not fall is good where nothing was
/// changed, so its changed words, and those by which it grew, are checked. A cell that was not changed is good if the set it
/// names is; sets that are named and have a changed line are checked, and so are those that were not named before. Whatever
/// else changes, and whatever is found bad, is left to a look at the whole image.
pub fn revalidate<M: AsMut<[u32]>, W: AsRef<[u32]>>(
    lines: &[Line],
    before: &[(u32, W)],
    claims: &mut Claims<M>,
) -> Result<(), InvalidImage> {
    match claims.of() {
        Some(header) if Change { header, before }.good(lines.as_flattened(), claims).is_some() => Ok(()),
        _ => validate_with(lines, claims),
    }
}

struct Change<'a, W> {
    /// Of the image before.
    header: [u32; HEADER],
    before: &'a [(u32, W)],
}

impl<W: AsRef<[u32]>> Change<'_, W> {
    /// `None` when it takes a look at the whole image to say.
    fn good<M: AsMut<[u32]>>(&self, words: &[u32], claims: &mut Claims<M>) -> Option<()> {
        let old = Sections::of_header(&self.header, self.header[header::WORDS] as usize).ok()?;
        let new = Sections::of(words).ok()?;
        if !self.rises() || old.blocks.start != new.blocks.start || old.services.start != new.services.start {
            return None;
        }
        claims.unsettle();
        let image = Checked { words, sections: &new };
        for (old, new) in old.plain.iter().zip(&new.plain) {
            let range = new.range();
            if !new.admits(old) {
                image.plain(new, range).ok()?;
                continue;
            }
            self.within(&range).try_for_each(|(part, _)| image.plain(new, part).ok())?;
            image.plain(new, old.range().end.clamp(range.start, range.end)..range.end).ok()?;
        }
        self.cells(&image, &old, claims)?;
        self.sets(&image, &old, claims)?;
        image.nobody().ok()?;
        claims.stand_for(words, new.service_lines());
        claims.of().map(|_| ())
    }

    /// Settles what the changed cells claim, and those by which the section grew or shrank.
    fn cells<M: AsMut<[u32]>>(
        &self,
        image: &Checked<'_>,
        old: &Sections,
        claims: &mut Claims<M>,
    ) -> Option<()> {
        let new = image.sections;
        let both = new.blocks.start..new.blocks.end.min(old.blocks.end);
        let mut release = |cell: u32| {
            if cell != 0 && !Decision(cell).is_set() {
                claims.release(cell >> 4, cell & 15);
            }
        };
        self.within(&old.blocks).for_each(|(_, cells)| cells.iter().for_each(|&cell| release(cell)));
        // Words that the image lost with its end are all among those of `before`.
        let length = image.words.len();
        let gone = both.end.min(length)..old.blocks.end.min(length);
        self.unchanged(&gone, |part| image.words[part].iter().for_each(|&cell| release(cell)));
        for at in self.within(&both).flat_map(|(part, _)| part).chain(both.end..new.blocks.end) {
            image.cell(at, claims).ok()?;
        }
        if new.slots < old.slots {
            let decisions = image.words[new.blocks.clone()].iter().map(|&cell| Decision(cell));
            decisions.filter(|cell| cell.is_set()).all(|cell| cell.slot() < new.slots).then_some(())?;
        }
        Some(())
    }

    /// Checks the sets that are named and have changed lines.
    fn sets<M: AsMut<[u32]>>(
        &self,
        image: &Checked<'_>,
        old: &Sections,
        claims: &mut Claims<M>,
    ) -> Option<()> {
        let new = image.sections;
        let reach = claims.reach();
        let most = new.services.start..new.services.end.max(old.services.end);
        let line = |at: usize| (at - most.start) / LINE;
        let mut done = 0;
        let mut check = |changed: Range<usize>, claims: &mut Claims<M>| {
            if changed.is_empty() {
                return Some(());
            }
            let (first, last) = (line(changed.start), line(changed.end - 1));
            for start in (first + 1).saturating_sub(reach).max(done)..=last {
                let Some(log) = claims.at(start) else { continue };
                if start + ((2 << log) / LINE) > first {
                    let start = start as u32;
                    (new.holds_set(start, log) && image.set(0, start, log).is_ok()).then_some(())?;
                }
            }
            done = done.max(last + 1);
            Some(())
        };
        if new.slots < old.slots {
            return check(most.clone(), claims);
        }
        let shorter = new.services.end.min(old.services.end);
        self.within(&(most.start..shorter)).try_for_each(|(part, _)| check(part, claims))?;
        check(shorter..most.end, claims)
    }

    /// Whether the changed parts rise and do not meet.
    fn rises(&self) -> bool {
        let mut end = 0;
        self.before.iter().all(|(start, run)| {
            let rises = *start as usize >= end;
            end = *start as usize + run.as_ref().len();
            rises
        })
    }

    /// The changed parts of a range of words, and what they were.
    fn within<'b>(
        &'b self,
        range: &'b Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, &'b [u32])> + use<'b, W> {
        let first =
            self.before.partition_point(|(start, run)| *start as usize + run.as_ref().len() <= range.start);
        let runs = self.before[first..].iter().map(|(start, run)| (*start as usize, run.as_ref()));
        runs.take_while(|(start, _)| *start < range.end).map(|(start, run)| {
            let part = start.max(range.start)..(start + run.len()).min(range.end);
            (part.clone(), &run[part.start - start..part.end - start])
        })
    }

    /// Calls `f` for the parts of a range of words that were not changed.
    fn unchanged(&self, range: &Range<usize>, mut f: impl FnMut(Range<usize>)) {
        let mut at = range.start;
        for (changed, _) in self.within(range) {
            f(at..changed.start.max(at));
            at = changed.end;
        }
        f(at..range.end.max(at));
    }
}
