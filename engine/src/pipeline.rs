//! One packet from arrival to verdict: the only way in, and the only way out.

pub use crate::answer::answer;
use crate::event::{About, EventKind};
use crate::flow::{Exit, Key, Side};
use crate::mss;
use crate::open::event;
use crate::packet::{Network, Packet, protocol, tcp as flag, transport};
use crate::quote;
use crate::reason::DropReason;
use crate::stage::Refusal;
use crate::tables::{Config, Egresses, Stage, Tables};
use crate::tcp;
use crate::track::track;
use crate::translate::{decrement_ttl, translate};
use crate::work::Work;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// None of the gateway's business: the host treats it as if there were no gateway. Only site packets.
    Pass,
    /// To the host's own stack, or, from the host, into the overlay as the host sent it.
    Host,
    /// Out of the site device with this index.
    Site(u32),
    /// Into the overlay.
    Overlay,
    /// Dropped, counted and told of; what the packet holds now, the ICMP error that says so to its sender, goes back out of
    /// the device that the packet came from.
    Answer,
    /// Dropped, counted, and perhaps told.
    Drop(DropReason),
}

/// The steps of a packet's way that read or write the packet, and the tables behind them; between them lies the flow, whose
/// stages are methods of [`Tables`]. In user space a step is a call; in the kernel it is a global function, as
/// [`crate::stage`] explains.
pub trait Steps<F: Egresses> {
    /// What is behind the packet.
    type Tables: Tables<F>;

    /// The tables.
    fn tables(&mut self) -> &mut Self::Tables;

    /// Reads the packet and checks all that can be checked without a flow. `Ok(false)`: a site packet that is none of the
    /// gateway's business.
    fn identify(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal>;

    /// Translates an ICMP error and what it quotes; see [`quote::rewrite`]. `Ok(false)`: it could not.
    fn rewrite_quotation(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        let _ = work;
        Ok(false)
    }

    /// Sends the packet on its way: egress, size, TTL, translation. `Ok` is always `true`.
    fn leave(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal>;

    /// Lowers the segment size that a SYN tells, whose TCP header starts at `transport`; see [`mss::clamp`].
    fn clamp(&mut self, transport: u32, largest: u16) {
        let _ = (transport, largest);
    }

    /// Turns a packet that was dropped for `reason` into the answer to its sender. `Ok(false)`: there is none. See
    /// [`answer`].
    fn answer(
        &mut self,
        side: Side,
        reason: DropReason,
        work: &mut Work<F::Address>,
    ) -> Result<bool, Refusal> {
        let _ = (side, reason, work);
        Ok(false)
    }
}

/// Packet and tables in the same hands.
pub(crate) struct Direct<'a, P, T> {
    pub(crate) packet: &'a mut P,
    pub(crate) tables: &'a mut T,
}

impl<F: Egresses, P: Packet, T: Tables<F>> Steps<F> for Direct<'_, P, T> {
    type Tables = T;

    #[inline(always)]
    fn tables(&mut self) -> &mut T {
        self.tables
    }

    #[inline(always)]
    fn identify(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        identify::<F, P, T>(self.packet, side, false, self.tables, work)
    }

    #[inline(always)]
    fn rewrite_quotation(&mut self, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        Ok(quote::rewrite::<F>(self.packet, work))
    }

    #[inline(always)]
    fn leave(&mut self, side: Side, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
        leave::<F, P, T>(self.packet, side, self.tables, work)
    }

    #[inline(always)]
    fn clamp(&mut self, transport: u32, largest: u16) {
        mss::clamp(self.packet, transport, largest);
    }

    #[inline(always)]
    fn answer(
        &mut self,
        side: Side,
        reason: DropReason,
        work: &mut Work<F::Address>,
    ) -> Result<bool, Refusal> {
        Ok(answer::<F, P, T>(self.packet, self.tables, side, reason, work))
    }
}

/// Judges one packet, rewrites it in place, and says where it goes. `now` is in ticks that never wrap; `work` may hold anything.
#[inline(always)]
pub fn process<F, P, T>(
    packet: &mut P,
    side: Side,
    tables: &mut T,
    now: u64,
    work: &mut Work<F::Address>,
) -> Verdict
where
    F: Egresses,
    P: Packet,
    T: Tables<F>,
{
    run::<F, _>(&mut Direct { packet, tables }, side, now, work)
}

/// As [`process`], with the steps as the caller takes them.
#[inline(always)]
pub fn run<F: Egresses, S: Steps<F>>(
    steps: &mut S,
    side: Side,
    now: u64,
    work: &mut Work<F::Address>,
) -> Verdict {
    work.begin(side, now);
    match decide::<F, S>(steps, side, work) {
        Ok(verdict) => verdict,
        Err(refusal) => refused::<F, S>(steps, side, &refusal, work),
    }
}

/// Drops a packet, and answers it where that is due.
#[inline(always)]
pub(crate) fn refused<F: Egresses, S: Steps<F>>(
    steps: &mut S,
    side: Side,
    refusal: &Refusal,
    work: &mut Work<F::Address>,
) -> Verdict {
    let dropped = refuse::<F, _>(steps.tables(), side, refusal, work);
    // What the host sends itself goes on as it is, however large.
    let answerable =
        matches!(refusal.reason, DropReason::TtlExpired | DropReason::TooBig) && !matches!(side, Side::Local);
    if answerable && matches!(steps.answer(side, refusal.reason, work), Ok(true)) {
        return Verdict::Answer;
    }
    dropped
}

#[inline(always)]
fn decide<F: Egresses, S: Steps<F>>(
    steps: &mut S,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<Verdict, Refusal> {
    if !steps.identify(side, work)? {
        return Ok(Verdict::Pass);
    }
    let tables = steps.tables();
    let leaves = if work.transport.quotes {
        quote::follow::<F, _>(tables, side, work)?
    } else {
        track::<F, _>(tables, side, work)?
    };
    if !leaves {
        return unsolicited::<F>(tables.config(), work);
    }
    if work.network.piece.is_first() {
        tables.remember(work)?;
    }
    // Before all that may still drop it: nobody answers an error, so nobody needs it as it was.
    if work.transport.quotes && work.leaving.translated && !steps.rewrite_quotation(work)? {
        return Err(DropReason::Internal.into());
    }
    depart::<F, S>(steps, side, work)
}

/// Sends a packet that its flow lets pass on its way.
#[inline(always)]
pub(crate) fn depart<F: Egresses, S: Steps<F>>(
    steps: &mut S,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<Verdict, Refusal> {
    steps.leave(side, work)?;
    // The bit means nothing else in other protocols.
    if work.transport.flags & flag::SYN != 0
        && !matches!(side, Side::Local)
        && let Some(largest) = largest_segment::<F, _>(steps.tables(), side, work)
    {
        steps.clamp(work.network.transport, largest);
    }
    Ok(match work.leaving.way(side) {
        Exit::Host => Verdict::Host,
        Exit::Site => Verdict::Site(work.leaving.device),
        Exit::Overlay => Verdict::Overlay,
    })
}

/// [`Steps::identify`], for whoever implements it. Only `looking`, it changes nothing but `work`, and says `Ok(false)` of pieces
/// and of errors about other packets too, which take more than a look.
#[inline(always)]
pub fn identify<F, P, T>(
    packet: &P,
    side: Side,
    looking: bool,
    tables: &mut T,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal>
where
    F: Egresses,
    P: Packet,
    T: Tables<F>,
{
    let site = matches!(side, Side::Site);
    if let Err(reason) = F::network(packet, &mut work.network) {
        // Not even the addresses can be trusted: there is nothing to tell.
        return if site { Ok(false) } else { Err(Refusal::told(reason)) };
    }
    let network = &work.network;
    let [overlay, mask] = F::overlay(tables.config());
    if site && F::within(network.source, overlay, mask) {
        return Err(DropReason::SpoofedSource.into());
    }
    // What comes from the site is the gateway's business when it is for the overlay; or, later, when a flow expects it.
    let for_host = site && !F::within(network.destination, overlay, mask);
    let refuse = |reason: DropReason| if for_host { Ok(false) } else { Err(Refusal::from(reason)) };

    let routable = F::is_routable(network.source) && F::is_routable(network.destination);
    if !for_host && !routable {
        return refuse(DropReason::NotUnicast);
    }
    work.active = tables.active();
    if work.active.epoch() == 0 {
        return refuse(DropReason::NoImage);
    }
    if let Some(problem) = network.problem {
        return refuse(problem);
    }
    if network.piece.is_set() && looking {
        return Ok(false);
    }
    let follows = network.piece.is_set() && tables.follow(looking, work)?;
    let network = &work.network;
    if !follows {
        if network.piece.is_later() {
            return refuse(DropReason::Fragment);
        }
        work.transport = match transport::<F>(packet, network) {
            Ok(parsed) => parsed,
            Err(reason) => return refuse(reason),
        };
    }
    if work.transport.quotes {
        if looking {
            return Ok(false);
        }
        if !packet.read_quotation::<F>(work) {
            return refuse(DropReason::IcmpError);
        }
    } else {
        work.key = Key {
            source: network.source,
            destination: network.destination,
            source_port: work.transport.source_port,
            destination_port: work.transport.destination_port,
            protocol: network.protocol,
            side: side as u8,
            padding: 0,
        };
    }
    let reason = if tables.config().is_expired(work.ticks) {
        DropReason::PolicyExpired
    } else if work.network.protocol == protocol::TCP && !follows && !tcp::is_sane(work.transport.flags) {
        DropReason::InvalidTcp
    } else {
        return Ok(true);
    };
    // What a flow expects does not go to the host's stack, which would answer it with a reset and end the flow.
    if for_host && !is_expected::<F, T>(tables, &work.key) { Ok(false) } else { Err(reason.into()) }
}

/// Whether there is a half-entry for this key.
#[inline(always)]
fn is_expected<F: Egresses, T: Tables<F>>(tables: &mut T, key: &Key<F::Address>) -> bool {
    // In the order in which flows move.
    tables.with_flow(Stage::HalfOpen, key, |_| ()).is_some()
        || tables.with_flow(Stage::Confirmed, key, |_| ()).is_some()
}

/// A packet that no flow expects: from a site the host's own business, unless it is for the overlay.
#[inline(always)]
pub(crate) fn unsolicited<F: Egresses>(config: &Config, work: &Work<F::Address>) -> Result<Verdict, Refusal> {
    let [overlay, mask] = F::overlay(config);
    if work.side == Side::Site as u8 && !F::within(work.network.destination, overlay, mask) {
        return Ok(Verdict::Pass);
    }
    Err(if work.transport.quotes { DropReason::IcmpError } else { DropReason::NoFlow }.into())
}

#[inline(always)]
fn refuse<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    refusal: &Refusal,
    work: &mut Work<F::Address>,
) -> Verdict {
    // Of a flow that was revoked, an event has told the rule.
    work.leaving.rule = if refusal.told { work.half.rule + 1 } else { refusal.rule };
    work.leaving.reason = refusal.reason as u8;
    tables.count_dropped(refusal.reason);
    if !refusal.told {
        let about = About { kind: EventKind::Drop, reason: Some(refusal.reason), rule: refusal.rule };
        tables.emit(about, |told| event::<F>(told, side, work));
    }
    Verdict::Drop(refusal.reason)
}

/// [`Steps::leave`], for whoever implements it.
#[inline(always)]
pub fn leave<F, P, T>(
    packet: &mut P,
    side: Side,
    tables: &mut T,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal>
where
    F: Egresses,
    P: Packet,
    T: Tables<F>,
{
    let Work { network, leaving, transport, active, .. } = work;
    let mtu = match leaving.way(side) {
        Exit::Host => {
            tables.count_forwarded(side, network.length);
            return Ok(true);
        }
        Exit::Overlay => tables.config().overlay_mtu,
        Exit::Site => match tables.egress(*active, leaving.route) {
            Some(egress) if egress.device != 0 => {
                leaving.device = egress.device;
                egress.mtu
            }
            _ => return Err(DropReason::NoEgress.into()),
        },
    };
    if network.ttl <= 1 {
        return Err(DropReason::TtlExpired.into());
    }
    if mtu != 0 && packet.length() > mtu && segment_length(packet, network) > mtu {
        leaving.mtu = mtu;
        return Err(DropReason::TooBig.into());
    }
    let translates = leaving.translated && !transport.quotes;
    if translates && !translate::<F>(packet, network, transport, &leaving.to) {
        return Err(DropReason::Internal.into());
    }
    if !decrement_ttl::<F>(packet) {
        return Err(DropReason::Internal.into());
    }
    tables.count_forwarded(side, network.length);
    Ok(true)
}

/// The largest TCP segment that crosses the devices on both sides of the gateway; `None` where nothing limits it, and for
/// connections of this host, whose stack knows the device they use.
#[inline(always)]
fn largest_segment<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    work: &Work<F::Address>,
) -> Option<u16> {
    let Work { leaving, active, .. } = work;
    let way = leaving.way(side);
    if matches!(way, Exit::Host) {
        return None;
    }
    let through_site = matches!(way, Exit::Site) || matches!(side, Side::Site);
    let site =
        if through_site { tables.egress(*active, leaving.route).map_or(0, |egress| egress.mtu) } else { 0 };
    mss::largest::<F>(site, tables.config().overlay_mtu)
}

/// Length of the packets this one becomes on the wire.
#[inline(always)]
fn segment_length<A>(packet: &impl Packet, network: &Network<A>) -> u32 {
    let transport = match network.protocol {
        protocol::TCP => {
            packet.read::<2>(network.transport + 12).map_or(20, |[offset, _]| u32::from(offset >> 4) * 4)
        }
        _ => 8,
    };
    packet.segment_length(network.transport + transport)
}

/// The IP version of a packet, from its first byte.
#[inline(always)]
pub fn version(packet: &impl Packet) -> Option<u8> {
    packet.read::<2>(0).map(|[first, _]| first >> 4)
}
