//! The flow of a packet: found, brought up to date, or opened.

use crate::flow::Side;
use crate::live::{Found, advance, touch};
use crate::network::Header;
use crate::open::open;
use crate::pipeline::Refusal;
use crate::tables::{Active, Egresses, Stage, Tables};
use crate::work::Work;

/// Works out how the packet in `work` leaves. `Ok(false)`: it belongs to no flow, and comes from a side that opens none.
#[inline(always)]
pub(crate) fn track<F: Header + Egresses, T: Tables<F>>(
    tables: &mut T,
    active: Active,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let (now, epoch, length, flags) = (work.now, work.epoch, work.network.length, work.transport.flags);
    let Work { key, half, leaving, .. } = work;
    let found = match tables
        .with_flow(Stage::Confirmed, key, |flow| touch(flow, half, leaving, now, epoch, length, flags))
    {
        Some(found) => found,
        None => match tables.with_flow(Stage::HalfOpen, key, |flow| half.set(flow, now)) {
            Some(()) => Found::Slow(Stage::HalfOpen),
            None => Found::Nothing,
        },
    };
    let leaves = match found {
        Found::Quick => true,
        Found::Slow(stage) => advance::<F, T>(tables, active, side, stage, work)?,
        Found::Nothing => false,
    };
    if leaves {
        return Ok(true);
    }
    if matches!(side, Side::Site) {
        return Ok(false);
    }
    open::<F, T>(tables, active, side, work)?;
    Ok(true)
}
