//! `cargo xtask bench`: the datapath; `cargo xtask bench control`: the control service.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{project, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// `control` for the control service, nothing for the datapath; then arguments of that bench program, of which `--help`
    /// lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match args.args.split_first() {
        Some((what, rest)) if what == "control" => {
            // The process that is measured; the bench program starts it from beside itself.
            if !build("sluicegate-control")? {
                bail!("the control service does not build");
            }
            bench("sluicegate-bench-control", rest)
        }
        _ => {
            project::require_root("bench")?;
            setup::run(setup::Voice::OnlyChanges)?;
            bench("sluicegate-bench", &args.args)
        }
    }
}

fn build(package: &str) -> Result<bool> {
    let mut command = project::cargo();
    command.args(["build", "--quiet", "--locked", "--release", "--package", package]);
    Ok(command.status().context("cannot run cargo")?.success())
}

fn bench(package: &str, args: &[OsString]) -> Result<ExitCode> {
    let mut command = project::cargo();
    command.args(["run", "--quiet", "--locked", "--release", "--package", package, "--"]).args(args);
    let status = command.status().context("cannot run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
