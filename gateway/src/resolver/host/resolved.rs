//! systemd-resolved, by its own program.
//!
//! Before it is told anything a file in the state directory says of which device, so that any next run, or a detach, has it forget
//! what a run that was killed has told it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;

use super::Wish;
use crate::files;

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts after one that failed.
const RETRY: Duration = Duration::from_secs(10);

/// Until it is told again: started anew, it knows nothing.
const AGAIN: Duration = Duration::from_secs(60);
/// The file in the state directory that names the device of which it was told something.
const MARK: &str = "systemd-resolved";

/// What systemd-resolved was told of the overlay device.
pub(in crate::resolver) struct Resolved {
    program: PathBuf,
    device: String,
    state_dir: PathBuf,
    /// What it was told, and when.
    told: Option<(Wish, Instant)>,
    again: Duration,
    /// What is wrong, and since when.
    trouble: Option<(String, Instant)>,
}

impl Resolved {
    pub(super) fn new(program: &Path, device: &str, state_dir: &Path) -> Self {
        Self {
            program: program.into(),
            device: device.into(),
            state_dir: state_dir.into(),
            told: None,
            again: AGAIN,
            trouble: None,
        }
    }

    pub(super) async fn set(&mut self, wish: Option<&Wish>) -> Option<String> {
        let Some(wish) = wish else { return self.forget().await };
        let knows = |(told, since): &(Wish, Instant)| told == wish && since.elapsed() < self.again;
        let waits = self.trouble.as_ref().is_some_and(|(_, since)| since.elapsed() < RETRY);
        if !self.told.as_ref().is_some_and(knows) && !waits {
            self.told = None;
            self.trouble = None;
            match self.tell(wish).await {
                Ok(()) => self.told = Some((wish.clone(), Instant::now())),
                Err(why) => {
                    let sentence = format!(
                        "systemd-resolved does not ask this agent for names: {why}; it is tried again, or set `[dns] host` to \
                         \"resolv.conf\" or \"off\""
                    );
                    self.trouble = Some((sentence, Instant::now()));
                }
            }
        }
        self.trouble.as_ref().map(|(sentence, _)| sentence.clone())
    }

    /// Has it forget what it was told.
    async fn forget(&mut self) -> Option<String> {
        if self.told.take().is_some() || !mark(&self.state_dir).exists() {
            self.trouble = None;
        }
        let waits = self.trouble.as_ref().is_some_and(|(_, since)| since.elapsed() < RETRY);
        if mark(&self.state_dir).exists() && !waits {
            self.trouble = self.revert().await.err().map(|why| {
                let sentence = format!(
                    "systemd-resolved may still ask this agent for names, which does not answer: {why}; it is tried again"
                );
                (sentence, Instant::now())
            });
        }
        self.trouble.as_ref().map(|(sentence, _)| sentence.clone())
    }

    pub(super) fn is_set(&self) -> bool {
        self.told.is_some()
    }

    async fn tell(&self, wish: &Wish) -> Result<(), String> {
        let servers: Vec<String> = wish
            .servers
            .iter()
            .map(|server| if server.port() == 53 { server.ip().to_string() } else { server.to_string() })
            .collect();
        let text =
            |name: &hickory_resolver::proto::rr::Name| name.to_ascii().trim_end_matches('.').to_owned();
        let search = wish.search.iter().map(text);
        let routed = wish.domains.iter().filter(|domain| !wish.search.contains(domain));
        let routed = routed.map(|domain| format!("~{}", text(domain)));
        // Else it asks for names outside of these domains at the servers of every device that has a default route.
        let all = wish.all.then(|| "~.".to_owned());
        let domains: Vec<String> = search.chain(routed).chain(all).collect();
        let no = || vec!["no".to_owned()];
        let lines = [
            ("dns", servers),
            ("domain", domains),
            ("default-route", if wish.all { vec!["yes".into()] } else { no() }),
            // The agent speaks neither; whether signatures hold is for the name servers it asks.
            ("dnsovertls", no()),
            ("dnssec", no()),
        ];
        let had_mark = mark(&self.state_dir).exists();
        self.make_mark()?;
        for (place, (verb, rest)) in lines.iter().enumerate() {
            let Err(why) = self.run(verb, rest).await else { continue };
            if place > 0 {
                // Half of it would send the host's questions astray.
                self.revert().await.map_err(|e| format!("{why}; and {e}"))?;
            } else if !had_mark {
                let _ = std::fs::remove_file(mark(&self.state_dir));
            }
            return Err(why);
        }
        Ok(())
    }

    fn make_mark(&self) -> Result<(), String> {
        let device = format!("{}\n", self.device);
        files::make_dir(&self.state_dir)
            .and_then(|()| files::write(&mark(&self.state_dir), device.as_bytes(), 0o600))
            .map_err(|e| e.to_string())
    }

    async fn revert(&self) -> Result<(), String> {
        match self.run("revert", &[]).await {
            Err(why) if crate::tun::index_of(&self.device).is_ok() => Err(why),
            // Where the device is gone already, all that was said of it is, too.
            _ => remove(&mark(&self.state_dir)).map_err(|e| e.to_string()),
        }
    }

    async fn run(&self, verb: &str, rest: &[String]) -> Result<(), String> {
        let line = format!("`{} {verb} {}`", self.program.display(), self.device);
        let ran = Command::new(&self.program)
            .arg(verb)
            .arg(&self.device)
            .args(rest)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(PATIENCE, ran).await {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(format!("{line} failed: {}", if said.is_empty() { "it says nothing" } else { &said }))
            }
            Ok(Err(e)) => Err(format!("{line} cannot be run: {e}")),
            Err(_) => Err(format!("{line} does not end")),
        }
    }
}

/// Has systemd-resolved forget, by its `program`, what an earlier run of the agent of `state_dir` told it and did not take back;
/// whether there was anything to do.
pub fn revert(program: &Path, state_dir: &Path) -> io::Result<bool> {
    let device = match std::fs::read_to_string(mark(state_dir)) {
        Ok(text) => text.trim().to_owned(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let done = end_of(program, &["revert", &device]);
    match done {
        // Where the device is gone already, all that was said of it is, too.
        Err(why) if crate::tun::index_of(&device).is_ok() => {
            Err(io::Error::other(format!("`{} revert {device}` failed: {why}", program.display())))
        }
        _ => remove(&mark(state_dir)).map(|()| true),
    }
}

/// Runs a program to its end, which must be a good one.
fn end_of(program: &Path, arguments: &[&str]) -> io::Result<()> {
    let mut child = std::process::Command::new(program).args(arguments).stdin(Stdio::null()).spawn()?;
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        match child.try_wait()? {
            Some(ended) if ended.success() => return Ok(()),
            Some(ended) => return Err(io::Error::other(ended.to_string())),
            None if std::time::Instant::now() > until => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::other("it does not end"));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn mark(state_dir: &Path) -> PathBuf {
    state_dir.join(MARK)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::super::wanted::name;
    use super::*;

    /// A program that writes down how it was called, and fails where a file says so.
    fn program(dir: &Path) -> PathBuf {
        let path = dir.join("resolvectl");
        let log = dir.join("log");
        let text = format!(
            "#!/bin/sh\necho \"$@\" >> {0}\n[ ! -e {1}/fail ] && [ ! -e {1}/fail-$1 ] || {{ echo no bus >&2; exit 1; }}\n",
            log.display(),
            dir.display()
        );
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn called(dir: &Path) -> Vec<String> {
        let log = dir.join("log");
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(log);
        text.lines().map(str::to_owned).collect()
    }

    /// Of loopback, which is there.
    fn resolved(dir: &Path) -> Resolved {
        Resolved::new(&program(dir), "lo", &dir.join("state"))
    }

    fn wish() -> Wish {
        Wish {
            servers: vec!["100.90.0.7:53".parse().unwrap(), "[::1]:5353".parse().unwrap()],
            search: vec![name("peers.test").unwrap()],
            domains: vec![name("corp.test").unwrap(), name("peers.test").unwrap()],
            all: false,
        }
    }

    #[tokio::test]
    async fn the_overlay_device_is_told_where_and_for_what_to_ask_and_forgets_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut resolved = resolved(dir.path());
        assert_eq!(resolved.set(Some(&wish())).await, None);
        assert_eq!(
            called(dir.path()),
            [
                "dns lo 100.90.0.7 [::1]:5353",
                "domain lo peers.test ~corp.test",
                "default-route lo no",
                "dnsovertls lo no",
                "dnssec lo no"
            ]
        );
        assert!(resolved.is_set());
        assert_eq!(resolved.set(Some(&wish())).await, None);
        assert!(called(dir.path()).is_empty(), "nothing is new");
        let all = Wish { all: true, ..wish() };
        resolved.set(Some(&all)).await;
        assert_eq!(
            called(dir.path())[1..3],
            ["domain lo peers.test ~corp.test ~.", "default-route lo yes"],
            "names of no domain that it was told are asked for here alone"
        );
        resolved.set(None).await;
        assert_eq!(called(dir.path()), ["revert lo"]);
        assert!(!resolved.is_set());
        resolved.set(None).await;
        assert!(called(dir.path()).is_empty());
    }

    #[tokio::test]
    async fn what_it_says_when_it_fails_is_said_and_it_is_not_asked_all_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut resolved = resolved(dir.path());
        std::fs::write(dir.path().join("fail"), "").unwrap();
        for _ in 0..3 {
            let sentence = resolved.set(Some(&wish())).await.unwrap();
            assert!(sentence.contains("no bus") && sentence.contains("[dns] host"), "{sentence}");
        }
        assert_eq!(called(dir.path()).len(), 1);
        assert_eq!(resolved.set(None).await, None);
        assert!(called(dir.path()).is_empty(), "it was told nothing");
        let mut absent = Resolved::new(&dir.path().join("absent"), "lo", &dir.path().join("state"));
        let sentence = absent.set(Some(&wish())).await.unwrap();
        assert!(sentence.contains("cannot be run"), "{sentence}");
        assert!(!absent.is_set());
    }

    #[tokio::test]
    async fn what_a_run_that_was_killed_told_it_is_taken_back_by_whoever_comes_next() {
        let dir = tempfile::tempdir().unwrap();
        let (program, state) = (program(dir.path()), dir.path().join("state"));
        assert!(!revert(&program, &state).unwrap());
        let mut killed = resolved(dir.path());
        killed.set(Some(&wish())).await;
        drop(killed);
        called(dir.path());
        std::fs::write(dir.path().join("fail"), "").unwrap();
        assert!(revert(&program, &state).unwrap_err().to_string().contains("revert lo"));
        std::fs::remove_file(dir.path().join("fail")).unwrap();
        assert!(revert(&program, &state).unwrap());
        assert!(!revert(&program, &state).unwrap(), "there is nothing more to do");
        assert_eq!(called(dir.path()), ["revert lo"; 2]);
    }

    #[tokio::test]
    async fn what_was_told_of_a_device_that_is_gone_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let mut resolved = Resolved::new(&program(dir.path()), "no-such-dev", &state);
        for by_itself in [true, false] {
            assert_eq!(resolved.set(Some(&wish())).await, None);
            std::fs::write(dir.path().join("fail"), "").unwrap();
            match by_itself {
                true => assert_eq!(resolved.set(None).await, None),
                false => assert!(revert(&dir.path().join("resolvectl"), &state).unwrap()),
            }
            std::fs::remove_file(dir.path().join("fail")).unwrap();
            assert!(!mark(&state).exists());
            resolved.told = None;
        }
    }

    #[tokio::test]
    async fn half_of_what_it_was_told_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut resolved = resolved(dir.path());
        std::fs::write(dir.path().join("fail-domain"), "").unwrap();
        assert!(resolved.set(Some(&wish())).await.unwrap().contains("no bus"));
        assert_eq!(called(dir.path()).last().unwrap(), "revert lo");
        assert!(!resolved.is_set() && !mark(&dir.path().join("state")).exists());
    }

    #[tokio::test]
    async fn what_cannot_be_taken_back_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut resolved = resolved(dir.path());
        resolved.set(Some(&wish())).await;
        std::fs::write(dir.path().join("fail-revert"), "").unwrap();
        let sentence = resolved.set(None).await.unwrap();
        assert!(sentence.contains("may still ask this agent") && sentence.contains("no bus"), "{sentence}");
        assert!(mark(&dir.path().join("state")).exists());
    }

    #[tokio::test]
    async fn it_is_told_again_once_in_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let mut resolved = resolved(dir.path());
        resolved.again = Duration::ZERO;
        for _ in 0..2 {
            assert_eq!(resolved.set(Some(&wish())).await, None);
            assert_eq!(called(dir.path()).len(), 5, "it may have been started anew");
            assert!(resolved.is_set());
        }
    }
}
