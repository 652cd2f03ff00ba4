//! A packet without a flow: judge it, and open one.

use crate::event::{Event, EventKind};
use crate::flow::{Exit, Flow, Key, REPLY, Side, State, TRANSLATED};
use crate::image::Attributes;
use crate::nat;
use crate::network::Header;
use crate::packet::protocol;
use crate::pipeline::Refusal;
use crate::reason::DropReason;
use crate::tables::{Active, Egresses, Stage, Tables};
use crate::tcp;
use crate::translate::Translated;
use crate::work::Work;

/// Judges the first packet of a flow and, when a rule accepts it, inserts both halves.
#[inline(always)]
pub(crate) fn open<F: Header + Egresses, T: Tables<F>>(
    tables: &mut T,
    active: Active,
    side: Side,
    work: &mut Work<F::Address>,
) -> Result<(), Refusal> {
    let Work { key, other, network, transport, leaving, .. } = work;
    let key = &*key;
    let judgement = tables.judge(active, key.source, key.destination, transport.axis);
    if !judgement.source.may_open(side) {
        return Err(DropReason::SpoofedSource.into());
    }
    let decision = judgement.decision;
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
    let opens = if network.protocol == protocol::TCP { tcp::opens(transport.flags) } else { transport.opens };
    if !opens {
        return refuse(if network.protocol == protocol::TCP {
            DropReason::InvalidTcp
        } else {
            DropReason::NotOpening
        });
    }

    let state = if network.protocol == protocol::TCP { State::SynSent } else { State::Unreplied };
    let timeout = tables.config().timeouts.of(state, network.protocol, F::ICMP);
    let (now, epoch) = (work.now, work.epoch);
    let born = move |flow: &mut Flow<F::Address>| {
        flow.last_seen = now;
        flow.timeout = timeout;
        flow.epoch = epoch;
        flow.rule = rule;
        flow.state = state as u8;
    };
    let route = judgement.attributes.route().unwrap_or(0);
    let masquerade = matches!(exit, Exit::Site) && judgement.attributes.masquerade();
    let translated = if masquerade { TRANSLATED } else { 0 };
    let reply = move |flow: &mut Flow<F::Address>| {
        born(flow);
        set_reply(flow, key, translated, reply_exit);
    };
    let (source, source_port) = if masquerade {
        let address = tables.egress(route).map(|egress| egress.source::<F>()).unwrap_or_default();
        if address == F::Address::default() {
            return refuse(DropReason::NoEgress);
        }
        match nat::reserve(tables, key, other, address, reply_side as u8, reply) {
            Ok(port) => (address, port),
            Err(reason) => return refuse(reason),
        }
    } else {
        (key.source, key.source_port)
    };
    leaving.to = Translated {
        source,
        destination: key.destination,
        source_port,
        destination_port: key.destination_port,
    };
    leaving.route = route;
    leaving.exit = exit as u8;
    leaving.translated = masquerade;
    other.set_mirror(&leaving.to, key.protocol, reply_side as u8);
    // Without translation nobody else can own the reply key: a racing first packet of the same flow at the most.
    if !masquerade && tables.insert_flow(Stage::HalfOpen, other, true, reply).is_err() {
        return refuse(DropReason::FlowTableFull);
    }
    let inserted = tables.insert_flow(Stage::HalfOpen, key, true, |flow| {
        born(flow);
        flow.packets = 1;
        flow.bytes = u64::from(network.length);
        flow.source = source;
        flow.destination = key.destination;
        flow.source_port = source_port;
        flow.destination_port = key.destination_port;
        flow.route = route;
        flow.flags = translated;
        flow.other_side = reply_side as u8;
        flow.exit = exit as u8;
    });
    if inserted.is_err() {
        tables.remove_flow(Stage::HalfOpen, other);
        return refuse(DropReason::FlowTableFull);
    }
    tables.count_admitted(rule);
    tables.emit(|told| {
        event::<F>(told, side, work);
        told.kind = EventKind::Start as u8;
        told.rule = rule + 1;
        if masquerade {
            told.translated = F::mapped(source);
            told.translated_port = source_port;
        }
    });
    Ok(())
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
pub(crate) fn set_reply<A: Copy>(flow: &mut Flow<A>, key: &Key<A>, translated: u8, exit: Exit) {
    flow.source = key.destination;
    flow.destination = key.source;
    flow.source_port = key.destination_port;
    flow.destination_port = key.source_port;
    flow.flags = REPLY | translated;
    flow.other_side = key.side;
    flow.exit = exit as u8;
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
