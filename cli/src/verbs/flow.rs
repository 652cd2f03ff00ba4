//! `sluice flow watch`: control's event stream, one line per event.

use serde::Deserialize;
use serde_json::{Value, json};
use time::UtcDateTime;

use super::local::{End, Rule, protocol};
use super::read;
use crate::args::FlowWatch;
use crate::client::Client;
use crate::error::{Failure, Kind};
use crate::human::{NONE, bytes, clock, count};
use crate::sse::{Decoder, Event};
use crate::terminal::{Terminal, Tone};

const PATH: &str = "/api/flows/stream";

/// Follows the stream until `count` events were shown, or for ever.
pub(crate) async fn watch(
    client: &Client,
    terminal: &mut Terminal<'_>,
    options: &FlowWatch,
) -> Result<(), Failure> {
    let query: Vec<_> = options.replay.iter().map(|replay| ("replay", replay.to_string())).collect();
    let mut response = client.stream(PATH, &query).await?;
    heading(terminal)?;
    let mut decoder = Decoder::default();
    let mut left = options.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(chunk) = response.chunk().await.map_err(|error| client.broken(PATH, &error))? else {
            return Err(Failure::new(
                Kind::NotConnected,
                format!("control at {} ended the stream", client.url()),
            )
            .why("it is shutting down or was restarted")
            .next("run the command again when `sluice status` works"));
        };
        let events = decoder.feed(&chunk).map_err(|error| {
            Failure::failed(format!("control at {} sent what is no flow event", client.url())).why(error)
        })?;
        for event in events {
            if left == 0 {
                break;
            }
            if show(&event, terminal)? {
                left -= 1;
            }
        }
        terminal.out.flush()?;
    }
    Ok(())
}

/// Prints the columns' names, for people.
pub(super) fn heading(terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    if !terminal.is_json() {
        let header = row(["TIME (UTC)", "EVENT", "PROTO", "FROM", "TO", "AT", "BY RULE OR WHY, AND TRAFFIC"]);
        terminal.line(header)?;
        terminal.out.flush()?;
    }
    Ok(())
}

/// Prints one event; false when it was no flow but a remark about the stream.
pub(super) fn show(event: &Event, terminal: &mut Terminal<'_>) -> Result<bool, Failure> {
    let data: Value = serde_json::from_str(&event.data)
        .map_err(|error| Failure::failed("a flow event came that is no JSON").why(error))?;
    if event.kind == "lost" {
        let missed = data["missed"].as_u64().unwrap_or_default();
        terminal.note(format!("missed {} events: they came faster than they were read", count(missed)));
        return Ok(false);
    }
    if event.kind == "off" {
        terminal.note(data["message"].as_str().unwrap_or("control keeps no flow events"));
        return Ok(false);
    }
    if terminal.is_json() {
        terminal.json_line("flow", json!({ "flow": data }))?;
    } else {
        let flow: Flow = read(&data, "a flow event")?;
        let tone = match flow.kind.as_str() {
            "start" => Tone::Good,
            "drop" | "revoke" => Tone::Bad,
            _ => Tone::Faint,
        };
        let line = flow.line();
        // Only the event's word is coloured: it stands after the time, whose width is fixed.
        let (time, rest) = line.split_at(14.min(line.len()));
        let (word, rest) = rest.split_at(flow.kind.len().min(rest.len()));
        let word = terminal.paint(tone, word);
        terminal.line(format!("{time}{word}{rest}"))?;
    }
    Ok(true)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Flow {
    time_ms: i64,
    kind: String,
    reporter: Reporter,
    protocol: u32,
    source: End,
    destination: End,
    rule: Rule,
    drop_reason: String,
    packets: u64,
    bytes: u64,
    translated_source: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reporter {
    id: String,
    name: String,
}

impl Flow {
    fn line(&self) -> String {
        let nanoseconds = i128::from(self.time_ms) * 1_000_000;
        let time =
            UtcDateTime::from_unix_timestamp_nanos(nanoseconds).map_or_else(|_| NONE.to_owned(), clock);
        let (protocol, has_ports) = protocol(self.protocol);
        let from = self.source.text(has_ports);
        let mut to = self.destination.text(has_ports);
        if matches!(self.protocol, 1 | 58) {
            to.push_str(&format!(" type {}", self.destination.port >> 8));
        }
        let at = if self.reporter.name.is_empty() { &self.reporter.id } else { &self.reporter.name };
        row([&time, &self.kind, &protocol, &from, &to, at, &self.remark()])
    }

    fn remark(&self) -> String {
        let mut parts = Vec::new();
        if !self.drop_reason.is_empty() {
            parts.push(self.drop_reason.clone());
        }
        let rule = self.rule.text();
        if !rule.is_empty() {
            parts.push(rule);
        }
        if !self.translated_source.is_empty() {
            parts.push(format!("seen as {}", self.translated_source));
        }
        if self.packets > 0 {
            parts.push(format!("{} packets, {}", count(self.packets), bytes(self.bytes)));
        }
        parts.join("; ")
    }
}

/// Columns of fixed width, because a stream cannot know what comes; a long value pushes the rest to the right.
fn row(columns: [&str; 7]) -> String {
    let [time, event, protocol, from, to, at, remark] = columns;
    let line = format!("{time:<12}  {event:<6}  {protocol:<5}  {from:<34}  {to:<30}  {at:<10}  {remark}");
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_control_keeps_no_events_is_said_and_is_no_event() {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut terminal = Terminal {
            out: &mut out,
            notes: &mut notes,
            input: &mut "".as_bytes(),
            asks: false,
            colour: false,
            width: None,
            now: time::macros::utc_datetime!(2026-11-22 12:00:00),
            format: crate::args::Format::Table,
        };
        let event = Event { kind: "off".into(), data: json!({"message": "it is off"}).to_string() };
        assert!(!show(&event, &mut terminal).unwrap());
        assert_eq!((out, notes), (Vec::new(), b"it is off\n".to_vec()));
    }

    #[test]
    fn a_masqueraded_end_and_a_dropped_ping_read_well() {
        let flow: Flow = serde_json::from_value(json!({
            "time_ms": 1_795_332_909_120_i64, "kind": "end", "reporter": {"id": "g1", "name": "gw-a"}, "protocol": 6,
            "source": {"address": "100.90.0.2", "port": 51234, "id": "p", "name": "alice-laptop", "type": "PEER"},
            "destination": {"address": "fd00:20::10", "port": 443, "id": "", "name": "", "type": "UNKNOWN"},
            "rule": {"policy_id": "p", "policy_name": "web", "rule_id": "r", "rule_name": "users to web"},
            "drop_reason": "", "packets": 1200, "bytes": 2048, "translated_source": "10.20.0.2:40001"
        }))
        .unwrap();
        assert_eq!(
            flow.line(),
            "07:35:09.120  end     tcp    alice-laptop 100.90.0.2:51234       [fd00:20::10]:443               \
             gw-a        web / users to web; seen as 10.20.0.2:40001; 1,200 packets, 2.0 KiB"
        );
        let flow: Flow = serde_json::from_value(json!({
            "time_ms": 0, "kind": "drop", "reporter": {"id": "g1", "name": ""}, "protocol": 1,
            "source": {"address": "100.90.0.2", "port": 7}, "destination": {"address": "10.20.0.10", "port": 2048},
            "drop_reason": "no_rule"
        }))
        .unwrap();
        assert_eq!(
            flow.line(),
            "00:00:00.000  drop    icmp   100.90.0.2                          10.20.0.10 type 8               g1          no_rule"
        );
    }
}
