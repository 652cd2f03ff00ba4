//! Traffic that runs while something else happens.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sluicegate_lab::traffic::{Progress, Report, read_reports};
use sluicegate_lab::{Namespace, Process, Program, wait};

use super::world::World;

const FLOWING: Duration = Duration::from_secs(15);
const ENDING: Duration = Duration::from_secs(15);

/// A client of the lab in the background.
pub(crate) struct Stream {
    process: Process,
}

impl Stream {
    /// Numbered messages over one TCP connection, 100 a second.
    pub(crate) fn tcp(world: &World<'_>, from: &Namespace, to: IpAddr, port: u16) -> Result<Self> {
        Self::start(
            world,
            from,
            &["tcp-stream", &SocketAddr::new(to, port).to_string(), "--interval-ms", "10"],
        )
    }

    /// Numbered datagrams, 500 a second.
    pub(crate) fn udp(world: &World<'_>, from: &Namespace, to: IpAddr, port: u16) -> Result<Self> {
        Self::start(
            world,
            from,
            &["udp-stream", &SocketAddr::new(to, port).to_string(), "--interval-us", "2000"],
        )
    }

    /// A download without end.
    pub(crate) fn download(world: &World<'_>, from: &Namespace, to: IpAddr, port: u16) -> Result<Self> {
        Self::start(world, from, &["download", &SocketAddr::new(to, port).to_string()])
    }

    /// Starts it, again while the connection is refused or not answered, and waits until something came back.
    fn start(world: &World<'_>, from: &Namespace, args: &[&str]) -> Result<Self> {
        let program = Program::new(&world.traffic).args(args);
        let stream = wait::until(FLOWING, || -> Result<_> {
            let stream = Self { process: from.spawn(&format!("{}-{}", from.name(), args[0]), &program)? };
            Ok(stream.flows().then_some(stream))
        })?;
        stream.with_context(|| format!("`lab-traffic {}` from {} got no answer", args.join(" "), from.name()))
    }

    fn flows(&self) -> bool {
        let received = wait::until(FLOWING, || {
            if self.process.is_running() {
                Ok(self.progress().filter(|progress| progress.received > 0))
            } else {
                Err(())
            }
        });
        matches!(received, Ok(Some(_)))
    }

    /// Where it is.
    pub(crate) fn progress(&self) -> Option<Progress> {
        read_reports(&self.process.log()).0
    }

    /// Waits until `more` units have come after those there are now.
    pub(crate) fn wait_for_more(&self, more: u64, patience: Duration) -> Result<()> {
        let received = || self.progress().map_or(0, |progress| progress.received);
        let goal = received() + more;
        let reached = wait::until(patience, || Ok::<_, anyhow::Error>((received() >= goal).then_some(())))?;
        match reached {
            Some(()) => Ok(()),
            None => bail!("{} stalled: {}", self.process.name(), self.process.tail()),
        }
    }

    /// Ends it and returns what it saw.
    pub(crate) fn finish(self) -> Result<Report> {
        self.process.close_stdin();
        if self.process.wait(ENDING).is_none() {
            self.process.kill();
        }
        read_reports(&self.process.log()).1.with_context(|| format!("{} did not report", self.process.name()))
    }
}
