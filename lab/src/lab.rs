//! The owner of everything that is made.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};

use crate::manifest::{BASE, Item, Manifest};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::{interrupt, proc, reap};

/// A set of namespaces, cables and processes; removes them when dropped.
#[derive(Debug)]
pub struct Lab {
    inner: Arc<Inner>,
}

/// What the lab, its namespaces and the signal thread share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) run: String,
    pub(crate) dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    manifest: Manifest,
    items: Vec<Item>,
    processes: Vec<Process>,
    closed: bool,
}

impl Lab {
    /// Starts a run, after removing what dead runs left behind.
    ///
    /// # Errors
    /// Without root, without `ip`, or when /run cannot be written.
    pub fn new() -> Result<Self> {
        // SAFETY: no arguments, cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            bail!("network namespaces need root: run the same command with sudo");
        }
        let ip = Command::new("ip").arg("-V").output();
        ip.context("cannot run `ip` (package iproute2): run `cargo xtask setup`")?;
        reap::clean_dead_runs()?;
        let run = random_id()?;
        let (dir, manifest) = Manifest::create(&run)?;
        fs::create_dir(dir.join("logs"))?;
        let state = State { manifest, items: Vec::new(), processes: Vec::new(), closed: false };
        let inner = Arc::new(Inner { run, dir, state: Mutex::new(state) });
        interrupt::watch(&inner)?;
        Ok(Self { inner })
    }

    /// The run's id: eight hexadecimal digits that are part of every name the lab gives.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.inner.run
    }

    /// A directory of the run (mode 0700, in memory) for state, sockets and configuration; removed with the lab.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Where the processes' logs are.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.inner.dir.join("logs")
    }

    /// Makes a network namespace. Loopback is up, and addresses are usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// When `name` is not short and plain, is taken in this lab, or the kernel refuses.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !plain {
            bail!("a namespace is named by letters, digits and hyphens, not {name:?}");
        }
        let full = format!("sluicegate-{}-{name}", self.inner.run);
        if Path::new("/run/netns").join(&full).exists() {
            bail!("there is a namespace {full} already");
        }
        self.inner.note(Item::Namespace(full.clone()))?;
        Namespace::create(name, full, &self.inner)
    }

    /// A bpffs of the run's own: what is pinned there is gone with the lab.
    ///
    /// # Errors
    /// When the kernel refuses to mount it.
    pub fn bpffs(&self) -> Result<PathBuf> {
        let path = self.inner.dir.join("bpf");
        if path.exists() {
            return Ok(path);
        }
        self.inner.note(Item::Mount(path.clone()))?;
        fs::create_dir(&path)?;
        let mounted =
            Command::new("mount").args(["-t", "bpf", "-o", "mode=0700", "bpf"]).arg(&path).output()?;
        if !mounted.status.success() {
            bail!(
                "cannot mount bpffs at {}: {}",
                path.display(),
                String::from_utf8_lossy(&mounted.stderr).trim()
            );
        }
        Ok(path)
    }

    /// Removes everything and says what could not be removed.
    ///
    /// # Errors
    /// Names what is left.
    pub fn close(self) -> Result<()> {
        self.inner.clean()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.inner.clean() {
            eprintln!("lab: {error:#}");
        }
    }
}

impl Inner {
    /// Notes what is about to be made; refuses when the lab is being removed.
    pub(crate) fn note(&self, item: Item) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            bail!("the lab is being removed");
        }
        state.manifest.note(&item)?;
        state.items.push(item);
        Ok(())
    }

    /// Starts a process with `spawn` and keeps it for the end, unless the lab is being removed.
    pub(crate) fn adopt(&self, spawn: impl FnOnce() -> Result<Process>) -> Result<Process> {
        let mut state = self.lock();
        if state.closed {
            bail!("the lab is being removed");
        }
        let process = spawn()?;
        state.processes.retain(Process::is_running);
        state.processes.push(process.clone());
        Ok(process)
    }

    /// Kills the processes, then removes what was made, newest first. Does nothing the second time.
    pub(crate) fn clean(&self) -> Result<()> {
        let mut state = self.lock();
        if std::mem::replace(&mut state.closed, true) {
            return Ok(());
        }
        for process in state.processes.drain(..) {
            process.kill();
        }
        proc::kill_marked(&self.run);
        let left = reap::remove(&state.items, &self.dir);
        if left.is_empty() { Ok(()) } else { bail!("could not be removed: {}", left.join("; ")) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not keep the lab from being removed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random_id() -> Result<String> {
    let mut bytes = [0; 4];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let id = format!("{:08x}", u32::from_be_bytes(bytes));
    if Path::new(BASE).join(&id).exists() { random_id() } else { Ok(id) }
}
