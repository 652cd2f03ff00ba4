//! Flows whose destination gets another route, or whose route another way out, together with the image that says so.

use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_engine::DropReason::Revoked;
use sluicegate_engine::flow::Side;
use sluicegate_engine::pipeline::Verdict::{Drop, Overlay, Site};
use sluicegate_policy::model::{Resource, State};

use crate::bugs::{DEVICE, Player, Scene, source};
use crate::case::{Exit, Step};
use crate::packets::flag::{ACK, SYN};
use crate::world::EGRESS;

/// The site device that a story begins without.
const OTHER: u32 = 12;

/// The state with a resource of its own for the server alone: the longer prefix is the flow's route.
fn nested(scene: &Scene) -> State {
    let mut state = scene.state(0);
    let prefixes = ["10.1.2.3/32", "fd01:1::5/128"].map(|p| p.parse().unwrap()).to_vec();
    let server =
        Resource { name: "server".into(), prefixes, enabled: true, domain: None, distribution: None };
    state.networks.get_mut("n").unwrap().resources.insert("s".into(), server);
    state
}

/// Every route leaves by `device`, with these addresses of the gateway.
fn all(device: u32, addresses: [&str; 2]) -> Option<Vec<Exit>> {
    let source = addresses.map(|address| address.parse().ok());
    Some(vec![Exit { device, mtu: 1500, source, pool: 1 }])
}

/// A connection of the peer to the server that is established; what the server knows its other end by.
fn establish(player: &mut Player<'_>, scene: &Scene) -> (IpAddr, u16) {
    let (client, server) = ((scene.peer(), 1000), (scene.server(), 80));
    let syn = player.expect(Side::Overlay, client, server, SYN, Site(DEVICE));
    let seen = source(&syn, scene.six);
    player.expect(Side::Site, server, seen, SYN | ACK, Overlay);
    player.expect(Side::Overlay, client, server, ACK, Site(DEVICE));
    seen
}

#[test]
fn a_flow_goes_on_by_another_route_that_leaves_with_its_address() {
    for scene in Scene::both(true).into_iter().chain(Scene::both(false)) {
        scene.play(|player| {
            let (client, server) = ((scene.peer(), 1000), (scene.server(), 80));
            let seen = establish(player, &scene);
            let before = player.trio.flows()[0].route;
            player.step(&Step::Image(Arc::new(nested(&scene)), all(OTHER, EGRESS[0])));
            let outcome = player.expect(Side::Overlay, client, server, ACK, Site(OTHER));
            assert_eq!(source(&outcome, scene.six), seen);
            assert_ne!(player.trio.flows()[0].route, before);
            player.expect(Side::Site, server, seen, ACK, Overlay);
        });
    }
}

/// It left with the address of the one site by the device of the other.
#[test]
fn a_masqueraded_flow_never_leaves_by_a_route_that_knows_its_address_not() {
    for scene in Scene::both(true) {
        for answer_first in [false, true] {
            scene.play(|player| {
                let (client, server) = ((scene.peer(), 1000), (scene.server(), 80));
                let seen = establish(player, &scene);
                player.step(&Step::Image(Arc::new(nested(&scene)), all(OTHER, EGRESS[1])));
                match answer_first {
                    true => player.expect(Side::Site, server, seen, ACK, Drop(Revoked)),
                    false => player.expect(Side::Overlay, client, server, ACK, Drop(Revoked)),
                };
                let again = player.expect(Side::Overlay, client, server, SYN, Site(OTHER));
                let own: IpAddr = EGRESS[1][usize::from(scene.six)].parse().unwrap();
                assert_eq!(source(&again, scene.six).0, own);
            });
        }
    }
    // Without masquerade it has no address of the gateway's to lose.
    for scene in Scene::both(false) {
        scene.play(|player| {
            establish(player, &scene);
            player.step(&Step::Image(Arc::new(nested(&scene)), all(OTHER, EGRESS[1])));
            player.expect(Side::Overlay, (scene.peer(), 1000), (scene.server(), 80), ACK, Site(OTHER));
        });
    }
}

/// The host's own doing, as when a link is renamed or an address replaced: who opened under the old one goes on.
#[test]
fn a_flow_whose_route_stays_keeps_its_address_whatever_device_the_route_has() {
    for scene in Scene::both(true) {
        scene.play(|player| {
            let (client, server) = ((scene.peer(), 1000), (scene.server(), 80));
            let seen = establish(player, &scene);
            player.step(&Step::Image(Arc::new(scene.state(0)), all(OTHER, EGRESS[1])));
            let outcome = player.expect(Side::Overlay, client, server, ACK, Site(OTHER));
            assert_eq!(source(&outcome, scene.six), seen);
        });
    }
}
