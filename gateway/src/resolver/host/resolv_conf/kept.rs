//! What was at the path before an agent came: kept beside it and in the agent's state directory, and put back from there.
//!
//! There are two of it because what is beside the file may go away without it: a container that is started again has its file
//! mounted as it was written, and all around it anew.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// How what was there before begins where it is kept.
const KEPT: &str =
    "# Kept by sluicegate-gateway: what the file beside this one was. It is put back when the agent stops.\n";

/// What was there before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Original {
    /// Nothing.
    Absent,
    /// A file with these permissions.
    File(u32),
    /// A link that leads there.
    Link(PathBuf),
}

/// Where what was at `path` is kept, beside it.
pub(super) fn kept(path: &Path) -> PathBuf {
    beside(path, ".before-sluicegate")
}

/// Where it is kept in the state directory.
pub(super) fn copy(path: &Path, state_dir: &Path) -> PathBuf {
    state_dir.join(kept(path).file_name().unwrap_or_default())
}

/// Keeps what is at `path`, on disk when this returns.
pub(super) fn keep(path: &Path, state_dir: &Path) -> io::Result<()> {
    let (original, bytes) = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => (Original::Absent, None),
        Err(e) => return Err(e),
        Ok(there) if there.is_symlink() => (Original::Link(fs::read_link(path)?), read(path)?),
        Ok(there) => (Original::File(there.permissions().mode() & 0o7777), read(path)?),
    };
    let said = match original {
        Original::Absent => "# absent\n".to_owned(),
        Original::File(mode) => format!("# file {mode:o}\n"),
        Original::Link(target) => format!("# link {}\n", target.to_string_lossy()),
    };
    let whole = [KEPT.as_bytes(), said.as_bytes(), bytes.as_deref().unwrap_or_default()].concat();
    crate::files::make_dir(state_dir).map_err(io::Error::other)?;
    put(&copy(path, state_dir), &whole, 0o644)?;
    put(&kept(path), &whole, 0o644)
}

/// What is kept of `path`. What a link led to is as it is now, where it is still there.
pub(super) fn original(path: &Path, state_dir: &Path) -> io::Result<Option<(Original, Vec<u8>)>> {
    for place in [kept(path), copy(path, state_dir)] {
        let Some(bytes) = read(&place)? else { continue };
        let Some(rest) = bytes.strip_prefix(KEPT.as_bytes()) else { continue };
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (said, rest) =
            (String::from_utf8_lossy(&rest[..end]), rest.get(end + 1..).unwrap_or_default().to_vec());
        return Ok(Some(match said.trim_start_matches("# ").split_once(' ') {
            Some(("file", mode)) => (Original::File(u32::from_str_radix(mode, 8).unwrap_or(0o644)), rest),
            Some(("link", target)) => {
                let now = fs::read(led_to(path, Path::new(target))).unwrap_or(rest);
                (Original::Link(target.into()), now)
            }
            _ => (Original::Absent, rest),
        }));
    }
    Ok(None)
}

/// Where a link at `path` to `target` leads.
pub(super) fn led_to(path: &Path, target: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).join(target)
}

/// Puts back what was at `path`, and keeps it no more.
pub(super) fn put_back(path: &Path, state_dir: &Path) -> io::Result<()> {
    let Some((original, bytes)) = original(path, state_dir)? else { return Err(lost(path, state_dir)) };
    match original {
        Original::Absent => remove(path)?,
        Original::File(mode) => put(path, &bytes, mode)?,
        Original::Link(target) => {
            let temporary = beside(path, NEW);
            remove(&temporary)?;
            symlink(target, &temporary)?;
            fs::rename(&temporary, path)?;
        }
    }
    forget(path, state_dir)
}

/// Keeps it no more.
pub(super) fn forget(path: &Path, state_dir: &Path) -> io::Result<()> {
    remove(&kept(path))?;
    remove(&copy(path, state_dir))
}

/// That it is not kept anywhere.
pub(super) fn lost(path: &Path, state_dir: &Path) -> io::Error {
    let places = [kept(path), copy(path, state_dir)];
    io::Error::other(format!(
        "what was there before is not in {}, nor in {}",
        places[0].display(),
        places[1].display()
    ))
}

/// How the name of a file ends that is not whole yet.
const NEW: &str = ".sluicegate-new";

/// Replaces what is at `path`, or writes it in its place where it is mounted by itself; on disk when this returns.
pub(super) fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = beside(path, NEW);
    remove(&temporary)?;
    let replaced = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    match replaced {
        Ok(()) => fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
        Err(e) => {
            let _ = fs::remove_file(&temporary);
            if e.kind() != ErrorKind::ResourceBusy {
                return Err(e);
            }
            // A mount point is the only name that cannot be given to another file.
            let mut file = fs::OpenOptions::new().write(true).open(path)?;
            file.write_all(bytes)?;
            file.set_len(bytes.len() as u64)?;
            file.sync_all()
        }
    }
}

/// The file beside `path` whose name ends like this.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(end);
    path.with_file_name(name)
}

/// What is at `path`; `None` where there is nothing.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
