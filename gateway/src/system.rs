//! What is told of the machine.

use sluicegate_api::agent::SystemInfo;

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The system as control is told of it.
pub fn info() -> SystemInfo {
    let kernel_version = read("/proc/sys/kernel/osrelease");
    let os_version = os_version(&read("/etc/os-release"));
    SystemInfo { os: std::env::consts::OS.into(), kernel_version, agent_version: VERSION.into(), os_version }
}

/// `VERSION_ID` of os-release(5); a rolling distribution has none.
fn os_version(release: &str) -> String {
    let lines = release.lines().filter_map(|line| line.split_once('='));
    let version = lines.filter(|(key, _)| key.trim() == "VERSION_ID").map(|(_, value)| value).next_back();
    version.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
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

/// A moment, in milliseconds since 1970, as people read it: `2026-11-22 14:05:09 UTC`.
pub fn time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // Years that begin in March end with the day that is not in all of them (the Gregorian calendar, 400 years of 146,097
    // days; 719,468 of them lie between the first of March of the year 0 and 1970).
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
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

/// Milliseconds since the kernel was started, suspended or not (CLOCK_BOOTTIME).
pub fn boottime_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in a struct of its own kind; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// Names this run of the kernel.
pub fn boot_id() -> String {
    read("/proc/sys/kernel/random/boot_id")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_system_is_what_its_release_says() {
        assert_eq!(os_version("NAME=\"Debian\"\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\""), "12");
        assert_eq!(os_version("ID=fedora\nVERSION_ID=43"), "43");
        assert_eq!(os_version("ID=arch"), "");
    }

    #[test]
    fn moments_are_written_as_people_read_them() {
        let seconds = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ];
        for (seconds, text) in seconds {
            assert_eq!(time(seconds * 1000), text);
        }
    }
}
