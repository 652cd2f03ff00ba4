//! What gateways say of their live flows, and which of these a change would cut there.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use sluicegate_api::agent::{FlowList, LiveFlow};
use sluicegate_policy::Compiler;
use sluicegate_policy::evaluate::decide;
use utoipa::ToSchema;

use super::plan::GatewayPlan;
use super::traffic::{ICMP, ICMPV6, Judged, Live, LiveFlows, Row, TCP, UDP, live, note};
use super::{Files, Now};
use crate::flows::{Directory, PartyKind};
use crate::hub::Asked;

/// A gateway that has not answered by then is said to be silent: an agent answers between two of its looks at the flow table.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many flows are asked for in all, and of one gateway no more than this.
const FLOWS: usize = 262_144;
const OF_ONE: usize = 16_384;
/// How many flows that would be cut are listed one by one.
const LISTED: usize = 100;

/// A gateway that was asked which flows it has.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct AskedGateway {
    /// Peer id.
    pub id: String,
    /// Peer name.
    pub name: String,
    /// `answered`, `did not answer`, `too old to ask`, or `not connected` to any control.
    pub answer: &'static str,
    /// How many flows it has.
    pub live: u64,
    /// How many of them it listed: these are judged, by its image before and after.
    pub listed: u64,
    /// How many more it has: it lists those that were answered first, and of these those with the most bytes.
    pub more: u64,
    /// How many of the listed ones would be cut.
    pub cut: u64,
    /// The bytes that those have carried so far, in both directions.
    pub cut_bytes: u64,
}

/// A flow that would be cut.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CutFlow {
    /// Name of the gateway that has it.
    pub gateway: String,
    /// IP protocol number.
    pub protocol: u32,
    /// Peer name, or empty.
    pub source_name: String,
    /// Who opened it, as rules see it: `ADDRESS:PORT`; for ICMP the port is its id.
    pub source: String,
    /// The source as the destination sees it, where it is masqueraded: `ADDRESS:PORT`, else empty.
    pub translated_source: String,
    /// Peer or resource name, or empty.
    pub destination_name: String,
    /// `ADDRESS:PORT`.
    pub destination: String,
    /// Id of the policy that admits it now; empty when the gateway did not know it.
    pub policy_id: String,
    /// Its name.
    pub policy_name: String,
    /// Id of the rule.
    pub rule_id: String,
    /// Its name.
    pub rule_name: String,
    /// In both directions.
    pub packets: u64,
    /// In both directions, from the IP header on.
    pub bytes: u64,
    /// Whether it was answered.
    pub confirmed: bool,
}

impl Files {
    /// Asks the gateways that get something else for their flows, whichever replica they follow.
    pub(super) async fn ask(&self, gateways: &[GatewayPlan]) -> Vec<Asked> {
        let ids: Vec<String> = gateways.iter().map(|gateway| gateway.id.clone()).collect();
        self.hub.live_flows_anywhere(&self.store, &ids, of_one(ids.len()), PATIENCE).await
    }
}

/// How many flows each of so many gateways is asked for.
fn of_one(gateways: usize) -> u32 {
    u32::try_from((FLOWS / gateways.max(1)).min(OF_ONE)).unwrap_or(u32::MAX)
}

/// What the change does to flows, by what `gateways` answered, and of other agents by flow events.
pub(super) fn judge(
    gateways: &[GatewayPlan],
    answers: &[Asked],
    now: &Now,
    before: &Compiler,
    after: &Compiler,
) -> LiveFlows {
    let directory = Directory::new(before.state());
    let mut judged = Judged::default();
    let (mut asked, mut most) = (Vec::new(), Most::new(LISTED));
    for (number, (gateway, answer)) in gateways.iter().zip(answers).enumerate() {
        let (answer, list) = match answer {
            Asked::Listed(list) => ("answered", Some(list)),
            Asked::Silent => ("did not answer", None),
            Asked::TooOld => ("too old to ask", None),
            Asked::Away => ("not connected", None),
        };
        let (id, name) = (gateway.id.clone(), gateway.name.clone());
        let mut one = AskedGateway { id, name, answer, ..AskedGateway::default() };
        if let Some(list) = list {
            one.live = list.live;
            one.listed = list.flows.len() as u64;
            one.more = list.live.saturating_sub(one.listed);
            let mut at = At { gateway, list, directory: &directory, verdicts: HashMap::new(), before, after };
            for (place, said) in list.flows.iter().enumerate() {
                let Some(flow) = at.read(said) else { continue };
                let is_cut = at.cuts(&flow);
                judged.add(&flow, is_cut);
                if is_cut {
                    one.cut += 1;
                    one.cut_bytes = one.cut_bytes.saturating_add(flow.bytes);
                    most.add((flow.bytes, Reverse((flow.key, number, place))));
                }
            }
        }
        asked.push(one);
    }
    let listed: HashSet<&str> =
        asked.iter().filter(|one| one.answer == "answered").map(|one| one.id.as_str()).collect();
    judged.add_known(&live(&now.records, &listed), after);
    let told = most.sorted().into_iter().filter_map(|(_, Reverse((_, number, place)))| {
        let (Asked::Listed(list), gateway) = (answers.get(number)?, gateways.get(number)?) else {
            return None;
        };
        let (verdicts, said) = (HashMap::new(), list.flows.get(place)?);
        let at = At { gateway, list, directory: &directory, verdicts, before, after };
        Some(at.tell(said, &at.read(said)?))
    });
    let flows = told.collect();
    LiveFlows { asked, flows, note: note(&now.log), ..judged.sum(now.reported, after) }
}

/// The greatest of what is added, and no more of them than so many at any time.
struct Most<T> {
    heap: BinaryHeap<Reverse<T>>,
    bound: usize,
}

impl<T: Ord> Most<T> {
    fn new(bound: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(bound + 1), bound }
    }

    fn add(&mut self, one: T) {
        self.heap.push(Reverse(one));
        if self.heap.len() > self.bound {
            self.heap.pop();
        }
    }

    /// The greatest first.
    fn sorted(self) -> Vec<T> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(one)| one).collect()
    }
}

/// One gateway's answer while it is looked at.
struct At<'a> {
    gateway: &'a GatewayPlan,
    list: &'a FlowList,
    directory: &'a Directory,
    /// By source, destination, protocol and port: many flows are alike in these.
    verdicts: HashMap<(IpAddr, IpAddr, u32, u16), bool>,
    before: &'a Compiler,
    after: &'a Compiler,
}

impl At<'_> {
    /// A flow as the gateway tells of it; none when its addresses make no sense.
    fn read(&self, said: &LiveFlow) -> Option<Live> {
        let (source, destination) = (address(&said.source)?, address(&said.destination)?);
        let (from, to) = (self.directory.party(source), self.directory.party(destination));
        let is_peer = |kind| kind == PartyKind::Peer;
        let port = match said.protocol {
            TCP | UDP => u16::try_from(said.destination_port).unwrap_or_default(),
            _ => 0,
        };
        let row = Row {
            source: if is_peer(from.kind) { from.name } else { source.to_string() },
            source_is_peer: is_peer(from.kind),
            destination: to.name,
            destination_is_peer: is_peer(to.kind),
            address: destination,
            protocol: said.protocol,
            port,
        };
        let port = if matches!(said.protocol, ICMP | ICMPV6) { 0 } else { said.destination_port };
        let key = (said.protocol, source, said.source_port, destination, port);
        Some(Live { key, row, bytes: said.bytes })
    }

    /// Whether the gateway's image admits the flow, and the one to be does not.
    fn cuts(&mut self, flow: &Live) -> bool {
        let (source, destination) = (flow.key.1, flow.key.3);
        let (gateway, before, after) = (&self.gateway.id, self.before, self.after);
        let key = (source, destination, flow.row.protocol, flow.row.port);
        *self.verdicts.entry(key).or_insert_with(|| {
            let l4 = flow.row.probe().axis(destination);
            let admits = |compiler| decide(compiler, gateway, source, destination, l4).accepts();
            admits(before) && !admits(after)
        })
    }

    fn tell(&self, said: &LiveFlow, flow: &Live) -> CutFlow {
        let (_, source, source_port, destination, destination_port) = flow.key;
        let end = |address: IpAddr, port: u32| {
            SocketAddr::new(address, u16::try_from(port).unwrap_or_default()).to_string()
        };
        let place = usize::try_from(said.rule).ok().and_then(|place| place.checked_sub(1));
        let rule = place.and_then(|place| self.list.rules.get(place)).cloned().unwrap_or_default();
        let named = self.directory.rule(&rule.policy_id, &rule.rule_id);
        let translated = address(&said.translated_source);
        CutFlow {
            gateway: self.gateway.name.clone(),
            protocol: said.protocol,
            source_name: if flow.row.source_is_peer { flow.row.source.clone() } else { String::new() },
            source: end(source, source_port),
            translated_source: translated
                .map(|address| end(address, said.translated_port))
                .unwrap_or_default(),
            destination_name: flow.row.destination.clone(),
            destination: end(destination, destination_port),
            policy_id: named.policy_id,
            policy_name: named.policy_name,
            rule_id: named.rule_id,
            rule_name: named.rule_name,
            packets: said.packets,
            bytes: said.bytes,
            confirmed: said.confirmed,
        }
    }
}

/// 4 or 16 bytes in network order.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_greatest_are_kept_whatever_comes() {
        let mut most = Most::new(3);
        for one in [5, 1, 9, 7, 7, 2, 8] {
            most.add(one);
            assert!(most.heap.len() <= 3);
        }
        assert_eq!(most.sorted(), [9, 8, 7]);
    }

    #[test]
    fn many_gateways_are_asked_for_no_more_in_all_than_a_few() {
        for gateways in [1, 16, 17, 1_000, 10_000, 300_000] {
            assert!(gateways * of_one(gateways) as usize <= FLOWS, "{gateways}");
        }
        assert_eq!([0, 1, 16, 32].map(of_one), [16_384, 16_384, 16_384, 8_192]);
    }
}
