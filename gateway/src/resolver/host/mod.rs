//! Has the host ask this agent: by its resolv.conf, or through systemd-resolved; or not, where nobody asks for that.

mod resolv_conf;
mod resolved;
mod upstreams;

use std::net::SocketAddr;

use hickory_resolver::proto::rr::Name;

pub use resolv_conf::{Restored, original, original_path, restore};
pub use resolved::revert;

use self::resolv_conf::ResolvConf;
use self::resolved::Resolved;
pub(super) use self::upstreams::Upstreams;
use super::{HostMode, Settings};

/// What the host is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// Where this agent answers.
    pub(super) servers: Vec<SocketAddr>,
    /// Domains that names without a dot are searched for in.
    pub(super) search: Vec<Name>,
    /// Domains that this agent is asked for, with all that is below them.
    pub(super) domains: Vec<Name>,
    /// Whether it is asked for all others, too, where the host can tell them apart.
    pub(super) all: bool,
}

/// How the host is had to ask this agent.
pub(super) enum Host {
    Off,
    ResolvConf(ResolvConf),
    Resolved(Resolved),
}

impl Host {
    pub(super) fn new(settings: &Settings) -> Self {
        match settings.dns.host {
            HostMode::Off => Self::Off,
            HostMode::ResolvConf => {
                Self::ResolvConf(ResolvConf::new(&settings.dns.resolv_conf, &settings.state_dir))
            }
            HostMode::SystemdResolved => {
                Self::Resolved(Resolved::new(&settings.resolvectl, &settings.device, &settings.state_dir))
            }
        }
    }

    /// Has the host ask as `wish` says, or as it did before where that is `None`. Repeated, it sees to it that this stays so.
    /// What is wrong, a sentence.
    pub(super) async fn set(&mut self, wish: Option<&Wish>) -> Option<String> {
        match self {
            Self::Off => None,
            Self::ResolvConf(file) => file.set(wish),
            Self::Resolved(resolved) => resolved.set(wish).await,
        }
    }

    /// Whether the host asks this agent.
    pub(super) fn asks(&self) -> bool {
        match self {
            Self::Off => false,
            Self::ResolvConf(file) => file.is_set(),
            Self::Resolved(resolved) => resolved.is_set(),
        }
    }
}
