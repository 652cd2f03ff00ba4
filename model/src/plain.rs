//! The engine's surroundings as plain maps: the least that [`Tables`] can be, without bounds and without haste.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sluicegate_engine::answer::{ALL, Answer, Bucket, SENDER};
use sluicegate_engine::classify::{Judgement, Line};
use sluicegate_engine::event::{About, Event};
use sluicegate_engine::family::{Address4, Address6, Family, V4, V6};
use sluicegate_engine::flow::{Flow, Hop, Key, Side};
use sluicegate_engine::fragment::{Datagram, DatagramKey};
use sluicegate_engine::hop::NeighbourKey;
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey, keys_of};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::{Active, Config, Egress, Egresses, NotConfirmed, Refused, Stage, Tables};

use crate::case::Counters;
use crate::user::{Half, Twin};

/// Tables that remember everything and refuse nothing.
#[derive(Default)]
pub struct Plain {
    config: Config,
    bucket: Bucket,
    active: Active,
    image: Vec<Line>,
    egress: Vec<Egress>,
    host: BTreeMap<[u8; 16], HostAddress>,
    v4: Flows<Address4>,
    v6: Flows<Address6>,
    counters: Counters,
    events: Vec<Event>,
}

/// Both tables of one family.
#[derive(Default)]
pub struct Flows<A> {
    confirmed: BTreeMap<Key<A>, Flow<A>>,
    half_open: BTreeMap<Key<A>, Flow<A>>,
    openings: BTreeMap<A, Openings>,
    mappings: BTreeMap<MappingKey<A>, Mapping<A>>,
    datagrams: BTreeMap<DatagramKey<A>, Datagram>,
    senders: BTreeMap<A, Bucket>,
    neighbours: BTreeMap<NeighbourKey<A>, Hop>,
}

impl<A: Copy + Default + Ord> Flows<A> {
    fn of(&mut self, stage: Stage) -> &mut BTreeMap<Key<A>, Flow<A>> {
        match stage {
            Stage::Confirmed => &mut self.confirmed,
            Stage::HalfOpen => &mut self.half_open,
        }
    }

    fn sweep(&mut self, now: u32) {
        let all: BTreeMap<Key<A>, Flow<A>> =
            self.half_open.iter().chain(&self.confirmed).map(|(key, flow)| (*key, *flow)).collect();
        for (key, flow) in &self.halves().iter().map(|(_, key, flow)| (*key, *flow)).collect::<Vec<_>>() {
            let first = if flow.is_reply() { flow.other_key(key.protocol) } else { *key };
            let Some(leaves) = all.get(&first) else { continue };
            for entry in keys_of(&first, leaves.source, leaves.source_port) {
                let Some(mapping) = self.mappings.get_mut(&entry) else { continue };
                let ours = (mapping.owner, mapping.source_port, mapping.port)
                    == (first.source, first.source_port, leaves.source_port);
                if ours && (flow.last_seen.wrapping_sub(mapping.last_used) as i32) > 0 {
                    mapping.last_used = flow.last_seen;
                }
            }
        }
        let other_is_over = |key: &Key<A>, flow: &Flow<A>| {
            all.get(&flow.other_key(key.protocol)).is_none_or(|other| other.is_over(now))
        };
        for table in [&mut self.confirmed, &mut self.half_open] {
            table.retain(|key, flow| !(flow.is_over(now) && other_is_over(key, flow)));
        }
    }

    fn halves(&self) -> Vec<Half<A>> {
        let confirmed = self.confirmed.iter().map(|(key, flow)| (Stage::Confirmed, *key, *flow));
        confirmed.chain(self.half_open.iter().map(|(key, flow)| (Stage::HalfOpen, *key, *flow))).collect()
    }
}

impl Plain {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { counters: Counters::new(), ..Self::default() }
    }
}

/// Picks a family's flows out of the tables.
pub trait PerFamily: Egresses + Family<Address: Ord> {
    fn flows(tables: &mut Plain) -> &mut Flows<Self::Address>;
}

impl PerFamily for V4 {
    fn flows(tables: &mut Plain) -> &mut Flows<Address4> {
        &mut tables.v4
    }
}

impl PerFamily for V6 {
    fn flows(tables: &mut Plain) -> &mut Flows<Address6> {
        &mut tables.v6
    }
}

impl<F: PerFamily> Tables<F> for Plain {
    fn config(&self) -> &Config {
        &self.config
    }

    fn active(&self) -> Active {
        self.active
    }

    fn judge(&mut self, _active: Active, key: &Key<F::Address>, axis: u32) -> Judgement {
        F::classify(self.image.as_slice(), key.source, key.destination, axis)
    }

    fn egress(&self, _active: Active, route: u16) -> Option<&Egress> {
        self.egress.get(usize::from(route))
    }

    fn host_address(&self, address: &F::Address) -> Option<HostAddress> {
        self.host.get(&F::mapped(*address)).copied()
    }

    fn with_flow<R>(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        f: impl FnOnce(&mut Flow<F::Address>) -> R,
    ) -> Option<R> {
        F::flows(self).of(stage).get_mut(key).map(f)
    }

    fn insert_flow(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        replace: bool,
        init: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), Refused> {
        let table = F::flows(self).of(stage);
        if table.contains_key(key) && !replace {
            return Err(Refused::Exists);
        }
        let mut flow = Flow::default();
        init(&mut flow);
        table.insert(*key, flow);
        Ok(())
    }

    fn confirm_flow(
        &mut self,
        key: &Key<F::Address>,
        update: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), NotConfirmed> {
        let flows = F::flows(self);
        let mut flow = *flows.half_open.get(key).ok_or(NotConfirmed::Missing)?;
        update(&mut flow);
        flows.confirmed.insert(*key, flow);
        Ok(())
    }

    fn remove_flow(&mut self, stage: Stage, key: &Key<F::Address>) {
        F::flows(self).of(stage).remove(key);
    }

    fn with_openings<R>(
        &mut self,
        source: &F::Address,
        now: u32,
        f: impl FnOnce(&mut Openings) -> R,
    ) -> Option<R> {
        Some(f(F::flows(self).openings.entry(*source).or_insert(Openings { since: now, count: 0 })))
    }

    fn mapping(&mut self, key: &MappingKey<F::Address>) -> Option<Mapping<F::Address>> {
        F::flows(self).mappings.get(key).copied()
    }

    fn set_mapping(&mut self, key: &MappingKey<F::Address>, mapping: &Mapping<F::Address>) {
        F::flows(self).mappings.insert(*key, *mapping);
    }

    fn neighbour(&mut self, key: &NeighbourKey<F::Address>) -> Option<Hop> {
        F::flows(self).neighbours.get(key).copied()
    }

    fn set_neighbour(&mut self, key: &NeighbourKey<F::Address>, hop: &Hop) {
        F::flows(self).neighbours.insert(*key, *hop);
    }

    fn with_datagram<R>(
        &mut self,
        key: &DatagramKey<F::Address>,
        f: impl FnOnce(&mut Datagram) -> R,
    ) -> Option<R> {
        F::flows(self).datagrams.get_mut(key).map(f)
    }

    fn insert_datagram(
        &mut self,
        key: &DatagramKey<F::Address>,
        init: impl FnOnce(&mut Datagram),
    ) -> Result<(), Refused> {
        let Entry::Vacant(free) = F::flows(self).datagrams.entry(*key) else { return Err(Refused::Exists) };
        init(free.insert(Datagram::default()));
        Ok(())
    }

    fn count_forwarded(&mut self, side: Side, bytes: u32) {
        let [packets, total] = &mut self.counters.forwarded[side as usize];
        *packets += 1;
        *total += u64::from(bytes);
    }

    fn count_dropped(&mut self, reason: DropReason) {
        self.counters.drops[reason as usize] += 1;
    }

    fn count_answer(&mut self, answer: Answer) {
        self.counters.answers[answer as usize] += 1;
    }

    fn may_answer(&mut self, sender: &F::Address, now: u64) -> bool {
        let hz = self.config.ticks_per_second;
        let own = F::flows(self).senders.entry(*sender).or_default().take(now, hz, SENDER);
        own && self.bucket.take(now, hz, ALL)
    }

    fn count_admitted(&mut self, rule: u32) {
        self.counters.rules[rule as usize][0] += 1;
    }

    fn count_refused(&mut self, rule: u32) {
        self.counters.rules[rule as usize][1] += 1;
    }

    fn emit(&mut self, about: About, fill: impl FnOnce(&mut Event)) {
        let mut event = Event::default();
        about.fill(&mut event);
        fill(&mut event);
        self.events.push(event);
    }
}

impl Twin for Plain {
    type Tables = Self;

    fn tables(&mut self) -> &mut Self {
        self
    }

    fn set_image(&mut self, lines: Vec<Line>, epoch: u32) {
        self.image = lines;
        self.active = Active::new(0, epoch);
    }

    fn set_egress(&mut self, egress: Vec<Egress>) {
        self.egress = egress;
    }

    fn set_host_addresses(&mut self, host: BTreeMap<[u8; 16], HostAddress>) {
        self.host = host;
    }

    fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn sweep(&mut self, now: u32) {
        self.v4.sweep(now);
        self.v6.sweep(now);
    }

    fn counters(&self) -> Counters {
        self.counters.clone()
    }

    fn halves(&self) -> (Vec<Half<Address4>>, Vec<Half<Address6>>) {
        (self.v4.halves(), self.v6.halves())
    }
}
