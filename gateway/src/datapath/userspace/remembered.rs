//! What is remembered of sources beside their flows: openings that nobody answered, and who owns which port.

use std::hash::{Hash, RandomState};

use hashlink::LinkedHashMap;
use sluicegate_engine::answer::{Bucket, SENDERS};
use sluicegate_engine::flow::Key;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey, keys_of};

/// Sources whose openings are counted, and entries of mappings: where there are more, the one used longest ago goes.
const SOURCES: usize = 16_384;
const MAPPINGS: usize = 65_536;

/// Of one address family. Hashing is keyed at random: addresses and ports are a stranger's choice.
pub(super) struct Remembered<A> {
    openings: LinkedHashMap<A, Openings, RandomState>,
    mappings: LinkedHashMap<MappingKey<A>, Mapping<A>, RandomState>,
    /// What each sender of packets that were answered may still be told.
    senders: LinkedHashMap<A, Bucket, RandomState>,
}

impl<A: Copy + Default + Eq + Hash> Remembered<A> {
    /// Nothing.
    pub(super) fn new() -> Self {
        Self {
            openings: LinkedHashMap::with_hasher(RandomState::new()),
            mappings: LinkedHashMap::with_hasher(RandomState::new()),
            senders: LinkedHashMap::with_hasher(RandomState::new()),
        }
    }

    /// What `source` opened lately, from `now` on if nothing is known of it.
    pub(super) fn openings(&mut self, source: &A, now: u32) -> &mut Openings {
        if self.openings.to_back(source).is_none() && self.openings.len() >= SOURCES {
            self.openings.pop_front();
        }
        self.openings.entry(*source).or_insert(Openings { since: now, count: 0 })
    }

    /// How many answers `sender` may still get; all of them if nothing is known of it.
    pub(super) fn bucket(&mut self, sender: &A) -> &mut Bucket {
        if self.senders.to_back(sender).is_none() && self.senders.len() >= SENDERS as usize {
            self.senders.pop_front();
        }
        self.senders.entry(*sender).or_insert_with(Bucket::default)
    }

    /// What `source` opened lately, and nothing changes by the look.
    pub(super) fn peek_openings(&self, source: &A) -> Option<Openings> {
        self.openings.get(source).copied()
    }

    /// An entry of a mapping, and nothing changes by the look.
    pub(super) fn peek_mapping(&self, key: &MappingKey<A>) -> Option<Mapping<A>> {
        self.mappings.get(key).copied()
    }

    /// An entry of a mapping.
    pub(super) fn mapping(&mut self, key: &MappingKey<A>) -> Option<Mapping<A>> {
        self.mappings.to_back(key).copied()
    }

    /// Remembers an entry of a mapping.
    pub(super) fn set_mapping(&mut self, key: &MappingKey<A>, mapping: Mapping<A>) {
        if !self.mappings.contains_key(key) && self.mappings.len() >= MAPPINGS {
            self.mappings.pop_front();
        }
        self.mappings.insert(*key, mapping);
    }

    /// A flow whose first half has this key leaves with `gateway` and `port`, and was last seen at `seen`: its mapping, if
    /// it has one, was used then.
    pub(super) fn used(&mut self, key: &Key<A>, gateway: A, port: u16, seen: u32) {
        let keys = keys_of(key, gateway, port);
        let owner = |mapping: &Mapping<A>| (mapping.owner, mapping.source_port, mapping.port);
        let ours = (key.source, key.source_port, port);
        for key in keys {
            let Some(mapping) = self.mappings.get_mut(&key).filter(|there| owner(there) == ours) else {
                continue;
            };
            if (seen.wrapping_sub(mapping.last_used) as i32) > 0 {
                mapping.last_used = seen;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_engine::family::Address4;

    use super::*;

    #[test]
    fn a_flow_keeps_its_mapping_fresh_and_no_others() {
        let key = Key {
            source: Address4([100, 64, 0, 5]),
            destination: Address4([10, 0, 0, 9]),
            source_port: 4000,
            destination_port: 53,
            protocol: 17,
            ..Key::default()
        };
        let gateway = Address4([10, 0, 0, 1]);
        let mut remembered = Remembered::new();
        let mapping = Mapping { owner: key.source, last_used: 10, source_port: 4000, port: 20_000 };
        let [owner, port] = keys_of(&key, gateway, 20_000);
        remembered.set_mapping(&owner, mapping);
        remembered.set_mapping(&port, mapping);
        remembered.used(&key, gateway, 20_000, 50);
        assert_eq!([owner, port].map(|key| remembered.mapping(&key).unwrap().last_used), [50, 50]);
        remembered.used(&key, gateway, 20_000, 40);
        let stranger = Key { source_port: 4001, ..key };
        remembered.used(&stranger, gateway, 20_000, 90);
        assert_eq!([owner, port].map(|key| remembered.mapping(&key).unwrap().last_used), [50, 50]);
    }

    #[test]
    fn the_source_used_longest_ago_is_forgotten_first() {
        let mut remembered = Remembered::<u32>::new();
        for source in 0..SOURCES as u32 {
            remembered.openings(&source, 7).count = 1;
        }
        remembered.openings(&0, 8);
        remembered.openings(&u32::MAX, 8);
        assert_eq!(*remembered.openings(&0, 9), Openings { since: 7, count: 1 });
        assert_eq!(*remembered.openings(&1, 9), Openings { since: 9, count: 0 });
    }
}
