//! The first gateway is drained and dies; each time traffic takes the second, and returns when the first is back.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use sluicegate_lab::traffic::Report;
use sluicegate_lab::wait;

use super::access::explain;
use super::client::{Ask, Seen};
use super::masquerade::change_router;
use super::stream::Stream;
use super::table::{Row, Table};
use super::topology::{Family, GW1, GW2, WEB, site};
use super::world::World;

const PATIENCE: Duration = Duration::from_secs(20);
/// Datagrams before and after: a second of them.
const ENOUGH: u64 = 500;
/// Datagrams of a stream, one each 2 ms, that can be under way at one moment on a machine that has other work as well.
const ON_THE_WAY: u64 = 50;
/// The metric of gw1, and one that is worse than gw2's.
const BETTER: u64 = 100;
const WORSE: u64 = 900;

pub(crate) fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    drained(world, table)?;
    killed(world, table)?;
    through(world, table, "gw1 is gone", GW2)?;
    world.gw1.start()?;
    world.gw1.wait_until_ready()?;
    through(world, table, "gw1 is back", GW1)?;
    world.wait_until_in_step()
}

/// Datagrams go on while the first gateway's metric becomes the worse one: what is lost was on its way at that moment, an
/// answer that comes by the first gateway when the client takes the site's addresses from the second alone.
fn drained(world: &World<'_>, table: &mut Table) -> Result<()> {
    let streams = streams(world)?;
    set_metric(world, BETTER, WORSE)?;
    for family in Family::BOTH {
        let (ask, seconds) = (Ask::Http(443), Some(site(GW2, family)));
        wait::until(PATIENCE, || -> Result<_> {
            let seen = ask.once(&world.alice.namespace, site(WEB, family), &world.traffic)?;
            Ok((seen == Seen::Answered(seconds)).then_some(()))
        })?;
    }
    tell(world, table, "gw1 is drained", streams, |report| report.wrong <= ON_THE_WAY)?;
    set_metric(world, WORSE, BETTER)?;
    through(world, table, "gw1 is the better one again", GW1)
}

/// Datagrams go on all the while: how long were they away?
fn killed(world: &World<'_>, table: &mut Table) -> Result<()> {
    let streams = streams(world)?;
    world.gw1.kill();
    tell(world, table, "gw1 is gone", streams, |_| true)
}

type Streams = Vec<(Family, Stream)>;

fn streams(world: &World<'_>) -> Result<Streams> {
    let start = |family| Stream::udp(world, &world.alice.namespace, site(WEB, family), 443);
    let streams: Streams =
        Family::BOTH.into_iter().map(|family| Ok((family, start(family)?))).collect::<Result<_>>()?;
    for (_, stream) in &streams {
        stream.wait_for_more(ENOUGH, PATIENCE)?;
    }
    Ok(streams)
}

fn tell(
    world: &World<'_>,
    table: &mut Table,
    event: &str,
    streams: Streams,
    bearable: impl Fn(&Report) -> bool,
) -> Result<()> {
    for (_, stream) in &streams {
        stream.wait_for_more(ENOUGH, PATIENCE)?;
    }
    for (family, stream) in streams {
        let report = stream.finish()?;
        table.add(Row {
            who: "alice".into(),
            what: format!("udp web:443 when {event}, {}", family.name()),
            expected: "goes on through gw2".into(),
            as_expected: report.received >= 2 * ENOUGH && bearable(&report),
            seen: format!(
                "{} of {} datagrams lost, none for {} ms",
                report.wrong, report.sent, report.longest_gap_ms
            ),
            rule: explain(world, "alice", &Ask::Udp(443).flow(site(WEB, family)))?.reason,
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

fn set_metric(world: &World<'_>, from: u64, to: u64) -> Result<()> {
    change_router(world, from, |router| router["metric"] = json!(to))
}
