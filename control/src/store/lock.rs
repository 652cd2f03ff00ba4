//! Files that one process holds, and that only their owner reads.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::OpenError;

/// Held while a control process uses the data directory.
const LOCK_FILE: &str = "control.lock";

/// Makes the directory (0700) and takes its lock, which the system frees when the process ends, however it ends.
pub(super) fn directory(directory: &Path) -> Result<File, OpenError> {
    use std::os::unix::fs::DirBuilderExt;

    let not_writable = |cause| OpenError::NotWritable { path: directory.to_owned(), cause };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(not_writable)?;
    take(&directory.join(LOCK_FILE), directory)
}

/// As [`directory`], and takes the lock of a store's file that is elsewhere.
pub(super) fn both(file: &Path, directory: &Path) -> Result<Vec<File>, OpenError> {
    let mut locks = vec![self::directory(directory)?];
    if file.parent() != Some(directory) {
        locks.push(self::file(file)?);
    }
    Ok(locks)
}

fn file(file: &Path) -> Result<File, OpenError> {
    let mut lock = file.as_os_str().to_owned();
    lock.push(".lock");
    take(Path::new(&lock), file)
}

fn take(path: &Path, what: &Path) -> Result<File, OpenError> {
    let not_writable = |cause| OpenError::NotWritable { path: path.to_owned(), cause };
    let file = owners_file(path).map_err(not_writable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(what.to_owned())),
        Err(TryLockError::Error(cause)) => Err(not_writable(cause)),
    }
}

/// Opens a file, made with 0600 where it is not there.
pub(super) fn owners_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}
