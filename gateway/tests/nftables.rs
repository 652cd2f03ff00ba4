//! The kernel datapath against nftables: the same policies, read twice, let the same first packets pass. Needs root.
//!
//! Ours gets the image that control compiles of a rule set in the manner of ClassBench. The other gateway is the kernel's own
//! forwarding with rules that are written here from the same state, without the compiler: drops before accepts, a set of sources and a set
//! of destinations for each rule. Real packets go through both, in both families.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "support/frames.rs"]
mod frames;
#[path = "support/gateway.rs"]
#[expect(dead_code, reason = "the overlay is another one here")]
mod gateway;
#[path = "support/tap.rs"]
#[expect(dead_code, reason = "frames are told by their end here")]
mod tap;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use frames::Frames;
use gateway::Way;
use ipnet::IpNet;
use sluicegate_engine::checksum;
use sluicegate_engine::image::axis;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{Datapath as _, Settings, XdpChoice};
use sluicegate_lab::{Lab, Namespace, Program};
use sluicegate_model::classbench::{GATEWAY, Header, Kind, Size, Trace, state};
use sluicegate_policy::Compiler;
use sluicegate_policy::model::{Action, End, Policy, Rule, Service, State};
use tap::Tap;

/// Packets in all, unless `SLUICEGATE_NFTABLES` says how many.
const CASES: usize = 10_000;
/// Packets of each rule set.
const OF_EACH: usize = 250;
/// Frames between two looks at what arrived: what a socket's buffer holds.
const BATCH: usize = 100;
/// Nothing more comes once nothing came for so long.
const QUIET: Duration = Duration::from_millis(10);
/// A difference is one when it shows every time.
const TRIES: usize = 4;
/// In front of a packet's number, at the end of every frame.
const MARK: [u8; 8] = *b"sluice-n";

/// A client, a gateway and a server in a row.
struct Row {
    gateway: Namespace,
    out: Frames,
    tap: Tap,
    /// The gateway's address and the client's.
    ethernet: [u8; 12],
}

impl Row {
    fn new(lab: &Lab, name: &str) -> Self {
        let [client, gateway, server] =
            ["client", "gateway", "server"].map(|role| lab.namespace(&format!("{name}-{role}")).unwrap());
        lab.veth((&client, "out"), (&gateway, "overlay")).unwrap();
        lab.veth((&gateway, "site"), (&server, "in")).unwrap();
        for (namespace, device) in [(&client, "out"), (&server, "in")] {
            namespace.offload_off(device).unwrap();
            namespace.feature(device, "rx-gro", true).unwrap();
        }
        for (device, address) in [
            ("overlay", "100.64.0.1/16"),
            ("overlay", "fd5c:1::1/64"),
            ("site", "198.18.255.1/30"),
            ("site", "fd99::1/126"),
        ] {
            gateway.address(device, address).unwrap();
        }
        let there = mac(&server, "in").map(|byte| format!("{byte:02x}")).join(":");
        for server in ["198.18.255.2", "fd99::2"] {
            gateway
                .ip(&["neigh", "replace", server, "lladdr", &there, "dev", "site", "nud", "permanent"])
                .unwrap();
            gateway.route("default", server).unwrap();
        }
        let mut ethernet = [0; 12];
        ethernet[..6].copy_from_slice(&mac(&gateway, "overlay"));
        ethernet[6..].copy_from_slice(&mac(&client, "out"));
        let (out, tap) = (Frames::by(&client, "out"), Tap::on(&server, &["in"]));
        Self { gateway, out, tap, ethernet }
    }

    /// Sends `packets`; the numbers of those that arrived at the server.
    fn carry(&self, packets: &[(u32, Header)]) -> BTreeSet<u32> {
        let mut arrived = BTreeSet::new();
        for batch in packets.chunks(BATCH) {
            for (number, header) in batch {
                self.out.send(&frame(&self.ethernet, *number, header));
            }
            loop {
                sleep(QUIET);
                let frames = self.tap.frames();
                arrived.extend(frames.iter().filter_map(|frame| number(frame)));
                if frames.is_empty() {
                    break;
                }
            }
        }
        arrived
    }
}

fn mac(namespace: &Namespace, device: &str) -> [u8; 6] {
    let text = namespace.ip(&["-o", "link", "show", "dev", device]).unwrap();
    let mac = text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn the_same_policies_let_the_same_packets_pass_as_in_nftables() {
    let cases = std::env::var("SLUICEGATE_NFTABLES").map_or(CASES, |text| text.parse().unwrap());
    let lab = Lab::new().expect("this test needs root");
    let (ours, theirs) = (Row::new(&lab, "ours"), Row::new(&lab, "nft"));
    theirs.gateway.sysctl("net/ipv4/ip_forward", "1").unwrap();
    theirs.gateway.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    let settings = Settings {
        flow_entries: 1 << 17,
        image_words: 1 << 22,
        ..gateway::settings(lab.bpffs().unwrap().join("ours"), XdpChoice::Native)
    };
    let mut datapath = ours.gateway.enter(|| EbpfDatapath::open(&settings, "overlay")).unwrap().unwrap();
    let (mut passed, mut dropped, mut next) = ([0, 0], [0, 0], 0);
    for set in 0..cases.div_ceil(OF_EACH) {
        let kind = Kind::ALL[set % Kind::ALL.len()];
        let rules = [4, 20, 60, 200][set / Kind::ALL.len() % 4];
        let state = without_masquerade(state(kind, Size::of(rules), set as u64));
        apply(&ours, &mut datapath, set as u64 + 1, &state);
        load(&lab, &theirs, &ruleset(&state));
        let mut left = headers(&state, set as u64);
        for attempt in 1..=TRIES {
            let packets: Vec<(u32, Header)> = left.iter().map(|header| (bump(&mut next), *header)).collect();
            let (here, there) = (ours.carry(&packets), theirs.carry(&packets));
            let differ = packets.iter().filter(|(number, _)| here.contains(number) != there.contains(number));
            left = differ.map(|(_, header)| *header).collect();
            if attempt == 1 {
                for (number, header) in &packets {
                    let count = if there.contains(number) { &mut passed } else { &mut dropped };
                    count[usize::from(header.source.is_ipv6())] += 1;
                }
            }
            let which =
                |number: &u32| if here.contains(number) { "ours lets it pass" } else { "nftables does" };
            let told = packets.iter().find(|(number, _)| here.contains(number) != there.contains(number));
            assert!(
                attempt < TRIES || told.is_none(),
                "set {set} ({}, {rules} rules): {:?}: {}; {} such packets",
                kind.name(),
                told.map(|(_, header)| header),
                told.map_or("", |(number, _)| which(number)),
                left.len()
            );
            if left.is_empty() {
                break;
            }
        }
    }
    println!("passed {passed:?}, dropped {dropped:?} (IPv4, IPv6)");
    // Both ways out are tried in both families, or agreement says little.
    for family in 0..2 {
        assert!(passed[family] * 10 > dropped[family] && dropped[family] * 10 > passed[family]);
    }
}

fn bump(next: &mut u32) -> u32 {
    *next += 1;
    *next
}

/// A protocol without ports has one masqueraded flow for each destination, which is no matter of policies.
fn without_masquerade(mut state: State) -> State {
    for network in state.networks.values_mut() {
        network.routers.values_mut().for_each(|router| router.masquerade = false);
    }
    state
}

fn apply(row: &Row, datapath: &mut EbpfDatapath, revision: u64, state: &State) {
    let image = Compiler::new(Arc::new(state.clone())).unwrap().compile(GATEWAY).unwrap();
    let way = Way {
        device: row.gateway.index("site").unwrap(),
        sources: ["198.18.255.1", "fd99::1"],
        pool: [0, 0],
    };
    let work = || -> anyhow::Result<()> {
        datapath.set_overlay("100.64.0.1/16".parse()?, "fd5c:1::1/64".parse()?)?;
        datapath.set_egress(&gateway::ways(&image, &way))?;
        datapath.apply(revision, &image)?;
        Ok(())
    };
    row.gateway.enter(work).unwrap().unwrap();
}

fn load(lab: &Lab, row: &Row, rules: &str) {
    let file = lab.dir().join("rules.nft");
    std::fs::write(&file, rules).unwrap();
    let nft = Program::new("nft").arg("-f").arg(&file);
    row.gateway.run(&nft, Duration::from_secs(60)).unwrap().output().unwrap();
}

/// The state as an administrator would write it to nftables.
fn ruleset(state: &State) -> String {
    let mut text = String::from("flush ruleset\n");
    for six in [false, true] {
        let (family, kind) = if six { ("ip6", "ipv6_addr") } else { ("ip", "ipv4_addr") };
        let (mut sets, mut lines) = (String::new(), [String::new(), String::new()]);
        for policy in state.policies.values().filter(|policy| policy.enabled) {
            for rule in policy.rules.iter().filter(|rule| rule.enabled) {
                let (from, to) = (sources(state, policy, rule, six), destinations(state, rule, six));
                if from.is_empty() || to.is_empty() {
                    continue;
                }
                let slot = rule.slot;
                for (name, elements) in [("from", from), ("to", to)] {
                    writeln!(
                        sets,
                        " set {name}{slot} {{ type {kind}; flags interval; auto-merge; elements = {{ {} }} }}",
                        elements.join(", ")
                    )
                    .unwrap();
                }
                let accept = rule.action == Action::Accept;
                for service in services(&rule.service, six) {
                    writeln!(
                        lines[usize::from(accept)],
                        "  {family} saddr @from{slot} {family} daddr @to{slot} {service} {}",
                        if accept { "accept" } else { "drop" }
                    )
                    .unwrap();
                }
            }
        }
        writeln!(
            text,
            "table {family} gateway {{\n{sets} chain forward {{\n  type filter hook forward priority filter; policy drop;\n{}{} }}\n}}",
            lines[0], lines[1]
        )
        .unwrap();
    }
    text
}

fn sources(state: &State, policy: &Policy, rule: &Rule, six: bool) -> Vec<String> {
    let ids: BTreeSet<&String> = match &rule.sources {
        End::Peer(id) => [id].into(),
        End::Groups(groups) => {
            groups.iter().filter_map(|id| state.groups.get(id)).flat_map(|group| group.peers.iter()).collect()
        }
        End::Resource(_) => BTreeSet::new(),
    };
    // Who fails a check loses what the policy gives, and nothing that it takes.
    let counts = |id: &&String| rule.action == Action::Drop || !policy.posture_failed.contains(id);
    let peers =
        ids.into_iter().filter(counts).filter(|id| *id != GATEWAY).filter_map(|id| state.peers.get(id));
    peers.map(|peer| if six { peer.v6.to_string() } else { peer.v4.to_string() }).collect()
}

fn destinations(state: &State, rule: &Rule, six: bool) -> Vec<String> {
    let ids: BTreeSet<&String> = match &rule.destinations {
        End::Resource(id) => [id].into(),
        End::Groups(groups) => {
            let groups = groups.iter().filter_map(|id| state.groups.get(id));
            groups.flat_map(|group| group.resources.iter()).collect()
        }
        End::Peer(_) => BTreeSet::new(),
    };
    let resources = state.networks.values().flat_map(|network| &network.resources);
    let prefixes = resources.filter(|(id, _)| ids.contains(id)).flat_map(|(_, resource)| &resource.prefixes);
    prefixes.filter(|prefix| matches!(prefix, IpNet::V6(_)) == six).map(ToString::to_string).collect()
}

fn services(service: &Service, six: bool) -> Vec<String> {
    let ports = |protocol: &str, ranges: &[std::ops::RangeInclusive<u16>]| match ranges {
        [] => vec![format!("meta l4proto {protocol}")],
        ranges => ranges.iter().map(|r| format!("{protocol} dport {}-{}", r.start(), r.end())).collect(),
    };
    match service {
        Service::All => vec![String::new()],
        Service::Icmp => vec![format!("meta l4proto {}", if six { "ipv6-icmp" } else { "icmp" })],
        Service::Tcp(ranges) => ports("tcp", ranges),
        Service::Udp(ranges) => ports("udp", ranges),
    }
}

/// Headers that open flows to the site; what is for machines of the overlay goes elsewhere.
fn headers(state: &State, seed: u64) -> Vec<Header> {
    let overlay: BTreeSet<IpAddr> =
        state.peers.values().flat_map(|peer| [IpAddr::V4(peer.v4), IpAddr::V6(peer.v6)]).collect();
    let own = &state.peers[GATEWAY];
    let mut trace = Trace::new(state, seed);
    let mut headers = Vec::new();
    while headers.len() < OF_EACH {
        let mut header = trace.fresh();
        if overlay.contains(&header.destination)
            || [IpAddr::V4(own.v4), IpAddr::V6(own.v6)].contains(&header.source)
            || header.source.is_ipv6() != header.destination.is_ipv6()
        {
            continue;
        }
        let six = header.source.is_ipv6();
        header.l4 = match header.l4 {
            tcp if (axis::TCP..axis::UDP).contains(&tcp) => tcp,
            udp if (axis::UDP..axis::ICMP).contains(&udp) => udp,
            // Of ICMP only echo requests open flows.
            icmp if icmp >= axis::ICMP => {
                if six {
                    axis::ICMPV6 | 128 << 8
                } else {
                    axis::ICMP | 8 << 8
                }
            }
            // GRE, OSPF and SCTP have no ports here.
            other => axis::OTHER | [47, 89, 132][other as usize % 3],
        };
        headers.push(header);
    }
    headers
}

/// The packet's number, which is at the end of its frame.
fn number(frame: &[u8]) -> Option<u32> {
    let (rest, number) = frame.split_last_chunk::<4>()?;
    rest.ends_with(&MARK).then(|| u32::from_be_bytes(*number))
}

/// A first packet, of a flow of its own where its protocol has ports.
fn frame(ethernet: &[u8; 12], number: u32, header: &Header) -> Vec<u8> {
    let source_port = (1024 + number % 60_000) as u16;
    let port = (header.l4 & 0xffff) as u16;
    let mark = [&MARK[..], &number.to_be_bytes()].concat();
    let (protocol, mut l4, sum_at) = match header.l4 & !0xffff {
        axis::TCP => {
            let ports = [source_port.to_be_bytes(), port.to_be_bytes()].concat();
            let rest = [&number.to_be_bytes()[..], &[0; 4], &[0x50, 0x02, 4, 0, 0, 0, 0, 0]].concat();
            (6, [ports, rest, mark].concat(), Some(16))
        }
        axis::UDP => {
            let length = (8 + mark.len()) as u16;
            let head = [source_port, port, length, 0].map(u16::to_be_bytes).concat();
            (17, [head, mark].concat(), Some(6))
        }
        axis::OTHER => (port as u8, [vec![0; 20], mark].concat(), None),
        _ => {
            let (protocol, kind) = if header.source.is_ipv6() { (58, 128) } else { (1, 8) };
            let head = [&[kind, 0, 0, 0][..], &source_port.to_be_bytes(), &1u16.to_be_bytes()].concat();
            (protocol, [head, mark].concat(), Some(2))
        }
    };
    let (addresses, six) = match (header.source, header.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ([from.octets(), to.octets()].concat(), false),
        (IpAddr::V6(from), IpAddr::V6(to)) => ([from.octets(), to.octets()].concat(), true),
        _ => panic!("two families in {header:?}"),
    };
    if let Some(at) = sum_at {
        // ICMP of IPv4 alone has no pseudo-header (RFC 792).
        let pseudo = if protocol == 1 { &[][..] } else { &addresses };
        let initial = if protocol == 1 { 0 } else { u32::from(protocol) + l4.len() as u32 };
        let sum = checksum::of(&[pseudo, &l4].concat(), initial);
        l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let ip = if six {
        let length = (l4.len() as u16).to_be_bytes();
        [&[0x60, 0, 0, 0, length[0], length[1], protocol, 64][..], &addresses].concat()
    } else {
        let length = (20 + l4.len() as u16).to_be_bytes();
        let mut ip = [0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0].to_vec();
        ip.extend(&addresses);
        let sum = checksum::of(&ip, 0).to_be_bytes();
        ip[10..12].copy_from_slice(&sum);
        ip
    };
    let ethertype: [u8; 2] = if six { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&ethernet[..], &ethertype, &ip, &l4].concat()
}
