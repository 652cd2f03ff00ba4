//! What clients write.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::unix_ms;

/// Where a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Units sent: messages of a stream, 0 for a download.
    pub sent: u64,
    /// Units received in order: messages of a stream, bytes of a download.
    pub received: u64,
    /// When the last one came, in milliseconds since 1970; 0 when none came yet.
    pub last_ms: u64,
}

/// What a client saw from first to last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Units sent.
    pub sent: u64,
    /// Units received in order.
    pub received: u64,
    /// Units that came not at all, twice or out of order.
    pub wrong: u64,
    /// When the last one came, in milliseconds since 1970; 0 when none came.
    pub last_ms: u64,
    /// The longest time between two units, in milliseconds.
    pub longest_gap_ms: u64,
    /// How it ended: "stopped", "done", "closed by the other side", or the system's error.
    pub ended: String,
    /// This end's address.
    pub local: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Progress(Progress),
    Report(Report),
}

/// Counts for a client and writes its lines.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) report: Report,
    last: Option<Instant>,
    written: Instant,
}

impl Counter {
    const INTERVAL: Duration = Duration::from_millis(50);

    pub(super) fn new(local: String) -> Self {
        Self { report: Report { local, ..Report::default() }, last: None, written: Instant::now() }
    }

    pub(super) fn received(&mut self, units: u64) {
        let now = Instant::now();
        let gap = self.last.map_or(Duration::ZERO, |last| now - last);
        self.report.longest_gap_ms =
            self.report.longest_gap_ms.max(u64::try_from(gap.as_millis()).unwrap_or(u64::MAX));
        self.last = Some(now);
        self.report.received += units;
        self.report.last_ms = unix_ms();
    }

    /// Writes a line when it is time.
    pub(super) fn progress(&mut self) -> io::Result<()> {
        if self.written.elapsed() < Self::INTERVAL {
            return Ok(());
        }
        self.written = Instant::now();
        let Report { sent, received, last_ms, .. } = self.report;
        write(&Line::Progress(Progress { sent, received, last_ms }))
    }

    pub(super) fn finish(mut self, ended: impl Into<String>) -> io::Result<Report> {
        self.report.ended = ended.into();
        write(&Line::Report(self.report.clone()))?;
        Ok(self.report)
    }
}

fn write(line: &Line) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// The newest progress and the report in a client's output, as far as they are there.
#[must_use]
pub fn read_reports(output: &str) -> (Option<Progress>, Option<Report>) {
    let mut found = (None, None);
    for line in output.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Progress(progress)) => found.0 = Some(progress),
            Ok(Line::Report(report)) => found.1 = Some(report),
            Err(_) => {} // a line being written, or one meant for people
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_progress_counts_and_half_a_line_does_not() {
        let progress = |n| Line::Progress(Progress { sent: n, received: n, last_ms: 1 });
        let mut text: String = [1, 2].map(|n| serde_json::to_string(&progress(n)).unwrap() + "\n").concat();
        text += "warning: something\n{\"progress\":{\"sent\":3";
        let (last, report) = read_reports(&text);
        assert_eq!(last.unwrap().sent, 2);
        assert_eq!(report, None);
    }
}
