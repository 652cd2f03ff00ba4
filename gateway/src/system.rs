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

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
