//! `cargo xtask bench`.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{project, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments of the bench program; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    project::require_root("bench")?;
    setup::run(setup::Voice::OnlyChanges)?;
    let mut command = project::cargo();
    command
        .args(["run", "--quiet", "--locked", "--release", "--package", "sluicegate-bench", "--"])
        .args(&args.args);
    let status = command.status().context("cannot run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
