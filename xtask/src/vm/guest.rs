//! One boot of a kernel in QEMU.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::kernel::{Files, Kernel};
use super::report::Report;

/// What a guest may use.
pub(super) struct Limits {
    pub(super) cpus: u32,
    pub(super) time: Duration,
}

/// Megabytes. A third is the image.
const MEMORY: &str = "2048";

/// No reboot after a panic, and no defence against programs that share the processor: they are the slower half of emulation.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 mitigations=off loglevel=5";

/// Boots `files` with `initrd` and reads what its init says, into `log` too. The kernel's own messages go beside it.
pub(super) fn run(
    kernel: Kernel,
    files: &Files,
    initrd: &Path,
    log: &Path,
    limits: &Limits,
) -> Result<Report> {
    let console = log.with_extension("console");
    let mut child = start(files, initrd, &console, limits)?;
    let report = follow(kernel, &mut child, log, limits.time);
    // It has ended, or has to.
    let _ = child.kill();
    child.wait().context("QEMU cannot be waited for")?;
    let mut report = report?;
    if report.release.is_empty() {
        let said = fs::read_to_string(&console).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        report.trouble =
            Some(format!("the kernel did not come up; the end of {}:\n{tail}", console.display()));
    }
    Ok(report)
}

fn start(files: &Files, initrd: &Path, console: &Path, limits: &Limits) -> Result<Child> {
    // Beside the builds and tests of others, this can wait.
    let mut command = Command::new("nice");
    command.args(["-n", "15", "qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-m", MEMORY]);
    // Emulated even where there is KVM: the same run everywhere, and as slow as it is on the slowest of them.
    command.args(["-accel", "tcg,thread=multi"]);
    command.args(["-smp", &limits.cpus.to_string(), "-nodefaults", "-no-reboot", "-display", "none"]);
    command.arg("-kernel").arg(&files.image).arg("-initrd").arg(initrd);
    command.args(["-append", COMMAND_LINE]);
    let mut to_console = std::ffi::OsString::from("file:");
    to_console.push(console);
    command.arg("-serial").arg(to_console).args(["-serial", "stdio"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    // SAFETY: one system call between fork and exec: the guest ends with this process, however that ends.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().context("cannot start QEMU")
}

/// Reads lines until QEMU ends or its time is over.
fn follow(kernel: Kernel, child: &mut Child, log: &Path, time: Duration) -> Result<Report> {
    let output = child.stdout.take().context("QEMU has no output")?;
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let (lines, read) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { break };
            if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let mut report = Report::new(kernel.name());
    let end = Instant::now() + time;
    loop {
        match read.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(log, "{line}").context("cannot write the log")?;
                if let Some(news) = report.line(&line) {
                    println!("  {}  {news}", kernel.name());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(report),
            Err(RecvTimeoutError::Timeout) => {
                report.trouble = Some(format!("stopped after {} minutes", time.as_secs() / 60));
                return Ok(report);
            }
        }
    }
}
