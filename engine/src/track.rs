//! The flow of a packet: found, brought up to date, or opened.

use crate::flow::Side;
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
            (!suspect || tables.renew(stage, side, work)?) && tables.advance(stage, work)?
        }
        Found::Nothing => false,
    };
    if leaves || matches!(side, Side::Site) {
        return Ok(leaves);
    }
    open::<F, T>(tables, side, work)
}
