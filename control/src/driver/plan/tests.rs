use sluicegate_policy::model::{Action, End, Group, Network, Peer, Policy, Resource, Rule, Service};

use super::*;
use crate::store::{Ending, Names};

pub(crate) const GATEWAY: &str = "gw";
pub(crate) const USER: &str = "user";
pub(crate) const OTHER: &str = "other";

pub(crate) fn snapshot() -> Snapshot {
    let peer = |last: u8| Peer {
        name: format!("name-{last}"),
        v4: [100, 90, 0, last].into(),
        v6: format!("fd5c::{last}").parse().unwrap(),
        allowed: true,
    };
    let agent = |last: u8, role| Agent {
        role,
        wireguard_public_key: [last; 32],
        endpoint: None,
        watched: Default::default(),
        dns_labels: [format!("name-{last}")].into(),
        login_expired: false,
    };
    let ids = [(GATEWAY, 2, Role::Gateway), (USER, 3, Role::Peer), (OTHER, 4, Role::Peer)];
    let groups = |id: &str| End::Groups([id.to_owned()].into());
    let rule = Rule {
        id: "r".into(),
        name: "web".into(),
        slot: 0,
        enabled: true,
        action: Action::Accept,
        bidirectional: false,
        service: Service::Tcp(vec![443..=443]),
        sources: groups("users"),
        destinations: groups("web"),
    };
    let policy = Policy {
        name: "web".into(),
        enabled: true,
        posture_failed: Default::default(),
        rules: vec![rule].into(),
    };
    let resource = Resource {
        name: "web".into(),
        prefixes: vec!["10.1.0.0/24".parse().unwrap()],
        enabled: true,
        domain: None,
        distribution: None,
    };
    let router = sluicegate_policy::model::Router {
        peers: [GATEWAY.to_owned()].into(),
        metric: 100,
        masquerade: true,
        enabled: true,
    };
    let network = Network {
        name: "site".into(),
        resources: [("res".to_owned(), resource)].into(),
        routers: [("rt".to_owned(), router)].into(),
    };
    let users = Group { name: "users".into(), peers: [USER.to_owned()].into(), ..Group::default() };
    let web = Group { name: "web".into(), resources: ["res".to_owned()].into(), ..Group::default() };
    let state = State {
        overlay_v4: "100.90.0.0/16".parse().unwrap(),
        overlay_v6: "fd5c::/64".parse().unwrap(),
        peers: ids.iter().map(|(id, last, _)| ((*id).to_owned(), peer(*last))).collect(),
        groups: [("users".to_owned(), users), ("web".to_owned(), web)].into(),
        networks: [("net".to_owned(), network)].into(),
        policies: [("p".to_owned(), policy)].into(),
    };
    let agents = ids.into_iter().map(|(id, last, role)| (id.to_owned(), agent(last, role))).collect();
    let flow_log = FlowLog { enabled: true, groups: Vec::new(), counters: true };
    Snapshot { revision: 7, state, agents, names: Names::default(), flow_log, ends: Vec::new() }
}

pub(crate) fn all(image: impl Fn(&str) -> Option<Arc<Compiled>>, current: bool) -> BTreeMap<String, Base> {
    let base = |id: &str| Base { image: image(id), later: Arc::default(), current };
    [GATEWAY, USER, OTHER].into_iter().map(|id| (id.to_owned(), base(id))).collect()
}

pub(crate) fn image(targets: &BTreeMap<String, Target>, agent: &str) -> Arc<Compiled> {
    targets[agent].image.clone().unwrap().0
}

/// A first compilation, and what a second one of `change`d state makes of it.
pub(crate) fn again(
    current: bool,
    change: impl FnOnce(&mut Snapshot),
) -> (BTreeMap<String, Target>, BTreeMap<String, Target>) {
    let before = Plan::new(snapshot(), None).unwrap();
    let first = before.targets(None, all(|_| None, true));
    let mut next = snapshot();
    change(&mut next);
    let bases = all(|id| Some(image(&first, id)), current);
    let second = Plan::new(next, Some(&before)).unwrap().targets(Some(&before), bases);
    (first, second)
}

#[test]
fn an_overlay_names_peers_routes_and_routed_prefixes() {
    let targets = Plan::new(snapshot(), None).unwrap().targets(None, all(|_| None, true));
    let gateway = targets[GATEWAY].network.as_ref().unwrap().whole();
    assert_eq!((gateway.address_v4.as_str(), gateway.address_v6.as_str()), ("100.90.0.2/16", "fd5c::2/64"));
    assert_eq!((gateway.routed[0].prefix.as_str(), gateway.routed[0].masquerade), ("10.1.0.0/24", true));
    assert_eq!((gateway.peers[0].id.as_str(), gateway.peers[0].wireguard_public_key[0]), (USER, 3));
    let user = targets[USER].network.as_ref().unwrap().whole();
    assert_eq!(
        (user.routes[0].routers[0].peer_id.as_str(), user.routes[0].routers[0].metric),
        (GATEWAY, 100)
    );
    assert!(targets[OTHER].network.as_ref().unwrap().peers.is_empty());
}

#[test]
fn agents_that_a_change_does_not_touch_are_not_compiled_again() {
    let (first, second) = again(true, |next| {
        next.state.policies.get_mut("p").unwrap().rules[0].service = Service::Tcp(vec![8443..=8443]);
    });
    assert!(Arc::ptr_eq(&image(&first, OTHER), &image(&second, OTHER)));
    assert!(second[OTHER].network.is_none());
    for touched in [GATEWAY, USER] {
        assert_ne!(image(&first, touched).hash, image(&second, touched).hash, "{touched}");
    }
}

#[test]
fn an_image_that_comes_out_the_same_is_the_same() {
    let (first, second) = again(true, |next| next.revision += 1);
    assert!([GATEWAY, USER, OTHER].iter().all(|id| Arc::ptr_eq(&image(&first, id), &image(&second, id))));
    // One that failed the last time is compiled again.
    let (first, second) = again(false, |next| next.revision += 1);
    assert!(second.values().all(|target| target.network.is_some()));
    assert!(Arc::ptr_eq(&image(&first, USER), &image(&second, USER)));
}

#[test]
fn a_new_endpoint_or_name_changes_overlays_and_no_image() {
    let endpoint = |next: &mut Snapshot| {
        next.agents.get_mut(GATEWAY).unwrap().endpoint = Some("[2001:db8::1]:51820".parse().unwrap());
    };
    let (first, second) = again(true, endpoint);
    assert_eq!(second[USER].network.as_ref().unwrap().peers[0].endpoint, "[2001:db8::1]:51820");
    assert!(Arc::ptr_eq(&image(&first, USER), &image(&second, USER)));
    let (_, second) = again(true, |next| next.state.peers.get_mut(GATEWAY).unwrap().name = "new".into());
    assert_eq!(second[USER].network.as_ref().unwrap().peers[0].name, "new");
}

#[test]
fn every_agent_is_told_what_to_tell_of_flows_and_no_image_changes() {
    let told = |targets: &BTreeMap<String, Target>| {
        targets
            .values()
            .map(|target| target.network.as_ref().map(|n| (n.rest.no_flow_events, n.rest.no_flow_counters)))
            .collect::<Vec<_>>()
    };
    let (first, second) = again(true, |next| next.flow_log.enabled = false);
    assert_eq!(told(&first), [Some((false, false)); 3]);
    assert_eq!(told(&second), [Some((true, false)); 3]);
    assert!([GATEWAY, USER, OTHER].iter().all(|id| Arc::ptr_eq(&image(&first, id), &image(&second, id))));
    let (_, second) = again(true, |next| next.flow_log.counters = false);
    assert_eq!(told(&second), [Some((false, true)); 3]);
    // Of whose flows events are kept is control's own to know.
    let (_, second) = again(true, |next| next.flow_log.groups = vec!["users".into()]);
    assert_eq!(told(&second), [None; 3]);
}

#[test]
fn a_state_that_contradicts_itself_is_not_compiled_and_says_why() {
    let mut broken = snapshot();
    broken.state.peers.get_mut(USER).unwrap().v4 = [192, 0, 2, 1].into();
    let reason = Plan::new(broken, None).err().unwrap();
    assert!(reason.contains("192.0.2.1"), "{reason}");
}

#[test]
fn gateways_are_those_that_joined_as_one_or_route_a_network() {
    let mut state = snapshot();
    state.state.networks.get_mut("net").unwrap().routers.get_mut("rt").unwrap().peers =
        [OTHER.to_owned()].into();
    let gateways: Vec<String> =
        roster(&state).into_iter().filter(|(_, member)| member.gateway).map(|(id, _)| id).collect();
    assert_eq!(gateways, [GATEWAY, OTHER]);
}

fn later(targets: &BTreeMap<String, Target>, agent: &str) -> Vec<(u64, Arc<Compiled>)> {
    let (_, later) = targets[agent].image.clone().unwrap();
    later.iter().map(|later| (later.at_ms, later.image.clone())).collect()
}

fn ending(at: i64) -> Ending {
    Ending { at, policies: vec!["p".to_owned()] }
}

#[test]
fn what_ends_is_compiled_ahead_for_those_it_concerns() {
    let mut bounded = snapshot();
    bounded.ends = vec![ending(1_000)];
    let plan = Plan::new(bounded, None).unwrap();
    let targets = plan.targets(None, all(|_| None, true));
    // What the same state is without the policy, compiled from the beginning.
    let mut over = snapshot();
    over.state.policies.get_mut("p").unwrap().enabled = false;
    let after = Plan::new(over, None).unwrap().targets(None, all(|_| None, true));
    for agent in [GATEWAY, USER] {
        let [(1_000, image)] = &later(&targets, agent)[..] else { panic!("{agent}") };
        assert_eq!(image.hash, self::image(&after, agent).hash, "{agent}");
        assert_ne!(image.hash, self::image(&targets, agent).hash, "{agent}");
    }
    assert!(later(&targets, OTHER).is_empty(), "its image is the same before and after");
    let ordinary = Plan::new(snapshot(), None).unwrap().targets(None, all(|_| None, true));
    assert!([GATEWAY, USER, OTHER].iter().all(|agent| later(&ordinary, agent).is_empty()));
}

#[test]
fn what_ends_follows_every_change_of_the_state_and_of_the_time() {
    let plan = |before: Option<&Plan>, change: &dyn Fn(&mut Snapshot)| {
        let mut next = snapshot();
        next.ends = vec![ending(1_000)];
        change(&mut next);
        Plan::new(next, before).unwrap()
    };
    let first = plan(None, &|_| {});
    let known = first.targets(None, all(|_| None, true));
    let bases = || -> BTreeMap<String, Base> {
        let base = |(id, target): (&String, &Target)| {
            let (image, later) = target.image.clone().unwrap();
            (id.clone(), Base { image: Some(image), later, current: true })
        };
        known.iter().map(base).collect()
    };
    // Nothing that concerns them: the very same.
    let same = plan(Some(&first), &|next| next.revision += 1).targets(Some(&first), bases());
    assert!(Arc::ptr_eq(&later(&same, USER)[0].1, &later(&known, USER)[0].1));
    // Another time, and none.
    let moved = plan(Some(&first), &|next| next.ends = vec![ending(2_000)]).targets(Some(&first), bases());
    assert_eq!(later(&moved, USER)[0].0, 2_000);
    let none = plan(Some(&first), &|next| next.ends.clear()).targets(Some(&first), bases());
    assert!(later(&none, USER).is_empty());
    // Another policy, which stays when the bounded one ends.
    let stays = |next: &mut Snapshot| {
        let mut stays = next.state.policies["p"].clone();
        stays.name = "stays".into();
        let mut rule = stays.rules[0].clone();
        (rule.id, rule.service) = ("s".into(), Service::Tcp(vec![22..=22]));
        stays.rules = vec![rule].into();
        next.state.policies.insert("q".into(), stays);
    };
    let other = plan(Some(&first), &stays).targets(Some(&first), bases());
    let mut over = snapshot();
    stays(&mut over);
    over.state.policies.get_mut("p").unwrap().enabled = false;
    let over = Plan::new(over, None).unwrap().targets(None, all(|_| None, true));
    for agent in [GATEWAY, USER] {
        assert_eq!(later(&other, agent)[0].1.hash, image(&over, agent).hash, "{agent}");
    }
}

#[test]
fn what_is_shared_out_is_done_once_whoever_does_it() {
    for count in [0, 1, 2, 100] {
        let mut done = shared_out((0..count).collect(), |n: u32| n * n);
        done.sort_unstable();
        assert_eq!(done, (0..count).map(|n| n * n).collect::<Vec<_>>());
    }
}

#[test]
#[should_panic(expected = "the third")]
fn a_panic_in_what_is_shared_out_is_one_of_whoever_waits() {
    shared_out((0..9).collect(), |n| assert_ne!(n, 3, "the third"));
}
