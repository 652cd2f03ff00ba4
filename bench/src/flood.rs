//! A flood of openings while flows are established.

use anyhow::{Context as _, Result};
use sluicegate_gateway::datapath::Datapath as _;
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
        let (mut costs, mut lost) = (Vec::new(), Vec::new());
        for round in 0..effort.rounds {
            costs.push(ours.openings(family, FLOWS + round * BURST, BURST)?.nanoseconds());
            let before = started(&mut ours)?;
            let missing = ours.missing(family, FLOWS)?;
            // One that was lost passes as well, and is a new one.
            lost.push((missing + (started(&mut ours)? - before)) as f64);
        }
        let flood = format!("XDP, flood of {} openings never seen before", effort.rounds * BURST);
        let name = |what: &str| format!("{flood}: {what}, {}", family.name());
        figures.push(Figure::of(name("each"), NANOSECONDS, costs, Target::AtMost(FASTEST_ASKED)));
        let survivors = name(&format!("lost of {FLOWS} established flows"));
        figures.push(Figure::of(survivors, "flows", lost, Target::Never));
    }
    Ok(figures)
}

fn started(ours: &mut Contestant) -> Result<u64> {
    let (datapath, _) = ours.datapath().context("there is no datapath")?;
    Ok(datapath.counters()?.flows_started)
}
