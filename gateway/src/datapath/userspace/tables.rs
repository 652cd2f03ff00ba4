//! The engine's surroundings in user space: image, flows, egress, counters and events in this process's memory.
//!
//! No I/O and no clock, so that tests can drive it packet by packet.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::Hash;
use std::ops::Range;
use std::time::Duration;

use sluicegate_engine::answer::{ALL, Answer, Bucket, SENDER};
use sluicegate_engine::classify::{Judgement, Line};
use sluicegate_engine::event::{About, Event};
use sluicegate_engine::family::{Address4, Address6, Family, V4, V6};
use sluicegate_engine::flow::{Exit, Flow, Key, Side};
use sluicegate_engine::fragment::{Datagram, DatagramKey};
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::judged;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey};
use sluicegate_engine::nat::{NOTES, PROBES};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::{
    Active, Config, ENDPOINT_INDEPENDENT, Egress, Egresses, NotConfirmed, Refused, Stage, Tables,
};

use super::flows::{Ended, Flows};
use crate::datapath::{self, FlowRecord, FlowTable, records};

/// How much [`UserTables`] may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Confirmed half-entries of each family; a flow has two.
    pub confirmed: usize,
    /// Half-open half-entries of each family.
    pub half_open: usize,
    /// Events, and ended flows, waiting to be taken.
    pub events: usize,
    /// Ticks in a second.
    pub ticks_per_second: u32,
}

/// Totals since the tables were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets and bytes that went on, by [`Side`] number.
    pub forwarded: [[u64; 2]; 4],
    /// Packets dropped, by [`DropReason`] number.
    pub dropped: [u64; DropReason::COUNT],
    /// What became of the wish to answer them, by [`Answer`] number.
    pub answers: [u64; Answer::COUNT],
    /// By rule slot.
    pub rules: Vec<RuleTotals>,
    /// Flows that a rule admitted.
    pub started: u64,
    /// By route number.
    pub routes: BTreeMap<u16, RuleTotals>,
    /// Events and ended flows that found no room.
    pub lost: u64,
    /// Events left out because one alike waited already.
    pub suppressed: u64,
    /// Half-open half-entries that made room for others.
    pub half_open_evicted: u64,
    /// Masqueraded flows, by the number of ports that were taken before they found theirs.
    pub port_collisions: [u64; PROBES as usize],
}

/// Totals of one rule slot, or of one route number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleTotals {
    /// Flows admitted.
    pub admitted: u64,
    /// Packets refused.
    pub refused: u64,
    /// Packets of its flows, both directions.
    pub packets: u64,
    /// Bytes of its flows, both directions, from the IP header on.
    pub bytes: u64,
}

/// The engine's surroundings. Before an image is set there is none, and nothing passes.
pub struct UserTables {
    limits: Limits,
    config: Config,
    /// How many packets may be answered.
    bucket: Bucket,
    active: Active,
    image: Vec<Line>,
    egress: Vec<Egress>,
    /// What addresses are to this host; IPv4 in its mapped form.
    host: BTreeMap<[u8; 16], HostAddress>,
    v4: Flows<Address4>,
    v6: Flows<Address6>,
    /// Searches for a port that found none, each in the place of its hash.
    exhausted: [u64; NOTES as usize],
    totals: Totals,
    events: VecDeque<Event>,
    /// The sorts of events that were told since they were last taken: kind and reason, and rule.
    told: HashSet<(u32, u32)>,
    ended: VecDeque<datapath::Event>,
}

impl UserTables {
    /// Empty tables.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            config: Config::default(),
            bucket: Bucket::default(),
            active: Active::default(),
            image: Vec::new(),
            egress: Vec::new(),
            host: BTreeMap::new(),
            v4: Flows::new(limits.confirmed, limits.half_open),
            v6: Flows::new(limits.confirmed, limits.half_open),
            exhausted: [0; NOTES as usize],
            totals: Totals::default(),
            events: VecDeque::new(),
            told: HashSet::new(),
            ended: VecDeque::new(),
        }
    }

    /// Puts an image in force, which the caller has validated; `epoch` differs from those of all before it. Rule slots
    /// from `rule_slots` on are not counted.
    pub fn set_image(&mut self, lines: Vec<Line>, epoch: u32, rule_slots: u32) {
        self.image = lines;
        self.active = Active::new(0, epoch);
        let slots = self.totals.rules.len().max(rule_slots as usize);
        self.totals.rules.resize(slots, RuleTotals::default());
    }

    /// As [`UserTables::set_image`], of an image that differs from the one in force in these words only, and in its length.
    pub fn change_image(&mut self, lines: &[Line], changed: &[Range<usize>], epoch: u32, rule_slots: u32) {
        let mut image = std::mem::take(&mut self.image);
        image.resize(lines.len(), Line::default());
        let (to, from) = (image.as_flattened_mut(), lines.as_flattened());
        changed.iter().for_each(|part| to[part.clone()].copy_from_slice(&from[part.clone()]));
        self.set_image(image, epoch, rule_slots);
    }

    /// Sets the totals of a route number to zero, since another resource has it now.
    pub fn reroute(&mut self, route: u16) {
        self.totals.routes.remove(&route);
    }

    /// Sets the totals of a rule slot to zero, since another rule has it now.
    pub fn start_anew(&mut self, slot: u32) {
        if let Some(totals) = self.totals.rules.get_mut(slot as usize) {
            *totals = RuleTotals::default();
        }
    }

    /// What the operator set.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Ticks in a second.
    pub(super) fn hz(&self) -> u32 {
        self.limits.ticks_per_second
    }

    /// What the operator set.
    pub(super) fn config_ref(&self) -> &Config {
        &self.config
    }

    /// The image in force.
    pub(super) fn in_force(&self) -> Active {
        self.active
    }

    /// Its lines.
    pub(super) fn image(&self) -> &[Line] {
        &self.image
    }

    /// Where a route leaves.
    pub(super) fn egress_of(&self, route: u16) -> Option<Egress> {
        self.egress.get(usize::from(route)).copied()
    }

    /// An IPv4 half-entry; looking does not make it more recently used.
    pub(super) fn peek4(&self, stage: Stage, key: &Key<Address4>) -> Option<Flow<Address4>> {
        self.v4.peek(stage, key).copied()
    }

    /// An IPv6 half-entry, as [`Self::peek4`].
    pub(super) fn peek6(&self, stage: Stage, key: &Key<Address6>) -> Option<Flow<Address6>> {
        self.v6.peek(stage, key).copied()
    }

    /// What a source opened lately, as [`Self::peek4`].
    pub(super) fn peek_openings4(&self, source: &Address4) -> Option<Openings> {
        self.v4.remembered.peek_openings(source)
    }

    /// An entry of a port mapping, as [`Self::peek4`].
    pub(super) fn peek_mapping4(&self, key: &MappingKey<Address4>) -> Option<Mapping<Address4>> {
        self.v4.remembered.peek_mapping(key)
    }

    /// What a source opened lately, as [`Self::peek4`].
    pub(super) fn peek_openings6(&self, source: &Address6) -> Option<Openings> {
        self.v6.remembered.peek_openings(source)
    }

    /// An entry of a port mapping, as [`Self::peek4`].
    pub(super) fn peek_mapping6(&self, key: &MappingKey<Address6>) -> Option<Mapping<Address6>> {
        self.v6.remembered.peek_mapping(key)
    }

    /// Whether no further half-entry of this IP version can be confirmed.
    pub(super) fn is_full(&self, version: u8) -> bool {
        let confirmed = if version == 4 { self.v4.confirmed() } else { self.v6.confirmed() };
        confirmed >= self.limits.confirmed
    }

    /// Where routes leave, by route number; one that is not there has no egress.
    pub fn set_egress(&mut self, egress: Vec<Egress>) {
        self.egress = egress;
    }

    /// What addresses are to this host; IPv4 in its mapped form.
    pub fn set_host_addresses(&mut self, host: BTreeMap<[u8; 16], HostAddress>) {
        self.host = host;
    }

    /// What one of them is.
    pub(super) fn host_address_of(&self, address: &[u8; 16]) -> Option<HostAddress> {
        self.host.get(address).copied()
    }

    /// Totals since the tables were made.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Confirmed half-entries of both families, and how many there can be.
    pub fn entries(&self) -> (usize, usize) {
        (self.v4.confirmed() + self.v6.confirmed(), 2 * self.limits.confirmed)
    }

    /// The tables: what is in them, and what they may take.
    pub fn sizes(&self) -> Vec<FlowTable> {
        let mut tables = Vec::new();
        for stage in ["confirmed", "half_open"] {
            tables.push(self.v4.size(stage, "ipv4"));
            tables.push(self.v6.size(stage, "ipv6"));
        }
        tables
    }

    /// Every half-entry of one family.
    pub fn halves<F: PerFamily>(&self) -> impl Iterator<Item = (Stage, &Key<F::Address>, &Flow<F::Address>)>
    where
        F::Address: Hash,
    {
        F::flows(self).halves()
    }

    /// Ends the flows that have timed out at `now`, and returns those that live.
    pub fn sweep(&mut self, now: u32) -> Vec<FlowRecord> {
        self.sweep_family::<V4>(now);
        self.sweep_family::<V6>(now);
        self.live::<V4>(now).chain(self.live::<V6>(now)).collect()
    }

    /// What the engine told since the last call, oldest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.told.clear();
        std::mem::take(&mut self.events).into()
    }

    /// Flows that ended since the last call otherwise than by revocation, of which the engine itself tells.
    pub fn take_ended(&mut self) -> Vec<datapath::Event> {
        std::mem::take(&mut self.ended).into()
    }

    fn sweep_family<F: PerFamily>(&mut self, now: u32)
    where
        F::Address: Hash,
    {
        if self.config.flags & ENDPOINT_INDEPENDENT != 0 {
            F::flows_mut(self).note_ports();
        }
        for ended in F::flows_mut(self).sweep(now) {
            self.end::<F>(&ended);
        }
    }

    fn live<F: PerFamily>(&self, now: u32) -> impl Iterator<Item = FlowRecord>
    where
        F::Address: Hash,
    {
        let hz = u64::from(self.limits.ticks_per_second.max(1));
        F::flows(self).live().map(move |live| {
            let mut record = records::flow::<F>(live.key, live.flow);
            record.confirmed = live.confirmed;
            record.packets = live.carried.packets;
            record.bytes = live.carried.bytes;
            record.replies = (live.replies.packets, live.replies.bytes);
            let ticks = u64::from(now.wrapping_sub(live.last_seen));
            record.idle = Duration::from_millis(ticks * 1000 / hz);
            record
        })
    }

    fn end<F: Family>(&mut self, ended: &Ended<F::Address>) {
        if self.ended.len() >= self.limits.events {
            self.totals.lost += 1;
            return;
        }
        let mut event = records::end::<F>(&ended.key, &ended.flow);
        event.packets = ended.carried.packets;
        event.bytes = ended.carried.bytes;
        self.ended.push_back(event);
    }

    fn rule(&mut self, slot: u32) -> Option<&mut RuleTotals> {
        self.totals.rules.get_mut(slot as usize)
    }

    /// Notes what a half-entry carried since `before`, which the rule that admits it now gets.
    fn carried(&mut self, way: Way, before: [u64; 2], after: [u64; 2]) {
        let [packets, bytes] = [0, 1].map(|i| after[i].saturating_sub(before[i]));
        let route = way.route.map(|route| self.totals.routes.entry(route).or_default());
        for totals in self.totals.rules.get_mut(way.rule as usize).into_iter().chain(route) {
            totals.packets += packets;
            totals.bytes += bytes;
        }
    }
}

/// What the packets of a half-entry count for.
#[derive(Clone, Copy, Default)]
struct Way {
    rule: u32,
    route: Option<u16>,
}

impl Way {
    fn of<A>(key: &Key<A>, flow: &Flow<A>) -> Self {
        let site = flow.exit == Exit::Site as u8 || key.side == Side::Site as u8;
        Self { rule: flow.rule, route: site.then_some(flow.route) }
    }
}

/// Picks a family's flows out of the tables.
pub trait PerFamily: Egresses {
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "the trait is public to be named in bounds, not to be called")]
    fn flows(tables: &UserTables) -> &Flows<Self::Address>;
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "as above")]
    fn flows_mut(tables: &mut UserTables) -> &mut Flows<Self::Address>;
}

#[expect(private_interfaces, reason = "as in the trait")]
impl PerFamily for V4 {
    fn flows(tables: &UserTables) -> &Flows<Address4> {
        &tables.v4
    }
    fn flows_mut(tables: &mut UserTables) -> &mut Flows<Address4> {
        &mut tables.v4
    }
}

#[expect(private_interfaces, reason = "as in the trait")]
impl PerFamily for V6 {
    fn flows(tables: &UserTables) -> &Flows<Address6> {
        &tables.v6
    }
    fn flows_mut(tables: &mut UserTables) -> &mut Flows<Address6> {
        &mut tables.v6
    }
}

impl<F: PerFamily> Tables<F> for UserTables
where
    F::Address: Hash,
{
    fn config(&self) -> &Config {
        &self.config
    }

    fn active(&self) -> Active {
        self.active
    }

    fn judge(&mut self, active: Active, key: &Key<F::Address>, axis: u32) -> Judgement {
        let (source, destination) = (key.source, key.destination);
        let at = judged::bucket::<F>(source, destination, axis) as usize;
        match F::flows_mut(self).judged[at].find::<F>(active, source, destination, axis) {
            Ok(kept) => kept,
            Err(place) => {
                let judgement = F::classify(self.image.as_slice(), source, destination, axis);
                F::flows_mut(self).judged[at].keep(place, active, judgement);
                judgement
            }
        }
    }

    fn egress(&self, _active: Active, route: u16) -> Option<&Egress> {
        self.egress.get(usize::from(route))
    }

    fn host_address(&self, address: &F::Address) -> Option<HostAddress> {
        self.host_address_of(&F::mapped(*address))
    }

    fn with_flow<R>(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        f: impl FnOnce(&mut Flow<F::Address>) -> R,
    ) -> Option<R> {
        let flow = F::flows_mut(self).get_mut(stage, key)?;
        let before = [flow.packets, flow.bytes];
        let result = f(flow);
        let (way, after) = (Way::of(key, flow), [flow.packets, flow.bytes]);
        if after != before {
            self.carried(way, before, after);
        }
        Some(result)
    }

    fn insert_flow(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        replace: bool,
        init: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), Refused> {
        let mut flow = Flow::default();
        init(&mut flow);
        let inserted = F::flows_mut(self).insert(stage, key, replace, flow)?;
        self.totals.half_open_evicted += u64::from(inserted.evicted);
        if let Some(ended) = inserted.ended {
            self.end::<F>(&ended);
        }
        self.carried(Way::of(key, &flow), [0; 2], [flow.packets, flow.bytes]);
        Ok(())
    }

    fn confirm_flow(
        &mut self,
        key: &Key<F::Address>,
        update: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), NotConfirmed> {
        let mut change = (Way::default(), [0; 2], [0; 2]);
        F::flows_mut(self).confirm(key, |flow| {
            let before = [flow.packets, flow.bytes];
            update(flow);
            change = (Way::of(key, flow), before, [flow.packets, flow.bytes]);
        })?;
        self.carried(change.0, change.1, change.2);
        Ok(())
    }

    fn remove_flow(&mut self, stage: Stage, key: &Key<F::Address>) {
        if let Some(ended) = F::flows_mut(self).remove(stage, key) {
            self.end::<F>(&ended);
        }
    }

    fn remove_revoked(&mut self, stage: Stage, key: &Key<F::Address>) {
        F::flows_mut(self).remove(stage, key);
    }

    fn with_openings<R>(
        &mut self,
        source: &F::Address,
        now: u32,
        f: impl FnOnce(&mut Openings) -> R,
    ) -> Option<R> {
        Some(f(F::flows_mut(self).remembered.openings(source, now)))
    }

    fn exhausted(&self, place: u32) -> u64 {
        self.exhausted.get(place as usize).copied().unwrap_or(0)
    }

    fn set_exhausted(&mut self, place: u32, note: u64) {
        if let Some(there) = self.exhausted.get_mut(place as usize) {
            *there = note;
        }
    }

    fn mapping(&mut self, key: &MappingKey<F::Address>) -> Option<Mapping<F::Address>> {
        F::flows_mut(self).remembered.mapping(key)
    }

    fn set_mapping(&mut self, key: &MappingKey<F::Address>, mapping: &Mapping<F::Address>) {
        F::flows_mut(self).remembered.set_mapping(key, *mapping);
    }

    fn count_collisions(&mut self, taken: u32) {
        self.totals.port_collisions[taken as usize % PROBES as usize] += 1;
    }

    fn with_datagram<R>(
        &mut self,
        key: &DatagramKey<F::Address>,
        f: impl FnOnce(&mut Datagram) -> R,
    ) -> Option<R> {
        F::flows_mut(self).datagrams.get_mut(key).map(f)
    }

    fn insert_datagram(
        &mut self,
        key: &DatagramKey<F::Address>,
        init: impl FnOnce(&mut Datagram),
    ) -> Result<(), Refused> {
        let mut datagram = Datagram::default();
        init(&mut datagram);
        F::flows_mut(self).datagrams.insert(key, datagram)
    }

    fn count_forwarded(&mut self, side: Side, bytes: u32) {
        let [packets, total] = &mut self.totals.forwarded[side as usize];
        *packets += 1;
        *total += u64::from(bytes);
    }

    fn count_dropped(&mut self, reason: DropReason) {
        self.totals.dropped[reason as usize] += 1;
    }

    fn count_answer(&mut self, answer: Answer) {
        self.totals.answers[answer as usize] += 1;
    }

    fn may_answer(&mut self, sender: &F::Address, now: u64) -> bool {
        let hz = self.config.ticks_per_second;
        let own = F::flows_mut(self).remembered.bucket(sender).take(now, hz, SENDER);
        own && self.bucket.take(now, hz, ALL)
    }

    fn count_admitted(&mut self, rule: u32) {
        self.totals.started += 1;
        if let Some(rule) = self.rule(rule) {
            rule.admitted += 1;
        }
    }

    fn count_refused(&mut self, rule: u32) {
        if let Some(rule) = self.rule(rule) {
            rule.refused += 1;
        }
    }

    fn count_route(&mut self, route: u16, refused: bool) {
        let totals = self.totals.routes.entry(route).or_default();
        let counter = if refused { &mut totals.refused } else { &mut totals.admitted };
        *counter += 1;
    }

    fn emit(&mut self, about: About, fill: impl FnOnce(&mut Event)) {
        let first = self.told.insert((about.what(), about.rule));
        if self.events.len() >= self.limits.events {
            self.totals.lost += 1;
            return;
        }
        // The last half of the room is for sorts of events of which none waits there yet.
        if !first && self.events.len() >= self.limits.events / 2 {
            self.totals.suppressed += 1;
            return;
        }
        let mut event = Event::default();
        about.fill(&mut event);
        fill(&mut event);
        self.events.push_back(event);
    }
}
