//! Policies change under a running transfer of a permitted flow: nothing of it is lost.

use std::time::Duration;

use anyhow::{Context, Result};

use super::stream::Stream;
use super::table::{Row, Table};
use super::topology::{Family, WEB, site};
use super::world::World;

/// Each is a new revision for gateways and peers.
const CHANGES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    for family in Family::BOTH {
        let to = site(WEB, family);
        let tcp = Stream::tcp(world, &world.alice.namespace, to, 8443)?;
        let udp = Stream::udp(world, &world.alice.namespace, to, 443)?;
        let before = revision(world)?;
        for change in 0..CHANGES {
            // Contractors lose and regain the web, and monitoring its metrics: the rules around the flow move.
            let policy = if change % 4 < 2 { "contractors read the web" } else { "monitoring scrapes" };
            world.control.switch_policy(policy, change % 2 == 1)?;
            udp.wait_for_more(50, PATIENCE)?;
        }
        world.wait_until_in_step()?;
        let revisions = revision(world)?.saturating_sub(before);
        tcp.wait_for_more(10, PATIENCE)?;
        let (tcp, udp) = (tcp.finish()?, udp.finish()?);
        let row = |what: &str, rule: &str, seen, as_expected| Row {
            who: "alice".into(),
            what: format!("{what} while {CHANGES} policy changes are applied, {}", family.name()),
            expected: "nothing is lost".into(),
            seen,
            rule: format!("engineering uses the web / {rule}"),
            as_expected: as_expected && revisions > 0,
        };
        let whole = tcp.sent > 0 && tcp.wrong == 0 && tcp.ended == "stopped";
        let seen = format!(
            "{} of {} messages back in order, longest gap {} ms",
            tcp.received, tcp.sent, tcp.longest_gap_ms
        );
        table.add(row("tcp web:8443", "pages and api", seen, whole));
        let seen = format!("{} of {} datagrams lost over {revisions} revisions", udp.wrong, udp.sent);
        table.add(row("udp web:443", "quic", seen, udp.sent > 0 && udp.wrong == 0));
    }
    Ok(())
}

/// The revision gw1 enforces.
fn revision(world: &World<'_>) -> Result<u64> {
    let gateway = world.control.named("/api/gateways", world.gw1.name())?;
    gateway["image"]["revision_applied"].as_u64().context("gw1 enforces no image")
}
