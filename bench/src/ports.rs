//! Masquerading without a free port: what a refused packet costs, and whether established flows notice.

use anyhow::{Result, ensure};
use sluicegate_lab::Lab;

use crate::Effort;
use crate::account::{FEW, PEERS};
use crate::contestant::{Contestant, Way};
use crate::figure::{Figure, NANOSECONDS, Target};
use crate::traffic::Family;

/// Nanoseconds of a refused packet at the most, making it included.
const MOST: f64 = 3_000.0;
/// Established flows may differ by as much as two like programs do.
const NOISE: f64 = 0.9;
/// Flows that hold most of the 12,768 ports there are towards the only server, answered and gone on with: at random, so that no cache holds
/// what a search for a port meets.
const HOLDERS: u32 = 11_000;
/// Openings that take the rest.
const FILL: u32 = 200_000;
/// Unanswered ones grow old: so often are their ports taken anew.
const REFILL: u32 = 20_000;

/// Measures both hooks and families.
pub(crate) fn measure(lab: &Lab, effort: &Effort) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (hook, way) in [("XDP", Way::OursXdp(FEW)), ("TC", Way::Ours(FEW))] {
        let mut ours = Contestant::new(lab, &format!("ports-{}", hook.to_lowercase()), &way, 1)?;
        for family in Family::BOTH {
            eprintln!("bench: no free port, {hook}, {}", family.name());
            ours.establish(family, HOLDERS)?;
            let (mut before, mut refused, mut during) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..effort.rounds {
                before.push(ours.established(family, PEERS, effort.packets)?);
            }
            ours.openings(family, FILL)?;
            for _ in 0..effort.rounds {
                ours.openings(family, REFILL)?;
                let counted = ours.dropped("nat_exhausted")?;
                let burst = ours.openings(family, effort.packets)?;
                let counted = ours.dropped("nat_exhausted")? - counted;
                ensure!(
                    counted * 100 >= u64::from(burst.sent) * 97,
                    "{counted} of {} openings found no port",
                    burst.sent
                );
                refused.push(burst.nanoseconds());
                during.push(ours.established(family, PEERS, effort.packets)?);
            }
            let name = |what: &str| format!("{hook}, {what}, {}", family.name());
            figures.push(Figure::of(
                name("first packets without a free port"),
                NANOSECONDS,
                refused,
                Target::AtMost(MOST),
            ));
            figures.push(Figure::against(
                name("established, 256 flows, while there is no free port"),
                during,
                "the same before",
                before,
                Some(Target::Times(NOISE)),
            ));
        }
    }
    Ok(figures)
}
