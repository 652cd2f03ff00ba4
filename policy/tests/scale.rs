//! Large states: they compile to what the naive model says, small changes stay small, and what is too large is refused
//! with numbers.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sluicegate_api::image::Delta;
use sluicegate_engine::image::{SLOTS_MAX, header};
use sluicegate_engine::validate::validate;
use sluicegate_policy::model::*;
use sluicegate_policy::{CompileError, Compiler, Limits, naive};
use support::*;

/// `peers` users in pairs of groups, one gateway, `resources` hosts, and `rules` rules of one port each.
fn large(peers: u32, resources: u32, rules: u32) -> State {
    let mut state = world();
    state.overlay_v4 = "100.64.0.0/16".parse().unwrap();
    state.overlay_v6 = "fd5c:1::/64".parse().unwrap();
    state.peers.clear();
    for i in 0..=peers {
        let id = if i == peers { "gateway".to_string() } else { format!("p{i:05}") };
        let v4 = Ipv4Addr::from_bits(0x6440_0000 | ((i * 40_503) & 0xffff));
        let v6 = format!("fd5c:1::{:x}", i + 1).parse().unwrap();
        state.peers.insert(id.clone(), Peer { name: id, v4, v6, allowed: true });
    }
    let users = |g: u32| (0..peers).filter(move |i| i % 50 == g || i % 37 == g).map(|i| format!("p{i:05}"));
    for g in 0..50 {
        let group = Group { name: format!("g{g}"), peers: users(g).collect(), ..Group::default() };
        state.groups.insert(format!("g{g}"), group);
    }
    let ids: Vec<String> = (0..resources).map(|i| format!("r{i:05}")).collect();
    let prefixes: Vec<String> =
        (0..resources).map(|i| format!("10.{}.{}.{}/32", i >> 14, i >> 6 & 255, i << 2 & 255)).collect();
    let prefixes: Vec<[&str; 1]> = prefixes.iter().map(|p| [p.as_str()]).collect();
    let resources: Vec<(&str, &[&str])> =
        ids.iter().zip(&prefixes).map(|(id, p)| (id.as_str(), &p[..])).collect();
    add_network(&mut state, "n", &resources, &[("gateway", 1)]);
    let rule = |i: u32| {
        let destination = End::Resource(format!("r{:05}", i.wrapping_mul(7919) % resources.len() as u32));
        accept(groups(&[&format!("g{}", i % 50)]), destination, &format!("tcp/{}", 1 + i % 60_013))
    };
    for chunk in 0..rules.div_ceil(1000) {
        let rules = (chunk * 1000..rules.min(chunk * 1000 + 1000)).map(rule).collect();
        add_policy(&mut state, &format!("policy{chunk:04}"), rules);
    }
    state
}

#[test]
fn a_hundred_thousand_rules_for_one_gateway() {
    let state = large(1_000, 5_000, 100_000);
    let compiler = compiler(&state);
    let image = compiler.compile("gateway").unwrap();
    assert_eq!(validate(image.words.as_chunks().0), Ok(()));
    assert_eq!(image.rules.len(), 100_000);
    assert_eq!(image.routes.len(), 5_000);
    for i in 0..20u32 {
        let source = IpAddr::V4(state.peers[&format!("p{:05}", i * 47)].v4);
        let resource = &state.networks["n"].resources[&format!("r{:05}", (i * 50 * 7919) % 5_000)];
        for port in [1 + i * 50 % 60_013, 2] {
            let packet = (source, resource.prefixes[0].addr(), tcp(port));
            assert_eq!(
                look_up(&image, packet),
                naive::decide(&state, "gateway", packet.0, packet.1, packet.2)
            );
        }
    }
}

/// How much of the gateway's image a change rewrites: bytes of delta, bytes of image.
fn rewritten(old: &State, limits: Limits, change: impl FnOnce(&mut State)) -> (usize, usize) {
    let mut new = old.clone();
    change(&mut new);
    let image = |state| compiler(state).with_limits(limits).compile("gateway").unwrap();
    let (old, new) = (image(old), image(&new));
    assert_ne!(old, new);
    (Delta::between(&old, &new).encode().len(), new.encode().len())
}

#[test]
fn small_changes_make_small_deltas() {
    let state = large(1_000, 500, 2_000);
    fn first(state: &mut State) -> &mut Rule {
        &mut state.policies.get_mut("policy0000").unwrap().rules[0]
    }
    type Edit = fn(&mut State);
    let changes: [(&str, Edit); 5] = [
        ("a port", |s| first(s).service = Service::Tcp(vec![7..=7])),
        ("a rule off", |s| first(s).enabled = false),
        ("a new rule", |s| {
            add_policy(s, "zz", vec![accept(groups(&["g3"]), End::Resource("r00003".into()), "udp/53")])
        }),
        ("a member", |s| drop(s.groups.get_mut("g1").unwrap().peers.pop_first())),
        ("masquerade", |s| {
            s.networks.get_mut("n").unwrap().routers.values_mut().for_each(|r| r.masquerade = false)
        }),
    ];
    for (what, change) in changes {
        for limits in [Limits::default(), apart(0), apart(1 << 18)] {
            let (delta, whole) = rewritten(&state, limits, change);
            assert!(delta * 10 < whole, "{what}: {delta} of {whole} bytes, {limits:?}");
        }
    }
}

/// Tables grow and shrink on the way, and sections behind them move.
#[test]
fn a_large_image_is_followed_change_by_change() {
    let mut state = large(1_000, 500, 2_000);
    let mut follower = compiler(&state).remembering();
    let mut had = follower.compile_parts("gateway", None).unwrap();
    for step in 0..24u32 {
        let group = format!("g{}", step * 7 % 50);
        let policy = state.policies.get_mut(&format!("policy000{}", step % 2)).unwrap();
        let at = step as usize * 41 % 1_000;
        match step % 8 {
            0 => drop(state.groups.get_mut(&group).unwrap().peers.insert(format!("p{:05}", 31 * step))),
            1 => drop(state.groups.get_mut(&group).unwrap().peers.pop_first()),
            2 => policy.rules[at].service = Service::Udp(vec![7..=7 + step as u16]),
            3 => drop(policy.posture_failed.insert(format!("p{:05}", 31 * step))),
            4 => policy.name = format!("step {step}"),
            5 => policy.rules[at].enabled = false,
            6 => policy.enabled = !policy.enabled,
            _ => {
                let peers = (0..step).map(|i| format!("p{:05}", i * 17)).collect();
                state.groups.get_mut(&group).unwrap().peers = peers;
            }
        }
        let next = Compiler::after(Arc::new(state.clone()), &follower).unwrap();
        let parts = next.compile_parts("gateway", Some(&had)).unwrap();
        let image = compiler(&state).compile("gateway").unwrap();
        assert_eq!(parts.hash(), image.hash(), "step {step}");
        assert_eq!(parts.encode(), image.encode(), "step {step}");
        (follower, had) = (next, parts);
    }
}

#[test]
fn what_is_too_large_is_refused_with_numbers() {
    let refused = |state: &State| Compiler::new(Arc::new(state.clone())).unwrap_err().to_string();
    let mut state = large(3, 3, 3);
    state.overlay_v4 = "100.64.0.0/10".parse().unwrap();
    assert!(refused(&state).contains("100.64.0.0/10 has 4194304 addresses but an image holds at most 65536"));
    let mut state = large(3, 3, 3);
    state.policies.get_mut("policy0000").unwrap().rules[1].slot = SLOTS_MAX;
    assert!(refused(&state).contains("rule policy0000-1 has slot 268435456, and slots are below 268435456"));
    let mut state = large(3, 3, 3);
    state.peers.get_mut("p00001").unwrap().v4 = Ipv4Addr::new(10, 0, 0, 1);
    assert!(refused(&state).contains("peer p00001 has the address 10.0.0.1, which is outside"));
    let mut state = large(3, 3, 3);
    let v6 = state.peers["p00001"].v6;
    state.peers.get_mut("p00002").unwrap().v6 = v6;
    assert!(refused(&state).contains("peers p00001 and p00002 both have the address fd5c:1::2"));
    // A peer that may not take part is in nobody's way.
    state.peers.get_mut("p00002").unwrap().allowed = false;
    assert!(Compiler::new(Arc::new(state)).is_ok());
}

#[test]
fn a_cell_with_too_many_ports_is_refused_for_its_gateway_alone() {
    let mut state = large(3, 3, 3);
    let ports = (0..4_096u16).map(|i| 2 * i + 1..=2 * i + 1).collect();
    let rule = Rule {
        service: Service::Tcp(ports),
        ..accept(End::Peer("p00001".into()), End::Resource("r00001".into()), "all")
    };
    add_policy(&mut state, "zz", vec![rule]);
    let compiler = compiler(&state);
    let error = compiler.compile("gateway").unwrap_err();
    assert!(matches!(&error, CompileError::Services { entries: 8193, .. }), "{error}");
    assert!(error.to_string().contains("zz-0") && error.to_string().contains("4096"), "{error}");
    assert!(compiler.compile("p00002").is_ok());
}

#[test]
fn an_image_over_budget_is_refused_before_it_is_built() {
    // Every user a class of its own, and every resource.
    let mut state = large(8_000, 40_000, 0);
    let rule =
        |i: u32| accept(End::Peer(format!("p{:05}", i % 8_000)), End::Resource(format!("r{i:05}")), "all");
    add_policy(&mut state, "p", (0..40_000).map(rule).collect());
    // Alone it is 4,000,000 words: a row of each, and a line for each right.
    let image = compiler(&state).compile("gateway").unwrap();
    assert!(image.words.len() < 5_000_000 && validate(image.words.as_chunks().0).is_ok());
    let limits = Limits { words: 1 << 20, ..Limits::default() };
    let error = compiler(&state).with_limits(limits).compile("gateway").unwrap_err();
    let CompileError::Words { words, sources, destinations, max, .. } = error else { panic!("{error}") };
    assert!(words > max && max == 1 << 20 && sources > 8_000 && destinations > 40_000);
}

#[test]
fn outcomes_beyond_all_bounds_are_refused_before_they_fill_the_memory() {
    let state = large(50, 50, 2_000);
    let whole = Limits { steps: 10_000, ..Limits::default() };
    assert!(compiler(&state).with_limits(whole).compile("gateway").is_ok());
    let limits = Limits { steps: 1_000, ..Limits::default() };
    let error = compiler(&state).with_limits(limits).compile("gateway").unwrap_err();
    let CompileError::Outcomes { outcomes, steps, max: 1_000, .. } = error else { panic!("{error}") };
    assert!(steps > 1_000 && outcomes > 10 && steps < 1_200, "{steps} steps of {outcomes}");
    let told = error.to_string();
    assert!(told.contains("agent gateway") && told.contains(&steps.to_string()), "{told}");
    // Whoever is not concerned has an image.
    assert!(compiler(&state).with_limits(limits).compile("p00001").is_ok());
}

/// The gateway with a network of one resource, which has every other address of two ranges: so many in IPv4 and in IPv6.
fn hosts(v4: u32, v6: u32) -> State {
    let mut state = large(3, 3, 3);
    let v4 = (0..v4).map(|i| format!("10.{}.{}.{}/32", 128 | i >> 15, i >> 7 & 255, i << 1 & 255));
    let v6 = (0..v6).map(|i| format!("fd77::{:x}:{:x}/128", i >> 8, i << 8 & 0xffff));
    let prefixes: Vec<String> = v4.chain(v6).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    add_network(&mut state, "m", &[("hosts", &prefixes)], &[("gateway", 1)]);
    add_policy(&mut state, "zz", vec![accept(groups(&["g1", "g2"]), End::Resource("hosts".into()), "all")]);
    state
}

#[test]
fn too_many_routed_prefixes_are_refused() {
    let refused = compiler(&hosts(32_768, 32_768)).compile("gateway").unwrap_err();
    assert!(matches!(refused, CompileError::Routes { routes: 65_539, .. }), "{refused}");
    assert!(refused.to_string().contains("routes 65539 prefixes"), "{refused}");
    assert!(compiler(&hosts(30_000, 30_000)).compile("gateway").is_ok());
}

#[test]
fn too_many_intervals_are_refused() {
    assert!(compiler(&hosts(130_000, 130_000)).compile("p00001").is_ok());
    for (v4, v6, what) in [(140_000, 1, "IPv4 destination"), (1, 140_000, "IPv6 destination")] {
        let refused = compiler(&hosts(v4, v6)).compile("p00001").unwrap_err();
        let CompileError::Intervals { intervals, .. } = &refused else { panic!("{refused}") };
        assert!(*intervals > 1 << 18 && refused.to_string().contains(what), "{refused}");
    }
}

#[test]
fn an_image_is_sized_to_its_overlay() {
    let mut state = world();
    for (overlay, hosts) in [("100.64.0.0/28", 16), ("100.64.0.0/24", 256), ("100.64.0.0/16", 65_536)] {
        state.overlay_v4 = overlay.parse().unwrap();
        let image = compiler(&state).compile("pa").unwrap();
        assert_eq!(image.words[header::HOSTS4_LEN], hosts);
        assert!(image.words.len() < hosts as usize + 1_024, "{}", image.words.len());
    }
}
