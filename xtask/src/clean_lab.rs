//! `cargo xtask clean-lab`.

use std::process::ExitCode;

use anyhow::Result;
use sluicegate_lab::clean_dead_runs;

use crate::project;

pub(crate) fn run() -> Result<ExitCode> {
    project::require_root("clean-lab")?;
    let reaped = clean_dead_runs()?;
    for dead in &reaped {
        println!("removed lab {}: {} namespaces, {} processes", dead.run, dead.namespaces, dead.processes);
    }
    if reaped.is_empty() {
        println!("nothing was left behind");
    }
    Ok(ExitCode::SUCCESS)
}
