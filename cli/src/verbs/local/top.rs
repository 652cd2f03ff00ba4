//! `sluice gateway top`: counters by rule, resource and drop reason, and how fast they grow.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Rule;
use crate::args::GatewayTop;
use crate::error::Failure;
use crate::human::{bytes, count};
use crate::local::Agent;
use crate::terminal::{Terminal, Tone, cell, text};
use crate::verbs::read;

/// Shows rates until it is left, or once.
pub(crate) async fn run(
    agent: &Agent,
    terminal: &mut Terminal<'_>,
    options: &GatewayTop,
) -> Result<(), Failure> {
    if options.interval < Duration::from_millis(100) {
        return Err(Failure::usage("the counters are read at most ten times a second")
            .next("use an --interval of 100ms or more"));
    }
    if options.once {
        let before = snapshot(agent).await?;
        tokio::time::sleep(options.interval).await;
        let now = snapshot(agent).await?;
        return print(terminal, &before, &now, options.limit);
    }
    if terminal.is_json() {
        let mut before = snapshot(agent).await?;
        loop {
            tokio::time::sleep(options.interval).await;
            let now = snapshot(agent).await?;
            terminal.json_line(
                "top",
                json!({ "seconds": seconds(&before.1, &now.1), "before": before.0, "now": now.0 }),
            )?;
            before = now;
        }
    }
    super::live::run(agent, options.interval).await
}

/// The counters of this moment, as the agent said them and as they are read.
pub(super) async fn snapshot(agent: &Agent) -> Result<(Value, Top), Failure> {
    let said: Value = agent.get("/v1/top").await?;
    let top = read(&said, "its counters")?;
    Ok((said, top))
}

fn print(
    terminal: &mut Terminal<'_>,
    before: &(Value, Top),
    now: &(Value, Top),
    limit: usize,
) -> Result<(), Failure> {
    if terminal.is_json() {
        let document = json!({ "seconds": seconds(&before.1, &now.1), "before": before.0, "now": now.0 });
        return terminal.json("top", document);
    }
    let view = View::between(&before.1, &now.1);
    terminal.line(&view.head)?;
    for table in [&view.rules, &view.resources, &view.drops] {
        terminal.line("")?;
        let shown = if limit == 0 { table.rows.len() } else { limit.min(table.rows.len()) };
        let rows = table.rows[..shown].iter().map(|row| {
            row.cells
                .iter()
                .enumerate()
                .map(|(i, words)| if i == 0 { cell(row.tone, words) } else { text(words) })
                .collect()
        });
        terminal.table(table.headings, rows.collect(), table.nothing)?;
        if shown < table.rows.len() {
            terminal.line(format!("{} more; --limit 0 shows them", table.rows.len() - shown))?;
        }
    }
    if let Some(remark) = &view.remark {
        terminal.note(remark);
    }
    Ok(())
}

/// What is shown: words in tables, made from two looks at the counters.
#[derive(Debug)]
pub(super) struct View {
    pub(super) head: String,
    pub(super) rules: Rates,
    pub(super) resources: Rates,
    pub(super) drops: Rates,
    pub(super) remark: Option<String>,
}

/// One table of a view. Headings as [`Terminal::table`] takes them.
#[derive(Debug)]
pub(super) struct Rates {
    pub(super) headings: &'static [&'static str],
    pub(super) rows: Vec<Row>,
    pub(super) nothing: &'static str,
}

/// One line of a table; the tone is for its first cell.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) tone: Tone,
    pub(super) cells: Vec<String>,
    /// What the table is sorted by: what happens now, then what happened ever.
    weight: (u64, u64),
}

const TRAFFIC: &[&str] = &[
    "RULE",
    "~ACTION",
    ">FLOWS/S",
    ">PACKETS/S",
    ">BITS/S",
    ">REFUSED/S",
    "~>FLOWS",
    "~>BYTES",
    "~>REFUSED",
];
const RESOURCES: &[&str] = &[
    "RESOURCE",
    ">LIVE",
    ">FLOWS/S",
    ">PACKETS/S",
    ">BITS/S",
    ">REFUSED/S",
    "~>FLOWS",
    "~>BYTES",
    "~>REFUSED",
];
const REASONS: &[&str] = &["DROPPED FOR", ">PACKETS/S", ">PACKETS", "~MEANS"];

impl View {
    pub(super) fn between(before: &Top, now: &Top) -> Self {
        let seconds = seconds(before, now);
        let rate = |now: u64, before: u64| Rate(now.saturating_sub(before) as f64 / seconds);
        let forwarded =
            |top: &Top| top.forwarded.iter().fold((0, 0), |sum, f| (sum.0 + f.packets, sum.1 + f.bytes));
        let (was, is) = (forwarded(before), forwarded(now));
        let head = format!(
            "{} ({}, revision {}): {} flows, {} flows/s, {} packets/s, {}bit/s, {} of {} flow entries",
            now.gateway.name,
            now.datapath,
            now.revision.map_or_else(|| "none".to_owned(), |revision| revision.to_string()),
            count(now.flows.live),
            rate(now.flows.started, before.flows.started),
            rate(is.0, was.0),
            bits(rate(is.1, was.1)),
            count(now.flows.entries),
            count(now.flows.capacity),
        );
        let traffic = |now: &Traffic, before: Option<&Traffic>| {
            let zero = Traffic::default();
            let before = before.unwrap_or(&zero);
            let packets = rate(now.packets, before.packets);
            let refused = rate(now.drops, before.drops);
            let cells = vec![
                rate(now.flows, before.flows).to_string(),
                packets.to_string(),
                bits(rate(now.bytes, before.bytes)),
                refused.to_string(),
                count(now.flows),
                bytes(now.bytes),
                count(now.drops),
            ];
            (cells, ((packets.0 + refused.0) as u64, now.packets + now.drops))
        };
        let rules = now.rules.iter().map(|rule| {
            let was = before
                .rules
                .iter()
                .find(|b| b.name.rule_id == rule.name.rule_id && b.name.rule_name == rule.name.rule_name);
            let (cells, weight) = traffic(&rule.traffic, was.map(|was| &was.traffic));
            let tone = if rule.action == "drop" { Tone::Bad } else { Tone::Good };
            Row { tone, cells: [vec![rule.name.text(), rule.action.clone()], cells].concat(), weight }
        });
        let resources = now.resources.iter().map(|resource| {
            let was = before.resources.iter().find(|was| was.id == resource.id);
            let (cells, weight) = traffic(&resource.traffic, was.map(|was| &was.traffic));
            let name = if resource.name.is_empty() { &resource.id } else { &resource.name };
            Row {
                tone: Tone::Plain,
                cells: [vec![name.clone(), count(resource.live)], cells].concat(),
                weight,
            }
        });
        let drops = now.drops.iter().filter(|drop| drop.packets > 0).map(|drop| {
            let was = before.drops.iter().find(|was| was.reason == drop.reason).map_or(0, |was| was.packets);
            let rate = rate(drop.packets, was);
            let cells =
                vec![drop.reason.clone(), rate.to_string(), count(drop.packets), drop.explanation.clone()];
            Row { tone: Tone::Bad, cells, weight: (rate.0 as u64, drop.packets) }
        });
        let untold = now.events.suppressed + now.events.lost;
        Self {
            head,
            rules: Rates::sorted(TRAFFIC, rules.collect(), "No rule concerns this agent."),
            resources: Rates::sorted(
                RESOURCES,
                resources.collect(),
                "This agent is a router of no resource.",
            ),
            drops: Rates::sorted(REASONS, drops.collect(), "Nothing was dropped."),
            remark: (untold > 0).then(|| {
                format!(
                    "events not told: {} sampled out, {} lost",
                    count(now.events.suppressed),
                    count(now.events.lost)
                )
            }),
        }
    }
}

impl Rates {
    fn sorted(headings: &'static [&'static str], mut rows: Vec<Row>, nothing: &'static str) -> Self {
        rows.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| a.cells[0].cmp(&b.cells[0])));
        Self { headings, rows, nothing }
    }
}

/// Something a second: `0`, `0.5`, `12`, `1,234`.
#[derive(Clone, Copy, Debug)]
struct Rate(f64);

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0.0 => f.write_str("0"),
            rate if rate < 9.95 => write!(f, "{rate:.1}"),
            rate => f.write_str(&count(rate.round() as u64)),
        }
    }
}

/// Bits a second of bytes a second: `0`, `850`, `1.2 M`.
fn bits(bytes: Rate) -> String {
    const UNITS: [&str; 4] = ["k", "M", "G", "T"];
    let mut value = bytes.0 * 8.0;
    if value < 1_000.0 {
        return format!("{value:.0} ");
    }
    let mut unit = 0;
    value /= 1_000.0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Between two looks, by the agent's clock; never 0.
fn seconds(before: &Top, now: &Top) -> f64 {
    (now.time_ms.saturating_sub(before.time_ms) as f64 / 1e3).max(0.001)
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Top {
    time_ms: u64,
    gateway: Gateway,
    datapath: String,
    revision: Option<u64>,
    flows: Flows,
    forwarded: Vec<Forwarded>,
    rules: Vec<RuleTotals>,
    resources: Vec<Resource>,
    drops: Vec<Drops>,
    events: Events,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Gateway {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Flows {
    live: u64,
    started: u64,
    entries: u64,
    capacity: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Forwarded {
    packets: u64,
    bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RuleTotals {
    #[serde(flatten)]
    name: Rule,
    action: String,
    #[serde(flatten)]
    traffic: Traffic,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    id: String,
    name: String,
    live: u64,
    #[serde(flatten)]
    traffic: Traffic,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Traffic {
    flows: u64,
    packets: u64,
    bytes: u64,
    drops: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Drops {
    reason: String,
    packets: u64,
    explanation: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Events {
    suppressed: u64,
    lost: u64,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A gateway after `seconds` of the same traffic.
    pub(in crate::verbs::local) fn top(seconds: u64) -> Top {
        serde_json::from_value(json!({
            "time_ms": 1_000_000 + seconds * 1000,
            "gateway": {"id": "g", "name": "gw-a"}, "datapath": "ebpf", "revision": 25,
            "flows": {"live": 1200, "started": 100 * seconds, "entries": 2400, "capacity": 524_288},
            "forwarded": [{"direction": "overlay", "packets": 5000 * seconds, "bytes": 5_000_000 * seconds}],
            "rules": [
                {"policy_id": "p", "policy_name": "web", "rule_id": "r1", "rule_name": "quiet", "action": "accept",
                 "flows": 3, "packets": 9, "bytes": 900, "drops": 0},
                {"policy_id": "p", "policy_name": "web", "rule_id": "r2", "rule_name": "users to web",
                 "action": "accept", "flows": 100 * seconds, "packets": 5000 * seconds,
                 "bytes": 5_000_000 * seconds, "drops": 0},
                {"policy_id": "q", "policy_name": "no telnet", "rule_id": "r3", "rule_name": "no telnet",
                 "action": "drop", "flows": 0, "packets": 0, "bytes": 0, "drops": 7 * seconds}],
            "resources": [{"id": "s", "name": "web-server", "prefixes": ["10.20.0.10/32"], "live": 1200,
                 "flows": 100 * seconds, "packets": 5000 * seconds, "bytes": 5_000_000 * seconds,
                 "drops": seconds / 2}],
            "drops": [
                {"reason": "no_rule", "packets": seconds / 2, "explanation": "No rule admits it."},
                {"reason": "rule_drop", "packets": 7 * seconds, "explanation": "A drop rule matches it."},
                {"reason": "internal", "packets": 0, "explanation": "Rewriting the packet failed."}],
            "events": {"suppressed": 12, "lost": 0}
        }))
        .unwrap()
    }

    #[test]
    fn rates_are_differences_and_the_busiest_comes_first() {
        let view = View::between(&top(10), &top(12));
        assert_eq!(
            view.head,
            "gw-a (ebpf, revision 25): 1,200 flows, 100 flows/s, 5,000 packets/s, 40.0 Mbit/s, 2,400 of 524,288 flow entries"
        );
        let first: Vec<&str> = view.rules.rows.iter().map(|row| row.cells[0].as_str()).collect();
        assert_eq!(first, ["web / users to web", "no telnet", "web / quiet"]);
        assert_eq!(
            view.rules.rows[0].cells[1..6],
            ["accept", "100", "5,000", "40.0 M", "0"].map(str::to_owned)
        );
        assert_eq!(view.rules.rows[1].cells[5], "7.0");
        // What never happened is not there.
        let reasons: Vec<&str> = view.drops.rows.iter().map(|row| row.cells[0].as_str()).collect();
        assert_eq!(reasons, ["rule_drop", "no_rule"]);
        assert_eq!(view.drops.rows[1].cells[1], "0.5");
        assert!(view.remark.unwrap().contains("12 sampled out"));
    }

    #[test]
    fn rates_and_bits_take_their_unit() {
        assert_eq!([0.0, 0.25, 9.96, 1234.4].map(|r| Rate(r).to_string()), ["0", "0.2", "10", "1,234"]);
        assert_eq!(
            [0.0, 100.0, 125.0, 124_999_999.0].map(|r| bits(Rate(r))),
            ["0 ", "800 ", "1.0 k", "1.0 G"]
        );
    }
}
