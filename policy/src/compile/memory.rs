//! What is kept of each agent from one compilation to the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::kept::Kept;

/// The most bytes that are kept, of all agents together: 256 MiB. What was not asked for the longest goes first; whoever
/// is not found here is compiled from scratch. What alone takes more is not kept.
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
        if size > most {
            // It would throw out all others first, and then itself.
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compiler;
    use crate::model::{Peer, State};

    fn compiler() -> Compiler {
        let peer = |n: u8| Peer {
            name: format!("peer {n}"),
            v4: [100, 64, 0, n].into(),
            v6: format!("fd5c:1::{n}").parse().unwrap(),
            allowed: true,
        };
        let state = State {
            overlay_v4: "100.64.0.0/24".parse().unwrap(),
            overlay_v6: "fd5c:1::/64".parse().unwrap(),
            peers: [("a".to_owned(), peer(1)), ("b".to_owned(), peer(2))].into(),
            groups: Default::default(),
            networks: Default::default(),
            policies: Default::default(),
        };
        Compiler::new(Arc::new(state)).unwrap()
    }

    #[test]
    fn what_was_not_asked_for_the_longest_goes_first() {
        let compiler = compiler().remembering();
        ["a", "b"].iter().for_each(|agent| drop(compiler.compile(agent).unwrap()));
        let memory = compiler.memory.unwrap();
        let a = memory.take("a").unwrap();
        assert!(memory.take("a").is_none());
        let size = a.size();
        assert!(size > 0);
        memory.put_at_most("a", a, size);
        assert!(memory.take("b").is_none());
        let a = memory.take("a").unwrap();
        memory.put_at_most("a", a, size - 1);
        assert!(memory.take("a").is_none());
        assert_eq!(memory.lock().size, 0);
    }

    #[test]
    fn what_alone_is_too_large_throws_out_nobody() {
        let compiler = compiler().remembering();
        ["a", "b"].iter().for_each(|agent| drop(compiler.compile(agent).unwrap()));
        let memory = compiler.memory.unwrap();
        let a = memory.take("a").unwrap();
        let most = a.size() - 1;
        memory.put_at_most("a", a, most);
        assert!(memory.take("a").is_none());
        assert!(memory.take("b").is_some());
        assert_eq!(memory.lock().size, 0);
    }

    #[test]
    fn an_agent_that_is_not_compiled_again_does_not_keep_old_peers_alive() {
        let before = compiler().remembering();
        ["a", "b"].iter().for_each(|agent| drop(before.compile(agent).unwrap()));
        let mut state = (**before.state()).clone();
        state.peers.get_mut("b").unwrap().v4 = [100, 64, 0, 3].into();
        let after = Compiler::after(Arc::new(state), &before).unwrap();
        after.compile("a").unwrap();
        let old = Arc::downgrade(&before.resolved.peers);
        assert!(old.upgrade().is_some());
        drop(before);
        assert!(old.upgrade().is_none());
        assert!(after.memory.unwrap().take("b").is_some(), "b is remembered all the same");
    }

    #[test]
    fn only_who_follows_a_state_remembers() {
        let compiler = compiler();
        compiler.compile("a").unwrap();
        assert!(compiler.memory.is_none());
    }
}
