//! The host's resolv.conf: it is replaced while this agent answers, and put back as it was.
//!
//! What was there is kept beside it first, so that it can be put back after any end of the agent, by its next run. A link is
//! replaced itself and put back as the same link: the file that it leads to is somebody else's and is never written. A file that
//! is mounted by itself, as containers have it, cannot be replaced and is written in its place. Whoever else writes the file has
//! the last word: what this agent did not write it leaves as it is.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use hickory_resolver::proto::rr::Name;
use sha2::{Digest as _, Sha256};

use super::Wish;
use crate::resolver::wanted::PORT;

/// Domains that are searched, at the most: older C libraries read no more.
const SEARCHED: usize = 6;
/// Name servers, at the most: the C library reads no more.
const SERVERS: usize = 3;
/// How a file of this agent's begins.
const WRITTEN: &str =
    "# Written by sluicegate-gateway, which puts back what was here before when it stops.\n";
/// How what was there before begins where it is kept.
const KEPT: &str =
    "# Kept by sluicegate-gateway: what the file beside this one was. It is put back when the agent stops.\n";

/// The file, and what was made of it.
pub(in crate::resolver) struct ResolvConf {
    path: PathBuf,
    state_dir: PathBuf,
    /// What this run wrote, while that is what the host is to read.
    written: Option<Vec<u8>>,
    /// Why it is left alone.
    left_alone: Option<String>,
}

/// What is at the path.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Something that no agent wrote, or nothing.
    Others,
    /// What this agent wrote, unchanged.
    Ours,
    /// What this agent wrote, changed by somebody since.
    Changed,
    /// What an agent with this state directory wrote.
    Another(String),
}

/// What was there before.
#[derive(Debug, PartialEq, Eq)]
enum Original {
    /// Nothing.
    Absent,
    /// A file with these permissions.
    File(u32),
    /// A link that leads there.
    Link(String),
}

impl ResolvConf {
    /// The file at `path`, for the agent of `state_dir`.
    pub(super) fn new(path: &Path, state_dir: &Path) -> Self {
        Self { path: path.into(), state_dir: state_dir.into(), written: None, left_alone: None }
    }

    pub(super) fn is_set(&self) -> bool {
        self.written.is_some()
    }

    pub(super) fn set(&mut self, wish: Option<&Wish>) -> Option<String> {
        // Without one that the C library can ask, the host is better off as it was.
        let reachable = |wish: &&Wish| wish.servers.iter().any(|server| server.port() == PORT);
        let done = match wish.filter(reachable) {
            Some(wish) => self.take(wish),
            None => self.give_back(),
        };
        let failed = done.err().map(|e| {
            format!(
                "the host does not ask this agent for names: {} cannot be written: {e}; mend that, or set \
                 `[dns] host` to \"off\"",
                self.path.display()
            )
        });
        failed.or_else(|| self.left_alone.clone())
    }

    fn take(&mut self, wish: &Wish) -> io::Result<()> {
        if self.left_alone.is_some() {
            return Ok(());
        }
        let now = read(&self.path)?;
        match &self.written {
            Some(written) if now.as_ref() != Some(written) => {
                self.leave_alone(now.as_deref());
                return Ok(());
            }
            Some(_) => {}
            None => match self.found(now.as_deref()) {
                Found::Others => self.keep()?,
                Found::Ours => {}
                Found::Changed | Found::Another(_) => {
                    self.leave_alone(now.as_deref());
                    return Ok(());
                }
            },
        }
        let Some((_, original)) = kept_bytes(&self.path)? else {
            return Err(io::Error::other(format!(
                "what was there before is not in {}",
                kept(&self.path).display()
            )));
        };
        let bytes = text(wish, &String::from_utf8_lossy(&original), &self.state_dir).into_bytes();
        if now.as_ref() != Some(&bytes) {
            put(&self.path, &bytes, 0o644)?;
        }
        self.written = Some(bytes);
        Ok(())
    }

    fn give_back(&mut self) -> io::Result<()> {
        self.left_alone = None;
        let Some(written) = self.written.take() else { return Ok(()) };
        if read(&self.path)?.as_ref() == Some(&written) {
            return put_back(&self.path);
        }
        tracing::warn!("{} was written by another program and stays as that left it", self.path.display());
        remove(&kept(&self.path))
    }

    /// Another program has the last word; what it wrote is what was there before from now on.
    fn leave_alone(&mut self, now: Option<&[u8]>) {
        let path = self.path.display();
        let sentence = match self.found(now) {
            Found::Another(state_dir) => format!(
                "the host does not ask this agent for names: {path} is written by the agent of {state_dir}, and a host has one"
            ),
            Found::Changed => format!(
                "the host may not ask this agent for names: another program has changed what this agent wrote to {path}, which \
                 is left as it is; what was there before is kept in {}: put that back by hand, then start the agent again",
                kept(&self.path).display()
            ),
            Found::Others | Found::Ours => {
                if self.written.is_some() {
                    // It would be put back after the next end of the agent.
                    let _ = remove(&kept(&self.path));
                }
                format!(
                    "the host does not ask this agent for names: another program has written {path}, which is left as it is; \
                     have that program leave the file alone, or use `[dns] host = \"systemd-resolved\"`, and start the agent \
                     again"
                )
            }
        };
        tracing::warn!("{sentence}");
        self.written = None;
        self.left_alone = Some(sentence);
    }

    fn found(&self, bytes: Option<&[u8]>) -> Found {
        found(bytes, &self.state_dir)
    }

    /// Keeps what is at the path, on disk when this returns.
    fn keep(&self) -> io::Result<()> {
        let (original, bytes) = match fs::symlink_metadata(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => (Original::Absent, None),
            Err(e) => return Err(e),
            Ok(there) if there.is_symlink() => {
                let target = fs::read_link(&self.path)?;
                (Original::Link(target.to_string_lossy().into_owned()), read(&self.path)?)
            }
            Ok(there) => (Original::File(there.permissions().mode() & 0o7777), read(&self.path)?),
        };
        let said = match original {
            Original::Absent => "# absent\n".to_owned(),
            Original::File(mode) => format!("# file {mode:o}\n"),
            Original::Link(target) => format!("# link {target}\n"),
        };
        let whole = [KEPT.as_bytes(), said.as_bytes(), bytes.as_deref().unwrap_or_default()].concat();
        put(&kept(&self.path), &whole, 0o644)
    }
}

/// What is at `path`, or was there before an agent came.
pub fn original(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = fs::read(path)?;
    if !bytes.starts_with(WRITTEN.as_bytes()) {
        return Ok(bytes);
    }
    Ok(kept_bytes(path)?.map(|(_, bytes)| bytes).unwrap_or_default())
}

/// Puts back what was at `path` before the agent of `state_dir` came, where an earlier run of it has not done so; whether there
/// was anything to do.
pub fn restore(path: &Path, state_dir: &Path) -> io::Result<bool> {
    // What cannot be read is nothing that this agent wrote.
    let Ok(bytes) = fs::read(path) else { return Ok(false) };
    match found(Some(&bytes), state_dir) {
        Found::Ours => put_back(path).map(|()| true),
        Found::Others | Found::Changed | Found::Another(_) => Ok(false),
    }
}

fn found(bytes: Option<&[u8]>, state_dir: &Path) -> Found {
    let text = String::from_utf8_lossy(bytes.unwrap_or_default());
    let Some(rest) = text.strip_prefix(WRITTEN) else { return Found::Others };
    let (said, rest) = rest.split_once('\n').unwrap_or((rest, ""));
    let mut words = said.splitn(3, ' ').skip(1);
    let (sum, dir) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if dir != state_dir.to_string_lossy() && !dir.is_empty() {
        return Found::Another(dir.to_owned());
    }
    if sum == check(rest) { Found::Ours } else { Found::Changed }
}

fn check(text: &str) -> String {
    crate::agent::hex(&Sha256::digest(text))
}

fn text(wish: &Wish, original: &str, state_dir: &Path) -> String {
    let mut search: Vec<String> = wish.search.iter().map(domain).collect();
    let mut theirs = original.lines().filter_map(|line| {
        let (key, rest) = line.trim().split_once(char::is_whitespace)?;
        matches!(key, "search" | "domain").then_some(rest)
    });
    // The last line of them counts.
    for domain in theirs.next_back().unwrap_or_default().split_whitespace() {
        let domain = domain.trim_end_matches('.').to_owned();
        if !domain.is_empty() && !search.contains(&domain) {
            search.push(domain);
        }
    }
    search.truncate(SEARCHED);
    let mut rest = String::new();
    if !search.is_empty() {
        rest += &format!("search {}\n", search.join(" "));
    }
    for server in wish.servers.iter().filter(|server| server.port() == PORT).take(SERVERS) {
        rest += &format!("nameserver {}\n", server.ip());
    }
    for line in original.lines().filter(|line| line.trim_start().starts_with("options")) {
        rest += &format!("{line}\n");
    }
    format!("{WRITTEN}# {} {}\n{rest}", check(&rest), state_dir.display())
}

fn domain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

/// Where what was at `path` is kept.
fn kept(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".before-sluicegate");
    path.with_file_name(name)
}

/// What is kept of `path`.
fn kept_bytes(path: &Path) -> io::Result<Option<(Original, Vec<u8>)>> {
    let Some(bytes) = read(&kept(path))? else { return Ok(None) };
    let Some(rest) = bytes.strip_prefix(KEPT.as_bytes()) else { return Ok(None) };
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (said, rest) = (String::from_utf8_lossy(&rest[..end]), rest.get(end + 1..).unwrap_or_default());
    let original = match said.trim_start_matches("# ").split_once(' ') {
        Some(("file", mode)) => Original::File(u32::from_str_radix(mode, 8).unwrap_or(0o644)),
        Some(("link", target)) => Original::Link(target.to_owned()),
        _ => Original::Absent,
    };
    Ok(Some((original, rest.to_vec())))
}

fn put_back(path: &Path) -> io::Result<()> {
    let Some((original, bytes)) = kept_bytes(path)? else {
        return Err(io::Error::other(format!("what was there before is not in {}", kept(path).display())));
    };
    match original {
        Original::Absent => remove(path)?,
        Original::File(mode) => put(path, &bytes, mode)?,
        Original::Link(target) => {
            let temporary = beside(path);
            remove(&temporary)?;
            symlink(target, &temporary)?;
            fs::rename(&temporary, path)?;
        }
    }
    remove(&kept(path))
}

/// Replaces what is at `path`, or writes it in its place where it is mounted by itself; on disk when this returns.
fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = beside(path);
    remove(&temporary)?;
    let replaced = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    match replaced {
        Ok(()) => fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all(),
        Err(e) => {
            let _ = fs::remove_file(&temporary);
            if e.kind() != ErrorKind::ResourceBusy {
                return Err(e);
            }
            // A mount point is the only name that cannot be given to another file.
            let mut file = fs::OpenOptions::new().write(true).open(path)?;
            file.write_all(bytes)?;
            file.set_len(bytes.len() as u64)?;
            file.sync_all()
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".sluicegate-new");
    path.with_file_name(name)
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
