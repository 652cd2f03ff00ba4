//! Settings: flag, else environment, else file, else default.

mod dns;
mod file;
mod flags;
mod names;
mod nat_ports;
mod pool;
mod underlay;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use dns::{Dns, DnsKeys, HostMode, ListenAt};
pub use file::{ConfigError, File};
pub use flags::{Common, RunFlags};
pub use names::{NameServer, NamesKeys};
pub use nat_ports::NatPorts;
pub use pool::Pool;
pub use underlay::UnderlayKeys;

use crate::datapath::{self, FlowSettings};

/// What this agent is in the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Routes between the overlay and sites.
    Gateway,
    /// Reaches what its policies open.
    Peer,
}

impl Role {
    /// The name in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Peer => "peer",
        }
    }
}

/// What the overlay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OverlayKind {
    /// The embedded WireGuard, on a TUN device of its own.
    #[default]
    Wireguard,
    /// An Ethernet that is there already. Peers are known by their addresses alone.
    Ethernet,
}

impl OverlayKind {
    /// The name in files and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wireguard => "wireguard",
            Self::Ethernet => "ethernet",
        }
    }
}

/// What follows when the image has outlived `max_age` without word from control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EndState {
    /// Every packet is dropped as `policy_expired`.
    #[default]
    Closed,
    /// The last image stays in force.
    Keep,
}

/// Where things are; what every verb needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Keys, certificates, the last image.
    pub state_dir: PathBuf,
    /// The unix socket of the running agent.
    pub socket: PathBuf,
    /// Pinned programs and maps.
    pub bpf_dir: PathBuf,
    /// Name of the overlay device.
    pub device: String,
    /// Control's URL, or those of its replicas with commas between them, when it is not what was joined.
    pub control: Option<String>,
    /// What to join as.
    pub role: Option<Role>,
}

/// Everything `run` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where things are.
    pub places: Places,
    /// What the overlay is.
    pub overlay: OverlayKind,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics: Option<SocketAddr>,
    /// WireGuard's UDP port; `None`: 51820 on a gateway, a free one on a peer.
    pub listen_port: Option<u16>,
    /// Where this agent's WireGuard can be reached, for the others.
    pub endpoint: Option<SocketAddr>,
    /// Routes of choice to take, such as exit nodes, by their network identifiers.
    pub use_routes: Vec<String>,
    /// The datapath.
    pub datapath: datapath::Settings,
    /// Addresses to masquerade with, by the device they leave by: at the most one range of each family.
    pub pools: BTreeMap<String, Vec<Pool>>,
    /// How long the last image stands without word from control; `None` is for ever.
    pub max_policy_age: Option<Duration>,
    /// How routers are watched and left.
    pub failover: Failover,
    /// Name servers to ask in the place of this machine's; at the most three.
    pub name_servers: Vec<SocketAddr>,
    /// How the host's questions for names are answered.
    pub dns: Dns,
}

/// How routers are watched and left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Time between probes of a router that another could stand in for, while packets go to it; others once a second.
    pub probe_interval: Duration,
    /// Silence after which such a router counts as dead; others after three seconds, where this is not longer.
    pub dead_after: Duration,
    /// How long a better router must have been live before traffic returns to it.
    pub return_after: Duration,
}

/// The default configuration file; it need not exist.
pub const DEFAULT_FILE: &str = "/etc/sluicegate/gateway.toml";

impl Places {
    /// From flags, environment and file.
    pub fn resolve(common: &Common) -> Result<(Self, File), ConfigError> {
        let file = File::load(common.config.as_deref())?;
        let places = Self {
            state_dir: pick(&common.state_dir, &file.state_dir, || "/var/lib/sluicegate".into()),
            socket: pick(&common.socket, &file.socket, || "/run/sluicegate/gateway.sock".into()),
            bpf_dir: pick(&common.bpf_dir, &file.datapath.bpf_dir, || "/sys/fs/bpf/sluicegate".into()),
            device: pick(&common.device, &file.overlay.device, || "sluice0".into()),
            control: common.control.clone().or_else(|| file.control.clone()),
            role: common.role.or(file.role),
        };
        Ok((places, file))
    }
}

impl Settings {
    /// From flags, environment and file.
    pub fn resolve(common: &Common, run: &RunFlags) -> Result<Self, ConfigError> {
        let (places, file) = Places::resolve(common)?;
        let mtu = pick(&run.mtu, &file.overlay.mtu, || 1420);
        // 1280: the least IPv6 allows. 4000: what the embedded WireGuard's buffers hold, with its own header.
        if !(1280..=4000).contains(&mtu) {
            return Err(ConfigError::Value(format!("mtu {mtu} is not between 1280 and 4000")));
        }
        let millis = |flag: &Option<u64>, file: &Option<u64>, default| {
            Duration::from_millis(pick(flag, file, || default))
        };
        let failover = Failover {
            probe_interval: millis(&run.probe_interval_ms, &file.failover.probe_interval_ms, 50),
            dead_after: millis(&run.dead_after_ms, &file.failover.dead_after_ms, 200),
            return_after: millis(&run.return_after_ms, &file.failover.return_after_ms, 2000),
        };
        if failover.probe_interval < Duration::from_millis(10) {
            return Err(ConfigError::Value("probe_interval_ms is less than 10".into()));
        }
        if failover.dead_after < failover.probe_interval * 2 {
            let why = "dead_after_ms is less than two probe intervals: one lost probe would move every route";
            return Err(ConfigError::Value(why.into()));
        }
        let age = pick(&run.max_policy_age, &file.policy.max_age_seconds, || 86_400);
        let end = pick(&run.policy_end_state, &file.policy.end_state, EndState::default);
        let site_devices = if run.site_devices.is_empty() {
            file.datapath.site_devices.clone().unwrap_or_default()
        } else {
            run.site_devices.clone()
        };
        let flows = FlowSettings {
            timeouts: file.timeouts,
            half_open_entries: file.datapath.half_open_entries,
            half_open_per_source: file.limits.half_open_per_source,
            endpoint_independent: file.masquerade.endpoint_independent,
        };
        if let Some(trouble) = flows.timeouts.trouble() {
            return Err(ConfigError::Value(trouble));
        }
        let xdp = underlay::resolve(run, &file)?;
        let overlay = pick(&run.overlay_kind, &file.overlay.kind, OverlayKind::default);
        let choice = pick(&run.datapath, &file.datapath.kind, Default::default);
        if overlay == OverlayKind::Ethernet {
            if common.device.is_none() && file.overlay.device.is_none() {
                return Err(ConfigError::Value(
                    "an overlay of kind ethernet needs its device: set `[overlay] device` or --device".into(),
                ));
            }
            if choice == datapath::Choice::Userspace {
                return Err(ConfigError::Value(
                    "an overlay of kind ethernet is judged by the kernel's datapath: set `[datapath] kind` to ebpf or auto"
                        .into(),
                ));
            }
        }
        let name_servers = names::resolve(run, &file)?;
        let dns = dns::resolve(run, &file)?;
        let pools = pool::checked(file.masquerade.pools).map_err(ConfigError::Value)?;
        let datapath = datapath::Settings {
            choice,
            bpf_dir: places.bpf_dir.clone(),
            site_devices,
            nat_ports: pick(&run.nat_ports, &file.datapath.nat_ports, NatPorts::default).range(),
            flow_entries: pick(&run.flow_entries, &file.datapath.flow_entries, || 262_144),
            image_words: pick(&run.image_words, &file.datapath.image_words, || 1 << 20),
            mtu,
            flows,
            xdp,
        };
        Ok(Self {
            overlay,
            pools,
            metrics: run.metrics.or(file.metrics),
            listen_port: run.listen_port.or(file.overlay.listen_port),
            endpoint: run.endpoint.or(file.overlay.endpoint),
            use_routes: match run.use_routes.is_empty() {
                true => file.overlay.use_routes.unwrap_or_default(),
                false => run.use_routes.clone(),
            },
            datapath,
            max_policy_age: (end == EndState::Closed).then(|| Duration::from_secs(age)),
            failover,
            name_servers,
            dns,
            places,
        })
    }

    /// WireGuard's UDP port for `role`.
    pub fn listen_port(&self, role: Role) -> u16 {
        self.listen_port.unwrap_or(match role {
            Role::Gateway => 51_820,
            Role::Peer => 0,
        })
    }
}

fn pick<T: Clone>(flag: &Option<T>, file: &Option<T>, default: impl FnOnce() -> T) -> T {
    flag.clone().or_else(|| file.clone()).unwrap_or_else(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str, run: RunFlags) -> Result<Settings, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        Settings::resolve(&Common { config: Some(file.path().into()), ..Common::default() }, &run)
    }

    #[test]
    fn an_ethernet_overlay_needs_its_device_and_the_kernel() {
        let ethernet = "[overlay]\nkind = \"ethernet\"\n";
        let with_device = format!("{ethernet}device = \"eth2\"\n");
        assert_eq!(settings("", RunFlags::default()).unwrap().overlay, OverlayKind::Wireguard);
        assert_eq!(settings(&with_device, RunFlags::default()).unwrap().overlay, OverlayKind::Ethernet);
        assert!(settings(ethernet, RunFlags::default()).unwrap_err().to_string().contains("--device"));
        let user_space = format!("{with_device}[datapath]\nkind = \"userspace\"\n");
        assert!(settings(&user_space, RunFlags::default()).unwrap_err().to_string().contains("kernel"));
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let toml =
            "[overlay]\nmtu = 1300\n[datapath]\nsite_devices = [\"eth1\"]\nnat_ports = \"1024-2047\"\n";
        let run = RunFlags { site_devices: vec!["eth2".into()], ..RunFlags::default() };
        let settings = settings(toml, run).unwrap();
        assert_eq!(settings.datapath.site_devices, ["eth2"]);
        assert_eq!(settings.datapath.mtu, 1300);
        assert_eq!(settings.datapath.nat_ports, 1024..=2047);
        assert_eq!(settings.datapath.image_words, 1 << 20);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let error = settings("[overlay]\nmtuu = 1300\n", RunFlags::default()).unwrap_err().to_string();
        assert!(error.contains("mtuu") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        for toml in [
            "[overlay]\nmtu = 500\n",
            "[failover]\ndead_after_ms = 99\n",
            "[failover]\nprobe_interval_ms = 1\n",
            "[datapath]\nnat_ports = \"9-3\"\n",
            "[datapath]\nnat_ports = \"0-3\"\n",
            "[timeouts]\nudp = 0\n",
            "[timeouts]\ntcp_established = 100000000\n",
            "[masquerade]\npools = { eth1 = [\"192.0.2.1\", \"192.0.2.9\"] }\n",
            "[masquerade]\npools = { eth1 = [\"192.0.2.9-192.0.2.1\"] }\n",
            "[limits]\nhalf_open_per_source = -1\n",
            "[names]\nservers = [\"dns.example.org\"]\n",
            "[names]\nservers = [\"192.0.2.1\", \"192.0.2.2\", \"192.0.2.3\", \"2001:db8::4\"]\n",
            "[dns]\nlisten = [\"everywhere\"]\n",
            "[dns]\nhost = \"on\"\n",
            "[dns]\nhost = \"resolv.conf\"\nlisten = [\"127.0.0.1:5353\"]\n",
        ] {
            assert!(settings(toml, RunFlags::default()).is_err(), "{toml}");
        }
    }

    #[test]
    fn timeouts_limits_and_pools_come_from_the_file() {
        let toml = "[timeouts]\nudp = 300\n[limits]\nhalf_open_per_source = 512\n[datapath]\nhalf_open_entries = 8192\n\
                    [masquerade]\nendpoint_independent = true\n\
                    pools = { eth1 = [\"203.0.113.8-203.0.113.15\", \"2001:db8::100-2001:db8::10f\"] }\n";
        let settings = settings(toml, RunFlags::default()).unwrap();
        let flows = &settings.datapath.flows;
        assert_eq!((flows.timeouts.udp, flows.timeouts.icmp), (300, 60));
        assert_eq!((flows.half_open_per_source, flows.endpoint_independent), (512, true));
        assert_eq!(flows.half_open_entries(settings.datapath.flow_entries), 8192);
        assert_eq!(settings.pools["eth1"].iter().map(Pool::count).collect::<Vec<_>>(), [8, 16]);
    }

    #[test]
    fn name_servers_come_from_the_file_and_flags_beat_it() {
        let toml = "[names]\nservers = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]\n";
        let servers =
            |run| settings(toml, run).unwrap().name_servers.iter().map(ToString::to_string).collect();
        let of_file: Vec<String> = servers(RunFlags::default());
        assert_eq!(of_file, ["192.0.2.53:53", "[2001:db8::53]:5353"]);
        let run = RunFlags { name_servers: vec!["192.0.2.54".parse().unwrap()], ..RunFlags::default() };
        let of_flag: Vec<String> = servers(run);
        assert_eq!(of_flag, ["192.0.2.54:53"]);
        let error = settings("[names]\nservers = [\"dns\"]\n", RunFlags::default()).unwrap_err().to_string();
        assert!(error.contains("\"dns\" is not a name server") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn who_answers_names_comes_from_the_file_and_flags_beat_it() {
        let nothing = settings("", RunFlags::default()).unwrap().dns;
        assert_eq!((nothing.host, nothing.listen.len()), (HostMode::Off, 0));
        let toml = "[dns]\nlisten = [\"127.0.0.153\", \"[::1]:5353\"]\nhost = \"systemd-resolved\"\nresolv_conf = \"/a\"\n";
        let of_file = settings(toml, RunFlags::default()).unwrap().dns;
        assert_eq!(of_file.listen, ["127.0.0.153:53", "[::1]:5353"].map(|a| a.parse().unwrap()));
        assert_eq!((of_file.host, of_file.resolv_conf), (HostMode::SystemdResolved, "/a".into()));
        let (dns_listen, dns_host) = (vec!["::1".parse().unwrap()], Some(HostMode::ResolvConf));
        let of_flag = settings(toml, RunFlags { dns_listen, dns_host, ..RunFlags::default() }).unwrap().dns;
        assert_eq!((of_flag.listen, of_flag.host), (vec!["[::1]:53".parse().unwrap()], HostMode::ResolvConf));
    }

    #[test]
    fn keep_means_no_deadline() {
        assert_eq!(
            settings("[policy]\nend_state = \"keep\"\n", RunFlags::default()).unwrap().max_policy_age,
            None
        );
        let day = Some(Duration::from_secs(86_400));
        assert_eq!(settings("", RunFlags::default()).unwrap().max_policy_age, day);
    }

    #[test]
    fn the_example_file_holds_the_defaults() {
        let example = settings(include_str!("../../gateway.example.toml"), RunFlags::default()).unwrap();
        let mut defaults = settings("", RunFlags::default()).unwrap();
        defaults.places.role = Some(Role::Gateway);
        assert_eq!(example, defaults);
    }

    #[test]
    fn a_named_file_must_exist() {
        let common = Common { config: Some("/nonexistent/gateway.toml".into()), ..Common::default() };
        assert!(matches!(Places::resolve(&common), Err(ConfigError::Read { .. })));
    }
}
