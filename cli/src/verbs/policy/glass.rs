//! `sluice policy break-glass`.

use serde_json::{Value, json};
use sluicegate_policy::file::duration_text;

use crate::args::BreakGlass;
use crate::client::Client;
use crate::error::Failure;
use crate::human::{ago, date_time};
use crate::rest::plan::Glass;
use crate::terminal::{Terminal, Tone, cell, text};
use crate::verbs::{read, read_all};

pub(super) async fn run(
    client: &Client,
    terminal: &mut Terminal<'_>,
    asked: BreakGlass,
) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/break-glass").await?;
    let glasses: Vec<Glass> = read_all(&items, "a break-glass policy")?;
    let (name, body) = match asked {
        BreakGlass::List => return list(terminal, &glasses, items),
        BreakGlass::On { policy, reason, time } => {
            let seconds = time.map(|time| time.as_secs());
            (policy, Some(json!({ "reason": reason, "seconds": seconds })))
        }
        BreakGlass::Off { policy } => (policy, None),
    };
    let Some(glass) = glasses.iter().find(|glass| glass.name == name || glass.id == name) else {
        let names: Vec<&str> = glasses.iter().map(|glass| glass.name.as_str()).collect();
        return Err(Failure::failed(format!("'{name}' is no break-glass policy"))
            .why(if names.is_empty() {
                "there is none".to_owned()
            } else {
                format!("there are: {}", names.join(", "))
            })
            .next("give a policy `break_glass: {max: TIME}` in a policy file and apply it"));
    };
    let path = format!("/api/break-glass/{}", glass.id);
    let answer: Value = match &body {
        Some(body) => client.post(&path, body).await?,
        None => client.delete(&path).await?,
    };
    if terminal.is_json() {
        return terminal.json("policy-break-glass", json!({ "policy": answer }));
    }
    let glass: Glass = read(&answer, "a break-glass policy")?;
    match glass.until.filter(|_| glass.on) {
        Some(until) => {
            let word = terminal.paint(Tone::Bad, "ON");
            let left = ago(&until, terminal.now);
            terminal.line(format!(
                "{} is {word} until {} UTC ({left}): {}",
                glass.name,
                date_time(&until),
                glass.reason
            ))
        }
        None => terminal.line(format!("{} is off", glass.name)),
    }
}

fn list(terminal: &mut Terminal<'_>, glasses: &[Glass], items: Vec<Value>) -> Result<(), Failure> {
    if terminal.is_json() {
        return terminal.json("policy-break-glass", json!({ "policies": items }));
    }
    let rows = glasses.iter().map(|glass| {
        let until = glass.until.as_deref().filter(|_| glass.on).map(date_time).unwrap_or_default();
        vec![
            text(&glass.name),
            if glass.on { cell(Tone::Bad, "ON") } else { cell(Tone::Faint, "off") },
            text(duration_text(glass.max_seconds)),
            text(until),
            text(&glass.reason),
        ]
    });
    terminal.table(
        &["POLICY", "ON", ">AT MOST", "UNTIL", "REASON"],
        rows.collect(),
        "No break-glass policies: give one `break_glass: {max: 1h}` in a policy file.",
    )
}
