//! Which router to use: a decision, without effects.

use std::time::Duration;

/// What is known of a router's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It was heard of lately, without a break for this long.
    Live(Duration),
    /// It was added so lately that silence says nothing yet.
    Unknown,
    /// It has been silent for too long.
    Dead,
}

/// A router that could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its peer id.
    pub peer: &'a str,
    /// Its metric, lower is better.
    pub metric: u32,
    /// Whether it is there.
    pub liveness: Liveness,
}

/// The router to use now. `current` is the one in use; `return_after` is how long a better one must have been live
/// before traffic leaves a router that works. `None` only without candidates.
///
/// The lowest metric wins; equal metrics keep the current router. When nobody is known to be live, the current router
/// stays: packets go where they may arrive again, rather than from one dead end to another.
pub fn choose<'a>(
    current: Option<&str>,
    candidates: &[Candidate<'a>],
    return_after: Duration,
) -> Option<&'a str> {
    let current = current.and_then(|c| candidates.iter().find(|x| x.peer == c));
    if let Some(current) = current.filter(|c| c.liveness != Liveness::Dead) {
        let better = candidates.iter().filter(|c| {
            c.metric < current.metric && matches!(c.liveness, Liveness::Live(since) if since >= return_after)
        });
        return Some(lowest(better).unwrap_or(current).peer);
    }
    let live = candidates.iter().filter(|c| matches!(c.liveness, Liveness::Live(_)));
    let unknown = candidates.iter().filter(|c| c.liveness == Liveness::Unknown);
    let first = match current {
        // At the start the best is given its chance before anybody else is tried.
        None => lowest(candidates.iter().filter(|c| c.liveness != Liveness::Dead)),
        Some(current) => lowest(live).or(lowest(unknown)).or(Some(current)),
    };
    first.or(lowest(candidates.iter())).map(|c| c.peer)
}

fn lowest<'c, 'a>(candidates: impl Iterator<Item = &'c Candidate<'a>>) -> Option<&'c Candidate<'a>> {
    candidates.min_by(|a, b| a.metric.cmp(&b.metric).then_with(|| a.peer.cmp(b.peer)))
}

#[cfg(test)]
mod tests {
    use Liveness::{Dead, Unknown};

    use super::*;

    const HOLD: Duration = Duration::from_secs(2);
    const FRESH: Liveness = Liveness::Live(Duration::from_secs(1));
    const STEADY: Liveness = Liveness::Live(Duration::from_secs(60));

    fn chosen(current: Option<&str>, candidates: &[(&'static str, u32, Liveness)]) -> Option<&'static str> {
        let candidates: Vec<_> =
            candidates.iter().map(|&(peer, metric, liveness)| Candidate { peer, metric, liveness }).collect();
        choose(current, &candidates, HOLD)
    }

    #[test]
    fn the_lowest_metric_wins() {
        assert_eq!(chosen(None, &[("a", 200, STEADY), ("b", 100, STEADY)]), Some("b"));
        assert_eq!(chosen(Some("a"), &[("a", 200, STEADY), ("b", 100, STEADY)]), Some("b"));
    }

    #[test]
    fn at_the_start_the_best_is_tried_before_it_has_answered() {
        assert_eq!(chosen(None, &[("a", 200, FRESH), ("b", 100, Unknown)]), Some("b"));
        assert_eq!(chosen(Some("b"), &[("a", 200, FRESH), ("b", 100, Unknown)]), Some("b"));
        assert_eq!(chosen(Some("b"), &[("a", 200, FRESH), ("b", 100, Dead)]), Some("a"));
    }

    #[test]
    fn a_dead_router_is_left_at_once_and_returned_to_after_a_while() {
        assert_eq!(chosen(Some("b"), &[("a", 200, STEADY), ("b", 100, Dead)]), Some("a"));
        assert_eq!(chosen(Some("a"), &[("a", 200, STEADY), ("b", 100, Unknown)]), Some("a"));
        assert_eq!(chosen(Some("a"), &[("a", 200, STEADY), ("b", 100, FRESH)]), Some("a"));
        assert_eq!(chosen(Some("a"), &[("a", 200, STEADY), ("b", 100, STEADY)]), Some("b"));
    }

    #[test]
    fn equal_metrics_keep_the_current_one() {
        assert_eq!(chosen(Some("b"), &[("a", 100, STEADY), ("b", 100, STEADY)]), Some("b"));
        assert_eq!(chosen(None, &[("b", 100, STEADY), ("a", 100, STEADY)]), Some("a"));
    }

    #[test]
    fn a_live_one_is_preferred_to_an_unknown_one_when_leaving() {
        assert_eq!(chosen(Some("c"), &[("a", 300, FRESH), ("b", 200, Unknown), ("c", 100, Dead)]), Some("a"));
    }

    #[test]
    fn with_everybody_dead_nothing_moves() {
        assert_eq!(chosen(Some("a"), &[("a", 200, Dead), ("b", 100, Dead)]), Some("a"));
        assert_eq!(chosen(None, &[("a", 200, Dead), ("b", 100, Dead)]), Some("b"));
    }

    #[test]
    fn a_router_that_was_taken_away_is_left() {
        assert_eq!(chosen(Some("gone"), &[("a", 200, Dead)]), Some("a"));
        assert_eq!(chosen(Some("gone"), &[]), None);
    }
}
