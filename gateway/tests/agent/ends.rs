//! A grant that is bound in time ends on time where control is away: in both families, for live flows, and over a restart.

use std::time::{Duration, Instant};

use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{End, Schedule};
use sluicegate_api::image::{Delta, Image};
use sluicegate_gateway::config::Settings;
use sluicegate_gateway::datapath::Choice;
use sluicegate_gateway::status::Status;
use sluicegate_gateway::system;

use crate::image::{self, Rule};
use crate::{World, drops, forwarded, snapshot, with_agent};

/// Long enough to look at the grant while it is there, on a loaded machine.
const GRANT: Duration = Duration::from_secs(6);

fn granted() -> Image {
    image::image(Rule::Accept { masquerade: true })
}

fn over() -> Image {
    image::image(Rule::None)
}

/// What is granted now is not after a time.
fn until(left: Duration) -> Schedule {
    let left_ms = left.as_millis() as u64;
    let end = End {
        left_ms,
        at_ms: system::unix_ms() + left_ms,
        revision: 3,
        hash: over().hash().to_vec(),
        delta: Delta::between(&granted(), &over()).encode(),
    };
    Schedule { base_hash: granted().hash().to_vec(), ends: vec![end] }
}

/// Image 2 grants for a time; control goes away when it is in force. When it was told.
async fn granted_by_control_that_goes_away(world: &World) -> Instant {
    world.control.fall_silent();
    let told = Instant::now();
    world.control.tell_until(Update::Snapshot(snapshot(2, &granted())), Some(until(GRANT)));
    assert!(world.acknowledged(2).await.applied);
    world.control.go_away();
    world.control.fall_silent();
    told
}

fn revoked(status: &Status) -> u64 {
    drops(status, "no_rule")
}

async fn ends_on_time(world: &World) {
    let running = world.run();
    let up = |s: &Status| s.policy.revision == Some(1) && s.identity.address_v6.is_some();
    world.status("the agent comes up", up).await;
    let told = granted_by_control_that_goes_away(world).await;
    let before = world.status("control is away", |s| !s.control.connected).await;
    assert_eq!((before.policy.ends, before.policy.ends_ms.is_some()), (1, true));
    world.send(5);
    let live = world
        .status("both families pass, and their flows live", |s| {
            forwarded(s) >= forwarded(&before) + 10 && s.counters.flows >= 10
        })
        .await;
    assert!(told.elapsed() < GRANT, "too slow a machine: the grant is over before it was looked at");
    assert_eq!(live.policy.revision, Some(2));

    let ended = world.status("the grant ends", |s| s.policy.revision == Some(3)).await;
    assert!(told.elapsed() >= GRANT, "not before its time");
    assert!(!ended.control.connected && ended.policy.ends_ms.is_none() && !ended.policy.shut);
    world.status("live flows are cut", |s| s.counters.flows == 0).await;
    world.send(5);
    let shut = world.status("dropped", |s| revoked(s) >= revoked(&ended) + 10).await;
    assert_eq!(forwarded(&shut), forwarded(&ended));

    world.control.come_back();
    world.status("control is back", |s| s.control.connected).await;
    assert_eq!(world.control.asked(), (3, over().hash().to_vec(), 0));
    assert!(world.acknowledged(3).await.applied, "it hears that the grant has ended");
    running.stop().await;
}

#[test]
fn a_grant_ends_on_time_without_control_in_user_space() {
    with_agent(Choice::Userspace, |_| {}, ends_on_time);
}

#[test]
fn a_grant_ends_on_time_without_control_in_the_kernel() {
    with_agent(Choice::Ebpf, |_| {}, ends_on_time);
}

/// The agent is not there when the grant ends. What is left in the kernel closes by itself, and the next run opens nothing.
async fn ends_while_nobody_is_there(world: &World) {
    let running = world.run();
    let up = |s: &Status| s.policy.revision == Some(1) && s.identity.address_v6.is_some();
    world.status("the agent comes up", up).await;
    granted_by_control_that_goes_away(world).await;
    // The agent's time began when it was told, which was before this.
    let held = Instant::now();
    running.stop().await;
    tokio::time::sleep(GRANT.saturating_sub(held.elapsed())).await;

    let running = world.run();
    let again =
        world.status("another run", |s| s.policy.revision.is_some() && s.identity.address_v6.is_some()).await;
    assert_eq!((again.policy.revision, again.control.connected), (Some(3), false));
    world.send(5);
    let shut = world.status("dropped", |s| revoked(s) >= revoked(&again) + 10).await;
    assert_eq!(forwarded(&shut), forwarded(&again));
    running.stop().await;
}

#[test]
fn a_grant_that_ended_meanwhile_does_not_come_back_with_a_restart_in_user_space() {
    with_agent(Choice::Userspace, |_| {}, ends_while_nobody_is_there);
}

#[test]
fn a_grant_that_ended_meanwhile_does_not_come_back_with_a_restart_in_the_kernel() {
    with_agent(Choice::Ebpf, |_| {}, ends_while_nobody_is_there);
}

/// What is to be taken from the image does not fit it: all of it goes.
async fn shuts(world: &World) {
    let running = world.run();
    let up = |s: &Status| s.policy.revision == Some(1) && s.identity.address_v6.is_some();
    world.status("the agent comes up", up).await;
    world.control.fall_silent();
    let mut broken = until(Duration::from_secs(2));
    broken.ends[0].hash = vec![7; 32];
    world.control.tell_until(Update::Snapshot(snapshot(2, &granted())), Some(broken));
    let shut = world.status("it is shut", |s| s.policy.shut).await;
    assert!(shut.degraded.iter().any(|d| d.contains("a grant has ended")), "{:?}", shut.degraded);
    let before = world.status("it stays shut", |s| s.policy.revision == Some(2)).await;
    world.send(5);
    let closed = world
        .status("dropped", |s| drops(s, "policy_expired") >= drops(&before, "policy_expired") + 10)
        .await;
    assert_eq!(forwarded(&closed), forwarded(&before));

    world.control.tell(Update::Snapshot(snapshot(4, &granted())));
    let open =
        world.status("control sends another", |s| s.policy.revision == Some(4) && !s.policy.shut).await;
    world.send(5);
    world.status("both families pass", |s| forwarded(s) >= forwarded(&open) + 10).await;
    running.stop().await;
}

#[test]
fn an_end_that_cannot_be_applied_shuts_everything_in_user_space() {
    with_agent(Choice::Userspace, aged, shuts);
}

#[test]
fn an_end_that_cannot_be_applied_shuts_everything_in_the_kernel() {
    with_agent(Choice::Ebpf, |_| {}, shuts);
}

/// Word from control, which is there, must not open what is shut.
fn aged(settings: &mut Settings) {
    settings.max_policy_age = Some(Duration::from_secs(3600));
}
