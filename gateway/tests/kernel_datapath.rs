//! The kernel's datapath on real devices: what it loads, what outlives the agent, what it refuses, what it leaves behind.
//! Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "support/frames.rs"]
mod frames;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/policy.rs"]
mod policy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sluicegate_api::image::Image;
use sluicegate_engine::capture::{DROPS, Fate, Filter};
use sluicegate_engine::reason::DropReason;
use sluicegate_gateway::datapath::ebpf::{EbpfDatapath, detach};
use sluicegate_gateway::datapath::{ApplyError, Datapath as _, EventKind, Settings, XdpChoice};
use sluicegate_lab::{Lab, Namespace, Program};
use sluicegate_policy::model::Service;

use self::gateway::Way;

const PATIENCE: Duration = Duration::from_secs(60);

/// TC's answers: redirected, dropped, and on to the next program.
const REDIRECT: u32 = 7;
const SHOT: u32 = 2;
const NEXT: u32 = u32::MAX;

/// Every program that is loaded has a ceiling in `verifier-budget.toml`. The lines that are printed are what
/// `cargo xtask vm --record` writes there.
#[test]
fn programs_load_and_stay_below_the_verifier_ceiling() {
    let ceilings: toml::Table = include_str!("verifier-budget.toml").parse().unwrap();
    let mut stage = Stage::new();
    let ethernet = stage.open();
    assert!(ethernet.degraded().is_empty(), "{:?}", ethernet.degraded());
    let mut verified = ethernet.verified_instructions().unwrap();
    drop(ethernet);
    // The programs of an overlay device without Ethernet header.
    stage.gateway.ip(&["tuntap", "add", "dev", "tunnel", "mode", "tun"]).unwrap();
    stage.settings.bpf_dir.set_file_name("tunnel");
    let open = || EbpfDatapath::open(&stage.settings, "tunnel");
    verified.extend(stage.gateway.enter(open).unwrap().unwrap().verified_instructions().unwrap());

    // 6.1 of 6.1.0-56-cloud-amd64
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let series = release.split('.').take(2).collect::<Vec<_>>().join(".");
    for (program, count) in &verified {
        println!("verified {program} {count}");
    }
    let above: Vec<String> = verified
        .into_iter()
        .filter_map(|(program, count)| {
            let ceiling = ceilings.get(&program).and_then(|entry| entry.get("ceiling")?.as_table());
            let ceiling = ceiling.and_then(|of| of.get(&series).or(of.get("any"))?.as_integer());
            match ceiling {
                Some(ceiling) if (1..=ceiling).contains(&i64::from(count)) => None,
                Some(ceiling) => Some(format!("{program}: {count}, more than {ceiling}")),
                None => {
                    Some(format!("{program}: {count}, and tests/verifier-budget.toml has no ceiling for it"))
                }
            }
        })
        .collect();
    assert!(above.is_empty(), "instructions the verifier walked: {}", above.join("; "));
}

#[test]
fn before_an_image_nothing_passes_and_with_one_only_what_a_rule_admits() {
    let stage = Stage::new();
    let mut datapath = stage.open();
    for frame in Frame::admitted() {
        assert_eq!(datapath.run_once("overlay_in_l2", &frame).unwrap().0, SHOT);
    }
    stage.apply(&mut datapath, 1);
    for frame in Frame::admitted() {
        assert_eq!(datapath.run_once("overlay_in_l2", &frame).unwrap().0, REDIRECT);
    }
    for frame in Frame::denied() {
        assert_eq!(datapath.run_once("overlay_in_l2", &frame).unwrap().0, SHOT);
    }
    let counters = datapath.counters().unwrap();
    let drops: BTreeMap<_, _> = counters.drops.into_iter().collect();
    assert_eq!((drops[DropReason::NoImage.name()], drops[DropReason::NoRule.name()]), (2, 2));
    assert_eq!(counters.flows_started, 2);
    let kinds: Vec<EventKind> = datapath.events().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Start).count(), 2);
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Drop("no_rule")).count(), 2);
}

#[test]
fn a_bad_image_is_refused_as_a_whole_and_the_old_one_stays() {
    let stage = Stage::new();
    let mut datapath = stage.open();
    stage.apply(&mut datapath, 7);
    let before = datapath.in_force().unwrap();
    let good = stage.image();

    let mut truncated = good.clone();
    truncated.words.truncate(truncated.words.len() - 16);
    assert!(matches!(datapath.apply(8, &truncated), Err(ApplyError::Invalid(_))));
    let mut newer = good.clone();
    newer.words[1] += 1;
    assert!(matches!(datapath.apply(8, &newer), Err(ApplyError::Invalid(_))));
    let mut unknown = good.clone();
    unknown.words[31] = 1;
    assert!(matches!(datapath.apply(8, &unknown), Err(ApplyError::Invalid(_))));
    let mut large = good.clone();
    large.words.resize(2 * stage.settings.image_words as usize, 0);
    assert!(matches!(datapath.apply(8, &large), Err(ApplyError::TooLarge { .. })));
    for old in [6, 7] {
        assert!(matches!(datapath.apply(old, &good), Err(ApplyError::Stale { in_force: 7, .. })));
    }
    assert_eq!(datapath.in_force(), Some(before));
    assert_eq!(datapath.run_once("overlay_in_l2", &Frame::admitted()[0]).unwrap().0, REDIRECT);
}

#[test]
fn a_new_agent_takes_over_image_flows_and_counters() {
    let mut stage = Stage::new();
    // An emulated kernel takes longer to verify the second agent's programs than an unanswered flow lives.
    stage.settings.flows.timeouts.udp_unreplied = 3_600;
    let mut first = stage.open();
    stage.apply(&mut first, 3);
    for frame in Frame::admitted() {
        first.run_once("overlay_in_l2", &frame).unwrap();
    }
    let in_force = first.in_force();
    // The agent dies here: its programs stay on the devices, and a new one finds everything.
    drop(first);
    assert_eq!(stage.programs(), 6, "{}", stage.links());

    let mut second = stage.open();
    assert_eq!(stage.programs(), 6, "{}", stage.links());
    assert_eq!(second.in_force(), in_force);
    let flows = stage.gateway.enter(|| second.sweep()).unwrap().unwrap();
    assert_eq!(flows.len(), 2);
    assert_eq!(second.counters().unwrap().flows_started, 2);
    for frame in Frame::admitted() {
        assert_eq!(second.run_once("overlay_in_l2", &frame).unwrap().0, REDIRECT);
    }
    assert_eq!(second.counters().unwrap().flows_started, 2, "the flows were opened anew");
}

/// While no agent runs a device may go, and its index become another device's.
#[test]
fn a_route_that_the_next_agent_does_not_name_leads_nowhere() {
    let stage = Stage::new();
    let mut first = stage.open();
    stage.apply(&mut first, 1);
    drop(first);
    let mut second = stage.open();
    for frame in Frame::admitted() {
        assert_eq!(
            second.run_once("overlay_in_l2", &frame).unwrap().0,
            REDIRECT,
            "until the agent has looked"
        );
    }
    stage.gateway.enter(|| second.set_egress(&[])).unwrap().unwrap();
    for frame in Frame::admitted() {
        assert_eq!(second.run_once("overlay_in_l2", &frame).unwrap().0, SHOT);
    }
}

#[test]
fn a_capture_holds_the_packets_it_asks_for_as_they_came() {
    let stage = Stage::new();
    let mut datapath = stage.open();
    stage.apply(&mut datapath, 1);
    let run = |datapath: &mut EbpfDatapath| {
        for frame in Frame::admitted().iter().chain(&Frame::denied()) {
            datapath.run_once("overlay_in_l2", frame).unwrap();
        }
        datapath.captured()
    };
    assert_eq!(run(&mut datapath), (Vec::new(), 0), "nobody asked");
    datapath.set_capture(Some(Filter::default())).unwrap();
    let (all, lost) = run(&mut datapath);
    assert_eq!((all.len(), lost), (4, 0));
    for (record, frame) in all.iter().zip(Frame::admitted().iter().chain(&Frame::denied())) {
        assert_eq!(record.bytes[..usize::from(record.captured)], frame[14..], "not as it came: {record:?}");
        assert_eq!(record.length as usize, frame.len() - 14);
    }
    let seen: Vec<_> = all.iter().map(|r| (Fate::from_number(r.fate), r.reason, r.rule)).collect();
    let (site, no_rule) = ((Fate::Site, 0, 1), (Fate::Drop, DropReason::NoRule as u8, 0));
    assert_eq!(seen, [site, site, no_rule, no_rule]);
    assert!(all[..2].iter().all(|r| r.translated != [0; 16] && r.translated_port != 0), "{all:?}");
    datapath.set_capture(Some(Filter { verdicts: DROPS, port: 54, ..Filter::default() })).unwrap();
    assert_eq!(run(&mut datapath).0.len(), 2);
    datapath.set_capture(Some(Filter { port: 55, ..Filter::default() })).unwrap();
    assert_eq!(run(&mut datapath).0.len(), 0);
    datapath.set_capture(None).unwrap();
    assert_eq!(run(&mut datapath).0.len(), 0);
}

#[test]
fn a_flood_of_refused_packets_does_not_hide_the_first_of_another_kind() {
    let stage = Stage::new();
    let mut datapath = stage.open();
    stage.apply(&mut datapath, 1);
    let [denied, _] = Frame::denied();
    let spoofed = Frame::udp("100.64.9.9", "10.128.0.53", 4000, 53);
    for _ in 0..1000 {
        datapath.run_once("overlay_in_l2", &denied).unwrap();
    }
    datapath.run_once("overlay_in_l2", &spoofed).unwrap();
    let counters = datapath.counters().unwrap();
    let events = datapath.events();
    let told = |reason: DropReason| {
        events.iter().filter(|event| event.kind == EventKind::Drop(reason.name())).count() as u64
    };
    assert_eq!(told(DropReason::SpoofedSource), 1, "{events:?}");
    // How many of them a tick had room for is for the machine's speed to say.
    assert_eq!(told(DropReason::NoRule) + counters.events_suppressed, 1000);
    assert_eq!(counters.events_lost, 0);
    let refused: u64 = counters.routes.iter().map(|route| route.drops).sum();
    assert_eq!(refused, 1000, "what was refused is counted for the resource it was for");
}

/// As of a container with an address of its own on the site's Ethernet (macvlan), beside a gateway whose overlay is a tunnel.
#[test]
fn frames_for_another_host_on_the_site_are_left_alone_with_any_overlay() {
    let mut stage = Stage::new();
    for overlay in ["overlay", "tunnel"] {
        if overlay == "tunnel" {
            stage.gateway.ip(&["tuntap", "add", "dev", "tunnel", "mode", "tun"]).unwrap();
            stage.settings.bpf_dir.set_file_name("tunnel");
        }
        let open = || EbpfDatapath::open(&stage.settings, overlay);
        let mut datapath = stage.gateway.enter(open).unwrap().unwrap();
        assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());
        stage.apply(&mut datapath, 1);
        let own = stage.gateway.mac("site").unwrap();
        let sender = frames::Frames::by(&stage.site, "in");
        let unsolicited = [
            Frame::udp("10.128.0.53", "100.64.0.5", 4000, 9),
            Frame::udp("fd10::53", "fd64::6440:5", 4000, 9),
        ];
        for mut frame in unsolicited {
            frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x99]);
            sender.send(&frame);
            frame[..6].copy_from_slice(&own);
            sender.send(&frame);
        }
        // One behind the other: when the last, which has an address of the overlay, is counted, all have been seen.
        let mut last = Frame::udp("100.64.0.6", "100.64.0.5", 4000, 9);
        last[..6].copy_from_slice(&own);
        sender.send(&last);
        let mut counted =
            |reason| datapath.counters().unwrap().drops.iter().find(|(name, _)| *name == reason).unwrap().1;
        let begun = std::time::Instant::now();
        while counted("spoofed_source") == 0 && begun.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        assert_eq!(counted("spoofed_source"), 1, "{overlay}: not everything came");
        let dropped = counted("no_flow");
        assert_eq!(dropped, 2, "{overlay}: {:?}", datapath.counters().unwrap().drops);
        drop(datapath);
        stage.gateway.enter(|| detach(&stage.settings.bpf_dir)).unwrap().unwrap();
    }
}

#[test]
fn a_slot_given_to_another_rule_starts_at_zero() {
    let stage = Stage::new();
    let mut datapath = stage.open();
    stage.apply(&mut datapath, 1);
    datapath.run_once("overlay_in_l2", &Frame::admitted()[0]).unwrap();
    assert_eq!(datapath.counters().unwrap().rules[0].flows, 1);
    let mut image = stage.image();
    for rule in image.rules.values_mut() {
        rule.rule_id = "another".into();
    }
    datapath.apply(2, &image).unwrap();
    let counters = datapath.counters().unwrap();
    assert!(counters.rules.is_empty(), "{:?}", counters.rules);
    assert_eq!(counters.flows_started, 1, "a total that falls");
}

#[test]
fn a_passed_deadline_closes_and_a_new_one_opens_again() {
    let stage = Stage::new();
    let mut datapath = stage.open();
    stage.apply(&mut datapath, 1);
    datapath.set_deadline(Some(Duration::ZERO)).unwrap();
    for frame in Frame::admitted() {
        assert_eq!(datapath.run_once("overlay_in_l2", &frame).unwrap().0, SHOT);
    }
    datapath.set_deadline(Some(Duration::from_secs(3600))).unwrap();
    for frame in Frame::admitted() {
        assert_eq!(datapath.run_once("overlay_in_l2", &frame).unwrap().0, REDIRECT);
    }
}

#[test]
fn a_site_device_that_comes_back_is_guarded_again() {
    let stage = Stage::new();
    let mut datapath = stage.open();
    stage.apply(&mut datapath, 1);
    stage.gateway.ip(&["link", "delete", "site"]).unwrap();
    stage.gateway.enter(|| datapath.sweep()).unwrap().unwrap();
    assert!(datapath.degraded().iter().any(|sentence| sentence.contains("site device site is not there")));
    assert_eq!(stage.programs(), 3, "{}", stage.links());

    stage.lab.veth((&stage.gateway, "site"), (&stage.site, "in2")).unwrap();
    stage.gateway.enter(|| datapath.sweep()).unwrap().unwrap();
    assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());
    assert_eq!(stage.programs(), 6, "{}", stage.links());
}

#[test]
fn site_packets_pass_untouched_unless_they_are_for_the_overlay() {
    let stage = Stage::new();
    let mut datapath = stage.open();
    stage.apply(&mut datapath, 1);
    for (source, destination, expected) in [
        ("10.0.0.9", "10.0.0.1", [2, NEXT]),
        ("fd11::9", "fd11::1", [2, NEXT]),
        ("10.0.0.9", "100.64.0.5", [1, SHOT]),
        ("fd11::9", "fd64::6440:5", [1, SHOT]),
        ("100.64.0.5", "10.0.0.1", [1, SHOT]),
        ("fd64::6440:5", "fd11::1", [1, SHOT]),
    ] {
        let frame = Frame::udp(source, destination, 4000, 53);
        let [xdp, tc] = expected;
        assert_eq!(datapath.run_once("site_xdp", &frame).unwrap().0, xdp, "XDP, {source} to {destination}");
        assert_eq!(datapath.run_once("site_in", &frame).unwrap().0, tc, "TC, {source} to {destination}");
    }
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 0x08, 0x06], &[0; 46]].concat();
    assert_eq!(datapath.run_once("site_xdp", &arp).unwrap().0, 2);
    assert_eq!(datapath.run_once("site_in", &arp).unwrap().0, NEXT);
}

#[test]
fn detaching_leaves_the_devices_and_the_bpffs_as_they_were() {
    let stage = Stage::new();
    drop(stage.open());
    assert_eq!(stage.programs(), 6, "{}", stage.links());
    stage.gateway.enter(|| detach(&stage.settings.bpf_dir)).unwrap().unwrap();
    assert_eq!(stage.programs(), 0, "{}", stage.links());
    assert!(!stage.settings.bpf_dir.exists());
    let qdiscs = stage.gateway.run(&Program::new("tc").args(["qdisc", "show"]), PATIENCE).unwrap();
    assert!(!qdiscs.output().unwrap().contains("clsact"), "a qdisc is left");
}

/// A gateway namespace between an Ethernet overlay and a site.
struct Stage {
    settings: Settings,
    gateway: Namespace,
    site: Namespace,
    _peers: Namespace,
    lab: Lab,
}

impl Stage {
    fn new() -> Self {
        let lab = Lab::new().expect("these tests need root");
        let [peers, gateway, site] = ["peers", "gateway", "site"].map(|name| lab.namespace(name).unwrap());
        lab.veth((&peers, "out"), (&gateway, "overlay")).unwrap();
        lab.veth((&gateway, "site"), (&site, "in")).unwrap();
        let settings = gateway::settings(lab.bpffs().unwrap().join("gateway"), XdpChoice::default());
        Self { settings, gateway, site, _peers: peers, lab }
    }

    fn open(&self) -> EbpfDatapath {
        self.gateway.enter(|| EbpfDatapath::open(&self.settings, "overlay")).unwrap().unwrap()
    }

    fn apply(&self, datapath: &mut EbpfDatapath, revision: u64) {
        let image = self.image();
        let device = self.gateway.index("site").unwrap();
        let way = Way { device, sources: ["10.0.0.1", "fd11::1"], pool: [1, 1] };
        self.gateway
            .enter(|| {
                gateway::prepare(datapath, &image, &way).unwrap();
                datapath.apply(revision, &image).unwrap();
            })
            .unwrap();
    }

    /// One peer may reach one dual-stack resource by UDP 53.
    fn image(&self) -> Image {
        let server = ("server", vec!["10.128.0.53/32".to_owned(), "fd10::53/128".to_owned()]);
        let rule = policy::rule(0, Service::Udp(vec![53..=53]));
        policy::compile(&[policy::parsed(policy::USER)], &[server], true, vec![rule])
    }

    fn links_dir(&self) -> PathBuf {
        self.settings.bpf_dir.join("links")
    }

    fn links(&self) -> String {
        let names = std::fs::read_dir(self.links_dir()).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    /// Hooks of the gateway's devices that have a program of ours.
    fn programs(&self) -> usize {
        ["overlay", "site"].iter().map(|device| programs_on(&self.links_dir(), device, &self.gateway)).sum()
    }
}

/// Pinned links that are attached to the device of that name as it is now.
fn programs_on(links: &Path, device: &str, namespace: &Namespace) -> usize {
    let Ok(line) = namespace.ip(&["-o", "link", "show", "dev", device]) else { return 0 };
    // A directory is a mark: before tcx, of a qdisc that is ours.
    let there = std::fs::read_dir(links).into_iter().flatten().flatten().filter(|e| !e.path().is_dir());
    let pins =
        there.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{device}-"))).count();
    // `ip` names an attached XDP program; without one a site device that was just made has no link of ours either.
    if device == "site" && !line.contains("xdp") { 0 } else { pins }
}

/// Ethernet frames with a UDP packet.
struct Frame;

impl Frame {
    fn admitted() -> [Vec<u8>; 2] {
        [Self::udp("100.64.0.5", "10.128.0.53", 4000, 53), Self::udp("fd64::6440:5", "fd10::53", 4000, 53)]
    }

    fn denied() -> [Vec<u8>; 2] {
        [Self::udp("100.64.0.5", "10.128.0.53", 4000, 54), Self::udp("fd64::6440:5", "fd10::53", 4000, 54)]
    }

    fn udp(source: &str, destination: &str, source_port: u16, port: u16) -> Vec<u8> {
        use std::net::IpAddr;
        // A checksum that is not zero will do: nobody on the way verifies it (RFC 1624 keeps an error an error).
        let udp = [source_port.to_be_bytes(), port.to_be_bytes(), 26u16.to_be_bytes(), [0x12, 0x34]].concat();
        let mut frame = vec![0; 12];
        match (source.parse().unwrap(), destination.parse().unwrap()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 26, 17, 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => panic!("two families in one packet"),
        }
        frame.extend(udp);
        frame.extend([0; 18]);
        frame
    }
}
