//! Traces against the engine over the same tables, in both families.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluicegate_engine::family::{Family, V4, V6};
use sluicegate_engine::flow::Timeouts;
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::image::LINE;
use sluicegate_engine::pipeline::process;
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::{Config, Egress};
use sluicegate_engine::work::Work;
use sluicegate_policy::Compiler;
use sluicegate_policy::model::{
    self, Action, End, Group, Network, Peer, Policy, Resource, Router, Rule, State,
};

use super::*;
use crate::datapath::host::mapped;
use crate::datapath::userspace::{Limits, LiveTables, UserTables};
use crate::local::names::{Own, Who};

const NOW: u64 = 5_000;

/// A gateway between alice and bob in the overlay and two resources: `web`, masqueraded, and `lab` behind no device.
/// alice may use tcp 443 and icmp of `web`, udp 53 of both; a drop rule takes tcp 8443 out. bob may do nothing.
struct World {
    tables: UserTables,
    names: Names,
}

fn state() -> State {
    let peer = |name: &str, n: u8| {
        let v4 = [100, 64, 0, n].into();
        let v6 = format!("fd64::{n}").parse().unwrap();
        (name.to_owned(), Peer { name: name.into(), v4, v6, allowed: true })
    };
    let group = |name: &str, peers: &[&str], resources: &[&str]| {
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        (
            name.to_owned(),
            Group { name: name.into(), peers: set(peers).into(), resources: set(resources).into() },
        )
    };
    let resource = |name: &str, prefixes: &[&str]| {
        let prefixes = prefixes.iter().map(|p| p.parse().unwrap()).collect();
        (
            name.to_owned(),
            Resource { name: name.into(), prefixes, enabled: true, domain: None, distribution: None },
        )
    };
    let network = |name: &str, resource, masquerade| {
        let router = Router { peers: ["gw".to_owned()].into(), metric: 100, masquerade, enabled: true };
        let routers = BTreeMap::from([("r".to_owned() + name, router)]);
        (name.to_owned(), Network { name: name.into(), resources: BTreeMap::from([resource]), routers })
    };
    let groups = |name: &str| End::Groups([name.to_owned()].into());
    let rule = |slot: u32, action, service, to: &str| Rule {
        id: format!("r{slot}"),
        name: format!("rule {slot}"),
        slot,
        enabled: true,
        action,
        bidirectional: false,
        service,
        sources: groups("users"),
        destinations: groups(to),
    };
    let rules = vec![
        rule(0, Action::Accept, model::Service::Tcp(vec![443..=443, 8000..=8999]), "web"),
        rule(1, Action::Accept, model::Service::Icmp, "web"),
        rule(2, Action::Accept, model::Service::Udp(vec![53..=53]), "everything"),
        rule(3, Action::Drop, model::Service::Tcp(vec![8443..=8443]), "web"),
    ];
    State {
        overlay_v4: "100.64.0.0/24".parse().unwrap(),
        overlay_v6: "fd64::/64".parse().unwrap(),
        peers: [peer("gw", 1), peer("alice", 2), peer("bob", 3)].into(),
        groups: [
            group("users", &["alice"], &[]),
            group("web", &[], &["web"]),
            group("everything", &["gw"], &["web", "lab"]),
        ]
        .into(),
        networks: [
            network("site", resource("web", &["10.9.0.0/24", "fd09::/64"]), true),
            network("lab", resource("lab", &["10.8.0.0/24", "fd08::/64"]), false),
        ]
        .into(),
        policies: [(
            "p".to_owned(),
            Policy {
                name: "web".into(),
                enabled: true,
                posture_failed: Default::default(),
                rules: rules.into(),
            },
        )]
        .into(),
    }
}

impl World {
    fn new() -> Self {
        let image = Arc::new(Compiler::new(Arc::new(state())).unwrap().compile("gw").unwrap());
        let limits = Limits { confirmed: 1024, half_open: 1024, events: 1024, ticks_per_second: 1000 };
        let mut tables = UserTables::new(limits);
        let (lines, _) = image.words.as_chunks::<LINE>();
        tables.set_image(lines.to_vec(), 7, 8);
        *tables.config_mut() = Config {
            overlay4: [[100, 64, 0, 0].into(), [255, 255, 255, 0].into()]
                .map(|a: std::net::Ipv4Addr| a.into()),
            overlay6: ["fd64::", "ffff:ffff:ffff:ffff::"]
                .map(|a| a.parse::<std::net::Ipv6Addr>().unwrap().into()),
            overlay_mtu: 1420,
            nat_first: 20_000,
            nat_count: 64,
            timeouts: Timeouts::defaults(1000),
            ..Config::default()
        };
        let mut egress = vec![Egress::default(); 1 << 16];
        for (number, route) in &image.routes {
            if route.resource_id == "web" {
                egress[*number as usize] = Egress {
                    device: 9999,
                    mtu: 1500,
                    source4: std::net::Ipv4Addr::new(10, 9, 0, 1).into(),
                    source6: "fd09::1".parse::<std::net::Ipv6Addr>().unwrap().into(),
                    ..Egress::default()
                };
            }
        }
        tables.set_egress(egress);
        let who = |name: &str| Who { id: name.into(), name: name.into() };
        let peers =
            [("100.64.0.2", "alice"), ("fd64::2", "alice"), ("100.64.0.3", "bob"), ("fd64::3", "bob")];
        let peers = peers.map(|(address, name)| (address.parse().unwrap(), who(name)));
        let own = Own { who: who("gw"), v4: "100.64.0.1".parse().unwrap(), v6: "fd64::1".parse().unwrap() };
        Self { tables, names: Names::new(vec![image], peers, Some(own)) }
    }

    fn trace(&self, request: &Request) -> Trace {
        let live = LiveTables::new(&self.tables, NOW);
        let around = Surroundings { live: &live, names: &self.names, revision: Some(7) };
        let judgement = request.judge(&around).unwrap();
        judgement.tell(&around, None)
    }

    /// What the engine does with the same packet, for good.
    fn send(&mut self, request: &Request) -> (Verdict, Vec<u8>) {
        let probe = {
            let live = LiveTables::new(&self.tables, NOW);
            request.probe(&Surroundings { live: &live, names: &self.names, revision: Some(7) }).unwrap()
        };
        let mut bytes = probe.bytes();
        let packet = &mut Slice(&mut bytes);
        let verdict = if probe.source.is_ipv4() {
            process::<V4, _, _>(packet, probe.side, &mut self.tables, NOW, &mut Work::default())
        } else {
            process::<V6, _, _>(packet, probe.side, &mut self.tables, NOW, &mut Work::default())
        };
        (verdict, bytes)
    }

    /// Everything the tables remember.
    fn memory(&self) -> String {
        let mut halves: Vec<String> = self.tables.halves::<V4>().map(|half| format!("{half:?}")).collect();
        halves.extend(self.tables.halves::<V6>().map(|half| format!("{half:?}")));
        halves.sort();
        format!("{halves:?} {:?}", self.tables.totals())
    }
}

fn request(source: &str, destination: &str, service: &str) -> Request {
    let (port, protocol) = match service.split_once('/') {
        Some((port, protocol)) => (Some(port.parse().unwrap()), protocol),
        None => (None, service),
    };
    Request {
        source: source.into(),
        source_port: Some(40_000),
        destination: destination.into(),
        destination_port: port,
        protocol: protocol.into(),
        ..Request::default()
    }
}

/// Both families of a case: `N.M` is host M of the overlay (64), of web (9) or of lab (8).
fn address(short: &str, six: bool) -> String {
    let (net, host) = short.split_once('.').unwrap();
    match (net, six) {
        ("64", false) => format!("100.64.0.{host}"),
        (_, false) => format!("10.{net}.0.{host}"),
        (_, true) => format!("fd{net:0>2}::{host}"),
    }
}

fn stage<'t>(trace: &'t Trace, name: &str) -> &'t str {
    trace.stages.iter().find(|s| s.stage == name).map_or("", |s| s.found.as_str())
}

#[test]
fn fifteen_cases_of_each_family_end_as_the_engine_has_it_and_leave_nothing_behind() {
    // Source, destination, service, what else is asked, verdict, and what is said of it.
    type Case = (&'static str, &'static str, &'static str, fn(&mut Request), &'static str, &'static str);

    let with = |change: fn(&mut Request)| change;
    let same = with(|_| ());
    let cases: Vec<Case> = vec![
        ("64.2", "9.7", "443/tcp", same, "site", "accepted by policy 'web', rule 'rule 0'"),
        ("64.2", "9.7", "8999/tcp", same, "site", "accepted by policy 'web', rule 'rule 0'"),
        ("64.2", "9.7", "icmp", same, "site", "accepted by policy 'web', rule 'rule 1'"),
        ("64.2", "9.7", "53/udp", same, "site", "accepted by policy 'web', rule 'rule 2'"),
        ("64.2", "64.1", "53/udp", same, "host", "accepted by policy 'web', rule 'rule 2'"),
        ("64.2", "9.7", "444/tcp", same, "no_rule", "no rule accepts it"),
        ("64.2", "9.7", "8443/tcp", same, "rule_drop", "denied by policy 'web', rule 'rule 3'"),
        ("64.3", "9.7", "443/tcp", same, "spoofed_source", "bob's address; no rule of this image has it"),
        ("64.9", "9.7", "443/tcp", same, "spoofed_source", "nobody's address; nobody"),
        ("64.2", "8.7", "53/udp", same, "no_egress", "no device"),
        (
            "64.2",
            "9.7",
            "443/tcp",
            with(|r| r.tcp_flags = Some("ack".into())),
            "invalid_tcp",
            "begins with a SYN",
        ),
        ("64.2", "9.7", "443/tcp", with(|r| r.ttl = Some(1)), "ttl_expired", "would reach zero"),
        ("64.2", "9.7", "53/udp", with(|r| r.length = Some(1600)), "too_big", "1600 bytes are more"),
        ("9.7", "64.2", "443/tcp", with(|r| r.side = Some("site".into())), "no_flow", "none expects it"),
        ("64.1", "64.2", "443/tcp", with(|r| r.side = None), "no_rule", "no rule accepts it"),
    ];
    for six in [false, true] {
        let mut world = World::new();
        for (n, (source, destination, service, change, fate, says)) in (0u16..).zip(&cases) {
            let mut asked = request(&address(source, six), &address(destination, six), service);
            asked.source_port = Some(40_000 + n);
            change(&mut asked);
            let before = world.memory();
            let trace = world.trace(&asked);
            assert_eq!(world.memory(), before, "a trace left something behind: {asked:?}");
            let told = if trace.reason.is_empty() { trace.verdict } else { trace.reason };
            assert_eq!(told, *fate, "{asked:?}: {trace:#?}");
            assert!(trace.stages.iter().any(|s| s.found.contains(says)), "{says} in {trace:#?}");
            let stopped: Vec<_> = trace.stages.iter().filter(|s| s.outcome == "stopped").collect();
            assert_eq!(stopped.len(), usize::from(!trace.passes), "{trace:#?}");
            assert!(stopped.is_empty() || trace.stages.last().unwrap().outcome == "stopped");
            let (verdict, bytes) = world.send(&asked);
            let engine = match verdict {
                Verdict::Drop(reason) => reason.name(),
                Verdict::Site(_) => "site",
                Verdict::Overlay => "overlay",
                Verdict::Host | Verdict::Pass => "host",
                Verdict::Answer => panic!("nobody answers here"),
            };
            assert_eq!(told, engine, "{asked:?}");
            if let (Verdict::Site(_), Some(leaves)) = (verdict, &trace.leaves) {
                let at = if six { 8..24 } else { 12..16 };
                let source = match leaves.source {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                };
                assert_eq!(bytes[at], source, "the address it leaves with: {trace:#?}");
            }
        }
    }
}

#[test]
fn a_live_flow_is_found_and_its_reply_goes_back() {
    for six in [false, true] {
        let mut world = World::new();
        let (alice, web, gateway) = (address("64.2", six), address("9.7", six), address("9.1", six));
        let open = request(&alice, &web, "443/tcp");
        let first = world.trace(&open);
        assert!(stage(&first, "flow").contains("first packet"), "{first:#?}");
        assert!(stage(&first, "nat").contains("the source becomes"), "{first:#?}");
        assert!(stage(&first, "class").contains("resource web"), "{first:#?}");
        assert!(stage(&first, "service").starts_with("tcp 443, one of"), "{first:#?}");
        assert!(stage(&first, "spoof check").contains("alice's"), "{first:#?}");
        let port = first.leaves.as_ref().unwrap().source_port;
        assert!(matches!(world.send(&open).0, Verdict::Site(_)));

        // The same ports again: the flow is there, so an ACK is what the trace sends.
        let again = world.trace(&open);
        assert!(stage(&again, "parse").contains("ACK"), "{again:#?}");
        assert!(stage(&again, "flow").contains("half-open, syn_sent"), "{again:#?}");
        // Without ports others are taken.
        let fresh = world.trace(&Request { source_port: None, ..open.clone() });
        assert_eq!(fresh.packet.ends.source_port, 49_152);

        let reply = Request {
            source_port: Some(443),
            destination_port: Some(port),
            side: Some("site".into()),
            tcp_flags: Some("syn-ack".into()),
            ..request(&web, &gateway, "1/tcp")
        };
        let told = world.trace(&reply);
        assert_eq!((told.verdict, told.rule.rule_name.as_str()), ("overlay", "rule 0"), "{told:#?}");
        assert!(
            stage(&told, "nat")
                .contains(&format!("becomes {}", if six { "[fd64::2]:40000" } else { "100.64.0.2:40000" }))
        );
        assert!(stage(&told, "next hop").contains("to alice"), "{told:#?}");
        assert_eq!(world.send(&reply).0, Verdict::Overlay);
    }
}

#[test]
fn a_destination_of_the_hosts_own_ends_behind_the_rule_that_admits_it() {
    let mut world = World::new();
    let here = [("10.9.0.1", 24), ("fd09::1", 64)];
    let addresses = here.iter().flat_map(|(own, length)| HostAddress::of(own.parse().unwrap(), *length));
    world.tables.set_host_addresses(addresses.map(|(ip, what)| (mapped(ip), what)).collect());
    for (source, to, reason) in [
        ("100.64.0.2", "10.9.0.1", DropReason::Hairpin),
        ("100.64.0.2", "10.9.0.255", DropReason::NotUnicast),
        ("fd64::2", "fd09::", DropReason::Hairpin),
    ] {
        let trace = world.trace(&request(source, to, "443/tcp"));
        assert_eq!(trace.reason, reason.name(), "{to}");
        assert_eq!(trace.stages.last().map(|stage| (stage.stage, stage.outcome)), Some(("nat", "stopped")));
        assert!(stage(&trace, "verdict").contains("rule 0"), "{:?}", trace.stages);
    }
}

#[test]
fn an_echo_reply_is_traced_by_its_id() {
    for six in [false, true] {
        let mut world = World::new();
        let open = request(&address("64.2", six), &address("9.7", six), "icmp");
        let id = world.trace(&open).leaves.unwrap().source_port;
        assert!(matches!(world.send(&open).0, Verdict::Site(_)));
        let reply = Request {
            source_port: Some(id),
            side: Some("site".into()),
            ..request(&address("9.7", six), &address("9.1", six), "icmp")
        };
        let told = world.trace(&reply);
        assert_eq!(told.verdict, "overlay", "{told:#?}");
        assert!(stage(&told, "flow").contains("reply direction"), "{told:#?}");
    }
}

#[test]
fn names_stand_for_addresses_of_the_same_family() {
    let world = World::new();
    let by_name = world.trace(&request("alice", "10.9.0.7", "443/tcp"));
    assert_eq!(by_name.packet.ends.source.to_string(), "100.64.0.2");
    let by_name = world.trace(&request("alice", "fd09::7", "443/tcp"));
    assert_eq!(by_name.packet.ends.source.to_string(), "fd64::2");
    for (ipv6, own) in [(false, "100.64.0.1"), (true, "fd64::1")] {
        let by_names = world.trace(&Request { ipv6, ..request("alice", own, "443/tcp") });
        assert_eq!(by_names.packet.ends.source.is_ipv6(), ipv6);
        let by_names = world.trace(&Request { ipv6, ..request("alice", "gw", "443/tcp") });
        assert_eq!(by_names.packet.ends.destination.to_string(), own);
    }
    let live = LiveTables::new(&world.tables, NOW);
    let around = Surroundings { live: &live, names: &world.names, revision: None };
    for (source, destination, service, says) in [
        ("nobody", "10.9.0.7", "443/tcp", "nobody of that name"),
        ("100.64.0.2", "fd09::7", "443/tcp", "no address of the same family"),
        ("alice", "10.9.0.7", "tcp", "need a destination port"),
        ("alice", "10.9.0.7", "sctpx", "is no protocol"),
    ] {
        let why = request(source, destination, service).judge(&around).err().unwrap();
        assert!(why.contains(says), "{why}");
    }
}

/// The explanation repeats the classifier's look-ups: it must come to the same end.
#[test]
fn the_explained_classes_decide_as_the_classifier_does() {
    let world = World::new();
    let live = LiveTables::new(&world.tables, NOW);
    let mut decided = BTreeSet::new();
    for six in [false, true] {
        for (source, destination) in
            [("64.2", "9.7"), ("64.3", "9.7"), ("64.2", "8.9"), ("64.2", "64.1"), ("64.9", "7.1")]
        {
            let (source, destination) = (address(source, six), address(destination, six));
            for axis in
                (0..sluicegate_engine::image::axis::END).step_by(61).chain([0x1_01bb, 0x1_20fb, 0x2_0035])
            {
                let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
                let told = classes::classes(live.image(), source, destination, axis).unwrap();
                let truth = match (source, destination) {
                    (IpAddr::V4(s), IpAddr::V4(d)) => V4::classify(live.image(), s.into(), d.into(), axis),
                    (IpAddr::V6(s), IpAddr::V6(d)) => V6::classify(live.image(), s.into(), d.into(), axis),
                    _ => unreachable!("both are of one family"),
                };
                assert_eq!(told.decision, truth.decision, "{source} {destination} {axis:#x}");
                decided.insert(told.decision.0);
            }
        }
    }
    assert!(decided.len() > 3, "too few decisions to prove anything: {decided:?}");
}

#[test]
fn nothing_is_in_force_and_the_trace_says_so() {
    let mut world = World::new();
    world.tables.set_image(Vec::new(), 0, 0);
    let told = world.trace(&request("alice", "10.9.0.7", "443/tcp"));
    assert_eq!(told.reason, DropReason::NoImage.name());
    assert_eq!(told.stages.last().map(|s| s.stage), Some("image"));
}
