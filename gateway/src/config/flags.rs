//! Flags and the environment variables behind them.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{EndState, HostMode, ListenAt, NameServer, NatPorts, OverlayKind, Role};
use crate::datapath::{Choice, XdpChoice};

/// What every verb takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Common {
    /// Configuration file (TOML) [default: /etc/sluicegate/gateway.toml, if it exists]
    #[arg(long, global = true, env = "SLUICEGATE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keys, certificates and the last image [default: /var/lib/sluicegate]
    #[arg(long, global = true, env = "SLUICEGATE_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Unix socket of the running agent [default: /run/sluicegate/gateway.sock]
    #[arg(long, global = true, env = "SLUICEGATE_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where programs and maps are pinned [default: /sys/fs/bpf/sluicegate]
    #[arg(long, global = true, env = "SLUICEGATE_BPF_DIR", value_name = "DIR")]
    pub bpf_dir: Option<PathBuf>,
    /// Name of the overlay device [default: sluice0]
    #[arg(long, alias = "overlay-device", global = true, env = "SLUICEGATE_DEVICE", value_name = "NAME")]
    pub device: Option<String>,
    /// Control's URL: https://HOST:PORT, several with commas between them (join: required; run: instead of the one joined)
    #[arg(long, global = true, env = "SLUICEGATE_CONTROL", value_name = "URL")]
    pub control: Option<String>,
    /// What to join as [default: gateway]
    #[arg(long, global = true, env = "SLUICEGATE_ROLE")]
    pub role: Option<Role>,
}

/// What `run` takes besides.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunFlags {
    /// Device that leads to the site (repeat for several)
    #[arg(long = "site-device", env = "SLUICEGATE_SITE_DEVICES", value_name = "NAME", value_delimiter = ',')]
    pub site_devices: Vec<String>,
    /// Where other agents reach this one's WireGuard
    #[arg(long, env = "SLUICEGATE_ENDPOINT", value_name = "IP:PORT")]
    pub endpoint: Option<SocketAddr>,
    /// Route to take that is not taken unasked, such as an exit node, by its network identifier (repeat for several)
    #[arg(long = "use-route", env = "SLUICEGATE_USE_ROUTES", value_name = "NAME", value_delimiter = ',')]
    pub use_routes: Vec<String>,
    /// WireGuard's UDP port [default: 51820 on a gateway, a free one on a peer]
    #[arg(long, env = "SLUICEGATE_LISTEN_PORT", value_name = "PORT")]
    pub listen_port: Option<u16>,
    /// What the overlay is: a WireGuard of this agent's own, or the Ethernet that --device is on [default: wireguard]
    #[arg(long, env = "SLUICEGATE_OVERLAY_KIND")]
    pub overlay_kind: Option<OverlayKind>,
    /// MTU of the overlay device [default: 1420]
    #[arg(long, env = "SLUICEGATE_MTU", value_name = "BYTES")]
    pub mtu: Option<u16>,
    /// Which datapath judges [default: auto]
    #[arg(long, env = "SLUICEGATE_DATAPATH")]
    pub datapath: Option<Choice>,
    /// How XDP programs are attached [default: native]
    #[arg(long, env = "SLUICEGATE_XDP")]
    pub xdp: Option<XdpChoice>,
    /// On WireGuard's port let only WireGuard's messages pass, and handshakes no faster than the rate; needs eBPF
    #[arg(long, env = "SLUICEGATE_UNDERLAY_GUARD")]
    pub underlay_guard: bool,
    /// Device that WireGuard's packets arrive on, for the guard (repeat for several)
    #[arg(
        long = "underlay-device",
        env = "SLUICEGATE_UNDERLAY_DEVICES",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub underlay_devices: Vec<String>,
    /// Handshake initiations a second for each source prefix, /24 or /56 [default: 20]
    #[arg(long, env = "SLUICEGATE_HANDSHAKES_PER_SECOND", value_name = "N")]
    pub handshakes_per_second: Option<u32>,
    /// Handshake initiations at once after silence [default: 100]
    #[arg(long, env = "SLUICEGATE_HANDSHAKE_BURST", value_name = "N")]
    pub handshake_burst: Option<u32>,
    /// Serve /metrics, /healthz and /readyz here
    #[arg(long, env = "SLUICEGATE_METRICS", value_name = "IP:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Ports and ICMP ids for masqueraded flows [default: 20000-32767]
    #[arg(long, env = "SLUICEGATE_NAT_PORTS", value_name = "FIRST-LAST")]
    pub nat_ports: Option<NatPorts>,
    /// Entries of the flow table, two for each flow [default: 262144]
    #[arg(long, env = "SLUICEGATE_FLOW_ENTRIES", value_name = "N")]
    pub flow_entries: Option<u32>,
    /// 32-bit words of policy the maps can hold [default: 1048576]
    #[arg(long, env = "SLUICEGATE_IMAGE_WORDS", value_name = "N")]
    pub image_words: Option<u32>,
    /// Seconds the last image stands without word from control [default: 86400]
    #[arg(long, env = "SLUICEGATE_MAX_POLICY_AGE", value_name = "SECONDS")]
    pub max_policy_age: Option<u64>,
    /// What follows then [default: closed]
    #[arg(long, env = "SLUICEGATE_POLICY_END_STATE")]
    pub policy_end_state: Option<EndState>,
    /// Milliseconds between probes of a router [default: 1000]
    #[arg(long, env = "SLUICEGATE_PROBE_INTERVAL_MS", value_name = "MS")]
    pub probe_interval_ms: Option<u64>,
    /// Milliseconds of silence after which a router is left [default: 3000]
    #[arg(long, env = "SLUICEGATE_DEAD_AFTER_MS", value_name = "MS")]
    pub dead_after_ms: Option<u64>,
    /// Milliseconds a better router must have been live before traffic returns to it [default: 2000]
    #[arg(long, env = "SLUICEGATE_RETURN_AFTER_MS", value_name = "MS")]
    pub return_after_ms: Option<u64>,
    /// Name server to ask for names of domain resources [default: those of /etc/resolv.conf] (repeat for several)
    #[arg(
        long = "name-server",
        env = "SLUICEGATE_NAME_SERVERS",
        value_name = "IP[:PORT]",
        value_delimiter = ','
    )]
    pub name_servers: Vec<NameServer>,
    /// How this host is had to ask this agent for names [default: off]
    #[arg(long, env = "SLUICEGATE_DNS_HOST")]
    pub dns_host: Option<HostMode>,
    /// Where this host's questions for names are answered [default: port 53 of the overlay addresses] (repeat for several)
    #[arg(long, env = "SLUICEGATE_DNS_LISTEN", value_name = "IP[:PORT]", value_delimiter = ',')]
    pub dns_listen: Vec<ListenAt>,
}
