//! The kernel's memory in maps, as the kernel itself accounts for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;

use anyhow::Context as _;
use aya::maps::MapData;

/// Bytes of each map pinned in a directory, by its name. Flow tables, images and counters take theirs when they are made.
pub(super) fn of_maps(dir: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    let entries = fs::read_dir(dir).with_context(|| format!("{} could not be read", dir.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("{} could not be read", dir.display()))?.path();
        let map = MapData::from_pin(&path)
            .with_context(|| format!("{} could not be opened as a map", path.display()))?;
        let bytes = of(map.fd().as_fd())
            .with_context(|| format!("the memory of map {} is not told", path.display()))?;
        all.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes);
    }
    Ok(all)
}

/// Bytes of one map (Documentation/bpf: `memlock` in the file descriptor's information).
fn of(map: BorrowedFd<'_>) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no memlock in its fdinfo"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd as _, OwnedFd};

    use sluicegate_engine::family::{Address4, Address6};
    use sluicegate_engine::flow::{Flow, Key};

    use super::*;
    use crate::datapath::FlowSettings;

    const BPF_MAP_TYPE_HASH: u32 = 1;
    const BPF_MAP_TYPE_LRU_HASH: u32 = 9;

    /// A preallocated map of so many entries.
    fn map<K, V>(kind: u32, entries: u32) -> OwnedFd {
        const BPF_MAP_CREATE: libc::c_long = 0;
        let attr = [kind, size_of::<K>() as u32, size_of::<V>() as u32, entries, 0, 0];
        // SAFETY: the start of `union bpf_attr` for this command; the kernel reads the size given.
        let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attr.as_ptr(), size_of_val(&attr)) };
        assert!(fd >= 0, "a map cannot be made, which needs root: {}", io::Error::last_os_error());
        // SAFETY: a file descriptor the kernel has just given to us.
        unsafe { OwnedFd::from_raw_fd(fd as i32) }
    }

    /// Both tables of a family, where so many half-entries can be confirmed.
    fn tables<A>(confirmed: u32) -> u64 {
        let half_open = FlowSettings::default().half_open_entries(confirmed);
        let sizes = [(BPF_MAP_TYPE_HASH, confirmed), (BPF_MAP_TYPE_LRU_HASH, half_open)];
        sizes.map(|(kind, entries)| of(map::<Key<A>, Flow<A>>(kind, entries).as_fd()).unwrap()).iter().sum()
    }

    /// DESIGN's figure: 262,144 IPv4 flows in 80 MB, with those that are not answered yet. Two half-entries each.
    #[test]
    fn a_quarter_million_flows_fit_in_eighty_megabytes() {
        let four = tables::<Address4>(2 * 262_144);
        assert!((60_000_000..=80_000_000).contains(&four), "{four} bytes");
        let six = tables::<Address6>(2 * 262_144);
        assert!(six > four && six <= 120_000_000, "{six} bytes");
    }
}
