//! Prints how long a large account takes to compile: all gateways, one change, and one gateway with 100,000 rules.
//!
//! Run with optimisation: `cargo run --release -p sluicegate-policy --example scale`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net};
use sluicegate_api::image::Delta;
use sluicegate_policy::Compiler;
use sluicegate_policy::model::*;

fn main() {
    println!(
        "10,000 peers in 5 of 1,000 groups each, 2,000 resources in 2 each, 5,000 policies of one group to one group, 100 gateways"
    );
    measure(&Arc::new(account(10_000, 1_000, 5_000, 2_000, 100, 1, false)), 100);
    println!("the same with a policy from All to All");
    measure(&Arc::new(account(10_000, 1_000, 5_000, 2_000, 100, 1, true)), 100);
    println!("the same with policies of up to three groups to up to three");
    measure(&Arc::new(account(10_000, 1_000, 5_000, 2_000, 100, 3, false)), 100);
    println!("one gateway for 10,000 peers, 5,000 resources, 100,000 policies");
    measure(&Arc::new(account(10_000, 1_000, 100_000, 5_000, 1, 1, false)), 1);
}

fn measure(old: &Arc<State>, gateways: usize) {
    let mut best = [f64::MAX; 4];
    let mut words = (0, 0);
    for _ in 0..5 {
        let start = Instant::now();
        let compiler = Compiler::new(old.clone()).expect("a valid state");
        best[0] = best[0].min(ms(start));
        let images: Vec<_> =
            (0..gateways).map(|g| compiler.compile(&gateway(g)).expect("an image")).collect();
        best[1] = best[1].min(ms(start));
        let start = Instant::now();
        let views: usize = (0..gateways).map(|g| compiler.network(&gateway(g)).peers.len()).sum();
        best[2] = best[2].min(ms(start));
        words = (images.iter().map(|i| i.words.len()).max().unwrap_or(0), views / gateways);
    }
    println!(
        "  prepare {:.1} ms, prepare and compile all {:.1} ms, network views {:.1} ms",
        best[0], best[1], best[2]
    );
    println!("  largest image {} words, mean neighbours {}", words.0, words.1);
    for (what, new) in changes(old) {
        let new = Arc::new(new);
        let before = Compiler::new(old.clone()).expect("a valid state");
        for g in 0..gateways {
            before.compile(&gateway(g)).expect("an image");
        }
        let mut times = [f64::MAX; 3];
        let mut shape = (0, 0, 0, 0);
        for _ in 0..5 {
            let start = Instant::now();
            let compiler = Compiler::new(new.clone()).expect("a valid state");
            times[0] = times[0].min(ms(start));
            let affected = compiler.affected(&before);
            times[1] = times[1].min(ms(start));
            let ours: Vec<_> = affected.iter().filter(|a| a.starts_with("gateway")).collect();
            let images: Vec<_> = ours.iter().map(|g| compiler.compile(g).expect("an image")).collect();
            times[2] = times[2].min(ms(start));
            let deltas = ours.iter().zip(&images).map(|(g, image)| {
                let delta = Delta::between(&before.compile(g).expect("an image"), image);
                (delta.encode().len(), image.encode().len())
            });
            let (delta, whole) = deltas.max().unwrap_or_default();
            shape = (affected.len(), ours.len(), delta, whole);
        }
        println!(
            "  {what}: prepare {:.1}, find affected {:.1}, compiled {:.1} ms; {} affected, {} gateways, largest delta {} of {} bytes",
            times[0], times[1], times[2], shape.0, shape.1, shape.2, shape.3
        );
    }
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn changes(old: &State) -> Vec<(&'static str, State)> {
    let change = |edit: fn(&mut State)| {
        let mut new = old.clone();
        edit(&mut new);
        new
    };
    vec![
        ("one port", change(|s| policy(s, 700).rules[0].service = Service::Tcp(vec![4444..=4445]))),
        ("policy off", change(|s| policy(s, 701).enabled = false)),
        (
            "member added",
            change(|s| {
                group(s, 17).peers.insert(peer(1234));
            }),
        ),
        ("peer gone", change(|s| drop(s.peers.remove(&peer(4321))))),
        (
            "resource prefix",
            change(|s| {
                let network = s.networks.values_mut().next().expect("a network");
                let resource = network.resources.values_mut().next().expect("a resource");
                resource.prefixes.push("192.0.2.0/24".parse().expect("a prefix"));
            }),
        ),
        (
            "masquerade",
            change(|s| {
                let network = s.networks.values_mut().next().expect("a network");
                network.routers.values_mut().for_each(|r| r.masquerade = !r.masquerade);
            }),
        ),
    ]
}

fn policy(state: &mut State, i: usize) -> &mut Policy {
    state.policies.get_mut(&format!("policy{i:06}")).expect("a policy")
}

fn group(state: &mut State, i: usize) -> &mut Group {
    state.groups.get_mut(&format!("group{i:04}")).expect("a group")
}

fn gateway(i: usize) -> String {
    format!("gateway{i:03}")
}

fn peer(i: usize) -> String {
    format!("peer{i:05}")
}

/// Pseudo-random and the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

fn account(
    peers: usize,
    groups: usize,
    policies: usize,
    resources: usize,
    gateways: usize,
    ends: usize,
    all: bool,
) -> State {
    let mut dice = Dice(7);
    let ids: Vec<String> = (0..peers - gateways).map(peer).chain((0..gateways).map(gateway)).collect();
    let address = |i: usize| (i as u32).wrapping_mul(40_503) & 0xffff;
    let machine = |(i, id): (usize, &String)| {
        let v4 = Ipv4Addr::from_bits(0x6440_0000 | address(i));
        let v6 = Ipv6Addr::from_bits(0xfd5c_0001u128 << 96 | u128::from(address(i)));
        (id.clone(), Peer { name: id.clone(), v4, v6, allowed: true })
    };
    let peers_by_id: BTreeMap<_, _> = ids.iter().enumerate().map(machine).collect();
    let mut networks: BTreeMap<String, Network> = BTreeMap::new();
    let sites = gateways.div_ceil(2);
    for site in 0..sites {
        let router = |(i, metric): (usize, u16)| {
            let peers = BTreeSet::from([gateway((2 * site + i) % gateways)]);
            (format!("router{site:03}-{i}"), Router { peers, metric, masquerade: true, enabled: true })
        };
        let routers = [(0, 100), (1, 200)].into_iter().map(router).collect();
        networks.insert(
            format!("net{site:03}"),
            Network { name: format!("site {site}"), routers, ..Network::default() },
        );
    }
    let mut resource_ids = Vec::new();
    for i in 0..resources {
        let id = format!("resource{i:05}");
        let address = Ipv4Addr::from_bits(0x0a00_0000 | (i as u32) << 8);
        let length = [32, 24, 28][i % 3];
        let mut prefixes = vec![IpNet::V4(Ipv4Net::new(address, length).expect("a length"))];
        prefixes
            .extend((i % 4 == 0).then(|| format!("fd20:0:0:{i:x}::/64").parse::<IpNet>().expect("a prefix")));
        let resource =
            Resource { name: id.clone(), prefixes, enabled: true, domain: None, distribution: None };
        networks
            .get_mut(&format!("net{:03}", i % sites))
            .expect("a network")
            .resources
            .insert(id.clone(), resource);
        resource_ids.push(id);
    }
    let mut groups_by_id: BTreeMap<String, Group> = (0..groups)
        .map(|i| (format!("group{i:04}"), Group { name: format!("group {i}"), ..Group::default() }))
        .collect();
    let group_id = |i: usize| format!("group{i:04}");
    // A lone gateway is a gateway and nothing else.
    let in_groups = if gateways > 1 { &ids[..] } else { &ids[..peers - gateways] };
    for id in in_groups {
        for _ in 0..5 {
            groups_by_id.get_mut(&group_id(dice.roll(groups))).expect("a group").peers.insert(id.clone());
        }
    }
    for id in &resource_ids {
        for _ in 0..2 {
            groups_by_id.get_mut(&group_id(dice.roll(groups))).expect("a group").resources.insert(id.clone());
        }
    }
    groups_by_id.insert(
        "All".into(),
        Group { name: "All".into(), peers: ids.iter().cloned().collect(), ..Group::default() },
    );
    let mut policies_by_id = BTreeMap::new();
    for i in 0..policies {
        let mut end = || End::Groups((0..=dice.roll(ends)).map(|_| group_id(dice.roll(groups))).collect());
        let (sources, destinations) = (end(), end());
        let port = 1 + dice.roll(9000) as u16;
        let service = match dice.roll(10) {
            0 => Service::All,
            1 => Service::Icmp,
            2 => Service::Udp(vec![port..=port]),
            3 => Service::Tcp(vec![port..=port + 100]),
            _ => Service::Tcp(vec![port..=port, 443..=443]),
        };
        let action = if dice.roll(50) == 0 { Action::Drop } else { Action::Accept };
        policies_by_id
            .insert(format!("policy{i:06}"), a_policy(i as u32, action, service, sources, destinations));
    }
    if all {
        let everyone = || End::Groups(BTreeSet::from(["All".to_owned()]));
        let rule = a_policy(policies as u32, Action::Accept, Service::Icmp, everyone(), everyone());
        policies_by_id.insert("zz-all".into(), rule);
    }
    State {
        overlay_v4: "100.64.0.0/16".parse().expect("a range"),
        overlay_v6: "fd5c:1::/64".parse().expect("a range"),
        peers: peers_by_id.into(),
        groups: groups_by_id.into(),
        networks: networks.into(),
        policies: policies_by_id.into(),
    }
}

fn a_policy(slot: u32, action: Action, service: Service, sources: End, destinations: End) -> Policy {
    let name = format!("policy {slot}");
    let rule = Rule {
        id: format!("rule{slot:06}"),
        name: name.clone(),
        slot,
        enabled: true,
        action,
        bidirectional: false,
        service,
        sources,
        destinations,
    };
    Policy { name, enabled: true, posture_failed: Default::default(), rules: vec![rule].into() }
}
