//! The maps, and the engine's view of them.
//!
//! All are pinned by name, so that flows, counters and the image outlive the agent. Sizes here are the smallest; the loader
//! sets the ones in force.

use aya_ebpf::bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_NOEXIST, xdp_md};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf};
use sluicegate_engine::answer::{ALL, Answer, Bucket, SENDER};
use sluicegate_engine::classify::{
    Judgement, Line, Lines, Wide, better, decide, decide_cell, decide_row, place, search_services, search4,
    search6,
};
use sluicegate_engine::event::{self, About, Event, SEEN_SETS, SeenSet};
use sluicegate_engine::family::{Address4, Address6, V4, V6};
use sluicegate_engine::flow::{Flow, Hop, Key, Side};
use sluicegate_engine::fragment::{Datagram, DatagramKey};
use sluicegate_engine::hop::{NeighbourKey, Wire};
use sluicegate_engine::image::ROUTES_MAX;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey};
use sluicegate_engine::nat::PROBES;
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::stage::{self, Outcome, Refusal};
use sluicegate_engine::tables::{Active, Config, Egress, NotConfirmed, Refused, Stage, Tables};
use sluicegate_engine::work::Work;

use crate::clock;
use crate::sources::{self, Sources};

type A4 = Address4;
type A6 = Address6;

/// What the operator set: one entry.
#[map]
static CONFIG: Array<Config> = Array::pinned(1, 0);
/// The image in force: one entry, one 64-bit store to exchange it.
#[map]
static ACTIVE: Array<u64> = Array::pinned(1, BPF_F_MMAPABLE);
/// Two images of `IMAGE_LINES` lines each.
#[map]
static IMAGE: Array<Line> = Array::pinned(2, BPF_F_MMAPABLE);
/// Revision and SHA-256 of the image in each half: for the agent, no program reads it.
#[map]
static IN_FORCE: Array<[u64; 5]> = Array::pinned(2, 0);
/// Where each route leaves, by the image in each half: `ROUTES_MAX` entries each.
#[map]
static EGRESS: Array<Egress> = Array::pinned(1, 0);

#[map]
static FLOWS4: HashMap<Key<A4>, Flow<A4>> = HashMap::pinned(1024, 0);
#[map]
static FLOWS6: HashMap<Key<A6>, Flow<A6>> = HashMap::pinned(1024, 0);
#[map]
static HALF_OPEN4: LruHashMap<Key<A4>, Flow<A4>> = LruHashMap::pinned(1024, 0);
#[map]
static HALF_OPEN6: LruHashMap<Key<A6>, Flow<A6>> = LruHashMap::pinned(1024, 0);

/// Datagrams whose first fragment has passed. A full table forgets the least recently used.
#[map]
static FRAGMENTS4: LruHashMap<DatagramKey<A4>, Datagram> = LruHashMap::pinned(1024, 0);
#[map]
static FRAGMENTS6: LruHashMap<DatagramKey<A6>, Datagram> = LruHashMap::pinned(1024, 0);

/// Where a half-entry is put together before it is inserted: the stack has no room for it.
#[map]
static SCRATCH4: PerCpuArray<Flow<A4>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH6: PerCpuArray<Flow<A6>> = PerCpuArray::with_max_entries(1, 0);
/// What is known of the packet in hand.
#[map]
static WORK4: PerCpuArray<Work<A4>> = PerCpuArray::with_max_entries(1, 0);
#[map]
static WORK6: PerCpuArray<Work<A6>> = PerCpuArray::with_max_entries(1, 0);

/// Whose frames they are, by device and VLAN ids.
#[map]
static WIRES: HashMap<[u32; 2], Wire> = HashMap::pinned(256, 0);
/// The devices XDP may send by.
#[map]
static DEVICES: DevMapHash = DevMapHash::pinned(256, 0);
/// The ticks that program `clock` has read.
#[map]
static CLOCK: Array<u64> = Array::with_max_entries(1, 0);
/// Packets dropped, by reason.
#[map]
static DROPS: PerCpuArray<u64> = PerCpuArray::pinned(DropReason::COUNT as u32, 0);
/// What became of the wish to answer a dropped packet, by `Answer`.
#[map]
static ANSWERS: PerCpuArray<u64> = PerCpuArray::pinned(Answer::COUNT as u32, 0);
/// How many answers this processor may send.
#[map]
static ANSWER_BUDGET: PerCpuArray<Bucket> = PerCpuArray::pinned(1, 0);
/// Packets and bytes that went on, by side.
#[map]
static FORWARDED: PerCpuArray<[u64; 2]> = PerCpuArray::pinned(4, 0);
/// Flows admitted and packets refused, by rule slot.
#[map]
static RULES: PerCpuArray<[u64; 2]> = PerCpuArray::pinned(1, 0);
/// Flows admitted and first packets refused, by route number.
#[map]
static ROUTES: PerCpuArray<[u64; 2]> = PerCpuArray::pinned(1, 0);

/// Half-open half-entries inserted, and removed by programs: what is neither removed nor there was evicted.
#[map]
static HALF_OPEN_COUNTS: PerCpuArray<[u64; 2]> = PerCpuArray::pinned(1, 0);
/// Half-open half-entries that the agent removed: no program reads it.
#[map]
static HALF_OPEN_SWEPT: Array<u64> = Array::pinned(1, 0);
/// Masqueraded flows, by the number of ports that were taken before they found theirs.
#[map]
static PORT_COLLISIONS: PerCpuArray<u64> = PerCpuArray::pinned(PROBES, 0);

/// `Event`s.
#[map]
static EVENTS: RingBuf = RingBuf::pinned(1 << 20, 0);
/// Events that found no room.
#[map]
static EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::pinned(1, 0);
/// Events left out: beyond what one tick may write, and one alike was written in the same second.
#[map]
static EVENTS_SUPPRESSED: PerCpuArray<u64> = PerCpuArray::pinned(1, 0);
/// When events of each sort were last written.
#[map]
static EVENT_SORTS: PerCpuArray<SeenSet> = PerCpuArray::with_max_entries(SEEN_SETS, 0);
/// Tick, and events written in it.
#[map]
static EVENT_BUDGET: PerCpuArray<[u32; 2]> = PerCpuArray::pinned(1, 0);

/// Lines of one image; constant after load.
#[unsafe(no_mangle)]
static IMAGE_LINES: u32 = 1;
/// Not zero when the overlay device has an Ethernet header; constant after load.
#[unsafe(no_mangle)]
static OVERLAY_ETHERNET: u32 = 0;
/// Events one processor may write in one tick: a flood of refused packets must not hide everything else for long, nor
/// cost more than it must.
#[unsafe(no_mangle)]
static EVENTS_PER_TICK: u32 = 64;

/// Whether the overlay device has an Ethernet header.
#[inline(always)]
pub fn overlay_is_ethernet() -> bool {
    constant(&OVERLAY_ETHERNET) != 0
}

#[inline(always)]
fn constant(value: &'static u32) -> u32 {
    // SAFETY: a load from the program's read-only data, which the loader sets before the kernel freezes it.
    unsafe { core::ptr::read_volatile(value) }
}

/// Index of the device where a frame was received.
#[inline(always)]
pub fn arrived_on(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the context of an XDP program; this field may be read.
    unsafe { (*ctx).ingress_ifindex }
}

/// Whose frames with these VLAN ids are, on the device where `ctx` was received.
#[inline(always)]
pub fn wire(ctx: *mut xdp_md, vlans: u32) -> Option<Wire> {
    // SAFETY: entries are plain numbers, copied once.
    unsafe { WIRES.get([arrived_on(ctx), vlans]) }.copied()
}

/// Has the frame sent by `device` when the program ends with `XDP_REDIRECT`. False where the device went away.
#[inline(always)]
pub fn redirect(device: u32) -> bool {
    DEVICES.redirect(device, 0).is_ok()
}

/// Counts a drop outside the engine.
#[inline(always)]
pub fn drop_uncounted_family(reason: DropReason) {
    add(DROPS.get_ptr_mut(reason as u32), 1);
}

/// Leaves the ticks where the agent reads them; 0 when done.
#[inline(always)]
pub fn tell_ticks(ticks: u64) -> i32 {
    CLOCK.set(0, ticks, 0).map_or(-1, |()| 0)
}

#[inline(always)]
pub fn add(counter: Option<*mut u64>, amount: u64) {
    if let Some(counter) = counter {
        // SAFETY: the entry of this processor, which nothing else writes while the program runs.
        unsafe { *counter += amount };
    }
}

/// The maps of one address family.
pub trait PerFamily: Sources {
    fn get(stage: Stage, key: &Key<Self::Address>) -> Option<*mut Flow<Self::Address>>;
    fn insert(
        stage: Stage,
        key: &Key<Self::Address>,
        flow: &Flow<Self::Address>,
        flags: u64,
    ) -> Result<(), i32>;
    /// Whether it was there.
    fn remove(stage: Stage, key: &Key<Self::Address>) -> bool;
    fn scratch() -> Option<*mut Flow<Self::Address>>;
    /// Memory for the packet in hand.
    fn work() -> Option<&'static mut Work<Self::Address>>;
    /// The family's global function for each stage.
    fn renew(stage: u32) -> u64;
    fn meet(stage: u32) -> u64;
    fn advance(stage: u32) -> u64;
    fn admit() -> u64;
    fn count_opening(answered: u32) -> u64;
    fn claim() -> u64;
    fn join() -> u64;
    fn reserve() -> u64;
    fn insert_both() -> u64;
    fn relate() -> u64;
    fn follow(looking: u32) -> u64;
    fn remember() -> u64;
    fn datagram(key: &DatagramKey<Self::Address>) -> Option<*mut Datagram>;
    fn insert_datagram(key: &DatagramKey<Self::Address>, datagram: &Datagram) -> Result<(), i32>;
}

macro_rules! per_family {
    ($family:ty, $confirmed:ident, $half_open:ident, $scratch:ident, $work:ident, $renew:ident, $meet:ident, $advance:ident, $admit:ident, $opening:ident, $claim:ident, $reserve:ident, $insert:ident, $join:ident,
     $relate:ident, $follow:ident, $remember:ident, $fragments:ident) => {
        impl PerFamily for $family {
            #[inline(always)]
            fn get(stage: Stage, key: &Key<Self::Address>) -> Option<*mut Flow<Self::Address>> {
                match stage {
                    Stage::Confirmed => $confirmed.get_ptr_mut(key),
                    Stage::HalfOpen => $half_open.get_ptr_mut(key),
                }
            }

            #[inline(always)]
            fn insert(
                stage: Stage,
                key: &Key<Self::Address>,
                flow: &Flow<Self::Address>,
                flags: u64,
            ) -> Result<(), i32> {
                match stage {
                    Stage::Confirmed => $confirmed.insert(key, flow, flags),
                    Stage::HalfOpen => $half_open.insert(key, flow, flags),
                }
            }

            #[inline(always)]
            fn remove(stage: Stage, key: &Key<Self::Address>) -> bool {
                match stage {
                    Stage::Confirmed => $confirmed.remove(key),
                    Stage::HalfOpen => $half_open.remove(key),
                }
                .is_ok()
            }

            #[inline(always)]
            fn scratch() -> Option<*mut Flow<Self::Address>> {
                $scratch.get_ptr_mut(0)
            }

            #[inline(always)]
            fn work() -> Option<&'static mut Work<Self::Address>> {
                // SAFETY: the entry of this processor; the programs run with bottom halves off, so none interrupts another.
                $work.get_ptr_mut(0).map(|work| unsafe { &mut *work })
            }

            #[inline(always)]
            fn renew(stage: u32) -> u64 {
                $renew(stage)
            }

            #[inline(always)]
            fn meet(stage: u32) -> u64 {
                $meet(stage)
            }

            #[inline(always)]
            fn advance(stage: u32) -> u64 {
                $advance(stage)
            }

            #[inline(always)]
            fn admit() -> u64 {
                $admit()
            }

            #[inline(always)]
            fn count_opening(answered: u32) -> u64 {
                $opening(answered)
            }

            #[inline(always)]
            fn claim() -> u64 {
                $claim()
            }

            #[inline(always)]
            fn join() -> u64 {
                $join()
            }

            #[inline(always)]
            fn reserve() -> u64 {
                $reserve()
            }

            #[inline(always)]
            fn insert_both() -> u64 {
                $insert()
            }

            #[inline(always)]
            fn relate() -> u64 {
                $relate()
            }

            #[inline(always)]
            fn follow(looking: u32) -> u64 {
                $follow(looking)
            }

            #[inline(always)]
            fn remember() -> u64 {
                $remember()
            }

            #[inline(always)]
            fn datagram(key: &DatagramKey<Self::Address>) -> Option<*mut Datagram> {
                $fragments.get_ptr_mut(key)
            }

            #[inline(always)]
            fn insert_datagram(key: &DatagramKey<Self::Address>, datagram: &Datagram) -> Result<(), i32> {
                $fragments.insert(key, datagram, u64::from(BPF_NOEXIST))
            }
        }

        /// A stage of the engine as a global function: verified once, with any arguments.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $renew(table: u32) -> u64 {
            in_work::<$family>(|maps, work| {
                stage::renew::<$family, _>(maps, work.side(), stage_of(table), work)
            })
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $meet(table: u32) -> u64 {
            in_work::<$family>(|maps, work| stage::meet::<$family, _>(maps, stage_of(table), work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $advance(table: u32) -> u64 {
            in_work::<$family>(|maps, work| stage::advance::<$family, _>(maps, stage_of(table), work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $admit() -> u64 {
            in_work::<$family>(|maps, work| stage::admit::<$family, _>(maps, work.side(), work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $opening(answered: u32) -> u64 {
            in_work::<$family>(|maps, work| stage::count_opening::<$family, _>(maps, answered != 0, work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $claim() -> u64 {
            in_work::<$family>(|maps, work| stage::claim::<$family, _>(maps, work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $join() -> u64 {
            in_work::<$family>(|maps, work| stage::join::<$family, _>(maps, work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $reserve() -> u64 {
            in_work::<$family>(|maps, work| stage::reserve::<$family, _>(maps, work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $insert() -> u64 {
            in_work::<$family>(|maps, work| stage::insert::<$family, _>(maps, work.side(), work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $relate() -> u64 {
            in_work::<$family>(|maps, work| stage::relate::<$family, _>(maps, work.side(), work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $follow(looking: u32) -> u64 {
            in_work::<$family>(|maps, work| stage::follow::<$family, _>(maps, looking != 0, work))
        }

        /// As above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $remember() -> u64 {
            in_work::<$family>(|maps, work| stage::remember::<$family, _>(maps, work))
        }
    };
}

per_family!(
    V4, FLOWS4, HALF_OPEN4, SCRATCH4, WORK4, renew4, meet4, advance4, admit4, opening4, claim4, reserve4,
    insert4, join4, relate4, follow4, remember4, FRAGMENTS4
);
per_family!(
    V6, FLOWS6, HALF_OPEN6, SCRATCH6, WORK6, renew6, meet6, advance6, admit6, opening6, claim6, reserve6,
    insert6, join6, relate6, follow6, remember6, FRAGMENTS6
);

/// Counts a half-open half-entry that came (0) or went (1).
#[inline(always)]
fn count_half_open(stage: Stage, way: usize) {
    if matches!(stage, Stage::HalfOpen) {
        // SAFETY: the entry of this processor; one of its two words.
        add(HALF_OPEN_COUNTS.get_ptr_mut(0).map(|pair| unsafe { &raw mut (*pair)[way & 1] }), 1);
    }
}

/// Fills `place` with zeros, eight bytes at a time: the compiler's own way is a call that goes byte by byte.
///
/// # Safety
/// `place` may be written, and zeros are a value of `T`.
#[inline(always)]
unsafe fn zero<T>(place: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() >= 8) };
    let words = place.cast::<u64>();
    let mut i = 0;
    while i < size_of::<T>() / 8 {
        // SAFETY: inside `place`, as counted.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
}

/// Copies `from` to `to`, as [`zero`] clears.
///
/// # Safety
/// `from` may be read and `to` may be written, and they do not overlap.
#[inline(always)]
unsafe fn copy<T: Copy>(from: *const T, to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() >= 8) };
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    let mut i = 0;
    while i < size_of::<T>() / 8 {
        // SAFETY: inside both, as counted.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
        i += 1;
    }
}

/// The table with this number.
#[inline(always)]
const fn stage_of(table: u32) -> Stage {
    if table == 0 { Stage::Confirmed } else { Stage::HalfOpen }
}

/// Runs a stage on the packet in hand.
#[inline(always)]
pub fn in_work<F: PerFamily>(
    stage: impl FnOnce(&mut Maps, &mut Work<F::Address>) -> Result<bool, Refusal>,
) -> u64 {
    let (Some(mut maps), Some(work)) = (Maps::new(), F::work()) else {
        return Outcome::from(Err(Refusal::from(DropReason::Internal))).0;
    };
    Outcome::from(stage(&mut maps, work)).0
}

/// Calls a stage's global function, which finds `work` by itself: for the compiler, `work` is in its hands meanwhile.
#[inline(always)]
pub fn lend<A>(work: &mut Work<A>, stage: impl FnOnce() -> u64) -> Result<bool, Refusal> {
    core::hint::black_box(&raw mut *work);
    Outcome(stage()).into()
}

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

/// One half of the double buffer. Its number is not known to be 0 or 1 to the compiler, which would make a branch of the
/// multiplication; where there is no such half, there are no lines.
struct Half(u32);

impl Lines for Half {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        let lines = constant(&IMAGE_LINES);
        if index >= lines {
            return None;
        }
        IMAGE.get(self.0.wrapping_mul(lines).wrapping_add(index))
    }

    #[inline(always)]
    fn clear_mask(&self, word: u64) -> u32 {
        let mut mask = word;
        // SAFETY: two instructions on a register.
        unsafe {
            core::arch::asm!("{0} s>>= 63", "{0} ^= -1", inout(reg) mask, options(pure, nomem, nostack));
        }
        mask as u32
    }

    #[inline(always)]
    fn search4(&self, starts: u32, len: u32, key: u32) -> u32 {
        verified_search4(self.0, starts, len, key)
    }

    #[inline(always)]
    fn search6(&self, starts: u32, len: u32, key: Wide) -> u32 {
        verified_search6(self.0, starts, len, key.0, key.1)
    }

    #[inline(always)]
    fn search_services(&self, set: u32, log: u32, axis: u32) -> u32 {
        verified_search_services(self.0, set, log, axis)
    }

    #[inline(always)]
    fn decide(&self, rows: u32, columns: u32, axis: u32) -> u32 {
        verified_decide(self.0, rows, columns, axis)
    }

    #[inline(always)]
    fn decide_cell(&self, row: u32, column: u32, axis: u32) -> u32 {
        verified_decide_cell(self.0, row, column, axis)
    }

    #[inline(always)]
    fn place(&self, lists: u32, places: u32, i: u32) -> u32 {
        verified_place(self.0, lists, places, i)
    }

    #[inline(always)]
    fn better(&self, best: u32, next: u32) -> u32 {
        verified_better(self.0, best, next)
    }

    #[inline(always)]
    fn decide_row(&self, row: u32, columns: u32, axis: u32, best: u32) -> u32 {
        verified_decide_row(self.0, row, columns, axis, best)
    }
}

/// Global functions are verified once, with any arguments, instead of along every path that leads to them: inline, the
/// searches took the verifier past a million instructions.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_search4(half: u32, starts: u32, len: u32, key: u32) -> u32 {
    search4(&Half(half), starts, len, key)
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_search6(half: u32, starts: u32, len: u32, high: u64, low: u64) -> u32 {
    search6(&Half(half), starts, len, (high, low))
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_search_services(half: u32, set: u32, log: u32, axis: u32) -> u32 {
    search_services(&Half(half), set, log, axis)
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_decide(half: u32, rows: u32, columns: u32, axis: u32) -> u32 {
    decide(&Half(half), rows, columns, axis)
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_decide_row(half: u32, row: u32, columns: u32, axis: u32, best: u32) -> u32 {
    decide_row(&Half(half), row, columns, axis, best)
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_decide_cell(half: u32, row: u32, column: u32, axis: u32) -> u32 {
    decide_cell(&Half(half), row, column, axis)
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_place(half: u32, lists: u32, places: u32, i: u32) -> u32 {
    place(&Half(half), lists, places, i)
}

/// As [`verified_search4`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn verified_better(half: u32, best: u32, next: u32) -> u32 {
    better(&Half(half), best, next)
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
    fn judge(&self, active: Active, source: F::Address, destination: F::Address, axis: u32) -> Judgement {
        F::classify(&Half(active.half()), source, destination, axis)
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
    fn is_hosts(&mut self, port: u16) -> bool {
        sources::is_hosts(port)
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
    fn claim(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        lend(work, F::claim)
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

/// Whether to write an event about this: the first of its sort in a second always, others within the budget. What is left
/// out is counted. A global function: it is called from every stage that tells of something.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn may_tell(what: u32, rule: u32) -> u32 {
    let (tag, set) = event::sort(what, rule);
    let (Some(config), Some(set)) = (CONFIG.get(0), EVENT_SORTS.get_ptr_mut(set)) else { return 0 };
    let now = clock::ticks() as u32;
    // SAFETY: the entry of this processor; the programs run with bottom halves off, so none interrupts another.
    let first = event::is_first(unsafe { &mut *set }, tag, now, config.ticks_per_second);
    // Counted either way, so that first ones use the budget up too.
    let within = within_budget(now);
    if first || within {
        return 1;
    }
    add(EVENTS_SUPPRESSED.get_ptr_mut(0), 1);
    0
}

#[inline(always)]
fn within_budget(tick: u32) -> bool {
    let Some(budget) = EVENT_BUDGET.get_ptr_mut(0) else { return false };
    // SAFETY: the entry of this processor.
    unsafe {
        if (*budget)[0] != tick {
            *budget = [tick, 0];
        }
        (*budget)[1] += 1;
        (*budget)[1] <= constant(&EVENTS_PER_TICK)
    }
}

const EEXIST: i32 = -17;

/// What an insertion failed by.
#[inline(always)]
const fn refused(error: i32) -> Refused {
    if error == EEXIST { Refused::Exists } else { Refused::Full }
}

/// Puts a value into an aligned word, and returns what was there: one step for all processors, before and after which each
/// sees what the others wrote. The core library has no such thing for this target.
///
/// # Safety
/// `word` points to memory that may be written.
#[inline(always)]
unsafe fn exchange(word: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: one instruction (BPF_XCHG) on memory that the caller vouches for.
    unsafe {
        core::arch::asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) value, in(reg) word, options(nostack));
    }
    value
}
