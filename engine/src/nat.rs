//! Masquerade: a source address of the gateway, and a port nobody uses towards that destination.

use crate::family::Family;
use crate::flow::{Flow, Key};
use crate::packet::protocol;
use crate::reason::DropReason;
use crate::tables::{Config, Refused, Stage, Tables};

/// Ports tried for one flow. At 90 % occupancy all of them are taken with a chance of 3 %; more would let a full table
/// cost the packet path microseconds.
pub const PROBES: u32 = 32;
const STRIDE_MAX: u16 = 128;

/// Inserts the reply half of a masqueraded flow under the first free port, which reserves that port: returns the port
/// (or ICMP id), and leaves the half's key in `reply_key`. `init` fills in that half; `key` is the flow's own key; `source` is the gateway's address.
#[inline(always)]
pub fn reserve<F: Family, T: Tables<F>>(
    tables: &mut T,
    key: &Key<F::Address>,
    reply_key: &mut Key<F::Address>,
    source: F::Address,
    reply_side: u8,
    init: impl Fn(&mut Flow<F::Address>) + Copy,
) -> Result<u16, DropReason> {
    let has_ports = matches!(key.protocol, protocol::TCP | protocol::UDP) || key.protocol == F::ICMP;
    let Range { first, count } = Range::of(tables.config());
    let probes = if has_ports { PROBES } else { 1 };
    let offset = key.source_port.wrapping_sub(first);
    let mut candidate =
        if offset < count { offset } else { (spread::<F>(key) % u32::from(count.max(1))) as u16 };
    // Neighbours that collide once should not again: a stride of one's own. It must not come round before all probes are
    // used up, so a small range is walked port by port.
    let stride =
        if count < STRIDE_MAX * PROBES as u16 { 1 } else { (spread::<F>(key) >> 16) as u16 % STRIDE_MAX + 1 };
    reply_key.source = key.destination;
    reply_key.destination = source;
    reply_key.source_port = key.destination_port;
    reply_key.protocol = key.protocol;
    reply_key.side = reply_side;
    reply_key.padding = 0;
    for _ in 0..PROBES {
        let port = if has_ports { first.wrapping_add(candidate) } else { 0 };
        reply_key.destination_port = port;
        match claim(tables, reply_key, init) {
            Ok(()) => return Ok(port),
            Err(Refused::Full) => return Err(DropReason::FlowTableFull),
            Err(Refused::Exists) if probes == 1 => break,
            Err(Refused::Exists) => {
                candidate = ((u32::from(candidate) + u32::from(stride)) % u32::from(count.max(1))) as u16
            }
        }
    }
    Err(DropReason::NatExhausted)
}

/// Inserts a reply half unless the key is in either table. The confirmed table is looked at last: a flow moves there before it
/// leaves the half-open one, so it is never in neither.
#[inline(always)]
pub fn claim<F: Family, T: Tables<F>>(
    tables: &mut T,
    key: &Key<F::Address>,
    init: impl Fn(&mut Flow<F::Address>),
) -> Result<(), Refused> {
    tables.insert_flow(Stage::HalfOpen, key, false, init)?;
    if tables.with_flow(Stage::Confirmed, key, |_| ()).is_some() {
        tables.remove_flow(Stage::HalfOpen, key);
        return Err(Refused::Exists);
    }
    Ok(())
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
