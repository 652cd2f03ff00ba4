//! The agent at work: one task that owns overlay, datapath, routes and what control said.

mod alone;
mod contact;
mod device;
mod egress;
mod ends;
mod local;
mod masquerade;
mod network;
mod opened;
mod policy;
mod pools;
mod report;
mod routing;
mod run;
mod snapshot;
mod store;
mod top;
mod work;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sluicegate_api::agent::NetworkConfig;
use tokio::sync::{Notify, mpsc, watch};

pub use alone::Images;
pub use policy::{REFUSALS, hex};
pub use run::run;

use crate::config::Settings;
use crate::control::{FromControl, Known, Outbox};
use crate::datapath::{Counters, Datapath, FlowRecord};
use crate::facts::Wanted;
use crate::identity::Identity;
use crate::local::capture::Line;
use crate::local::events::Feed;
use crate::local::names::Names;
use crate::metrics::Metrics;
use crate::names::{Below, Check, Handle};
use crate::netlink::Netlink;
use crate::overlay::{Link, Overlay, PublicKey, Questions};
use crate::resolver;
use crate::serve::Query;
use contact::Contact;
use device::Device;
use egress::{Lookups, Resolved};
use masquerade::Exhausted;
use network::Network;
use policy::Policy;
use routing::{Plan, Routing};
use store::Store;

/// What lives as long as the process, also when the overlay or the datapath must be opened again.
struct Surroundings {
    settings: Settings,
    identity: Arc<Identity>,
    store: Arc<Store>,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    /// Addresses of control, which must stay reachable outside the overlay.
    control_addresses: Vec<IpAddr>,
    control: mpsc::Receiver<FromControl>,
    queries: mpsc::Receiver<Query>,
    known: watch::Sender<Known>,
    resync: Arc<Notify>,
    contact: Contact,
    feed: Arc<Feed>,
    /// What is looked for on this machine, for posture checks.
    wanted: watch::Sender<Wanted>,
    /// What the names of resources stand for.
    domains: Handle,
    /// What was remembered last of names that were asked for.
    below: Below,
    /// What others ask of this agent, and what it asks.
    questions: Arc<Questions>,
    /// What answers to questions for names wait for.
    checks: mpsc::Receiver<Check>,
    /// The same, as far as it is known.
    waiting: Vec<Check>,
    /// Answers this host's questions for names.
    resolver: resolver::Handle,
    /// Where masquerade ports ran out.
    exhausted: Exhausted,
}

/// The agent between one opening of its devices and the next.
struct Agent<'a, O: Overlay> {
    around: &'a mut Surroundings,
    netlink: Netlink,
    device: Device,
    overlay: O,
    datapath: Box<dyn Datapath>,
    policy: Policy,
    applied_ms: Option<u64>,
    /// Whether the datapath's deadline is the next end of the image in force.
    capped: bool,
    network: Option<Network>,
    /// The overlay as the stream described it last, taken or refused: what changes start from.
    described: NetworkConfig,
    routing: Routing,
    plan: Plan,
    links: Vec<Link>,
    /// Where peers without a fixed place were when this agent started.
    hints: BTreeMap<PublicKey, SocketAddr>,
    /// Where they are now, as remembered.
    places: BTreeMap<PublicKey, SocketAddr>,
    /// Site devices that are there, by index.
    sites: BTreeMap<u32, String>,
    /// Where the routes of the image in force leave; `None` before that is known, when an earlier run's ways out still hold.
    resolved: Option<Resolved>,
    /// What was looked up for it since the host changed last.
    lookups: Lookups,
    flows: Vec<FlowRecord>,
    counters: Counters,
    /// What numbers and addresses are called; made when it is needed, forgotten when image or overlay change.
    names: Option<Arc<Names>>,
    /// Who is told of packets, while somebody is.
    capture: Option<mpsc::Sender<Vec<Line>>>,
    /// Packets that were recorded and could not be told.
    capture_missed: u64,
    /// Conditions a person should know of, by what they are about.
    trouble: BTreeMap<Trouble, String>,
}

/// What a person is told of an agent that control knows no more.
const EXPELLED: &str = "control does not know this agent any more, so it forwards nothing; stop it, remove its files \
                        (identity.json, *.key, *.crt, image*, network) from its state directory and join again";

/// What a person is told of an agent whose user has to log in again.
const LOGIN_EXPIRED: &str = "the login on this machine has expired, so nothing passes; its user logs in again with \
                             `sluicegate-gateway login` here, or `sluice peer renew` elsewhere";

/// What a person is told of an agent that has heard nothing of control for longer than its image may stand.
const EXPIRED: &str = "the image in force is older than it may become without word from control, so nothing is forwarded; \
                       see to it that control is reached";

/// What a condition is about; one sentence for each at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    Datapath,
    Prefixes,
    Endpoint,
    Network,
    Device,
    Overlay,
    Expelled,
    Expired,
    Routes,
    Egress,
    Ends,
    Counters,
    Capture,
    Store,
}

impl<O: Overlay> Agent<'_, O> {
    /// Notes that `about` is in order, or what is wrong with it; a new sentence is logged once.
    fn note(&mut self, about: Trouble, wrong: Option<String>) {
        match wrong {
            None => {
                self.trouble.remove(&about);
            }
            Some(sentence) if self.trouble.get(&about) == Some(&sentence) => {}
            Some(sentence) => {
                tracing::warn!("{sentence}");
                self.trouble.insert(about, sentence);
            }
        }
    }

    /// Whether control says that the user of this machine has to log in again.
    fn login_expired(&self) -> bool {
        self.network.as_ref().is_some_and(|network| network.login_expired)
    }

    /// Every condition a person should know of.
    fn degraded(&self) -> Vec<String> {
        let mut all: Vec<String> = self.trouble.values().cloned().collect();
        all.extend(self.login_expired().then(|| LOGIN_EXPIRED.to_owned()));
        all.extend(self.policy.degraded(self.datapath.in_force().map(|now| now.revision)));
        all.extend(self.plan.refused.iter().cloned());
        all.extend(self.resolved.iter().flat_map(|resolved| resolved.degraded.iter().cloned()));
        all.extend(self.datapath.degraded());
        all.extend(self.around.domains.degraded());
        all.extend(self.around.resolver.degraded());
        all
    }
}
