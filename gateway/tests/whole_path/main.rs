//! The whole path between two Ethernets, with real packets: what XDP carries, what it leaves to TC, what it drops. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "../support/frames.rs"]
mod frames;
#[path = "../support/gateway.rs"]
mod gateway;
mod hosts;
mod modes;
#[path = "../support/policy.rs"]
mod policy;
#[path = "../support/tap.rs"]
mod tap;
mod world;

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{Datapath as _, XdpChoice, XdpMode};
use sluicegate_lab::{Feature, Program, can_run_with};

use self::frames::Frames;
use self::tap::Tap;
use self::world::{
    ADDRESSES, PATIENCE, PORT, World, drops, sending, tags_in_frames, tcp_there_and_back, udp, vlan,
};

/// Of the kernel's clock: HZ is 100 at least.
const LONGEST_TICK: Duration = Duration::from_millis(10);

/// Has flows of each family carried by XDP: all packets but those for which the kernel is asked for the neighbour.
fn carried(world: &World, masquerade: bool) {
    // What is learned of neighbours in the tick in which devices changed is not kept, and twenty rounds may take no longer than that.
    thread::sleep(2 * LONGEST_TICK);
    for (family, [client, _, own, _]) in ADDRESSES.into_iter().enumerate() {
        let mut talk = world.talk(family);
        let tap = world.tap();
        talk.round();
        let seen = talk.seen.unwrap().ip().to_string();
        assert_eq!(seen, if masquerade { own } else { client });
        let first = tap.frames().iter().filter(|f| holds(f, "question") || holds(f, "answer")).count();
        assert!(first <= 2, "family {family}: {first} skbs for a packet and its answer");
        // A neighbour is asked for again every second, in each direction; all else is no skb.
        let began = Instant::now();
        (0..20).for_each(|_| talk.round());
        let skbs = tap.frames().iter().filter(|f| holds(f, "question") || holds(f, "answer")).count();
        let most = 2 * (began.elapsed().as_secs() as usize + 2);
        assert!(skbs <= most, "family {family}: {skbs} skbs for 40 packets, in time for {most}");
        drop(talk);
        opened(world, family);
    }
}

/// Has another flow between the same addresses opened and answered by XDP alone, since its neighbours are known.
fn opened(world: &World, family: usize) {
    let began = Instant::now();
    let mut talk = world.talk(family);
    loop {
        // After a second the kernel is asked again, which makes skbs of packets.
        talk.round();
        let client = udp(&world.client, ADDRESSES[family][0], 0);
        client.connect(talk.server.local_addr().unwrap()).unwrap();
        talk.client = client;
        let tap = world.tap();
        talk.round();
        let skbs = tap.frames().iter().filter(|f| holds(f, "question") || holds(f, "answer")).count();
        if skbs == 0 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "family {family}: {skbs} skbs for a first packet and its answer");
    }
}

fn holds(frame: &[u8], text: &str) -> bool {
    frame.windows(text.len()).any(|at| at == text.as_bytes())
}

#[test]
fn both_families_are_carried_by_xdp_with_masquerade_and_without() {
    let world = World::new();
    for masquerade in [true, false] {
        let mut datapath = world.open_whole(masquerade);
        carried(&world, masquerade);
        for family in [0, 1] {
            let tap = world.tap();
            assert!(tcp_there_and_back(&world, family, 300_000));
            let skbs = tap.frames().len();
            assert!(skbs < 60, "{skbs} skbs for 400 segments and their acknowledgements");
            let tap = world.tap();
            let ping = ["-c", "4", "-i", "0.1", ADDRESSES[family][3]];
            let ping = world.client.run(&Program::new("ping").args(ping), PATIENCE).unwrap();
            assert!(ping.success(), "{ping:?}");
            let echoes = tap.frames().iter().filter(|frame| is_echo(frame)).count();
            assert!(echoes <= 4, "{echoes} skbs for four echoes and their replies");
        }
        let flows = world.gateway.enter(|| datapath.sweep()).unwrap().unwrap();
        let talk = flows.iter().find(|flow| flow.protocol == 17 && flow.packets > 20).unwrap();
        assert_eq!(talk.packets, 42, "every packet is counted once");
        // The client's kernel asks for routers and tells of its groups.
        let told = |(reason, count): &(&str, u64)| *count > 0 && *reason != "not_unicast";
        let unwanted: Vec<_> = datapath.counters().unwrap().drops.into_iter().filter(told).collect();
        assert!(unwanted.is_empty(), "{unwanted:?}");
    }
}

fn is_echo(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0] => frame[23] == 1,
        [0x86, 0xdd] => frame[20] == 58 && matches!(frame[54], 128 | 129),
        _ => false,
    }
}

/// Checksums that nobody has computed and segments that nobody has cut: TC carries them, and they are right.
#[test]
fn what_is_left_to_devices_goes_through_tc_and_is_right() {
    let world = World::bare();
    let mut datapath = world.open(XdpChoice::Native, true);
    assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());
    for family in [0, 1] {
        let tap = world.tap();
        let mut talk = world.talk(family);
        talk.round();
        talk.round();
        talk.round();
        assert_eq!(tap.frames().iter().filter(|frame| holds(frame, "question")).count(), 3);
        assert!(tcp_there_and_back(&world, family, 20_000_000));
    }
    assert_eq!(drops(&mut datapath, "internal"), 0);
}

#[test]
fn a_site_behind_a_vlan_is_carried() {
    if !can_run_with(Feature::Vlan) {
        return;
    }
    let world = World::tagged(&[("802.1Q", "100")], "site.100");
    let _datapath = world.open_whole(true);
    carried(&world, true);
}

#[test]
fn a_site_behind_two_tags_is_carried() {
    if !can_run_with(Feature::Vlan) {
        return;
    }
    let world = World::tagged(&[("802.1ad", "7"), ("802.1Q", "9")], "site.7.9");
    let _datapath = world.open_whole(false);
    carried(&world, false);
}

#[test]
fn overlay_and_site_on_one_cable_are_carried_and_untagged_frames_are_the_hosts() {
    if !can_run_with(Feature::Vlan) {
        return;
    }
    let world = World::on_a_stick();
    let datapath = world.open_whole(true);
    assert_eq!(datapath.xdp().len(), 1);
    carried(&world, true);
    // Now that programs are there.
    let host = udp(&world.gateway, "192.0.2.1", 9000);
    let tap = world.tap();
    host.send_to(b"x", "192.0.2.2:9").unwrap();
    let ping = world.gateway.run(&Program::new("ping").args(["-c", "1", "192.0.2.2"]), PATIENCE).unwrap();
    assert!(ping.success() && !tap.frames().is_empty(), "{ping:?}");
}

/// The tag of such a frame lies beside it, where XDP does not look.
#[test]
fn tags_that_xdp_would_not_see_keep_it_off_the_device_until_they_are_left_in() {
    if !can_run_with(Feature::Vlan) {
        return;
    }
    let world = World::tagged(&[("802.1Q", "100")], "site.100");
    for (namespace, device) in [(&world.gateway, "site"), (&world.server, "in")] {
        for feature in ["tx-vlan-hw-insert", "rx-vlan-hw-parse"] {
            namespace.feature(device, feature, true).unwrap();
        }
    }
    let (choice, mode) = sending();
    let mut datapath = world.open(choice, true);
    let said = datapath.degraded().join("; ");
    assert!(said.contains("ethtool -K site rxvlan off") && said.contains("TC alone judges"), "{said}");
    let site = |datapath: &EbpfDatapath| datapath.xdp().into_iter().find(|d| d.device == "site").unwrap();
    assert_eq!((site(&datapath).mode, site(&datapath).sends), (XdpMode::Refused, false));
    for family in [0, 1] {
        let mut talk = world.talk(family);
        talk.round();
        talk.round();
    }
    tags_in_frames(&world.gateway, "site");
    tags_in_frames(&world.server, "in");
    world.sweep(&mut datapath);
    assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());
    assert_eq!((site(&datapath).mode, site(&datapath).sends), (mode, true));
    carried(&world, true);
    // And back: the program goes.
    world.gateway.feature("site", "rx-vlan-hw-parse", true).unwrap();
    world.sweep(&mut datapath);
    assert_eq!((site(&datapath).mode, site(&datapath).sends), (XdpMode::Refused, false));
    assert!(!world.gateway.ip(&["link", "show", "dev", "site"]).unwrap().contains("xdp"));
}

/// Frames of a VLAN that is not the gateway's are not judged as frames without a tag, in XDP or in TC.
#[test]
fn another_vlans_frames_are_nobodys_business() {
    if !can_run_with(Feature::Vlan) {
        return;
    }
    let world = World::new();
    let mut datapath = world.open_whole(false);
    for namespace in [&world.client, &world.gateway] {
        let base = if namespace.name() == "client" { "out" } else { "overlay" };
        vlan(namespace, base, "other", "802.1Q", "5");
    }
    let host = udp(&world.gateway, "0.0.0.0", 9100);
    for in_frames in [false, true] {
        if in_frames {
            tags_in_frames(&world.client, "out");
            tags_in_frames(&world.gateway, "overlay");
        }
        world.sweep(&mut datapath);
        assert_eq!(datapath.degraded().is_empty(), in_frames, "{:?}", datapath.degraded());
        let before = forwarded(&mut datapath);
        if !in_frames {
            world.client.address("other", "198.51.100.2/24").unwrap();
            world.gateway.address("other", "198.51.100.1/24").unwrap();
        }
        let sender = udp(&world.client, "198.51.100.2", 0);
        sender.send_to(b"to the host", "198.51.100.1:9100").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(host.recv(&mut buffer).unwrap(), 11);
        assert_eq!(forwarded(&mut datapath), before);
    }
}

fn forwarded(datapath: &mut EbpfDatapath) -> u64 {
    datapath.counters().unwrap().forwarded.iter().map(|(_, packets, _)| packets).sum()
}

/// Spoofed, denied, unsolicited: gone before there is an skb, each counted for what it is.
#[test]
fn what_is_refused_is_dropped_by_xdp_for_its_reason() {
    let world = World::new();
    let mut datapath = world.open_whole(true);
    for [client, own, site, server] in ADDRESSES {
        world
            .server
            .address("in", &format!("{}/128", client.replace(":5", ":7")).replace(".5/128", ".7/32"))
            .unwrap();
        // Whoever asks first resolves the neighbour: that is no packet for the gateway to judge.
        let from_client = udp(&world.client, client, 0);
        let from_server = udp(&world.server, server, 0);
        let spoofer = udp(&world.server, &client.replace(":5", ":7").replace(".0.5", ".0.7"), 0);
        for (what, socket, to, port, reason) in [
            ("denied", &from_client, server, PORT + 1, "no_rule"),
            ("unsolicited", &from_server, client, PORT, "no_flow"),
            ("spoofed", &spoofer, site, PORT, "spoofed_source"),
        ] {
            let before = drops(&mut datapath, reason);
            let tap = world.tap();
            for _ in 0..3 {
                socket.send_to(what.as_bytes(), (to.parse::<std::net::IpAddr>().unwrap(), port)).unwrap();
            }
            until(|| drops(&mut datapath, reason) >= before + 3);
            assert_eq!(drops(&mut datapath, reason), before + 3, "{what} from {client}");
            assert_eq!(tap.seen(what), 0, "{what} from {client}");
        }
        let _ = own;
    }
}

fn until(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

/// A host's own services, broadcasts, and frames for others.
#[test]
fn the_hosts_own_business_passes_untouched() {
    let world = World::new();
    let mut datapath = world.open_whole(true);
    for [_, _, own, _] in ADDRESSES {
        let host = udp(&world.gateway, own, 9000);
        let neighbour = udp(&world.server, if own.contains(':') { "::" } else { "0.0.0.0" }, 0);
        neighbour.send_to(b"hello", (own.parse::<std::net::IpAddr>().unwrap(), 9000)).unwrap();
        let mut buffer = [0; 16];
        let (_, from) = host.recv_from(&mut buffer).unwrap();
        host.send_to(b"hello yourself", from).unwrap();
        assert_eq!(neighbour.recv(&mut buffer).unwrap(), 14);
    }
    let dhcp = udp(&world.gateway, "0.0.0.0", 67);
    let asking = udp(&world.server, "0.0.0.0", 68);
    asking.set_broadcast(true).unwrap();
    asking.send_to(b"discover", "255.255.255.255:67").unwrap();
    let mut buffer = [0; 16];
    assert_eq!(dhcp.recv(&mut buffer).unwrap(), 8);

    // A frame for another host, as a switch floods it or a promiscuous card takes it.
    let mut talk = world.talk(0);
    talk.round();
    talk.round();
    let before = forwarded(&mut datapath);
    let tap = world.tap();
    let own = talk.client.local_addr().unwrap().port();
    let frame = flooded(&world, own);
    world.gateway.ip(&["link", "set", "overlay", "promisc", "on"]).unwrap();
    Frames::by(&world.client, "out").send(&frame);
    until(|| tap.frames().iter().any(|frame| holds(frame, "for another")));
    assert_eq!(forwarded(&mut datapath), before);
    talk.round();
}

/// A packet of the talk's flow in a frame for another host.
fn flooded(world: &World, port: u16) -> Vec<u8> {
    let payload = b"for another";
    let udp =
        [port.to_be_bytes(), PORT.to_be_bytes(), (8 + payload.len() as u16).to_be_bytes(), [0, 0]].concat();
    let length = 20 + 8 + payload.len() as u16;
    let mut ip =
        [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0, 0, 64, 17, 0, 0, 100, 64, 0, 5, 10, 128, 0, 53]]
            .concat();
    let mut sum: u32 = ip.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    sum = (sum >> 16) + (sum & 0xffff);
    ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let source = world.client.mac("out").unwrap();
    [&[2, 9, 9, 9, 9, 9][..], &source, &[8, 0], &ip, &udp, payload].concat()
}

/// A neighbour that moves is followed at once when the agent has told of it, and within a second in any case.
#[test]
fn a_neighbour_that_moves_is_followed() {
    let world = World::new();
    let mut datapath = world.open_whole(true);
    for family in [0, 1] {
        let mut talk = world.talk(family);
        talk.round();
        talk.round();
        move_server(&world, "02:00:00:00:aa:01");
        world.gateway.enter(|| datapath.forget_neighbours()).unwrap().unwrap();
        talk.round();
        move_server(&world, "02:00:00:00:aa:02");
        let moved = Instant::now();
        while !talk.try_round(Duration::from_millis(100)) {
            assert!(moved.elapsed() < PATIENCE, "family {family}");
        }
        talk.round();
    }
}

fn move_server(world: &World, to: &str) {
    world.server.ip(&["link", "set", "in", "address", to]).unwrap();
    for family in ["-4", "-6"] {
        world.gateway.ip(&[family, "neighbour", "flush", "dev", "site"]).unwrap();
    }
}

/// A veth device sends what XDP redirects only to an end that polls, a bridge not at all: TC sends there.
#[test]
fn a_device_that_cannot_send_frames_is_sent_by_in_tc() {
    if !can_run_with(Feature::XdpFeatures) {
        return;
    }
    let world = World::new();
    world.server.feature("in", "rx-gro", false).unwrap();
    let mut datapath = world.open(XdpChoice::Native, true);
    let sends = |datapath: &EbpfDatapath| -> Vec<(String, bool)> {
        datapath.xdp().into_iter().map(|device| (device.device, device.sends)).collect()
    };
    assert_eq!(sends(&datapath), [("overlay".to_owned(), true), ("site".to_owned(), false)]);
    every_round_makes_skbs(&world);
    world.server.feature("in", "rx-gro", true).unwrap();
    world.sweep(&mut datapath);
    assert_eq!(sends(&datapath), [("overlay".to_owned(), true), ("site".to_owned(), true)]);
    carried(&world, true);
}

fn every_round_makes_skbs(world: &World) {
    for family in [0, 1] {
        let mut talk = world.talk(family);
        let tap = world.tap();
        for _ in 0..3 {
            talk.round();
        }
        let skbs = tap.frames().iter().filter(|f| holds(f, "question") || holds(f, "answer")).count();
        assert_eq!(skbs, 6, "family {family}");
    }
}

/// What TC carries behind VLANs, whose tags are beside the frame where it looks.
#[test]
fn a_site_behind_a_vlan_is_served_by_tc_without_xdp() {
    if !can_run_with(Feature::Vlan) {
        return;
    }
    for (tags, site) in
        [(&[("802.1Q", "100")][..], "site.100"), (&[("802.1ad", "7"), ("802.1Q", "9")], "site.7.9")]
    {
        let world = World::tagged(tags, site);
        let datapath = world.open(XdpChoice::Off, true);
        assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());
        every_round_makes_skbs(&world);
    }
}

#[test]
fn a_bridge_has_no_native_xdp_and_is_served_by_tc() {
    let mut world = World::new();
    world.gateway.bridge("lan").unwrap();
    for [.., own, _] in ADDRESSES {
        let length = if own.contains(':') { 64 } else { 24 };
        world.gateway.ip(&["address", "delete", &format!("{own}/{length}"), "dev", "site"]).unwrap();
        world.gateway.address("lan", &format!("{own}/{length}")).unwrap();
    }
    world.gateway.plug("site", "lan").unwrap();
    world.cables.devices[1] = "lan";
    let datapath = world.open(XdpChoice::Native, true);
    let said = datapath.degraded().join("; ");
    assert!(said.contains("the driver of lan has no native XDP"), "{said}");
    every_round_makes_skbs(&world);
}

#[test]
fn generic_xdp_carries_too_and_is_shown_as_such() {
    let world = World::new();
    // It sends by any device.
    world.server.feature("in", "rx-gro", false).unwrap();
    world.client.feature("out", "rx-gro", false).unwrap();
    let datapath = world.open(XdpChoice::Generic, true);
    assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());
    for device in datapath.xdp() {
        assert_eq!((device.mode, device.sends), (XdpMode::Generic, true), "{device:?}");
    }
    carried(&world, true);
    for family in [0, 1] {
        assert!(tcp_there_and_back(&world, family, 2_000_000));
    }
}

#[test]
fn without_its_agent_the_gateway_goes_on() {
    let world = World::new();
    drop(world.open_whole(true));
    carried(&world, true);
    let again = world.open_whole(true);
    carried(&world, true);
    drop(again);
}

/// Answers of the gateway's own leave by the device that the packet came from, without an skb.
#[test]
fn time_exceeded_is_answered_by_xdp() {
    let world = World::new();
    let mut datapath = world.open_whole(true);
    for (family, [_, own, ..]) in ADDRESSES.into_iter().enumerate() {
        let mut talk = world.talk(family);
        talk.round();
        talk.round();
        let tap = world.tap();
        let at_client = Tap::on(&world.client, &["out"]);
        last_hop(&talk.client, family);
        talk.client.send(b"too far").unwrap();
        let is_exceeded = |frame: &Vec<u8>| match frame[12..14] {
            [0x08, 0] => frame[23] == 1 && frame[34] == 11 && frame[26..30] == octets(own),
            [0x86, 0xdd] => frame[20] == 58 && frame[54] == 3 && frame[22..38] == octets(own),
            _ => false,
        };
        let mut came = Vec::new();
        let begun = Instant::now();
        while !came.iter().any(is_exceeded) {
            let counters = datapath.counters().unwrap();
            assert!(begun.elapsed() < PATIENCE, "{:?}, {:?}, {came:02x?}", counters.answers, counters.drops);
            came.extend(at_client.frames());
        }
        assert_eq!(tap.seen("too far"), 0, "family {family}");
        let answers = datapath.counters().unwrap().answers;
        let sent = answers.iter().find(|(kind, _)| *kind == "time_exceeded").unwrap().1;
        assert_eq!(sent, family as u64 + 1);
    }
}

fn octets(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The next packets get to the first router and no further.
fn last_hop(socket: &UdpSocket, family: usize) {
    use std::os::fd::AsRawFd as _;
    let (level, option) =
        [(libc::IPPROTO_IP, libc::IP_TTL), (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)][family];
    let hops: libc::c_int = 1;
    // SAFETY: an integer that lives through the call, with its length.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const hops).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    assert_eq!(set, 0);
}
