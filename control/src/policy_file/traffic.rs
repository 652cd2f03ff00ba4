//! Flows as gateways told of them: who talks to what, and which of it a change would cut.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use sluicegate_policy::Compiler;
use sluicegate_policy::evaluate::{Explanation, Query, explain};
use sluicegate_policy::service::Probe;
use utoipa::ToSchema;

use crate::flows::{FlowRecord, PartyKind};

/// IP protocol numbers (IANA): those a rule has a word for.
pub(super) const ICMP: u32 = 1;
pub(super) const TCP: u32 = 6;
pub(super) const UDP: u32 = 17;
pub(super) const ICMPV6: u32 = 58;

/// How many kinds of flows that would be cut are named.
const EXAMPLES: usize = 12;

/// What one source did at one destination.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Traffic {
    /// Peer name, or the address of one that control does not know.
    pub source: String,
    /// Name of the peer or resource, empty when unknown.
    pub destination: String,
    /// Its address.
    pub address: String,
    /// Which packets, as `explain` takes them.
    pub service: String,
    /// How many flows.
    pub flows: u64,
    /// Their bytes in both directions, as far as they were told.
    pub bytes: u64,
    /// Why it is refused.
    pub why: String,
}

/// Flows that are live, and what a change would do to them.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct LiveFlows {
    /// Live flows as gateways count them; each gateway reports its number every few seconds.
    pub reported: u64,
    /// Those whose beginning control was told of and holds, and whose end it was not: these are judged.
    pub known: u64,
    /// Of the known ones, how many would be cut.
    pub cut: u64,
    /// Some of those, alike ones together, the most flows first.
    pub examples: Vec<Traffic>,
}

/// Flows that are alike: the same source, destination and service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) source: String,
    pub(super) source_is_peer: bool,
    pub(super) destination: String,
    pub(super) destination_is_peer: bool,
    pub(super) address: IpAddr,
    pub(super) protocol: u32,
    /// 0 where the protocol has none.
    pub(super) port: u16,
}

/// How much.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amount {
    pub(super) flows: u64,
    pub(super) bytes: u64,
}

/// What makes a flow: protocol, source and destination with ports.
pub(super) type Tuple<'r> = (u32, &'r str, u32, &'r str, u32);

pub(super) fn tuple(record: &FlowRecord) -> Tuple<'_> {
    let (from, to) = (&record.source, &record.destination);
    (record.protocol, from.address.as_str(), from.port, to.address.as_str(), to.port)
}

impl Row {
    /// Of a flow event; none when its destination is no address.
    pub(super) fn of(record: &FlowRecord) -> Option<Self> {
        let (from, to) = (&record.source, &record.destination);
        let known = from.party.kind == PartyKind::Peer;
        Some(Self {
            source: if known { from.party.name.clone() } else { from.address.clone() },
            source_is_peer: known,
            destination: to.party.name.clone(),
            destination_is_peer: to.party.kind == PartyKind::Peer,
            address: to.address.parse().ok()?,
            protocol: record.protocol,
            port: match record.protocol {
                TCP | UDP => u16::try_from(to.port).unwrap_or_default(),
                _ => 0,
            },
        })
    }

    /// What the rules say about it.
    pub(super) fn judge(&self, compiler: &Compiler) -> Explanation {
        let query =
            Query { source: self.source.clone(), destination: self.address.to_string(), probe: self.probe() };
        explain(compiler, &query)
    }

    /// For a person.
    pub(super) fn told(&self, amount: Amount, why: String) -> Traffic {
        Traffic {
            source: self.source.clone(),
            destination: self.destination.clone(),
            address: self.address.to_string(),
            service: self.probe().to_string(),
            flows: amount.flows,
            bytes: amount.bytes,
            why,
        }
    }

    fn probe(&self) -> Probe {
        match self.protocol {
            TCP => Probe::Tcp(self.port),
            UDP => Probe::Udp(self.port),
            ICMP | ICMPV6 => Probe::Icmp,
            other => Probe::Protocol(u8::try_from(other).unwrap_or_default()),
        }
    }
}

/// The flows among `records`, oldest first, that began and have not ended, alike ones together.
pub(super) fn live(records: &[Arc<FlowRecord>]) -> BTreeMap<Row, Amount> {
    let mut open = HashMap::<(&str, Tuple<'_>), &FlowRecord>::new();
    for record in records {
        let key = (record.reporter.id.as_str(), tuple(record));
        match record.kind {
            "start" => drop(open.insert(key, record)),
            "end" | "revoke" => drop(open.remove(&key)),
            _ => {}
        }
    }
    // Both agents on a flow's way tell of it.
    let flows: HashMap<Tuple<'_>, &FlowRecord> =
        open.into_iter().map(|((_, tuple), record)| (tuple, record)).collect();
    let mut rows = BTreeMap::<Row, Amount>::new();
    for (row, record) in flows.into_values().filter_map(|record| Some((Row::of(record)?, record))) {
        let amount = rows.entry(row).or_default();
        amount.flows += 1;
        amount.bytes += record.bytes;
    }
    rows
}

impl LiveFlows {
    /// Judges live flows by what is to be.
    pub(super) fn new(live: &BTreeMap<Row, Amount>, reported: u64, after: &Compiler) -> Self {
        let mut cut: Vec<Traffic> = Vec::new();
        for (row, amount) in live {
            let told = row.judge(after);
            if !told.allowed() {
                cut.push(row.told(*amount, told.summary));
            }
        }
        cut.sort_by(|a, b| {
            b.flows.cmp(&a.flows).then_with(|| (&a.source, &a.address).cmp(&(&b.source, &b.address)))
        });
        Self {
            reported,
            known: live.values().map(|amount| amount.flows).sum(),
            cut: cut.iter().map(|traffic| traffic.flows).sum(),
            examples: cut.into_iter().take(EXAMPLES).collect(),
        }
    }
}
