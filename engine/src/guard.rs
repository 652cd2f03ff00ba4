//! The underlay guard: on WireGuard's port only what can be a WireGuard message, and handshakes no faster than a source
//! may ask for them.
//!
//! A responder pays for every initiation with two Curve25519 multiplications (WireGuard white paper, 5.4.2 and 6.3), so whoever can
//! send can make it calculate. Its own defence, cookies, starts once it is under load; this one keeps it from getting there.
//!
//! Nothing but UDP to the guarded port of an address of this host is refused: the rest is not the guard's business.

use crate::packet::{Packet, protocol};
use crate::reason::DropReason;

/// Extension headers walked at the most, as the engine does.
const EXTENSIONS_MAX: u32 = 6;
/// Longest a chain of them may be, bytes: keeps offsets small for the verifier.
const CHAIN_MAX: u32 = 512;
/// Length of a UDP header, bytes (RFC 768).
const UDP_HEADER: u32 = 8;

/// What the guard goes by: written by the agent, read by the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Guard {
    /// How often one source prefix may ask for a handshake.
    pub limit: Limit,
    /// WireGuard's UDP port, host order; 0 while it is not known: everything passes.
    pub port: u16,
    /// Zero.
    pub padding: [u8; 6],
}

/// What a packet is to the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Not for the guarded port, or a message that asks for no calculation.
    Passes,
    /// For the guarded port, and no WireGuard message.
    Malformed,
    /// A handshake initiation from this source prefix.
    Initiation(Source),
}

/// A source prefix: /24 of IPv4, /56 of IPv6, which is what one customer usually holds. The upper byte tells the families
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(pub u64);

impl Source {
    /// The /24 of an IPv4 address.
    #[inline(always)]
    pub const fn v4(a: [u8; 4]) -> Self {
        Self(u64::from_be_bytes([4, 0, 0, 0, 0, a[0], a[1], a[2]]))
    }

    /// The /56 of an IPv6 address.
    #[inline(always)]
    pub const fn v6(a: [u8; 16]) -> Self {
        Self(u64::from_be_bytes([6, a[0], a[1], a[2], a[3], a[4], a[5], a[6]]))
    }
}

/// A token bucket as one number: when the next token would be due if they came one by one (the generic cell rate
/// algorithm, ITU-T I.371 annex A). Times in parts of a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Limit {
    /// Between tokens.
    pub interval: u64,
    /// How far ahead of time a token may be taken: all but the first of a burst.
    pub tolerance: u64,
}

/// Parts of a tick: a rate of 100,000 a second at 1,000 Hz is met to a ten-thousandth.
const FRACTION: u64 = 1 << 20;

impl Limit {
    /// So many a second, and so many at once after silence, by a clock of `hz` ticks a second. Zeros count as ones.
    pub const fn new(per_second: u32, burst: u32, hz: u32) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second as u64 };
        let burst = if burst == 0 { 1 } else { burst as u64 };
        let interval = hz as u64 * FRACTION / per_second;
        let tolerance = interval * (burst - 1);
        // What comes due within a tick comes at once, since nothing shorter is measured.
        let tick = FRACTION.saturating_sub(interval);
        Self { interval, tolerance: if tolerance > tick { tolerance } else { tick } }
    }

    /// Takes a token at tick `now` from a bucket whose state is `due` (0: full); its state afterwards, or `None` when it is empty.
    #[inline(always)]
    pub fn take(&self, due: u64, now: u64) -> Option<u64> {
        let now = now.wrapping_mul(FRACTION);
        let due = if due > now { due } else { now };
        if due - now > self.tolerance { None } else { Some(due + self.interval) }
    }
}

/// Looks at an IPv4 packet. `is_own` says whether an address, in its IPv4-mapped form, is this host's.
#[inline(always)]
pub fn inspect4(packet: &impl Packet, port: u16, is_own: impl FnOnce(&[u8; 16]) -> bool) -> Finding {
    // What ends early or contradicts itself here does not get past the host's own stack.
    let Some(header) = packet.read::<20>(0) else { return Finding::Passes };
    let transport = u32::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || transport < 20 || header[9] != protocol::UDP {
        return Finding::Passes;
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    // A later fragment names no port (RFC 791 3.1); without its first one it is never put together.
    if fragment & 0x1fff != 0 {
        return Finding::Passes;
    }
    let at = Datagram {
        transport,
        end: u32::from(u16::from_be_bytes([header[2], header[3]])),
        whole: fragment & 0x2000 == 0,
    };
    let Some(length) = at.length_for(packet, port) else { return Finding::Passes };
    let own = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, header[16], header[17], header[18], header[19]];
    at.judge(packet, length, Source::v4([header[12], header[13], header[14], header[15]]))
        .for_this_host(&own, is_own)
}

/// As [`inspect4`], for an IPv6 packet.
#[inline(always)]
pub fn inspect6(packet: &impl Packet, port: u16, is_own: impl FnOnce(&[u8; 16]) -> bool) -> Finding {
    let (Some(header), Some(source), Some(destination)) =
        (packet.read::<8>(0), packet.read::<16>(8), packet.read::<16>(24))
    else {
        return Finding::Passes;
    };
    if header[0] >> 4 != 6 {
        return Finding::Passes;
    }
    let end = 40 + u32::from(u16::from_be_bytes([header[4], header[5]]));
    match walk(packet, header[6], end) {
        Chain::Elsewhere => Finding::Passes,
        // What a longer chain than any host sends leads to is not known, so it may be the guarded port.
        Chain::TooLong => Finding::Malformed.for_this_host(&destination, is_own),
        Chain::Udp(at) => {
            let Some(length) = at.length_for(packet, port) else { return Finding::Passes };
            at.judge(packet, length, Source::v6(source)).for_this_host(&destination, is_own)
        }
    }
}

/// Where a UDP header is.
#[derive(Clone, Copy)]
struct Datagram {
    /// Its offset.
    transport: u32,
    /// Where the packet ends, as the network header says.
    end: u32,
    /// Whether this is not the first of several fragments.
    whole: bool,
}

impl Datagram {
    /// The length that the UDP header declares, when the datagram is for `port`.
    #[inline(always)]
    fn length_for(self, packet: &impl Packet, port: u16) -> Option<u32> {
        let header = packet.read::<8>(self.transport)?;
        let here = u16::from_be_bytes([header[2], header[3]]) == port;
        if here { Some(u32::from(u16::from_be_bytes([header[4], header[5]]))) } else { None }
    }

    /// Whether the datagram, which declares `length`, is a message (white paper, 5.4). WireGuard sends no fragments:
    /// first ones are refused, and with them all.
    #[inline(always)]
    fn judge(self, packet: &impl Packet, length: u32, source: Source) -> Finding {
        let consistent = self.end <= packet.length() && self.transport + length == self.end;
        if !self.whole || !consistent || length < UDP_HEADER + 4 {
            return Finding::Malformed;
        }
        let Some(kind) = packet.read::<4>(self.transport + UDP_HEADER) else { return Finding::Malformed };
        // The type, and three reserved bytes that are zero.
        let (kind, payload) = (u32::from_le_bytes(kind), length - UDP_HEADER);
        match kind {
            INITIATION if payload == 148 => Finding::Initiation(source),
            RESPONSE if payload == 92 => Finding::Passes,
            COOKIE if payload == 64 => Finding::Passes,
            // A header of 16 bytes, contents padded to 16, a tag of 16.
            DATA if payload >= 32 && payload % 16 == 0 => Finding::Passes,
            _ => Finding::Malformed,
        }
    }
}

const INITIATION: u32 = 1;
const RESPONSE: u32 = 2;
const COOKIE: u32 = 3;
const DATA: u32 = 4;

/// Where a chain of extension headers leads.
enum Chain {
    /// To something that is not UDP, to a fragment without ports, or out of the packet.
    Elsewhere,
    /// Further than is walked.
    TooLong,
    /// To a UDP header.
    Udp(Datagram),
}

/// Follows the extension headers (RFC 8200 4) from the fixed header, whose next header is `next`.
#[inline(always)]
fn walk(packet: &impl Packet, next: u8, end: u32) -> Chain {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;

    let (mut next, mut transport, mut whole) = (next, 40, true);
    for _ in 0..EXTENSIONS_MAX {
        if next == protocol::UDP {
            return Chain::Udp(Datagram { transport, end, whole });
        }
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            return Chain::Elsewhere;
        }
        let Some(header) = packet.read::<4>(transport) else { return Chain::Elsewhere };
        let units = u32::from(header[1]);
        let length = match next {
            FRAGMENT => {
                // The upper 13 bits are the offset (RFC 8200 4.5).
                if u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 {
                    return Chain::Elsewhere;
                }
                whole = false;
                8
            }
            // RFC 4302 2.2 counts in words less two, every other header in eight bytes less one.
            AUTHENTICATION => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        transport += length;
        if transport > CHAIN_MAX {
            return Chain::TooLong;
        }
        next = header[0];
    }
    if next == protocol::UDP { Chain::Udp(Datagram { transport, end, whole }) } else { Chain::TooLong }
}

impl Finding {
    /// What the packet is when it need not be for this host: asked last, so that a well-formed message, which is nearly every
    /// packet, costs no look-up.
    #[inline(always)]
    fn for_this_host(self, destination: &[u8; 16], is_own: impl FnOnce(&[u8; 16]) -> bool) -> Self {
        if matches!(self, Self::Passes) || is_for_many(destination) || is_own(destination) {
            self
        } else {
            Self::Passes
        }
    }

    /// Why the packet is refused, if it is; `admits` takes a token from the bucket of a source.
    #[inline(always)]
    pub fn refusal(self, admits: impl FnOnce(Source) -> bool) -> Option<DropReason> {
        match self {
            Self::Passes => None,
            Self::Malformed => Some(DropReason::UnderlayMalformed),
            Self::Initiation(source) if admits(source) => None,
            Self::Initiation(_) => Some(DropReason::UnderlayHandshakeRate),
        }
    }
}

/// Whether an address is one of many hosts, this one among them: a socket that is bound to no address hears what is sent to
/// multicast groups and to the limited broadcast address.
#[inline(always)]
const fn is_for_many(address: &[u8; 16]) -> bool {
    match address {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, first, ..] => *first >= 224,
        [first, ..] => *first == 0xff,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::packet::Slice;

    const PORT: u16 = 51_820;

    /// A UDP datagram to `port` with `payload`, behind `headers` (which end in the right next header).
    fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
        let length = (8 + payload.len()) as u16;
        [&40_000u16.to_be_bytes()[..], &port.to_be_bytes(), &length.to_be_bytes(), &[0xab, 0xcd], payload]
            .concat()
    }

    fn v4(udp: &[u8]) -> Vec<u8> {
        let mut packet =
            [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 77, 192, 0, 2, 1], udp].concat();
        let length = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&length);
        packet
    }

    /// With extension headers: (type, bytes after the next-header field).
    fn v6(extensions: &[(u8, &[u8])], udp: &[u8]) -> Vec<u8> {
        let mut rest = Vec::new();
        for (i, (_, body)) in extensions.iter().enumerate() {
            rest.push(extensions.get(i + 1).map_or(17, |(next, _)| *next));
            rest.extend_from_slice(body);
        }
        rest.extend_from_slice(udp);
        let mut packet = std::vec![0x60, 0, 0, 0];
        packet.extend_from_slice(&(rest.len() as u16).to_be_bytes());
        packet.extend_from_slice(&[extensions.first().map_or(17, |(next, _)| *next), 64]);
        packet.extend_from_slice(&[0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        packet.extend_from_slice(&OWN6);
        [packet, rest].concat()
    }

    #[test]
    fn what_is_sent_to_many_is_sent_to_this_host() {
        let junk = udp(PORT, b"junk");
        for (packet, at, address) in [
            (v4(&junk), 16, &[255u8, 255, 255, 255][..]),
            (v4(&junk), 16, &[224, 0, 0, 1]),
            (v6(&[], &junk), 24, &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            let with = |address: &[u8]| {
                let mut packet = packet.clone();
                packet[at..at + address.len()].copy_from_slice(address);
                look(&packet)
            };
            assert_eq!(with(address), Finding::Malformed, "{address:?}");
            assert_eq!(with(&[9, 9, 9, 9]), Finding::Passes, "another host's");
        }
    }

    const OWN4: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
    const OWN6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn look(packet: &[u8]) -> Finding {
        let mut bytes = packet.to_vec();
        let six = packet[0] >> 4 == 6;
        let packet = Slice(&mut bytes);
        if six {
            inspect6(&packet, PORT, |address| *address == OWN6)
        } else {
            inspect4(&packet, PORT, |address| *address == OWN4)
        }
    }

    fn message(kind: u8, length: usize) -> Vec<u8> {
        let mut message = std::vec![0x5a; length];
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        message
    }

    /// The same datagram in both families.
    fn both(udp: &[u8]) -> [Vec<u8>; 2] {
        [v4(udp), v6(&[], udp)]
    }

    #[test]
    fn every_message_of_the_right_length_passes_and_no_other() {
        for length in 4..600usize {
            for kind in 0..=5 {
                let right = match kind {
                    1 => length == 148,
                    2 => length == 92,
                    3 => length == 64,
                    4 => length >= 32 && length % 16 == 0,
                    _ => false,
                };
                for packet in both(&udp(PORT, &message(kind, length))) {
                    let found = look(&packet);
                    match (right, kind) {
                        (true, 1) => assert!(matches!(found, Finding::Initiation(_)), "{length}"),
                        (true, _) => assert_eq!(found, Finding::Passes, "{kind} {length}"),
                        (false, _) => assert_eq!(found, Finding::Malformed, "{kind} {length}"),
                    }
                }
            }
        }
        for short in 0..4 {
            for packet in both(&udp(PORT, &[1, 0, 0][..short.min(3)])) {
                assert_eq!(look(&packet), Finding::Malformed);
            }
        }
    }

    #[test]
    fn reserved_bytes_are_zero() {
        for byte in 1..4 {
            let mut initiation = message(1, 148);
            initiation[byte] = 1;
            for packet in both(&udp(PORT, &initiation)) {
                assert_eq!(look(&packet), Finding::Malformed);
            }
        }
    }

    #[test]
    fn what_is_not_for_the_guarded_port_of_this_host_passes() {
        let junk = [0xff; 7];
        for packet in both(&udp(PORT - 1, &junk)) {
            assert_eq!(look(&packet), Finding::Passes, "another port");
        }
        for mut packet in both(&udp(PORT, &junk)) {
            let protocol = if packet[0] >> 4 == 4 { 9 } else { 6 };
            packet[protocol] = 6;
            assert_eq!(look(&packet), Finding::Passes, "TCP");
            packet[protocol] = 17;
            let last = if protocol == 9 { 19 } else { 39 };
            packet[last] ^= 1;
            assert_eq!(look(&packet), Finding::Passes, "another host");
            packet.truncate(last + 3);
            assert_eq!(look(&packet), Finding::Passes, "cut off before its port");
        }
    }

    #[test]
    fn lengths_agree() {
        let data = udp(PORT, &message(4, 64));
        for (four, change) in [(true, 1i32), (true, -1), (false, 1), (false, -1)] {
            let mut packet = if four { v4(&data) } else { v6(&[], &data) };
            let at = if four { 20 + 5 } else { 40 + 5 };
            packet[at] = (i32::from(packet[at]) + change) as u8;
            assert_eq!(look(&packet), Finding::Malformed, "UDP length off by {change}");
            packet[at] = (i32::from(packet[at]) - change) as u8;
            packet.pop();
            assert_eq!(look(&packet), Finding::Malformed, "cut off");
            packet.extend([0; 9]);
            assert_eq!(look(&packet), Finding::Passes, "padding of the link layer");
        }
    }

    #[test]
    fn ipv4_options_are_stepped_over() {
        let data = udp(PORT, &message(2, 92));
        let mut packet = v4(&[&[1; 8][..], &data].concat());
        packet[0] = 0x47;
        assert_eq!(look(&packet), Finding::Passes);
        packet[28 + 8] = 9;
        assert_eq!(look(&packet), Finding::Malformed);
    }

    #[test]
    fn first_fragments_are_refused_and_later_ones_are_the_hosts() {
        let data = udp(PORT, &message(4, 64));
        let mut packet = v4(&data);
        packet[6] = 0x20;
        assert_eq!(look(&packet), Finding::Malformed);
        packet[7] = 1;
        assert_eq!(look(&packet), Finding::Passes);
        for (field, finding) in
            [([0, 1], Finding::Malformed), ([0, 0], Finding::Malformed), ([0, 9], Finding::Passes)]
        {
            let packet = v6(&[(44, &[0, field[0], field[1], 1, 2, 3, 4])], &data);
            assert_eq!(look(&packet), finding, "{field:?}");
        }
    }

    #[test]
    fn extension_headers_hide_nothing() {
        let junk = udp(PORT, &[9; 20]);
        let options: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
        let authentication: &[u8] = &[1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0];
        for chain in [
            &[(0, options)][..],
            &[(0, options), (60, options)],
            &[(43, options), (51, authentication), (60, options)],
            &[(60, options); 6],
        ] {
            assert_eq!(look(&v6(chain, &junk)), Finding::Malformed, "{}", chain.len());
            let fine = udp(PORT, &message(4, 32));
            assert_eq!(look(&v6(chain, &fine)), Finding::Passes, "{}", chain.len());
        }
        assert_eq!(look(&v6(&[(60, options); 7], &junk)), Finding::Malformed, "longer than is walked");
        let mut elsewhere = v6(&[(60, options); 7], &junk);
        elsewhere[39] ^= 1;
        assert_eq!(look(&elsewhere), Finding::Passes, "for another host");
        assert_eq!(look(&v6(&[(50, options)], &junk)), Finding::Passes, "ESP is not looked into");
    }

    #[test]
    fn a_source_is_a_prefix() {
        let initiation = udp(PORT, &message(1, 148));
        let found = |packet: &[u8]| match look(packet) {
            Finding::Initiation(source) => source,
            other => panic!("{other:?}"),
        };
        for (packet, same, other) in [(v4(&initiation), 15, 14), (v6(&[], &initiation), 15, 14)] {
            let source = found(&packet);
            let mut neighbour = packet.clone();
            neighbour[same] ^= 1;
            assert_eq!(found(&neighbour), source);
            let mut stranger = packet.clone();
            stranger[other] ^= 1;
            assert_ne!(found(&stranger), source);
        }
        assert_ne!(Source::v4([0, 0, 0, 0]), Source::v6([0; 16]));
    }

    #[test]
    fn a_burst_then_the_rate_then_a_burst_after_silence() {
        let limit = Limit::new(5, 20, 250);
        let admitted = |due: &mut u64, now: u64, asked: usize| {
            (0..asked).filter(|_| limit.take(*due, now).map(|next| *due = next).is_some()).count()
        };
        let mut due = 0;
        // jiffies start five minutes before they wrap their lower half (INITIAL_JIFFIES).
        let start = (1u64 << 32) - 300 * 250;
        assert_eq!(admitted(&mut due, start, 1000), 20);
        assert_eq!(admitted(&mut due, start + 49, 1000), 0);
        assert_eq!(admitted(&mut due, start + 50, 1000), 1);
        let over_a_minute: usize = (51..51 + 60 * 250).map(|t| admitted(&mut due, start + t, 3)).sum();
        assert_eq!(over_a_minute, 300);
        assert_eq!(admitted(&mut due, start + 1_000_000, 1000), 20);
    }

    #[test]
    fn any_rate_is_a_rate() {
        for (rate, burst) in [(0, 0), (1, 1), (3, 7), (1_000, 1), (100_000, 4), (u32::MAX, u32::MAX)] {
            let limit = Limit::new(rate, burst, 1000);
            let mut due = 0;
            let admitted = (0..1000u64)
                .map(|tick| {
                    (0..200).filter(|_| limit.take(due, tick).map(|next| due = next).is_some()).count() as u64
                })
                .sum::<u64>();
            let expected = u64::from(rate.max(1)) * 999 / 1000 + u64::from(burst.max(rate / 1000).max(1));
            let least = expected.min(200_000);
            assert!((least..=least + least / 1000 + 1).contains(&admitted), "{rate} {burst} {admitted}");
        }
    }
}
