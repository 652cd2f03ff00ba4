//! Which rule a slot stands for, and which resource a route number: numbers of what is gone are given out again, their
//! counters are not.

use std::collections::HashMap;

use sluicegate_api::image::Image;

/// The rule that each slot stood for last, and the resource behind each route number.
#[derive(Debug, Default)]
pub(crate) struct RuleSlots {
    rules: HashMap<u32, String>,
    routes: HashMap<u32, String>,
}

impl RuleSlots {
    /// Takes note of `image` and returns the slots that stand for another rule than before: they start at zero.
    pub(crate) fn renamed(&mut self, image: &Image) -> Vec<u32> {
        let mut renamed = Vec::new();
        for (slot, rule) in &image.rules {
            let before = self.rules.insert(*slot, rule.rule_id.clone());
            if before.is_some_and(|before| before != rule.rule_id) {
                renamed.push(*slot);
            }
        }
        renamed
    }

    /// The same of route numbers: those that lead to another resource than before.
    pub(crate) fn rerouted(&mut self, image: &Image) -> Vec<u32> {
        let mut rerouted = Vec::new();
        for (number, route) in &image.routes {
            let before = self.routes.insert(*number, route.resource_id.clone());
            if before.is_some_and(|before| before != route.resource_id) {
                rerouted.push(*number);
            }
        }
        rerouted
    }
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
}
