//! The segment size that a SYN tells, lowered to what crosses the gateway.

use crate::parse::Header;
use crate::rewrite::restore;

/// Options looked at.
const LOOKED_AT: usize = 20;

/// Lowers the MSS option of the SYN to what fits through devices with these MTUs (0 for no limit).
pub fn clamp(bytes: &mut [u8], header: &Header, mtus: [u32; 2]) {
    let headers = if header.source.is_ipv6() { 60 } else { 40 };
    let Some(mtu) = mtus.into_iter().filter(|mtu| *mtu != 0).min() else { return };
    let Some(largest) = mtu.checked_sub(headers).filter(|n| *n != 0).and_then(|n| u16::try_from(n).ok())
    else {
        return;
    };
    let Some(at) = find(&bytes[header.transport..]) else { return };
    let size = u16::from_be_bytes([bytes[header.transport + at], bytes[header.transport + at + 1]]);
    if size > largest {
        let segment = &mut bytes[header.transport..header.length];
        let before = segment.to_vec();
        segment[at..at + 2].copy_from_slice(&largest.to_be_bytes());
        restore(segment, 16, &[], &before, &[], 0);
    }
}

/// Where the number stands in a TCP header, if there is one whose option can be reached.
fn find(segment: &[u8]) -> Option<usize> {
    let options = &segment[..usize::from(segment[12] >> 4) * 4];
    let mut at = 20;
    for _ in 0..LOOKED_AT {
        match *options.get(at..)? {
            [1, ..] => at += 1,
            [2, 4, _, _, ..] => return Some(at + 2),
            [0 | 2, ..] | [_, 0 | 1, ..] => return None,
            [_, length, ..] => at += usize::from(length),
            _ => return None,
        }
    }
    None
}
