//! Posture in what is compiled: whom a verdict that turns concerns, and what it never opens.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluicegate_engine::image::axis;
use sluicegate_policy::model::{End, State};
use support::*;

/// Peers `pa` and `pb` reach the LAN behind `pd`, `pc` the one behind `pe`; nobody else is in the policy.
fn sites() -> State {
    let mut state = world();
    add_group(&mut state, "staff", &["pa", "pb"], &[]);
    add_group(&mut state, "lan", &[], &["near"]);
    add_group(&mut state, "far", &[], &["away"]);
    add_network(&mut state, "office", &[("near", &["172.16.0.0/16", "fd16::/16"])], &[("pd", 100)]);
    add_network(&mut state, "plant", &[("away", &["172.17.0.0/16", "fd17::/16"])], &[("pe", 100)]);
    add_policy(&mut state, "office", vec![accept(groups(&["staff"]), groups(&["lan"]), "tcp/443")]);
    add_policy(&mut state, "plant", vec![accept(End::Peer("pc".into()), groups(&["far"]), "tcp/443")]);
    state
}

fn fails(state: &State, policy: &str, peer: &str) -> State {
    let mut state = state.clone();
    state.policies.get_mut(policy).unwrap().posture_failed.insert(peer.to_owned());
    state
}

fn affected(old: &State, new: &State) -> BTreeSet<String> {
    compiler(new).affected(&compiler(old)).iter().map(|id| id.to_string()).collect()
}

#[test]
fn a_verdict_that_turns_concerns_the_peer_and_the_gateways_it_used() {
    let passes = sites();
    let expected = names(&["pa", "pd"]);
    let failed = fails(&passes, "office", "pa");
    assert_eq!((affected(&passes, &failed), affected(&failed, &passes)), (expected.clone(), expected));
    // Another reason for the same verdict is no change.
    let mut again = failed.clone();
    let why = [("pa".to_owned(), "abroad".to_owned())];
    again.policies.get_mut("office").unwrap().posture_failed = why.into_iter().collect();
    assert_eq!(affected(&failed, &again), BTreeSet::new());
    // Who is no source of a policy fails it in vain.
    assert_eq!(affected(&passes, &fails(&passes, "office", "pc")), names(&["pc"]));
}

#[test]
fn between_peers_the_far_end_of_a_mirrored_rule_hears_of_it() {
    let mut passes = world();
    add_group(&mut passes, "left", &["pa", "pb"], &[]);
    add_group(&mut passes, "right", &["pc", "pd"], &[]);
    add_policy(&mut passes, "talk", vec![accept(groups(&["left"]), groups(&["right"]), "all")]);
    assert_eq!(affected(&passes, &fails(&passes, "talk", "pa")), names(&["pa", "pc", "pd"]));
    assert_eq!(affected(&passes, &fails(&passes, "talk", "pc")), names(&["pa", "pb", "pc"]));
}

/// NetBird takes a source that fails out of every rule of the policy, and so out of those that keep it out.
#[test]
fn failing_lets_nobody_past_a_drop_rule() {
    for (source, destination) in [("100.64.0.4", "172.16.0.9"), ("fd5c:1::9", "fd16::9")] {
        let packet = |port: u32| -> Packet {
            let (source, destination): (IpAddr, IpAddr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            (source, destination, axis::TCP | port)
        };
        let mut state = sites();
        add_policy(&mut state, "keep out", vec![drop_rule(groups(&["staff"]), groups(&["lan"]), "tcp/443")]);
        let failed = fails(&state, "keep out", "pa");
        for state in [&state, &failed] {
            let image = compiler(state).compile("pd").unwrap();
            assert!(!look_up(&image, packet(443)).0.accepts());
        }
        let image = compiler(&sites()).compile("pd").unwrap();
        assert!(look_up(&image, packet(443)).0.accepts());
        assert_eq!(affected(&state, &failed), names(&["pa"]));
    }
}
