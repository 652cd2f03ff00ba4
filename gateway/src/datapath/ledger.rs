//! Flows that were seen alive, so that none goes without a word.
//!
//! The kernel's half-open table makes room by evicting what was used least recently, and the engine replaces a flow that is
//! over when its tuple comes again; neither tells. Whatever the last sweep saw and this one does not, and nobody ended,
//! has ended in between.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::{Event, EventKind, FlowRecord, records};

/// What a flow is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id {
    side: &'static str,
    protocol: u8,
    source: (IpAddr, u16),
    destination: IpAddr,
    /// Ports only: events have type and code of ICMP there.
    destination_port: u16,
}

/// The flows of the last sweep, and what was told of their ends.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    flows: HashMap<Id, FlowRecord>,
    told: Told,
    /// What was told before the last sweep: it may concern flows which that sweep had seen just before.
    told_before: Told,
}

#[derive(Debug, Default)]
struct Told {
    ended: HashSet<Id>,
    revoked: HashSet<Id>,
    /// Told with the addresses of a reply.
    revoked_by_reply: HashSet<Reply>,
}

/// Flows that are there no more.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    /// The end of each of which nobody told, with what it had carried when it was last seen.
    pub(crate) untold: Vec<Event>,
    /// Those that were revoked, as they were last seen.
    pub(crate) revoked: Vec<FlowRecord>,
}

impl Ledger {
    /// Takes note of what was told.
    pub(crate) fn note(&mut self, event: &Event) {
        match event.kind {
            EventKind::End => {
                self.told.ended.insert(of_event(event));
            }
            EventKind::Revoke => {
                self.told.revoked.insert(of_event(event));
                self.told.revoked_by_reply.insert(reply_of_event(event));
            }
            EventKind::Start | EventKind::Drop(_) => {}
        }
    }

    /// Takes the flows that live now; returns those that do not any more and that no sweep has ended.
    pub(crate) fn gone(&mut self, live: &[FlowRecord]) -> Gone {
        let now: HashMap<Id, FlowRecord> = live.iter().map(|flow| (of_flow(flow), flow.clone())).collect();
        let mut gone = Gone::default();
        for (id, before) in &self.flows {
            let replaced = now.get(id).is_some_and(|now| now.packets < before.packets);
            if !replaced && now.contains_key(id) {
                continue;
            }
            if self.is_revoked(id, before) {
                gone.revoked.push(before.clone());
            } else if !self.is_ended(id) {
                gone.untold.push(records::ended(before));
            }
        }
        self.flows = now;
        self.told_before = std::mem::take(&mut self.told);
        gone
    }

    fn is_ended(&self, id: &Id) -> bool {
        self.told.ended.contains(id) || self.told_before.ended.contains(id)
    }

    fn is_revoked(&self, id: &Id, flow: &FlowRecord) -> bool {
        let reply = reply_of_flow(flow);
        [&self.told, &self.told_before]
            .into_iter()
            .any(|told| told.revoked.contains(id) || told.revoked_by_reply.contains(&reply))
    }
}

fn of_flow(flow: &FlowRecord) -> Id {
    Id {
        side: flow.side,
        protocol: flow.protocol,
        source: (flow.source, flow.source_port),
        destination: flow.destination,
        destination_port: ports(flow.protocol, flow.destination_port),
    }
}

fn of_event(event: &Event) -> Id {
    Id {
        side: event.side,
        protocol: event.protocol,
        source: (event.source, event.source_port),
        destination: event.destination,
        destination_port: ports(event.protocol, event.destination_port),
    }
}

/// Protocol, source and destination of a flow's replies, as they arrive.
type Reply = (u8, (IpAddr, u16), (IpAddr, u16));

fn reply_of_flow(flow: &FlowRecord) -> Reply {
    let (address, port) = flow.translated.unwrap_or((flow.source, flow.source_port));
    let port = ports(flow.protocol, port);
    (flow.protocol, (flow.destination, ports(flow.protocol, flow.destination_port)), (address, port))
}

fn reply_of_event(event: &Event) -> Reply {
    let port = |port| ports(event.protocol, port);
    let source = (event.source, port(event.source_port));
    (event.protocol, source, (event.destination, port(event.destination_port)))
}

const fn ports(protocol: u8, port: u16) -> u16 {
    if matches!(protocol, 6 | 17) { port } else { 0 }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// A flow of rule 0 and route 0 from `port`, of packets of 100 bytes.
    pub(crate) fn flow(port: u16, packets: u64) -> FlowRecord {
        FlowRecord {
            source: "100.64.0.2".parse().unwrap(),
            source_port: port,
            destination: "10.9.0.7".parse().unwrap(),
            destination_port: 443,
            protocol: 6,
            side: "overlay",
            rule: 0,
            route: Some(0),
            translated: None,
            packets,
            bytes: packets * 100,
            replies: (0, 0),
            confirmed: false,
            state: "syn_sent",
            idle: Duration::ZERO,
        }
    }

    #[test]
    fn a_flow_that_was_evicted_or_replaced_ends_once() {
        let mut ledger = Ledger::default();
        assert!(ledger.gone(&[flow(1, 3), flow(2, 9), flow(3, 1)]).untold.is_empty());
        // 1 is gone without a word, 2 was replaced by a new flow, 3 was ended by the sweep.
        ledger.note(&records::ended(&flow(3, 1)));
        let mut ended = ledger.gone(&[flow(2, 1)]).untold;
        ended.sort_by_key(|event| event.source_port);
        let seen: Vec<_> = ended.iter().map(|e| (e.kind, e.source_port, e.packets, e.rule)).collect();
        assert_eq!(seen, [(EventKind::End, 1, 3, Some(0)), (EventKind::End, 2, 9, Some(0))]);
        assert!(ledger.gone(&[flow(2, 2)]).untold.is_empty());
    }

    #[test]
    fn a_flow_that_its_reply_found_revoked_does_not_end_as_well() {
        let there = FlowRecord { translated: Some(("10.9.0.1".parse().unwrap(), 20_001)), ..flow(1, 3) };
        let mut ledger = Ledger::default();
        ledger.gone(std::slice::from_ref(&there));
        let revoke = Event {
            kind: EventKind::Revoke,
            side: "site",
            source: there.destination,
            source_port: 443,
            destination: "10.9.0.1".parse().unwrap(),
            destination_port: 20_001,
            ..records::ended(&there)
        };
        // Read from the ring after the table was: the flow is gone only from the next look.
        ledger.note(&revoke);
        ledger.gone(std::slice::from_ref(&there));
        let gone = ledger.gone(&[]);
        assert!(gone.untold.is_empty());
        assert_eq!(gone.revoked, [there]);
    }

    #[test]
    fn an_echo_that_ended_is_known_again() {
        let echo = FlowRecord { protocol: 1, destination_port: 0, ..flow(7, 2) };
        let mut ledger = Ledger::default();
        ledger.gone(std::slice::from_ref(&echo));
        let told = records::ended(&echo);
        assert_eq!(told.destination_port, 8 << 8);
        ledger.note(&told);
        assert!(ledger.gone(&[]).untold.is_empty());
    }
}
