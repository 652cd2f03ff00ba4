//! Masquerade: a source address of the gateway, and a port nobody uses towards that destination.

use crate::family::Family;
use crate::flow::Key;
use crate::mapping;
use crate::packet::protocol;
use crate::reason::DropReason;
use crate::stage::Refusal;
use crate::tables::{Config, ENDPOINT_INDEPENDENT, Egresses, Refused, Stage, Tables};
use crate::work::{Work, settle, settled};

/// Ports tried for one flow. At 90 % occupancy all of them are taken with a chance of 3 %; more would let a full table
/// cost the packet path microseconds.
pub const PROBES: u32 = 32;
const STRIDE_MAX: u16 = 128;
/// Ports tried where [`FAILURES`] whole searches of the same tick found none: a quarter of what those tried, in each tick another.
pub const HASTY_PROBES: u32 = 8;
/// Whole searches of one tick that find none before others are hasty. At 90 % occupancy one in thirty finds none by chance, and
/// would make the others of its tick fail as often as not.
pub const FAILURES: u32 = 4;
/// Places in which it is noted that a search found none.
pub const NOTES: u32 = 256;

/// Inserts the reply half of the flow in `work.opening` under the first free port, which reserves that port: it is
/// `opening.source_port` then.
#[inline(always)]
pub fn reserve<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let Work { key, other, opening, scratch, now, .. } = work;
    let has_ports = matches!(key.protocol, protocol::TCP | protocol::UDP) || key.protocol == F::ICMP;
    let Range { first, count } = Range::of(tables.config());
    let noted = note::<F>(key, opening.source);
    let hasty = failures(tables.exhausted(place(noted)), noted, *now) == FAILURES;
    // In memory alone, as what follows, where the verifier does not follow it.
    settle(scratch, if hasty { HASTY_PROBES } else { PROBES });
    let offset = key.source_port.wrapping_sub(first);
    let spread = spread::<F>(key);
    let candidate = if offset < count { offset } else { (spread % u32::from(count.max(1))) as u16 };
    // Neighbours that collide once should not again: a stride of one's own. It must not come round before all probes are
    // used up, so a small range is walked port by port.
    let stride = if count < STRIDE_MAX * PROBES as u16 { 1 } else { (spread >> 16) as u16 % STRIDE_MAX + 1 };
    // Not the tick itself: who tries again does so after whole seconds.
    let quarter = now.wrapping_mul(0x9e37_79b1) >> 30;
    let skipped = if hasty { HASTY_PROBES * quarter } else { 0 };
    let candidate = ((u32::from(candidate) + skipped * u32::from(stride)) % u32::from(count.max(1))) as u16;
    // Both are put where there is room for them, so that the verifier walks what follows once.
    let mut candidate = settle(&mut other.destination_port, candidate);
    let stride = settle(&mut other.source_port, stride);
    other.source = key.destination;
    other.destination = opening.source;
    other.source_port = key.destination_port;
    other.protocol = key.protocol;
    other.side = opening.reply_side;
    other.padding = 0;
    if is_mapped::<F, T>(tables, work)
        && let Some(port) = mapping::port::<F, T>(tables, work)
    {
        let offset = port.wrapping_sub(first);
        candidate = if offset < count { offset } else { candidate };
    }
    for taken in 0..PROBES {
        let end = if has_ports { settled(&work.scratch) } else { 1 };
        if taken >= end {
            break;
        }
        let port = if has_ports { first.wrapping_add(candidate) } else { 0 };
        work.other.destination_port = port;
        if tables.claim(taken, work)? {
            work.opening.source_port = port;
            if has_ports {
                tables.count_collisions(taken);
            }
            return Ok(true);
        }
        candidate = ((u32::from(candidate) + u32::from(stride)) % u32::from(count.max(1))) as u16;
    }
    // A range that one search walks as a whole always is.
    if has_ports && settled(&work.scratch) == PROBES && u32::from(tables.config().nat_count) > PROBES {
        let noted = note::<F>(&work.key, work.opening.source);
        let before = failures(tables.exhausted(place(noted)), noted, work.now);
        tables.set_exhausted(place(noted), at(noted, work.now, before));
    }
    Err(Refusal::by_rule(DropReason::NatExhausted, work.opening.rule))
}

/// Inserts the reply half of the flow in `work.opening` under the key `work.other`, unless that is in either table, or the
/// port is the host's or another's ([`mapping`]): then `Ok(false)`. The confirmed table is looked at last: a flow moves
/// there before it leaves the half-open one, so it is never in neither.
///
/// Where ports were `taken` already, this one is looked up before: mostly it is taken too, and an insertion that fails costs
/// several look-ups. A first port is free as a rule, and is not looked up twice.
#[inline(always)]
pub fn claim<F: Egresses, T: Tables<F>>(
    tables: &mut T,
    taken: u32,
    work: &mut Work<F::Address>,
) -> Result<bool, Refusal> {
    let port = work.other.destination_port;
    let ports = matches!(work.key.protocol, protocol::TCP | protocol::UDP);
    if ports && work.opening.masquerade && tables.is_hosts(port) {
        return Ok(false);
    }
    if taken > 0
        && (tables.with_flow(Stage::HalfOpen, &work.other, |_| ()).is_some()
            || tables.with_flow(Stage::Confirmed, &work.other, |_| ()).is_some())
    {
        return Ok(false);
    }
    let mapped = is_mapped::<F, T>(tables, work);
    if mapped && !mapping::is_free::<F, T>(tables, work, port) {
        return Ok(false);
    }
    let Work { key, other, opening, now, active, .. } = work;
    let (now, epoch) = (*now, active.epoch());
    match tables.insert_flow(Stage::HalfOpen, other, false, |flow| opening.reply(key, now, epoch, flow)) {
        Ok(()) => (),
        Err(Refused::Exists) => return Ok(false),
        Err(Refused::Full) => return Err(Refusal::by_rule(DropReason::FlowTableFull, opening.rule)),
    }
    if tables.with_flow(Stage::Confirmed, other, |_| ()).is_some() {
        tables.remove_flow(Stage::HalfOpen, other);
        return Ok(false);
    }
    if mapped {
        mapping::take::<F, T>(tables, work, port);
    }
    Ok(true)
}

/// Whether the flow in `work.opening` gets the port that its source has towards every destination.
#[inline(always)]
fn is_mapped<F: Egresses, T: Tables<F>>(tables: &T, work: &Work<F::Address>) -> bool {
    let wanted = tables.config().flags & ENDPOINT_INDEPENDENT != 0;
    wanted && work.opening.masquerade && work.key.protocol == protocol::UDP
}

/// Whose ports they are that a search found taken: the gateway's address, towards one destination.
#[inline(always)]
fn note<F: Family>(key: &Key<F::Address>, source: F::Address) -> u32 {
    let end = u32::from(key.destination_port) << 8 | u32::from(key.protocol);
    let addresses =
        F::sum(source).wrapping_mul(0x9e37_79b1) ^ F::sum(key.destination).wrapping_mul(0x85eb_ca6b);
    let mixed = (end ^ addresses).wrapping_mul(0x9e37_79b1);
    mixed ^ mixed >> 15
}

/// Where that is noted: a later note of others is kept instead.
#[inline(always)]
fn place(note: u32) -> u32 {
    note % NOTES
}

/// What is noted of another search that found none, `before` which as many of the tick did: it counts for the rest of the tick.
#[inline(always)]
fn at(note: u32, now: u32, before: u32) -> u64 {
    let before = if before < FAILURES { before } else { FAILURES - 1 };
    u64::from(note & !(FAILURES - 1) | before) << 32 | u64::from(now)
}

/// How many whole searches of this tick found none, by what is noted; [`FAILURES`] at the most.
#[inline(always)]
fn failures(noted: u64, note: u32, now: u32) -> u32 {
    let whose = (noted >> 32) as u32;
    let same = noted as u32 == now && (whose ^ note) & !(FAILURES - 1) == 0;
    if same && noted != 0 { (whose & (FAILURES - 1)) + 1 } else { 0 }
}

struct Range {
    first: u16,
    count: u16,
}

impl Range {
    #[inline(always)]
    fn of(config: &Config) -> Self {
        Self { first: config.nat_first, count: config.nat_count }
    }
}

/// Where in the range to start: a hash of the tuple (Fibonacci mixing), so that equal inputs give equal ports.
#[inline(always)]
fn spread<F: Family>(key: &Key<F::Address>) -> u32 {
    let ports = u32::from(key.source_port) << 16 | u32::from(key.destination_port);
    let addresses =
        F::sum(key.source).wrapping_mul(0x9e37_79b1) ^ F::sum(key.destination).wrapping_mul(0x85eb_ca6b);
    let mixed = (ports ^ addresses ^ u32::from(key.protocol)).wrapping_mul(0x9e37_79b1);
    mixed ^ mixed >> 15
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::vec::Vec;

    use super::*;
    use crate::family::{V4, V6};

    /// Notes of each of these towards each of those, by two protocols.
    fn notes<F: Family>(gateways: [F::Address; 2], servers: [F::Address; 2]) -> Vec<u32> {
        let mut notes = Vec::new();
        for gateway in gateways {
            for destination in servers {
                for (destination_port, protocol) in [(53, 17), (54, 17), (53, 6), (0, 1)] {
                    let key = Key { destination, destination_port, protocol, ..Key::default() };
                    notes.push(note::<F>(&key, gateway));
                    let other = Key { source: gateway, source_port: 9, ..key };
                    assert_eq!(notes.last(), Some(&note::<F>(&other, gateway)), "whoever opens the flow");
                }
            }
        }
        notes
    }

    #[test]
    fn searches_that_found_nothing_are_noted_apart_by_address_and_destination() {
        let v4 = |last| Ipv4Addr::new(203, 0, 113, last).into();
        let v6 = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into();
        for mut all in
            [notes::<V4>([v4(1), v4(2)], [v4(3), v4(4)]), notes::<V6>([v6(1), v6(2)], [v6(3), v6(4)])]
        {
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 16);
            assert!(all.iter().all(|note| place(*note) < NOTES));
        }
        // Four of one tick are counted, and none of another tick, nor of others that have the same place.
        let mut noted = 0;
        for before in [0, 1, 2, 3, 4, 4] {
            assert_eq!(failures(noted, 0x107, 9), before);
            assert_eq!(failures(noted, 0x107, 10), 0, "a note is of one tick");
            assert_eq!(failures(noted, 0x207, 9), 0, "a note is of those who have that hash");
            noted = at(0x107, 9, before);
        }
    }
}
