//! Judging by the image, or by what it said before: as global functions, whose answer is a plain number, so that nothing of how it
//! was come by makes the verifier walk what follows twice.
//!
//! What is kept is not pinned: a new agent's programs ask the image anew.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use sluicegate_engine::classify::Judgement;
use sluicegate_engine::family::{Address4, Address6, Family, V4, V6};
use sluicegate_engine::judged::{BUCKETS, Bucket, Sought, bucket};
use sluicegate_engine::tables::Active;

use crate::lines::Half;

#[map]
static JUDGED4: PerCpuArray<Bucket<Address4>> = PerCpuArray::with_max_entries(BUCKETS, 0);
#[map]
static JUDGED6: PerCpuArray<Bucket<Address6>> = PerCpuArray::with_max_entries(BUCKETS, 0);
/// Bucket and place of the judgement that is sought in the image now. Not on the stack, where the look-ups in the image need the
/// room.
#[map]
static FREE: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Judging in one family.
pub trait Judging: Family {
    /// What the image in force says of a packet.
    fn judge(active: Active, source: Self::Address, destination: Self::Address, axis: u32) -> Judgement;
}

impl Judging for V4 {
    #[inline(always)]
    fn judge(active: Active, source: Address4, destination: Address4, axis: u32) -> Judgement {
        let [source, destination] = [source, destination].map(|address| u32::from_ne_bytes(address.0));
        Sought(judge4(active.0, source, destination, axis)).judgement()
    }
}

impl Judging for V6 {
    #[inline(always)]
    fn judge(active: Active, source: Address6, destination: Address6, axis: u32) -> Judgement {
        let [s, d] = [source, destination].map(words);
        Sought(judge6(with_axis(active, axis), s[0], s[1], d[0], d[1])).judgement()
    }
}

/// Verified once, with any arguments. The addresses in network order.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge4(active: u64, source: u32, destination: u32, axis: u32) -> u64 {
    let active = Active(active);
    let mut sought = Sought(find4(active.epoch(), source, destination, axis));
    if !sought.is_kept() {
        let [source, destination] = [source, destination].map(|word| Address4(word.to_ne_bytes()));
        sought = V4::classify(&Half(active.half()), source, destination, axis).into();
        keep4(active.epoch(), sought.0);
    }
    sought.0
}

/// As above. Arguments are five at most: the first holds the axis, too.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge6(active: u64, s0: u64, s1: u64, d0: u64, d1: u64) -> u64 {
    let mut sought = Sought(find6(active, s0, s1, d0, d1));
    if !sought.is_kept() {
        let [source, destination] = [[s0, s1], [d0, d1]].map(address);
        let image = Half(Active(active).half());
        sought = V6::classify(&image, source, destination, axis_of(active)).into();
        keep6(Active(active).epoch(), sought.0);
    }
    sought.0
}

/// As above; see [`Bucket::find`]. The place that is free is noted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find4(epoch: u32, source: u32, destination: u32, axis: u32) -> u64 {
    let [source, destination] = [source, destination].map(|word| Address4(word.to_ne_bytes()));
    find::<V4>(&JUDGED4, Active::new(0, epoch), source, destination, axis)
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find6(active: u64, s0: u64, s1: u64, d0: u64, d1: u64) -> u64 {
    let [source, destination] = [[s0, s1], [d0, d1]].map(address);
    find::<V6>(&JUDGED6, Active(active), source, destination, axis_of(active))
}

/// As above; see [`Bucket::keep`]. In the place that was noted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn keep4(epoch: u32, judgement: u64) -> u32 {
    keep(&JUDGED4, epoch, judgement)
}

/// As above.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn keep6(epoch: u32, judgement: u64) -> u32 {
    keep(&JUDGED6, epoch, judgement)
}

#[inline(always)]
fn find<F: Family>(
    buckets: &PerCpuArray<Bucket<F::Address>>,
    active: Active,
    source: F::Address,
    destination: F::Address,
    axis: u32,
) -> u64 {
    let at = bucket::<F>(source, destination, axis);
    let (Some(kept), Some(free)) = (buckets.get_ptr_mut(at), FREE.get_ptr_mut(0)) else {
        return Sought::NOTHING.0;
    };
    // SAFETY: the entries of this processor; the programs run with bottom halves off, so none interrupts another.
    let (kept, free) = unsafe { (&mut *kept, &mut *free) };
    match kept.find::<F>(active, source, destination, axis) {
        Ok(judgement) => Sought::from(judgement).0,
        Err(place) => {
            *free = [at, place as u32];
            Sought::NOTHING.0
        }
    }
}

#[inline(always)]
fn keep<A: Copy + Eq>(buckets: &PerCpuArray<Bucket<A>>, epoch: u32, judgement: u64) -> u32 {
    let Some(&[at, place]) = FREE.get(0) else { return 1 };
    let Some(kept) = buckets.get_ptr_mut(at) else { return 1 };
    // SAFETY: as above.
    unsafe { &mut *kept }.keep(place as usize, Active::new(0, epoch), Sought(judgement).judgement());
    0
}

/// Bits of an `Active` that are free, for the axis.
const AXIS: u32 = 32;
const AXIS_BITS: u64 = 0xf_ffff;

#[inline(always)]
fn with_axis(active: Active, axis: u32) -> u64 {
    active.0 | (u64::from(axis) & AXIS_BITS) << AXIS
}

#[inline(always)]
fn axis_of(active: u64) -> u32 {
    (active >> AXIS & AXIS_BITS) as u32
}

#[inline(always)]
fn words(address: Address6) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.0;
    [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]].map(u64::from_ne_bytes)
}

#[inline(always)]
fn address(words: [u64; 2]) -> Address6 {
    let [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]] = words.map(u64::to_ne_bytes);
    Address6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}
