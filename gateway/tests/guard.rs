//! The underlay guard on real devices, with real packets: what it lets pass, what it counts, and that a handshake of the
//! WireGuard this agent uses passes while a flood does not. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "support/end.rs"]
mod end;
#[path = "support/frames.rs"]
mod frames;
#[path = "support/guard_model.rs"]
mod model;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::userspace::UserspaceDatapath;
use sluicegate_gateway::datapath::{
    Choice, Datapath as _, FlowSettings, GuardSettings, Settings, XdpChoice, XdpMode, XdpSettings,
};
use sluicegate_gateway::overlay::PeerSpec;
use sluicegate_gateway::tun::Tun;
use sluicegate_lab::{Feature, Lab, Namespace, can_run_with};

use self::end::{End, PATIENCE, public};
use self::frames::Frames;

const PORT: u16 = 51_820;
const BURST: u32 = 5;
/// The gateway's addresses, and two of other hosts in one prefix and one in another, by family.
const ADDRESSES: [[&str; 4]; 2] = [
    ["192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.9"],
    ["2001:db8::1", "2001:db8::2", "2001:db8:0:ff::3", "2001:db8:0:100::9"],
];

/// A message that says what it is, of `length` bytes.
fn message(kind: u8, length: usize) -> Vec<u8> {
    let mut message = vec![0xa5; length];
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    message
}

#[test]
fn only_well_formed_messages_reach_the_port() {
    let stage = Stage::new();
    let mut datapath = stage.open(stage.guarded());
    for [own, first, ..] in ADDRESSES {
        let before = stage.refused(&mut datapath);
        let (inside, outside) = stage.sockets(own, PORT, first);
        let good = [message(1, 148), message(2, 92), message(3, 64), message(4, 32), message(4, 1424)];
        let mut reserved = message(4, 48);
        reserved[2] = 1;
        let bad = [
            vec![],
            vec![1],
            b"GET / HTTP/1.0\r\n\r\n".to_vec(),
            message(0, 148),
            message(1, 147),
            message(1, 149),
            message(2, 148),
            message(3, 92),
            message(4, 31),
            message(4, 40),
            message(5, 64),
            reserved,
        ];
        for payload in bad.iter().chain(&good) {
            outside.send_to(payload, (own.parse::<IpAddr>().unwrap(), PORT)).unwrap();
        }
        // They come in order, so after the last good one there is nothing left to wait for.
        let arrived = receive(&inside, good.last().unwrap());
        assert_eq!(arrived, good, "{own}");
        let after = stage.refused(&mut datapath);
        assert_eq!(after.0 - before.0, bad.len() as u64, "{own}: each of them counted as malformed");
        assert_eq!(after.1, before.1, "{own}");
    }
}

#[test]
fn what_is_not_for_the_guarded_port_passes() {
    let stage = Stage::new();
    let mut datapath = stage.open(stage.guarded());
    for [own, first, ..] in ADDRESSES {
        let (inside, outside) = stage.sockets(own, PORT + 1, first);
        let junk = b"not WireGuard's".to_vec();
        outside.send_to(&junk, (own.parse::<IpAddr>().unwrap(), PORT + 1)).unwrap();
        assert_eq!(receive(&inside, &junk), std::slice::from_ref(&junk), "{own}");
    }
    assert_eq!(stage.refused(&mut datapath), (0, 0));
}

#[test]
fn initiations_are_limited_for_each_source_prefix() {
    const FLOOD: usize = 400;
    let stage = Stage::new();
    let mut datapath = stage.open(stage.guarded());
    for [own, first, neighbour, stranger] in ADDRESSES {
        let before = stage.refused(&mut datapath);
        let (inside, outside) = stage.sockets(own, PORT, first);
        let to = SocketAddr::new(own.parse().unwrap(), PORT);
        let began = Instant::now();
        for _ in 0..FLOOD {
            outside.send_to(&message(1, 148), to).unwrap();
        }
        // Another address of the same prefix shares the bucket, which is empty.
        let outside = stage.outside(neighbour);
        for _ in 0..FLOOD {
            outside.send_to(&message(1, 148), to).unwrap();
        }
        let seconds = began.elapsed().as_secs() + 1;
        // Other messages of the same source are not held back.
        let mark = message(4, 32);
        outside.send_to(&mark, to).unwrap();
        let arrived = receive(&inside, &mark).len() as u64 - 1;
        let most = u64::from(BURST) + seconds;
        assert!(
            (u64::from(BURST)..=most).contains(&arrived),
            "{own}: {arrived} of a flood, {most} at the most"
        );
        let after = stage.refused(&mut datapath);
        assert_eq!(after.1 - before.1, 2 * FLOOD as u64 - arrived, "{own}: the others are counted");

        let outside = stage.outside(stranger);
        outside.send_to(&message(1, 148), to).unwrap();
        assert_eq!(
            receive(&inside, &message(1, 148)).len(),
            1,
            "{own}: another prefix has a bucket of its own"
        );
        assert_eq!(stage.refused(&mut datapath), after);
    }
}

#[test]
fn a_real_handshake_passes_while_another_prefix_floods() {
    for [own, first, _, stranger] in ADDRESSES {
        let stage = Stage::new();
        std::thread::scope(|scope| {
            let gateway = End::start(scope, &stage.gateway, 1, ["100.90.0.1/16", "fd77::1/64"]);
            let peer = End::start(scope, &stage.peer, 2, ["100.90.0.2/16", "fd77::2/64"]);
            let mut datapath = stage.open(stage.guarded());
            let to = SocketAddr::new(own.parse().unwrap(), PORT);
            let flood = stage.outside(stranger);
            for _ in 0..200 {
                flood.send_to(&message(1, 148), to).unwrap();
            }
            let allowed = |v: [&str; 2]| v.iter().map(|a| a.parse().unwrap()).collect();
            gateway.configure(&PeerSpec {
                key: public(2),
                endpoint: None,
                allowed: allowed(["100.90.0.2/32", "fd77::2/128"]),
                probe: None,
                watched: false,
            });
            peer.configure(&PeerSpec {
                key: public(1),
                endpoint: Some(to),
                allowed: allowed(["100.90.0.1/32", "fd77::1/128"]),
                probe: None,
                watched: false,
            });
            let link = peer.link_when(|link| link.handshake.is_some());
            assert_eq!(link.endpoint, Some(to));
            let at_gateway = gateway.link_when(|link| link.handshake.is_some());
            assert_eq!(at_gateway.endpoint.unwrap().ip(), first.parse::<IpAddr>().unwrap());
            let (malformed, limited) = stage.refused(&mut datapath);
            assert_eq!(malformed, 0, "WireGuard's own messages are well formed");
            assert!(limited >= 200 - u64::from(BURST) - 20, "{limited}");
        });
    }
}

/// What the kernel's sockets do not send: tags, fragments, extension headers, other hosts' addresses.
#[test]
fn frames_of_any_shape_are_looked_into_and_the_hosts_business_is_not() {
    let stage = Stage::new();
    let mut datapath = stage.open(stage.guarded());
    let frames = Frames::by(&stage.peer, "eth0");
    let junk = message(9, 40);
    let fine = message(4, 48);
    let tag = |kind: u16| [kind.to_be_bytes(), 7u16.to_be_bytes()].concat();
    let (single, double) = (tag(0x8100), [tag(0x88a8), tag(0x8100)].concat());
    let options: &[u8] = &[17, 0, 1, 4, 0, 0, 0, 0];
    let first_fragment: &[u8] = &[17, 0, 0, 1, 0, 0, 0, 9];
    let last_fragment: &[u8] = &[17, 0, 0, 64, 0, 0, 0, 9];
    let four = |to: &str, fragment: u16, payload: &[u8]| v4(to, fragment, payload);
    let six = |to: &str, next: u8, extension: &[u8], payload: &[u8]| v6(to, next, extension, payload);
    let [[own4, other4, ..], [own6, other6, ..]] = ADDRESSES;
    for (what, tags, packet, refused) in [
        ("IPv4", &[][..], four(own4, 0, &junk), 1),
        ("IPv4, well formed", &[], four(own4, 0, &fine), 0),
        ("IPv4 for another host", &[], four(other4, 0, &junk), 0),
        ("IPv4 for every host of the network", &[], four("192.0.2.255", 0, &junk), 1),
        ("IPv4 for its first address", &[], four("192.0.2.0", 0, &junk), 0),
        ("IPv4 with a tag", &single, four(own4, 0, &junk), 1),
        ("IPv4 with a tag, well formed", &single, four(own4, 0, &fine), 0),
        ("IPv4 with two tags", &double, four(own4, 0, &junk), 1),
        ("IPv4, first fragment", &[], four(own4, 0x2000, &fine), 1),
        ("IPv4, later fragment", &[], four(own4, 0x0010, &junk), 0),
        ("IPv6", &[], six(own6, 17, &[], &junk), 1),
        ("IPv6, well formed", &[], six(own6, 17, &[], &fine), 0),
        ("IPv6 for another host", &[], six(other6, 17, &[], &junk), 0),
        ("IPv6 with a tag", &single, six(own6, 17, &[], &junk), 1),
        ("IPv6 with two tags", &double, six(own6, 17, &[], &junk), 1),
        ("IPv6 behind options", &[], six(own6, 60, options, &junk), 1),
        ("IPv6 behind options, well formed", &[], six(own6, 60, options, &fine), 0),
        ("IPv6, first fragment", &[], six(own6, 44, first_fragment, &fine), 1),
        ("IPv6, later fragment", &[], six(own6, 44, last_fragment, &junk), 0),
    ] {
        let before = stage.refused(&mut datapath);
        let ethertype = if packet[0] >> 4 == 4 { 0x0800u16 } else { 0x86dd };
        let ethernet = [&stage.gateway, &stage.peer].map(|end| end.mac("eth0").unwrap()).concat();
        frames.send(&[&ethernet, tags, &ethertype.to_be_bytes(), &packet].concat());
        stage.settle();
        let after = stage.refused(&mut datapath);
        assert_eq!((after.0 - before.0, after.1 - before.1), (refused, 0), "{what}");
    }
}

/// Twenty thousand frames that are nearly right, through the program in the kernel and through the rules as they are written.
#[test]
fn the_program_refuses_what_the_rules_say() {
    const SEED: u64 = 0x5c47_2026;
    let stage = Stage::new();
    // Test runs are received by the loopback device, which is guarded on paper alone.
    let guard =
        GuardSettings { devices: vec!["lo".into()], handshakes_per_second: u32::MAX, burst: u32::MAX };
    let mut datapath = stage.load(XdpSettings { guard: Some(guard), ..XdpSettings::default() }, Vec::new());
    datapath.set_listen_port(PORT).unwrap();
    let own = [ADDRESSES[0][0], ADDRESSES[1][0]].map(|address| match address.parse::<IpAddr>().unwrap() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    });
    let own = [&own[0][..], &own[1][..]];
    let mut frames = model::Nearly(SEED);
    let mut refused = 0;
    let run = || {
        for number in 0..20_000 {
            let frame = frames.frame(PORT, own);
            let (answer, _) = datapath.run_once("underlay_guard", &frame).unwrap();
            let expected = model::refuses(&frame, PORT, own);
            refused += u32::from(expected);
            assert_eq!(
                answer,
                if expected { 1 } else { 2 },
                "frame {number} of seed {SEED:#x}: {frame:02x?}"
            );
        }
    };
    stage.gateway.enter(run).unwrap();
    assert!((4_000..16_000).contains(&refused), "{refused} refused: the frames try one side alone");
    assert_eq!(stage.refused(&mut datapath).0, u64::from(refused));
}

#[test]
fn a_site_device_may_be_guarded_too_and_an_unguarded_one_is_not() {
    let stage = Stage::new();
    for (devices, refused) in [(vec!["eth0".to_owned()], 1), (vec!["eth9".to_owned()], 0)] {
        let guard = GuardSettings { devices, ..stage.guarded().guard.unwrap() };
        let xdp = XdpSettings { guard: Some(guard), ..XdpSettings::default() };
        let mut datapath = stage.open_with(xdp, vec!["eth0".into()]);
        for [own, first, ..] in ADDRESSES {
            let before = stage.refused(&mut datapath);
            let outside = stage.outside(first);
            outside.send_to(b"junk", (own.parse::<IpAddr>().unwrap(), PORT)).unwrap();
            stage.settle();
            assert_eq!(stage.refused(&mut datapath).0 - before.0, refused, "{own}");
        }
    }
}

/// A VLAN device has no XDP of its own in most kernels: the one below it is guarded, tags and all.
#[test]
fn a_vlan_device_is_guarded_below_its_tag() {
    if !can_run_with(Feature::Vlan) {
        return;
    }
    let stage = Stage::new();
    for (namespace, host) in [(&stage.gateway, 1), (&stage.peer, 2)] {
        namespace.ip(&["link", "add", "link", "eth0", "name", "eth0.7", "type", "vlan", "id", "7"]).unwrap();
        namespace.ip(&["link", "set", "eth0.7", "up"]).unwrap();
        namespace.address("eth0.7", &format!("203.0.113.{host}/24")).unwrap();
        namespace.address("eth0.7", &format!("2001:db9::{host}/64")).unwrap();
    }
    let guard = GuardSettings { devices: vec!["eth0.7".into()], ..stage.guarded().guard.unwrap() };
    let mut datapath = stage.open(XdpSettings { guard: Some(guard), ..XdpSettings::default() });
    for (own, source) in [("203.0.113.1", "203.0.113.2"), ("2001:db9::1", "2001:db9::2")] {
        let before = stage.refused(&mut datapath).0;
        let (inside, outside) = stage.sockets(own, PORT, source);
        for payload in [b"junk".to_vec(), message(4, 32)] {
            outside.send_to(&payload, (own.parse::<IpAddr>().unwrap(), PORT)).unwrap();
        }
        assert_eq!(receive(&inside, &message(4, 32)), [message(4, 32)], "{own}");
        assert_eq!(stage.refused(&mut datapath).0 - before, 1, "{own}");
    }
}

#[test]
fn a_new_address_is_guarded_and_one_that_is_gone_is_not() {
    let stage = Stage::new();
    let mut datapath = stage.open(stage.guarded());
    let outside = stage.outside(ADDRESSES[0][1]);
    let refused_for = |to: &str, datapath: &mut EbpfDatapath| {
        stage.gateway.enter(|| datapath.sweep()).unwrap().unwrap();
        let before = stage.refused(datapath).0;
        outside.send_to(b"junk", (to.parse::<IpAddr>().unwrap(), PORT)).unwrap();
        stage.settle();
        stage.refused(datapath).0 - before
    };
    stage.peer.ip(&["route", "add", "203.0.113.0/24", "via", "192.0.2.1"]).unwrap();
    assert_eq!(refused_for("203.0.113.1", &mut datapath), 0);
    stage.gateway.address("lo", "203.0.113.1/32").unwrap();
    assert_eq!(refused_for("203.0.113.1", &mut datapath), 1);
    stage.gateway.ip(&["address", "del", "203.0.113.1/32", "dev", "lo"]).unwrap();
    assert_eq!(refused_for("203.0.113.1", &mut datapath), 0);
}

#[test]
fn without_the_guard_nothing_is_looked_at_and_its_program_goes() {
    let stage = Stage::new();
    let link = || stage.gateway.ip(&["-o", "link", "show", "dev", "eth0"]).unwrap();
    let datapath = stage.open(stage.guarded());
    assert!(link().contains("xdp"), "{}", link());
    assert_eq!(datapath.xdp().iter().map(|x| x.mode).collect::<Vec<_>>(), [XdpMode::Native]);
    assert_eq!(datapath.guard().unwrap().port, PORT);
    drop(datapath);
    let mut datapath = stage.open(XdpSettings::default());
    assert!(!link().contains("xdp"), "{}", link());
    assert_eq!(datapath.guard(), None);
    for [own, first, ..] in ADDRESSES {
        let (inside, outside) = stage.sockets(own, PORT, first);
        outside.send_to(b"junk", (own.parse::<IpAddr>().unwrap(), PORT)).unwrap();
        assert_eq!(receive(&inside, b"junk"), [b"junk"]);
    }
    assert_eq!(stage.refused(&mut datapath), (0, 0));
}

#[test]
fn a_restarted_agent_guards_from_the_first_packet_on() {
    let stage = Stage::new();
    drop(stage.open(stage.guarded()));
    // The new agent has not been told its port yet.
    let mut datapath = stage.load(stage.guarded(), Vec::new());
    let outside = stage.outside(ADDRESSES[0][1]);
    outside.send_to(b"junk", (ADDRESSES[0][0].parse::<IpAddr>().unwrap(), PORT)).unwrap();
    stage.settle();
    assert_eq!(stage.refused(&mut datapath).0, 1);
}

#[test]
fn user_space_says_that_it_has_no_guard() {
    let stage = Stage::new();
    let settings = stage.settings(stage.guarded(), Vec::new());
    let degraded = stage
        .gateway
        .enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let tun = Tun::open("sluice0").unwrap();
                let (datapath, _packets) = UserspaceDatapath::open(&settings, &tun).unwrap();
                datapath.degraded()
            })
        })
        .unwrap();
    assert!(degraded.iter().any(|sentence| sentence.contains("underlay guard")), "{degraded:?}");
}

/// A gateway and the rest of the world, with one cable.
struct Stage {
    gateway: Namespace,
    peer: Namespace,
    lab: Lab,
}

impl Stage {
    fn new() -> Self {
        let lab = Lab::new().expect("these tests need root");
        let [gateway, peer] = ["gateway", "peer"].map(|name| lab.namespace(name).unwrap());
        lab.veth((&gateway, "eth0"), (&peer, "eth0")).unwrap();
        let [[own4, ..], [own6, ..]] = ADDRESSES;
        gateway.address("eth0", &format!("{own4}/24")).unwrap();
        gateway.address("eth0", &format!("{own6}/64")).unwrap();
        for (family, length) in ADDRESSES.iter().zip([24, 64]) {
            for (address, length) in family[1..].iter().zip([length, length, length + 8]) {
                peer.address("eth0", &format!("{address}/{length}")).unwrap();
            }
        }
        gateway.ip(&["route", "add", "198.51.100.0/24", "dev", "eth0"]).unwrap();
        gateway.ip(&["-6", "route", "add", "2001:db8::/32", "dev", "eth0"]).unwrap();
        Self { gateway, peer, lab }
    }

    fn guarded(&self) -> XdpSettings {
        let guard = GuardSettings { devices: vec!["eth0".into()], handshakes_per_second: 1, burst: BURST };
        XdpSettings { choice: XdpChoice::Native, guard: Some(guard) }
    }

    fn settings(&self, xdp: XdpSettings, site_devices: Vec<String>) -> Settings {
        Settings {
            choice: Choice::Ebpf,
            bpf_dir: self.lab.bpffs().unwrap().join("gateway"),
            site_devices,
            nat_ports: 20_000..=32_767,
            flow_entries: 4096,
            image_words: 4096,
            mtu: 1420,
            flows: FlowSettings::default(),
            xdp,
        }
    }

    fn load(&self, xdp: XdpSettings, site_devices: Vec<String>) -> EbpfDatapath {
        let settings = self.settings(xdp, site_devices);
        // There already, where WireGuard runs.
        let _ = self.gateway.ip(&["tuntap", "add", "dev", "sluice0", "mode", "tun"]);
        self.gateway.enter(|| EbpfDatapath::open(&settings, "sluice0")).unwrap().unwrap()
    }

    fn open(&self, xdp: XdpSettings) -> EbpfDatapath {
        self.open_with(xdp, Vec::new())
    }

    fn open_with(&self, xdp: XdpSettings, site_devices: Vec<String>) -> EbpfDatapath {
        let mut datapath = self.load(xdp, site_devices);
        datapath.set_listen_port(PORT).unwrap();
        let missing = |sentence: &String| !sentence.contains("is not there");
        let degraded: Vec<String> = datapath.degraded().into_iter().filter(missing).collect();
        assert!(degraded.is_empty(), "{degraded:?}");
        datapath
    }

    /// Packets refused as malformed, and for their rate.
    fn refused(&self, datapath: &mut EbpfDatapath) -> (u64, u64) {
        let drops: BTreeMap<_, _> = datapath.counters().unwrap().drops.into_iter().collect();
        (drops["underlay_malformed"], drops["underlay_handshake_rate"])
    }

    fn sockets(&self, own: &str, port: u16, source: &str) -> (UdpSocket, UdpSocket) {
        let inside = socket(&self.gateway, own, port);
        (inside, self.outside(source))
    }

    fn outside(&self, source: &str) -> UdpSocket {
        socket(&self.peer, source, 0)
    }

    /// Waits until what was sent has arrived: a datagram to a port nobody guards comes after it.
    fn settle(&self) {
        let [own, first, ..] = ADDRESSES[0];
        let (inside, outside) = self.sockets(own, PORT + 7, first);
        outside.send_to(b"settled", (own.parse::<IpAddr>().unwrap(), PORT + 7)).unwrap();
        receive(&inside, b"settled");
    }
}

fn socket(namespace: &Namespace, address: &str, port: u16) -> UdpSocket {
    let socket = namespace.udp((address.parse::<IpAddr>().unwrap(), port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5).min(PATIENCE))).unwrap();
    socket
}

/// What comes, `last` being the last of it.
fn receive(socket: &UdpSocket, last: &[u8]) -> Vec<Vec<u8>> {
    let mut arrived = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let length =
            socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{e} after {} datagrams", arrived.len()));
        arrived.push(buffer[..length].to_vec());
        if arrived.last().is_some_and(|came| came == last) {
            return arrived;
        }
    }
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let header = [40_000u16, PORT, length, 0].map(u16::to_be_bytes).concat();
    [header, payload.to_vec()].concat()
}

/// An IPv4 packet with the flags and offset of `fragment`.
fn v4(to: &str, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let datagram = udp(payload);
    let mut header = vec![0x45, 0];
    header.extend(((20 + datagram.len()) as u16).to_be_bytes());
    header.extend([0, 7]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, 17, 0, 0, 192, 0, 2, 2]);
    header.extend(to.parse::<std::net::Ipv4Addr>().unwrap().octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = !(((sum >> 16) + (sum & 0xffff)) as u16);
    header[10..12].copy_from_slice(&folded.to_be_bytes());
    [header, datagram].concat()
}

/// An IPv6 packet with one extension header of type `next`, or none.
fn v6(to: &str, next: u8, extension: &[u8], payload: &[u8]) -> Vec<u8> {
    let rest = [extension, &udp(payload)].concat();
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend([next, 64]);
    header.extend(ADDRESSES[1][1].parse::<std::net::Ipv6Addr>().unwrap().octets());
    header.extend(to.parse::<std::net::Ipv6Addr>().unwrap().octets());
    [header, rest].concat()
}
