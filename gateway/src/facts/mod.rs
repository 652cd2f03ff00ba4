//! What posture checks judge this machine by, beside its system: addresses, and executables that run or do not.
//!
//! Control is told when its stream opens, when something is different, and once a minute: then it knows that this is still so.

mod processes;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_api::agent::Facts;
use sluicegate_api::agent::facts::Addresses;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::control::Outbox;
use crate::netlink::{Changes, Netlink};

/// How often executables are looked for: one that has ended keeps its rights no longer than this.
const LOOK: Duration = Duration::from_secs(5);
/// How often control is told what has not changed. It takes a machine for silent after three of these.
const REPEAT: Duration = Duration::from_secs(60);

/// What to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Executables that control asked about.
    pub paths: BTreeSet<String>,
    /// Our own addresses in the overlay, which say nothing of where we are.
    pub overlay: BTreeSet<IpAddr>,
}

/// Looks for as long as it runs.
pub struct Watcher {
    netlink: Netlink,
    wanted: watch::Receiver<Wanted>,
    latest: watch::Sender<Option<Facts>>,
    outbox: Arc<Outbox>,
}

impl Watcher {
    /// Looks for the first time. The newest facts are in `latest`, for whoever opens a stream.
    pub async fn start(
        netlink: Netlink,
        wanted: watch::Receiver<Wanted>,
        latest: watch::Sender<Option<Facts>>,
        outbox: Arc<Outbox>,
    ) -> Self {
        let watcher = Self { netlink, wanted, latest, outbox };
        let facts = watcher.look().await;
        watcher.latest.send_replace(Some(facts));
        watcher
    }

    /// Runs until nobody wants anything any more.
    pub async fn run(mut self) {
        // Without this it looks by the clock alone.
        let mut changes = Changes::watch().ok();
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                wanted = self.wanted.changed() => if wanted.is_err() { return },
                () = changed(&mut changes) => {}
            }
            let facts = self.look().await;
            let news = self.latest.borrow().as_ref() != Some(&facts);
            if news || told.elapsed() >= REPEAT {
                told = Instant::now();
                self.latest.send_replace(Some(facts.clone()));
                self.outbox.facts(facts, news);
            }
        }
    }

    async fn look(&self) -> Facts {
        let wanted = self.wanted.borrow().clone();
        let addresses = match self.netlink.all_addresses().await {
            Ok(found) => {
                let outside = found
                    .into_iter()
                    .filter(|found| !found.addr().is_loopback() && !wanted.overlay.contains(&found.addr()));
                let prefixes: BTreeSet<String> = outside.map(|found| found.to_string()).collect();
                Some(Addresses { prefixes: prefixes.into_iter().collect() })
            }
            Err(error) => {
                tracing::debug!("control is not told this machine's addresses: {error}");
                None
            }
        };
        let paths = wanted.paths;
        let looked = tokio::task::spawn_blocking(move || processes::look(&paths, Path::new("/proc")));
        // The pool only refuses while the runtime ends; what is not said is not known.
        Facts { addresses, processes: looked.await.unwrap_or_default() }
    }
}

async fn changed(changes: &mut Option<Changes>) {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}
