//! Builds the eBPF object of `gateway-ebpf/` with whatever toolchain the machine has: a rustup nightly with rust-src, or
//! Debian's `rustc-web` with `libstd-rust-web-dev-bpf`, and in either case a `bpf-linker` of the same LLVM.
//!
//! Used by build scripts ([`build_for_cargo`]) and by `cargo xtask` ([`Toolchain::find`], [`build`]).

mod build;
mod linker;
mod toolchain;

pub use build::{Arch, BuildError, build, build_for_cargo, build_objects_for_cargo, cargo_command};
pub use linker::Linker;
pub use toolchain::{Candidate, Compiler, Missing, Toolchain};

/// The only target that is built: little-endian eBPF.
pub const TARGET: &str = "bpfel-unknown-none";

/// The binary of `gateway-ebpf/`, and the file name of the object.
pub const OBJECT: &str = "sluicegate";
