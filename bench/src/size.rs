//! What does not vary from round to round: memory, and instructions that the verifier walks.

use anyhow::{Context as _, Result};
use sluicegate_gateway::datapath::Datapath as _;
use sluicegate_lab::Lab;

use crate::account::FEW;
use crate::contestant::{Contestant, Room, Way};
use crate::figure::{Figure, Target};

/// IPv4 flows there is to be room for; each takes two entries.
const FLOWS: u32 = 262_144;

/// Measures one datapath, whose programs are those of an Ethernet overlay.
pub(crate) fn measure(lab: &Lab) -> Result<Vec<Figure>> {
    eprintln!("bench: sizes");
    let room = Room { flow_entries: 2 * FLOWS, ..Room::default() };
    let mut ours = Contestant::with_room(lab, "size", &Way::OursXdp(FEW), FEW, &room)?;
    let (datapath, _) = ours.datapath().context("there is no datapath")?;
    let tables = datapath.counters()?.tables;
    let megabytes = |stage: &str| {
        let ours = tables.iter().filter(|table| table.family == "ipv4" && table.stage == stage);
        ours.map(|table| table.bytes as f64).sum::<f64>() / 1e6
    };
    let (confirmed, half_open) = (megabytes("confirmed"), megabytes("half_open"));
    let mut figures = vec![Figure::of(
        format!(
            "memory of {FLOWS} IPv4 flows: {confirmed:.1} answered, {half_open:.1} of those that are not yet"
        ),
        "MB",
        vec![confirmed + half_open],
        Target::AtMost(80.0),
    )];
    let verified = datapath.verified_instructions()?;
    for (kind, xdp, most) in [("XDP", true, 60_000.0), ("TC", false, 80_000.0)] {
        let of_kind = verified.iter().filter(|(name, _)| name.ends_with("_xdp") == xdp);
        let (name, count) = of_kind.max_by_key(|(_, count)| **count).context("no program was counted")?;
        figures.push(Figure::of(
            format!("verified instructions of the longest {kind} program, {name}, on this kernel"),
            "instructions",
            vec![f64::from(*count)],
            Target::AtMost(most),
        ));
    }
    Ok(figures)
}
