//! Routes, from the store to what agents are told.

use sluicegate_api::agent::{Role, Route};
use sluicegate_control::store::{Actor, RouteSpec};

use crate::support::{Control, FakeAgent};

fn spec(name: &str, network: &str, gateway: &FakeAgent, group: &str) -> RouteSpec {
    RouteSpec {
        network_id: name.into(),
        description: String::new(),
        network: network.parse().unwrap(),
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

/// What an agent that joins now is told, with its image.
async fn told(control: &Control, agent: &mut FakeAgent) {
    control.settled().await;
    (agent.held, agent.network) = (None, None);
    let mut session = agent.sync(control).await.unwrap();
    agent.apply(&mut session).await;
}

fn routes(agent: &FakeAgent) -> Vec<&Route> {
    agent.network.as_ref().unwrap().routes.iter().collect()
}

fn prefixes(agent: &FakeAgent) -> Vec<&str> {
    routes(agent).into_iter().map(|route| route.prefix.as_str()).collect()
}

struct World {
    control: Control,
    near: FakeAgent,
    far: FakeAgent,
    user: FakeAgent,
    stranger: FakeAgent,
    users: String,
}

async fn world() -> World {
    let control = Control::start().await;
    control.no_default_policy().await;
    let (near, far) = (control.join(Role::Gateway).await, control.join(Role::Gateway).await);
    let (user, stranger) = (control.join(Role::Peer).await, control.join(Role::Peer).await);
    let users = control.group("users", &[&user]).await;
    World { control, near, far, user, stranger, users }
}

#[tokio::test]
async fn a_route_reaches_its_router_and_those_it_is_for_and_nobody_else() {
    let World { control, mut near, mut far, mut user, mut stranger, users } = world().await;
    let route = spec("open", "10.64.0.0/16", &near, &users);
    let made = control.store.create_route(&Actor::system(), route).await.unwrap();
    for agent in [&mut near, &mut far, &mut user, &mut stranger] {
        told(&control, agent).await;
    }
    let routed = &near.network.as_ref().unwrap().routed;
    assert_eq!(routed.len(), 1);
    assert_eq!(
        (routed[0].prefix.as_str(), routed[0].masquerade, routed[0].metric),
        ("10.64.0.0/16", true, 100)
    );
    assert_eq!(routed[0].resource_id, made.id);
    assert_eq!(near.held.as_ref().unwrap().1.rules.len(), 1, "the route is a rule of its own");
    assert_eq!(prefixes(&user), ["10.64.0.0/16"]);
    assert_eq!(
        (routes(&user)[0].routers[0].peer_id.as_str(), routes(&user)[0].choice.as_str()),
        (near.id().as_str(), "")
    );
    for outside in [&far, &stranger] {
        assert!(outside.network.as_ref().unwrap().peers.is_empty());
        assert!(prefixes(outside).is_empty() && outside.network.as_ref().unwrap().routed.is_empty());
    }
}

#[tokio::test]
async fn access_control_groups_leave_it_to_policies_and_distribution_still_bounds_them() {
    let World { control, mut near, mut user, mut stranger, users, .. } = world().await;
    let guarded = control.group("guarded", &[]).await;
    let closed = RouteSpec {
        access_control_groups: [guarded.clone()].into(),
        ..spec("closed", "2001:db8:64::/48", &near, &users)
    };
    control.store.create_route(&Actor::system(), closed).await.unwrap();
    told(&control, &mut user).await;
    assert!(prefixes(&user).is_empty(), "no policy opens it");

    let everybody = control.group("everybody", &[&user, &stranger]).await;
    control.policy("web", &everybody, &guarded, 443).await;
    for agent in [&mut near, &mut user, &mut stranger] {
        told(&control, agent).await;
    }
    assert_eq!(prefixes(&user), ["2001:db8:64::/48"]);
    assert!(prefixes(&stranger).is_empty(), "it is not distributed to it");
    assert!(near.network.as_ref().unwrap().peers.iter().all(|peer| peer.id != stranger.id()));
}

#[tokio::test]
async fn equal_prefixes_have_routers_that_stand_in_for_each_other_and_groups_route_too() {
    let World { control, mut near, mut far, mut user, users, .. } = world().await;
    control.store.create_route(&Actor::system(), spec("ha", "10.64.0.0/16", &near, &users)).await.unwrap();
    let second = RouteSpec { metric: 200, masquerade: false, ..spec("ha", "10.64.0.0/16", &far, &users) };
    control.store.create_route(&Actor::system(), second).await.unwrap();
    let gateways = control.group("gateways", &[&near, &far]).await;
    let grouped = RouteSpec {
        peer: None,
        peer_groups: [gateways].into(),
        ..spec("grouped", "10.65.0.0/16", &near, &users)
    };
    control.store.create_route(&Actor::system(), grouped).await.unwrap();
    for agent in [&mut near, &mut far, &mut user] {
        told(&control, agent).await;
    }
    let mut metrics: Vec<(String, u32)> = Vec::new();
    for route in routes(&user).into_iter().filter(|route| route.prefix == "10.64.0.0/16") {
        metrics.extend(route.routers.iter().map(|router| (router.peer_id.clone(), router.metric)));
    }
    metrics.sort_by_key(|(_, metric)| *metric);
    assert_eq!(metrics, [(near.id(), 100), (far.id(), 200)]);
    let grouped = routes(&user).into_iter().find(|route| route.prefix == "10.65.0.0/16").unwrap();
    assert_eq!(grouped.routers.len(), 2);
    for gateway in [&near, &far] {
        let routed = &gateway.network.as_ref().unwrap().routed;
        assert_eq!(routed.len(), 2);
        assert!(prefixes(gateway).is_empty(), "a router does not go through another one");
    }
}

#[tokio::test]
async fn an_exit_node_is_of_both_families_and_may_be_left_to_choice() {
    let World { control, mut near, mut user, users, .. } = world().await;
    let exit = RouteSpec { skip_auto_apply: true, ..spec("exit", "0.0.0.0/0", &near, &users) };
    let made = control.store.create_route(&Actor::system(), exit.clone()).await.unwrap();
    told(&control, &mut near).await;
    told(&control, &mut user).await;
    assert_eq!(near.network.as_ref().unwrap().routed.len(), 2);
    assert_eq!(prefixes(&user), ["0.0.0.0/0", "::/0"]);
    assert!(routes(&user).iter().all(|route| route.choice == "exit"));
    let always = RouteSpec { skip_auto_apply: false, ..exit.clone() };
    control.store.update_route(&Actor::system(), &made.id, always).await.unwrap();
    told(&control, &mut user).await;
    assert!(routes(&user).iter().all(|route| route.choice.is_empty()));
    control
        .store
        .update_route(&Actor::system(), &made.id, RouteSpec { enabled: false, ..exit })
        .await
        .unwrap();
    told(&control, &mut user).await;
    assert!(prefixes(&user).is_empty());
}
