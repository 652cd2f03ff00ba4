//! Removes what a run made: at its end, or when its owner died without doing so.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::manifest::{self, BASE, Item};
use crate::proc;

/// What was removed of one dead run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// The run's id.
    pub run: String,
    /// Namespaces removed.
    pub namespaces: usize,
    /// Processes killed.
    pub processes: usize,
}

/// Removes what runs left whose owner is dead. Runs that live, and everything that is not a run's, stay as they are.
///
/// # Errors
/// When something of a dead run cannot be removed.
pub fn clean_dead_runs() -> Result<Vec<Reaped>> {
    let entries = match fs::read_dir(BASE) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {BASE}")),
    };
    let mut reaped = Vec::new();
    for entry in entries.flatten() {
        let dir = entry.path();
        let Some(run) = entry.file_name().to_str().map(|name| name.trim_start_matches('.').to_owned()) else {
            continue;
        };
        let Some(abandoned) = manifest::abandoned(&dir) else {
            remove_stillborn(&dir);
            continue;
        };
        let processes = proc::kill_marked(&run);
        let namespaces = abandoned.items.iter().filter(|item| matches!(item, Item::Namespace(_))).count();
        let left = remove(&abandoned.items, &dir);
        anyhow::ensure!(left.is_empty(), "of the dead lab {run} could not be removed: {}", left.join("; "));
        reaped.push(Reaped { run, namespaces, processes });
    }
    Ok(reaped)
}

/// Removes `items`, newest first, then `dir`; returns what is left and why.
pub(crate) fn remove(items: &[Item], dir: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for item in items.iter().rev() {
        let (path, removed) = match item {
            Item::Namespace(name) => {
                let path = Path::new("/run/netns").join(name);
                let removed = unmount(&path).and_then(|()| fs::remove_file(&path));
                (path, removed)
            }
            // The directory goes with the run's.
            Item::Mount(path) => (path.clone(), unmount(path)),
        };
        if let Err(error) = removed.or_else(absent_is_fine) {
            left.push(format!("{}: {error}", path.display()));
        }
    }
    // While something is still mounted below it, removing the directory would reach into the mount.
    if left.is_empty()
        && let Err(error) = fs::remove_dir_all(dir).or_else(absent_is_fine)
    {
        left.push(format!("{}: {error}", dir.display()));
    }
    // Fails while there are other runs, which is what is wanted.
    let _ = fs::remove_dir(BASE);
    left
}

/// A run killed between making its directory and naming its owner has made nothing else.
fn remove_stillborn(dir: &Path) {
    let age = fs::metadata(dir).and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    if age.is_some_and(|age| age > Duration::from_secs(60)) {
        // Fails for a directory with something in it, which is what is wanted.
        let _ = fs::remove_dir(dir);
    }
}

fn unmount(path: &Path) -> io::Result<()> {
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `c_path` is a C string that lives through the call.
    let result = unsafe { libc::umount2(c_path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        _ if result == 0 => Ok(()),
        Some(libc::EINVAL) => Ok(()), // noted, but not mounted any more, or not yet
        _ => Err(error),
    }
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
