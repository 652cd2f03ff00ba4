//! What of an image ends by the clock: told to its agent ahead of time, and by the clock of control as well.

use std::sync::Arc;

use sluicegate_api::agent::{End, Schedule};
use sluicegate_api::image::Hash;

use super::Compiled;
use super::entry::{Entry, Held, Wanted};

/// How far the clocks of agents may be ahead, milliseconds: they count the time that was left when they were told.
const AHEAD_MS: u64 = 5_000;

/// An image that follows another one by the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Later {
    /// When, Unix milliseconds.
    pub(crate) at_ms: u64,
    /// It.
    pub(crate) image: Arc<Compiled>,
}

/// Whether an agent that was told `told` knows `later`. Images are compared by their hashes.
pub(super) fn knows(told: &[Later], later: &[Later]) -> bool {
    let names = |later: &Later| (later.at_ms, later.image.hash);
    told.iter().map(names).eq(later.iter().map(names))
}

/// The message about what follows the image of `revision`, sent at `now_ms`; its revisions follow that one.
pub(super) fn schedule(revision: u64, image: &Compiled, later: &[Later], now_ms: u64) -> Schedule {
    let mut before = image;
    let ends = (revision + 1..).zip(later).map(|(revision, later)| {
        let delta = before.parts.difference(&later.image.parts).encode();
        before = &later.image;
        End {
            left_ms: later.at_ms.saturating_sub(now_ms),
            at_ms: later.at_ms,
            revision,
            hash: later.image.hash.to_vec(),
            delta,
        }
    });
    Schedule { base_hash: image.hash.to_vec(), ends: ends.collect() }
}

impl Wanted {
    /// Whether this is what the agent is to have from its end with hash `hash` on: then it is, under `revision`.
    fn skip_to(&mut self, hash: &Hash, revision: u64) -> bool {
        let Some(place) = self.later.iter().position(|later| later.image.hash == *hash) else { return false };
        self.image = self.later[place].image.clone();
        self.later = self.later[place + 1..].into();
        self.revision = revision;
        true
    }
}

impl Entry {
    /// What has ended by control's own clock is wanted no more, though nothing may have been compiled since.
    pub(super) fn pass_ends(&mut self, now_ms: u64) {
        let Some(wanted) = &mut self.wanted else { return };
        let passed = wanted.later.iter().take_while(|later| later.at_ms <= now_ms);
        let Some((place, last)) = passed.enumerate().last() else { return };
        let (hash, revision) = (last.image.hash, wanted.revision + place as u64 + 1);
        self.ahead |= wanted.skip_to(&hash, revision);
        self.floor = self.floor.max(revision);
    }

    /// An end that the agent has applied by itself, a little before it is one by this clock, is not taken back. One that is not due
    /// here was put off since, and the agent did not hear of that in time.
    pub(super) fn follow(&mut self, held: Held, now_ms: u64) {
        let Some(wanted) = &mut self.wanted else { return };
        let is_it = |later: &&Later| later.image.hash == held.hash && later.at_ms <= now_ms + AHEAD_MS;
        if wanted.later.iter().any(|later| is_it(&later)) {
            // It may have been told by another replica, and so under another revision than here.
            self.ahead |= wanted.skip_to(&held.hash, held.revision);
        }
    }

    /// The agent enforces an image that it was not sent last: it came to that by the clock. Whether that is what it is to have or
    /// not, it is what it has.
    pub(super) fn went_ahead(&mut self, held: Held, now_ms: u64) {
        let known = |told: &[Later]| told.iter().position(|later| later.image.hash == held.hash);
        let wanted = self.wanted.as_ref().map(|wanted| (wanted.image.clone(), wanted.later.clone()));
        self.follow(held, now_ms);
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.could_have_gone_to(held)) else {
            return;
        };
        let place = stream.told.as_deref().and_then(|told| Some((told, known(told)?)));
        let image = match (place, &wanted) {
            (Some((told, place)), _) => Some(told[place].image.clone()),
            (None, Some((image, _))) if image.hash == held.hash => Some(image.clone()),
            (None, Some((_, later))) => known(later).map(|place| later[place].image.clone()),
            (None, None) => None,
        };
        // What it knows of later ends goes on; where it went by what it was told before, that is not known here.
        stream.told = place.map(|(told, place)| told[place + 1..].into());
        stream.holds(held);
        stream.notify.notify_one();
        if let Some(image) = image {
            self.keep(image);
        }
    }
}
