//! Every counter with its names, at one moment: rates are the difference of two.

use std::collections::BTreeMap;

use serde::Serialize;
use sluicegate_engine::reason::DropReason;

use super::events::Reporter;
use super::names::Names;
use crate::datapath::{Counters, FlowRecord, RouteCounters};
use crate::status::Traffic;

/// Names the document and its version.
pub const SCHEMA: &str = "sluicegate.gateway.top/1";

/// Totals since the programs were first loaded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Top {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// This agent.
    pub gateway: Reporter,
    /// `ebpf` or `userspace`.
    pub datapath: &'static str,
    /// Revision of the image in force.
    pub revision: Option<u64>,
    /// Flows.
    pub flows: Flows,
    /// What went on, by where it came from.
    pub forwarded: Vec<Forwarded>,
    /// By rule of the image in force, and rules that counted before.
    pub rules: Vec<RuleTotals>,
    /// By resource this agent is a router of.
    pub resources: Vec<ResourceTotals>,
    /// By reason; all of them.
    pub drops: Vec<Drops>,
    /// Events.
    pub events: Events,
}

/// Flows and the room for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flows {
    /// Flows that live.
    pub live: u64,
    /// Flows that a rule admitted.
    pub started: u64,
    /// Entries in use, two for each flow.
    pub entries: u64,
    /// Entries there is room for.
    pub capacity: u64,
}

/// Packets that went on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Forwarded {
    /// `overlay`, `site` or `local`.
    pub direction: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}

/// Totals of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleTotals {
    /// Policy id; empty when the rule is not in the image in force any more.
    pub policy_id: String,
    /// Policy name.
    pub policy_name: String,
    /// Rule id.
    pub rule_id: String,
    /// Rule name.
    pub rule_name: String,
    /// `accept` or `drop`.
    pub action: &'static str,
    /// Flows admitted.
    pub flows: u64,
    /// Packets of its flows, both directions.
    pub packets: u64,
    /// Bytes of its flows, both directions.
    pub bytes: u64,
    /// Packets refused.
    pub drops: u64,
}

/// Totals of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResourceTotals {
    /// Resource id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Id of its network.
    pub network_id: String,
    /// Its prefixes.
    pub prefixes: Vec<String>,
    /// Flows that live.
    pub live: u64,
    /// Flows admitted.
    pub flows: u64,
    /// Packets of its flows, both directions.
    pub packets: u64,
    /// Bytes of its flows, both directions.
    pub bytes: u64,
    /// Packets for it that no rule admitted, or a drop rule refused.
    pub drops: u64,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drops {
    /// The reason.
    pub reason: &'static str,
    /// Packets.
    pub packets: u64,
    /// What the reason means.
    pub explanation: &'static str,
}

/// Events that were not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Events {
    /// Left out by sampling: an event of the same kind, reason and rule was told in the same second.
    pub suppressed: u64,
    /// Lost for want of room.
    pub lost: u64,
}

/// What is known beside the counters.
pub struct Around<'a> {
    /// What things are called.
    pub names: &'a Names,
    /// Live flows, as of the last sweep.
    pub live: &'a [FlowRecord],
    /// `ebpf` or `userspace`.
    pub datapath: &'static str,
    /// Revision of the image in force.
    pub revision: Option<u64>,
    /// Unix milliseconds.
    pub time_ms: u64,
}

/// The document of this moment.
pub fn document(counters: &Counters, around: &Around<'_>) -> Top {
    let own = around.names.own();
    Top {
        schema: SCHEMA,
        time_ms: around.time_ms,
        gateway: own
            .map(|own| Reporter { id: own.who.id.clone(), name: own.who.name.clone() })
            .unwrap_or_default(),
        datapath: around.datapath,
        revision: around.revision,
        flows: Flows {
            live: around.live.len() as u64,
            started: counters.flows_started,
            entries: counters.flow_entries.0,
            capacity: counters.flow_entries.1,
        },
        forwarded: counters
            .forwarded
            .iter()
            .map(|(direction, packets, bytes)| Forwarded { direction, packets: *packets, bytes: *bytes })
            .collect(),
        rules: rules(counters, around.names),
        resources: resources(&counters.routes, around.names, around.live),
        drops: drops(counters),
        events: Events { suppressed: counters.events_suppressed, lost: counters.events_lost },
    }
}

/// Rules and resources that are told one by one where the list must not grow with the policy.
const BUSIEST: usize = 256;

/// What the busiest rules and resources carried, and all others as one.
pub fn busiest(counters: &Counters, names: &Names, live: &[FlowRecord]) -> (Vec<Traffic>, Vec<Traffic>) {
    let rules = rules(counters, names).into_iter().map(|rule| Traffic {
        group: rule.policy_name,
        name: if rule.rule_name.is_empty() { rule.rule_id } else { rule.rule_name },
        flows: rule.flows,
        packets: rule.packets,
        bytes: rule.bytes,
        refused: rule.drops,
    });
    let resources = resources(&counters.routes, names, live).into_iter().map(|resource| Traffic {
        group: resource.network_id,
        name: if resource.name.is_empty() { resource.id } else { resource.name },
        flows: resource.flows,
        packets: resource.packets,
        bytes: resource.bytes,
        refused: resource.drops,
    });
    (bounded(rules.collect(), BUSIEST), bounded(resources.collect(), BUSIEST))
}

fn bounded(mut totals: Vec<Traffic>, most: usize) -> Vec<Traffic> {
    totals.sort_by_key(|total| std::cmp::Reverse(total.packets + total.refused));
    let others = totals.split_off(totals.len().min(most));
    let add = |sum: Traffic, next: &Traffic| Traffic {
        flows: sum.flows + next.flows,
        packets: sum.packets + next.packets,
        bytes: sum.bytes + next.bytes,
        refused: sum.refused + next.refused,
        ..sum
    };
    if !others.is_empty() {
        let other = Traffic { name: "other".into(), ..Traffic::default() };
        totals.push(others.iter().fold(other, add));
    }
    totals
}

/// Packets dropped, by reason.
pub fn drops(counters: &Counters) -> Vec<Drops> {
    let explanation = |name: &str| {
        let reason = DropReason::ALL.iter().find(|reason| reason.name() == name);
        reason.map_or("", |reason| reason.explanation().trim())
    };
    counters
        .drops
        .iter()
        .map(|(reason, packets)| Drops { reason, packets: *packets, explanation: explanation(reason) })
        .collect()
}

fn rules(counters: &Counters, names: &Names) -> Vec<RuleTotals> {
    let mut rules: BTreeMap<u32, RuleTotals> = BTreeMap::new();
    let named = |slot: u32| {
        names.rule(slot).map_or_else(
            || RuleTotals { rule_name: format!("slot {slot}"), action: "accept", ..RuleTotals::default() },
            |rule| RuleTotals {
                policy_id: rule.policy_id.clone(),
                policy_name: rule.policy_name.clone(),
                rule_id: rule.rule_id.clone(),
                rule_name: rule.rule_name.clone(),
                action: if rule.accept { "accept" } else { "drop" },
                ..RuleTotals::default()
            },
        )
    };
    for (slot, _) in names.rules() {
        rules.insert(slot, named(slot));
    }
    for counted in &counters.rules {
        let rule = rules.entry(counted.slot).or_insert_with(|| named(counted.slot));
        (rule.flows, rule.drops) = (counted.flows, counted.drops);
        (rule.packets, rule.bytes) = (counted.packets, counted.bytes);
    }
    rules.into_values().collect()
}

/// Totals by resource of the image in force: several routes may lead to one.
pub fn resources(routes: &[RouteCounters], names: &Names, live: &[FlowRecord]) -> Vec<ResourceTotals> {
    let mut resources: BTreeMap<&str, ResourceTotals> = BTreeMap::new();
    let mut by_number: BTreeMap<u16, &str> = BTreeMap::new();
    for (number, route) in names.routes() {
        let id = route.resource_id.as_str();
        by_number.insert(number, id);
        let resource = resources.entry(id).or_insert_with(|| ResourceTotals {
            id: id.to_owned(),
            name: route.resource_name.clone(),
            network_id: route.network_id.clone(),
            ..ResourceTotals::default()
        });
        resource.prefixes.push(route.prefix.to_string());
    }
    for counted in routes {
        let Some(resource) = by_number.get(&counted.route).and_then(|id| resources.get_mut(id)) else {
            continue;
        };
        resource.flows += counted.flows;
        resource.packets += counted.packets;
        resource.bytes += counted.bytes;
        resource.drops += counted.drops;
    }
    for number in live.iter().filter_map(|flow| flow.route) {
        if let Some(resource) = by_number.get(&number).and_then(|id| resources.get_mut(id)) {
            resource.live += 1;
        }
    }
    resources.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::RuleCounters;
    use crate::local::names::tests::names;

    #[test]
    fn counters_are_told_by_the_names_of_rules_and_resources() {
        let counters = Counters {
            rules: vec![
                RuleCounters { slot: 0, flows: 2, packets: 9, bytes: 900, drops: 0 },
                RuleCounters { slot: 77, flows: 1, ..RuleCounters::default() },
            ],
            routes: vec![RouteCounters { route: 1, flows: 2, packets: 9, bytes: 900, drops: 4 }],
            drops: vec![("no_rule", 4)],
            ..Counters::default()
        };
        let names = names();
        let around = Around { names: &names, live: &[], datapath: "ebpf", revision: Some(7), time_ms: 1 };
        let top = document(&counters, &around);
        let rules: Vec<_> = top.rules.iter().map(|r| (r.rule_name.as_str(), r.action, r.flows)).collect();
        // A rule that did nothing yet is there; one of an image gone by is told by its slot.
        assert_eq!(
            rules,
            [("users to web", "accept", 2), ("not there", "drop", 0), ("slot 77", "accept", 1)]
        );
        let lab = top.resources.iter().find(|r| r.name == "lab").unwrap();
        assert_eq!((lab.flows, lab.packets, lab.drops, lab.prefixes.len()), (2, 9, 4, 1));
        assert_eq!(top.resources.len(), 3);
        assert_eq!((top.drops[0].packets, top.drops[0].explanation), (4, "No rule admits it."));
        assert_eq!(top.gateway.name, "gw");
    }

    #[test]
    fn what_is_told_one_by_one_does_not_grow_with_the_policy() {
        let total = |n: u64| Traffic { name: n.to_string(), packets: n, flows: 1, ..Traffic::default() };
        let told = bounded((0..10).map(total).collect(), 3);
        let shown: Vec<_> = told.iter().map(|t| (t.name.as_str(), t.packets, t.flows)).collect();
        assert_eq!(shown, [("9", 9, 1), ("8", 8, 1), ("7", 7, 1), ("other", 21, 7)]);
        assert_eq!(bounded((0..3).map(total).collect(), 3).len(), 3);
    }
}
