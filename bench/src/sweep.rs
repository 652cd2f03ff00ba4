//! Curves: what an established packet costs as one thing grows.

use anyhow::Result;
use sluicegate_lab::Lab;

use crate::Effort;
use crate::account::{self, FEW};
use crate::contestant::{Contestant, Room, Way};
use crate::plot::Chart;
use crate::traffic::{Family, SMALLEST};

/// Measures every curve. A curve's points are best rounds, in nanoseconds per packet of the whole path.
pub(crate) fn measure(lab: &Lab, effort: &Effort) -> Result<Vec<Chart>> {
    Ok(vec![flows(lab, effort)?, sizes(lab, effort)?, rules(lab, effort)?])
}

/// The least of `effort.rounds` rounds.
fn best(effort: &Effort, mut round: impl FnMut() -> Result<f64>) -> Result<f64> {
    (0..effort.rounds).try_fold(f64::INFINITY, |best, _| Ok(best.min(round()?)))
}

/// From one flow to a million; the rivals as far as the host's connection table goes.
fn flows(lab: &Lab, effort: &Effort) -> Result<Chart> {
    const RIVAL_MAX: u32 = 32_768;
    let mut chart = Chart::new("flows", "Established packet against number of flows", "flows");
    // Two half-entries a flow, for every point of the curve at once.
    let room = Room { flow_entries: 2_700_000, ..Room::default() };
    // One gateway address has 12,768 masquerade ports towards each.
    const HOSTS: u32 = 256;
    let mut field = [
        ("XDP", Contestant::with_room(lab, "flows-xdp", &Way::OursXdp(HOSTS), HOSTS, &room)?, u32::MAX),
        ("TC", Contestant::with_room(lab, "flows-tc", &Way::Ours(HOSTS), HOSTS, &room)?, u32::MAX),
        (
            "nftables sets",
            Contestant::new(lab, "flows-nft", &Way::Nftables(account::expert_ruleset(HOSTS)), HOSTS)?,
            RIVAL_MAX,
        ),
    ];
    for family in Family::BOTH {
        for flows in [1, 16, 256, 4_096, 32_768, 262_144, 1_000_000] {
            eprintln!("bench: curve, {flows} flows, {}", family.name());
            for (name, contestant, most) in &mut field {
                if flows <= *most {
                    contestant.establish(family, flows)?;
                    let cost = best(effort, || contestant.established(family, flows, effort.packets))?;
                    chart.add(&format!("{name}, {}", family.name()), f64::from(flows), cost);
                }
            }
        }
    }
    Ok(chart)
}

/// From the smallest frame to the largest of an Ethernet.
fn sizes(lab: &Lab, effort: &Effort) -> Result<Chart> {
    const FLOWS: u32 = 256;
    let mut chart = Chart::new("sizes", "Established packet against its size", "bytes of payload");
    let mut field = [
        ("XDP", Contestant::new(lab, "size-xdp", &Way::OursXdp(FEW), FEW)?),
        ("TC", Contestant::new(lab, "size-tc", &Way::Ours(FEW), FEW)?),
        (
            "nftables sets",
            Contestant::new(lab, "size-nft", &Way::Nftables(account::expert_ruleset(FEW)), FEW)?,
        ),
        ("plain forwarding", Contestant::new(lab, "size-plain", &Way::Plain, FEW)?),
    ];
    for family in Family::BOTH {
        for payload in [SMALLEST, 256, 512, 1024, 1360] {
            eprintln!("bench: curve, {payload} bytes of payload, {}", family.name());
            for (name, contestant) in &mut field {
                contestant.set_payload(payload);
                contestant.establish(family, FLOWS)?;
                let cost = best(effort, || contestant.established(family, FLOWS, effort.packets))?;
                chart.add(&format!("{name}, {}", family.name()), f64::from(payload), cost);
            }
        }
    }
    Ok(chart)
}

/// From 10 policies to 100,000; the rivals as far as patience goes.
fn rules(lab: &Lab, effort: &Effort) -> Result<Chart> {
    const FLOWS: u32 = 256;
    let mut chart =
        Chart::new("rules", "Established, first and denied packet against number of policies", "policies");
    for policies in [10, 100, 1_000, 10_000, 100_000] {
        let mut field = vec![
            ("XDP", Contestant::new(lab, &format!("rules-xdp-{policies}"), &Way::OursXdp(policies), FEW)?, 1),
            ("TC", Contestant::new(lab, &format!("rules-tc-{policies}"), &Way::Ours(policies), FEW)?, 1),
        ];
        if policies <= 1_000 {
            let way = Way::Nftables(account::netbird_ruleset(policies));
            let name = format!("rules-nb-{policies}");
            field.push(("NetBird's ruleset", Contestant::new(lab, &name, &way, FEW)?, policies / 25 + 1));
        }
        for (name, contestant, fewer) in &mut field {
            eprintln!("bench: curve, {policies} policies, {name}");
            let packets = effort.packets / *fewer;
            contestant.establish(Family::V4, FLOWS)?;
            let established = best(effort, || contestant.established(Family::V4, FLOWS, packets))?;
            chart.add(&format!("{name}, established"), f64::from(policies), established);
            let first = best(effort, || contestant.first(Family::V4, packets / 16))?;
            chart.add(&format!("{name}, first"), f64::from(policies), first);
            let denied = best(effort, || contestant.denied(Family::V4, packets))?;
            chart.add(&format!("{name}, denied"), f64::from(policies), denied);
        }
    }
    Ok(chart)
}
