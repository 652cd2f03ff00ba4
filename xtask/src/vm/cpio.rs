//! Writes the archive a kernel unpacks at its start: `newc` (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::io::{self, Write};

/// An archive being written.
pub(super) struct Archive<W> {
    out: W,
    written: u64,
    entries: u32,
    there: BTreeSet<String>,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, written: 0, entries: 0, there: BTreeSet::new() }
    }

    /// Whether something is at `path`.
    pub(super) fn has(&self, path: &str) -> bool {
        self.there.contains(path.trim_matches('/'))
    }

    /// An executable file at `path`, and the directories it is in.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = path.trim_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent)?;
        }
        if self.there.insert(path.to_owned()) { self.entry(path, PROGRAM, bytes) } else { Ok(()) }
    }

    /// A directory at `path`, and those it is in.
    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = path.trim_matches('/');
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            if self.there.insert(path[..end].to_owned()) {
                self.entry(&path[..end], DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    /// Writes the end.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a file of 4 GB or more"))?;
        let links = 1;
        // Inode, mode, user, group, links, time, size, four device numbers, length of the name with its zero, checksum.
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let numbers: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.padded(format!("070701{numbers}{name}\0").as_bytes())?;
        self.padded(bytes)
    }

    /// Headers and contents start at multiples of four.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        let padding = (4 - self.written % 4) % 4;
        self.written += padding;
        self.out.write_all(&[0; 3][..padding as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_110_bytes_and_everything_starts_at_multiples_of_four() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file("/a/b/c", b"hello").unwrap();
        archive.file("a/b/c", b"again").unwrap();
        assert!(archive.has("/a/b") && archive.has("a/b/c") && !archive.has("a/c"));
        archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 4, "two directories, one file, the end");
        assert!(starts.iter().all(|at| at % 4 == 0) && bytes.len().is_multiple_of(4));
        let file = &text[starts[2]..starts[3]];
        assert_eq!(&file[14..22], "000081ED", "a regular file, executable");
        assert_eq!(&file[54..62], "00000005", "its size");
        assert_eq!(file[110..].trim_end_matches('\0'), "a/b/c\0hello");
        assert!(!text.contains("again") && text.contains("TRAILER!!!"));
    }
}
