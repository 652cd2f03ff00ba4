//! Reach against the naive model: what is counted as opened and closed, and what tests of a file say.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use sluicegate_engine::image::axis;
use sluicegate_policy::file::{Claim, End as FileEnd, Target, Test};
use sluicegate_policy::model::{Action, Distribution, End, Resource, Service, State};
use sluicegate_policy::naive::decide;
use sluicegate_policy::reach::{check, compare, compare_all, everything};
use support::*;

/// Where decisions of the small world's services change.
fn points() -> Vec<u32> {
    let edges = [0, 80, 81, 85, 86, 90, 91, 100, 101, 443, 444, 1000, 1001, 2000, 2001, 65535];
    let mut points: Vec<u32> = edges.iter().flat_map(|port| [axis::TCP | port, axis::UDP | port]).collect();
    points.extend([axis::OTHER, axis::ICMP, axis::ICMPV6]);
    points.sort_unstable();
    points
}

/// Every first address of a prefix of the small world, and every one after its last.
fn edges() -> Vec<IpAddr> {
    let overlays = ["100.64.0.0/24", "fd5c:1::/64"];
    let edges = PREFIXES.iter().chain(&overlays).flat_map(|text| match text.parse::<IpNet>().unwrap() {
        IpNet::V4(p) => [Some(p.network()), p.broadcast().to_bits().checked_add(1).map(Ipv4Addr::from)]
            .map(|address| address.map(IpAddr::from)),
        IpNet::V6(p) => [Some(p.network()), p.broadcast().to_bits().checked_add(1).map(Ipv6Addr::from)]
            .map(|address| address.map(IpAddr::from)),
    });
    edges.flatten().collect()
}

fn overlay(state: &State, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => state.overlay_v4.contains(&address),
        IpAddr::V6(address) => state.overlay_v6.contains(&address),
    }
}

/// Resources around an address, each with its longest prefix.
fn around(state: &State, address: IpAddr) -> BTreeMap<String, u8> {
    if overlay(state, address) {
        return BTreeMap::new();
    }
    let overlays: [IpNet; 2] = [state.overlay_v4.into(), state.overlay_v6.into()];
    let resources = state.networks.values().flat_map(|network| &network.resources).filter(|(_, q)| q.enabled);
    let longest = |prefixes: &[IpNet]| {
        let outside = prefixes.iter().filter(|p| !overlays.iter().any(|o| o.contains(*p)));
        outside.filter(|p| p.contains(&address)).map(IpNet::prefix_len).max()
    };
    resources.filter_map(|(id, q)| Some((id.clone(), longest(&q.prefixes)?))).collect()
}

/// The gateway that carries a flow from `source`; none where it crosses no overlay.
fn gateway<'s>(state: &'s State, source: &str, address: IpAddr) -> Option<&'s str> {
    gateways(state, source, address).into_iter().next()
}

/// The gateways that carry a flow from `source`, the first choice first, each when those before it are gone.
fn gateways<'s>(state: &'s State, source: &str, address: IpAddr) -> Vec<&'s str> {
    let around = around(state, address);
    let (mut own, mut choices) = (None, Vec::new());
    for network in state.networks.values() {
        let routers = || network.routers.values().filter(|router| router.enabled);
        let routes = routers().any(|router| router.peers.contains(source));
        for resource in network.resources.keys() {
            let Some(&length) = around.get(resource) else { continue };
            if routes {
                own = own.max(Some(length));
            } else if distributed(state, source, &network.resources[resource])
                && opened(state, source, resource)
            {
                let peers = routers().flat_map(|r| {
                    r.peers.iter().map(move |p| (std::cmp::Reverse(length), r.metric, p.as_str()))
                });
                choices.extend(
                    peers.filter(|(_, _, peer)| state.peers.get(*peer).is_some_and(|peer| peer.allowed)),
                );
            }
        }
    }
    choices.retain(|(std::cmp::Reverse(length), ..)| own < Some(*length));
    choices.sort();
    choices.into_iter().map(|(_, _, gateway)| gateway).collect()
}

/// Whether a route is for the peer; a resource of a network is for everybody.
fn distributed(state: &State, source: &str, resource: &Resource) -> bool {
    let Some(bound) = &resource.distribution else { return true };
    bound.groups.iter().filter_map(|id| state.groups.get(id)).any(|group| group.peers.contains(source))
}

/// Whether some accept rule leads from the peer to the resource.
fn opened(state: &State, source: &str, resource: &str) -> bool {
    let groups =
        |ids: &BTreeSet<String>| -> Vec<_> { ids.iter().filter_map(|id| state.groups.get(id)).collect() };
    state.policies.values().filter(|p| p.enabled && !p.posture_failed.contains(source)).any(|policy| {
        policy.rules.iter().filter(|rule| rule.enabled && rule.action == Action::Accept).any(|rule| {
            let from = match &rule.sources {
                End::Groups(ids) => groups(ids).iter().any(|group| group.peers.contains(source)),
                End::Peer(peer) => peer == source,
                End::Resource(_) => false,
            };
            from && match &rule.destinations {
                End::Groups(ids) => groups(ids).iter().any(|group| group.resources.contains(resource)),
                End::Resource(id) => id == resource,
                End::Peer(_) => false,
            }
        })
    })
}

/// Whether a packet from a peer is admitted all the way.
fn open(state: &State, source: &str, to: &To, l4: u32) -> bool {
    let Some(from) = state.peers.get(source).filter(|peer| peer.allowed) else { return false };
    let (far_end, address) = match to {
        To::Peer(id, six) => {
            let Some(peer) = state.peers.get(*id) else { return false };
            (*id, if *six { peer.v6.into() } else { IpAddr::from(peer.v4) })
        }
        To::Address(address) if overlay(state, *address) => return false,
        To::Address(address) => match gateway(state, source, *address) {
            Some(gateway) => (gateway, *address),
            None => return false,
        },
    };
    let own: IpAddr = if address.is_ipv6() { from.v6.into() } else { from.v4.into() };
    address != own && [source, far_end].iter().all(|agent| decide(state, agent, own, address, l4).0.accepts())
}

/// Whether a packet from a peer is admitted all the way by some gateway, whichever of them are alive.
fn open_by_any(state: &State, source: &str, to: &To, l4: u32) -> bool {
    let To::Address(address) = *to else { return open(state, source, to, l4) };
    if overlay(state, address) {
        return false;
    }
    let from = &state.peers[source];
    let own: IpAddr = if address.is_ipv6() { from.v6.into() } else { from.v4.into() };
    let admits = |agent: &str| decide(state, agent, own, address, l4).0.accepts();
    from.allowed && admits(source) && gateways(state, source, address).into_iter().any(admits)
}

#[derive(Clone, Copy, Debug)]
enum To<'a> {
    Peer(&'a str, bool),
    Address(IpAddr),
}

/// Pairs that are open in `new` and not in `old`.
fn count(old: &State, new: &State) -> u64 {
    let mut places = BTreeMap::new();
    for address in edges() {
        let alike = [around(old, address), around(new, address)];
        if alike.iter().any(|around| !around.is_empty()) {
            places.entry((address.is_ipv6(), alike)).or_insert(address);
        }
    }
    let ends: Vec<To<'_>> =
        PEERS.iter().map(|id| To::Peer(id, false)).chain(places.into_values().map(To::Address)).collect();
    let points = points();
    let mut runs = 0;
    for (source, to) in PEERS.iter().flat_map(|source| ends.iter().map(move |to| (source, to))) {
        let opens = points.iter().map(|&l4| open(new, source, to, l4) && !open(old, source, to, l4));
        let mut before = false;
        for now in opens {
            runs += u64::from(now && !before);
            before = now;
        }
    }
    runs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_a_change_opens_and_closes_is_what_the_naive_model_says((old, new) in changed_states()) {
        let (before, after) = (compiler(&old), compiler(&new));
        let difference = compare_all(&before, &after, 3);
        prop_assert_eq!(&difference, &compare(&before, &after, 3), "only agents whose image changes are looked at");
        prop_assert_eq!(difference.opened.pairs, count(&old, &new));
        prop_assert_eq!(difference.closed.pairs, count(&new, &old));
        for side in [&difference.opened, &difference.closed] {
            prop_assert!(side.examples.len() <= 3 && (side.pairs == 0) == side.examples.is_empty(), "{:?}", side);
        }
    }

    #[test]
    fn everything_is_what_it_opens_beside_nothing(state in states()) {
        let nothing = State { policies: Default::default(), ..state.clone() };
        prop_assert_eq!(everything(&compiler(&state), 1).pairs, count(&nothing, &state));
    }

    #[test]
    fn tests_hold_where_the_naive_model_says_so(mut state in states(), port in 0u16..3) {
        state.policies.values_mut().for_each(|policy| policy.posture_failed = Default::default());
        let port = [80, 443, 1500][usize::from(port)];
        let l4 = axis::TCP | u32::from(port);
        let service = Service::Tcp(vec![port..=port]);
        let mut asked = Vec::new();
        for source in PEERS.iter().filter(|id| state.peers[**id].allowed) {
            let peers = PEERS.iter().filter(|id| *id != source && state.peers[**id].allowed);
            let addresses = ADDRESSES.iter().map(|a| a.parse::<IpAddr>().unwrap()).filter(|a| {
                // What a source routes itself is nobody's to judge.
                let own = |q: &String| {
                    let network = state.networks.values().find(|n| n.resources.contains_key(q)).unwrap();
                    network.routers.values().any(|r| r.enabled && r.peers.contains(*source))
                };
                !around(&state, *a).keys().any(own)
            });
            let peers = peers.map(|id| (Target::Peer(state.peers[*id].name.clone()), To::Peer(id, true)));
            for (to, end) in peers.chain(addresses.map(|a| (Target::Address(a), To::Address(a)))) {
                let may = [open(&state, source, &end, l4), open_by_any(&state, source, &end, l4)];
                asked.push((source, Claim { to, service: service.clone() }, may));
            }
        }
        let tests: Vec<Test> = asked.iter().flat_map(|(source, claim, _)| {
            let test = |may_reach, may_not_reach| Test {
                name: claim.to_string(),
                from: FileEnd::Peer(state.peers[**source].name.clone()),
                may_reach,
                may_not_reach,
            };
            [test(vec![claim.clone()], vec![]), test(vec![], vec![claim.clone()])]
        }).collect();
        let checked = check(&state, &tests, 2).unwrap();
        for ((source, claim, [open, by_any]), said) in asked.iter().zip(checked.as_chunks::<2>().0) {
            prop_assert_eq!((said[0].holds, said[1].holds), (*open, !by_any), "{} {}: {:?}", source, claim, said);
            for failed in said.iter().filter(|test| !test.holds) {
                prop_assert_eq!(failed.failures.len(), 1);
                prop_assert!(!failed.failures[0].why.is_empty());
            }
            if *by_any {
                prop_assert!(said[1].failures[0].why.contains("admits it"), "{} {}: {:?}", source, claim, said);
            }
        }
    }
}

#[test]
fn a_prefix_counts_once_for_each_family_and_service() {
    let mut old = world();
    add_group(&mut old, "ga", &["pa", "pb"], &[]);
    add_group(&mut old, "gb", &[], &["q4", "q6"]);
    add_network(&mut old, "na", &[("q4", &["10.0.0.0/8"]), ("q6", &["fd01::/16"])], &[("pf", 1)]);
    let mut new = old.clone();
    add_policy(&mut new, "p", vec![accept(groups(&["ga"]), groups(&["gb"]), "tcp/80,443")]);
    let difference = compare(&compiler(&old), &compiler(&new), 8);
    assert_eq!((difference.opened.pairs, difference.closed.pairs), (2 * 2 * 2, 0));
    let says: Vec<String> = (difference.opened.examples.iter())
        .map(|pair| format!("{} {} {} {}", pair.source, pair.destination, pair.address, pair.service))
        .collect();
    assert_eq!(
        says,
        [
            "peer pa q4 10.0.0.0 tcp/80",
            "peer pa q6 fd01:: tcp/80",
            "peer pb q4 10.0.0.0 tcp/80",
            "peer pb q6 fd01:: tcp/80",
        ]
    );
}

#[test]
fn a_resource_named_in_a_test_is_no_route() {
    let mut state = world();
    add_group(&mut state, "ga", &["pa"], &[]);
    // By id, the route's network comes first.
    add_network(&mut state, "a", &[("web", &["10.9.0.0/24"])], &[("pf", 1)]);
    for resource in state.networks.get_mut("a").unwrap().resources.values_mut() {
        resource.distribution = Some(Distribution { groups: ["ga".to_owned()].into(), by_choice: false });
    }
    let test = "tests: [{name: t, from: ga, may_not_reach: ['resource:web tcp/443']}]";
    let tests = sluicegate_policy::file::parse(test).unwrap().tests;
    let told = check(&state, &tests, 4).unwrap().remove(0);
    assert!(!told.holds && told.failures[0].why.contains("no resource `web`"), "{told:?}");
}

#[test]
fn what_may_not_be_reached_is_looked_at_by_every_router_that_could_carry_it() {
    let mut state = world();
    add_group(&mut state, "ga", &["pa"], &[]);
    // Two networks around the same addresses: what the first choice refuses, the second lets through.
    add_network(&mut state, "near", &[("lab", &["10.7.0.0/24", "fd07::/64"])], &[("pe", 1)]);
    add_network(&mut state, "far", &[("all", &["10.0.0.0/8", "fd00::/8"])], &[("pf", 1)]);
    let tcp = |to: &str, port: &str| accept(groups(&["ga"]), End::Resource(to.into()), port);
    add_policy(&mut state, "p", vec![tcp("lab", "tcp/443"), tcp("all", "tcp/1-1000")]);
    let text = "tests: [{name: t, from: ga, may_reach: ['10.7.0.9 tcp/443', 'fd07::9 tcp/443'], may_not_reach: ['10.7.0.9 tcp/80', 'fd07::9 tcp/80', '10.7.0.9 tcp/2000']}]";
    let tests = sluicegate_policy::file::parse(text).unwrap().tests;
    let told = check(&state, &tests, 4).unwrap().remove(0);
    assert_eq!((told.asked, told.wrong), (5, 2), "{told:?}");
    let why = "policy 'p', rule 'a rule' admits it at peer pf, which is a router of it too";
    assert!(told.failures.iter().all(|failed| failed.why == why), "{told:?}");
    // A router that is off carries nothing.
    state.networks.get_mut("far").unwrap().routers.values_mut().for_each(|router| router.enabled = false);
    assert!(check(&state, &tests, 4).unwrap()[0].holds);
}

#[test]
fn a_failed_test_says_who_what_and_why() {
    let mut state = world();
    add_group(&mut state, "ga", &["pa", "pb"], &[]);
    add_network(&mut state, "na", &[("web", &["10.0.0.1/32"]), ("name", &[])], &[("pf", 1)]);
    add_policy(&mut state, "p", vec![accept(groups(&["ga"]), End::Resource("name".into()), "tcp/443")]);
    let test = |may_reach: &[&str], may_not_reach: &[&str]| {
        let claims = |list: &[&str]| format!("[{}]", list.join(", "));
        let text = format!(
            "tests:\n  - name: t\n    from: group ga\n    may_reach: {}\n    may_not_reach: {}\n",
            claims(may_reach),
            claims(may_not_reach)
        );
        let text = text.replace("    may_reach: []\n", "").replace("    may_not_reach: []\n", "");
        sluicegate_policy::file::parse(&text).unwrap().tests
    };
    let told = |state: &State, test: Vec<Test>| check(state, &test, 4).unwrap().remove(0);
    // Groups of the small world are named after their ids.
    state.groups.get_mut("ga").unwrap().name = "group ga".into();

    let failed = told(&state, test(&["\"resource:web tcp/443\""], &[]));
    assert_eq!((failed.holds, failed.asked, failed.wrong, failed.failures.len()), (false, 2, 2, 2));
    let first = &failed.failures[0];
    assert_eq!(first.source.as_deref(), Some("peer pa"));
    assert_eq!(
        (first.destination.as_deref(), first.address),
        (Some("web"), Some("10.0.0.1".parse().unwrap()))
    );
    assert_eq!(first.service.as_deref(), Some("tcp/443"));
    assert_eq!(first.why, "no enabled accept rule leads to web");

    // A domain has stand-ins of both families until a name was looked up.
    let holds = told(&state, test(&["\"resource:name tcp/443\""], &["\"resource:name tcp/1-442\""]));
    assert!(holds.holds && holds.asked == 8, "{holds:?}");
    let opened = told(&state, test(&[], &["\"resource:name tcp\""]));
    assert_eq!((opened.wrong, opened.failures[0].service.as_deref()), (4, Some("tcp/443")));
    assert_eq!(
        (opened.failures[0].why.as_str(), opened.failures[0].address),
        ("policy 'p', rule 'a rule' admits it", None)
    );

    for (claims, why) in [
        (["\"resource:nothing tcp\""], "there is no resource `nothing`"),
        (["\"peer:nobody tcp\""], "there is no peer `nobody`"),
        (["\"nobodies tcp\""], "there is no group `nobodies`"),
    ] {
        let failed = told(&state, test(&claims, &[]));
        assert_eq!((failed.holds, failed.failures[0].why.as_str()), (false, why));
    }
    add_group(&mut state, "empty", &[], &[]);
    let remarked = told(&state, test(&["\"empty tcp\""], &[]));
    assert!(remarked.holds && remarked.remarks.len() == 1, "{remarked:?}");
}
