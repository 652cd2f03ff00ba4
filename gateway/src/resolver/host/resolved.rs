//! systemd-resolved, by its own program.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;

use super::Wish;

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts after one that failed.
const RETRY: Duration = Duration::from_secs(10);

/// What systemd-resolved was told of the overlay device.
pub(in crate::resolver) struct Resolved {
    program: PathBuf,
    device: String,
    told: Option<Wish>,
    /// What is wrong, and since when.
    trouble: Option<(String, Instant)>,
}

impl Resolved {
    pub(super) fn new(program: &Path, device: &str) -> Self {
        Self { program: program.into(), device: device.into(), told: None, trouble: None }
    }

    pub(super) async fn set(&mut self, wish: Option<&Wish>) -> Option<String> {
        let Some(wish) = wish else {
            if self.told.take().is_some() {
                // Where the device is gone already, all that was said of it is, too.
                let _ = self.run("revert", &[]).await;
            }
            self.trouble = None;
            return None;
        };
        let waits = self.trouble.as_ref().is_some_and(|(_, since)| since.elapsed() < RETRY);
        if self.told.as_ref() != Some(wish) && !waits {
            match self.tell(wish).await {
                Ok(()) => {
                    self.told = Some(wish.clone());
                    self.trouble = None;
                }
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
        let domains: Vec<String> = search.chain(routed.map(|domain| format!("~{}", text(domain)))).collect();
        self.run("dns", &servers).await?;
        self.run("domain", &domains).await?;
        self.run("default-route", &[if wish.all { "yes".into() } else { "no".into() }]).await
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
            "#!/bin/sh\necho \"$@\" >> {}\n[ ! -e {}/fail ] || {{ echo no bus >&2; exit 1; }}\n",
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
        let mut resolved = Resolved::new(&program(dir.path()), "sluice0");
        assert_eq!(resolved.set(Some(&wish())).await, None);
        assert_eq!(
            called(dir.path()),
            [
                "dns sluice0 100.90.0.7 [::1]:5353",
                "domain sluice0 peers.test ~corp.test",
                "default-route sluice0 no"
            ]
        );
        assert!(resolved.is_set());
        assert_eq!(resolved.set(Some(&wish())).await, None);
        assert!(called(dir.path()).is_empty(), "nothing is new");
        let all = Wish { all: true, ..wish() };
        resolved.set(Some(&all)).await;
        assert_eq!(called(dir.path())[2], "default-route sluice0 yes");
        resolved.set(None).await;
        assert_eq!(called(dir.path()), ["revert sluice0 "].map(str::trim));
        assert!(!resolved.is_set());
        resolved.set(None).await;
        assert!(called(dir.path()).is_empty());
    }

    #[tokio::test]
    async fn what_it_says_when_it_fails_is_said_and_it_is_not_asked_all_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut resolved = Resolved::new(&program(dir.path()), "sluice0");
        std::fs::write(dir.path().join("fail"), "").unwrap();
        for _ in 0..3 {
            let sentence = resolved.set(Some(&wish())).await.unwrap();
            assert!(sentence.contains("no bus") && sentence.contains("[dns] host"), "{sentence}");
        }
        assert_eq!(called(dir.path()).len(), 1);
        let mut absent = Resolved::new(&dir.path().join("absent"), "sluice0");
        let sentence = absent.set(Some(&wish())).await.unwrap();
        assert!(sentence.contains("cannot be run"), "{sentence}");
        assert!(!absent.is_set());
    }
}
