//! A figure: samples of one quantity, and what DESIGN asks of it.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::account::Shape;

/// Samples of one quantity.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    /// Gateways of the account it was measured with.
    pub(crate) gateways: usize,
    /// Unit of all numbers: `ms` or `MB` (of a million bytes).
    pub(crate) unit: &'static str,
    /// The smallest sample.
    pub(crate) best: f64,
    /// Half of the samples are at most this.
    pub(crate) median: f64,
    /// Ninety-nine of a hundred samples are at most this; with fewer samples, the largest.
    pub(crate) p99: f64,
    /// What DESIGN asks for, as text.
    pub(crate) target: Option<String>,
    /// Whether it is met.
    pub(crate) met: Option<bool>,
    /// Every sample, in order.
    pub(crate) samples: Vec<f64>,
}

impl Figure {
    /// Durations.
    pub(crate) fn milliseconds(name: impl Into<String>, shape: &Shape, samples: &[Duration]) -> Self {
        Self::new(name.into(), shape, "ms", samples.iter().map(|sample| sample.as_secs_f64() * 1e3).collect())
    }

    /// An amount of memory, in bytes.
    pub(crate) fn megabytes(name: impl Into<String>, shape: &Shape, bytes: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
        Self::new(name.into(), shape, "MB", vec![bytes as f64 / 1e6])
    }

    fn new(name: String, shape: &Shape, unit: &'static str, samples: Vec<f64>) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        Self {
            name,
            gateways: shape.gateways,
            unit,
            best: sorted.first().copied().unwrap_or(f64::NAN),
            median: at(50),
            p99: at(99),
            target: None,
            met: None,
            samples,
        }
    }

    /// The median is to be at most this.
    pub(crate) fn median_at_most(mut self, limit: f64) -> Self {
        self.target = Some(format!("median <= {limit} {}", self.unit));
        self.met = Some(self.median <= limit);
        self
    }

    /// Ninety-nine of a hundred samples are to be at most this.
    pub(crate) fn p99_at_most(mut self, limit: f64) -> Self {
        self.target = Some(format!("p99 <= {limit} {}", self.unit));
        self.met = Some(self.p99 <= limit);
        self
    }
}

/// The figures as a Markdown table.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut table = String::from(
        "| figure | gateways | samples | best | median | p99 | unit | target | met |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for f in figures {
        let met = f.met.map_or("", |met| if met { "yes" } else { "no" });
        let target = f.target.as_deref().unwrap_or_default();
        let (best, median, p99) = (number(f.best), number(f.median), number(f.p99));
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {best} | {median} | {p99} | {} | {target} | {met} |",
            f.name,
            f.gateways,
            f.samples.len(),
            f.unit,
        );
    }
    table
}

/// Three digits or so.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { peers: 1, groups: 1, policies: 1, resources: 1, gateways: 1 };

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        let figure = Figure::milliseconds("x", &SHAPE, &samples);
        assert_eq!((figure.best, figure.median, figure.p99), (1.0, 50.0, 99.0));
        let figure = Figure::milliseconds("x", &SHAPE, &samples[..3]);
        assert_eq!((figure.best, figure.median, figure.p99), (98.0, 99.0, 100.0));
    }

    #[test]
    fn a_target_is_met_or_missed_by_its_own_measure() {
        let samples: Vec<_> = [1, 1, 1, 100].map(Duration::from_millis).to_vec();
        let figure = Figure::milliseconds("x", &SHAPE, &samples);
        assert_eq!(figure.clone().median_at_most(10.0).met, Some(true));
        assert_eq!(figure.p99_at_most(10.0).met, Some(false));
    }
}
