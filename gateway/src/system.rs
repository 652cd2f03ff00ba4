//! What is told of the machine.

use sluicegate_api::agent::SystemInfo;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The system as control is told of it.
pub fn info() -> SystemInfo {
    let kernel_version = read("/proc/sys/kernel/osrelease");
    SystemInfo { os: std::env::consts::OS.into(), kernel_version, agent_version: VERSION.into() }
}

/// The host's name.
pub fn host_name() -> String {
    match read("/proc/sys/kernel/hostname") {
        name if name.is_empty() => "unnamed".into(),
        name => name,
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Milliseconds since 1970 by the system's clock.
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970 by the system's clock.
pub fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds of the clock that never steps (CLOCK_MONOTONIC), by which the kernel stamps packets.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in a struct of its own kind; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
