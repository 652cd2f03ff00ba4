//! Whoever follows the account.

use std::time::{Duration, Instant};

use super::super::{Result, Store};
use super::Snapshot;
use super::known::Known;
use crate::ids::now;

/// Everything is read, and held against what is kept, after this.
const WHOLE: Duration = Duration::from_secs(600);

/// The account as it was read last. Reading it once more costs as much as what has changed.
#[derive(Default)]
pub struct Reading {
    known: Option<Known>,
    /// When everything was read last.
    whole_at: Option<Instant>,
    /// How often that was.
    wholes: u64,
}

impl Reading {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The account as it is now: the same as [`Store::snapshot`]. When this fails, or is dropped, all is read the next time. Not in
    /// a unit of work: what is read there may never happen.
    pub async fn read(&mut self, store: &Store) -> Result<Snapshot> {
        let mut tx = store.read().await?;
        let now = now();
        if let Some(mut known) = self.known.take()
            && known.follow(&mut tx, now).await?
        {
            if cfg!(debug_assertions) {
                let whole = Known::load(&mut tx, now).await?;
                let difference = known.difference(&whole);
                assert_eq!(difference, None, "what is kept of the account is not what is in the store");
            }
            return Ok(self.known.insert(known).snapshot());
        }
        let whole = Known::load(&mut tx, now).await?;
        self.whole_at = Some(Instant::now());
        self.wholes += 1;
        Ok(self.known.insert(whole).snapshot())
    }

    /// Reads everything, if that has not been done for long. Gives what was kept otherwise, which is a fault of
    /// this program.
    pub async fn check(&mut self, store: &Store) -> Result<Option<String>> {
        if self.whole_at.is_none_or(|at| at.elapsed() < WHOLE) {
            return Ok(None);
        }
        let mut tx = store.read().await?;
        let now = now();
        let whole = Known::load(&mut tx, now).await?;
        let followed = match self.known.take() {
            Some(mut known) => known.follow(&mut tx, now).await?.then_some(known),
            None => None,
        };
        self.wholes += 1;
        let difference = followed.and_then(|known| known.difference(&whole));
        self.whole_at = Some(Instant::now());
        self.known = Some(whole);
        Ok(difference)
    }

    /// How often everything was read.
    pub fn wholes(&self) -> u64 {
        self.wholes
    }
}
