//! ICMP errors of the gateway's own, written byte by byte from RFC 792, RFC 1191 and RFC 4443.

use std::net::IpAddr;

use sluicegate_engine::DropReason;

use crate::packets::{octets, sum};
use crate::parse::Header;

/// Answers a second, and at once: to everybody, and to one sender.
const ALL: [u64; 2] = [1000, 50];
const SENDER: [u64; 2] = [100, 10];
/// Ticks in a second, in every case.
pub const TICKS_PER_SECOND: u32 = 100;

/// How many packets may still be answered.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// In parts of an answer, as many as there are ticks in a second.
    parts: u64,
    at: u64,
    rate: u64,
    burst: u64,
}

impl Allowance {
    /// All of it, for everybody.
    pub fn new(now: u64) -> Self {
        Self::full(ALL, now)
    }

    /// All of it, for one sender.
    pub fn of_sender(now: u64) -> Self {
        Self::full(SENDER, now)
    }

    fn full([rate, burst]: [u64; 2], now: u64) -> Self {
        Self { parts: burst * u64::from(TICKS_PER_SECOND), at: now, rate, burst }
    }

    /// Takes one answer, if there is one.
    pub fn take(&mut self, now: u64) -> bool {
        let one = u64::from(TICKS_PER_SECOND);
        for _ in self.at..now.min(self.at + self.burst * one) {
            self.parts = (self.parts + self.rate).min(self.burst * one);
        }
        self.at = now;
        let enough = self.parts >= one;
        self.parts -= if enough { one } else { 0 };
        enough
    }
}

/// The answer to the sender of a packet that was dropped for `reason` on its way to a device with this MTU; `None` for what
/// is never answered.
pub fn answer(
    bytes: &[u8],
    header: &Header,
    reason: DropReason,
    mtu: u32,
    source: IpAddr,
) -> Option<Vec<u8>> {
    let six = source.is_ipv6();
    let [kind, code] = match (reason, six) {
        (DropReason::TtlExpired, false) => [11, 0],
        (DropReason::TooBig, false) => [3, 4],
        (DropReason::TtlExpired, true) => [3, 0],
        (DropReason::TooBig, true) => [2, 0],
        _ => return None,
    };
    let mtu = if reason == DropReason::TooBig { mtu } else { 0 };
    // As much as an answer of 576 or 1,280 bytes has room for, in whole words.
    let quoted = header.length.min(if six { 1280 - 48 } else { 576 - 28 }) / 4 * 4;
    let mut message = vec![kind, code, 0, 0];
    message.extend(if six { mtu } else { mtu.min(0xffff) }.to_be_bytes());
    message.extend(&bytes[..quoted]);

    let length = message.len() as u16;
    let addresses = [octets(source), octets(header.source)].concat();
    let pseudo = if six { [&addresses[..], &length.to_be_bytes(), &[0, 58]].concat() } else { Vec::new() };
    let checksum = !sum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut packet = if six {
        let [a, b] = length.to_be_bytes();
        [&[0x60, 0, 0, 0, a, b, 58, 64][..], &addresses].concat()
    } else {
        let [a, b] = (length + 20).to_be_bytes();
        let mut ip = [&[0x45, 0xc0, a, b, 0, 0, 0x40, 0, 64, 1, 0, 0][..], &addresses].concat();
        let checksum = !sum(&[&ip]);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        ip
    };
    packet.extend(message);
    Some(packet)
}
