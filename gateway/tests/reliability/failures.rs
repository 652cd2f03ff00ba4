//! What went wrong elsewhere, asked of the programs in the kernel: each test is named in the table of docs/security.md.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluicegate_api::image::Image;
use sluicegate_gateway::datapath::XdpChoice;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_model::packets::{Draft, Payload, checksum, flag};
use sluicegate_policy::model::{Action, End, Rule, Service};

use crate::account::{PERMITTED, SERVER, above, compile, rule, server, user};
use crate::world::World;

const REDIRECT: u32 = 7;
const SHOT: u32 = 2;

/// NetBird 1414 and 1216: a route that a peer sets by hand is no right.
#[test]
fn a_peer_with_a_route_of_its_own_and_no_rule_is_dropped() {
    let one = Rule { sources: End::Peer("user0".into()), ..rule(0, Service::All) };
    let mut gate = Gate::new(compile(vec![one], &[("server", server())]));
    for six in [0, 1] {
        assert_eq!(gate.udp(user(0)[six], SERVER[six], PERMITTED), REDIRECT);
        assert_eq!(gate.udp(user(1)[six], SERVER[six], PERMITTED), SHOT);
        // Nor has the one who may reach the server the networks around it.
        let beside = above(SERVER[six].parse().unwrap(), 1).to_string();
        assert_eq!(gate.udp(user(0)[six], &beside, PERMITTED), SHOT);
    }
}

/// NetBird, "domains and IP ranges in same network": rules of two resources at one address are not each other's.
#[test]
fn two_resources_at_one_address_keep_their_rules() {
    let to = |number: u32, user: &str, port: u16, resource: &str| Rule {
        sources: End::Peer(user.into()),
        destinations: End::Resource(resource.into()),
        ..rule(number, Service::Udp(vec![port..=port]))
    };
    let rules = vec![to(0, "user0", 80, "web"), to(1, "user1", 22, "shell")];
    let mut gate = Gate::new(compile(rules, &[("web", server()), ("shell", server())]));
    for six in [0, 1] {
        for (who, port, expected) in [(0, 80, REDIRECT), (1, 22, REDIRECT), (0, 22, SHOT), (1, 80, SHOT)] {
            assert_eq!(gate.udp(user(who)[six], SERVER[six], port), expected, "user{who} to {port}");
        }
    }
}

/// NetBird 4759 was about the router's own services: a rule for everything behind the gateway does not open the gateway.
#[test]
fn a_rule_for_the_site_does_not_open_the_gateway_itself() {
    let site = vec!["10.128.0.0/16".to_owned(), "fd10::/64".to_owned()];
    let mut gate = Gate::new(compile(vec![rule(0, Service::All)], &[("server", site)]));
    for (six, own) in ["100.64.0.1", "fd64::6440:1"].into_iter().enumerate() {
        assert_eq!(gate.udp(user(0)[six], SERVER[six], 22), REDIRECT);
        for port in [22, 53, 51_820] {
            assert_eq!(gate.udp(user(0)[six], own, port), SHOT, "{own} port {port}");
            let syn = Payload::Tcp { source: 4000, destination: port, flags: flag::SYN, data: 0 };
            assert_eq!(gate.judge(&Draft::new(user(0)[six], own.parse().unwrap(), syn).build()), SHOT);
        }
    }
}

/// CVE-2025-62820 (Nebula): a source is a peer's own address, not any that it could route.
#[test]
fn a_source_from_a_routed_prefix_is_spoofed() {
    let mut gate = Gate::new(compile(vec![rule(0, Service::All)], &[("server", server())]));
    let sources = ["10.128.0.9", "10.77.0.1", "100.64.0.1", "fd10::9", "fd77::1", "fd64::6440:1"];
    for source in sources.map(|source| source.parse::<IpAddr>().unwrap()) {
        let server = SERVER[usize::from(source.is_ipv6())];
        assert_eq!(gate.udp(source, server, PERMITTED), SHOT, "{source}");
    }
}

/// Nebula 1840: bytes of a protocol without ports were read as ports.
#[test]
fn a_protocol_without_ports_matches_no_rule_with_ports() {
    let ports = || vec![0..=u16::MAX];
    let rules = vec![rule(0, Service::Tcp(ports())), rule(1, Service::Udp(ports()))];
    let mut gate = Gate::new(compile(rules, &[("server", server())]));
    for six in [0, 1] {
        let udp = Payload::Udp { source: 4000, destination: PERMITTED, data: 40, unchecked: false };
        let packet = Draft::new(user(0)[six], SERVER[six].parse().unwrap(), udp).build();
        assert_eq!(gate.judge(&packet), REDIRECT);
        // IP in IP, IPv6 in IP, DCCP, GRE, ESP, OSPF, SCTP, UDP-Lite, MPLS, and one that nobody has been given.
        for protocol in [4, 41, 33, 47, 50, 89, 132, 136, 137, 200] {
            assert_eq!(gate.judge(&with_protocol(&packet, protocol)), SHOT, "protocol {protocol}");
        }
    }
}

/// Nebula 1789: the length of an extension header led the parser past the packet's end, or to other ports.
#[test]
fn no_length_of_an_extension_header_leads_to_another_port() {
    let permitted = PERMITTED..=PERMITTED;
    let mut gate = Gate::new(compile(vec![rule(0, Service::Udp(vec![permitted]))], &[("server", server())]));
    let udp = Payload::Udp { source: 4000, destination: PERMITTED, data: 40, unchecked: false };
    for header in [0, 43, 51, 60, 135] {
        let draft = Draft::new(user(0)[1], SERVER[1].parse().unwrap(), udp.clone());
        let whole = Draft { extensions: vec![(header, 1)], ..draft }.build();
        let right = whole[41];
        for length in 0..=255 {
            let mut packet = whole.clone();
            packet[41] = length;
            let expected = if length == right { REDIRECT } else { SHOT };
            let answer = gate.judge(&packet);
            assert!(answer == expected || answer == SHOT, "header {header}, length {length}: {answer}");
        }
    }
}

/// GHSA-c66w-hq56-4q97 (Cilium): some echo requests met no policy.
#[test]
fn no_echo_request_passes_without_a_rule_for_it() {
    let all = || vec![0..=u16::MAX];
    let rules = vec![rule(0, Service::Tcp(all())), rule(1, Service::Udp(all()))];
    let mut gate = Gate::new(compile(rules, &[("server", server())]));
    for six in [0, 1] {
        for id in [0, 1, PERMITTED, u16::MAX] {
            for data in [0, 1, 1000] {
                for kind in [[0, 8, 13, 15, 17], [1, 128, 129, 133, 135]][six] {
                    let icmp = Payload::Icmp { kind, code: 0, id, data };
                    let draft = Draft::new(user(0)[six], SERVER[six].parse().unwrap(), icmp);
                    assert_eq!(gate.judge(&draft.build()), SHOT, "type {kind}, id {id}, {data} bytes");
                    // In fragments: the first, and one that follows none.
                    for part in [0x2000, 0x2009, 0x0009] {
                        let packet = if six == 1 {
                            let mut packet = Draft { extensions: vec![(44, 0)], ..draft.clone() }.build();
                            let field = (part & 0x1fff) << 3 | u16::from(part & 0x2000 != 0);
                            packet[42..44].copy_from_slice(&field.to_be_bytes());
                            packet
                        } else {
                            Draft { fragment: part, ..draft.clone() }.build()
                        };
                        assert_eq!(gate.judge(&packet), SHOT, "type {kind}, id {id}, fragment {part:x}");
                    }
                }
            }
        }
    }
}

/// CVE-2024-47825 (Cilium): a drop rule for a prefix lost to an accept rule for a narrower one.
#[test]
fn a_drop_rule_beats_an_accept_rule_however_their_prefixes_nest() {
    let wide = vec!["10.128.0.0/24".to_owned(), "fd10::/112".to_owned()];
    for (drops, accepts) in [("wide", "narrow"), ("narrow", "wide"), ("narrow", "same")] {
        for order in [[0, 1], [1, 0]] {
            let drop = Rule {
                action: Action::Drop,
                destinations: End::Resource(drops.into()),
                ..rule(order[0], Service::Udp(vec![PERMITTED..=PERMITTED]))
            };
            let accept = Rule { destinations: End::Resource(accepts.into()), ..rule(order[1], Service::All) };
            let rules = if order[0] == 0 { vec![drop, accept] } else { vec![accept, drop] };
            let resources = [("wide", wide.clone()), ("narrow", server()), ("same", server())];
            let mut gate = Gate::new(compile(rules, &resources));
            for six in [0, 1] {
                let said = [PERMITTED, 80].map(|port| gate.udp(user(0)[six], SERVER[six], port));
                assert_eq!(said, [SHOT, REDIRECT], "drop for {drops}, accept for {accepts}, slots {order:?}");
            }
        }
    }
}

/// CVE-2024-52529 (Cilium): what a range of ports holds, at its edges and where ranges overlap.
#[test]
fn ranges_of_ports_end_where_they_say() {
    let ranges = vec![1..=1, 100..=200, 150..=300, 302..=302, 65_535..=65_535];
    let drop = Rule { action: Action::Drop, ..rule(1, Service::Udp(vec![180..=190, 300..=301])) };
    let rules = vec![rule(0, Service::Udp(ranges.clone())), drop];
    let mut gate = Gate::new(compile(rules, &[("server", server())]));
    let admitted = |port: u16| {
        ranges.iter().any(|range| range.contains(&port)) && !(180..=190).contains(&port) && port != 300
    };
    let edges = [0, 1, 2, 99, 100, 101, 149, 150, 179, 180, 190, 191, 200, 201, 299, 300, 301, 302, 303];
    for six in [0, 1] {
        for port in edges.into_iter().chain([32_767, 32_768, 65_534, 65_535]) {
            let expected = if admitted(port) { REDIRECT } else { SHOT };
            assert_eq!(gate.udp(user(0)[six], SERVER[six], port), expected, "port {port}");
        }
    }
}

/// CVE-2025-64715 (Cilium): an empty set was left out when it was written down, and then meant everything.
#[test]
fn an_empty_set_admits_nothing_after_it_was_written_and_read() {
    let nobody = || End::Groups(BTreeSet::from(["nobody".to_owned()]));
    let none = || End::Groups(BTreeSet::new());
    let rules = vec![
        Rule { sources: nobody(), ..rule(0, Service::All) },
        Rule { sources: none(), ..rule(1, Service::All) },
        Rule { destinations: nobody(), ..rule(2, Service::All) },
        Rule { destinations: none(), ..rule(3, Service::All) },
        Rule { destinations: End::Resource("empty".into()), ..rule(4, Service::All) },
        Rule { destinations: End::Resource("missing".into()), ..rule(5, Service::All) },
    ];
    let image = compile(rules, &[("server", server()), ("empty", Vec::new())]);
    let mut gate = Gate::new(Image::decode(&image.encode()).unwrap());
    for six in [0, 1] {
        for destination in [SERVER[six], ["10.128.0.1", "fd10::1"][six], ["192.0.2.1", "fd99::1"][six]] {
            for port in [0, 53, PERMITTED, u16::MAX] {
                assert_eq!(gate.udp(user(0)[six], destination, port), SHOT, "{destination} port {port}");
            }
        }
    }
}

/// Nebula 1798: directions were exchanged.
#[test]
fn a_one_way_rule_opens_one_way() {
    let mut gate = Gate::new(compile(vec![rule(0, Service::All)], &[("server", server())]));
    for six in [0, 1] {
        let (peer, server): (IpAddr, IpAddr) = (user(0)[six], SERVER[six].parse().unwrap());
        let udp = |source, destination| Payload::Udp { source, destination, data: 8, unchecked: false };
        let inward = Draft::new(server, peer, udp(PERMITTED, 4000)).build();
        assert_eq!(gate.run("site_in", &inward), SHOT);
        assert_eq!(gate.udp(peer, SERVER[six], PERMITTED), REDIRECT);
        // The flow answers the address it left with, and nobody calls the peer by its own.
        assert_eq!(gate.run("site_in", &inward), SHOT);
    }
}

/// A gateway with an image in force, to be asked about single packets.
struct Gate {
    datapath: EbpfDatapath,
    _world: World,
}

impl Gate {
    fn new(image: Image) -> Self {
        let world = World::new();
        Self { datapath: world.open(XdpChoice::Off, 4096, &image), _world: world }
    }

    /// What TC says to a datagram from the overlay.
    fn udp(&mut self, source: IpAddr, destination: &str, port: u16) -> u32 {
        let payload = Payload::Udp { source: 4000, destination: port, data: 8, unchecked: false };
        self.judge(&Draft::new(source, destination.parse().unwrap(), payload).build())
    }

    /// What TC says to a packet from the overlay.
    fn judge(&mut self, packet: &[u8]) -> u32 {
        self.run("overlay_in_l2", packet)
    }

    fn run(&mut self, program: &str, packet: &[u8]) -> u32 {
        let kind: [u8; 2] = if packet[0] >> 4 == 4 { [0x08, 0] } else { [0x86, 0xdd] };
        // A test run is on the loopback device, whose address this is.
        let frame = [&[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2][..], &kind, packet].concat();
        self.datapath.run_once(program, &frame).unwrap().0
    }
}

/// The same bytes said to be of another protocol.
fn with_protocol(packet: &[u8], protocol: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[6] = protocol;
        return packet;
    }
    packet[9] = protocol;
    packet[10..12].fill(0);
    let sum = checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}
