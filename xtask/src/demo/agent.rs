//! A gateway or peer: joined, started, killed, started again.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use sluicegate_lab::{Namespace, Process, Program, wait};

use super::Datapath;
use super::control::{Control, grpc};
use super::topology::{DNS, Family, SITE_DEVICE, site, underlay};

/// The overlay's device in every agent's host.
pub(crate) const OVERLAY_DEVICE: &str = "sluice0";

const METRICS: u16 = 9464;
const WIREGUARD: u16 = 51820;
const JOINED: Duration = Duration::from_secs(30);
const READY: Duration = Duration::from_secs(30);

/// What an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Gateway,
    Peer,
}

/// An agent that has joined.
pub(crate) struct Agent {
    pub(crate) namespace: Namespace,
    pub(crate) role: Role,
    /// Last octet of its underlay address.
    number: u8,
    binary: PathBuf,
    dir: PathBuf,
    bpffs: PathBuf,
    datapath: Datapath,
    process: Mutex<Option<Process>>,
}

/// What all agents share.
pub(crate) struct Common<'a> {
    pub(crate) binaries: &'a Path,
    pub(crate) dir: &'a Path,
    pub(crate) bpffs: &'a Path,
    pub(crate) datapath: Datapath,
    pub(crate) control: &'a Control,
}

impl Agent {
    /// Joins `namespace` to control as a member of `group`; does not start it.
    pub(crate) fn join(
        common: &Common<'_>,
        namespace: &Namespace,
        number: u8,
        role: Role,
        group: &str,
    ) -> Result<Self> {
        let name = namespace.name();
        let dir = common.dir.join(name);
        fs::create_dir(&dir)?;
        let key_file = dir.join("setup-key");
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key_file)?;
        file.write_all(common.control.group_with_key(group, name)?.as_bytes())?;
        let agent = Self {
            namespace: namespace.clone(),
            role,
            number,
            binary: common.binaries.join("sluicegate-gateway"),
            bpffs: common.bpffs.join(name),
            dir,
            datapath: common.datapath,
            process: Mutex::default(),
        };
        let role = if role == Role::Gateway { "gateway" } else { "peer" };
        let join = agent
            .program("join")
            .args([
                "--control",
                &format!("https://{}", grpc()),
                "--role",
                role,
                "--name",
                name,
                "--setup-key-file",
            ])
            .arg(&key_file);
        namespace.run(&join, JOINED)?.output().with_context(|| format!("{name} could not join"))?;
        fs::remove_file(key_file)?;
        Ok(agent)
    }

    /// Starts it, without waiting.
    pub(crate) fn start(&self) -> Result<()> {
        let mut run = self.program("run").args(["--datapath", self.datapath.name()]);
        run = run.args(["--metrics", &self.metrics().to_string()]);
        if self.role == Role::Gateway {
            let endpoint = SocketAddr::new(underlay(self.number).into(), WIREGUARD);
            run = run.args(["--site-device", SITE_DEVICE, "--endpoint", &endpoint.to_string()]);
        }
        let process = self.namespace.spawn(self.name(), &run)?;
        *self.process() = Some(process);
        Ok(())
    }

    /// Waits until it says that it is ready.
    pub(crate) fn wait_until_ready(&self) -> Result<()> {
        let process = self.process().clone().with_context(|| format!("{} was not started", self.name()))?;
        wait::http(&self.namespace, self.metrics(), "/readyz", &process, READY)
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&self) {
        if let Some(process) = self.process().take() {
            process.kill();
        }
    }

    /// Its name in control, and its namespace's.
    pub(crate) fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Its overlay address.
    pub(crate) fn overlay(&self, control: &Control, family: Family) -> Result<IpAddr> {
        let peer = control.named("/api/peers", self.name())?;
        let field = if family == Family::V4 { "ip" } else { "ipv6" };
        let text = peer[field].as_str().with_context(|| format!("peer {} has no {field}", self.name()))?;
        text.split('/').next().unwrap_or(text).parse().with_context(|| format!("{text:?} is no address"))
    }

    /// Where its metrics are served.
    pub(crate) fn metrics(&self) -> SocketAddr {
        SocketAddr::new(underlay(self.number).into(), METRICS)
    }

    /// The agent's program with what every verb takes.
    pub(crate) fn program(&self, verb: &str) -> Program {
        Program::new(&self.binary)
            .args([verb.as_ref(), "--state-dir".as_ref(), self.dir.join("state").as_os_str()])
            .args(["--socket".as_ref(), self.socket().as_os_str()])
            .args(["--bpf-dir".as_ref(), self.bpffs.as_os_str()])
            .env("SLUICEGATE_CONFIG", self.config_file())
    }

    /// Where its programs and maps are pinned.
    pub(crate) fn bpf_dir(&self) -> &Path {
        &self.bpffs
    }

    /// The unix socket it listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("gateway.sock")
    }

    /// What flags do not say; the host's own /etc/sluicegate is none of the demo's business.
    fn config_file(&self) -> PathBuf {
        let path = self.dir.join("gateway.toml");
        let servers = Family::BOTH.map(|family| site(DNS, family).to_string());
        let text = match self.role {
            Role::Gateway => format!("[names]\nservers = {servers:?}\n"),
            Role::Peer => String::new(),
        };
        // When it cannot be written, the agent says so.
        let _ = fs::write(&path, text);
        path
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
