//! `sluice posture`.

use std::fmt::Display;
use std::path::Path;

use serde_json::{Value, json};

use super::object::{self, Kind, set};
use super::{read, read_all};
use crate::args::Posture as Asked;
use crate::client::Client;
use crate::error::Failure;
use crate::rest::{Peer, Policy, PostureCheck};
use crate::terminal::{Terminal, text};

const PATH: &str = "/api/posture-checks";
const CHECK: Kind =
    Kind { word: "posture check", schema: "posture-check", names: &["name"], list: "sluice posture list" };

pub(crate) async fn run(client: &Client, terminal: &mut Terminal<'_>, asked: Asked) -> Result<(), Failure> {
    match asked {
        Asked::List => list(client, terminal).await,
        Asked::Show { check } => show(client, terminal, &check).await,
        Asked::Create { name, checks, description } => {
            let body = json!({ "name": name, "description": description, "checks": read_checks(terminal, &checks)? });
            let made: Value = client.post(PATH, &body).await?;
            CHECK.done(terminal, "Made", &made)
        }
        Asked::Update { check, name, checks, description } => {
            let checks = checks.map(|file| read_checks(terminal, &file)).transpose()?;
            let (path, _) = find(client, &check).await?;
            let (mut body, version) = client.versioned(&path).await?;
            set(&mut body, "name", name);
            set(&mut body, "description", description);
            set(&mut body, "checks", checks);
            CHECK.done(terminal, "Changed", &client.replace(&path, &body, version).await?)
        }
        Asked::Delete { check } => {
            let (path, check) = find(client, &check).await?;
            CHECK.delete(client, terminal, &path, &check).await
        }
        Asked::Status { check } => status(client, terminal, check.as_deref()).await,
    }
}

async fn find(client: &Client, wanted: &str) -> Result<(String, Value), Failure> {
    let checks: Vec<Value> = client.get(PATH).await?;
    let found = CHECK.find(&checks, wanted)?;
    Ok((format!("{PATH}/{}", object::text(found, "id")), found.clone()))
}

/// What a file says is asked for. Control judges what is in it.
fn read_checks(terminal: &mut Terminal<'_>, file: &Path) -> Result<Value, Failure> {
    let name = file.display();
    let failed = |why: &dyn Display| {
        Failure::usage(format!("cannot read what {name} asks for"))
            .why(why)
            .next("write what `sluice posture show CHECK --output json` has under checks")
    };
    let mut text = String::new();
    if file == Path::new("-") {
        terminal.input.read_to_string(&mut text).map_err(|error| failed(&error))?;
    } else {
        text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
    }
    let checks: Value = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    if checks.is_object() { Ok(checks) } else { Err(failed(&"it is no JSON object")) }
}

async fn show(client: &Client, terminal: &mut Terminal<'_>, wanted: &str) -> Result<(), Failure> {
    let (_, found) = find(client, wanted).await?;
    if terminal.is_json() {
        return terminal.json("posture-check", json!({ "posture_check": found }));
    }
    let check: PostureCheck = read(&found, "a posture check")?;
    let policies: Vec<Policy> = client.get("/api/policies").await?;
    let peers: Vec<Peer> = client.get("/api/peers").await?;
    object::fields(
        terminal,
        &[
            ("Name", &check.name),
            ("Id", &check.id),
            ("Description", object::text(&found, "description")),
            ("Policies", &asked_by(&check, &policies)),
            ("Failing", &failing(&check, &peers).replace('\n', "; ")),
        ],
    )?;
    terminal.line("Asks for")?;
    for line in format!("{:#}", check.checks).lines() {
        terminal.line(format!("  {line}"))?;
    }
    Ok(())
}

/// Which machines fail what, of the checks that policies ask for: others are judged by nobody.
async fn status(client: &Client, terminal: &mut Terminal<'_>, wanted: Option<&str>) -> Result<(), Failure> {
    let checks: Vec<Value> = client.get(PATH).await?;
    let chosen: Vec<Value> = match wanted {
        Some(wanted) => vec![CHECK.find(&checks, wanted)?.clone()],
        None => checks,
    };
    let mut chosen: Vec<PostureCheck> = read_all(&chosen, "a posture check")?;
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    let policies: Vec<Policy> = client.get("/api/policies").await?;
    let peers: Vec<Peer> = client.get("/api/peers").await?;
    let (mut fails, mut told) = (Vec::new(), Vec::new());
    for check in &chosen {
        let asked = !asked_by(check, &policies).is_empty();
        let mut failing: Vec<(&Peer, &str)> = (peers.iter())
            .filter_map(|peer| {
                let failure = peer.posture_failures.iter().find(|failure| failure.id == check.id)?;
                Some((peer, failure.reason.as_str()))
            })
            .collect();
        failing.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let of_one =
            failing.iter().map(|(peer, why)| json!({ "peer_id": peer.id, "peer": peer.name, "why": why }));
        told.push(json!({ "id": check.id, "name": check.name, "asked": asked, "peers": peers.len(),
            "fails": of_one.collect::<Vec<_>>() }));
        match failing.as_slice() {
            [] if asked => fails.push([check.name.clone(), String::new(), "no machine fails it".into()]),
            [] => fails.push([
                check.name.clone(),
                String::new(),
                "no policy asks for it, so nobody is judged".into(),
            ]),
            some => fails.extend(
                some.iter().map(|(peer, why)| [check.name.clone(), peer.name.clone(), (*why).to_owned()]),
            ),
        }
    }
    if terminal.is_json() {
        return terminal.json("posture-status", json!({ "posture_status": told }));
    }
    let rows = fails.into_iter().map(|row| row.iter().map(text).collect());
    terminal.table(&["CHECK", "MACHINE", "FAILS BECAUSE"], rows.collect(), "No posture checks.")
}

/// Prints all posture checks: what they ask, who asks for them, and who fails why.
async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let items: Vec<Value> = client.get(PATH).await?;
    if terminal.is_json() {
        return terminal.json("posture-checks", json!({ "posture_checks": items }));
    }
    let mut checks: Vec<PostureCheck> = read_all(&items, "a posture check")?;
    checks.sort_by(|a, b| a.name.cmp(&b.name));
    let (policies, peers): (Vec<Policy>, Vec<Peer>) = match checks.is_empty() {
        true => Default::default(),
        false => (client.get("/api/policies").await?, client.get("/api/peers").await?),
    };
    let rows = checks.iter().map(|check| {
        vec![
            text(&check.name),
            text(asks(check)),
            text(asked_by(check, &policies)),
            text(failing(check, &peers)),
            text(&check.id),
        ]
    });
    terminal.table(&["NAME", "ASKS FOR", "POLICIES", "FAILING", "~ID"], rows.collect(), "No posture checks.")
}

fn asks(check: &PostureCheck) -> String {
    const PARTS: [(&str, &str); 5] = [
        ("nb_version_check", "agent version"),
        ("os_version_check", "system version"),
        ("geo_location_check", "place"),
        ("peer_network_range_check", "addresses"),
        ("process_check", "processes"),
    ];
    let asked = PARTS.iter().filter(|(part, _)| !check.checks[part].is_null()).map(|(_, words)| *words);
    asked.collect::<Vec<_>>().join(", ")
}

fn asked_by(check: &PostureCheck, policies: &[Policy]) -> String {
    let asks = policies.iter().filter(|policy| policy.source_posture_checks.contains(&check.id));
    let mut names: Vec<&str> = asks.map(|policy| policy.name.as_str()).collect();
    names.sort_unstable();
    names.join(", ")
}

/// One line for each peer.
fn failing(check: &PostureCheck, peers: &[Peer]) -> String {
    let fails = |peer: &Peer| {
        let failure = peer.posture_failures.iter().find(|failure| failure.id == check.id)?;
        Some(format!("{}: {}", peer.name, failure.reason))
    };
    let mut lines: Vec<String> = peers.iter().filter_map(fails).collect();
    lines.sort_unstable();
    lines.join("\n")
}
