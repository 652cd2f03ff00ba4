//! `cargo xtask fuzz`: libFuzzer over the targets in `fuzz/`, with the compiler that builds everything else.
//!
//! Coverage counters are a pass of LLVM that stable Rust can be asked for, so neither a nightly nor cargo-fuzz is needed; with
//! both, `cargo +nightly fuzz run -s none TARGET` does the same. The crates under test have no `unsafe`, so there is no
//! sanitizer: what must not happen panics.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::project;

/// As cargo-fuzz sets them (its `project.rs`), less the sanitizer.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Committed inputs are cut to this length: the corpora are for every checkout, and replayed by every test run.
const KEPT: &str = "-max_len=2500";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to fuzz
    target: Target,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Instead of searching: put into fuzz/corpus, as few and as small as can be, all that has added coverage so far
    #[arg(long)]
    minimise: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// Packets: the engine's parser against the model's
    Parse,
    /// Whole cases: the engine against the naive model
    Engine,
    /// Images and deltas: decoder, validator, and look-ups in what they accept
    Image,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Parse => "parse",
            Target::Engine => "engine",
            Target::Image => "image",
        }
    }

    /// Longest input worth trying, bytes: a frame; a world and some hundred packets; a small image.
    fn longest(self) -> u32 {
        match self {
            Target::Parse => 1600,
            Target::Engine => 9000,
            Target::Image => 4096,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let name = args.target.name();
    let fuzz = project::root().join("fuzz");
    let target = project::root().join("target/fuzz");
    let committed = fuzz.join("corpus").join(name);
    // What a run finds stays out of the source tree until it is minimised.
    let found = target.join("corpus").join(name);
    let artifacts = fuzz.join("artifacts").join(name);
    for directory in [&committed, &found, &artifacts] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let program = build(&target)?.join(name);
    if args.minimise {
        return minimise(&program, &committed, &found, &target.join("merged").join(name));
    }
    let mut command = Command::new(program);
    command
        .arg(&found)
        .arg(&committed)
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-max_len={}", args.target.longest()))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-timeout=20", "-rss_limit_mb=2048", "-len_control=0", "-print_final_stats=1"]);
    let status = command.status().context("cannot run the fuzzer")?;
    if !status.success() {
        eprintln!(
            "{name} found something: the input is in {}. Mend it, put the input into {} under a name that says what it \
             was, and `cargo test -p sluicegate-model --test corpus` keeps it mended",
            artifacts.display(),
            committed.display()
        );
        return Ok(ExitCode::FAILURE);
    }
    println!("nothing found; `cargo xtask fuzz {name} --minimise` keeps what added coverage");
    Ok(ExitCode::SUCCESS)
}

/// Builds all targets; the directory they are in.
fn build(target: &Path) -> Result<PathBuf> {
    let host = host()?;
    let mut command = project::cargo();
    command
        .args(["build", "--locked", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &host])
        .arg("--target-dir")
        .arg(target)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    ensure!(command.status().context("cannot run cargo")?.success(), "the targets do not build");
    Ok(target.join(host).join("release"))
}

/// The machine's target triple. It is named to cargo so that the counters stay out of build scripts and macros.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let told = String::from_utf8_lossy(&output.stdout);
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV does not name the host")?.to_owned())
}

/// Replaces the committed corpus by the smallest inputs that cover what it and everything found since cover. Inputs with a
/// name of their own (`regression-...`) stay.
fn minimise(program: &Path, committed: &Path, found: &Path, merged: &Path) -> Result<ExitCode> {
    if merged.exists() {
        fs::remove_dir_all(merged).with_context(|| format!("cannot remove {}", merged.display()))?;
    }
    fs::create_dir_all(merged).with_context(|| format!("cannot make {}", merged.display()))?;
    let mut command = Command::new(program);
    // Edges count, not how often they are taken: that would keep ten times as much.
    command.args(["-merge=1", "-use_counters=0", KEPT]).arg(merged).arg(committed).arg(found);
    ensure!(command.status().context("cannot run the fuzzer")?.success(), "the corpora cannot be merged");
    for file in files(committed)?.iter().filter(|file| !is_named(file)) {
        fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    let (mut count, mut bytes) = (0, 0);
    for file in files(merged)? {
        let to = committed.join(file.file_name().context("a file without a name")?);
        bytes += fs::copy(&file, &to).with_context(|| format!("cannot write {}", to.display()))?;
        count += 1;
    }
    println!("{}: {count} inputs, {bytes} bytes", committed.display());
    Ok(ExitCode::SUCCESS)
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// libFuzzer names inputs by their SHA-1.
fn is_named(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() != 40 || !name.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_named_by_a_person_stay() {
        assert!(is_named(Path::new("corpus/image/regression-delta-of-16-gib")));
        assert!(!is_named(Path::new("corpus/image/da39a3ee5e6b4b0d3255bfef95601890afd80709")));
    }
}
