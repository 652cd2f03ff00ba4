//! Packets and bytes per rule and per route: those of flows that live, and those of flows that have ended.

use std::collections::HashMap;

use super::FlowRecord;

/// Totals by rule slot, or by route number. They never fall, whatever happens between two looks.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    ended: HashMap<u32, (u64, u64)>,
    shown: HashMap<u32, (u64, u64)>,
}

impl Totals {
    /// A flow of `key` has ended or was revoked.
    pub(crate) fn ended(&mut self, key: u32, packets: u64, bytes: u64) {
        add(&mut self.ended, key, packets, bytes);
    }

    /// These flows live; `key` says what each counts for.
    pub(crate) fn live(&mut self, flows: &[FlowRecord], key: impl Fn(&FlowRecord) -> Option<u32>) {
        let mut now = self.ended.clone();
        for flow in flows {
            if let Some(key) = key(flow) {
                add(&mut now, key, flow.packets, flow.bytes);
            }
        }
        for (key, (packets, bytes)) in now {
            let shown = self.shown.entry(key).or_default();
            *shown = (shown.0.max(packets), shown.1.max(bytes));
        }
    }

    /// The number stands for something else now.
    pub(crate) fn forget(&mut self, key: u32) {
        self.ended.remove(&key);
        self.shown.remove(&key);
    }

    /// Packets and bytes of its flows, both directions.
    pub(crate) fn of(&self, key: u32) -> (u64, u64) {
        self.shown.get(&key).copied().unwrap_or_default()
    }
}

fn add(totals: &mut HashMap<u32, (u64, u64)>, key: u32, packets: u64, bytes: u64) {
    let total = totals.entry(key).or_default();
    *total = (total.0 + packets, total.1 + bytes);
}

#[cfg(test)]
mod tests {
    use super::super::ledger::tests::flow;
    use super::*;

    #[test]
    fn totals_keep_what_ended_flows_carried_and_never_fall() {
        let mut totals = Totals::default();
        let by_rule = |flow: &FlowRecord| Some(flow.rule);
        totals.live(&[flow(1, 10), flow(2, 5)], by_rule);
        assert_eq!(totals.of(0), (15, 1500));
        totals.ended(0, 10, 1000);
        totals.live(&[flow(2, 6)], by_rule);
        assert_eq!(totals.of(0), (16, 1600));
        // A look that missed a flow takes nothing back.
        totals.live(&[], by_rule);
        assert_eq!(totals.of(0), (16, 1600));
        totals.forget(0);
        assert_eq!(totals.of(0), (0, 0));
    }
}
