//! Whether an image can be put in force: the same answer from both datapaths.

use sluicegate_api::image::Image;
use sluicegate_engine::classify::Line;
use sluicegate_engine::image::{LINE, header};
use sluicegate_engine::validate;

use super::{ApplyError, InForce};

/// Rule slots that are counted: more rules than any image of the size DESIGN names, at 16 bytes each and processor.
pub(crate) const RULE_SLOTS: u32 = 131_072;

/// What a datapath has room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// 32-bit words of one image.
    pub(crate) words: u64,
    /// Rule slots.
    pub(crate) rule_slots: u32,
}

/// The lines of `image`, once it is known that it may follow what is in force, that there is room for it, and that every
/// look-up it could cause stays inside it.
pub(crate) fn check(
    in_force: Option<InForce>,
    revision: u64,
    image: &Image,
    room: Room,
) -> Result<&[Line], ApplyError> {
    if let Some(InForce { revision: in_force, .. }) = in_force
        && revision <= in_force
    {
        return Err(ApplyError::Stale { offered: revision, in_force });
    }
    let too_large = |needed: u64, capacity: u64| match needed > capacity {
        true => Err(ApplyError::TooLarge { needed, capacity }),
        false => Ok(()),
    };
    too_large(image.words.len() as u64, room.words)?;
    let (lines, rest) = image.words.as_chunks::<LINE>();
    if !rest.is_empty() {
        return Err(ApplyError::Invalid("its length is not a whole number of lines".into()));
    }
    validate(lines).map_err(|e| ApplyError::Invalid(e.to_string()))?;
    too_large(image.words[header::RULE_SLOTS].into(), room.rule_slots.into())?;
    Ok(lines)
}

/// The number by which flows remember their image: never 0, which means "no image".
pub(crate) fn epoch(revision: u64) -> u32 {
    (revision as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { words: 64, rule_slots: RULE_SLOTS };

    fn refusal(in_force: Option<u64>, words: usize) -> ApplyError {
        let in_force = in_force.map(|revision| InForce { revision, hash: [0; 32] });
        check(in_force, 7, &Image { words: vec![0; words], ..Image::default() }, ROOM).unwrap_err()
    }

    #[test]
    fn what_cannot_be_put_in_force_is_refused_for_its_own_reason() {
        assert!(matches!(refusal(Some(7), 64), ApplyError::Stale { offered: 7, in_force: 7 }));
        assert!(matches!(refusal(Some(6), 80), ApplyError::TooLarge { needed: 80, capacity: 64 }));
        assert!(matches!(refusal(None, 17), ApplyError::Invalid(_)));
        assert!(matches!(refusal(None, 64), ApplyError::Invalid(_)));
        assert!(matches!(refusal(None, 0), ApplyError::Invalid(_)));
    }

    #[test]
    fn epochs_are_never_zero() {
        assert_eq!((epoch(0), epoch(5), epoch(1 << 32)), (1, 5, 1));
    }
}
