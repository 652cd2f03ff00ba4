//! A run's directory and the list of what it made, written ahead, so that another process can remove it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, bail};

use crate::proc;

/// Holds one directory per run.
pub(crate) const BASE: &str = "/run/sluicegate-lab";
const FILE: &str = "manifest";

/// Something a run made outside its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A named network namespace: /run/netns/NAME.
    Namespace(String),
    /// A mount below the run's directory.
    Mount(PathBuf),
}

/// The list of one run. The file is locked as long as its owner lives.
#[derive(Debug)]
pub(crate) struct Manifest {
    file: File,
}

impl Manifest {
    /// Makes the run's directory with an empty list owned by this process.
    pub(crate) fn create(run: &str) -> Result<(PathBuf, Self)> {
        // Made under another name and renamed, so that nobody sees a run without its owner.
        let nascent = Path::new(BASE).join(format!(".{run}"));
        let dir = Path::new(BASE).join(run);
        make_dir(&nascent).with_context(|| format!("cannot make {}", nascent.display()))?;
        let file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(nascent.join(FILE))?;
        if !try_lock(&file) {
            bail!("the manifest of the new run {run} is locked by another process");
        }
        let mut manifest = Self { file };
        let started =
            proc::start_time(process::id()).context("/proc/self/stat cannot be read; is /proc mounted?")?;
        manifest.line(&format!("owner {} {started}", process::id()))?;
        fs::rename(&nascent, &dir)
            .with_context(|| format!("cannot rename {} to {}", nascent.display(), dir.display()))?;
        Ok((dir, manifest))
    }

    /// Notes `item`; to be called before it is made.
    pub(crate) fn note(&mut self, item: &Item) -> Result<()> {
        match item {
            Item::Namespace(name) => self.line(&format!("netns {name}")),
            Item::Mount(path) => self.line(&format!("mount {}", path.display())),
        }
    }

    fn line(&mut self, line: &str) -> Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes()).context("cannot write the lab's manifest")
    }
}

/// Makes the directory of a run, and [`BASE`], which the last run that ends takes away.
fn make_dir(dir: &Path) -> io::Result<()> {
    for _ in 0..10 {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(BASE)?;
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The list of a run whose owner is gone; holds the lock, so that only one process removes it.
#[derive(Debug)]
pub(crate) struct Abandoned {
    _lock: File,
    /// What is to be removed, in the order in which it was made.
    pub(crate) items: Vec<Item>,
}

/// Reads the list in `dir` if its owner is gone: its lock is free and no process has its pid and start time.
pub(crate) fn abandoned(dir: &Path) -> Option<Abandoned> {
    let mut file = OpenOptions::new().read(true).write(true).open(dir.join(FILE)).ok()?;
    try_lock(&file).then_some(())?;
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let (owner, items) = parse(&text)?;
    let alive = owner.1.is_some() && proc::start_time(owner.0) == owner.1;
    (!alive).then_some(Abandoned { _lock: file, items })
}

type Owner = (u32, Option<u64>);

fn parse(text: &str) -> Option<(Owner, Vec<Item>)> {
    let mut lines = text.lines();
    let mut owner = lines.next()?.strip_prefix("owner ")?.split(' ');
    let owner = (owner.next()?.parse().ok()?, owner.next()?.parse().ok());
    let items = lines.filter_map(|line| match line.split_once(' ')? {
        ("netns", name) => Some(Item::Namespace(name.to_owned())),
        ("mount", path) => Some(Item::Mount(path.into())),
        _ => None,
    });
    Some((owner, items.collect()))
}

fn try_lock(file: &File) -> bool {
    // SAFETY: plain system call on a descriptor that `file` keeps open; no memory is passed.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_cut_short_keeps_its_whole_lines() {
        let (owner, items) = parse("owner 7 99\nnetns sg-1-a\nmount /run/x\nnet").unwrap();
        assert_eq!(owner, (7, Some(99)));
        assert_eq!(items, [Item::Namespace("sg-1-a".into()), Item::Mount("/run/x".into())]);
        assert_eq!(parse(""), None);
        assert_eq!(parse("owner x"), None);
    }

    #[test]
    fn a_living_owner_is_not_abandoned_and_a_dead_or_reused_pid_is() {
        let dir = tempfile::tempdir().unwrap();
        let own = proc::start_time(process::id()).unwrap();
        let file = dir.path().join(FILE);
        fs::write(&file, format!("owner {} {own}\n", process::id())).unwrap();
        assert!(abandoned(dir.path()).is_none());
        fs::write(&file, format!("owner {} {}\n", process::id(), own + 1)).unwrap();
        assert!(abandoned(dir.path()).is_some());
        let lock = File::open(&file).unwrap();
        assert!(try_lock(&lock));
        assert!(abandoned(dir.path()).is_none(), "locked by its owner");
    }
}
