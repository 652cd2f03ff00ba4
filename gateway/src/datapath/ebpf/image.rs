//! The double buffer of images: fill the half nobody reads, publish it with one store, wait until nobody reads the other.

use std::ops::Range;

use anyhow::Context as _;
use aya::maps::{Array, MapData};
use sluicegate_api::image::{Hash, Image};
use sluicegate_engine::classify::Line;
use sluicegate_engine::image::{LINE, header};
use sluicegate_engine::tables::Active;

use super::sys::{GracePeriod, Mapped};
use crate::datapath::check::{Checker, Room, changed, epoch};
use crate::datapath::{ApplyError, Change, InForce};

const LINE_BYTES: usize = LINE * 4;

/// The image maps of one datapath.
pub(super) struct Images {
    active: Mapped,
    halves: Mapped,
    /// Bytes of one half.
    half: usize,
    /// Revision and hash of each half's image, for an agent that takes over.
    records: Array<MapData, [u64; 5]>,
    grace: GracePeriod,
    /// The last wait failed, or an earlier agent may have died in one: programs may still read the idle half.
    unsettled: bool,
    rule_slots: u32,
    checker: Checker,
    /// Words in which the idle half differs from the image in force; `None` when that is not known, after a start and after an
    /// image that came as a whole: then the two are compared once.
    behind: Option<Vec<Range<usize>>>,
}

impl Images {
    /// Over the pinned maps. `lines` is the capacity of one half.
    pub(super) fn new(
        active: &MapData,
        image: &MapData,
        records: Array<MapData, [u64; 5]>,
        lines: u32,
        rule_slots: u32,
    ) -> anyhow::Result<Self> {
        use std::os::fd::AsFd as _;
        let half = lines as usize * LINE_BYTES;
        Ok(Self {
            active: Mapped::new(active.fd().as_fd(), 8)
                .context("map ACTIVE could not be mapped into memory")?,
            halves: Mapped::new(image.fd().as_fd(), 2 * half)
                .context("map IMAGE could not be mapped into memory")?,
            half,
            records,
            grace: GracePeriod::new().context("the maps for waiting could not be made")?,
            unsettled: true,
            rule_slots,
            checker: Checker::new(),
            behind: None,
        })
    }

    /// The image the programs judge by.
    pub(super) fn in_force(&self) -> Option<InForce> {
        let active = Active(self.active.load(0));
        if active.epoch() == 0 {
            return None;
        }
        let record = self.records.get(&active.half(), 0).ok()?;
        Some(unpack(record))
    }

    /// Which half the programs judge by.
    pub(super) fn active(&self) -> Active {
        Active(self.active.load(0))
    }

    /// The image in force, as long as its header says; none before the first.
    pub(super) fn lines(&self) -> &[Line] {
        let active = self.active();
        if active.epoch() == 0 {
            return &[];
        }
        let half = self.halves.lines(active.half() as usize * self.half, self.half);
        let words = half.first().map_or(0, |head| head[header::WORDS] as usize);
        half.get(..words / LINE).unwrap_or(half)
    }

    /// Exchanges the image. When it returns, no packet is judged by the one before. With `change`, which leads to it from the
    /// image in force, only what differs is looked at and written. `beside` writes what comes into force with the image, into
    /// the half it is told. The half of the image is returned.
    pub(super) fn exchange(
        &mut self,
        next: InForce,
        image: &Image,
        change: Option<Change<'_>>,
        beside: impl FnOnce(u32) -> anyhow::Result<()>,
    ) -> Result<u32, ApplyError> {
        let room = Room { words: (self.half / 4) as u64, rule_slots: self.rule_slots };
        let in_force = self.in_force();
        let change = change.filter(|change| in_force.is_some_and(|now| now.hash == change.base));
        let lines = self.checker.check(in_force, next, image, change, room)?;
        let kernel = |e: anyhow::Error| ApplyError::Kernel(e);
        if self.unsettled {
            self.settle().map_err(kernel)?;
        }
        let current = Active(self.active.load(0));
        let idle = 1 - current.half();
        let target = self.halves.bytes(idle as usize * self.half, lines.len() * LINE_BYTES);
        let changes = change.map(|change| changed(change.undo, image.words.len()));
        match (&changes, self.behind.take()) {
            (Some(changes), Some(behind)) => {
                behind.iter().chain(changes).for_each(|part| copy(target, &image.words, part));
            }
            _ => copy_changed(target, &image.words),
        }
        beside(idle).map_err(kernel)?;
        self.records
            .set(idle, pack(next.revision, &next.hash), 0)
            .map_err(|e| kernel(anyhow::Error::new(e).context("map IN_FORCE could not be written")))?;
        self.active.store(0, Active::new(idle, epoch(next.revision)).0);
        // The half that was read so far lacks this change and nothing else.
        self.behind = changes;
        // The image is in force whether or not this works; the half that is idle now is not written before it has.
        if let Err(e) = self.settle() {
            tracing::warn!("revision {} is in force, but {e:#}", next.revision);
        }
        Ok(idle)
    }

    /// Waits until no packet is judged by the idle half any more.
    fn settle(&mut self) -> anyhow::Result<()> {
        self.unsettled = true;
        self.wait_for_programs()?;
        self.unsettled = false;
        Ok(())
    }

    /// Waits until every packet that is in the hands of a program now is out of them.
    pub(super) fn wait_for_programs(&self) -> anyhow::Result<()> {
        self.grace.wait().context("it cannot be told when the programs are done with what was before")
    }

    /// Route numbers of the image in force are below this.
    pub(super) fn routes(&self) -> u32 {
        self.lines().as_flattened().get(header::ROUTES).copied().unwrap_or(0)
    }

    /// Rule slots of the image in force: its counters are the ones worth reading.
    pub(super) fn rule_slots(&mut self) -> u32 {
        let active = Active(self.active.load(0));
        if active.epoch() == 0 {
            return 0;
        }
        let at = active.half() as usize * self.half + sluicegate_engine::image::header::RULE_SLOTS * 4;
        self.halves.bytes(at, 4).first_chunk().copied().map_or(0, u32::from_ne_bytes)
    }
}

/// Writes the words of a part, as far as the image has them.
fn copy(target: &mut [u8], words: &[u32], part: &Range<usize>) {
    let part = part.start.min(words.len())..part.end.min(words.len());
    target[part.start * 4..part.end * 4].copy_from_slice(bytes(&words[part]));
}

fn bytes(words: &[u32]) -> &[u8] {
    // SAFETY: the bytes of initialised words.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(words)) }
}

/// Writes only the pages that differ: after a small change almost none do, and reading is cheaper than dirtying lines that
/// the packet path shares.
fn copy_changed(target: &mut [u8], words: &[u32]) {
    const PAGE_WORDS: usize = 1024;
    for (to, from) in target.chunks_mut(PAGE_WORDS * 4).zip(words.chunks(PAGE_WORDS)) {
        let from = bytes(from);
        if to != from {
            to.copy_from_slice(from);
        }
    }
}

fn pack(revision: u64, hash: &Hash) -> [u64; 5] {
    let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|j| hash[i * 8 + j]));
    [revision, word(0), word(1), word(2), word(3)]
}

fn unpack(record: [u64; 5]) -> InForce {
    let mut hash = [0; 32];
    for (to, word) in hash.chunks_mut(8).zip(&record[1..]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    InForce { revision: record[0], hash }
}

#[cfg(test)]
mod tests {
    use sluicegate_api::image::Delta;

    use super::*;

    #[test]
    fn records_round_trip() {
        let hash = std::array::from_fn(|i| i as u8);
        assert_eq!(unpack(pack(7, &hash)), InForce { revision: 7, hash });
    }

    #[test]
    fn copying_makes_equal() {
        let words: Vec<u32> = (0..3000).collect();
        let mut bytes = vec![0xff; 12_000];
        copy_changed(&mut bytes, &words);
        let expected: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        assert_eq!(bytes, expected);
    }

    /// Two halves written in turn, each only where it is behind, against the images as they are.
    #[test]
    fn writing_what_is_behind_makes_both_halves_equal() {
        let mut halves = [vec![0xee; 4 * 4096], vec![0xdd; 4 * 4096]];
        let mut now = Image { words: (0..2048).collect(), ..Image::default() };
        copy_changed(&mut halves[0][..now.words.len() * 4], &now.words);
        let mut behind = None;
        for step in 1..200u32 {
            let mut next = now.clone();
            next.words.resize((1024 + step.wrapping_mul(97) % 3000) as usize, step);
            for i in 0..step % 7 {
                let at = step.wrapping_mul(31).wrapping_add(i * 513) as usize % next.words.len();
                next.words[at] = step;
            }
            let undo = now.change(&Delta::between(&now, &next)).unwrap();
            let changes = changed(&undo, now.words.len());
            let target = &mut halves[step as usize % 2][..now.words.len() * 4];
            match behind.take() {
                Some(behind) => {
                    let behind: Vec<Range<usize>> = behind;
                    behind.iter().chain(&changes).for_each(|part| copy(target, &now.words, part));
                }
                None => copy_changed(target, &now.words),
            }
            assert!(*target == *bytes(&now.words), "step {step}");
            // As after a start, or a whole image.
            behind = (step % 50 != 0).then_some(changes);
        }
    }
}
