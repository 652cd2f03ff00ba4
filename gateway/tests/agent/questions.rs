//! A peer's agent asks a gateway's for names below a wildcard, through WireGuard; the name server is behind the gateway, and control
//! opens what it is told, as it does: by compiling it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{
    End as Ends, Name, NetworkConfig, PeerSet, RemotePeer, Resolver, Route, RoutedName, RoutedPrefix, Router,
    Schedule,
};
use sluicegate_api::image::Delta;
use sluicegate_gateway::datapath::Choice;
use sluicegate_gateway::names::{Answer, Answers, Dns, Files, Resolve as _};
use sluicegate_gateway::status::Status;
use sluicegate_gateway::system;
use sluicegate_lab::{Lab, Namespace, Program};
use sluicegate_policy::model::{self, Action, End, Group, Network, Policy, Resource, Service, State};
use sluicegate_policy::{Compiler, NetworkView};

use crate::dnsmasq::Dnsmasq;
use crate::{PATIENCE, Running, World, control::Control, runtime, settings, snapshot};

/// Overlay addresses: of the gateway, and of the peer.
const OVERLAY: [[&str; 2]; 2] = [["100.64.0.1", "fd64::1"], ["100.64.0.5", "fd64::5"]];
const IDS: [&str; 2] = ["gw", "user"];
const RESOURCE: &str = "pages";
const A: &str = "a.example.org";
/// What it stands for, which is the server's address.
const SERVER: [&str; 2] = ["10.9.0.7", "fd09::7"];
const PORT: u16 = 7000;

/// Both agents, control, and what is between them.
struct Two {
    agents: [World; 2],
    namespaces: [Namespace; 2],
    running: [Option<Running>; 2],
    serial: u64,
    /// Whether the peer may ask, and whether control opens what it is told.
    may_ask: bool,
    opens: bool,
}

fn joined(namespace: &Namespace, dir: &Path, bpf_dir: &Path, choice: Choice) -> World {
    std::fs::create_dir(dir).unwrap();
    let inside = || {
        let runtime = Box::leak(Box::new(runtime()));
        runtime.block_on(async {
            let (control, address) = Control::start().await.unwrap();
            control.join(address, dir).await.unwrap();
            World { control, settings: settings(choice, dir, bpf_dir) }
        })
    };
    namespace.enter(inside).unwrap()
}

impl Two {
    fn start(lab: &Lab, choice: Choice) -> Self {
        let [gateway, peer] = IDS.map(|name| lab.namespace(name).unwrap());
        let server = lab.namespace("server").unwrap();
        lab.veth((&gateway, "eth0"), (&peer, "eth0")).unwrap();
        lab.veth((&gateway, "site"), (&server, "eth0")).unwrap();
        gateway.address("eth0", "192.0.2.1/24").unwrap();
        peer.address("eth0", "192.0.2.2/24").unwrap();
        for (namespace, device, addresses) in [
            (&gateway, "site", ["10.9.0.1/24", "fd09::1/64"]),
            (&server, "eth0", ["10.9.0.7/24", "fd09::7/64"]),
        ] {
            namespace.offload_off(device).unwrap();
            addresses.iter().for_each(|address| namespace.address(device, address).unwrap());
        }
        for address in SERVER {
            let socket = server.enter(|| UdpSocket::bind((address, PORT)).unwrap()).unwrap();
            std::thread::spawn(move || {
                let mut packet = [0; 64];
                while let Ok((length, from)) = socket.recv_from(&mut packet) {
                    let _ = socket.send_to(&packet[..length], from);
                }
            });
        }
        let bpffs = lab.bpffs().unwrap();
        let agent =
            |namespace, n: usize| joined(namespace, &lab.dir().join(IDS[n]), &bpffs.join(IDS[n]), choice);
        let [mut router, mut user] = [agent(&gateway, 0), agent(&peer, 1)];
        for agent in [&mut router, &mut user] {
            agent.settings.datapath.image_words = 131_072;
        }
        router.settings.datapath.site_devices = vec!["site".into()];
        router.settings.endpoint = Some("192.0.2.1:51820".parse().unwrap());
        router.settings.name_servers = vec!["127.0.0.1:5300".parse().unwrap()];
        let namespaces = [gateway, peer];
        let agents = [router, user];
        let running = [0, 1].map(|n: usize| Some(namespaces[n].enter(|| agents[n].run()).unwrap()));
        Self { agents, namespaces, running, serial: 0, may_ask: true, opens: true }
    }

    /// What rules say of the addresses that control has been told.
    fn compiler(&self, learned: &BTreeSet<IpAddr>) -> Compiler {
        let peers = IDS.iter().zip(OVERLAY).map(|(id, [v4, v6])| {
            let (v4, v6) = (v4.parse().unwrap(), v6.parse().unwrap());
            ((*id).to_owned(), model::Peer { name: (*id).into(), v4, v6, allowed: true })
        });
        let group = |id: &str| {
            let peers = BTreeSet::from([id.to_owned()]).into();
            (format!("{id}s"), Group { name: id.into(), peers, ..Group::default() })
        };
        let resource = Resource {
            name: RESOURCE.into(),
            prefixes: learned.iter().copied().map(Into::into).collect(),
            domain: Some("*.example.org".into()),
            enabled: true,
            distribution: None,
        };
        let peers_of_router = BTreeSet::from([IDS[0].to_owned()]);
        let router = model::Router { peers: peers_of_router, metric: 100, masquerade: true, enabled: true };
        let network = Network {
            name: "site".into(),
            resources: [(RESOURCE.to_owned(), resource)].into(),
            routers: [("router".to_owned(), router)].into(),
        };
        let rule = model::Rule {
            id: "rule".into(),
            name: "rule".into(),
            slot: 0,
            enabled: true,
            action: Action::Accept,
            bidirectional: false,
            service: Service::Udp(vec![PORT..=PORT]),
            sources: End::Groups(["users".to_owned()].into()),
            destinations: End::Resource(RESOURCE.into()),
        };
        let policy = Policy {
            name: "policy".into(),
            enabled: true,
            posture_failed: Default::default(),
            rules: vec![rule].into(),
        };
        let state = State {
            overlay_v4: "100.64.0.0/16".parse().unwrap(),
            overlay_v6: "fd64::/64".parse().unwrap(),
            peers: peers.collect::<BTreeMap<_, _>>().into(),
            groups: IDS.map(group).into_iter().collect::<BTreeMap<_, _>>().into(),
            networks: [("net".to_owned(), network)].into(),
            policies: [("policy".to_owned(), policy)].into(),
        };
        Compiler::new(Arc::new(state)).unwrap()
    }

    /// Control tells both agents what follows from the addresses it has been told.
    fn tell(&mut self, learned: &BTreeSet<IpAddr>, keys: &[Vec<u8>; 2]) {
        self.serial += 1;
        let compiler = self.compiler(learned);
        for n in [0, 1] {
            let config = config(self.serial, n, &compiler.network(IDS[n]), &keys[1 - n], self.may_ask);
            self.agents[n].control.tell(Update::Network(config));
            let image = compiler.compile(IDS[n]).unwrap();
            self.agents[n].control.tell(Update::Snapshot(snapshot(self.serial, &image)));
        }
    }

    fn learned(&self) -> BTreeSet<IpAddr> {
        let said = self.agents[0].control.learned().unwrap_or_default();
        said.addresses.iter().map(|row| address(&row.address)).collect()
    }

    /// Control goes away, and something of the gateway's image ends: not the addresses that it has.
    fn end_without_control(&mut self) {
        let mut learned = self.learned();
        let now = self.compiler(&learned).compile(IDS[0]).unwrap();
        learned.extend(["10.9.0.9", "fd09::9"].map(|address| address.parse::<IpAddr>().unwrap()));
        let then = self.compiler(&learned).compile(IDS[0]).unwrap();
        let end = Ends {
            left_ms: 1500,
            at_ms: system::unix_ms() + 1500,
            revision: self.serial + 2,
            hash: then.hash().to_vec(),
            delta: Delta::between(&now, &then).encode(),
        };
        let ends = Schedule { base_hash: now.hash().to_vec(), ends: vec![end] };
        let control = &self.agents[0].control;
        control.fall_silent();
        control.tell_until(Update::Snapshot(snapshot(self.serial + 1, &now)), Some(ends));
        self.status(0, "it knows of the end", |s| s.policy.ends == 1);
        self.agents[0].control.go_away();
        self.agents[0].control.fall_silent();
        self.serial += 2;
        let serial = self.serial;
        self.status(0, "the end has come", |s| s.policy.revision == Some(serial) && !s.control.connected);
    }

    /// Asks by both families of the own host; nobody may.
    fn is_refused(&mut self, keys: &[Vec<u8>; 2]) {
        let refused = self.count(0, "heard", "refused");
        for own in OVERLAY[1] {
            for answer in self.look(own, A, keys) {
                assert!(matches!(answer, Answer::Failed(_)), "{answer:?}");
            }
        }
        assert!(self.count(0, "heard", "refused") >= refused + 2);
    }

    /// Control of the gateway is back, and says what it said before.
    fn come_back(&mut self, keys: &[Vec<u8>; 2]) {
        self.agents[0].control.come_back();
        self.tell(&self.learned(), keys);
        let serial = self.serial;
        let is_back = |s: &Status| {
            s.control.connected
                && s.policy.revision == Some(serial)
                && s.degraded.iter().all(|sentence| !sentence.contains("join again"))
        };
        self.status(0, "control is back", is_back);
        let answers = self.look(OVERLAY[1][0], A, keys);
        assert_eq!(answers.each_ref().map(addresses), SERVER.map(|server| vec![server.to_owned()]));
    }

    fn restart_gateway(&mut self) {
        let stopped = self.running[0].take().unwrap();
        runtime().block_on(stopped.stop());
        self.running[0] = Some(self.namespaces[0].enter(|| self.agents[0].run()).unwrap());
    }

    /// Looks a name up as a program of the peer's host does, while control does its work.
    fn look(&mut self, server: &str, name: &str, keys: &[Vec<u8>; 2]) -> Answers {
        let (namespace, name) = (self.namespaces[1].clone(), name.to_owned());
        let server = SocketAddr::new(server.parse().unwrap(), 53);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                let files = Files { resolv_conf: "/nowhere".into(), hosts: "/nowhere".into() };
                let look = || runtime().block_on(Dns::new(vec![server], files).look(&name));
                let answers = namespace.enter(look).unwrap();
                done.store(true, Ordering::Relaxed);
                answers
            });
            let mut known = self.learned();
            while !done.load(Ordering::Relaxed) {
                let learned = self.learned();
                if self.opens && learned != known {
                    self.tell(&learned, keys);
                    known = learned;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            looking.join().unwrap()
        })
    }

    /// Whether one packet, which is not sent again, is answered by the server.
    fn reaches(&self, server: &str) -> bool {
        let ask = || {
            let any = if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            // Without a route the host says so itself.
            let sent = socket.connect((server, PORT)).and_then(|()| socket.send(b"first"));
            sent.is_ok_and(|_| socket.recv(&mut [0; 64]).is_ok())
        };
        self.namespaces[1].enter(ask).unwrap()
    }

    fn status(&self, n: usize, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        runtime().block_on(self.agents[n].status(what, holds))
    }

    fn count(&self, n: usize, side: &str, result: &str) -> u64 {
        let status = self.status(n, "it answers", |_| true);
        let all = status.counters.name_questions.iter();
        all.filter(|came| came.side == side && came.result == result).map(|came| came.count).sum()
    }
}

fn config(serial: u64, n: usize, view: &NetworkView, key: &[u8], may_ask: bool) -> NetworkConfig {
    let ([v4, v6], [far_v4, far_v6]) = (OVERLAY[n], OVERLAY[1 - n]);
    let far = RemotePeer {
        id: IDS[1 - n].into(),
        name: IDS[1 - n].into(),
        wireguard_public_key: key.into(),
        endpoint: if n == 1 { "192.0.2.1:51820".into() } else { String::new() },
        address_v4: far_v4.into(),
        address_v6: far_v6.into(),
        dns_labels: Vec::new(),
    };
    let routers = |routers: &[sluicegate_policy::network::RouterChoice]| {
        routers.iter().map(|r| Router { peer_id: r.peer_id.to_string(), metric: r.metric.into() }).collect()
    };
    let route = |route: &sluicegate_policy::network::Route| Route {
        network_id: route.network_id.to_string(),
        resource_id: route.resource_id.to_string(),
        prefix: route.prefix.to_string(),
        routers: routers(&route.routers),
        choice: String::new(),
    };
    let routed = |routed: &sluicegate_policy::network::RoutedPrefix| RoutedPrefix {
        route: routed.route.into(),
        network_id: routed.network_id.to_string(),
        resource_id: routed.resource_id.to_string(),
        prefix: routed.prefix.to_string(),
        masquerade: routed.masquerade,
        metric: routed.metric.into(),
    };
    let names = view.names.iter().map(|name| Name {
        resource_id: name.resource_id.to_string(),
        name: name.name.clone(),
        askers: name.askers.filter(|_| may_ask).map_or(0, |place| place as u32 + 1),
    });
    let asked = view.asked.iter().map(|asked| RoutedName {
        resource_id: asked.resource_id.to_string(),
        name: asked.name.clone(),
        routers: routers(&asked.routers),
    });
    let domain = "peers.test".to_owned();
    NetworkConfig {
        protocol: sluicegate_api::PROTOCOL,
        serial,
        address_v4: format!("{v4}/16"),
        address_v6: format!("{v6}/64"),
        peers: vec![far],
        routes: view.routes.iter().map(route).collect(),
        routed: view.routed.iter().map(routed).collect(),
        names: names.collect(),
        askers: view.askers.iter().map(|peers| PeerSet { peers: peers.clone() }).collect(),
        resolver: Some(Resolver { domain, routed: asked.collect(), ..Resolver::default() }),
        ..NetworkConfig::default()
    }
}

fn nft(namespace: &Namespace, rules: &str) {
    namespace.run(&Program::new("nft").arg(rules), PATIENCE).unwrap().output().unwrap();
}

fn address(octets: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(octets) {
        Ok(v4) => v4.into(),
        Err(_) => <[u8; 16]>::try_from(octets).unwrap().into(),
    }
}

fn addresses(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::Addresses { addresses, .. } => addresses.iter().map(IpAddr::to_string).collect(),
        _ => Vec::new(),
    }
}

fn asks_and_reaches(choice: Choice) {
    assert!(system::is_root(), "this test needs root, for network namespaces");
    let lab = Lab::new().unwrap();
    let mut two = Two::start(&lab, choice);
    let records =
        ["--host-record=a.example.org,10.9.0.7,fd09::7,60", "--host-record=b.example.org,10.9.0.8,60"];
    let serve = || {
        let options = [&["--local=/example.org/"], &records[..]].concat();
        Dnsmasq::start("127.0.0.1", 5300, &options)
    };
    let _server = two.namespaces[0].enter(serve).unwrap();
    let keys = [0, 1].map(|n| {
        let status = two.status(n, "it is up", |s| s.control.connected);
        base64::engine::general_purpose::STANDARD.decode(status.identity.public_key).unwrap()
    });
    two.tell(&BTreeSet::new(), &keys);
    let listens = |s: &Status| s.dns.as_ref().is_some_and(|dns| dns.listening.len() >= 2);
    two.status(1, "the peer answers its host", listens);
    two.status(1, "the gateway is there", |s| s.peers.iter().any(|peer| peer.live));
    two.status(0, "the gateway looks names up", |s| s.names.len() == 1 && s.control.connected);
    assert!(!SERVER.iter().any(|server| two.reaches(server)), "nobody has asked yet");

    // Both families at once, by both families: and the first packet is there.
    for (family, own) in OVERLAY[1].into_iter().enumerate() {
        let begun = Instant::now();
        let answers = two.look(own, A, &keys);
        println!("asked by {own}: {answers:?} after {:?}", begun.elapsed());
        assert_eq!(answers.each_ref().map(addresses), SERVER.map(|server| vec![server.to_owned()]));
        assert!(two.reaches(SERVER[family]), "the first packet to {}", SERVER[family]);
    }
    assert_eq!(two.learned(), SERVER.map(|server| server.parse().unwrap()).into());

    // What is lost is asked again.
    nft(
        &two.namespaces[1],
        "add table inet lossy { chain out { type filter hook output priority 0; udp dport 51820 drop; }; }",
    );
    let begun = Instant::now();
    let answers = std::thread::scope(|scope| {
        let peer = two.namespaces[1].clone();
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(1500));
            nft(&peer, "delete table inet lossy");
        });
        two.look(OVERLAY[1][0], A, &keys)
    });
    assert_eq!(
        answers.each_ref().map(addresses),
        SERVER.map(|server| vec![server.to_owned()]),
        "after {:?}",
        begun.elapsed()
    );
    assert!(begun.elapsed() > Duration::from_millis(1400), "nothing was lost");

    // A name that is not there opens nothing.
    for answer in two.look(OVERLAY[1][1], "absent.example.org", &keys) {
        assert!(matches!(answer, Answer::Nothing { exists: false, .. }), "{answer:?}");
    }
    assert_eq!(two.learned().len(), 2);

    // What control does not open is not told.
    two.opens = false;
    let [v4, _] = two.look(OVERLAY[1][0], "b.example.org", &keys);
    assert!(matches!(v4, Answer::Failed(_)), "{v4:?}");
    assert!(two.count(0, "heard", "late") > 0);
    two.opens = true;
    let [v4, v6] = two.look(OVERLAY[1][0], "b.example.org", &keys);
    assert!(matches!(v6, Answer::Nothing { exists: true, .. }), "{v6:?}");
    assert!(matches!(v4, Answer::Failed(_)) || addresses(&v4) == ["10.9.0.8"], "{v4:?}");

    // The gateway starts again: what was asked for stays open, and is there at once.
    two.agents[0].control.forget_learned();
    two.restart_gateway();
    let begun = Instant::now();
    while !SERVER.iter().all(|server| two.learned().contains(&server.parse().unwrap())) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", two.learned());
        std::thread::sleep(Duration::from_millis(50));
    }
    two.status(1, "the gateway is back", |s| s.peers.iter().any(|peer| peer.live));

    // What ends without control may end who may ask, over a restart too; and whom control has removed nobody asks.
    two.end_without_control();
    two.is_refused(&keys);
    two.restart_gateway();
    let serial = two.serial;
    let is_up = |s: &Status| s.policy.revision == Some(serial) && s.identity.address_v6.is_some();
    two.status(0, "the gateway is up without control", is_up);
    two.is_refused(&keys);
    two.come_back(&keys);
    two.agents[0].control.expel();
    two.status(0, "the gateway is removed", |s| s.degraded.iter().any(|d| d.contains("join again")));
    two.is_refused(&keys);
    two.come_back(&keys);

    // Who may not ask is told nothing.
    two.may_ask = false;
    two.tell(&two.learned(), &keys);
    two.is_refused(&keys);
    assert!(two.count(1, "asked", "refused") >= 2);
    let page = two.namespaces[0].enter(|| runtime().block_on(two.agents[0].metrics())).unwrap();
    assert!(page.contains("sluicegate_gateway_name_questions_heard_total{result=\"refused\"}"), "{page}");
    for running in two.running.iter_mut().filter_map(Option::take) {
        runtime().block_on(running.stop());
    }
}

#[test]
fn a_peer_asks_a_gateway_for_a_name_below_a_wildcard_and_its_first_packet_arrives() {
    asks_and_reaches(Choice::Ebpf);
}

#[test]
fn a_peer_asks_a_gateway_for_a_name_below_a_wildcard_in_user_space_too() {
    asks_and_reaches(Choice::Userspace);
}
