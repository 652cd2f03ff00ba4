//! What the names of domain resources stand for, where this agent is a router of them; and how agents ask routers for it.
//!
//! Every name that control wants is looked up as this machine itself would, again when its records are over, and control is told
//! all that the names stand for: it opens those addresses as the resource's, for everybody. Nothing here touches the datapath.
//!
//! Below a wildcard there is nothing to be looked up until somebody asks: a client's agent asks a router of the resource through the tunnel
//! (`asker.rs`), the router looks up, tells control at once, and answers when the addresses are open at itself (`answerer.rs`). The client's
//! agent hands the answer on when they are open at its end, too (`gate.rs`): so no first packet is lost.

mod answerer;
mod asker;
mod dns;
mod gate;
mod handle;
mod name;
mod question;
mod refused;
mod resolve;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use tokio::time::Instant;

pub use answerer::Answerer;
pub use asker::{Asker, Routers};
pub use dns::{Dns, Files};
pub use gate::{Check, Side};
pub use handle::{Before, Handle, Tasks, start};
pub use resolve::{Answer, Answers, Resolve};
pub use watcher::Watcher;

/// What to look up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names without a dot at the end, wildcards too, with the ids of the resources they are the names of.
    pub names: BTreeMap<String, BTreeSet<String>>,
    /// The overlay's own prefixes: no name may stand for an address of them.
    pub overlay: Vec<IpNet>,
    /// Who may ask for the names of a resource, by their overlay addresses.
    pub askers: BTreeMap<String, Arc<BTreeSet<Ipv6Addr>>>,
}

/// Names that were asked for below wildcards, with the ids of the resources they are for and what they stand for.
pub type Below = BTreeMap<String, (BTreeSet<String>, BTreeSet<IpAddr>)>;

/// Whether this is a domain as control keeps it: lower case, no dot at the end, of what may be in DNS.
pub fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(known)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = domain.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()));
    domain.len() <= 253 && !numeric && domain.split('.').all(label)
}

/// A name of a resource, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The resource's id.
    pub resource: String,
    /// The name.
    pub name: String,
    /// Its addresses, and when a server last gave each.
    pub addresses: BTreeMap<IpAddr, Instant>,
    /// When it was looked up last, Unix milliseconds.
    pub looked_ms: Option<u64>,
    /// What is wrong with it, or why it has no addresses.
    pub reason: Option<String>,
}

/// How looks at names came out since this agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Both families were answered, and there were addresses.
    pub found: u64,
    /// Both were answered, and there were none.
    pub nothing: u64,
    /// One of them was not answered.
    pub failed: u64,
}
