//! Random traffic with a bias towards what happens: conversations with their answers, and everything that spoils them.

use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_engine::flow::{Side, Timeouts};
use sluicegate_engine::image::axis;
use sluicegate_engine::pipeline::Verdict;
use sluicegate_policy::model::State;
use sluicegate_policy::naive;

use crate::case::{AGENT, Arrival, Exit, Outcome, Setup, Step};
use crate::packets::flag::{ACK, FIN, PSH, RST, SYN};
use crate::packets::{Draft, Payload};
use crate::parse;
use crate::pieces;
use crate::random::Random;
use crate::spoil::spoil;
use crate::world::{self, EGRESS, PEERS, PORTS};

/// Makes one case, a step at a time, from what the gateway did with the steps before.
pub struct Generator {
    random: Random,
    state: Arc<State>,
    setup: Setup,
    queue: Vec<Step>,
    talks: Vec<Talk>,
    /// Fragments on their way.
    pieces: Vec<Arrival>,
    /// Side of the packet in hand.
    from: Side,
    /// What left lately, and by which side.
    left: Vec<(Side, Vec<u8>)>,
    /// The talk of the packet in hand, its direction, and whether it is the next line of its script.
    current: Option<(usize, bool, bool)>,
}

/// A conversation, as both ends see it.
#[derive(Clone, Debug)]
struct Talk {
    opener: Side,
    kind: Speech,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    /// Where the far end believes it comes from, and on which side that end is.
    seen: Option<((IpAddr, u16), Side)>,
    phase: usize,
    /// How far it is through its script, of a TCP conversation.
    line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    Tcp,
    Udp,
    Echo,
    Other(u8),
}

impl Generator {
    /// A case by its seed.
    pub fn new(seed: u64) -> Self {
        Self::by(Random::new(seed))
    }

    /// A case by a source of chance.
    pub fn by(mut random: Random) -> Self {
        let state = Arc::new(world::state(&mut random));
        let timeouts = Timeouts {
            tcp_handshake: 60,
            tcp_established: 900,
            tcp_closing: 70,
            tcp_time_wait: 240,
            tcp_reset: 10,
            udp_unreplied: 30,
            udp: 120,
            icmp: 50,
            other: 130,
            fragment: 30,
        };
        let setup = Setup {
            // The low half of the tick counter, which is all that flows remember, wraps in some cases.
            start: random.pick(&[1, 1_000_000, 0xffff_fd00, 0x7fff_fe00, 0x7_ffff_fd00]),
            overlay_mtu: random.pick(&[0, 1420, 1420, 1280]),
            nat_first: random.pick(&[32768, 49152, 65530]),
            nat_count: random.pick(&[1, 3, 6, 6, 200, 5000]),
            timeouts,
            half_open_per_source: random.pick(&[0, 0, 0, 2, 8, 40]),
            endpoint_independent: random.chance(35),
            // By what was picked before, so that cases that were found before neighbours were known stay what they are.
            hop_lifetime: 0,
            overlay: world::overlay(),
        };
        let hop_lifetime = match (setup.overlay_mtu, setup.nat_count) {
            (1280, 0..4) => 0,
            (0, _) => 60,
            _ => 1 << 20,
        };
        let setup = Setup { hop_lifetime, ..setup };
        let setup = Setup { nat_count: setup.nat_count.min(u16::MAX - setup.nat_first), ..setup };
        let mut this = Self {
            random,
            state,
            setup,
            queue: Vec::new(),
            talks: Vec::new(),
            pieces: Vec::new(),
            from: Side::Local,
            left: Vec::new(),
            current: None,
        };
        for _ in 0..4 {
            // A state that lets nothing pass tests little.
            let hopeful = (0..40).any(|_| {
                let talk = this.any_talk();
                this.is_accepted(&talk)
            });
            if hopeful {
                break;
            }
            this.state = Arc::new(world::state(&mut this.random));
        }
        // Sometimes packets come before the first image.
        if this.random.chance(85) {
            this.publish();
        }
        this
    }

    /// What holds for the whole case.
    pub fn setup(&self) -> Setup {
        self.setup.clone()
    }

    /// The chance that drives it.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// The next step.
    pub fn next(&mut self) -> Step {
        self.current = None;
        let step = self.choose();
        if let Step::Packet(arrival) = &step {
            self.from = arrival.side;
        }
        step
    }

    fn choose(&mut self) -> Step {
        if let Some(step) = self.queue.pop() {
            return step;
        }
        match self.random.below(1000) {
            0..70 => self.advance(),
            70..100 => {
                world::change(&mut self.random, &mut self.state);
                self.publish();
                self.queue.pop().expect("publishing takes a step")
            }
            100..110 => {
                let exits = self.exits();
                if self.knows_devices() {
                    Step::Addresses(world::addresses(&exits))
                } else {
                    Step::Egress(exits)
                }
            }
            110..113 => Step::Deadline(self.random.pick(&[Some(0), Some(20), Some(500)])),
            113..130 => Step::Deadline(None),
            130..138 => Step::Sweep,
            138..143 => self.timeouts(),
            143..240 => self.stray(),
            240..290 => self.error(),
            290..430 if !self.pieces.is_empty() => Step::Packet(self.pieces.remove(0)),
            _ => self.speak(),
        }
    }

    /// Whether the gateway's devices have addresses. By what was picked before, so that cases that were found before they had any
    /// stay what they are.
    fn knows_devices(&self) -> bool {
        self.setup.nat_first == 65_530
    }

    /// Learns what the gateway made of the last packet.
    pub fn learn(&mut self, outcome: &Outcome) {
        self.note_left(outcome);
        let Some((index, forward, scripted)) = self.current else { return };
        if matches!(outcome.verdict, Verdict::Drop(_) | Verdict::Answer) {
            return;
        }
        let talk = &mut self.talks[index];
        talk.line += usize::from(scripted);
        if !forward {
            return;
        }
        let replies = match (outcome.verdict, talk.opener) {
            (Verdict::Host, Side::Overlay) => Side::Local,
            (Verdict::Host, _) => Side::Overlay,
            (Verdict::Site(_), _) => Side::Site,
            _ => return,
        };
        let six = talk.source.0.is_ipv6();
        let Ok((header, None)) = parse::network(&outcome.bytes, six) else { return };
        let Ok(transport) = parse::transport(&outcome.bytes, &header) else { return };
        talk.seen = Some(((header.source, transport.source_port), replies));
        talk.phase += 1;
    }

    fn note_left(&mut self, outcome: &Outcome) {
        let side = match (outcome.verdict, self.from) {
            (Verdict::Site(_), _) => Side::Site,
            (Verdict::Overlay, _) | (Verdict::Host, Side::Local) => Side::Overlay,
            (Verdict::Host, Side::Overlay) => Side::Local,
            _ => return,
        };
        if self.left.len() >= 12 {
            self.left.remove(0);
        }
        self.left.push((side, outcome.bytes.clone()));
    }

    /// An ICMP error about a packet that left, from its receiver, from a router, or from nobody.
    fn error(&mut self) -> Step {
        if self.left.is_empty() {
            return self.speak();
        }
        let (side, mut quote) = self.random.pick(&self.left);
        let r = &mut self.random;
        let six = quote[0] >> 4 == 6;
        let Ok((header, _)) = parse::network(&quote, six) else { return self.speak() };
        let source = match r.below(10) {
            0..4 => header.destination,
            4..8 => world::destination(r, six),
            8 => {
                let peer = r.pick(&PEERS);
                world::peer(peer, six)
            }
            _ => header.source,
        };
        let base = if six { 40 } else { 20 };
        match r.below(12) {
            0..5 => quote.truncate(base + r.pick(&[8, 8, 16, 17, 18, 20, 28])),
            5 => quote.truncate(r.below(base + 12)),
            6 => spoil(r, &mut quote, six),
            7 => quote.extend([0xee; 13]),
            _ => {}
        }
        let kinds: [u8; 8] = if six { [1, 2, 3, 4, 1, 2, 3, 100] } else { [3, 11, 12, 3, 11, 3, 4, 5] };
        let payload = Payload::Error { kind: r.pick(&kinds), code: r.below(16) as u8, quote };
        let destination = if r.chance(4) { world::destination(r, six) } else { header.source };
        self.arrive(side, Draft::new(source, destination, payload))
    }

    fn publish(&mut self) {
        let (now, later) = (self.random.chance(70), self.random.chance(30));
        if !now || later {
            let exits = self.exits();
            self.queue.push(Step::Egress(exits));
        }
        let exits = now.then(|| self.exits());
        self.queue.push(Step::Image(self.state.clone(), exits));
    }

    /// Where routes leave: mostly there, sometimes lost; of an image and the next, mostly by other devices.
    fn exits(&mut self) -> Vec<Exit> {
        let r = &mut self.random;
        let all = r.chance(75);
        (0..24)
            .map(|_| {
                let device = r.pick(&[11, 12]);
                let source = EGRESS[device as usize - 11].map(|a| a.parse::<IpAddr>().expect("an address"));
                let there = |r: &mut Random| all || r.chance(80);
                Exit {
                    device: if there(r) { device } else { 0 },
                    mtu: r.pick(&[0, 1500, 1500, 1280, 9000]),
                    source: [there(r).then_some(source[0]), there(r).then_some(source[1])],
                    pool: r.pick(&[0, 1, 1, 1, 2, 2, 8]),
                }
            })
            .collect()
    }

    /// Other time-outs, near the ones before.
    fn timeouts(&mut self) -> Step {
        let r = &mut self.random;
        let mut other =
            |ticks: u32| if r.chance(30) { ticks / 2 + r.below(ticks as usize) as u32 + 1 } else { ticks };
        let t = self.setup.timeouts;
        self.setup.timeouts = Timeouts {
            tcp_handshake: other(t.tcp_handshake),
            tcp_established: other(t.tcp_established),
            tcp_closing: other(t.tcp_closing),
            tcp_time_wait: other(t.tcp_time_wait),
            tcp_reset: other(t.tcp_reset),
            udp_unreplied: other(t.udp_unreplied),
            udp: other(t.udp),
            icmp: other(t.icmp),
            other: other(t.other),
            ..t
        };
        Step::Timeouts(self.setup.timeouts)
    }

    fn advance(&mut self) -> Step {
        let t = self.setup.timeouts;
        let past = self.random.pick(&[
            t.tcp_handshake,
            t.tcp_established,
            t.tcp_closing,
            t.tcp_time_wait,
            t.tcp_reset,
            t.udp_unreplied,
            t.udp,
            t.icmp,
            t.other,
        ]);
        let ticks = match self.random.below(20) {
            0..15 => self.random.below(12) as u32,
            15 => past,
            16 => past + 1,
            17 => past / 2 + 1,
            _ => self.random.below(past as usize) as u32,
        };
        Step::Advance(ticks)
    }

    /// A packet of a conversation, maybe a new one.
    fn speak(&mut self) -> Step {
        if self.talks.is_empty() || self.random.chance(if self.talks.len() < 12 { 25 } else { 6 }) {
            let talk = self.talk();
            self.talks.push(talk);
        }
        // The later ones more often: long silences are what `advance` is for.
        let n = self.talks.len();
        let index = n - 1 - self.random.below(n.min(8)).min(self.random.below(n));
        let talk = self.talks[index].clone();
        let script =
            Some(script(talk.line, index)).filter(|_| talk.kind == Speech::Tcp && self.random.chance(75));
        let forward =
            talk.seen.is_none() || script.map_or_else(|| self.random.chance(55), |(there, _)| there);
        let script = script.filter(|&(there, _)| there == forward);
        let (side, from, to) = match (forward, talk.seen) {
            (true, _) | (_, None) => (talk.opener, talk.source, talk.destination),
            (false, Some((seen, side))) => (side, talk.destination, seen),
        };
        let data = self.random.pick(&[0, 1, 5, 32, 100]);
        let payload = match talk.kind {
            Speech::Tcp => Payload::Tcp {
                source: from.1,
                destination: to.1,
                flags: script.map_or_else(|| self.flags(talk.phase, forward), |(_, flags)| flags),
                data,
            },
            Speech::Udp => {
                Payload::Udp { source: from.1, destination: to.1, data, unchecked: self.random.chance(10) }
            }
            Speech::Echo => {
                let request = if self.random.chance(4) { !forward } else { forward };
                let six = from.0.is_ipv6();
                let kind = match (six, request) {
                    (false, true) => 8,
                    (false, false) => 0,
                    (true, true) => 128,
                    (true, false) => 129,
                };
                let id = if forward { talk.source.1 } else { to.1 };
                Payload::Icmp { kind, code: 0, id, data }
            }
            Speech::Other(protocol) => Payload::Other { protocol, data },
        };
        self.current = Some((index, forward, script.is_some()));
        let mut draft = Draft::new(from.0, to.0, payload);
        if self.random.chance(10) {
            // As an off-path sender would: the wrong port.
            let other = self.random.pick(&PORTS);
            match &mut draft.payload {
                Payload::Tcp { destination, .. } | Payload::Udp { destination, .. } => *destination = other,
                Payload::Icmp { id, .. } => *id = other,
                Payload::Other { .. } | Payload::Error { .. } => {}
            }
            self.current = None;
        }
        self.arrive(side, draft)
    }

    /// Flags a TCP would send about now, or any.
    fn flags(&mut self, phase: usize, forward: bool) -> u8 {
        let r = &mut self.random;
        if r.chance(4) {
            return r.below(64) as u8;
        }
        if r.chance(5) {
            return r.pick(&[RST, RST | ACK, SYN, SYN | ACK, FIN | ACK]);
        }
        match (phase, forward) {
            (0, true) => SYN,
            (1, false) => SYN | ACK,
            (1, true) => r.pick(&[SYN, ACK, ACK, ACK]),
            (2..12, _) => r.pick(&[ACK, PSH | ACK, ACK]),
            (_, false) if phase < 2 => SYN | ACK,
            _ => r.pick(&[FIN | ACK, ACK, ACK, FIN | ACK, SYN, RST | ACK]),
        }
    }

    /// A new conversation: mostly one that the policy has in mind.
    fn talk(&mut self) -> Talk {
        let mut talk = self.any_talk();
        for _ in 0..30 {
            if self.is_accepted(&talk) || self.random.chance(2) {
                break;
            }
            talk = self.any_talk();
        }
        talk
    }

    fn is_accepted(&self, talk: &Talk) -> bool {
        let six = talk.source.0.is_ipv6();
        let port = u32::from(talk.destination.1);
        let l4 = match talk.kind {
            Speech::Tcp => axis::TCP | port,
            Speech::Udp => axis::UDP | port,
            Speech::Echo if six => axis::ICMPV6 | 128 << 8,
            Speech::Echo => axis::ICMP | 8 << 8,
            Speech::Other(protocol) => axis::OTHER | u32::from(protocol),
        };
        naive::decide(&self.state, AGENT, talk.source.0, talk.destination.0, l4).0.accepts()
    }

    fn any_talk(&mut self) -> Talk {
        let knows_devices = self.knows_devices();
        let r = &mut self.random;
        if !self.talks.is_empty() && r.chance(20) {
            // The same ports again.
            let old = r.pick(&self.talks);
            return Talk { phase: 0, line: 0, seen: None, ..old };
        }
        let opener = if r.chance(80) { Side::Overlay } else { Side::Local };
        let six = r.chance(50);
        let kind = r.pick(&[
            Speech::Tcp,
            Speech::Tcp,
            Speech::Tcp,
            Speech::Udp,
            Speech::Udp,
            Speech::Echo,
            Speech::Echo,
            Speech::Other(47),
            Speech::Other(132),
        ]);
        let source = match opener {
            Side::Local => world::peer(AGENT, six),
            _ => {
                let peer = r.pick(&PEERS[1..]);
                world::peer(peer, six)
            }
        };
        let destination = if r.chance(12) { world::edge(source) } else { world::destination(r, six) };
        let port = r.pick(&[40000u16, 40001, 5, 0, 7, 80, 65535]);
        let to = match kind {
            Speech::Tcp | Speech::Udp => r.pick(&PORTS),
            _ => 0,
        };
        let port = if matches!(kind, Speech::Other(_)) { 0 } else { port };
        let at_end = knows_devices && port == 7 && opener == Side::Overlay;
        let destination = if at_end { world::edge_of_network(to, six) } else { destination };
        Talk {
            opener,
            kind,
            source: (source, port),
            destination: (destination, to),
            seen: None,
            phase: 0,
            line: 0,
        }
    }

    /// A packet that belongs to nothing.
    fn stray(&mut self) -> Step {
        let knows_devices = self.knows_devices();
        let r = &mut self.random;
        let six = r.chance(50);
        let side = r.pick(&[Side::Overlay, Side::Overlay, Side::Site, Side::Site, Side::Local]);
        let anyone = |r: &mut Random| match r.below(10) {
            0..4 => {
                let peer = r.pick(&PEERS);
                world::peer(peer, six)
            }
            4..8 => world::destination(r, six),
            8 => world::stranger(r, six),
            _ => {
                let device = r.below(2);
                EGRESS[device][usize::from(six)].parse().expect("an address")
            }
        };
        let (source, destination) = (anyone(r), anyone(r));
        let (from, to) = (r.pick(&PORTS), r.pick(&PORTS));
        let destination =
            if knows_devices && from == 9100 { world::edge_of_network(to, six) } else { destination };
        let payload = match r.below(8) {
            0..3 => {
                let flags =
                    if r.chance(60) { r.pick(&[SYN, SYN | ACK, ACK, RST]) } else { r.below(64) as u8 };
                Payload::Tcp { source: from, destination: to, flags, data: 3 }
            }
            3..5 => Payload::Udp { source: from, destination: to, data: 4, unchecked: r.chance(20) },
            5..7 => {
                let kinds: [u8; 8] =
                    if six { [128, 129, 1, 2, 3, 133, 135, 255] } else { [8, 0, 3, 4, 5, 11, 13, 17] };
                Payload::Icmp { kind: r.pick(&kinds), code: r.pick(&[0, 0, 1, 4]), id: from, data: 28 }
            }
            _ => Payload::Other { protocol: r.pick(&[2, 4, 41, 47, 50, 89, 132, 136, 255]), data: 20 },
        };
        self.arrive(side, Draft::new(source, destination, payload))
    }

    fn arrive(&mut self, side: Side, mut draft: Draft) -> Step {
        let r = &mut self.random;
        let six = draft.source.is_ipv6();
        if r.chance(8) {
            draft.ttl = r.pick(&[0, 1, 2, 255]);
        }
        if r.chance(4) {
            draft.options = ip_options(r);
        }
        if r.chance(3) {
            let data = r.pick(&[1232, 1240, 1372, 1380, 1392, 1393, 1452, 1460, 1480, 1481, 1600]);
            match &mut draft.payload {
                Payload::Tcp { data: d, .. }
                | Payload::Udp { data: d, .. }
                | Payload::Icmp { data: d, .. }
                | Payload::Other { data: d, .. } => *d = data,
                Payload::Error { .. } => {}
            }
        }
        if matches!(draft.payload, Payload::Tcp { flags, .. } if flags & SYN != 0) && r.chance(80) {
            draft.tcp_options = options(r);
        }
        if six && r.chance(8) {
            let count = r.pick(&[1, 1, 2, 3, 6, 7]);
            draft.extensions =
                (0..count).map(|_| (r.pick(&[0, 60, 43, 51, 60]), r.pick(&[0, 0, 1, 2, 9]))).collect();
            draft.segments_left = r.pick(&[0, 0, 0, 1, 255]);
        }
        let mut segment = 0;
        if !matches!(draft.payload, Payload::Icmp { .. } | Payload::Error { .. }) && r.chance(2) {
            segment = r.pick(&[500, 1200, 1220, 1240, 1360, 1368, 1380, 1400, 1440, 1460]);
            match &mut draft.payload {
                Payload::Tcp { data, .. } | Payload::Udp { data, .. } | Payload::Other { data, .. } => {
                    *data = 2800
                }
                Payload::Icmp { .. } | Payload::Error { .. } => {}
            }
        }
        if r.chance(4) && draft.extensions.is_empty() && segment == 0 {
            return self.scatter(side, draft);
        }
        let mut bytes = draft.build();
        if r.chance(12) {
            spoil(r, &mut bytes, six);
            self.current = None;
        }
        let r = &mut self.random;
        let side = if r.chance(3) { r.pick(&Side::ALL) } else { side };
        let screened = match side {
            Side::Site => r.chance(50),
            // By what the packet is, so that cases that were found before the overlay's were screened stay what they are.
            Side::Overlay => bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 2 == 0,
            Side::Local => false,
        };
        // A frame of the other EtherType.
        let six = if r.chance(1) { !six } else { six };
        Step::Packet(Arrival { side, six, bytes, segment, screened: screened && segment == 0 })
    }

    /// The packet in fragments: the first of them now, the others between what else happens.
    fn scatter(&mut self, side: Side, mut draft: Draft) -> Step {
        let r = &mut self.random;
        let six = draft.source.is_ipv6();
        let length = r.pick(&[20, 50, 100, 200]);
        if let Payload::Tcp { data, .. }
        | Payload::Udp { data, .. }
        | Payload::Icmp { data, .. }
        | Payload::Other { data, .. } = &mut draft.payload
        {
            *data = length;
        }
        let pieces = pieces::arrive(r, &draft.build(), six);
        let screened = side == Side::Site && r.chance(50);
        let arrival = |bytes| Arrival { side, six, bytes, segment: 0, screened };
        self.pieces.extend(pieces.into_iter().map(arrival));
        self.current = None;
        if self.pieces.is_empty() { self.stray() } else { Step::Packet(self.pieces.remove(0)) }
    }
}

/// IPv4 options: mostly harmless ones, sometimes a source route, behind others or not, sometimes what cannot be walked.
fn ip_options(r: &mut Random) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..r.pick(&[1, 1, 2, 4]) {
        all.extend(match r.below(12) {
            0..4 => vec![1; r.pick(&[1, 3, 4, 40])],
            4..6 => vec![148, 4, 0, 0],
            6 => vec![7, 7, 4, 0, 0, 0, 0],
            7 => vec![r.pick(&[131, 137]), 7, 4, 10, 1, 2, 9],
            8 => vec![r.pick(&[131, 137, 68]), 3, 4],
            9 => vec![r.pick(&[148, 131, 2]), r.pick(&[0, 1, 41, 255])],
            10 => vec![0, r.pick(&[0, 131])],
            _ => vec![r.pick(&[131, 148, 0, 1])],
        });
    }
    all.truncate(40);
    all
}

/// What a SYN may bring along: mostly a segment size, which may be larger than fits, odd in place, or damaged.
fn options(r: &mut Random) -> Vec<u8> {
    let size = r.pick(&[1460u16, 1460, 1440, 1380, 1240, 1220, 1200, 8960, 536, 65535, 0]).to_be_bytes();
    let mss = match r.below(12) {
        0 => vec![2, 3, size[0]],
        1 => vec![2, 4, size[0]],
        2 => vec![2, 6, size[0], size[1], 0, 0],
        3 => Vec::new(),
        _ => vec![2, 4, size[0], size[1]],
    };
    let before = match r.below(10) {
        0 => vec![1],
        1 => vec![4, 2, 1],
        2 => vec![3, 3, 7],
        3 => vec![8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
        4 => vec![r.pick(&[254, 0, 9]), r.pick(&[0, 1, 2, 40, 255])],
        5 => vec![1; r.pick(&[18, 19, 20, 36])],
        _ => Vec::new(),
    };
    let after = r.pick(&[&[][..], &[1], &[4, 2], &[1, 3, 3, 7], &[0, 0]]);
    let mut all = [&before, &mss, after].concat();
    all.truncate(40);
    all
}

/// What two well-behaved ends would send: the direction, and the flags. Either end may close first.
fn script(line: usize, index: usize) -> (bool, u8) {
    let opener_closes = index.is_multiple_of(2);
    match line {
        0 => (true, SYN),
        1 => (false, SYN | ACK),
        2 => (true, ACK),
        3 | 5 => (true, PSH | ACK),
        4 => (false, PSH | ACK),
        6 => (opener_closes, FIN | ACK),
        7 => (!opener_closes, FIN | ACK),
        _ => (line.is_multiple_of(2), ACK),
    }
}
