//! The configuration file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{DEFAULT_FILE, DnsKeys, EndState, NamesKeys, NatPorts, OverlayKind, Pool, Role, UnderlayKeys};
use crate::datapath::{Choice, FlowTimeouts, XdpChoice};

/// The configuration file; every key is optional, an unknown one is an error.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each key is documented at the flag of its name")]
pub struct File {
    pub control: Option<String>,
    pub role: Option<Role>,
    pub state_dir: Option<PathBuf>,
    pub socket: Option<PathBuf>,
    pub metrics: Option<SocketAddr>,
    pub overlay: OverlayKeys,
    pub underlay: UnderlayKeys,
    pub datapath: DatapathKeys,
    pub policy: PolicyKeys,
    pub failover: FailoverKeys,
    pub timeouts: FlowTimeouts,
    pub masquerade: MasqueradeKeys,
    pub limits: LimitsKeys,
    pub names: NamesKeys,
    pub dns: DnsKeys,
}

/// `[overlay]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OverlayKeys {
    pub kind: Option<OverlayKind>,
    pub device: Option<String>,
    pub listen_port: Option<u16>,
    pub endpoint: Option<SocketAddr>,
    pub mtu: Option<u16>,
    pub use_routes: Option<Vec<String>>,
}

/// `[datapath]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatapathKeys {
    pub kind: Option<Choice>,
    pub xdp: Option<XdpChoice>,
    pub bpf_dir: Option<PathBuf>,
    pub site_devices: Option<Vec<String>>,
    pub nat_ports: Option<NatPorts>,
    pub flow_entries: Option<u32>,
    pub half_open_entries: Option<u32>,
    pub image_words: Option<u32>,
}

/// `[masquerade]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MasqueradeKeys {
    /// Addresses to masquerade with, by the device they leave by: one range a family.
    pub pools: BTreeMap<String, Vec<Pool>>,
    /// Whether a UDP source port keeps its masquerade port towards every destination (RFC 4787 REQ-1).
    pub endpoint_independent: bool,
}

/// `[limits]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsKeys {
    /// Flows one source may have opened lately that were not answered; 0 for any number.
    pub half_open_per_source: u32,
}

/// `[policy]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyKeys {
    pub max_age_seconds: Option<u64>,
    pub end_state: Option<EndState>,
}

/// `[failover]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailoverKeys {
    pub probe_interval_ms: Option<u64>,
    pub dead_after_ms: Option<u64>,
    pub return_after_ms: Option<u64>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not a configuration.
    #[error("{path} is not a valid configuration: {cause}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        cause: Box<toml::de::Error>,
    },
    /// A value cannot work.
    #[error("{0}")]
    Value(String),
}

impl File {
    /// The host's resolv.conf.
    pub fn resolv_conf(&self) -> PathBuf {
        self.dns.resolv_conf.clone().unwrap_or_else(|| "/etc/resolv.conf".into())
    }

    /// Reads `path`, which must exist; without it the default file, if that exists.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let named = path.is_some();
        let path = path.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if !named && e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(cause) => return Err(ConfigError::Read { path: path.into(), cause }),
        };
        toml::from_str(&text).map_err(|e| ConfigError::Parse { path: path.into(), cause: Box::new(e) })
    }
}
