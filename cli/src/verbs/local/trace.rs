//! `sluice trace`: one synthetic packet through the live tables of the agent here.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{End, Rule, protocol};
use crate::args::Trace;
use crate::error::Failure;
use crate::local::Agent;
use crate::terminal::{Terminal, Tone};
use crate::verbs::read;

/// Prints what would become of the packet, and every stage; exit code 4 when it is dropped.
pub(crate) async fn run(agent: &Agent, terminal: &mut Terminal<'_>, asked: &Trace) -> Result<(), Failure> {
    let body = json!({
        "source": asked.source.host,
        "source_port": asked.source.port,
        "destination": asked.destination.host,
        "destination_port": asked.destination.port,
        "protocol": asked.destination.protocol,
        "side": asked.side.map(|side| side.name()),
        "tcp_flags": asked.tcp_flags.map(|flags| flags.name()),
        "ttl": asked.ttl,
        "length": asked.length,
        "ipv6": asked.ipv6,
    });
    let answer: Value = agent.post("/v1/trace", &body).await?;
    let told: Told = read(&answer["trace"], "a trace")?;
    if terminal.is_json() {
        terminal.json("trace", json!({ "trace": answer["trace"] }))?;
    } else {
        print(terminal, &told)?;
    }
    if told.passes { Ok(()) } else { Err(Failure::denied()) }
}

fn print(terminal: &mut Terminal<'_>, told: &Told) -> Result<(), Failure> {
    let (name, has_ports) = protocol(told.packet.protocol);
    let Packet { source, source_port, source_name, destination, destination_port, destination_name, .. } =
        &told.packet;
    let end = |address: &String, port: &u32, name: &String| End {
        address: address.clone(),
        port: *port,
        name: name.clone(),
    };
    let source = end(source, source_port, source_name);
    let destination = end(destination, destination_port, destination_name);
    let (word, fate) = match told.verdict.as_str() {
        "drop" => (terminal.paint(Tone::Bad, "dropped"), format!(", {}", told.reason)),
        "site" => (terminal.paint(Tone::Good, "passes"), format!(", to the site by {}", told.device)),
        "overlay" => (terminal.paint(Tone::Good, "passes"), ", into the overlay".to_owned()),
        _ => (terminal.paint(Tone::Good, "passes"), ", to this host".to_owned()),
    };
    let rule = Rule::text(&told.rule);
    let by = if rule.is_empty() { String::new() } else { format!(", by {rule}") };
    terminal.line(format!(
        "{word}: {} -> {}, {name}{fate}{by}",
        source.text(has_ports),
        destination.text(has_ports)
    ))?;
    for stage in &told.stages {
        let found = match stage.outcome.as_str() {
            "stopped" => terminal.paint(Tone::Bad, &stage.found),
            _ => stage.found.clone(),
        };
        terminal.line(format!("  {:<12} {found}", stage.stage))?;
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Told {
    passes: bool,
    verdict: String,
    reason: String,
    device: String,
    rule: Rule,
    packet: Packet,
    stages: Vec<Stage>,
}

#[derive(Debug, Deserialize)]
struct Packet {
    protocol: u32,
    source: String,
    source_port: u32,
    #[serde(default)]
    source_name: String,
    destination: String,
    destination_port: u32,
    #[serde(default)]
    destination_name: String,
}

#[derive(Debug, Deserialize)]
struct Stage {
    stage: String,
    outcome: String,
    found: String,
}
