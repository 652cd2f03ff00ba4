//! A process that has to run ends under a download, and starts again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sluicegate_lab::{traffic, wait};

use super::access::explain;
use super::client::{Ask, Seen};
use super::revocation::wait_for_silence;
use super::stream::Stream;
use super::table::{Row, Table};
use super::topology::{Family, WEB, site};
use super::world::World;

const POLICY: &str = "contractors read the web";
const CHECKS: &str = "/api/posture-checks";
const PATIENCE: Duration = Duration::from_secs(15);
/// Agents look every five seconds, and one more is for what follows.
const LIMIT_MS: u64 = 6_000;

pub(crate) fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    let program = world.policy_file().with_file_name("guard");
    std::fs::copy("/bin/sleep", &program).context("a program to watch cannot be copied")?;
    let mut guard = Guard::start(&program)?;
    let path = program.to_str().context("the lab's directory is not UTF-8")?;
    let checks = json!({"process_check": {"processes": [{"linux_path": path}]}});
    let check =
        world.control.post(CHECKS, &json!({"name": "guarded", "description": "", "checks": checks}))?;
    ask_for(world, json!([check["id"]]))?;
    wait_until_judged(world, true)?;

    for family in Family::BOTH {
        let to = site(WEB, family);
        Ask::Http(443).until_answered(&world.carol.namespace, to, &world.traffic)?;
        let download = Stream::download(world, &world.carol.namespace, to, 443)?;
        download.wait_for_more(1_000_000, PATIENCE)?;
        drop(guard);
        let ended = traffic::unix_ms();
        let last = wait_for_silence(&download)?;
        let late = last.map(|last| last.saturating_sub(ended));
        let told = explain(world, "carol", &Ask::Http(443).flow(to))?;
        table.add(Row {
            who: "carol".into(),
            what: format!("a running download when a process that has to run ends, {}", family.name()),
            expected: "ends within six seconds".into(),
            seen: late.map_or("it went on".into(), |late| format!("last byte {late} ms after the process")),
            rule: told.reason,
            as_expected: late.is_some_and(|late| late <= LIMIT_MS) && !told.allowed,
        });
        drop(download.finish());

        guard = Guard::start(&program)?;
        wait_until_judged(world, true)?;
        let seen = Ask::Http(443).until_answered(&world.carol.namespace, to, &world.traffic)?;
        table.add(Row {
            who: "carol".into(),
            what: format!("curl web:443 when it runs again, {}", family.name()),
            expected: "answered".into(),
            seen: seen.describe(),
            rule: format!("{POLICY} / pages"),
            as_expected: matches!(seen, Seen::Answered(_)),
        });
    }
    ask_for(world, json!([]))
}

/// Makes these the posture checks of the policy.
fn ask_for(world: &World<'_>, checks: Value) -> Result<()> {
    world.control.change_policy(POLICY, |policy| policy["source_posture_checks"] = checks)?;
    world.wait_until_in_step()
}

/// Waits until carol passes, or fails, what is asked of her, and the gateways know.
fn wait_until_judged(world: &World<'_>, passes: bool) -> Result<()> {
    let judged = wait::until(PATIENCE, || -> Result<_> {
        let carol = world.control.named("/api/peers", world.carol.name())?;
        let failures = carol["posture_failures"].as_array().context("a peer without posture_failures")?;
        Ok((failures.is_empty() == passes).then_some(()))
    })?;
    judged.context("carol was not judged anew")?;
    world.wait_until_in_step()
}

/// The process that has to run.
struct Guard(Child);

impl Guard {
    fn start(program: &Path) -> Result<Self> {
        let program: PathBuf = program.into();
        let child = Command::new(&program).arg("600").stdin(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("{} does not start", program.display()))?))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
