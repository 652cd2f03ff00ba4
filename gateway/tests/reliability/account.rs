//! What the gateway of these tests enforces: a service that stays, one that comes and goes, and rules that do not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_api::image::{Hash, Image};
use sluicegate_policy::Compiler;
use sluicegate_policy::model::{
    Action, End, Group, Network, Peer, Policy, Resource, Router, Rule, Service, State,
};

/// The server behind the gateway, by family.
pub(crate) const SERVER: [&str; 2] = ["10.128.0.53", "fd10::53"];
/// The gateway's addresses on the site, which it masquerades with.
pub(crate) const EGRESS: [&str; 2] = ["10.128.0.1", "fd10::1"];
/// The user who sends through real devices.
pub(crate) const USER: [&str; 2] = ["100.64.0.5", "fd64::6440:5"];
/// How many users there are, the first of them [`USER`].
pub(crate) const USERS: u32 = 256;
/// UDP and TCP port of the service that every image admits.
pub(crate) const PERMITTED: u16 = 5000;
/// UDP port of the service that only some images admit.
pub(crate) const REVOCABLE: u16 = 5001;
/// A port that no image admits.
pub(crate) const DENIED: u16 = 5002;

/// Image `variant` with its hash. Variants differ in rules, in rule slots and in ports that nobody uses here; with
/// `revocable` or without, they admit [`REVOCABLE`].
pub(crate) fn image(variant: u32, revocable: bool) -> (Hash, Image) {
    // The slots of all rules turn with the variant.
    let count = 6;
    let slot = |rule: u32| (rule + variant) % count;
    let port = |at: u16| at..=at;
    let rule = |number: u32, service: Service| Rule { slot: slot(number), ..rule(number, service) };
    let mut rules = vec![
        rule(0, Service::Udp(vec![port(PERMITTED)])),
        rule(1, Service::Tcp(vec![port(PERMITTED)])),
        rule(2, Service::Icmp),
        rule(3, Service::Udp(vec![6000..=6000 + (variant % 16) as u16])),
    ];
    if revocable {
        rules.push(rule(4, Service::Udp(vec![port(REVOCABLE)])));
    }
    if variant % 2 == 1 {
        rules.push(Rule { action: Action::Drop, ..rule(5, Service::Udp(vec![port(DENIED)])) });
    }
    compiled(rules)
}

/// Image `variant` of a kind that differs from the next in one port of one rule, and in nothing else.
pub(crate) fn small_variant(variant: u32, revocable: bool) -> (Hash, Image) {
    let port = |at: u16| at..=at;
    let last = if revocable { REVOCABLE } else { PERMITTED };
    compiled(vec![
        rule(0, Service::Udp(vec![PERMITTED..=last])),
        rule(1, Service::Tcp(vec![port(PERMITTED)])),
        rule(2, Service::Udp(vec![port(6000 + (variant % 16) as u16)])),
    ])
}

/// An accept rule of that number and slot, from every user to the server.
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

/// The server's addresses as prefixes.
pub(crate) fn server() -> Vec<String> {
    vec![format!("{}/32", SERVER[0]), format!("{}/128", SERVER[1])]
}

/// Addresses of user `number`, by family.
pub(crate) fn user(number: u32) -> [IpAddr; 2] {
    let [v4, v6] = USER.map(|first| first.parse::<IpAddr>().unwrap());
    [above(v4, number), above(v6, number)]
}

/// The address so many above `first`.
pub(crate) fn above(first: IpAddr, number: u32) -> IpAddr {
    match first {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + number).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + u128::from(number)).into()),
    }
}

fn compiled(rules: Vec<Rule>) -> (Hash, Image) {
    let image = compile(rules, &[("server", server())]);
    (image.hash(), image)
}

/// The gateway's image for these rules, each a policy of its own, and these resources of one network. Besides `users`, all of
/// them, there is the group `nobody`, which is empty.
pub(crate) fn compile(rules: Vec<Rule>, resources: &[(&str, Vec<String>)]) -> Image {
    let peer = |name: String, [v4, v6]: [IpAddr; 2]| match (v4, v6) {
        (IpAddr::V4(v4), IpAddr::V6(v6)) => Peer { name, v4, v6, allowed: true },
        other => panic!("{other:?} is not one address of each family"),
    };
    let mut peers: BTreeMap<String, Peer> =
        (0..USERS).map(|n| (format!("user{n}"), peer(format!("user{n}"), user(n)))).collect();
    let users = peers.keys().cloned().collect();
    let gateway = ["100.64.0.1", "fd64::6440:1"].map(|address| address.parse().unwrap());
    peers.insert("gw".into(), peer("gw".into(), gateway));
    let resources = resources.iter().map(|(name, prefixes)| {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
        ((*name).to_owned(), Resource { name: (*name).to_owned(), prefixes, enabled: true })
    });
    let router =
        Router { peers: BTreeSet::from(["gw".into()]), metric: 100, masquerade: true, enabled: true };
    let network = Network {
        name: "site".into(),
        resources: resources.collect(),
        routers: BTreeMap::from([("router".into(), router)]),
    };
    let policies = rules.into_iter().map(|rule| {
        let policy = Policy {
            name: rule.name.clone(),
            enabled: true,
            posture_failed: BTreeSet::new(),
            rules: vec![rule.clone()],
        };
        (format!("policy of {}", rule.id), policy)
    });
    let state = State {
        overlay_v4: "100.64.0.0/16".parse().unwrap(),
        overlay_v6: "fd64::/64".parse().unwrap(),
        peers,
        groups: [("users", users), ("nobody", BTreeSet::new())]
            .map(|(name, peers)| {
                (name.to_owned(), Group { name: name.to_owned(), peers, resources: BTreeSet::new() })
            })
            .into(),
        networks: BTreeMap::from([("net".into(), network)]),
        policies: policies.collect(),
    };
    Compiler::new(Arc::new(state)).unwrap().compile("gw").unwrap()
}
