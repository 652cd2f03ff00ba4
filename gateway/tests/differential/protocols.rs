//! What a rule for every protocol admits, as stories on all three engines: extension headers, UDP without a checksum, and
//! protocols that have no ports.

use sluicegate_engine::DropReason::{BadExtension, Malformed, NatExhausted, NoFlow};
use sluicegate_engine::flow::Side;
use sluicegate_engine::pipeline::Verdict::{Drop, Overlay, Site};

use crate::bugs::{DEVICE, Player, Scene};
use crate::case::{Arrival, Outcome, Step};
use crate::packets::flag::SYN;
use crate::packets::{Draft, Payload};
use crate::parse;
use crate::world::{self, PEERS};

impl Player<'_> {
    fn draft(&mut self, side: Side, draft: &Draft) -> Outcome {
        let arrival = Arrival { side, six: self.six, bytes: draft.build(), segment: 0, screened: false };
        self.step(&Step::Packet(arrival)).unwrap()
    }
}

/// SCTP's checksum covers ports and not addresses: with its ports kept it stays right (RFC 9260 6.8).
#[test]
fn a_protocol_without_ports_changes_its_address_alone() {
    for scene in Scene::both(true) {
        for protocol in [47, 50, 132, if scene.six { 1 } else { 58 }] {
            scene.play(|player| {
                let payload = || Payload::Other { protocol, data: 40 };
                let draft = Draft::new(scene.peer(), scene.server(), payload());
                let sent = player.draft(Side::Overlay, &draft);
                assert_eq!(sent.verdict, Site(DEVICE), "{protocol}");
                let (header, _) = parse::network(&sent.bytes, scene.six).unwrap();
                assert_ne!(header.source, scene.peer());
                assert_eq!(sent.bytes[header.transport..], draft.build()[header.transport..]);
                let back = Draft::new(scene.server(), header.source, payload());
                assert_eq!(player.draft(Side::Site, &back).verdict, Overlay);
                // There is one way back.
                let other = Draft::new(world::peer(PEERS[2], scene.six), scene.server(), payload());
                assert_eq!(player.draft(Side::Overlay, &other).verdict, Drop(NatExhausted));
            });
        }
    }
}

/// RFC 768: none stays none. RFC 8200 8.1: in IPv6 there always is one.
#[test]
fn a_datagram_without_a_checksum_leaves_without_one() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let payload = Payload::Udp { source: 4000, destination: 53, data: 20, unchecked: true };
            let draft = Draft::new(scene.peer(), scene.server(), payload);
            if scene.six {
                let mut bytes = draft.build();
                bytes[46..48].fill(0);
                let arrival = Arrival { side: Side::Overlay, six: true, bytes, segment: 0, screened: false };
                let outcome = player.step(&Step::Packet(arrival)).unwrap();
                assert_eq!(outcome.verdict, Drop(Malformed));
            } else {
                let sent = player.draft(Side::Overlay, &draft);
                assert_eq!((sent.verdict, &sent.bytes[26..28]), (Site(DEVICE), [0, 0].as_slice()));
            }
        });
    }
}

/// RFC 8200 4: hop-by-hop, routing, destination options and authentication headers, and a chain too long to be meant.
#[test]
fn extension_headers_are_walked_and_kept() {
    let scene = Scene::both(true)[1];
    scene.play(|player| {
        let payload = Payload::Tcp { source: 4000, destination: 80, flags: SYN, data: 0 };
        let mut draft = Draft::new(scene.peer(), scene.server(), payload);
        draft.extensions = vec![(0, 0), (60, 1), (43, 2), (51, 1), (60, 0)];
        let sent = player.draft(Side::Overlay, &draft);
        assert_eq!(sent.verdict, Site(DEVICE));
        let (header, problem) = parse::network(&sent.bytes, true).unwrap();
        assert_eq!((header.protocol, problem), (6, None));
        assert_eq!(sent.bytes[40..header.transport], draft.build()[40..header.transport]);
        draft.extensions = vec![(60, 0); 7];
        assert_eq!(player.draft(Side::Overlay, &draft).verdict, Drop(BadExtension));
        // To the overlay nothing gets by an extension header.
        let payload = Payload::Tcp { source: 80, destination: 4001, flags: SYN, data: 0 };
        let mut back = Draft::new(scene.server(), scene.peer(), payload);
        back.extensions = vec![(60, 0)];
        assert_eq!(player.draft(Side::Site, &back).verdict, Drop(NoFlow));
    });
}
