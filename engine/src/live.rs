//! A packet of a flow that is there: its state, its time-out, and whether the image in force still admits it.

use crate::event::{About, EventKind};
use crate::flow::{Exit, FIN, Flow, Key, Side, State, TRANSLATED};
use crate::image::{Attributes, axis};
use crate::network::Header;
use crate::open::event;
use crate::packet::{echo, protocol, tcp as flag};
use crate::reason::DropReason;
use crate::stage::Refusal;
use crate::tables::{Egresses, NotConfirmed, Stage, Tables};
use crate::tcp::{self, Step};
use crate::work::{Half, Leaving, Opening, Work, settle};

/// What a look-up found.
pub(crate) enum Found {
    /// Nothing about the flow changes but its counters, which are updated: let the packet go.
    Quick,
    /// Something may change.
    Slow(Stage),
    /// No flow.
    Nothing,
}

/// What the common case must know of the packet and the moment.
#[derive(Clone, Copy)]
pub(crate) struct Passing {
    pub(crate) now: u32,
    /// Of the image in force.
    pub(crate) epoch: u32,
    /// Ticks that a quiet flow of the packet's protocol may be silent.
    pub(crate) timeout: u32,
    /// The packet's declared length.
    pub(crate) length: u32,
    pub(crate) flags: u8,
}

/// The packet path's common case: the flow is confirmed, in time, admitted by the image in force, and the packet changes
/// no state. One look-up, one entry written.
///
/// A time-out that is not the one in force is changed by the slow path: for one comparison of words that are at hand, flows
/// follow a changed configuration from their next packet on.
#[inline(always)]
pub(crate) fn touch<A: Copy>(
    flow: &mut Flow<A>,
    half: &mut Half<A>,
    leaving: &mut Leaving<A>,
    passing: Passing,
) -> Found {
    let Passing { now, epoch, timeout, length, flags } = passing;
    let quiet = flow.state == State::Replied as u8
        || flow.state == State::Established as u8 && flags & (flag::SYN | flag::FIN | flag::RST) == 0;
    let current = flow.epoch == epoch && flow.timeout == timeout;
    if !quiet || !current || flow.is_over(now) || is_backwards(flow.is_reply(), flags) {
        half.set(flow, now);
        return Found::Slow(Stage::Confirmed);
    }
    flow.packets += 1;
    flow.bytes += u64::from(length);
    flow.last_seen = now;
    leaving.set(flow);
    Found::Quick
}

/// Ends a flow that is over, and asks the image in force about one that an earlier image admitted. `Ok(false)` means that
/// there is no flow any more: judge the packet as a first one.
#[inline(always)]
pub fn renew<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    stage: Stage,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let now = work.now;
    work.other.set_mirror(&work.half.to, work.key.protocol, work.half.other_side);
    if work.half.over && !tables.with_flow(stage, &work.other, |other| !other.is_over(now)).unwrap_or(false) {
        forget::<F, T>(tables, stage, &work.key, &work.other);
        return Ok(false);
    }
    if work.half.epoch != work.active.epoch() {
        revalidate::<F, T>(tables, side, stage, work)?;
    }
    Ok(true)
}

/// Brings the flow up to date with the packet. `Ok(false)` means there is no flow after all: judge the packet as a first one.
#[inline(always)]
pub fn advance<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    stage: Stage,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let now = work.now;
    work.other.set_mirror(&work.half.to, work.key.protocol, work.half.other_side);
    let state = match next_state(&work.half, work.key.protocol, work.transport.flags) {
        Step::Stay => State::from_number(work.half.state),
        Step::To(state) => state,
        Step::Invalid if work.key.protocol == protocol::TCP => {
            return Err(Refusal::by_rule(DropReason::InvalidTcp, work.half.rule));
        }
        Step::Invalid => return Err(Refusal::by_rule(DropReason::NotOpening, work.half.rule)),
        Step::Reopen => {
            forget::<F, T>(tables, stage, &work.key, &work.other);
            return Ok(false);
        }
    };
    let state = State::from_number(settle(&mut work.half.state, state as u8));
    let timeout = tables.config().timeouts.of(state, work.key.protocol, F::ICMP);
    // A FIN counts where it closes: one before the handshake is complete is sent again after it.
    let closes = matches!(state, State::Closing | State::TimeWait);
    let fin = if closes && work.transport.flags & flag::FIN != 0 { FIN } else { 0 };
    let length = u64::from(work.network.length);
    let own = move |flow: &mut Flow<F::Address>| {
        flow.packets += 1;
        flow.bytes += length;
        flow.last_seen = now;
        flow.timeout = timeout;
        flow.state = state as u8;
        flow.flags |= fin;
    };
    let other = move |flow: &mut Flow<F::Address>| {
        flow.timeout = timeout;
        flow.state = state as u8;
    };

    let kept = if matches!(stage, Stage::HalfOpen) && state.is_confirmed() {
        confirm::<F, T>(tables, &work.key, &work.other, own, other)
    } else if tables.with_flow(stage, &work.other, other).is_some()
        || restore::<F, T>(tables, stage, work, timeout)
    {
        let _ = tables.with_flow(stage, &work.key, own);
        Kept::Yes
    } else {
        tables.remove_flow(stage, &work.key);
        Kept::Orphan
    };
    match kept {
        Kept::Yes => {
            let Work { half, leaving, .. } = work;
            half.state = state as u8;
            leaving.to = half.to;
            leaving.hop = half.hop;
            leaving.route = half.route;
            leaving.rule = half.rule + 1;
            leaving.exit = half.exit;
            leaving.translated = half.flags & TRANSLATED != 0;
            Ok(true)
        }
        Kept::Orphan => Ok(false),
        Kept::Full => Err(Refusal::by_rule(DropReason::FlowTableFull, work.half.rule)),
    }
}

#[inline(always)]
fn next_state<A: Copy>(half: &Half<A>, ip_protocol: u8, flags: u8) -> Step {
    let state = State::from_number(half.state);
    if ip_protocol != protocol::TCP {
        if is_backwards(half.is_reply(), flags) {
            return Step::Invalid;
        }
        return match (state, half.is_reply()) {
            (State::Unreplied, true) => Step::To(State::Answered),
            (State::Answered, false) => Step::To(State::Replied),
            _ => Step::Stay,
        };
    }
    // A later fragment has no flags, and moves nothing.
    if flags == 0 {
        return Step::Stay;
    }
    // In `Closing` exactly one direction has sent a FIN: when it was not this one, it was the other.
    tcp::step(state, flags, half.is_reply(), half.flags & FIN == 0)
}

/// Whether an echo message goes the wrong way through its flow: with id 0 the keys of requests and replies are equal.
#[inline(always)]
const fn is_backwards(reply: bool, flags: u8) -> bool {
    flags & if reply { echo::REQUEST } else { echo::REPLY } != 0
}

/// Asks the image in force whether it admits the flow; when not, ends it.
#[inline(always)]
fn revalidate<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    stage: Stage,
    work: &mut Work<F::Address>,
) -> Result<(), Refusal> {
    let reply = work.half.is_reply();
    let original = if reply { &work.other } else { &work.key };
    let judgement = tables.judge(work.active, original, opening_axis::<F>(original));
    let attributes = judgement.attributes;
    // Where the flow goes is known by where its replies come from.
    let reply_side = if reply { side as u8 } else { work.half.other_side };
    let (opener, still_there) = match Side::from_number(reply_side) {
        Side::Overlay => (Side::Local, attributes.remote()),
        Side::Local => (Side::Overlay, attributes.local()),
        Side::Site => (Side::Overlay, may_leave::<F, T>(tables, work, attributes)),
    };
    if !(judgement.source.may_open(opener) && judgement.decision.accepts() && still_there) {
        return Err(revoke::<F, T>(tables, side, stage, work));
    }
    let (epoch, rule) = (work.active.epoch(), judgement.decision.slot());
    let route = attributes.route().unwrap_or(0);
    work.half.epoch = epoch;
    work.half.rule = rule;
    work.half.route = route;
    // A neighbour is one of the device it was learned on, which may be another now.
    work.half.hop.known = 0;
    let admit = |half: &mut Flow<F::Address>| {
        // First: who sees the epoch on another processor must not see the neighbour of before.
        settle(&mut half.hop.known, 0);
        half.epoch = epoch;
        half.rule = rule;
        half.route = route;
    };
    // Both halves, whatever becomes of the packet in hand.
    let _ = tables.with_flow(stage, &work.key, admit);
    let _ = tables.with_flow(stage, &work.other, admit);
    Ok(())
}

/// Whether a flow to a site can go on by the route that the image in force names: the one it has, or another that masquerades
/// with the address it has. The far end knows it by that one, and its answers must come back here.
#[inline(always)]
fn may_leave<F: Egresses, T: Tables<F>>(tables: &T, work: &Work<F::Address>, attributes: Attributes) -> bool {
    let Work { half, key, other, active, .. } = work;
    let Some(route) = attributes.route() else { return false };
    if route == half.route || half.flags & TRANSLATED == 0 {
        return true;
    }
    let source = if half.is_reply() { key.destination } else { other.destination };
    tables.egress(*active, route).is_some_and(|egress| egress.has::<F>(source))
}

#[inline(always)]
fn revoke<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    stage: Stage,
    work: &Work<F::Address>,
) -> Refusal {
    let (packets, bytes) =
        tables.with_flow(stage, &work.key, |own| (own.packets, own.bytes)).unwrap_or((0, 0));
    let (more, more_bytes) =
        tables.with_flow(stage, &work.other, |other| (other.packets, other.bytes)).unwrap_or((0, 0));
    tables.remove_revoked(stage, &work.key);
    tables.remove_revoked(stage, &work.other);
    tables.count_refused(work.half.rule);
    let about =
        About { kind: EventKind::Revoke, reason: Some(DropReason::Revoked), rule: work.half.rule + 1 };
    tables.emit(about, |told| {
        event::<F>(told, side, work);
        told.packets = packets + more;
        told.bytes = bytes + more_bytes;
    });
    Refusal::told(DropReason::Revoked)
}

/// Where the packet that opened a flow with this key stood on the protocol/port axis.
#[inline(always)]
fn opening_axis<F: Header>(key: &Key<F::Address>) -> u32 {
    let port = u32::from(key.destination_port);
    match key.protocol {
        protocol::TCP => axis::TCP | port,
        protocol::UDP => axis::UDP | port,
        p if p == F::ICMP => {
            (if F::VERSION == 4 { axis::ICMP } else { axis::ICMPV6 }) | u32::from(F::ECHO_REQUEST) << 8
        }
        other => axis::OTHER | u32::from(other),
    }
}

enum Kept {
    Yes,
    /// The other half was evicted and cannot be restored; this one is gone too.
    Orphan,
    Full,
}

/// The half-open table may evict one half: a first half makes its reply half anew, if nobody took its key.
#[inline(always)]
fn restore<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    stage: Stage,
    work: &mut Work<F::Address>,
    timeout: u32,
) -> bool {
    let half = &work.half;
    if half.is_reply() || matches!(stage, Stage::Confirmed) {
        return false;
    }
    let reply_exit = if half.exit == Exit::Overlay as u8 { Exit::Host } else { Exit::Overlay };
    work.opening = Opening {
        source: half.to.source,
        rule: half.rule,
        timeout,
        source_port: half.to.source_port,
        route: half.route,
        state: half.state,
        masquerade: half.flags & TRANSLATED != 0,
        exits: [half.exit, reply_exit as u8],
        reply_side: half.other_side,
    };
    tables.claim(0, work).unwrap_or(false)
}

/// Moves both halves into the table that never evicts. They are in both tables for a moment, never in neither.
#[inline(always)]
fn confirm<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    key: &Key<F::Address>,
    other_key: &Key<F::Address>,
    own: impl FnOnce(&mut Flow<F::Address>),
    other: impl FnOnce(&mut Flow<F::Address>),
) -> Kept {
    let kept = match tables.confirm_flow(other_key, other) {
        Err(NotConfirmed::Full) => return Kept::Full,
        Err(NotConfirmed::Missing) => Kept::Orphan,
        Ok(()) => match tables.confirm_flow(key, own) {
            Ok(()) => Kept::Yes,
            // Another processor has confirmed both in between.
            Err(NotConfirmed::Missing) if tables.with_flow(Stage::Confirmed, key, |_| ()).is_some() => {
                Kept::Orphan
            }
            Err(refused) => {
                tables.remove_flow(Stage::Confirmed, other_key);
                if matches!(refused, NotConfirmed::Full) {
                    return Kept::Full;
                }
                Kept::Orphan
            }
        },
    };
    forget::<F, T>(tables, Stage::HalfOpen, key, other_key);
    kept
}

#[inline(always)]
fn forget<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    stage: Stage,
    key: &Key<F::Address>,
    other_key: &Key<F::Address>,
) {
    tables.remove_flow(stage, key);
    tables.remove_flow(stage, other_key);
}
