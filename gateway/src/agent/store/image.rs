//! The last good image on disk: a snapshot of it as a whole, and a journal of what was changed since.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context as _, bail};
use sluicegate_api::image::{Delta, Hash, Hashes, Image};

use super::PRIVATE;
use super::journal::{self, Name};
use crate::files;

const MAGIC: &[u8; 8] = b"SLUIMG\0\x02";
/// A journal shorter than this is not worth a new snapshot.
const SHORT: u64 = 1 << 16;

/// The last good image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredImage {
    /// Its revision.
    pub(crate) revision: u64,
    /// Its hashes, checked.
    pub(crate) hashes: Hashes,
    /// It.
    pub(crate) image: Image,
    /// What a person should know: a change that was not written to its end.
    pub(crate) cut: Option<String>,
}

/// The files of the image.
pub(super) struct Images {
    snapshot: PathBuf,
    journal: PathBuf,
    /// What is on disk, when it is known.
    tip: Mutex<Option<Tip>>,
}

/// Where the next change goes.
struct Tip {
    /// The image that snapshot and journal lead to.
    name: Name,
    /// The journal, once it has a record.
    file: Option<File>,
    /// Its bytes.
    length: u64,
    /// A journal longer than this asks for a new snapshot.
    limit: u64,
}

impl Images {
    /// In `dir`, which exists.
    pub(super) fn new(dir: &Path) -> Self {
        Self { snapshot: dir.join("image"), journal: dir.join("image.journal"), tip: Mutex::default() }
    }

    /// Remembers a whole image; on disk when this returns. Until it is, snapshot and journal lead to the one before.
    pub(super) fn put(&self, revision: u64, hash: &Hash, encoded: &[u8]) -> anyhow::Result<()> {
        let mut tip = self.tip();
        let mut bytes = Vec::with_capacity(48 + encoded.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&revision.to_le_bytes());
        bytes.extend_from_slice(hash);
        bytes.extend_from_slice(encoded);
        files::write(&self.snapshot, &bytes, PRIVATE)?;
        // The journal continues from another image: it is passed over where it cannot be removed.
        remove(&self.journal).unwrap_or_else(|e| tracing::warn!("{e:#}"));
        *tip = Some(Tip {
            name: Name { revision, hash: *hash },
            file: None,
            length: 0,
            limit: (bytes.len() as u64 / 4).max(SHORT),
        });
        Ok(())
    }

    /// Remembers a change to the image with hash `base`; on disk when this returns. True when the journal has become so long
    /// that a new snapshot is due.
    pub(super) fn append(
        &self,
        base: &Hash,
        revision: u64,
        hash: &Hash,
        delta: &[u8],
    ) -> anyhow::Result<bool> {
        let mut guard = self.tip();
        let mut tip = guard
            .take()
            .filter(|tip| tip.name.hash == *base)
            .context("it does not follow what is on disk")?;
        let name = Name { revision, hash: *hash };
        let record = journal::record(&name, delta).context("the change is too long for the journal")?;
        let written = self.write(&mut tip, &record);
        // After a failure nothing is known: the next image is written as a whole.
        written.with_context(|| format!("{} cannot be written", self.journal.display()))?;
        tip.name = name;
        let due = tip.length > tip.limit;
        *guard = Some(tip);
        Ok(due)
    }

    /// A new snapshot could not be written; the journal is as good. It is tried again when that is twice as long.
    pub(super) fn put_off(&self) {
        if let Some(tip) = &mut *self.tip() {
            tip.limit = tip.length.saturating_mul(2);
        }
    }

    /// Remembers no image; works on a full disk too.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        *self.tip() = None;
        // A journal without its snapshot is nothing.
        remove(&self.snapshot)?;
        remove(&self.journal)
    }

    /// The image of the last run, if there is one and it is whole. What an interrupted write left is cut off.
    pub(super) fn get(&self) -> anyhow::Result<Option<StoredImage>> {
        let mut tip = self.tip();
        *tip = None;
        let damaged = |path: &Path| format!("{} is damaged and is not used", path.display());
        let Some(bytes) = files::read(&self.snapshot)? else { return Ok(None) };
        let mut stored = parse(&bytes).with_context(|| damaged(&self.snapshot))?;
        let base = Name { revision: stored.revision, hash: stored.hashes.root() };
        let limit = (bytes.len() as u64 / 4).max(SHORT);
        drop(bytes);
        let written = files::read(&self.journal)?.unwrap_or_default();
        let journal = journal::read(&written).with_context(|| damaged(&self.journal))?;
        if journal.base.is_some_and(|from| from != base) {
            // Left over from before the snapshot.
            remove(&self.journal)?;
            *tip = Some(Tip { name: base, file: None, length: 0, limit });
            return Ok(Some(stored));
        }
        for record in &journal.records {
            stored.replay(record).with_context(|| damaged(&self.journal))?;
        }
        let name = Name { revision: stored.revision, hash: stored.hashes.root() };
        let mut file = None;
        if written.len() > journal.whole {
            stored.cut = Some(format!(
                "the last change was being written when this host or agent stopped: {} bytes at the end of {} were cut off, and the \
                 image of revision {} is the last one remembered",
                written.len() - journal.whole,
                self.journal.display(),
                stored.revision
            ));
        }
        if journal.base.is_some() {
            let opened = self.open()?;
            opened
                .set_len(journal.whole as u64)
                .and_then(|()| opened.sync_all())
                .with_context(|| format!("{} cannot be cut", self.journal.display()))?;
            file = Some(opened);
        }
        *tip = Some(Tip { name, file, length: journal.whole as u64, limit });
        Ok(Some(stored))
    }

    /// Writes a record at the journal's end, and makes the journal where there is none.
    fn write(&self, tip: &mut Tip, record: &[u8]) -> io::Result<()> {
        let fresh = tip.file.is_none();
        let file = match tip.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        if fresh {
            // One that was left over must not show through.
            file.set_len(0)?;
            tip.length = 0;
        }
        let header = if fresh { journal::header(&tip.name) } else { Vec::new() };
        let bytes = [&header, record].concat();
        let written = file.write_all_at(&bytes, tip.length).and_then(|()| file.sync_data());
        if let Err(e) = written {
            // A part of a record is cut off when it is read, too.
            let _ = file.set_len(tip.length);
            return Err(e);
        }
        tip.length += bytes.len() as u64;
        tip.file = Some(file);
        if fresh {
            File::open(self.journal.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(&self.journal)
    }

    fn tip(&self) -> MutexGuard<'_, Option<Tip>> {
        self.tip.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl StoredImage {
    fn replay(&mut self, record: &journal::Record<'_>) -> anyhow::Result<()> {
        self.change(record.name.revision, &record.name.hash, record.delta)
    }

    /// Applies an encoded difference, which leads to the image of `revision` and `hash`. Of no use after an error.
    pub(crate) fn change(&mut self, revision: u64, hash: &[u8], delta: &[u8]) -> anyhow::Result<()> {
        let undo = self.image.change(&Delta::decode(delta)?)?;
        self.hashes.update(&self.image, &undo);
        if self.hashes.root()[..] != *hash {
            bail!("the change to revision {revision} does not lead to the image it names");
        }
        self.revision = revision;
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> anyhow::Result<StoredImage> {
    let rest = bytes.strip_prefix(MAGIC).context("it is not an image of this version")?;
    let (revision, rest) = rest.split_first_chunk::<8>().context("it ends early")?;
    let (hash, encoded) = rest.split_first_chunk::<32>().context("it ends early")?;
    let image = Image::decode(encoded)?;
    let hashes = Hashes::of(&image);
    if hashes.root() != *hash {
        bail!("its hash is wrong");
    }
    Ok(StoredImage { revision: u64::from_le_bytes(*revision), hashes, image, cut: None })
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
