//! The cases of NetBird's own suites that touch compilation, by their ids in the comparison table. Where the answer is
//! ours and not NetBird's, the case says why.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use sluicegate_policy::model::*;
use support::*;

/// P1: nine peers A to I and an older K, each known by its letter; `100.64.0.` and `fd5c:1::` and the letter's number.
fn p1() -> State {
    let mut state = State { peers: Default::default(), ..world() };
    for letter in ('A'..='I').chain(['K']) {
        let number = letter as u8 - b'A' + 1;
        let (v4, v6) = (address(number, false).parse().unwrap(), address(number, true).parse().unwrap());
        state.peers.insert(letter.into(), Peer { name: letter.into(), v4, v6, allowed: true });
    }
    add_group(&mut state, "All", &["A", "B", "C", "D", "E", "F", "G", "H"], &[]);
    add_group(&mut state, "Workstations", &["A", "B", "D", "E", "F", "G", "H"], &[]);
    add_group(&mut state, "swarm", &["A", "B", "D", "E", "G", "H"], &[]);
    add_group(&mut state, "dmz", &["I"], &[]);
    add_group(&mut state, "workflow", &["K"], &[]);
    let both = |sources: &[&str], destinations: &[&str], service| {
        vec![Rule { bidirectional: true, ..accept(groups(sources), groups(destinations), service) }]
    };
    add_policy(&mut state, "Default", both(&["All"], &["All"], "all"));
    add_policy(&mut state, "Swarm", both(&["swarm", "Workstations"], &["swarm"], "all"));
    add_policy(&mut state, "Dmz", both(&["Workstations"], &["dmz"], "tcp/8080-8083"));
    add_policy(&mut state, "Workflow", both(&["workflow"], &["dmz"], "tcp/8088,9090-9095"));
    state
}

fn address(number: u8, v6: bool) -> String {
    if v6 { format!("fd5c:1::{number:x}") } else { format!("100.64.0.{number}") }
}

/// Whom P1's target is connected to, and with whom it may exchange what: service by service, at its own end, both ways.
#[test]
fn p1_1_to_3_targets_have_the_peers_and_services_of_their_policies() {
    let state = p1();
    let compiler = compiler(&state);
    let connected = |target: &str| {
        let mut peers: Vec<String> =
            compiler.network(target).peers.iter().map(|peer| peer.to_string()).collect();
        peers.sort();
        peers.concat()
    };
    assert_eq!(connected("B"), "ACDEFGHI", "P1-1");
    assert_eq!(connected("K"), "I", "P1-2");
    // Ours, P1-2: there is no agent without port ranges, so none loses a rule for having one.
    let cases: [(&str, &str, u32, bool); 12] = [
        ("B", "ACDEFGH", tcp(22), true),
        ("B", "ACDEFGH", udp(53), true),
        ("B", "I", tcp(8080), true),
        ("B", "I", tcp(8083), true),
        ("B", "I", tcp(8084), false),
        ("B", "I", udp(8080), false),
        ("B", "K", tcp(8088), false),
        ("K", "I", tcp(8088), true),
        ("K", "I", tcp(9090), true),
        ("K", "I", tcp(9096), false),
        ("K", "ABCDEFGH", tcp(8088), false),
        ("C", "ABDEFGH", tcp(22), true),
    ];
    for (target, others, l4, expected) in cases {
        for other in others.chars() {
            let numbers = [target.as_bytes()[0], other as u8].map(|letter| letter - b'A' + 1);
            for v6 in [false, true] {
                let [own, others] = numbers.map(|number| address(number, v6));
                let found =
                    [accepts(&state, target, &own, &others, l4), accepts(&state, target, &others, &own, l4)];
                assert_eq!(found, [expected; 2], "{target} with {other}, {l4:#x}, {own}");
            }
        }
    }
    for target in state.peers.keys() {
        assert!(
            !connected(target).is_empty() && !compiler.compile(target).unwrap().rules.is_empty(),
            "P1-3 {target}"
        );
    }
}

/// P2: pb may open flows to pc by one policy; the default policy is off.
fn p2(bidirectional: bool, service: &str) -> State {
    let mut state = world();
    add_group(&mut state, "All", &PEERS, &[]);
    add_group(&mut state, "b", &["pb"], &[]);
    add_group(&mut state, "c", &["pc"], &[]);
    let everything = Rule { bidirectional: true, ..accept(groups(&["All"]), groups(&["All"]), "all") };
    add_policy(&mut state, "Default", vec![everything]);
    state.policies.get_mut("Default").unwrap().enabled = false;
    let swarm = Rule { bidirectional, ..accept(groups(&["b"]), groups(&["c"]), service) };
    add_policy(&mut state, "Swarm", vec![swarm]);
    state
}

const B: &str = "100.64.0.5";
const C: &str = "100.64.0.6";
const B6: &str = "fd5c:1::8";
const C6: &str = "fd5c:1::7";

/// Which of the four judgements between pb and pc accept: at pb outbound and inbound, at pc outbound and inbound.
fn between(state: &State, l4: u32) -> [bool; 4] {
    let four = [
        accepts(state, "pb", B, C, l4),
        accepts(state, "pb", C, B, l4),
        accepts(state, "pc", C, B, l4),
        accepts(state, "pc", B, C, l4),
    ];
    let four_v6 = [
        accepts(state, "pb", B6, C6, l4),
        accepts(state, "pb", C6, B6, l4),
        accepts(state, "pc", C6, B6, l4),
        accepts(state, "pc", B6, C6, l4),
    ];
    assert_eq!(four, four_v6, "the families differ");
    four
}

#[test]
fn p2_1_and_2_bidirectional_opens_both_ways_at_both_ends() {
    for service in ["all", "tcp/22"] {
        let state = p2(true, service);
        assert_eq!(between(&state, tcp(22)), [true; 4]);
        assert!(compiler(&state).network("pb").peers.iter().any(|p| &**p == "pc"));
        assert!(compiler(&state).network("pa").peers.is_empty());
    }
}

#[test]
fn p2_3_and_4_one_way_opens_out_at_the_source_and_in_at_the_destination() {
    assert_eq!(between(&p2(false, "tcp/22"), tcp(22)), [true, false, false, true]);
}

/// Ours: NetBird honours the flag for every protocol. A rule that names no port cannot tell a client from a server, so
/// between peers it holds both ways whatever the flag says.
#[test]
fn p2_3_and_4_without_ports_the_flag_does_not_count() {
    for (service, l4) in [("all", tcp(22)), ("icmp", ECHO), ("tcp", tcp(22)), ("udp", udp(53))] {
        assert_eq!(between(&p2(false, service), l4), [true; 4], "{service}");
    }
}

#[test]
fn c_1_an_unapproved_peer_is_nowhere_and_has_nothing() {
    for peer in ["pb", "pc"] {
        let mut state = p2(true, "all");
        state.peers.get_mut(peer).unwrap().allowed = false;
        assert_eq!(between(&state, tcp(22)), [false; 4]);
        let compiler = compiler(&state);
        assert!(["pb", "pc"].iter().all(|p| compiler.network(p).peers.is_empty()));
        assert!(compiler.compile(peer).unwrap().rules.is_empty());
    }
}

#[test]
fn c_2_an_unknown_peer_has_an_empty_image() {
    let compiler = compiler(&p2(true, "all"));
    let image = compiler.compile("nobody").unwrap();
    assert!(image.rules.is_empty() && image.routes.is_empty());
    assert_eq!(compiler.network("nobody"), sluicegate_policy::NetworkView::default());
}

#[test]
fn c_4_a_disabled_policy_or_rule_contributes_nothing() {
    let mut state = p2(true, "all");
    state.policies.get_mut("Swarm").unwrap().rules[0].enabled = false;
    assert_eq!(between(&state, tcp(22)), [false; 4]);
    let mut state = p2(true, "all");
    state.policies.get_mut("Swarm").unwrap().enabled = false;
    assert_eq!(between(&state, tcp(22)), [false; 4]);
    assert!(compiler(&state).network("pb").peers.is_empty());
}

#[test]
fn c_5_peers_of_a_drop_rule_stay_connected() {
    let mut state = p2(true, "all");
    state.policies.get_mut("Swarm").unwrap().rules[0].action = Action::Drop;
    assert_eq!(between(&state, tcp(22)), [false; 4]);
    let compiler = compiler(&state);
    assert!(compiler.network("pb").peers.iter().any(|p| &**p == "pc"));
    assert!(compiler.compile("pc").unwrap().rules.values().all(|r| !r.accept));
}

/// pa reaches 172.16.0.0/16 through pd (100) and pe (200).
fn routed() -> State {
    let mut state = world();
    add_network(&mut state, "office", &[("lan", &["172.16.0.0/16"])], &[("pd", 100), ("pe", 200)]);
    add_group(&mut state, "users", &["pa", "pd"], &[]);
    add_group(&mut state, "lan", &[], &["lan"]);
    add_policy(&mut state, "p", vec![accept(groups(&["users"]), groups(&["lan"]), "tcp/443")]);
    state
}

#[test]
fn c_7_a_router_is_not_offered_what_it_routes() {
    let state = routed();
    let compiler = compiler(&state);
    let client = compiler.network("pa");
    assert_eq!(client.routes.len(), 1);
    let routers: Vec<_> = client.routes[0].routers.iter().map(|r| (&*r.peer_id, r.metric)).collect();
    assert_eq!(routers, [("pd", 100), ("pe", 200)]);
    for (router, metric) in [("pd", 100), ("pe", 200)] {
        let view = compiler.network(router);
        assert!(view.routes.is_empty());
        assert_eq!(view.routed.len(), 1);
        assert_eq!((view.routed[0].prefix, view.routed[0].metric), (prefix("172.16.0.0/16"), metric));
        // pd is a source as well, but needs nobody for what it routes itself.
        assert_eq!(view.peers.iter().map(|p| &**p).collect::<Vec<_>>(), ["pa"]);
    }
}

/// Rules that lead to `lan` at its router pd, by slot.
fn rules_at_router(state: &State) -> Vec<u32> {
    compiler(state).compile("pd").unwrap().rules.into_keys().collect()
}

#[test]
fn c_10_policies_of_a_resource() {
    let user = || End::Peer("pa".into());
    let mut state = routed();
    state.policies.clear();
    assert_eq!(rules_at_router(&state), Vec::<u32>::new(), "no policy");
    add_policy(&mut state, "direct", vec![accept(user(), End::Resource("lan".into()), "tcp/1")]);
    assert_eq!(rules_at_router(&state), [0], "by the resource itself");
    state.policies.clear();
    add_policy(&mut state, "group", vec![accept(user(), groups(&["lan"]), "tcp/1")]);
    assert_eq!(rules_at_router(&state), [0], "by a group of it");
    add_group(&mut state, "servers", &[], &["lan"]);
    add_policy(&mut state, "second", vec![accept(user(), groups(&["servers"]), "tcp/2")]);
    assert_eq!(rules_at_router(&state), [0, 1], "by two groups");
}

/// Ours: of a policy only the rule that leads to the resource counts, not its sisters (NetBird's legacy routes apply all).
#[test]
fn c_10_a_sister_rule_does_not_leak() {
    let mut state = routed();
    add_group(&mut state, "elsewhere", &["pf"], &[]);
    let to_lan = accept(End::Peer("pa".into()), groups(&["lan"]), "tcp/443");
    let other = accept(End::Peer("pb".into()), groups(&["elsewhere"]), "tcp/22");
    state.policies.clear();
    add_policy(&mut state, "p", vec![to_lan, other]);
    assert_eq!(rules_at_router(&state), [0]);
    assert!(!accepts(&state, "pd", B, "172.16.1.1", tcp(22)));
}

#[test]
fn c_11_a_source_that_fails_posture_has_no_rule_at_the_router_and_no_route() {
    let mut state = routed();
    state.policies.get_mut("p").unwrap().posture_failed.insert("pa".into());
    assert!(!accepts(&state, "pd", "100.64.0.4", "172.16.1.1", tcp(443)));
    assert!(compiler(&state).network("pa").routes.is_empty());
    assert!(compiler(&state).network("pd").peers.is_empty());
}

#[test]
fn c_12_a_disabled_resource_has_no_route_and_no_rule() {
    let mut state = routed();
    state.networks.get_mut("office").unwrap().resources.get_mut("lan").unwrap().enabled = false;
    let compiler = compiler(&state);
    assert!(compiler.network("pa").routes.is_empty() && compiler.network("pd").routed.is_empty());
    assert!(rules_at_router(&state).is_empty());
    assert!(!accepts(&state, "pd", "100.64.0.4", "172.16.1.1", tcp(443)));
}

#[test]
fn c_13_one_peer_or_resource_is_like_a_group_of_one() {
    let mut single = p2(true, "tcp/22");
    let rule = &mut single.policies.get_mut("Swarm").unwrap().rules[0];
    (rule.sources, rule.destinations) = (End::Peer("pb".into()), End::Peer("pc".into()));
    let grouped = p2(true, "tcp/22");
    for agent in PEERS {
        assert_eq!(compiler(&single).compile(agent).unwrap(), compiler(&grouped).compile(agent).unwrap());
        assert_eq!(compiler(&single).network(agent), compiler(&grouped).network(agent));
    }
}

/// Ours: NetBird skips posture for a single source peer; here it holds, or posture could be walked around.
#[test]
fn c_13_a_single_source_peer_obeys_posture() {
    let mut state = p2(true, "tcp/22");
    let policy = state.policies.get_mut("Swarm").unwrap();
    policy.rules[0].sources = End::Peer("pb".into());
    policy.posture_failed.insert("pb".into());
    assert_eq!(between(&state, tcp(22)), [false; 4]);
    // A destination that fails stays one, and opens nothing by the mirror image.
    let mut state = p2(true, "tcp/22");
    state.policies.get_mut("Swarm").unwrap().posture_failed.insert("pc".into());
    assert_eq!(between(&state, tcp(22)), [true, false, false, true]);
}

#[test]
fn c_14_a_prefix_has_sources_of_its_own_family() {
    let state = routed();
    assert!(accepts(&state, "pd", "100.64.0.4", "172.16.1.1", tcp(443)));
    assert!(!accepts(&state, "pd", "fd5c:1::9", "::ffff:172.16.1.1", tcp(443)));
    let mut state = routed();
    let lan = |state: &mut State, prefixes: &[&str]| {
        let resources = &mut state.networks.get_mut("office").unwrap().resources;
        resources.get_mut("lan").unwrap().prefixes = prefixes.iter().map(|p| prefix(p)).collect();
    };
    lan(&mut state, &["fd01::/16"]);
    assert!(accepts(&state, "pd", "fd5c:1::9", "fd01::1", tcp(443)));
    assert!(!accepts(&state, "pd", "100.64.0.4", "172.16.1.1", tcp(443)));
}

/// C-15; C-16 (no IPv6 at all) cannot arise: every peer has both addresses. A domain without IPv6 addresses is its twin.
#[test]
fn c_15_and_16_a_domain_has_the_families_its_addresses_have() {
    let learned = |addresses: &[&str]| {
        let mut state = routed();
        let resources = &mut state.networks.get_mut("office").unwrap().resources;
        resources.get_mut("lan").unwrap().prefixes = addresses.iter().map(|p| prefix(p)).collect();
        let v4 = accepts(&state, "pd", "100.64.0.4", "198.51.100.1", tcp(443));
        let v6 = accepts(&state, "pd", "fd5c:1::9", "2001:db8::1", tcp(443));
        (v4, v6)
    };
    assert_eq!(learned(&["198.51.100.1/32", "2001:db8::1/128"]), (true, true));
    assert_eq!(learned(&["198.51.100.1/32"]), (true, false));
    assert_eq!(learned(&[]), (false, false));
}

/// The D cases: packets from pa at pb, under rules whose source is pa (".1") or the others (".99" is pf).
/// NetBird opens 22022 as well where a rule has TCP 22 and the agent an SSH server there. No agent here has one: a rule says which ports it
/// opens, and those are open.
#[test]
fn c_17_a_rule_for_port_22_opens_no_other_port() {
    let cases: [(&str, [(u32, bool); 3]); 8] = [
        ("tcp/22", [(tcp(22), true), (tcp(22022), false), (udp(22022), false)]),
        ("tcp/22,80", [(tcp(80), true), (tcp(22), true), (tcp(22022), false)]),
        ("tcp/20-25", [(tcp(22), true), (tcp(26), false), (tcp(22022), false)]),
        ("tcp/20-32000", [(tcp(22), true), (tcp(22022), true), (tcp(32001), false)]),
        ("tcp/80", [(tcp(80), true), (tcp(22), false), (tcp(22022), false)]),
        ("udp/22", [(udp(22), true), (udp(22022), false), (tcp(22022), false)]),
        ("tcp/22022", [(tcp(22022), true), (tcp(22), false), (udp(22022), false)]),
        ("icmp", [(ECHO, true), (tcp(22), false), (tcp(22022), false)]),
    ];
    for (service, judged) in cases {
        for (l4, expected) in judged {
            assert_eq!(at_b(vec![from_a(service)], l4), expected, "{service}, {l4:#x}");
        }
    }
}

fn at_b(rules: Vec<Rule>, l4: u32) -> bool {
    let mut state = world();
    add_group(&mut state, "All", &PEERS, &[]);
    add_policy(&mut state, "p", rules);
    let v4 = accepts(&state, "pb", "100.64.0.4", B, l4);
    let l4_v6 = if l4 == ECHO { ECHO_V6 } else { l4 };
    assert_eq!(v4, accepts(&state, "pb", "fd5c:1::9", B6, l4_v6), "the families differ");
    v4
}

fn from_a(service: &str) -> Rule {
    accept(End::Peer("pa".into()), End::Peer("pb".into()), service)
}

fn from_all(service: &str) -> Rule {
    accept(groups(&["All"]), End::Peer("pb".into()), service)
}

#[test]
fn d_cases_between_peers() {
    let drop = |rule: Rule| Rule { action: Action::Drop, ..rule };
    let from_99 = |service: &str| accept(End::Peer("pf".into()), End::Peer("pb".into()), service);
    let cases: Vec<(&str, Vec<Rule>, u32, bool)> = vec![
        ("D-1", vec![], tcp(443), false),
        ("D-2", vec![from_a("tcp/443")], tcp(443), true),
        ("D-3", vec![from_a("tcp/8000-8100")], tcp(8080), true),
        ("D-3", vec![from_a("tcp/8000-8100")], tcp(7999), false),
        ("D-3", vec![from_a("tcp/8000-8100")], tcp(8000), true),
        ("D-3", vec![from_a("tcp/8000-8100")], tcp(8100), true),
        ("D-3", vec![from_a("tcp/8000-8100")], tcp(8101), false),
        ("D-5", vec![from_a("tcp/80,8080,443")], tcp(8080), true),
        ("D-6", vec![from_a("udp/443")], tcp(443), false),
        ("D-7", vec![from_a("tcp/443")], udp(443), false),
        ("D-8", vec![from_a("tcp")], ECHO, false),
        ("D-9", vec![from_a("tcp")], tcp(1), true),
        ("D-10", vec![from_all("all")], tcp(443), true),
        ("D-12", vec![from_a("all"), drop(from_a("tcp/22"))], tcp(22), false),
        ("D-12", vec![drop(from_a("tcp/22")), from_a("all")], tcp(22), false),
        ("D-12", vec![from_a("all"), drop(from_a("tcp/22"))], tcp(23), true),
        ("D-13", vec![from_all("all"), drop(from_a("tcp/8000-8100"))], tcp(8080), false),
        ("D-13", vec![from_all("all"), drop(from_a("tcp/8000-8100"))], tcp(7999), true),
        ("D-14 (another peer)", vec![from_all("all"), drop(from_99("all"))], tcp(80), true),
    ];
    for (id, rules, l4, expected) in cases {
        assert_eq!(at_b(rules, l4), expected, "{id}");
    }
    // D-14: the dropped peer itself, at its own end and at the other.
    let mut state = world();
    add_group(&mut state, "All", &PEERS, &[]);
    add_policy(&mut state, "p", vec![from_all("all"), drop(from_99("all"))]);
    for agent in ["pb", "pf"] {
        assert!(!accepts(&state, agent, "100.64.0.9", B, tcp(80)), "D-14 at {agent}");
    }
}

/// D-4 (source ports) has no twin: rules name destination ports, in the API as here. D-11 differs: sources are peers, so
/// an address outside the overlay is nobody's, and a packet that carries one was forged.
#[test]
fn d_11_a_source_outside_the_overlay_is_nobody() {
    let mut state = world();
    add_group(&mut state, "All", &PEERS, &[]);
    add_policy(&mut state, "p", vec![from_all("all")]);
    assert!(!accepts(&state, "pb", "192.168.1.1", B, tcp(443)));
    assert!(!accepts(&state, "pb", "2001:db8::1", B6, tcp(443)));
}

/// The R cases: packets from pa at its router pd, to a resource with these prefixes.
fn at_router(prefixes: &[&str], rules: Vec<Rule>) -> State {
    let mut state = world();
    add_group(&mut state, "All", &PEERS, &[]);
    add_network(&mut state, "n", &[("r", prefixes)], &[("pd", 100)]);
    add_policy(&mut state, "p", rules);
    state
}

#[test]
fn r_cases_towards_resources() {
    const A: &str = "100.64.0.4";
    let to = |service: &str| accept(groups(&["All"]), End::Resource("r".into()), service);
    let deny = |service: &str| drop_rule(groups(&["All"]), End::Resource("r".into()), service);
    let lan: &[&str] = &["192.168.1.0/24", "fd01:1::/64"];
    let any: &[&str] = &["0.0.0.0/0", "::/0"];
    // Id, prefixes, rules, source, destination, protocol and port, whether it passes.
    type Case<'a> = (&'a str, &'a [&'a str], Vec<Rule>, &'a str, &'a str, u32, bool);
    let cases: Vec<Case<'_>> = vec![
        ("R-1", lan, vec![to("tcp/443")], A, "192.168.1.100", tcp(443), true),
        ("R-1 v6", lan, vec![to("tcp/443")], "fd5c:1::9", "fd01:1::64", tcp(443), true),
        ("R-2 port", lan, vec![to("tcp/80")], A, "192.168.1.100", tcp(8080), false),
        ("R-2 protocol", lan, vec![to("tcp/80")], A, "192.168.1.100", udp(80), false),
        ("R-2 source", lan, vec![to("tcp/80")], "172.16.0.1", "192.168.1.100", tcp(80), false),
        ("R-2 destination", lan, vec![to("tcp/80")], A, "192.168.2.100", tcp(80), false),
        ("R-3", any, vec![to("tcp/443")], A, "203.0.113.100", tcp(443), true),
        ("R-3 v6", any, vec![to("tcp/443")], "fd5c:1::9", "2001:db8::1", tcp(443), true),
        // R-3 and R-7 name sources outside the overlay; ours are peers, as in D-11.
        ("R-3 source", any, vec![to("tcp/443")], "172.16.0.1", "203.0.113.100", tcp(443), false),
        ("R-4", any, vec![to("icmp")], A, "8.8.8.8", ECHO, true),
        ("R-4 v6", any, vec![to("icmp")], "fd5c:1::9", "2001:4860:4860::8888", ECHO_V6, true),
        ("R-6", lan, vec![to("all")], A, "192.168.1.1", ECHO, true),
        // R-7: two kinds of source in one rule.
        ("R-7", lan, vec![to("tcp/80")], "100.64.0.9", "192.168.1.1", tcp(80), true),
        ("R-12", lan, vec![to("tcp"), deny("tcp/8000-8100")], A, "192.168.1.1", tcp(7999), true),
        ("R-12 dropped", lan, vec![to("tcp"), deny("tcp/8000-8100")], A, "192.168.1.1", tcp(8000), false),
    ];
    for (id, prefixes, rules, source, destination, l4, expected) in cases {
        let state = at_router(prefixes, rules);
        assert_eq!(accepts(&state, "pd", source, destination, l4), expected, "{id}");
    }
}

/// R-5 (`all` with a port) cannot be written: a service with ports is TCP or UDP, in the API as here. R-8, R-10 and R-11
/// are not in the table.
#[test]
fn r_5_all_takes_no_port() {
    assert!(sluicegate_policy::service::parse("all/80").is_err());
}

#[test]
fn r_9_a_domain_opens_when_its_addresses_are_learned() {
    let rule = accept(groups(&["All"]), End::Resource("r".into()), "tcp/80");
    for (addresses, expected) in [(&[][..], false), (&["192.168.1.0/24"][..], true)] {
        let state = at_router(addresses, vec![rule.clone()]);
        assert_eq!(accepts(&state, "pd", "100.64.0.4", "192.168.1.100", tcp(80)), expected);
    }
}

#[test]
fn towards_a_resource_every_rule_is_one_way() {
    let rule = Rule { bidirectional: true, ..accept(groups(&["All"]), End::Resource("r".into()), "all") };
    let state = at_router(&["192.168.1.0/24"], vec![rule]);
    assert!(!accepts(&state, "pd", "192.168.1.100", "100.64.0.4", tcp(80)));
    assert!(!accepts(&state, "pa", "192.168.1.100", "100.64.0.4", tcp(80)));
}

#[test]
fn an_exit_route_opens_neither_the_gateway_nor_other_peers() {
    let state =
        at_router(&["0.0.0.0/0", "::/0"], vec![accept(groups(&["All"]), End::Resource("r".into()), "all")]);
    assert!(accepts(&state, "pd", "100.64.0.4", "10.0.0.1", tcp(22)));
    for destination in ["100.64.0.7", "100.64.0.9", "100.64.0.200"] {
        assert!(!accepts(&state, "pd", "100.64.0.4", destination, tcp(22)), "{destination}");
    }
    assert!(!accepts(&state, "pd", "fd5c:1::9", "fd5c:1::6", tcp(22)));
}
