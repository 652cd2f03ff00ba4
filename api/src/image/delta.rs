//! The difference between two images, and how it is applied in place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CodecError, Image, RouteInfo, RuleInfo, WORDS_MAX, decode, encode};

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

/// Unchanged words inside a run cost four bytes each, a new run about six: runs closer than this are joined.
pub(super) const JOIN: usize = 2;

impl Delta {
    /// What turns `old` into `new`.
    pub fn between(old: &Image, new: &Image) -> Self {
        Delta {
            words: u32::try_from(new.words.len()).unwrap_or(u32::MAX),
            runs: runs(&old.words, &new.words, JOIN),
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

    /// Whether it can be applied, to whatever image.
    pub(super) fn check(&self) -> Result<(), CodecError> {
        let words = self.words;
        if words as usize > WORDS_MAX {
            return Err(CodecError::TooLarge { words, max: WORDS_MAX });
        }
        let mut end = 0;
        for (offset, run) in &self.runs {
            if u64::from(*offset) < end {
                return Err(CodecError::Order { offset: *offset, end });
            }
            end = u64::from(*offset) + run.len() as u64;
            if end > u64::from(words) {
                return Err(CodecError::Run { offset: *offset, len: run.len(), words });
            }
        }
        Ok(())
    }

    /// Applies this, which was checked, and returns what takes it back: of the words that differ, those the image had.
    pub(super) fn exchange(&self, image: &mut Image) -> Self {
        let (before, after) = (image.words.len(), self.words as usize);
        let mut runs: Vec<(u32, Vec<u32>)> = Vec::with_capacity(self.runs.len() + 1);
        let tail = image.words.get(after..).map(<[u32]>::to_vec).filter(|tail| !tail.is_empty());
        image.words.resize(after, 0);
        for (offset, run) in &self.runs {
            let start = *offset as usize;
            let target = &mut image.words[start..start + run.len()];
            let had = target[..run.len().min(before.saturating_sub(start))].to_vec();
            target.copy_from_slice(run);
            if !had.is_empty() {
                runs.push((*offset, had));
            }
        }
        runs.extend(tail.map(|tail| (self.words, tail)));
        Self {
            // Images have at most `WORDS_MAX` words.
            words: before as u32,
            runs,
            rules: replace(&mut image.rules, &self.rules),
            routes: replace(&mut image.routes, &self.routes),
        }
    }
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

pub(super) fn changed<T: Clone + PartialEq>(
    old: &BTreeMap<u32, T>,
    new: &BTreeMap<u32, T>,
) -> BTreeMap<u32, Option<T>> {
    let gone = old.keys().filter(|k| !new.contains_key(k)).map(|k| (*k, None));
    let set = new.iter().filter(|(k, v)| old.get(k) != Some(v)).map(|(k, v)| (*k, Some(v.clone())));
    gone.chain(set).collect()
}

/// Makes the changes, and returns what takes them back.
fn replace<T: Clone>(
    target: &mut BTreeMap<u32, T>,
    changes: &BTreeMap<u32, Option<T>>,
) -> BTreeMap<u32, Option<T>> {
    let replace = |(&key, change): (&u32, &Option<T>)| {
        let had = match change {
            Some(value) => target.insert(key, value.clone()),
            None => target.remove(&key),
        };
        (key, had)
    };
    changes.iter().map(replace).collect()
}
