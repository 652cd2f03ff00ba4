//! Prints, as a table, what one gateway's image costs by size: compiling it, holding it, and changing one rule of it.
//!
//! Run with optimisation: `cargo run --release -p sluicegate-policy --example images [RULES ...]`.
//!
//! Two accounts. In *teams*, peers belong to a team, its department, its location and All, resources to a service and a site, as
//! people write them; sites nest: /16, /20, /24, hosts, and the same in IPv6. In *random*, every peer is in 5 of 1,000 groups
//! by chance, so that no two peers are alike: the worst that groups can do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluicegate_api::image::Delta;
use sluicegate_engine::image::{LINE, header};
use sluicegate_engine::{Claims, validate_with};
use sluicegate_policy::Compiler;
use sluicegate_policy::model::*;

const GATEWAY: &str = "gateway";

fn main() {
    let asked: Vec<usize> = std::env::args().skip(1).map(|n| n.parse().expect("a number of rules")).collect();
    let sizes = if asked.is_empty() { vec![1_000, 10_000, 100_000] } else { asked };
    println!(
        "| account | rules | resources | peers | prepare and compile, ms | peak, MB | kinds of source x destination | \
         image, words | maps, both halves, MB | one rule: control, ms | delta, bytes | decode and apply + hash + validate, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for rules in sizes {
        let (resources, peers) = ((rules / 10).clamp(100, 10_000), (rules / 10).clamp(100, 10_000));
        measure("teams", rules, resources, peers, &Arc::new(account(rules, resources, peers, false)));
        measure("random", rules, resources, peers, &Arc::new(account(rules, resources, peers, true)));
    }
}

fn measure(name: &str, rules: usize, resources: usize, peers: usize, state: &Arc<State>) {
    let before = peak_megabytes();
    let start = Instant::now();
    let compiler = Compiler::new(state.clone()).expect("a valid state");
    let prepared = ms(start);
    let compiled = compiler.compile(GATEWAY);
    let took = ms(start) - prepared;
    let peak = peak_megabytes() - before;
    print!("| {name} | {rules} | {resources} | {peers} | {prepared:.0} + {took:.0} | {peak:.0} | ");
    let image = match compiled {
        Ok(image) => image,
        Err(refusal) => return println!("refused: {refusal} |"),
    };
    let words = image.words.len();
    let mut new = State::clone(state);
    // One of a team's, in the middle: rules for everybody are few, and rarely changed.
    let team = |policy: &&mut Policy| match &policy.rules[0].sources {
        End::Groups(ids) => ids.iter().all(|id| id.starts_with("team") || id.starts_with("group")),
        _ => false,
    };
    let policy = new.policies.values_mut().skip(rules / 2).find(team).expect("a policy");
    policy.rules[0].service = Service::Tcp(vec![4444..=4445]);
    let new = Arc::new(new);
    let mut best = [f64::MAX; 4];
    let mut bytes = 0;
    for _ in 0..5 {
        let start = Instant::now();
        let next = Compiler::new(new.clone()).expect("a valid state");
        black_box(next.affected(&compiler));
        let changed = next.compile(GATEWAY).expect("an image");
        let delta = Delta::between(&image, &changed).encode();
        best[0] = best[0].min(ms(start));
        bytes = delta.len();
        let start = Instant::now();
        let applied = image.apply(&Delta::decode(&delta).expect("a delta")).expect("it fits");
        best[1] = best[1].min(ms(start));
        let start = Instant::now();
        black_box(applied.hash());
        best[2] = best[2].min(ms(start));
        let start = Instant::now();
        let lines = applied.words.as_chunks::<LINE>().0;
        // As the gateway does it.
        validate_with(lines, &mut Claims::new(vec![0; lines.len()])).expect("valid");
        best[3] = best[3].min(ms(start));
    }
    println!(
        "{} x {} | {words} | {:.1} | {:.0} | {bytes} | {:.1} + {:.1} + {:.1} |",
        image.words[header::SRC_CLASSES],
        image.words[header::DST_CLASSES],
        (words * 8) as f64 / 1e6,
        best[0],
        best[1],
        best[2],
        best[3]
    );
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// The most memory this process has had since the last call, in megabytes (Linux: proc_pid_clear_refs(5)).
fn peak_megabytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
    // Where that cannot be written, the peak is the whole run's.
    drop(fs::write("/proc/self/clear_refs", "5"));
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}

/// Pseudo-random and the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

fn account(rules: usize, resources: usize, peers: usize, random: bool) -> State {
    let mut dice = Dice(7);
    let mut state = State {
        overlay_v4: "100.64.0.0/16".parse().expect("a range"),
        overlay_v6: "fd5c:1::/64".parse().expect("a range"),
        peers: BTreeMap::new(),
        groups: BTreeMap::new(),
        networks: BTreeMap::new(),
        policies: BTreeMap::new(),
    };
    let machine = |state: &mut State, id: String, host: u32| {
        let v4 = Ipv4Addr::from_bits(0x6440_0000 | host);
        let v6 = Ipv6Addr::from_bits(0xfd5c_0001u128 << 96 | u128::from(host));
        state.peers.insert(id.clone(), Peer { name: id, v4, v6, allowed: true });
    };
    machine(&mut state, GATEWAY.into(), 1);
    let teams = (peers / 20).clamp(1, 500);
    let services = (resources / 10).clamp(1, 1_000);
    let chance_groups = (rules / 100).clamp(10, 1_000);
    for i in 0..peers {
        let id = format!("peer{i:05}");
        machine(&mut state, id.clone(), 16 + i as u32);
        let groups = if random {
            (0..5).map(|_| format!("group{:04}", dice.roll(chance_groups))).collect()
        } else {
            let team = i * teams / peers;
            let (department, location) =
                (format!("department{:02}", team / 10), format!("location{:02}", team % 20));
            vec!["All".to_owned(), department, format!("team{team:03}"), location]
        };
        for group in groups {
            member(&mut state, group).peers.insert(id.clone());
        }
    }
    sites(&mut state, resources);
    let names: Vec<String> = state.networks.values().flat_map(|n| n.resources.keys().cloned()).collect();
    for (i, id) in names.iter().enumerate() {
        let groups = if random {
            (0..2).map(|_| format!("group{:04}", dice.roll(chance_groups))).collect()
        } else {
            vec![format!("service{:04}", i * services / resources)]
        };
        for group in groups {
            member(&mut state, group).resources.insert(id.clone());
        }
    }
    for i in 0..rules {
        let (source, destination) = if random {
            let group =
                |dice: &mut Dice| End::Groups([format!("group{:04}", dice.roll(chance_groups))].into());
            (group(&mut dice), group(&mut dice))
        } else {
            let team = dice.roll(teams);
            let source = match dice.roll(100) {
                0..80 => format!("team{team:03}"),
                80..94 => format!("department{:02}", team / 10),
                94..99 => format!("location{:02}", team % 20),
                _ => "All".to_owned(),
            };
            let destination = match dice.roll(100) {
                0..85 => End::Groups([format!("service{:04}", dice.roll(services))].into()),
                _ => End::Resource(names[dice.roll(resources)].clone()),
            };
            (End::Groups([source].into()), destination)
        };
        let rule = rule(i as u32, &mut dice, source, destination);
        let policy = Policy {
            name: rule.name.clone(),
            enabled: true,
            posture_failed: BTreeSet::new(),
            rules: vec![rule],
        };
        state.policies.insert(format!("policy{i:06}"), policy);
    }
    state
}

fn member(state: &mut State, group: String) -> &mut Group {
    state.groups.entry(group.clone()).or_insert_with(|| Group { name: group, ..Group::default() })
}

/// Networks of up to 500 resources that nest.
fn sites(state: &mut State, resources: usize) {
    for i in 0..resources {
        let (site, at) = (i / 500, i % 500);
        let network = state.networks.entry(format!("net{site:02}")).or_insert_with(|| {
            let peers = BTreeSet::from([GATEWAY.to_owned()]);
            let router = Router { peers, metric: 100, masquerade: true, enabled: true };
            let routers = BTreeMap::from([(format!("router{site:02}"), router)]);
            Network { name: format!("site {site}"), resources: BTreeMap::new(), routers }
        });
        // The site, 15 floors of it, 84 segments in the floors, and hosts in the segments.
        let (host, lengths) = match at {
            0 => (0, (16, 48)),
            1..16 => (at << 12, (20, 52)),
            16..100 => ((at * 3) << 8, (24, 56)),
            _ => (((16 + at % 84) * 3) << 8 | (at / 84 + 7), (32, 128)),
        };
        let v4 = Ipv4Addr::from_bits(0x0a00_0000 | (site as u32) << 16 | host as u32);
        let v6 = Ipv6Addr::from_bits(
            0xfd20u128 << 112 | (site as u128) << 80 | (host as u128 >> 8) << 72 | (host as u128 & 255),
        );
        let prefixes = vec![
            IpNet::V4(Ipv4Net::new(v4, lengths.0).expect("a length").trunc()),
            IpNet::V6(Ipv6Net::new(v6, lengths.1).expect("a length").trunc()),
        ];
        let id = format!("resource{i:05}");
        network.resources.insert(id.clone(), Resource { name: id, prefixes, enabled: true });
    }
}

fn rule(slot: u32, dice: &mut Dice, sources: End, destinations: End) -> Rule {
    let port = 1 + dice.roll(9000) as u16;
    let service = match dice.roll(20) {
        0 => Service::All,
        1 => Service::Icmp,
        2..4 => Service::Udp(vec![port..=port]),
        4..6 => Service::Tcp(vec![port..=port + 100]),
        _ => Service::Tcp(vec![port..=port, 443..=443]),
    };
    let action = if dice.roll(50) == 0 { Action::Drop } else { Action::Accept };
    let (id, name) = (format!("rule{slot:06}"), format!("rule {slot}"));
    Rule { id, name, slot, enabled: true, action, bidirectional: false, service, sources, destinations }
}
