//! How much of the masquerade ports is in use, and where they ran out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sluicegate_engine::reason::DropReason;

use super::top::Top;
use crate::datapath::{Event, EventKind, FlowRecord};
use crate::status;

/// Destinations remembered that found no free port.
const DESTINATIONS: usize = 32;

/// Where ports ran out, as far as drop events tell.
pub(super) struct Exhausted(Top<(IpAddr, u16, u8)>);

impl Default for Exhausted {
    fn default() -> Self {
        Self(Top::new(DESTINATIONS))
    }
}

impl Exhausted {
    /// Takes note of what the datapath told.
    pub(super) fn note(&mut self, events: &[Event], now_ms: u64) {
        let reason = DropReason::NatExhausted.name();
        for event in events.iter().filter(|event| event.kind == EventKind::Drop(reason)) {
            // An ICMP event has type and code where others have a port: ids run out towards an address.
            let has_port = matches!(event.protocol, 6 | 17);
            let port = if has_port { event.destination_port } else { 0 };
            self.0.note((event.destination, port, event.protocol), now_ms);
        }
    }

    /// The worst first.
    pub(super) fn destinations(&self) -> Vec<status::Exhausted> {
        let destination = |counted: &super::top::Counted<(IpAddr, u16, u8)>| {
            let (address, port, protocol) = counted.key;
            status::Exhausted {
                destination: address.to_string(),
                port,
                protocol,
                events: counted.count,
                error: counted.error,
                last_ms: counted.last_ms,
            }
        };
        self.0.sorted().into_iter().map(destination).collect()
    }
}

/// Masqueraded flows, and distinct ports they use, by address and protocol.
pub(super) fn in_use(flows: &[FlowRecord]) -> Vec<status::PortsInUse> {
    counted(flows.iter().filter_map(|flow| Some((flow.protocol, flow.translated?))))
}

fn counted(flows: impl Iterator<Item = (u8, (IpAddr, u16))>) -> Vec<status::PortsInUse> {
    const WORDS: usize = 65_536 / 64;
    let mut all: BTreeMap<(IpAddr, u8), (u64, Vec<u64>)> = BTreeMap::new();
    for (protocol, (address, port)) in flows {
        let (count, ports) = all.entry((address, protocol)).or_insert_with(|| (0, vec![0; WORDS]));
        *count += 1;
        ports[usize::from(port) / 64] |= 1 << (port % 64);
    }
    let used =
        |((address, protocol), (flows, ports)): (&(IpAddr, u8), &(u64, Vec<u64>))| status::PortsInUse {
            address: address.to_string(),
            protocol: *protocol,
            flows: *flows,
            ports: ports.iter().map(|word| u64::from(word.count_ones())).sum(),
        };
    all.iter().map(used).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_once_and_flows_each() {
        let flows = [
            (17, "10.0.0.1", 20_000),
            (17, "10.0.0.1", 20_000),
            (17, "10.0.0.1", 20_063),
            (6, "10.0.0.1", 20_000),
            (17, "fd11::1", 65_535),
        ];
        let flows = flows.map(|(protocol, address, port)| (protocol, (address.parse().unwrap(), port)));
        let used: Vec<_> = counted(flows.into_iter())
            .into_iter()
            .map(|used| (used.address, used.protocol, used.flows, used.ports))
            .collect();
        let of = |address: &str, protocol, flows, ports| (address.to_owned(), protocol, flows, ports);
        assert_eq!(used, [of("10.0.0.1", 6, 1, 1), of("10.0.0.1", 17, 3, 2), of("fd11::1", 17, 1, 1)]);
    }

    #[test]
    fn destinations_without_a_free_port_are_told_by_what_they_are() {
        let event = |kind, protocol, destination_port| Event {
            kind,
            side: "overlay",
            source: "100.64.0.5".parse().unwrap(),
            source_port: 1,
            destination: "10.0.0.9".parse().unwrap(),
            destination_port,
            protocol,
            rule: None,
            route: None,
            translated: None,
            packets: 0,
            bytes: 0,
        };
        let exhausted = EventKind::Drop("nat_exhausted");
        let mut told = Exhausted::default();
        told.note(
            &[event(exhausted, 6, 443), event(exhausted, 6, 443), event(EventKind::Drop("no_rule"), 6, 80)],
            3,
        );
        told.note(&[event(exhausted, 1, 0x0800)], 4);
        let destinations = told.destinations();
        let seen: Vec<_> = destinations.iter().map(|d| (d.port, d.protocol, d.events, d.last_ms)).collect();
        assert_eq!(seen, [(443, 6, 2, 3), (0, 1, 1, 4)]);
    }
}
