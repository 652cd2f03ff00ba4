//! `sluice flow list`: the live flows of the agent here.

use std::cmp::Reverse;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{End, Rule, or_none, protocol};
use crate::args::FlowList;
use crate::error::Failure;
use crate::filter::Filter;
use crate::human::{bytes, count};
use crate::local::Agent;
use crate::terminal::{Terminal, Tone, cell, text};
use crate::verbs::read;

/// Prints the flows that carried most, first.
pub(crate) async fn list(
    agent: &Agent,
    terminal: &mut Terminal<'_>,
    options: &FlowList,
) -> Result<(), Failure> {
    let mut answer: Value = agent.get("/v1/flows").await?;
    let items = match answer["flows"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let mut flows: Vec<(Flow, Value)> = Vec::with_capacity(items.len());
    for item in items {
        let flow: Flow = read(&item, "a flow")?;
        if options.filter.as_ref().is_none_or(|filter| flow.matches(filter)) {
            flows.push((flow, item));
        }
    }
    flows.sort_by_key(|(flow, _)| {
        Reverse((flow.forward.bytes + flow.replies.bytes, flow.source.address.clone(), flow.source.port))
    });
    let all = flows.len();
    if options.limit > 0 {
        flows.truncate(options.limit);
    }
    if terminal.is_json() {
        let flows: Vec<Value> = flows.into_iter().map(|(_, item)| item).collect();
        return terminal.json("flows", json!({ "total": all, "flows": flows }));
    }
    let rows = flows.iter().map(|(flow, _)| {
        let (name, has_ports) = protocol(flow.protocol);
        let tone = if flow.confirmed { Tone::Good } else { Tone::Warn };
        vec![
            text(&name),
            text(flow.source.text(has_ports)),
            text(flow.destination.text(has_ports)),
            text(or_none(flow.translated_source.clone())),
            cell(tone, &flow.state),
            text(idle(flow.idle_seconds)),
            text(count(flow.forward.packets)),
            text(bytes(flow.forward.bytes)),
            text(count(flow.replies.packets)),
            text(bytes(flow.replies.bytes)),
            text(flow.rule.text()),
        ]
    });
    let headings = [
        "PROTO",
        "FROM",
        "TO",
        "~SEEN AS",
        "STATE",
        "~>IDLE",
        "~>SENT",
        ">BYTES",
        "~>REPLIES",
        ">BYTES",
        "BY RULE",
    ];
    terminal.table(&headings, rows.collect(), "No flow lives here now.")?;
    if all > flows.len() {
        terminal.note(format!("{} more flows; --limit 0 shows all.", count((all - flows.len()) as u64)));
    }
    Ok(())
}

fn idle(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        120.0..7_200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3_600.0),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Flow {
    protocol: u32,
    source: End,
    destination: End,
    translated_source: String,
    state: String,
    confirmed: bool,
    idle_seconds: f64,
    forward: Carried,
    replies: Carried,
    rule: Rule,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Carried {
    packets: u64,
    bytes: u64,
}

impl Flow {
    fn matches(&self, filter: &Filter) -> bool {
        let host = |host: &String| {
            [&self.source, &self.destination].iter().any(|e| &e.address == host || &e.name == host)
        };
        let port = |port: &u16| [&self.source, &self.destination].iter().any(|e| e.port == u32::from(*port));
        filter.host.as_ref().is_none_or(host)
            && filter.port.as_ref().is_none_or(port)
            && filter.protocol_number().is_none_or(|numbers| numbers.contains(&self.protocol))
    }
}
