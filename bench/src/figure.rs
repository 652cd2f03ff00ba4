//! A figure: what one thing costs or comes to, in many short rounds; against a rival measured in the same rounds, or by itself.

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) name: String,
    /// What numbers are in.
    pub(crate) unit: &'static str,
    /// Our best round.
    pub(crate) ours: f64,
    /// The rival's best round; absent where there is no rival.
    pub(crate) rival: Option<f64>,
    /// Rival / ours of the best rounds.
    pub(crate) ratio: Option<f64>,
    /// What DESIGN asks for, as text.
    pub(crate) target: Option<String>,
    /// Whether it is met, as [`Target`] says.
    pub(crate) met: Option<bool>,
    /// Our median round.
    pub(crate) ours_median: f64,
    /// The rival's median round.
    pub(crate) rival_median: Option<f64>,
    /// Who the rival is.
    pub(crate) against: Option<String>,
    /// Every round of ours, in order.
    pub(crate) ours_rounds: Vec<f64>,
    /// Every round of the rival's.
    pub(crate) rival_rounds: Vec<f64>,
}

/// What is asked of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Rival / ours is at least this, of the bests and of the medians.
    Times(f64),
    /// The median round is at most this, in the figure's unit.
    AtMost(f64),
    /// Every round is zero.
    Never,
}

/// Nanoseconds per packet.
pub(crate) const NANOSECONDS: &str = "ns";

impl Figure {
    /// Nanoseconds of ours alone.
    pub(crate) fn alone(name: impl Into<String>, rounds: Vec<f64>) -> Self {
        Self::new(name.into(), NANOSECONDS, rounds, None, None)
    }

    /// Something of ours alone.
    pub(crate) fn of(
        name: impl Into<String>,
        unit: &'static str,
        rounds: Vec<f64>,
        target: impl Into<Option<Target>>,
    ) -> Self {
        Self::new(name.into(), unit, rounds, None, target.into())
    }

    /// Nanoseconds against a rival measured in the same rounds.
    pub(crate) fn against(
        name: impl Into<String>,
        rounds: Vec<f64>,
        rival: &str,
        rival_rounds: Vec<f64>,
        target: Option<Target>,
    ) -> Self {
        Self::new(name.into(), NANOSECONDS, rounds, Some((rival, rival_rounds)), target)
    }

    fn new(
        name: String,
        unit: &'static str,
        ours_rounds: Vec<f64>,
        rival: Option<(&str, Vec<f64>)>,
        target: Option<Target>,
    ) -> Self {
        let (ours, ours_median) = (best(&ours_rounds), median(&ours_rounds));
        let (against, rival_rounds) =
            rival.map_or((None, Vec::new()), |(name, rounds)| (Some(name.to_owned()), rounds));
        let has_rival = against.is_some();
        let rival_best = has_rival.then(|| best(&rival_rounds));
        let rival_median = has_rival.then(|| median(&rival_rounds));
        let ratio = rival_best.map(|rival| rival / ours);
        let met = target.map(|target| match target {
            Target::Times(times) => {
                let lower = ratio.zip(rival_median).map(|(ratio, rival)| ratio.min(rival / ours_median));
                lower.is_some_and(|lower| lower >= times)
            }
            Target::AtMost(most) => ours_median <= most,
            Target::Never => !ours_rounds.is_empty() && ours_rounds.iter().all(|round| *round == 0.0),
        });
        let target = target.map(|target| match target {
            Target::Times(times) => format!(">= {times:.2}x"),
            Target::AtMost(most) => format!("<= {most} {unit}"),
            Target::Never => "0".to_owned(),
        });
        Self {
            name,
            unit,
            ours,
            rival: rival_best,
            ratio,
            target,
            met,
            ours_median,
            rival_median,
            against,
            ours_rounds,
            rival_rounds,
        }
    }
}

fn best(rounds: &[f64]) -> f64 {
    rounds.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_met_only_when_both_best_and_median_meet_it() {
        let figure = |ours: Vec<f64>| {
            Figure::against("x", ours, "nft", vec![40.0, 44.0, 48.0], Some(Target::Times(4.0)))
        };
        assert_eq!(figure(vec![10.0, 11.0, 12.0]).met, Some(true));
        assert_eq!(figure(vec![10.0, 20.0, 20.0]).met, Some(false));
        assert_eq!(Figure::alone("x", vec![1.0, 3.0]).ours_median, 2.0);
    }

    #[test]
    fn a_ceiling_is_met_by_the_median_and_nothing_lost_by_every_round() {
        let met = |rounds: Vec<f64>, target| Figure::of("x", "packets", rounds, target).met;
        assert_eq!(met(vec![1.0, 3.0, 9.0], Target::AtMost(3.0)), Some(true));
        assert_eq!(met(vec![1.0, 3.1, 9.0], Target::AtMost(3.0)), Some(false));
        assert_eq!(met(vec![], Target::AtMost(3.0)), Some(false));
        assert_eq!(met(vec![0.0, 0.0], Target::Never), Some(true));
        assert_eq!(met(vec![0.0, 0.0, 1.0], Target::Never), Some(false));
        assert_eq!(met(vec![], Target::Never), Some(false));
    }
}
