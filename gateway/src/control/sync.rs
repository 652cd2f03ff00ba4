//! The sync stream: opened, kept, and opened again.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_api::PROTOCOL;
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{Facts, NetworkConfig, SyncRequest, SyncUpdate};
use tokio::sync::{Notify, mpsc, watch};
use tonic::Code;

use super::{Client, Url, Urls, dial, reason};
use crate::identity::Identity;
use crate::system;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A stream that lived this long was a good one: the next failure starts with a short pause again.
const GOOD: Duration = Duration::from_secs(20);

/// What comes from control.
#[derive(Debug)]
pub enum FromControl {
    /// The stream is open.
    Connected,
    /// Control answered something.
    Heard,
    /// Something to enforce.
    Update(Box<SyncUpdate>),
    /// The stream is gone; it will be opened again.
    Disconnected(String),
    /// Control does not know this agent any more, and says why; it will be asked again.
    Expelled(String),
}

/// The image control is told we have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Its revision, 0 for none.
    pub revision: u64,
    /// Its hash, when control may send differences to it.
    pub hash: Option<[u8; 32]>,
    /// How many ends of it are known.
    pub ends: u32,
}

/// What the stream needs.
pub struct Session {
    /// Where control is. With several, any will do, and the next one is tried when one fails.
    pub urls: Urls,
    /// Who we are.
    pub identity: Arc<Identity>,
    /// Where our WireGuard can be reached, or empty.
    pub endpoint: String,
    /// What we have, read each time the stream is opened.
    pub known: watch::Receiver<Known>,
    /// What posture checks judge this machine by, read each time the stream is opened.
    pub facts: watch::Receiver<Option<Facts>>,
    /// Opens the stream anew: what we have is not what control thinks.
    pub resync: Arc<Notify>,
    /// To the agent.
    pub agent: mpsc::Sender<FromControl>,
    /// To the reporter: the connection, while there is one.
    pub client: watch::Sender<Option<Client>>,
}

impl Session {
    /// Keeps the stream open for as long as the agent listens.
    pub async fn run(self) {
        let urls = self.urls.all();
        let (mut which, mut failed, mut pause) = (self.urls.any(), 0, FIRST_PAUSE);
        loop {
            let opened = Instant::now();
            let why = self.once(&urls[which % urls.len()]).await;
            self.client.send_replace(None);
            let Err(why) = why else { return };
            let told = match why {
                Gone::Away(why) => FromControl::Disconnected(format!("{why:#}")),
                Gone::Expelled(why) => FromControl::Expelled(why),
            };
            if self.agent.send(told).await.is_err() {
                return;
            }
            if opened.elapsed() >= GOOD {
                (failed, pause) = (0, FIRST_PAUSE);
            }
            (which, failed) = (which + 1, failed + 1);
            // Another one may well be there: only when all of them have failed is there a reason to wait longer.
            if failed % urls.len() == 0 {
                tokio::time::sleep(jittered(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            } else {
                tokio::time::sleep(jittered(FIRST_PAUSE)).await;
            }
        }
    }

    /// One stream; `Ok` when the agent no longer listens.
    async fn once(&self, url: &Url) -> Result<(), Gone> {
        let mut client = dial(url, &self.identity).await?;
        let known = *self.known.borrow();
        let request = SyncRequest {
            applied_revision: known.revision,
            applied_hash: known.hash.map(Vec::from).unwrap_or_default(),
            endpoint: self.endpoint.clone(),
            system: Some(system::info()),
            protocol: PROTOCOL,
            facts: self.facts.borrow().clone(),
            lists_flows: true,
            follows_schedules: true,
            scheduled: known.ends,
            follows_network: true,
        };
        let mut stream = client.sync(request).await.map_err(|s| gone(url, "refused", &s))?.into_inner();
        self.client.send_replace(Some(client));
        if self.agent.send(FromControl::Connected).await.is_err() {
            return Ok(());
        }
        loop {
            let message = tokio::select! {
                message = stream.message() => message.map_err(|s| gone(url, "ended the stream", &s))?,
                () = self.resync.notified() => {
                    return Err(anyhow::anyhow!("the stream is opened anew to get a whole image").into());
                }
            };
            let Some(message) = message else {
                return Err(anyhow::anyhow!("control at {url} closed the stream").into());
            };
            if let Some(Update::Network(network)) = &message.update {
                same_protocol(url, network)?;
            }
            if self.agent.send(FromControl::Update(Box::new(message))).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// A control of another version hashes images otherwise, and what it calls a difference need not be one.
fn same_protocol(url: &Url, network: &NetworkConfig) -> anyhow::Result<()> {
    // Control of the first version does not say.
    let theirs = network.protocol.max(1);
    anyhow::ensure!(
        theirs == PROTOCOL,
        "control at {url} speaks version {theirs} of the agents' protocol and this agent version {PROTOCOL}; install the same \
         release of sluicegate-control as of sluicegate-gateway"
    );
    Ok(())
}

fn gone(url: &Url, did: &str, status: &tonic::Status) -> Gone {
    let why = format!("control at {url} {did}: {}", reason(status));
    match status.code() {
        // Nobody between here and control can say so: the connection was verified.
        Code::PermissionDenied => Gone::Expelled(why),
        _ => Gone::Away(anyhow::Error::msg(why)),
    }
}

/// Why there is no stream.
enum Gone {
    /// Control is not there, or has trouble of its own.
    Away(anyhow::Error),
    /// Control does not know this agent any more.
    Expelled(String),
}

impl From<anyhow::Error> for Gone {
    fn from(why: anyhow::Error) -> Self {
        Self::Away(why)
    }
}

/// Between half of `pause` and the whole of it, so that a thousand agents do not come back in step.
fn jittered(pause: Duration) -> Duration {
    // The standard library seeds each of these from the system's random numbers.
    let random = RandomState::new().build_hasher().finish();
    pause.mul_f64(0.5 + (random % 1000) as f64 / 2000.0)
}
