//! The Internet checksum, updated incrementally (RFC 1624).

/// Folds carries into 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The difference, as a one's complement sum, of replacing `old` (a sum of 16-bit words) by `new`.
#[inline(always)]
pub const fn difference(old: u32, new: u32) -> u32 {
    (!fold(old) as u32) + fold(new) as u32
}

/// `checksum` after what it covers changed by `difference`: HC' = ~(~HC + ~m + m').
#[inline(always)]
pub const fn adjust(checksum: u16, difference: u32) -> u16 {
    !fold(!checksum as u32 + fold(difference) as u32)
}

/// The checksum of `bytes`, from scratch. For tests and for packets made here.
pub fn of(bytes: &[u8], initial: u32) -> u16 {
    let mut sum = u64::from(initial);
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjusting_equals_computing_anew() {
        let mut bytes = [0x45, 0, 0, 0x54, 0x12, 0x34, 0x40, 0, 0x40, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        for new in [0u32, 1, 0xffff, 0x1234_5678, 0xffff_ffff, 0xfffe_0001] {
            let before = of(&bytes, 0);
            let old = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
            bytes[12..16].copy_from_slice(&new.to_be_bytes());
            let words = |x: u32| (x >> 16) + (x & 0xffff);
            assert_eq!(adjust(before, difference(words(old), words(new))), of(&bytes, 0));
        }
    }
}
