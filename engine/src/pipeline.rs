//! One packet from arrival to verdict: the only way in, and the only way out.

use crate::event::EventKind;
use crate::family::Family;
use crate::flow::{Exit, Key, Side};
use crate::network::Header;
use crate::open::event;
use crate::packet::{Network, Packet, Transport, protocol, transport};
use crate::reason::DropReason;
use crate::tables::{Active, Config, Egresses, Stage, Tables};
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
    /// Dropped, counted, and perhaps told.
    Drop(DropReason),
}

/// Why a packet does not pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    reason: DropReason,
    /// Slot + 1 of the rule concerned, or 0.
    rule: u32,
    /// Whether an event about it was written already.
    told: bool,
}

impl Refusal {
    #[inline(always)]
    pub(crate) fn by_rule(reason: DropReason, rule: u32) -> Self {
        Self { reason, rule: rule + 1, told: false }
    }

    #[inline(always)]
    pub(crate) fn told(reason: DropReason) -> Self {
        Self { reason, rule: 0, told: true }
    }
}

impl From<DropReason> for Refusal {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self { reason, rule: 0, told: false }
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
    F: Header + Egresses,
    P: Packet,
    T: Tables<F>,
{
    if let Err(reason) = arrive::<F>(packet, side, now, work) {
        if matches!(side, Side::Site) {
            return Verdict::Pass;
        }
        tables.count_dropped(reason);
        return Verdict::Drop(reason);
    }
    match decide::<F, P, T>(packet, side, tables, work) {
        Ok(verdict) => verdict,
        Err(refusal) => drop::<F, T>(tables, side, &refusal, work),
    }
}

/// Looks at a site packet before an skb exists, and changes nothing: `Drop` for what the whole path would drop for want of
/// a flow or worse, `Pass` for everything else.
#[inline(always)]
pub fn screen<F, P, T>(packet: &P, tables: &mut T, now: u64, work: &mut Work<F::Address>) -> Verdict
where
    F: Header + Egresses,
    P: Packet,
    T: Tables<F>,
{
    if arrive::<F>(packet, Side::Site, now, work).is_err() {
        return Verdict::Pass;
    }
    let looked = match identify::<F, P, T>(packet, Side::Site, tables, work) {
        Ok(None) => return Verdict::Pass,
        Ok(Some(_)) => {
            if is_expected::<F, T>(tables, &work.key) {
                Ok(Verdict::Pass)
            } else {
                unsolicited::<F>(tables.config(), &work.network)
            }
        }
        Err(refusal) => Err(refusal),
    };
    match looked {
        Ok(verdict) => verdict,
        Err(refusal) => drop::<F, T>(tables, Side::Site, &refusal, work),
    }
}

#[inline(always)]
fn arrive<F: Header>(
    packet: &impl Packet,
    side: Side,
    now: u64,
    work: &mut Work<F::Address>,
) -> Result<(), DropReason> {
    F::network(packet, &mut work.network)?;
    work.transport = Transport::default();
    work.side = side as u8;
    work.now = now as u32;
    work.ticks = now;
    Ok(())
}

#[inline(always)]
fn decide<F, P, T>(
    packet: &mut P,
    side: Side,
    tables: &mut T,
    work: &mut Work<F::Address>,
) -> Result<Verdict, Refusal>
where
    F: Header + Egresses,
    P: Packet,
    T: Tables<F>,
{
    let Some(active) = identify::<F, P, T>(packet, side, tables, work)? else { return Ok(Verdict::Pass) };
    work.epoch = active.epoch();
    if !track::<F, T>(tables, active, side, work)? {
        return unsolicited::<F>(tables.config(), &work.network);
    }
    leave::<F, P, T>(packet, side, tables, work)
}

/// Checks all that can be checked without a flow, and makes the key. `Ok(None)` is a site packet that is none of the
/// gateway's business.
#[inline(always)]
fn identify<F, P, T>(
    packet: &P,
    side: Side,
    tables: &mut T,
    work: &mut Work<F::Address>,
) -> Result<Option<Active>, Refusal>
where
    F: Header + Egresses,
    P: Packet,
    T: Tables<F>,
{
    let network = &work.network;
    let site = matches!(side, Side::Site);
    let [overlay, mask] = F::overlay(tables.config());
    if site && F::within(network.source, overlay, mask) {
        return Err(DropReason::SpoofedSource.into());
    }
    // What comes from the site is the gateway's business when it is for the overlay; or, later, when a flow expects it.
    let for_host = site && !F::within(network.destination, overlay, mask);
    let refuse = |reason: DropReason| if for_host { Ok(None) } else { Err(Refusal::from(reason)) };

    let routable = F::is_routable(network.source) && F::is_routable(network.destination);
    if !for_host && !routable {
        return refuse(DropReason::NotUnicast);
    }
    let active = tables.active();
    if active.epoch() == 0 {
        return refuse(DropReason::NoImage);
    }
    if let Some(problem) = network.problem {
        return refuse(problem);
    }
    work.transport = match transport::<F>(packet, network) {
        Ok(parsed) => parsed,
        Err(reason) => return refuse(reason),
    };
    work.key = Key {
        source: network.source,
        destination: network.destination,
        source_port: work.transport.source_port,
        destination_port: work.transport.destination_port,
        protocol: network.protocol,
        side: side as u8,
        padding: 0,
    };
    let reason = if tables.config().is_expired(work.ticks) {
        DropReason::PolicyExpired
    } else if network.protocol == protocol::TCP && !tcp::is_sane(work.transport.flags) {
        DropReason::InvalidTcp
    } else {
        return Ok(Some(active));
    };
    // What a flow expects does not go to the host's stack, which would answer it with a reset and end the flow.
    if for_host && !is_expected::<F, T>(tables, &work.key) { Ok(None) } else { Err(reason.into()) }
}

/// Whether there is a half-entry for this key.
#[inline(always)]
fn is_expected<F: Family, T: Tables<F>>(tables: &mut T, key: &Key<F::Address>) -> bool {
    tables.with_flow(Stage::Confirmed, key, |_| ()).is_some()
        || tables.with_flow(Stage::HalfOpen, key, |_| ()).is_some()
}

/// A site packet that no flow expects: refused when it is for the overlay, the host's own business otherwise.
#[inline(always)]
fn unsolicited<F: Egresses>(config: &Config, network: &Network<F::Address>) -> Result<Verdict, Refusal> {
    let [overlay, mask] = F::overlay(config);
    if F::within(network.destination, overlay, mask) {
        Err(DropReason::NoFlow.into())
    } else {
        Ok(Verdict::Pass)
    }
}

#[inline(always)]
fn drop<F: Header, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    refusal: &Refusal,
    work: &Work<F::Address>,
) -> Verdict {
    tables.count_dropped(refusal.reason);
    if !refusal.told {
        tables.emit(|told| {
            event::<F>(told, side, work);
            told.kind = EventKind::Drop as u8;
            told.reason = refusal.reason as u8;
            told.rule = refusal.rule;
        });
    }
    Verdict::Drop(refusal.reason)
}

/// Sends the packet on its way: size, TTL, translation.
#[inline(always)]
fn leave<F, P, T>(
    packet: &mut P,
    side: Side,
    tables: &mut T,
    work: &Work<F::Address>,
) -> Result<Verdict, Refusal>
where
    F: Header + Egresses,
    P: Packet,
    T: Tables<F>,
{
    let Work { network, leaving, .. } = work;
    let (verdict, mtu) = match leaving.exit() {
        Exit::Host => (Verdict::Host, 0),
        // What the host itself sends is already on its way into the overlay.
        Exit::Overlay if matches!(side, Side::Local) => (Verdict::Host, 0),
        Exit::Overlay => (Verdict::Overlay, tables.config().overlay_mtu),
        Exit::Site => match tables.egress(leaving.route) {
            Some(egress) if egress.device != 0 => (Verdict::Site(egress.device), egress.mtu),
            _ => return Err(DropReason::NoEgress.into()),
        },
    };
    if !matches!(verdict, Verdict::Host) {
        if network.ttl <= 1 {
            return Err(DropReason::TtlExpired.into());
        }
        if mtu != 0 && packet.length() > mtu && segment_length(packet, network) > mtu {
            return Err(DropReason::TooBig.into());
        }
        if leaving.translated && !translate::<F>(packet, network, &work.transport, &leaving.to) {
            return Err(DropReason::Internal.into());
        }
        if !decrement_ttl::<F>(packet) {
            return Err(DropReason::Internal.into());
        }
    }
    tables.count_forwarded(side, network.length);
    Ok(verdict)
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
