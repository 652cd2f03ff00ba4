//! `sluice flow watch` and `sluice drops` beside an agent.

use serde_json::{Value, json};

use crate::args::FlowWatch;
use crate::error::Failure;
use crate::human::count;
use crate::local::Agent;
use crate::sse::Decoder;
use crate::terminal::{Terminal, Tone, cell, text};
use crate::verbs::flow;

/// Follows the agent's events of `kinds` (all of them when empty) until `count` were shown, or for ever.
pub(crate) async fn watch(
    agent: &Agent,
    terminal: &mut Terminal<'_>,
    options: &FlowWatch,
    kinds: &str,
) -> Result<(), Failure> {
    let mut query: Vec<_> = options.replay.iter().map(|replay| ("replay", replay.to_string())).collect();
    if !kinds.is_empty() {
        query.push(("kind", kinds.to_owned()));
    }
    let mut response = agent.stream("/v1/events", &query).await?;
    flow::heading(terminal)?;
    let mut decoder = Decoder::default();
    let mut left = options.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(chunk) = agent.chunk(&mut response).await? else { return Err(agent.ended()) };
        let events = decoder
            .feed(&chunk)
            .map_err(|error| Failure::failed("the agent sent what is no flow event").why(error))?;
        for event in events {
            if left == 0 {
                break;
            }
            if flow::show(&event, terminal)? {
                left -= 1;
            }
        }
        terminal.out.flush()?;
    }
    Ok(())
}

/// Prints how many packets were dropped for which reason.
pub(crate) async fn drops(agent: &Agent, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let answer: Value = agent.get("/v1/drops").await?;
    if terminal.is_json() {
        return terminal.json(
            "drops",
            json!({ "drops": answer["drops"], "events": answer["events"], "recent": answer["recent"] }),
        );
    }
    let none = Vec::new();
    let mut drops: Vec<(u64, &str, &str)> = answer["drops"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .map(|drop| {
            let word = |field: &str| drop[field].as_str().unwrap_or_default();
            (drop["packets"].as_u64().unwrap_or_default(), word("reason"), word("explanation"))
        })
        .filter(|(packets, ..)| *packets > 0)
        .collect();
    drops.sort_by_key(|(packets, reason, _)| (std::cmp::Reverse(*packets), *reason));
    let rows = drops
        .iter()
        .map(|(packets, reason, means)| vec![cell(Tone::Bad, reason), text(count(*packets)), text(means)]);
    terminal.table(&["REASON", ">PACKETS", "MEANS"], rows.collect(), "Nothing was dropped.")?;
    let events = &answer["events"];
    let (suppressed, lost) =
        (events["suppressed"].as_u64().unwrap_or(0), events["lost"].as_u64().unwrap_or(0));
    if suppressed + lost > 0 {
        terminal.note(format!(
            "Not every event is told: {} left out by sampling, {} lost. The counters are exact.",
            count(suppressed),
            count(lost)
        ));
    }
    Ok(())
}
