//! Memory in words: what the compiler would do byte by byte, or not at all.

/// Fills `place` with zeros, eight bytes at a time: the compiler's own way is a call that goes byte by byte.
///
/// # Safety
/// `place` may be written, and zeros are a value of `T`.
#[inline(always)]
pub unsafe fn zero<T>(place: *mut T) {
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
pub unsafe fn copy<T: Copy>(from: *const T, to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() >= 8) };
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    let mut i = 0;
    while i < size_of::<T>() / 8 {
        // SAFETY: inside both, as counted.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
        i += 1;
    }
}

/// Puts a value into an aligned word, and returns what was there: one step for all processors, before and after which each
/// sees what the others wrote. The core library has no such thing for this target.
///
/// # Safety
/// `word` points to memory that may be written.
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: one instruction (BPF_XCHG) on memory that the caller vouches for.
    unsafe {
        core::arch::asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) value, in(reg) word, options(nostack));
    }
    value
}
