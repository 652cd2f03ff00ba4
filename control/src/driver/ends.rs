//! The states that follow by the clock alone: images of them go to agents ahead of time, so that grants end on time where
//! control is away.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluicegate_policy::Compiler;

use crate::hub::{Compiled, Later};
use crate::store::Ending;

/// So many moments are told ahead. Each is a state to compile from, and all of them are in one message to an agent.
const ENDS: usize = 32;

/// The state from one moment on.
struct After {
    end: Ending,
    compiler: Compiler,
    /// The agents that may have another image from then on.
    concerned: BTreeSet<Arc<str>>,
}

/// What ends in a state, in the order of time. Nothing, and no work, in a state in which nothing does.
pub(super) struct Ends(Vec<After>);

impl Ends {
    /// Prepares the states after the first of `ends`, which follow the state of `now`.
    pub(super) fn new(ends: Vec<Ending>, now: &Compiler) -> Result<Self, String> {
        let mut all = Vec::<After>::new();
        for end in ends.into_iter().take(ENDS) {
            let before = all.last().map_or(now, |last| &last.compiler);
            let mut state = before.state().as_ref().clone();
            for id in &end.policies {
                if let Some(policy) = state.policies.get_mut(id) {
                    policy.enabled = false;
                }
            }
            let compiler = Compiler::after(Arc::new(state), before)
                .map_err(|error| format!("once it has ended: {error}"))?;
            let concerned = compiler.affected(before);
            all.push(After { end, compiler, concerned });
        }
        Ok(Self(all))
    }

    /// Whether an agent may have another image after one of them.
    pub(super) fn concern(&self, agent: &str) -> bool {
        self.0.iter().any(|after| after.concerned.contains(agent))
    }

    /// The agents of which the images after an end may be others than `before` had; `None` is all of them.
    pub(super) fn affected(&self, before: &Self) -> Option<BTreeSet<Arc<str>>> {
        if self.0.len() != before.0.len() || self.0.iter().zip(&before.0).any(|(a, b)| a.end != b.end) {
            return None;
        }
        let pairs = self.0.iter().zip(&before.0);
        Some(pairs.flat_map(|(now, before)| now.compiler.affected(&before.compiler)).collect())
    }

    /// The images of an agent after each end that changes its image, which is `image` now.
    pub(super) fn compile(&self, agent: &str, image: &Arc<Compiled>) -> Result<Arc<[Later]>, String> {
        let mut later = Vec::<Later>::new();
        for after in self.0.iter().filter(|after| after.concerned.contains(agent)) {
            let before = later.last().map_or(image, |last| &last.image);
            let next = after.compiler.compile_parts(agent, Some(&before.parts));
            let next = next.map_err(|error| format!("once a grant has ended: {error}"))?;
            let next = Compiled::new(next, Some(before.clone()));
            if next.hash != before.hash {
                later.push(Later { at_ms: after.end.at.unsigned_abs(), image: next });
            }
        }
        Ok(later.into())
    }
}
