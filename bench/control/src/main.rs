//! `cargo xtask bench control`: the real control process with a large account, a fleet of gateways on streams of their own,
//! and operators on its REST API.
//!
//! What is timed runs as a site runs it: `sluicegate-control serve` over its SQLite file, mutual TLS, gRPC, HTTP. Control,
//! fleet and operators share the machine, so a figure with a thousand gateways includes what the thousand cost.

mod account;
mod changes;
mod control;
mod figure;
mod fleet;
mod follow;
mod load;
mod offline;
mod operator;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::account::{Account, Shape};
use crate::control::Control;
use crate::figure::Figure;
use crate::fleet::Fleet;
use crate::operator::Operator;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures the control service with a large account and simulated gateways.
#[derive(Parser)]
struct Args {
    /// Peers beside the gateways
    #[arg(long, default_value_t = 10_000)]
    peers: usize,
    /// Groups, each peer in five and each resource in two of them
    #[arg(long, default_value_t = 1_000)]
    groups: usize,
    /// Policies, each of one group to one group
    #[arg(long, default_value_t = 5_000)]
    policies: usize,
    /// Resources, dealt out to the gateways
    #[arg(long, default_value_t = 2_000)]
    resources: usize,
    /// Gateways, each the router of a network of its own: one run with each number
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    gateways: Vec<usize>,
    /// Changes of each kind; 100, or 10 with --quick
    #[arg(long)]
    changes: Option<usize>,
    /// A tenth of everything and fewer rounds: a look, not a result
    #[arg(long)]
    quick: bool,
    /// How to print the figures
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
    /// Write every sample of every figure to this file, as JSON
    #[arg(long)]
    raw: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    /// Changes of each kind.
    changes: usize,
    /// Compilations of the whole account.
    compilations: usize,
    /// How long operators work at the same time.
    load: Duration,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    // Two TLS libraries could be linked in; fails only when it has been decided already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut effort = if args.quick {
        Effort { changes: 10, compilations: 3, load: Duration::from_secs(3) }
    } else {
        Effort { changes: 100, compilations: 5, load: Duration::from_secs(20) }
    };
    effort.changes = args.changes.unwrap_or(effort.changes);
    let mut figures = Vec::new();
    for gateways in &args.gateways {
        let part = if args.quick { 10 } else { 1 };
        let shape = Shape {
            peers: args.peers / part,
            groups: args.groups / part,
            policies: args.policies / part,
            resources: args.resources / part,
            gateways: (gateways / part).max(1),
        };
        figures.extend(run(shape, effort).await.with_context(|| format!("with {gateways} gateways"))?);
    }
    if let Some(file) = &args.raw {
        let raw = serde_json::to_string(&figures)?;
        std::fs::write(file, raw).with_context(|| format!("cannot write {}", file.display()))?;
    }
    match args.output {
        Output::Table => println!("{}", figure::table(&figures)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&Report { figures: &figures })?),
    }
    Ok(())
}

/// Everything a run has measured.
#[derive(Serialize)]
struct Report<'a> {
    figures: &'a [Figure],
}

/// One account, from an empty directory to a control process that was killed under its fleet.
async fn run(shape: Shape, effort: Effort) -> Result<Vec<Figure>> {
    let directory = tempfile::tempdir()?;
    let begun = Instant::now();
    let account = Account::fill(directory.path(), shape, &progress).await?;
    progress(&format!("the account was written in {:.1?}", begun.elapsed()));

    let mut figures = offline::compile(directory.path(), &account, effort.compilations).await?;

    progress("one change at a time");
    figures.extend(follow::changes(directory.path(), &account, effort.changes).await?);

    progress("starting control");
    let mut control = Control::start(directory.path()).await?;
    let operator = Operator::new(&control);
    operator.ready().await?;
    let fleet = Fleet::start(&account, control.agents(), directory.path());
    let connected = fleet.all_served(control.started()).await?;
    progress(&format!("every gateway had its image {connected:.1?} after the start"));
    figures.push(Figure::milliseconds(
        "cold start: process start to every gateway's image",
        &shape,
        &[connected],
    ));

    fleet.forget();
    figures.extend(changes::measure(&account, &operator, &fleet, effort.changes, &progress).await?);
    figures.push(Figure::megabytes("resident memory, every gateway connected", &shape, control.resident()?));
    progress("operators at work");
    figures.extend(load::measure(&account, &operator, effort.load).await?);
    figures.push(Figure::megabytes("resident memory, highest", &shape, control.highest()?));

    progress("killing control under its fleet");
    fleet.forget();
    control.kill()?;
    control.restart().await?;
    let back = fleet.all_served(control.started()).await?;
    figures.push(Figure::milliseconds(
        "control killed and started: process start to every gateway on a stream again",
        &shape,
        &[back],
    ));
    Ok(figures)
}

/// What goes on, where somebody looks.
fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{what}");
    }
}
