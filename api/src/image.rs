//! The compiled image as it travels: the packet program's words beside the names a person wants to read.
//!
//! The encoding is canonical (postcard over ordered containers). An image's hash is over the hashes of its parts, so that it costs
//! what was changed: see [`Hashes`].

mod delta;
mod hashes;
mod parts;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use delta::Delta;
pub use hashes::{Hash, Hashes};
pub use parts::Parts;

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
    /// The runs of a delta do not rise, or they meet.
    #[error("the run at {offset} begins before the one ahead of it ends, at {end}")]
    Order {
        /// Offset in words.
        offset: u32,
        /// Where the run ahead of it ends, in words.
        end: u64,
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

    /// The hash of this image; [`Hashes`] says of what.
    pub fn hash(&self) -> Hash {
        Hashes::of(self).root()
    }

    /// This image with `delta` applied.
    pub fn apply(&self, delta: &Delta) -> Result<Self, CodecError> {
        let mut next = self.clone();
        next.change(delta)?;
        Ok(next)
    }

    /// Applies `delta` to this image, and returns what takes it back. A delta that is refused has changed nothing.
    pub fn change(&mut self, delta: &Delta) -> Result<Delta, CodecError> {
        delta.check()?;
        Ok(delta.exchange(self))
    }
}

/// The words as postcard writes them: how many, then each.
fn words(words: &[u32]) -> Vec<u8> {
    let mut bytes = encode(&words.len());
    bytes.reserve(words.len() * 2);
    varints(words, &mut bytes);
    bytes
}

/// Each word in seven bits a byte, the lowest first; the top bit says that more follow.
fn varints(words: &[u32], bytes: &mut Vec<u8>) {
    /// Bytes of one word at the most.
    const LONGEST: usize = 5;
    const CHUNK: usize = 256;
    const FEW: usize = 8;
    let mut buffer = [0; CHUNK * LONGEST];
    for chunk in words.chunks(CHUNK) {
        let mut at = 0;
        for few in chunk.chunks(FEW) {
            // Most words of an image are small, and most of these zero.
            if few.iter().fold(0, |all, word| all | word) < 0x80 {
                buffer[at..at + few.len()].iter_mut().zip(few).for_each(|(byte, &word)| *byte = word as u8);
                at += few.len();
                continue;
            }
            for &word in few {
                let mut rest = word;
                while rest >= 0x80 {
                    buffer[at] = rest as u8 | 0x80;
                    rest >>= 7;
                    at += 1;
                }
                buffer[at] = rest as u8;
                at += 1;
            }
        }
        bytes.extend_from_slice(&buffer[..at]);
    }
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
