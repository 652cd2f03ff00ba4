//! What an operator sees on a gateway: `sluice` asked through the agent's socket while packets pass and are dropped.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use sluicegate_lab::{Finished, Program};

use super::client::{Ask, Seen};
use super::rogue;
use super::table::{Row, Table};
use super::topology::{DB, Family, WEB, site};
use super::world::World;

/// For any verb to end; a capture leaves by itself before.
const ENDED: Duration = Duration::from_secs(30);
const RULE: &str = "engineering uses the web / pages and api";

/// Carol is unguarded, where she can be: what she is not permitted, gw1 drops.
pub(crate) fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    for family in Family::BOTH {
        let (web, db) = (site(WEB, family), site(DB, family));
        trace(world, table, family, &Ask::Http(443).flow(web), (0, "passes", RULE))?;
        trace(
            world,
            table,
            family,
            &Ask::Tcp(5432).flow(db),
            (4, "rule_drop", "nobody touches the database / closed"),
        )?;
        capture(world, table, family, web)?;
        flows(world, table, family, web)?;
        if rogue::can_disarm(world) {
            drops(world, table, family, web)?;
        }
    }
    top(world, table)
}

fn trace(
    world: &World<'_>,
    table: &mut Table,
    family: Family,
    flow: &str,
    (code, word, rule): (i32, &str, &str),
) -> Result<()> {
    let alice = world.alice.overlay(&world.control, family)?.to_string();
    let finished = sluice(world, &["trace", &alice, flow])?;
    let first = finished.stdout.lines().next().unwrap_or_default().to_owned();
    let ended = finished.status.and_then(|status| status.code());
    table.add(Row {
        who: "operator on gw1".into(),
        what: format!("sluice trace alice {flow}"),
        expected: format!("{word}, and exit code {code}"),
        seen: format!("{first}; exit code {}", ended.map_or("none".into(), |code| code.to_string())),
        rule: rule.into(),
        as_expected: ended == Some(code) && first.contains(word) && first.ends_with(&format!("by {rule}")),
    });
    Ok(())
}

/// Alice asks until a capture has what it was to catch.
fn capture(world: &World<'_>, table: &mut Table, family: Family, web: IpAddr) -> Result<()> {
    let file = world.logs().join(format!("web-{}.pcapng", family.name()));
    let path = file.to_str().context("the lab's directory is not UTF-8")?;
    let (count, host) = ("6", web.to_string());
    let args = ["capture", "-w", path, "-c", count, "--duration", "20s", "host", &host, "port", "443"];
    let finished = thread::scope(|scope| -> Result<Finished> {
        let capture = scope.spawn(|| sluice(world, &args));
        while !capture.is_finished() {
            Ask::Http(443).once(&world.alice.namespace, web, &world.traffic)?;
        }
        capture.join().map_err(|_| anyhow!("the capture's thread failed"))?
    })?;
    let caught = fs::read(&file).with_context(|| format!("{} was not written", file.display()))?;
    let told =
        |comment: &str| caught.windows(comment.len()).filter(|part| *part == comment.as_bytes()).count();
    let there = told(&format!("overlay -> site eth1; rule {RULE}"));
    let back = told(&format!("site -> overlay; rule {RULE}"));
    table.add(Row {
        who: "operator on gw1".into(),
        what: format!("sluice capture of {count} packets of web:443, {}", family.name()),
        expected: format!("{count} packets, each way, with verdict and rule"),
        seen: format!("{there} to the site and {back} back"),
        rule: RULE.into(),
        as_expected: finished.success() && there > 0 && back > 0 && (there + back).to_string() == count,
    });
    Ok(())
}

fn flows(world: &World<'_>, table: &mut Table, family: Family, web: IpAddr) -> Result<()> {
    let ask = Ask::Udp(443);
    ask.until_answered(&world.alice.namespace, web, &world.traffic)?;
    let filter = format!("host {web} port 443 proto udp");
    let answer: Value = sluice(world, &["flow", "list", "--output", "json", "--filter", &filter])?.json()?;
    let alice = world.alice.overlay(&world.control, family)?.to_string();
    let flows = answer["flows"].as_array().context("`sluice flow list` lists no flows")?;
    let told = |flow: &Value| {
        let packets = |way: &str| flow[way]["packets"].as_u64().unwrap_or(0);
        (packets("forward"), packets("replies"), flow["rule"]["rule_name"].as_str().unwrap_or("").to_owned())
    };
    // There may be earlier ones, of a try that was not answered.
    let of_alice = flows.iter().filter(|flow| flow["source"]["address"] == *alice);
    let told = of_alice.map(told).max_by_key(|(_, replies, _)| *replies);
    table.add(Row {
        who: "operator on gw1".into(),
        what: format!("sluice flow list, {}", SocketAddr::new(web, 443)),
        expected: "alice's flow, packets both ways, its rule".into(),
        seen: match &told {
            Some((there, back, rule)) => format!("{there} packets to the site, {back} back, rule {rule}"),
            None => format!("{} flows, none of alice", flows.len()),
        },
        rule: "engineering uses the web / quic".into(),
        as_expected: matches!(&told, Some((1.., 1.., rule)) if rule == "quic"),
    });
    Ok(())
}

fn drops(world: &World<'_>, table: &mut Table, family: Family, web: IpAddr) -> Result<()> {
    let counted = || -> Result<u64> {
        let answer: Value = sluice(world, &["drops", "list", "--output", "json"])?.json()?;
        let list = answer["drops"].as_array().context("`sluice drops list` lists no reasons")?;
        let entry = list.iter().find(|drop| drop["reason"] == "no_rule");
        Ok(entry.and_then(|entry| entry["packets"].as_u64()).unwrap_or(0))
    };
    let before = counted()?;
    let seen = Ask::Tcp(8443).once(&world.carol.namespace, web, &world.traffic)?;
    let after = counted()?;
    table.add(Row {
        who: "operator on gw1".into(),
        what: format!("sluice drops list while carol tries web:8443, {}", family.name()),
        expected: "more packets without a rule".into(),
        seen: format!("no_rule went from {before} to {after}; {}", seen.describe()),
        rule: "no rule".into(),
        as_expected: after > before && matches!(seen, Seen::Nothing(_)),
    });
    Ok(())
}

fn top(world: &World<'_>, table: &mut Table) -> Result<()> {
    let finished = sluice(world, &["gateway", "top", "--once", "--interval", "500ms"])?;
    let line = finished.stdout.lines().find(|line| line.starts_with(RULE)).unwrap_or_default().to_owned();
    table.add(Row {
        who: "operator on gw1".into(),
        what: "sluice gateway top --once".into(),
        expected: "the rule and what it carried".into(),
        seen: if line.is_empty() {
            "no such rule".into()
        } else {
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        },
        rule: RULE.into(),
        as_expected: finished.success() && line.contains("accept") && line.contains("iB"),
    });
    Ok(())
}

/// `sluice ARGS` on gw1, by the socket of the agent there.
fn sluice(world: &World<'_>, args: &[&str]) -> Result<Finished> {
    let program =
        Program::new(world.control.sluice_path()).args(args).env("SLUICE_GATEWAY_SOCKET", world.gw1.socket());
    world.gw1.namespace.run(&program, ENDED)
}
