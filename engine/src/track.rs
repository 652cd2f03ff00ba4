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
            None => Found::Nothing,
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
    let lives = tables.advance(stage, work)?;
    if lives && matches!(stage, Stage::HalfOpen) && tables.config().half_open_per_source != 0 {
        answered::<F, T>(tables, work)?;
    }
    Ok(lives)
}

/// Takes the opening of a flow that was half open, and is answered now, back from what counts against its source.
#[inline(always)]
fn answered<F: Egresses, T: Tables<F>>(tables: &mut T, work: &mut Work<F::Address>) -> Result<(), Refusal> {
    let opener = if work.half.is_reply() { work.half.other_side } else { work.key.side };
    if State::from_number(work.half.state).is_confirmed() && opener == Side::Overlay as u8 {
        tables.count_opening(true, work)?;
    }
    Ok(())
}
