//! Tables of one family as plain maps, and the packets that go through them.

extern crate std;

use std::boxed::Box;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::vec::Vec;

use crate::classify::{Judgement, Source};
use crate::event::{About, Event, EventKind};
use crate::express::screen;
use crate::family::{Address4, Address6, V4, V6};
use crate::flow::{Flow, Key, Side, Timeouts};
use crate::fragment::{Datagram, DatagramKey};
use crate::hop::{Link, learn};
use crate::host::HostAddress;
use crate::image::{Attributes, Decision};
use crate::limit::Openings;
use crate::packet::{Slice, protocol};
use crate::pipeline::{Verdict, process};
use crate::reason::DropReason;
use crate::tables::{Active, Config, Egress, Egresses, NotConfirmed, Refused, Stage, Tables};
use crate::work::Work;

/// Index of the site device.
pub(super) const SITE: u32 = 5;
/// Ports of the client and of the server.
pub(super) const CLIENT: u16 = 40_000;
pub(super) const SERVER: u16 = 443;
/// The first masquerade port.
const FIRST: u16 = 20_000;

/// A family with the addresses of these tests.
pub(super) trait Twin: Egresses<Address: Ord> {
    /// The peer's, the server's, and the one the gateway masquerades with.
    const PEER: Self::Address;
    const FAR: Self::Address;
    const OWN: Self::Address;

    /// A packet with this payload.
    fn packet(source: Self::Address, destination: Self::Address, protocol: u8, payload: &[u8]) -> Vec<u8>;

    /// Makes a packet the first fragment of two, with `units` times eight bytes behind the headers.
    fn first_fragment(packet: &[u8], units: usize) -> Vec<u8>;

    /// The second of those two.
    fn later_fragment(packet: &[u8], units: usize) -> Vec<u8>;

    /// Where the transport header starts.
    const TRANSPORT: usize;
}

impl Twin for V4 {
    const PEER: Address4 = Address4([100, 64, 0, 5]);
    const FAR: Address4 = Address4([10, 0, 0, 9]);
    const OWN: Address4 = Address4([10, 0, 0, 1]);
    const TRANSPORT: usize = 20;

    fn packet(source: Address4, destination: Address4, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let [a, b] = (20 + payload.len() as u16).to_be_bytes();
        let header = [0x45, 0, a, b, 0, 7, 0, 0, 64, protocol, 0, 0];
        [&header[..], &source.0, &destination.0, payload].concat()
    }

    fn first_fragment(packet: &[u8], units: usize) -> Vec<u8> {
        let mut first = packet[..20 + 8 * units].to_vec();
        let [a, b] = (first.len() as u16).to_be_bytes();
        (first[2], first[3], first[6]) = (a, b, 0x20);
        first
    }

    fn later_fragment(packet: &[u8], units: usize) -> Vec<u8> {
        let mut later = [&packet[..20], &packet[20 + 8 * units..]].concat();
        let [a, b] = (later.len() as u16).to_be_bytes();
        (later[2], later[3], later[7]) = (a, b, units as u8);
        later
    }
}

impl Twin for V6 {
    const PEER: Address6 = Address6([0xfd, 0x64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    const FAR: Address6 = Address6([0xfd, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    const OWN: Address6 = Address6([0xfd, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    const TRANSPORT: usize = 40;

    fn packet(source: Address6, destination: Address6, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let [a, b] = (payload.len() as u16).to_be_bytes();
        let header = [0x60, 0, 0, 0, a, b, protocol, 64];
        [&header[..], &source.0, &destination.0, payload].concat()
    }

    fn first_fragment(packet: &[u8], units: usize) -> Vec<u8> {
        let fragment = [packet[6], 0, 0, 1, 0, 0, 0, 7];
        let mut first = [&packet[..40], &fragment, &packet[40..40 + 8 * units]].concat();
        let [a, b] = (first.len() as u16 - 40).to_be_bytes();
        (first[4], first[5], first[6]) = (a, b, 44);
        first
    }

    fn later_fragment(packet: &[u8], units: usize) -> Vec<u8> {
        let fragment = [packet[6], 0, 0, (units as u8) << 3, 0, 0, 0, 7];
        let mut later = [&packet[..40], &fragment, &packet[40 + 8 * units..]].concat();
        let [a, b] = (later.len() as u16 - 40).to_be_bytes();
        (later[4], later[5], later[6]) = (a, b, 44);
        later
    }
}

/// What another processor does meanwhile.
type Meanwhile<F> = Box<dyn FnOnce(&mut World<F>)>;

/// One peer, who may reach one server behind a route.
pub(super) struct World<F: Twin> {
    pub(super) config: Config,
    /// Of the image in force.
    pub(super) epoch: u32,
    /// Whether that has an accept rule.
    pub(super) accepts: bool,
    pub(super) masquerade: bool,
    egress: Egress,
    pub(super) confirmed: BTreeMap<Key<F::Address>, Flow<F::Address>>,
    pub(super) half_open: BTreeMap<Key<F::Address>, Flow<F::Address>>,
    openings: BTreeMap<F::Address, Openings>,
    datagrams: BTreeMap<DatagramKey<F::Address>, Datagram>,
    /// What addresses are to the gateway's host.
    pub(super) host: BTreeMap<F::Address, HostAddress>,
    /// How often that was asked.
    pub(super) asked: Cell<u32>,
    /// Flows that a rule was counted for, and start events.
    pub(super) admitted: u32,
    pub(super) started: u32,
    /// How often the word was read that says which image is in force.
    pub(super) reads: Cell<u32>,
    /// What comes in between, before so many uses of the tables more.
    meanwhile: Option<(u32, Meanwhile<F>)>,
}

fn link(device: u32) -> Link {
    Link { device, mac: [2; 6], sends: 1, ..Link::default() }
}

impl<F: Twin> World<F> {
    pub(super) fn new(masquerade: bool) -> Self {
        let mut egress = Egress { device: SITE, mtu: 1500, link: link(SITE), ..Egress::default() };
        (egress.source4, egress.source6) = (V4::OWN, V6::OWN);
        let config = Config {
            overlay4: [Address4([100, 64, 0, 0]), Address4([255, 255, 0, 0])],
            overlay6: [Address6([0xfd, 0x64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), {
                let mut mask = [0; 16];
                mask[0] = 255;
                mask[1] = 255;
                Address6(mask)
            }],
            ticks_per_second: 250,
            nat_first: FIRST,
            nat_count: 5000,
            hop_lifetime: 250,
            overlay_mtu: 1420,
            overlay_device: 9,
            overlay_link: link(9),
            timeouts: Timeouts::defaults(250),
            ..Config::default()
        };
        Self {
            config,
            epoch: 1,
            accepts: true,
            masquerade,
            egress,
            confirmed: BTreeMap::new(),
            half_open: BTreeMap::new(),
            openings: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            host: BTreeMap::new(),
            asked: Cell::new(0),
            admitted: 0,
            started: 0,
            reads: Cell::new(0),
            meanwhile: None,
        }
    }

    /// Lets another processor in before the use of the tables with this number, from now on.
    pub(super) fn interrupt(&mut self, number: u32, meanwhile: impl FnOnce(&mut Self) + 'static) {
        self.meanwhile = Some((number, Box::new(meanwhile)));
    }

    /// Whether nobody has come in between.
    pub(super) fn is_undisturbed(&self) -> bool {
        self.meanwhile.is_some()
    }

    fn used(&mut self) {
        match self.meanwhile.take() {
            Some((0, meanwhile)) => meanwhile(self),
            Some((uses, meanwhile)) => self.meanwhile = Some((uses - 1, meanwhile)),
            None => {}
        }
    }

    fn table(&mut self, stage: Stage) -> &mut BTreeMap<Key<F::Address>, Flow<F::Address>> {
        match stage {
            Stage::Confirmed => &mut self.confirmed,
            Stage::HalfOpen => &mut self.half_open,
        }
    }

    /// As TC treats a packet.
    pub(super) fn judge(&mut self, side: Side, packet: &mut [u8], now: u64) -> Verdict {
        process::<F, _, _>(&mut Slice(packet), side, self, now, &mut Work::default())
    }

    /// First XDP, then TC, then the program that learns the neighbour: as between two Ethernets. And whether XDP carried it.
    pub(super) fn carry(&mut self, side: Side, packet: &mut [u8], now: u64) -> (bool, Verdict) {
        let mut work = Work::default();
        let before = packet.to_vec();
        let by_xdp = screen::<F, _, _>(&mut Slice(packet), side, true, self, now, &mut work);
        if let Some(verdict) = by_xdp {
            return (true, verdict);
        }
        assert_eq!(packet, before, "XDP changed what it leaves to TC");
        let verdict = process::<F, _, _>(&mut Slice(packet), side, self, now, &mut work);
        let (device, answers) = match verdict {
            Verdict::Site(device) => (device, Side::Site),
            Verdict::Overlay => (self.config.overlay_device, Side::Overlay),
            _ => return (false, verdict),
        };
        if work.hop(&self.config).is_none() {
            let mac = [device as u8; 6];
            learn::<F, _, _>(&Slice(packet), device, answers, self, now, mac, &mut Work::default());
        }
        (false, verdict)
    }

    /// The peer's packet to the server.
    pub(super) fn there(&self, flags: Option<u8>) -> Vec<u8> {
        segment::<F>((F::PEER, CLIENT), (F::FAR, SERVER), flags)
    }

    /// The server's answer to a packet that left.
    pub(super) fn answer(&self, sent: &[u8], flags: Option<u8>) -> Vec<u8> {
        let source = if self.masquerade { F::OWN } else { F::PEER };
        segment::<F>((F::FAR, SERVER), (source, port::<F>(sent)), flags)
    }
}

/// The source port of a packet.
pub(super) fn port<F: Twin>(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[F::TRANSPORT], packet[F::TRANSPORT + 1]])
}

/// A TCP segment with these flags and a segment size, or a UDP datagram.
pub(super) fn segment<F: Twin>(from: (F::Address, u16), to: (F::Address, u16), flags: Option<u8>) -> Vec<u8> {
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    match flags {
        Some(flags) => {
            let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x60, flags, 1, 0, 0x12, 0x34, 0, 0, 2, 4, 0x05, 0xb4];
            F::packet(from.0, to.0, protocol::TCP, &[&ports[..], &rest].concat())
        }
        None => {
            let rest =
                [0, 32, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8];
            F::packet(from.0, to.0, protocol::UDP, &[&ports[..], &rest].concat())
        }
    }
}

impl<F: Twin> Tables<F> for World<F> {
    fn config(&self) -> &Config {
        &self.config
    }

    fn active(&self) -> Active {
        self.reads.set(self.reads.get() + 1);
        Active::new(0, self.epoch)
    }

    fn judge(&mut self, _: Active, _: &Key<F::Address>, _: u32) -> Judgement {
        let masquerade = if self.masquerade { Attributes::MASQUERADE } else { 0 };
        Judgement {
            decision: if self.accepts { Decision::accept(7) } else { Decision::NONE },
            attributes: Attributes(Attributes::ROUTED | masquerade),
            source: Source(1),
        }
    }

    fn egress(&self, _: Active, route: u16) -> Option<&Egress> {
        (route == 0).then_some(&self.egress)
    }

    fn with_flow<R>(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        f: impl FnOnce(&mut Flow<F::Address>) -> R,
    ) -> Option<R> {
        self.used();
        self.table(stage).get_mut(key).map(f)
    }

    fn insert_flow(
        &mut self,
        stage: Stage,
        key: &Key<F::Address>,
        replace: bool,
        init: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), Refused> {
        self.used();
        if !replace && self.table(stage).contains_key(key) {
            return Err(Refused::Exists);
        }
        let mut flow = Flow::default();
        init(&mut flow);
        self.table(stage).insert(*key, flow);
        Ok(())
    }

    fn confirm_flow(
        &mut self,
        key: &Key<F::Address>,
        update: impl FnOnce(&mut Flow<F::Address>),
    ) -> Result<(), NotConfirmed> {
        self.used();
        let mut flow = *self.half_open.get(key).ok_or(NotConfirmed::Missing)?;
        update(&mut flow);
        self.used();
        self.confirmed.insert(*key, flow);
        Ok(())
    }

    fn remove_flow(&mut self, stage: Stage, key: &Key<F::Address>) {
        self.used();
        self.table(stage).remove(key);
    }

    fn host_address(&self, address: &F::Address) -> Option<HostAddress> {
        self.asked.set(self.asked.get() + 1);
        self.host.get(address).copied()
    }

    fn with_openings<R>(
        &mut self,
        source: &F::Address,
        now: u32,
        f: impl FnOnce(&mut Openings) -> R,
    ) -> Option<R> {
        Some(f(self.openings.entry(*source).or_insert(Openings { since: now, count: 0 })))
    }

    fn with_datagram<R>(
        &mut self,
        key: &DatagramKey<F::Address>,
        f: impl FnOnce(&mut Datagram) -> R,
    ) -> Option<R> {
        self.used();
        self.datagrams.get_mut(key).map(f)
    }

    fn insert_datagram(
        &mut self,
        key: &DatagramKey<F::Address>,
        init: impl FnOnce(&mut Datagram),
    ) -> Result<(), Refused> {
        self.used();
        if self.datagrams.contains_key(key) {
            return Err(Refused::Exists);
        }
        init(self.datagrams.entry(*key).or_default());
        Ok(())
    }

    fn count_forwarded(&mut self, _: Side, _: u32) {}

    fn count_dropped(&mut self, _: DropReason) {}

    fn count_admitted(&mut self, _: u32) {
        self.admitted += 1;
    }

    fn count_refused(&mut self, _: u32) {}

    fn emit(&mut self, about: About, _: impl FnOnce(&mut Event)) {
        self.started += u32::from(about.kind == EventKind::Start);
    }
}
