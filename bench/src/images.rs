//! Images of 100,000 rules: what one changed rule costs the agent, and what they take of memory.

use std::time::Duration;

use anyhow::Result;

use crate::Effort;
use crate::change::{self, Changes};
use crate::figure::{Figure, Target};

const RULES: usize = 100_000;
/// Bytes of a word, in both halves of the maps.
const BOTH_HALVES: usize = 2 * size_of::<u32>();

/// Measures both.
pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>> {
    eprintln!("bench: one rule of {RULES} changed");
    let Changes { words, bytes, first, costs, whole } =
        change::measure(RULES, effort.changed, effort.rounds as usize)?;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let cpu = costs.iter().map(|cost| ms(cost.cpu)).collect();
    let took = costs.iter().map(|cost| ms(cost.took)).collect();
    let name = |what: &str| format!("one rule of {RULES} changed: {what}");
    let megabytes = (words * BOTH_HALVES) as f64 / 1e6;
    Ok(vec![
        Figure::of(name("the agent's processor time"), "ms", cpu, Target::AtMost(10.0)),
        Figure::of(name("to in force"), "ms", took, None),
        Figure::of(name("the first after a start, processor time"), "ms", vec![ms(first.cpu)], None),
        Figure::of(name("sent as a whole image, processor time"), "ms", vec![ms(whole.cpu)], None),
        Figure::of(name("its delta"), "bytes", bytes.iter().map(|bytes| *bytes as f64).collect(), None),
        Figure::of(
            format!("memory of {RULES} policies, both halves, teams"),
            "MB",
            vec![megabytes],
            Target::AtMost(64.0),
        ),
    ])
}
