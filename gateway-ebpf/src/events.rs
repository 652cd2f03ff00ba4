//! Which events are written.

use sluicegate_engine::event;

use crate::clock;
use crate::maps::{CONFIG, EVENT_BUDGET, EVENT_SORTS, EVENTS_PER_TICK, EVENTS_SUPPRESSED, add, constant};

/// Whether to write an event about this: the first of its sort in a second always, others within the budget. What is left
/// out is counted. A global function: it is called from every stage that tells of something.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn may_tell(what: u32, rule: u32) -> u32 {
    let (tag, set) = event::sort(what, rule);
    let (Some(config), Some(set)) = (CONFIG.get(0), EVENT_SORTS.get_ptr_mut(set)) else { return 0 };
    let now = clock::ticks() as u32;
    // SAFETY: the entry of this processor; the programs run with bottom halves off, so none interrupts another.
    let first = event::is_first(unsafe { &mut *set }, tag, now, config.ticks_per_second);
    // Counted either way, so that first ones use the budget up too.
    let within = within_budget(now);
    if first || within {
        return 1;
    }
    add(EVENTS_SUPPRESSED.get_ptr_mut(0), 1);
    0
}

#[inline(always)]
fn within_budget(tick: u32) -> bool {
    let Some(budget) = EVENT_BUDGET.get_ptr_mut(0) else { return false };
    // SAFETY: the entry of this processor.
    unsafe {
        if (*budget)[0] != tick {
            *budget = [tick, 0];
        }
        (*budget)[1] += 1;
        (*budget)[1] <= constant(&EVENTS_PER_TICK)
    }
}
