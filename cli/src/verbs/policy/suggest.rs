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
    coverage: Option<Coverage>,
    note: Option<String>,
    seen: Option<[String; 2]>,
    rules: Vec<Suggested>,
    blocked: Vec<Traffic>,
    plan: Plan,
}

/// What it was made from; an older control does not say.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Coverage {
    whole: bool,
    since: Option<String>,
    events: u64,
    unfit: u64,
    lost: u64,
    broken_off: u64,
    gone: u64,
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
    let mut body =
        json!({ "policy": options.from_flows, "min_flows": options.min_flows, "widen": options.widen });
    if let Some(days) = options.days {
        body["days"] = days.into();
    }
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
    for sentence in told.coverage.iter().flat_map(coverage) {
        terminal.note(sentence);
    }
    let Some([first, last]) = &told.seen else {
        terminal.note(format!(
            "Control has counted no flow of '{}': with its rules gone, nothing that was seen would be blocked.",
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

/// Since when flows are known, and what is missing of them.
fn coverage(of: &Coverage) -> Vec<String> {
    let mut said = Vec::new();
    match &of.since {
        Some(since) if of.whole => {
            said.push(format!("Flows are known since {} UTC; none of them is missing.", date_time(since)))
        }
        Some(since) => said.push(format!(
            "NOT ALL of the flows since {} UTC are known: {} of the policy's {} flow events are in no sum, agents lost {} of any policy, and control broke off \
             {} times. Rules may be missing.",
            date_time(since),
            count(of.unfit),
            count(of.events),
            count(of.lost),
            count(of.broken_off)
        )),
        None => {}
    }
    if of.gone > 0 {
        said.push(format!("Flows of peers that are gone, which get no rule: {}.", count(of.gone)));
    }
    said
}

/// One line for traffic that is refused.
pub(super) fn traffic(row: &Traffic) -> String {
    let to = if row.destination.is_empty() { String::new() } else { format!("{} ", row.destination) };
    let (flows, size) = (plural(usize::try_from(row.flows).unwrap_or(usize::MAX), "flow"), bytes(row.bytes));
    format!("{} -> {to}({}) {}, {flows} with {size}: {}", row.source, row.address, row.service, row.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_and_what_is_not_known_is_not() {
        let since = Some("2026-11-22T12:00:00Z".to_owned());
        let whole = Coverage { whole: true, since: since.clone(), events: 10, ..Coverage::default() };
        assert_eq!(
            coverage(&whole),
            ["Flows are known since 2026-11-22 12:00:00 UTC; none of them is missing."]
        );
        let partial =
            Coverage { whole: false, since, events: 1_000, unfit: 3, lost: 2, broken_off: 4, gone: 1 };
        let said = coverage(&partial);
        assert!(
            said[0].starts_with("NOT ALL") && said[0].contains("3 of the policy's 1,000 flow"),
            "{said:?}"
        );
        assert!(
            said[0].contains("lost 2") && said[0].contains("broke off 4") && said[1].ends_with("no rule: 1."),
            "{said:?}"
        );
        assert!(coverage(&Coverage { whole: true, ..Coverage::default() }).is_empty());
    }
}
