//! `cargo xtask bench`: our datapath against nftables and plain forwarding, interleaved in one run.
//!
//! Every contestant has namespaces of its own with the same devices, routes and traffic; every round lets each carry the
//! same packets in turn. Nanoseconds are of the whole path on one processor and include about 170 of making the packet.

mod account;
mod comparison;
mod contestant;
mod figure;
mod plot;
mod programs;
mod sweep;
mod traffic;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use sluicegate_lab::Lab;

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
    let figures =
        if args.first { comparison::first(&lab, &effort)? } else { comparison::measure(&lab, &effort)? };
    lab.close()?;
    let charts = match &args.plots {
        Some(_) => {
            let lab = Lab::new()?;
            let charts = sweep::measure(&lab, &effort)?;
            lab.close()?;
            charts
        }
        None => Vec::new(),
    };
    if let Some(dir) = &args.plots {
        charts.iter().try_for_each(|chart| chart.draw(dir))?;
    }
    if let Some(file) = &args.raw {
        std::fs::write(file, serde_json::to_vec_pretty(&Report { figures: &figures, charts: &charts })?)
            .with_context(|| format!("{} could not be written", file.display()))?;
    }
    match args.output {
        Output::Table => println!("{}", table(&figures)),
        Output::Json => {
            println!("{}", serde_json::to_string_pretty(&Report { figures: &figures, charts: &charts })?);
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
