//! The agent's end of the resolver.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::answer::Answers;
use super::listen::Server;
use super::own::Own;
use super::service::Service;
use super::state::{self, Shared};
use super::{Restored, Routed, Settings, Wanted, host};
use crate::netlink::Netlink;
use crate::status;

/// The agent's end: what is wanted, and how it goes.
pub struct Handle {
    wanted: Option<watch::Sender<Option<Arc<Wanted>>>>,
    answers: Arc<Answers>,
    shared: Shared,
    task: Option<JoinHandle<io::Result<()>>>,
}

/// Begins, without answering anything before [`Handle::want`]. What an earlier run that was killed made of the
/// host is taken back first. Needs a tokio runtime.
pub fn start(settings: Settings, netlink: Netlink) -> Handle {
    let path = &settings.dns.resolv_conf;
    match host::restore(path, &settings.state_dir) {
        Ok(Restored::PutBack) => {
            tracing::info!("{} is as it was before an earlier run of this agent", path.display())
        }
        Ok(Restored::Saved(saved)) => tracing::warn!(
            "{} is as it was before an earlier run of this agent; what another program made of the agent's is in {}",
            path.display(),
            saved.display()
        ),
        Ok(Restored::Nothing | Restored::Another(_)) => {}
        Err(e) => tracing::warn!("{} is as an earlier run of this agent left it: {e}", path.display()),
    }
    match host::revert(&settings.resolvectl, &settings.state_dir) {
        Ok(true) => {
            tracing::info!("systemd-resolved has forgotten what an earlier run of this agent told it")
        }
        Ok(false) => {}
        Err(e) => tracing::warn!("systemd-resolved may still ask an agent that does not answer: {e}"),
    }
    let answers = Arc::new(Answers::default());
    let shared = Shared::new(settings.dns.host);
    let (wanted, wanted_now) = watch::channel(None);
    let server = Server::new(answers.clone(), Arc::new(Own::new(netlink)));
    let service = Service::new(settings, server, shared.clone(), wanted_now);
    let task = tokio::spawn(service.run());
    Handle { wanted: Some(wanted), answers, shared, task: Some(task) }
}

impl Handle {
    /// From now on questions are answered like this, or not at all. Those in flight are answered all the same.
    pub fn want(&self, wanted: Option<&Wanted>) {
        let Some(sender) = &self.wanted else { return };
        sender.send_if_modified(|now| {
            let differs = now.as_deref() != wanted;
            if differs {
                *now = wanted.cloned().map(Arc::new);
            }
            differs
        });
    }

    /// From now on routers are asked by `routed`; without one, names of resources cannot be found out.
    pub fn route(&self, routed: Option<Arc<dyn Routed>>) {
        self.answers.route(routed);
    }

    /// How it goes; `None` while nothing is wanted.
    pub fn status(&self) -> Option<status::Dns> {
        state::status(&self.shared, &self.answers)
    }

    /// Conditions a person should know of, each a sentence.
    pub fn degraded(&self) -> Vec<String> {
        self.shared.lock().degraded.clone()
    }

    /// Answers nobody any more, and leaves the host as it was before; why that cannot be.
    pub async fn stop(&mut self) -> io::Result<()> {
        self.wanted = None;
        match self.task.take() {
            Some(task) => task.await.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}
