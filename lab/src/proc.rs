//! Facts about processes from /proc.

use std::fs;

/// The environment variable that marks a lab's processes, and whatever they start, with the run's id.
pub(crate) const MARK: &str = "SLUICEGATE_LAB_RUN";

/// When process `pid` started, in clock ticks since boot (field 22 of /proc/PID/stat): with the pid it names one process
/// for good. `None` when there is no such process, or only its zombie.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name is in parentheses and may contain anything, so count from the last one.
    let fields: Vec<_> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let state = *fields.first()?;
    (!matches!(state, "Z" | "X")).then(|| fields.get(19)?.parse().ok())?
}

/// Processes marked with `run`, by pid.
pub(crate) fn marked_with(run: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={run}");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        *pid != std::process::id()
            && environ.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
    })
    .collect()
}

/// Kills what is marked with `run` and waits until it is gone; returns how many there were.
pub(crate) fn kill_marked(run: &str) -> usize {
    let mut killed = 0;
    // A process may fork while it is looked for: look until nothing is found.
    for _ in 0..20 {
        let pids = marked_with(run);
        if pids.is_empty() {
            break;
        }
        killed += pids.len();
        for pid in pids {
            kill_if_marked(pid, run);
        }
    }
    killed
}

/// Kills through a pidfd: a pid that was reused since it was read is not marked, and is left alone.
fn kill_if_marked(pid: u32, run: &str) {
    let Some(pidfd) = crate::process::pidfd(pid) else { return };
    if !marked_with(run).contains(&pid) {
        return;
    }
    // SAFETY: plain system call on a descriptor that `pidfd` keeps open; no memory is passed.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            std::os::fd::AsRawFd::as_raw_fd(&pidfd),
            libc::SIGKILL,
            0,
            0,
        )
    };
    crate::process::poll_readable(&pidfd, std::time::Duration::from_secs(5));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_by_its_start() {
        let own = start_time(std::process::id()).unwrap();
        assert_eq!(start_time(std::process::id()), Some(own));
        assert!(start_time(1).unwrap() <= own);
        assert_eq!(start_time(u32::MAX), None);
    }
}
