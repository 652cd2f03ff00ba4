//! How many questions were asked, and what became of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Who answered a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The zone of peers.
    Peers,
    /// A zone with records.
    Zone,
    /// Names of overlay addresses.
    Reverse,
    /// A resource's router.
    Routed,
    /// Name servers of a nameserver group.
    Forward,
    /// The host's own name servers.
    Host,
}

/// How that came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With records.
    Answered,
    /// There is such a name, and no record of the type.
    Nothing,
    /// There is no such name.
    NoSuchName,
    /// Nobody could say.
    Failed,
}

/// Why a question was not considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another machine asked.
    Stranger,
    /// It cannot be read, or is of a kind that is not answered.
    Malformed,
    /// There were too many at once.
    Busy,
}

impl By {
    const ALL: [Self; 6] = [Self::Peers, Self::Zone, Self::Reverse, Self::Routed, Self::Forward, Self::Host];

    const fn name(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Zone => "zone",
            Self::Reverse => "reverse",
            Self::Routed => "routed",
            Self::Forward => "forward",
            Self::Host => "host",
        }
    }
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Answered, Self::Nothing, Self::NoSuchName, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Nothing => "nothing",
            Self::NoSuchName => "no_such_name",
            Self::Failed => "failed",
        }
    }
}

impl Refused {
    const ALL: [Self; 3] = [Self::Stranger, Self::Malformed, Self::Busy];

    const fn name(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Malformed => "malformed",
            Self::Busy => "busy",
        }
    }
}

/// Counts since the agent started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    questions: [[AtomicU64; Outcome::ALL.len()]; By::ALL.len()],
    refused: [AtomicU64; Refused::ALL.len()],
}

impl Counts {
    pub(super) fn question(&self, by: By, outcome: Outcome) {
        self.questions[by as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// By whom, how it came out, and how often; zeros too.
    pub(super) fn questions(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        By::ALL.into_iter().flat_map(move |by| {
            let count = move |outcome: Outcome| {
                let count = self.questions[by as usize][outcome as usize].load(Ordering::Relaxed);
                (by.name(), outcome.name(), count)
            };
            Outcome::ALL.into_iter().map(count)
        })
    }

    /// Why questions were not considered, and how many; zeros too.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |why: Refused| (why.name(), self.refused[why as usize].load(Ordering::Relaxed));
        Refused::ALL.into_iter().map(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_count_of_its_own() {
        let counts = Counts::default();
        for (n, by) in By::ALL.into_iter().enumerate() {
            for (m, outcome) in Outcome::ALL.into_iter().enumerate() {
                (0..n * 4 + m).for_each(|_| counts.question(by, outcome));
            }
        }
        counts.refused(Refused::Busy);
        let found: Vec<u64> = counts.questions().map(|(.., count)| count).collect();
        assert_eq!(found, (0..24).collect::<Vec<u64>>());
        let refusals: Vec<_> = counts.refusals().collect();
        assert_eq!(refusals, [("stranger", 0), ("malformed", 0), ("busy", 1)]);
    }
}
