//! Programs in Python that the tests call, in an environment of the project's own: nothing of the system's is touched.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Tool, ensure, on_path};
use crate::project;

/// What is to be installed, with versions.
const REQUIREMENTS: &str = "xtask/python-requirements.txt";
/// A copy of what has been installed.
const INSTALLED: &str = "installed.txt";

const PYTHON: Tool =
    Tool { program: "python3", package: "python3", why: "runs the identity provider of the tests" };

/// Makes the environment what the requirements say.
pub(super) fn run() -> Result<()> {
    let (directory, requirements) = (directory(), project::root().join(REQUIREMENTS));
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    // Its programs name the directory they were installed in: in a tree that was moved or copied, they start nothing.
    let wanted = format!("{}\n{wanted}", directory.display());
    if fs::read_to_string(directory.join(INSTALLED)).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    if !on_path("python3") {
        ensure(&[PYTHON])?;
    }
    println!("installing the tests' Python programs into {}", directory.display());
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory).status();
    if !made.context("cannot run python3")?.success() {
        bail!("`python3 -m venv` failed: on Debian its package is python3-venv");
    }
    let mut pip = Command::new(directory.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]);
    if !pip.arg(&requirements).status().context("cannot run pip")?.success() {
        bail!("pip could not install what {REQUIREMENTS} names: it needs a package index");
    }
    fs::write(directory.join(INSTALLED), wanted).context("cannot note what was installed")?;
    Ok(())
}

/// Where the environment is; the tests look there.
fn directory() -> PathBuf {
    project::root().join("target/python")
}
