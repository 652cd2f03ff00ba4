//! The host's resolv.conf: it is replaced while this agent answers, and put back as it was.
//!
//! What was there is kept first, so that it can be put back after any end of the agent, by its next run. A link is replaced
//! itself and put back as the same link: the file that it leads to is somebody else's and is never written. A file that is
//! mounted by itself, as containers have it, cannot be replaced and is written in its place. Whoever else writes the file has the
//! last word: what this agent did not write it leaves as it is. Who only changes what this agent wrote has it until the agent
//! stops: servers that do not answer any more are nobody's wish.

mod kept;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hickory_resolver::proto::rr::Name;
use sha2::{Digest as _, Sha256};

use self::kept::Original;
use super::Wish;
use crate::resolver::wanted::PORT;

/// Domains that are searched, at the most: older C libraries read no more.
const SEARCHED: usize = 6;
/// Name servers, at the most: the C library reads no more.
const SERVERS: usize = 3;
/// How a file of this agent's begins.
const WRITTEN: &str =
    "# Written by sluicegate-gateway, which puts back what was here before when it stops.\n";
/// How the name ends of what somebody made of a file of this agent's.
const CHANGED: &str = ".changed-sluicegate";

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

/// What became of the host's file when an agent's was to be taken off it.
#[derive(Debug, PartialEq, Eq)]
pub enum Restored {
    /// No agent wrote it; it stays as it is.
    Nothing,
    /// What was there before is there again.
    PutBack,
    /// The same; somebody had changed what the agent wrote, and that is in this file now.
    Saved(PathBuf),
    /// The agent of this state directory wrote it; it stays as it is.
    Another(String),
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
        let path = self.path.display().to_string();
        let failed = match wish.filter(reachable) {
            Some(wish) => self.take(wish).err().map(|e| {
                format!(
                    "the host does not ask this agent for names: {path} cannot be written: {e}; mend that, or set `[dns] host` to \
                     \"off\""
                )
            }),
            None => self.give_back().err().map(|e| {
                format!(
                    "the host may still ask this agent for names, which does not answer: {path} cannot be put back as it was: \
                     {e}; mend that, or write the file by hand; it is tried again"
                )
            }),
        };
        failed.or_else(|| self.left_alone.clone())
    }

    fn take(&mut self, wish: &Wish) -> io::Result<()> {
        if self.left_alone.is_some() {
            return Ok(());
        }
        let now = kept::read(&self.path)?;
        match &self.written {
            Some(written) if now.as_ref() != Some(written) => {
                self.leave_alone(now.as_deref());
                return Ok(());
            }
            Some(_) => {}
            None => match self.found(now.as_deref()) {
                // What was there before somebody took it away is still that.
                Found::Others if self.is_absent() && self.original()?.is_some() => {}
                Found::Others => kept::keep(&self.path, &self.state_dir)?,
                Found::Ours => {}
                Found::Changed | Found::Another(_) => {
                    self.leave_alone(now.as_deref());
                    return Ok(());
                }
            },
        }
        let Some((_, original)) = self.original()? else {
            return Err(kept::lost(&self.path, &self.state_dir));
        };
        let bytes = text(wish, &String::from_utf8_lossy(&original), &self.state_dir).into_bytes();
        if now.as_ref() != Some(&bytes) {
            kept::put(&self.path, &bytes, 0o644)?;
        }
        self.written = Some(bytes);
        Ok(())
    }

    fn give_back(&mut self) -> io::Result<()> {
        self.left_alone = None;
        let restored = restore(&self.path, &self.state_dir)?;
        let path = self.path.display();
        match restored {
            Restored::PutBack => {}
            Restored::Saved(saved) => tracing::warn!(
                "{path} is as it was before this agent; what another program made of the agent's is in {}",
                saved.display()
            ),
            Restored::Nothing | Restored::Another(_) => {
                if self.written.is_some() {
                    tracing::warn!("{path} was written by another program and stays as that left it");
                    self.forget()?;
                }
            }
        }
        self.written = None;
        Ok(())
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
                 is left as it is while the agent runs and then put back as it was before: start the agent again"
            ),
            Found::Others | Found::Ours => {
                if self.written.is_some() {
                    // It would be put back after the next end of the agent.
                    let _ = self.forget();
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

    fn is_absent(&self) -> bool {
        fs::symlink_metadata(&self.path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
    }

    fn original(&self) -> io::Result<Option<(Original, Vec<u8>)>> {
        kept::original(&self.path, &self.state_dir)
    }

    /// What was there before is so no more: another program has written the file. Where there is none, it is nobody's wish yet.
    fn forget(&self) -> io::Result<()> {
        if self.is_absent() { Ok(()) } else { kept::forget(&self.path, &self.state_dir) }
    }
}

/// What is at `path`, or was there before an agent came.
pub fn original(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = fs::read(path)?;
    let Some(head) = Head::read(&bytes) else { return Ok(bytes) };
    Ok(kept::original(path, &head.state_dir)?.map(|(_, bytes)| bytes).unwrap_or_default())
}

/// Whose changes are those of [`original`]: the file at `path`, or where that led as a link before an agent came.
pub fn original_path(path: &Path) -> PathBuf {
    let head = fs::read(path).ok().and_then(|bytes| Head::read(&bytes));
    let original = head.and_then(|head| kept::original(path, &head.state_dir).ok().flatten());
    match original {
        Some((Original::Link(target), _)) => kept::led_to(path, &target),
        _ => path.into(),
    }
}

/// Puts back what was at `path` before the agent of `state_dir` came, where an earlier run of it has not done so; also where
/// somebody has changed what that wrote.
pub fn restore(path: &Path, state_dir: &Path) -> io::Result<Restored> {
    // What cannot be read is nothing that this agent wrote.
    let Ok(bytes) = fs::read(path) else { return Ok(Restored::Nothing) };
    match found(Some(&bytes), state_dir) {
        Found::Others => Ok(Restored::Nothing),
        Found::Another(state_dir) => Ok(Restored::Another(state_dir)),
        Found::Ours => kept::put_back(path, state_dir).map(|()| Restored::PutBack),
        Found::Changed => {
            if kept::original(path, state_dir)?.is_none() {
                return Err(kept::lost(path, state_dir));
            }
            let saved = kept::beside(path, CHANGED);
            kept::put(&saved, &bytes, 0o644)?;
            kept::put_back(path, state_dir).map(|()| Restored::Saved(saved))
        }
    }
}

/// What a file of an agent's says of itself.
struct Head {
    /// The check of what follows.
    sum: String,
    /// The agent's; empty where somebody has taken that out.
    state_dir: PathBuf,
    rest: String,
}

impl Head {
    /// Of a file that an agent wrote.
    fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let rest = text.strip_prefix(WRITTEN)?;
        let (said, rest) = rest.split_once('\n').unwrap_or((rest, ""));
        let (sum, dir) = said.strip_prefix("# ").and_then(|said| said.split_once(' ')).unwrap_or_default();
        Some(Self { sum: sum.into(), state_dir: dir.into(), rest: rest.into() })
    }
}

fn found(bytes: Option<&[u8]>, state_dir: &Path) -> Found {
    let Some(head) = Head::read(bytes.unwrap_or_default()) else { return Found::Others };
    if head.state_dir != state_dir && head.state_dir != Path::new("") {
        return Found::Another(head.state_dir.to_string_lossy().into_owned());
    }
    if head.sum == check(&head.rest) { Found::Ours } else { Found::Changed }
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

#[cfg(test)]
mod tests;
