//! What a path tells through a masquerading gateway, with the kernel's own stacks at both ends and a router behind the
//! gateway whose far link is narrow: fragments, closed ports, packets too big, time exceeded. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/policy.rs"]
mod policy;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sluicegate_api::image::Image;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{Datapath as _, Settings, XdpChoice};
use sluicegate_gateway::tun::Tun;
use sluicegate_lab::{Lab, Namespace, Program};
use sluicegate_policy::model::Service;
use tokio::sync::oneshot;

use self::gateway::Way;

const PATIENCE: Duration = Duration::from_secs(60);
/// MTU of the link between router and server.
const NARROW: &str = "1300";

/// Server and router, by family.
const SERVER: [&str; 2] = ["10.129.0.53", "fd11::53"];
const ROUTER: [&str; 2] = ["10.128.0.2", "fd10::2"];
/// The gateway, in the overlay and on the site.
const OWN: [&str; 2] = policy::GATEWAY;
const EGRESS: [&str; 2] = ["10.128.0.1", "fd10::1"];

/// The largest datagrams cross in fragments, both ways: the router cuts IPv4 ones once more, and answers IPv6 ones with
/// packet too big until they fit.
#[test]
fn a_ping_of_three_thousand_bytes_comes_back() {
    for (xdp, world) in worlds() {
        for server in SERVER {
            let ping = world.ping(server, &["-s", "3000", "-M", "dont", "-c", "6", "-i", "0.2", "-W", "2"]);
            assert!(ping.contains("3008 bytes from"), "{xdp:?}: {ping}");
        }
    }
}

/// An error about a masqueraded datagram finds the socket that sent it.
#[test]
fn a_closed_port_behind_the_gateway_refuses_a_datagram() {
    for (xdp, world) in worlds() {
        for server in SERVER {
            let server: IpAddr = server.parse().unwrap();
            let own = if server.is_ipv4() { "100.64.0.5:0" } else { "[fd64::6440:5]:0" };
            let refused = world.peer.enter(|| {
                let socket = UdpSocket::bind(own.parse::<SocketAddr>().unwrap()).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                socket.connect((server, 9999)).unwrap();
                // The first datagrams may be lost to the resolution of neighbours.
                (0..5).any(|_| {
                    let sent = socket.send(b"anybody?");
                    let heard = sent.and_then(|_| socket.recv(&mut [0; 16]));
                    heard.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
                })
            });
            assert!(refused.unwrap(), "{xdp:?}: nobody refused a datagram to {server}");
        }
    }
}

/// Path MTU discovery across the gateway: the router's word reaches the sender.
#[test]
fn a_narrow_link_behind_the_gateway_becomes_known_to_the_sender() {
    for (xdp, world) in worlds() {
        for server in SERVER {
            let ping = world.ping(server, &["-s", "1400", "-M", "do", "-c", "5", "-i", "0.2", "-W", "1"]);
            let route = world.peer.ip(&["route", "get", server]).unwrap();
            assert!(route.contains(&format!("mtu {NARROW}")), "{xdp:?}: {route}\n{ping}");
        }
    }
}

/// Traceroute sees the routers behind the gateway.
#[test]
fn a_router_behind_the_gateway_shows_when_time_is_exceeded() {
    for (xdp, world) in worlds() {
        for (server, router) in SERVER.into_iter().zip(ROUTER) {
            let ping = world.ping(server, &["-t", "2", "-c", "4", "-i", "0.2", "-W", "1"]);
            assert!(ping.contains(&format!("From {router}")), "{xdp:?}: {ping}");
        }
    }
}

/// A traceroute begins with the gateway.
#[test]
fn the_gateway_shows_when_time_is_exceeded() {
    for kind in KINDS {
        let mut world = World::with(kind, 1500, |_| ());
        for (server, own) in SERVER.into_iter().zip(OWN) {
            let ping = world.ping(server, &["-t", "1", "-c", "2", "-i", "0.2", "-W", "1"]);
            assert!(ping.contains(&format!("From {own}")), "{kind:?}: {ping}");
        }
        assert!(world.answers("time_exceeded") >= 2, "{kind:?}");
    }
}

/// What does not fit out of the site device is answered from the gateway's overlay address.
#[test]
fn a_narrow_site_device_becomes_known_to_the_sender() {
    for kind in KINDS {
        let mut world = World::with(kind, 1500, |gateway| {
            gateway.ip(&["link", "set", "site", "mtu", "1350"]).unwrap();
        });
        for (server, own) in SERVER.into_iter().zip(OWN) {
            let ping = world.ping(server, &["-s", "1400", "-M", "do", "-c", "3", "-i", "0.2", "-W", "1"]);
            let route = world.peer.ip(&["route", "get", server]).unwrap();
            assert!(ping.contains(&format!("From {own}")), "{kind:?}: {ping}");
            assert!(route.contains("mtu 1350"), "{kind:?}: {route}\n{ping}");
        }
        assert!(world.answers("too_big") >= 2, "{kind:?}");
    }
}

/// What does not fit into the overlay is answered from the gateway's address on the site: the server cuts up its answers
/// then, and those come back. The segments that offload would make of a packet count, not the packet, and what is quoted of
/// one with an unfinished checksum is right when it arrives: the router's device checks.
#[test]
fn a_narrow_overlay_becomes_known_to_the_server() {
    for kind in KINDS {
        let mut world = World::with(kind, 1280, |gateway| gateway.offload_off("site").unwrap());
        for (server, egress) in SERVER.into_iter().zip(EGRESS) {
            let large = world.peer_socket(server);
            let far = world.others[2].udp((server.parse::<IpAddr>().unwrap(), 5353)).unwrap();
            let from = exchange(&large, &far);
            segment(&far, 1250);
            let before = world.answers("too_big");
            // One packet for the device to cut up, into packets of 1,278 or 1,298 bytes.
            far.send_to(&[7; 12_500], from).unwrap();
            let fits = far.local_addr().unwrap().is_ipv4();
            if fits {
                assert!((0..10).all(|_| large.recv(&mut [0; 2048]).is_ok_and(|n| n == 1250)), "{kind:?}");
                segment(&far, 1270);
                far.send_to(&[7; 12_700], from).unwrap();
            }
            wait_for(|| world.answers("too_big") > before);
            let knows = || world.others[2].ip(&["route", "get", egress]).unwrap().contains("mtu 1280");
            wait_for(knows);

            let size = if fits { "1262" } else { "1242" };
            let ping = world.ping(server, &["-s", size, "-M", "do", "-c", "4", "-i", "0.2", "-W", "1"]);
            assert!(ping.contains("bytes from"), "{kind:?}: {ping}");
        }
    }
}

/// Both ends of a connection are told a segment size that crosses overlay and site, and a megabyte crosses each way.
#[test]
fn connections_are_told_what_crosses_the_gateway() {
    for kind in KINDS {
        let mut world = World::with(kind, 1280, |_| ());
        // Less the twelve bytes of the timestamp option (RFC 6691 2).
        for (server, size) in SERVER.into_iter().zip([1240 - 12, 1220 - 12]) {
            let address: SocketAddr = (server.parse::<IpAddr>().unwrap(), 8080).into();
            let listener = world.others[2].listen(address).unwrap();
            let near = world.peer.enter(|| TcpStream::connect_timeout(&address, PATIENCE).unwrap()).unwrap();
            let (far, _) = listener.accept().unwrap();
            assert_eq!((segment_size(&near), segment_size(&far)), (size, size), "{kind:?}: {server}");
            for (from, to) in [(&near, &far), (&far, &near)] {
                thread::scope(|scope| {
                    scope.spawn(|| (&mut &*from).write_all(&vec![9; 1 << 20]).unwrap());
                    to.set_read_timeout(Some(PATIENCE)).unwrap();
                    (&mut &*to).read_exact(&mut vec![0; 1 << 20]).unwrap();
                });
            }
        }
        assert_eq!(world.answers("too_big"), 0, "{kind:?}: segments were too large");
    }
}

/// A datagram there and back, so that there is a flow; returns whom the far end sees.
fn exchange(near: &UdpSocket, far: &UdpSocket) -> SocketAddr {
    far.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 16];
    // The first datagrams may be lost to the resolution of neighbours.
    for _ in 0..20 {
        near.send(b"hello").unwrap();
        let Ok((_, from)) = far.recv_from(&mut buffer) else { continue };
        far.send_to(b"hello", from).unwrap();
        if near.recv(&mut buffer).is_ok() {
            while near.recv(&mut buffer).is_ok() {}
            return from;
        }
    }
    panic!("no datagram crosses");
}

/// Has the kernel cut up what is sent into datagrams of `size` bytes, as late as it can.
fn segment(socket: &UdpSocket, size: libc::c_int) {
    set(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, size);
}

fn set(socket: i32, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the option takes an integer, which lives through the call.
    let done = unsafe { libc::setsockopt(socket, level, option, (&raw const value).cast(), length) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Bytes that a connection puts into one segment.
fn segment_size(stream: &TcpStream) -> libc::c_int {
    let mut size: libc::c_int = 0;
    let mut length = size_of_val(&size) as libc::socklen_t;
    // SAFETY: the option is an integer, which lives through the call with its length.
    let done = unsafe {
        let to = (&raw mut size).cast();
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_MAXSEG, to, &raw mut length)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    size
}

fn wait_for(mut true_now: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !true_now() {
        assert!(Instant::now() < deadline, "it never came about");
        thread::yield_now();
    }
}

/// What the overlay is, and how packets are judged there.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Ethernet(XdpChoice),
    /// With XDP, by which frames can be sent too.
    Sendable,
    /// Packets without an Ethernet header.
    Tunnel,
}

const KINDS: [Kind; 4] =
    [Kind::Ethernet(XdpChoice::Off), Kind::Ethernet(XdpChoice::Native), Kind::Sendable, Kind::Tunnel];

/// Device `overlay` of a gateway and device `out` of a peer, joined by a thread that carries packets between them.
struct Tunnel {
    stop: Option<oneshot::Sender<()>>,
    carrier: Option<JoinHandle<()>>,
}

impl Tunnel {
    fn new(peer: &Namespace, gateway: &Namespace) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let (peer, gateway) = (peer.clone(), gateway.clone());
        let carrier = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let open = |namespace: &Namespace, name: &str| {
                let in_runtime = || {
                    let _guard = runtime.enter();
                    Tun::open(name).unwrap()
                };
                namespace.enter(in_runtime).unwrap()
            };
            let (near, far) = (open(&peer, "out"), open(&gateway, "overlay"));
            ready.send(()).unwrap();
            runtime.block_on(carry(&near, &far, stopped));
        });
        is_ready.recv().unwrap();
        Self { stop: Some(stop), carrier: Some(carrier) }
    }
}

async fn carry(near: &Tun, far: &Tun, mut stopped: oneshot::Receiver<()>) {
    let (mut there, mut back) = (vec![0; 65_535], vec![0; 65_535]);
    loop {
        // A device that is down takes nothing, and a packet that is not taken is lost as on any link.
        tokio::select! {
            length = near.recv(&mut there) => drop(far.send(&there[..length.unwrap()]).await),
            length = far.recv(&mut back) => drop(near.send(&back[..length.unwrap()]).await),
            _ = &mut stopped => return,
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.carrier.take().map(JoinHandle::join);
    }
}

/// A peer, a gateway, a router and a server in a row.
struct World {
    peer: Namespace,
    /// Judges while it lives.
    datapath: EbpfDatapath,
    _tunnel: Option<Tunnel>,
    /// Gateway, router and server.
    others: [Namespace; 3],
    _lab: Lab,
}

/// With XDP and without.
fn worlds() -> impl Iterator<Item = (XdpChoice, World)> {
    [XdpChoice::Off, XdpChoice::Native].into_iter().map(|xdp| (xdp, World::new(xdp)))
}

impl World {
    fn new(xdp: XdpChoice) -> Self {
        Self::with(Kind::Ethernet(xdp), 1500, |_| ())
    }

    /// With an overlay of this MTU, and the gateway prepared before it starts.
    fn with(kind: Kind, mtu: u16, prepare: impl FnOnce(&Namespace)) -> Self {
        let lab = Lab::new().expect("these tests need root");
        let [peer, gateway, router, server] =
            ["peer", "gateway", "router", "server"].map(|name| lab.namespace(name).unwrap());
        lab.veth((&gateway, "site"), (&router, "near")).unwrap();
        let (xdp, tunnel) = match kind {
            Kind::Ethernet(xdp) => {
                lab.veth((&peer, "out"), (&gateway, "overlay")).unwrap();
                (xdp, None)
            }
            Kind::Sendable => {
                lab.veth((&peer, "out"), (&gateway, "overlay")).unwrap();
                peer.receive_by_napi("out").unwrap();
                router.receive_by_napi("near").unwrap();
                (XdpChoice::Native, None)
            }
            Kind::Tunnel => {
                let tunnel = Tunnel::new(&peer, &gateway);
                for (namespace, device) in [(&peer, "out"), (&gateway, "overlay")] {
                    namespace.ip(&["link", "set", device, "up", "mtu", "1500"]).unwrap();
                }
                (XdpChoice::Native, Some(tunnel))
            }
        };
        lab.veth((&router, "far"), (&server, "in")).unwrap();
        for (namespace, device, addresses) in [
            (&peer, "out", ["100.64.0.5/16", "fd64::6440:5/64"]),
            (&gateway, "overlay", ["100.64.0.1/16", "fd64::6440:1/64"]),
            (&gateway, "site", ["10.128.0.1/24", "fd10::1/64"]),
            (&router, "near", ["10.128.0.2/24", "fd10::2/64"]),
            (&router, "far", ["10.129.0.1/24", "fd11::1/64"]),
            (&server, "in", ["10.129.0.53/24", "fd11::53/64"]),
        ] {
            for address in addresses {
                namespace.address(device, address).unwrap();
            }
        }
        for (namespace, device) in [(&router, "far"), (&server, "in")] {
            namespace.ip(&["link", "set", device, "mtu", NARROW]).unwrap();
        }
        for (namespace, to, via) in [
            (&peer, "default", ["100.64.0.1", "fd64::6440:1"]),
            (&gateway, "default", ROUTER),
            (&server, "default", ["10.129.0.1", "fd11::1"]),
        ] {
            for via in via {
                namespace.route(to, via).unwrap();
            }
        }
        if tunnel.is_none() {
            // An Ethernet's neighbours are known, as on a tunnel.
            peer.knows("out", &OWN, (&gateway, "overlay")).unwrap();
            gateway.knows("overlay", &policy::USER, (&peer, "out")).unwrap();
        }
        router.sysctl("net/ipv4/ip_forward", "1").unwrap();
        router.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        for namespace in [&router, &server] {
            // Every error is to be seen.
            namespace.sysctl("net/ipv4/icmp_ratelimit", "0").unwrap();
            namespace.sysctl("net/ipv6/icmp/ratelimit", "0").unwrap();
        }
        prepare(&gateway);
        let bpf_dir = lab.bpffs().unwrap().join("gateway");
        let device = gateway.index("site").unwrap();
        let datapath = gateway.enter(|| open(bpf_dir, xdp, mtu, device)).unwrap();
        Self { peer, datapath, _tunnel: tunnel, others: [gateway, router, server], _lab: lab }
    }

    /// What ping says; that a packet was lost is for the caller to judge.
    fn ping(&self, to: &str, args: &[&str]) -> String {
        let ran = self.peer.run(&Program::new("ping").arg("-n").args(args).arg(to), PATIENCE).unwrap();
        format!("{}{}", ran.stdout, ran.stderr)
    }

    /// A socket of the peer's, connected to port 5353 of `server`.
    fn peer_socket(&self, server: &str) -> UdpSocket {
        let to: SocketAddr = (server.parse::<IpAddr>().unwrap(), 5353).into();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = self.peer.enter(|| UdpSocket::bind(any).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.connect(to).unwrap();
        socket
    }

    /// How many packets the gateway has answered itself, by the name of the answer.
    fn answers(&mut self, kind: &str) -> u64 {
        let counters = self.datapath.counters().unwrap();
        counters.answers.iter().find(|(name, _)| *name == kind).unwrap().1
    }
}

/// Starts the datapath in the gateway's namespace, with the image of [`image`] in force.
fn open(bpf_dir: PathBuf, xdp: XdpChoice, mtu: u16, device: u32) -> EbpfDatapath {
    let settings = Settings { mtu, ..gateway::settings(bpf_dir, xdp) };
    let mut datapath = EbpfDatapath::open(&settings, "overlay").unwrap();
    let way = Way { device, sources: EGRESS, pool: [0, 0] };
    let image = image();
    gateway::prepare(&mut datapath, &image, &way).unwrap();
    datapath.apply(1, &image).unwrap();
    datapath
}

/// One peer may send everything to the site behind the router.
fn image() -> Image {
    let site = ("server", vec!["10.129.0.0/24".to_owned(), "fd11::/64".to_owned()]);
    policy::compile(&[policy::parsed(policy::USER)], &[site], true, vec![policy::rule(0, Service::All)])
}
