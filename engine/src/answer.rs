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

/// Answers one processor may send in a second, and at once: what Linux allows itself (net.ipv4.icmp_msgs_per_sec and
/// icmp_msgs_burst); RFC 4443 2.4 (f) demands a token bucket.
pub const RATE: u32 = 1000;
/// See [`RATE`].
pub const BURST: u32 = 50;

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

/// The token bucket of one processor. All zeros is a full one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// Tick up to which it was filled.
    filled: u64,
    /// An answer costs as many as there are ticks in a second, and every tick brings [`RATE`]: whole numbers at any tick rate.
    credit: u64,
}

impl Bucket {
    /// Takes what one answer costs; false when there is not enough.
    #[inline(always)]
    pub fn take(&mut self, now: u64, ticks_per_second: u32) -> bool {
        let cost = u64::from(if ticks_per_second == 0 { 1 } else { ticks_per_second });
        let most = cost * BURST as u64;
        // No more than fills it: the product cannot overflow then.
        let elapsed = now.wrapping_sub(self.filled);
        let credit = if elapsed >= most { most } else { self.credit + elapsed * RATE as u64 };
        self.filled = now;
        self.credit = if credit > most { most } else { credit };
        if self.credit < cost {
            return false;
        }
        self.credit -= cost;
        true
    }
}

/// Turns a packet that was dropped for `reason` into the answer to its sender. False when there is none to send: the packet
/// may be spoiled then.
#[inline(always)]
pub fn answer<F: Header + Egresses, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &mut T,
    side: Side,
    reason: DropReason,
    work: &Work<F::Address>,
) -> bool {
    let (kind, message) = match reason {
        DropReason::TtlExpired => (Answer::TimeExceeded, Message::time_exceeded::<F>()),
        DropReason::TooBig => (Answer::TooBig, Message::too_big::<F>(work.leaving.mtu)),
        _ => return false,
    };
    let network = &work.network;
    if !may_be_answered::<F>(packet, network) {
        return false;
    }
    let source = match side {
        Side::Site => tables.egress(work.leaving.route).map(F::egress).unwrap_or_default(),
        Side::Overlay | Side::Local => F::own(tables.config()),
    };
    if source == F::Address::default() {
        tables.count_answer(Answer::Impossible);
        return false;
    }
    if !tables.may_answer(work.ticks) {
        tables.count_answer(Answer::Suppressed);
        return false;
    }
    let written = write::<F, P>(packet, network, &message, source);
    tables.count_answer(if written { kind } else { Answer::Impossible });
    written
}

/// RFC 1122 3.2.2 and RFC 4443 2.4 (e): never in answer to an error, nor to a fragment other than the first. Packets with
/// addresses that are not unicast never get here.
#[inline(always)]
fn may_be_answered<F: Header>(packet: &impl Packet, network: &Network<F::Address>) -> bool {
    let later = F::VERSION == 4
        && packet.read::<2>(6).is_none_or(|bytes| u16::from_be_bytes(bytes) & 0x1fff != 0);
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

/// Most words that an answer's checksum covers behind the IP header.
const WORDS_MAX: u32 = (1280 - 40) / 4;

/// Length of the headers in front of the quotation.
#[inline(always)]
const fn headers<F: Header>() -> u32 {
    if F::VERSION == 4 { 20 + ICMP } else { 40 + ICMP }
}

#[inline(always)]
fn write<F: Header, P: Packet>(
    packet: &mut P,
    network: &Network<F::Address>,
    message: &Message,
    source: F::Address,
) -> bool {
    let quoted = quoted::<F>(network.length);
    let headers = headers::<F>();
    let icmp = headers - ICMP;
    let [a, b, c, d] = message.rest.to_be_bytes();
    if !packet.requote(headers, quoted)
        || !packet.write(icmp, [message.kind, message.code, 0, 0, a, b, c, d])
        || !write_network::<F>(packet, headers + quoted)
        || !F::write_addresses(packet, source, network.source)
    {
        return false;
    }
    let Some(sum) = sum_on_the_wire(packet, icmp, headers, quoted, network) else { return false };
    let pseudo = if F::VERSION == 6 {
        F::sum(source) + F::sum(network.source) + F::ICMP as u32 + ICMP + quoted
    } else {
        let Some(header) = sum(packet, 0, 20) else { return false };
        if !packet.write(10, (!fold(header)).to_be_bytes()) {
            return false;
        }
        0
    };
    packet.write(icmp + 2, (!fold(fold(sum) as u32 + fold(pseudo) as u32)).to_be_bytes())
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
    if !packet.is_unfinished(icmp + 2) {
        return sum(packet, icmp, headers + quoted);
    }
    let transport = headers + network.transport;
    let field = match network.protocol {
        protocol::TCP => transport + 16,
        protocol::UDP => transport + 6,
        _ => return None,
    };
    let unfinished = packet.read::<2>(field)?;
    Some(sum(packet, icmp, transport)? + u32::from(!u16::from_be_bytes(unfinished)))
}

/// The one's complement sum of whole words from `start` to `end`.
#[inline(always)]
fn sum(packet: &impl Packet, start: u32, end: u32) -> Option<u32> {
    let mut sum = 0u32;
    let mut at = start;
    for _ in 0..WORDS_MAX {
        if at >= end {
            break;
        }
        let word = u32::from_be_bytes(packet.read::<4>(at)?);
        sum += (word >> 16) + (word & 0xffff);
        at += 4;
    }
    Some(sum)
}
