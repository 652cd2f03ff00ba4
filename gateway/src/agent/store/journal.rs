//! The journal of changes beside a stored image: what its bytes mean, and where a write that was cut short begins.
//!
//! A header names the image that the first change starts from; each record is one change. A record that was not written to its
//! end is the last one, since every record is on disk before the next one is written: it is told apart from damage, which
//! may hide changes that were in force.
//!
//! | part | bytes |
//! |---|---|
//! | header | magic (8), revision (8), hash (32), check (8): the first bytes of SHA-256 over what is before it |
//! | record | length of the body (4), the same inverted (4), body, check (16): the first bytes of SHA-256 over the body |
//! | body | revision (8), hash (32), `api::image::Delta::encode` |
//!
//! Numbers are little-endian.

use std::fmt;

use sha2::{Digest as _, Sha256};
use sluicegate_api::image::Hash;

const MAGIC: &[u8; 8] = b"SLUJRN\0\x01";
const HEADER: usize = 56;
const LENGTHS: usize = 8;
const NAME: usize = 40;
const CHECK: usize = 16;

/// An image by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) revision: u64,
    pub(super) hash: Hash,
}

/// One change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// The image it leads to.
    pub(super) name: Name,
    /// The encoded difference.
    pub(super) delta: &'a [u8],
}

/// A journal as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Journal<'a> {
    /// The image that the first change starts from; `None` when not even the header was written to its end.
    pub(super) base: Option<Name>,
    pub(super) records: Vec<Record<'a>>,
    /// Bytes of what was written to its end; what follows them is to be cut off.
    pub(super) whole: usize,
}

/// Bytes that no interrupted write leaves behind.
#[derive(Debug, thiserror::Error)]
#[error("its {part} at byte {at} is damaged, and changes that were in force may be behind it")]
pub(super) struct Damaged {
    part: Part,
    at: usize,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Header,
    Record,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Record => "record",
        })
    }
}

/// The header of a journal that continues from `base`.
pub(super) fn header(base: &Name) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&named(base));
    let check = Sha256::digest(&bytes);
    bytes.extend_from_slice(&check[..HEADER - bytes.len()]);
    bytes
}

/// A record; `None` when the difference is too long for one.
pub(super) fn record(name: &Name, delta: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(NAME + delta.len()).ok()?;
    let mut bytes = Vec::with_capacity(LENGTHS + NAME + delta.len() + CHECK);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&(!length).to_le_bytes());
    bytes.extend_from_slice(&named(name));
    bytes.extend_from_slice(delta);
    let check = Sha256::digest(&bytes[LENGTHS..]);
    bytes.extend_from_slice(&check[..CHECK]);
    Some(bytes)
}

/// Reads a journal up to where writing it was cut short.
pub(super) fn read(bytes: &[u8]) -> Result<Journal<'_>, Damaged> {
    // A file system may have made the file longer before what was written reached the disk.
    let never_written = |at: usize| bytes[at..].iter().all(|&byte| byte == 0);
    let mut journal = Journal { base: None, records: Vec::new(), whole: 0 };
    if bytes.len() < HEADER || never_written(0) {
        return Ok(journal);
    }
    let header = &bytes[..HEADER];
    let name = header.strip_prefix(MAGIC).filter(|_| Sha256::digest(&header[..48])[..8] == header[48..]);
    let damaged = |part, at| Err(Damaged { part, at });
    let Some((name, _)) = name.and_then(unnamed) else { return damaged(Part::Header, 0) };
    (journal.base, journal.whole) = (Some(name), HEADER);
    loop {
        let (at, rest) = (journal.whole, &bytes[journal.whole..]);
        let Some(lengths) = rest.first_chunk::<LENGTHS>().filter(|_| !never_written(at)) else {
            return Ok(journal);
        };
        let [length, inverted] = [0, 4].map(|i| u32::from_le_bytes(std::array::from_fn(|j| lengths[i + j])));
        if length != !inverted {
            return damaged(Part::Record, at);
        }
        let end = LENGTHS + length as usize + CHECK;
        let Some(record) = rest.get(..end) else { return Ok(journal) };
        let (body, check) = record[LENGTHS..].split_at(length as usize);
        if Sha256::digest(body)[..CHECK] != *check {
            return match never_written(at + end) {
                true => Ok(journal),
                false => damaged(Part::Record, at),
            };
        }
        let Some((name, delta)) = unnamed(body) else { return damaged(Part::Record, at) };
        journal.records.push(Record { name, delta });
        journal.whole += end;
    }
}

fn named(name: &Name) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    bytes[..8].copy_from_slice(&name.revision.to_le_bytes());
    bytes[8..].copy_from_slice(&name.hash);
    bytes
}

fn unnamed(bytes: &[u8]) -> Option<(Name, &[u8])> {
    let (revision, rest) = bytes.split_first_chunk()?;
    let (hash, rest) = rest.split_first_chunk()?;
    Some((Name { revision: u64::from_le_bytes(*revision), hash: *hash }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(revision: u64) -> Name {
        Name { revision, hash: [revision as u8 + 7; 32] }
    }

    /// A journal of three changes, and where its parts end.
    fn journal() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header(&name(1));
        let mut ends = vec![bytes.len()];
        for revision in 2..5 {
            let delta: Vec<u8> = (0..revision as u8 * 9).collect();
            bytes.extend(record(&name(revision), &delta).unwrap());
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn records_come_back() {
        let (bytes, ends) = journal();
        let read = read(&bytes).unwrap();
        assert_eq!((read.base, read.whole), (Some(name(1)), *ends.last().unwrap()));
        let names: Vec<Name> = read.records.iter().map(|record| record.name).collect();
        assert_eq!(names, [name(2), name(3), name(4)]);
        assert_eq!(read.records[1].delta, (0..27).collect::<Vec<u8>>());
    }

    #[test]
    fn a_journal_cut_at_any_byte_is_read_up_to_the_last_whole_record() {
        let (bytes, ends) = journal();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let expected = (ends[..whole].last().copied().unwrap_or(0), whole.saturating_sub(1));
            // As it was cut, and as a file that was made longer before its end was written.
            for zeros in [0, 1, 7, 8, 9, 4096] {
                let mut cut = bytes[..cut].to_vec();
                cut.resize(cut.len() + zeros, 0);
                match read(&cut) {
                    Ok(read) => {
                        assert_eq!((read.whole, read.records.len()), expected, "{} + {zeros}", cut.len())
                    }
                    // A part of a header or of lengths, then zeros: no write leaves that, unless a sector ends there.
                    Err(_) => assert!(zeros > 0),
                }
            }
        }
    }

    #[test]
    fn a_changed_byte_is_damage_or_costs_the_last_record_alone() {
        let (bytes, ends) = journal();
        let last = ends[ends.len() - 2];
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                match read(&changed) {
                    Ok(read) => assert!(at >= last && read.whole == last && read.records.len() == 2, "{at}"),
                    Err(Damaged { at: found, .. }) => assert!(found <= at),
                }
            }
        }
    }
}
