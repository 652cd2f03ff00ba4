//! Floods through the programs in the kernel while flows are established: every one of them goes on with its port, tables
//! keep to their capacity and memory to its size, and counters say what became of every packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use sluicegate_engine::flow::Side;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{Counters, Datapath as _, FlowRecord, XdpChoice};
use sluicegate_model::packets::{Draft, Payload, checksum, flag};
use sluicegate_model::random::Random;

use crate::account::{self, PERMITTED, SERVER, USERS, above, user};
use crate::world::{World, chosen, sending};

/// TC's answers: redirected, dropped.
const REDIRECT: u32 = 7;
const SHOT: u32 = 2;

/// Established flows in a run of the test suite; `SLUICEGATE_FLOWS=10000` for the long run.
const FLOWS: u32 = 1000;
/// Packets of each flood; `SLUICEGATE_FLOOD=100000` for the long run.
const PACKETS: u32 = 4000;

#[test]
fn established_flows_outlive_every_flood_with_their_ports() {
    for xdp in [XdpChoice::Off, sending()] {
        let world = World::new();
        let flows = chosen("SLUICEGATE_FLOWS", FLOWS);
        let packets = chosen("SLUICEGATE_FLOOD", PACKETS) / 2;
        let entries = (2 * flows).next_power_of_two().max(4096);
        let mut datapath = world.open(xdp, entries, &account::image(0, true).1);
        let mac = world.gateway.mac("overlay").unwrap();
        let judge = Judge { xdp: (xdp != XdpChoice::Off).then_some(mac) };
        world.gateway.enter(|| flood_all(&mut datapath, judge, flows, packets, u64::from(entries))).unwrap();
    }
}

/// Whose programs a packet is run through, one after the other as it would go.
#[derive(Clone, Copy)]
struct Judge {
    /// XDP before TC: the address of the overlay device, which it minds.
    xdp: Option<[u8; 6]>,
}

impl Judge {
    /// What becomes of a packet, and what that took. A test run is on the loopback device, which no side is: XDP drops what has no
    /// flow there, and leaves the rest to TC.
    fn run(self, datapath: &mut EbpfDatapath, side: Side, packet: &[u8]) -> (u32, Duration) {
        const XDP_DROP: u32 = 1;
        const XDP_PASS: u32 = 2;

        let (xdp, tc) = match side {
            Side::Site => ("site_xdp", "site_in"),
            _ => ("overlay_xdp", "overlay_in_l2"),
        };
        let frame = frame(packet);
        let mut took = Duration::ZERO;
        if let Some(mac) = self.xdp {
            let (answer, time) = datapath.run_once(xdp, &[&mac, &frame[6..]].concat()).unwrap();
            took += time;
            match answer {
                XDP_DROP => return (SHOT, took),
                XDP_PASS => {}
                other => panic!("{xdp} answered {other}"),
            }
        }
        let (answer, time) = datapath.run_once(tc, &frame).unwrap();
        (answer, took + time)
    }
}

fn flood_all(datapath: &mut EbpfDatapath, judge: Judge, flows: u32, packets: u32, entries: u64) {
    let established = establish(datapath, judge, flows);
    let memory = datapath.counters().unwrap().memory_bytes;
    println!(
        "| flood | packets | survivors of {flows} | forwarded | dropped, by reason | ns a packet, median |"
    );
    println!("|---|---|---|---|---|---|");
    let mut random = Random::new(7);
    for flood in Flood::ALL {
        let before = datapath.counters().unwrap();
        let mut took = Vec::new();
        let mut forwarded = 0;
        for number in 0..packets {
            let packet = flood.packet(number, &mut random);
            let (answer, time) = judge.run(datapath, flood.side(), &packet);
            took.push(time);
            match answer {
                REDIRECT => forwarded += 1,
                SHOT => {}
                other => panic!("{flood:?}: the program answered {other}"),
            }
        }
        let after = datapath.counters().unwrap();
        let dropped = dropped_since(&before, &after);
        // Every packet was forwarded or is counted with its reason.
        assert_eq!(forwarded + dropped.values().sum::<u64>(), u64::from(packets), "{flood:?}: {dropped:?}");
        for reason in flood.reasons() {
            assert!(dropped.contains_key(reason), "{flood:?} was not dropped as {reason}: {dropped:?}");
        }
        assert_eq!(forwarded > 0, flood.has_permitted(), "{flood:?}: {forwarded} were forwarded");
        let survivors = survivors(datapath, judge, &established);
        took.sort();
        let median = took[took.len() / 2].as_nanos();
        let reasons: Vec<String> = dropped.iter().map(|(name, count)| format!("{name} {count}")).collect();
        println!(
            "| {} | {packets} | {survivors} | {forwarded} | {} | {median} |",
            flood.name(),
            reasons.join(", ")
        );
        assert_eq!(survivors, established.len(), "{flood:?} has ended flows");
        let now = datapath.counters().unwrap();
        assert_eq!(now.memory_bytes, memory, "{flood:?}: the memory of maps has changed");
        for table in &now.tables {
            let capacity =
                if table.stage == "confirmed" { entries } else { (entries / 8).clamp(1024, 28_672) };
            assert!(table.capacity == capacity && table.entries <= capacity, "{flood:?}: {table:?}");
        }
    }
}

/// What is thrown at the gateway; packets of both families take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    Syn,
    Udp,
    Fragments,
    Icmp,
    Ports,
    Addresses,
    Unsolicited,
}

impl Flood {
    const ALL: [Self; 7] =
        [Self::Syn, Self::Udp, Self::Fragments, Self::Icmp, Self::Ports, Self::Addresses, Self::Unsolicited];

    fn name(self) -> &'static str {
        match self {
            Self::Syn => "SYN, half from nobody known",
            Self::Udp => "UDP, half from nobody known",
            Self::Fragments => "fragments, half without a first one",
            Self::Icmp => "echo requests, half from nobody known",
            Self::Ports => "port scan of the server",
            Self::Addresses => "address scan of the site",
            Self::Unsolicited => "from the site into the overlay",
        }
    }

    fn side(self) -> Side {
        if self == Self::Unsolicited { Side::Site } else { Side::Overlay }
    }

    fn has_permitted(self) -> bool {
        !matches!(self, Self::Addresses | Self::Unsolicited)
    }

    /// Reasons that packets of it must have been dropped for.
    fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::Syn | Self::Udp | Self::Icmp => &["spoofed_source"],
            Self::Ports | Self::Addresses => &["no_rule"],
            Self::Fragments => &["fragment"],
            Self::Unsolicited => &["no_flow"],
        }
    }

    fn packet(self, number: u32, random: &mut Random) -> Vec<u8> {
        let six = (number % 2) as usize;
        let turn = number / 2;
        let server: IpAddr = SERVER[six].parse().unwrap();
        let port = 1024 + random.below(64_512 - 1024) as u16;
        let somebody = user(random.below(USERS as usize) as u32)[six];
        // In the overlay, and nobody's address.
        let source = if turn.is_multiple_of(2) {
            somebody
        } else {
            above(user(0)[six], 4096 + random.below(4096) as u32)
        };
        let udp = |source, destination, data| Payload::Udp { source, destination, data, unchecked: false };
        let syn = |destination| Payload::Tcp { source: port, destination, flags: flag::SYN, data: 0 };
        match self {
            Self::Syn => Draft::new(source, server, syn(PERMITTED)).build(),
            Self::Udp => Draft::new(source, server, udp(port, PERMITTED, 18)).build(),
            Self::Icmp => {
                let kind = [8, 128][six];
                Draft::new(source, server, Payload::Icmp { kind, code: 0, id: port, data: 18 }).build()
            }
            Self::Ports => Draft::new(user(3)[six], server, syn(((turn + 4000) % 65_535) as u16 + 1)).build(),
            Self::Addresses => {
                let target = above(server, 1 + turn % 60_000);
                Draft::new(user(3)[six], target, syn(PERMITTED)).build()
            }
            Self::Fragments => {
                // A first fragment of a datagram of its own, or a later one of a datagram nobody has begun.
                let later = turn % 2 == 1;
                let draft = Draft::new(somebody, server, udp(port, PERMITTED, 64));
                fragment(&draft, six == 1, number, if later { 9 } else { 0 })
            }
            Self::Unsolicited => {
                // What is for the gateway's own address and no flow is the host's, and passes on to it.
                let from = above(server, 1 + turn % 60_000);
                Draft::new(from, somebody, udp(port, PERMITTED, 18)).build()
            }
        }
    }
}

/// The first (`offset` 0) or a later fragment, with more to follow, of datagram `id`; `offset` is in units of eight bytes.
fn fragment(draft: &Draft, six: bool, id: u32, offset: u16) -> Vec<u8> {
    if six {
        let mut bytes = Draft { extensions: vec![(44, 0)], ..draft.clone() }.build();
        bytes[42..44].copy_from_slice(&(offset << 3 | 1).to_be_bytes());
        bytes[44..48].copy_from_slice(&id.to_be_bytes());
        return bytes;
    }
    let mut bytes = Draft { fragment: 0x2000 | offset, ..draft.clone() }.build();
    bytes[4..6].copy_from_slice(&(id as u16).to_be_bytes());
    bytes[10..12].fill(0);
    let sum = checksum(&[&bytes[..20]]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// One established flow, by its opener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Established {
    protocol: u8,
    source: IpAddr,
    source_port: u16,
    server: IpAddr,
    /// Address and port it leaves with.
    outside: (IpAddr, u16),
}

impl Established {
    fn of(flow: &FlowRecord) -> Self {
        Self {
            protocol: flow.protocol,
            source: flow.source,
            source_port: flow.source_port,
            server: flow.destination,
            outside: flow.translated.expect("a masqueraded flow"),
        }
    }

    /// A packet of the opener, or of the server.
    fn packet(&self, answers: bool, flags: u8) -> Vec<u8> {
        let (from, to) = if answers {
            ((self.server, PERMITTED), self.outside)
        } else {
            ((self.source, self.source_port), (self.server, PERMITTED))
        };
        packet(self.protocol, from, to, flags)
    }
}

fn packet(protocol: u8, from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
    let payload = if protocol == 6 {
        Payload::Tcp { source: from.1, destination: to.1, flags, data: 0 }
    } else {
        Payload::Udp { source: from.1, destination: to.1, data: 18, unchecked: false }
    };
    Draft::new(from.0, to.0, payload).build()
}

/// Opens so many flows, of TCP and UDP and of both families alike, and has each answered.
fn establish(datapath: &mut EbpfDatapath, judge: Judge, flows: u32) -> BTreeSet<Established> {
    let expect = |datapath: &mut EbpfDatapath, side: Side, packet: &[u8]| {
        assert_eq!(judge.run(datapath, side, packet).0, REDIRECT);
    };
    let mut established = BTreeSet::new();
    // The table of flows that are not answered yet holds no more at once.
    for batch in (0..flows).collect::<Vec<_>>().chunks(200) {
        for number in batch {
            let (six, protocol) = ((number % 2) as usize, if number / 2 % 2 == 0 { 6 } else { 17 });
            let (source, port) = (user(number % USERS)[six], 10_000 + (number / USERS) as u16);
            let server = (SERVER[six].parse().unwrap(), PERMITTED);
            expect(datapath, Side::Overlay, &packet(protocol, (source, port), server, flag::SYN));
        }
        let flows = datapath.sweep().unwrap();
        let opened: Vec<_> = flows.iter().filter(|flow| !flow.confirmed).map(Established::of).collect();
        assert_eq!(opened.len(), batch.len());
        for flow in opened {
            expect(datapath, Side::Site, &flow.packet(true, flag::SYN | flag::ACK));
            expect(datapath, Side::Overlay, &flow.packet(false, flag::ACK));
            established.insert(flow);
        }
    }
    assert!(datapath.sweep().unwrap().iter().all(|flow| flow.confirmed), "an answered flow is not confirmed");
    established
}

/// How many flows carry a packet each way and are told of with it, under the same port as before.
fn survivors(datapath: &mut EbpfDatapath, judge: Judge, established: &BTreeSet<Established>) -> usize {
    let counts = |datapath: &mut EbpfDatapath| -> BTreeMap<Established, (u64, u64)> {
        let flows = datapath.sweep().unwrap();
        let ours = flows.iter().filter(|flow| flow.translated.is_some());
        ours.map(|flow| (Established::of(flow), (flow.packets, flow.replies.0))).collect()
    };
    let before = counts(datapath);
    let mut passed = BTreeSet::new();
    for flow in established {
        let there = judge.run(datapath, Side::Overlay, &flow.packet(false, flag::ACK)).0;
        let back = judge.run(datapath, Side::Site, &flow.packet(true, flag::ACK)).0;
        if (there, back) == (REDIRECT, REDIRECT) {
            passed.insert(flow);
        }
    }
    let after = counts(datapath);
    let carried = |flow: &&&Established| match (before.get(**flow), after.get(**flow)) {
        (Some(before), Some(after)) => *after == (before.0 + 2, before.1 + 1),
        _ => false,
    };
    passed.iter().filter(carried).count()
}

/// What was dropped between two readings, by reason, without those that are zero.
fn dropped_since(before: &Counters, after: &Counters) -> BTreeMap<&'static str, u64> {
    let old: BTreeMap<_, _> = before.drops.iter().copied().collect();
    let grown = after.drops.iter().map(|(name, count)| (*name, count - old[name]));
    // No flood is of multicast: what the hosts beside it tell their neighbours may come at any time.
    grown.filter(|(name, count)| *count > 0 && *name != "not_unicast").collect()
}

/// An Ethernet frame with that packet.
fn frame(packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 4 { [0x08, 0] } else { [0x86, 0xdd] };
    // A test run is on the loopback device, whose address this is.
    [&[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2][..], &kind, packet].concat()
}
