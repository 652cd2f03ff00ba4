//! A flood of openings while flows are established.

use anyhow::Result;
use sluicegate_lab::Lab;

use crate::Effort;
use crate::account::FEW;
use crate::contestant::{Contestant, Way};
use crate::figure::{Figure, NANOSECONDS, Target};
use crate::traffic::Family;

/// Flows that must not be lost.
const FLOWS: u32 = 10_000;
/// Openings between looks at them.
const BURST: u32 = 100_000;
/// Nanoseconds of a packet at 0.3 Mpps.
const FASTEST_ASKED: f64 = 3_333.0;

/// Measures it for both families.
pub(crate) fn measure(lab: &Lab, effort: &Effort) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut ours = Contestant::new(lab, "flood", &Way::OursXdp(FEW), FEW)?;
    for family in Family::BOTH {
        eprintln!("bench: flood of openings, {}", family.name());
        ours.establish(family, FLOWS)?;
        let (mut costs, mut opened, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            let before = ours.flows_started()?;
            costs.push(ours.openings(family, BURST)?.nanoseconds());
            let after = ours.flows_started()?;
            opened.push((after - before) as f64 / f64::from(BURST) * 100.0);
            let missing = ours.missing(family, FLOWS)?;
            // One that was lost passes as well, and is a new one.
            lost.push((missing + (ours.flows_started()? - after)) as f64);
        }
        let flood =
            format!("XDP, flood of {} UDP openings from every source at random", effort.rounds * BURST);
        let name = |what: &str| format!("{flood}: {what}, {}", family.name());
        figures.push(Figure::of(name("each"), NANOSECONDS, costs, Target::AtMost(FASTEST_ASKED)));
        figures.push(Figure::of(name("of which opened a flow"), "%", opened, None));
        let survivors = name(&format!("lost of {FLOWS} established flows"));
        figures.push(Figure::of(survivors, "flows", lost, Target::Never));
    }
    Ok(figures)
}
