//! `cargo xtask nightly`: what takes too long to run with every change.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::test::{CASES, Step, perform_all};
use crate::{project, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Packets of the long differential test
    #[arg(long, default_value_t = 2_000_000, value_name = "N")]
    cases: u64,
    /// Leave out the benchmarks
    #[arg(long)]
    no_bench: bool,
}

/// How often `gateway/tests/reliability/exchanges.rs` changes what is enforced: whole images, small changes, devices lost and found.
const EXCHANGES: [(&str, &str); 3] =
    [("SLUICEGATE_EXCHANGES", "1000"), ("SLUICEGATE_DELTAS", "10000"), ("SLUICEGATE_SIGHTS", "1000")];
/// How often `kills.rs` and `agents.rs` beside it kill, and how many flows `floods.rs` establishes and packets it floods them with.
const KILLS_AND_FLOODS: [(&str, &str); 3] =
    [("SLUICEGATE_KILLS", "100"), ("SLUICEGATE_FLOWS", "10000"), ("SLUICEGATE_FLOOD", "100000")];
/// Behind how many of an agent's changes `steps.rs` beside them kills it: more than there are, so every one.
const STEPS: [(&str, &str); 1] = [("SLUICEGATE_STEPS", "1000")];
/// How often `control/tests/store/kills.rs` kills a control in the middle of writes, over each database.
const CONTROL_KILLS: (&str, &str) = ("SLUICEGATE_KILLS", "200");

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    project::require_root("nightly")?;
    setup::run(setup::Voice::OnlyChanges)?;
    let own = std::env::current_exe()?;
    let verb = |name: &str| {
        let mut command = Command::new(&own);
        command.arg(name);
        command
    };
    let mut differential = project::cargo();
    differential.args(["test", "--locked", "--package", "sluicegate-gateway", "--test", "differential"]);
    differential.env(CASES, args.cases.to_string());
    let reliability = |modules: &[&str], envs: &[(&str, &str)]| {
        let mut command = project::cargo();
        command.args(["test", "--locked", "--package", "sluicegate-gateway", "--test", "reliability"]);
        command.args(["--", "--show-output"]).args(modules).envs(envs.iter().copied());
        command
    };
    let mut control = project::cargo();
    control.args(["test", "--locked", "--package", "sluicegate-control", "--test", "store"]);
    control.args(["--", "--show-output", "kills::"]).env(CONTROL_KILLS.0, CONTROL_KILLS.1);
    let mut steps = vec![
        Step { name: "kernels", command: verb("vm") },
        Step { name: "long differential test", command: differential },
        Step { name: "exchanges under traffic", command: reliability(&["exchanges::"], &EXCHANGES) },
        Step {
            name: "kills and floods",
            command: reliability(&["kills::", "agents::", "floods::"], &KILLS_AND_FLOODS),
        },
        Step { name: "kills at every step", command: reliability(&["steps::"], &STEPS) },
        Step { name: "kills of control", command: control },
    ];
    if !args.no_bench {
        steps.push(Step { name: "benchmarks", command: verb("bench") });
    }
    perform_all(steps)
}
