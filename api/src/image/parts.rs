//! An image as it is kept where there are many: encoded, by parts, with the hash of each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::delta::{JOIN, changed};
use super::hashes::{Hashes, NAMES_PER_HASH, WORDS_PER_HASH, of_names, of_words};
use super::{CodecError, Delta, Hash, Image, RuleInfo, WORDS_MAX, encode, varints};

/// An encoded image in parts. One that came from another shares the parts that did not change, takes the hashes of these from
/// there, and the difference between the two is found without looking at them. Most words are small: encoded, an image takes a
/// quarter of the room.
#[derive(Clone, Debug)]
pub struct Parts {
    length: usize,
    /// Encoded words, by as many as have a hash of their own.
    words: Vec<Arc<[u8]>>,
    rules: BTreeMap<u32, Arc<[u8]>>,
    routes: BTreeMap<u32, Arc<[u8]>>,
    pub(super) hashes: Hashes,
    hash: Hash,
    bytes: usize,
}

/// Encoded names, by as many numbers as have a hash of their own.
type Names = BTreeMap<u32, Arc<[u8]>>;

impl Parts {
    /// Encodes `image`, which may have come from `before`.
    pub fn new(image: &Image, before: Option<&Self>) -> Self {
        let mut words = Vec::with_capacity(image.words.len().div_ceil(WORDS_PER_HASH));
        let mut leaves = Vec::with_capacity(words.capacity());
        let mut buffer = Vec::new();
        for (i, part) in image.words.chunks(WORDS_PER_HASH).enumerate() {
            buffer.clear();
            varints(part, &mut buffer);
            let same = before.and_then(|before| {
                let bytes = before.words.get(i).filter(|bytes| bytes[..] == buffer[..])?;
                Some((bytes.clone(), before.hashes.leaf(i)?))
            });
            let (bytes, hash) = same.unwrap_or_else(|| (Arc::from(&buffer[..]), of_words(part)));
            words.push(bytes);
            leaves.push(hash);
        }
        let rules = names(&image.rules, before.map(|before| &before.rules));
        let routes = names(&image.routes, before.map(|before| &before.routes));
        Self::assemble(image.words.len(), (words, leaves), rules, routes, before)
    }

    /// This with `delta` applied: what [`Image::apply`] makes of the image. Costs what the delta touches.
    pub fn apply(&self, delta: &Delta) -> Result<Self, CodecError> {
        delta.check()?;
        let length = delta.words as usize;
        let (mut words, mut leaves) = (self.words.clone(), self.hashes.leaves().to_vec());
        words.resize(length.div_ceil(WORDS_PER_HASH), Arc::default());
        leaves.resize(words.len(), Hash::default());
        for (i, part) in self.touched(delta) {
            let mut buffer = Vec::new();
            varints(&part, &mut buffer);
            if words[i][..] != buffer[..] {
                (words[i], leaves[i]) = (buffer.into(), of_words(&part));
            }
        }
        let rules = changed_names(&self.rules, &delta.rules);
        let routes = changed_names(&self.routes, &delta.routes);
        Ok(Self::assemble(length, (words, leaves), rules, routes, Some(self)))
    }

    /// The parts of the words that `delta`, which was checked, touches, as they are after it.
    fn touched(&self, delta: &Delta) -> BTreeMap<usize, Vec<u32>> {
        let length = delta.words as usize;
        let after = |i: usize| {
            let mut part = self.words.get(i).map(|part| decode_words(part)).unwrap_or_default();
            part.resize(WORDS_PER_HASH.min(length - i * WORDS_PER_HASH), 0);
            part
        };
        let mut touched = BTreeMap::new();
        if length != self.length {
            // Where it ends, another part may be whole, or cut.
            let from = length.min(self.length).saturating_sub(1) / WORDS_PER_HASH;
            touched.extend((from..length.div_ceil(WORDS_PER_HASH)).map(|i| (i, after(i))));
        }
        for (offset, run) in &delta.runs {
            let (mut at, mut rest) = (*offset as usize, &run[..]);
            while !rest.is_empty() {
                let (i, start) = (at / WORDS_PER_HASH, at % WORDS_PER_HASH);
                let (here, beyond) = rest.split_at(rest.len().min(WORDS_PER_HASH - start));
                // What is written as a whole need not be known.
                let whole = start == 0 && here.len() == WORDS_PER_HASH;
                let part = touched.entry(i).or_insert_with(|| if whole { here.to_vec() } else { after(i) });
                part[start..start + here.len()].copy_from_slice(here);
                (at, rest) = (at + here.len(), beyond);
            }
        }
        touched
    }

    /// From encoded words with their hashes, and encoded names; hashes of what is shared with `before` are taken from there.
    fn assemble(
        length: usize,
        (words, leaves): (Vec<Arc<[u8]>>, Vec<Hash>),
        rules: Names,
        routes: Names,
        before: Option<&Self>,
    ) -> Self {
        let hash_of = |names: &Names, had: Option<(&Names, &BTreeMap<u32, Hash>)>| {
            let hash = |(part, bytes): (&u32, &Arc<[u8]>)| {
                let same =
                    had.filter(|(names, _)| names.get(part).is_some_and(|had| Arc::ptr_eq(had, bytes)));
                let hash = same.and_then(|(_, hashes)| hashes.get(part).copied());
                (*part, hash.unwrap_or_else(|| of_names(bytes)))
            };
            names.iter().map(hash).collect()
        };
        let hashes = Hashes::from_parts(
            length,
            leaves,
            [
                hash_of(&rules, before.map(|before| (&before.rules, before.hashes.rules()))),
                hash_of(&routes, before.map(|before| (&before.routes, before.hashes.routes()))),
            ],
            before.map(|before| &before.hashes),
        );
        let mut parts = Self { length, words, rules, routes, hash: hashes.root(), hashes, bytes: 0 };
        parts.bytes =
            parts.pieces().iter().map(|piece| piece.len()).sum::<usize>() + parts.lengths().concat().len();
        parts
    }

    /// [`Image::hash`].
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Length of [`Image::encode`].
    pub fn encoded_len(&self) -> usize {
        self.bytes
    }

    /// [`Image::encode`].
    pub fn encode(&self) -> Vec<u8> {
        let [words, rules, routes] = self.lengths();
        let mut bytes = Vec::with_capacity(self.bytes);
        bytes.extend_from_slice(&words);
        self.words.iter().for_each(|part| bytes.extend_from_slice(part));
        for (length, names) in [(rules, &self.rules), (routes, &self.routes)] {
            bytes.extend_from_slice(&length);
            names.values().for_each(|part| bytes.extend_from_slice(&part[COUNT..]));
        }
        bytes
    }

    /// The image.
    pub fn image(&self) -> Result<Image, CodecError> {
        Image::decode(&self.encode())
    }

    /// Some of its words, as far as there are so many.
    pub fn words(&self, range: Range<usize>) -> Vec<u32> {
        let first = range.start / WORDS_PER_HASH;
        let parts = self.words.iter().take(range.end.div_ceil(WORDS_PER_HASH)).skip(first);
        let mut words = Vec::with_capacity(range.len() + 2 * WORDS_PER_HASH);
        parts.for_each(|part| decode_into(part, &mut words));
        words.truncate(range.end - first * WORDS_PER_HASH);
        words.drain(..words.len().min(range.start - first * WORDS_PER_HASH));
        words
    }

    /// Its rules.
    pub fn rules(&self) -> BTreeMap<u32, RuleInfo> {
        self.rules.values().flat_map(|part| decoded(part)).collect()
    }

    /// What turns this into `new`: [`Delta::between`] of the two.
    pub fn difference(&self, new: &Self) -> Delta {
        let mut runs = Runs::default();
        for (i, part) in new.words.iter().enumerate() {
            let before = self.words.get(i);
            if before.is_some_and(|before| Arc::ptr_eq(before, part) || before == part) {
                continue;
            }
            let before = before.map(|before| decode_words(before)).unwrap_or_default();
            for (j, word) in decode_words(part).into_iter().enumerate() {
                runs.word(i * WORDS_PER_HASH + j, word, before.get(j).copied().unwrap_or(0) != word);
            }
        }
        Delta {
            words: u32::try_from(new.length.min(WORDS_MAX + 1)).unwrap_or(u32::MAX),
            runs: runs.done(),
            rules: names_between(&self.rules, &new.rules),
            routes: names_between(&self.routes, &new.routes),
        }
    }

    /// Every part, as it is in the encoding.
    fn pieces(&self) -> Vec<&[u8]> {
        let names = self.rules.values().chain(self.routes.values()).map(|part| &part[COUNT..]);
        self.words.iter().map(|part| &part[..]).chain(names).collect()
    }

    /// The encoded numbers of words, rules and routes.
    fn lengths(&self) -> [Vec<u8>; 3] {
        // A part of names begins with how many they are: one byte, since there are at most 64.
        let count = |names: &BTreeMap<u32, Arc<[u8]>>| names.values().map(|part| usize::from(part[0])).sum();
        [self.length, count(&self.rules), count(&self.routes)].map(|count: usize| encode(&count))
    }
}

impl PartialEq for Parts {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Parts {}

/// Bytes before the names of a part, which say how many they are.
const COUNT: usize = 1;

/// Encodes names by their numbers, as they are hashed; parts that are as before are shared.
fn names<T: Serialize>(
    all: &BTreeMap<u32, T>,
    before: Option<&BTreeMap<u32, Arc<[u8]>>>,
) -> BTreeMap<u32, Arc<[u8]>> {
    let mut parts = BTreeMap::new();
    let mut next = all.keys().next().copied();
    while let Some(part) = next.map(|key| key / NAMES_PER_HASH) {
        let last = part * NAMES_PER_HASH + (NAMES_PER_HASH - 1);
        let names: Vec<(&u32, &T)> = all.range(part * NAMES_PER_HASH..=last).collect();
        let bytes = encode(&names);
        let same = before.and_then(|before| before.get(&part)).filter(|before| before[..] == bytes[..]);
        parts.insert(part, same.cloned().unwrap_or_else(|| bytes.into()));
        next = last.checked_add(1).and_then(|from| Some(*all.range(from..).next()?.0));
    }
    parts
}

/// Encoded names with `changes`; `None` removes a name.
fn changed_names<T>(names: &Names, changes: &BTreeMap<u32, Option<T>>) -> Names
where
    T: Serialize + DeserializeOwned + Clone,
{
    let mut after = names.clone();
    let mut changes = changes.iter().peekable();
    while let Some(part) = changes.peek().map(|(number, _)| **number / NAMES_PER_HASH) {
        let before = names.get(&part);
        let mut all: BTreeMap<u32, T> =
            before.map(|before| decoded(before).into_iter().collect()).unwrap_or_default();
        while let Some((&number, change)) = changes.next_if(|(number, _)| **number / NAMES_PER_HASH == part) {
            match change {
                Some(name) => drop(all.insert(number, name.clone())),
                None => drop(all.remove(&number)),
            }
        }
        let bytes = encode(&all.iter().collect::<Vec<_>>());
        match before {
            _ if all.is_empty() => drop(after.remove(&part)),
            Some(before) if before[..] == bytes[..] => {}
            _ => drop(after.insert(part, bytes.into())),
        }
    }
    after
}

fn decoded<T: DeserializeOwned>(part: &[u8]) -> Vec<(u32, T)> {
    postcard::from_bytes(part).expect("the bytes are the encoding of names")
}

fn names_between<T: DeserializeOwned + Clone + PartialEq>(
    old: &BTreeMap<u32, Arc<[u8]>>,
    new: &BTreeMap<u32, Arc<[u8]>>,
) -> BTreeMap<u32, Option<T>> {
    let differs = |part: &&u32| old.get(part) != new.get(part);
    let read = |names: &BTreeMap<u32, Arc<[u8]>>, part: &u32| -> BTreeMap<u32, T> {
        names.get(part).map(|part| decoded(part).into_iter().collect()).unwrap_or_default()
    };
    let all = old.keys().chain(new.keys().filter(|part| !old.contains_key(part)));
    all.filter(differs).flat_map(|part| changed(&read(old, part), &read(new, part))).collect()
}

fn decode_words(part: &[u8]) -> Vec<u32> {
    let mut words = Vec::with_capacity(WORDS_PER_HASH);
    decode_into(part, &mut words);
    words
}

/// Appends what [`varints`] wrote.
fn decode_into(part: &[u8], words: &mut Vec<u32>) {
    let (mut word, mut shift) = (0, 0);
    for &byte in part {
        word |= u32::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            words.push(word);
            (word, shift) = (0, 0);
        }
    }
}

/// Runs of changed words, from words that rise.
#[derive(Default)]
struct Runs {
    done: Vec<(u32, Vec<u32>)>,
    /// Unchanged words that directly follow the last run, as many as may be inside one.
    gap: Vec<u32>,
}

impl Runs {
    fn word(&mut self, at: usize, word: u32, differs: bool) {
        let end = self.done.last().map(|(start, run)| *start as usize + run.len());
        let follows = end.is_some_and(|end| end + self.gap.len() == at);
        match (differs, self.done.last_mut()) {
            (true, Some((_, run))) if follows => {
                run.append(&mut self.gap);
                run.push(word);
            }
            (true, _) => {
                self.gap.clear();
                self.done.push((at as u32, vec![word]));
            }
            (false, _) if follows && self.gap.len() < JOIN => self.gap.push(word),
            (false, _) => {}
        }
    }

    fn done(self) -> Vec<(u32, Vec<u32>)> {
        self.done
    }
}
