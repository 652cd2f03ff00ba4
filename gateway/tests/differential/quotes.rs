//! ICMP errors that quote a packet, as stories on all three and in both families.

use std::net::IpAddr;

use sluicegate_engine::DropReason::{IcmpError, Revoked, SpoofedSource};
use sluicegate_engine::flow::Side;
use sluicegate_engine::pipeline::Verdict::{self, Drop, Overlay, Pass, Site};

use crate::bugs::{DEVICE, Player, Scene};
use crate::case::{Arrival, Outcome, Step};
use crate::packets::{Draft, Payload};
use crate::{parse, world};

impl Player<'_> {
    fn packet(&mut self, side: Side, bytes: Vec<u8>) -> Outcome {
        let arrival = Arrival { side, six: self.six, bytes, segment: 0, screened: false };
        self.step(&Step::Packet(arrival)).unwrap()
    }

    fn open(&mut self, scene: &Scene) -> Vec<u8> {
        let payload = Payload::Udp { source: 4000, destination: 53, data: 30, unchecked: false };
        let outcome = self.packet(Side::Overlay, Draft::new(scene.peer(), scene.server(), payload).build());
        assert_eq!(outcome.verdict, Site(DEVICE));
        outcome.bytes
    }
}

/// An error about `quote`, to its sender.
fn error(from: IpAddr, quote: &[u8], kinds: [u8; 2]) -> Vec<u8> {
    cut_error(from, quote, quote.len(), kinds)
}

/// The same, with no more than `length` bytes quoted.
fn cut_error(from: IpAddr, quote: &[u8], length: usize, kinds: [u8; 2]) -> Vec<u8> {
    let six = from.is_ipv6();
    let (header, _) = parse::network(quote, six).unwrap();
    let kind = kinds[usize::from(six)];
    let payload = Payload::Error { kind, code: 1, quote: quote[..length].to_vec() };
    Draft::new(from, header.source, payload).build()
}

const UNREACHABLE: [u8; 2] = [3, 1];

fn router(scene: &Scene) -> IpAddr {
    if scene.six { "fd07::1" } else { "10.7.0.1" }.parse().unwrap()
}

/// Traceroute and path MTU discovery through the gateway: routers behind it are heard, about the packet as it was sent.
#[test]
fn an_error_of_a_router_reaches_the_opener_with_its_own_packet_quoted() {
    for scene in Scene::both(true).into_iter().chain(Scene::both(false)) {
        scene.play(|player| {
            let sent = player.open(&scene);
            let before = player.trio.flows();
            for kinds in [UNREACHABLE, [11, 3], [3, 2], [12, 4]] {
                let outcome = player.packet(Side::Site, error(router(&scene), &sent, kinds));
                assert_eq!(outcome.verdict, Overlay, "{kinds:?}");
                let (header, _) = parse::network(&outcome.bytes, scene.six).unwrap();
                assert_eq!((header.source, header.destination), (router(&scene), scene.peer()));
                let quote = parse::quote(&outcome.bytes, &header).unwrap();
                assert_eq!(quote.source, (scene.peer(), 4000));
                assert_eq!(quote.destination, (scene.server(), 53));
            }
            assert_eq!(player.trio.flows(), before, "an error counts nothing and keeps nothing alive");
        });
    }
}

/// The flow is judged anew before the error passes, in either table.
#[test]
fn an_error_about_a_flow_that_another_rule_admits_now_passes_and_gives_it_that_rule() {
    for scene in Scene::both(true).into_iter().chain(Scene::both(false)) {
        scene.play(|player| {
            let sent = player.open(&scene);
            for (slot, confirmed) in [(1, false), (2, true)] {
                if confirmed {
                    let (header, _) = parse::network(&sent, scene.six).unwrap();
                    let to = parse::transport(&sent, &header).unwrap().source_port;
                    let answer = Payload::Udp { source: 53, destination: to, data: 3, unchecked: false };
                    let answer = Draft::new(scene.server(), header.source, answer).build();
                    assert_eq!(player.packet(Side::Site, answer).verdict, Overlay);
                    player.open(&scene);
                }
                player.policy(scene.state(slot));
                for _ in 0..2 {
                    let error = error(router(&scene), &sent, UNREACHABLE);
                    assert_eq!(player.packet(Side::Site, error).verdict, Overlay);
                }
                let flows = player.trio.flows();
                assert_eq!((flows.len(), flows[0].rule, flows[0].confirmed), (1, slot, confirmed));
            }
        });
    }
}

/// The other way: a peer that has closed its socket says so to the server, in the server's terms.
#[test]
fn an_error_of_the_opener_reaches_the_server() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let sent = player.open(&scene);
            let (header, _) = parse::network(&sent, scene.six).unwrap();
            let seen = (header.source, parse::transport(&sent, &header).unwrap().source_port);
            let payload = Payload::Udp { source: 53, destination: seen.1, data: 9, unchecked: false };
            let answer = player.packet(Side::Site, Draft::new(scene.server(), seen.0, payload).build());
            assert_eq!(answer.verdict, Overlay);
            let told = player.packet(Side::Overlay, error(scene.peer(), &answer.bytes, UNREACHABLE));
            assert_eq!(told.verdict, Site(DEVICE));
            let (header, _) = parse::network(&told.bytes, scene.six).unwrap();
            assert_eq!((header.source, header.destination), (seen.0, scene.server()));
            assert_eq!(parse::quote(&told.bytes, &header).unwrap().destination, seen);
            // Nobody else in the overlay may say it.
            let other = world::peer(world::PEERS[2], scene.six);
            let forged = player.packet(Side::Overlay, error(other, &answer.bytes, UNREACHABLE));
            assert_eq!(forged.verdict, Drop(SpoofedSource));
        });
    }
}

#[test]
fn an_error_about_no_flow_opens_nothing() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let sent = player.open(&scene);
            let mut other = sent.clone();
            let at = if scene.six { 40 } else { 20 };
            other[at] ^= 1;
            // It is for the gateway's own address: the host's business.
            let mut expect = |side, bytes, verdict: Verdict| {
                assert_eq!(player.packet(side, bytes).verdict, verdict);
            };
            expect(Side::Site, error(router(&scene), &other, UNREACHABLE), Pass);
            expect(Side::Site, cut_error(router(&scene), &sent, at + 7, UNREACHABLE), Pass);
            let never_sent = Draft::new(
                scene.peer(),
                scene.server(),
                Payload::Udp { source: 4000, destination: 53, data: 30, unchecked: false },
            );
            expect(Side::Site, error(router(&scene), &never_sent.build(), UNREACHABLE), Drop(IcmpError));
            // A quoted error, and kinds that do not cross a gateway.
            let nested = error(router(&scene), &sent, UNREACHABLE);
            expect(Side::Site, error(scene.server(), &nested, UNREACHABLE), Pass);
            expect(Side::Site, error(router(&scene), &never_sent.build(), [5, 100]), Drop(IcmpError));
            assert_eq!(player.trio.flows().len(), 1);
        });
    }
}

#[test]
fn an_error_ends_a_flow_whose_rule_is_gone_and_revives_none() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let sent = player.open(&scene);
            player.step(&Step::Advance(31));
            let late = error(router(&scene), &sent, UNREACHABLE);
            assert_eq!(player.packet(Side::Site, late).verdict, Pass);
            let sent = player.open(&scene);
            player.close(&scene);
            let late = error(router(&scene), &sent, UNREACHABLE);
            assert_eq!(player.packet(Side::Site, late.clone()).verdict, Drop(Revoked));
            assert_eq!(player.packet(Side::Site, late).verdict, Pass);
        });
    }
}
