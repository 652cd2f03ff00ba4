//! The maximum segment size that TCP ends tell each other, lowered to what the path carries: the path MTU is then right from
//! the first packet on, also where something on the way swallows ICMP.

use crate::checksum::difference;
use crate::family::Family;
use crate::packet::Packet;

/// A TCP header is no longer than this (RFC 9293 3.1: a data offset of 15 words).
pub const HEADER_MAX: u32 = 60;
/// Options looked at: every stack puts this one first or second.
const OPTIONS_MAX: u32 = 20;

const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;
/// Length of the MSS option: kind, length, and the size.
const MSS_LENGTH: u8 = 4;

/// The largest segment that crosses two devices, by their MTUs (0 for no limit): the IP header and TCP's without options
/// are left out (RFC 6691 2). `None` where nothing limits it.
#[inline(always)]
pub const fn largest<F: Family>(mtu: u32, other: u32) -> Option<u16> {
    let mtu = if other != 0 && (mtu == 0 || other < mtu) { other } else { mtu };
    let headers = if F::VERSION == 4 { 20 + 20 } else { 40 + 20 };
    if mtu <= headers || mtu - headers > 0xffff { None } else { Some((mtu - headers) as u16) }
}

/// Lowers the MSS option of the SYN whose TCP header starts at `transport` to `largest`. It is never raised. A SYN without
/// the option stays as it is, since what is meant then (536 and 1,220 bytes, RFC 9293 3.7.1) fits anyway; and so does one
/// whose options cannot be walked as far as that.
#[inline(always)]
pub fn clamp(packet: &mut impl Packet, transport: u32, largest: u16) {
    let Some([words, _]) = packet.read::<2>(transport + 12) else { return };
    let end = transport + u32::from(words >> 4) * 4;
    let mut at = transport + 20;
    for _ in 0..OPTIONS_MAX {
        if at + u32::from(MSS_LENGTH) > end {
            return;
        }
        let Some([kind, length]) = packet.read::<2>(at) else { return };
        match (kind, length) {
            (NOTHING, _) => at += 1,
            (MSS, MSS_LENGTH) => return lower(packet, transport, at + 2, largest),
            (END | MSS, _) | (_, 0 | 1) => return,
            _ => at += u32::from(length),
        }
    }
}

/// Lowers the number at `at`.
#[inline(always)]
fn lower(packet: &mut impl Packet, transport: u32, at: u32, largest: u16) {
    let Some(size) = packet.read::<2>(at).map(u16::from_be_bytes) else { return };
    if size <= largest {
        return;
    }
    // Behind an odd number of bytes the number's halves stand in two words of the sum.
    let odd = (at - transport) & 1 != 0;
    let place = |x: u16| u32::from(if odd { x.swap_bytes() } else { x });
    if packet.adjust_checksum(transport + 16, 0, difference(place(size), place(largest)), false) {
        packet.write(at, largest.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::checksum;
    use crate::family::{V4, V6};
    use crate::packet::Slice;

    /// A TCP header with these options, filled up with zeros, behind a 20-byte header; its checksum is right.
    fn syn(options: &[u8]) -> Vec<u8> {
        let mut packet = [[7; 20], [0; 20]].concat();
        packet.extend(options);
        packet.resize(packet.len().next_multiple_of(4), 0);
        packet[32] = (((packet.len() - 20) / 4) << 4) as u8;
        packet[33] = 2;
        let sum = checksum::of(&packet[20..], 0);
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn clamped(options: &[u8]) -> Vec<u8> {
        let mut packet = syn(options);
        clamp(&mut Slice(&mut packet), 20, 1240);
        assert_eq!(checksum::of(&packet[20..], 0), 0, "{options:?}");
        packet
    }

    #[test]
    fn a_larger_size_is_lowered_wherever_it_stands() {
        for (before, after) in [
            (&[2, 4, 5, 0xb4][..], &[2, 4, 0x04, 0xd8][..]),
            (&[1, 2, 4, 0xff, 0xff], &[1, 2, 4, 0x04, 0xd8]),
            (
                &[3, 3, 7, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 2, 4, 5, 0xb4, 0],
                &[3, 3, 7, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 2, 4, 0x04, 0xd8, 0],
            ),
        ] {
            assert_eq!(clamped(before), syn(after));
        }
        // The last one looked at, and at the very end of the longest header.
        let full = [&[4, 2].repeat(17)[..], &[1, 1, 2, 4, 5, 0xb4]].concat();
        assert_eq!(clamped(&full)[76..80], [2, 4, 0x04, 0xd8]);
    }

    #[test]
    fn whatever_else_stays_as_it_is() {
        for options in [
            &[][..],
            &[2, 4, 0x04, 0xd8],
            &[2, 4, 2, 0x18],
            // Of a wrong length, behind the end, behind an option that never ends, cut off by the header's end.
            &[2, 3, 5, 0xb4],
            &[2, 6, 5, 0xb4, 0, 0, 0, 0],
            &[0, 2, 4, 5, 0xb4, 0, 0, 0],
            &[8, 0, 2, 4, 5, 0xb4, 0, 0],
            &[8, 1, 2, 4, 5, 0xb4, 0, 0],
            &[8, 255, 2, 4, 5, 0xb4, 0, 0],
            &[1, 1, 2, 4],
            &[1; 40],
            // The twenty-first.
            &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 5, 0xb4],
        ] {
            assert_eq!(clamped(options), syn(options));
        }
    }

    #[test]
    fn payload_is_no_option() {
        let mut packet = syn(&[]);
        packet.extend([2, 4, 5, 0xb4]);
        let before = packet.clone();
        clamp(&mut Slice(&mut packet), 20, 1240);
        assert_eq!(packet, before);
        // Options beyond the packet, which the parser refuses before.
        let mut cut = syn(&[1, 1, 1, 1, 2, 4, 5, 0xb4]);
        cut.truncate(44);
        let before = cut.clone();
        clamp(&mut Slice(&mut cut), 20, 1240);
        assert_eq!(cut, before);
    }

    #[test]
    fn the_smaller_device_limits() {
        assert_eq!(largest::<V4>(1500, 1280), Some(1240));
        assert_eq!(largest::<V4>(1280, 1500), Some(1240));
        assert_eq!(largest::<V6>(1500, 1280), Some(1220));
        assert_eq!((largest::<V4>(0, 1420), largest::<V6>(1500, 0)), (Some(1380), Some(1440)));
        assert_eq!(
            (largest::<V4>(0, 0), largest::<V6>(60, 0), largest::<V4>(100_000, 0)),
            (None, None, None)
        );
    }
}
