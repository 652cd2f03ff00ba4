//! ICMP errors that the gateway sends itself: time exceeded, so that a traceroute shows it, and packet too big, so that the
//! path MTU is found (RFC 792, RFC 1191, RFC 4443).
//!
//! The packet in hand becomes its own answer: it is cut off, moved behind new headers, and goes back out of the device that
//! it came from. What is quoted is the packet as its sender sent it, so this comes before translation.

use crate::checksum::fold;
use crate::flow::Side;
use crate::network::Header;
use crate::packet::{Network, Packet, protocol};
use crate::reason::DropReason;
use crate::tables::{Egresses, Tables};
use crate::work::Work;

/// How many answers may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// In a second.
    pub rate: u32,
    /// At once.
    pub burst: u32,
}

/// For one processor: what Linux allows itself (net.ipv4.icmp_msgs_per_sec and icmp_msgs_burst); RFC 4443 2.4 (f) demands a
/// token bucket.
pub const ALL: Allowance = Allowance { rate: 1000, burst: 50 };
/// For one sender, so that none uses up what others find their path MTU by: more than a traceroute or a start of several
/// connections asks for.
pub const SENDER: Allowance = Allowance { rate: 100, burst: 10 };
/// Senders remembered of each family; the one answered longest ago is forgotten first.
pub const SENDERS: u32 = 4096;

/// TTL or hop limit of an answer (RFC 1700).
const TTL: u8 = 64;
/// Internetwork control, the precedence of what routers say (RFC 1812 4.3.2.5).
const PRECEDENCE: u8 = 0xc0;
/// Length of an ICMP header.
const ICMP: u32 = 8;

/// What became of the wish to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// Time exceeded was sent.
    TimeExceeded = 0,
    /// Fragmentation needed or packet too big was sent.
    TooBig = 1,
    /// Nothing was sent: there were too many.
    Suppressed = 2,
    /// Nothing was sent: the gateway has no address of this family on that side, or the packet could not be rewritten.
    Impossible = 3,
}

impl Answer {
    /// Each of them, in the order of its number.
    pub const ALL: [Answer; 4] =
        [Answer::TimeExceeded, Answer::TooBig, Answer::Suppressed, Answer::Impossible];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Answer::TimeExceeded => "time_exceeded",
            Answer::TooBig => "too_big",
            Answer::Suppressed => "suppressed",
            Answer::Impossible => "impossible",
        }
    }
}

/// The token bucket of one processor, or of one sender. All zeros is a full one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// Tick up to which `spent` holds.
    now: u64,
    /// What is missing. An answer costs as much as there are ticks in a second, and every tick gives back the rate: whole
    /// numbers at any tick rate.
    spent: u64,
}

impl Bucket {
    /// Takes what one answer costs; false when there is not enough.
    #[inline(always)]
    pub fn take(&mut self, now: u64, ticks_per_second: u32, allowance: Allowance) -> bool {
        let cost = u64::from(if ticks_per_second == 0 { 1 } else { ticks_per_second });
        let most = cost * u64::from(allowance.burst);
        // Never backwards, and no longer than fills it, so that the product cannot overflow.
        let elapsed = now.saturating_sub(self.now);
        let back = if elapsed >= most { most } else { elapsed * u64::from(allowance.rate) };
        let spent = self.spent.saturating_sub(back);
        self.now = now;
        let enough = spent + cost <= most;
        self.spent = if enough { spent + cost } else { spent };
        enough
    }
}

/// Turns a packet that was dropped for `reason` into the answer to its sender. False when there is none to send: the packet
/// may be spoiled then.
#[inline(always)]
pub fn answer<F: Egresses, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &mut T,
    side: Side,
    reason: DropReason,
    work: &mut Work<F::Address>,
) -> bool {
    let (kind, message) = match reason {
        DropReason::TtlExpired => (Answer::TimeExceeded, Message::time_exceeded::<F>()),
        DropReason::TooBig => (Answer::TooBig, Message::too_big::<F>(work.leaving.mtu)),
        _ => return false,
    };
    let Work { network, leaving, active, ticks, own, .. } = work;
    if !may_be_answered::<F>(packet, network) {
        return false;
    }
    *own = match side {
        Side::Site => {
            tables.egress(*active, leaving.route).map(|egress| F::pool(egress).0).unwrap_or_default()
        }
        Side::Overlay | Side::Local => F::own(tables.config()),
    };
    if *own == F::Address::default() {
        tables.count_answer(Answer::Impossible);
        return false;
    }
    if !tables.may_answer(&network.source, *ticks) {
        tables.count_answer(Answer::Suppressed);
        return false;
    }
    let written = write::<F, P>(packet, network, &message, own);
    tables.count_answer(if written { kind } else { Answer::Impossible });
    written
}

/// RFC 1122 3.2.2 and RFC 4443 2.4 (e): never in answer to an error, nor to a fragment other than the first. Packets with
/// addresses that are not unicast never get here.
#[inline(always)]
fn may_be_answered<F: Header>(packet: &impl Packet, network: &Network<F::Address>) -> bool {
    let later = network.piece.is_later();
    let error = network.protocol == F::ICMP
        && packet.read::<2>(network.transport).is_none_or(|[kind, _]| F::is_icmp_error(kind));
    !(later || error)
}

/// Type and code, and what else the message says.
struct Message {
    kind: u8,
    code: u8,
    /// Bytes 4 to 8 of the ICMP header.
    rest: u32,
}

impl Message {
    #[inline(always)]
    const fn time_exceeded<F: Header>() -> Self {
        Self { kind: if F::VERSION == 4 { 11 } else { 3 }, code: 0, rest: 0 }
    }

    #[inline(always)]
    const fn too_big<F: Header>(mtu: u32) -> Self {
        if F::VERSION == 4 {
            // The next hop's MTU is the lower half (RFC 1191 4).
            Self { kind: 3, code: 4, rest: if mtu > 0xffff { 0xffff } else { mtu } }
        } else {
            Self { kind: 2, code: 0, rest: mtu }
        }
    }
}

/// How much of a packet is quoted: in IPv4 what makes an answer of 576 bytes (RFC 1812 4.3.2.3), in IPv6 one of 1,280
/// (RFC 4443 2.4 (c)); in words, so that no sum ends in half of one.
#[inline(always)]
const fn quoted<F: Header>(length: u32) -> u32 {
    let most = if F::VERSION == 4 { 576 } else { 1280 } - headers::<F>();
    (if length > most { most } else { length }) & !3
}

/// Most bytes behind the IP header of an answer.
const LENGTH_MAX: u32 = 1280 - 40;

/// Length of the headers in front of the quotation.
#[inline(always)]
const fn headers<F: Header>() -> u32 {
    if F::VERSION == 4 { 20 + ICMP } else { 40 + ICMP }
}

#[inline(always)]
fn write<F: Header, P: Packet>(
    packet: &mut P,
    network: &Network<F::Address>,
    said: &Message,
    source: &F::Address,
) -> bool {
    let quoted = quoted::<F>(network.length);
    let headers = headers::<F>();
    let icmp = headers - ICMP;
    let [a, b, c, d] = said.rest.to_be_bytes();
    if !packet.requote(headers, quoted)
        || !packet.write(icmp, [said.kind, said.code, 0, 0, a, b, c, d])
        || !write_network::<F>(packet, headers + quoted)
        || !F::write_addresses(packet, source, &network.source)
    {
        return false;
    }
    let Some(message) = sum_on_the_wire(packet, icmp, headers, quoted, network) else { return false };
    // As they were written, since what is at hand of them would be on the stack.
    let Some(addresses) = packet.sum_block(icmp - F::ADDRESSES, icmp).map(folded) else { return false };
    let pseudo = if F::VERSION == 6 { addresses + F::ICMP as u32 + ICMP + quoted } else { 0 };
    let header =
        F::VERSION == 6 || packet.write(10, (!fold(fixed(headers + quoted) + addresses)).to_be_bytes());
    header && packet.write(icmp + 2, (!fold(fold(message) as u32 + fold(pseudo) as u32)).to_be_bytes())
}

/// Everything of the IP header but addresses and checksum, which is zero.
#[inline(always)]
fn write_network<F: Header>(packet: &mut impl Packet, length: u32) -> bool {
    if F::VERSION == 4 {
        let [a, b] = (length as u16).to_be_bytes();
        // Never fragmented, so its id says nothing (RFC 6864 4).
        packet.write(0, [0x45, PRECEDENCE, a, b, 0, 0, 0x40, 0, TTL, F::ICMP, 0, 0])
    } else {
        let [a, b] = ((length - 40) as u16).to_be_bytes();
        packet.write(0, [0x60, 0, 0, 0, a, b, F::ICMP, TTL])
    }
}

/// The sum of what [`write_network`] writes for IPv4.
#[inline(always)]
const fn fixed(length: u32) -> u32 {
    (0x4500 | PRECEDENCE as u32) + length + 0x4000 + ((TTL as u32) << 8 | 1)
}

/// The sum of the ICMP message as it will arrive. Where the sender of what is quoted left its checksum to the device, the
/// kernel fills it in once the answer leaves: what it covers adds up to the complement of what stood there before
/// (Documentation/networking/checksum-offloads.rst, LCO).
#[inline(always)]
fn sum_on_the_wire<A>(
    packet: &mut impl Packet,
    icmp: u32,
    headers: u32,
    quoted: u32,
    network: &Network<A>,
) -> Option<u32> {
    let (mut end, mut rest) = (headers + quoted, 0);
    if packet.is_unfinished(icmp + 2) {
        end = headers + network.transport;
        let field = match network.protocol {
            protocol::TCP => end + 16,
            protocol::UDP => end + 6,
            _ => return None,
        };
        rest = u32::from(!u16::from_be_bytes(packet.read::<2>(field)?));
    }
    Some(sum(packet, icmp, end)? + rest)
}

/// Bytes summed up at a time: a loop of single words would be a third of all that the verifier walks.
const BLOCK: u32 = 128;

/// The sum of the words from `at` to `end`, a block of them at the most; `None` where the packet ends before.
#[inline(always)]
pub fn sum_block(packet: &impl Packet, at: u32, end: u32) -> Option<u64> {
    let mut sum = 0;
    for i in 0..BLOCK / 4 {
        let at = at.wrapping_add(i * 4);
        if at >= end {
            break;
        }
        sum += u64::from(u32::from_be_bytes(packet.read::<4>(at)?));
    }
    Some(sum)
}

/// The one's complement sum of whole words from `start` to `end`.
#[inline(always)]
fn sum(packet: &impl Packet, start: u32, end: u32) -> Option<u32> {
    // The compiler knows how large `end` can be, and would leave out the count of rounds, by which alone the verifier of Linux
    // 6.1 sees that they come to an end: it decides no comparison of a known number with a range.
    let end = core::hint::black_box(end);
    let mut sum = 0u64;
    let mut at = start;
    for _ in 0..LENGTH_MAX.div_ceil(BLOCK) {
        if at >= end {
            break;
        }
        sum += packet.sum_block(at, end)?;
        at += BLOCK;
    }
    Some(folded(sum))
}

/// A sum of words as one of half words.
#[inline(always)]
fn folded(sum: u64) -> u32 {
    u32::from(fold((sum >> 32) as u32)) + u32::from(fold(sum as u32))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::checksum;
    use crate::classify::Judgement;
    use crate::event::Event;
    use crate::family::{Family, V4, V6};
    use crate::flow::{Flow, Key};
    use crate::packet::Slice;
    use crate::tables::{Active, Config, Egress, NotConfirmed, Refused, Stage};

    struct Owned {
        bytes: Vec<u8>,
        unfinished: bool,
    }

    impl Packet for Owned {
        fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
            self.bytes.get(offset as usize..)?.first_chunk().copied()
        }

        fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
            Slice(&mut self.bytes).write(offset, bytes)
        }

        fn length(&self) -> u32 {
            self.bytes.len() as u32
        }

        fn requote(&mut self, headers: u32, quoted: u32) -> bool {
            self.bytes = [&vec![0xaa; headers as usize], &self.bytes[..quoted as usize]].concat();
            true
        }

        fn is_unfinished(&mut self, scratch: u32) -> bool {
            self.write(scratch, [0, 0]) && self.unfinished
        }
    }

    #[derive(Default)]
    struct Told {
        config: Config,
        egress: Egress,
        bucket: Bucket,
        answers: [u32; Answer::COUNT],
    }

    impl<F: Egresses> Tables<F> for Told {
        fn config(&self) -> &Config {
            &self.config
        }
        fn active(&self) -> Active {
            Active::default()
        }
        fn judge(&mut self, _: Active, _: &Key<F::Address>, _: u32) -> Judgement {
            Judgement::default()
        }
        fn egress(&self, _active: Active, route: u16) -> Option<&Egress> {
            (route == 3).then_some(&self.egress)
        }
        fn with_flow<R>(
            &mut self,
            _: Stage,
            _: &Key<F::Address>,
            _: impl FnOnce(&mut Flow<F::Address>) -> R,
        ) -> Option<R> {
            None
        }
        fn insert_flow(
            &mut self,
            _: Stage,
            _: &Key<F::Address>,
            _: bool,
            _: impl FnOnce(&mut Flow<F::Address>),
        ) -> Result<(), Refused> {
            Err(Refused::Full)
        }
        fn confirm_flow(
            &mut self,
            _: &Key<F::Address>,
            _: impl FnOnce(&mut Flow<F::Address>),
        ) -> Result<(), NotConfirmed> {
            Err(NotConfirmed::Missing)
        }
        fn remove_flow(&mut self, _: Stage, _: &Key<F::Address>) {}
        fn count_forwarded(&mut self, _: Side, _: u32) {}
        fn count_dropped(&mut self, _: DropReason) {}
        fn count_answer(&mut self, answer: Answer) {
            self.answers[answer as usize] += 1;
        }
        fn may_answer(&mut self, _: &F::Address, now: u64) -> bool {
            self.bucket.take(now, self.config.ticks_per_second, ALL)
        }
        fn count_admitted(&mut self, _: u32) {}
        fn count_refused(&mut self, _: u32) {}
        fn emit(&mut self, _: crate::event::About, _: impl FnOnce(&mut Event)) {}
    }

    const OWN4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
    const SITE4: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 1);
    const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, 1);
    const SITE6: Ipv6Addr = Ipv6Addr::new(0xfd01, 1, 0, 0, 0, 0, 0, 1);

    fn told() -> Told {
        Told {
            config: Config {
                own4: OWN4.into(),
                own6: OWN6.into(),
                ticks_per_second: 250,
                ..Config::default()
            },
            egress: Egress { source4: SITE4.into(), source6: SITE6.into(), ..Egress::default() },
            ..Told::default()
        }
    }

    fn ip4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 1, 2, 0, 0, 1, protocol, 3, 4, 100, 64, 0, 9, 10, 1, 2, 3];
        packet.extend(payload);
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet
    }

    fn ip6(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let [a, b] = (payload.len() as u16).to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, a, b, protocol, 1];
        packet.extend(Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, 9).octets());
        packet.extend(Ipv6Addr::new(0xfd01, 1, 0, 0, 0, 0, 0, 3).octets());
        packet.extend(payload);
        packet
    }

    fn answered<F: Egresses>(
        told: &mut Told,
        bytes: &[u8],
        side: Side,
        reason: DropReason,
        unfinished: bool,
    ) -> Option<Vec<u8>> {
        let mut packet = Owned { bytes: bytes.to_vec(), unfinished };
        let mut work = Work::<F::Address>::default();
        F::network(&packet, &mut work.network).unwrap();
        work.leaving.route = 3;
        work.leaving.mtu = 1280;
        answer::<F, _, _>(&mut packet, told, side, reason, &mut work).then_some(packet.bytes)
    }

    fn pseudo6(packet: &[u8]) -> u32 {
        u32::from(!checksum::of(&packet[8..40], 58 + packet.len() as u32 - 40))
    }

    #[test]
    fn what_a_router_says_in_ipv4() {
        let long: Vec<u8> = (0..1400u32).map(|i| i as u8).collect();
        let packet = ip4(17, &long);
        for (side, source) in [(Side::Overlay, OWN4), (Side::Site, SITE4)] {
            let answer = answered::<V4>(&mut told(), &packet, side, DropReason::TooBig, false).unwrap();
            assert_eq!(answer.len(), 576);
            assert_eq!(answer[..4], [0x45, 0xc0, 2, 0x40]);
            assert_eq!(answer[8..10], [64, 1]);
            assert_eq!(answer[12..16], source.octets());
            assert_eq!(answer[16..20], packet[12..16]);
            assert_eq!((checksum::of(&answer[..20], 0), checksum::of(&answer[20..], 0)), (0, 0));
            assert_eq!((&answer[20..22], &answer[24..28]), (&[3, 4][..], &[0, 0, 5, 0][..]));
            assert_eq!(answer[28..], packet[..548]);
        }
        let short = ip4(17, &[0; 11]);
        let answer =
            answered::<V4>(&mut told(), &short, Side::Overlay, DropReason::TtlExpired, false).unwrap();
        assert_eq!((&answer[20..22], &answer[24..28]), (&[11, 0][..], &[0; 4][..]));
        assert_eq!(answer[28..], short[..28], "whole words are quoted");
        assert_eq!((checksum::of(&answer[..20], 0), checksum::of(&answer[20..], 0)), (0, 0));
    }

    #[test]
    fn what_a_router_says_in_ipv6() {
        let long: Vec<u8> = (0..1400u32).map(|i| i as u8).collect();
        let packet = ip6(17, &long);
        for (side, source) in [(Side::Overlay, OWN6), (Side::Site, SITE6)] {
            let answer = answered::<V6>(&mut told(), &packet, side, DropReason::TooBig, false).unwrap();
            assert_eq!(answer.len(), 1280);
            assert_eq!(answer[..8], [0x60, 0, 0, 0, 4, 0xd8, 58, 64]);
            assert_eq!(answer[8..24], source.octets());
            assert_eq!(answer[24..40], packet[8..24]);
            assert_eq!((&answer[40..42], &answer[44..48]), (&[2, 0][..], &[0, 0, 5, 0][..]));
            assert_eq!(checksum::of(&answer[40..], pseudo6(&answer)), 0);
            assert_eq!(answer[48..], packet[..1232]);
        }
        let short = ip6(6, &[9; 30]);
        let answer = answered::<V6>(&mut told(), &short, Side::Site, DropReason::TtlExpired, false).unwrap();
        assert_eq!((&answer[40..42], &answer[44..48]), (&[3, 0][..], &[0; 4][..]));
        assert_eq!(answer[48..], short[..68]);
        assert_eq!(checksum::of(&answer[40..], pseudo6(&answer)), 0);
    }

    #[test]
    fn a_quoted_checksum_that_the_device_fills_in_later_is_foreseen() {
        for (protocol, field) in [(6, 16), (17, 6)] {
            let mut transport: Vec<u8> = (0..60).collect();
            transport[field..field + 2].copy_from_slice(&[0x12, 0x34]);
            for v6 in [false, true] {
                let packet = if v6 { ip6(protocol, &transport) } else { ip4(protocol, &transport) };
                let answer = if v6 {
                    answered::<V6>(&mut told(), &packet, Side::Site, DropReason::TtlExpired, true)
                } else {
                    answered::<V4>(&mut told(), &packet, Side::Site, DropReason::TtlExpired, true)
                };
                let mut answer = answer.unwrap();
                // What skb_checksum_help does.
                let (icmp, start) = if v6 { (40, 48 + 40) } else { (20, 28 + 20) };
                let sum = checksum::of(&answer[start..], 0);
                answer[start + field..start + field + 2].copy_from_slice(&sum.to_be_bytes());
                let pseudo = if v6 { pseudo6(&answer) } else { 0 };
                assert_eq!(checksum::of(&answer[icmp..], pseudo), 0, "{protocol} {v6}");
            }
        }
        // Not known where it would be: SCTP's is another sum altogether.
        let mut told = told();
        let sctp = ip4(132, &[0; 40]);
        assert_eq!(answered::<V4>(&mut told, &sctp, Side::Site, DropReason::TtlExpired, true), None);
        assert_eq!(told.answers, [0, 0, 0, 1]);
    }

    #[test]
    fn what_nobody_answers() {
        let mut told = told();
        let mut silent4 = |packet: &[u8], reason| {
            assert_eq!(answered::<V4>(&mut told, packet, Side::Overlay, reason, false), None);
        };
        for kind in [3, 4, 5, 11, 12] {
            silent4(&ip4(1, &[kind, 0, 0, 0, 0, 0, 0, 0]), DropReason::TtlExpired);
        }
        silent4(&ip4(1, &[]), DropReason::TtlExpired);
        let mut later = ip4(17, &[0; 16]);
        later[7] = 1;
        silent4(&later, DropReason::TtlExpired);
        silent4(&ip4(17, &[0; 16]), DropReason::NoRule);
        for kind in [1, 2, 3, 4, 127] {
            let packet = ip6(58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(answered::<V6>(&mut told, &packet, Side::Site, DropReason::TooBig, false), None);
        }
        assert_eq!(told.answers, [0; 4]);
        // An echo is no error, and a first fragment is answered.
        let mut first = ip4(1, &[8, 0, 0, 0, 0, 0, 0, 0]);
        first[6] = 0x20;
        assert!(answered::<V4>(&mut told, &first, Side::Overlay, DropReason::TtlExpired, false).is_some());
    }

    #[test]
    fn without_an_address_there_is_no_answer() {
        let mut told = Told { egress: Egress::default(), ..told() };
        let packet = ip4(17, &[0; 16]);
        assert_eq!(answered::<V4>(&mut told, &packet, Side::Site, DropReason::TtlExpired, false), None);
        told.config.own6 = V6Address::default();
        let packet = ip6(17, &[0; 16]);
        assert_eq!(answered::<V6>(&mut told, &packet, Side::Overlay, DropReason::TtlExpired, false), None);
        assert_eq!(told.answers, [0, 0, 0, 2]);
    }

    type V6Address = <V6 as Family>::Address;

    #[test]
    fn fifty_at_once_and_a_thousand_a_second() {
        for hz in [100, 250, 1000] {
            let mut bucket = Bucket::default();
            let start = 1 << 33;
            let mut at = |tick: u64| (0..100).filter(|_| bucket.take(start + tick, hz, ALL)).count();
            assert_eq!(at(0), 50);
            assert_eq!(at(0), 0);
            let second: usize = (1..=u64::from(hz)).map(&mut at).sum();
            assert_eq!(second, 1000, "{hz}");
            assert_eq!(at(10 * u64::from(hz)), 50);
        }
        let mut told = told();
        let packet = ip4(17, &[0; 16]);
        for i in 0..60 {
            let sent = answered::<V4>(&mut told, &packet, Side::Overlay, DropReason::TtlExpired, false);
            assert_eq!(sent.is_some(), i < 50);
        }
        assert_eq!(told.answers, [50, 0, 10, 0]);
    }

    #[test]
    fn a_slow_clock_loses_nothing() {
        // A rate that is no whole number of answers a tick.
        let mut bucket = Bucket::default();
        let sent = (1..=300 * 10)
            .map(|tick| (0..9).filter(|_| bucket.take(1 << 20 | tick, 300, ALL)).count())
            .sum::<usize>();
        assert!((10_000..=10_050).contains(&sent), "{sent}");
    }
}
