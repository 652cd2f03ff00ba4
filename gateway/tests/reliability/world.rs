//! A peer, a gateway and a server in a row, over Ethernet, with neighbours that are known.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluicegate_api::image::Image;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{Datapath as _, FlowSettings, FlowTimeouts, Settings, XdpChoice};
use sluicegate_lab::{Feature, Lab, Namespace};

use crate::account::{EGRESS, SERVER, USER};
use crate::gateway::{self, Way};
use crate::policy::GATEWAY;

/// The three namespaces.
pub(crate) struct World {
    pub(crate) peer: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) server: Namespace,
    pub(crate) bpf_dir: PathBuf,
    pub(crate) lab: Lab,
}

impl World {
    pub(crate) fn new() -> Self {
        let lab = Lab::new().expect("these tests need root");
        let [peer, gateway, server] = ["peer", "gateway", "server"].map(|name| lab.namespace(name).unwrap());
        lab.veth((&peer, "out"), (&gateway, "overlay")).unwrap();
        lab.veth((&gateway, "site"), (&server, "in")).unwrap();
        for (namespace, device, addresses, lengths) in [
            (&peer, "out", USER, [16, 64]),
            (&gateway, "overlay", GATEWAY, [16, 64]),
            (&gateway, "site", EGRESS, [16, 64]),
            (&server, "in", SERVER, [16, 64]),
        ] {
            for (address, length) in addresses.iter().zip(lengths) {
                namespace.address(device, &format!("{address}/{length}")).unwrap();
            }
        }
        for via in GATEWAY {
            peer.route("default", via).unwrap();
        }
        // A veth device takes what XDP sends it only with GRO at its end; and no packet is larger than a wire carries. With it a
        // device has a queue of its own: the other kind is one for all of a processor, which other tests' traffic can fill.
        let ends = [(&peer, "out"), (&gateway, "overlay"), (&gateway, "site"), (&server, "in")];
        for (namespace, device) in ends {
            namespace.offload_off(device).unwrap();
            namespace.feature(device, "rx-gro", true).unwrap();
        }
        // A packet that waits for a neighbour's address, or is lost to that, is not what is looked for here.
        for (from, device, addresses, to, there) in [
            (&peer, "out", GATEWAY, &gateway, "overlay"),
            (&gateway, "overlay", USER, &peer, "out"),
            (&gateway, "site", SERVER, &server, "in"),
            (&server, "in", EGRESS, &gateway, "site"),
        ] {
            from.knows(device, &addresses, (to, there)).unwrap();
        }
        let bpf_dir = lab.bpffs().unwrap().join("gateway");
        Self { peer, gateway, server, bpf_dir, lab }
    }

    /// Index of the device to the site.
    pub(crate) fn site_device(&self) -> u32 {
        self.gateway.index("site").unwrap()
    }

    /// Starts the gateway, with `image` in force.
    pub(crate) fn open(&self, xdp: XdpChoice, flow_entries: u32, image: &Image) -> EbpfDatapath {
        let (settings, device) = (settings(&self.bpf_dir, xdp, flow_entries), self.site_device());
        let opened = self.gateway.enter(|| -> anyhow::Result<EbpfDatapath> {
            let mut datapath = start(&settings, device, image)?;
            datapath.apply(1, image)?;
            Ok(datapath)
        });
        let datapath = opened.unwrap().unwrap();
        if xdp != XdpChoice::Off {
            let devices = datapath.xdp();
            assert!(!devices.is_empty() && devices.iter().all(|device| device.sends), "{devices:?}");
        }
        datapath
    }
}

/// XDP that sends: the drivers', or the stack's on a kernel that does not tell by which drivers it can.
pub(crate) fn sending() -> XdpChoice {
    if Feature::XdpFeatures.is_there() { XdpChoice::Native } else { XdpChoice::Generic }
}

/// The way out to the site.
pub(crate) fn way(device: u32) -> Way {
    Way { device, sources: EGRESS, pool: [1, 1] }
}

/// Opens the datapath in the namespace of the calling thread and tells it of overlay and site, as an agent does.
pub(crate) fn start(settings: &Settings, device: u32, image: &Image) -> anyhow::Result<EbpfDatapath> {
    let mut datapath = EbpfDatapath::open(settings, "overlay")?;
    gateway::prepare(&mut datapath, image, &way(device))?;
    Ok(datapath)
}

/// What a gateway is opened with. Flows live long enough for a busy machine.
pub(crate) fn settings(bpf_dir: &Path, xdp: XdpChoice, flow_entries: u32) -> Settings {
    let timeouts = FlowTimeouts {
        udp_unreplied: 36_000,
        udp: 36_000,
        icmp: 36_000,
        tcp_handshake: 36_000,
        ..FlowTimeouts::default()
    };
    Settings {
        flow_entries,
        flows: FlowSettings { timeouts, ..FlowSettings::default() },
        ..gateway::settings(bpf_dir.into(), xdp)
    }
}

/// A UDP socket in `namespace` with a buffer that nothing here fills, reading for `patience` at most.
pub(crate) fn socket(namespace: &Namespace, address: SocketAddr, patience: Duration) -> UdpSocket {
    let socket = namespace.udp(address).unwrap();
    let (size, length) = (64i32 << 20, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the option takes an integer, which lives through the call.
    let done = unsafe {
        let value = (&raw const size).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, length)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    socket.set_read_timeout(Some(patience)).unwrap();
    socket
}

/// What `datapath` has dropped, by reason: said where something was lost.
pub(crate) fn dropped(datapath: &mut EbpfDatapath) -> Vec<(&'static str, u64)> {
    datapath.counters().unwrap().drops.into_iter().filter(|(_, packets)| *packets > 0).collect()
}

/// A number out of the environment, for longer runs.
pub(crate) fn chosen(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}
