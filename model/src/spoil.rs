//! Damage to a packet: what broken, hostile and merely unusual senders do.

use crate::random::Random;

/// Spoils a packet in one way.
pub fn spoil(r: &mut Random, bytes: &mut Vec<u8>, six: bool) {
    let header = if six { 40 } else { 20 };
    match r.below(12) {
        // Cut short.
        0 => {
            let length = r.below(bytes.len() + 1);
            bytes.truncate(length);
        }
        // Cut in the transport header, with a length field that agrees.
        1 => {
            let length = (header + r.below(24)).min(bytes.len());
            bytes.truncate(length);
            declare(bytes, six, length);
        }
        // A length field that does not agree.
        2 => {
            let length = r.pick(&[0, 19, header, header + 4, bytes.len() + 1, bytes.len() - 1, 65535]);
            declare(bytes, six, length);
        }
        // Padding of the link layer.
        3 => bytes.extend(std::iter::repeat_n(0xaa, 1 + r.below(40))),
        4 if six => {
            // An atomic fragment, a first one, a later one: the header is put before the transport.
            let word = r.pick(&[0u16, 1, 8, 9, 0x100]);
            let mut fragment = vec![bytes[6], 0, 0, 0, 0, 0, 0, 7];
            fragment[2..4].copy_from_slice(&word.to_be_bytes());
            bytes[6] = 44;
            bytes.splice(40..40, fragment);
            let length = bytes.len();
            declare(bytes, six, length);
        }
        4 => {
            let word = r.pick(&[0x2000u16, 1, 0x2010, 0x8000, 0x4000, 0x4001, 0]);
            set(bytes, 6, word);
        }
        // Wrong checksums.
        5 => {
            let at = header + r.pick(&[2, 6, 7, 10, 16, 17]);
            flip(r, bytes, at);
        }
        6 if !six => flip(r, bytes, 10),
        // Wrong version or header length.
        7 => {
            let value = r.pick(&[0x40, 0x44, 0x45, 0x46, 0x4f, 0x60, 0x6f, 0x00, 0x75]);
            if let Some(first) = bytes.first_mut() {
                *first = value;
            }
        }
        // TCP's data offset.
        8 => {
            if let Some(byte) = bytes.get_mut(header + 12) {
                *byte = r.pick(&[0, 0x40, 0x50, 0x60, 0xf0]);
            }
        }
        // An extension that leads nowhere.
        9 if six => bytes[6] = r.pick(&[0, 43, 44, 51, 59, 60]),
        // UDP's own length, or no checksum at all.
        10 => {
            let value = r.pick(&[0u16, 7, 8, 9, 1000]);
            let field = r.pick(&[4, 6]);
            set(bytes, header + field, value);
        }
        _ => {
            let at = r.below(bytes.len().max(1));
            flip(r, bytes, at);
        }
    }
}

fn declare(bytes: &mut [u8], six: bool, length: usize) {
    if six {
        set(bytes, 4, length.saturating_sub(40) as u16);
    } else {
        set(bytes, 2, length as u16);
    }
}

fn set(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(target) = bytes.get_mut(at..at + 2) {
        target.copy_from_slice(&value.to_be_bytes());
    }
}

fn flip(r: &mut Random, bytes: &mut [u8], at: usize) {
    let mask = 1 << r.below(8);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= mask;
    }
}
