//! Files of the state directory: whole or not at all, on disk before anybody relies on them, keys for root only.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

// The reason is part of the sentence, so it is not a `source`, which would be said a second time.
/// Why a file of the state directory could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be written; what was there before still is.
    #[error("{path} cannot be written: {cause}; what it held before is kept")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why: permission, disk full, ...
        cause: io::Error,
    },
    /// It could not be read.
    #[error("{path} cannot be read: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// Replaces `path` by `bytes` with permissions `mode`; when this returns they are on disk.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    replace(path, bytes, mode).map_err(|cause| FileError::Write { path: path.into(), cause })
}

/// The contents of `path`; `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(FileError::Read { path: path.into(), cause }),
    }
}

/// Makes the state directory, for its owner only.
pub fn make_dir(path: &Path) -> Result<(), FileError> {
    let existed = path.is_dir();
    let made = std::fs::create_dir_all(path).and_then(|()| match existed {
        true => Ok(()),
        false => std::fs::set_permissions(path, Permissions::from_mode(0o700)),
    });
    made.map_err(|cause| FileError::Write { path: path.into(), cause })
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let written = (|| {
        // One left by a crash could have other permissions.
        match std::fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(dir.path().join("key.new"), "left by a crash").unwrap();
        write(&path, b"one", 0o600).unwrap();
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_keeps_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        write(&path, b"old", 0o600).unwrap();
        // A directory in the place of the temporary file: the write cannot start.
        std::fs::create_dir(dir.path().join("image.new")).unwrap();
        let error = format!("{:#}", anyhow::Error::from(write(&path, b"new", 0o600).unwrap_err()));
        assert!(error.contains("is kept"), "{error}");
        assert_eq!(error.matches("os error").count(), 1, "the reason is said once: {error}");
        assert_eq!(read(&path).unwrap().unwrap(), b"old");
    }
}
