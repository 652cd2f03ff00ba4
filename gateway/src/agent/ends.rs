//! What of the image in force ends by the clock, and when: grants that are bound in time end on time where control is away.
//!
//! Control says how much time is left, so that this host's clock may be off; it is counted on the clock that goes on since the host was
//! started, suspended or not (CLOCK_BOOTTIME). After a start of the host there is only the wall clock: whatever would end a grant
//! sooner counts, and where that clock went back, everything has ended.

use std::collections::VecDeque;
use std::time::Duration;

use sluicegate_api::agent::{Delta, Schedule};

use super::store::Kept;
use crate::system;

/// After the moment of an end the datapath closes altogether where the agent did not bring the image after it into force: a reserve for
/// bringing it there, and the longest that a grant stays where the agent is not there to end it.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// A moment by every clock there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Names the run of the host's kernel.
    pub(crate) boot: String,
    /// Milliseconds since that began.
    pub(crate) boot_ms: u64,
    /// Milliseconds since 1970.
    pub(crate) wall_ms: u64,
}

impl Moment {
    /// This one.
    pub(crate) fn now() -> Self {
        Self { boot: system::boot_id(), boot_ms: system::boottime_ms(), wall_ms: system::unix_ms() }
    }
}

/// What ends, the next one first.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ends(VecDeque<End>);

/// A change to the image that the clock brings.
#[derive(Debug, PartialEq)]
struct End {
    /// On the clock since the host was started, milliseconds.
    due_ms: u64,
    delta: Delta,
}

impl Ends {
    /// What `schedule` says of the image with hash `held`, where its times count from `boot_ms` on; `None` when it says nothing of it.
    pub(super) fn of(schedule: &Schedule, held: &[u8], boot_ms: u64) -> Option<Self> {
        let bases = [&schedule.base_hash].into_iter().chain(schedule.ends.iter().map(|end| &end.hash));
        let place = bases.clone().position(|base| base[..] == *held)?;
        let ends = schedule.ends.iter().zip(bases).skip(place).map(|(end, base)| End {
            due_ms: boot_ms.saturating_add(end.left_ms),
            delta: Delta {
                base_revision: end.revision.saturating_sub(1),
                base_hash: base.clone(),
                revision: end.revision,
                hash: end.hash.clone(),
                delta: end.delta.clone(),
            },
        });
        Some(Self(ends.collect()))
    }

    /// What the newest of `kept` that knows the image with hash `held` says of it. All of them are of this run of the kernel.
    pub(super) fn kept(kept: &[Kept], held: &[u8]) -> Self {
        kept.iter().find_map(|kept| Self::of(&kept.schedule, held, kept.at.boot_ms)).unwrap_or_default()
    }

    /// The change that is due.
    pub(super) fn due(&self, boot_ms: u64) -> Option<&Delta> {
        self.0.front().filter(|end| end.due_ms <= boot_ms).map(|end| &end.delta)
    }

    /// The change that was due is made.
    pub(super) fn done(&mut self) {
        self.0.pop_front();
    }

    /// Time until the next one.
    pub(super) fn left(&self, boot_ms: u64) -> Option<Duration> {
        self.0.front().map(|end| Duration::from_millis(end.due_ms.saturating_sub(boot_ms)))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Kept {
    /// The same as told `now`. `seen` is the last moment that the agent remembered.
    pub(super) fn told_at(mut self, now: &Moment, seen: Option<&Moment>) -> Self {
        let of_this_run = |moment: &&Moment| moment.boot == self.at.boot && moment.boot_ms >= self.at.boot_ms;
        // A host that does not name its runs, or begins to count anew in one (another time namespace), is as one that was started anew.
        let (passed, wall) = if of_this_run(&now) && !now.boot.is_empty() {
            (Some(now.boot_ms - self.at.boot_ms), None)
        } else {
            let last = seen.filter(of_this_run).unwrap_or(&self.at);
            let away = now.wall_ms.checked_sub(last.wall_ms);
            (away.map(|away| away.saturating_add(last.boot_ms - self.at.boot_ms)), Some(now.wall_ms))
        };
        for end in &mut self.schedule.ends {
            let by_wall = wall.map_or(u64::MAX, |wall| end.at_ms.saturating_sub(wall));
            end.left_ms = passed.map_or(0, |passed| end.left_ms.saturating_sub(passed)).min(by_wall);
        }
        self.at = now.clone();
        self
    }
}

#[cfg(test)]
mod tests;
