//! A packet without a flow: judge it, and open one.

use crate::event::{About, Event, EventKind};
use crate::flow::{Exit, Flow, Key, REPLY, Side, State, TRANSLATED};
use crate::hop;
use crate::host::HostAddress;
use crate::image::Attributes;
use crate::network::Header;
use crate::packet::protocol;
use crate::reason::DropReason;
use crate::stage::Refusal;
use crate::tables::{Egresses, Refused, Stage, Tables};
use crate::tcp;
use crate::track::overtaken;
use crate::translate::Translated;
use crate::work::{Opening, Work};

/// Judges the first packet of a flow and, when a rule accepts it, inserts both halves.
#[inline(always)]
pub(crate) fn open<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    tables.admit(side, work)?;
    begin::<F, T>(tables, side, work)
}

/// Opens the flow of a packet that was admitted.
#[inline(always)]
pub(crate) fn begin<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let limited = tables.config().half_open_per_source != 0 && matches!(side, Side::Overlay);
    if limited && !tables.count_opening(false, work)? {
        return Err(Refusal::by_rule(DropReason::SourceLimit, work.opening.rule));
    }
    if work.opening.masquerade {
        tables.reserve(work)?;
    }
    // Not within that stage: those it runs would be below it on the stack, of which Linux 6.1 gives the least.
    if tables.insert(side, work)? {
        return Ok(true);
    }
    tables.join(work)
}

/// Asks the image, and works out the flow that would be. When it admits the packet, nothing but `work` has changed.
#[inline(always)]
pub fn admit<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let Work { key, network, transport, active, opening, leaving, neighbour, now, .. } = work;
    // What the first fragment opened is no more.
    if network.piece.is_later() {
        return Err(DropReason::Fragment.into());
    }
    let judgement = tables.judge(*active, key, transport.axis);
    if !judgement.source.may_open(side) {
        return Err(DropReason::SpoofedSource.into());
    }
    let decision = judgement.decision;
    if let (false, Some(route)) = (decision.accepts(), judgement.attributes.route()) {
        tables.count_route(route, true);
    }
    if !decision.is_set() {
        return Err(DropReason::NoRule.into());
    }
    if !decision.accepts() {
        tables.count_refused(decision.slot());
        return Err(Refusal::by_rule(DropReason::RuleDrop, decision.slot()));
    }
    let rule = decision.slot();
    let refuse = |reason| Err(Refusal::by_rule(reason, rule));
    let Some((exit, reply_side, reply_exit)) = ways(side, judgement.attributes) else {
        return refuse(DropReason::NoEgress);
    };
    let tcp = network.protocol == protocol::TCP;
    let opens = if tcp { tcp::opens(transport.flags) } else { transport.opens };
    if !opens {
        return refuse(if tcp { DropReason::InvalidTcp } else { DropReason::NotOpening });
    }
    let state = if tcp { State::SynSent } else { State::Unreplied };
    let route = judgement.attributes.route().unwrap_or(0);
    let masquerade = matches!(exit, Exit::Site) && judgement.attributes.masquerade();
    if matches!(exit, Exit::Site)
        && let Some(here) = tables.host_address(&key.destination)
    {
        return refuse(match here {
            HostAddress::Own => DropReason::Hairpin,
            HostAddress::Broadcast => DropReason::NotUnicast,
        });
    }
    let mut source = key.source;
    if let Some(egress) = tables.egress(*active, route).filter(|_| matches!(exit, Exit::Site)) {
        if egress.has::<F>(key.destination) {
            return refuse(DropReason::Hairpin);
        }
        if masquerade {
            source = egress.source::<F>(key.source);
        }
    }
    if masquerade && (source == F::Address::default() || source == key.source) {
        return refuse(DropReason::NoEgress);
    }
    (neighbour.source, neighbour.destination) = (source, key.destination);
    leaving.hop = hop::find::<F, T>(tables, *active, exit, route, neighbour, *now);
    *opening = Opening {
        source,
        rule,
        timeout: tables.config().timeouts.of(state, network.protocol, F::ICMP),
        source_port: key.source_port,
        route,
        state: state as u8,
        masquerade,
        exits: [exit as u8, reply_exit as u8],
        reply_side: reply_side as u8,
    };
    Ok(true)
}

/// Inserts the halves of the flow, the reply half first unless reserving a port has done so, and tells of the flow.
/// `Ok(false)`: another packet of the tuple has opened it since.
#[inline(always)]
pub fn insert<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let Work { key, other, network, leaving, opening, now, active, .. } = work;
    let (now, epoch) = (*now, active.epoch());
    leaving.to = Translated {
        source: opening.source,
        destination: key.destination,
        source_port: opening.source_port,
        destination_port: key.destination_port,
    };
    leaving.route = opening.route;
    leaving.rule = opening.rule + 1;
    leaving.exit = opening.exits[0];
    leaving.translated = opening.masquerade;
    other.set_mirror(&leaving.to, key.protocol, opening.reply_side);
    let full = Err(Refusal::by_rule(DropReason::FlowTableFull, opening.rule));
    // Without translation nobody else can own the reply key: a racing first packet of the same flow at the most.
    if !opening.masquerade
        && tables
            .insert_flow(Stage::HalfOpen, other, true, |flow| opening.reply(key, now, epoch, flow))
            .is_err()
    {
        return full;
    }
    let inserted = tables.insert_flow(Stage::HalfOpen, key, false, |flow| {
        opening.born(now, epoch, flow);
        flow.packets = 1;
        flow.bytes = u64::from(network.length);
        flow.source = opening.source;
        flow.destination = key.destination;
        flow.source_port = opening.source_port;
        flow.destination_port = key.destination_port;
        flow.flags = opening.translated();
        flow.other_side = opening.reply_side;
        flow.exit = opening.exits[0];
        flow.hop = leaving.hop;
    });
    match inserted {
        Ok(()) => {}
        Err(Refused::Exists) => return Ok(false),
        Err(Refused::Full) => {
            tables.remove_flow(Stage::HalfOpen, other);
            return full;
        }
    }
    let Opening { rule, masquerade, source, source_port, .. } = work.opening;
    tables.count_admitted(rule);
    if work.leaving.exit == Exit::Site as u8 {
        tables.count_route(work.opening.route, false);
    }
    tables.emit(About { kind: EventKind::Start, reason: None, rule: rule + 1 }, |told| {
        event::<F>(told, side, work);
        if masquerade {
            told.translated = F::mapped(source);
            told.translated_port = source_port;
        }
    });
    Ok(true)
}

/// Sends the packet by the flow that another processor has opened with a packet of the same tuple since this one's was looked
/// for; a port reserved for this one goes back. Where openings of a source are limited, both have counted.
#[inline(always)]
pub fn join<F: Egresses, T: Tables<F>>(tables: &mut T, work: &mut Work<F::Address>) -> Result<bool, Refusal> {
    let Work { key, other, half, leaving, opening, now, .. } = work;
    let (now, hop, rule) = (*now, leaving.hop, opening.rule);
    if opening.masquerade {
        tables.remove_flow(Stage::HalfOpen, other);
    }
    let there = tables.with_flow(Stage::HalfOpen, key, |flow| half.set(flow, now)).is_some();
    if there && tables.advance(Stage::HalfOpen, work)? || overtaken::<F, T>(tables, work)? {
        work.leaving.hop = hop;
        return Ok(true);
    }
    // It went as fast as it came: the table is as good as full.
    Err(Refusal::by_rule(DropReason::FlowTableFull, rule))
}

impl<A: Copy> Opening<A> {
    #[inline(always)]
    fn translated(&self) -> u8 {
        if self.masquerade { TRANSLATED } else { 0 }
    }

    /// Fills in what both halves are born with.
    #[inline(always)]
    fn born(&self, now: u32, epoch: u32, flow: &mut Flow<A>) {
        flow.last_seen = now;
        flow.timeout = self.timeout;
        flow.epoch = epoch;
        flow.rule = self.rule;
        flow.state = self.state;
        flow.route = self.route;
    }

    /// Fills in the reply half of the flow whose own key is `key`.
    #[inline(always)]
    pub(crate) fn reply(&self, key: &Key<A>, now: u32, epoch: u32, flow: &mut Flow<A>) {
        self.born(now, epoch, flow);
        set_reply(flow, key, self.translated(), self.exits[1]);
    }
}

/// Exit of the first packet, and side and exit of its replies. A destination that lies in no permitted direction has none:
/// only what arrives from the overlay reaches this host or a site, only what this host sends enters the overlay.
#[inline(always)]
fn ways(side: Side, attributes: Attributes) -> Option<(Exit, Side, Exit)> {
    match side {
        Side::Overlay if attributes.local() => Some((Exit::Host, Side::Local, Exit::Overlay)),
        Side::Overlay if attributes.route().is_some() => Some((Exit::Site, Side::Site, Exit::Overlay)),
        Side::Local if attributes.remote() => Some((Exit::Overlay, Side::Overlay, Exit::Host)),
        Side::Overlay | Side::Local | Side::Site => None,
    }
}

/// Fills in what makes a half the reply half of the flow with `key`.
#[inline(always)]
fn set_reply<A: Copy>(flow: &mut Flow<A>, key: &Key<A>, translated: u8, exit: u8) {
    flow.source = key.destination;
    flow.destination = key.source;
    flow.source_port = key.destination_port;
    flow.destination_port = key.source_port;
    flow.flags = REPLY | translated;
    flow.other_side = key.side;
    flow.exit = exit;
}

/// Fills in what the packet says; the caller adds what happened.
#[inline(always)]
pub(crate) fn event<F: Header>(event: &mut Event, side: Side, work: &Work<F::Address>) {
    let Work { network, transport, .. } = work;
    let icmp = network.protocol == F::ICMP;
    event.source = F::mapped(network.source);
    event.destination = F::mapped(network.destination);
    event.source_port = transport.source_port;
    event.destination_port = if icmp { transport.axis as u16 } else { transport.destination_port };
    event.side = side as u8;
    event.protocol = network.protocol;
}
