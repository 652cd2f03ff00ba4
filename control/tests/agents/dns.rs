//! What agents are told of names: peers' own, zones, nameservers, and names that are asked of routers.

use std::net::IpAddr;

use sluicegate_api::agent::record::Type;
use sluicegate_api::agent::{NetworkConfig, Resolver, Role};
use sluicegate_control::store::{
    Actor, GroupChange, Nameserver, NameserverGroupSpec, NewSetupKey, PeerChange, RecordKind, RecordSpec,
    ResourceChange, Store, Zone, ZoneSpec,
};

use crate::support::{Control, FakeAgent, Machine};
use crate::updates::{World, change, lines};

fn zone(domain: &str, groups: &[&str]) -> ZoneSpec {
    ZoneSpec {
        name: domain.into(),
        domain: domain.into(),
        enabled: true,
        enable_search_domain: true,
        distribution_groups: groups.iter().map(|id| (*id).to_owned()).collect(),
    }
}

fn record(name: &str, kind: RecordKind, content: &str) -> RecordSpec {
    RecordSpec { name: name.into(), kind, content: content.into(), ttl: 300 }
}

/// A zone with an address of each family.
async fn lab(store: &Store, group: &str) -> Zone {
    let made = store.create_zone(&Actor::system(), zone("lab.example", &[group])).await.unwrap();
    for (kind, content) in [(RecordKind::A, "10.20.0.10"), (RecordKind::Aaaa, "fd20::10")] {
        let record = record("www.lab.example", kind, content);
        store.create_record(&Actor::system(), &made.id, record).await.unwrap();
    }
    store.zone(&made.id).await.unwrap()
}

fn nameservers(name: &str, servers: &[IpAddr], domains: &[&str], groups: &[&str]) -> NameserverGroupSpec {
    NameserverGroupSpec {
        name: name.into(),
        description: String::new(),
        enabled: true,
        primary: domains.is_empty(),
        search_domains_enabled: false,
        nameservers: servers.iter().map(|&ip| Nameserver { ip, port: 53 }).collect(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        groups: groups.iter().map(|id| (*id).to_owned()).collect(),
    }
}

fn members(name: &str, peers: &[String]) -> GroupChange {
    GroupChange { name: name.into(), peers: peers.to_vec(), resources: Vec::new() }
}

/// The overlay of an agent, told anew.
async fn network(control: &Control, agent: &mut FakeAgent) -> NetworkConfig {
    control.settled().await;
    (agent.held, agent.network) = (None, None);
    let mut session = agent.sync(control).await.unwrap();
    agent.take(&mut session).await;
    agent.network.clone().unwrap()
}

async fn resolver(control: &Control, agent: &mut FakeAgent) -> Option<Resolver> {
    network(control, agent).await.resolver
}

fn zones(resolver: &Option<Resolver>) -> Vec<&str> {
    resolver.iter().flat_map(|resolver| &resolver.zones).map(|zone| zone.domain.as_str()).collect()
}

fn forwards(resolver: &Option<Resolver>) -> Vec<&str> {
    resolver.iter().flat_map(|resolver| &resolver.forwards).map(|forward| forward.name.as_str()).collect()
}

async fn all_peers(store: &Store) -> String {
    store.groups().await.unwrap().into_iter().find(|group| group.built_in).unwrap().id
}

#[tokio::test]
async fn zones_and_nameservers_are_told_to_the_groups_that_they_are_for() {
    let control = Control::start().await;
    let (mut user, mut other) = (control.join(Role::Peer).await, control.join(Role::Gateway).await);
    let (users, store) = (control.group("users", &[&user]).await, &control.store);
    let lab = lab(store, &users).await;
    let alias = record("lab.example", RecordKind::Cname, "www.example.org");
    let alias = store.create_record(&Actor::system(), &lab.id, alias).await.unwrap();
    let servers: Vec<IpAddr> = ["2001:db8::53", "192.0.2.53"].map(|text| text.parse().unwrap()).into();
    let mut split = nameservers("split", &servers, &["corp.example", "internal"], &[&users]);
    split.search_domains_enabled = true;
    split.nameservers[1].port = 5353;
    let split = store.create_nameserver_group(&Actor::system(), split).await.unwrap();
    let everybody = all_peers(store).await;
    store
        .create_nameserver_group(&Actor::system(), nameservers("all", &servers[..1], &[], &[&everybody]))
        .await
        .unwrap();

    let told = resolver(&control, &mut user).await;
    let [told_zone] = &told.as_ref().unwrap().zones[..] else { panic!("{told:?}") };
    assert_eq!((told_zone.domain.as_str(), told_zone.search), ("lab.example", true));
    let mut records: Vec<_> = told_zone
        .records
        .iter()
        .map(|record| (record.r#type(), record.name.as_str(), record.content.as_str(), record.ttl))
        .collect();
    records.sort();
    let expected = [
        (Type::A, "www.lab.example", "10.20.0.10", 300),
        (Type::Aaaa, "www.lab.example", "fd20::10", 300),
        (Type::Cname, "lab.example", "www.example.org", 300),
    ];
    assert_eq!(records, expected);
    let mut names = forwards(&told);
    names.sort_unstable();
    assert_eq!(names, ["all", "split"]);
    let forward =
        told.iter().flat_map(|told| &told.forwards).find(|forward| forward.name == "split").unwrap();
    assert_eq!((&forward.id, &forward.domains, forward.search), (&split.id, &split.spec.domains, true));
    let servers: Vec<_> =
        forward.servers.iter().map(|server| (server.address.as_str(), server.port)).collect();
    assert_eq!(servers, [("2001:db8::53", 53), ("192.0.2.53", 5353)], "in their order");

    let told = resolver(&control, &mut other).await;
    assert_eq!((zones(&told), forwards(&told)), (vec![], vec!["all"]));

    // What is off, and what has no record, is not told.
    let off = ZoneSpec { enabled: false, ..lab.spec.clone() };
    store.update_zone(&Actor::system(), &lab.id, off).await.unwrap();
    let off = NameserverGroupSpec { enabled: false, ..split.spec.clone() };
    store.update_nameserver_group(&Actor::system(), &split.id, off).await.unwrap();
    let told = resolver(&control, &mut user).await;
    assert_eq!((zones(&told), forwards(&told)), (vec![], vec!["all"]));
    store.update_zone(&Actor::system(), &lab.id, lab.spec.clone()).await.unwrap();
    for record in lab.records.iter().chain([&alias]) {
        assert_eq!(zones(&resolver(&control, &mut user).await), ["lab.example"]);
        store.delete_record(&Actor::system(), &lab.id, &record.id).await.unwrap();
    }
    assert!(zones(&resolver(&control, &mut user).await).is_empty());
}

#[tokio::test]
async fn a_peer_knows_its_own_names_and_those_of_its_neighbours() {
    let control = Control::start().await;
    let store = &control.store;
    let key = NewSetupKey { name: "key".into(), allow_extra_dns_labels: true, ..NewSetupKey::default() };
    let (_, key) = store.create_setup_key(&Actor::system(), key).await.unwrap();
    let machine = Machine::new(Role::Peer);
    let mut request = machine.request(&key);
    request.dns_labels = ["Printer", "fax"].map(str::to_owned).into();
    let mut client = crate::support::connect(control.address, &control.ca(), None).await.unwrap();
    let joined = client.enroll(request).await.unwrap().into_inner();
    let mut named = FakeAgent { machine, joined, held: None, network: None };
    let mut other = control.join(Role::Peer).await;

    let own = resolver(&control, &mut named).await.unwrap();
    assert_eq!(
        (own.domain.as_str(), own.dns_labels),
        ("sluicegate.internal", labels(&["machine", "fax", "printer"]))
    );
    let seen = network(&control, &mut other).await;
    assert_eq!(seen.peers[0].dns_labels, labels(&["machine", "fax", "printer"]));
    assert_eq!(seen.resolver.unwrap().dns_labels, labels(&["machine-1"]));

    let mut settings = store.account().await.unwrap().settings;
    settings.dns_domain = "Corp.Example".into();
    store.update_settings(&Actor::system(), settings).await.unwrap();
    let renamed = PeerChange { name: "Laptop".into(), ..change("") };
    store.update_peer(&Actor::system(), &named.id(), renamed).await.unwrap();
    let seen = network(&control, &mut other).await;
    assert_eq!(seen.peers[0].dns_labels, labels(&["laptop", "fax", "printer"]));
    assert_eq!(seen.resolver.unwrap().domain, "corp.example");
    assert_eq!(
        resolver(&control, &mut named).await.unwrap().dns_labels,
        labels(&["laptop", "fax", "printer"])
    );
}

fn labels(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

#[tokio::test]
async fn who_is_in_a_group_whose_dns_is_not_managed_or_waits_for_approval_is_told_of_no_names() {
    let control = Control::start().await;
    let (mut user, mut other) = (control.join(Role::Peer).await, control.join(Role::Peer).await);
    let (kiosks, store) = (control.group("kiosks", &[&user]).await, &control.store);
    lab(store, &all_peers(store).await).await;
    store.set_dns_disabled_groups(&Actor::system(), [kiosks.clone()].into()).await.unwrap();
    let told = network(&control, &mut user).await;
    assert!(told.resolver.is_none(), "{told:?}");
    let told = network(&control, &mut other).await;
    assert_eq!(zones(&told.resolver), ["lab.example"]);
    assert_eq!(told.peers[0].dns_labels, ["machine"], "others know its name all the same");

    store.update_group(&Actor::system(), &kiosks, members("kiosks", &[other.id()])).await.unwrap();
    assert_eq!(zones(&resolver(&control, &mut user).await), ["lab.example"]);
    assert!(resolver(&control, &mut other).await.is_none());
    store.set_dns_disabled_groups(&Actor::system(), [].into()).await.unwrap();
    assert_eq!(zones(&resolver(&control, &mut other).await), ["lab.example"]);

    let suspended = |suspended| PeerChange { approval_required: Some(suspended), ..change("machine") };
    store.update_peer(&Actor::system(), &user.id(), suspended(true)).await.unwrap();
    assert!(resolver(&control, &mut user).await.is_none());
    store.update_peer(&Actor::system(), &user.id(), suspended(false)).await.unwrap();
    assert_eq!(zones(&resolver(&control, &mut user).await), ["lab.example"]);
}

#[tokio::test]
async fn c_18_a_nameserver_is_not_told_to_ask_itself() {
    let control = Control::start().await;
    let (mut server, mut user) = (control.join(Role::Peer).await, control.join(Role::Peer).await);
    let store = &control.store;
    let everybody = all_peers(store).await;
    let own = store.peer(&server.id()).await.unwrap();
    let public: IpAddr = "2001:db8::53".parse().unwrap();
    let all = ["by IPv4", "by IPv6", "public"];
    for (name, servers) in [
        (all[0], vec![public, own.ip.into()]),
        (all[1], vec![own.ipv6.into(), public]),
        (all[2], vec![public]),
    ] {
        let group = nameservers(name, &servers, &["corp.example"], &[&everybody]);
        store.create_nameserver_group(&Actor::system(), group).await.unwrap();
    }
    // The whole group is left out: its other servers as well.
    assert_eq!(forwards(&resolver(&control, &mut server).await), ["public"]);
    let told = resolver(&control, &mut user).await;
    let mut told = forwards(&told);
    told.sort_unstable();
    assert_eq!(told, all);

    // An address that moves on takes that along.
    let moved = PeerChange {
        ip: Some((u32::from(own.ip) ^ 0x0000_0101).into()),
        ipv6: Some((u128::from(own.ipv6) ^ 0x0101).into()),
        ..change("moved")
    };
    store.update_peer(&Actor::system(), &server.id(), moved).await.unwrap();
    let told = resolver(&control, &mut server).await;
    assert_eq!(forwards(&told).len(), 3, "{told:?}");
}

#[tokio::test]
async fn a_change_of_dns_reaches_whose_names_it_changes_and_nobody_elses_image() {
    let world = World::new().await;
    let (store, actor) = (world.store(), Actor::system());
    let (users, idle) = (world.users.clone(), world.idle.clone());
    let (user_id, idle_id, far_id) =
        (world.agent("user").id(), world.agent("idle").id(), world.agent("far").id());
    let everybody = all_peers(store).await;
    let public: IpAddr = "2001:db8::53".parse().unwrap();
    let own = store.peer(&user_id).await.unwrap();
    let servers = |domains: &[&str], groups: &[&str]| nameservers("split", &[public], domains, groups);
    let setting = async |domain: &str| {
        let mut settings = store.account().await.unwrap().settings;
        settings.dns_domain = domain.into();
        store.update_settings(&Actor::system(), settings).await.unwrap()
    };
    let looked_up = async |on| {
        let mut settings = store.account().await.unwrap().settings;
        settings.routing_peer_dns_resolution_enabled = on;
        store.update_settings(&Actor::system(), settings).await.unwrap()
    };
    let networks = store.networks().await.unwrap();
    let network = networks.into_iter().find(|network| network.name == "near").unwrap().id;
    let resource = |address: &str, opened: bool| ResourceChange {
        name: address.into(),
        description: String::new(),
        address: address.into(),
        enabled: true,
        groups: opened.then(|| world.web.clone()).into_iter().collect(),
    };
    let www = |content: &str| record("www.lab.example", RecordKind::Aaaa, content);
    let (mut lab, mut made, mut split) = (String::new(), String::new(), String::new());
    let mut wrong = Vec::new();
    lines! { world, wrong;
        "a zone without a record": images "", overlays "",
            lab = store.create_zone(&actor, zone("lab.example", &[&users])).await.unwrap().id;
        "its first record": images "", overlays "user",
            made = store.create_record(&actor, &lab, www("fd20::10")).await.unwrap().id;
        "the same record again": images "", overlays "",
            store.update_record(&actor, &lab, &made, www("fd20::10")).await.unwrap();
        "another address": images "", overlays "user",
            store.update_record(&actor, &lab, &made, www("fd20::11")).await.unwrap();
        "the zone for another group too": images "", overlays "idle",
            store.update_zone(&actor, &lab, zone("lab.example", &[&users, &idle])).await.unwrap();
        "the same zone again": images "", overlays "",
            store.update_zone(&actor, &lab, zone("lab.example", &[&users, &idle])).await.unwrap();
        "another name of the zone, which agents do not see": images "", overlays "",
            {
                let renamed = ZoneSpec { name: "renamed".into(), ..zone("lab.example", &[&users, &idle]) };
                store.update_zone(&actor, &lab, renamed).await.unwrap()
            };
        "a peer enters one of its groups": images "", overlays "far",
            store.update_group(&actor, &idle, members("unused", &[idle_id.clone(), far_id.clone()])).await.unwrap();
        "and leaves it": images "", overlays "far",
            store.update_group(&actor, &idle, members("unused", std::slice::from_ref(&idle_id))).await.unwrap();
        "the zone off": images "", overlays "user idle",
            {
                let off = ZoneSpec { enabled: false, ..zone("lab.example", &[&users, &idle]) };
                store.update_zone(&actor, &lab, off).await.unwrap()
            };
        "a record of a zone that is off": images "", overlays "",
            store.update_record(&actor, &lab, &made, www("fd20::12")).await.unwrap();
        "the zone on": images "", overlays "user idle",
            store.update_zone(&actor, &lab, zone("lab.example", &[&users, &idle])).await.unwrap();
        "its last record away": images "", overlays "user idle",
            store.delete_record(&actor, &lab, &made).await.unwrap();
        "the zone away": images "", overlays "",
            store.delete_zone(&actor, &lab).await.unwrap();
        "nameservers for everybody": images "", overlays "near far user idle",
            split = store.create_nameserver_group(&actor, servers(&["corp.example"], &[&everybody])).await.unwrap().id;
        "the same nameservers again": images "", overlays "",
            store.update_nameserver_group(&actor, &split, servers(&["corp.example"], &[&everybody])).await.unwrap();
        "nameservers for some": images "", overlays "near far idle",
            store.update_nameserver_group(&actor, &split, servers(&["corp.example"], &[&users])).await.unwrap();
        "other domains of theirs": images "", overlays "user",
            store.update_nameserver_group(&actor, &split, servers(&[], &[&users])).await.unwrap();
        "C-18, nameservers that are peers": images "", overlays "user",
            {
                let group = nameservers("split", &[own.ip.into(), own.ipv6.into()], &[], &[&users]);
                store.update_nameserver_group(&actor, &split, group).await.unwrap()
            };
        "nameservers away that nobody was told of": images "", overlays "",
            store.delete_nameserver_group(&actor, &split).await.unwrap();
        "a group whose DNS is not managed": images "", overlays "idle",
            store.set_dns_disabled_groups(&actor, [idle.clone()].into()).await.unwrap();
        "the same setting again": images "", overlays "",
            store.set_dns_disabled_groups(&actor, [idle.clone()].into()).await.unwrap();
        "another zone of the peers, for all but that one": images "", overlays "near far user",
            setting("corp.example").await;
        "the DNS of all managed": images "", overlays "idle",
            store.set_dns_disabled_groups(&actor, [].into()).await.unwrap();
        "a DNS label, of which the neighbours and the peer itself hear": images "", overlays "near far user",
            store.update_peer(&actor, &user_id, change("Laptop")).await.unwrap();
        "a wildcard that a rule opens": images "", overlays "near user",
            store.create_resource(&actor, &network, resource("*.example.org", true)).await.unwrap();
        "names that are not looked up": images "", overlays "near user",
            looked_up(false).await;
        "and are again": images "", overlays "near user",
            looked_up(true).await;
        "a name that no rule opens, of which its router hears": images "", overlays "near",
            store.create_resource(&actor, &network, resource("db.example.com", false)).await.unwrap();
        "the same name again": images "", overlays "",
            store.update_peer(&actor, &user_id, change("Laptop")).await.unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
