//! What the site sees with masquerade off, and on again.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sluicegate_lab::wait;

use super::access::explain;
use super::client::{Ask, Seen};
use super::table::{Row, Table};
use super::topology::{Family, GW1, WEB, site};
use super::world::World;

const CHANGED: Duration = Duration::from_secs(10);
const GW1_METRIC: u64 = 100;

pub(crate) fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    for masquerade in [false, true] {
        switch(world, masquerade)?;
        for family in Family::BOTH {
            let (expected, whose) = match masquerade {
                true => (site(GW1, family), "gw1's site address"),
                false => (world.alice.overlay(&world.control, family)?, "alice's overlay address"),
            };
            let (to, ask) = (site(WEB, family), Ask::Http(443));
            let seen = seen_as(world, ask, to, expected)?;
            table.add(Row {
                who: "alice".into(),
                what: format!(
                    "masquerade {}, {}",
                    if masquerade { "on again" } else { "off" },
                    family.name()
                ),
                expected: format!("the site sees {expected}, {whose}"),
                as_expected: seen == Seen::Answered(Some(expected)),
                seen: seen.describe(),
                rule: explain(world, "alice", &ask.flow(to))?.reason,
            });
        }
    }
    Ok(())
}

fn switch(world: &World<'_>, masquerade: bool) -> Result<()> {
    change_router(world, GW1_METRIC, |router| router["masquerade"] = json!(masquerade))
}

/// Changes the site's router with this metric.
pub(crate) fn change_router(world: &World<'_>, metric: u64, change: impl FnOnce(&mut Value)) -> Result<()> {
    let network = world.control.named("/api/networks", "site")?;
    let routers = format!("/api/networks/{}/routers", network["id"].as_str().unwrap_or_default());
    let list = world.control.get(&routers)?;
    let mut first = list.as_array().into_iter().flatten().find(|router| router["metric"] == metric).cloned();
    let router = first.as_mut().with_context(|| format!("the network has no router of metric {metric}"))?;
    change(router);
    let path = format!("{routers}/{}", router["id"].as_str().unwrap_or_default());
    world.control.put(&path, router)?;
    world.wait_until_in_step()
}

/// Asks until the site sees `expected`; what it saw last.
pub(crate) fn seen_as(world: &World<'_>, ask: Ask, to: IpAddr, expected: IpAddr) -> Result<Seen> {
    let mut last = Seen::Nothing("not tried".into());
    wait::until(CHANGED, || -> Result<_> {
        last = ask.once(&world.alice.namespace, to, &world.traffic)?;
        Ok((last == Seen::Answered(Some(expected))).then_some(()))
    })?;
    Ok(last)
}
