//! `cargo xtask bench`: our datapath against nftables and plain forwarding, interleaved in one run.
//!
//! Every contestant has namespaces of its own with the same devices, routes and traffic; every round lets each carry the
//! same packets in turn. Nanoseconds are of the whole path on one processor and include about 170 of making the packet.

mod account;
mod contestant;
mod figure;
mod programs;
mod traffic;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use sluicegate_lab::Lab;

use crate::account::{FEW, MANY};
use crate::contestant::{Contestant, Way};
use crate::figure::{Figure, Target};
use crate::traffic::Family;

/// Measures the gateway's datapath against nftables and plain kernel forwarding. Needs root.
#[derive(Parser)]
struct Args {
    /// Fewer and shorter rounds: a look, not a result
    #[arg(long)]
    quick: bool,
    /// How to print the figures
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Write every round of every figure to this file, as JSON
    #[arg(long)]
    raw: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// How much is measured.
struct Effort {
    rounds: u32,
    packets: u32,
    samples: u32,
    flows: &'static [u32],
}

fn main() -> Result<()> {
    let args = Args::parse();
    let effort = if args.quick {
        Effort { rounds: 5, packets: 60_000, samples: 512, flows: &[256] }
    } else {
        Effort { rounds: 11, packets: 80_000, samples: 1024, flows: &[256, 4_096, 32_768] }
    };
    pin_to_one_processor()?;
    let lab = Lab::new()?;
    let figures = measure(&lab, &effort)?;
    lab.close()?;
    if let Some(file) = &args.raw {
        std::fs::write(file, serde_json::to_vec_pretty(&figures)?)
            .with_context(|| format!("{} could not be written", file.display()))?;
    }
    match args.output {
        Output::Table => println!("{}", table(&figures)),
        Output::Json => {
            #[derive(Serialize)]
            struct Report<'a> {
                figures: &'a [Figure],
            }
            println!("{}", serde_json::to_string_pretty(&Report { figures: &figures })?);
        }
    }
    Ok(())
}

/// Generator, gateway and receiver share one processor: the sum is stable, and is what one core carries.
fn pin_to_one_processor() -> Result<()> {
    // SAFETY: a zeroed set, filled by the macros' functions; the call reads it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let last = libc::sysconf(libc::_SC_NPROCESSORS_ONLN).max(1) as usize - 1;
        libc::CPU_SET(last, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error()).context("cannot stay on one processor")
    }
}

fn measure(lab: &Lab, effort: &Effort) -> Result<Vec<Figure>> {
    eprintln!("bench: building contestants");
    let mut few = Contestant::new(lab, "ours-few", &Way::Ours(FEW), FEW)?;
    let mut many = Contestant::new(lab, "ours-many", &Way::Ours(MANY), MANY)?;
    let mut huge = Contestant::new(lab, "ours-huge", &Way::Ours(10_000), FEW)?;
    let mut netbird_few = contestant(lab, "nb-few", account::netbird_ruleset(FEW), FEW)?;
    let mut netbird_many = contestant(lab, "nb-many", account::netbird_ruleset(MANY), MANY)?;
    let mut expert = contestant(lab, "nft", account::expert_ruleset(FEW), FEW)?;
    let mut plain = Contestant::new(lab, "plain", &Way::Plain, FEW)?;
    let mut figures = Vec::new();

    for family in Family::BOTH {
        figures.extend(single_runs(&mut few, family, effort)?);
        for &flows in effort.flows {
            eprintln!("bench: established, {flows} flows, {}", family.name());
            for c in
                [&mut few, &mut many, &mut huge, &mut netbird_few, &mut netbird_many, &mut expert, &mut plain]
            {
                c.establish(family, flows)?;
            }
            let mut rounds: [Vec<f64>; 7] = Default::default();
            for _ in 0..effort.rounds {
                let all = [
                    &mut few,
                    &mut many,
                    &mut huge,
                    &mut netbird_few,
                    &mut netbird_many,
                    &mut expert,
                    &mut plain,
                ];
                for (i, c) in all.into_iter().enumerate() {
                    // A thousand linear rules take 0.2 ms a packet: fewer packets say the same.
                    let count = if i == 4 { effort.packets / 40 } else { effort.packets };
                    rounds[i].push(c.established(family, flows, count)?);
                }
            }
            let [ours, ours_many, ours_huge, nb_few, nb_many, sets, bare] = rounds;
            let what = |rest: &str| format!("TC, established, {flows} flows, {}, {rest}", family.name());
            let conntrack = match flows {
                256 => 1.7,
                4_096 => 1.5,
                _ => 1.35,
            };
            figures.extend([
                Figure::against(
                    what("ACL and masquerade"),
                    ours.clone(),
                    "nftables sets, conntrack, masquerade",
                    sets,
                    Some(Target(conntrack)),
                ),
                Figure::against(
                    what("10 resources"),
                    ours.clone(),
                    "NetBird's ruleset",
                    nb_few,
                    (flows == 256).then_some(Target(3.8)),
                ),
                Figure::against(
                    what("1,000 resources"),
                    ours_many,
                    "NetBird's ruleset",
                    nb_many,
                    (flows == 256).then_some(Target(200.0)),
                ),
                Figure::against(
                    what("ACL and masquerade"),
                    ours.clone(),
                    "plain forwarding, no firewall",
                    bare,
                    (flows == 256).then_some(Target(1.0)),
                ),
                // The ratio of 10 policies to 10,000: 1 / 1.03 is what DESIGN allows.
                Figure::against(
                    what("10,000 policies"),
                    ours_huge,
                    "ours with 10 policies",
                    ours,
                    Some(Target(1.0 / 1.03)),
                ),
            ]);
        }
        figures.extend(first_and_denied([&mut few, &mut expert, &mut netbird_many], family, effort)?);
    }
    Ok(figures)
}

fn contestant(lab: &Lab, name: &str, rules: String, resources: u32) -> Result<Contestant> {
    Contestant::new(lab, name, &Way::Nftables(rules), resources)
}

fn single_runs(ours: &mut Contestant, family: Family, effort: &Effort) -> Result<Vec<Figure>> {
    eprintln!("bench: single program runs, {}", family.name());
    ours.establish(family, account::PEERS)?;
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for round in 0..effort.rounds {
        let costs = programs::round(ours, family, effort.samples, round)?;
        for (rounds, cost) in rounds.iter_mut().zip([costs.established, costs.first, costs.denied]) {
            rounds.push(cost);
        }
    }
    let [established, first, denied] = rounds;
    let name = |kind: &str| format!("program overlay_in_l2 alone, {kind} packet, {}", family.name());
    Ok(vec![
        Figure::alone(name("established"), established),
        Figure::alone(name("first"), first),
        Figure::alone(name("denied"), denied),
    ])
}

fn first_and_denied(
    contestants: [&mut Contestant; 3],
    family: Family,
    effort: &Effort,
) -> Result<Vec<Figure>> {
    eprintln!("bench: first and denied packets, {}", family.name());
    // Every first packet stays in the rival's connection table for half a minute, and its size is the host's.
    let new = effort.packets / 16;
    let [ours, expert, netbird] = contestants;
    let mut rounds: [Vec<f64>; 4] = Default::default();
    for _ in 0..effort.rounds {
        rounds[0].push(ours.first(family, new)?);
        rounds[1].push(expert.first(family, new)?);
        rounds[2].push(ours.denied(family, effort.packets)?);
        rounds[3].push(netbird.denied(family, effort.packets / 40)?);
    }
    let [first, first_rival, denied, denied_rival] = rounds;
    let name = |kind: &str| format!("TC, {kind}, {}", family.name());
    Ok(vec![
        Figure::against(
            name("first packets, never seen tuples"),
            first,
            "nftables sets, conntrack, masquerade",
            first_rival,
            Some(Target(2.5)),
        ),
        Figure::against(
            name("denied packets"),
            denied,
            "NetBird's ruleset, 1,000 resources",
            denied_rival,
            None,
        ),
    ])
}

/// A Markdown table, as `bench/RESULTS.md` takes it.
fn table(figures: &[Figure]) -> String {
    let mut table = String::from(
        "| figure | ours ns, best / median | rival ns, best / median | rival | ratio | target | met |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for f in figures {
        let rival = f
            .rival
            .zip(f.rival_median)
            .map_or(String::new(), |(best, median)| format!("{best:.0} / {median:.0}"));
        table += &format!(
            "| {} | {:.0} / {:.0} | {rival} | {} | {} | {} | {} |\n",
            f.name,
            f.ours,
            f.ours_median,
            f.against.as_deref().unwrap_or_default(),
            f.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            f.target.as_deref().unwrap_or_default(),
            f.met.map_or("", |met| if met { "yes" } else { "no" }),
        );
    }
    table
}
