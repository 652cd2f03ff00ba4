//! Whether an image can be put in force here.

use sluicegate_api::image::Image;
use sluicegate_engine::classify::Line;
use sluicegate_engine::image::{LINE, header};
use sluicegate_engine::validate;

use crate::datapath::ApplyError;

/// Rule slots that are counted: 4 MB of counters.
const RULE_SLOTS: u32 = 131_072;

/// An image that was found to be in order.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) lines: Vec<Line>,
    pub(super) rule_slots: u32,
}

/// Checks every look-up the image could cause, and that it has at most `capacity` words.
pub(super) fn check(image: &Image, capacity: u32) -> Result<Checked, ApplyError> {
    let (lines, rest) = image.words.as_chunks::<LINE>();
    if !rest.is_empty() {
        return Err(ApplyError::Invalid("its length is not a whole number of lines".into()));
    }
    let too_large = |needed: u64, capacity: u32| match needed > capacity.into() {
        true => Err(ApplyError::TooLarge { needed, capacity: capacity.into() }),
        false => Ok(()),
    };
    too_large(image.words.len() as u64, capacity)?;
    validate(lines).map_err(|e| ApplyError::Invalid(e.to_string()))?;
    let rule_slots = image.words[header::RULE_SLOTS];
    too_large(rule_slots.into(), RULE_SLOTS)?;
    Ok(Checked { lines: lines.to_vec(), rule_slots })
}

/// The number by which flows remember their image: never 0, which means "no image".
pub(super) fn epoch(revision: u64) -> u32 {
    (revision as u32).max(1)
}
