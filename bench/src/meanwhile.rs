//! What must not be seen by packets: images exchanged, and the agent's end of the datapath gone and taken over.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sluicegate_gateway::datapath::{Datapath as _, XdpChoice};
use sluicegate_lab::Lab;

use crate::Effort;
use crate::account::{self, FEW};
use crate::contestant::{self, Contestant, Load, Room, Way};
use crate::figure::{Figure, NANOSECONDS, Target};
use crate::traffic::Family;

/// Policies of the images that are exchanged.
const POLICIES: u32 = 100_000;
/// Flows that are established of each family.
const FLOWS: u32 = 256;
/// Packets at a time: between two bursts there are tens of milliseconds without any.
const BURST: u32 = 1_000_000;
/// Nanoseconds of a packet at 1 Mpps.
const MILLION_A_SECOND: f64 = 1_000.0;
/// How long nobody holds the datapath.
const AWAY: Duration = Duration::from_millis(200);

/// Measures both.
pub(crate) fn measure(lab: &Lab, effort: &Effort) -> Result<Vec<Figure>> {
    let mut figures = exchanges(lab, effort.exchanges)?;
    figures.extend(takeovers(lab, effort.rounds)?);
    Ok(figures)
}

fn exchanges(lab: &Lab, count: u32) -> Result<Vec<Figure>> {
    eprintln!("bench: {count} exchanges of an image of {POLICIES} policies");
    let mut ours = established(lab, "exchange", POLICIES)?;
    // One policy less is another image, and has room where the first has.
    let images = [account::image(POLICIES - 1)?, account::image(POLICIES)?];
    let load = ours.carry_while(FLOWS, BURST, |datapath, gateway| {
        let datapath = datapath.as_mut().context("there is no datapath")?;
        for (number, image) in (0..count).zip(images.iter().cycle()) {
            gateway
                .enter(|| datapath.apply(u64::from(number) + 2, image))
                .and_then(|applied| Ok(applied?))?;
        }
        Ok(())
    })?;
    Ok(figures(&load, &format!("during {count} exchanges of an image of {POLICIES} policies")))
}

fn takeovers(lab: &Lab, count: u32) -> Result<Vec<Figure>> {
    eprintln!("bench: {count} takeovers under load");
    let name = "takeover";
    let mut ours = established(lab, name, FEW)?;
    let image = account::image(FEW)?;
    let settings = contestant::settings(lab, name, XdpChoice::Native, &Room::default(), &image)?;
    let load = ours.carry_while(FLOWS, BURST, |datapath, gateway| {
        for number in 0..count {
            // Nothing is put back in order: what is pinned goes on, as when the process is killed.
            drop(datapath.take());
            std::thread::sleep(AWAY);
            *datapath = Some(contestant::open(&settings, gateway, &image, u64::from(number) + 2)?);
        }
        Ok(())
    })?;
    Ok(figures(&load, &format!("while nobody holds the datapath and it is taken over, {count} times")))
}

fn established(lab: &Lab, name: &str, policies: u32) -> Result<Contestant> {
    let mut ours = Contestant::new(lab, name, &Way::OursXdp(policies), FEW)?;
    for family in Family::BOTH {
        ours.establish(family, FLOWS)?;
    }
    Ok(ours)
}

fn figures(load: &Load, when: &str) -> Vec<Figure> {
    let name = |what: &str| format!("XDP, {what} {when}");
    let none = |what: &str, unit, count: u64| Figure::of(name(what), unit, vec![count as f64], Target::Never);
    let in_front = vec![load.in_front() as f64];
    vec![
        Figure::of(
            name("every packet, by the clock"),
            NANOSECONDS,
            vec![load.nanoseconds()],
            Target::AtMost(MILLION_A_SECOND),
        ),
        none(&format!("lost of {} packets of established flows", load.sent), "packets", load.lost()),
        none("established flows that were lost and opened anew", "flows", load.gateway.opened),
        none(&format!("passed of {} denied packets", load.denied), "packets", load.passed),
        Figure::of(name("that the sender lost in front of the gateway"), "packets", in_front, None),
    ]
}
