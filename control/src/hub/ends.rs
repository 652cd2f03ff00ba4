//! What of an image ends by the clock: told to its agent ahead of time, and by the clock of control as well.

use std::sync::Arc;

use sluicegate_api::agent::{End, Schedule};
use sluicegate_api::image::Hash;

use super::Compiled;
use super::entry::{Entry, Held, Wanted};

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

    /// The agent has applied by itself what was to come with time: that is what it is to have. It may have been told by another
    /// replica, and so under another revision than here.
    pub(super) fn went_ahead(&mut self, held: Held) {
        let was_wanted = self.wanted.as_ref().is_some_and(|wanted| wanted.image.hash == held.hash);
        let to = self.wanted.as_mut().is_some_and(|wanted| wanted.skip_to(&held.hash, held.revision));
        if !to && !was_wanted {
            return;
        }
        self.ahead |= to;
        let Some(wanted) = &mut self.wanted else { return };
        wanted.revision = held.revision;
        let image = wanted.image.clone();
        if let Some(stream) = &mut self.stream
            && stream.nothing_in_flight()
        {
            // What it knows of later ends goes on.
            let place =
                stream.told.iter().flat_map(|told| told.iter()).position(|l| l.image.hash == held.hash);
            if let Some((place, told)) = place.zip(stream.told.as_mut()) {
                *told = told[place + 1..].into();
            }
            stream.holds(held);
            self.keep(image);
        }
    }
}
