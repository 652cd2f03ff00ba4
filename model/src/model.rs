//! The naive gateway: docs/packet-semantics.md once more, as slowly and as plainly as it can be said.
//!
//! It shares no code with the engine but the names of things. Flows are records in a list; policy is a linear scan over the
//! state, not over its compiled image; packets are written anew with checksums in full. Which masquerade port a flow gets
//! is left to the implementation: the model takes what it chose if that was allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_engine::DropReason;
use sluicegate_engine::answer::Answer;
use sluicegate_engine::event::{Event, EventKind};
use sluicegate_engine::flow::{Side, State as Life, Timeouts};
use sluicegate_engine::image::{Attributes, Decision};
use sluicegate_engine::pipeline::Verdict;
use sluicegate_policy::model::State;
use sluicegate_policy::naive;

use crate::answer::{Allowance, answer};
use crate::case::{AGENT, Arrival, Counters, Exit, FlowDump, Outcome, Setup, exit_of};
use crate::flow::{Flow, Packet, Way, find, find_tuple};
use crate::fragments::Datagram;
use crate::mapping::Mappings;
use crate::mss;
use crate::packets::flag;
use crate::parse::{self, Header, Kind, Quote, Transport};
use crate::rewrite::{Change, rewrite, rewrite_error};
use crate::tcp::{self, Move};
use crate::world;

/// A whole gateway.
pub struct Model {
    setup: Setup,
    pub now: u64,
    policy: Option<Arc<State>>,
    /// Of the image in force.
    revision: u32,
    deadline: Option<u64>,
    egress: Vec<Exit>,
    /// Of the host's devices, with the lengths of their prefixes.
    addresses: Vec<(IpAddr, u8)>,
    flows: Vec<Flow>,
    /// Flows that are over, until the next sweep: an implementation may still remember them.
    ghosts: Vec<Flow>,
    datagrams: Vec<Datagram>,
    /// Addresses of the peers this agent talks to at all.
    neighbours: BTreeSet<IpAddr>,
    pub counters: Counters,
    allowance: Allowance,
    senders: BTreeMap<IpAddr, Allowance>,
    /// When each source began to be counted, and what it opened since without an answer.
    openings: BTreeMap<IpAddr, (u64, u32)>,
    mappings: Mappings,
    /// Where no port was found: when last, and how often then.
    exhausted: BTreeMap<Search, (u64, u32)>,
    /// The address that each source was given of a pool, since egress last changed.
    paired: BTreeMap<(Exit, IpAddr), IpAddr>,
}

/// For what a port is sought: the protocol, the address to masquerade with, and towards whom.
type Search = (u8, IpAddr, (IpAddr, u16));

/// A packet that does not go on: why, the slot of the rule concerned, and whether its flow ends with it.
struct Refusal {
    reason: DropReason,
    rule: Option<u32>,
    revoked: Option<(u64, u64)>,
    /// Whether the rule itself refused it.
    counted: bool,
    /// There is nothing to tell but the reason.
    untold: bool,
    /// Its sender is to hear of it: by whom, if there is an address, and of which MTU.
    answer: Option<(Option<IpAddr>, u32)>,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self { reason, rule: None, revoked: None, counted: false, untold: false, answer: None }
    }
}

impl Refusal {
    /// Refused although a rule accepts it.
    fn in_spite_of(rule: u32, reason: DropReason) -> Self {
        Self { rule: Some(rule), ..reason.into() }
    }
}

/// What the implementation under test did, as far as the model leaves it a choice.
pub struct Chosen<'a>(pub &'a Outcome);

impl Model {
    /// Before a first image.
    pub fn new(setup: Setup) -> Self {
        Self {
            allowance: Allowance::new(setup.start),
            senders: BTreeMap::new(),
            now: setup.start,
            setup,
            policy: None,
            revision: 0,
            deadline: None,
            egress: Vec::new(),
            addresses: Vec::new(),
            flows: Vec::new(),
            ghosts: Vec::new(),
            datagrams: Vec::new(),
            neighbours: BTreeSet::new(),
            counters: Counters::new(),
            openings: BTreeMap::new(),
            mappings: Mappings::default(),
            exhausted: BTreeMap::new(),
            paired: BTreeMap::new(),
        }
    }

    /// Puts a revision in force. Whom the agent talks to is the overlay's business, not the packet path's: it is given.
    pub fn set_image(&mut self, revision: u32, policy: Arc<State>, neighbours: BTreeSet<IpAddr>) {
        self.revision = revision;
        self.neighbours = neighbours;
        self.policy = Some(policy);
    }

    pub fn set_egress(&mut self, egress: Vec<Exit>) {
        self.egress = egress;
    }

    pub fn set_addresses(&mut self, addresses: Vec<(IpAddr, u8)>) {
        self.addresses = addresses;
    }

    /// The agent's own pass over the flows, about once a second.
    pub fn sweep(&mut self) {
        self.ghosts.clear();
        let now = self.now;
        self.mappings.note(&self.flows);
        self.flows.retain(|flow| !flow.is_over(now));
    }

    /// From the next packet of each flow on.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.setup.timeouts = timeouts;
    }

    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        self.deadline = deadline;
    }

    /// What becomes of a packet. `Err` when the implementation chose what it must not.
    pub fn packet(&mut self, arrival: &Arrival, chosen: &Chosen<'_>) -> Result<Outcome, String> {
        let now = self.now;
        let over = |flow: &mut Flow| flow.is_over(now);
        self.ghosts.extend(self.flows.extract_if(.., over));

        let mut story = Event { side: arrival.side as u8, ..Event::default() };
        let mut events = Vec::new();
        let verdict = match self.judge(arrival, chosen, &mut story, &mut events)? {
            Ok((verdict, bytes)) => {
                if verdict != Verdict::Pass {
                    let length = story.bytes;
                    let forwarded = &mut self.counters.forwarded[arrival.side as usize];
                    forwarded[0] += 1;
                    forwarded[1] += length;
                }
                return Ok(Outcome { verdict, bytes, events });
            }
            Err(refusal) => {
                self.counters.drops[refusal.reason as usize] += 1;
                if let Some(slot) = refusal.rule.filter(|_| refusal.counted) {
                    self.counters.rules[slot as usize][1] += 1;
                }
                let (packets, bytes) = refusal.revoked.unwrap_or_default();
                let kind = if refusal.revoked.is_some() { EventKind::Revoke } else { EventKind::Drop };
                let rule = refusal.rule.map_or(0, |slot| slot + 1);
                let reason = refusal.reason as u8;
                if !refusal.untold {
                    events.push(Event { kind: kind as u8, reason, rule, packets, bytes, ..story });
                }
                match self.answer(arrival, &refusal) {
                    Some(bytes) => return Ok(Outcome { verdict: Verdict::Answer, bytes, events }),
                    None => Verdict::Drop(refusal.reason),
                }
            }
        };
        Ok(Outcome { verdict, bytes: Vec::new(), events })
    }

    /// What the sender of a dropped packet is told.
    fn answer(&mut self, arrival: &Arrival, refusal: &Refusal) -> Option<Vec<u8>> {
        let (source, mtu) = refusal.answer?;
        let (header, _) = parse::network(&arrival.bytes, arrival.six).ok()?;
        // RFC 1122 3.2.2: never about a fragment but the first.
        if header.fragment.is_some_and(|fragment| fragment.start != 0) {
            return None;
        }
        let (sent, bytes) = match source {
            None => (Answer::Impossible, None),
            Some(_) if !self.may_answer(header.source) => (Answer::Suppressed, None),
            Some(source) => {
                let kind = match refusal.reason {
                    DropReason::TooBig => Answer::TooBig,
                    _ => Answer::TimeExceeded,
                };
                (kind, Some(answer(&arrival.bytes, &header, refusal.reason, mtu, source)?))
            }
        };
        self.counters.answers[sent as usize] += 1;
        bytes
    }

    /// Whether `sender` may be told one more thing: of what it may be told itself, and of what all may be told together.
    fn may_answer(&mut self, sender: IpAddr) -> bool {
        let now = self.now;
        let own = self.senders.entry(sender).or_insert_with(|| Allowance::of_sender(now));
        own.take(now) && self.allowance.take(now)
    }

    /// The outer result is the implementation's fault, the inner one the packet's. Notes in `story` what is known so far:
    /// the tuple, and for a moment the declared length in `bytes`.
    fn judge(
        &mut self,
        arrival: &Arrival,
        chosen: &Chosen<'_>,
        story: &mut Event,
        events: &mut Vec<Event>,
    ) -> Result<Result<(Verdict, Vec<u8>), Refusal>, String> {
        let side = arrival.side;
        let (mut header, problem) = match parse::network(&arrival.bytes, arrival.six) {
            Ok(read) => read,
            // The host's own stack refuses it.
            Err(_) if side == Side::Site => return Ok(Ok((Verdict::Pass, arrival.bytes.clone()))),
            Err(reason) => return Ok(Err(Refusal { untold: true, ..reason.into() })),
        };
        story.source = mapped(header.source);
        story.destination = mapped(header.destination);
        story.protocol = header.protocol;
        let pass = Ok(Ok((Verdict::Pass, arrival.bytes.clone())));

        let ours = self.in_overlay(header.destination);
        if side == Side::Site {
            // A site device carries the host's own traffic as well: the gateway minds what is for the overlay, what
            // pretends to be from it, and what a flow expects.
            if self.in_overlay(header.source) {
                return Ok(Err(DropReason::SpoofedSource.into()));
            }
            if !ours && (!parse::is_unicast(header.source) || !parse::is_unicast(header.destination)) {
                return pass;
            }
        }
        if !parse::is_unicast(header.source) || !parse::is_unicast(header.destination) {
            return Ok(Err(DropReason::NotUnicast.into()));
        }
        if self.policy.is_none() {
            return if side == Side::Site && !ours { pass } else { Ok(Err(DropReason::NoImage.into())) };
        }
        let read = match problem {
            Some(reason) => Err(reason),
            None => match self.follow(side, &mut header, story) {
                Ok(Some(transport)) => Ok(transport),
                Ok(None) if header.fragment.is_some_and(|fragment| fragment.start != 0) => {
                    Err(DropReason::Fragment)
                }
                Ok(None) => parse::transport(&arrival.bytes, &header),
                // A datagram of the gateway's.
                Err(reason) => return Ok(Err(reason.into())),
            },
        };
        let transport = match read {
            Ok(transport) => transport,
            Err(_) if side == Side::Site && !ours => return pass,
            Err(reason) => return Ok(Err(reason.into())),
        };
        story.source_port = transport.source_port;
        story.destination_port = match transport.kind {
            Kind::EchoRequest | Kind::EchoReply | Kind::Error => transport.axis as u16,
            Kind::Later if header.protocol == header.icmp() => 0,
            _ => transport.destination_port,
        };
        if transport.kind == Kind::Error {
            let told = self.told(arrival, &header);
            story.bytes = header.length as u64;
            return Ok(match told {
                Ok(None) if side == Side::Site && !ours => Ok((Verdict::Pass, arrival.bytes.clone())),
                Ok(None) => Err(DropReason::IcmpError.into()),
                Ok(Some(leaves)) => Ok(leaves),
                Err(refusal) => Err(refusal),
            });
        }
        let packet = Packet { arrival, header, transport };
        let found = find(&self.flows, &packet);
        let ghost = find(&self.ghosts, &packet);
        let expired = self.deadline.is_some_and(|deadline| self.now >= deadline);
        let insane = transport.kind == Kind::Tcp && !tcp::is_sane(transport.flags);
        if expired || insane {
            let expected = found.is_some() || ghost.is_some();
            let reason = if expired { DropReason::PolicyExpired } else { DropReason::InvalidTcp };
            return if side == Side::Site && !ours && !expected { pass } else { Ok(Err(reason.into())) };
        }
        if let Some((index, _)) = ghost {
            self.ghosts.remove(index);
        }
        if side == Side::Site && !ours && found.is_none() {
            return pass;
        }
        if found.is_none() && side != Side::Site && transport.kind == Kind::Later {
            return Ok(Err(DropReason::Fragment.into()));
        }
        story.bytes = header.length as u64;
        let length = header.length as u64;
        let (index, way) = match found {
            Some(found) => match self.advance(found, &packet) {
                Ok(true) => found,
                Ok(false) => match self.open(&packet, chosen, story, events)? {
                    Ok(index) => (index, 0),
                    Err(refusal) => return Ok(Err(refusal)),
                },
                Err(refusal) => return Ok(Err(refusal)),
            },
            None => match self.open(&packet, chosen, story, events)? {
                Ok(index) => (index, 0),
                Err(refusal) => return Ok(Err(refusal)),
            },
        };
        let now = self.now;
        let flow = &mut self.flows[index];
        flow.ways[way].packets += 1;
        flow.ways[way].bytes += length;
        flow.ways[way].last_seen = now;
        flow.timeout = flow.allowed(&self.setup.timeouts);
        let flow = flow.clone();
        if let Some(first) = header.fragment.filter(|fragment| fragment.start == 0) {
            let ports = (transport.source_port, transport.destination_port);
            let deadline = now + u64::from(self.setup.timeouts.fragment);
            let datagram = Datagram::new(side, &header, &first, ports, deadline);
            self.datagrams.retain(|other| !other.is_same(&datagram));
            self.datagrams.push(datagram);
        }
        Ok(self.send(&packet, &flow, way))
    }

    /// What a fragment is of a datagram whose first fragment has passed: its ports, or why it does not pass. `None` when
    /// there is no such datagram, and for packets that are whole.
    fn follow(
        &mut self,
        side: Side,
        header: &mut Header,
        story: &mut Event,
    ) -> Result<Option<Transport>, DropReason> {
        let Some(fragment) = header.fragment else { return Ok(None) };
        let now = self.now;
        let mut datagrams = self.datagrams.iter_mut();
        let Some(datagram) = datagrams.find(|datagram| datagram.is_of(side, header, &fragment, now)) else {
            return Ok(None);
        };
        if fragment.start == 0 {
            // The id is used again.
            return if datagram.is_complete() { Ok(None) } else { datagram.take(&fragment).map(|()| None) };
        }
        header.protocol = datagram.protocol;
        story.protocol = header.protocol;
        story.source_port = datagram.source_port;
        story.destination_port = if header.protocol == header.icmp() { 0 } else { datagram.destination_port };
        datagram.take(&fragment)?;
        Ok(Some(Transport {
            source_port: datagram.source_port,
            destination_port: datagram.destination_port,
            kind: Kind::Later,
            ..Transport::default()
        }))
    }

    /// Where an ICMP error goes and what it becomes; `None` when it is about no flow.
    fn told(&mut self, arrival: &Arrival, header: &Header) -> Result<Option<(Verdict, Vec<u8>)>, Refusal> {
        let side = arrival.side;
        let Some(quote) = parse::quote(&arrival.bytes, header) else { return Ok(None) };
        // What the gateway sent out there comes from the other end's partner.
        let (from, to) = (quote.destination, quote.source);
        let found = find_tuple(&self.flows, side, quote.protocol, from, to);
        let ghost = find_tuple(&self.ghosts, side, quote.protocol, from, to);
        if self.deadline.is_some_and(|deadline| self.now >= deadline) {
            let expected = found.is_some() || ghost.is_some();
            let passes = side == Side::Site && !self.in_overlay(header.destination) && !expected;
            return if passes { Ok(None) } else { Err(DropReason::PolicyExpired.into()) };
        }
        let Some((_, way)) = found.or(ghost) else { return Ok(None) };
        let own = side == Side::Local || side == Side::Overlay && way == 0;
        if own && header.source != from.0 {
            return Err(DropReason::SpoofedSource.into());
        }
        if let Some((index, _)) = ghost {
            self.ghosts.remove(index);
        }
        let Some((index, way)) = found else { return Ok(None) };
        if self.flows[index].revision != self.revision {
            self.judge_anew(index)?;
        }
        let flow = self.flows[index].clone();
        self.send_error(arrival, header, &quote, &flow, way).map(Some)
    }

    /// Sends an error on its way to the other end of its flow.
    fn send_error(
        &self,
        arrival: &Arrival,
        header: &Header,
        quote: &Quote,
        flow: &Flow,
        way: usize,
    ) -> Result<(Verdict, Vec<u8>), Refusal> {
        let (verdict, mtu) = match (way, flow.route) {
            (_, None) => return Ok((Verdict::Host, arrival.bytes.clone())),
            (0, Some(route)) => {
                let exit = self.exit(route).ok_or(DropReason::NoEgress)?;
                (Verdict::Site(exit.device), exit.mtu)
            }
            _ => (Verdict::Overlay, self.setup.overlay_mtu),
        };
        if header.ttl <= 1 {
            return Err(DropReason::TtlExpired.into());
        }
        if mtu != 0 && arrival.bytes.len() > mtu as usize {
            return Err(DropReason::TooBig.into());
        }
        let (source, destination) = match way {
            0 => (flow.translated, flow.destination),
            _ => (flow.destination, flow.source),
        };
        let sender = if header.source == quote.destination.0 { source.0 } else { header.source };
        let outer = Change { source: (sender, 0), destination: (destination.0, 0), ttl: header.ttl - 1 };
        let inner = Change { source: destination, destination: source, ttl: 0 };
        Ok((verdict, rewrite_error(&arrival.bytes, header, quote, &outer, &inner)))
    }

    /// Lets a packet act on its flow. `Ok(false)`: the flow is gone, and the packet may open another.
    fn advance(&mut self, (index, way): (usize, usize), packet: &Packet<'_>) -> Result<bool, Refusal> {
        let waited = !self.flows[index].is_answered();
        let lives = self.act((index, way), packet)?;
        if lives && waited && self.flows[index].is_answered() && self.flows[index].opener == Side::Overlay {
            let opened = self.openings.get_mut(&self.flows[index].source.0);
            opened.into_iter().for_each(|(_, count)| *count = count.saturating_sub(1));
        }
        Ok(lives)
    }

    fn act(&mut self, (index, way): (usize, usize), packet: &Packet<'_>) -> Result<bool, Refusal> {
        if self.flows[index].revision != self.revision {
            self.judge_anew(index)?;
        }
        let flow = &mut self.flows[index];
        match (packet.transport.kind, way) {
            (Kind::Tcp, _) => {}
            (Kind::Later, _) if flow.protocol == 6 => return Ok(true),
            // With id 0 the tuples of requests and replies are the same.
            (Kind::EchoReply, 0) | (Kind::EchoRequest, 1) => {
                return Err(Refusal::in_spite_of(flow.rule, DropReason::NotOpening));
            }
            _ => {
                match (flow.life, way) {
                    (Life::Unreplied, 1) => flow.life = Life::Answered,
                    (Life::Answered, 0) => (flow.life, flow.confirmed) = (Life::Replied, true),
                    _ => {}
                }
                return Ok(true);
            }
        }
        match tcp::act(flow.life, packet.transport.flags, way == 1, [flow.ways[0].fin, flow.ways[1].fin]) {
            Move::Invalid => Err(Refusal::in_spite_of(flow.rule, DropReason::InvalidTcp)),
            Move::Anew => {
                self.flows.remove(index);
                Ok(false)
            }
            Move::To(life) => {
                flow.life = life;
                // Of a RST alone nothing is confirmed.
                flow.confirmed |= matches!(life, Life::Established | Life::Closing | Life::TimeWait);
                let closing = matches!(life, Life::Closing | Life::TimeWait);
                flow.ways[way].fin |= closing && packet.transport.flags & flag::FIN != 0;
                Ok(true)
            }
        }
    }

    /// Asks the image in force about a flow that an older one admitted.
    fn judge_anew(&mut self, index: usize) -> Result<(), Refusal> {
        let flow = self.flows[index].clone();
        let (decision, attributes) = self.decide(
            flow.source.0,
            flow.destination.0,
            crate::tcp::opening_axis(flow.protocol, flow.echo, flow.source.0.is_ipv6(), flow.destination.1),
        );
        let way_out = self.way_out(flow.opener, attributes);
        let same_way = match way_out {
            Some((replies, route)) => {
                replies == flow.replies
                    && route.is_some() == flow.route.is_some()
                    && (route == flow.route || self.keeps_source(&flow, route))
            }
            None => false,
        };
        if self.is_genuine(flow.opener, flow.source.0) && decision.accepts() && same_way {
            let flow = &mut self.flows[index];
            flow.revision = self.revision;
            flow.rule = decision.slot();
            flow.route = way_out.and_then(|(_, route)| route);
            return Ok(());
        }
        self.flows.remove(index);
        let total = |f: fn(&Way) -> u64| flow.ways.iter().map(f).sum();
        Err(Refusal {
            reason: DropReason::Revoked,
            rule: Some(flow.rule),
            revoked: Some((total(|w| w.packets), total(|w| w.bytes))),
            counted: true,
            untold: false,
            answer: None,
        })
    }

    /// Whether a flow whose destination has another route now can leave by that with the source it has: the far end knows no
    /// other, and answers to any other would not come back.
    fn keeps_source(&self, flow: &Flow, route: Option<u16>) -> bool {
        let translated = flow.translated.0 != flow.source.0;
        let exit = route.and_then(|route| exit_of(&self.egress, route));
        let own = exit.map(|exit| exit.addresses(flow.source.0.is_ipv6())).unwrap_or_default();
        !translated || own.contains(&flow.translated.0)
    }

    /// Judges a packet without a flow.
    fn open(
        &mut self,
        packet: &Packet<'_>,
        chosen: &Chosen<'_>,
        story: &Event,
        events: &mut Vec<Event>,
    ) -> Result<Result<usize, Refusal>, String> {
        let side = packet.arrival.side;
        let Header { source, destination, protocol, .. } = packet.header;
        if side == Side::Site {
            return Ok(Err(DropReason::NoFlow.into()));
        }
        if !self.is_genuine(side, source) {
            return Ok(Err(DropReason::SpoofedSource.into()));
        }
        let (decision, attributes) = self.decide(source, destination, packet.transport.axis);
        if !decision.is_set() {
            // An image need not know peers that no rule joins with the agent.
            let spoofed = chosen.0.verdict == Verdict::Drop(DropReason::SpoofedSource);
            let known = self.neighbours.contains(&source) || side != Side::Overlay;
            let reason = if spoofed && !known { DropReason::SpoofedSource } else { DropReason::NoRule };
            return Ok(Err(reason.into()));
        }
        let rule = decision.slot();
        if !decision.accepts() {
            return Ok(Err(Refusal { counted: true, ..Refusal::in_spite_of(rule, DropReason::RuleDrop) }));
        }
        let refuse = |reason| Ok(Err(Refusal::in_spite_of(rule, reason)));
        let Some((replies, route)) = self.way_out(side, attributes) else {
            return refuse(DropReason::NoEgress);
        };
        match packet.transport.kind {
            Kind::Tcp if !tcp::opens(packet.transport.flags) => return refuse(DropReason::InvalidTcp),
            Kind::EchoReply => return refuse(DropReason::NotOpening),
            _ => {}
        }
        let from = (source, packet.transport.source_port);
        let to = (destination, packet.transport.destination_port);
        let exit = route.map(|route| exit_of(&self.egress, route));
        let pool = exit.flatten().map(|exit| exit.addresses(packet.arrival.six)).unwrap_or_default();
        if route.is_some() && self.is_hosts_own(destination) {
            return refuse(DropReason::Hairpin);
        }
        if route.is_some() && self.is_broadcast(destination) {
            return refuse(DropReason::NotUnicast);
        }
        if pool.contains(&destination) {
            return refuse(DropReason::Hairpin);
        }
        let masquerade = route.is_some() && attributes.masquerade();
        if masquerade && pool.is_empty() {
            return refuse(DropReason::NoEgress);
        }
        if side == Side::Overlay && !self.may_open(source) {
            return refuse(DropReason::SourceLimit);
        }
        let mut translated = from;
        if let Some(exit) = exit.flatten().filter(|_| masquerade) {
            match self.translate(packet, exit, &pool, chosen)? {
                Some(free) => translated = free,
                None => return refuse(DropReason::NatExhausted),
            }
            if self.setup.endpoint_independent && protocol == 17 {
                self.mappings.take(translated, from, self.now);
            }
        }
        self.counters.rules[rule as usize][0] += 1;
        let mut start = Event { kind: EventKind::Start as u8, rule: rule + 1, bytes: 0, ..*story };
        if translated.0 != from.0 {
            start.translated = mapped(translated.0);
            start.translated_port = translated.1;
        }
        events.push(start);
        let fresh = Way { last_seen: self.now, ..Way::default() };
        self.flows.push(Flow {
            opener: side,
            protocol,
            echo: packet.transport.kind == Kind::EchoRequest,
            source: from,
            destination: to,
            translated,
            replies,
            route,
            life: if packet.transport.kind == Kind::Tcp { Life::SynSent } else { Life::Unreplied },
            confirmed: false,
            rule,
            revision: self.revision,
            timeout: 0,
            ways: [fresh; 2],
        });
        Ok(Ok(self.flows.len() - 1))
    }

    /// Counts an opening of `source`, unless it has opened too many lately.
    fn may_open(&mut self, source: IpAddr) -> bool {
        let most = self.setup.half_open_per_source;
        if most == 0 {
            return true;
        }
        let (since, count) = self.openings.entry(source).or_insert((self.now, 0));
        let Timeouts { tcp_handshake, udp_unreplied, icmp, other, .. } = self.setup.timeouts;
        let window = [tcp_handshake, udp_unreplied, icmp, other].into_iter().max().unwrap_or_default();
        if self.now - *since > u64::from(window) {
            (*since, *count) = (self.now, 0);
        }
        let may = *count < most;
        *count += u32::from(may);
        may
    }

    /// Address and port that a masqueraded flow leaves with; `None` when no port is free. Which address of a pool a source
    /// gets is left to the implementation, but it is always the same one.
    fn translate(
        &mut self,
        packet: &Packet<'_>,
        exit: Exit,
        pool: &[IpAddr],
        chosen: &Chosen<'_>,
    ) -> Result<Option<(IpAddr, u16)>, String> {
        let source = packet.header.source;
        let start = chosen.0.events.iter().find(|event| event.kind == EventKind::Start as u8);
        let before = self.paired.get(&(exit, source)).copied();
        let possible: Vec<IpAddr> = match start {
            Some(start) => pool.iter().copied().filter(|a| mapped(*a) == start.translated).collect(),
            None => before.map_or_else(|| pool.to_vec(), |before| vec![before]),
        };
        let Some(address) = possible.first().copied() else {
            return Err(format!("it chose an address that is not one of {pool:?}: {start:?}"));
        };
        if start.is_some() {
            let before = *self.paired.entry((exit, source)).or_insert(address);
            if before != address {
                return Err(format!("{source} leaves as {address}, and left as {before} before"));
            }
        }
        for address in &possible {
            if self.masquerade(packet, *address, chosen)?.is_none() {
                let to = (packet.header.destination, packet.transport.destination_port);
                let protocol = packet.header.protocol;
                for from in &possible {
                    let (tick, times) = self.exhausted.entry((protocol, *from, to)).or_insert((self.now, 0));
                    (*tick, *times) = (self.now, if *tick == self.now { *times + 1 } else { 1 });
                }
                return Ok(None);
            }
        }
        Ok(self.masquerade(packet, address, chosen)?.map(|port| (address, port)))
    }

    /// The port (or echo id) of a masqueraded flow; `None` when none is free.
    fn masquerade(
        &self,
        packet: &Packet<'_>,
        address: IpAddr,
        chosen: &Chosen<'_>,
    ) -> Result<Option<u16>, String> {
        let protocol = packet.header.protocol;
        let to = (packet.header.destination, packet.transport.destination_port);
        let has = |flow: &Flow, port: u16| {
            let tuple = (flow.protocol, flow.destination, flow.translated);
            flow.replies == Side::Site && tuple == (protocol, to, (address, port))
        };
        let me = (packet.header.source, packet.transport.source_port);
        let mapped = self.setup.endpoint_independent && protocol == 17;
        let lifetime = self.setup.timeouts.udp;
        let anothers =
            |port: u16| mapped && self.mappings.is_anothers((address, port), me, self.now, lifetime);
        let is_taken = |port: u16| anothers(port) || self.flows.iter().any(|flow| has(flow, port));
        // Those of flows that are over come free with the next sweep.
        let is_held = |port: u16| is_taken(port) || self.ghosts.iter().any(|flow| has(flow, port));
        let failed = self.exhausted.get(&(protocol, address, to));
        let hasty = failed.is_some_and(|&(tick, times)| tick == self.now && times >= 4);
        let exhausted = chosen.0.verdict == Verdict::Drop(DropReason::NatExhausted);
        let with_ports = [6, 17, packet.header.icmp()].contains(&protocol);
        if !with_ports {
            return Ok((!(is_taken(0) || exhausted && is_held(0))).then_some(0));
        }
        let first = u32::from(self.setup.nat_first);
        let range = first..first + u32::from(self.setup.nat_count);
        let free: Vec<u16> = range.clone().map(|p| p as u16).filter(|&p| !is_taken(p)).collect();
        let held = range.clone().filter(|&p| is_held(p as u16)).count();
        let start = chosen.0.events.iter().find(|event| event.kind == EventKind::Start as u8);
        match start.map(|event| event.translated_port) {
            Some(port) if !range.contains(&u32::from(port)) => {
                Err(format!("it chose port {port}, which is not one of {range:?}"))
            }
            Some(port) if is_taken(port) => {
                Err(format!("it chose port {port} towards {to:?}, which a live flow has"))
            }
            Some(port) => match self.mappings.port(address, me).filter(|_| mapped) {
                Some(own) if own != port && !is_held(own) => {
                    Err(format!("it chose port {port}, but {me:?} has port {own}"))
                }
                _ => Ok(Some(port)),
            },
            // 32 ports are tried, or 8 after four searches of the tick found none: a range larger than 32 may be given up with some left.
            None if exhausted && held >= range.len().min(32) => Ok(None),
            None if exhausted && hasty && range.len() > 32 && held >= 8 => Ok(None),
            None => Ok(free.first().copied()),
        }
    }

    /// Sends a packet of a flow on its way.
    fn send(&self, packet: &Packet<'_>, flow: &Flow, way: usize) -> Result<(Verdict, Vec<u8>), Refusal> {
        let header = &packet.header;
        let (verdict, mtu) = match (way, flow.route) {
            (_, None) => return Ok((Verdict::Host, packet.arrival.bytes.clone())),
            (0, Some(route)) => {
                let exit = self.exit(route).ok_or(DropReason::NoEgress)?;
                (Verdict::Site(exit.device), exit.mtu)
            }
            _ => (Verdict::Overlay, self.setup.overlay_mtu),
        };
        // Whoever sent it hears of it from the address the gateway has on that side.
        let six = packet.arrival.six;
        let own = match (way, flow.route) {
            (1, Some(route)) => exit_of(&self.egress, route).and_then(|e| e.source[usize::from(six)]),
            _ => Some(world::peer(AGENT, six)),
        };
        if header.ttl <= 1 {
            return Err(Refusal { answer: Some((own, 0)), ..DropReason::TtlExpired.into() });
        }
        let mut largest = packet.arrival.bytes.len();
        if packet.arrival.segment != 0 {
            let own = match header.protocol {
                6 => {
                    let word = packet.arrival.bytes.get(header.transport + 12..header.transport + 14);
                    word.map_or(20, |word| usize::from(word[0] >> 4) * 4)
                }
                _ => 8,
            };
            largest = largest.min(header.transport + own + usize::from(packet.arrival.segment));
        }
        if mtu != 0 && largest > mtu as usize {
            return Err(Refusal { answer: Some((own, mtu)), ..DropReason::TooBig.into() });
        }
        let (source, destination) = match way {
            0 => (flow.translated, flow.destination),
            _ => (flow.destination, flow.source),
        };
        let change = Change { source, destination, ttl: header.ttl - 1 };
        let mut bytes = rewrite(&packet.arrival.bytes, header, &change);
        if packet.transport.kind == Kind::Tcp && packet.transport.flags & flag::SYN != 0 {
            let site = flow.route.and_then(|route| exit_of(&self.egress, route)).map_or(0, |e| e.mtu);
            mss::clamp(&mut bytes, header, [site, self.setup.overlay_mtu]);
        }
        Ok((verdict, bytes))
    }

    fn decide(&self, source: IpAddr, destination: IpAddr, axis: u32) -> (Decision, Attributes) {
        let Some(policy) = &self.policy else { return (Decision::NONE, Attributes::default()) };
        naive::decide(policy, AGENT, source, destination, axis)
    }

    /// The side replies come from, and the route of what leaves by a site.
    fn way_out(&self, opener: Side, attributes: Attributes) -> Option<(Side, Option<u16>)> {
        match opener {
            Side::Overlay if attributes.local() => Some((Side::Local, None)),
            Side::Overlay => attributes.route().map(|route| (Side::Site, Some(route))),
            Side::Local if attributes.remote() => Some((Side::Overlay, None)),
            _ => None,
        }
    }

    fn exit(&self, route: u16) -> Option<Exit> {
        exit_of(&self.egress, route).filter(|exit| exit.device != 0)
    }

    /// Whether an address may open flows from a side: a peer's own from the overlay, the agent's own from the host.
    fn is_genuine(&self, side: Side, source: IpAddr) -> bool {
        let Some(policy) = &self.policy else { return false };
        let mut owners = policy.peers.iter().filter(|(_, peer)| {
            peer.allowed && (IpAddr::V4(peer.v4) == source || IpAddr::V6(peer.v6) == source)
        });
        owners.any(|(id, _)| match side {
            Side::Overlay => id != AGENT,
            Side::Local => id == AGENT,
            Side::Site => false,
        })
    }

    fn in_overlay(&self, address: IpAddr) -> bool {
        self.setup.overlay.iter().any(|&(network, length)| match (network, address) {
            (IpAddr::V4(n), IpAddr::V4(a)) => (n.to_bits() ^ a.to_bits()) >> (32 - length) == 0,
            (IpAddr::V6(n), IpAddr::V6(a)) => (n.to_bits() ^ a.to_bits()) >> (128 - length) == 0,
            _ => false,
        })
    }

    /// Whether the host has the address on a device, or shares it with the other routers of one of its subnets.
    fn is_hosts_own(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|&(own, length)| match (own, address) {
            (IpAddr::V6(o), IpAddr::V6(a)) if length < 127 => {
                let zeros = (0..128 - u32::from(length)).all(|bit| a.to_bits() >> bit & 1 == 0);
                o == a
                    || zeros
                        && (0..u32::from(length)).all(|bit| (o.to_bits() ^ a.to_bits()) << bit >> 127 == 0)
            }
            _ => own == address,
        })
    }

    /// Whether an IPv4 address is the first or the last of a network of the host with more than two.
    fn is_broadcast(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|&(own, length)| match (own, address) {
            (IpAddr::V4(o), IpAddr::V4(a)) if length < 31 => {
                let bits = 32 - u32::from(length);
                let same = (bits..32).all(|bit| (o.to_bits() ^ a.to_bits()) >> bit & 1 == 0);
                let host = (0..bits).map(|bit| a.to_bits() >> bit & 1);
                same && (host.clone().all(|bit| bit == 0) || host.clone().all(|bit| bit == 1))
            }
            _ => false,
        })
    }

    /// Every live flow, in order.
    pub fn flows(&self) -> Vec<FlowDump> {
        let live = self.flows.iter().filter(|flow| !flow.is_over(self.now));
        let mut dumps: Vec<FlowDump> = live.map(Flow::dump).collect();
        dumps.sort();
        dumps
    }
}

/// As events write addresses.
fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}
