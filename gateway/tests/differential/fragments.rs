//! Fragments as stories, each on all three and in both families.

use sluicegate_engine::DropReason::{self, Fragment, FragmentOverlap, Malformed, NoFlow, Revoked};
use sluicegate_engine::flow::Side;
use sluicegate_engine::pipeline::Verdict::{self, Drop, Overlay, Pass, Site};

use crate::bugs::{DEVICE, Player, Scene, source};
use crate::case::{Arrival, Outcome, Step};
use crate::kernel::Said;
use crate::packets::flag::{ACK, SYN};
use crate::packets::{Draft, Payload};
use crate::pieces::{cut, piece};

impl Player<'_> {
    fn fragment(&mut self, side: Side, bytes: &[u8]) -> Outcome {
        let arrival = Arrival { side, six: self.six, bytes: bytes.to_vec(), segment: 0, screened: false };
        self.step(&Step::Packet(arrival)).unwrap()
    }

    /// No rule admits anything any more.
    pub(crate) fn close(&mut self, scene: &Scene) {
        let mut closed = scene.state(3);
        closed.policies.clear();
        self.policy(closed);
    }

    /// Fragments in turn, and what becomes of each.
    fn fragments(&mut self, side: Side, fragments: &[&Vec<u8>], verdicts: &[Verdict]) {
        for (i, (bytes, verdict)) in fragments.iter().zip(verdicts).enumerate() {
            assert_eq!(self.fragment(side, bytes).verdict, *verdict, "fragment {i} of {}", self.six);
        }
    }
}

/// A datagram of 208 bytes from the peer to the server, in seven fragments of 32 bytes.
fn datagram(scene: &Scene, id: u16) -> Vec<Vec<u8>> {
    let payload = Payload::Udp { source: 4000, destination: 53, data: 200, unchecked: false };
    cut(&Draft::new(scene.peer(), scene.server(), payload).build(), scene.six, id, 4)
}

const THERE: Verdict = Site(DEVICE);
const LOST: Verdict = Drop(Fragment);
const OVERLAP: Verdict = Drop(FragmentOverlap);

/// NetBird's fragment_test: a fragment without its first; and any order behind it.
#[test]
fn later_fragments_follow_their_first_in_any_order_and_none_goes_before_it() {
    for scene in Scene::both(true).into_iter().chain(Scene::both(false)) {
        scene.play(|player| {
            let f = datagram(&scene, 1);
            let sent = [&f[3], &f[0], &f[6], &f[2], &f[1], &f[5], &f[3], &f[4], &f[4]];
            let verdicts = [LOST, THERE, THERE, THERE, THERE, THERE, THERE, THERE, LOST];
            player.fragments(Side::Overlay, &sent, &verdicts);
            // All of it has passed: the id may be used again.
            player.fragments(Side::Overlay, &[&f[0], &f[1], &f[1]], &[THERE, THERE, LOST]);
        });
    }
}

/// What the site sends back in fragments comes to the peer, and of the host's own fragments nothing is taken.
#[test]
fn answers_in_fragments_are_turned_back_and_the_hosts_own_pass() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let first = player.fragment(Side::Overlay, &datagram(&scene, 1)[0]);
            let seen = source_of_first(&first, scene.six);
            let payload = |port| Payload::Udp { source: 53, destination: port, data: 200, unchecked: false };
            let back =
                |port, id| cut(&Draft::new(scene.server(), seen.0, payload(port)).build(), scene.six, id, 4);
            let (ours, hosts) = (back(seen.1, 9), back(22, 10));
            player.fragments(Side::Site, &[&ours[0], &ours[2], &ours[1]], &[Overlay; 3]);
            player.fragments(Side::Site, &[&hosts[0], &hosts[2], &hosts[1]], &[Pass; 3]);
            // A repetition is the gateway's business too: the host must not hold what is left of it.
            player.fragments(Side::Site, &[&ours[1]], &[LOST]);
        });
    }
}

fn source_of_first(outcome: &Outcome, six: bool) -> (std::net::IpAddr, u16) {
    assert_eq!(outcome.verdict, THERE);
    source(outcome, six)
}

/// RFC 1858, RFC 3128, RFC 5722, and NetBird's fragment_test: overlaps poison.
#[test]
fn overlaps_poison_the_datagram_and_no_other() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let header = if scene.six { 40 } else { 20 };
            for (id, start, units) in [(1, 1, 1), (2, 0, 1), (3, 3, 2), (4, 9, 5)] {
                let f = datagram(&scene, id);
                let plain = Draft::new(
                    scene.peer(),
                    scene.server(),
                    Payload::Udp { source: 4000, destination: 53, data: 200, unchecked: false },
                );
                let bytes = plain.build();
                let bad = piece(&bytes[..header], scene.six, id, start, true, &[0xaa; 64][..units * 8]);
                let other = datagram(&scene, id + 100);
                player.fragments(Side::Overlay, &[&f[0], &f[2], &other[0]], &[THERE; 3]);
                player.fragments(Side::Overlay, &[&bad, &f[1], &f[0]], &[OVERLAP; 3]);
                player.fragments(Side::Overlay, &[&other[1]], &[THERE]);
            }
        });
    }
}

/// NetBird's fragment_test: a first fragment without a whole transport header opens nothing, whatever follows.
#[test]
fn a_tiny_first_fragment_opens_nothing() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let payload = Payload::Tcp { source: 4000, destination: 80, flags: SYN, data: 40 };
            let bytes = Draft::new(scene.peer(), scene.server(), payload).build();
            let f = cut(&bytes, scene.six, 1, 1);
            player.fragments(Side::Overlay, &[&f[0], &f[1], &f[2]], &[Drop(Malformed), LOST, LOST]);
            assert!(player.trio.flows().is_empty());
        });
    }
}

/// RFC 6946: a datagram in one fragment is a packet.
#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let scene = Scene::both(true)[1];
    scene.play(|player| {
        let payload = Payload::Tcp { source: 4000, destination: 80, flags: SYN, data: 0 };
        let bytes = Draft::new(scene.peer(), scene.server(), payload).build();
        let atomic = piece(&bytes[..40], true, 1, 0, false, &bytes[40..]);
        player.fragments(Side::Overlay, &[&atomic, &atomic], &[THERE, THERE]);
    });
}

#[test]
fn a_datagram_is_forgotten_after_its_time_and_dies_with_its_flow() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let f = datagram(&scene, 1);
            player.fragments(Side::Overlay, &[&f[0], &f[1]], &[THERE; 2]);
            player.step(&Step::Advance(30));
            player.fragments(Side::Overlay, &[&f[2]], &[THERE]);
            player.step(&Step::Advance(1));
            player.fragments(Side::Overlay, &[&f[3]], &[LOST]);

            let f = datagram(&scene, 2);
            player.fragments(Side::Overlay, &[&f[0], &f[1]], &[THERE; 2]);
            player.close(&scene);
            player.fragments(Side::Overlay, &[&f[2], &f[3]], &[Drop(Revoked), LOST]);
        });
    }
}

/// A later fragment has no flags: it neither moves a connection nor is out of place in one.
#[test]
fn fragments_of_a_connection_change_nothing_in_it() {
    for scene in Scene::both(false) {
        scene.play(|player| {
            let segment = |there: bool, flags| {
                let payload = |source, destination| Payload::Tcp { source, destination, flags, data: 100 };
                if there {
                    Draft::new(scene.peer(), scene.server(), payload(4000, 80)).build()
                } else {
                    Draft::new(scene.server(), scene.peer(), payload(80, 4000)).build()
                }
            };
            let f = cut(&segment(true, SYN), scene.six, 1, 4);
            player.fragments(Side::Overlay, &[&f[0], &f[1], &f[2]], &[THERE; 3]);
            let f = cut(&segment(false, SYN | ACK), scene.six, 2, 4);
            player.fragments(Side::Site, &[&f[0], &f[1]], &[Overlay; 2]);
            // For the overlay, of no flow.
            let stray = cut(&segment(false, ACK), scene.six, 3, 4);
            player.fragments(Side::Site, &[&stray[1]], &[LOST]);
            let unknown = Draft::new(
                scene.server(),
                scene.peer(),
                Payload::Udp { source: 1, destination: 2, data: 100, unchecked: false },
            );
            let f = cut(&unknown.build(), scene.six, 4, 4);
            player.fragments(Side::Site, &[&f[0], &f[1]], &[Drop(NoFlow), LOST]);
        });
    }
}

/// The reasons of this page are three, so that an attack shows.
#[test]
fn reasons_tell_loss_from_attack() {
    let names = [Fragment, FragmentOverlap, DropReason::FragmentTableFull].map(DropReason::name);
    assert_eq!(names, ["fragment", "fragment_overlap", "fragment_table_full"]);
}

/// Placed by both, they could overlap unseen.
#[test]
fn of_two_processors_with_fragments_of_one_datagram_one_drops_its() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let f = datagram(&scene, 1);
            player.fragments(Side::Overlay, &[&f[0]], &[THERE]);
            let (kernel, now) = player.trio.alone();
            let bytes = f[1].clone();
            let later = Arrival { side: Side::Overlay, six: scene.six, bytes, segment: 0, screened: false };
            kernel.hold_datagrams(true).unwrap();
            assert_eq!(kernel.packet(&later, now, None).unwrap(), Some(Said::Shot));
            kernel.hold_datagrams(false).unwrap();
            let passed = kernel.packet(&later, now, None).unwrap();
            assert!(matches!(passed, Some(Said::Redirect(_))), "{passed:?}");
        });
    }
}
