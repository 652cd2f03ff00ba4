//! Masquerade, the limit of openings and changed time-outs as stories, each on all three and in both families.

use std::net::IpAddr;

use sluicegate_engine::DropReason::{Hairpin, NatExhausted, NotUnicast, SourceLimit};
use sluicegate_engine::flow::{Side, Timeouts};
use sluicegate_engine::pipeline::Verdict::{self, Drop, Overlay, Site};

use crate::bugs::{DEVICE, Player, Scene, source};
use crate::case::{Arrival, Outcome, Step};
use crate::packets::flag::{ACK, SYN};
use crate::packets::{Draft, Payload};
use crate::parse;
use crate::world::{self, EGRESS, PEERS};

type End = (IpAddr, u16);

impl Player<'_> {
    fn carry(&mut self, side: Side, from: IpAddr, to: IpAddr, payload: Payload) -> Outcome {
        let bytes = Draft::new(from, to, payload).build();
        let arrival = Arrival { side, six: self.six, bytes, segment: 0, screened: false };
        self.step(&Step::Packet(arrival)).unwrap()
    }

    fn udp(&mut self, side: Side, from: End, to: End) -> Outcome {
        let payload = Payload::Udp { source: from.1, destination: to.1, data: 5, unchecked: false };
        self.carry(side, from.0, to.0, payload)
    }

    fn tcp(&mut self, side: Side, from: End, to: End, flags: u8) -> Outcome {
        let payload = Payload::Tcp { source: from.1, destination: to.1, flags, data: 0 };
        self.carry(side, from.0, to.0, payload)
    }

    /// The masqueraded source of a datagram from a peer.
    fn opened(&mut self, from: End, to: End) -> End {
        let outcome = self.udp(Side::Overlay, from, to);
        assert_eq!(outcome.verdict, Site(DEVICE), "{from:?} to {to:?}");
        source(&outcome, self.six)
    }

    fn wait(&mut self, ticks: u32) {
        self.step(&Step::Advance(ticks));
    }
}

/// Addresses behind the site, none of which the gateway masquerades with.
fn servers(six: bool) -> [IpAddr; 3] {
    let addresses = if six {
        ["fd01:1::1:5", "fd01:1::1:6", "fd01:1::1:7"]
    } else {
        ["10.1.2.100", "10.1.2.101", "10.1.2.102"]
    };
    addresses.map(|address| address.parse().unwrap())
}

fn peers(six: bool) -> Vec<IpAddr> {
    PEERS[1..].iter().map(|id| world::peer(id, six)).collect()
}

#[test]
fn equal_conversations_get_equal_ports_and_colliding_ones_others() {
    for scene in Scene::both(true) {
        let story = || {
            let mut seen = Vec::new();
            scene.play(|player| {
                let [server, ..] = servers(scene.six);
                for from in peers(scene.six) {
                    for port in [20_005, 20_005 - 100, 4000, 4000 + 100] {
                        seen.push(player.opened((from, port), (server, 53)).1);
                    }
                }
            });
            seen
        };
        let (first, again) = (story(), story());
        assert_eq!(first, again, "the ports are no accident");
        assert_eq!(first[0], 20_005, "a port of the range that is free is kept");
        let mut distinct = first.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), first.len(), "{first:?}");
    }
}

#[test]
fn one_port_serves_every_destination_until_each_is_exhausted_alone() {
    for scene in Scene::both(true) {
        let scene = Scene { nat_count: 1, ..scene };
        scene.play(|player| {
            let [first, second, _] = servers(scene.six);
            let peers = peers(scene.six);
            assert_eq!(player.opened((peers[0], 1), (first, 53)).1, 20_000);
            assert_eq!(player.opened((peers[1], 1), (second, 53)).1, 20_000);
            assert_eq!(player.opened((peers[1], 1), (first, 54)).1, 20_000);
            let refused = player.udp(Side::Overlay, (peers[1], 1), (first, 53));
            assert_eq!(refused.verdict, Drop(NatExhausted));
            // The flow that has the port goes on.
            assert_eq!(player.udp(Side::Overlay, (peers[0], 1), (first, 53)).verdict, Site(DEVICE));
        });
    }
}

/// Of a range of 100 ports 32 in a row are taken towards one server, and 32 are tried.
#[test]
fn a_search_that_finds_no_port_makes_those_of_its_tick_hasty_and_no_others() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let (server, other, peers) =
                ((servers(scene.six)[0], 53), (servers(scene.six)[0], 54), peers(scene.six));
            for port in 20_000..20_032 {
                assert_eq!(player.opened((peers[0], port), server).1, port);
            }
            let exhaust = |player: &mut Player<'_>, times: usize| {
                for _ in 0..times {
                    let refused = player.udp(Side::Overlay, (peers[1], 20_000), server);
                    assert_eq!(refused.verdict, Drop(NatExhausted));
                }
            };
            // This one's search begins with 24 ports that are taken, of which a hasty one tries a third in most ticks.
            let mut refused = None;
            for peer in &peers[2..] {
                let from = (*peer, 20_008);
                exhaust(player, 4);
                if player.udp(Side::Overlay, from, server).verdict == Drop(NatExhausted) {
                    assert_eq!(
                        player.opened(from, other).1,
                        20_008,
                        "another destination is not searched in haste"
                    );
                    refused = Some(from);
                    break;
                }
                // This tick's ports were the last eight; another one's are others.
                player.wait(1);
            }
            let from = refused.expect("a hasty search finds none");
            player.wait(1);
            exhaust(player, 3);
            let found = player.opened(from, server).1;
            assert!(
                (20_032..20_040).contains(&found),
                "three searches of a tick make no other hasty: {found}"
            );
        });
    }
}

/// RFC 4787 REQ-1, in haste too.
#[test]
fn an_owner_has_its_port_whatever_searches_found_none() {
    for scene in Scene::both(true) {
        let scene = Scene { endpoint_independent: true, ..scene };
        scene.play(|player| {
            let (server, peers) = (servers(scene.six)[0], peers(scene.six));
            for port in 20_000..20_032 {
                assert_eq!(player.opened((peers[0], port), (server, 53)).1, port);
            }
            for wait in [0, 1, 1, 1] {
                player.wait(wait);
                for to in [54, 55] {
                    let refused = player.udp(Side::Overlay, (peers[1], 20_000), (server, to));
                    assert_eq!(refused.verdict, Drop(NatExhausted));
                }
                player.opened((peers[0], 20_001), (server, 54));
                assert_eq!(player.opened((peers[0], 20_001), (server, 55)).1, 20_001);
            }
        });
    }
}

/// RFC 4787 REQ-2.
#[test]
fn a_source_has_one_address_of_a_pool_and_the_pool_is_shared() {
    for scene in Scene::both(true) {
        let scene = Scene { pool: 64, ..scene };
        scene.play(|player| {
            let mut used = Vec::new();
            for from in peers(scene.six) {
                let mut addresses = Vec::new();
                for to in servers(scene.six) {
                    // In the pool's own range, a destination would be a hairpin.
                    addresses.push(player.opened((from, 4000), (to, 53)).0);
                    let syn = player.tcp(Side::Overlay, (from, 4001), (to, 80), SYN);
                    addresses.push(source(&syn, scene.six).0);
                    let kind = if scene.six { 128 } else { 8 };
                    let ping = Payload::Icmp { kind, code: 0, id: 7, data: 8 };
                    let ping = player.carry(Side::Overlay, from, to, ping);
                    addresses.push(parse::network(&ping.bytes, scene.six).unwrap().0.source);
                }
                addresses.dedup();
                assert_eq!(addresses.len(), 1, "{from} leaves as {addresses:?}");
                used.extend(addresses);
            }
            used.sort_unstable();
            used.dedup();
            assert!(used.len() > 1, "every source leaves as {used:?}");
        });
    }
}

#[test]
fn answers_to_an_address_of_a_pool_come_back() {
    for scene in Scene::both(true) {
        let scene = Scene { pool: 64, ..scene };
        scene.play(|player| {
            let (peer, server) = ((scene.peer(), 4000), (servers(scene.six)[0], 53));
            let seen = player.opened(peer, server);
            let answer = player.udp(Side::Site, server, seen);
            assert_eq!(answer.verdict, Overlay);
            let (header, _) = parse::network(&answer.bytes, scene.six).unwrap();
            assert_eq!((header.source, header.destination), (server.0, peer.0));
            // Another address of the pool has no such flow.
            let other = EGRESS[0][usize::from(scene.six)].parse().unwrap();
            if other != seen.0 {
                assert_eq!(player.udp(Side::Site, server, (other, seen.1)).verdict, Verdict::Pass);
            }
        });
    }
}

/// NAT66 is masquerade; without it both families leave as they are.
#[test]
fn without_masquerade_addresses_and_ports_stay_in_both_families() {
    for scene in Scene::both(false) {
        scene.play(|player| {
            let (peer, server) = ((scene.peer(), 4000), (servers(scene.six)[0], 53));
            assert_eq!(player.opened(peer, server), peer);
            assert_eq!(player.udp(Side::Site, server, peer).verdict, Overlay);
        });
    }
}

/// RFC 4787 REQ-1 and REQ-3.
#[test]
fn a_udp_port_is_kept_towards_every_destination_and_is_nobody_elses() {
    for scene in Scene::both(true) {
        let scene = Scene { endpoint_independent: true, nat_count: 8, ..scene };
        scene.play(|player| {
            let servers = servers(scene.six);
            let mut owners = Vec::new();
            for from in peers(scene.six) {
                let seen = player.opened((from, 4000), (servers[0], 53));
                for to in [(servers[0], 54), (servers[1], 53), (servers[2], 3478)] {
                    assert_eq!(player.opened((from, 4000), to), seen, "{from} towards {to:?}");
                }
                owners.push(seen);
            }
            owners.sort_unstable();
            owners.dedup();
            assert_eq!(owners.len(), peers(scene.six).len());
            // Five of eight ports have an owner; three more find one, the next does not, whatever its destination.
            for port in 1..=3 {
                player.opened((scene.peer(), port), (servers[1], 53));
            }
            let refused = player.udp(Side::Overlay, (scene.peer(), 9), (servers[2], 9));
            assert_eq!(refused.verdict, Drop(NatExhausted));
        });
    }
}

#[test]
fn a_udp_port_stays_its_owners_while_a_flow_uses_it_and_is_free_afterwards() {
    for scene in Scene::both(true) {
        let scene = Scene { endpoint_independent: true, nat_count: 1, ..scene };
        scene.play(|player| {
            let [first, second, third] = servers(scene.six);
            let (one, two) = ((peers(scene.six)[0], 4000), (peers(scene.six)[1], 4000));
            let seen = player.opened(one, (first, 53));
            assert_eq!(player.udp(Side::Site, (first, 53), seen).verdict, Overlay);
            // Answered, it lives for 120 s after each packet: long beyond the mapping's own 150 s.
            for _ in 0..4 {
                player.wait(100);
                assert_eq!(player.udp(Side::Overlay, one, (first, 53)).verdict, Site(DEVICE));
                player.step(&Step::Sweep);
            }
            let refused = player.udp(Side::Overlay, two, (second, 53));
            assert_eq!(refused.verdict, Drop(NatExhausted));
            assert_eq!(player.opened(one, (third, 53)), seen);
            player.wait(151);
            player.step(&Step::Sweep);
            assert_eq!(player.opened(two, (second, 53)), seen);
        });
    }
}

/// RFC 4787 REQ-9 is not served: the page of packet semantics says why.
#[test]
fn a_packet_for_a_masquerade_address_is_dropped_whether_or_not_a_rule_admits_it() {
    for scene in Scene::both(true).into_iter().chain(Scene::both(false)) {
        let scene = Scene { endpoint_independent: true, pool: 2, ..scene };
        scene.play(|player| {
            let peers = peers(scene.six);
            let seen = player.opened((peers[0], 4000), (servers(scene.six)[0], 53));
            let first: IpAddr = EGRESS[0][usize::from(scene.six)].parse().unwrap();
            for to in [first, if scene.masquerade { seen.0 } else { first }] {
                let turned = player.udp(Side::Overlay, (peers[1], 4000), (to, seen.1));
                assert_eq!(turned.verdict, Drop(Hairpin), "to {to}");
                assert_eq!(turned.events[0].rule, 1, "the rule that would have admitted it is named");
            }
        });
    }
}

/// By TC and by XDP. A flow that was there when the host got the address goes on.
#[test]
fn no_flow_is_opened_to_an_address_of_the_host_or_to_a_broadcast() {
    for scene in Scene::both(true).into_iter().chain(Scene::both(false)) {
        scene.play(|player| {
            let far = |address: &str| (address.parse().unwrap(), 53);
            let [near, second, own, all, beside] = if scene.six {
                ["fd01:1::9", "fd01:1::a", "fd01:1::c8", "fd01:1::", "fd01:1::fe"]
            } else {
                ["10.1.2.9", "10.1.2.10", "10.1.2.200", "10.1.2.255", "10.1.2.254"]
            }
            .map(far);
            player.opened((scene.peer(), 1), own);
            player.opened((scene.peer(), 1), all);
            let length = if scene.six { 64 } else { 24 };
            player.step(&Step::Addresses(vec![(near.0, length), (own.0, length)]));
            for screened in [false, true] {
                let mut refused = |to: End| {
                    let payload = Payload::Udp { source: 2, destination: to.1, data: 5, unchecked: false };
                    let bytes = Draft::new(scene.peer(), to.0, payload).build();
                    let arrival =
                        Arrival { side: Side::Overlay, six: scene.six, bytes, segment: 0, screened };
                    let outcome = player.step(&Step::Packet(arrival)).unwrap();
                    assert_eq!(outcome.events[0].rule, 1, "the rule that would have admitted it is named");
                    outcome.verdict
                };
                assert_eq!(refused(own), Drop(Hairpin));
                assert_eq!(refused(near), Drop(Hairpin));
                // The anycast address of the subnet's routers is this router's too.
                assert_eq!(refused(all), Drop(if scene.six { Hairpin } else { NotUnicast }));
                if !scene.six {
                    assert_eq!(refused(far("10.1.2.0")), Drop(NotUnicast));
                }
            }
            player.opened((scene.peer(), 1), own);
            player.opened((scene.peer(), 1), all);
            player.opened((scene.peer(), 2), beside);
            player.opened((scene.peer(), 2), second);
            player.step(&Step::Addresses(vec![(own.0, if scene.six { 127 } else { 31 })]));
            player.opened((scene.peer(), 2), near);
            player.opened((scene.peer(), 2), all);
            player.step(&Step::Addresses(Vec::new()));
            player.opened((scene.peer(), 2), own);
        });
    }
}

#[test]
fn a_source_opens_as_many_flows_as_it_may_and_one_more_for_each_answer() {
    for scene in Scene::both(true) {
        let scene = Scene { half_open_per_source: 3, ..scene };
        scene.play(|player| {
            let [server, ..] = servers(scene.six);
            let (one, two) = (peers(scene.six)[0], peers(scene.six)[1]);
            let first = player.opened((one, 1), (server, 53));
            player.opened((one, 2), (server, 53));
            let syn = player.tcp(Side::Overlay, (one, 3), (server, 80), SYN);
            let seen = source(&syn, scene.six);
            assert_eq!(player.udp(Side::Overlay, (one, 4), (server, 53)).verdict, Drop(SourceLimit));
            // Flows that are there go on, and others open theirs.
            player.opened((one, 2), (server, 53));
            player.opened((two, 4), (server, 53));
            // One answer, one more; a SYN+ACK alone is none.
            assert_eq!(player.tcp(Side::Site, (server, 80), seen, SYN | ACK).verdict, Overlay);
            assert_eq!(player.udp(Side::Overlay, (one, 4), (server, 53)).verdict, Drop(SourceLimit));
            assert_eq!(player.udp(Side::Site, (server, 53), first).verdict, Overlay);
            player.opened((one, 4), (server, 53));
            assert_eq!(player.udp(Side::Overlay, (one, 5), (server, 53)).verdict, Drop(SourceLimit));
            assert_eq!(player.tcp(Side::Overlay, (one, 3), (server, 80), ACK).verdict, Site(DEVICE));
            player.opened((one, 5), (server, 53));
            // A window is as long as the longest time-out of a flow that nobody answers, here that of other protocols.
            player.wait(120);
            assert_eq!(player.udp(Side::Overlay, (one, 6), (server, 53)).verdict, Drop(SourceLimit));
            player.wait(1);
            player.opened((one, 6), (server, 53));
        });
    }
}

#[test]
fn a_changed_time_out_holds_for_a_flow_from_its_next_packet_on() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let [server, ..] = servers(scene.six);
            let talk = |player: &mut Player<'_>, port| {
                let seen = player.opened((scene.peer(), port), (server, 53));
                assert_eq!(player.udp(Side::Site, (server, 53), seen).verdict, Overlay);
                player.udp(Side::Overlay, (scene.peer(), port), (server, 53));
                seen
            };
            let (quiet, busy) = (talk(player, 1), talk(player, 2));
            player.step(&Step::Timeouts(Timeouts { udp: 20, ..Timeouts::defaults(1) }));
            player.udp(Side::Overlay, (scene.peer(), 2), (server, 53));
            player.wait(21);
            // The one that has carried a packet since is over; the other lives by the time-out it had.
            assert_eq!(player.udp(Side::Site, (server, 53), busy).verdict, Verdict::Pass);
            assert_eq!(player.udp(Side::Site, (server, 53), quiet).verdict, Overlay);
            player.wait(21);
            assert_eq!(player.udp(Side::Site, (server, 53), quiet).verdict, Verdict::Pass);
        });
    }
}
