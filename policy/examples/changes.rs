//! Prints what one change to a large account costs: preparing the state, finding whom it concerns, and compiling and encoding
//! each of these gateways; and how large the delta of one of them is.
//!
//! Run with optimisation: `cargo run --release -p sluicegate-policy --example changes [GATEWAYS [TIMES [CHANGE]]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate_api::image::Parts;
use sluicegate_policy::Compiler;
use sluicegate_policy::model::*;

const PEERS: usize = 10_000;
const GROUPS: usize = 1_000;
const POLICIES: usize = 5_000;
const RESOURCES: usize = 2_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().map(|n| n.parse().expect("a number"));
    let (gateways, times) = (number().unwrap_or(100), number().unwrap_or(40));
    let only = arguments.next().unwrap_or_default();
    println!(
        "{PEERS} peers in 5 of {GROUPS} groups, {RESOURCES} resources in 2, {POLICIES} policies, {gateways} gateways; \
         median and highest of {times}, ms; gateways, and KB of a delta"
    );
    println!(
        "  {:22} {:>13} {:>13} {:>13} {:>13} {:>4} {:>5}",
        "", "prepared", "affected", "compiled", "together", "of", "KB"
    );
    let mut dice = Dice(7);
    let account = account(gateways, &mut dice);
    for (what, edit) in CHANGES.into_iter().filter(|(what, _)| what.contains(&only)) {
        let mut run = Run::new(&account, gateways);
        for _ in 0..times {
            let mut state = (**run.compiler.state()).clone();
            edit(&mut state, &mut dice);
            run.follow(state);
        }
        run.print(what);
    }
}

/// What may happen to an account.
type Change = (&'static str, fn(&mut State, &mut Dice));

const CHANGES: [Change; 9] = [
    ("peer joins a group", |state, dice| {
        let (peer, group) = (peer(dice.roll(PEERS)), group(dice.roll(GROUPS)));
        state.groups.get_mut(&group).expect("a group").peers.insert(peer);
    }),
    ("peer leaves a group", |state, dice| {
        let group = state.groups.get_mut(&group(dice.roll(GROUPS))).expect("a group");
        let member = group.peers.iter().nth(dice.roll(group.peers.len().max(1))).cloned();
        member.map(|peer| group.peers.remove(&peer));
    }),
    ("one rule edited", |state, dice| {
        let policy = state.policies.get_mut(&policy(dice.roll(POLICIES))).expect("a policy");
        let port = 1 + dice.roll(60_000) as u16;
        policy.rules[0].service = Service::Tcp(vec![port..=port]);
    }),
    ("posture of a peer turns", |state, dice| {
        let policy = state.policies.get_mut(&policy(dice.roll(POLICIES))).expect("a policy");
        let End::Groups(sources) = &policy.rules[0].sources else { return };
        let of = |id: &String| state.groups[id].peers.iter().next().cloned();
        if let Some(peer) = sources.first().and_then(of)
            && !policy.posture_failed.remove(&peer)
        {
            policy.posture_failed.insert(peer);
        }
    }),
    ("a peer is added", |state, dice| {
        let id = format!("newcomer{}", dice.roll(1 << 30));
        let (v4, v6) = free_addresses(state, dice);
        state.peers.insert(id.clone(), Peer { name: id.clone(), v4, v6, allowed: true });
        for _ in 0..5 {
            let group = state.groups.get_mut(&group(dice.roll(GROUPS))).expect("a group");
            group.peers.insert(id.clone());
        }
    }),
    ("a peer is removed", |state, dice| {
        let id = peer(dice.roll(PEERS));
        state.peers.remove(&id);
        leave(state, &id, |group| &mut group.peers);
    }),
    ("a resource is added", |state, dice| {
        let id = format!("more{}", dice.roll(1 << 30));
        let prefixes = vec![format!("172.16.{}.0/24", dice.roll(256)).parse().expect("a prefix")];
        let resource =
            Resource { name: id.clone(), prefixes, enabled: true, domain: None, distribution: None };
        let gateways = state.networks.len();
        let network = state.networks.get_mut(&format!("site{:04}", dice.roll(gateways))).expect("a network");
        network.resources.insert(id.clone(), resource);
        let group = state.groups.get_mut(&group(dice.roll(GROUPS))).expect("a group");
        group.resources.insert(id);
    }),
    ("a resource is removed", |state, dice| {
        let gateways = state.networks.len();
        let network = state.networks.get_mut(&format!("site{:04}", dice.roll(gateways))).expect("a network");
        let Some((id, _)) = network.resources.pop_first() else { return };
        leave(state, &id, |group| &mut group.resources);
    }),
    ("a resource moves", |state, dice| {
        let gateways = state.networks.len();
        let network = state.networks.get_mut(&format!("site{:04}", dice.roll(gateways))).expect("a network");
        let resource = network.resources.values_mut().next().expect("a resource");
        resource.prefixes = vec![format!("192.168.{}.0/24", dice.roll(256)).parse().expect("a prefix")];
    }),
];

/// Takes a member out of every group that it is in.
fn leave(state: &mut State, id: &str, members: fn(&mut Group) -> &mut Shared<BTreeSet<String>>) {
    let groups: Vec<String> = state.groups.keys().cloned().collect();
    for group in groups {
        let has = |group: &Group| group.peers.contains(id) || group.resources.contains(id);
        if state.groups.get(&group).is_some_and(has) {
            state.groups.get_mut(&group).map(members).expect("a group").remove(id);
        }
    }
}

/// An address of each family that is nobody's.
fn free_addresses(state: &State, dice: &mut Dice) -> (Ipv4Addr, Ipv6Addr) {
    let taken: BTreeSet<Ipv4Addr> = state.peers.values().map(|peer| peer.v4).collect();
    loop {
        let host = 1 + dice.roll(65_000) as u32;
        let (v4, v6) = addresses(host);
        if !taken.contains(&v4) {
            return (v4, v6);
        }
    }
}

fn addresses(host: u32) -> (Ipv4Addr, Ipv6Addr) {
    let v4 = Ipv4Addr::from_bits(0x6440_0000 | host);
    (v4, Ipv6Addr::from_bits(0xfd5c_0001u128 << 96 | u128::from(host.reverse_bits())))
}

/// One who follows an account, change by change.
struct Run {
    compiler: Compiler,
    gateways: BTreeSet<String>,
    images: BTreeMap<String, Parts>,
    samples: [Vec<Duration>; 4],
    concerned: usize,
    deltas: usize,
}

impl Run {
    fn new(state: &State, gateways: usize) -> Self {
        let compiler = Compiler::new(Arc::new(state.clone())).expect("a valid state").remembering();
        let gateways: BTreeSet<String> = (0..gateways).map(gateway).collect();
        let image = |id: &String| {
            let image = compiler.compile_parts(id, None).expect("an image");
            (id.clone(), image)
        };
        let images = gateways.iter().map(image).collect();
        Self { compiler, gateways, images, samples: Default::default(), concerned: 0, deltas: 0 }
    }

    fn follow(&mut self, state: State) {
        let begin = Instant::now();
        let compiler = Compiler::after(Arc::new(state), &self.compiler).expect("a valid state");
        let prepared = begin.elapsed();
        let affected = compiler.affected(&self.compiler);
        let found = begin.elapsed();
        let concerned: Vec<&Arc<str>> = affected.iter().filter(|id| self.gateways.contains(&***id)).collect();
        let image = |id: &&Arc<str>| compiler.compile_parts(id, self.images.get(&***id)).expect("an image");
        let images: Vec<Parts> = concerned.iter().map(image).collect();
        let together = begin.elapsed();
        for (id, image) in concerned.into_iter().zip(images) {
            self.concerned += 1;
            self.deltas += self.images[&**id].difference(&image).encode().len();
            self.images.insert(id.to_string(), image);
        }
        let all = [prepared, found - prepared, together - found, together];
        self.samples.iter_mut().zip(all).for_each(|(samples, sample)| samples.push(sample));
        self.compiler = compiler;
    }

    fn print(mut self, what: &str) {
        let times = self.samples[0].len();
        let figures = self.samples.iter_mut().map(|samples| {
            samples.sort_unstable();
            let ms = |at: usize| samples[at].as_secs_f64() * 1e3;
            format!("{:6.2} {:6.2}", ms(times / 2), ms(times - 1))
        });
        let figures: Vec<String> = figures.collect();
        let of = self.concerned as f64 / times as f64;
        let delta = self.deltas as f64 / self.concerned.max(1) as f64 / 1e3;
        println!("  {what:23} {} {of:4.1} {delta:5.1}", figures.join(" "));
    }
}

fn gateway(i: usize) -> String {
    format!("gateway{i:04}")
}

fn peer(i: usize) -> String {
    format!("peer{i:05}")
}

fn group(i: usize) -> String {
    format!("group{i:04}")
}

fn policy(i: usize) -> String {
    format!("policy{i:05}")
}

/// Pseudo-random and the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// The account that the benchmark of control is of: gateways with a network each, in no group.
fn account(gateways: usize, dice: &mut Dice) -> State {
    let mut state = State {
        overlay_v4: "100.64.0.0/16".parse().expect("a range"),
        overlay_v6: "fd5c:1::/64".parse().expect("a range"),
        peers: Default::default(),
        groups: Default::default(),
        networks: Default::default(),
        policies: Default::default(),
    };
    for (i, id) in (0..gateways).map(gateway).chain((0..PEERS).map(peer)).enumerate() {
        let host = (i as u32 + 1).wrapping_mul(40_503) & 0xffff;
        let (v4, v6) = addresses(host);
        state.peers.insert(id.clone(), Peer { name: id, v4, v6, allowed: true });
    }
    for i in 0..GROUPS {
        state.groups.insert(group(i), Group { name: group(i), ..Group::default() });
    }
    for i in 0..PEERS {
        for _ in 0..5 {
            let group = state.groups.get_mut(&group(dice.roll(GROUPS))).expect("a group");
            group.peers.insert(peer(i));
        }
    }
    for i in 0..gateways {
        let router = Router { peers: [gateway(i)].into(), metric: 100, masquerade: true, enabled: true };
        let network = Network {
            name: format!("site{i:04}"),
            routers: [(format!("router{i:04}"), router)].into(),
            ..Network::default()
        };
        state.networks.insert(network.name.clone(), network);
    }
    for i in 0..RESOURCES {
        let name = format!("resource{i:04}");
        let prefix = match i % 2 {
            0 => format!("10.{}.{}.0/24", i / 256, i % 256),
            _ => format!("2001:db8:{i:x}::/64"),
        };
        let prefixes = vec![prefix.parse().expect("a prefix")];
        let resource =
            Resource { name: name.clone(), prefixes, enabled: true, domain: None, distribution: None };
        let network = state.networks.get_mut(&format!("site{:04}", i % gateways)).expect("a network");
        network.resources.insert(name.clone(), resource);
        let first = dice.roll(GROUPS);
        for step in 0..2 {
            let group = state.groups.get_mut(&group((first + step) % GROUPS)).expect("a group");
            group.resources.insert(name.clone());
        }
    }
    for i in 0..POLICIES {
        let port = [22, 80, 443, 5432, 8080][dice.roll(5)];
        let rule = Rule {
            id: format!("rule{i:05}"),
            name: policy(i),
            slot: i as u32,
            enabled: true,
            action: Action::Accept,
            bidirectional: false,
            service: Service::Tcp(vec![port..=port]),
            sources: End::Groups([group(dice.roll(GROUPS))].into()),
            destinations: End::Groups([group(dice.roll(GROUPS))].into()),
        };
        let policy = Policy {
            name: policy(i),
            enabled: true,
            posture_failed: Default::default(),
            rules: vec![rule].into(),
        };
        state.policies.insert(policy.name.clone(), policy);
    }
    state
}
