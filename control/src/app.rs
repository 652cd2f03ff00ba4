//! What every request handler shares.

use std::sync::Arc;

use crate::geo::Places;
use crate::identity::Identity;
use crate::store::Store;

/// The state of the HTTP server; clones share it.
#[derive(Clone)]
pub struct App {
    /// Groups, policies, networks, peers.
    pub store: Store,
    /// SHA-256 of the authority's certificate as lower-case hex: carried with new setup keys, so that an agent can pin
    /// the authority from the key alone.
    pub control_fingerprint: Option<Arc<str>>,
    /// Where addresses are.
    pub places: Places,
    /// How people prove who they are.
    pub identity: Identity,
}
