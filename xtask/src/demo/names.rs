//! A server that is known by its name: its gateways look it up, and follow it where it moves to.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use sluicegate_lab::{Process, Program, wait};

use super::access::explain;
use super::client::{Ask, Seen};
use super::table::{Row, Table};
use super::topology::{APP, Family, site};
use super::world::World;

const NAME: &str = "app.site.example";
const ASK: Ask = Ask::Tcp(8080);
/// How long its records are good for, seconds: as short as gateways heed.
const TTL: &str = "5";
/// A gateway looks again after as long, and what it finds is a change of policy as any other.
const FOLLOWED: Duration = Duration::from_secs(20);

pub(crate) fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    let mut server: Option<Process> = None;
    for (number, at) in APP.into_iter().zip(["at", "moved to"]) {
        if let Some(before) = server.take() {
            before.kill();
        }
        server = Some(serve(world, number)?);
        for family in Family::BOTH {
            let to = site(number, family);
            wait_until_known(world, &to.to_string())?;
            world.wait_until_in_step()?;
            for (who, allowed) in [(&world.alice, true), (&world.carol, false)] {
                let seen = match allowed {
                    true => ASK.until_answered(&who.namespace, to, &world.traffic)?,
                    false => ASK.once(&who.namespace, to, &world.traffic)?,
                };
                table.add(Row {
                    who: who.name().into(),
                    what: format!("{} {at} {to}", ASK.describe(NAME)),
                    expected: if allowed { "answered" } else { "no answer" }.into(),
                    as_expected: matches!(seen, Seen::Answered(_)) == allowed,
                    seen: seen.describe(),
                    rule: explain(world, who.name(), &ASK.flow(to))?.reason,
                });
            }
        }
    }
    Ok(())
}

/// Starts a name server for which [`NAME`] has the site's addresses of host `number`.
fn serve(world: &World<'_>, number: u8) -> Result<Process> {
    let [v4, v6] = Family::BOTH.map(|family| site(number, family));
    let dnsmasq = Program::new("dnsmasq").args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--log-facility=-",
        "--log-queries",
        "--no-resolv",
        "--no-hosts",
        "--local=/site.example/",
        &format!("--host-record={NAME},{v4},{v6},{TTL}"),
    ]);
    let server = world.site.dns.spawn(&format!("dns-{number}"), &dnsmasq)?;
    server.wait_for_line("started", Duration::from_secs(10))?;
    Ok(server)
}

/// Waits until control holds that the name stands for `address`.
fn wait_until_known(world: &World<'_>, address: &str) -> Result<()> {
    let mut last = Vec::new();
    let known = wait::until(FOLLOWED, || -> Result<_> {
        last = addresses(world)?;
        Ok(last.iter().any(|known| known == address).then_some(()))
    })?;
    known.with_context(|| format!("{NAME} stands for {last:?}, and not for {address}, after {FOLLOWED:?}"))
}

/// What control holds that the name stands for.
fn addresses(world: &World<'_>) -> Result<Vec<String>> {
    let network = world.control.named("/api/networks", "site")?;
    let path = format!("/api/networks/{}/resources", network["id"].as_str().unwrap_or_default());
    let resource = world.control.named(&path, "app")?;
    let list = resource["addresses"].as_array().into_iter().flatten();
    Ok(list.filter_map(Value::as_str).map(str::to_owned).collect())
}
