//! Recording packets and what became of them, while somebody asks for it.
//!
//! The bytes are put by before the engine sees the packet, which is when they are as they came; when the verdict is known,
//! the filter decides whether the record is written. Nothing of this costs anything while `CAPTURE` is not set in the
//! configuration but the look at that bit.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_xdp_load_bytes};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use sluicegate_engine::capture::{BYTES, Captured, Fate, Filter};
use sluicegate_engine::family::{V4, V6};
use sluicegate_engine::packet::Packet as _;
use sluicegate_engine::pipeline::Verdict;
use sluicegate_engine::tables::{CAPTURE, Config};

use crate::clock;
use crate::frame::Frame;
use crate::maps::add;
use crate::stages::PerFamily;

/// `Captured`s. Not pinned, like all maps here: a capture ends with the agent that was asked for it.
#[map]
static CAPTURES: RingBuf = RingBuf::with_byte_size(1 << 21, 0);
/// Packets that were wanted and not recorded: too many in one tick, or no room.
#[map]
static CAPTURES_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// Tick, and records written in it.
#[map]
static CAPTURE_BUDGET: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(1, 0);
/// Which packets are wanted.
#[map]
static CAPTURE_FILTER: Array<Filter> = Array::with_max_entries(1, 0);
/// The record in hand.
#[map]
static CAPTURE_SCRATCH: PerCpuArray<Captured> = PerCpuArray::with_max_entries(1, 0);

/// Records one processor may write in one tick: some 64,000 a second, 11 MB.
const RECORDS_PER_TICK: u32 = 256;
/// The least that is worth a record: an IPv4 header.
const LEAST: u32 = 20;

/// Whether packets are recorded now. Volatile, and asked once more after the verdict: an answer kept from before it would
/// have the verifier walk everything in between twice.
#[inline(always)]
pub fn is_on(config: &Config) -> bool {
    // SAFETY: a field of a map's entry.
    unsafe { core::ptr::read_volatile(&raw const config.flags) & CAPTURE != 0 }
}

/// How many bytes of a packet of `length` are recorded: between 1 and [`BYTES`], and of the register the helper gets the verifier
/// knows it: in Linux 6.1 a bound is not known of the copies of what was compared.
#[inline(always)]
fn wanted(length: u32) -> u32 {
    let mut wanted = u64::from(if length > BYTES as u32 { BYTES as u32 } else { length });
    // SAFETY: three instructions on one register.
    unsafe {
        core::arch::asm!(
            "{0} += -1",
            "{0} &= {1}",
            "{0} += 1",
            inout(reg) wanted,
            const BYTES - 1,
            options(pure, nomem, nostack)
        );
    }
    wanted as u32
}

/// Puts by the first bytes of a packet in TC, whose IP header starts at `l2`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_skb(skb: *mut __sk_buff, l2: u32) -> u32 {
    let Some(record) = CAPTURE_SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the context of a TC program, a field of which may be read; the record of this processor.
    unsafe {
        let length = (*skb).len.wrapping_sub(l2);
        (*record).length = length;
        (*record).captured = 0;
        let wanted = wanted(length);
        if wanted >= LEAST
            && bpf_skb_load_bytes(skb.cast(), l2, (&raw mut (*record).bytes).cast(), wanted) == 0
        {
            (*record).captured = wanted as u8;
        }
    }
    0
}

/// The same of a frame in XDP.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_frame(ctx: *mut xdp_md, l2: u32) -> u32 {
    let Some(record) = CAPTURE_SCRATCH.get_ptr_mut(0) else { return 0 };
    let length = Frame::new(ctx, l2).length();
    // SAFETY: the context of an XDP program; the record of this processor.
    unsafe {
        (*record).length = length;
        (*record).captured = 0;
        let wanted = wanted(length);
        if wanted >= LEAST && bpf_xdp_load_bytes(ctx, l2, (&raw mut (*record).bytes).cast(), wanted) == 0 {
            (*record).captured = wanted as u8;
        }
    }
    0
}

/// Writes the record, if the packet is wanted: its bytes are put by, and the engine has judged it.
#[inline(always)]
pub fn finish<F: PerFamily>(verdict: Verdict) {
    let (fate, device) = Fate::of(verdict);
    if F::VERSION == 4 {
        captured_4(fate as u32, device)
    } else {
        captured_6(fate as u32, device)
    };
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn captured_4(fate: u32, device: u32) -> u32 {
    captured::<V4>(Fate::from_number(fate as u8), device)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn captured_6(fate: u32, device: u32) -> u32 {
    captured::<V6>(Fate::from_number(fate as u8), device)
}

#[inline(always)]
fn captured<F: PerFamily>(fate: Fate, device: u32) -> u32 {
    let (Some(filter), Some(record), Some(work)) =
        (CAPTURE_FILTER.get(0), CAPTURE_SCRATCH.get_ptr_mut(0), F::work())
    else {
        return 0;
    };
    // SAFETY: the record of this processor; the helper takes nothing.
    unsafe {
        // Nothing was put by where the capture began between the two looks.
        if (*record).captured == 0 || !filter.wants::<F>(work, fate) {
            return 0;
        }
        (*record).describe::<F>(work, fate, device);
        (*record).nanoseconds = bpf_ktime_get_ns();
    }
    // SAFETY: as above.
    if !within_budget() || unsafe { CAPTURES.output::<Captured>(&*record, 0) }.is_err() {
        add(CAPTURES_LOST.get_ptr_mut(0), 1);
    }
    // SAFETY: as above.
    unsafe { (*record).captured = 0 };
    1
}

#[inline(always)]
fn within_budget() -> bool {
    let Some(budget) = CAPTURE_BUDGET.get_ptr_mut(0) else { return false };
    let tick = clock::ticks() as u32;
    // SAFETY: the entry of this processor.
    unsafe {
        if (*budget)[0] != tick {
            *budget = [tick, 0];
        }
        (*budget)[1] += 1;
        (*budget)[1] <= RECORDS_PER_TICK
    }
}
