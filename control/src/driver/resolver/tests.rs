use std::collections::BTreeSet;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluicegate_api::agent::NetworkConfig;
use sluicegate_policy::model::{End, Group, Resource};

use super::*;
use crate::driver::plan::Plan;
use crate::driver::plan::tests::{GATEWAY, OTHER, USER, again, all, image, snapshot};
use crate::hub::Target;
use crate::store::{DnsRecord, Nameserver, NameserverGroupSpec, RecordSpec, Snapshot, ZoneSpec};

const AGENTS: [&str; 3] = [GATEWAY, USER, OTHER];

fn ids(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn zone(id: &str, groups: &[&str], content: &str) -> Arc<store::Zone> {
    let spec = RecordSpec {
        name: format!("www.{id}.example"),
        kind: RecordKind::Aaaa,
        content: content.into(),
        ttl: 60,
    };
    Arc::new(store::Zone {
        id: id.into(),
        spec: ZoneSpec {
            name: id.into(),
            domain: format!("{id}.example"),
            enabled: true,
            enable_search_domain: false,
            distribution_groups: ids(groups),
        },
        records: vec![DnsRecord { id: "record".into(), spec }],
    })
}

fn nameservers(id: &str, groups: &[&str], servers: &[&str]) -> Arc<NameserverGroup> {
    let server = |address: &&str| Nameserver { ip: address.parse().unwrap(), port: 53 };
    Arc::new(NameserverGroup {
        id: id.into(),
        spec: NameserverGroupSpec {
            name: id.into(),
            description: String::new(),
            enabled: true,
            primary: true,
            search_domains_enabled: false,
            nameservers: servers.iter().map(server).collect(),
            domains: Vec::new(),
            groups: ids(groups),
        },
    })
}

/// The agents of which anything was made, and those whose overlays are other ones now. No image is another.
fn told(change: impl FnOnce(&mut Snapshot)) -> (Vec<&'static str>, Vec<&'static str>) {
    let (first, second) = again(true, change);
    assert!(AGENTS.iter().all(|id| Arc::ptr_eq(&image(&first, id), &image(&second, id))));
    let made = |id: &&str| second[*id].network.is_some();
    let other = |id: &&str| made(id) && second[*id].network != first[*id].network;
    (AGENTS.into_iter().filter(made).collect(), AGENTS.into_iter().filter(other).collect())
}

#[test]
fn what_names_no_group_of_an_agent_is_not_made_again_for_it() {
    let zone =
        |next: &mut Snapshot| drop(next.names.zones.insert("z".into(), zone("z", &["users"], "fd20::1")));
    assert_eq!(told(zone), (vec![USER], vec![USER]));
    let servers = |next: &mut Snapshot| {
        next.names
            .nameservers
            .insert("n".into(), nameservers("n", &["users"], &["192.0.2.53", "2001:db8::53"]));
    };
    assert_eq!(told(servers), (vec![USER], vec![USER]));
    let unmanaged = |next: &mut Snapshot| next.names.unmanaged = ["users".to_owned()].into();
    assert_eq!(told(unmanaged), (vec![USER], vec![USER]));
    let labels = |next: &mut Snapshot| {
        next.agents.get_mut(OTHER).unwrap().dns_labels = ["name-4".to_owned(), "printer".to_owned()].into();
    };
    assert_eq!(told(labels), (vec![OTHER], vec![OTHER]), "nobody else hears of it");
    assert_eq!(told(|next| next.names.domain = "corp.example".into()), (AGENTS.to_vec(), AGENTS.to_vec()));
    // A group that no DNS names.
    let entered = |next: &mut Snapshot| {
        let group = Group { name: "new".into(), peers: [OTHER.to_owned()].into(), ..Group::default() };
        next.state.groups.insert("new".into(), group);
    };
    assert_eq!(told(entered), (vec![], vec![]));
}

#[test]
fn a_peer_that_is_a_nameserver_is_not_told_of_the_group() {
    let resolver = |servers: &[&str]| {
        let mut snapshot = snapshot();
        snapshot.names.nameservers.insert("n".into(), nameservers("n", &["users"], servers));
        let targets = Plan::new(snapshot, None).unwrap().targets(None, all(|_| None, true));
        targets[USER].network.clone().unwrap().resolver.unwrap()
    };
    for own in ["100.90.0.3", "fd5c::3", "::ffff:100.90.0.3"] {
        assert!(resolver(&["2001:db8::53", own]).forwards.is_empty(), "{own}");
    }
    for other in ["100.90.0.4", "fd5c::4"] {
        assert_eq!(resolver(&[other]).forwards[0].servers[0].address, other);
    }
}

#[test]
fn a_peer_that_enters_a_group_that_has_a_zone_hears_of_it_and_the_others_do_not() {
    let mut before = snapshot();
    before.names.zones.insert("z".into(), zone("z", &["staff"], "10.20.0.1"));
    before.state.groups.insert("staff".into(), Group { name: "staff".into(), ..Group::default() });
    let plan = Plan::new(before.clone(), None).unwrap();
    let first = plan.targets(None, all(|_| None, true));
    let mut next = before;
    next.state.groups.get_mut("staff").unwrap().peers.insert(OTHER.into());
    let bases = all(|id| Some(image(&first, id)), true);
    let second = Plan::new(next, Some(&plan)).unwrap().targets(Some(&plan), bases);
    assert_eq!(AGENTS.map(|id| second[id].network.is_some()), [false, false, true]);
    assert_eq!(second[OTHER].network.as_ref().unwrap().resolver.as_ref().unwrap().zones.len(), 1);
}

/// Changes one thing, of which somebody may hear by DNS.
fn change(next: &mut Snapshot, random: &mut StdRng) {
    let groups = ["users", "web", "staff"];
    let agent = AGENTS[random.random_range(0..3)];
    let group = groups[random.random_range(0..3)].to_owned();
    let number = random.random_range(1..5);
    let some: Vec<&str> = groups.into_iter().filter(|_| random.random()).collect();
    match random.random_range(0..15) {
        0..3 => {
            let Some(group) = next.state.groups.get_mut(&group) else { return };
            if !group.peers.remove(agent) {
                group.peers.insert(agent.into());
            }
        }
        3 => {
            if !next.names.unmanaged.remove(&group) {
                next.names.unmanaged.insert(group);
            }
        }
        4 => drop(next.names.zones.insert("a".into(), zone("a", &some, &format!("fd20::{number}")))),
        5 => {
            let mut zone = store::Zone::clone(&zone("b", &some, "10.20.0.1"));
            (zone.spec.enabled, zone.spec.enable_search_domain) = (random.random(), random.random());
            zone.records.truncate(random.random_range(0..2));
            next.names.zones.insert("b".into(), Arc::new(zone));
        }
        6 => {
            let servers = [format!("100.90.0.{number}"), format!("fd5c::{number}")];
            let servers = nameservers("n", &some, &[&servers[random.random_range(0..2)]]);
            next.names.nameservers.insert("n".into(), servers);
        }
        7 => {
            next.names.zones.remove("a");
            next.names.nameservers.remove("n");
        }
        8 => next.names.domain = format!("n{number}.example"),
        9 => next.agents.get_mut(agent).unwrap().dns_labels = [format!("label-{number}")].into(),
        10 => {
            let peer = next.state.peers.get_mut(agent).unwrap();
            (peer.allowed, peer.name) = (random.random(), format!("name {number}"));
        }
        11 => {
            let names = ["db.example.org", "*.example.org"];
            let resources = &mut next.state.networks.get_mut("net").unwrap().resources;
            let resource = Resource {
                name: "name".into(),
                prefixes: Vec::new(),
                domain: random.random::<bool>().then(|| names[number % 2].to_owned()),
                enabled: number > 1,
                distribution: None,
            };
            resources.insert(format!("name {}", number % 3), resource);
        }
        12 => {
            let policy = next.state.policies.get_mut("p").unwrap();
            policy.enabled = number > 1;
            if !policy.posture_failed.remove(agent) {
                policy.posture_failed.insert(agent.into());
            }
        }
        13 => {
            let Some(group) = next.state.groups.get_mut(&group) else { return };
            let name = format!("name {}", number % 3);
            if !group.resources.remove(&name) {
                group.resources.insert(name);
            }
            let sources = if number > 2 { End::Groups(ids(&some)) } else { End::Peer(agent.into()) };
            next.state.policies.get_mut("p").unwrap().rules[0].sources = sources;
        }
        _ => {
            let router = next.state.networks.get_mut("net").unwrap().routers.get_mut("rt").unwrap();
            router.peers = ids(&[agent, GATEWAY]);
            router.metric = number as u16;
            if next.state.groups.remove("staff").is_none() {
                next.state.groups.insert("staff".into(), Group { name: "staff".into(), ..Group::default() });
            }
        }
    }
}

#[test]
fn who_follows_is_told_what_one_is_told_who_begins() {
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut state = snapshot();
        let mut plan = Plan::new(state.clone(), None).unwrap();
        let mut targets = plan.targets(None, all(|_| None, true));
        let network = |target: &Target| target.network.clone().unwrap();
        let mut had: BTreeMap<&str, NetworkConfig> = AGENTS.map(|id| (id, network(&targets[id]))).into();
        let (mut kept, mut same) = (0, 0);
        for step in 0..100 {
            change(&mut state, &mut random);
            state.revision += 1;
            let bases = all(|id| Some(image(&targets, id)), true);
            let next = Plan::new(state.clone(), Some(&plan)).unwrap();
            targets = next.targets(Some(&plan), bases);
            let scratch = Plan::new(state.clone(), None).unwrap().targets(None, all(|_| None, true));
            for id in AGENTS {
                let expected = network(&scratch[id]);
                kept += usize::from(targets[id].network.is_none());
                same += usize::from(had[id] == expected);
                if let Some(network) = &targets[id].network {
                    had.insert(id, network.clone());
                }
                assert_eq!(had[id], expected, "seed {seed}, step {step}, {id}");
            }
            plan = next;
        }
        // Most of those who hear nothing new cost nothing.
        assert!(kept * 2 > same, "seed {seed}: {kept} of {same}");
    }
}
