//! `sluice policy suggest`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::file;
use crate::args::Suggest;
use crate::client::Client;
use crate::error::Failure;
use crate::human::{bytes, count, date_time, plural};
use crate::rest::plan::{Plan, Traffic};
use crate::terminal::Terminal;
use crate::verbs::read;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Suggestion {
    file: String,
    flows: u64,
    note: Option<String>,
    seen: Option<[String; 2]>,
    rules: Vec<Suggested>,
    blocked: Vec<Traffic>,
    plan: Plan,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Suggested {
    name: String,
    flows: u64,
    bytes: u64,
}

/// Prints a policy file, and beside it what its rules would have admitted and blocked.
pub(super) async fn run(
    client: &Client,
    terminal: &mut Terminal<'_>,
    options: &Suggest,
) -> Result<(), Failure> {
    let body =
        json!({ "policy": options.from_flows, "min_flows": options.min_flows, "widen": options.widen });
    let answer: Value = client.post("/api/policy-file/suggest", &body).await?;
    if terminal.is_json() {
        return terminal.json("policy-suggest", json!({ "suggestion": answer }));
    }
    let told: Suggestion = read(&answer, "a suggestion")?;
    match &options.write {
        Some(path) => {
            let name = path.display();
            file::replace(path, &told.file)
                .map_err(|error| Failure::failed(format!("cannot write {name}")).why(error))?;
            terminal
                .line(format!("{name} is written; `sluice policy plan -f {name}` says what it would do"))?;
        }
        None => terminal.out.write_all(told.file.as_bytes())?,
    }
    if let Some(note) = &told.note {
        terminal.note(format!("Note: {note}."));
    }
    let Some([first, last]) = &told.seen else {
        terminal.note(format!(
            "Control holds no flow of '{}': with its rules gone, nothing that was seen would be blocked.",
            options.from_flows
        ));
        return Ok(());
    };
    terminal.note(format!(
        "Seen of '{}': {} flows, {} to {} UTC. Of these the new rules would have admitted:",
        options.from_flows,
        count(told.flows),
        date_time(first),
        date_time(last)
    ));
    for rule in &told.rules {
        terminal.note(format!("  {:<44} {:>6} flows  {}", rule.name, count(rule.flows), bytes(rule.bytes)));
    }
    if told.blocked.is_empty() {
        terminal.note("And blocked: nothing.");
    } else {
        terminal.note("And blocked:");
        for row in &told.blocked {
            terminal.note(format!("  {}", traffic(row)));
        }
    }
    terminal.note(format!(
        "It would close {} pairs and open {}.",
        count(told.plan.reach.closed.pairs),
        count(told.plan.reach.opened.pairs)
    ));
    Ok(())
}

/// One line for traffic that is refused.
pub(super) fn traffic(row: &Traffic) -> String {
    let to = if row.destination.is_empty() { String::new() } else { format!("{} ", row.destination) };
    let (flows, size) = (plural(usize::try_from(row.flows).unwrap_or(usize::MAX), "flow"), bytes(row.bytes));
    format!("{} -> {to}({}) {}, {flows} with {size}: {}", row.source, row.address, row.service, row.why)
}
