//! `cargo xtask test`: what continuous integration runs.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::skipped::Record;
use crate::{project, setup, skipped};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Packets of the differential test between the engines, instead of its default of at least 100,000
    #[arg(long, value_name = "N")]
    cases: Option<u64>,
    /// Leave out the demo
    #[arg(long)]
    no_demo: bool,
}

/// Read by the differential test: how many packets it sends through the engines.
pub(crate) const CASES: &str = "SLUICEGATE_CASES";

/// Read by control's tests of REST and agents: the store they are over, where it is not SQLite. Those of the store are over both.
const STORE: &str = "SLUICEGATE_TEST_STORE";

/// A command that is to succeed.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) command: Command,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    project::require_root("test")?;
    setup::run(setup::Voice::OnlyChanges)?;
    perform_all(steps(args)?)
}

/// Performs every step, each with a log in `target/xtask`, and says what came of it, and which tests this machine cannot run.
pub(crate) fn perform_all(steps: Vec<Step>) -> Result<ExitCode> {
    let logs = project::root().join("target/xtask");
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let record = Record::begin(&logs)?;
    let missing = skipped::missing_here();
    let (count, start) = (steps.len(), Instant::now());
    let mut failed = Vec::new();
    for mut step in steps {
        record.keep(&mut step.command, &missing);
        if !perform(step.name, step.command, &logs, &record)? {
            failed.push(step.name);
        }
    }
    print!("{}", skipped::lines(&record.read()));
    let seconds = start.elapsed().as_secs();
    if failed.is_empty() {
        println!("all {count} steps passed in {seconds} s");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} of {count} steps failed in {seconds} s: {}", failed.len(), failed.join(", "));
    Ok(ExitCode::FAILURE)
}

fn steps(args: &Args) -> Result<Vec<Step>> {
    let cargo = |args: &[&str]| {
        let mut command = project::cargo();
        command.args(args);
        command
    };
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    let mut tests = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    if let Some(cases) = args.cases {
        tests.env(CASES, cases.to_string());
    }
    let postgres = ["--package", "sluicegate-control", "--test", "rest", "--test", "agents"];
    let mut over_postgres = cargo(&["test", "--locked", "--no-fail-fast"]);
    over_postgres.args(postgres).env(STORE, "postgres");
    let mut steps = vec![
        Step { name: "format", command: cargo(&["fmt", "--all", "--check"]) },
        Step {
            name: "format of the eBPF programs",
            command: cargo(&["fmt", "--manifest-path", "gateway-ebpf/Cargo.toml", "--check"]),
        },
        Step { name: "lints of the eBPF programs", command: ebpf_lints() },
        Step {
            name: "lints",
            command: cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--",
                "--deny",
                "warnings",
            ]),
        },
        Step { name: "documentation", command: doc },
        Step { name: "tests", command: tests },
        Step { name: "tests of control over PostgreSQL", command: over_postgres },
    ];
    if !args.no_demo {
        for (name, datapath) in [("demo with eBPF", "ebpf"), ("demo in user space", "userspace")] {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["demo", "--once", "--datapath", datapath]);
            steps.push(Step { name, command });
        }
    }
    Ok(steps)
}

/// Clippy on the programs as if they were of this machine: Debian's compiler for their own target comes without it.
fn ebpf_lints() -> Command {
    let mut command = project::cargo();
    command.args([
        "clippy",
        "--manifest-path",
        "gateway-ebpf/Cargo.toml",
        "--locked",
        "--target-dir",
        "target/ebpf-lints",
    ]);
    command.args(["--", "--deny", "warnings"]);
    // aya-ebpf needs unstable features, and to know whose registers it is to name.
    let arch = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", arch);
    command
}

/// Runs one step with its output in a log; shows the log's end when it fails.
fn perform(name: &str, mut command: Command, logs: &Path, record: &Record) -> Result<bool> {
    let before = record.read().len();
    let path = logs.join(format!("{}.log", name.replace(' ', "-")));
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let start = Instant::now();
    let status = command.stdout(log.try_clone()?).stderr(log).status();
    let passed = status.with_context(|| format!("cannot run {}", command.get_program().display()))?.success();
    let seconds = start.elapsed().as_secs_f64();
    if passed {
        println!("ok      {name} ({seconds:.1} s){}", count_tests(&path, record.read().len() - before));
    } else {
        println!("FAILED  {name} ({seconds:.1} s); the end of {}:", path.display());
        println!("{}", telling_lines(&fs::read_to_string(&path).unwrap_or_default()));
    }
    Ok(passed)
}

/// How many tests ran, when the log is of tests; `skipped` of those that it says are ok did not.
fn count_tests(path: &Path, skipped: usize) -> String {
    let log = fs::read_to_string(path).unwrap_or_default();
    match (passed_tests(&log).saturating_sub(skipped), skipped) {
        (0, 0) => String::new(),
        (passed, 0) => format!(": {passed} tests passed"),
        (passed, skipped) => format!(": {passed} tests passed, {skipped} did not run"),
    }
}

fn passed_tests(log: &str) -> usize {
    let results = log.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    results.filter_map(|rest| rest.split(' ').next()?.parse::<usize>().ok()).sum()
}

/// The failures of a test run wherever they are, each with what it said, then the last lines.
fn telling_lines(log: &str) -> String {
    /// Lines after the first of a panic: its message, with both sides of what should be equal.
    const MESSAGE: usize = 4;
    const LAST: usize = 30;
    let lines: Vec<_> = log.lines().filter(|line| says_something(line)).collect();
    let tail = lines.len().saturating_sub(LAST);
    let mut shown = vec![false; lines.len()];
    for (at, line) in lines.iter().enumerate() {
        let until = match line {
            line if line.contains("panicked at") => at + 1 + MESSAGE,
            line if line.ends_with("FAILED") => at + 1,
            _ if at >= tail => at + 1,
            _ => continue,
        };
        shown[at..until.min(lines.len())].fill(true);
    }
    // A compiler's own command line is longer than a screen.
    let start = |line: &str| line.chars().take(400).collect::<String>();
    let told = lines.iter().zip(shown).filter(|(_, shown)| *shown);
    told.map(|(line, _)| format!("        {}", start(line))).collect::<Vec<_>>().join("\n")
}

/// Not an empty line, nor one of a crate that has no such tests.
fn says_something(line: &str) -> bool {
    let nothing = ["running 0 tests", "test result: ok. 0 passed; 0 failed"];
    let doc_tests = line.trim_start().starts_with("Doc-tests ");
    !line.trim().is_empty() && !doc_tests && !nothing.iter().any(|begin| line.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_all_crates_are_counted() {
        let log = "test a ... ok\ntest result: ok. 9 passed; 0 failed; 1 ignored\ntest result: ok. 12 passed; 0 failed\n";
        assert_eq!(passed_tests(log), 21);
        assert_eq!(passed_tests("test result: FAILED. 9 passed; 1 failed"), 0);
    }

    #[test]
    fn a_test_that_did_not_run_is_not_counted_as_passed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "test result: ok. 9 passed; 0 failed\n").unwrap();
        assert_eq!(count_tests(&path, 2), ": 7 tests passed, 2 did not run");
        assert_eq!(count_tests(&path, 0), ": 9 tests passed");
    }

    #[test]
    fn a_failure_far_from_the_end_is_shown_with_what_it_said() {
        let failure =
            "thread 'early' panicked at src/a.rs:1:2:\nassertion failed: a\n  left: [7]\n right: []\n";
        let log = format!("{failure}test early ... FAILED\n{}", "noise\n\nrunning 0 tests\n".repeat(200));
        let told = telling_lines(&log);
        for line in ["test early ... FAILED", "left: [7]", "right: []"] {
            assert!(told.contains(line), "{told}");
        }
        assert!(told.lines().count() < 40 && !told.contains("running 0 tests"), "{told}");
    }
}
