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
    let mut steps = vec![
        Step { name: "kernels", command: verb("vm") },
        Step { name: "long differential test", command: differential },
    ];
    if !args.no_bench {
        steps.push(Step { name: "benchmarks", command: verb("bench") });
    }
    perform_all(steps)
}
