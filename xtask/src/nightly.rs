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
    let mut reliability = project::cargo();
    reliability.args(["test", "--locked", "--package", "sluicegate-gateway", "--test", "reliability"]);
    reliability.args(["--", "--show-output", "exchanges::"]);
    reliability.envs(EXCHANGES);
    let mut steps = vec![
        Step { name: "kernels", command: verb("vm") },
        Step { name: "long differential test", command: differential },
        Step { name: "exchanges under traffic", command: reliability },
    ];
    if !args.no_bench {
        steps.push(Step { name: "benchmarks", command: verb("bench") });
    }
    perform_all(steps)
}
