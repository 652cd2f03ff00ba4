//! The flow tables of one address family: half-open flows that make room for each other, confirmed ones that never do.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, RandomState};

use hashlink::LinkedHashMap;
use sluicegate_engine::flow::{Flow, Key, TRANSLATED};
use sluicegate_engine::fragment::DATAGRAMS;
use sluicegate_engine::judged;
use sluicegate_engine::tables::{NotConfirmed, Refused, Stage};

use super::fragments::Datagrams;
use super::remembered::Remembered;
use crate::datapath::FlowTable;

/// Both tables. Hashing is keyed at random: addresses and ports are a stranger's choice.
pub(super) struct Flows<A> {
    confirmed: HashMap<Key<A>, Flow<A>>,
    confirmed_max: usize,
    /// Least recently used first.
    half_open: LinkedHashMap<Key<A>, Flow<A>, RandomState>,
    half_open_max: usize,
    pub(super) remembered: Remembered<A>,
    /// What the image said lately, by bucket.
    pub(super) judged: Box<[judged::Bucket<A>]>,
    /// Their datagrams in fragments.
    pub(super) datagrams: Datagrams<A>,
    /// What a reply half had carried that went just before its first half.
    parting: Option<(Key<A>, Carried)>,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Carried {
    fn of<A>(flow: &Flow<A>) -> Self {
        Self { packets: flow.packets, bytes: flow.bytes }
    }
}

/// A flow that is no more: its first half, and what both halves carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended<A> {
    pub(super) key: Key<A>,
    pub(super) flow: Flow<A>,
    pub(super) carried: Carried,
}

/// What had to go for a half-entry.
pub(super) struct Inserted<A> {
    /// Whether a half-open half-entry made room.
    pub(super) evicted: bool,
    /// The flow that ended by it.
    pub(super) ended: Option<Ended<A>>,
}

/// A flow that lives.
pub(super) struct Live<'a, A> {
    pub(super) key: &'a Key<A>,
    pub(super) flow: &'a Flow<A>,
    /// Whether it is in the table that never makes room.
    pub(super) confirmed: bool,
    pub(super) carried: Carried,
    /// What replies alone carried.
    pub(super) replies: Carried,
    /// Tick of the last packet of either direction.
    pub(super) last_seen: u32,
}

impl<A: Copy + Default + Eq + Hash> Flows<A> {
    /// Empty tables that hold that many half-entries each.
    pub(super) fn new(confirmed_max: usize, half_open_max: usize) -> Self {
        Self {
            confirmed: HashMap::new(),
            confirmed_max,
            half_open: LinkedHashMap::with_hasher(RandomState::new()),
            half_open_max: half_open_max.max(1),
            remembered: Remembered::new(),
            judged: vec![judged::Bucket::default(); judged::BUCKETS as usize].into(),
            datagrams: Datagrams::new(DATAGRAMS as usize),
            parting: None,
        }
    }

    /// The half-entry of `key`; looking at a half-open one makes it the most recently used.
    pub(super) fn get_mut(&mut self, stage: Stage, key: &Key<A>) -> Option<&mut Flow<A>> {
        match stage {
            Stage::Confirmed => self.confirmed.get_mut(key),
            Stage::HalfOpen => self.half_open.to_back(key),
        }
    }

    /// The half-entry of `key`, and nothing changes by the look.
    pub(super) fn peek(&self, stage: Stage, key: &Key<A>) -> Option<&Flow<A>> {
        match stage {
            Stage::Confirmed => self.confirmed.get(key),
            Stage::HalfOpen => self.half_open.get(key),
        }
    }

    /// Inserts a half-entry; tells what had to go for it.
    pub(super) fn insert(
        &mut self,
        stage: Stage,
        key: &Key<A>,
        replace: bool,
        flow: Flow<A>,
    ) -> Result<Inserted<A>, Refused> {
        match stage {
            Stage::Confirmed => {
                let full = self.confirmed.len() >= self.confirmed_max;
                match self.confirmed.entry(*key) {
                    Entry::Occupied(_) if !replace => return Err(Refused::Exists),
                    Entry::Occupied(mut there) => _ = there.insert(flow),
                    Entry::Vacant(_) if full => return Err(Refused::Full),
                    Entry::Vacant(free) => _ = free.insert(flow),
                }
                Ok(Inserted { evicted: false, ended: None })
            }
            Stage::HalfOpen => {
                let there = self.half_open.contains_key(key);
                if there && !replace {
                    return Err(Refused::Exists);
                }
                let oldest = if !there && self.half_open.len() >= self.half_open_max {
                    self.half_open.pop_front()
                } else {
                    None
                };
                self.half_open.insert(*key, flow);
                let evicted = oldest.is_some();
                Ok(Inserted { evicted, ended: oldest.and_then(|(key, flow)| self.part(key, flow)) })
            }
        }
    }

    /// Copies a half-open half-entry into the confirmed table, changed by `update`.
    pub(super) fn confirm(
        &mut self,
        key: &Key<A>,
        update: impl FnOnce(&mut Flow<A>),
    ) -> Result<(), NotConfirmed> {
        let Some(mut flow) = self.half_open.get(key).copied() else { return Err(NotConfirmed::Missing) };
        update(&mut flow);
        match self.insert(Stage::Confirmed, key, true, flow) {
            Ok(_) => Ok(()),
            Err(_) => Err(NotConfirmed::Full),
        }
    }

    /// Removes a half-entry; returns the flow that ended by it. One that is still in the other table only moved.
    pub(super) fn remove(&mut self, stage: Stage, key: &Key<A>) -> Option<Ended<A>> {
        let (removed, moved) = match stage {
            Stage::Confirmed => (self.confirmed.remove(key), self.half_open.contains_key(key)),
            Stage::HalfOpen => (self.half_open.remove(key), self.confirmed.contains_key(key)),
        };
        removed.filter(|_| !moved).and_then(|flow| self.part(*key, flow))
    }

    /// Notes which ports the masqueraded flows use; [`sluicegate_engine::mapping`] says why.
    pub(super) fn note_ports(&mut self) {
        let used: Vec<_> = self
            .live()
            .filter(|live| live.flow.flags & TRANSLATED != 0)
            .map(|live| (*live.key, live.flow.source, live.flow.source_port, live.last_seen))
            .collect();
        for (key, gateway, port, seen) in used {
            self.remembered.used(&key, gateway, port, seen);
        }
    }

    /// Removes every flow both of whose halves are over, and halves that are over and have lost their other one.
    pub(super) fn sweep(&mut self, now: u32) -> Vec<Ended<A>> {
        let over: Vec<(Stage, Key<A>, Flow<A>)> = self
            .halves()
            .filter(|(_, key, flow)| {
                flow.is_over(now)
                    && self.get(&flow.other_key(key.protocol)).is_none_or(|other| other.is_over(now))
            })
            .map(|(stage, key, flow)| (stage, *key, *flow))
            .collect();
        let replies = over.iter().filter(|(_, _, flow)| flow.is_reply());
        let firsts = over.iter().filter(|(_, _, flow)| !flow.is_reply());
        // First halves go first: then each still finds what its reply half carried.
        let mut ended = Vec::new();
        for (stage, key, _) in firsts.chain(replies) {
            ended.extend(self.remove(*stage, key));
        }
        ended
    }

    /// Every flow, by its first half.
    pub(super) fn live(&self) -> impl Iterator<Item = Live<'_, A>> {
        self.halves().filter(|(_, _, flow)| !flow.is_reply()).map(|(stage, key, flow)| {
            let reply = self.get(&flow.other_key(key.protocol));
            let replies = reply.map(Carried::of).unwrap_or_default();
            let carried = sum(Carried::of(flow), replies);
            let confirmed = stage == Stage::Confirmed;
            let mut live = Live { key, flow, confirmed, carried, replies, last_seen: flow.last_seen };
            if let Some(reply) = reply
                && reply.last_seen.wrapping_sub(live.last_seen) as i32 > 0
            {
                live.last_seen = reply.last_seen;
            }
            live
        })
    }

    /// Every half-entry, confirmed ones first.
    pub(super) fn halves(&self) -> impl Iterator<Item = (Stage, &Key<A>, &Flow<A>)> {
        let confirmed = self.confirmed.iter().map(|(key, flow)| (Stage::Confirmed, key, flow));
        confirmed.chain(self.half_open.iter().map(|(key, flow)| (Stage::HalfOpen, key, flow)))
    }

    /// One of the two tables. What an entry takes follows from how the tables are made: slots for 8/7 of the entries,
    /// rounded up to a power of two, of an entry and a byte each; in order of use, of a pointer to an entry with two links.
    pub(super) fn size(&self, stage: &'static str, family: &'static str) -> FlowTable {
        let entry = size_of::<(Key<A>, Flow<A>)>();
        let slots = |entries: usize| (entries * 8 / 7).next_power_of_two();
        let (entries, capacity, bytes) = if stage == "confirmed" {
            (self.confirmed.len(), self.confirmed_max, slots(self.confirmed_max) * (entry + 1))
        } else {
            let links = 2 * size_of::<usize>();
            let most = self.half_open_max;
            let bytes = slots(most) * (size_of::<usize>() + 1) + most * (entry + links);
            (self.half_open.len(), most, bytes)
        };
        let [entries, capacity, bytes] = [entries, capacity, bytes].map(|n| n as u64);
        FlowTable { stage, family, entries, capacity, bytes }
    }

    /// Confirmed half-entries there are.
    pub(super) fn confirmed(&self) -> usize {
        self.confirmed.len()
    }

    fn get(&self, key: &Key<A>) -> Option<&Flow<A>> {
        self.confirmed.get(key).or_else(|| self.half_open.get(key))
    }

    /// Works out whether a flow ended with this half, which is in no table any more.
    fn part(&mut self, key: Key<A>, flow: Flow<A>) -> Option<Ended<A>> {
        let other = flow.other_key(key.protocol);
        if flow.is_reply() {
            self.parting = self.get(&other).map(|_| (other, Carried::of(&flow)));
            return None;
        }
        let gone = self.parting.take().filter(|(first, _)| *first == key).map(|(_, carried)| carried);
        let reply = self.get(&other).map(Carried::of).or(gone).unwrap_or_default();
        Some(Ended { key, flow, carried: sum(Carried::of(&flow), reply) })
    }
}

fn sum(a: Carried, b: Carried) -> Carried {
    Carried { packets: a.packets + b.packets, bytes: a.bytes + b.bytes }
}
