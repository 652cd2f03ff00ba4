use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::agent::{PeerSet, Resolver};

fn peer(id: &str, address: u8) -> RemotePeer {
    RemotePeer {
        id: id.into(),
        address_v4: format!("100.64.0.{address}"),
        address_v6: format!("fd64::{address:x}"),
        ..RemotePeer::default()
    }
}

fn route(place: (u8, u8), metric: u32) -> Route {
    let routers = vec![crate::agent::Router { peer_id: "router".into(), metric }];
    let (resource_id, prefix) = (format!("resource {}", place.0), format!("fd00:{:x}::/32", place.1));
    Route { resource_id, prefix, routers, ..Route::default() }
}

fn routed(place: (u8, u8), metric: u32) -> RoutedPrefix {
    let (resource_id, prefix) = (format!("resource {}", place.0), format!("10.{}.0.0/16", place.1));
    RoutedPrefix { resource_id, prefix, metric, ..RoutedPrefix::default() }
}

prop_compose! {
    /// Two of these have most of their entries in common, in one order, unless `shuffle` says otherwise.
    fn config()(
        peers in btree_map("[a-f]", 0..3u8, 0..6),
        routes in btree_map((0..3u8, 0..3u8), 0..2u32, 0..6),
        lists in btree_map((0..3u8, 0..3u8), 0..2u32, 0..6),
        names in btree_map("[a-f]", "[a-c]", 0..6),
        (resolver, events, shuffle) in (proptest::option::of("[a-b]"), any::<bool>(), any::<bool>()),
        askers in vec(btree_set(0..6u32, 1..4), 0..3),
    ) -> NetworkConfig {
        let mut peers: Vec<_> = peers.iter().map(|(id, address)| peer(id, *address)).collect();
        if shuffle {
            peers.reverse();
        }
        NetworkConfig {
            serial: 7,
            peers,
            routes: routes.into_iter().map(|(place, metric)| route(place, metric)).collect(),
            routed: lists.into_iter().map(|(place, metric)| routed(place, metric)).collect(),
            names: (names.into_iter())
                .map(|(resource_id, name)| Name { resource_id, name, askers: 1 })
                .collect(),
            resolver: resolver.map(|domain| Resolver { domain, ..Resolver::default() }),
            no_flow_events: events,
            no_flow_counters: !events,
            login_expired: events != shuffle,
            askers: askers.into_iter().map(|set| PeerSet { peers: set.into_iter().collect() }).collect(),
            watched: vec!["/usr/bin/agent".into()],
            protocol: crate::PROTOCOL,
            address_v4: "100.64.0.1/10".into(),
            address_v6: "fd64::1/64".into(),
        }
    }
}

proptest! {
    #[test]
    fn a_change_leads_from_any_configuration_to_any_other(old in config(), new in config()) {
        let new = NetworkConfig { serial: 8, ..new };
        let (from, to) = (Overlay::from(old.clone()), Overlay::from(new.clone()));
        prop_assert_eq!(to.whole(), new.clone());
        let change = NetworkChange::between(&from, &to);
        prop_assert_eq!(change.apply(old).unwrap(), new);
    }

    /// Whatever comes by the wire is refused or applied: nothing panics, and nothing is longer than it says.
    #[test]
    fn any_places_are_taken_or_refused(
        old in config(),
        removed in vec(0..9u32, 0..4),
        at in vec(0..9u32, 0..4),
        added in 0..4usize,
    ) {
        let length = (old.peers.len() + added).checked_sub(removed.len());
        let added = vec![peer("new", 9); added];
        let change = NetworkChange {
            base_serial: old.serial,
            set: Some(NetworkConfig::default()),
            peers: Some(PeersChange { removed, at: at.clone(), added }),
            ..NetworkChange::default()
        };
        match change.apply(old) {
            Ok(new) => {
                prop_assert_eq!(Some(new.peers.len()), length);
                let places = (0u32..).zip(&new.peers).filter(|(_, peer)| peer.id == "new");
                prop_assert_eq!(places.map(|(place, _)| place).collect::<Vec<_>>(), at);
            }
            Err(error) => prop_assert_eq!(error, Error::Places("peers")),
        }
    }
}

#[test]
fn what_stays_is_not_said_again() {
    let all = |places: std::ops::Range<u32>| PeerSet { peers: places.collect() };
    let ids: Vec<String> = (0..1000).map(|n| format!("{n:04}")).collect();
    let old = NetworkConfig {
        serial: 1,
        peers: ids.iter().map(|id| peer(id, 1)).collect(),
        resolver: Some(Resolver { domain: "example".into(), ..Resolver::default() }),
        askers: vec![all(0..500), all(901..1000)],
        ..NetworkConfig::default()
    };
    let mut new = NetworkConfig { serial: 2, ..old.clone() };
    // One goes, one is another, two come, in four places.
    new.peers.remove(900);
    new.peers[500] = peer("0500", 2);
    new.peers.insert(100, peer("0099b", 1));
    new.peers.push(peer("zzzz", 1));
    // Who may ask is told by places, which move as the peers do: in the second set is one who came.
    new.askers = vec![PeerSet { peers: (0..100).chain(101..501).collect() }, all(901..1001)];
    let change = NetworkChange::between(&old.clone().into(), &new.clone().into());
    assert_eq!(change.askers, Some(AskersChange { length: 2, at: vec![1], sets: vec![all(901..1001)] }));
    let same = NetworkConfig { askers: vec![new.askers[0].clone(), all(901..1000)], ..new.clone() };
    assert_eq!(NetworkChange::between(&old.clone().into(), &same.into()).askers, None);
    let peers = change.peers.clone().unwrap();
    assert_eq!((peers.removed, peers.at), (vec![500, 900], vec![100, 501, 1000]));
    assert!(change.resolver_stays && change.set.clone().unwrap().resolver.is_none());
    assert_eq!((&change.routes, &change.routed, &change.names), (&None, &None, &None));
    assert_eq!(change.apply(old).unwrap(), new);
}

#[test]
fn a_change_of_another_configuration_is_refused() {
    let old = NetworkConfig { serial: 1, ..NetworkConfig::default() };
    let change = NetworkChange::between(
        &old.clone().into(),
        &NetworkConfig { serial: 2, ..NetworkConfig::default() }.into(),
    );
    let other = NetworkConfig { serial: 3, ..NetworkConfig::default() };
    assert_eq!(change.clone().apply(other), Err(Error::Base { wanted: 1, held: 3 }));
    let nothing = NetworkChange { set: None, ..change };
    assert_eq!(nothing.apply(old), Err(Error::Nothing));
}
