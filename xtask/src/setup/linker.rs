//! bpf-linker, built against the LLVM of the compiler.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use sluicegate_ebpf_toolchain::Linker;

use super::apt;
use crate::project;

/// The version that is installed.
pub(super) const VERSION: &str = "0.13.0";

/// The LLVM versions that version can be built against.
const LLVMS: std::ops::RangeInclusive<u32> = 21..=23;

/// Whether [`install`] can succeed for LLVM `major`.
pub(super) fn can_be_built_for(major: u32) -> bool {
    Linker::find().is_some_and(|linker| linker.reads(major))
        || LLVMS.contains(&major) && (llvm_prefix(major).is_dir() || apt::has(&format!("llvm-{major}-dev")))
}

/// Installs a linker for LLVM `major`, unless there is one.
pub(super) fn install(major: u32) -> Result<()> {
    if Linker::find().is_some_and(|linker| linker.reads(major)) {
        return Ok(());
    }
    if !LLVMS.contains(&major) {
        bail!(
            "bpf-linker {VERSION} supports LLVM {LLVMS:?}, but the compiler has LLVM {major}: install an older or newer nightly"
        );
    }
    let package = format!("llvm-{major}-dev");
    apt::install(&[&package])?;
    println!("installing bpf-linker {VERSION} with cargo: links the eBPF programs (takes some minutes)");
    let (prefix, feature) = (llvm_prefix(major), format!("llvm-{major}"));
    let mut cargo = project::cargo();
    cargo.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--quiet"]);
    cargo.args(["--no-default-features", "--features", &feature]);
    cargo.env("LLVM_PREFIX", &prefix).env(format!("LLVM_SYS_{major}1_PREFIX"), &prefix);
    // Cargo run by cargo inherits which package is being run, which is of no concern to the linker.
    cargo.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    if !cargo.status().context("cannot run cargo")?.success() {
        bail!("bpf-linker could not be built against {}; cargo's messages are above", prefix.display());
    }
    Ok(())
}

fn llvm_prefix(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}
