//! Which processors a thread, and what it starts, may run on.

use anyhow::{Context as _, Result};

/// Generator, gateway and receiver share one processor: the sum is stable, and is what one core carries.
pub(crate) fn one() -> Result<()> {
    let last = count() - 1;
    stay_on(|processor| processor == last)
}

/// Beside what is measured.
pub(crate) fn all() -> Result<()> {
    stay_on(|_| true)
}

fn count() -> usize {
    // SAFETY: no pointers, cannot fail.
    unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }.max(1) as usize
}

fn stay_on(wanted: impl Fn(usize) -> bool) -> Result<()> {
    // SAFETY: a zeroed set, filled by the macros' functions; the call reads it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (0..count())
            .filter(|processor| wanted(*processor))
            .for_each(|processor| libc::CPU_SET(processor, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error()).context("the processor to run on cannot be chosen")
    }
}
