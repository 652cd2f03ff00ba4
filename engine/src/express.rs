//! The way of packets that are carried or dropped before anything else of the host sees them, as XDP does.
//!
//! It knows the plain case: a whole packet of a flow that is there or that it opens, whose neighbour is known, by a device that
//! frames can be sent by; and it drops what the rest of the engine would drop for want of a flow, a rule or sense. Every
//! other packet it leaves as it found it, and what is known of its flow too, so that [`crate::pipeline`] judges it in TC as if
//! this had never been. Nothing needs to be handed over from one to the other, and nothing is counted twice.

use crate::family::Family;
use crate::flow::{Flow, Hop, SENDS, Side};
use crate::live::{Found, Passing, touch};
use crate::open::begin;
use crate::packet::{Packet, protocol};
use crate::pipeline::{Direct, Steps, Verdict, depart, identify, refused, unsolicited};
use crate::reason::DropReason;
use crate::stage::Refusal;
use crate::tables::{Egresses, Stage, Tables};
use crate::track::update;
use crate::work::Work;

/// Carries one packet, or drops it; `None` leaves it, unchanged, to the slower way. [`Steps::identify`] only
/// looks, and says `Ok(false)` of packets that are [`is_unfinished`]. Unless the device it came from `sends`, it is not carried: an answer to its sender
/// could not leave.
#[inline(always)]
pub fn express<F: Egresses, S: Steps<F>>(
    steps: &mut S,
    side: Side,
    sends: bool,
    now: u64,
    work: &mut Work<F::Address>,
) -> Option<Verdict> {
    work.begin(side, now);
    let side = work.side();
    match carry::<F, S>(steps, side, sends, work) {
        Ok(verdict) => verdict,
        Err(refusal) => Some(refused::<F, S>(steps, side, &refusal, work)),
    }
}

/// [`express`] for packet and tables in the same hands. A packet from a device that does not send is dropped, or `None` and
/// nothing changed.
#[inline(always)]
pub fn screen<F, P, T>(
    packet: &mut P,
    side: Side,
    sends: bool,
    tables: &mut T,
    now: u64,
    work: &mut Work<F::Address>,
) -> Option<Verdict>
where
    F: Egresses,
    P: Packet,
    T: Tables<F>,
{
    express::<F, _>(&mut Screen(Direct { packet, tables }), side, sends, now, work)
}

struct Screen<'a, P, T>(Direct<'a, P, T>);

impl<F: Egresses, P: Packet, T: Tables<F>> Steps<F> for Screen<'_, P, T> {
    type Tables = T;

    fn tables(&mut self) -> &mut T {
        <Direct<'_, P, T> as Steps<F>>::tables(&mut self.0)
    }

    fn identify(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        Ok(identify::<F, P, T>(self.0.packet, side, true, self.0.tables, work)?
            && !is_unfinished::<F>(self.0.packet, work))
    }

    fn leave(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        <Direct<'_, P, T> as Steps<F>>::leave(&mut self.0, side, work)
    }

    fn clamp(&mut self, transport: u32, largest: u16) {
        <Direct<'_, P, T> as Steps<F>>::clamp(&mut self.0, transport, largest);
    }

    fn answer(
        &mut self,
        side: Side,
        reason: DropReason,
        work: &mut Work<F::Address>,
    ) -> Result<bool, Refusal> {
        <Direct<'_, P, T> as Steps<F>>::answer(&mut self.0, side, reason, work)
    }
}

#[inline(always)]
fn carry<F: Egresses, S: Steps<F>>(
    steps: &mut S,
    side: Side,
    sends: bool,
    work: &mut Work<F::Address>,
) -> Result<Option<Verdict>, Refusal> {
    if !steps.identify(side, work)? || !follow::<F, _>(steps.tables(), side, sends, work)? {
        return Ok(None);
    }
    // A flow to the host itself has no neighbour to be ready with.
    depart::<F, S>(steps, side, work).map(Some)
}

/// Brings the packet's flow up to date, or opens it, where the packet can be carried by it. `Ok(false)`: nothing was changed.
#[inline(always)]
fn follow<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    sends: bool,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let (now, epoch) = (work.now, work.active.epoch());
    let config = tables.config();
    let (lifetime, since) = (config.hop_lifetime, config.hops_since);
    let passing = Passing {
        now,
        epoch,
        timeout: config.timeouts.quiet(work.key.protocol, F::ICMP),
        length: work.network.length,
        flags: work.transport.flags,
    };
    let is_ready = |hop: &Hop| hop.known & SENDS != 0 && hop.is_good(now, lifetime, since);
    let lives = |flow: &Flow<F::Address>| sends && flow.epoch == epoch && !flow.is_over(now);
    let Work { key, half, leaving, .. } = work;
    let confirmed = tables.with_flow(Stage::Confirmed, key, |flow| {
        // The epoch first: where another processor has had the flow judged anew, its neighbour was forgotten before.
        if lives(flow) && is_ready(&flow.hop) {
            return Some(touch(flow, half, leaving, passing));
        }
        lives(flow).then(|| {
            half.set(flow, now);
            Found::Slow(Stage::Confirmed)
        })
    });
    let found = match confirmed {
        Some(found) => found,
        None => match tables.with_flow(Stage::HalfOpen, key, |flow| lives(flow).then(|| half.set(flow, now)))
        {
            Some(found) => found.map(|()| Found::Slow(Stage::HalfOpen)),
            // One that moves from the one table to the other between these two looks is TC's.
            None if tables.with_flow(Stage::Confirmed, key, |_| ()).is_some() => None,
            None => Some(Found::Nothing),
        },
    };
    match found {
        Some(Found::Quick) => Ok(true),
        Some(Found::Slow(stage)) => {
            Ok((is_ready(&work.half.hop) || tables.meet(stage, work)?)
                && update::<F, T>(tables, stage, work)?)
        }
        Some(Found::Nothing) if matches!(side, Side::Site) => {
            unsolicited::<F>(tables.config(), work).map(|_| false)
        }
        Some(Found::Nothing) => {
            tables.admit(side, work)?;
            if !sends || work.leaving.hop.known & SENDS == 0 {
                return Ok(false);
            }
            begin::<F, T>(tables, side, work)
        }
        None => Ok(false),
    }
}

/// Whether the transport checksum is not whole: it is the pseudo-header's sum alone (TCP, UDP) or none (SCTP), since the sender
/// left the rest to a device, which XDP cannot know. By chance a whole checksum looks so once in 65,536 packets; they then take
/// the slower way, which is right for both.
#[inline(always)]
pub fn is_unfinished<F: Family>(packet: &impl Packet, work: &Work<F::Address>) -> bool {
    const SCTP: u8 = 132;

    let network = &work.network;
    let offset = match network.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        SCTP => return packet.read::<4>(network.transport + 8) == Some([0; 4]),
        _ => return false,
    };
    let Some(checksum) = packet.read::<2>(network.transport + offset).map(u16::from_be_bytes) else {
        return false;
    };
    let length = network.length.wrapping_sub(network.transport);
    let sum = F::sum(network.source) + F::sum(network.destination) + u32::from(network.protocol) + length;
    checksum != 0 && checksum == crate::checksum::fold(sum)
}
