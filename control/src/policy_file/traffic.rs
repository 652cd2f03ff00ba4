//! Flows as gateways told of them: who talks to what, and which of it a change would cut.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use sluicegate_policy::Compiler;
use sluicegate_policy::evaluate::{Explanation, Query, explain};
use sluicegate_policy::service::Probe;
use utoipa::ToSchema;

use super::asked::{AskedGateway, CutFlow};
use crate::flows::{FlowRecord, OFF, PartyKind};
use crate::store::FlowLog;

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
    /// Those that are judged: what gateways listed when they were asked, and of agents that did not list any, the flows of whose
    /// beginning control was told, and not of their end. One that several agents have counts once.
    pub known: u64,
    /// What the account's settings keep from being known by events, of flows that no gateway listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Of the known ones, how many would be cut.
    pub cut: u64,
    /// Some of those, alike ones together, the most flows first.
    pub examples: Vec<Traffic>,
    /// The gateways whose images change, each with what it answered. Empty where none was asked: for a change that is made already.
    pub asked: Vec<AskedGateway>,
    /// Some of the flows that gateways listed and that would be cut, those with the most bytes first.
    pub flows: Vec<CutFlow>,
}

/// What by these settings is not known of flows through events.
pub(super) fn note(log: &FlowLog) -> Option<String> {
    let mut unknown = Vec::new();
    if !log.enabled {
        return Some(format!("nothing is known of flows by their events: {OFF}"));
    }
    if !log.groups.is_empty() {
        unknown.push("flows of peers outside the groups of network_traffic_logs_groups");
    }
    if !log.counters {
        unknown.push("packets and bytes (network_traffic_packet_counter_enabled is off)");
    }
    let unknown = unknown.join(", nor ");
    (!unknown.is_empty()).then(|| format!("by the account's settings, events do not tell of {unknown}"))
}

/// Flows that are alike: the same source, destination and service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl Amount {
    /// As much more.
    pub(super) fn add(&mut self, more: Self) {
        self.flows += more.flows;
        // Agents say what they like.
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// What makes a flow: protocol, source and destination with ports.
type Tuple<'r> = (u32, &'r str, u32, &'r str, u32);

fn tuple(record: &FlowRecord) -> Tuple<'_> {
    let (from, to) = (&record.source, &record.destination);
    (record.protocol, from.address.as_str(), from.port, to.address.as_str(), to.port)
}

impl Row {
    /// Of a flow event; none when its destination is no address.
    fn of(record: &FlowRecord) -> Option<Self> {
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

    pub(super) fn probe(&self) -> Probe {
        match self.protocol {
            TCP => Probe::Tcp(self.port),
            UDP => Probe::Udp(self.port),
            ICMP | ICMPV6 => Probe::Icmp,
            other => Probe::Protocol(u8::try_from(other).unwrap_or_default()),
        }
    }
}

/// What tells one flow from another at every agent that has it; the port of an ICMP destination is 0.
pub(super) type FlowKey = (u32, IpAddr, u32, IpAddr, u32);

/// A flow as one agent has it.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) key: FlowKey,
    pub(super) row: Row,
    pub(super) bytes: u64,
}

/// The flows among `records`, oldest first, that began and have not ended, but for those of the agents `listed`, which said
/// themselves what they have.
pub(super) fn live(records: &[Arc<FlowRecord>], listed: &HashSet<&str>) -> Vec<Live> {
    let mut open = HashMap::<(&str, Tuple<'_>), &FlowRecord>::new();
    for record in records.iter().filter(|record| !listed.contains(record.reporter.id.as_str())) {
        let key = (record.reporter.id.as_str(), tuple(record));
        match record.kind {
            "start" => drop(open.insert(key, record)),
            "end" | "revoke" => drop(open.remove(&key)),
            _ => {}
        }
    }
    let live = open.into_values().filter_map(|record| {
        let row = Row::of(record)?;
        let port = if matches!(row.protocol, ICMP | ICMPV6) { 0 } else { record.destination.port };
        let source = record.source.address.parse().ok()?;
        let key = (row.protocol, source, record.source.port, row.address, port);
        Some(Live { key, row, bytes: record.bytes })
    });
    live.collect()
}

/// Flows that are judged, at each agent that has them; each counts once, whoever has it.
#[derive(Default)]
pub(super) struct Judged {
    seen: HashSet<FlowKey>,
    cut: HashSet<FlowKey>,
    rows: BTreeMap<Row, Amount>,
}

impl Judged {
    /// Takes note of a flow at one agent.
    pub(super) fn add(&mut self, flow: &Live, is_cut: bool) {
        self.seen.insert(flow.key);
        if is_cut && self.cut.insert(flow.key) {
            let amount = self.rows.entry(flow.row.clone()).or_default();
            amount.flows += 1;
            // Agents say what they like.
            amount.bytes = amount.bytes.saturating_add(flow.bytes);
        }
    }

    /// Judges flows of agents that did not list any, by what is to be. That another agent listed one and goes on with it says
    /// nothing of these.
    pub(super) fn add_known(&mut self, known: &[Live], after: &Compiler) {
        let mut verdicts = HashMap::<&Row, bool>::new();
        for flow in known {
            let allowed = *verdicts.entry(&flow.row).or_insert_with(|| flow.row.judge(after).allowed());
            self.add(flow, !allowed);
        }
    }

    /// The sum of it.
    pub(super) fn sum(self, reported: u64, after: &Compiler) -> LiveFlows {
        let mut rows: Vec<(Row, Amount)> = self.rows.into_iter().collect();
        rows.sort_by_key(|(row, amount)| (std::cmp::Reverse(amount.flows), row.source.clone(), row.address));
        let examples = rows.into_iter().take(EXAMPLES).map(|(row, amount)| {
            let told = row.judge(after);
            let why = match told.allowed() {
                // It stays permitted, by another way than the one it goes now.
                true => "the gateway that carries it would do so no more".to_owned(),
                false => told.summary,
            };
            row.told(amount, why)
        });
        LiveFlows {
            reported,
            known: self.seen.len() as u64,
            cut: self.cut.len() as u64,
            examples: examples.collect(),
            ..LiveFlows::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_policy::model::State;

    use super::*;

    fn live_flow(source_port: u32, bytes: u64) -> Live {
        let (source, address) = (IpAddr::from([100, 64, 0, 1]), IpAddr::from([10, 1, 0, 10]));
        let row = Row {
            source: source.to_string(),
            source_is_peer: false,
            destination: String::new(),
            destination_is_peer: false,
            address,
            protocol: TCP,
            port: 443,
        };
        Live { key: (TCP, source, source_port, address, 443), row, bytes }
    }

    fn nobody_may() -> Compiler {
        let state = State {
            overlay_v4: "100.64.0.0/16".parse().unwrap(),
            overlay_v6: "fd00::/64".parse().unwrap(),
            peers: Default::default(),
            groups: Default::default(),
            networks: Default::default(),
            policies: Default::default(),
        };
        Compiler::new(Arc::new(state)).unwrap()
    }

    #[test]
    fn a_flow_that_one_agent_goes_on_with_is_cut_where_another_has_it() {
        let mut judged = Judged::default();
        judged.add(&live_flow(1, 10), false);
        judged.add_known(&[live_flow(1, 10), live_flow(1, 10)], &nobody_may());
        let sum = judged.sum(0, &nobody_may());
        assert_eq!((sum.known, sum.cut, sum.examples[0].flows), (1, 1, 1));
    }

    #[test]
    fn agents_may_say_any_number() {
        let mut judged = Judged::default();
        judged.add_known(&[live_flow(1, u64::MAX), live_flow(2, 7)], &nobody_may());
        let sum = judged.sum(0, &nobody_may());
        assert_eq!((sum.cut, sum.examples[0].bytes), (2, u64::MAX));
    }
}
