//! A policy switched off cuts what it allowed, and nothing else.

use std::time::Duration;

use anyhow::{Context, Result};
use sluicegate_lab::{traffic, wait};

use super::client::{Ask, Seen};
use super::stream::Stream;
use super::table::{Row, Table};
use super::topology::{Family, WEB, site};
use super::world::World;

const POLICY: &str = "contractors read the web";
/// The download counts as cut when nothing has come for so long.
const SILENCE: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(15);
const LIMIT_MS: u64 = 1000;

pub(crate) fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    for family in Family::BOTH {
        let to = site(WEB, family);
        let download = Stream::download(world, &world.carol.namespace, to, 443)?;
        let bystander = Stream::udp(world, &world.alice.namespace, to, 443)?;
        download.wait_for_more(1_000_000, PATIENCE)?;

        world.control.switch_policy(POLICY, false)?;
        let answered = traffic::unix_ms();
        let last = wait_for_silence(&download)?;
        let late = last.map(|last| last.saturating_sub(answered));
        table.add(Row {
            who: "carol".into(),
            what: format!("a running download when its policy is switched off, {}", family.name()),
            expected: "ends within a second".into(),
            seen: late
                .map_or("it went on".into(), |late| format!("last byte {late} ms after control's answer")),
            rule: format!("{POLICY} (off)"),
            as_expected: late.is_some_and(|late| late <= LIMIT_MS),
        });
        drop(download.finish());
        let report = bystander.finish()?;
        table.add(Row {
            who: "alice".into(),
            what: format!("udp web:443 meanwhile, {}", family.name()),
            expected: "nothing is lost".into(),
            seen: format!("{} of {} datagrams lost", report.wrong, report.sent),
            rule: "engineering uses the web / quic".into(),
            as_expected: report.sent > 0 && report.wrong == 0,
        });

        world.control.switch_policy(POLICY, true)?;
        world.wait_until_in_step()?;
        let seen = Ask::Http(443).until_answered(&world.carol.namespace, to, &world.traffic)?;
        table.add(Row {
            who: "carol".into(),
            what: format!("curl web:443 when it is on again, {}", family.name()),
            expected: "answered".into(),
            seen: seen.describe(),
            rule: format!("{POLICY} / pages"),
            as_expected: matches!(seen, Seen::Answered(_)),
        });
    }
    Ok(())
}

/// When the last byte came, once none has come for [`SILENCE`].
pub(crate) fn wait_for_silence(download: &Stream) -> Result<Option<u64>> {
    let silence = u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX);
    wait::until(PATIENCE, || {
        let last = download.progress().context("the download did not start")?.last_ms;
        Ok((traffic::unix_ms().saturating_sub(last) >= silence).then_some(last))
    })
}
