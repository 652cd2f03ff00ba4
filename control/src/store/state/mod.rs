//! The whole account as the compiler reads it, from one consistent snapshot, and how it is followed.
//!
//! Reading all of it takes a quarter of a second for ten thousand peers. So whoever follows it ([`Reading`]) keeps what was read and
//! reads anew what has been touched since: the database itself writes that down, by triggers on every table that is read here
//! (`touched.rs`). What cannot be told by that is read whole.

mod apply;
mod known;
mod names;
mod reading;
mod rows;
mod touched;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use sluicegate_policy::model::{self, Shared};

use self::apply::put;
use self::known::Known;
pub use self::names::Names;
pub use self::reading::Reading;
use super::{FlowLog, Result, Role, Store};
use crate::ids::now;

/// Everything the driver compiles from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision this is the state of.
    pub revision: u64,
    /// What the compiler reads.
    pub state: model::State,
    /// How agents reach each other, by peer id. Every peer of `state` is here.
    pub agents: Shared<BTreeMap<String, Agent>>,
    /// What agents are told of names.
    pub names: Names,
    /// Which flow events are kept.
    pub flow_log: FlowLog,
    /// What is on here and ends by the clock, in the order of time: the state is another one then, though nothing is written.
    pub ends: Vec<Ending>,
}

/// A moment at which break-glass policies end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// When, Unix milliseconds.
    pub at: i64,
    /// The policies that are off from then on.
    pub policies: Vec<String>,
}

impl Snapshot {
    /// When the state is another one though nothing is written, Unix milliseconds.
    pub fn ends_at(&self) -> Option<i64> {
        self.ends.first().map(|end| end.at)
    }
}

/// A peer as the overlay sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Gateway or peer.
    pub role: Role,
    /// X25519 public key.
    pub wireguard_public_key: [u8; 32],
    /// Where its WireGuard can be reached on the underlay.
    pub endpoint: Option<SocketAddr>,
    /// Paths of executables about which it is to report.
    pub watched: Arc<[String]>,
    /// Its names below [`Names::domain`]: the one made of its own, and then those that it asked for, in order.
    pub dns_labels: Arc<[String]>,
    /// Whether it takes no part until its user logs in on it again.
    pub login_expired: bool,
}

impl Store {
    /// The state alone.
    pub async fn state(&self) -> Result<model::State> {
        Ok(self.snapshot().await?.state)
    }

    /// The same, for whoever asks again and again: it costs what has changed since somebody asked last. Not in a unit of work.
    pub async fn followed_state(&self) -> Result<model::State> {
        let mut followed = self.inner.followed.lock().await;
        Ok(followed.read(self).await?.state)
    }

    /// State, revision and agents as of one instant, all of it read.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let mut tx = self.read().await?;
        Ok(Known::load(&mut tx, now()).await?.into_snapshot())
    }
}
