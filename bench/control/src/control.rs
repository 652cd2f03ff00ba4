//! The control process.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A start reads the whole account and compiles it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running `sluicegate-control serve`; killed when dropped.
pub(crate) struct Control {
    child: Child,
    started: Instant,
    directory: PathBuf,
    http: SocketAddr,
    agents: SocketAddr,
}

impl Control {
    /// Starts it over `directory`, at addresses that are free now.
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let (http, agents) = (free()?, free()?);
        let (child, started) = spawn(directory, http, agents)?;
        let mut control = Self { child, started, directory: directory.into(), http, agents };
        control.answers().await?;
        Ok(control)
    }

    /// Starts it again at the same addresses.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        (self.child, self.started) = spawn(&self.directory, self.http, self.agents)?;
        self.answers().await
    }

    /// Ends it without a chance to tidy up.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("control could not be killed")?;
        self.child.wait().context("control did not end")?;
        Ok(())
    }

    /// When the process was started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Address of the REST API.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Address of the agents' service.
    pub(crate) fn agents(&self) -> SocketAddr {
        self.agents
    }

    /// The owner's token.
    pub(crate) fn token(&self) -> Result<String> {
        let file = self.directory.join(sluicegate_control::store::TOKEN_FILE);
        let token =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(token.trim().to_owned())
    }

    /// Resident memory now, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The highest resident memory so far, in bytes.
    pub(crate) fn highest(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    /// A line of proc(5) `status`.
    fn memory(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Ok(kilobytes.with_context(|| format!("no {name} in the status of control"))? * 1024)
    }

    async fn answers(&mut self) -> Result<()> {
        let url = format!("http://{}/healthz", self.http);
        while self.started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                bail!("control ended: {status}");
            }
            if reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("control does not answer at {url}")
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // In vain where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path, http: SocketAddr, agents: SocketAddr) -> Result<(Child, Instant)> {
    let program = std::env::current_exe()?.with_file_name("sluicegate-control");
    let mut command = Command::new(&program);
    command
        .arg("serve")
        .args(["--http", &http.to_string(), "--grpc", &agents.to_string()])
        .arg("--data-dir")
        .arg(directory)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null());
    // One token does what a hundred operators' would.
    let config = directory.join("control.toml");
    std::fs::write(&config, "[rest]\nburst = 0\n")?;
    command.arg("--config").arg(&config);
    let started = Instant::now();
    let child = command.spawn().with_context(|| {
        format!(
            "cannot start {}: build it with `cargo build --release -p sluicegate-control`, as `cargo xtask bench control` does",
            program.display()
        )
    })?;
    Ok((child, started))
}

/// An address of the loopback device that nobody uses now.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
