//! One network namespace: a host of the lab.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::panic;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::Inner;
use crate::process::Process;
use crate::program::{Finished, Program};

/// A network namespace of a lab. Clones name the same one.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    full: String,
    file: Arc<File>,
    lab: Weak<Inner>,
}

impl Namespace {
    pub(crate) fn create(name: &str, full: String, lab: &Arc<Inner>) -> Result<Self> {
        ip(&["netns", "add", &full])?;
        let path = format!("/run/netns/{full}");
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let namespace = Self { name: name.to_owned(), full, file: Arc::new(file), lab: Arc::downgrade(lab) };
        for interface in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{interface}/accept_dad"), "0")?;
        }
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name `ip netns` knows: `sluicegate-RUN-NAME`.
    #[must_use]
    pub fn full_name(&self) -> &str {
        &self.full
    }

    /// The file that `nsenter --net=` takes.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.full)
    }

    /// Runs `ip ARGS` in the namespace and returns its standard output.
    ///
    /// # Errors
    /// With the command and what it said, when it fails.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.full.as_str()];
        all.extend(args);
        ip(&all)
    }

    /// Writes a sysctl of the namespace, named by its path below /proc/sys: `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// When the kernel has no such setting or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{name}");
        // /proc/sys/net shows the namespace of whoever opens it.
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("cannot write {value} to {path} in namespace {}", self.name))
    }

    /// Runs `action` in a thread that is in the namespace; sockets it opens stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `action` does.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> Result<T> {
        let result = thread::scope(|scope| {
            scope
                .spawn(|| {
                    set_namespace(self.file.as_raw_fd())?;
                    Ok(action())
                })
                .join()
        });
        result.unwrap_or_else(|cause| panic::resume_unwind(cause)).map_err(|error: io::Error| {
            anyhow::Error::new(error).context(format!("cannot enter namespace {}", self.name))
        })
    }

    /// Starts `program` in the background. Its output goes to `LOGS/NAME.log`, after what an earlier one of that name left.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, name: &str, program: &Program) -> Result<Process> {
        let lab = self.lab()?;
        let log = lab.dir.join("logs").join(format!("{name}.log"));
        lab.adopt(|| Process::background(name, program.command(&lab.run, Arc::clone(&self.file)), log))
    }

    /// Runs `program` to its end and returns its output; after `timeout` it is killed.
    ///
    /// # Errors
    /// When it cannot be started. A failure or a timeout is in the result.
    pub fn run(&self, program: &Program, timeout: Duration) -> Result<Finished> {
        let lab = self.lab()?;
        program.finish(&lab, Arc::clone(&self.file), timeout)
    }

    fn lab(&self) -> Result<Arc<Inner>> {
        self.lab.upgrade().with_context(|| format!("the lab of namespace {} is gone", self.name))
    }
}

/// Moves the calling thread into the network namespace open as `fd`. Async-signal-safe.
pub(crate) fn set_namespace(fd: i32) -> io::Result<()> {
    // SAFETY: plain system call on a descriptor; it changes the calling thread only.
    if unsafe { libc::setns(fd, libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn ip(args: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(args).output().context("cannot run `ip` (package iproute2)")?;
    if !output.status.success() {
        bail!("`ip {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
