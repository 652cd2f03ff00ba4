//! Two controls on one database, and agents that follow now one and now the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicegate_api::agent::Role;
use sluicegate_api::image::Hash;
use sluicegate_policy::Compiler;

use crate::support::{Control, FakeAgent, soon};

/// The hash of an agent's image of the newest state, compiled from scratch.
async fn newest(control: &Control, agent: &FakeAgent) -> Hash {
    let state = control.store.state().await.unwrap();
    let image = Compiler::new(Arc::new(state)).unwrap().compile(&agent.id()).unwrap();
    image.hash()
}

#[tokio::test]
async fn an_agent_that_moves_with_every_change_never_goes_back() {
    let controls = Control::replicas().await;
    let mut gateway = controls[0].join(Role::Gateway).await;
    // Joined at one, at home at both.
    let mut session = gateway.sync(&controls[1]).await.unwrap();
    gateway.apply(&mut session).await;
    drop(session);

    let all = controls[0].store.groups().await.unwrap().remove(0).id;
    controls[0].no_default_policy().await;
    let peer = controls[1].join(Role::Peer).await;
    let group = controls[0].group("gateways", &[&gateway, &peer]).await;
    let policy = controls[0].policy("p", &all, &group, 1).await;
    let mut order = BTreeMap::from([(newest(&controls[0], &gateway).await, 0)]);
    let mut at = 0;
    for change in 1..=30u16 {
        // Changed by one, asked for at the other, with no time in between.
        let (by, from) = (usize::from(change % 2), usize::from(change / 2 % 2));
        controls[by].set_port(&policy, "p", &all, &group, 1000 + change).await;
        order.insert(newest(&controls[by], &gateway).await, change);
        let mut session = gateway.sync(&controls[from]).await.unwrap();
        while at < change {
            gateway.apply(&mut session).await;
            let held = gateway.held.as_ref().unwrap().1.hash();
            let now = *order.get(&held).expect("an image of a state that was");
            assert!(now > at || at == 0, "state {now} came after state {at}");
            at = now;
        }
    }
}

#[tokio::test]
async fn a_peer_deleted_at_one_control_loses_its_stream_at_the_other() {
    let controls = Control::replicas().await;
    let mut agent = controls[0].join(Role::Peer).await;
    let mut session = agent.sync(&controls[1]).await.unwrap();
    agent.apply(&mut session).await;
    assert!(controls[0].store.peer(&agent.id()).await.unwrap().connected, "shown at either");
    assert!(controls[0].store.connected_elsewhere().await.unwrap().contains(&agent.id()));
    assert!(controls[1].store.connected_elsewhere().await.unwrap().is_empty());
    let actor = sluicegate_control::store::Actor::system();
    controls[0].store.delete_peer(&actor, &agent.id()).await.unwrap();
    let ended = soon("the end of the stream", async {
        loop {
            match session.stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends with a reason"),
                Err(status) => return status,
            }
        }
    })
    .await;
    assert_eq!(ended.code(), tonic::Code::PermissionDenied, "{ended}");
}

#[tokio::test]
async fn a_control_that_ends_leaves_its_agents_to_the_other_with_what_they_have() {
    let [first, second] = Control::replicas().await;
    let mut gateway = first.join(Role::Gateway).await;
    let mut session = gateway.sync(&first).await.unwrap();
    gateway.apply(&mut session).await;
    let before = gateway.revision();
    first.agents.end_streams();
    first.store.close().await;
    let mut session = gateway.sync(&second).await.unwrap();
    // Everybody reaches everybody by the policy that an account begins with.
    second.join(Role::Peer).await;
    gateway.apply(&mut session).await;
    assert!(gateway.revision() > before);
}
