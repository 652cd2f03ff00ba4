//! Flow tables and masquerade of the kernel's datapath: what the agent asks for, and what it says of them. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "userspace/image.rs"]
mod image;

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{
    Choice, Counters, Datapath as _, Egress, FlowRecord, FlowSettings, FlowTable, FlowTimeouts, Settings,
    XdpSettings,
};
use sluicegate_lab::{Lab, Namespace, kernel_version};
use sluicegate_model::packets::{Draft, Payload};

use image::{Rule, image};

/// TC's answers: redirected, dropped.
const REDIRECT: u32 = 7;
const SHOT: u32 = 2;

const PEER: [&str; 2] = ["100.64.0.5", "fd64::5"];
const SERVER: [&str; 2] = ["10.9.0.9", "fd09::9"];

#[test]
fn every_source_leaves_with_its_own_address_of_the_pool() {
    let stage = Stage::new(FlowSettings::default());
    let mut datapath = stage.open([16, 16]);
    for six in [0, 1] {
        for host in 2..34 {
            for port in [53, 54] {
                let source = if six == 0 { format!("100.64.0.{host}") } else { format!("fd64::{host:x}") };
                assert_eq!(stage.udp(&mut datapath, (&source, 4000), (SERVER[six], port)), REDIRECT);
            }
        }
    }
    let flows = stage.sweep(&mut datapath);
    assert_eq!(flows.len(), 2 * 32 * 2);
    let pools = [("10.9.0.16", "10.9.0.31"), ("fd09::10", "fd09::1f")];
    let pools = pools.map(|(first, last)| address(first)..=address(last));
    let mut used = BTreeSet::new();
    for flow in &flows {
        let (gateway, _) = flow.translated.unwrap();
        assert!(pools.iter().any(|pool| pool.contains(&gateway)), "{flow:?}");
        let same = |other: &&FlowRecord| other.source == flow.source;
        assert!(flows.iter().filter(same).all(|other| other.translated.unwrap().0 == gateway), "{flow:?}");
        used.insert(gateway);
    }
    assert!(used.len() > 16, "the pools are hardly shared: {used:?}");
}

#[test]
fn a_packet_for_an_address_of_the_pool_is_dropped_as_hairpin() {
    let stage = Stage::new(FlowSettings::default());
    let mut datapath = stage.open([16, 16]);
    for (source, inside, outside) in [(PEER[0], "10.9.0.31", "10.9.0.32"), (PEER[1], "fd09::1f", "fd09::20")]
    {
        assert_eq!(stage.udp(&mut datapath, (source, 4000), (inside, 20_000)), SHOT);
        assert_eq!(stage.udp(&mut datapath, (source, 4000), (outside, 20_000)), REDIRECT);
    }
    assert_eq!(drops(&datapath.counters().unwrap(), "hairpin"), 2);
}

#[test]
fn what_a_flood_of_openings_evicts_is_counted_and_the_memory_is_told() {
    let flows = FlowSettings { half_open_entries: Some(1024), ..FlowSettings::default() };
    let stage = Stage::new(flows);
    let mut datapath = stage.open([1, 1]);
    let opened = 2000;
    for six in [0, 1] {
        for port in 0..opened {
            let from = (PEER[six], 1000 + port);
            assert_eq!(stage.udp(&mut datapath, from, (SERVER[six], 53)), REDIRECT);
        }
    }
    stage.sweep(&mut datapath);
    let counters = datapath.counters().unwrap();
    let table = |stage: &str, family: &str| {
        *counters.tables.iter().find(|t| (t.stage, t.family) == (stage, family)).unwrap()
    };
    let (four, six) = (table("half_open", "ipv4"), table("half_open", "ipv6"));
    // Nothing else touches the tables: what was inserted is there or was evicted.
    let inserted = 2 * 2 * u64::from(opened);
    assert_eq!(counters.half_open_evicted, inserted - four.entries - six.entries, "{:?}", counters.tables);
    assert!(counters.half_open_evicted > 0);
    // Before 6.4 the kernel tells of keys and values alone (kernel/bpf/syscall.c, bpf_map_memory_footprint).
    let least = if kernel_version() < (6, 4) { 80 } else { 128 };
    for table in &counters.tables {
        let capacity = if table.stage == "confirmed" { 4096 } else { 1024 };
        assert_eq!(table.capacity, capacity);
        assert!(table.entries <= capacity && table.bytes >= capacity * least, "{table:?}");
    }
    let tables: u64 = counters.tables.iter().map(|table| table.bytes).sum();
    assert!(counters.memory_bytes > tables, "{} {tables}", counters.memory_bytes);
    assert_eq!(counters.port_collisions.iter().sum::<u64>(), 2 * u64::from(opened));
    // A new agent goes on from there.
    drop(datapath);
    let mut datapath = stage.open([1, 1]);
    stage.sweep(&mut datapath);
    assert!(datapath.counters().unwrap().half_open_evicted >= counters.half_open_evicted);
}

/// As after an upgrade from a version whose tables were larger.
#[test]
fn a_size_that_nobody_chose_is_kept_without_a_word_and_a_chosen_one_with_one() {
    let sized = |half_open_entries| FlowSettings { half_open_entries, ..FlowSettings::default() };
    let mut stage = Stage::new(sized(Some(2048)));
    drop(stage.open([1, 1]));
    for (asked, entries, told) in [(None, 4096, false), (Some(4096), 4096, true), (None, 8192, true)] {
        stage.settings.flows = FlowSettings { half_open_entries: asked, ..stage.settings.flows.clone() };
        stage.settings.flow_entries = entries;
        let mut datapath = stage.open([1, 1]);
        let sizes = |table: &FlowTable| (table.stage == "half_open").then_some(table.capacity);
        let kept: Vec<u64> = datapath.counters().unwrap().tables.iter().filter_map(sizes).collect();
        assert_eq!(kept, [2048; 2]);
        let degraded = datapath.degraded();
        assert_eq!(degraded.iter().any(|it| it.contains("keep the sizes")), told, "{asked:?}: {degraded:?}");
    }
}

#[test]
fn ports_that_collide_are_counted_by_how_many_were_taken() {
    let mut stage = Stage::new(FlowSettings::default());
    stage.settings.nat_ports = 20_000..=20_003;
    let mut datapath = stage.open([1, 1]);
    for port in 1..=4 {
        assert_eq!(stage.udp(&mut datapath, (PEER[0], port), (SERVER[0], 53)), REDIRECT);
    }
    assert_eq!(stage.udp(&mut datapath, (PEER[0], 5), (SERVER[0], 53)), SHOT);
    assert_eq!(stage.udp(&mut datapath, (PEER[0], 5), (SERVER[0], 54)), REDIRECT);
    let counters = datapath.counters().unwrap();
    assert_eq!(counters.port_collisions.len(), 32);
    assert_eq!(counters.port_collisions.iter().sum::<u64>(), 5);
    // Each of the four has found another number of ports taken, or the hash was kind to some.
    assert!(counters.port_collisions[..4].iter().sum::<u64>() == 5, "{:?}", counters.port_collisions);
    assert_eq!(drops(&counters, "nat_exhausted"), 1);
}

#[test]
fn a_source_beyond_its_openings_is_refused_and_others_are_not() {
    let flows = FlowSettings { half_open_per_source: 3, ..FlowSettings::default() };
    let stage = Stage::new(flows);
    let mut datapath = stage.open([1, 1]);
    for six in [0, 1] {
        for port in 1..=5 {
            let expected = if port <= 3 { REDIRECT } else { SHOT };
            assert_eq!(stage.udp(&mut datapath, (PEER[six], port), (SERVER[six], 53)), expected);
        }
        let other = ["100.64.0.6", "fd64::6"][six];
        assert_eq!(stage.udp(&mut datapath, (other, 1), (SERVER[six], 53)), REDIRECT);
    }
    assert_eq!(drops(&datapath.counters().unwrap(), "source_limit"), 4);
}

/// The programs' mappings are gone with the agent that loaded them; the flows that use the ports are not.
#[test]
fn a_new_agent_keeps_the_udp_ports_of_the_flows_it_finds() {
    let flows = FlowSettings { endpoint_independent: true, ..FlowSettings::default() };
    let stage = Stage::new(flows);
    let mut datapath = stage.open([4, 4]);
    for six in [0, 1] {
        for port in [53, 54, 55] {
            assert_eq!(stage.udp(&mut datapath, (PEER[six], 4000), (SERVER[six], port)), REDIRECT);
        }
    }
    let before = stage.ports(&mut datapath);
    assert_eq!(before.len(), 2, "one port for each source and family: {before:?}");
    drop(datapath);
    let mut datapath = stage.open([4, 4]);
    assert_eq!(stage.ports(&mut datapath), before);
    for six in [0, 1] {
        assert_eq!(stage.udp(&mut datapath, (PEER[six], 4000), (SERVER[six], 56)), REDIRECT);
    }
    assert_eq!(stage.sweep(&mut datapath).len(), 8);
    assert_eq!(stage.ports(&mut datapath), before);
}

#[test]
fn a_port_that_a_socket_of_the_host_uses_is_left_out() {
    let mut stage = Stage::new(FlowSettings::default());
    stage.settings.nat_ports = 20_000..=20_001;
    let bind = || std::net::UdpSocket::bind("0.0.0.0:20001");
    let _socket = stage.gateway.enter(bind).unwrap().unwrap();
    let mut datapath = stage.open([1, 1]);
    for six in [0, 1] {
        assert_eq!(stage.udp(&mut datapath, (PEER[six], 20_001), (SERVER[six], 53)), REDIRECT);
        assert_eq!(stage.udp(&mut datapath, (PEER[six], 20_000), (SERVER[six], 53)), SHOT);
    }
    assert!(stage.ports(&mut datapath).iter().all(|(.., port)| *port == 20_000));
    assert_eq!(drops(&datapath.counters().unwrap(), "nat_exhausted"), 2);
    let told = datapath.degraded();
    assert!(
        told.iter().any(|sentence| sentence.contains("20001") && sentence.contains("left out")),
        "{told:?}"
    );
}

/// A gateway namespace between an Ethernet overlay and a site.
struct Stage {
    settings: Settings,
    gateway: Namespace,
    _others: [Namespace; 2],
    _lab: Lab,
}

impl Stage {
    fn new(flows: FlowSettings) -> Self {
        // On a busy machine loading programs takes longer than an unanswered datagram's flow lives.
        let timeouts = FlowTimeouts { udp_unreplied: 36_000, ..FlowTimeouts::default() };
        let flows = FlowSettings { timeouts, ..flows };
        let lab = Lab::new().expect("these tests need root");
        let [peers, gateway, site] = ["peers", "gateway", "site"].map(|name| lab.namespace(name).unwrap());
        lab.veth((&peers, "out"), (&gateway, "overlay")).unwrap();
        lab.veth((&gateway, "site"), (&site, "in")).unwrap();
        let settings = Settings {
            choice: Choice::Ebpf,
            bpf_dir: lab.bpffs().unwrap().join("gateway"),
            site_devices: vec!["site".into()],
            nat_ports: 20_000..=32_767,
            flow_entries: 4096,
            image_words: 1 << 14,
            mtu: 1420,
            flows,
            xdp: XdpSettings::default(),
        };
        Self { settings, gateway, _others: [peers, site], _lab: lab }
    }

    /// The datapath with an image in force that masquerades with so many addresses of each family.
    fn open(&self, pool: [u16; 2]) -> EbpfDatapath {
        let device = self.gateway.index("site").unwrap();
        let egress = Egress {
            route: 0,
            device,
            source_v4: Some([10, 9, 0, 16].into()),
            source_v6: Some("fd09::10".parse().unwrap()),
            pool,
        };
        let opened = self.gateway.enter(|| -> anyhow::Result<EbpfDatapath> {
            let mut datapath = EbpfDatapath::open(&self.settings, "overlay")?;
            datapath.set_overlay("100.64.0.0/24".parse()?, "fd64::/64".parse()?)?;
            datapath.set_egress(&[egress])?;
            if datapath.in_force().is_none() {
                datapath.apply(1, &image(Rule::Accept { masquerade: true }))?;
            }
            Ok(datapath)
        });
        opened.unwrap().unwrap()
    }

    /// What TC says to a datagram from the overlay.
    fn udp(&self, datapath: &mut EbpfDatapath, from: (&str, u16), to: (&str, u16)) -> u32 {
        let payload = Payload::Udp { source: from.1, destination: to.1, data: 8, unchecked: false };
        let (source, destination) = (address(from.0), address(to.0));
        let kind: [u8; 2] = if source.is_ipv4() { [0x08, 0] } else { [0x86, 0xdd] };
        // A test run is on the loopback device, whose address this is.
        let header = [&[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2][..], &kind].concat();
        let frame = [header, Draft::new(source, destination, payload).build()].concat();
        datapath.run_once("overlay_in_l2", &frame).unwrap().0
    }

    fn sweep(&self, datapath: &mut EbpfDatapath) -> Vec<FlowRecord> {
        self.gateway.enter(|| datapath.sweep()).unwrap().unwrap()
    }

    /// Source and masquerade address and port of every flow.
    fn ports(&self, datapath: &mut EbpfDatapath) -> BTreeSet<(IpAddr, IpAddr, u16)> {
        let flows = self.sweep(datapath);
        flows.iter().filter_map(|flow| flow.translated.map(|(ip, port)| (flow.source, ip, port))).collect()
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn drops(counters: &Counters, reason: &str) -> u64 {
    counters.drops.iter().find(|(name, _)| *name == reason).unwrap().1
}
