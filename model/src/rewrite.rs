//! What a forwarded packet looks like: written anew, with checksums computed in full.
//!
//! A packet whose checksum was wrong on arrival leaves with one that is wrong by as much: a gateway must not make a damaged
//! packet look whole.

use std::net::IpAddr;

use crate::packets::{octets, pseudo, sum};
use crate::parse::{Header, Quote};

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    pub ttl: u8,
}

/// The packet with its addresses, ports (or ICMP echo id) and TTL replaced.
pub fn rewrite(bytes: &[u8], header: &Header, change: &Change) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let six = header.source.is_ipv6();
    let (from, width) = if six { (8, 16) } else { (12, 4) };
    out[if six { 7 } else { 8 }] = change.ttl;
    out[from..from + width].copy_from_slice(&octets(change.source.0));
    out[from + width..from + 2 * width].copy_from_slice(&octets(change.destination.0));
    if !six {
        restore(&mut out[..header.transport], 10, &[], &bytes[..header.transport], &[], 0);
    }
    if header.fragment.is_some_and(|fragment| fragment.start != 0) {
        return out;
    }
    let segment = header.transport..header.length;
    let at = match header.protocol {
        6 => 16,
        17 => 6,
        p if p == header.icmp() => 2,
        _ => return out,
    };
    match at {
        2 => {
            let id = if header.is_echo_request() { change.source.1 } else { change.destination.1 };
            out[header.transport + 4..header.transport + 6].copy_from_slice(&id.to_be_bytes());
        }
        _ => {
            out[header.transport..header.transport + 2].copy_from_slice(&change.source.1.to_be_bytes());
            out[header.transport + 2..header.transport + 4]
                .copy_from_slice(&change.destination.1.to_be_bytes());
        }
    }
    let unchecked = at == 6 && bytes[header.transport + 6..header.transport + 8] == [0, 0];
    let same = out[segment.clone()] == bytes[segment.clone()]
        && pseudo(change.source.0, change.destination.0) == pseudo(header.source, header.destination);
    if unchecked || same {
        return out;
    }
    let (before, after) = if at == 2 && !six {
        (Vec::new(), Vec::new())
    } else {
        (pseudo(header.source, header.destination), pseudo(change.source.0, change.destination.0))
    };
    let rest = u16::from(header.protocol).wrapping_add((header.length - header.transport) as u16);
    let rest = if before.is_empty() { 0 } else { rest };
    restore(&mut out[segment.clone()], at, &after, &bytes[segment], &before, rest);
    if at == 6 && out[header.transport + 6..header.transport + 8] == [0, 0] {
        out[header.transport + 6..header.transport + 8].fill(0xff); // RFC 768
    }
    out
}

/// An ICMP error with the addresses and ports of its header and of its quotation replaced.
pub fn rewrite_error(
    bytes: &[u8],
    header: &Header,
    quote: &Quote,
    outer: &Change,
    inner: &Change,
) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let six = header.source.is_ipv6();
    let (from, width) = if six { (8, 16) } else { (12, 4) };
    let mut addresses = |at: usize, change: &Change| {
        out[at + from..at + from + width].copy_from_slice(&octets(change.source.0));
        out[at + from + width..at + from + 2 * width].copy_from_slice(&octets(change.destination.0));
    };
    addresses(0, outer);
    addresses(quote.start, inner);
    out[if six { 7 } else { 8 }] = outer.ttl;
    if !six {
        restore(&mut out[..header.transport], 10, &[], &bytes[..header.transport], &[], 0);
        let quoted = quote.start..quote.transport;
        if out[quoted.clone()] != bytes[quoted.clone()] {
            restore(&mut out[quoted.clone()], 10, &[], &bytes[quoted], &[], 0);
        }
    }

    let icmp = header.icmp();
    let at = quote.transport;
    let field = match quote.protocol {
        6 | 17 => {
            out[at..at + 2].copy_from_slice(&inner.source.1.to_be_bytes());
            out[at + 2..at + 4].copy_from_slice(&inner.destination.1.to_be_bytes());
            if quote.protocol == 6 { 16 } else { 6 }
        }
        p if p == icmp => {
            let reply = [0, 129].contains(&bytes[at]);
            let id = if reply { inner.destination.1 } else { inner.source.1 };
            out[at + 4..at + 6].copy_from_slice(&id.to_be_bytes());
            2
        }
        _ => usize::MAX,
    };
    let segment = at..header.length;
    let (before, after) = if quote.protocol == icmp && !six {
        (Vec::new(), Vec::new())
    } else {
        (pseudo(quote.source.0, quote.destination.0), pseudo(inner.source.0, inner.destination.0))
    };
    let changed = out[segment.clone()] != bytes[segment.clone()] || before != after;
    let there = field != usize::MAX && at + field + 2 <= header.length;
    if there && changed && !(quote.protocol == 17 && bytes[at + 6..at + 8] == [0, 0]) {
        restore(&mut out[segment.clone()], field, &after, &bytes[segment], &before, 0);
        if quote.protocol == 17 && out[at + 6..at + 8] == [0, 0] {
            out[at + 6..at + 8].fill(0xff);
        }
    }

    let message = header.transport..header.length;
    let (before, after) = if six {
        (pseudo(header.source, header.destination), pseudo(outer.source.0, outer.destination.0))
    } else {
        (Vec::new(), Vec::new())
    };
    if out[message.clone()] != bytes[message.clone()] || before != after {
        restore(&mut out[message.clone()], 2, &after, &bytes[message], &before, 0);
    }
    out
}

/// Sets the checksum at `at` in `new` so that everything sums up to what `old` summed up to: all ones in an undamaged
/// packet. `rest` is the part of the pseudo-header that does not change.
pub(crate) fn restore(
    new: &mut [u8],
    at: usize,
    new_pseudo: &[u8],
    old: &[u8],
    old_pseudo: &[u8],
    rest: u16,
) {
    let rest = rest.to_be_bytes();
    let total = sum(&[old_pseudo, &rest, old]);
    new[at..at + 2].fill(0);
    let without = sum(&[new_pseudo, &rest, new]);
    // total - without, in one's complement; zero is written as zero.
    let difference = sum(&[&total.to_be_bytes(), &(!without).to_be_bytes()]);
    let checksum = if difference == 0xffff { 0 } else { difference };
    new[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}
