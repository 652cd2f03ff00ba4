//! What a sender left to its network device, made good: checksums, and packets larger than the MTU.
//!
//! Between virtual devices nothing is ever computed or cut up, and a real device joins what it receives. The kernel says
//! so in a `virtio_net_hdr` in front of each packet (include/uapi/linux/virtio_net.h).

use sluicegate_engine::checksum;
use sluicegate_engine::packet::{Packet, Slice, protocol, tcp};

/// Length of the header in front of a packet.
pub(super) const HEADER: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// TCP's congestion window reduced flag (RFC 3168 6.1): only on the first segment of a burst.
const CWR: u8 = 0x80;
const PSH: u8 = 8;

/// How a packet becomes packets of the wire's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Payload of each, bytes; the last one's may be smaller.
    payload: usize,
    /// Offset of the transport header.
    transport: usize,
    /// IP protocol: TCP or UDP.
    protocol: u8,
}

impl Cut {
    /// Payload of each packet, bytes.
    pub(super) fn payload(&self) -> u32 {
        self.payload as u32
    }
}

/// A packet as the engine is to see it: judged once, whatever it is cut into.
pub struct Whole<'a> {
    packet: &'a mut [u8],
    payload: u32,
    /// What the packet has become, in its place.
    answer: Option<Vec<u8>>,
}

impl<'a> Whole<'a> {
    /// A packet of which `payload` bytes go into each of those it is cut into; 0 when it leaves as one.
    pub fn new(packet: &'a mut [u8], payload: u32) -> Self {
        Self { packet, payload, answer: None }
    }

    /// The answer to its sender that the engine made of it.
    pub fn into_answer(self) -> Option<Vec<u8>> {
        self.answer
    }
}

impl Packet for Whole<'_> {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.answer.as_deref().unwrap_or(self.packet).get(offset as usize..)?.first_chunk().copied()
    }

    fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool {
        Slice(self.answer.as_deref_mut().unwrap_or(self.packet)).write(offset, bytes)
    }

    fn length(&self) -> u32 {
        self.answer.as_deref().unwrap_or(self.packet).len() as u32
    }

    fn segment_length(&self, headers: u32) -> u32 {
        if self.payload == 0 { self.length() } else { headers + self.payload }
    }

    fn requote(&mut self, headers: u32, quoted: u32) -> bool {
        let Some(quotation) = self.packet.get(..quoted as usize) else { return false };
        let mut answer = vec![0; headers as usize];
        answer.extend_from_slice(quotation);
        self.answer = Some(answer);
        true
    }
}

/// Makes good what `header` says was left undone in `packet`, which starts with its IP header, `link` bytes into the frame:
/// completes the checksum, or says how to cut the packet up ([`segments`] then computes the checksums).
/// `None` when the header contradicts the packet, or asks for something that is not known here.
pub(super) fn settle(header: &[u8; HEADER], link: usize, packet: &mut [u8]) -> Option<Option<Cut>> {
    // In the byte order of this machine: packet sockets speak the legacy dialect.
    let word = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (size, start, offset) = (word(4), word(6), word(8));
    let kind = header[1] & !GSO_ECN;
    if kind != 0 {
        let protocol = match kind {
            GSO_TCP4 | GSO_TCP6 => protocol::TCP,
            GSO_UDP => protocol::UDP,
            _ => return None,
        };
        if header[0] & NEEDS_CHECKSUM == 0 || size == 0 {
            return None;
        }
        let transport = start.checked_sub(link)?;
        if protocol == protocol::UDP {
            // The engine takes an IPv6 packet with a zero here for one without a checksum.
            packet.get_mut(transport + 6..transport + 8)?.fill(0xff);
        }
        return Some(Some(Cut { payload: size, transport, protocol }));
    }
    if header[0] & NEEDS_CHECKSUM != 0 {
        let start = start.checked_sub(link)?;
        let end = declared_length(packet)?;
        let sum = checksum::of(packet.get(start..end)?, 0);
        put(packet, start.checked_add(offset)?, not_zero(sum, offset == 6))?;
    }
    Some(None)
}

/// The packets that `packet` becomes. `None` when it contradicts itself.
pub(super) fn segments(packet: &[u8], cut: Cut) -> Option<Vec<Vec<u8>>> {
    let packet = packet.get(..declared_length(packet)?)?;
    let at = cut.transport;
    let headers = match cut.protocol {
        protocol::TCP => at + usize::from(packet.get(at + 12)? >> 4) * 4,
        _ => at + 8,
    };
    if headers < at + 8 || (cut.protocol == protocol::TCP && headers < at + 20) {
        return None;
    }
    let (headers, payload) = packet.split_at_checked(headers)?;
    let count = payload.len().div_ceil(cut.payload);
    let mut segments = Vec::with_capacity(count);
    for (i, chunk) in payload.chunks(cut.payload).enumerate() {
        let mut segment = [headers, chunk].concat();
        let last = i + 1 == count;
        if cut.protocol == protocol::TCP {
            let sequence = u32::from_be_bytes(*segment.get(at + 4..)?.first_chunk()?);
            let sequence = sequence.wrapping_add((i * cut.payload) as u32);
            segment[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
            segment[at + 13] &= !(if last { 0 } else { tcp::FIN | PSH } | if i == 0 { 0 } else { CWR });
        } else {
            let length = u16::try_from(segment.len() - at).ok()?;
            put(&mut segment, at + 4, length)?;
        }
        finish(&mut segment, at, cut.protocol, i as u16)?;
        segments.push(segment);
    }
    Some(segments)
}

/// Writes lengths and checksums of segment number `i`.
fn finish(segment: &mut [u8], at: usize, protocol: u8, i: u16) -> Option<()> {
    let length = u16::try_from(segment.len()).ok()?;
    let addresses = if segment[0] >> 4 == 4 {
        put(segment, 2, length)?;
        let id = u16::from_be_bytes([segment[4], segment[5]]).wrapping_add(i);
        put(segment, 4, id)?;
        put(segment, 10, 0)?;
        let header = checksum::of(segment.get(..usize::from(segment[0] & 15) * 4)?, 0);
        put(segment, 10, header)?;
        12..20
    } else {
        put(segment, 4, length.checked_sub(40)?)?;
        8..40
    };
    let transport = u32::from(length) - at as u32;
    let pseudo = u32::from(!checksum::of(segment.get(addresses)?, u32::from(protocol) + transport));
    let field = at + if protocol == protocol::TCP { 16 } else { 6 };
    put(segment, field, 0)?;
    let sum = checksum::of(segment.get(at..)?, pseudo);
    put(segment, field, not_zero(sum, protocol == protocol::UDP))
}

/// RFC 768: a computed zero is sent as all ones, since zero means none.
fn not_zero(sum: u16, udp: bool) -> u16 {
    if udp && sum == 0 { 0xffff } else { sum }
}

fn put(packet: &mut [u8], at: usize, value: u16) -> Option<()> {
    packet.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// The length the IP header declares, link-layer padding excluded; `None` when there is less.
pub(super) fn declared_length(packet: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(usize::from(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?)));
    let length = match packet.first()? >> 4 {
        4 => word(2)?,
        6 => word(4)? + 40,
        _ => return None,
    };
    (length <= packet.len()).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IP header of the family for `payload` of `protocol`, before it.
    fn ip(v6: bool, protocol: u8, transport: &[u8]) -> Vec<u8> {
        let mut packet = if v6 {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            header.extend([0xfd; 16]);
            header.extend([0x20; 16]);
            header[4..6].copy_from_slice(&(transport.len() as u16).to_be_bytes());
            header
        } else {
            let mut header = vec![0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, protocol, 0, 0];
            header.extend([10, 0, 0, 1, 10, 0, 0, 2]);
            header[2..4].copy_from_slice(&(20 + transport.len() as u16).to_be_bytes());
            header
        };
        packet.extend(transport);
        packet
    }

    fn tcp_header(flags: u8) -> Vec<u8> {
        let mut header =
            vec![0x01, 0xbb, 0x30, 0x39, 0xff, 0xff, 0xff, 0, 0, 0, 0, 9, 0x60, flags, 1, 0, 0, 0, 0, 0];
        // An option, so that the data offset matters.
        header.extend([1, 1, 1, 1]);
        header
    }

    /// One's complement sum of pseudo-header and transport: zero for a right checksum.
    fn residue(packet: &[u8], at: usize, protocol: u8) -> u16 {
        let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
        let pseudo = !checksum::of(&packet[addresses], u32::from(protocol) + (packet.len() - at) as u32);
        checksum::of(&packet[at..], u32::from(pseudo))
    }

    fn header(flags: u8, kind: u8, size: u16, start: u16, offset: u16) -> [u8; HEADER] {
        let mut header = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (at, value) in [(4, size), (6, start), (8, offset)] {
            header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        header
    }

    #[test]
    fn a_checksum_left_to_the_device_is_completed_without_the_padding() {
        for v6 in [false, true] {
            let at = if v6 { 40 } else { 20 };
            let mut packet = ip(v6, protocol::TCP, &[tcp_header(2), b"odd".to_vec()].concat());
            let addresses = if v6 { 8..40 } else { 12..20 };
            let pseudo = !checksum::of(&packet[addresses], 6 + (packet.len() - at) as u32);
            packet[at + 16..at + 18].copy_from_slice(&pseudo.to_be_bytes());
            let length = packet.len();
            packet.extend([0xee; 5]);
            let settled = settle(&header(NEEDS_CHECKSUM, 0, 0, 14 + at as u16, 16), 14, &mut packet);
            assert_eq!(settled, Some(None));
            assert_eq!(residue(&packet[..length], at, protocol::TCP), 0);
        }
    }

    #[test]
    fn what_is_complete_is_left_alone() {
        let mut packet = ip(false, protocol::TCP, &tcp_header(2));
        let before = packet.clone();
        assert_eq!(settle(&header(2, 0, 0, 0, 0), 14, &mut packet), Some(None));
        assert_eq!(packet, before);
    }

    #[test]
    fn large_tcp_becomes_segments_that_are_each_right() {
        for v6 in [false, true] {
            let at = if v6 { 40 } else { 20 };
            let data: Vec<u8> = (0..250).collect();
            let flags = tcp::ACK | tcp::FIN | PSH | CWR;
            let mut packet = ip(v6, protocol::TCP, &[tcp_header(flags), data.clone()].concat());
            let gso = header(
                NEEDS_CHECKSUM,
                if v6 { GSO_TCP6 } else { GSO_TCP4 } | GSO_ECN,
                100,
                14 + at as u16,
                16,
            );
            let cut = settle(&gso, 14, &mut packet).unwrap().unwrap();
            let parts = segments(&packet, cut).unwrap();
            let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
            assert_eq!(sizes, [at + 24 + 100, at + 24 + 100, at + 24 + 50]);
            assert_eq!(parts.iter().flat_map(|p| p[at + 24..].to_vec()).collect::<Vec<_>>(), data);
            for (i, part) in parts.iter().enumerate() {
                assert_eq!(declared_length(part), Some(part.len()));
                assert_eq!(residue(part, at, protocol::TCP), 0);
                let sequence = u32::from_be_bytes(*part[at + 4..].first_chunk().unwrap());
                assert_eq!(sequence, 0xffff_ff00u32.wrapping_add(i as u32 * 100));
                if !v6 {
                    assert_eq!(checksum::of(&part[..20], 0), 0);
                    assert_eq!(u16::from_be_bytes([part[4], part[5]]), 0xffffu16.wrapping_add(i as u16));
                }
            }
            let flags: Vec<u8> = parts.iter().map(|p| p[at + 13]).collect();
            assert_eq!(flags, [tcp::ACK | CWR, tcp::ACK, tcp::ACK | tcp::FIN | PSH]);
        }
    }

    #[test]
    fn large_udp_becomes_datagrams() {
        for v6 in [false, true] {
            let at = if v6 { 40 } else { 20 };
            let mut packet = ip(v6, protocol::UDP, &[vec![0, 53, 0, 54, 0, 0, 0, 0], vec![7; 150]].concat());
            let cut = settle(&header(NEEDS_CHECKSUM, GSO_UDP, 100, at as u16, 6), 0, &mut packet);
            let parts = segments(&packet, cut.unwrap().unwrap()).unwrap();
            assert_eq!(parts.len(), 2);
            for (part, size) in parts.iter().zip([108, 58]) {
                assert_eq!(part[at + 4..at + 6], [0, size]);
                assert_eq!(residue(part, at, protocol::UDP), 0);
            }
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let mut packet = ip(false, protocol::TCP, &tcp_header(2));
        // Unknown kind, no size, no checksum start, a checksum beyond the packet.
        for bad in [
            header(NEEDS_CHECKSUM, 3, 100, 34, 16),
            header(NEEDS_CHECKSUM, GSO_TCP4, 0, 34, 16),
            header(0, GSO_TCP4, 100, 34, 16),
            header(NEEDS_CHECKSUM, GSO_TCP4, 100, 5, 16),
            header(NEEDS_CHECKSUM, 0, 0, 34, 60),
            header(NEEDS_CHECKSUM, 0, 0, 500, 16),
        ] {
            assert_eq!(settle(&bad, 14, &mut packet), None, "{bad:?}");
        }
        let beyond = Cut { payload: 10, transport: 30, protocol: protocol::TCP };
        assert_eq!(segments(&packet, beyond), None);
        assert_eq!(segments(&[], beyond), None);
    }
}
