//! Posture over time: who was heard of, and who has not been for too long.
//!
//! An agent says what is known of its machine when it connects, when that changes, and once a minute. The words are written down
//! in the store (see [`crate::store::Store::note_facts`]); here is when they were last said, so that what was said once does not count
//! for ever.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::geo::Places;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// For how long an agent's word counts: three of the reports that it sends once a minute.
pub const LIFETIME: Duration = Duration::from_secs(180);
/// How often silence is looked for, and how machines stand is counted.
const LOOK: Duration = Duration::from_secs(15);
/// How long an agent that turned too often is not believed.
const HOLD: Duration = Duration::from_secs(30);

/// When each agent was last heard of at this control.
#[derive(Default)]
pub struct Watch {
    heard: Mutex<HashMap<String, Heard>>,
}

struct Heard {
    at: Instant,
    /// What it said; `None` when that is to be written again.
    mark: Option<u64>,
    /// Until when it is not believed.
    held: Option<Instant>,
}

impl Heard {
    fn is_held(&self, now: Instant) -> bool {
        self.held.is_some_and(|until| now < until)
    }
}

impl Watch {
    /// Whether an agent says something else than what was noted last. What is no news is a sign of life.
    pub fn is_news(&self, peer: &str, mark: u64, now: Instant) -> bool {
        let mut heard = self.lock();
        let Some(entry) = heard.get_mut(peer) else { return true };
        entry.at = now;
        !entry.is_held(now) && entry.mark != Some(mark)
    }

    /// What an agent said is written down; without a mark, not all of it.
    pub fn noted(&self, peer: &str, mark: Option<u64>, now: Instant) {
        self.lock().insert(peer.to_owned(), Heard { at: now, mark, held: None });
    }

    /// Whether an agent is not believed now.
    pub fn is_held(&self, peer: &str, now: Instant) -> bool {
        self.lock().get(peer).is_some_and(|entry| entry.is_held(now))
    }

    /// An agent is not believed for a while.
    pub fn hold(&self, peer: &str, now: Instant) {
        self.lock().insert(peer.to_owned(), Heard { at: now, mark: None, held: now.checked_add(HOLD) });
    }

    /// Whatever is said next is written down again, for the store may know otherwise.
    pub fn forget_marks(&self) {
        self.lock().values_mut().for_each(|entry| entry.mark = None);
    }

    /// Which of the agents that have a stream here were not heard of for too long; the others are forgotten, unless they are not
    /// believed: going away does not help them.
    pub fn silent(&self, streams: &[String], now: Instant) -> Vec<String> {
        let mut heard = self.lock();
        let open: HashSet<&String> = streams.iter().collect();
        heard.retain(|peer, entry| open.contains(peer) || entry.is_held(now));
        let mut silent = Vec::new();
        for peer in streams {
            let entry = heard.entry(peer.clone()).or_insert(Heard { at: now, mark: None, held: None });
            if now.saturating_duration_since(entry.at) >= LIFETIME {
                // Said again, it is written again.
                entry.mark = None;
                silent.push(peer.clone());
            }
        }
        silent
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Heard>> {
        self.heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Keeps verdicts true while nobody says anything: silence, and a geo database that changes.
pub struct Keeper {
    store: Store,
    hub: Arc<Hub>,
    watch: Arc<Watch>,
    places: Places,
    metrics: Metrics,
    /// Who was heard of and has no stream anywhere, since when.
    away: BTreeMap<String, Instant>,
    /// Whether some machine's place is still to be looked up in the newest geo database.
    unplaced: bool,
}

impl Keeper {
    /// A keeper over these parts.
    pub fn new(store: Store, hub: Arc<Hub>, watch: Arc<Watch>, places: Places, metrics: Metrics) -> Self {
        Self { store, hub, watch, places, metrics, away: BTreeMap::new(), unplaced: false }
    }

    /// Runs for as long as control serves.
    pub async fn run(mut self) {
        let mut databases = self.places.changes();
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What the store knows of places may be of another database, or of a time before there was one.
        databases.mark_changed();
        loop {
            let done = tokio::select! {
                _ = ticks.tick() => self.look(Instant::now()).await,
                changed = databases.changed() => match changed {
                    Ok(()) => self.relocate().await,
                    Err(_) => return,
                },
            };
            if let Err(error) = done {
                tracing::warn!(%error, "posture could not be looked after");
            }
        }
    }

    /// Notes who has been silent for too long, and counts how machines stand. What failed when places were looked up is tried again.
    pub async fn look(&mut self, now: Instant) -> Result<(), StoreError> {
        let placed = match self.unplaced {
            true => self.relocate().await,
            false => Ok(()),
        };
        for peer in self.watch.silent(&self.hub.streams(), now) {
            self.silence(&peer, "it says nothing").await?;
        }
        if *self.store.leads().borrow() {
            let gone = self.store.heard_and_gone().await?;
            self.away.retain(|peer, _| gone.contains(peer));
            for peer in gone {
                let since = *self.away.entry(peer.clone()).or_insert(now);
                if now.saturating_duration_since(since) >= LIFETIME {
                    self.silence(&peer, "it is away").await?;
                }
            }
        } else {
            self.away.clear();
        }
        self.metrics.show_failing(&self.store.failing(None).await?);
        placed
    }

    /// Looks up every machine's place again.
    pub async fn relocate(&mut self) -> Result<(), StoreError> {
        self.metrics.geo_built.set(i64::try_from(self.places.built()).unwrap_or(i64::MAX));
        self.unplaced = true;
        let (turns, failed) = self.store.note_places(|address| self.places.of(address)).await?;
        self.metrics.count_turns(&turns);
        if let Some(error) = failed {
            return Err(error);
        }
        self.unplaced = false;
        Ok(())
    }

    async fn silence(&self, peer: &str, why: &str) -> Result<(), StoreError> {
        match self.store.note_silence(peer).await {
            Ok(turns) => {
                if !turns.is_empty() {
                    tracing::info!(peer, why, "what was known of a machine is too old for posture checks");
                }
                self.metrics.count_turns(&turns);
                Ok(())
            }
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_the_same_lives_and_who_says_nothing_is_silent() {
        let (watch, start) = (Watch::default(), Instant::now());
        let streams = ["a".to_owned(), "b".to_owned()];
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(watch.is_news("a", 1, start), "never heard of");
        watch.noted("a", Some(1), start);
        watch.noted("b", Some(1), start);
        assert!(!watch.is_news("a", 1, at(100)));
        assert!(watch.is_news("b", 2, at(1)), "another word");
        assert!(watch.silent(&streams, at(180)).is_empty());
        assert_eq!(watch.silent(&streams, at(181)), ["b"]);
        assert!(watch.is_news("b", 1, at(182)), "it was taken for silent, so it is written again");
        // Whoever has no stream is forgotten, and comes back as news.
        assert!(watch.silent(&[], at(182)).is_empty());
        assert!(watch.is_news("a", 1, at(183)));
        // A stream of which nothing was heard here is given the whole time.
        assert!(watch.silent(&streams, at(200)).is_empty());
        assert_eq!(watch.silent(&streams, at(380)), ["a", "b"]);
    }

    #[test]
    fn who_is_held_is_not_believed_for_a_while() {
        let (watch, start) = (Watch::default(), Instant::now());
        watch.hold("a", start);
        assert!(!watch.is_news("a", 1, start + Duration::from_secs(29)));
        assert!(watch.is_news("a", 1, start + Duration::from_secs(30)));
        assert!(watch.silent(&[], start + Duration::from_secs(29)).is_empty());
        assert!(watch.is_held("a", start + Duration::from_secs(29)), "going away does not help");
        assert!(!watch.is_held("a", start + Duration::from_secs(30)));
        watch.noted("a", Some(1), start + Duration::from_secs(30));
        assert!(!watch.is_news("a", 1, start + Duration::from_secs(31)));
        watch.forget_marks();
        assert!(watch.is_news("a", 1, start + Duration::from_secs(32)));
    }
}
