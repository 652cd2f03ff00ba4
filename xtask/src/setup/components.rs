//! Rust's own tools.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::on_path;
use crate::project;

/// Adds `components` with rustup where they are missing.
pub(super) fn ensure(components: &[&str]) -> Result<()> {
    for component in components {
        if works(component) {
            continue;
        }
        if !on_path("rustup") {
            bail!(
                "{component} is missing and there is no rustup to add it: install the package of your distribution that has it"
            );
        }
        println!("adding {component} with rustup");
        let status = Command::new("rustup")
            .args(["component", "add", component])
            .current_dir(project::root())
            .status();
        if !status.context("cannot run rustup")?.success() {
            bail!("`rustup component add {component}` failed");
        }
    }
    Ok(())
}

fn works(component: &str) -> bool {
    let verb = if component == "rustfmt" { "fmt" } else { component };
    let mut command = project::cargo();
    command.args([verb, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
