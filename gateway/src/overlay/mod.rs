//! The overlay behind one trait, so that WireGuard and an Ethernet that is there already are the same to the agent.

mod ethernet;
mod inside;
mod io;
mod probe;
mod questions;
mod udp;
mod usage;
mod userspace;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

pub use ethernet::{AnyOverlay, EthernetOverlay};
pub use io::{HostSide, PacketChannels};
pub use questions::{BODY, Heard, Questions};
pub use userspace::{UserspaceOverlay, UserspaceSettings};

/// What carries packets between this agent and its peers.
pub trait Overlay: Send {
    /// The UDP port WireGuard listens on.
    fn listen_port(&self) -> u16;

    /// Our own overlay IPv6 address, the source of probes and questions.
    fn set_own_address(&mut self, address: Ipv6Addr);

    /// Makes `peers` the peers of the device, in one step: a prefix that moves from one peer to another is at no time
    /// at neither or both. What a peer's link has learned (its endpoint, its session) stays unless it is set anew.
    fn configure(&mut self, peers: Vec<PeerSpec>) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Probes these briskly, and no others but those in use, until it is said again: they may have to stand in for a router
    /// that has fallen silent.
    fn hurry(&mut self, keys: &BTreeSet<PublicKey>);

    /// The state of every link.
    fn links(&mut self) -> impl Future<Output = Vec<Link>> + Send;

    /// Returns when the device has failed for good, with the reason.
    fn failed(&mut self) -> impl Future<Output = anyhow::Error> + Send;

    /// Stops to carry packets; the UDP port is free when this returns.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

/// A peer as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSpec {
    /// Its WireGuard key.
    pub key: PublicKey,
    /// Where it can be reached; where it last was, when it has no fixed place.
    pub endpoint: Option<SocketAddr>,
    /// Sources it may send from and destinations that go to it.
    pub allowed: BTreeSet<IpNet>,
    /// Its overlay address, when this agent is to probe it.
    pub probe: Option<Ipv6Addr>,
    /// Whether another could stand in for it: then it is probed briskly while packets go to it.
    pub watched: bool,
}

/// What is known of the link to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The peer's key.
    pub key: PublicKey,
    /// Where it is now.
    pub endpoint: Option<SocketAddr>,
    /// Age of the current session; `None` without one.
    pub handshake: Option<Duration>,
    /// Time since anything authentic came from it; `None` when nothing did.
    pub heard: Option<Duration>,
    /// Round trip of the last probe that was answered.
    pub round_trip: Option<Duration>,
    /// How long it has been probed briskly without a break; `None` while it is probed now and then, or not at all.
    pub brisk: Option<Duration>,
    /// Bytes received, WireGuard's own included.
    pub received: u64,
    /// Bytes sent, WireGuard's own included.
    pub sent: u64,
}

/// An X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use base64::Engine as _;
        f.write_str(&base64::engine::general_purpose::STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<&[u8]> for PublicKey {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self(bytes.try_into()?))
    }
}
