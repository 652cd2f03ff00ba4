//! The guard's rules read off docs/packet-semantics.md, 11, as plainly as they can be written, and frames to try them on.

/// Whether the guard of `port` on a host with the addresses `own` refuses `frame` as malformed.
pub(crate) fn refuses(frame: &[u8], port: u16, own: [&[u8]; 2]) -> bool {
    let word = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
    let is_tag = |at| matches!(word(at), Some(0x8100 | 0x88a8));
    let ethertype = match (is_tag(12), is_tag(16)) {
        (true, true) => 20,
        (true, false) => 16,
        _ => 12,
    };
    let packet = frame.get(ethertype + 2..).unwrap_or_default();
    match word(ethertype) {
        Some(0x0800) => refuses4(packet, port, own[0]).unwrap_or(false),
        Some(0x86dd) => refuses6(packet, port, own[1]).unwrap_or(false),
        _ => false,
    }
}

/// `None` where the packet ends before it can be told.
fn refuses4(packet: &[u8], port: u16, own: &[u8]) -> Option<bool> {
    let header = packet.get(..20)?;
    let length = usize::from(header[0] & 15) * 4;
    let (more, offset) = (header[6] & 0x20 != 0, u16::from_be_bytes([header[6] & 0x1f, header[7]]));
    if header[0] >> 4 != 4 || length < 20 || header[9] != 17 || offset != 0 {
        return Some(false);
    }
    let end = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let everyone = header[16..19] == own[..3] && header[19] == 255;
    let heard = &header[16..20] == own || everyone || header[16] >= 224;
    let for_us = is_for(packet.get(length..length + 8)?, port) && heard;
    Some(for_us && (more || !is_message(packet, length, end)))
}

fn refuses6(packet: &[u8], port: u16, own: &[u8]) -> Option<bool> {
    let header = packet.get(..40)?;
    if header[0] >> 4 != 6 {
        return Some(false);
    }
    let end = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let heard = &header[24..40] == own || header[24] == 0xff;
    let (mut next, mut at, mut fragment) = (header[6], 40, false);
    let mut walked = 0;
    while matches!(next, 0 | 43 | 44 | 51 | 60) {
        let extension = packet.get(at..at + 4)?;
        let length = match next {
            44 if u16::from_be_bytes([extension[2], extension[3]]) >= 8 => return Some(false),
            44 => 8,
            51 => (usize::from(extension[1]) + 2) * 4,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
        fragment |= next == 44;
        (next, at, walked) = (extension[0], at + length, walked + 1);
        if at > 512 || (walked == 6 && next != 17) {
            return Some(heard);
        }
    }
    if next != 17 {
        return Some(false);
    }
    let for_us = is_for(packet.get(at..at + 8)?, port) && heard;
    Some(for_us && (fragment || !is_message(packet, at, end)))
}

fn is_for(udp: &[u8], port: u16) -> bool {
    udp[2..4] == port.to_be_bytes()
}

/// Whether a UDP datagram that starts at `at` of a packet that ends at `end` is a message of WireGuard.
fn is_message(packet: &[u8], at: usize, end: usize) -> bool {
    let declared = usize::from(u16::from_be_bytes([packet[at + 4], packet[at + 5]]));
    let Some(payload) = packet.get(at + 8..end) else { return false };
    declared == payload.len() + 8
        && match payload {
            [1, 0, 0, 0, rest @ ..] => rest.len() == 144,
            [2, 0, 0, 0, rest @ ..] => rest.len() == 88,
            [3, 0, 0, 0, rest @ ..] => rest.len() == 60,
            [4, 0, 0, 0, rest @ ..] => rest.len() >= 28 && rest.len() % 16 == 12,
            _ => false,
        }
}

/// Frames that are nearly right, one after the other, the same for the same seed.
pub(crate) struct Nearly(pub(crate) u64);

impl Nearly {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // xorshift64 (Marsaglia 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A frame that is most likely a message for `port` of one of `own`, in some way or other.
    pub(crate) fn frame(&mut self, port: u16, own: [&[u8]; 2]) -> Vec<u8> {
        let length = self.pick(&[148, 92, 64, 32, 48, 1424, 147, 40, 0, 3]);
        let mut payload = vec![0x77; length];
        for (byte, value) in payload.iter_mut().zip([self.pick(&[1, 2, 3, 4, 4, 5]), 0, 0, 0]) {
            *byte = value;
        }
        let mut datagram = [40_000u16, self.pick(&[port, port, port, port + 1]), 8 + length as u16, 0]
            .map(u16::to_be_bytes)
            .concat();
        datagram.extend(payload);
        const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let six = self.below(2) == 1;
        let packet = if six {
            let to = self.pick(&[own[1], own[1], own[1], &ALL_NODES]);
            self.v6(&datagram, to)
        } else {
            let to = self.pick(&[own[0], own[0], own[0], &[255; 4], &[224, 0, 0, 1]]);
            self.v4(&datagram, to)
        };
        let mut frame = vec![2; 12];
        for _ in 0..self.pick(&[0, 0, 0, 1, 2, 3]) {
            frame.extend(self.pick(&[[0x81, 0, 0, 7], [0x88, 0xa8, 0, 9]]));
        }
        frame.extend(if six { [0x86, 0xdd] } else { [8, 0] });
        frame.extend(packet);
        self.spoil(&mut frame);
        frame
    }

    fn v4(&mut self, datagram: &[u8], own: &[u8]) -> Vec<u8> {
        let options = self.pick(&[0, 0, 4, 40]);
        let mut packet = vec![0x45 + options as u8 / 4, 0];
        packet.extend((20 + options as u16 + datagram.len() as u16).to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(self.pick(&[0u16, 0, 0, 0x4000, 0x2000, 0x2001, 9]).to_be_bytes());
        packet.extend([64, 17, 0, 0, 198, 51, 100, self.below(256) as u8]);
        packet.extend(own);
        packet.extend(vec![1; options]);
        [packet, datagram.to_vec()].concat()
    }

    fn v6(&mut self, datagram: &[u8], own: &[u8]) -> Vec<u8> {
        let mut chain = Vec::new();
        for _ in 0..self.pick(&[0, 0, 0, 1, 2, 6, 7, 9]) {
            chain.push(self.pick(&[0u8, 43, 44, 51, 60, 60]));
        }
        let mut rest = Vec::new();
        for (i, kind) in chain.iter().enumerate() {
            let next = chain.get(i + 1).copied().unwrap_or(17);
            rest.extend(match kind {
                44 => vec![next, 0, 0, self.pick(&[0, 1, 8]), 0, 0, 0, 1],
                51 => [vec![next, 1], vec![0; 10]].concat(),
                _ => match self.below(8) {
                    0 => [vec![next, 60], vec![0; 486]].concat(),
                    _ => vec![next, 0, 1, 4, 0, 0, 0, 0],
                },
            });
        }
        rest.extend(datagram);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((rest.len() as u16).to_be_bytes());
        packet.extend([chain.first().copied().unwrap_or(17), 64]);
        packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, self.below(4) as u8, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        packet.extend(own);
        [packet, rest].concat()
    }

    /// Changes, cuts off or adds a little, now and then.
    fn spoil(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..self.pick(&[0, 0, 1, 1, 2]) {
            let at = self.below(frame.len().min(140));
            frame[at] ^= 1 << self.below(8);
        }
        match self.below(8) {
            0 => frame.truncate(14 + self.below(frame.len() - 14)),
            1 => frame.extend([0; 6]),
            _ => {}
        }
    }
}
