//! What the names of domain resources stand for, where this agent is a router of them.
//!
//! Every name that control wants is looked up as this machine itself would, again when its records are over, and control is told
//! all that the names stand for: it opens those addresses as the resource's, for everybody. Nothing here touches the datapath.
//! Wildcards have no addresses to be asked for.

mod dns;
mod handle;
mod name;
mod refused;
mod resolve;
mod table;
#[cfg(test)]
mod tests;
mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use tokio::time::Instant;

pub use dns::{Dns, Files};
pub use handle::{Handle, start};
pub use resolve::{Answer, Answers, Resolve};
pub use watcher::Watcher;

/// What to look up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names without a dot at the end, wildcards too, with the ids of the resources they are the names of.
    pub names: BTreeMap<String, BTreeSet<String>>,
    /// The overlay's own prefixes: no name may stand for an address of them.
    pub overlay: Vec<IpNet>,
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
