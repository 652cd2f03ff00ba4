//! A client, a gateway between two Ethernets, and a server: with plain cables, VLANs, or both sides on one cable.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use sluicegate_api::image::Image;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{Datapath as _, Settings, XdpChoice, XdpMode};
use sluicegate_lab::{Feature, Lab, Namespace, Program};
use sluicegate_policy::model::Service;

use crate::gateway::{self, Way};
use crate::policy;
use crate::tap::Tap;

/// The longest anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The client's, the gateway's own on both sides, and the server's address, by family.
pub(crate) const ADDRESSES: [[&str; 4]; 2] = [
    ["100.64.0.5", "100.64.0.1", "10.128.0.1", "10.128.0.53"],
    ["fd64::6440:5", "fd64::6440:1", "fd10::1", "fd10::53"],
];
/// Where the server answers; another port is denied.
pub(crate) const PORT: u16 = 7000;

/// How the gateway is connected.
#[derive(Clone, Debug)]
pub(crate) struct Cables {
    /// Its overlay device and its site device.
    pub(crate) devices: [&'static str; 2],
    /// The devices below all VLANs, where XDP runs.
    pub(crate) bases: Vec<&'static str>,
}

/// Two cables without VLANs.
pub(crate) fn plain() -> Cables {
    Cables { devices: ["overlay", "site"], bases: vec!["overlay", "site"] }
}

pub(crate) struct World {
    pub(crate) client: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) server: Namespace,
    /// The client's and the server's device.
    pub(crate) ends: [String; 2],
    pub(crate) cables: Cables,
    pub(crate) lab: Lab,
}

impl World {
    /// With plain cables, whose ends send whole checksums and take what XDP sends them.
    pub(crate) fn new() -> Self {
        let world = Self::bare();
        world.like_wires();
        world
    }

    /// The same as namespaces have it: checksums and segments are left to devices that never do the work.
    pub(crate) fn bare() -> Self {
        let lab = Lab::new().expect("these tests need root");
        let [client, gateway, server] =
            ["client", "gateway", "server"].map(|name| lab.namespace(name).unwrap());
        lab.veth((&client, "out"), (&gateway, "overlay")).unwrap();
        lab.veth((&gateway, "site"), (&server, "in")).unwrap();
        let ends = ["out".into(), "in".into()];
        let world = Self { client, gateway, server, ends, cables: plain(), lab };
        world.number();
        for (namespace, device) in [(&world.client, "out"), (&world.server, "in")] {
            namespace.feature(device, "rx-gro", true).unwrap();
        }
        world
    }

    /// The site behind `tags`, outermost first, each with its protocol; tags are in the frames as on a wire.
    pub(crate) fn tagged(tags: &[(&'static str, &'static str)], site: &'static str) -> Self {
        let lab = Lab::new().expect("these tests need root");
        let [client, gateway, server] =
            ["client", "gateway", "server"].map(|name| lab.namespace(name).unwrap());
        lab.veth((&client, "out"), (&gateway, "overlay")).unwrap();
        lab.veth((&gateway, "site"), (&server, "in")).unwrap();
        let far = site.replace("site", "in");
        for (namespace, base) in [(&gateway, "site"), (&server, "in")] {
            tags_in_frames(namespace, base);
            let mut below = base.to_owned();
            for (protocol, id) in tags {
                let name = format!("{below}.{id}");
                vlan(namespace, &below, &name, protocol, id);
                below = name;
            }
        }
        let cables = Cables { devices: ["overlay", site], bases: vec!["overlay", "site"] };
        let world = Self { client, gateway, server, ends: ["out".into(), far], cables, lab };
        world.number();
        world.like_wires();
        world.server.offload_off("in").unwrap();
        world.server.feature("in", "rx-gro", true).unwrap();
        world
    }

    /// Overlay and site are VLANs 10 and 20 of one cable, whose far end a switch takes apart.
    pub(crate) fn on_a_stick() -> Self {
        let lab = Lab::new().expect("these tests need root");
        let [client, gateway, server, switch] =
            ["client", "gateway", "server", "switch"].map(|name| lab.namespace(name).unwrap());
        lab.veth((&gateway, "trunk"), (&switch, "wire")).unwrap();
        tags_in_frames(&gateway, "trunk");
        tags_in_frames(&switch, "wire");
        for (id, end) in [("10", &client), ("20", &server)] {
            vlan(&gateway, "trunk", &format!("trunk.{id}"), "802.1Q", id);
            vlan(&switch, "wire", &format!("wire.{id}"), "802.1Q", id);
            switch.ip(&["link", "set", &format!("wire.{id}"), "netns", end.full_name()]).unwrap();
            end.ip(&["link", "set", &format!("wire.{id}"), "up"]).unwrap();
        }
        gateway.address("trunk", "192.0.2.1/24").unwrap();
        switch.address("wire", "192.0.2.2/24").unwrap();
        let cables = Cables { devices: ["trunk.10", "trunk.20"], bases: vec!["trunk"] };
        let ends = ["wire.10".into(), "wire.20".into()];
        let world = Self { client, gateway, server, ends, cables, lab };
        world.number();
        world.like_wires();
        switch.offload_off("wire").unwrap();
        switch.feature("wire", "rx-gro", true).unwrap();
        // Untagged frames are the host's own.
        let ping = switch.run(&Program::new("ping").args(["-c", "1", "192.0.2.1"]), PATIENCE).unwrap();
        assert!(ping.success(), "{ping:?}");
        world
    }

    fn number(&self) {
        let [overlay, site] = self.cables.devices;
        for [client, own, own_site, server] in ADDRESSES {
            let (wide, narrow) = if client.contains(':') { (64, 64) } else { (16, 24) };
            self.client.address(&self.ends[0], &format!("{client}/{wide}")).unwrap();
            self.gateway.address(overlay, &format!("{own}/{wide}")).unwrap();
            self.gateway.address(site, &format!("{own_site}/{narrow}")).unwrap();
            self.server.address(&self.ends[1], &format!("{server}/{narrow}")).unwrap();
            self.client.route("default", own).unwrap();
            self.server.route("default", own_site).unwrap();
        }
    }

    /// Whole checksums, no larger than the MTU; and GRO, since a veth device takes what XDP sends only with it.
    fn like_wires(&self) {
        for (namespace, device) in [(&self.client, &self.ends[0]), (&self.server, &self.ends[1])] {
            namespace.offload_off(device).unwrap();
            if !device.contains('.') {
                namespace.feature(device, "rx-gro", true).unwrap();
            }
        }
    }

    pub(crate) fn settings(&self, choice: XdpChoice) -> Settings {
        let settings = gateway::settings(self.lab.bpffs().unwrap().join("gateway"), choice);
        Settings { site_devices: vec![self.cables.devices[1].into()], ..settings }
    }

    /// Starts a gateway that forwards to [`PORT`] and answers to pings, with masquerade or without.
    pub(crate) fn open(&self, choice: XdpChoice, masquerade: bool) -> EbpfDatapath {
        self.open_with(choice, &image(masquerade))
    }

    /// Starts a gateway with this image in force.
    pub(crate) fn open_with(&self, choice: XdpChoice, image: &Image) -> EbpfDatapath {
        let settings = self.settings(choice);
        let [overlay, site] = self.cables.devices;
        let mut datapath = self.gateway.enter(|| EbpfDatapath::open(&settings, overlay)).unwrap().unwrap();
        let [[_, _, site4, _], [_, _, site6, _]] = ADDRESSES;
        let way = Way { device: self.gateway.index(site).unwrap(), sources: [site4, site6], pool: [0, 0] };
        let set_up = || {
            gateway::prepare(&mut datapath, image, &way).unwrap();
            let revision = datapath.in_force().map_or(1, |now| now.revision + 1);
            datapath.apply(revision, image).unwrap();
        };
        self.gateway.enter(set_up).unwrap();
        datapath
    }

    /// Starts one whose XDP sends by every device.
    pub(crate) fn open_whole(&self, masquerade: bool) -> EbpfDatapath {
        let (choice, mode) = sending();
        let datapath = self.open(choice, masquerade);
        assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());
        for device in datapath.xdp() {
            assert_eq!((device.mode, device.sends), (mode, true), "{device:?}");
        }
        datapath
    }

    pub(crate) fn sweep(&self, datapath: &mut EbpfDatapath) {
        self.gateway.enter(|| datapath.sweep()).unwrap().unwrap();
    }

    /// Watches where the gateway makes skbs of what arrives.
    pub(crate) fn tap(&self) -> Tap {
        Tap::on(&self.gateway, &self.cables.bases)
    }

    pub(crate) fn talk(&self, family: usize) -> Talk {
        let [client, .., server] = ADDRESSES[family];
        let (client, server) = (udp(&self.client, client, 0), udp(&self.server, server, PORT));
        client.connect(server.local_addr().unwrap()).unwrap();
        Talk { client, server, count: 0, seen: None }
    }
}

/// The XDP that sends: the drivers', or the stack's on a kernel that does not tell by which drivers it can.
pub(crate) fn sending() -> (XdpChoice, XdpMode) {
    if Feature::XdpFeatures.is_there() {
        (XdpChoice::Native, XdpMode::Native)
    } else {
        (XdpChoice::Generic, XdpMode::Generic)
    }
}

/// A question-and-answer flow.
pub(crate) struct Talk {
    pub(crate) client: UdpSocket,
    pub(crate) server: UdpSocket,
    count: u32,
    /// Whom the server saw last.
    pub(crate) seen: Option<SocketAddr>,
}

impl Talk {
    /// One question and its answer. No packet may be lost.
    pub(crate) fn round(&mut self) {
        assert!(self.try_round(PATIENCE), "round {} was lost", self.count);
    }

    /// One question and its answer, when both arrive within `patience`.
    pub(crate) fn try_round(&mut self, patience: Duration) -> bool {
        self.count += 1;
        let text = format!("question {}", self.count);
        self.client.set_read_timeout(Some(patience)).unwrap();
        self.server.set_read_timeout(Some(patience)).unwrap();
        self.client.send(text.as_bytes()).unwrap();
        let mut buffer = [0; 64];
        let Ok((length, from)) = self.server.recv_from(&mut buffer) else { return false };
        assert_eq!(&buffer[..length], text.as_bytes());
        self.seen = Some(from);
        self.server.send_to(format!("answer {}", self.count).as_bytes(), from).unwrap();
        match self.client.recv(&mut buffer) {
            Ok(length) => buffer[..length] == *format!("answer {}", self.count).as_bytes(),
            Err(_) => false,
        }
    }
}

pub(crate) fn udp(namespace: &Namespace, address: &str, port: u16) -> UdpSocket {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let socket = namespace.udp(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends `length` bytes over one connection and has them sent back; whether all came as they were.
pub(crate) fn tcp_there_and_back(world: &World, family: usize, length: usize) -> bool {
    let [.., server] = ADDRESSES[family];
    let address = SocketAddr::new(server.parse().unwrap(), PORT);
    let listener = world.server.listen(address).unwrap();
    let bytes: Vec<u8> = (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.read_to_end(&mut received).unwrap();
            stream.write_all(&received).unwrap();
        });
        let connect = || TcpStream::connect_timeout(&address, PATIENCE);
        let mut stream = world.client.enter(connect).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        back == bytes
    })
}

/// Packets dropped for `reason`.
pub(crate) fn drops(datapath: &mut EbpfDatapath, reason: &str) -> u64 {
    let drops: BTreeMap<_, _> = datapath.counters().unwrap().drops.into_iter().collect();
    drops[reason]
}

/// Tags travel in the frames, as they do on a wire.
pub(crate) fn tags_in_frames(namespace: &Namespace, device: &str) {
    for feature in
        ["tx-vlan-hw-insert", "rx-vlan-hw-parse", "tx-vlan-stag-hw-insert", "rx-vlan-stag-hw-parse"]
    {
        namespace.feature(device, feature, false).unwrap();
    }
}

pub(crate) fn vlan(namespace: &Namespace, below: &str, name: &str, protocol: &str, id: &str) {
    namespace
        .ip(&["link", "add", "link", below, "name", name, "type", "vlan", "protocol", protocol, "id", id])
        .unwrap();
    namespace.ip(&["link", "set", name, "up"]).unwrap();
}

/// One peer may reach one dual-stack server by TCP and UDP at one port, and ping it.
fn image(masquerade: bool) -> Image {
    let services = [Service::Udp(vec![PORT..=PORT]), Service::Tcp(vec![PORT..=PORT]), Service::Icmp];
    let rules = services.into_iter().zip(0..).map(|(service, number)| policy::rule(number, service));
    let server = ("server", vec!["10.128.0.53/32".to_owned(), "fd10::53/128".to_owned()]);
    policy::compile(&[policy::parsed(policy::USER)], &[server], masquerade, rules.collect())
}
