//! The classifier alone, in user space: sets of 100,000 rules in the manner of ClassBench against sets of ten. It is asked as the
//! engine asks it for first packets; what a look-up costs when nothing is kept of those before is a figure beside it.

use std::sync::Arc;

use anyhow::Result;
use sluicegate_api::image::Image;
use sluicegate_engine::image::LINE;
use sluicegate_model::classbench::serial::{Asked, Pattern, Traffic};
use sluicegate_model::classbench::{GATEWAY, Size, state};
use sluicegate_policy::Compiler;
use sluicegate_policy::model::State;

use crate::Effort;
use crate::figure::{Figure, NANOSECONDS, Target};
use crate::traffic::Family;

/// Rules of the large set and of the small one.
const SIZES: [usize; 2] = [100_000, 10];
/// Bytes of a word, in both halves of the maps.
const BOTH_HALVES: usize = 2 * size_of::<u32>();
/// The same sets and traces every time.
const SEED: u64 = 1;
/// Times what it takes with ten rules, where traffic is hot.
const TIMES: f64 = 2.5;

/// Measures the kinds of sets that `effort` says.
pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for kind in effort.kinds {
        eprintln!("bench: the classifier alone, {}", kind.name());
        let sets = SIZES.map(|rules| Arc::new(state(*kind, Size::of(rules), SEED)));
        let images = [compiled(&sets[0])?, compiled(&sets[1])?];
        let megabytes = (images[0].words.len() * BOTH_HALVES) as f64 / 1e6;
        let name = format!("memory of {} policies, both halves, {}", SIZES[0], kind.name());
        figures.push(Figure::of(name, "MB", vec![megabytes], Target::AtMost(64.0)));
        for family in Family::BOTH {
            for (pattern, most) in Pattern::ALL.into_iter().zip([120.0, 180.0, 400.0]) {
                let packets =
                    sets.each_ref().map(|set| Traffic::new(set, SEED).packets(pattern, family == Family::V6));
                let mut rounds: [Vec<f64>; 2] = Default::default();
                let mut anew = Vec::new();
                for _ in 0..effort.rounds {
                    let lines = images.each_ref().map(|image| image.words.as_chunks::<LINE>().0);
                    for ((rounds, packets), lines) in rounds.iter_mut().zip(&packets).zip(lines) {
                        rounds.push(packets.round(lines, Asked::AsForPackets));
                    }
                    anew.push(packets[0].round(lines[0], Asked::Anew));
                }
                let [large, small] = rounds;
                let name = format!(
                    "classifier alone, {} of {} rules, {}, {}",
                    kind.name(),
                    SIZES[0],
                    pattern.name(),
                    family.name()
                );
                figures.push(Figure::of(name.clone(), NANOSECONDS, large.clone(), Target::AtMost(most)));
                if pattern != Pattern::Uniform {
                    figures.push(Figure::against(
                        name.clone(),
                        large,
                        "ten rules",
                        small,
                        Some(Target::Times(1.0 / TIMES)),
                    ));
                    let name = format!("{name}, nothing kept");
                    figures.push(Figure::alone(name, anew));
                }
            }
        }
    }
    Ok(figures)
}

fn compiled(state: &Arc<State>) -> Result<Image> {
    Ok(Compiler::new(state.clone())?.compile(GATEWAY)?)
}
