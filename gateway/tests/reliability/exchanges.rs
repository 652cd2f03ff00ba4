//! Images are exchanged back to back under traffic: no permitted datagram is lost and no denied one passes.

use sluicegate_api::image::{Hash, Image};
use sluicegate_gateway::datapath::{Datapath as _, XdpChoice};

use crate::account;
use crate::gateway;
use crate::traffic::{self, Outcome, Shared};
use crate::world::{World, chosen, dropped, sending, way};

/// Whole images exchanged in a run of the test suite; `SLUICEGATE_EXCHANGES=1000` for the long run.
const EXCHANGES: u32 = 200;
/// Small changes in a run of the test suite; `SLUICEGATE_DELTAS=10000` for the long run.
const DELTAS: u32 = 400;
/// How often the devices go out of sight in a run of the test suite; `SLUICEGATE_SIGHTS=1000` for the long run.
const SIGHTS: u32 = 60;
/// Every so manieth image does not admit the revocable flow; traffic is then waited for.
const REVOKED: u32 = 10;

#[test]
fn images_are_exchanged_under_traffic_and_no_packet_is_judged_wrong() {
    let images = [true, false].map(|revocable| [0, 1, 2, 3].map(|v| account::image(v, revocable)));
    for xdp in [XdpChoice::Off, sending()] {
        exchange(xdp, chosen("SLUICEGATE_EXCHANGES", EXCHANGES) / 2, &images);
    }
}

#[test]
fn small_changes_come_one_after_another_under_traffic_and_no_packet_is_judged_wrong() {
    let images = [true, false].map(|revocable| [0, 1, 2, 3].map(|v| account::small_variant(v, revocable)));
    for pair in images[0].windows(2) {
        let (a, b) = (&pair[0].1.words, &pair[1].1.words);
        let differ = a.iter().zip(b).filter(|(a, b)| a != b).count();
        assert!(a.len() == b.len() && (1..=64).contains(&differ), "{differ} words of {} differ", a.len());
    }
    for xdp in [XdpChoice::Off, sending()] {
        exchange(xdp, chosen("SLUICEGATE_DELTAS", DELTAS) / 2, &images);
    }
}

/// XDP stops sending by the devices and TC carries the flows, and the other way round, in the middle of bursts.
#[test]
fn a_gateway_that_loses_sight_of_its_devices_and_finds_them_again_loses_no_packet() {
    let world = World::new();
    let (_, image) = account::small_variant(0, true);
    let mut datapath = world.open(sending(), 4096, &image);
    let ways = gateway::ways(&image, &way(world.site_device()));
    let shared = Shared::new();
    shared.open_window(true);
    let outcomes = std::thread::scope(|scope| {
        let traffic = traffic::run(scope, &world, &shared);
        let stopper = shared.stopper();
        for _ in 0..chosen("SLUICEGATE_SIGHTS", SIGHTS) {
            shared.wait_for_round();
            // Outside the gateway's network namespace there are no such devices.
            datapath.set_egress(&ways).unwrap();
            assert!(datapath.xdp().iter().all(|device| !device.sends), "{:?}", datapath.xdp());
            shared.wait_for_round();
            world.gateway.enter(|| datapath.set_egress(&ways)).unwrap().unwrap();
            assert!(datapath.xdp().iter().all(|device| device.sends), "{:?}", datapath.xdp());
        }
        drop(stopper);
        traffic.map(|family| family.join().unwrap())
    });
    for (family, outcome) in ["IPv4", "IPv6"].iter().zip(&outcomes) {
        println!("{family}: {} permitted sent, {} lost", outcome.sent, outcome.lost.len());
        assert_eq!(outcome.lost, [0; 0], "{family}: dropped {:?}", dropped(&mut datapath));
        assert_eq!(outcome.leaked, [0; 0], "{family}");
        assert_eq!(outcome.ports.len(), 1, "{family}: the flow changed its port: {:?}", outcome.ports);
    }
}

fn exchange(xdp: XdpChoice, count: u32, [with, without]: &[[(Hash, Image); 4]; 2]) {
    let world = World::new();
    let mut datapath = world.open(xdp, 4096, &with[0].1);
    let shared = Shared::new();
    shared.open_window(true);
    let begun = std::time::Instant::now();
    let outcomes = std::thread::scope(|scope| {
        let traffic = traffic::run(scope, &world, &shared);
        let stopper = shared.stopper();
        shared.wait_for_round();
        for number in 1..=count {
            let revokes = number % REVOKED == 0;
            let (hash, image) = &if revokes { without } else { with }[number as usize % 4];
            shared.close_window();
            let ways = gateway::ways(image, &way(world.site_device()));
            // With the ways out the datapath looks at its devices.
            let put = || datapath.put(u64::from(number) + 1, *hash, image, &ways);
            world.gateway.enter(put).unwrap().unwrap();
            shared.open_window(!revokes);
            // Elsewhere the next image follows at once, wherever the packets are.
            if revokes || number % REVOKED == 1 {
                shared.wait_for_round();
            }
        }
        drop(stopper);
        traffic.map(|family| family.join().unwrap())
    });
    assert_eq!(datapath.degraded(), [""; 0], "the gateway is not as it was at the start");
    println!("{xdp:?}: {count} images in {:?}; dropped: {:?}", begun.elapsed(), dropped(&mut datapath));
    for (family, outcome) in ["IPv4", "IPv6"].iter().zip(&outcomes) {
        println!(
            "{family}: {} permitted sent, {} lost; {} revocable judged with their rule, {} without; {} denied passed",
            outcome.sent,
            outcome.lost.len(),
            outcome.admitted.len(),
            outcome.revoked.len(),
            outcome.leaked.len()
        );
        judge(&format!("{family}, XDP {xdp:?}, dropped {:?}", dropped(&mut datapath)), outcome);
    }
}

fn judge(what: &str, outcome: &Outcome) {
    assert_eq!(outcome.lost, [0; 0], "{what}: permitted datagrams were lost");
    assert_eq!(outcome.leaked, [0; 0], "{what}: denied datagrams passed");
    let passed: Vec<_> = outcome.revoked.intersection(&outcome.passed).collect();
    assert!(passed.is_empty(), "{what}: passed after their rule was gone: {passed:?}");
    let lost: Vec<_> = outcome.admitted.difference(&outcome.passed).collect();
    assert!(lost.is_empty(), "{what}: did not pass with their rule in force: {lost:?}");
    assert!(!outcome.revoked.is_empty() && !outcome.admitted.is_empty(), "{what}: nothing was looked at");
    assert_eq!(outcome.ports.len(), 1, "{what}: the permitted flow changed its port: {:?}", outcome.ports);
}
