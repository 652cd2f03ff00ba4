//! The flow of a packet: found, brought up to date, or opened.

use crate::flow::{Side, State};
use crate::live::{Found, Passing, touch};
use crate::open::open;
use crate::stage::Refusal;
use crate::tables::{Egresses, Stage, Tables};
use crate::work::Work;

/// Works out how the packet in `work` leaves. `Ok(false)`: it belongs to no flow, and comes from a side that opens none.
#[inline(always)]
pub(crate) fn track<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let (now, epoch) = (work.now, work.active.epoch());
    let passing = Passing {
        now,
        epoch,
        timeout: tables.config().timeouts.quiet(work.key.protocol, F::ICMP),
        length: work.network.length,
        flags: work.transport.flags,
    };
    let Work { key, half, leaving, .. } = work;
    let found = match tables.with_flow(Stage::Confirmed, key, |flow| touch(flow, half, leaving, passing)) {
        Some(found) => found,
        None => match tables.with_flow(Stage::HalfOpen, key, |flow| half.set(flow, now)) {
            Some(()) => Found::Slow(Stage::HalfOpen),
            // Another processor may have moved it from the one table to the other between these two looks.
            None => match tables.with_flow(Stage::Confirmed, key, |flow| half.set(flow, now)) {
                Some(()) => Found::Slow(Stage::Confirmed),
                None => Found::Nothing,
            },
        },
    };
    let leaves = match found {
        Found::Quick => return Ok(true),
        Found::Slow(stage) => {
            let suspect = work.half.over || work.half.epoch != epoch;
            (!suspect || tables.renew(stage, side, work)?) && update::<F, T>(tables, stage, work)?
        }
        Found::Nothing => false,
    };
    if leaves || matches!(side, Side::Site) {
        return Ok(leaves);
    }
    open::<F, T>(tables, side, work)
}

/// Advances the flow in `work`, and counts it as answered where that counts. `Ok(false)`: there is no flow after all.
#[inline(always)]
pub(crate) fn update<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    stage: Stage,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let waited = State::from_number(work.half.state).is_waiting();
    if tables.advance(stage, work)? {
        if waited && tables.config().half_open_per_source != 0 {
            answered::<F, T>(tables, work)?;
        }
        return Ok(true);
    }
    Ok(matches!(stage, Stage::HalfOpen) && overtaken::<F, T>(tables, work)?)
}

/// Looks once more for a flow that was half open when it was found: another processor may have confirmed it since, so that it
/// is in the other table. Taken for one that is gone, it would be opened again beside itself.
#[inline(always)]
pub(crate) fn overtaken<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let Work { key, half, now, .. } = work;
    let now = *now;
    let confirmed = tables.with_flow(Stage::Confirmed, key, |flow| half.set(flow, now)).is_some();
    Ok(confirmed && tables.advance(Stage::Confirmed, work)?)
}

/// Takes the opening of a flow that nobody had answered before this packet back from what counts against its source.
#[inline(always)]
fn answered<F: Egresses, T: Tables<F>>(tables: &mut T, work: &mut Work<F::Address>) -> Result<(), Refusal> {
    let opener = if work.half.is_reply() { work.half.other_side } else { work.key.side };
    if !State::from_number(work.half.state).is_waiting() && opener == Side::Overlay as u8 {
        tables.count_opening(true, work)?;
    }
    Ok(())
}
