//! Cutting packets into fragments, as senders, routers and attackers do.

use crate::random::Random;

/// The fragments of a packet without IPv6 extension headers, in order: each but the last with `units` times eight bytes.
pub fn cut(bytes: &[u8], six: bool, id: u16, units: usize) -> Vec<Vec<u8>> {
    let header = if six { 40 } else { usize::from(bytes[0] & 15) * 4 };
    let data = &bytes[header..];
    let count = data.len().div_ceil(units * 8);
    let chunk = |i: usize| &data[i * units * 8..data.len().min((i + 1) * units * 8)];
    (0..count).map(|i| piece(&bytes[..header], six, id, i * units, i + 1 < count, chunk(i))).collect()
}

/// One fragment: `data` at `start` eight-byte units.
pub fn piece(header: &[u8], six: bool, id: u16, start: usize, more: bool, data: &[u8]) -> Vec<u8> {
    let mut out = header.to_vec();
    if six {
        let [a, b] = ((start as u16) << 3 | u16::from(more)).to_be_bytes();
        let [c, d] = id.to_be_bytes();
        out.extend([header[6], 0, a, b, 0, 0, c, d]);
        out[6] = 44;
        out[4..6].copy_from_slice(&((8 + data.len()) as u16).to_be_bytes());
    } else {
        let word = start as u16 | if more { 0x2000 } else { 0 };
        out[2..4].copy_from_slice(&((header.len() + data.len()) as u16).to_be_bytes());
        out[4..6].copy_from_slice(&id.to_be_bytes());
        out[6..8].copy_from_slice(&word.to_be_bytes());
        out[10..12].fill(0);
        let sum = crate::packets::checksum(&[&out]);
        out[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    out.extend(data);
    out
}

/// Fragments of a packet in the order they arrive, and whatever else comes with them: some lost, repeated, out of order, cut
/// anew so that they overlap, or of an impossible shape.
pub fn arrive(r: &mut Random, bytes: &[u8], six: bool) -> Vec<Vec<u8>> {
    // Few ids, so that they are used again.
    let id = r.pick(&[1, 2, 3, 0xffff]);
    let units = r.pick(&[1, 2, 3, 4, 8, 20]);
    let mut pieces = cut(bytes, six, id, units);
    for _ in 0..r.pick(&[0, 0, 0, 1, 1, 2]) {
        let (at, to) = (r.below(pieces.len().max(1)), r.below(pieces.len() + 1));
        match r.below(7) {
            0 if !pieces.is_empty() => drop(pieces.remove(at)),
            1 if !pieces.is_empty() => pieces.insert(to, pieces[at].clone()),
            2 if !pieces.is_empty() => {
                let moved = pieces.remove(at);
                pieces.insert(to.min(pieces.len()), moved);
            }
            3 => {
                // The same datagram cut otherwise: overlaps.
                let units = r.pick(&[1, 2, 3, 5, 7]);
                let other = cut(bytes, six, id, units);
                if !other.is_empty() {
                    pieces.insert(to, r.pick(&other));
                }
            }
            4 => {
                // Any shape: a tiny first, offset 1, an end too early, beyond the largest datagram.
                let header = if six { 40 } else { usize::from(bytes[0] & 15) * 4 };
                let start = r.pick(&[0, 0, 1, 2, 3, 5, 9, 30, 8190, 8191]);
                let length = r.pick(&[0, 7, 8, 16, 24, 40]).min(bytes.len() - header);
                let data = &bytes[header..header + length];
                pieces.insert(to, piece(&bytes[..header], six, id, start, r.chance(60), data));
            }
            5 => pieces.reverse(),
            _ => {
                let mut tail = pieces.split_off(pieces.len().min(1));
                tail.reverse();
                pieces.extend(tail);
            }
        }
    }
    pieces
}
