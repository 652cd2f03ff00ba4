//! A process of the lab and all it starts.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::wait;

/// A running or finished process. Clones name the same one; the lab kills it at its end.
#[derive(Clone, Debug)]
pub struct Process {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    pid: u32,
    pidfd: OwnedFd,
    child: Mutex<Child>,
    /// How it ended, once it was reaped: from then on its pid, which names its group too, may be somebody else's.
    ended: OnceLock<Option<ExitStatus>>,
    /// The log, and how long it was when this process started.
    log: Option<(PathBuf, u64)>,
}

impl Process {
    /// Starts `command` with its output appended to `log`. Its standard input is a pipe that ends with this process, or
    /// with [`Process::close_stdin`].
    pub(crate) fn background(name: &str, mut command: Command, log: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot open {}", log.display()))?;
        let start = file.metadata()?.len();
        command.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
        Self::launch(name, command, Some((log, start)))
    }

    /// Starts `command` as it is.
    pub(crate) fn start(name: &str, command: Command) -> Result<Self> {
        Self::launch(name, command, None)
    }

    fn launch(name: &str, mut command: Command, log: Option<(PathBuf, u64)>) -> Result<Self> {
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let Some(pidfd) = pidfd(child.id()) else {
            let error = io::Error::last_os_error();
            child.kill().and_then(|()| child.wait())?;
            return Err(error).with_context(|| format!("cannot watch {name}: pidfd_open needs Linux 5.3"));
        };
        let (pid, child) = (child.id(), Mutex::new(child));
        let shared = Shared { name: name.to_owned(), pid, pidfd, child, ended: OnceLock::new(), log };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its log, for a background process.
    #[must_use]
    pub fn log_path(&self) -> Option<&Path> {
        self.shared.log.as_ref().map(|(path, _)| path.as_path())
    }

    /// What it has written so far, without what others of its name wrote before.
    #[must_use]
    pub fn log(&self) -> String {
        let Some((path, start)) = &self.shared.log else { return String::new() };
        let bytes = fs::read(path).unwrap_or_default();
        let own = bytes.get(usize::try_from(*start).unwrap_or(0)..).unwrap_or_default();
        String::from_utf8_lossy(own).into_owned()
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.shared.ended.get().is_none() && !poll_readable(&self.shared.pidfd, Duration::ZERO)
    }

    /// Sends `signal` to the process and all of its group.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let _reaping_waits = self.child();
        if !self.is_running() {
            bail!("{} has ended; its log ends:\n{}", self.shared.name, self.tail());
        }
        send(self.shared.pid, signal).with_context(|| format!("cannot signal {}", self.shared.name))
    }

    /// Kills it and all of its group, and waits for its end.
    pub fn kill(&self) {
        self.reap();
    }

    /// Asks it to end (SIGTERM), kills it after `patience`, and returns how it ended.
    pub fn stop(&self, patience: Duration) -> Option<ExitStatus> {
        // It may have ended by itself, which is as good.
        let _ = self.signal(libc::SIGTERM);
        self.wait(patience).or_else(|| self.reap())
    }

    /// Waits for its end, kills what is left of its group, and returns how it ended; `None` after `timeout`.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        let ended = self.shared.ended.get().is_some() || poll_readable(&self.shared.pidfd, timeout);
        if ended { self.reap() } else { None }
    }

    /// Kills the group, then reaps its leader: in this order the group's id cannot be another's.
    fn reap(&self) -> Option<ExitStatus> {
        let mut child = self.child();
        *self.shared.ended.get_or_init(|| {
            // Fails when all of it is gone, which is what is wanted.
            let _ = send(self.shared.pid, libc::SIGKILL);
            child.wait().ok()
        })
    }

    /// Closes its standard input, which asks the lab's traffic programs to report and end.
    pub fn close_stdin(&self) {
        drop(self.child().stdin.take());
    }

    /// Waits for a line of its log that contains `text` and returns the line.
    ///
    /// # Errors
    /// When it ends, or after `timeout`, with the end of its log.
    pub fn wait_for_line(&self, text: &str, timeout: Duration) -> Result<String> {
        let found = wait::until(timeout, || {
            let running = self.is_running();
            let line = self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
            if line.is_none() && !running { Err(()) } else { Ok(line) }
        });
        match found {
            Ok(Some(line)) => Ok(line),
            Ok(None) => {
                bail!(
                    "{} did not write {text:?} within {timeout:?}; its log ends:\n{}",
                    self.shared.name,
                    self.tail()
                )
            }
            Err(()) => {
                bail!("{} ended before it wrote {text:?}; its log ends:\n{}", self.shared.name, self.tail())
            }
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub(crate) fn take_output(&self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        let mut child = self.child();
        (child.stdout.take(), child.stderr.take())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.shared.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send(group: u32, signal: i32) -> io::Result<()> {
    let Ok(group) = i32::try_from(group) else { return Err(io::ErrorKind::InvalidInput.into()) };
    // SAFETY: plain system call; the group is one that this process made.
    if unsafe { libc::kill(-group, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor of process `pid` that becomes readable when it ends.
pub(crate) fn pidfd(pid: u32) -> Option<OwnedFd> {
    // SAFETY: plain system call; the result is checked before it is owned.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: a fresh descriptor that nobody else owns.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Waits until `fd` is readable, for `timeout` at most; whether it is.
pub(crate) fn poll_readable(fd: &OwnedFd, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        // SAFETY: one entry, which lives through the call.
        let ready = unsafe { libc::poll(&raw mut entry, 1, milliseconds) };
        // A signal ends the call early.
        if ready > 0 || left.is_zero() {
            return ready > 0;
        }
    }
}
