//! Whether an image can be put in force: the same answer from both datapaths.

use std::ops::Range;

use sluicegate_api::image::{Delta, Hash, Image, WORDS_MAX};
use sluicegate_engine::classify::Line;
use sluicegate_engine::image::{LINE, header};
use sluicegate_engine::{Claims, revalidate, validate_with};

use super::{ApplyError, Change, InForce};

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

/// Looks at images before they are put in force, at changed ones only where they were changed.
#[derive(Debug)]
pub(crate) struct Checker {
    claims: Claims<Vec<u32>>,
    /// The image that the claims are of.
    of: Option<Hash>,
}

impl Checker {
    /// Has seen no image.
    pub(crate) fn new() -> Self {
        // Memory that no image needs is never written, and costs none.
        Self { claims: Claims::new(vec![0; WORDS_MAX / LINE]), of: None }
    }

    /// The lines of `image`, once it is known that it may follow what is in force, that there is room for it, and that every
    /// look-up it could cause stays inside it.
    pub(crate) fn check<'a>(
        &mut self,
        in_force: Option<InForce>,
        next: InForce,
        image: &'a Image,
        change: Option<Change<'_>>,
        room: Room,
    ) -> Result<&'a [Line], ApplyError> {
        if let Some(InForce { revision: in_force, .. }) = in_force
            && next.revision <= in_force
        {
            return Err(ApplyError::Stale { offered: next.revision, in_force });
        }
        let fits = |table, needed: u64, capacity: u64| match needed > capacity {
            true => Err(too_large(table, needed, capacity)),
            false => Ok(()),
        };
        fits(WORDS, image.words.len() as u64, room.words)?;
        let (lines, rest) = image.words.as_chunks::<LINE>();
        if !rest.is_empty() {
            return Err(ApplyError::Invalid("its length is not a whole number of lines".into()));
        }
        let known = self.of.take();
        let verdict = match change.filter(|change| known == Some(change.base)) {
            Some(change) => revalidate(lines, &change.undo.runs, &mut self.claims),
            None => validate_with(lines, &mut self.claims),
        };
        verdict.map_err(|e| ApplyError::Invalid(e.to_string()))?;
        self.of = Some(next.hash);
        fits(SLOTS, image.words[header::RULE_SLOTS].into(), room.rule_slots.into())?;
        Ok(lines)
    }
}

/// Words in which an image of `words` words differs from the one that `undo` leads back to.
pub(crate) fn changed(undo: &Delta, words: usize) -> Vec<Range<usize>> {
    let runs = undo.runs.iter().map(|(start, run)| *start as usize..(*start as usize + run.len()).min(words));
    let grown = undo.words as usize..words;
    runs.chain([grown]).filter(|part| !part.is_empty()).collect()
}

/// What may be too little, and what then helps.
type Table = (&'static str, &'static str);

/// Words of one image.
pub(crate) const WORDS: Table = (
    "words of policy",
    "raise `[datapath] image_words` (a word takes 8 bytes of kernel memory, both halves), or let control spread this \
     gateway's networks over more gateways",
);
/// Rule slots.
const SLOTS: Table = (
    "rule slots",
    "rules of the whole account share the numbers below that, and the lowest free one is given out: delete rules that are \
     no longer used",
);

/// Refuses with numbers.
pub(crate) fn too_large((table, remedy): Table, needed: u64, capacity: u64) -> ApplyError {
    ApplyError::TooLarge { table, needed, capacity, remedy }
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
        let image = Image { words: vec![0; words], ..Image::default() };
        let next = InForce { revision: 7, hash: [1; 32] };
        Checker::new().check(in_force, next, &image, None, ROOM).unwrap_err()
    }

    #[test]
    fn what_cannot_be_put_in_force_is_refused_for_its_own_reason() {
        assert!(matches!(refusal(Some(7), 64), ApplyError::Stale { offered: 7, in_force: 7 }));
        assert!(matches!(refusal(Some(6), 80), ApplyError::TooLarge { needed: 80, capacity: 64, .. }));
        assert!(matches!(refusal(None, 17), ApplyError::Invalid(_)));
        assert!(matches!(refusal(None, 64), ApplyError::Invalid(_)));
        assert!(matches!(refusal(None, 0), ApplyError::Invalid(_)));
    }

    #[test]
    fn what_is_too_large_is_named_with_numbers_and_what_to_do() {
        let told = refusal(None, 80).to_string();
        assert!(told.contains("80 words of policy") && told.contains("room for 64"), "{told}");
        assert!(told.contains("image_words"), "{told}");
        let told = too_large(SLOTS, 200_000, RULE_SLOTS.into()).to_string();
        assert!(told.contains("200000 rule slots") && told.contains("room for 131072"), "{told}");
    }

    #[test]
    fn epochs_are_never_zero() {
        assert_eq!((epoch(0), epoch(5), epoch(1 << 32)), (1, 5, 1));
    }
}
