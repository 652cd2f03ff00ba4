//! Control, agents and site, up and in step.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sluicegate_lab::{Lab, wait};

use super::agent::{Agent, Common, Role};
use super::control::Control;
use super::topology::{Hosts, SiteHosts};
use super::{Datapath, say};

/// The site: groups, network, resources, routers.
const SITE: &str = include_str!("site.yml");
/// Who may reach what of it.
const POLICIES: &str = include_str!("policies.yml");

/// How long agents may take to enforce a change before the demo gives up.
const IN_STEP: Duration = Duration::from_secs(20);

/// Everything that is running.
pub(crate) struct World<'a> {
    pub(crate) control: Control,
    pub(crate) gw1: Agent,
    pub(crate) gw2: Agent,
    pub(crate) alice: Agent,
    pub(crate) carol: Agent,
    pub(crate) mona: Agent,
    pub(crate) site: SiteHosts,
    pub(crate) datapath: Datapath,
    pub(crate) traffic: PathBuf,
    lab: &'a Lab,
}

impl<'a> World<'a> {
    /// Starts everything in `lab`, which owns it.
    pub(crate) fn start(lab: &'a Lab, binaries: &Path, datapath: Datapath) -> Result<Self> {
        say(&format!("laying cables (run {})", lab.run_id()));
        let hosts = Hosts::make(lab)?;
        let traffic = binaries.join("lab-traffic");
        hosts.site.serve(&traffic)?;
        say("starting control");
        let control = Control::start(&hosts.control, binaries, lab.dir())?;
        // On a new account it lets all peers reach each other.
        control.switch_policy("Default", false)?;
        say("two gateways and three peers join");
        let bpffs = lab.bpffs()?;
        let common = Common { binaries, dir: lab.dir(), bpffs: &bpffs, datapath, control: &control };
        let join = |namespace, number, role, group| Agent::join(&common, namespace, number, role, group);
        let [gw1, gw2] = &hosts.gateways;
        let [alice, carol, mona] = &hosts.peers;
        let gw1 = join(gw1, 11, Role::Gateway, "gateways")?;
        let gw2 = join(gw2, 12, Role::Gateway, "gateways")?;
        let alice = join(alice, 21, Role::Peer, "engineering")?;
        let carol = join(carol, 22, Role::Peer, "contractors")?;
        let mona = join(mona, 23, Role::Peer, "monitoring")?;
        let world = Self { control, gw1, gw2, alice, carol, mona, site: hosts.site, datapath, traffic, lab };
        world.apply_site()?;
        for agent in world.agents() {
            agent.start()?;
        }
        for agent in world.agents() {
            agent.wait_until_ready()?;
        }
        Ok(world)
    }

    pub(crate) fn agents(&self) -> [&Agent; 5] {
        [&self.gw1, &self.gw2, &self.alice, &self.carol, &self.mona]
    }

    /// Tells control of the site; nothing of it is open yet.
    fn apply_site(&self) -> Result<()> {
        self.apply(&self.lab.dir().join("site.yml"), SITE)
    }

    /// Applies the policy file and waits until every gateway enforces it.
    pub(crate) fn apply_policies(&self) -> Result<()> {
        self.apply(&self.policy_file(), POLICIES)?;
        self.wait_until_in_step()
    }

    /// Writes `text` to `file` and applies it with `sluice`.
    fn apply(&self, file: &Path, text: &str) -> Result<()> {
        fs::write(file, text)?;
        let file = file.to_str().context("the lab's directory is not UTF-8")?;
        self.control.sluice(&["policy", "apply", "-f", file])?.output().map(drop)
    }

    /// The policy file, for a person to change and apply again.
    pub(crate) fn policy_file(&self) -> PathBuf {
        self.lab.dir().join("policies.yml")
    }

    /// Waits until every agent that is connected enforces the image control wants it to.
    pub(crate) fn wait_until_in_step(&self) -> Result<()> {
        let mut last = Value::Null;
        let reached = wait::until(IN_STEP, || -> Result<_> {
            last = self.control.get("/api/gateways")?;
            let gateways = last.as_array().context("/api/gateways is not a list")?;
            let connected: Vec<_> = gateways.iter().filter(|gateway| gateway["connected"] == true).collect();
            let in_step = connected.iter().all(|gateway| gateway["image"]["in_sync"] == true);
            Ok((in_step && !connected.is_empty()).then_some(()))
        })?;
        match reached {
            Some(()) => Ok(()),
            None => bail!(
                "the gateways did not apply the newest policies within {IN_STEP:?}; /api/gateways: {last:#}"
            ),
        }
    }

    /// Where the processes' logs are.
    pub(crate) fn logs(&self) -> PathBuf {
        self.lab.logs()
    }
}
