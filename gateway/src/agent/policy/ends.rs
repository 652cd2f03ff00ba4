//! What the image in force becomes by the clock: remembered with it, applied as changes from control are, and where that cannot be, the
//! gate is shut.

use std::time::{Duration, Instant};

use sluicegate_api::agent::Schedule;
use sluicegate_api::image::Hash;

use super::super::ends::{Ends, GRACE, Moment};
use super::super::store::{Kept, Store, StoredImage};
use super::{Exits, Outcome, Policy, Refusal, Until, outcome};
use crate::datapath::{Datapath, InForce};

/// What is known of the future of the image in force.
#[derive(Default)]
pub(in super::super) struct Clock {
    ends: Ends,
    /// What is on disk of it.
    kept: Vec<Kept>,
    /// Whether what is on disk could not be read.
    damaged: bool,
    /// Whether the image in force is not known to be on disk, where one from before an end may be.
    behind: bool,
    /// Why nothing may be forwarded: something ended, and what is in force grants it still.
    shut: Option<String>,
    /// When the moment was last remembered.
    seen: Option<Instant>,
}

/// What the last run left on disk, with everything taken from it that has ended.
pub(in super::super) struct Remembered {
    pub(super) image: Option<StoredImage>,
    pub(super) trouble: Option<String>,
    pub(super) clock: Clock,
    ended: bool,
}

impl Clock {
    /// How many ends are known.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Why nothing is forwarded, where that is so.
    pub(super) fn shut(&self) -> Option<String> {
        self.shut.clone()
    }

    fn shut_because(&mut self, why: &str) {
        let sentence = format!(
            "a grant has ended that cannot be taken from what is in force here, so nothing is forwarded until control is reached: {why}"
        );
        tracing::error!("{sentence}");
        self.shut = Some(sentence);
    }

    /// For how long what is in force may be enforced, whoever is there to end it; `None` is for as long as it may otherwise.
    fn cap(&self, boot_ms: u64) -> Option<Duration> {
        match self.shut {
            Some(_) => Some(Duration::ZERO),
            None => self.ends.left(boot_ms).map(|left| left + GRACE),
        }
    }
}

impl Remembered {
    /// Reads it.
    pub(in super::super) fn load(store: &Store) -> Self {
        let now = &Moment::now();
        let mut clock = Clock::default();
        let (mut image, mut trouble) = match store.image() {
            Ok(image) => (image, None),
            Err(e) => (None, Some(format!("{e:#}; control is asked for a whole image"))),
        };
        match store.ends() {
            Ok(kept) => clock.kept = anew(store, kept, now),
            Err(e) => {
                clock.damaged = true;
                clock.shut_because(&format!("{e:#}"));
                return Self { image: None, trouble, clock, ended: false };
            }
        }
        if let Some(stored) = &mut image {
            trouble = stored.cut.take();
        }
        let mut remembered = Self { image, trouble, clock, ended: false };
        remembered.pass(store, now);
        remembered
    }

    /// Takes from the image what has ended, by what was said of it last.
    pub(super) fn pass(&mut self, store: &Store, now: &Moment) {
        // What was said before may lead to an image of which something else was said since.
        let mut said = self.clock.kept.len();
        while let Some(stored) = &self.image {
            let hash = stored.hashes.root();
            let of = |kept: &Kept| Ends::of(&kept.schedule, &hash, kept.at.boot_ms);
            let newest = self.clock.kept[..said].iter().position(|kept| of(kept).is_some());
            let Some(newest) = newest else { return };
            self.clock.ends = of(&self.clock.kept[newest]).unwrap_or_default();
            self.pass_known(store, now);
            said = newest;
        }
    }

    /// The same, by the ends that are known of it.
    fn pass_known(&mut self, store: &Store, now: &Moment) {
        let (Some(stored), clock) = (&mut self.image, &mut self.clock) else { return };
        while let Some(delta) = clock.ends.due(now.boot_ms) {
            self.ended = true;
            let (base, revision) = (stored.hashes.root(), delta.revision);
            if let Err(e) = stored.change(revision, &delta.hash, &delta.delta) {
                clock.shut_because(&format!("{e:#}"));
                self.image = None;
                return;
            }
            tracing::info!(revision, "a grant ended while this agent was away");
            let hash = stored.hashes.root();
            let written = store.put_change(&base, revision, &hash, &delta.delta, &stored.image);
            clock.behind = written.is_err();
            if let Err(e) = written {
                tracing::warn!(
                    "a grant that ended could not be taken from what is remembered; a restart does so again: {e:#}"
                );
            }
            clock.ends.done();
        }
    }

    /// Whether what an earlier run left in force may grant what has ended.
    pub(in super::super) fn has_ended(&self) -> bool {
        self.ended || self.clock.shut.is_some()
    }

    /// For how long what an earlier run left in force may be enforced before this is taken up.
    pub(in super::super) fn cap(&self, in_force: Option<InForce>) -> Option<Duration> {
        let now = Moment::now().boot_ms;
        let left = Ends::kept(&self.clock.kept, &in_force?.hash);
        match self.clock.shut.is_some() || left.due(now).is_some() {
            true => Some(Duration::ZERO),
            false => left.left(now).map(|left| left + GRACE),
        }
    }
}

impl Policy {
    /// For how long what is in force may be enforced by the ends that are known.
    pub(in super::super) fn cap(&self) -> Option<Duration> {
        self.clock.cap(Moment::now().boot_ms)
    }

    /// Time until something of the image in force ends.
    pub(in super::super) fn ends_in(&self) -> Option<Duration> {
        self.clock.ends.left(Moment::now().boot_ms)
    }

    /// How many ends are known.
    pub(in super::super) fn ends(&self) -> usize {
        self.clock.len()
    }

    /// Whether the clock has brought what is in force, and control no other since.
    pub(in super::super) fn has_ended(&self) -> bool {
        let Some(held) = &self.held else { return false };
        let newest = self.clock.kept.iter().find(|kept| Ends::of(&kept.schedule, &held.hash, 0).is_some());
        newest.is_some_and(|kept| kept.schedule.base_hash[..] != held.hash[..])
    }

    /// Whether nothing may be forwarded, because something ended and could not be taken from what is in force.
    pub(in super::super) fn is_shut(&self) -> bool {
        self.clock.shut.is_some()
    }

    /// Applies the next change that the clock brings, when it is due; otherwise there is no outcome.
    pub(in super::super) fn end(
        &mut self,
        datapath: &mut dyn Datapath,
        exits: &mut Exits<'_>,
    ) -> Option<Outcome> {
        let delta = self.clock.ends.due(Moment::now().boot_ms)?.clone();
        tracing::info!(revision = delta.revision, "a grant has ended");
        let result = self.change(datapath, &delta, Until::Known, exits, Instant::now());
        match &result {
            Ok(_) => {
                self.clock.ends.done();
                self.clock.shut = None;
            }
            Err(why) => {
                self.clock.shut_because(&why.to_string());
                // The kernel may take it yet; nothing else will.
                if !matches!(why, Refusal::Apply(_)) {
                    self.clock.ends = Ends::default();
                }
            }
        }
        let refused = result.is_err();
        let mut outcome = outcome(delta.revision, &delta.hash, result);
        outcome.resync = refused;
        self.distrust |= refused;
        Some(outcome)
    }

    /// What control says of the image in force without sending it: from now on this ends, and nothing else.
    pub(in super::super) fn reschedule(&mut self, schedule: Schedule) {
        let Some((revision, hash)) = self.held.as_ref().map(|held| (held.revision, held.hash)) else {
            return;
        };
        if Ends::of(&schedule, &hash, 0).is_none() {
            tracing::warn!(
                "control says when grants end of an image that is not in force; it is passed over"
            );
            return;
        }
        let told = self.expect(Some(schedule), &hash).and_then(|()| self.write_again());
        self.note_written(&told);
        self.trouble = self.forget_unless(revision, told).or_else(|| self.forget_ends());
    }

    /// Remembers the image in force where the one on disk is from before an end: what is told of ends soon names that one no more.
    fn write_again(&self) -> anyhow::Result<()> {
        match self.held.as_ref().filter(|_| self.clock.behind) {
            Some(held) => self.store.put_image(held.revision, &held.hash, &held.image.encode()),
            None => Ok(()),
        }
    }

    /// Remembers the time now and then, while something is to end.
    pub(in super::super) fn remember_moment(&mut self, every: Duration) -> anyhow::Result<()> {
        if self.clock.len() == 0 || self.clock.seen.is_some_and(|seen| seen.elapsed() < every) {
            return Ok(());
        }
        self.clock.seen = Some(Instant::now());
        self.store.put_seen(&Moment::now())
    }

    /// Whether what `ends` says is of the image with this hash; saying nothing is.
    pub(super) fn fits(ends: Option<&Schedule>, hash: &Hash) -> Result<(), Refusal> {
        match ends.is_none_or(|ends| Ends::of(ends, hash, 0).is_some()) {
            true => Ok(()),
            false => Err(Refusal::Schedule),
        }
    }

    /// An image from control came into force: whatever was wrong with the one before, this one has nothing that has ended.
    pub(super) fn reopen(&mut self) {
        self.clock.shut = None;
    }

    /// The image in force is on disk, or is not.
    pub(super) fn note_written(&mut self, written: &anyhow::Result<()>) {
        self.clock.behind = written.is_err();
    }

    /// Of the image with this hash `ends` says what ends by the clock. On disk when this returns, before the image is.
    pub(super) fn expect(&mut self, ends: Option<Schedule>, hash: &Hash) -> anyhow::Result<()> {
        let now = Moment::now();
        self.clock.ends =
            ends.as_ref().and_then(|ends| Ends::of(ends, hash, now.boot_ms)).unwrap_or_default();
        if self.clock.len() == 0 {
            return Ok(());
        }
        let before = self.clock.kept.drain(..).next();
        let said = Kept { schedule: ends.unwrap_or_default(), at: now };
        self.clock.kept = [said].into_iter().chain(before).collect();
        self.store.put_ends(&self.clock.kept)
    }

    /// Nothing is left on disk of ends where nothing ends; what is wrong when it could not be removed.
    pub(super) fn forget_ends(&mut self) -> Option<String> {
        if self.clock.len() > 0 || (self.clock.kept.is_empty() && !self.clock.damaged) {
            return None;
        }
        let removed = self.store.no_ends();
        if removed.is_ok() {
            self.clock.kept.clear();
            self.clock.damaged = false;
        }
        removed.err().map(|e| format!("after a restart something may end that control says does not: {e:#}"))
    }

    /// What is in force though it is not held can lose nothing any more.
    pub(super) fn shut_unless_held(&mut self, in_force: Option<InForce>) {
        let Some(in_force) = in_force.filter(|_| self.held.is_none()) else { return };
        self.clock.ends = Ends::kept(&self.clock.kept, &in_force.hash);
        if self.clock.ends.due(Moment::now().boot_ms).is_some() {
            self.clock.shut_because("the image that was found in force is not the remembered one");
        }
    }
}

/// What is on disk as told now, since the moments in it may be of an earlier run of the kernel.
fn anew(store: &Store, kept: Vec<Kept>, now: &Moment) -> Vec<Kept> {
    let seen = store.seen();
    let earlier = kept.iter().any(|kept| kept.at.boot != now.boot);
    let kept: Vec<Kept> = kept.into_iter().map(|kept| kept.told_at(now, seen.as_ref())).collect();
    if earlier && let Err(e) = store.put_ends(&kept) {
        tracing::warn!("after another start of this host grants may end early: {e:#}");
    }
    kept
}
