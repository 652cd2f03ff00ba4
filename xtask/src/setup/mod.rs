//! `cargo xtask setup`: from a stable Rust and git to where everything builds.

mod apt;
mod components;
mod linker;
mod python;

use anyhow::{Context, Result, bail};
use sluicegate_ebpf_toolchain::Toolchain;

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// What is there and what is installed.
    Full,
    /// Nothing when all is there.
    OnlyChanges,
}

/// A program that is called, and the package it is in.
pub(crate) struct Tool {
    /// What is looked for on `PATH`.
    pub(crate) program: &'static str,
    /// Debian's name of what it is in.
    pub(crate) package: &'static str,
    /// What it does here, as the end of a sentence.
    pub(crate) why: &'static str,
}

/// What building, the tests and the demo call.
const TOOLS: [Tool; 10] = [
    Tool {
        program: "cc",
        package: "gcc",
        why: "links programs and builds SQLite and the cryptography library",
    },
    Tool { program: "make", package: "make", why: "builds control's allocator" },
    Tool { program: "ip", package: "iproute2", why: "makes the lab's namespaces" },
    Tool { program: "ping", package: "iputils-ping", why: "is a client of the demo" },
    Tool { program: "curl", package: "curl", why: "is a client of the demo" },
    Tool { program: "dnsmasq", package: "dnsmasq-base", why: "is the name server of the tests and the demo" },
    Tool { program: "nft", package: "nftables", why: "is what the benchmarks compare with" },
    Tool { program: "kill", package: "procps", why: "ends processes in the tests" },
    Tool { program: "promtool", package: "prometheus", why: "checks the metrics' names in the tests" },
    Tool { program: "initdb", package: "postgresql", why: "makes the databases of control's tests" },
];

/// Where Debian keeps PostgreSQL's own programs, by version and not on `PATH`.
const POSTGRESQL: &str = "/usr/lib/postgresql";

/// Installs what is missing. Does nothing, within a fraction of a second, when all is there.
pub(crate) fn run(voice: Voice) -> Result<()> {
    components::ensure(&["rustfmt", "clippy"])?;
    python::run()?;
    let missing: Vec<_> = TOOLS.iter().filter(|tool| !is_there(tool.program)).collect();
    let toolchain = Toolchain::find();
    if let (true, Ok(toolchain)) = (missing.is_empty(), &toolchain) {
        if voice == Voice::Full {
            println!("everything is there; the eBPF programs are built with {toolchain}");
        }
        return Ok(());
    }
    if !on_path("apt-get") {
        bail!("{}", by_hand(&missing, toolchain.err().map(|error| error.reason)));
    }
    let mut packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    if packages.contains(&"gcc") {
        packages.push("libc6-dev");
    }
    for tool in missing {
        println!("missing: {}, which {}", tool.program, tool.why);
    }
    apt::install(&packages)?;
    if toolchain.is_err() {
        install_toolchain()?;
    }
    let toolchain = Toolchain::find().context("everything was installed, and yet")?;
    println!("everything is there; the eBPF programs are built with {toolchain}");
    Ok(())
}

/// Installs those of `tools` that are missing: for a verb that needs more than [`run`] installs.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| !is_there(tool.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !on_path("apt-get") {
        bail!("{}", by_hand(&missing, None));
    }
    for tool in &missing {
        println!("missing: {}, which {}", tool.program, tool.why);
    }
    apt::install(&missing.iter().map(|tool| tool.package).collect::<Vec<_>>())
}

fn install_toolchain() -> Result<()> {
    if Toolchain::compilers().is_empty() {
        println!("missing: a compiler with core for eBPF");
        apt::install(&["rustc-web", "libstd-rust-web-dev-bpf"])?;
    }
    let compilers = Toolchain::compilers();
    let Some(compiler) =
        compilers.iter().find(|compiler| linker::can_be_built_for(compiler.llvm)).or(compilers.first())
    else {
        bail!(
            "Debian's rustc-web does not have core for eBPF in this release; install a nightly instead: \
             rustup toolchain install nightly --component rust-src"
        );
    };
    println!("the eBPF programs will be compiled with {} (LLVM {})", compiler.version, compiler.llvm);
    linker::install(compiler.llvm)
}

/// What a person has to do where there is no apt.
fn by_hand(missing: &[&Tool], toolchain: Option<String>) -> String {
    let mut text = String::from("this is not Debian (there is no apt-get), so please install by hand:");
    for tool in missing {
        text += &format!("\n  {} ({}; Debian has it in {})", tool.program, tool.why, tool.package);
    }
    if let Some(reason) = toolchain {
        text += &format!(
            "\n  a toolchain for eBPF, because {reason}:\n    rustup toolchain install nightly --component rust-src\n    \
             LLVM with headers, of the major version that `rustc +nightly -vV` shows\n    \
             cargo install bpf-linker --version {} --locked --no-default-features --features llvm-MAJOR",
            linker::VERSION
        );
    }
    text
}

/// Whether `program` can be called, from `PATH` or where PostgreSQL's are.
fn is_there(program: &str) -> bool {
    let versions = std::fs::read_dir(POSTGRESQL).into_iter().flatten().flatten();
    on_path(program)
        || versions.map(|version| version.path().join("bin")).any(|bin| bin.join(program).is_file())
}

/// Whether `program` is found on `PATH`.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_apt_each_missing_thing_is_named() {
        let ip = TOOLS.iter().find(|tool| tool.program == "ip").unwrap();
        let text = by_hand(&[ip], Some("there is no bpf-linker".into()));
        for word in ["iproute2", "there is no bpf-linker", "rust-src", linker::VERSION] {
            assert!(text.contains(word), "{text}");
        }
        assert!(!by_hand(&[ip], None).contains("rustup"));
    }
}
