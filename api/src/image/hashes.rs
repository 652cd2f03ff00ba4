//! The hash of an image, kept by parts.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Delta, Image, encode};

/// What identifies an image: SHA-256 over the hashes of its parts, as [`Hashes`] says.
pub type Hash = [u8; 32];

/// Words that have a hash of their own: 1 KiB. A changed rule changes words all over an image; hashing all of 4 KiB around
/// each would take three times as long, and the hashes of smaller parts more memory than they are worth.
pub(super) const WORDS_PER_HASH: usize = 256;
/// Hashes under one of the next level.
const FAN: usize = 64;
/// Rules, or routes, that have a hash of their own, by their numbers.
pub(super) const NAMES_PER_HASH: u32 = 64;

/// What is hashed begins with one of these, so that nothing is the same as something of another kind.
#[derive(Clone, Copy)]
enum Kind {
    Words = 1,
    Group,
    Names,
    Table,
    Image,
}

/// The hashes of the parts of one image, from which its own hash follows.
///
/// Words are hashed by 256, in little-endian bytes; those hashes by 64. Rules are hashed by 64 slot numbers, in postcard's
/// encoding, and those hashes, with their numbers, as a table; routes the same. The image's hash is over the number of its words,
/// the hashes of the upper level, and the two tables. Every part begins with a byte that says of which kind it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashes {
    words: usize,
    leaves: Vec<Hash>,
    groups: Vec<Hash>,
    rules: BTreeMap<u32, Hash>,
    routes: BTreeMap<u32, Hash>,
}

impl Hashes {
    /// Of an image.
    pub fn of(image: &Image) -> Self {
        let leaves: Vec<Hash> = image.words.chunks(WORDS_PER_HASH).map(of_words).collect();
        let mut hashes = Self {
            words: image.words.len(),
            groups: leaves.chunks(FAN).map(of_group).collect(),
            leaves,
            rules: BTreeMap::new(),
            routes: BTreeMap::new(),
        };
        names(&mut hashes.rules, &image.rules, image.rules.keys());
        names(&mut hashes.routes, &image.routes, image.routes.keys());
        hashes
    }

    /// From the hashes of words and names; those above them are taken from `before` where what they are of is the same.
    pub(super) fn from_parts(
        words: usize,
        leaves: Vec<Hash>,
        [rules, routes]: [BTreeMap<u32, Hash>; 2],
        before: Option<&Self>,
    ) -> Self {
        let group = |(i, leaves): (usize, &[Hash])| {
            let same = before.filter(|before| before.leaves.chunks(FAN).nth(i) == Some(leaves));
            same.and_then(|before| before.groups.get(i).copied()).unwrap_or_else(|| of_group(leaves))
        };
        let groups = leaves.chunks(FAN).enumerate().map(group).collect();
        Self { words, leaves, groups, rules, routes }
    }

    /// The hash of a part of the words.
    pub(super) fn leaf(&self, part: usize) -> Option<Hash> {
        self.leaves.get(part).copied()
    }

    /// The hashes of all parts of the words.
    pub(super) fn leaves(&self) -> &[Hash] {
        &self.leaves
    }

    /// The hashes of rules.
    pub(super) fn rules(&self) -> &BTreeMap<u32, Hash> {
        &self.rules
    }

    /// The hashes of routes.
    pub(super) fn routes(&self) -> &BTreeMap<u32, Hash> {
        &self.routes
    }

    /// Brings the hashes up to `image`, which differs from what they were of where `undone` says: what
    /// [`Image::change`] returned.
    pub fn update(&mut self, image: &Image, undone: &Delta) {
        let (before, after) = (self.words, image.words.len());
        self.words = after;
        self.leaves.resize(after.div_ceil(WORDS_PER_HASH), [0; 32]);
        self.groups.resize(self.leaves.len().div_ceil(FAN), [0; 32]);
        let runs = undone.runs.iter().map(|(start, run)| *start as usize..*start as usize + run.len());
        // Where it ends, another part may be whole, or cut.
        let ends = (before != after).then_some(before.min(after).saturating_sub(1)..after);
        let mut changed: Vec<usize> = Vec::new();
        for part in runs.chain(ends) {
            let end = part.end.min(after);
            if part.start < end {
                changed.extend(part.start / WORDS_PER_HASH..=(end - 1) / WORDS_PER_HASH);
            }
        }
        changed.sort_unstable();
        changed.dedup();
        for &leaf in &changed {
            self.leaves[leaf] = of_words(within(&image.words, leaf, WORDS_PER_HASH));
        }
        changed.iter_mut().for_each(|leaf| *leaf /= FAN);
        changed.dedup();
        for group in changed {
            self.groups[group] = of_group(within(&self.leaves, group, FAN));
        }
        names(&mut self.rules, &image.rules, undone.rules.keys());
        names(&mut self.routes, &image.routes, undone.routes.keys());
    }

    /// The image's hash.
    pub fn root(&self) -> Hash {
        let mut hasher = begin(Kind::Image);
        hasher.update((self.words as u64).to_le_bytes());
        self.groups.iter().for_each(|hash| hasher.update(hash));
        for table in [&self.rules, &self.routes] {
            let mut names = begin(Kind::Table);
            for (number, hash) in table {
                names.update(number.to_le_bytes());
                names.update(hash);
            }
            hasher.update(names.finalize());
        }
        hasher.finalize().into()
    }
}

/// The hash of 256 words, or of those that are left at the end.
pub(super) fn of_words(words: &[u32]) -> Hash {
    let mut bytes = [0; WORDS_PER_HASH * 4];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    let mut hasher = begin(Kind::Words);
    hasher.update(&bytes[..words.len() * 4]);
    hasher.finalize().into()
}

fn of_group(hashes: &[Hash]) -> Hash {
    let mut hasher = begin(Kind::Group);
    hashes.iter().for_each(|hash| hasher.update(hash));
    hasher.finalize().into()
}

/// Hashes anew what stands with the names at `keys`, which rise.
fn names<'a, T: Serialize>(
    hashes: &mut BTreeMap<u32, Hash>,
    all: &BTreeMap<u32, T>,
    keys: impl Iterator<Item = &'a u32>,
) {
    let mut last = None;
    for part in keys.map(|key| key / NAMES_PER_HASH) {
        if last.replace(part) == Some(part) {
            continue;
        }
        let numbers = part * NAMES_PER_HASH..=part * NAMES_PER_HASH + (NAMES_PER_HASH - 1);
        let names: Vec<(&u32, &T)> = all.range(numbers).collect();
        if names.is_empty() {
            hashes.remove(&part);
            continue;
        }
        hashes.insert(part, of_names(&encode(&names)));
    }
}

/// The hash of encoded names with their numbers.
pub(super) fn of_names(encoded: &[u8]) -> Hash {
    let mut hasher = begin(Kind::Names);
    hasher.update(encoded);
    hasher.finalize().into()
}

fn within<T>(all: &[T], part: usize, size: usize) -> &[T] {
    &all[part * size..all.len().min((part + 1) * size)]
}

fn begin(kind: Kind) -> Sha256 {
    let mut hasher = Sha256::new();
    hasher.update([kind as u8]);
    hasher
}
