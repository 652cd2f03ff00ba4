//! The cases of NetBird's suites that touch connections and fragments, by their ids in the comparison table, in both families. Where the
//! answer is ours and not NetBird's, the case says why.

use super::world::{CLIENT, SERVER, SITE, Twin, World, segment};
use crate::family::{V4, V6};
use crate::flow::{Side, State};
use crate::packet::tcp::{ACK, FIN, RST, SYN};
use crate::pipeline::Verdict;
use crate::reason::DropReason;

const PSH: u8 = 8;
/// Ticks per second.
const HZ: u64 = 250;
const OUT: Verdict = Verdict::Site(SITE);
const IN: Verdict = Verdict::Overlay;
const INVALID: Verdict = Verdict::Drop(DropReason::InvalidTcp);
const NO_FLOW: Verdict = Verdict::Drop(DropReason::NoFlow);

/// Who sends a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sender {
    Peer,
    Server,
}
use Sender::{Peer, Server};

/// A segment, what becomes of it, and the connection's state after it.
type Line = (Sender, u8, Verdict, Option<State>);

/// A connection that is walked through line by line.
struct Walk<F: Twin> {
    world: World<F>,
    now: u64,
}

impl<F: Twin> Walk<F> {
    fn new() -> Self {
        Walk { world: World::new(false), now: 1000 }
    }

    fn send(&mut self, from: Sender, flags: Option<u8>) -> Verdict {
        self.now += 1;
        let mut packet = match from {
            Peer => self.world.there(flags),
            Server => segment::<F>((F::FAR, SERVER), (F::PEER, CLIENT), flags),
        };
        let side = if from == Peer { Side::Overlay } else { Side::Site };
        self.world.judge(side, &mut packet, self.now)
    }

    fn state(&self) -> Option<State> {
        let flow = self.world.confirmed.values().next().or(self.world.half_open.values().next());
        flow.map(|flow| State::from_number(flow.state))
    }

    /// Goes through these lines.
    fn on(mut self, id: &str, lines: &[Line]) -> Self {
        for (number, (from, flags, verdict, state)) in lines.iter().enumerate() {
            assert_eq!(self.send(*from, Some(*flags)), *verdict, "{id} {number}: {from:?} {flags:#x}");
            assert_eq!(self.state(), *state, "{id} {number}: {from:?} {flags:#x}");
        }
        self
    }

    fn wait(mut self, seconds: u64) -> Self {
        self.now += seconds * HZ;
        self
    }
}

const HANDSHAKE: [Line; 3] = [
    (Peer, SYN, OUT, Some(State::SynSent)),
    (Server, SYN | ACK, IN, Some(State::SynReceived)),
    (Peer, ACK, OUT, Some(State::Established)),
];

const CLOSE: [Line; 4] = [
    (Peer, FIN | ACK, OUT, Some(State::Closing)),
    (Server, ACK, IN, Some(State::Closing)),
    (Server, FIN | ACK, IN, Some(State::TimeWait)),
    (Peer, ACK, OUT, Some(State::TimeWait)),
];

fn connections<F: Twin>() {
    let new = Walk::<F>::new;
    let established = |id| new().on(id, &HANDSHAKE);
    let closed = |id| established(id).on(id, &CLOSE);

    for flags in [SYN | ACK, SYN | FIN, RST, ACK, PSH | ACK] {
        new().on("T-1", &[(Peer, flags, INVALID, None)]);
        new().on(
            "T-1 from the site",
            &[(Server, flags, if flags == SYN | FIN { INVALID } else { NO_FLOW }, None)],
        );
    }
    established("T-2").on(
        "T-2",
        &[
            (Peer, PSH | ACK, OUT, Some(State::Established)),
            (Server, PSH | ACK, IN, Some(State::Established)),
        ],
    );
    closed("T-3").on(
        "T-3 late",
        &[
            (Server, FIN | ACK, IN, Some(State::TimeWait)),
            (Peer, ACK, OUT, Some(State::TimeWait)),
            (Server, SYN, INVALID, Some(State::TimeWait)),
        ],
    );
    for (from, verdict) in [(Peer, OUT), (Server, IN)] {
        established("T-4").on("T-4", &[(from, RST | ACK, verdict, Some(State::Reset))]);
    }
    new().on("T-5", &[HANDSHAKE[0], (Peer, RST, OUT, Some(State::SynSent)), HANDSHAKE[1], HANDSHAKE[2]]);
    closed("T-5")
        .on("T-5", &[(Peer, RST, OUT, Some(State::TimeWait)), (Server, RST, IN, Some(State::TimeWait))]);
    for flags in [SYN | FIN, RST | SYN, RST | FIN] {
        for known in 0..=HANDSHAKE.len() + CLOSE.len() {
            let lines = [&HANDSHAKE[..], &CLOSE].concat();
            let walk = new().on("T-6", &lines[..known]);
            let state = walk.state();
            let walk = walk.on("T-6", &[(Peer, flags, INVALID, state)]);
            // Sender the site: a flow refuses it, and without one it is not passed on either.
            walk.on("T-6", &[(Server, flags, INVALID, state)]).on("T-6 goes on", &lines[known..]);
        }
    }
    established("T-7").on(
        "T-7",
        &[
            (Server, FIN | ACK, IN, Some(State::Closing)),
            (Server, FIN | ACK, IN, Some(State::Closing)),
            (Peer, PSH | ACK, OUT, Some(State::Closing)),
            (Peer, FIN | ACK, OUT, Some(State::TimeWait)),
            (Peer, FIN | ACK, OUT, Some(State::TimeWait)),
        ],
    );
    established("T-8").on(
        "T-8",
        &[
            CLOSE[0],
            (Peer, ACK, OUT, Some(State::Closing)),
            (Server, PSH | ACK, IN, Some(State::Closing)),
            (Server, FIN | ACK, IN, Some(State::TimeWait)),
        ],
    );

    // T-9: a connection that is closing has the time of that, not of a handshake: both are 60 s, so it is moved apart.
    for (seconds, verdict, state) in [(99, OUT, Some(State::Closing)), (102, INVALID, None)] {
        let mut walk = established("T-9");
        walk.world.config.timeouts.tcp_closing = (100 * HZ) as u32;
        walk.on("T-9", &CLOSE[..1]).wait(seconds).on("T-9", &[(Peer, ACK, verdict, state)]);
    }

    // T-10: a connection from the same port is a new one, which is counted anew.
    let reset = established("T-10").on("T-10", &[(Server, RST | ACK, IN, Some(State::Reset))]);
    for walk in [closed("T-10"), closed("T-10").wait(239), closed("T-10").wait(300), reset] {
        let walk = walk.on("T-10", &HANDSHAKE);
        assert_eq!(walk.world.admitted, 2, "T-10");
    }
}

/// T-11 differs: the half-open table makes room by what was used least recently, the confirmed one refuses and never evicts, so that
/// nobody's flood ends a flow (`gateway/tests/reliability/floods.rs`).
#[test]
fn t_connections() {
    connections::<V4>();
    connections::<V6>();
}

fn datagrams<F: Twin>() {
    let asked = || {
        let mut walk = Walk::<F>::new();
        assert_eq!(walk.send(Peer, None), OUT, "T-12");
        walk
    };
    let answer = |walk: &mut Walk<F>, from, port| {
        let mut packet = segment::<F>((from, SERVER), (F::PEER, port), None);
        let now = walk.now;
        walk.world.judge(Side::Site, &mut packet, now)
    };
    assert_eq!(answer(&mut asked(), F::FAR, CLIENT), IN, "T-12");
    assert_eq!(answer(&mut asked(), F::OWN, CLIENT), NO_FLOW, "T-12 address");
    assert_eq!(answer(&mut asked(), F::FAR, CLIENT + 1), NO_FLOW, "T-12 port");
    assert_eq!(answer(&mut asked().wait(29), F::FAR, CLIENT), IN, "T-12 in time");
    assert_eq!(answer(&mut asked().wait(31), F::FAR, CLIENT), NO_FLOW, "T-12 late");
}

#[test]
fn t_12_datagrams_are_answered_from_where_they_went() {
    datagrams::<V4>();
    datagrams::<V6>();
}

fn fragments<F: Twin>() {
    const FRAGMENT: Verdict = Verdict::Drop(DropReason::Fragment);
    let judge = |world: &mut World<F>, first: bool, now| {
        let whole = world.there(None);
        let mut piece = if first { F::first_fragment(&whole, 2) } else { F::later_fragment(&whole, 2) };
        world.judge(Side::Overlay, &mut piece, now)
    };
    let mut world = World::<F>::new(false);
    assert_eq!(judge(&mut world, false, 1000), FRAGMENT, "F-1");
    assert_eq!(judge(&mut world, true, 1001), OUT, "F-2");
    assert_eq!(judge(&mut world, false, 1002), OUT, "F-2");

    let mut world = World::<F>::new(false);
    world.accepts = false;
    assert_eq!(judge(&mut world, true, 1000), Verdict::Drop(DropReason::NoRule), "F-3");
    assert_eq!(judge(&mut world, false, 1001), FRAGMENT, "F-3");

    for (seconds, verdict) in [(29, OUT), (31, FRAGMENT)] {
        let mut world = World::<F>::new(false);
        assert_eq!(judge(&mut world, true, 1000), OUT, "F-5");
        assert_eq!(judge(&mut world, false, 1000 + seconds * HZ), verdict, "F-5 after {seconds} s");
    }
}

#[test]
fn f_fragments_follow_their_first() {
    fragments::<V4>();
    fragments::<V6>();
}

/// RFC 6946: a packet that names itself a fragment and is whole.
#[test]
fn f_7_an_atomic_fragment_is_judged_as_a_packet_and_remembered_by_nobody() {
    let mut world = World::<V6>::new(false);
    let atomic = |world: &World<V6>| {
        let whole = world.there(None);
        let mut packet = V6::first_fragment(&whole, (whole.len() - 40) / 8);
        packet[43] = 0;
        packet
    };
    let packet = atomic(&world);
    assert_eq!(world.judge(Side::Overlay, &mut packet.clone(), 1000), OUT);
    let mut later = V6::later_fragment(&world.there(None), 2);
    assert_eq!(world.judge(Side::Overlay, &mut later, 1001), Verdict::Drop(DropReason::Fragment));
    world.accepts = false;
    world.epoch = 2;
    assert_eq!(world.judge(Side::Overlay, &mut packet.clone(), 1002), Verdict::Drop(DropReason::Revoked));
}
