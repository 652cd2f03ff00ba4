//! An image as it is kept where there are many: encoded, by parts, with the hash of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Serialize};

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
    hashes: Hashes,
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
            image.words.len(),
            leaves,
            [
                hash_of(&rules, before.map(|before| (&before.rules, before.hashes.rules()))),
                hash_of(&routes, before.map(|before| (&before.routes, before.hashes.routes()))),
            ],
            before.map(|before| &before.hashes),
        );
        let mut parts =
            Self { length: image.words.len(), words, rules, routes, hash: hashes.root(), hashes, bytes: 0 };
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
    let mut reader = postcard::Deserializer::from_bytes(part);
    while let Ok(word) = u32::deserialize(&mut reader) {
        words.push(word);
    }
    words
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
