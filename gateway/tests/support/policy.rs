//! Images for the gateways of these tests, compiled out of a network's state as control does it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_api::image::Image;
use sluicegate_policy::Compiler;
use sluicegate_policy::model::{
    Action, End, Group, Network, Peer, Policy, Resource, Router, Rule, Service, State,
};

/// The gateway's overlay addresses, by family.
pub(crate) const GATEWAY: [&str; 2] = ["100.64.0.1", "fd64::6440:1"];
/// The user's, or the first user's.
pub(crate) const USER: [&str; 2] = ["100.64.0.5", "fd64::6440:5"];

/// An accept rule of that number and slot, from every user to the resource `server`.
pub(crate) fn rule(number: u32, service: Service) -> Rule {
    Rule {
        id: format!("rule{number}"),
        name: format!("rule {number}"),
        slot: number,
        enabled: true,
        action: Action::Accept,
        bidirectional: false,
        service,
        sources: End::Groups(BTreeSet::from(["users".to_owned()])),
        destinations: End::Resource("server".into()),
    }
}

/// The gateway's image for these rules, each a policy of its own, and these resources of one network, which is masqueraded or
/// not. In the group `users` are the peers with these addresses, by family; the group `nobody` is empty.
pub(crate) fn compile(
    users: &[[IpAddr; 2]],
    resources: &[(&str, Vec<String>)],
    masquerade: bool,
    rules: Vec<Rule>,
) -> Image {
    let mut peers: BTreeMap<String, Peer> = BTreeMap::new();
    let mut add = |name: String, addresses: [IpAddr; 2]| match addresses {
        [IpAddr::V4(v4), IpAddr::V6(v6)] => {
            peers.insert(name.clone(), Peer { name, v4, v6, allowed: true });
        }
        other => panic!("{other:?} is not one address of each family"),
    };
    let names: Vec<String> = (0..users.len()).map(|number| format!("user{number}")).collect();
    names.iter().zip(users).for_each(|(name, addresses)| add(name.clone(), *addresses));
    add("gw".into(), parsed(GATEWAY));
    let resources = resources.iter().map(|(name, prefixes)| {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        (
            (*name).to_owned(),
            Resource { name: (*name).to_owned(), prefixes, enabled: true, domain: None, distribution: None },
        )
    });
    let router = Router { peers: BTreeSet::from(["gw".into()]), metric: 100, masquerade, enabled: true };
    let network = Network {
        name: "site".into(),
        resources: resources.collect(),
        routers: BTreeMap::from([("router".into(), router)]),
    };
    let policies = rules.into_iter().map(|rule| {
        let policy = Policy {
            name: rule.name.clone(),
            enabled: true,
            posture_failed: Default::default(),
            rules: vec![rule.clone()].into(),
        };
        (format!("policy of {}", rule.id), policy)
    });
    let group = |name: &str, peers: BTreeSet<String>| {
        (name.to_owned(), Group { name: name.to_owned(), peers: peers.into(), ..Group::default() })
    };
    let state = State {
        overlay_v4: "100.64.0.0/16".parse().unwrap(),
        overlay_v6: "fd64::/64".parse().unwrap(),
        peers: peers.into(),
        groups: BTreeMap::from([
            group("users", names.into_iter().collect()),
            group("nobody", BTreeSet::new()),
        ])
        .into(),
        networks: [("net".into(), network)].into(),
        policies: policies.collect(),
    };
    Compiler::new(Arc::new(state)).unwrap().compile("gw").unwrap()
}

/// One address of each family.
pub(crate) fn parsed(addresses: [&str; 2]) -> [IpAddr; 2] {
    addresses.map(|address| address.parse().unwrap())
}
