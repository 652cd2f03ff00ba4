//! Answers the questions of this agent's own host for names, as control says: of peers and zones by itself, of domain resources
//! through their routers, of others by the name servers that control or the host names.
//!
//! Nobody else is answered, and nothing opens by an answer from here: a name server in the overlay is reached as anything else
//! there is.

mod answer;
mod bounds;
mod counts;
mod forward;
mod handle;
mod host;
mod listen;
mod message;
mod own;
mod routed;
mod service;
mod state;
mod wanted;
mod zones;

use std::path::PathBuf;

pub use handle::{Handle, start};
pub use host::{Restored, original, original_path, restore, revert};
pub use routed::{Routed, RoutedAnswer, RoutedFailure};
pub use wanted::Wanted;

use crate::config::{Dns, HostMode};

/// systemd-resolved's program, wherever programs are.
pub const RESOLVECTL: &str = "resolvectl";

/// What the resolver is to know of its surroundings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the operator wants.
    pub dns: Dns,
    /// The agent's own state directory, by which it knows what it wrote.
    pub state_dir: PathBuf,
    /// The overlay device.
    pub device: String,
    /// systemd-resolved's program.
    pub resolvectl: PathBuf,
    /// Where systemd-resolved writes the name servers that it asks itself.
    pub resolved_servers: PathBuf,
    /// Names that only the host's own name servers are asked for, unless a zone has their addresses: control's, without which there is no
    /// overlay.
    pub hosts_own: Vec<String>,
}
