//! Time in ticks: jiffies, which cost nothing to read (`bpf_ktime_get_ns` costs 32 ns, measured).

use aya_ebpf::helpers::generated::bpf_jiffies64;
use sluicegate_engine::tables::Config;

/// Not zero when a test sets the clock; constant after load, so that the branch is gone from the verified program.
#[unsafe(no_mangle)]
static TEST_CLOCK: u32 = 0;

/// The time for the engine.
#[inline(always)]
pub fn now(config: &Config) -> u64 {
    // SAFETY: a load from the program's read-only data, which the loader sets before the kernel freezes it.
    if unsafe { core::ptr::read_volatile(&TEST_CLOCK) } != 0 { config.test_clock } else { ticks() }
}

/// jiffies.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: the helper takes nothing and has no side effect.
    unsafe { bpf_jiffies64() }
}
