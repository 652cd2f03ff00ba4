//! `cargo xtask bench`: our datapath against nftables and plain forwarding, interleaved in one run.
//!
//! Every contestant has namespaces of its own with the same devices, routes and traffic; every round lets each carry the
//! same packets in turn. Nanoseconds are of the whole path on one processor and include about 170 of making the packet.

mod account;
mod change;
mod classifier;
mod comparison;
mod contestant;
mod elsewhere;
mod figure;
mod flood;
mod images;
mod meanwhile;
mod plot;
mod ports;
mod processors;
mod programs;
mod size;
mod sweep;
mod traffic;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use sluicegate_lab::Lab;
use sluicegate_model::classbench::Kind;

use crate::elsewhere::{ELSEWHERE, Elsewhere};
use crate::figure::Figure;
use crate::plot::Chart;

/// Measures the gateway's datapath against nftables and plain kernel forwarding. Needs root.
#[derive(Parser)]
struct Args {
    /// Fewer and shorter rounds: a look, not a result
    #[arg(long)]
    quick: bool,
    /// Measure first packets alone
    #[arg(long)]
    first: bool,
    /// Measure openings that find no port alone
    #[arg(long, conflicts_with = "first")]
    ports: bool,
    /// Measure the flood of openings alone
    #[arg(long, conflicts_with_all = ["first", "ports"])]
    flood: bool,
    /// How to print the figures
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Write every round of every figure to this file, as JSON
    #[arg(long)]
    raw: Option<PathBuf>,
    /// Measure the curves too (flows, packet sizes, policies) and draw them into this directory, as SVG
    #[arg(long)]
    plots: Option<PathBuf>,
}

/// Everything a run has measured.
#[derive(Serialize)]
struct Report<'a> {
    figures: &'a [Figure],
    charts: &'a [Chart],
    elsewhere: &'static [Elsewhere],
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
    /// Images that are exchanged under load.
    exchanges: u32,
    /// Rules that are changed in turn.
    changed: usize,
    /// Rule sets that the classifier is measured with.
    kinds: &'static [Kind],
}

fn main() -> Result<()> {
    let args = Args::parse();
    let effort = if args.quick {
        Effort {
            rounds: 5,
            packets: 60_000,
            samples: 512,
            flows: &[256],
            exchanges: 20,
            changed: 1,
            kinds: &[Kind::Acl],
        }
    } else {
        Effort {
            rounds: 11,
            packets: 80_000,
            samples: 1024,
            flows: &[256, 4_096, 32_768],
            exchanges: 1_000,
            changed: 3,
            kinds: &Kind::ALL,
        }
    };
    processors::one()?;
    let figures = match (args.first, args.ports, args.flood) {
        (true, ..) => in_lab(|lab| comparison::first(lab, &effort))?,
        (_, true, _) => in_lab(|lab| ports::measure(lab, &effort))?,
        (.., true) => in_lab(|lab| flood::measure(lab, &effort))?,
        _ => whole(&effort)?,
    };
    let charts = match &args.plots {
        Some(_) => in_lab(|lab| sweep::measure(lab, &effort))?,
        None => Vec::new(),
    };
    if let Some(dir) = &args.plots {
        charts.iter().try_for_each(|chart| chart.draw(dir))?;
    }
    let report = Report { figures: &figures, charts: &charts, elsewhere: &ELSEWHERE };
    if let Some(file) = &args.raw {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("{} could not be written", file.display()))?;
    }
    match args.output {
        Output::Table => println!("{}", table(&figures)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}

/// Every figure, each kind in a lab of its own.
fn whole(effort: &Effort) -> Result<Vec<Figure>> {
    let mut figures = in_lab(|lab| comparison::measure(lab, effort))?;
    figures.extend(in_lab(|lab| ports::measure(lab, effort))?);
    figures.extend(in_lab(|lab| flood::measure(lab, effort))?);
    figures.extend(in_lab(|lab| meanwhile::measure(lab, effort))?);
    figures.extend(in_lab(size::measure)?);
    figures.extend(images::measure(effort)?);
    figures.extend(classifier::measure(effort)?);
    Ok(figures)
}

fn in_lab<T>(measure: impl FnOnce(&Lab) -> Result<T>) -> Result<T> {
    let lab = Lab::new()?;
    let measured = measure(&lab)?;
    lab.close()?;
    Ok(measured)
}

/// A Markdown table, as `bench/RESULTS.md` takes it.
fn table(figures: &[Figure]) -> String {
    let mut table = String::from(
        "| figure | unit | ours, best / median | rival, best / median | rival | ratio | target | met |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for f in figures {
        let rival = f.rival.zip(f.rival_median);
        table += &format!(
            "| {} | {} | {} / {} | {} | {} | {} | {} | {} |\n",
            f.name,
            f.unit,
            number(f.ours),
            number(f.ours_median),
            rival.map_or(String::new(), |(best, median)| format!("{} / {}", number(best), number(median))),
            f.against.as_deref().unwrap_or_default(),
            f.ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            f.target.as_deref().unwrap_or_default(),
            f.met.map_or("", |met| if met { "yes" } else { "no" }),
        );
    }
    for Elsewhere { figure, target, command } in ELSEWHERE {
        table += &format!("| {figure} | | | | | | {target} | `{command}` |\n");
    }
    table
}

/// Three digits, where there are as many to be told.
fn number(value: f64) -> String {
    match value {
        value if value.fract() == 0.0 || value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
