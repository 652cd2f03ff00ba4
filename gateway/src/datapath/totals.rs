//! Packets and bytes per rule: those of flows that live, and those of flows that have ended.

use std::collections::HashMap;

use super::{Event, FlowRecord};

/// Totals by rule slot. They never fall, whatever happens between two looks.
#[derive(Debug, Default)]
pub(crate) struct RuleTotals {
    ended: HashMap<u32, (u64, u64)>,
    shown: HashMap<u32, (u64, u64)>,
}

impl RuleTotals {
    /// A flow has ended or was revoked.
    pub(crate) fn ended(&mut self, event: &Event) {
        if let Some(rule) = event.rule {
            add(&mut self.ended, rule, event.packets, event.bytes);
        }
    }

    /// These flows live.
    pub(crate) fn live(&mut self, flows: &[FlowRecord]) {
        let mut now = self.ended.clone();
        for flow in flows {
            add(&mut now, flow.rule, flow.packets, flow.bytes);
        }
        for (rule, (packets, bytes)) in now {
            let shown = self.shown.entry(rule).or_default();
            *shown = (shown.0.max(packets), shown.1.max(bytes));
        }
    }

    /// The slot stands for another rule now.
    pub(crate) fn forget(&mut self, rule: u32) {
        self.ended.remove(&rule);
        self.shown.remove(&rule);
    }

    /// Packets and bytes of a rule's flows, both directions.
    pub(crate) fn of(&self, rule: u32) -> (u64, u64) {
        self.shown.get(&rule).copied().unwrap_or_default()
    }
}

fn add(totals: &mut HashMap<u32, (u64, u64)>, rule: u32, packets: u64, bytes: u64) {
    let total = totals.entry(rule).or_default();
    *total = (total.0 + packets, total.1 + bytes);
}
