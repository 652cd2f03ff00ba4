//! A gateway beside others on the same host: firewalls and containers, programs of others in TC and XDP. Nothing of theirs
//! changes, and taking the gateway off leaves the host as it was. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod foreign;
#[path = "../support/gateway.rs"]
mod gateway;
#[path = "../support/policy.rs"]
mod policy;
mod world;

use sluicegate_gateway::datapath::ebpf::{EbpfDatapath, detach};
use sluicegate_gateway::datapath::{Datapath as _, XdpChoice, XdpMode};
use sluicegate_lab::{Feature, can_run_with};

use self::foreign::{Filter, Foreign, LARGE, Place};
use self::world::{PATIENCE, World, serve, udp};

/// In the style of what Docker writes: published ports, masquerade for containers, isolation.
const DOCKER: &str = "
table ip nat {
    chain DOCKER {
        iifname \"docker0\" return
        iifname != \"docker0\" tcp dport 8080 dnat to 172.17.0.2:80
    }
    chain PREROUTING {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local jump DOCKER
    }
    chain POSTROUTING {
        type nat hook postrouting priority srcnat; policy accept;
        oifname != \"docker0\" ip saddr 172.17.0.0/16 masquerade
    }
}
table ip filter {
    chain DOCKER {
        ip daddr 172.17.0.2 iifname != \"docker0\" oifname \"docker0\" tcp dport 80 accept
    }
    chain DOCKER-USER {
        return
    }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        jump DOCKER-USER
        oifname \"docker0\" ct state related,established accept
        oifname \"docker0\" jump DOCKER
        iifname \"docker0\" oifname != \"docker0\" accept
    }
}
table ip6 nat {
    chain PREROUTING {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local tcp dport 8080 dnat to [fd17::2]:80
    }
}
table ip6 filter {
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        oifname \"docker0\" ct state related,established accept
        ip6 daddr fd17::2 oifname \"docker0\" tcp dport 80 accept
        iifname \"docker0\" oifname != \"docker0\" accept
    }
}
";

/// In the style of what kube-router writes: marks that later chains accept by.
const KUBE_ROUTER: &str = "
table inet kube {
    chain KUBE-POD-FW {
        tcp dport 9091 meta mark set meta mark | 0x00020000
        meta mark & 0x00020000 == 0x00020000 meta mark set meta mark | 0x00010000
    }
    chain KUBE-ROUTER-INPUT {
        type filter hook input priority filter; policy accept;
        iifname != \"site\" accept
        tcp dport { 9090, 9091 } jump KUBE-POD-FW
        meta mark & 0x00010000 == 0x00010000 return
        tcp dport 9090 drop
    }
}
";

/// The addresses of the gateway on the site's cable.
const OWN: [&str; 2] = ["10.128.0.1", "[fd10::1]"];
/// The name server that the rule of [`world`] opens.
const SERVER: [&str; 2] = ["10.128.0.53", "[fd10::53]"];

/// How XDP is attached to a device, as the datapath says.
fn mode(datapath: &EbpfDatapath, device: &str) -> XdpMode {
    datapath.xdp().iter().find(|xdp| xdp.device == device).unwrap().mode
}

/// Published container, port that the firewall drops, port that a mark lets through.
fn host_obeys_its_rules(world: &World, when: &str) {
    for own in OWN {
        let answer = |port| world.ask(&format!("{own}:{port}"));
        assert_eq!(answer(8080).as_deref(), Some("container"), "{when}: {own}, published port");
        assert_eq!(answer(9091).as_deref(), Some("marked"), "{when}: {own}, accepted by its mark");
        assert_eq!(answer(9090), None, "{when}: {own}, dropped by the firewall");
    }
}

fn forwards(world: &World, when: &str) {
    for server in SERVER {
        assert!(world.is_forwarded(server), "{when}: a permitted flow to {server}");
    }
}

/// What nobody asked for: larger than anything else that is sent here.
const UNASKED: [u8; LARGE] = [0; LARGE];

/// Sends from the site to an overlay address, which no flow has asked for.
fn intrude(world: &World) {
    let [four, six] = ["100.64.0.5", "fd64::6440:5"];
    for (own, to, family) in
        [("10.128.0.53:0", format!("{four}:7"), "-4"), ("[fd10::53]:0", format!("[{six}]:7"), "-6")]
    {
        let prefix = if family == "-4" { "100.64.0.0/16" } else { "fd64::/64" };
        let via = if family == "-4" { "10.128.0.1" } else { "fd10::1" };
        // There already when this is not the first time.
        let _ = world.site.ip(&[family, "route", "replace", prefix, "via", via]);
        udp(&world.site, own).send_to(&UNASKED, &*to).unwrap();
    }
}

/// Waits until the drop counter of `reason` has grown by `by`.
fn counted(world: &World, datapath: &mut EbpfDatapath, reason: &str, before: u64, by: u64) {
    let grown = sluicegate_lab::wait::until(PATIENCE, || {
        Ok::<_, std::convert::Infallible>((world.drops(datapath, reason) >= before + by).then_some(()))
    });
    assert_eq!(grown, Ok(Some(())), "{reason}: {} and not {}", world.drops(datapath, reason), before + by);
}

#[test]
fn docker_and_kube_router_rules_stay_to_the_byte_and_the_host_obeys_them() {
    let world = World::new();
    world.nft(DOCKER);
    world.nft(KUBE_ROUTER);
    for address in ["172.17.0.2:80", "[fd17::2]:80"] {
        serve(&world.container, address, "container");
    }
    for (port, answer) in [(9090, "never"), (9091, "marked")] {
        for own in OWN {
            serve(&world.gateway, &format!("{own}:{port}"), answer);
        }
    }
    let before = world.ruleset();
    host_obeys_its_rules(&world, "before");

    let datapath = world.open(XdpChoice::Native);
    assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());
    assert_eq!(world.ruleset(), before, "with the gateway");
    forwards(&world, "beside a firewall whose policy is to drop what is forwarded");
    host_obeys_its_rules(&world, "with the gateway");
    assert_eq!(world.ruleset(), before, "after traffic");

    drop(datapath);
    world.gateway.enter(|| detach(&world.bpf_dir)).unwrap().unwrap();
    assert_eq!(world.ruleset(), before, "afterwards");
    host_obeys_its_rules(&world, "afterwards");
}

#[test]
fn other_tc_programs_go_on_and_ours_judges_first() {
    // An order among programs. Filters on clsact run in the order of their priority.
    if !can_run_with(Feature::Tcx) {
        return;
    }
    let world = World::new();
    let earlier = [
        Foreign::attach(&world.gateway, "site", Place::IngressFirst, "earlier"),
        Foreign::attach(&world.gateway, "overlay", Place::IngressFirst, "earlier"),
    ];
    // TC alone, so that every packet comes by.
    let mut datapath = world.open(XdpChoice::Off);
    let later = [
        Foreign::attach(&world.gateway, "site", Place::IngressLast, "later"),
        Foreign::attach(&world.gateway, "site", Place::EgressLast, "later"),
        Foreign::attach(&world.gateway, "overlay", Place::IngressLast, "later"),
    ];
    assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());

    // The host's own traffic comes to everybody.
    serve(&world.gateway, "10.128.0.1:9000", "host");
    serve(&world.gateway, "[fd10::1]:9000", "host");
    for own in OWN {
        assert_eq!(world.ask(&format!("{own}:9000")).as_deref(), Some("host"));
    }
    for foreign in [&earlier[0], &later[0], &later[1]] {
        assert!(foreign.seen() > 0, "a neighbour saw nothing of the host's own traffic");
    }
    forwards(&world, "beside neighbours");

    // What ours refuses nobody sees: it judges first.
    let large = |foreign: &Foreign| foreign.seen_large();
    assert_eq!((large(&earlier[0]), large(&later[0])), (0, 0));
    let before = world.drops(&mut datapath, "no_flow");
    for _ in 0..20 {
        intrude(&world);
    }
    counted(&world, &mut datapath, "no_flow", before, 40);
    assert_eq!((large(&earlier[0]), large(&later[0])), (0, 0), "a neighbour saw refused packets");
    // They would have been seen: as large a packet for the host itself is.
    let inside = udp(&world.gateway, "10.128.0.1:9001");
    udp(&world.site, "10.128.0.53:0").send_to(&UNASKED, "10.128.0.1:9001").unwrap();
    inside.recv(&mut [0; 1024]).unwrap();
    assert_eq!((large(&earlier[0]), large(&later[0])), (1, 1));

    // Whoever puts himself in front is named.
    let first = Foreign::attach(&world.gateway, "site", Place::IngressFirst, "in_front");
    world.sweep(&mut datapath);
    let degraded = datapath.degraded();
    let named = format!("program in_front (id {}) runs before Sluicegate's at tc-ingress of site", first.id);
    assert!(degraded.iter().any(|sentence| sentence.starts_with(&named)), "{degraded:?}");
    drop(first);
    world.sweep(&mut datapath);
    assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());

    drop(datapath);
    world.gateway.enter(|| detach(&world.bpf_dir)).unwrap().unwrap();
    let seen: Vec<u64> = earlier.iter().chain(&later).map(Foreign::seen).collect();
    assert_eq!(world.ask("10.128.0.1:9000").as_deref(), Some("host"));
    assert!(earlier[0].seen() > seen[0] && later[0].seen() > seen[2], "they go on when ours are gone");
}

/// Filters as `tc` makes them run behind programs in tcx, and beside filters of ours where there is no tcx.
#[test]
fn clsact_filters_of_others_stay_and_work_before_while_and_after() {
    let places =
        ["site", "overlay"].into_iter().flat_map(|device| ["ingress", "egress"].map(|side| (device, side)));
    let add = |world: &World| {
        places.clone().map(|(device, side)| Filter::add(world, device, side)).collect::<Vec<_>>()
    };
    for comes_first in [true, false] {
        let when =
            |moment: &str| format!("{moment}, theirs came {}", if comes_first { "first" } else { "later" });
        let world = World::new();
        for own in ["10.128.0.1:9000", "[fd10::1]:9000"] {
            serve(&world.gateway, own, "host");
        }
        let early = comes_first.then(|| (add(&world), world.snapshot()));
        if let Some((filters, _)) = &early {
            see(&world, filters, &when("before"));
        }
        let seen = |filters: &[Filter]| filters.iter().map(|filter| filter.counts()[0]).collect::<Vec<_>>();
        // TC alone, so that every packet comes by.
        let mut datapath = world.open(XdpChoice::Off);
        let (filters, before) = match early {
            Some((filters, before)) => (filters, Some(before)),
            None => (add(&world), None),
        };
        let told: Vec<String> = filters.iter().map(|filter| filter.told(&world)).collect();
        assert!(
            told.iter().all(|told| told.contains("their_filter") && told.contains("direct-action")),
            "{told:?}"
        );
        for restarted in [false, true] {
            if restarted {
                drop(datapath);
                datapath = world.open(XdpChoice::Off);
            }
            assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());
            see(&world, &filters, &when("meanwhile"));
            let unseen = seen(&filters);
            forwards(&world, &when("meanwhile"));
            // What ours sends out of a device goes by those on the way out.
            for (filter, (before, place)) in filters.iter().zip(unseen.iter().zip(places.clone())) {
                let grown = filter.counts()[0] > *before;
                assert!(grown || place.1 == "ingress", "{place:?}: {}", when("forwarded"));
            }
            // What ours refuses they do not see: it judges first.
            let (large, dropped) = (filters[0].counts()[1], world.drops(&mut datapath, "no_flow"));
            intrude(&world);
            counted(&world, &mut datapath, "no_flow", dropped, 2);
            assert_eq!(filters[0].counts()[1], large, "they saw refused packets");
            world.sweep(&mut datapath);
            let now: Vec<String> = filters.iter().map(|filter| filter.told(&world)).collect();
            assert_eq!(now, told, "{}", when("meanwhile"));
        }
        drop(datapath);
        world.detach();
        assert_eq!(filters.iter().map(|filter| filter.told(&world)).collect::<Vec<_>>(), told);
        see(&world, &filters, &when("afterwards"));
        let large = filters[0].counts()[1];
        let inside = udp(&world.gateway, "10.128.0.1:9001");
        udp(&world.site, "10.128.0.53:0").send_to(&UNASKED, "10.128.0.1:9001").unwrap();
        inside.recv(&mut [0; 1024]).unwrap();
        assert_eq!(filters[0].counts()[1], large + 1, "they would have seen refused packets");
        if let Some(before) = before {
            let after = world.snapshot();
            for (what, was) in &before {
                assert_eq!(after.get(what), Some(was), "{what}");
            }
        }
    }
}

/// The host's own traffic by the site device, in both families, is seen by those on it.
fn see(world: &World, filters: &[Filter], when: &str) {
    for own in OWN {
        let before: Vec<u64> = filters[..2].iter().map(|filter| filter.counts()[0]).collect();
        assert_eq!(world.ask(&format!("{own}:9000")).as_deref(), Some("host"), "{own}, {when}");
        for (filter, before) in filters.iter().zip(before) {
            assert!(filter.counts()[0] > before, "a filter saw nothing of the traffic of {own}, {when}");
        }
    }
}

#[test]
fn another_xdp_program_stays_and_is_named_and_tc_judges() {
    for (name, place, next_step) in [
        ("their_filter", Place::Xdp, "bpftool net show dev site"),
        ("their_generic", Place::XdpGeneric, "bpftool net show dev site"),
        ("xdp_dispatcher", Place::Xdp, "xdp-loader unload site --all"),
    ] {
        let world = World::new();
        let theirs = Foreign::attach(&world.gateway, "site", place, name);
        let link = || world.gateway.ip(&["-d", "-o", "link", "show", "dev", "site"]).unwrap();
        let mut datapath = world.open(XdpChoice::Native);

        let degraded = datapath.degraded();
        let [sentence] = &degraded[..] else { panic!("{degraded:?}") };
        assert!(sentence.contains(&format!("program {name} (id {})", theirs.id)), "{sentence}");
        assert!(sentence.contains(next_step) && sentence.contains("xdp = \"off\""), "{sentence}");
        assert!(sentence.contains("TC alone judges what comes from site"), "{sentence}");
        assert_eq!(sentence.contains("libxdp"), name == "xdp_dispatcher", "{sentence}");
        assert_eq!(mode(&datapath, "site"), XdpMode::Refused);
        assert!(link().contains(&format!("prog/xdp id {}", theirs.id)), "{}", link());

        forwards(&world, "by TC alone");
        let (before, seen) = (world.drops(&mut datapath, "no_flow"), theirs.seen());
        intrude(&world);
        counted(&world, &mut datapath, "no_flow", before, 2);
        assert!(theirs.seen() >= seen + 2, "theirs sees what it saw");

        world.sweep(&mut datapath);
        assert!(link().contains(&format!("prog/xdp id {}", theirs.id)), "a look later: {}", link());
        drop(theirs);
        world.sweep(&mut datapath);
        assert!(datapath.degraded().is_empty(), "{:?}", datapath.degraded());
        assert_eq!(mode(&datapath, "site"), XdpMode::Native);
        forwards(&world, "with XDP");
    }
}

#[test]
fn generic_and_off_are_choices_and_the_kernel_says_the_same() {
    let world = World::new();
    let link = || world.gateway.ip(&["-o", "link", "show", "dev", "site"]).unwrap();
    for (choice, mode, in_link) in [
        (XdpChoice::Generic, XdpMode::Generic, Some("xdpgeneric")),
        (XdpChoice::Native, XdpMode::Native, Some(" xdp ")),
        (XdpChoice::Generic, XdpMode::Generic, Some("xdpgeneric")),
        (XdpChoice::Off, XdpMode::Off, None),
    ] {
        // Over what the one before left, as a restart with another setting.
        let datapath = world.open(choice);
        assert!(datapath.degraded().is_empty(), "{choice:?}: {:?}", datapath.degraded());
        assert_eq!(
            [self::mode(&datapath, "site"), self::mode(&datapath, "overlay")],
            [mode; 2],
            "{choice:?}"
        );
        match in_link {
            Some(word) => assert!(link().contains(word), "{choice:?}: {}", link()),
            None => assert!(!link().contains("xdp"), "{choice:?}: {}", link()),
        }
        forwards(&world, &format!("{choice:?}"));
    }
}

#[test]
fn a_driver_without_native_xdp_is_never_served_generic_unasked() {
    let world = World::new();
    world.gateway.bridge("plain").unwrap();
    for (choice, mode) in [(XdpChoice::Native, XdpMode::Refused), (XdpChoice::Generic, XdpMode::Generic)] {
        let mut settings = world.settings(choice);
        settings.site_devices = vec!["plain".into()];
        let datapath = world.gateway.enter(|| EbpfDatapath::open(&settings, "overlay")).unwrap().unwrap();
        assert_eq!(self::mode(&datapath, "plain"), mode, "{:?}", datapath.degraded());
        let asks =
            |sentence: &String| sentence.contains("no native XDP") && sentence.contains("xdp = \"generic\"");
        assert_eq!(
            datapath.degraded().iter().any(asks),
            mode == XdpMode::Refused,
            "{:?}",
            datapath.degraded()
        );
        let link = world.gateway.ip(&["-o", "link", "show", "dev", "plain"]).unwrap();
        assert_eq!(link.contains("xdpgeneric"), choice == XdpChoice::Generic, "{link}");
    }
}

#[test]
fn detaching_leaves_the_host_as_it_was() {
    let world = World::new();
    world.nft(DOCKER);
    world.nft(KUBE_ROUTER);
    let neighbour = Feature::Tcx
        .is_there()
        .then(|| Foreign::attach(&world.gateway, "site", Place::IngressFirst, "neighbour"));
    let before = world.snapshot();
    let datapath = world.open(XdpChoice::Native);
    forwards(&world, "meanwhile");
    drop(datapath);
    world.detach();
    let after = world.snapshot();
    for (what, was) in &before {
        assert_eq!(after.get(what), Some(was), "{what}");
    }
    assert_eq!(after.len(), before.len());
    let seen = neighbour.as_ref().map(Foreign::seen);
    serve(&world.gateway, "10.128.0.1:9000", "host");
    assert_eq!(world.ask("10.128.0.1:9000").as_deref(), Some("host"));
    assert!(neighbour.is_none() || neighbour.as_ref().map(Foreign::seen) > seen);
    assert!(!world.bpf_dir.exists());
}
