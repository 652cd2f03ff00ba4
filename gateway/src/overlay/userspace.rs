//! WireGuard in this process, by gotatun, between a UDP socket and the host's side of the overlay.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use gotatun::device::configure::DeviceWrite;
use gotatun::device::{Device, DeviceBuilder, DeviceTransports, Error, Peer};
use gotatun::noise::TimerParams;
use gotatun::x25519;
use ipnet::IpNet;
use ipnetwork::IpNetwork;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::io::{FromHost, HostSide, ToHost, split};
use super::probe::Probes;
use super::questions::Questions;
use super::udp::RoomyUdp;
use super::usage::Usage;
use super::{Link, Overlay, PeerSpec, PublicKey};

/// Keeps address translators between us and a peer open (seconds), and makes WireGuard greet a peer whose place is
/// known from before as soon as it is added.
const KEEPALIVE_S: u16 = 25;
/// Probes, questions and their answers waiting to be encrypted.
const OWN_QUEUE: usize = 1024;

/// What the embedded WireGuard needs.
pub struct UserspaceSettings {
    /// The private key.
    pub key: x25519::StaticSecret,
    /// UDP port; 0 takes a free one.
    pub port: u16,
    /// The overlay's MTU.
    pub mtu: u16,
    /// How often a watched peer is probed while packets go to it; others with a probe address, once a second.
    pub probe_interval: Duration,
    /// What is asked of peers, and what they ask.
    pub questions: Arc<Questions>,
}

type Transports = (RoomyUdp, ToHost, FromHost);

/// The embedded WireGuard.
pub struct UserspaceOverlay {
    device: Device<Transports>,
    port: u16,
    peers: BTreeMap<PublicKey, PeerSpec>,
    heard: HashMap<PublicKey, (u64, Instant)>,
    usage: HashMap<PublicKey, Usage>,
    probes: Arc<Probes>,
    questions: Arc<Questions>,
    prober: JoinHandle<()>,
}

impl UserspaceOverlay {
    /// Binds the UDP port and starts to carry packets of nobody: peers come with [`Overlay::configure`].
    pub async fn start(settings: UserspaceSettings, host: HostSide) -> anyhow::Result<Self> {
        let (out, own_packets) = mpsc::channel(OWN_QUEUE);
        let questions = settings.questions;
        questions.leave_by(out.clone());
        let probes = Arc::new(Probes::new(out, settings.probe_interval));
        let (to_host, from_host) = split(host, settings.mtu, probes.clone(), questions.clone(), own_packets);
        let device = DeviceBuilder::new()
            .with_udp(RoomyUdp::default())
            .with_ip_pair(to_host, from_host)
            .with_private_key(settings.key)
            .with_listen_port(settings.port)
            .build()
            .await
            .context("WireGuard could not be started")?;
        // A device built without peers opens its socket only when it is reconfigured, which clearing no peers is.
        let started = device.write(async |device| device.clear_peers()).await;
        started.map_err(|e| match e {
            Error::Bind(source, _) if source.kind() == std::io::ErrorKind::AddrInUse => {
                anyhow!(
                    "UDP port {} is in use; stop what uses it, or give WireGuard another `--listen-port`",
                    settings.port
                )
            }
            other => {
                anyhow!(other).context(format!("WireGuard could not listen on UDP port {}", settings.port))
            }
        })?;
        let port = device.read(async |device| device.listen_port()).await;
        let prober = tokio::spawn(probe(probes.clone()));
        let (heard, usage) = (HashMap::new(), HashMap::new());
        Ok(Self { device, port, peers: BTreeMap::new(), heard, usage, probes, questions, prober })
    }
}

impl Drop for UserspaceOverlay {
    fn drop(&mut self) {
        self.prober.abort();
    }
}

impl Overlay for UserspaceOverlay {
    fn listen_port(&self) -> u16 {
        self.port
    }

    fn set_own_address(&mut self, address: Ipv6Addr) {
        self.probes.set_own(address);
        self.questions.set_own(address);
    }

    async fn configure(&mut self, peers: Vec<PeerSpec>) -> anyhow::Result<()> {
        let wanted: BTreeMap<PublicKey, PeerSpec> = peers.into_iter().map(|p| (p.key, p)).collect();
        if wanted == self.peers {
            return Ok(());
        }
        let current = std::mem::take(&mut self.peers);
        let changed = self
            .device
            .write(async |device| {
                for key in current.keys().filter(|k| !wanted.contains_key(k)) {
                    device.remove_peer(&key.0.into()).await;
                }
                for (key, spec) in &wanted {
                    match current.get(key) {
                        None => {
                            device.add_peer(new_peer(spec));
                        }
                        Some(old) => modify(device, old, spec).await,
                    }
                }
            })
            .await;
        self.heard.retain(|key, _| wanted.contains_key(key));
        self.usage.retain(|key, _| wanted.get(key).is_some_and(|spec| spec.watched));
        self.probes.set_targets(wanted.values().filter_map(|p| p.probe));
        self.peers = wanted;
        changed.context("WireGuard's peers could not be changed")
    }

    fn hurry(&mut self, keys: &BTreeSet<PublicKey>) {
        let probe = |key| self.peers.get(key).and_then(|peer| peer.probe);
        self.probes.hurry(&keys.iter().filter_map(probe).collect());
    }

    async fn links(&mut self) -> Vec<Link> {
        let now = Instant::now();
        let states = self.device.peers().await;
        let mut links = Vec::with_capacity(states.len());
        for state in states {
            let key = PublicKey(state.peer.public_key.to_bytes());
            let received = state.stats.rx_bytes as u64;
            let (bytes, at) = self.heard.entry(key).or_insert((0, now));
            if received != *bytes {
                (*bytes, *at) = (received, now);
            }
            let traffic = (received > 0).then_some(*at);
            let spec = self.peers.get(&key);
            let probe = spec.and_then(|p| p.probe);
            let (answered, round_trip) = probe.map_or((None, None), |address| self.probes.answered(address));
            let (sent, heard) = (state.stats.tx_bytes as u64, traffic.max(answered));
            let mut brisk = None;
            if let Some(address) = probe.filter(|_| spec.is_some_and(|p| p.watched)) {
                let usage = self.usage.entry(key).or_default();
                brisk = usage.brisk(sent, self.probes.carried(address), heard, now);
            }
            if let Some(address) = probe {
                self.probes.set_brisk(address, brisk.is_some());
            }
            links.push(Link {
                key,
                endpoint: state.peer.endpoint,
                handshake: state.stats.last_handshake,
                heard: heard.map(|at| now.saturating_duration_since(at)),
                round_trip,
                brisk,
                received,
                sent,
            });
        }
        links
    }

    async fn stop(self) {
        self.device.suspend().await;
    }

    async fn failed(&mut self) -> anyhow::Error {
        self.device.wait().await;
        anyhow!("the overlay device or its UDP socket failed; it will be opened again")
    }
}

async fn probe(probes: Arc<Probes>) {
    loop {
        let next = probes.send(Instant::now());
        tokio::select! {
            () = tokio::time::sleep_until(next.into()) => {}
            () = probes.sooner() => {}
        }
    }
}

fn new_peer(spec: &PeerSpec) -> Peer {
    let mut peer = Peer::new(spec.key.0.into())
        .with_allowed_ips(spec.allowed.iter().map(network))
        .dangerously_with_timer_params(timers());
    peer.endpoint = spec.endpoint.map(unmapped);
    peer.keepalive = Some(KEEPALIVE_S);
    peer
}

async fn modify<T: DeviceTransports>(device: &mut DeviceWrite<'_, T>, old: &PeerSpec, new: &PeerSpec) {
    if old.allowed == new.allowed && old.endpoint == new.endpoint {
        return;
    }
    device
        .modify_peer(&new.key.0.into(), |peer| {
            if old.allowed != new.allowed {
                peer.clear_allowed_ips();
                peer.add_allowed_ips(new.allowed.iter().map(network));
            }
            // Setting it again would throw away the place the peer has moved to since.
            if old.endpoint != new.endpoint && new.endpoint.is_some() {
                peer.set_endpoint(new.endpoint.map(unmapped));
            }
        })
        .await;
}

/// A link that carries probes is silent for two seconds only when the other end is gone or has lost its session (it was
/// restarted): a handshake then costs two packets, and finds out. WireGuard alone waits 15 s, and 5 s between attempts.
fn timers() -> TimerParams {
    let (two, one, jitter) = (Duration::from_secs(2), Duration::from_secs(1), Duration::from_millis(333));
    TimerParams {
        new_handshake_timeout: two..=two + jitter,
        rekey_timeout: one..=one + jitter,
        ..TimerParams::default()
    }
}

fn network(net: &IpNet) -> IpNetwork {
    IpNetwork::new(net.addr(), net.prefix_len()).expect("an IpNet's length fits its family")
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => SocketAddr::new(v6.to_canonical(), address.port()),
        IpAddr::V4(_) => address,
    }
}
