//! The suites on the kernel this host runs.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::kernel::Kernel;
use super::report::Report;
use super::suite::{PROGRAMS, Suite};
use crate::skipped::Record;

/// Runs the suites one after the other, as a guest's init does, with the same lines in `log`.
pub(super) fn run(suites: &[Suite], log: &Path) -> Result<Report> {
    let dir = tempfile::tempdir().context("cannot make a directory for records")?;
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut report = Report::new(Kernel::Host.name());
    let mut take = |line: &str| -> Result<()> {
        writeln!(log, "{line}").context("cannot write the log")?;
        if let Some(news) = report.line(line) {
            println!("  {}  {news}", Kernel::Host.name());
        }
        Ok(())
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot tell the kernel")?;
    take(&format!("vm up {}", release.trim()))?;
    let start = Instant::now();
    for suite in suites {
        let began = start.elapsed().as_secs_f64();
        take(&format!("vm begin {}", suite.name))?;
        let record = Record::begin(dir.path())?;
        let mut command = command(suite);
        record.keep(&mut command, &Kernel::Host.lacks());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", suite.program.display()))?;
        for line in BufReader::new(child.stdout.take().context("a program without output")?).split(b'\n') {
            take(String::from_utf8_lossy(&line?).trim_end())?;
        }
        for skipped in record.read() {
            take(&skipped.to_string())?;
        }
        let code = child.wait()?.code().unwrap_or(-1);
        take(&format!("vm end {} {code} {began} {}", suite.name, start.elapsed().as_secs_f64()))?;
    }
    take("vm down")?;
    Ok(report)
}

fn command(suite: &Suite) -> Command {
    let dir = suite.beside.first().and_then(|path| path.parent()).unwrap_or(Path::new("."));
    let mut command = Command::new(&suite.program);
    for arg in &suite.args {
        command.arg(if arg == PROGRAMS { dir.as_os_str() } else { arg.as_ref() });
    }
    command.envs(suite.env.iter().map(|(name, value)| (name, value)));
    command
}
