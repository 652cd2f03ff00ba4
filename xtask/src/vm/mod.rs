//! `cargo xtask vm`: the gateway's tests on the kernels it is to run on.
//!
//! | module | idea |
//! |---|---|
//! | [`kernel`] | Debian's kernels: fetched by apt, unpacked below `target/vm` |
//! | [`modules`] | which modules the tests need, in the order they are loaded in |
//! | [`suite`] | the test programs, built here |
//! | [`image`] | all that the guest has, as an initial RAM file system |
//! | [`cpio`] | its format |
//! | [`guest`] | QEMU, without KVM |
//! | [`here`] | the same test programs on the kernel of this host |
//! | [`report`] | what came of it, line by line |
//! | [`budget`] | what the verifier walked, and may |

mod budget;
mod cpio;
mod guest;
mod here;
mod image;
mod kernel;
mod modules;
mod report;
mod suite;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{project, setup, skipped};
use budget::Budget;
use guest::Limits;
use kernel::Kernel;
use report::Report;
use suite::Suite;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where to run; may be repeated [default: all]
    #[arg(long = "kernel", value_enum, value_name = "KERNEL")]
    kernels: Vec<Kernel>,
    /// Test programs to run; may be repeated [default: all integration tests of the gateway; `demo` is one too]
    #[arg(long = "suite", value_name = "NAME")]
    suites: Vec<String>,
    /// Only tests whose names contain NAME; may be repeated
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Only load, attach and a small differential test
    #[arg(long, conflicts_with_all = ["suites", "tests"])]
    quick: bool,
    /// Packets of the differential test [default: 5000, with --quick 500]
    #[arg(long, value_name = "N")]
    cases: Option<u64>,
    /// Processors of the guest
    #[arg(long, default_value_t = 2, value_name = "N")]
    cpus: u32,
    /// Minutes a guest may take before it is stopped
    #[arg(long, default_value_t = 60, value_name = "MINUTES")]
    limit: u64,
    /// Write the instructions that the verifier walked to gateway/tests/verifier-budget.toml
    #[arg(long)]
    record: bool,
}

/// What QEMU and the guest need beside what everything else does. Installed when the verb is called first: who only builds
/// and tests here needs none of it.
const TOOLS: [setup::Tool; 3] = [
    setup::Tool { program: "qemu-system-x86_64", package: "qemu-system-x86", why: "runs other kernels" },
    setup::Tool { program: "busybox", package: "busybox-static", why: "is the guest's shell" },
    setup::Tool { program: "strip", package: "binutils", why: "makes the guest's programs small" },
];

/// What `--quick` runs: a test program each, and the one test of it.
const QUICK: [(&str, &str); 2] = [
    ("kernel_datapath", "programs_load_and_stay_below_the_verifier_ceiling"),
    ("differential", "model_user_space_and_kernel_agree"),
];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the kernels are Debian's for amd64, and this machine is {}", std::env::consts::ARCH);
    }
    let kernels = if args.kernels.is_empty() { Kernel::ALL.to_vec() } else { args.kernels.clone() };
    if kernels.contains(&Kernel::Host) {
        project::require_root("vm")?;
    }
    setup::run(setup::Voice::OnlyChanges)?;
    setup::ensure(&TOOLS)?;
    let wanted: Vec<&str> = if args.quick {
        QUICK.map(|(suite, _)| suite).to_vec()
    } else {
        args.suites.iter().map(String::as_str).collect()
    };
    println!("building the test programs");
    let mut suites = suite::build(&wanted, args.cases.unwrap_or(if args.quick { 500 } else { 5000 }))?;
    for (suite, test) in QUICK.into_iter().filter(|_| args.quick) {
        let suite = suites.iter_mut().filter(|built| built.name == suite);
        suite.for_each(|suite| suite.args.push(test.to_owned()));
    }
    for suite in suites.iter_mut().filter(|suite| suite.name != suite::DEMO) {
        suite.args.extend(args.tests.iter().cloned());
    }
    let mut reports = Vec::new();
    for kernel in kernels {
        reports.push(perform(kernel, &suites, args)?);
    }
    for report in &reports {
        println!("{report}");
    }
    let path = project::root().join("gateway/tests/verifier-budget.toml");
    let mut budget = Budget::read(&path)?;
    let known = budget.clone();
    for report in &reports {
        budget.note(report.series(), &report.verified);
    }
    println!("{budget}");
    if args.record {
        budget.write(&path)?;
        println!("the counts are recorded in {}", path.display());
    } else if budget != known {
        println!("the counts are not those that are recorded: `cargo xtask vm --record` writes them down");
    }
    let failed: Vec<&str> =
        reports.iter().filter(|report| !report.passed()).map(|report| report.kernel).collect();
    if failed.is_empty() {
        println!("all test programs passed on {} kernels", reports.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("failed on {}; the logs are in {}", failed.join(", "), directory()?.display());
    Ok(ExitCode::FAILURE)
}

fn perform(kernel: Kernel, suites: &[Suite], args: &Args) -> Result<Report> {
    let logs = directory()?.join(format!("{}.log", kernel.name()));
    if kernel == Kernel::Host {
        println!("running on this host's kernel");
        return here::run(suites, &logs);
    }
    let files = kernel.fetch(&directory()?)?;
    println!("starting {} in QEMU, without KVM", files.release);
    let initrd = directory()?.join(format!("{}.initrd", kernel.name()));
    let mut suites = suites.to_vec();
    suites.iter_mut().for_each(|suite| suite.env.push(skipped::allowance(&kernel.lacks())));
    image::write(&initrd, &files, &suites)?;
    let limits = Limits { cpus: args.cpus, time: Duration::from_secs(args.limit * 60) };
    let report = guest::run(kernel, &files, &initrd, &logs, &limits)?;
    // A few hundred megabytes that are made anew in seconds.
    fs::remove_file(&initrd).with_context(|| format!("cannot remove {}", initrd.display()))?;
    Ok(report)
}

/// Where kernels, images and logs are.
fn directory() -> Result<PathBuf> {
    let path = project::root().join("target/vm");
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
