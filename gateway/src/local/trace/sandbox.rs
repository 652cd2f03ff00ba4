//! The engine over live tables that it cannot change: what it writes stays here, what it asks is noted.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use sluicegate_engine::classify::Judgement;
use sluicegate_engine::event::{About, Event};
use sluicegate_engine::flow::{Flow, Key, Side};
use sluicegate_engine::fragment::{Datagram, DatagramKey};
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey};
use sluicegate_engine::packet::Packet;
use sluicegate_engine::pipeline::{Verdict, process};
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::{Active, Config, Egress, NotConfirmed, Refused, Stage, Tables};
use sluicegate_engine::work::Work;

use crate::datapath::{Live, LiveFamily};

/// What the engine asked and was told while it judged one packet.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The half-entry of the packet's own tuple, as it was found, and its table.
    pub found: Option<(Stage, Half)>,
    /// The same after the packet, when there is one.
    pub left: Option<Half>,
    /// The question to the image, and its answer.
    pub judged: Option<Judged>,
    /// Keys that were taken already: masquerade ports in use.
    pub taken: u32,
    /// Slot of the rule that admitted a new flow.
    pub admitted: Option<u32>,
    /// Slot of the rule that refused the packet, or whose flow was revoked.
    pub refused: Option<u32>,
    /// Events that would have been written.
    pub events: Vec<Event>,
}

/// What matters of a half-entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    /// `State` number.
    pub state: u8,
    /// Rule slot.
    pub rule: u32,
    /// Epoch of the image that last admitted it.
    pub epoch: u32,
    /// Route number.
    pub route: u16,
    /// Whether it carries replies.
    pub reply: bool,
    /// Whether it has been silent for too long.
    pub over: bool,
    /// Ticks since its last packet.
    pub idle: u32,
    /// Packets of this direction.
    pub packets: u64,
    /// Addresses and ports after translation.
    pub source: (IpAddr, u16),
    /// See `source`.
    pub destination: (IpAddr, u16),
}

/// A question to the image, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Source, as the access control sees it.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Position on the protocol/port axis.
    pub axis: u32,
    /// The answer.
    pub judgement: Judgement,
}

/// Judges `packet` by `live` as the engine would at this moment, rewriting it in place; nothing else changes.
pub(super) fn judge<F: LiveFamily>(live: &dyn Live, side: Side, packet: &mut impl Packet) -> (Verdict, Seen) {
    let mut sandbox = Sandbox::<F> {
        live,
        config: live.config(),
        egress: Default::default(),
        changed: HashMap::new(),
        openings: HashMap::new(),
        mappings: HashMap::new(),
        own: None,
        judged: RefCell::new(None),
        seen: Seen::default(),
    };
    let mut work = Work::default();
    let verdict = process::<F, _, _>(packet, side, &mut sandbox, live.now(), &mut work);
    let now = live.now() as u32;
    let left = sandbox.own.and_then(|own| {
        let flow = sandbox.get(Stage::Confirmed, &own).or_else(|| sandbox.get(Stage::HalfOpen, &own))?;
        Some(half::<F>(&flow, now))
    });
    let judged = sandbox.judged.into_inner();
    (verdict, Seen { left, judged, ..sandbox.seen })
}

/// The most routes that one packet's way can ask about.
const ROUTES: usize = 4;

/// Half-entries as the packet leaves them, `None` for removed ones; by whether they are half open, and key.
type Changed<A> = HashMap<(bool, Key<A>), Option<Flow<A>>>;

struct Sandbox<'a, F: LiveFamily> {
    live: &'a dyn Live,
    config: Config,
    egress: [OnceCell<(u16, Option<Egress>)>; ROUTES],
    /// Entries as the engine left them, by table (confirmed or not) and key; `None` where it removed one.
    changed: Changed<F::Address>,
    /// Openings and mappings as the engine left them.
    openings: HashMap<F::Address, Openings>,
    mappings: HashMap<MappingKey<F::Address>, Mapping<F::Address>>,
    /// The first key that was looked up: the packet's own.
    own: Option<Key<F::Address>>,
    judged: RefCell<Option<Judged>>,
    seen: Seen,
}

impl<F: LiveFamily> Sandbox<'_, F> {
    fn get(&self, stage: Stage, key: &Key<F::Address>) -> Option<Flow<F::Address>> {
        match self.changed.get(&(stage == Stage::Confirmed, *key)) {
            Some(changed) => *changed,
            None => F::flow(self.live, stage, key),
        }
    }

    fn set(&mut self, stage: Stage, key: &Key<F::Address>, flow: Option<Flow<F::Address>>) {
        self.changed.insert((stage == Stage::Confirmed, *key), flow);
    }
}

impl<F: LiveFamily> Tables<F> for Sandbox<'_, F> {
    fn config(&self) -> &Config {
        &self.config
    }

    fn active(&self) -> Active {
        self.live.active()
    }

    fn judge(&mut self, _active: Active, key: &Key<F::Address>, axis: u32) -> Judgement {
        let judgement = F::classify(self.live.image(), key.source, key.destination, axis);
        let (source, destination) = (address::<F>(key.source), address::<F>(key.destination));
        *self.judged.borrow_mut() = Some(Judged { source, destination, axis, judgement });
        judgement
    }

    fn egress(&self, _active: Active, route: u16) -> Option<&Egress> {
        for cell in &self.egress {
            let (number, egress) = cell.get_or_init(|| (route, self.live.egress(route)));
            if *number == route {
                return egress.as_ref();
            }
        }
        None
    }

    fn with_flow<R>(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        f: impl FnOnce(&mut Flow<F::Address>) -> R,
    ) -> Option<R> {
        let own = *self.own.get_or_insert(*key) == *key;
        let mut flow = self.get(stage, key)?;
        if own && self.seen.found.is_none() {
            self.seen.found = Some((stage, half::<F>(&flow, self.live.now() as u32)));
        }
        let result = f(&mut flow);
        self.set(stage, key, Some(flow));
        Some(result)
    }

    fn insert_flow(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        replace: bool,
        init: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), Refused> {
        let there = self.get(stage, key).is_some();
        if there && !replace {
            self.seen.taken += 1;
            return Err(Refused::Exists);
        }
        // The half-open table makes room; the other one refuses.
        if !there && stage == Stage::Confirmed && self.live.is_full(F::VERSION) {
            return Err(Refused::Full);
        }
        let mut flow = Flow::default();
        init(&mut flow);
        self.set(stage, key, Some(flow));
        Ok(())
    }

    fn confirm_flow(
        &mut self,
        key: &Key<F::Address>,
        update: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), NotConfirmed> {
        let mut flow = self.get(Stage::HalfOpen, key).ok_or(NotConfirmed::Missing)?;
        if self.get(Stage::Confirmed, key).is_none() && self.live.is_full(F::VERSION) {
            return Err(NotConfirmed::Full);
        }
        update(&mut flow);
        self.set(Stage::Confirmed, key, Some(flow));
        Ok(())
    }

    fn remove_flow(&mut self, stage: Stage, key: &Key<F::Address>) {
        self.set(stage, key, None);
    }

    fn with_openings<R>(
        &mut self,
        source: &F::Address,
        now: u32,
        f: impl FnOnce(&mut Openings) -> R,
    ) -> Option<R> {
        let live = self.live;
        let known = || F::openings(live, source).unwrap_or(Openings { since: now, count: 0 });
        Some(f(self.openings.entry(*source).or_insert_with(known)))
    }

    fn host_address(&self, address: &F::Address) -> Option<HostAddress> {
        self.live.host_address(&F::mapped(*address))
    }

    fn is_hosts(&mut self, port: u16) -> bool {
        self.live.is_hosts(port)
    }

    fn mapping(&mut self, key: &MappingKey<F::Address>) -> Option<Mapping<F::Address>> {
        self.mappings.get(key).copied().or_else(|| F::mapping(self.live, key))
    }

    fn set_mapping(&mut self, key: &MappingKey<F::Address>, mapping: &Mapping<F::Address>) {
        self.mappings.insert(*key, *mapping);
    }

    fn with_datagram<R>(
        &mut self,
        _key: &DatagramKey<F::Address>,
        _f: impl FnOnce(&mut Datagram) -> R,
    ) -> Option<R> {
        // A traced packet is whole.
        None
    }

    fn insert_datagram(
        &mut self,
        _key: &DatagramKey<F::Address>,
        _init: impl FnOnce(&mut Datagram),
    ) -> Result<(), Refused> {
        Ok(())
    }

    fn count_forwarded(&mut self, _side: Side, _bytes: u32) {}

    fn count_dropped(&mut self, _reason: DropReason) {}

    fn count_admitted(&mut self, rule: u32) {
        self.seen.admitted = Some(rule);
    }

    fn count_refused(&mut self, rule: u32) {
        self.seen.refused = Some(rule);
    }

    fn emit(&mut self, about: About, fill: impl FnOnce(&mut Event)) {
        let mut event = Event::default();
        about.fill(&mut event);
        fill(&mut event);
        self.seen.events.push(event);
    }
}

fn half<F: LiveFamily>(flow: &Flow<F::Address>, now: u32) -> Half {
    Half {
        state: flow.state,
        rule: flow.rule,
        epoch: flow.epoch,
        route: flow.route,
        reply: flow.is_reply(),
        over: flow.is_over(now),
        idle: (now.wrapping_sub(flow.last_seen) as i32).max(0) as u32,
        packets: flow.packets,
        source: (address::<F>(flow.source), flow.source_port),
        destination: (address::<F>(flow.destination), flow.destination_port),
    }
}

fn address<F: LiveFamily>(address: F::Address) -> IpAddr {
    Ipv6Addr::from(F::mapped(address)).to_canonical()
}
