//! The compiled image as it travels: the packet program's words beside the names a person wants to read.
//!
//! The encoding is canonical (postcard over ordered containers), so equal images have equal hashes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// SHA-256 of an image's encoding.
pub type Hash = [u8; 32];

/// The most words an image may have: 64 MiB. No compiler writes a larger one and no agent has room for one, so a message that
/// asks for more is refused before memory is.
pub const WORDS_MAX: usize = 1 << 24;

/// Everything one agent needs to judge packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What the packet program reads; the layout is `sluicegate_engine::image`. Host-order `u32`s.
    pub words: Vec<u32>,
    /// Who is behind each rule slot that `words` names.
    pub rules: BTreeMap<u32, RuleInfo>,
    /// What is behind each route number that `words` names.
    pub routes: BTreeMap<u32, RouteInfo>,
}

/// The policy rule behind a rule slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInfo {
    /// Policy id.
    pub policy_id: String,
    /// Policy name.
    pub policy_name: String,
    /// Rule id.
    pub rule_id: String,
    /// Rule name.
    pub rule_name: String,
    /// True for an accept rule, false for a drop rule.
    pub accept: bool,
}

/// The routed prefix behind a route number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// The prefix, masked.
    pub prefix: IpNet,
    /// Network id.
    pub network_id: String,
    /// Resource id.
    pub resource_id: String,
    /// Resource name.
    pub resource_name: String,
    /// Whether this agent replaces the source by its own address towards the prefix.
    pub masquerade: bool,
}

/// The difference between two images: runs of changed words, and changed names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Length in words of the resulting image.
    pub words: u32,
    /// Replaced runs: offset in words, and the new words.
    pub runs: Vec<(u32, Vec<u32>)>,
    /// Rule names added or changed; `None` removes the slot.
    pub rules: BTreeMap<u32, Option<RuleInfo>>,
    /// Routes added or changed; `None` removes the number.
    pub routes: BTreeMap<u32, Option<RouteInfo>>,
}

/// Why bytes are not an image or a delta.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes end early, hold an unknown variant, or are not of this type.
    #[error("the bytes are not a well-formed {what}: {source}")]
    Malformed {
        /// `image` or `delta`.
        what: &'static str,
        /// What the decoder met.
        source: postcard::Error,
    },
    /// Bytes follow the last known field: written by a newer version, or damaged.
    #[error("{count} unknown bytes follow the {what}")]
    Trailing {
        /// `image` or `delta`.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// A delta names words beyond the image it results in.
    #[error("a run of {len} words at {offset} leaves the image of {words} words")]
    Run {
        /// Offset in words.
        offset: u32,
        /// Length in words.
        len: usize,
        /// Length of the resulting image in words.
        words: u32,
    },
    /// A delta names a length that no image has.
    #[error(
        "the delta results in an image of {words} words, and images have at most {max}; ask for a whole image"
    )]
    TooLarge {
        /// Length of the resulting image in words.
        words: u32,
        /// [`WORDS_MAX`].
        max: usize,
    },
}

impl Image {
    /// The canonical encoding: postcard's, of which the words are written here, since a byte at a time they take five times
    /// as long, and an image of 10,000,000 words is written for every change to it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = words(&self.words);
        for rest in [encode(&self.rules), encode(&self.routes)] {
            bytes.extend_from_slice(&rest);
        }
        bytes
    }

    /// Reads an encoding; nothing may follow it. The words are not checked here: `sluicegate_engine::image::validate` does.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode(bytes, "image")
    }

    /// SHA-256 of the encoding.
    pub fn hash(&self) -> Hash {
        Sha256::digest(self.encode()).into()
    }

    /// This image with `delta` applied.
    pub fn apply(&self, delta: &Delta) -> Result<Self, CodecError> {
        if delta.words as usize > WORDS_MAX {
            return Err(CodecError::TooLarge { words: delta.words, max: WORDS_MAX });
        }
        let mut next = self.clone();
        next.words.resize(delta.words as usize, 0);
        for (offset, run) in &delta.runs {
            let start = *offset as usize;
            let Some(target) = next.words.get_mut(start..start.saturating_add(run.len())) else {
                return Err(CodecError::Run { offset: *offset, len: run.len(), words: delta.words });
            };
            target.copy_from_slice(run);
        }
        merge(&mut next.rules, &delta.rules);
        merge(&mut next.routes, &delta.routes);
        Ok(next)
    }
}

impl Delta {
    /// Unchanged words inside a run cost four bytes each, a new run about six: runs closer than this are joined.
    const JOIN: usize = 2;

    /// What turns `old` into `new`.
    pub fn between(old: &Image, new: &Image) -> Self {
        Delta {
            words: u32::try_from(new.words.len()).unwrap_or(u32::MAX),
            runs: runs(&old.words, &new.words, Self::JOIN),
            rules: changed(&old.rules, &new.rules),
            routes: changed(&old.routes, &new.routes),
        }
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads an encoding; nothing may follow it.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode(bytes, "delta")
    }
}

/// The words as postcard writes them: how many, then each, in seven bits a byte, the lowest first; the top bit says that more
/// follow.
fn words(words: &[u32]) -> Vec<u8> {
    /// Bytes of one word at the most.
    const LONGEST: usize = 5;
    const CHUNK: usize = 4096;
    let mut bytes = encode(&words.len());
    bytes.reserve(words.len() * 2);
    let mut buffer = [0; CHUNK * LONGEST];
    for chunk in words.chunks(CHUNK) {
        let mut at = 0;
        for &word in chunk {
            let mut rest = word;
            while rest >= 0x80 {
                buffer[at] = rest as u8 | 0x80;
                rest >>= 7;
                at += 1;
            }
            buffer[at] = rest as u8;
            at += 1;
        }
        bytes.extend_from_slice(&buffer[..at]);
    }
    bytes
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain structs in memory always encode")
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &'static str) -> Result<T, CodecError> {
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|source| CodecError::Malformed { what, source })?;
    if !rest.is_empty() {
        return Err(CodecError::Trailing { what, count: rest.len() });
    }
    Ok(value)
}

fn runs(old: &[u32], new: &[u32], join: usize) -> Vec<(u32, Vec<u32>)> {
    let differs = |i: usize| old.get(i).copied().unwrap_or(0) != new[i];
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for i in (0..new.len()).filter(|&i| differs(i)) {
        match spans.last_mut() {
            Some((_, end)) if i <= *end + join => *end = i + 1,
            _ => spans.push((i, i + 1)),
        }
    }
    spans.into_iter().map(|(start, end)| (start as u32, new[start..end].to_vec())).collect()
}

fn changed<T: Clone + PartialEq>(old: &BTreeMap<u32, T>, new: &BTreeMap<u32, T>) -> BTreeMap<u32, Option<T>> {
    let gone = old.keys().filter(|k| !new.contains_key(k)).map(|k| (*k, None));
    let set = new.iter().filter(|(k, v)| old.get(k) != Some(v)).map(|(k, v)| (*k, Some(v.clone())));
    gone.chain(set).collect()
}

fn merge<T: Clone>(target: &mut BTreeMap<u32, T>, changes: &BTreeMap<u32, Option<T>>) {
    for (key, change) in changes {
        match change {
            Some(value) => target.insert(*key, value.clone()),
            None => target.remove(key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(words: &[u32], rules: &[u32]) -> Image {
        let info = |slot: &u32| {
            (
                *slot,
                RuleInfo {
                    policy_id: "p".into(),
                    policy_name: "p".into(),
                    rule_id: slot.to_string(),
                    rule_name: "r".into(),
                    accept: true,
                },
            )
        };
        Image { words: words.to_vec(), rules: rules.iter().map(info).collect(), routes: BTreeMap::new() }
    }

    #[test]
    fn a_delta_turns_the_old_image_into_the_new_one() {
        let cases: &[(&[u32], &[u32])] = &[
            (&[], &[1, 2]),
            (&[1, 2, 3], &[1]),
            (&[1, 2, 3, 4, 5, 6, 7], &[9, 2, 3, 4, 5, 6, 8]),
            (&[5], &[5, 0, 0]),
        ];
        for (old, new) in cases {
            let (old, new) = (image(old, &[1, 2]), image(new, &[2, 3]));
            let delta = Delta::decode(&Delta::between(&old, &new).encode()).unwrap();
            assert_eq!(old.apply(&delta).unwrap(), new);
            assert_eq!(old.apply(&delta).unwrap().hash(), new.hash());
        }
    }

    #[test]
    fn words_are_written_as_postcard_does() {
        let mut long: Vec<u32> = (0..10_000).map(|i: u32| i.wrapping_mul(i).wrapping_mul(i)).collect();
        long.extend([0, 127, 128, 16_383, 16_384, u32::MAX]);
        for words in [&[][..], &[0], &long] {
            let image = image(words, &[1, 7]);
            assert_eq!(image.encode(), encode(&image));
        }
    }

    #[test]
    fn truncated_and_trailing_bytes_are_refused() {
        let bytes = image(&[1, 2, 3], &[4]).encode();
        for cut in 0..bytes.len() {
            assert!(Image::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(Image::decode(&longer), Err(CodecError::Trailing { count: 1, .. })));
    }

    /// Nine bytes made the agent ask for 16 GiB (found by the fuzz target `image`).
    #[test]
    fn a_delta_to_an_image_of_16_gib_is_refused() {
        let delta = Delta { words: u32::MAX, ..Delta::default() };
        let refused = image(&[1], &[]).apply(&delta);
        assert!(matches!(refused, Err(CodecError::TooLarge { words: u32::MAX, max: WORDS_MAX })));
        let most = Delta { words: WORDS_MAX as u32 + 1, ..Delta::default() };
        assert!(matches!(image(&[], &[]).apply(&most), Err(CodecError::TooLarge { .. })));
    }

    #[test]
    fn a_run_beyond_the_image_is_refused() {
        let delta = Delta { words: 2, runs: vec![(1, vec![1, 2])], ..Delta::default() };
        assert!(matches!(image(&[], &[]).apply(&delta), Err(CodecError::Run { .. })));
    }
}
