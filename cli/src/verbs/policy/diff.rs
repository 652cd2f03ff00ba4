//! `sluice policy diff`.

use std::path::Path;

use serde_json::{Value, json};
use sluicegate_policy::file::{self as files, Change as Difference, Doing, PolicyFile, Prune};

use super::{apply, file};
use crate::args::Pruning;
use crate::client::Client;
use crate::error::Failure;
use crate::rest::plan::{Change, Export, Plan, Revision};
use crate::terminal::Terminal;
use crate::verbs::read;

/// What a file says otherwise than control.
pub(super) async fn file(
    client: &Client,
    terminal: &mut Terminal<'_>,
    path: &Path,
    prune: Pruning,
) -> Result<(), Failure> {
    let source = file::read(path, terminal)?;
    let body = json!({ "file": source.text, "prune": prune.name() });
    let answer = client.ask::<Value>("/api/policy-file/plan", &body).await?;
    let answer = answer.map_err(|refused| file::refused(terminal, &source.name, refused))?;
    let plan: Plan = read(&answer, "a plan")?;
    tell(terminal, &plan, &answer["changes"])
}

/// What differs between two revisions, or between one and what is there now.
pub(super) async fn revisions(
    client: &Client,
    terminal: &mut Terminal<'_>,
    from: i64,
    to: Option<i64>,
) -> Result<(), Failure> {
    let old = revision(client, from).await?;
    let new = match to {
        Some(number) => revision(client, number).await?,
        None => parse("what control has", &client.get::<Export>("/api/policy-file").await?.file)?,
    };
    let mut terms = [whole(old), whole(new)];
    // A revision from before posture checks were in files does not say what they were.
    if terms.iter().any(|file| file.posture_checks.is_none()) {
        terms.iter_mut().for_each(|file| file.posture_checks = None);
    }
    let [old, new] = &terms;
    let changes = files::differences(old, new, Prune::Everything);
    let changes: Vec<Change> = changes.into_iter().filter(Difference::writes).map(described).collect();
    let shown = changes.iter().map(|change| {
        json!({ "action": change.action, "kind": change.kind, "name": change.name, "network": change.network,
            "changes": change.changes })
    });
    let shown = shown.collect();
    tell(terminal, &Plan { changes, ..Plan::default() }, &shown)
}

async fn revision(client: &Client, number: i64) -> Result<PolicyFile, Failure> {
    let revision: Revision = client.get(&format!("/api/policy-file/revisions/{number}")).await?;
    parse(&format!("revision {number}"), &revision.file)
}

fn parse(what: &str, text: &str) -> Result<PolicyFile, Failure> {
    files::parse(text).map_err(|error| {
        Failure::failed(format!("cannot read {what}")).why(error).next("use a sluice of control's version")
    })
}

/// What a canonical file leaves out is empty, not left as it is.
fn whole(mut file: PolicyFile) -> PolicyFile {
    let text = |text: &mut Option<String>| *text = Some(text.take().unwrap_or_default());
    for check in file.posture_checks.iter_mut().flatten() {
        text(&mut check.description);
    }
    for network in &mut file.networks {
        text(&mut network.description);
        network.resources.iter_mut().for_each(|resource| text(&mut resource.description));
    }
    for policy in &mut file.policies {
        text(&mut policy.description);
        policy.posture_checks.get_or_insert_default();
        policy.rules.iter_mut().for_each(|rule| text(&mut rule.description));
    }
    file
}

fn described(change: Difference) -> Change {
    Change {
        action: change.doing.word().to_owned(),
        kind: change.item.word().to_owned(),
        name: change.name,
        network: change.network,
        changes: if let Doing::Update(changes) = change.doing { changes } else { Vec::new() },
    }
}

fn tell(terminal: &mut Terminal<'_>, plan: &Plan, changes: &Value) -> Result<(), Failure> {
    if terminal.is_json() {
        terminal.json("policy-diff", json!({ "changes": changes }))?;
    } else if plan.changes.is_empty() {
        terminal.line("Nothing differs.")?;
    } else {
        apply::changes(terminal, plan)?;
    }
    if plan.changes.is_empty() { Ok(()) } else { Err(Failure::differs()) }
}
