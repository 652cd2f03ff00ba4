//! Masquerading without a free port: what a refused packet costs, and whether established flows notice.

use anyhow::{Result, ensure};
use sluicegate_lab::Lab;

use crate::Effort;
use crate::account::{FEW, PEERS};
use crate::contestant::{Contestant, Room, Way};
use crate::figure::{Figure, NANOSECONDS, Target};
use crate::traffic::Family;

/// Nanoseconds of a refused packet at the most, making it included.
const MOST: f64 = 3_000.0;
/// Established flows may differ by as much as two like programs do.
const NOISE: f64 = 0.9;
/// Ports there are towards each resource: twice what the established flows take.
const PORTS: u16 = 64;
/// Openings that take all of them.
const FILL: u32 = 20_000;

/// Measures both hooks and families.
pub(crate) fn measure(lab: &Lab, effort: &Effort) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (hook, way) in [("XDP", Way::OursXdp(FEW)), ("TC", Way::Ours(FEW))] {
        let room = Room { nat_ports: 20_000..=20_000 + PORTS - 1, ..Room::default() };
        let name = format!("ports-{}", hook.to_lowercase());
        let mut ours = Contestant::with_room(lab, &name, &way, FEW, &room)?;
        for family in Family::BOTH {
            eprintln!("bench: no free port, {hook}, {}", family.name());
            ours.establish(family, PEERS)?;
            let (mut before, mut refused, mut during) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..effort.rounds {
                before.push(ours.established(family, PEERS, effort.packets)?);
            }
            let mut next = PEERS;
            ours.openings(family, next, FILL)?;
            next += FILL;
            for _ in 0..effort.rounds {
                let burst = ours.openings(family, next, effort.packets)?;
                next += effort.packets;
                // A few of those that took the ports may have grown too old meanwhile.
                ensure!(
                    burst.seen * 100 <= u64::from(burst.sent),
                    "{} of {} openings found a port",
                    burst.seen,
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
