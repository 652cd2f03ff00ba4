//! Datagrams in fragments whose first has passed: a table that makes room for the newest.

use std::hash::{Hash, RandomState};

use hashlink::LinkedHashMap;
use sluicegate_engine::fragment::{Datagram, DatagramKey};
use sluicegate_engine::tables::Refused;

/// Least recently used first; hashed with a random key, since ids are a stranger's choice.
pub(super) struct Datagrams<A> {
    table: LinkedHashMap<DatagramKey<A>, Datagram, RandomState>,
    most: usize,
}

impl<A: Copy + Eq + Hash> Datagrams<A> {
    /// Room for `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { table: LinkedHashMap::with_hasher(RandomState::new()), most: most.max(1) }
    }

    /// The datagram of `key`, which becomes the most recently used.
    pub(super) fn get_mut(&mut self, key: &DatagramKey<A>) -> Option<&mut Datagram> {
        self.table.to_back(key)
    }

    /// Remembers a datagram unless it is there; the least recently used makes room. What is left of that one is dropped,
    /// since its first fragment is no longer known.
    pub(super) fn insert(&mut self, key: &DatagramKey<A>, datagram: Datagram) -> Result<(), Refused> {
        if self.table.contains_key(key) {
            return Err(Refused::Exists);
        }
        if self.table.len() >= self.most {
            self.table.pop_front();
        }
        self.table.insert(*key, datagram);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_forgets_the_least_recently_used() {
        let key = |id| DatagramKey { id, ..DatagramKey::<[u8; 4]>::default() };
        let mut datagrams = Datagrams::new(3);
        (0..3).for_each(|id| datagrams.insert(&key(id), Datagram::default()).unwrap());
        assert!(datagrams.get_mut(&key(0)).is_some());
        datagrams.insert(&key(3), Datagram::default()).unwrap();
        assert_eq!(datagrams.insert(&key(3), Datagram::default()), Err(Refused::Exists));
        let known: Vec<u32> = (0..4).filter(|&id| datagrams.get_mut(&key(id)).is_some()).collect();
        assert_eq!(known, [0, 2, 3]);
    }
}
