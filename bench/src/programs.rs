//! Single runs of the programs on single frames: what judging costs, without the path around it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sluicegate_engine::checksum;

use crate::account;
use crate::contestant::Contestant;
use crate::traffic::Family;

/// What TC answers for a packet that was redirected, and for one that was dropped.
const REDIRECT: u32 = 7;
const SHOT: u32 = 2;

/// Nanoseconds per packet of `overlay_in_l2`, less those of an empty program run the same way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    pub(crate) established: f64,
    pub(crate) first: f64,
    pub(crate) denied: f64,
}

/// One round: `samples` packets of each kind, every one of another flow, the median of each kind. `round` keeps first
/// packets of different rounds apart.
pub(crate) fn round(contestant: &mut Contestant, family: Family, samples: u32, round: u32) -> Result<Costs> {
    let (datapath, gateway) = contestant.datapath().context("only ours can be run on single frames")?;
    gateway.enter(|| -> Result<Costs> {
        let mut run = |program: &str, frame: &[u8], expected: Option<u32>| -> Result<f64> {
            let (answer, took): (u32, Duration) = datapath.run_once(program, frame)?;
            match expected {
                Some(expected) if answer != expected => {
                    bail!("program {program} answered {answer} and not {expected}")
                }
                _ => Ok(took.as_nanos() as f64),
            }
        };
        let mut kinds: [Vec<f64>; 4] = Default::default();
        for sample in 0..samples {
            let established = frame(family, sample % account::PEERS, 1024, sample, account::PORT);
            // The flows the contestant has established have source port 1024.
            kinds[0].push(run("overlay_in_l2", &established, Some(REDIRECT))?);
            let port = 2000 + (round * samples + sample) / account::PEERS % 60_000;
            let first = frame(family, sample % account::PEERS, port as u16, sample, account::PORT);
            kinds[1].push(run("overlay_in_l2", &first, Some(REDIRECT))?);
            let denied = frame(family, sample % account::PEERS, 1024, sample, account::DENIED_PORT);
            kinds[2].push(run("overlay_in_l2", &denied, Some(SHOT))?);
            kinds[3].push(run("clock", &established, None)?);
        }
        let [established, first, denied, empty] = kinds.map(median);
        Ok(Costs { established: established - empty, first: first - empty, denied: denied - empty })
    })?
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A UDP frame of the flow that the generator would send: the destination goes with the source, as there.
fn frame(family: Family, source: u32, source_port: u16, number: u32, port: u16) -> Vec<u8> {
    let _ = number;
    let mut frame = vec![0u8; 12];
    let (source, destination) = (account::peer(source), account::resource(source % account::FEW));
    let mut udp = [source_port.to_be_bytes(), port.to_be_bytes(), 26u16.to_be_bytes(), [0; 2]].concat();
    match family {
        Family::V4 => {
            frame.extend([0x08, 0x00]);
            let mut header = [0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0].to_vec();
            header.extend(source.0.octets());
            header.extend(destination.0.octets());
            let sum = checksum::of(&header, 0).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            frame.extend(header);
        }
        Family::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 26, 17, 64]);
            let addresses = [source.1.octets(), destination.1.octets()].concat();
            let sum = checksum::of(&[addresses.as_slice(), &udp].concat(), 17 + 26).to_be_bytes();
            udp[6..8].copy_from_slice(&sum);
            frame.extend(addresses);
        }
    }
    frame.extend(udp);
    frame.extend([0; 18]);
    frame
}
