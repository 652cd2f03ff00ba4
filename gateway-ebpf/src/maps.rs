//! The maps, and what is read from them without the engine.
//!
//! All are pinned by name, so that flows, counters and the image outlive the agent. Sizes here are the smallest; the loader
//! sets the ones in force.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, xdp_md};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf};
use sluicegate_engine::answer::{Answer, Bucket};
use sluicegate_engine::classify::Line;
use sluicegate_engine::event::{SEEN_SETS, SeenSet};
use sluicegate_engine::family::{Address4, Address6};
use sluicegate_engine::flow::{Flow, Key};
use sluicegate_engine::fragment::{Datagram, DatagramKey};
use sluicegate_engine::hop::Wire;
use sluicegate_engine::nat::PROBES;
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::{Config, Egress};
use sluicegate_engine::work::Work;

type A4 = Address4;
type A6 = Address6;

/// What the operator set: one entry.
#[map]
pub static CONFIG: Array<Config> = Array::pinned(1, 0);
/// The image in force: one entry, one 64-bit store to exchange it.
#[map]
pub static ACTIVE: Array<u64> = Array::pinned(1, BPF_F_MMAPABLE);
/// Two images of `IMAGE_LINES` lines each.
#[map]
pub static IMAGE: Array<Line> = Array::pinned(2, BPF_F_MMAPABLE);
/// Revision and SHA-256 of the image in each half: for the agent, no program reads it.
#[map]
pub static IN_FORCE: Array<[u64; 5]> = Array::pinned(2, 0);
/// Where each route leaves, by the image in each half: `ROUTES_MAX` entries each.
#[map]
pub static EGRESS: Array<Egress> = Array::pinned(1, 0);

#[map]
pub static FLOWS4: HashMap<Key<A4>, Flow<A4>> = HashMap::pinned(1024, 0);
#[map]
pub static FLOWS6: HashMap<Key<A6>, Flow<A6>> = HashMap::pinned(1024, 0);
#[map]
pub static HALF_OPEN4: LruHashMap<Key<A4>, Flow<A4>> = LruHashMap::pinned(1024, 0);
#[map]
pub static HALF_OPEN6: LruHashMap<Key<A6>, Flow<A6>> = LruHashMap::pinned(1024, 0);

/// Datagrams whose first fragment has passed. A full table forgets the least recently used.
#[map]
pub static FRAGMENTS4: LruHashMap<DatagramKey<A4>, Datagram> = LruHashMap::pinned(1024, 0);
#[map]
pub static FRAGMENTS6: LruHashMap<DatagramKey<A6>, Datagram> = LruHashMap::pinned(1024, 0);

/// Where a half-entry is put together before it is inserted: the stack has no room for it.
#[map]
pub static SCRATCH4: PerCpuArray<Flow<A4>> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static SCRATCH6: PerCpuArray<Flow<A6>> = PerCpuArray::with_max_entries(1, 0);
/// What is known of the packet in hand.
#[map]
pub static WORK4: PerCpuArray<Work<A4>> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static WORK6: PerCpuArray<Work<A6>> = PerCpuArray::with_max_entries(1, 0);

/// Whose frames they are, by device and VLAN ids.
#[map]
pub static WIRES: HashMap<[u32; 2], Wire> = HashMap::pinned(256, 0);
/// The devices XDP may send by.
#[map]
pub static DEVICES: DevMapHash = DevMapHash::pinned(256, 0);
/// The ticks that program `clock` has read.
#[map]
pub static CLOCK: Array<u64> = Array::with_max_entries(1, 0);
/// Packets dropped, by reason.
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::pinned(DropReason::COUNT as u32, 0);
/// What became of the wish to answer a dropped packet, by `Answer`.
#[map]
pub static ANSWERS: PerCpuArray<u64> = PerCpuArray::pinned(Answer::COUNT as u32, 0);
/// How many answers this processor may send.
#[map]
pub static ANSWER_BUDGET: PerCpuArray<Bucket> = PerCpuArray::pinned(1, 0);
/// Packets and bytes that went on, by side.
#[map]
pub static FORWARDED: PerCpuArray<[u64; 2]> = PerCpuArray::pinned(4, 0);
/// Flows admitted and packets refused, by rule slot.
#[map]
pub static RULES: PerCpuArray<[u64; 2]> = PerCpuArray::pinned(1, 0);
/// Flows admitted and first packets refused, by route number.
#[map]
pub static ROUTES: PerCpuArray<[u64; 2]> = PerCpuArray::pinned(1, 0);

/// Half-open half-entries inserted, and removed by programs: what is neither removed nor there was evicted.
#[map]
pub static HALF_OPEN_COUNTS: PerCpuArray<[u64; 2]> = PerCpuArray::pinned(1, 0);
/// Half-open half-entries that the agent removed: no program reads it.
#[map]
pub static HALF_OPEN_SWEPT: Array<u64> = Array::pinned(1, 0);
/// Masqueraded flows, by the number of ports that were taken before they found theirs.
#[map]
pub static PORT_COLLISIONS: PerCpuArray<u64> = PerCpuArray::pinned(PROBES, 0);

/// `Event`s.
#[map]
pub static EVENTS: RingBuf = RingBuf::pinned(1 << 20, 0);
/// Events that found no room.
#[map]
pub static EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::pinned(1, 0);
/// Events left out: beyond what one tick may write, and one alike was written in the same second.
#[map]
pub static EVENTS_SUPPRESSED: PerCpuArray<u64> = PerCpuArray::pinned(1, 0);
/// When events of each sort were last written.
#[map]
pub static EVENT_SORTS: PerCpuArray<SeenSet> = PerCpuArray::with_max_entries(SEEN_SETS, 0);
/// Tick, and events written in it.
#[map]
pub static EVENT_BUDGET: PerCpuArray<[u32; 2]> = PerCpuArray::pinned(1, 0);

/// Lines of one image; constant after load.
#[unsafe(no_mangle)]
pub static IMAGE_LINES: u32 = 1;
/// Not zero when the overlay device has an Ethernet header; constant after load.
#[unsafe(no_mangle)]
static OVERLAY_ETHERNET: u32 = 0;
/// Events one processor may write in one tick: a flood of refused packets must not hide everything else for long, nor
/// cost more than it must.
#[unsafe(no_mangle)]
pub static EVENTS_PER_TICK: u32 = 64;

/// Whether the overlay device has an Ethernet header.
#[inline(always)]
pub fn overlay_is_ethernet() -> bool {
    constant(&OVERLAY_ETHERNET) != 0
}

/// A constant that the loader sets.
#[inline(always)]
pub fn constant(value: &'static u32) -> u32 {
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
