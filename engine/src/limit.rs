//! How many flows a source may open that nobody answers: a window for each source, opened by its first packet.
//!
//! An opening counts, an answer takes it back. In one window a source opens as many flows as it may, and one more for
//! every answer it got. A window is as long as the longest time for which a flow lives that nobody answers, so that of a
//! source's flows of that kind there are never more than two windows' worth. Nothing has to be counted when flows end, and
//! nothing is written for packets of flows. Sources are addresses: who has one of each family has a count of each.

use crate::stage::Refusal;
use crate::tables::{Egresses, Tables};
use crate::work::Work;

/// The stage that counts an opening of the overlay, or with `answered` takes one back. `Ok(false)`: its source has opened as
/// many as it may.
#[inline(always)]
pub fn count_opening<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    answered: bool,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let (most, window) = (tables.config().half_open_per_source, tables.config().timeouts.longest_waiting());
    let (now, opens) = (work.now, !answered);
    // The opener's key is the packet's own, unless the packet answers.
    let key = if answered && work.half.is_reply() { &work.other } else { &work.key };
    let may = tables.with_openings(&key.source, now, |openings| {
        if opens {
            return openings.admit(now, window, most);
        }
        openings.answered();
        true
    });
    Ok(may.unwrap_or(true))
}

/// What one source opened lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Openings {
    /// Tick in which the window began.
    pub since: u32,
    /// Flows opened in it and not answered.
    pub count: u32,
}

impl Openings {
    /// Whether the source may open one more flow at `now`, which then counts. A window is `window` ticks long.
    #[inline(always)]
    pub fn admit(&mut self, now: u32, window: u32, most: u32) -> bool {
        if self.is_over(now, window) {
            *self = Self { since: now, count: 0 };
        }
        if self.count >= most {
            return false;
        }
        self.count += 1;
        true
    }

    /// A flow was answered.
    #[inline(always)]
    pub fn answered(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    #[inline(always)]
    fn is_over(&self, now: u32, window: u32) -> bool {
        // A packet on another processor may have begun the window in a later tick.
        let age = now.wrapping_sub(self.since) as i32;
        age < 0 && age < -(window as i32) || age >= 0 && age as u32 > window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_admits_as_many_as_it_may_and_one_more_for_each_answer() {
        let mut source = Openings { since: 100, count: 0 };
        for tick in 100..103 {
            assert!(source.admit(tick, 60, 3));
        }
        assert!(!source.admit(103, 60, 3));
        source.answered();
        assert!(source.admit(160, 60, 3), "the window is not over, but one was answered");
        assert!(!source.admit(160, 60, 3));
        assert!(source.admit(161, 60, 3), "another window");
        assert_eq!(source, Openings { since: 161, count: 1 });
    }

    #[test]
    fn an_answer_to_a_flow_of_an_earlier_window_is_no_debt() {
        let mut source = Openings::default();
        source.answered();
        assert_eq!(source.count, 0);
    }

    #[test]
    fn ticks_that_wrap_and_processors_that_run_ahead_start_no_new_window() {
        let mut source = Openings { since: u32::MAX - 5, count: 3 };
        assert!(!source.admit(10, 60, 3));
        let mut source = Openings { since: 500, count: 3 };
        assert!(!source.admit(499, 60, 3));
        // A source that was silent for half of all ticks is not refused for what it did then.
        let mut source = Openings { since: 0, count: 3 };
        assert!(source.admit(0x9000_0000, 60, 3));
    }
}
