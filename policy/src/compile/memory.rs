//! What is kept of each agent from one compilation to the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::kept::Kept;

/// The most bytes that are kept, of all agents together: 256 MiB. What was not asked for the longest goes first; whoever
/// is not found here is compiled from scratch.
const MOST: usize = 256 << 20;

/// Shared by a compiler and those made after it. What is in it makes images cheaper and never others.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    agents: FxHashMap<Arc<str>, Entry>,
    size: usize,
    /// Rises with every entry.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    size: usize,
    at: u64,
}

impl Memory {
    /// What is kept of an agent; it is not here any more.
    pub(super) fn take(&self, agent: &str) -> Option<Kept> {
        let mut inner = self.lock();
        let entry = inner.agents.remove(agent)?;
        inner.size -= entry.size;
        Some(entry.kept)
    }

    pub(super) fn put(&self, agent: &str, kept: Kept) {
        self.put_at_most(agent, kept, MOST);
    }

    fn put_at_most(&self, agent: &str, kept: Kept, most: usize) {
        let size = kept.size();
        let mut inner = self.lock();
        inner.clock += 1;
        let entry = Entry { kept, size, at: inner.clock };
        inner.size += size;
        if let Some(other) = inner.agents.insert(agent.into(), entry) {
            inner.size -= other.size;
        }
        while inner.size > most {
            let oldest =
                inner.agents.iter().min_by_key(|(_, entry)| entry.at).map(|(agent, _)| agent.clone());
            let Some(gone) = oldest.and_then(|agent| inner.agents.remove(&agent)) else { break };
            inner.size -= gone.size;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
