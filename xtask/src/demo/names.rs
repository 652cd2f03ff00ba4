//! A server that is known by its name: its gateways look it up, and follow it where it moves to. And one below a wildcard, whose name
//! its clients ask for: it is open when they are answered.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use sluicegate_lab::{Process, Program, wait};

use super::access::explain;
use super::agent::Agent;
use super::client::{Ask, Seen};
use super::lookup::{self, Said};
use super::table::{Row, Table};
use super::topology::{APP, Family, PAGES, site};
use super::world::World;

const NAME: &str = "app.site.example";
const ASK: Ask = Ask::Tcp(8080);
/// A name that is written down nowhere but at the site's name server, and one that is not there either.
const PAGE: &str = "shop.pages.site.example";
const NO_PAGE: &str = "absent.pages.site.example";
const READ: Ask = Ask::Http(8090);
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
    below_a_wildcard(world, table)
}

/// Who may ask gets addresses that are open, at the first packet; who may not gets none, and is let to none.
fn below_a_wildcard(world: &World<'_>, table: &mut Table) -> Result<()> {
    anyhow::ensure!(addresses(world, "pages")?.is_empty(), "nobody has asked for pages yet");
    for family in Family::BOTH {
        let to = site(PAGES, family);
        let said = ask(world, &world.alice, PAGE, family)?;
        let seen = match &said {
            Said::Addresses(found) if found[..] == [to] => {
                READ.once(&world.alice.namespace, to, &world.traffic)?
            }
            other => Seen::Nothing(format!("looked up: {}", other.describe())),
        };
        row(
            world,
            table,
            &world.alice,
            family,
            "answered",
            matches!(seen, Seen::Answered(_)),
            seen.describe(),
        )?;
        let said = ask(world, &world.carol, PAGE, family)?;
        let is_told = matches!(&said, Said::Addresses(found) if !found.is_empty());
        let seen = READ.once(&world.carol.namespace, to, &world.traffic)?;
        let as_expected = !is_told && matches!(seen, Seen::Nothing(_));
        let seen = format!("looked up: {}; {}", said.describe(), seen.describe());
        row(world, table, &world.carol, family, "no address, no answer", as_expected, seen)?;
        let said = ask(world, &world.alice, NO_PAGE, family)?;
        anyhow::ensure!(said == Said::NoSuchName, "{NO_PAGE} is looked up: {}", said.describe());
    }
    let known = addresses(world, "pages")?;
    let expected: Vec<String> = Family::BOTH.map(|family| site(PAGES, family).to_string()).into();
    anyhow::ensure!(known == expected, "control holds {known:?} of the pages");
    Ok(())
}

fn row(
    world: &World<'_>,
    table: &mut Table,
    who: &Agent,
    family: Family,
    expected: &str,
    as_expected: bool,
    seen: String,
) -> Result<()> {
    table.add(Row {
        who: who.name().into(),
        what: format!("{}, {}", READ.describe(PAGE), family.name()),
        expected: expected.into(),
        as_expected,
        seen,
        rule: explain(world, who.name(), &READ.flow(site(PAGES, family)))?.reason,
    });
    Ok(())
}

/// Asks an agent as a program on its host does.
fn ask(world: &World<'_>, who: &Agent, name: &str, family: Family) -> Result<Said> {
    lookup::ask(&who.namespace, who.overlay(&world.control, family)?, name, family)
}

/// Starts a name server for which [`NAME`] has the site's addresses of host `number`.
fn serve(world: &World<'_>, number: u8) -> Result<Process> {
    let [v4, v6] = Family::BOTH.map(|family| site(number, family));
    let [page_v4, page_v6] = Family::BOTH.map(|family| site(PAGES, family));
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
        &format!("--host-record={PAGE},{page_v4},{page_v6},60"),
    ]);
    let server = world.site.dns.spawn(&format!("dns-{number}"), &dnsmasq)?;
    server.wait_for_line("started", Duration::from_secs(10))?;
    Ok(server)
}

/// Waits until control holds that the name stands for `address`.
fn wait_until_known(world: &World<'_>, address: &str) -> Result<()> {
    let mut last = Vec::new();
    let known = wait::until(FOLLOWED, || -> Result<_> {
        last = addresses(world, "app")?;
        Ok(last.iter().any(|known| known == address).then_some(()))
    })?;
    known.with_context(|| format!("{NAME} stands for {last:?}, and not for {address}, after {FOLLOWED:?}"))
}

/// What control holds that the names of a resource stand for.
fn addresses(world: &World<'_>, name: &str) -> Result<Vec<String>> {
    let network = world.control.named("/api/networks", "site")?;
    let path = format!("/api/networks/{}/resources", network["id"].as_str().unwrap_or_default());
    let resource = world.control.named(&path, name)?;
    let list = resource["addresses"].as_array().into_iter().flatten();
    Ok(list.filter_map(Value::as_str).map(str::to_owned).collect())
}
