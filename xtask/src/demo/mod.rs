//! `cargo xtask demo`: everything, in network namespaces, with real clients.
//!
//! | module | idea |
//! |---|---|
//! | [`topology`] | hosts, cables and addresses |
//! | [`control`] | the control service and its REST interface |
//! | [`agent`] | a gateway or peer: joined, started, killed, started again |
//! | [`world`] | all of these, up and in step |
//! | [`client`] | one question of a real client, and what came of it |
//! | [`lookup`] | a question for a name |
//! | [`access`], [`masquerade`], [`names`], [`revocation`], [`posture`], [`change`], [`rogue`], [`watch`], [`restart`], [`failover`] | what is shown |
//! | [`table`] | who, what, expected, seen, rule |
//! | [`stay`] | what there is to try afterwards |

mod access;
mod agent;
mod change;
mod client;
mod control;
mod failover;
mod lookup;
mod masquerade;
mod names;
mod posture;
mod restart;
mod revocation;
mod rogue;
mod stay;
mod stream;
mod table;
mod tamper;
mod topology;
mod watch;
mod world;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use sluicegate_lab::Lab;

use crate::{project, setup};
use table::Table;
use world::World;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave after the table instead of staying up
    #[arg(long)]
    once: bool,
    /// How the table is printed
    #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    output: Output,
    /// What judges packets in gateways and peers
    #[arg(long, value_enum, default_value_t = Datapath::Ebpf)]
    datapath: Datapath,
    /// Run the programs in this directory instead of building them: in a guest there is no compiler
    #[arg(long, value_name = "DIR", hide = true)]
    programs: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Columns for people.
    Table,
    /// One JSON document.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Datapath {
    /// XDP and TC programs in the kernel.
    Ebpf,
    /// The same engine in the agents' processes.
    Userspace,
}

impl Datapath {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Userspace => "userspace",
        }
    }
}

/// Packages whose programs the demo runs.
pub(crate) const PACKAGES: [&str; 4] =
    ["sluicegate-control", "sluicegate-gateway", "sluicegate-cli", "sluicegate-lab"];
/// Those programs.
pub(crate) const PROGRAMS: [&str; 4] = ["sluicegate-control", "sluicegate-gateway", "sluice", "lab-traffic"];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    project::require_root("demo")?;
    let binaries = match &args.programs {
        Some(dir) => dir.clone(),
        None => {
            setup::run(setup::Voice::OnlyChanges)?;
            say("building");
            project::build(&PACKAGES)?
        }
    };
    let lab = Lab::new()?;
    let mut table = Table::default();
    let shown = World::start(&lab, &binaries, args.datapath).and_then(|world| {
        show(&world, &mut table)?;
        Ok(world)
    });
    if shown.is_err() || !table.as_expected() {
        keep_logs(&lab, args.datapath);
    }
    match args.output {
        Output::Table => println!("{table}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&table.json(args.datapath.name()))?),
    }
    let world = shown?;
    let code = u8::from(!table.as_expected());
    if !args.once {
        stay::stay(&world, code)?;
    }
    lab.close()?;
    Ok(ExitCode::from(code))
}

/// Every part of the demo, in order; each leaves the world as it found it.
fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    say("nothing is allowed yet");
    access::before_any_policy(world, table)?;
    say("applying the policy file");
    world.apply_policies()?;
    say("who reaches what");
    access::under_the_policies(world, table)?;
    say("masquerade off and on");
    masquerade::show(world, table)?;
    say("a server that is known by its name");
    names::show(world, table)?;
    say("a policy switched off under a download");
    revocation::show(world, table)?;
    say("a process that has to run ends under a download");
    posture::show(world, table)?;
    say("policies changing under a transfer");
    change::show(world, table)?;
    say("what the gateway refuses by itself");
    rogue::show(world, table)?;
    say("what an operator sees on the gateway");
    watch::show(world, table)?;
    say("the gateway killed and restarted under traffic");
    // With carol still unguarded, so that the gate that must not open is the gateway's.
    restart::show(world, table)?;
    rogue::end(world)?;
    say("the first gateway gone");
    failover::show(world, table)
}

/// One line of progress. On standard error: standard output is the table's.
pub(crate) fn say(line: &str) {
    eprintln!("demo: {line}");
}

/// Copies the logs out of the lab, which is about to go.
fn keep_logs(lab: &Lab, datapath: Datapath) {
    let to: PathBuf = project::root().join("target/xtask").join(format!("demo-{}-logs", datapath.name()));
    // Those of an earlier run.
    let _ = fs::remove_dir_all(&to);
    let copied = fs::create_dir_all(to.parent().unwrap_or(&to))
        .and_then(|()| Command::new("cp").arg("-r").arg(lab.logs()).arg(&to).status())
        .context("cp");
    match copied {
        Ok(status) if status.success() => say(&format!("the logs are in {}", to.display())),
        _ => say(&format!("the logs could not be kept in {}", to.display())),
    }
}
