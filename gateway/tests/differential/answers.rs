//! The gateway's own ICMP errors and the clamped segment size as stories, on all three and in both families.

use sluicegate_engine::DropReason::{IcmpError, TooBig, TtlExpired};
use sluicegate_engine::answer::Answer as Sent;
use sluicegate_engine::flow::Side;
use sluicegate_engine::pipeline::Verdict::{Answer, Drop, Overlay, Site};

use crate::bugs::{DEVICE, Player, Scene, source};
use crate::case::{Arrival, Exit, Outcome, Step};
use crate::packets::flag::{ACK, SYN};
use crate::packets::{Draft, Payload};
use crate::world::PEERS;
use crate::{parse, world};

impl Player<'_> {
    fn arrive(&mut self, side: Side, draft: &Draft, segment: u16) -> Outcome {
        let arrival = Arrival { side, six: self.six, bytes: draft.build(), segment, screened: false };
        self.step(&Step::Packet(arrival)).unwrap()
    }

    fn answered(&self, kind: Sent) -> u64 {
        self.trio.counters().answers[kind as usize]
    }
}

fn udp(data: usize) -> Payload {
    Payload::Udp { source: 4000, destination: 53, data, unchecked: false }
}

#[test]
fn a_packet_whose_time_is_over_is_answered_from_the_side_it_came_from() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let mut sent = Draft::new(scene.peer(), scene.server(), udp(30));
            let out = player.arrive(Side::Overlay, &sent, 0);
            let seen = source(&out, scene.six);
            sent.ttl = 1;
            let answer = player.arrive(Side::Overlay, &sent, 0);
            assert_eq!(answer.verdict, Answer);
            let (header, _) = parse::network(&answer.bytes, scene.six).unwrap();
            assert_eq!((header.source, header.destination), (scene.agent(), scene.peer()));
            let quote = parse::quote(&answer.bytes, &header).unwrap();
            assert_eq!((quote.source, quote.destination), ((scene.peer(), 4000), (scene.server(), 53)));

            let reply = Payload::Udp { source: 53, destination: seen.1, data: 30, unchecked: false };
            let mut reply = Draft::new(scene.server(), seen.0, reply);
            reply.ttl = 1;
            let answer = player.arrive(Side::Site, &reply, 0);
            assert_eq!(answer.verdict, Answer);
            let (header, _) = parse::network(&answer.bytes, scene.six).unwrap();
            assert_eq!((header.source, header.destination), (seen.0, scene.server()));
            assert_eq!(player.answered(Sent::TimeExceeded), 2);
        });
    }
}

#[test]
fn what_does_not_fit_is_answered_with_the_size_that_does() {
    for scene in Scene::both(false) {
        scene.play(|player| {
            let headers = if scene.six { 48 } else { 28 };
            let at = if scene.six { 46 } else { 26 };
            let fits = |size: usize| udp(size - headers);
            let to_site = |size| Draft::new(scene.peer(), scene.server(), fits(size));
            let back = |size: usize| {
                let reply =
                    Payload::Udp { source: 53, destination: 4000, data: size - headers, unchecked: false };
                Draft::new(scene.server(), scene.peer(), reply)
            };
            assert_eq!(player.arrive(Side::Overlay, &to_site(1500), 0).verdict, Site(DEVICE));
            let answer = player.arrive(Side::Overlay, &to_site(1501), 0);
            assert_eq!((answer.verdict, &answer.bytes[at..at + 2]), (Answer, &1500u16.to_be_bytes()[..]));
            assert_eq!(player.arrive(Side::Site, &back(1420), 0).verdict, Overlay);
            let answer = player.arrive(Side::Site, &back(1421), 0);
            assert_eq!((answer.verdict, &answer.bytes[at..at + 2]), (Answer, &1420u16.to_be_bytes()[..]));
            assert_eq!(answer.bytes.len(), if scene.six { 1280 } else { 576 });
            // As large as the packets it is to be cut into.
            let fit = (1420 - headers) as u16;
            assert_eq!(player.arrive(Side::Site, &back(2800), fit).verdict, Overlay);
            assert_eq!(player.arrive(Side::Site, &back(2800), fit + 1).verdict, Answer);
            assert_eq!(player.answered(Sent::TooBig), 3);
        });
    }
}

#[test]
fn ten_are_answered_to_one_at_once_and_fifty_to_all_and_ten_more_in_a_tick() {
    for scene in Scene::both(false) {
        scene.play(|player| {
            // Of one sender, and of as many as there are.
            let burst = |player: &mut Player<'_>, senders: usize, each: u16| {
                let mut sent = 0;
                for sender in &PEERS[1..=senders] {
                    let sender = world::peer(sender, scene.six);
                    let mut expired = Draft::new(sender, scene.server(), udp(5));
                    expired.ttl = 1;
                    let answers =
                        (0..each).filter(|_| player.arrive(Side::Overlay, &expired, 0).verdict == Answer);
                    sent += answers.count();
                }
                sent
            };
            assert_eq!(burst(player, 1, 60), 10);
            player.step(&Step::Advance(1));
            // A hundred ticks are a second here, and one answer to one sender.
            assert_eq!(burst(player, 1, 60), 1);
            assert_eq!(player.answered(Sent::Suppressed), 109);
            player.step(&Step::Advance(1000));
            assert_eq!(burst(player, 3, 20), 30);
            player.step(&Step::Advance(1000));
            assert_eq!(burst(player, 5, 20), 50);
            // Each may have one more, and all of them ten.
            player.step(&Step::Advance(1));
            assert_eq!(burst(player, 5, 20), 5);
        });
    }
}

#[test]
fn without_an_address_on_that_side_there_is_no_answer_and_errors_never_get_one() {
    for scene in Scene::both(false) {
        scene.play(|player| {
            let sent = Draft::new(scene.peer(), scene.server(), udp(5));
            let out = player.arrive(Side::Overlay, &sent, 0);
            player
                .step(&Step::Egress(vec![Exit { device: DEVICE, mtu: 1500, source: [None; 2], pool: 0 }; 4]));
            let reply = Payload::Udp { source: 53, destination: 4000, data: 2000, unchecked: false };
            let mut reply = Draft::new(scene.server(), scene.peer(), reply);
            assert_eq!(player.arrive(Side::Site, &reply, 0).verdict, Drop(TooBig));
            reply.ttl = 1;
            assert_eq!(player.arrive(Side::Site, &reply, 0).verdict, Drop(TtlExpired));
            assert_eq!(player.answered(Sent::Impossible), 2);

            let kind = if scene.six { 1 } else { 3 };
            let mut error =
                Draft::new(scene.server(), scene.peer(), Payload::Error { kind, code: 1, quote: out.bytes });
            error.ttl = 1;
            assert_eq!(player.arrive(Side::Site, &error, 0).verdict, Drop(TtlExpired));
            let lost = Payload::Error { kind, code: 1, quote: vec![0; 8] };
            let lost = Draft::new(scene.server(), scene.peer(), lost);
            assert_eq!(player.arrive(Side::Site, &lost, 0).verdict, Drop(IcmpError));
            assert_eq!(player.answered(Sent::Impossible), 2);
        });
    }
}

/// The overlay's MTU is 1,420 here, the site's 1,500.
#[test]
fn a_syn_and_its_answer_tell_the_size_that_crosses_both_devices() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let largest = if scene.six { 1360u16 } else { 1380 };
            let at = if scene.six { 62 } else { 42 };
            let told = |outcome: &Outcome| u16::from_be_bytes([outcome.bytes[at], outcome.bytes[at + 1]]);
            let mut port = 5000;
            for (size, expected) in [(1460u16, largest), (largest, largest), (536, 536), (0xffff, largest)] {
                port += 1;
                let [high, low] = size.to_be_bytes();
                let tcp = |source, destination, flags| Payload::Tcp { source, destination, flags, data: 0 };
                let mut syn = Draft::new(scene.peer(), scene.server(), tcp(port, 80, SYN));
                syn.tcp_options = vec![2, 4, high, low];
                let out = player.arrive(Side::Overlay, &syn, 0);
                assert_eq!((out.verdict, told(&out)), (Site(DEVICE), expected));
                let seen = source(&out, scene.six);
                let mut answer = Draft::new(scene.server(), seen.0, tcp(80, seen.1, SYN | ACK));
                answer.tcp_options = vec![2, 4, high, low];
                let back = player.arrive(Side::Site, &answer, 0);
                assert_eq!((back.verdict, told(&back)), (Overlay, expected));
            }
            // This host's own stack knows its devices.
            let own = Payload::Tcp { source: 5000, destination: 22, flags: SYN, data: 0 };
            let mut own = Draft::new(world::peer(crate::world::PEERS[1], scene.six), scene.agent(), own);
            own.tcp_options = vec![2, 4, 0xff, 0xff];
            assert_eq!(told(&player.arrive(Side::Overlay, &own, 0)), 0xffff);
        });
    }
}

/// RFC 1122 3.2.2: whoever answered would be one of many.
#[test]
fn what_came_to_many_hosts_on_its_link_is_answered_by_none() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let mut sent = Draft::new(scene.peer(), scene.server(), udp(30));
            player.arrive(Side::Overlay, &sent, 0);
            sent.ttl = 1;
            let bytes = sent.build();
            let arrival = Arrival { side: Side::Overlay, six: scene.six, bytes, segment: 0, screened: false };
            let (kernel, now) = player.trio.alone();
            let mut said = |program: &str, to: [u8; 6]| kernel.frame(program, to, &arrival, now).unwrap();
            // TC: redirected or dropped; XDP: sent or dropped.
            assert_eq!((said("overlay_in_l2", [0; 6]), said("overlay_xdp", [2, 0, 0, 0, 0, 7])), (7, 4));
            for many in [[1, 0, 0x5e, 0, 0, 1], [0xff; 6]] {
                assert_eq!((said("overlay_in_l2", many), said("overlay_xdp", many)), (2, 1), "{many:x?}");
            }
        });
    }
}
