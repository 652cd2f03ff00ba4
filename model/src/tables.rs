//! What the engine remembers, in the terms of the model: half-entries put together to flows.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use sluicegate_engine::family::Family;
use sluicegate_engine::family::{Address4, Address6};
use sluicegate_engine::flow::{Exit as Leave, FIN, Flow, Key, Side, State, TRANSLATED};
use sluicegate_engine::hop::Link;
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::tables::{Config, ENDPOINT_INDEPENDENT, Egress, HAS_DEADLINE, Stage};

use crate::answer::TICKS_PER_SECOND;
use crate::case::{AGENT, Exit, FlowDump, OVERLAY_DEVICE, Setup, WayDump};
use crate::world;

/// The live flows among the half-entries of one family; an error where halves contradict each other.
pub fn flows<F: Family>(
    halves: impl Iterator<Item = (Stage, Key<F::Address>, Flow<F::Address>)>,
    now: u64,
) -> Result<Vec<FlowDump>, String>
where
    F::Address: Hash,
{
    let mut all = HashMap::new();
    for (stage, key, flow) in halves {
        if let Some((there, _)) = all.insert(key, (stage, flow)) {
            return Err(format!("half-entry {key:?} is in table {there:?} and in table {stage:?}"));
        }
    }
    let mut dumps = Vec::new();
    for (key, (stage, first)) in all.iter().filter(|(_, (_, flow))| !flow.is_reply()) {
        let other = first.other_key(key.protocol);
        let Some((other_stage, reply)) = all.get(&other) else {
            return Err(format!("the flow of {key:?} has no reply half"));
        };
        if first.is_over(now as u32) && reply.is_over(now as u32) {
            continue;
        }
        let contradiction =
            |what: &str| Err(format!("halves of {key:?} differ in {what}: {first:?} {reply:?}"));
        if stage != other_stage || !reply.is_reply() {
            return contradiction("their table");
        }
        if reply.other_key(key.protocol) != *key {
            return contradiction("the tuple");
        }
        if (first.state, first.timeout) != (reply.state, reply.timeout) {
            return contradiction("state");
        }
        let translated = (first.source, first.source_port) != (key.source, key.source_port);
        if (first.flags & TRANSLATED != 0, reply.flags & TRANSLATED != 0) != (translated, translated) {
            return contradiction("translation");
        }
        let state = State::from_number(first.state);
        let either = matches!(state, State::Reset);
        if !either && (stage == &Stage::Confirmed) != state.is_confirmed() {
            return contradiction("state and table");
        }
        let site = first.exit == Leave::Site as u8;
        let local = first.exit == Leave::Overlay as u8;
        let back = if local { Leave::Host } else { Leave::Overlay };
        if local != (key.side == Side::Local as u8)
            || reply.exit != back as u8
            || (first.flags | reply.flags) & !(FIN | 3) != 0
        {
            return contradiction("exit or flags");
        }
        let way = |flow: &Flow<F::Address>| WayDump {
            packets: flow.packets,
            bytes: flow.bytes,
            last_seen: flow.last_seen,
        };
        dumps.push(FlowDump {
            side: key.side,
            protocol: key.protocol,
            source: (address::<F>(key.source), key.source_port),
            destination: (address::<F>(key.destination), key.destination_port),
            translated: (address::<F>(first.source), first.source_port),
            replies: first.other_side,
            state: first.state,
            rule: first.rule,
            route: site.then_some(first.route),
            ways: [way(first), way(reply)],
            confirmed: *stage == Stage::Confirmed,
        });
    }
    dumps.sort();
    Ok(dumps)
}

fn address<F: Family>(address: F::Address) -> IpAddr {
    let mapped = Ipv6Addr::from(F::mapped(address));
    if F::VERSION == 4 {
        mapped.to_ipv4_mapped().map_or(IpAddr::V6(mapped), IpAddr::V4)
    } else {
        mapped.into()
    }
}

/// What the host's addresses are to it as the engine reads it: by their mapped form, the host's own before all else.
pub fn host_addresses(addresses: &[(IpAddr, u8)]) -> BTreeMap<[u8; 16], HostAddress> {
    let mut all = BTreeMap::new();
    for (address, what) in addresses.iter().flat_map(|(own, length)| HostAddress::of(*own, *length)) {
        let mapped = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let known = all.entry(mapped.octets()).or_insert(what);
        *known = (*known).min(what);
    }
    all
}

/// How frames leave by every device: the loopback device, on which test runs of programs are, stands for all.
pub const LINK: Link = Link { device: 1, mac: [0; 6], tags_length: 0, sends: 1, tags: [0; 8] };

/// The configuration as the engine reads it.
pub fn config(setup: &Setup, now: u64, deadline: Option<u64>) -> Config {
    let [(IpAddr::V4(network4), length4), (IpAddr::V6(network6), length6)] = setup.overlay else {
        panic!("one overlay range per family");
    };
    Config {
        overlay4: [network4.into(), Address4((u32::MAX << (32 - length4)).to_be_bytes())],
        overlay6: [network6.into(), Address6((u128::MAX << (128 - length6)).to_be_bytes())],
        deadline: deadline.unwrap_or(0),
        own4: match world::peer(AGENT, false) {
            IpAddr::V4(own) => own.into(),
            IpAddr::V6(_) => Address4::default(),
        },
        own6: match world::peer(AGENT, true) {
            IpAddr::V6(own) => own.into(),
            IpAddr::V4(_) => Address6::default(),
        },
        ticks_per_second: TICKS_PER_SECOND,
        flags: if deadline.is_some() { HAS_DEADLINE } else { 0 }
            | if setup.endpoint_independent { ENDPOINT_INDEPENDENT } else { 0 },
        half_open_per_source: setup.half_open_per_source,
        overlay_device: OVERLAY_DEVICE,
        overlay_mtu: setup.overlay_mtu,
        nat_first: setup.nat_first,
        nat_count: setup.nat_count,
        overlay_link: LINK,
        // Nothing the model knows of depends on the neighbours: with them, XDP carries what TC would have.
        hops_since: (setup.start as u32).wrapping_sub(1),
        hop_lifetime: setup.hop_lifetime,
        test_clock: now,
        timeouts: setup.timeouts,
    }
}

/// An egress entry as the engine reads it.
pub fn egress(exit: &Exit) -> Egress {
    Egress {
        device: exit.device,
        mtu: exit.mtu,
        source4: match exit.source[0] {
            Some(IpAddr::V4(a)) => a.into(),
            _ => Address4::default(),
        },
        source6: match exit.source[1] {
            Some(IpAddr::V6(a)) => a.into(),
            _ => Address6::default(),
        },
        pool: [exit.pool; 2],
        link: LINK,
        ..Egress::default()
    }
}
