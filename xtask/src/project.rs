//! Where things are, and cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The root of the source tree.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo at the root of the tree.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds the binaries of `packages` and returns the directory they are in.
pub(crate) fn build(packages: &[&str]) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--locked", "--quiet", "--bins"]);
    for package in packages {
        command.args(["--package", package]);
    }
    if !command.status().context("cannot run cargo")?.success() {
        bail!("the build failed; its messages are above");
    }
    // This program was built into the same directory.
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(own.parent().context("this program is nowhere")?.to_owned())
}

/// Fails unless this process is root.
pub(crate) fn require_root(verb: &str) -> Result<()> {
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return Ok(());
    }
    bail!(
        "`cargo xtask {verb}` makes network namespaces and loads eBPF programs, which needs root: run it in a root shell"
    )
}
