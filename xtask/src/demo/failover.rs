//! The first gateway goes, traffic takes the second, and returns when the first is back.

use std::time::{Duration, Instant};

use anyhow::Result;
use sluicegate_lab::wait;

use super::access::explain;
use super::client::{Ask, Seen};
use super::stream::Stream;
use super::table::{Row, Table};
use super::topology::{Family, GW1, GW2, WEB, site};
use super::world::World;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    gap(world, table)?;
    through(world, table, "gw1 is gone", GW2)?;
    world.gw1.start()?;
    world.gw1.wait_until_ready()?;
    through(world, table, "gw1 is back", GW1)?;
    world.wait_until_in_step()
}

/// Datagrams go on all the while: how long were they away?
fn gap(world: &World<'_>, table: &mut Table) -> Result<()> {
    let mut streams = Vec::new();
    for family in Family::BOTH {
        let to = site(WEB, family);
        streams.push((family, to, Stream::udp(world, &world.alice.namespace, to, 443)?));
    }
    for (.., stream) in &streams {
        stream.wait_for_more(500, PATIENCE)?;
    }
    world.gw1.kill();
    for (.., stream) in &streams {
        stream.wait_for_more(500, PATIENCE)?;
    }
    for (family, to, stream) in streams {
        let report = stream.finish()?;
        table.add(Row {
            who: "alice".into(),
            what: format!("udp web:443 when gw1 is gone, {}", family.name()),
            expected: "goes on through gw2".into(),
            as_expected: report.received >= 1000,
            seen: format!(
                "{} of {} datagrams lost, none for {} ms",
                report.wrong, report.sent, report.longest_gap_ms
            ),
            rule: explain(world, "alice", &Ask::Udp(443).flow(to))?.reason,
        });
    }
    Ok(())
}

fn through(world: &World<'_>, table: &mut Table, event: &str, gateway: u8) -> Result<()> {
    let start = Instant::now();
    for family in Family::BOTH {
        let (to, ask, expected) = (site(WEB, family), Ask::Http(443), site(gateway, family));
        let mut last = Seen::Nothing("not tried".into());
        wait::until(PATIENCE, || -> Result<_> {
            last = ask.once(&world.alice.namespace, to, &world.traffic)?;
            Ok((last == Seen::Answered(Some(expected))).then_some(()))
        })?;
        let seconds = start.elapsed().as_secs_f32();
        table.add(Row {
            who: "alice".into(),
            what: format!("curl web:443 when {event}, {}", family.name()),
            expected: format!("answered through gw{gateway}, as {expected}"),
            as_expected: last == Seen::Answered(Some(expected)),
            seen: format!("{}, {seconds:.1} s later", last.describe()),
            rule: explain(world, "alice", &ask.flow(to))?.reason,
        });
    }
    Ok(())
}
