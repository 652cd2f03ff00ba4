//! The site devices: opened when they are there, opened again when they come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::carry;
use super::judge::Judge;
use super::site::{SiteReceiver, SiteSender};
use crate::datapath::device;

/// Site devices this process listens on and sends by.
pub(super) struct Sites {
    judge: Arc<Judge>,
    overlay: mpsc::WeakSender<Vec<u8>>,
    names: Vec<String>,
    /// By device index.
    listening: BTreeMap<u32, Listening>,
    /// What is wrong, by device name.
    trouble: BTreeMap<String, String>,
}

struct Listening {
    name: String,
    /// Aborted when this is dropped.
    tasks: JoinSet<()>,
}

impl Sites {
    /// Nothing is opened before [`Sites::attach`].
    pub(super) fn new(judge: Arc<Judge>, overlay: mpsc::WeakSender<Vec<u8>>, names: Vec<String>) -> Self {
        Self { judge, overlay, names, listening: BTreeMap::new(), trouble: BTreeMap::new() }
    }

    /// Listens on every site device that is there and is not listened on.
    pub(super) fn attach(&mut self) {
        let there: BTreeMap<u32, String> =
            self.names.iter().filter_map(|name| Some((device::index(name)?, name.clone()))).collect();
        self.listening
            .retain(|index, l| there.get(index) == Some(&l.name) && l.tasks.try_join_next().is_none());
        self.trouble.clear();
        for name in self.names.iter().filter(|name| !there.values().any(|there| there == *name)) {
            self.trouble.insert(name.clone(), format!("site device {name} is not there"));
        }
        for (index, name) in there {
            if self.listening.contains_key(&index) {
                continue;
            }
            match self.listen(index) {
                Ok(tasks) => _ = self.listening.insert(index, Listening { name, tasks }),
                Err(e) => {
                    let sentence = format!("site device {name} cannot be listened on: {e}");
                    self.trouble.insert(name, sentence);
                }
            }
        }
    }

    /// Sends by the devices with these indices from now on, beside those it sends by already.
    pub(super) fn send_by(&self, devices: impl Iterator<Item = u32>) -> anyhow::Result<()> {
        let mut wanted: BTreeSet<u32> = devices.collect();
        wanted.retain(|index| !self.judge.state().senders.contains_key(index));
        let mut failed = Ok(());
        for index in wanted {
            match open_sender(index) {
                Ok(sender) => _ = self.judge.state().senders.insert(index, sender),
                Err(e) => failed = Err(e),
            }
        }
        failed
    }

    /// Sends by no other devices than these any more.
    pub(super) fn send_only_by(&self, devices: impl Iterator<Item = u32>) {
        let wanted: BTreeSet<u32> = devices.collect();
        self.judge.state().senders.retain(|index, _| wanted.contains(index));
    }

    /// What a person should know.
    pub(super) fn degraded(&self) -> impl Iterator<Item = String> {
        self.trouble.values().cloned()
    }

    fn listen(&self, index: u32) -> std::io::Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        for ethertype in [libc::ETH_P_IP, libc::ETH_P_IPV6] {
            let receiver = SiteReceiver::open(index, ethertype as u16)?;
            tasks.spawn(carry::from_site(self.judge.clone(), index, receiver, self.overlay.clone()));
        }
        Ok(tasks)
    }
}

fn open_sender(index: u32) -> anyhow::Result<Arc<SiteSender>> {
    let name = device::name(index).with_context(|| format!("the site device with index {index} is gone"))?;
    let sender = SiteSender::open(&name).with_context(|| format!("cannot send by site device {name}"))?;
    Ok(Arc::new(sender))
}
