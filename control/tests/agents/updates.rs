//! Which agents a change concerns: one line for each kind of change, with who gets a new image and who a new overlay.

use std::collections::BTreeMap;

use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{Role, Schedule};
use sluicegate_control::store::{
    self, Actor, Enrollment, GroupChange, NetworkChange, NewInvite, NewSetupKey, PeerChange, PeerFacts,
    PostureCheckChange, ResourceChange, RouteSpec, RouterChange, Source, Store, Told, User, UserChange,
    UserRole,
};
use sluicegate_policy::posture::{Checks, MinVersion};

use crate::support::{Control, FakeAgent, Session, policy, soon};

/// Two sites behind gateways, a peer that may reach the near one, and a peer that may reach nothing.
pub(crate) struct World {
    pub(crate) control: Control,
    pub(crate) agents: [(&'static str, FakeAgent); 4],
    /// Images are made for whoever is there.
    _sessions: Vec<Session>,
    pub(crate) users: String,
    pub(crate) web: String,
    pub(crate) idle: String,
    policy: String,
    network: String,
    resource: String,
    router: String,
    route: String,
}

impl World {
    pub(crate) async fn new() -> Self {
        let control = Control::start().await;
        control.no_default_policy().await;
        let (near, far) = (control.join(Role::Gateway).await, control.join(Role::Gateway).await);
        let (user, idle) = (control.join(Role::Peer).await, control.join(Role::Peer).await);
        let users = control.group("users", &[&user]).await;
        let (web, other) = (control.group("web", &[]).await, control.group("other", &[]).await);
        let unused = control.group("unused", &[&idle]).await;
        let resource = control.site("near", "10.1.0.10", &near, &web).await;
        control.site("far", "10.2.0.0/16", &far, &other).await;
        let policy = control.policy("web", &users, &web, 443).await;
        let route = control.store.create_route(&Actor::system(), route(&far, &users)).await.unwrap().id;
        let near_network =
            control.store.networks().await.unwrap().into_iter().find(|n| n.name == "near").unwrap().id;
        let router = control.store.routers(Some(&near_network)).await.unwrap().remove(0).id;
        let mut agents = [("near", near), ("far", far), ("user", user), ("idle", idle)];
        control.settled().await;
        let mut sessions = Vec::new();
        for (_, agent) in &mut agents {
            let mut session = agent.sync(&control).await.unwrap();
            agent.apply(&mut session).await;
            sessions.push(session);
        }
        World {
            control,
            agents,
            _sessions: sessions,
            users,
            web,
            idle: unused,
            policy,
            network: near_network,
            resource,
            router,
            route,
        }
    }

    pub(crate) fn agent(&self, name: &str) -> &FakeAgent {
        &self.agents.iter().find(|(known, _)| *known == name).unwrap().1
    }

    pub(crate) fn store(&self) -> &Store {
        &self.control.store
    }

    /// Image and overlay that each agent is to have.
    async fn wanted(&self) -> BTreeMap<&'static str, (Vec<u8>, u64)> {
        self.control.settled().await;
        let wanted = self.agents.iter().map(|(name, agent)| {
            let overview = self.control.agents.hub().overview(&agent.id());
            (*name, (overview.wanted.unwrap().hash.to_vec(), overview.network_serial))
        });
        wanted.collect()
    }

    /// Makes a change, and says who got a new image and who a new overlay.
    pub(crate) async fn concerned(&self, change: impl Future<Output = ()>) -> (String, String) {
        let before = self.wanted().await;
        change.await;
        let after = self.wanted().await;
        let names = ["near", "far", "user", "idle"];
        let images = names.into_iter().filter(|name| before[name].0 != after[name].0);
        let overlays = names.into_iter().filter(|name| before[name].1 != after[name].1);
        (images.collect::<Vec<_>>().join(" "), overlays.collect::<Vec<_>>().join(" "))
    }
}

fn route(gateway: &FakeAgent, group: &str) -> RouteSpec {
    RouteSpec {
        network_id: "lab".into(),
        description: String::new(),
        network: "10.9.0.0/16".parse().unwrap(),
        peer: Some(gateway.id()),
        peer_groups: [].into(),
        metric: 100,
        masquerade: true,
        enabled: true,
        groups: [group.to_owned()].into(),
        access_control_groups: [].into(),
        keep_route: false,
        skip_auto_apply: false,
    }
}

pub(crate) fn change(name: &str) -> PeerChange {
    PeerChange {
        name: name.into(),
        ssh_enabled: false,
        login_expiration_enabled: false,
        inactivity_expiration_enabled: false,
        approval_required: None,
        ip: None,
        ipv6: None,
    }
}

/// A user whose machines are put into a group.
async fn ann(store: &Store, owner: &User, group: &str) -> User {
    let new = NewInvite {
        email: "ann@example.org".into(),
        name: "Ann".into(),
        role: UserRole::User,
        auto_groups: vec![group.into()],
        expires_in: None,
    };
    let (_, secret) = store.create_invite(owner, new).await.unwrap();
    store.accept_invite(&Source::default(), &secret, "correct horse battery").await.unwrap()
}

/// The text of a setup key whose peers are put into groups.
async fn joining(store: &Store, groups: &[&String]) -> String {
    let auto_groups = groups.iter().map(|id| (*id).clone()).collect();
    let key = NewSetupKey { name: "key".into(), auto_groups, ..NewSetupKey::default() };
    store.create_setup_key(&Actor::system(), key).await.unwrap().1
}

fn machine(which: u8, key: &str) -> Enrollment {
    Enrollment {
        setup_key: key.into(),
        wireguard_public_key: [which; 32],
        identity_key: [which; 32],
        role: store::Role::Peer,
        hostname: format!("host-{which}"),
        os: "linux".into(),
        kernel_version: "6.12".into(),
        version: "0.1.0".into(),
        connection_ip: None,
        dns_labels: Vec::new(),
    }
}

#[tokio::test]
async fn a_break_glass_policy_ends_by_the_clock_though_nothing_is_written() {
    let control = Control::start().await;
    control.no_default_policy().await;
    let mut gateway = control.join(Role::Gateway).await;
    let user = control.join(Role::Peer).await;
    let users = control.group("users", &[&user]).await;
    let web = control.group("web", &[]).await;
    control.site("site", "10.1.0.10", &gateway, &web).await;
    let policy = control.policy("emergency", &users, &web, 443).await;
    control.store.limit_break_glass(&Actor::system(), &policy, Some(60)).await.unwrap();
    control.settled().await;
    let mut session = gateway.sync(&control).await.unwrap();
    gateway.apply(&mut session).await;
    let off = gateway.held.as_ref().unwrap().1.hash();

    control.store.break_glass_on(&Actor::system(), &policy, 3, "a test").await.unwrap();
    let revision = control.store.revision().await.unwrap();
    gateway.apply(&mut session).await;
    assert_ne!(gateway.held.as_ref().unwrap().1.hash(), off);
    gateway.apply(&mut session).await;
    assert_eq!(gateway.held.as_ref().unwrap().1.hash(), off);
    assert_eq!(control.store.revision().await.unwrap(), revision);
}

/// The images of an agent, with what ends of them; `None` while there is nothing to be told but of the overlay.
async fn told(session: &mut Session) -> (Option<Update>, Option<Schedule>) {
    loop {
        let message = soon("an update", session.stream.message()).await.unwrap().unwrap();
        if !matches!(message.update, Some(Update::Network(_))) {
            return (message.update, message.schedule);
        }
    }
}

#[tokio::test]
async fn when_a_break_glass_policy_ends_is_told_ahead_to_both_sides_and_nobody_else() {
    let control = Control::start().await;
    control.no_default_policy().await;
    let (gateway, far) = (control.join(Role::Gateway).await, control.join(Role::Gateway).await);
    let user = control.join(Role::Peer).await;
    let users = control.group("users", &[&user]).await;
    let (web, other) = (control.group("web", &[]).await, control.group("other", &[]).await);
    control.site("site", "10.1.0.10", &gateway, &web).await;
    control.site("far", "10.2.0.10", &far, &other).await;
    let policy = control.policy("emergency", &users, &web, 443).await;
    let actor = Actor::system();
    control.store.limit_break_glass(&actor, &policy, Some(3600)).await.unwrap();
    control.settled().await;
    let mut sessions = Vec::new();
    let mut before = Vec::new();
    for agent in [&gateway, &user, &far] {
        let mut session = agent.sync_following(&control).await;
        let (update, schedule) = told(&mut session).await;
        let Some(Update::Snapshot(snapshot)) = update else { panic!("{update:?}") };
        assert_eq!(schedule, None, "nothing ends");
        agent.say(&mut session, snapshot.revision, &snapshot.hash).await;
        before.push(snapshot.hash);
        sessions.push(session);
    }
    let until = control.store.break_glass_on(&actor, &policy, 600, "a test").await.unwrap();
    let at = until.break_glass.unwrap().until.unwrap().unsigned_abs();
    let (mut revisions, mut granted) = (Vec::new(), None);
    for (place, agent) in [&gateway, &user].into_iter().enumerate() {
        let (update, schedule) = told(&mut sessions[place]).await;
        let Some(Update::Delta(delta)) = update else { panic!("{update:?}") };
        let schedule = schedule.unwrap();
        let [end] = &schedule.ends[..] else { panic!("{schedule:?}") };
        assert_eq!((&schedule.base_hash, &end.hash), (&delta.hash, &before[place]), "it is as before then");
        assert_eq!((end.at_ms, end.revision), (at, delta.revision + 1));
        assert!((500_000..=600_000).contains(&end.left_ms), "{}", end.left_ms);
        agent.say(&mut sessions[place], delta.revision, &delta.hash).await;
        revisions.push(end.revision);
        granted.get_or_insert(delta.hash);
    }
    let granted = granted.unwrap();
    // It is extended: the image is the same, and when it ends is not.
    control.store.break_glass_on(&actor, &policy, 3000, "a test").await.unwrap();
    for session in &mut sessions[..2] {
        let (update, schedule) = told(session).await;
        assert_eq!((update, schedule.unwrap().ends[0].left_ms > 2_000_000), (None, true));
    }
    // An agent had ended it by itself before it heard of that: it has the grant again.
    gateway.say(&mut sessions[0], revisions[0], &before[0]).await;
    let (update, schedule) = told(&mut sessions[0]).await;
    let Some(Update::Delta(delta)) = update else { panic!("{update:?}") };
    assert_eq!((&delta.base_hash, &delta.hash), (&before[0], &granted));
    assert_eq!(schedule.unwrap().ends[0].hash, before[0]);
    gateway.say(&mut sessions[0], delta.revision, &delta.hash).await;
    let overview = control.agents.hub().overview(&gateway.id());
    assert_eq!(overview.applied.unwrap().held, overview.wanted.unwrap());
    // It is turned off by hand: nothing ends any more.
    control.store.break_glass_off(&actor, &policy).await.unwrap();
    let (update, schedule) = told(&mut sessions[1]).await;
    assert!(matches!(update, Some(Update::Delta(delta)) if delta.hash == before[1]) && schedule.is_none());
    // Whom it does not concern has been told nothing since the first image.
    let far_overview = control.agents.hub().overview(&far.id());
    assert_eq!(far_overview.wanted.unwrap().hash[..], before[2][..]);
    control.settled().await;
    drop(control.policy("other", &users, &other, 22).await);
    let (update, schedule) = told(&mut sessions[2]).await;
    assert!(matches!(update, Some(Update::Delta(_))) && schedule.is_none(), "the next it hears of is that");
}

/// The lines: what is done, and what it is to be to whom.
macro_rules! lines {
    ($world:ident, $wrong:ident; $($what:literal: images $images:literal, overlays $overlays:literal, $done:expr;)*) => {
        $({
            let told = $world.concerned(Box::pin(async { $done; })).await;
            if told != ($images.to_owned(), $overlays.to_owned()) {
                $wrong.push(format!("{}: images {:?}, overlays {:?}", $what, told.0, told.1));
            }
        })*
    };
}
pub(crate) use lines;

#[tokio::test]
async fn a_change_reaches_whom_it_concerns_and_nobody_else() {
    let world = World::new().await;
    let (store, actor) = (world.store(), Actor::system());
    let (users, web, user, idle) =
        (&world.users, &world.web, world.agent("user").id(), world.agent("idle").id());
    let group = |name: &str, peers: &[&String], resources: &[&String]| GroupChange {
        name: name.into(),
        peers: peers.iter().map(|id| (*id).clone()).collect(),
        resources: resources.iter().map(|id| (*id).clone()).collect(),
    };
    let router = |metric, masquerade| RouterChange {
        peer: Some(world.agent("near").id()),
        peer_groups: Vec::new(),
        metric,
        masquerade,
        enabled: true,
    };
    let resource = |address: &str| ResourceChange {
        name: "near resource".into(),
        description: String::new(),
        address: address.into(),
        enabled: true,
        groups: vec![web.clone()],
    };
    let mut disabled = policy("web", users, web, 8443);
    disabled.enabled = false;
    let described = {
        let mut described = policy("web", users, web, 8443);
        described.description = "for browsers".into();
        described
    };
    let lab = |change: fn(&mut RouteSpec)| {
        let mut spec = route(world.agent("far"), users);
        change(&mut spec);
        spec
    };
    let owner = store.users().await.unwrap().remove(0);
    let ann = ann(store, &owner, users).await;
    let blocked = |blocked| UserChange {
        role: UserRole::User,
        blocked: Some(blocked),
        auto_groups: vec![users.clone()],
    };
    let version = |least: &str| PostureCheckChange {
        name: "fresh".into(),
        description: String::new(),
        checks: Checks {
            client_version: Some(MinVersion { min_version: least.into() }),
            ..Checks::default()
        },
    };
    let mut check = String::new();
    let mut wrong = Vec::new();
    lines! { world, wrong;
        "another port": images "near user", overlays "",
            store.update_policy(&actor, &world.policy, policy("web", users, web, 8443)).await.unwrap();
        "the same policy again": images "", overlays "",
            store.update_policy(&actor, &world.policy, policy("web", users, web, 8443)).await.unwrap();
        "a description": images "", overlays "",
            store.update_policy(&actor, &world.policy, described).await.unwrap();
        "a policy off": images "near user", overlays "near user",
            store.update_policy(&actor, &world.policy, disabled).await.unwrap();
        "and on": images "near user", overlays "near user",
            store.update_policy(&actor, &world.policy, policy("web", users, web, 8443)).await.unwrap();
        "a group nothing names": images "", overlays "",
            store.create_group(&actor, group("more", &[&idle], &[])).await.unwrap();
        "another name of a group": images "", overlays "",
            store.update_group(&actor, &world.idle, group("renamed", &[&idle], &[])).await.unwrap();
        "a peer joins a group": images "near far idle", overlays "near far idle",
            store.update_group(&actor, users, group("users", &[&user, &idle], &[])).await.unwrap();
        "and leaves it": images "near far idle", overlays "near far idle",
            store.update_group(&actor, users, group("users", &[&user], &[])).await.unwrap();
        "a resource leaves its group": images "near user", overlays "near user",
            store.update_group(&actor, web, group("web", &[], &[])).await.unwrap();
        "and comes back": images "near user", overlays "near user",
            store.update_group(&actor, web, group("web", &[], &[&world.resource])).await.unwrap();
        "another address of a resource": images "near user", overlays "near user",
            store.update_resource(&actor, &world.network, &world.resource, resource("10.1.0.11")).await.unwrap();
        "another metric of a router": images "", overlays "near user",
            store.update_router(&actor, &world.network, &world.router, router(200, true)).await.unwrap();
        "no masquerade": images "near", overlays "near",
            store.update_router(&actor, &world.network, &world.router, router(200, false)).await.unwrap();
        "another name of a network": images "", overlays "",
            store.update_network(&actor, &world.network, NetworkChange { name: "new".into(), description: String::new() })
                .await.unwrap();
        "another prefix of a route": images "far user", overlays "far user",
            store.update_route(&actor, &world.route, lab(|s| s.network = "10.8.0.0/16".parse().unwrap())).await.unwrap();
        "a route to be kept, which is about domains": images "", overlays "",
            store.update_route(&actor, &world.route,
                lab(|s| (s.network, s.keep_route) = ("10.8.0.0/16".parse().unwrap(), true))).await.unwrap();
        "a route by choice": images "", overlays "user",
            store.update_route(&actor, &world.route,
                lab(|s| (s.network, s.skip_auto_apply) = ("10.8.0.0/16".parse().unwrap(), true))).await.unwrap();
        "a route away": images "far user", overlays "far user",
            store.delete_route(&actor, &world.route).await.unwrap();
        "another name of a peer": images "", overlays "near user",
            store.update_peer(&actor, &user, change("renamed")).await.unwrap();
        "a suspended peer": images "near user", overlays "near user",
            store.update_peer(&actor, &user, PeerChange { approval_required: Some(true), ..change("renamed") })
                .await.unwrap();
        "and approved again": images "near user", overlays "near user",
            store.update_peer(&actor, &user, PeerChange { approval_required: Some(false), ..change("renamed") })
                .await.unwrap();
        "a setting": images "", overlays "",
            {
                let mut settings = store.account().await.unwrap().settings;
                settings.peer_login_expiration = 3600;
                store.update_settings(&actor, settings).await.unwrap()
            };
        "no flow events": images "", overlays "near far user idle",
            {
                let mut settings = store.account().await.unwrap().settings;
                settings.extra.network_traffic_logs_enabled = false;
                store.update_settings(&actor, settings).await.unwrap()
            };
        "a join into no group that a policy names": images "", overlays "",
            store.enroll(&machine(1, &joining(store, &[&world.idle]).await)).await.unwrap();
        "a join into the sources of a policy": images "near", overlays "near",
            store.enroll(&machine(2, &joining(store, &[users]).await)).await.unwrap();
        "a user who logs in on a machine": images "near", overlays "near",
            store.enroll(&machine(3, &store.create_join_key(&ann).await.unwrap().0)).await.unwrap();
        "the user blocked": images "near", overlays "near",
            store.update_user(&owner, &ann.id, blocked(true)).await.unwrap();
        "and let in again": images "near", overlays "near",
            store.update_user(&owner, &ann.id, blocked(false)).await.unwrap();
        "facts that nothing asks for": images "", overlays "",
            {
                let system = PeerFacts { version: "0.1.0".into(), ..PeerFacts::default() };
                store.note_facts(&user, &Told { system, ..Told::default() }).await.unwrap()
            };
        "a posture check that nothing asks for": images "", overlays "",
            check = store.create_posture_check(&actor, version("0.1.0")).await.unwrap().id;
        "a posture check that every source passes": images "", overlays "",
            {
                let mut asking = policy("web", users, web, 8443);
                asking.source_posture_checks = vec![check.clone()];
                store.update_policy(&actor, &world.policy, asking).await.unwrap()
            };
        "the check edited, and passed": images "", overlays "",
            store.update_posture_check(&actor, &check, version("0.0.9")).await.unwrap();
        "the check edited, and failed": images "near user", overlays "near user",
            store.update_posture_check(&actor, &check, version("9.0.0")).await.unwrap();
        "and passed again": images "near user", overlays "near user",
            store.update_posture_check(&actor, &check, version("0.1.0")).await.unwrap();
        // Every agent has another address then, which is in its own image.
        "another overlay range": images "near far user idle", overlays "near far user idle",
            {
                let mut settings = store.account().await.unwrap().settings;
                // An account begins with one by chance.
                let mut ranges = ["100.99.0.0/16", "100.98.0.0/16"].into_iter();
                settings.network_range = ranges.find(|range| *range != settings.network_range).unwrap().into();
                settings.network_range_v6 = "fd12:3456:789a::/64".into();
                store.update_settings(&actor, settings).await.unwrap()
            };
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
