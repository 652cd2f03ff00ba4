//! The user-space datapath between real hosts. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod image;
#[path = "../support/tun.rs"]
mod reopen;
mod world;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use image::Rule;
use reopen::reopened;
use sluicegate_gateway::datapath::{self, Choice, Datapath as _, EventKind, Kind, Settings};
use sluicegate_lab::{Lab, Namespace, Program};
use world::{PORTS, World, settings};

const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough to be sure that nothing comes, where a packet takes less than a millisecond.
const SILENCE: Duration = Duration::from_millis(300);
const LARGE: usize = 4 << 20;

/// A server that sends `LARGE` bytes, then reads to the end and says how much that was; on port 80 of `address`.
fn server(namespace: &Namespace, address: &str) -> mpsc::Receiver<(SocketAddr, usize)> {
    let address: SocketAddr = (address.parse::<IpAddr>().unwrap(), 80).into();
    let listener = namespace.listen(address).unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            let tell = tell.clone();
            thread::spawn(move || {
                stream.write_all(&vec![7; LARGE]).unwrap();
                let mut received = Vec::new();
                let _ = stream.read_to_end(&mut received);
                let _ = tell.send((from, received.len()));
            });
        }
    });
    told
}

fn connect(namespace: &Namespace, to: &str) -> std::io::Result<TcpStream> {
    let to: SocketAddr = (to.parse::<IpAddr>().unwrap(), 80).into();
    let stream = namespace.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Downloads and uploads `LARGE` bytes.
fn exchange(namespace: &Namespace, to: &str) {
    exchange_and(namespace, to, || ());
}

/// The same, with something to do when all has come and nothing has gone.
fn exchange_and(namespace: &Namespace, to: &str, halfway: impl FnOnce()) {
    let mut stream = connect(namespace, to).unwrap();
    let mut received = vec![0; LARGE];
    stream.read_exact(&mut received).unwrap();
    assert!(received.iter().all(|byte| *byte == 7));
    halfway();
    stream.write_all(&received).unwrap();
}

/// Sends a datagram from `from` to a socket in `to` at `address`; returns who it came from there, after an answer came back.
fn datagram(from: &Namespace, to: &Namespace, address: &str) -> SocketAddr {
    let at: SocketAddr = (address.parse::<IpAddr>().unwrap(), 53).into();
    let server = to.udp(at).unwrap();
    let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = from.enter(|| UdpSocket::bind(any)).unwrap().unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let mut buffer = [0; 16];
    client.send_to(b"question", at).unwrap();
    let (length, source) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"question");
    server.send_to(b"answer", source).unwrap();
    let (length, _) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"answer");
    source
}

fn ping(namespace: &Namespace, address: &str) {
    let ping = Program::new("ping").args(["-c", "2", "-i", "0.1", "-W", "5", address]);
    namespace.run(&ping, PATIENCE).unwrap().output().unwrap();
}

/// What the web server on port 8080 says; it may not be listening yet.
fn curl(namespace: &Namespace, address: &str) -> String {
    let url = SocketAddr::new(address.parse().unwrap(), 8080);
    let curl = Program::new("curl").args(["-sS", "--retry", "5", "--retry-connrefused", "-m", "8"]);
    namespace.run(&curl.arg(format!("http://{url}/")), PATIENCE).unwrap().output().unwrap()
}

/// What the gateway's own stack sent to the site: nothing, although it gets a copy of every reply.
fn assert_host_was_silent(world: &World) {
    assert_eq!(world.host_counter("snmp", "OutRsts"), 0);
    assert_eq!(world.host_counter("snmp", "OutDestUnreachs"), 0);
    assert_eq!(world.host_counter("snmp6", "Icmp6OutDestUnreachs"), 0);
}

#[test]
fn masqueraded_flows_work_and_the_host_says_nothing_to_their_replies() {
    let world = World::new(Rule::Accept { masquerade: true }).unwrap();
    let web = world.site.clone();
    thread::spawn(move || web.enter(|| sluicegate_lab::traffic::web("[::]:8080".parse().unwrap(), "site")));
    for (site, gateway) in [("10.9.0.2", "10.9.0.1"), ("fd09::2", "fd09::1")] {
        let gateway: IpAddr = gateway.parse().unwrap();
        let seen = server(&world.site, site);
        exchange_and(&world.peer, site, || {
            // Until now the server has sent nothing but full segments.
            let flows = world.ask(|datapath| datapath.sweep()).unwrap();
            let flow = flows.iter().find(|flow| flow.destination.to_string() == site).unwrap();
            let (packets, bytes) = flow.replies;
            assert!(bytes / packets > 1420, "no packet larger than the MTU was cut up: {flow:?}");
        });
        let (from, received) = seen.recv_timeout(PATIENCE).unwrap();
        assert_eq!((from.ip(), received), (gateway, LARGE));
        assert!(PORTS.contains(&from.port()), "{from}");
        let from = datagram(&world.peer, &world.site, site);
        assert!(from.ip() == gateway && PORTS.contains(&from.port()), "{from}");
        ping(&world.peer, site);
        assert_eq!(curl(&world.peer, site), format!("site seen {gateway}\n"));
    }
    assert_host_was_silent(&world);

    let counters = world.ask(|datapath| datapath.counters()).unwrap();
    // Multicast is what a host sends on a new device by itself.
    let dropped = counters.drops.iter().filter(|(reason, count)| *count > 0 && *reason != "not_unicast");
    assert_eq!(dropped.collect::<Vec<_>>(), [&("", 0); 0]);
    assert_eq!((counters.flows_started, counters.rules.len()), (8, 1));
    let flows = world.ask(|datapath| datapath.sweep()).unwrap();
    assert!(flows.iter().all(|flow| flow.translated.is_some()) && flows.len() == 8, "{flows:?}");
    assert_eq!(world.ask(|datapath| datapath.degraded()), [""; 0]);
    let starts = world.ask(|datapath| datapath.events());
    assert_eq!(starts.iter().filter(|event| event.kind == EventKind::Start).count(), 8);
}

#[test]
fn the_site_sees_one_address_of_the_pool() {
    let world = World::new(Rule::Accept { masquerade: true }).unwrap();
    for host in 32..36 {
        world.gateway.address("eth0", &format!("10.9.0.{host}/32")).unwrap();
        world.gateway.address("eth0", &format!("fd09::{host:x}/128")).unwrap();
    }
    world.masquerade_with("10.9.0.32", "fd09::20", 4).unwrap();
    for (site, first, last) in [("10.9.0.2", "10.9.0.32", "10.9.0.35"), ("fd09::2", "fd09::20", "fd09::23")] {
        let pool: std::ops::RangeInclusive<IpAddr> = first.parse().unwrap()..=last.parse().unwrap();
        let seen = server(&world.site, site);
        exchange(&world.peer, site);
        let (from, received) = seen.recv_timeout(PATIENCE).unwrap();
        assert!(pool.contains(&from.ip()) && received == LARGE, "{from}");
        assert_eq!(datagram(&world.peer, &world.site, site).ip(), from.ip());
        ping(&world.peer, site);
        // An address of the pool leads nowhere from the overlay: not back into it, not to the gateway's host.
        let to = SocketAddr::new(first.parse().unwrap(), 80);
        let refused = world.peer.enter(|| TcpStream::connect_timeout(&to, SILENCE)).unwrap().unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut);
    }
    assert!(world.drops("hairpin") >= 2);
    assert_host_was_silent(&world);
}

/// A rule opens the whole network, and nothing is opened to what its addresses are to the gateway, as its device has them.
#[test]
fn nothing_is_opened_to_the_hosts_addresses_and_to_broadcasts() {
    let world = World::new(Rule::Accept { masquerade: true }).unwrap();
    for (second, others) in [
        ("10.9.0.77/24", [("10.9.0.255", "not_unicast"), ("10.9.0.0", "not_unicast")].as_slice()),
        ("fd09::77/64", &[("fd09::", "hairpin")]),
    ] {
        world.gateway.address("eth0", second).unwrap();
        world.ask(|datapath| datapath.sweep()).unwrap();
        let (address, _) = second.split_once('/').unwrap();
        let any = if second.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let client = world.peer.enter(|| UdpSocket::bind(any)).unwrap().unwrap();
        for (to, reason) in others.iter().copied().chain([(address, "hairpin")]) {
            let before = world.drops(reason);
            client.send_to(b"refused", SocketAddr::new(to.parse().unwrap(), 53)).unwrap();
            let begun = std::time::Instant::now();
            while world.drops(reason) == before {
                assert!(begun.elapsed() < PATIENCE, "{to} is not refused as {reason}");
            }
        }
        // The address moves to the site, and the gateway hears of it.
        world.gateway.ip(&["address", "del", second, "dev", "eth0"]).unwrap();
        world.site.address("eth0", second).unwrap();
        world.ask(|datapath| datapath.sweep()).unwrap();
        datagram(&world.peer, &world.site, address);
    }
    assert_host_was_silent(&world);
}

/// What would leave too old or too large is answered: into the overlay from the gateway's overlay address, to the site from the
/// address its peers see.
#[test]
fn the_gateway_answers_what_it_cannot_send_on() {
    let world = World::new(Rule::Accept { masquerade: true }).unwrap();
    let says = |namespace: &Namespace, to: &str, args: &[&str]| {
        let ping = Program::new("ping").args(["-n", "-i", "0.2", "-W", "1"]).args(args).arg(to);
        let ran = namespace.run(&ping, PATIENCE).unwrap();
        format!("{}{}", ran.stdout, ran.stderr)
    };
    for (to, own, egress) in [("10.9.0.2", "100.64.0.1", "10.9.0.1"), ("fd09::2", "fd64::1", "fd09::1")] {
        let ping = says(&world.peer, to, &["-t", "1", "-c", "2"]);
        assert!(ping.contains(&format!("From {own}")), "{ping}");
        // 1,440 bytes cross to the site, whose answer is larger than the overlay's MTU of 1,420 until it knows.
        world.peer.ip(&["link", "set", "sluice0", "mtu", "1500"]).unwrap();
        let size = if to.contains(':') { "1392" } else { "1412" };
        let ping = says(&world.peer, to, &["-s", size, "-M", "do", "-c", "4"]);
        let route = world.site.ip(&["route", "get", egress]).unwrap();
        assert!(route.contains("mtu 1420"), "{route}\n{ping}");
        assert!(ping.contains("bytes from"), "{ping}");
    }
}

#[test]
fn without_masquerade_the_site_sees_the_peer() {
    let world = World::new(Rule::Accept { masquerade: false }).unwrap();
    for (site, peer) in [("10.9.0.2", "100.64.0.2"), ("fd09::2", "fd64::2")] {
        let peer: IpAddr = peer.parse().unwrap();
        let seen = server(&world.site, site);
        exchange(&world.peer, site);
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap().0.ip(), peer);
        assert_eq!(datagram(&world.peer, &world.site, site).ip(), peer);
        ping(&world.peer, site);
    }
    assert_host_was_silent(&world);
}

#[test]
fn a_rule_that_goes_takes_its_flows_along() {
    let world = World::new(Rule::Accept { masquerade: true }).unwrap();
    for (n, site) in ["10.9.0.2", "fd09::2"].into_iter().enumerate() {
        let seen = server(&world.site, site);
        let mut stream = connect(&world.peer, site).unwrap();
        stream.read_exact(&mut vec![0; LARGE]).unwrap();
        let revision = 10 * (n as u64 + 1);
        world.apply(revision, Rule::None);
        stream.write_all(b"too late").unwrap();
        assert!(seen.recv_timeout(SILENCE).is_err());
        assert!(world.drops("revoked") > n as u64);
        let events = world.ask(|datapath| datapath.events());
        let revoked: Vec<_> = events.iter().filter(|event| event.kind == EventKind::Revoke).collect();
        assert_eq!((revoked.len(), revoked[0].rule), (1, Some(0)));
        assert!(revoked[0].bytes > LARGE as u64, "{revoked:?}");
        assert!(!events.iter().any(|event| event.kind == EventKind::End));
        world.apply(revision + 1, Rule::Accept { masquerade: true });
    }
    assert_host_was_silent(&world);
}

#[test]
fn nothing_passes_without_a_rule_or_for_a_flow_nobody_opened() {
    let world = World::new(Rule::None).unwrap();
    let _servers = [server(&world.site, "10.9.0.2"), server(&world.peer, "100.64.0.2")];
    let to: SocketAddr = "10.9.0.2:80".parse().unwrap();
    assert!(world.peer.enter(|| TcpStream::connect_timeout(&to, SILENCE)).unwrap().is_err());
    assert!(world.drops("no_rule") > 0);
    // From the site, towards the overlay.
    world.apply(2, Rule::Accept { masquerade: false });
    let to: SocketAddr = "100.64.0.2:80".parse().unwrap();
    assert!(world.site.enter(|| TcpStream::connect_timeout(&to, SILENCE)).unwrap().is_err());
    assert!(world.drops("no_flow") > 0);
}

#[test]
fn the_gateways_own_host_talks_to_the_overlay_both_ways() {
    let world = World::new(Rule::Accept { masquerade: true }).unwrap();
    for (peer, gateway) in [("100.64.0.2", "100.64.0.1"), ("fd64::2", "fd64::1")] {
        let seen = server(&world.gateway, gateway);
        exchange(&world.peer, gateway);
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap().0.ip(), peer.parse::<IpAddr>().unwrap());
        let seen = server(&world.peer, peer);
        exchange(&world.gateway, peer);
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap().0.ip(), gateway.parse::<IpAddr>().unwrap());
        ping(&world.gateway, peer);
    }
}

#[test]
fn a_site_device_that_vanishes_and_comes_back_carries_packets_again() {
    let world = World::new(Rule::Accept { masquerade: true }).unwrap();
    ping(&world.peer, "10.9.0.2");
    world.gateway.ip(&["link", "del", "eth0"]).unwrap();
    world.ask(|datapath| datapath.set_egress(&[])).unwrap();
    world.ask(|datapath| datapath.sweep()).unwrap();
    assert_eq!(world.ask(|datapath| datapath.degraded()), ["site device eth0 is not there"]);
    world.lab.veth((&world.gateway, "eth0"), (&world.site, "eth0")).unwrap();
    world.gateway.address("eth0", "10.9.0.1/24").unwrap();
    world.site.address("eth0", "10.9.0.2/24").unwrap();
    world.resolve().unwrap();
    ping(&world.peer, "10.9.0.2");
    assert_eq!(world.ask(|datapath| datapath.degraded()), [""; 0]);
}

#[test]
fn the_overlay_learns_that_its_device_is_gone() {
    let mut world = World::new(Rule::Accept { masquerade: true }).unwrap();
    world.gateway.ip(&["link", "del", "sluice0"]).unwrap();
    world.stopped().unwrap();
}

#[test]
fn auto_falls_back_to_user_space_and_says_why() {
    let lab = Lab::new().unwrap();
    let host = lab.namespace("host").unwrap();
    // A directory where nothing can be pinned.
    let bpf_dir = lab.dir().join("not-a-bpffs");
    std::fs::create_dir(&bpf_dir).unwrap();
    let open = |choice| {
        let settings = Settings { choice, bpf_dir: bpf_dir.clone(), ..settings() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        host.enter(|| {
            runtime.block_on(async {
                let opened = datapath::open(&settings, &reopened("sluice0"))?;
                anyhow::Ok((opened.datapath.kind(), opened.packets.is_some(), opened.degraded))
            })
        })
        .unwrap()
    };
    let (kind, takes_packets, degraded) = open(Choice::Auto).unwrap();
    assert_eq!((kind, takes_packets), (Kind::Userspace, true));
    let why = degraded.unwrap();
    assert!(why.contains("user-space") && why.contains("bpffs"), "{why}");
    assert!(open(Choice::Ebpf).is_err());
    assert_eq!(open(Choice::Userspace).unwrap(), (Kind::Userspace, true, None));
}

#[test]
fn auto_does_not_give_up_pinned_programs_for_a_trouble_that_may_pass() {
    let lab = Lab::new().unwrap();
    let host = lab.namespace("host").unwrap();
    let bpf_dir = lab.bpffs().unwrap().join("agent");
    let settings =
        Settings { choice: Choice::Auto, bpf_dir: bpf_dir.clone(), site_devices: Vec::new(), ..settings() };
    let open = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        host.enter(|| {
            runtime.block_on(async {
                datapath::open(&settings, &reopened("sluice0")).map(|opened| opened.datapath.kind())
            })
        })
        .unwrap()
    };
    assert_eq!(open().unwrap(), Kind::Ebpf);
    // Something stands where a map was: the programs cannot be loaded over it, and the old ones are still attached.
    let dirs = std::fs::read_dir(&bpf_dir).unwrap().flatten().map(|entry| entry.path());
    let map = dirs.map(|dir| dir.join("IMAGE")).find(|map| map.exists()).unwrap();
    std::fs::remove_file(&map).unwrap();
    std::fs::create_dir(&map).unwrap();
    let refused = format!("{:#}", open().unwrap_err());
    assert!(refused.contains("goes on judging"), "{refused}");
    // Directories are marks of what else is ours.
    let links = std::fs::read_dir(bpf_dir.join("links")).unwrap().flatten();
    let links = links.filter(|entry| !entry.path().is_dir()).count();
    assert_eq!(links, 2, "the programs of the overlay device are still there");
}
