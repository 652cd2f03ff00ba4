//! Changes of the overlay: taken as what differs, and refused where they start from something else.

use std::time::{Duration, Instant};

use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{NetworkChange, NetworkConfig};
use sluicegate_gateway::datapath::Choice;
use sluicegate_gateway::status::Status;

use crate::{PATIENCE, World, overlay, with_agent};

fn between(old: NetworkConfig, new: NetworkConfig) -> NetworkChange {
    NetworkChange::between(&old.into(), &new.into())
}

/// The overlay with another address of the agent's own, in both families.
fn addressed(serial: u64, host: u8) -> NetworkConfig {
    NetworkConfig {
        address_v4: format!("100.64.0.{host}/24"),
        address_v6: format!("fd64::{host:x}/64"),
        ..overlay(serial)
    }
}

impl World {
    async fn addressed(&self, host: u8) {
        let wanted = [format!("100.64.0.{host}"), format!("fd64::{host:x}")];
        let what = format!("the agent is host {host}");
        let is =
            |own: &Option<String>, wanted: &str| own.as_deref().is_some_and(|own| own.starts_with(wanted));
        let both =
            |s: &Status| is(&s.identity.address_v4, &wanted[0]) && is(&s.identity.address_v6, &wanted[1]);
        self.status(&what, both).await;
    }
}

async fn follows_changes(world: &World) {
    let running = world.run();
    world.addressed(1).await;
    world.control.tell(Update::NetworkChange(between(overlay(1), addressed(2, 5))));
    world.addressed(5).await;
    // A control that says something else from the next stream on.
    world.control.fall_silent();
    world.control.tell(Update::Network(addressed(7, 6)));
    world.addressed(6).await;
    let streams = world.control.streams();
    let elsewhere = between(addressed(6, 1), addressed(8, 7));
    world.control.say(Update::NetworkChange(elsewhere));
    let begun = Instant::now();
    while world.control.streams() == streams {
        assert!(begun.elapsed() < PATIENCE, "the whole overlay is not asked for");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let well = |s: &Status| s.control.connected && !s.degraded.iter().any(|d| d.contains("asked for"));
    let status = world.status("the agent is back", well).await;
    assert_eq!(status.identity.address_v6.as_deref(), Some("fd64::6/64"));
    world.control.say(Update::NetworkChange(between(addressed(7, 6), addressed(8, 8))));
    world.addressed(8).await;
    running.stop().await;
}

#[test]
fn an_agent_follows_changes_of_its_overlay_and_asks_for_the_whole_where_they_start_elsewhere() {
    with_agent(Choice::Userspace, |_| {}, follows_changes);
}
