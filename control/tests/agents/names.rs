//! Domain resources, from what a router looks up to the images and routes of those that it concerns.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sluicegate_api::agent::{Learned, LearnedAddress, Name, ReportRequest, Role};
use sluicegate_control::store::{
    self, Action, Actor, End, GroupChange, PeerFacts, PostureCheckChange, ResourceChange, RouterChange, Told,
};
use sluicegate_policy::posture::{Checks, MinVersion};

use crate::flows::Rest;
use crate::support::{Control, FakeAgent, Session, policy, soon};

const NAME: &str = "db.example.org";

/// A site with a domain resource and a second router, and a user who may reach it.
struct Site {
    control: Control,
    resource: String,
    network: String,
    first: (FakeAgent, Session),
    second: (FakeAgent, Session),
    user: (FakeAgent, Session),
    stranger: (FakeAgent, Session),
    users: String,
    web: String,
    policy: String,
}

async fn connected(control: &Control, mut agent: FakeAgent) -> (FakeAgent, Session) {
    control.settled().await;
    let mut session = agent.sync(control).await.unwrap();
    agent.apply(&mut session).await;
    (agent, session)
}

async fn site(address: &str) -> Site {
    let control = Control::start().await;
    control.no_default_policy().await;
    let (first, second) = (control.join(Role::Gateway).await, control.join(Role::Gateway).await);
    let (user, stranger) = (control.join(Role::Peer).await, control.join(Role::Gateway).await);
    let (users, web) = (control.group("users", &[&user]).await, control.group("web", &[]).await);
    let resource = control.site("site", address, &first, &web).await;
    let network = control.store.networks().await.unwrap().remove(0).id;
    let router = RouterChange {
        peer: Some(second.id()),
        peer_groups: Vec::new(),
        metric: 200,
        masquerade: true,
        enabled: true,
    };
    control.store.create_router(&Actor::system(), &network, router).await.unwrap();
    let policy = control.policy("web", &users, &web, 443).await;
    let first = connected(&control, first).await;
    let second = connected(&control, second).await;
    let user = connected(&control, user).await;
    let stranger = connected(&control, stranger).await;
    Site { control, resource, network, first, second, user, stranger, users, web, policy }
}

/// What a router says of one name.
fn says(resource: &str, name: &str, addresses: &[&str]) -> ReportRequest {
    let learned = |text: &&str| LearnedAddress {
        resource_id: resource.to_owned(),
        name: name.to_owned(),
        address: match text.parse().unwrap() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        },
    };
    let learned = Learned { addresses: addresses.iter().map(learned).collect() };
    ReportRequest { learned: Some(learned), ..ReportRequest::default() }
}

fn routed(agent: &FakeAgent) -> Vec<&str> {
    agent.network.as_ref().unwrap().routed.iter().map(|routed| routed.prefix.as_str()).collect()
}

fn routes(agent: &FakeAgent) -> Vec<&str> {
    agent.network.as_ref().unwrap().routes.iter().map(|route| route.prefix.as_str()).collect()
}

fn names(agent: &FakeAgent) -> Vec<&str> {
    agent.network.as_ref().unwrap().names.iter().map(|name| name.name.as_str()).collect()
}

/// The names that an agent is to ask routers for, each with those routers and their metrics.
fn asked(agent: &FakeAgent) -> Vec<(&str, Vec<(&str, u32)>)> {
    let resolver = agent.network.as_ref().unwrap().resolver.as_ref().unwrap();
    let mut asked = Vec::new();
    for routed in &resolver.routed {
        let routers = routed.routers.iter().map(|router| (router.peer_id.as_str(), router.metric));
        asked.push((routed.name.as_str(), routers.collect()));
    }
    asked
}

/// The peers that may ask a router for each of its names.
fn askers(agent: &FakeAgent) -> Vec<(&str, Vec<&str>)> {
    let network = agent.network.as_ref().unwrap();
    let peer = |&place: &u32| network.peers[place as usize].id.as_str();
    let askers = |name: &Name| match name.askers.checked_sub(1) {
        Some(place) => network.askers[place as usize].peers.iter().map(peer).collect(),
        None => Vec::new(),
    };
    network.names.iter().map(|name| (name.name.as_str(), askers(name))).collect()
}

impl Site {
    async fn says(&mut self, name: &str, addresses: &[&str]) {
        let report = says(&self.resource, name, addresses);
        self.first.1.client.report(report).await.unwrap();
    }

    async fn addresses(&self) -> Vec<String> {
        let resource = self.control.store.resource(&self.network, &self.resource).await.unwrap();
        resource.addresses.iter().map(ToString::to_string).collect()
    }

    /// What REST says of them.
    async fn shown(&self) -> Vec<String> {
        let rest = Rest::of(&self.control).await;
        let shown = rest.get(&format!("/api/networks/{}/resources/{}", self.network, self.resource)).await;
        rest.end().await;
        let addresses = shown["addresses"].as_array();
        addresses.into_iter().flatten().map(|address| address.as_str().unwrap().to_owned()).collect()
    }

    /// Connects anew, and is told everything.
    async fn again(&mut self) {
        let agents = [&mut self.first, &mut self.second, &mut self.user, &mut self.stranger];
        for (agent, session) in agents {
            self.control.settled().await;
            (agent.held, agent.network) = (None, None);
            *session = agent.sync(&self.control).await.unwrap();
            agent.apply(session).await;
        }
    }
}

#[tokio::test]
async fn what_a_router_looks_up_is_open_at_both_routers_and_routed_by_users() {
    let mut site = site(NAME).await;
    assert_eq!((names(&site.first.0), names(&site.second.0)), (vec![NAME], vec![NAME]));
    assert!(names(&site.user.0).is_empty() && names(&site.stranger.0).is_empty());
    assert_eq!((routed(&site.first.0).len(), routes(&site.user.0).len()), (0, 0));
    assert!(site.first.0.held.as_ref().unwrap().1.rules.is_empty());

    site.says(NAME, &["10.1.0.7", "2001:db8:1::7"]).await;
    for (agent, session) in [&mut site.first, &mut site.second, &mut site.user] {
        agent.apply(session).await;
    }
    let both = ["10.1.0.7/32", "2001:db8:1::7/128"];
    assert_eq!((routed(&site.first.0), routed(&site.second.0)), (both.to_vec(), both.to_vec()));
    assert_eq!(routes(&site.user.0), both);
    assert_eq!(site.first.0.held.as_ref().unwrap().1.rules.len(), 1);
    assert_eq!(site.addresses().await, ["10.1.0.7", "2001:db8:1::7"]);

    // The name stands for something else now.
    site.says(NAME, &["10.1.0.8"]).await;
    for (agent, session) in [&mut site.first, &mut site.second, &mut site.user] {
        agent.apply(session).await;
    }
    assert_eq!((routed(&site.second.0), routes(&site.user.0)), (vec!["10.1.0.8/32"], vec!["10.1.0.8/32"]));

    let events = site.control.store.events().await.unwrap();
    let mut events = events.iter().filter(|event| event.code == "network.resource.addresses");
    let newest = events.next().unwrap();
    assert_eq!(newest.initiator.id, site.first.0.id());
    assert_eq!(newest.target_id, site.resource);
    assert_eq!(newest.meta["before"], r#"{"addresses":["10.1.0.7","2001:db8:1::7"]}"#);
    assert_eq!(newest.meta["after"], r#"{"addresses":["10.1.0.8"]}"#);
    assert_eq!(events.count(), 1);

    // What stays is not told again.
    site.says(NAME, &["10.1.0.8", "2001:db8:1::8"]).await;
    let events = site.control.store.events().await.unwrap();
    let newest = events.iter().find(|event| event.code == "network.resource.addresses").unwrap();
    let said = ["before", "after", "addresses"].map(|key| newest.meta[key].as_str());
    assert_eq!(said, [r#"{"addresses":[]}"#, r#"{"addresses":["2001:db8:1::8"]}"#, "2"]);
}

#[tokio::test]
async fn an_address_counts_while_any_router_says_it() {
    let mut site = site(NAME).await;
    site.says(NAME, &["10.1.0.7", "fd01::7"]).await;
    let again = says(&site.resource, NAME, &["fd01::7", "fd01::8"]);
    site.second.1.client.report(again).await.unwrap();
    assert_eq!(site.addresses().await, ["10.1.0.7", "fd01::7", "fd01::8"]);
    let revision = site.control.store.revision().await.unwrap();
    // A router that is not heard for now waits for no other change, also when what it says is nothing new of the resource.
    let store = &site.control.store;
    let said = ["10.1.0.7", "fd01::7", "fd01::8"].map(|address| store::Learned {
        resource: site.resource.clone(),
        name: NAME.into(),
        address: address.parse().unwrap(),
    });
    let unit = store.unit().await.unwrap();
    let second = site.second.0.id();
    let heard = soon("an answer", store.note_learned(&second, &said.into(), || false)).await.unwrap();
    assert_eq!(heard, None);
    drop(unit);
    assert_eq!(store.revision().await.unwrap(), revision);
    // Nothing that is new.
    site.says(NAME, &["10.1.0.7", "fd01::7"]).await;
    site.says(NAME, &["10.1.0.7", "fd01::7", "fd01::8"]).await;
    site.says(NAME, &["10.1.0.7"]).await;
    assert_eq!(site.control.store.revision().await.unwrap(), revision);
    site.says(NAME, &[]).await;
    assert_eq!(site.addresses().await, ["fd01::7", "fd01::8"]);

    // Who is no router any more says nothing, whatever it said.
    let second = site.second.0.id();
    let routers = site.control.store.routers(Some(&site.network)).await.unwrap();
    let router = routers.into_iter().find(|router| router.peer.as_ref() == Some(&second)).unwrap();
    let change = RouterChange {
        peer: router.peer,
        peer_groups: Vec::new(),
        metric: router.metric,
        masquerade: true,
        enabled: false,
    };
    site.control.store.update_router(&Actor::system(), &site.network, &router.id, change).await.unwrap();
    assert!(site.addresses().await.is_empty());
    site.again().await;
    assert!(routes(&site.user.0).is_empty() && names(&site.second.0).is_empty());
    let report = says(&site.resource, NAME, &["fd01::9"]);
    site.second.1.client.report(report).await.unwrap();
    assert!(site.addresses().await.is_empty());
}

#[tokio::test]
async fn what_is_no_routers_to_say_or_may_be_no_resource_is_not_taken() {
    let mut site = site("*.example.org").await;
    let overlay = site.user.0.network.as_ref().unwrap();
    let own = [&overlay.address_v4, &overlay.address_v6].map(|own| own.split('/').next().unwrap().to_owned());
    let revision = site.control.store.revision().await.unwrap();
    for wrong in ["example.org", "db.example.com", "db.badexample.org"] {
        site.says(wrong, &["10.1.0.7", "fd01::7"]).await;
    }
    for wrong in [
        "127.0.0.1",
        "::1",
        "169.254.169.254",
        "fe80::1",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
        "fd00:ec2::254",
        "64:ff9b::169.254.169.254",
        &format!("64:ff9b::{}", own[0]),
        &own[0],
        &own[1],
    ] {
        site.says(NAME, &[wrong]).await;
    }
    for other in [&mut site.stranger, &mut site.user] {
        let report = says(&site.resource, NAME, &["10.1.0.7", "fd01::7"]);
        other.1.client.report(report).await.unwrap();
    }
    assert_eq!(site.control.store.revision().await.unwrap(), revision);
    let mut bad = says(&site.resource, NAME, &["10.1.0.7"]);
    bad.learned.as_mut().unwrap().addresses[0].address.push(1);
    let refused = site.first.1.client.report(bad).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);

    // Of names below the wildcard each stands for itself, and the resource for all of them.
    let mut report = says(&site.resource, "a.example.org", &["10.1.0.7", "10.1.0.9"]);
    let other = says(&site.resource, "b.c.example.org", &["10.1.0.7", "fd01::7"]);
    report.learned.as_mut().unwrap().addresses.extend(other.learned.unwrap().addresses);
    site.first.1.client.report(report).await.unwrap();
    assert_eq!(site.addresses().await, ["10.1.0.7", "10.1.0.9", "fd01::7"]);
    // So many of one name and no more.
    let many: Vec<String> = (0..70).map(|n| format!("10.2.0.{n}")).collect();
    site.says(NAME, &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(site.addresses().await.len(), 64);
    // And so many of all names below a wildcard.
    let mut report = says(&site.resource, NAME, &[]);
    for name in 0..20 {
        let many: Vec<String> = (0..60).map(|n| format!("fd02:{name}::{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let more = says(&site.resource, &format!("n{name}.example.org"), &many);
        report.learned.as_mut().unwrap().addresses.extend(more.learned.unwrap().addresses);
    }
    site.first.1.client.report(report).await.unwrap();
    assert_eq!(site.addresses().await.len(), 1024);
}

#[tokio::test]
async fn an_address_of_a_name_below_a_wildcard_is_open_while_a_router_says_it() {
    let mut site = site("*.example.org").await;
    let mut report = says(&site.resource, "a.example.org", &["10.1.0.7", "fd01::7"]);
    let other = says(&site.resource, "b.c.example.org", &["10.1.0.8"]);
    report.learned.as_mut().unwrap().addresses.extend(other.learned.unwrap().addresses);
    site.first.1.client.report(report).await.unwrap();
    for (agent, session) in [&mut site.first, &mut site.second, &mut site.user] {
        agent.apply(session).await;
    }
    let open = ["10.1.0.7/32", "10.1.0.8/32", "fd01::7/128"];
    assert_eq!((routed(&site.first.0), routed(&site.second.0)), (open.to_vec(), open.to_vec()));
    assert_eq!(routes(&site.user.0), open);
    assert_eq!(site.first.0.held.as_ref().unwrap().1.rules.len(), 1);
    assert_eq!(site.shown().await, ["10.1.0.7", "10.1.0.8", "fd01::7"]);

    // Of one name nothing is said any more.
    site.says("b.c.example.org", &["10.1.0.8"]).await;
    for (agent, session) in [&mut site.first, &mut site.second, &mut site.user] {
        agent.apply(session).await;
    }
    assert_eq!((routed(&site.second.0), routes(&site.user.0)), (vec!["10.1.0.8/32"], vec!["10.1.0.8/32"]));
    assert_eq!(site.shown().await, ["10.1.0.8"]);
    site.says("b.c.example.org", &[]).await;
    for (agent, session) in [&mut site.first, &mut site.second, &mut site.user] {
        agent.apply(session).await;
    }
    assert!(routed(&site.first.0).is_empty() && routes(&site.user.0).is_empty());
    assert!(site.first.0.held.as_ref().unwrap().1.rules.is_empty() && site.shown().await.is_empty());
    site.again().await;
    assert!(routes(&site.user.0).is_empty());
    assert_eq!(asked(&site.user.0).len(), 1, "it may ask all the same");
}

#[tokio::test]
async fn a_name_is_asked_of_its_routers_by_those_to_whom_a_rule_opens_it() {
    for name in [NAME, "*.example.org"] {
        let mut site = site(name).await;
        site.again().await;
        let [first, second, user] = [&site.first, &site.second, &site.user].map(|(agent, _)| agent.id());
        assert_eq!(asked(&site.user.0), [(name, vec![(&*first, 100), (&*second, 200)])]);
        for router in [&site.first.0, &site.second.0] {
            assert_eq!(askers(router), [(name, vec![&*user])]);
            assert!(asked(router).is_empty());
        }
        assert!(asked(&site.stranger.0).is_empty() && askers(&site.stranger.0).is_empty());

        // Whoever else the rule leads from; and no router, which asks its own name servers.
        let (stranger, actor) = (site.stranger.0.id(), Actor::system());
        let everybody = [&user, &stranger, &second].map(|id| (*id).clone());
        let group = GroupChange { name: "users".into(), peers: everybody.into(), resources: Vec::new() };
        site.control.store.update_group(&actor, &site.users, group).await.unwrap();
        site.again().await;
        let expected: BTreeSet<&str> = [&*user, &*stranger].into();
        for router in [&site.first.0, &site.second.0] {
            let [(_, askers)] = &askers(router)[..] else { panic!() };
            assert_eq!(askers.iter().copied().collect::<BTreeSet<_>>(), expected);
        }
        assert_eq!((asked(&site.stranger.0).len(), asked(&site.second.0).len()), (1, 0));
        assert_eq!(site.first.0.network.as_ref().unwrap().askers.len(), 1);
    }
}

/// Nobody asks any more, and nobody may; then all is as before.
async fn nobody_asks(site: &mut Site, why: &str) {
    site.again().await;
    assert!(asked(&site.user.0).is_empty(), "{why}");
    for router in [&site.first.0, &site.second.0] {
        assert!(askers(router).iter().all(|(_, askers)| askers.is_empty()), "{why}");
        assert!(router.network.as_ref().unwrap().askers.is_empty(), "{why}");
    }
}

#[tokio::test]
async fn what_no_rule_opens_is_asked_by_nobody() {
    for name in [NAME, "*.example.org"] {
        let mut site = site(name).await;
        let (store, actor) = (site.control.store.clone(), Actor::system());
        let (users, web, user) = (site.users.clone(), site.web.clone(), site.user.0.id());
        let opened = || policy("web", &users, &web, 443);
        let mut off = opened();
        off.enabled = false;
        store.update_policy(&actor, &site.policy, off).await.unwrap();
        nobody_asks(&mut site, "the policy is off").await;
        let mut drop = opened();
        drop.rules[0].spec.action = Action::Drop;
        store.update_policy(&actor, &site.policy, drop).await.unwrap();
        nobody_asks(&mut site, "the rule drops").await;

        let least = MinVersion { min_version: "9.0.0".into() };
        let check = PostureCheckChange {
            name: "fresh".into(),
            description: String::new(),
            checks: Checks { client_version: Some(least), ..Checks::default() },
        };
        let check = store.create_posture_check(&actor, check).await.unwrap().id;
        let mut asking = opened();
        asking.source_posture_checks = vec![check];
        store.update_policy(&actor, &site.policy, asking).await.unwrap();
        nobody_asks(&mut site, "posture fails").await;
        let system = PeerFacts { version: "9.0.1".into(), ..PeerFacts::default() };
        store.note_facts(&user, &Told { system, ..Told::default() }).await.unwrap();
        site.again().await;
        assert_eq!((asked(&site.user.0).len(), askers(&site.first.0)[0].1.len()), (1, 1), "it passes");

        store.update_policy(&actor, &site.policy, opened()).await.unwrap();
        let resource = |enabled| ResourceChange {
            name: "site resource".into(),
            description: String::new(),
            address: name.into(),
            enabled,
            groups: vec![web.clone()],
        };
        store.update_resource(&actor, &site.network, &site.resource, resource(false)).await.unwrap();
        nobody_asks(&mut site, "the resource is off").await;
        assert!(names(&site.first.0).is_empty());
        store.update_resource(&actor, &site.network, &site.resource, resource(true)).await.unwrap();
        let looked_up = async |on| {
            let mut settings = store.account().await.unwrap().settings;
            settings.routing_peer_dns_resolution_enabled = on;
            store.update_settings(&actor, settings).await.unwrap();
        };
        looked_up(false).await;
        nobody_asks(&mut site, "names are not looked up").await;
        looked_up(true).await;
        let mut single = opened();
        single.rules[0].spec.sources = End::Peer(user.clone());
        single.rules[0].spec.destinations = End::Resource(site.resource.clone());
        store.update_policy(&actor, &site.policy, single).await.unwrap();
        site.again().await;
        assert_eq!((asked(&site.user.0).len(), askers(&site.first.0)[0].1.len()), (1, 1), "by itself");
        store.set_dns_disabled_groups(&actor, [users.clone()].into()).await.unwrap();
        site.again().await;
        assert!(site.user.0.network.as_ref().unwrap().resolver.is_none());
    }
}

#[tokio::test]
async fn another_name_the_setting_and_a_router_that_stays_away_take_addresses_back() {
    let mut site = site(NAME).await;
    let (store, actor) = (site.control.store.clone(), Actor::system());
    let learn = async |site: &mut Site, name: &str| {
        site.says(name, &["10.1.0.7", "fd01::7"]).await;
        assert_eq!(site.addresses().await, ["10.1.0.7", "fd01::7"]);
    };
    learn(&mut site, NAME).await;
    let resource = store.resource(&site.network, &site.resource).await.unwrap();
    let change = |address: &str| ResourceChange {
        name: resource.name.clone(),
        description: "another".into(),
        address: address.into(),
        enabled: true,
        groups: resource.groups.iter().map(|group| group.id.clone()).collect(),
    };
    store.update_resource(&actor, &site.network, &site.resource, change(NAME)).await.unwrap();
    assert_eq!(site.addresses().await.len(), 2, "the name is the same");
    store.update_resource(&actor, &site.network, &site.resource, change("new.example.org")).await.unwrap();
    assert!(site.addresses().await.is_empty());
    site.again().await;
    assert_eq!((names(&site.first.0), routed(&site.first.0).len()), (vec!["new.example.org"], 0));

    learn(&mut site, "new.example.org").await;
    let looked_up = async |on| {
        let mut settings = store.account().await.unwrap().settings;
        settings.routing_peer_dns_resolution_enabled = on;
        store.update_settings(&Actor::system(), settings).await.unwrap();
    };
    looked_up(false).await;
    site.again().await;
    assert!(
        names(&site.first.0).is_empty()
            && routed(&site.first.0).is_empty()
            && routes(&site.user.0).is_empty()
    );
    assert!(site.first.0.held.as_ref().unwrap().1.rules.is_empty());
    looked_up(true).await;
    site.again().await;
    assert_eq!(routes(&site.user.0), ["10.1.0.7/32", "fd01::7/128"]);

    // While it is connected its word stands, however old.
    assert_eq!(store.forget_learned(i64::MAX).await.unwrap(), 0);
    let first = site.first.0.id();
    store.peer_disconnected(&first).await.unwrap();
    assert_eq!(store.forget_learned(0).await.unwrap(), 0);
    assert_eq!(store.forget_learned(i64::MAX).await.unwrap(), 1);
    assert!(site.addresses().await.is_empty());
    let events = store.events().await.unwrap();
    let told: Vec<&Actor> = events
        .iter()
        .filter(|event| event.code == "network.resource.addresses")
        .map(|event| &event.initiator)
        .collect();
    assert_eq!(*told[0], actor, "it is control that lets go of them");
    assert!(told.len() > 1 && told[1..].iter().all(|initiator| initiator.id == first), "{told:?}");
}
