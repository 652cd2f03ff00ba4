//! Which rule a slot stands for, and which resource a route number: numbers of what is gone are given out again, their
//! counters are not.

use std::collections::HashMap;

use sluicegate_api::image::{Delta, Image};

/// The rule that each slot stood for last, and the resource behind each route number.
#[derive(Debug, Default)]
pub(crate) struct RuleSlots {
    rules: HashMap<u32, String>,
    routes: HashMap<u32, String>,
}

impl RuleSlots {
    /// Takes note of `image` and returns the slots that stand for another rule than before: they start at zero.
    pub(crate) fn renamed(&mut self, image: &Image) -> Vec<u32> {
        named(&mut self.rules, image.rules.iter().map(|(slot, rule)| (*slot, rule.rule_id.as_str())))
    }

    /// The same of route numbers: those that lead to another resource than before.
    pub(crate) fn rerouted(&mut self, image: &Image) -> Vec<u32> {
        named(
            &mut self.routes,
            image.routes.iter().map(|(number, route)| (*number, route.resource_id.as_str())),
        )
    }

    /// As [`RuleSlots::renamed`], where only what `undo` names was changed.
    pub(crate) fn renamed_by(&mut self, image: &Image, undo: &Delta) -> Vec<u32> {
        let before =
            undo.rules.iter().filter_map(|(slot, rule)| Some((*slot, rule.as_ref()?.rule_id.as_str())));
        let after =
            undo.rules.keys().filter_map(|slot| Some((*slot, image.rules.get(slot)?.rule_id.as_str())));
        named(&mut self.rules, before);
        named(&mut self.rules, after)
    }

    /// As [`RuleSlots::rerouted`], where only what `undo` names was changed.
    pub(crate) fn rerouted_by(&mut self, image: &Image, undo: &Delta) -> Vec<u32> {
        let before = undo
            .routes
            .iter()
            .filter_map(|(number, route)| Some((*number, route.as_ref()?.resource_id.as_str())));
        let after = undo
            .routes
            .keys()
            .filter_map(|number| Some((*number, image.routes.get(number)?.resource_id.as_str())));
        named(&mut self.routes, before);
        named(&mut self.routes, after)
    }
}

/// Takes note of what numbers stand for, and returns those that stood for something else.
fn named<'a>(known: &mut HashMap<u32, String>, names: impl Iterator<Item = (u32, &'a str)>) -> Vec<u32> {
    let renamed = names.filter(|&(number, id)| match known.get_mut(&number) {
        Some(before) if before == id => false,
        Some(before) => {
            id.clone_into(before);
            true
        }
        None => {
            known.insert(number, id.to_owned());
            false
        }
    });
    renamed.map(|(number, _)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicegate_api::image::RuleInfo;

    fn image(rules: &[(u32, &str)]) -> Image {
        let info = |id: &str| RuleInfo {
            policy_id: "p".into(),
            policy_name: "p".into(),
            rule_id: id.into(),
            rule_name: "r".into(),
            accept: true,
        };
        Image { rules: rules.iter().map(|(slot, id)| (*slot, info(id))).collect(), ..Image::default() }
    }

    #[test]
    fn a_slot_that_was_free_for_a_while_is_renamed_too() {
        let mut slots = RuleSlots::default();
        assert_eq!(slots.renamed(&image(&[(0, "a"), (1, "b")])), [0u32; 0]);
        assert_eq!(slots.renamed(&image(&[(0, "a")])), [0u32; 0]);
        assert_eq!(slots.renamed(&image(&[(0, "a"), (1, "c")])), [1]);
        assert_eq!(slots.renamed(&image(&[(0, "a"), (1, "c")])), [0u32; 0]);
    }

    #[test]
    fn a_change_renames_what_a_whole_image_would() {
        let mut slots = RuleSlots::default();
        let mut now = image(&[(0, "a"), (1, "b")]);
        let mut change = |rules: &[(u32, &str)]| {
            let undo = now.change(&Delta::between(&now, &image(rules))).unwrap();
            slots.renamed_by(&now, &undo)
        };
        assert_eq!(change(&[(0, "a"), (1, "b"), (2, "c")]), [0u32; 0]);
        // Known from the image before, though no image was seen as a whole.
        assert_eq!(change(&[(0, "d"), (2, "c")]), [0]);
        assert_eq!(change(&[(0, "d"), (1, "b")]), [0u32; 0]);
        assert_eq!(change(&[(0, "d"), (1, "b"), (2, "e")]), [2]);
    }
}
