//! `sluice capture`: packets and what became of them, into a pcapng file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::time::Instant;

use super::Rule;
use super::pcapng::{Packet, Writer};
use crate::args::Capture;
use crate::error::Failure;
use crate::filter::Filter;
use crate::human::{count, plural};
use crate::local::Agent;
use crate::terminal::Terminal;

/// Writes packets until enough were written, the time is over, or it is interrupted.
pub(crate) async fn run(
    agent: &Agent,
    terminal: &mut Terminal<'_>,
    options: &Capture,
) -> Result<(), Failure> {
    let filter: Filter = options.filter.join(" ").parse().map_err(Failure::usage)?;
    let mut response = agent.stream("/v1/capture", &filter.query()).await?;
    let to_output = options.write.as_os_str() == "-";
    let mut written = 0;
    let mut lost = 0;
    // Not captured since the last packet.
    let mut gap = 0;
    {
        let out: Box<dyn Write + '_> = if to_output {
            Box::new(&mut *terminal.out)
        } else {
            let file = File::create(&options.write).map_err(|error| {
                Failure::failed(format!("cannot write {}", options.write.display())).why(error)
            })?;
            Box::new(BufWriter::new(file))
        };
        let mut writer = Writer::new(out)?;
        writer.flush()?;
        let end = options.duration.map(|duration| Instant::now() + duration);
        let mut lines = Lines::default();
        let wanted = options.count.unwrap_or(u64::MAX);
        'capture: while written < wanted {
            let chunk = tokio::select! {
                chunk = agent.chunk(&mut response) => chunk?,
                () = at(end) => break,
                _ = tokio::signal::ctrl_c() => break,
            };
            // What was captured so far is whole, whoever ended it.
            let Some(chunk) = chunk else { break };
            for line in lines.feed(&chunk) {
                let told: Told = serde_json::from_slice(&line)
                    .map_err(|error| Failure::failed("the agent sent what is no packet").why(error))?;
                lost += told.lost;
                gap += told.lost;
                let Some(packet) = told.packet else { continue };
                let bytes = STANDARD
                    .decode(&packet.bytes)
                    .map_err(|error| Failure::failed("the agent sent what is no packet").why(error))?;
                writer.packet(&Packet {
                    time: Duration::from_nanos(packet.time_ns),
                    length: packet.length,
                    bytes: &bytes,
                    comment: &packet.comment(),
                    lost: std::mem::take(&mut gap),
                })?;
                written += 1;
                if written >= wanted {
                    break 'capture;
                }
            }
            writer.flush()?;
        }
        writer.flush()?;
    }
    let to = if to_output { "standard output".to_owned() } else { options.write.display().to_string() };
    let missed = if lost == 0 {
        String::new()
    } else {
        format!("; {} more came faster than they were taken", count(lost))
    };
    terminal.note(format!("{} written to {to}{missed}.", plural(written as usize, "packet")));
    Ok(())
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Whole lines out of pieces cut anywhere.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(bytes);
        let mut lines: Vec<Vec<u8>> = self.0.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        self.0 = lines.pop().unwrap_or_default();
        lines.retain(|line| !line.is_empty());
        lines
    }
}

/// One line of the stream.
#[derive(Debug, Deserialize)]
struct Told {
    /// Packets that matched and were not captured since the last line.
    #[serde(default)]
    lost: u64,
    packet: Option<Captured>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Captured {
    time_ns: u64,
    side: String,
    verdict: String,
    reason: String,
    device: String,
    rule: Rule,
    translated_source: String,
    length: u32,
    bytes: String,
}

impl Captured {
    /// `overlay -> drop no_rule`, `overlay -> site eth1; rule web / users to web; seen as 10.20.0.2:22808`.
    fn comment(&self) -> String {
        let mut text = format!("{} -> {}", self.side, self.verdict);
        for detail in [&self.reason, &self.device] {
            if !detail.is_empty() {
                text.push_str(&format!(" {detail}"));
            }
        }
        let rule = self.rule.text();
        if !rule.is_empty() {
            text.push_str(&format!("; rule {rule}"));
        }
        if !self.translated_source.is_empty() {
            text.push_str(&format!("; seen as {}", self.translated_source));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_say_verdict_rule_and_translation() {
        let rule = Rule { policy_name: "web".into(), rule_id: "r".into(), rule_name: "users to web".into() };
        let passed = Captured {
            side: "overlay".into(),
            verdict: "site".into(),
            device: "eth1".into(),
            rule,
            translated_source: "10.20.0.2:22808".into(),
            ..Captured::default()
        };
        assert_eq!(
            passed.comment(),
            "overlay -> site eth1; rule web / users to web; seen as 10.20.0.2:22808"
        );
        let text = String::new;
        let dropped = Captured {
            verdict: "drop".into(),
            reason: "rule_drop".into(),
            device: text(),
            translated_source: text(),
            ..passed
        };
        assert_eq!(dropped.comment(), "overlay -> drop rule_drop; rule web / users to web");
        let denied = Captured { reason: "no_rule".into(), rule: Rule::default(), ..dropped };
        assert_eq!(denied.comment(), "overlay -> drop no_rule");
    }

    #[test]
    fn lines_come_out_whole_wherever_the_bytes_are_cut() {
        let stream = b"{\"a\":1}\n\n{\"b\":2}\n{\"c\"";
        for size in 1..=stream.len() {
            let mut lines = Lines::default();
            let found: Vec<Vec<u8>> = stream.chunks(size).flat_map(|chunk| lines.feed(chunk)).collect();
            assert_eq!(found, [b"{\"a\":1}".to_vec(), b"{\"b\":2}".to_vec()], "in pieces of {size}");
            assert_eq!(lines.0, b"{\"c\"");
        }
    }
}
