use sluicegate_api::agent::{ReportRequest, Role, SyncRequest};
use sluicegate_control::store::Actor;
use tonic::Code;

use crate::support::{Control, FakeAgent, Session, soon};

fn pushed(control: &Control, kind: &str) -> u64 {
    control.agents.metrics().images_pushed.with_label_values(&[kind]).get()
}

fn wanted(control: &Control, agent: &FakeAgent) -> u64 {
    control.agents.hub().overview(&agent.id()).wanted.unwrap().revision
}

async fn connected(control: &Control, agent: &mut FakeAgent) -> Session {
    control.settled().await;
    let mut session = agent.sync(control).await.unwrap();
    agent.apply(&mut session).await;
    session
}

/// Two sites with a gateway each, and a peer that may reach only the first.
struct Sites {
    control: Control,
    near: FakeAgent,
    far: FakeAgent,
    user: FakeAgent,
    policy: String,
    groups: (String, String),
}

async fn sites() -> Sites {
    let control = Control::start().await;
    control.no_default_policy().await;
    let (near, far) = (control.join(Role::Gateway).await, control.join(Role::Gateway).await);
    let user = control.join(Role::Peer).await;
    let users = control.group("users", &[&user]).await;
    let (web, other) = (control.group("web", &[]).await, control.group("other", &[]).await);
    control.site("near", "10.1.0.10", &near, &web).await;
    control.site("far", "10.2.0.0/16", &far, &other).await;
    let policy = control.policy("web", &users, &web, 443).await;
    Sites { control, near, far, user, policy, groups: (users, web) }
}

impl Sites {
    async fn set_port(&self, port: u16) {
        self.control.set_port(&self.policy, "web", &self.groups.0, &self.groups.1, port).await;
    }
}

#[tokio::test]
async fn a_new_agent_gets_its_overlay_and_a_whole_image_and_control_shows_both_revisions() {
    let Sites { control, mut near, user, .. } = sites().await;
    control.settled().await;
    let mut session = near.sync(&control).await.unwrap();
    assert_eq!(near.take(&mut session).await, "snapshot");
    let network = near.network.as_ref().expect("the overlay comes before the image");
    let peer = control.store.peer(&near.id()).await.unwrap();
    assert!(network.address_v4.starts_with(&format!("{}/", peer.ip)), "{network:?}");
    assert!(network.address_v6.starts_with(&format!("{}/", peer.ipv6)), "{network:?}");
    assert_eq!(network.routed[0].prefix, "10.1.0.10/32");
    let remote = network.peers.iter().find(|remote| remote.id == user.id()).expect("its user is its peer");
    assert_eq!(remote.wireguard_public_key, user.machine.wireguard);

    let before = control.agents.hub().overview(&near.id());
    assert!(before.connected && before.applied.is_none());
    near.acknowledge(&mut session, "").await;
    let after = control.agents.hub().overview(&near.id());
    assert_eq!(after.applied.unwrap().held, after.wanted.unwrap());
    assert_eq!(after.applied.unwrap().microseconds, Some(2_500));
    assert_eq!(control.agents.metrics().push_to_ack_seconds.get_sample_count(), 1);
}

#[tokio::test]
async fn a_change_reaches_exactly_the_agents_it_concerns_as_a_delta() {
    let mut sites = sites().await;
    let mut near = connected(&sites.control, &mut sites.near).await;
    let _far = connected(&sites.control, &mut sites.far).await;
    let mut user = connected(&sites.control, &mut sites.user).await;
    let far_wanted = wanted(&sites.control, &sites.far);
    let (snapshots, deltas) = (pushed(&sites.control, "snapshot"), pushed(&sites.control, "delta"));
    let unchanged = sites.control.agents.metrics().images_unchanged.get();

    sites.set_port(8443).await;
    assert_eq!(sites.near.apply(&mut near).await, "delta");
    assert_eq!(sites.user.apply(&mut user).await, "delta");
    let revision = sites.control.store.revision().await.unwrap();
    assert_eq!((sites.near.revision(), sites.user.revision()), (revision, revision));
    // Everything a compilation makes is published at once: the far gateway's share has been decided by now.
    assert_eq!(wanted(&sites.control, &sites.far), far_wanted);
    assert_eq!(
        (pushed(&sites.control, "snapshot"), pushed(&sites.control, "delta")),
        (snapshots, deltas + 2)
    );
    assert_eq!(sites.control.agents.metrics().images_unchanged.get(), unchanged + 1);
}

#[tokio::test]
async fn changes_in_a_burst_end_in_one_image_that_is_the_last() {
    let mut sites = sites().await;
    let mut near = connected(&sites.control, &mut sites.near).await;
    for port in 1000..1030 {
        sites.set_port(port).await;
    }
    let last = sites.control.store.revision().await.unwrap();
    let mut images = 0;
    while sites.near.revision() < last {
        sites.near.apply(&mut near).await;
        images += 1;
    }
    assert!(images <= 30, "{images}");
    assert_eq!(wanted(&sites.control, &sites.near), last);
}

#[tokio::test]
async fn a_refused_image_comes_once_more_whole_and_the_reason_is_kept() {
    let mut sites = sites().await;
    let mut near = connected(&sites.control, &mut sites.near).await;
    let (revision, in_force) = sites.near.held.clone().unwrap();
    sites.set_port(8443).await;
    assert_eq!(sites.near.take(&mut near).await, "delta");
    let refused = sites.near.revision();
    sites.near.acknowledge(&mut near, "too large for the maps").await;
    sites.near.held = Some((revision, in_force.clone()));
    assert_eq!(sites.near.take(&mut near).await, "snapshot");
    assert_eq!(sites.near.revision(), refused);
    sites.near.acknowledge(&mut near, "too large for the maps").await;
    sites.near.held = Some((revision, in_force));

    let overview = sites.control.agents.hub().overview(&sites.near.id());
    assert_eq!(overview.refusal.unwrap().reason, "too large for the maps");
    assert_eq!(overview.applied.unwrap().held.revision, revision);
    assert_eq!(sites.control.agents.metrics().refusals.get(), 2);
    sites.set_port(9443).await;
    assert_eq!(sites.near.apply(&mut near).await, "snapshot");
    assert!(sites.near.revision() > refused);
}

#[tokio::test]
async fn a_deleted_peer_is_cut_off_at_once() {
    let mut sites = sites().await;
    let mut near = connected(&sites.control, &mut sites.near).await;
    let mut user = connected(&sites.control, &mut sites.user).await;
    sites.control.store.delete_peer(&Actor::system(), &sites.user.id()).await.unwrap();
    let status = loop {
        match soon("the stream ends", user.stream.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without saying why"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("deleted"), "{status:?}");
    let report = user.client.report(ReportRequest::default()).await.unwrap_err();
    assert_eq!(report.code(), Code::PermissionDenied);
    assert_eq!(sites.user.sync(&sites.control).await.err().unwrap().code(), Code::PermissionDenied);

    sites.near.apply(&mut near).await;
    let network = sites.near.network.as_ref().unwrap();
    assert!(
        network.peers.iter().all(|peer| peer.id != sites.user.id()),
        "its gateway has forgotten it: {network:?}"
    );
}

#[tokio::test]
async fn a_suspended_peer_stays_connected_and_may_do_nothing() {
    let mut sites = sites().await;
    let mut user = connected(&sites.control, &mut sites.user).await;
    assert!(!sites.user.held.as_ref().unwrap().1.rules.is_empty());
    let peer = sites.control.store.peer(&sites.user.id()).await.unwrap();
    let change = sluicegate_control::store::PeerChange {
        name: peer.name,
        ssh_enabled: peer.ssh_enabled,
        login_expiration_enabled: peer.login_expiration_enabled,
        inactivity_expiration_enabled: peer.inactivity_expiration_enabled,
        approval_required: Some(true),
        ip: None,
        ipv6: None,
    };
    sites.control.store.update_peer(&Actor::system(), &sites.user.id(), change).await.unwrap();
    sites.user.apply(&mut user).await;
    assert!(sites.user.held.as_ref().unwrap().1.rules.is_empty());
    assert!(sites.control.agents.hub().connected(&sites.user.id()));
}

#[tokio::test]
async fn a_second_agent_with_the_same_identity_takes_over() {
    let mut sites = sites().await;
    let mut first = connected(&sites.control, &mut sites.near).await;
    let mut second = sites.near.sync(&sites.control).await.unwrap();
    let status = soon("the first stream ends", first.stream.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    sites.set_port(8443).await;
    assert_eq!(sites.near.apply(&mut second).await, "delta");
    assert!(sites.control.agents.hub().connected(&sites.near.id()));
}

#[tokio::test]
async fn after_a_restart_agents_keep_their_image_and_revisions_still_rise() {
    let mut sites = sites().await;
    drop(connected(&sites.control, &mut sites.near).await);
    drop(connected(&sites.control, &mut sites.user).await);
    sites.set_port(8443).await;
    let mut near = connected(&sites.control, &mut sites.near).await;
    let (before, fingerprint) = (sites.near.revision(), sites.control.agents.authority().fingerprint());
    sites.control = sites.control.restart().await;
    assert_eq!(sites.control.agents.authority().fingerprint(), fingerprint);
    let status = soon("the old stream ends", near.stream.message()).await;
    assert!(!matches!(status, Ok(Some(_))), "{status:?}");

    sites.control.settled().await;
    let mut near = sites.near.sync(&sites.control).await.unwrap();
    let mut user = sites.user.sync(&sites.control).await.unwrap();
    assert_eq!(sites.user.apply(&mut user).await, "snapshot", "it missed a change");
    sites.set_port(9443).await;
    // The first image the gateway is sent is that of the new change: what it had was still right.
    sites.near.apply(&mut near).await;
    assert_eq!(sites.near.revision(), sites.control.store.revision().await.unwrap());
    assert!(sites.near.revision() > before);
    assert_eq!(wanted(&sites.control, &sites.near), sites.near.revision());
}

#[tokio::test]
async fn an_agent_of_another_version_is_told_so() {
    let control = Control::start().await;
    let gateway = control.join(Role::Gateway).await;
    let mut client = gateway.client(&control).await;
    for protocol in [0, sluicegate_api::PROTOCOL + 1] {
        let request = SyncRequest { protocol, ..SyncRequest::default() };
        let refused = client.sync(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains(&format!("version {} of", protocol.max(1))), "{refused}");
        assert!(refused.message().contains("install the same release"), "{refused}");
    }
}

#[tokio::test]
async fn an_agent_that_keeps_changing_its_endpoint_is_slowed_down_and_may_stay_where_it_is() {
    let control = Control::start().await;
    let gateway = control.join(Role::Gateway).await;
    let mut client = gateway.client(&control).await;
    let request = |port: u16| SyncRequest {
        endpoint: format!("192.0.2.1:{port}"),
        protocol: sluicegate_api::PROTOCOL,
        ..SyncRequest::default()
    };
    let before = control.store.revision().await.unwrap();
    let mut ports = 1000..1100;
    let refused = loop {
        match client.sync(request(ports.next().expect("a limit"))).await {
            Ok(_) => {}
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("endpoint"), "{refused}");
    let changes = control.store.revision().await.unwrap() - before;
    assert!(changes <= 21, "{changes}");
    let kept = control.store.peer(&gateway.id()).await.unwrap().endpoint.unwrap();
    client.sync(request(kept.port())).await.unwrap();
}
