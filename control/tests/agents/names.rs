//! Domain resources, from what a router looks up to the images and routes of those that it concerns.

use std::net::IpAddr;

use sluicegate_api::agent::{Learned, LearnedAddress, ReportRequest, Role};
use sluicegate_control::store::{Actor, ResourceChange, RouterChange};

use crate::support::{Control, FakeAgent, Session};

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
    control.policy("web", &users, &web, 443).await;
    let first = connected(&control, first).await;
    let second = connected(&control, second).await;
    let user = connected(&control, user).await;
    let stranger = connected(&control, stranger).await;
    Site { control, resource, network, first, second, user, stranger }
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

impl Site {
    async fn says(&mut self, name: &str, addresses: &[&str]) {
        let report = says(&self.resource, name, addresses);
        self.first.1.client.report(report).await.unwrap();
    }

    async fn addresses(&self) -> Vec<String> {
        let resource = self.control.store.resource(&self.network, &self.resource).await.unwrap();
        resource.addresses.iter().map(ToString::to_string).collect()
    }

    /// Connects anew, and is told everything.
    async fn again(&mut self) {
        for (agent, session) in [&mut self.first, &mut self.second, &mut self.user] {
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
}

#[tokio::test]
async fn an_address_counts_while_any_router_says_it() {
    let mut site = site(NAME).await;
    site.says(NAME, &["10.1.0.7", "fd01::7"]).await;
    let again = says(&site.resource, NAME, &["fd01::7", "fd01::8"]);
    site.second.1.client.report(again).await.unwrap();
    assert_eq!(site.addresses().await, ["10.1.0.7", "fd01::7", "fd01::8"]);
    let revision = site.control.store.revision().await.unwrap();
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
