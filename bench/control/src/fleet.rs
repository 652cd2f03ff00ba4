//! Gateways without a datapath: each has its own certificate, connection and stream, takes every image it is sent and
//! acknowledges it. What comes is noted with the instant it had come to its last byte.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sluicegate_api::agent::agent_client::AgentClient;
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{Acknowledgement, ReportRequest, SyncRequest};
use sluicegate_api::{CONTROL_NAME, PROTOCOL};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::account::Account;

/// An image of ten thousand peers is a few megabytes.
const MESSAGE_MAX: usize = 64 << 20;
/// A gateway without a stream tries again after this: without pity, for this is the storm that is measured.
const RETRY: Duration = Duration::from_millis(50);
/// What has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where it is not known how many images come: when everything is compiled and none has come for so long, the one before was
/// the last. One that comes later ends the run.
const QUIET: Duration = Duration::from_millis(500);

/// What came to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The first message of a stream: control knows it again.
    Greeting,
    /// An image, or the change of one.
    Image,
}

struct Came {
    gateway: usize,
    what: What,
    at: Instant,
}

/// All gateways of an account, each on its own task. They end with the runtime.
pub(crate) struct Fleet {
    size: usize,
    came: Mutex<UnboundedReceiver<Came>>,
}

/// Gateways that a change concerns.
pub(crate) enum Concerned {
    /// Every one of these gets another image.
    All(BTreeSet<usize>),
    /// None but these: what a change does may be there already by another rule, and then the image stays as it is.
    Some(BTreeSet<usize>),
}

impl Fleet {
    /// Starts a stream of every gateway to control at `address`, whose authority is in `directory`.
    pub(crate) fn start(account: &Account, address: SocketAddr, directory: &Path) -> Self {
        let (sender, came) = mpsc::unbounded_channel();
        let authority = directory.join("ca.pem");
        for (number, gateway) in account.gateways.iter().enumerate() {
            let member = Member {
                number,
                identity: Identity::from_pem(&gateway.certificate, &gateway.key),
                endpoint: format!("https://{address}"),
                authority: authority.clone(),
                applied: (0, Vec::new()),
                sender: sender.clone(),
            };
            tokio::spawn(member.run());
        }
        Self { size: account.gateways.len(), came: Mutex::new(came) }
    }

    /// From `begin` until every gateway has had its first message on a stream and, where it held none, an image.
    pub(crate) async fn all_served(&self, begin: Instant) -> Result<Duration> {
        let everyone = Concerned::All((0..self.size).collect());
        self.wait(begin, &everyone, What::Greeting).await?.context("there are no gateways")
    }

    /// From `begin` until the last gateway that gets an image has it; `None` when no image changes. An image for any other
    /// gateway is an error. For [`Concerned::Some`], control has compiled the change when this is called.
    pub(crate) async fn images(&self, begin: Instant, concerned: &Concerned) -> Result<Option<Duration>> {
        self.wait(begin, concerned, What::Image).await
    }

    /// Forgets what has come so far; the number of images among it.
    pub(crate) fn forget(&self) -> usize {
        std::iter::from_fn(|| self.next_now()).filter(|came| came.what == What::Image).count()
    }

    #[expect(clippy::unwrap_used, reason = "nobody panics with the lock held")]
    fn next_now(&self) -> Option<Came> {
        self.came.lock().unwrap().try_recv().ok()
    }

    async fn wait(&self, begin: Instant, concerned: &Concerned, what: What) -> Result<Option<Duration>> {
        let (Concerned::All(gateways) | Concerned::Some(gateways)) = concerned;
        let (mut missing, called) = (gateways.clone(), Instant::now());
        let mut last = None;
        while !missing.is_empty() {
            match self.next_now() {
                Some(came) if came.what != what => {}
                Some(came) => {
                    ensure!(
                        gateways.contains(&came.gateway),
                        "an image went to gateway {}, which the change does not concern; it does concern {gateways:?}",
                        came.gateway
                    );
                    missing.remove(&came.gateway);
                    last = last.max(Some(came.at));
                }
                None if matches!(concerned, Concerned::Some(_))
                    && last.unwrap_or(called).max(called).elapsed() > QUIET =>
                {
                    break;
                }
                None if begin.elapsed() > PATIENCE => {
                    bail!("{} of {} gateways got nothing within {PATIENCE:?}", missing.len(), gateways.len())
                }
                // The instant is noted where it comes: this wait costs no figure anything.
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        Ok(last.map(|last| last.saturating_duration_since(begin)))
    }
}

/// One gateway.
struct Member {
    number: usize,
    identity: Identity,
    endpoint: String,
    authority: std::path::PathBuf,
    /// Revision and hash of the image it holds.
    applied: (u64, Vec<u8>),
    sender: UnboundedSender<Came>,
}

impl Member {
    async fn run(mut self) {
        loop {
            // A stream that ends, or does not begin, is what happens when control is killed; that one stays away is noticed
            // by whoever waits for what it is to get.
            let _ = self.follow().await;
            if self.sender.is_closed() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow(&mut self) -> Result<()> {
        let mut client = self.connect().await?;
        let (applied_revision, applied_hash) = self.applied.clone();
        let request = SyncRequest {
            applied_revision,
            applied_hash,
            protocol: PROTOCOL,
            follows_network: true,
            ..SyncRequest::default()
        };
        let mut stream = client.sync(request).await?.into_inner();
        let mut greeted = false;
        while let Some(message) = stream.message().await? {
            let at = Instant::now();
            let image = match message.update.context("an empty update")? {
                Update::Network(_) | Update::NetworkChange(_) | Update::Flows(_) => None,
                Update::Snapshot(snapshot) => Some((snapshot.revision, snapshot.hash)),
                Update::Delta(delta) => Some((delta.revision, delta.hash)),
            };
            if let Some(image) = image {
                self.applied = image;
                self.note(What::Image, at);
                let acknowledgement = Acknowledgement {
                    revision: self.applied.0,
                    hash: self.applied.1.clone(),
                    applied: true,
                    apply_microseconds: 0,
                    refusal: String::new(),
                };
                client
                    .report(ReportRequest {
                        acknowledgements: vec![acknowledgement],
                        ..ReportRequest::default()
                    })
                    .await?;
            }
            if !greeted && self.applied.0 != 0 {
                greeted = true;
                self.note(What::Greeting, at);
            }
        }
        Ok(())
    }

    fn note(&self, what: What, at: Instant) {
        // In vain while the runtime ends.
        let _ = self.sender.send(Came { gateway: self.number, what, at });
    }

    async fn connect(&self) -> Result<AgentClient<Channel>> {
        let authority = Certificate::from_pem(std::fs::read(&self.authority)?);
        let tls = ClientTlsConfig::new()
            .ca_certificate(authority)
            .domain_name(CONTROL_NAME)
            .identity(self.identity.clone());
        let channel = Endpoint::from_shared(self.endpoint.clone())?.tls_config(tls)?.connect().await?;
        Ok(AgentClient::new(channel).max_decoding_message_size(MESSAGE_MAX))
    }
}
