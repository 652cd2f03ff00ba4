//! The engine's tables over the maps.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use sluicegate_engine::answer::{ALL, Answer, Bucket, SENDER};
use sluicegate_engine::classify::Judgement;
use sluicegate_engine::event::{About, Event};
use sluicegate_engine::flow::{Flow, Hop, Key, Side};
use sluicegate_engine::fragment::{Datagram, DatagramKey};
use sluicegate_engine::hop::NeighbourKey;
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::image::ROUTES_MAX;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::stage::Refusal;
use sluicegate_engine::tables::{Active, Config, Egress, NotConfirmed, Refused, Stage, Tables};
use sluicegate_engine::work::Work;

use crate::events::may_tell;
use crate::maps::{
    ACTIVE, ANSWER_BUDGET, ANSWERS, CONFIG, DROPS, EGRESS, EVENTS, EVENTS_LOST, FORWARDED, HALF_OPEN_COUNTS,
    PORT_COLLISIONS, ROUTES, RULES, add,
};
use crate::memory::{copy, exchange, zero};
use crate::sources;
use crate::stages::{PerFamily, lend};

/// The engine's surroundings in the kernel.
pub struct Maps {
    /// What the operator set.
    pub config: &'static Config,
}

impl Maps {
    /// `None` cannot happen: the map has one entry.
    #[inline(always)]
    pub fn new() -> Option<Self> {
        CONFIG.get(0).map(|config| Self { config })
    }
}

impl<F: PerFamily> Tables<F> for Maps {
    #[inline(always)]
    fn config(&self) -> &Config {
        self.config
    }

    #[inline(always)]
    fn active(&self) -> Active {
        // SAFETY: one aligned 64-bit load, against the agent's one 64-bit store.
        Active(ACTIVE.get_ptr(0).map_or(0, |word| unsafe { core::ptr::read_volatile(word) }))
    }

    #[inline(always)]
    fn judge(&mut self, active: Active, key: &Key<F::Address>, axis: u32) -> Judgement {
        F::judge(active, F::fetch(&key.source), F::fetch(&key.destination), axis)
    }

    #[inline(always)]
    fn egress(&self, active: Active, route: u16) -> Option<&Egress> {
        EGRESS.get(active.half() * ROUTES_MAX + u32::from(route))
    }

    #[inline(always)]
    fn with_flow<R>(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        f: impl FnOnce(&mut Flow<F::Address>) -> R,
    ) -> Option<R> {
        // SAFETY: map memory stays valid for the whole run (RCU). Another processor may write the same entry at the same
        // time, as conntrack's counters allow: fields are independent words, flags only ever gain bits.
        F::get(stage, key).map(|flow| f(unsafe { &mut *flow }))
    }

    #[inline(always)]
    fn insert_flow(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        replace: bool,
        init: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), Refused> {
        let Some(scratch) = F::scratch() else { return Err(Refused::Full) };
        // SAFETY: the entry of this processor; the programs run with bottom halves off, so none interrupts another.
        let flow = unsafe {
            zero(scratch);
            &mut *scratch
        };
        init(flow);
        // What is replaced is not counted as inserted.
        match F::insert(stage, key, flow, u64::from(BPF_NOEXIST)) {
            Ok(()) => {
                count_half_open(stage, 0);
                Ok(())
            }
            Err(EEXIST) if replace => {
                F::insert(stage, key, flow, u64::from(BPF_ANY)).map_err(|_| Refused::Full)
            }
            Err(error) => Err(refused(error)),
        }
    }

    #[inline(always)]
    fn confirm_flow(
        &mut self,
        key: &Key<F::Address>,
        update: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), NotConfirmed> {
        let Some(half_open) = F::get(Stage::HalfOpen, key) else { return Err(NotConfirmed::Missing) };
        let Some(scratch) = F::scratch() else { return Err(NotConfirmed::Full) };
        // SAFETY: as in `insert_flow` and `with_flow`.
        let flow = unsafe {
            copy(half_open, scratch);
            &mut *scratch
        };
        update(flow);
        F::insert(Stage::Confirmed, key, flow, u64::from(BPF_ANY)).map_err(|_| NotConfirmed::Full)
    }

    #[inline(always)]
    fn remove_flow(&mut self, stage: Stage, key: &Key<F::Address>) {
        // Not being there is what is wanted.
        if F::remove(stage, key) {
            count_half_open(stage, 1);
        }
    }

    #[inline(always)]
    fn with_openings<R>(
        &mut self,
        source: &F::Address,
        now: u32,
        f: impl FnOnce(&mut Openings) -> R,
    ) -> Option<R> {
        if let Some(openings) = F::openings(source) {
            // SAFETY: as in `with_flow`. Two processors may count the same opening's neighbour once: a limit that is one off.
            return Some(f(unsafe { &mut *openings }));
        }
        let mut openings = Openings { since: now, count: 0 };
        let result = f(&mut openings);
        F::set_openings(source, &openings);
        Some(result)
    }

    #[inline(always)]
    fn host_address(&self, address: &F::Address) -> Option<HostAddress> {
        F::host_address(address)
    }

    #[inline(always)]
    fn is_hosts(&mut self, port: u16) -> bool {
        sources::is_hosts(port)
    }

    #[inline(always)]
    fn exhausted(&self, place: u32) -> u64 {
        sources::exhausted(place)
    }

    #[inline(always)]
    fn set_exhausted(&mut self, place: u32, note: u64) {
        sources::set_exhausted(place, note);
    }

    #[inline(always)]
    fn mapping(&mut self, key: &MappingKey<F::Address>) -> Option<Mapping<F::Address>> {
        F::mapping(key)
    }

    #[inline(always)]
    fn set_mapping(&mut self, key: &MappingKey<F::Address>, mapping: &Mapping<F::Address>) {
        F::set_mapping(key, mapping);
    }

    #[inline(always)]
    fn neighbour(&mut self, key: &NeighbourKey<F::Address>) -> Option<Hop> {
        // SAFETY: map memory stays valid for the whole run (RCU); a torn copy is a frame for an address that the neighbour had, or
        // has by now, in some of its bytes: it is lost, and the next one is not.
        F::neighbour(key).map(|hop| unsafe { *hop })
    }

    #[inline(always)]
    fn set_neighbour(&mut self, key: &NeighbourKey<F::Address>, hop: &Hop) {
        F::set_neighbour(key, hop);
    }

    #[inline(always)]
    fn count_collisions(&mut self, taken: u32) {
        add(PORT_COLLISIONS.get_ptr_mut(taken), 1);
    }

    #[inline(always)]
    fn with_datagram<R>(
        &mut self,
        key: &DatagramKey<F::Address>,
        f: impl FnOnce(&mut Datagram) -> R,
    ) -> Option<R> {
        let datagram = F::datagram(key)?;
        // Two fragments placed at once could overlap unseen. Processors do not wait for each other here: the second one's is
        // dropped, like one that comes before its first.
        // SAFETY: as in `with_flow`.
        if unsafe { exchange(&raw mut (*datagram).busy, 1) } != 0 {
            return None;
        }
        // SAFETY: as in `with_flow`, and alone.
        let result = f(unsafe { &mut *datagram });
        // SAFETY: as above.
        unsafe { exchange(&raw mut (*datagram).busy, 0) };
        Some(result)
    }

    #[inline(always)]
    fn insert_datagram(
        &mut self,
        key: &DatagramKey<F::Address>,
        init: impl FnOnce(&mut Datagram),
    ) -> Result<(), Refused> {
        let mut datagram = Datagram::default();
        init(&mut datagram);
        F::insert_datagram(key, &datagram).map_err(refused)
    }

    #[inline(always)]
    fn count_forwarded(&mut self, side: Side, bytes: u32) {
        if let Some(counter) = FORWARDED.get_ptr_mut(side as u32) {
            // SAFETY: the entry of this processor.
            unsafe {
                (*counter)[0] += 1;
                (*counter)[1] += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    fn count_dropped(&mut self, reason: DropReason) {
        add(DROPS.get_ptr_mut(reason as u32), 1);
    }

    #[inline(always)]
    fn count_answer(&mut self, answer: Answer) {
        add(ANSWERS.get_ptr_mut(answer as u32), 1);
    }

    #[inline(always)]
    fn may_answer(&mut self, sender: &F::Address, now: u64) -> bool {
        let hz = self.config.ticks_per_second;
        let own = match F::bucket(sender) {
            // SAFETY: as in `with_flow`. Two processors may take the same answer: one more than there should be.
            Some(bucket) => unsafe { (*bucket).take(now, hz, SENDER) },
            None => {
                let mut bucket = Bucket::default();
                let may = bucket.take(now, hz, SENDER);
                F::set_bucket(sender, &bucket);
                may
            }
        };
        if !own {
            return false;
        }
        let Some(bucket) = ANSWER_BUDGET.get_ptr_mut(0) else { return false };
        // SAFETY: the entry of this processor; the programs run with bottom halves off, so none interrupts another.
        unsafe { (*bucket).take(now, hz, ALL) }
    }

    #[inline(always)]
    fn count_admitted(&mut self, rule: u32) {
        // SAFETY: the entry of this processor; the first of its two words.
        add(RULES.get_ptr_mut(rule).map(|pair| unsafe { &raw mut (*pair)[0] }), 1);
    }

    #[inline(always)]
    fn count_refused(&mut self, rule: u32) {
        // SAFETY: the entry of this processor; the second of its two words.
        add(RULES.get_ptr_mut(rule).map(|pair| unsafe { &raw mut (*pair)[1] }), 1);
    }

    #[inline(always)]
    fn count_route(&mut self, route: u16, refused: bool) {
        // SAFETY: the entry of this processor; one of its two words.
        add(
            ROUTES.get_ptr_mut(route.into()).map(|pair| unsafe { &raw mut (*pair)[usize::from(refused)] }),
            1,
        );
    }

    #[inline(always)]
    fn emit(&mut self, about: About, fill: impl FnOnce(&mut Event)) {
        if may_tell(about.what(), about.rule) == 0 {
            return;
        }
        let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
            add(EVENTS_LOST.get_ptr_mut(0), 1);
            return;
        };
        // SAFETY: the entry is ours until it is submitted, and an event is plain numbers, for which zero is a value.
        let event = unsafe {
            zero(entry.as_mut_ptr());
            &mut *entry.as_mut_ptr()
        };
        about.fill(event);
        fill(event);
        entry.submit(0);
    }

    #[inline(always)]
    fn renew(&mut self, stage: Stage, _: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, || F::renew(matches!(stage, Stage::HalfOpen).into()))
    }

    #[inline(always)]
    fn meet(&mut self, stage: Stage, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, || F::meet(matches!(stage, Stage::HalfOpen).into()))
    }

    #[inline(always)]
    fn advance(&mut self, stage: Stage, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, || F::advance(matches!(stage, Stage::HalfOpen).into()))
    }

    #[inline(always)]
    fn admit(&mut self, _: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, F::admit)
    }

    #[inline(always)]
    fn count_opening(&mut self, answered: bool, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, || F::count_opening(answered.into()))
    }

    #[inline(always)]
    fn claim(&mut self, taken: u32, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, || F::claim(taken))
    }

    #[inline(always)]
    fn join(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, F::join)
    }

    #[inline(always)]
    fn reserve(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, F::reserve)
    }

    #[inline(always)]
    fn insert(&mut self, _: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, F::insert_both)
    }

    #[inline(always)]
    fn relate(&mut self, _: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, F::relate)
    }

    #[inline(always)]
    fn follow(&mut self, looking: bool, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, || F::follow(looking.into()))
    }

    #[inline(always)]
    fn remember(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, F::remember)
    }
}

/// Counts a half-open half-entry that came (0) or went (1).
#[inline(always)]
fn count_half_open(stage: Stage, way: usize) {
    if matches!(stage, Stage::HalfOpen) {
        // SAFETY: the entry of this processor; one of its two words.
        add(HALF_OPEN_COUNTS.get_ptr_mut(0).map(|pair| unsafe { &raw mut (*pair)[way & 1] }), 1);
    }
}

const EEXIST: i32 = -17;

/// What an insertion failed by.
#[inline(always)]
const fn refused(error: i32) -> Refused {
    if error == EEXIST { Refused::Exists } else { Refused::Full }
}
