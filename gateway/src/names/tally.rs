//! How questions came out, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a question came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// With addresses.
    Answered,
    /// With the word that there are none.
    Nothing,
    /// The asker may not ask, or not this.
    Refused,
    /// The name servers gave no answer.
    Failed,
    /// Nothing of it was open in time.
    Late,
    /// No router said anything.
    Silent,
    /// More were asked at once than are.
    Limited,
    /// It was no question.
    Malformed,
}

/// By their places in [`Came`].
const NAMES: [&str; 8] = ["answered", "none", "refused", "failed", "late", "silent", "limited", "malformed"];

/// Counts since the agent started.
#[derive(Debug, Default)]
pub(super) struct Tally([AtomicU64; NAMES.len()]);

impl Tally {
    pub(super) fn note(&self, came: Came) {
        self.0[came as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Every count with its name.
    pub(super) fn all(&self) -> Vec<(&'static str, u64)> {
        NAMES.into_iter().zip(&self.0).map(|(name, count)| (name, count.load(Ordering::Relaxed))).collect()
    }
}
