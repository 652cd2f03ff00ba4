//! Everything a person runs on the source tree: `cargo xtask VERB`.

mod bench;
mod clean_lab;
mod demo;
mod fuzz;
mod nightly;
mod project;
mod setup;
mod skipped;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, tests and shows Sluicegate.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building, testing and the demo need (Debian 12: by apt and cargo; idempotent)
    Setup,
    /// Start control, two gateways, three peers and a site in network namespaces, and check what passes
    Demo(demo::Args),
    /// Check format, lints and docs, then run all tests and the demo
    Test(test::Args),
    /// Run the gateway's tests on Debian's kernels 6.1 and 6.12 in QEMU, and on this host's
    Vm(vm::Args),
    /// What takes too long for every change: all kernels, a long differential test, all benchmarks
    Nightly(nightly::Args),
    /// Compare with nftables and plain forwarding (arguments are those of the bench program)
    Bench(bench::Args),
    /// Search for inputs that break what must hold (parser, engine, image)
    Fuzz(fuzz::Args),
    /// Remove what killed demos and tests left behind
    CleanLab,
}

fn main() -> ExitCode {
    let result = match Args::parse().verb {
        Verb::Setup => setup::run(setup::Voice::Full).map(|()| ExitCode::SUCCESS),
        Verb::Demo(args) => demo::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Vm(args) => vm::run(&args),
        Verb::Nightly(args) => nightly::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::CleanLab => clean_lab::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
