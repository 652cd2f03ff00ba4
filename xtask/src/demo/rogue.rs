//! What the gateway itself refuses: a peer that has removed its own enforcement, a forged source, a site that calls first.
//!
//! In every other row a denied packet already dies where it is sent. Here carol replaces the programs on her own device, as
//! anyone may who owns the machine, and the gateway's counters must say that it dropped what came.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluicegate_lab::{Feature, Program};

use super::access::explain;
use super::agent::{Agent, OVERLAY_DEVICE};
use super::client::{Ask, Seen};
use super::table::{Row, Table};
use super::topology::{Family, WEB, site};
use super::world::World;
use super::{Datapath, say, tamper};

const STATUS: Duration = Duration::from_secs(10);

pub(crate) fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    for family in Family::BOTH {
        let alice = world.alice.overlay(&world.control, family)?;
        let (seen, drops) = refused(world, || Ask::Ping.once(&world.site.web, alice, &world.traffic))?;
        table.add(row(
            "web server",
            format!("ping alice, {}", family.name()),
            "no_flow",
            &seen,
            &drops,
            "no flow",
        ));
    }
    if can_disarm(world) {
        tamper::disarm(world.carol.bpf_dir())?;
        return Family::BOTH.into_iter().try_for_each(|family| disarmed(world, family, table));
    }
    if world.datapath == Datapath::Ebpf {
        say(
            "this kernel attaches TC programs without links; carol's cannot be replaced, and her rows are left out",
        );
    }
    Ok(())
}

/// Whether carol's programs can be replaced behind her agent's back.
pub(crate) fn can_disarm(world: &World<'_>) -> bool {
    world.datapath == Datapath::Ebpf && Feature::Tcx.is_there()
}

/// Gives carol her enforcement back.
pub(crate) fn end(world: &World<'_>) -> Result<()> {
    world.carol.kill();
    world.carol.start()?;
    world.carol.wait_until_ready()
}

fn disarmed(world: &World<'_>, family: Family, table: &mut Table) -> Result<()> {
    let web = site(WEB, family);
    let carol = &world.carol.namespace;
    for ask in [Ask::Tcp(8443), Ask::Udp(443), Ask::Ping] {
        let (seen, drops) = refused(world, || ask.once(carol, web, &world.traffic))?;
        let what = format!("{}, {}", ask.describe("web"), family.name());
        let rule = explain(world, "carol", &ask.flow(web))?.reason;
        table.add(row("carol, unguarded", what, "no_rule", &seen, &drops, &rule));
    }
    forged(world, family, table)
}

/// Alice may ping the web server; carol may not, and borrows her address.
fn forged(world: &World<'_>, family: Family, table: &mut Table) -> Result<()> {
    let (web, carol) = (site(WEB, family).to_string(), &world.carol.namespace);
    let alice = world.alice.overlay(&world.control, family)?.to_string();
    carol.address(OVERLAY_DEVICE, &alice)?;
    let ping = Program::new("ping").args(["-n", "-c", "1", "-W", "1", "-I", &alice, &web]);
    let finished = carol.run(&ping, STATUS);
    carol.ip(&["address", "del", &alice, "dev", OVERLAY_DEVICE])?;
    let code = finished?.status.and_then(|status| status.code());
    table.add(Row {
        who: "carol, unguarded".into(),
        what: format!("ping web with alice's address, {}", family.name()),
        expected: "sent, and not answered".into(),
        seen: match code {
            Some(0) => "answered".into(),
            Some(1) => "sent, and not answered".into(),
            _ => "not sent".into(),
        },
        rule: "only alice's key may carry alice's address".into(),
        // Ping ends with 1 when it sent and nothing came back, with 2 when it could not send.
        as_expected: code == Some(1),
    });
    Ok(())
}

fn row(who: &str, what: String, reason: &str, seen: &Seen, drops: &BTreeMap<String, u64>, rule: &str) -> Row {
    let dropped = match drops.get(reason) {
        Some(count) => format!("gw1 dropped {count} as {reason}"),
        None => format!("gw1 dropped nothing as {reason}"),
    };
    Row {
        who: who.into(),
        what,
        expected: format!("nothing; gw1 drops it as {reason}"),
        seen: format!("{}; {dropped}", seen.describe()),
        rule: rule.into(),
        as_expected: matches!(seen, Seen::Nothing(_)) && drops.contains_key(reason),
    }
}

/// Does `action`; also returns what gw1 dropped meanwhile, by reason.
fn refused(
    world: &World<'_>,
    action: impl FnOnce() -> Result<Seen>,
) -> Result<(Seen, BTreeMap<String, u64>)> {
    let before = drops(&world.gw1)?;
    let seen = action()?;
    let mut after = drops(&world.gw1)?;
    after.retain(|reason, count| {
        *count = count.saturating_sub(before.get(reason).copied().unwrap_or(0));
        *count > 0
    });
    Ok((seen, after))
}

/// Packets that `agent` dropped so far, by reason.
fn drops(agent: &Agent) -> Result<BTreeMap<String, u64>> {
    let status: Value =
        agent.namespace.run(&agent.program("status").args(["--output", "json"]), STATUS)?.json()?;
    let list = status["counters"]["drops"].as_array().context("the gateway's status has no drops")?;
    ensure!(!list.is_empty(), "the gateway's status lists no reasons");
    let entry = |item: &Value| Some((item["reason"].as_str()?.to_owned(), item["packets"].as_u64()?));
    Ok(list.iter().filter_map(entry).collect())
}
