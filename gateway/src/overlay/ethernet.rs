//! An overlay that is there already: an Ethernet that others have made, such as a provider's or one between namespaces.
//!
//! There are no keys and no sessions. Who a packet is from is told by its source address and by the device it came from, and
//! by nothing else: everybody on that Ethernet can pretend to be anybody on it.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use super::{Link, Overlay, PeerSpec, PublicKey, UserspaceOverlay};

/// Peers are reached as the host reaches neighbours.
#[derive(Debug, Default)]
pub struct EthernetOverlay;

impl Overlay for EthernetOverlay {
    /// None: nothing listens.
    fn listen_port(&self) -> u16 {
        0
    }

    fn set_own_address(&mut self, _address: Ipv6Addr) {}

    async fn configure(&mut self, _peers: Vec<PeerSpec>) -> anyhow::Result<()> {
        Ok(())
    }

    fn hurry(&mut self, _keys: &BTreeSet<PublicKey>) {}

    /// None: an Ethernet does not tell who is there.
    async fn links(&mut self) -> Vec<Link> {
        Vec::new()
    }

    /// Never: a device that goes away is noticed by who watches devices.
    async fn failed(&mut self) -> anyhow::Error {
        std::future::pending().await
    }

    async fn stop(self) {}
}

/// The overlay an agent has.
pub enum AnyOverlay {
    /// The embedded WireGuard.
    Wireguard(UserspaceOverlay),
    /// An Ethernet.
    Ethernet(EthernetOverlay),
}

impl Overlay for AnyOverlay {
    fn listen_port(&self) -> u16 {
        match self {
            Self::Wireguard(overlay) => overlay.listen_port(),
            Self::Ethernet(overlay) => overlay.listen_port(),
        }
    }

    fn set_own_address(&mut self, address: Ipv6Addr) {
        match self {
            Self::Wireguard(overlay) => overlay.set_own_address(address),
            Self::Ethernet(overlay) => overlay.set_own_address(address),
        }
    }

    async fn configure(&mut self, peers: Vec<PeerSpec>) -> anyhow::Result<()> {
        match self {
            Self::Wireguard(overlay) => overlay.configure(peers).await,
            Self::Ethernet(overlay) => overlay.configure(peers).await,
        }
    }

    fn hurry(&mut self, keys: &BTreeSet<PublicKey>) {
        match self {
            Self::Wireguard(overlay) => overlay.hurry(keys),
            Self::Ethernet(overlay) => overlay.hurry(keys),
        }
    }

    async fn links(&mut self) -> Vec<Link> {
        match self {
            Self::Wireguard(overlay) => overlay.links().await,
            Self::Ethernet(overlay) => overlay.links().await,
        }
    }

    async fn failed(&mut self) -> anyhow::Error {
        match self {
            Self::Wireguard(overlay) => overlay.failed().await,
            Self::Ethernet(overlay) => overlay.failed().await,
        }
    }

    async fn stop(self) {
        match self {
            Self::Wireguard(overlay) => overlay.stop().await,
            Self::Ethernet(overlay) => overlay.stop().await,
        }
    }
}
