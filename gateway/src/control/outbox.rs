//! What waits to be reported. Acknowledgements go at once and are never lost; flow events are bounded and counted.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluicegate_api::agent::{Acknowledgement, Facts, FlowEvent, FlowList, Health, Learned, ReportRequest};
use tokio::sync::Notify;

/// Events kept while control is away; beyond, the oldest are lost and counted.
const FLOWS_KEPT: usize = 65_536;
/// Events in one report: some 200 KB.
const FLOWS_IN_A_REPORT: usize = 1_024;
/// Acknowledgements kept while control is away: only the newest matter.
const ACKNOWLEDGEMENTS_KEPT: usize = 1_024;

/// What waits to be reported.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    urgent: Notify,
}

/// What control is told of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether it is told of any.
    pub events: bool,
    /// Whether with packets and bytes.
    pub counters: bool,
}

impl Default for Told {
    /// Everything, unless control says otherwise.
    fn default() -> Self {
        Self { events: true, counters: true }
    }
}

impl Told {
    /// The event as control is told of it, if it is.
    fn of(self, mut event: FlowEvent) -> Option<FlowEvent> {
        if !self.counters {
            (event.packets, event.bytes) = (0, 0);
        }
        self.events.then_some(event)
    }
}

#[derive(Default)]
struct Waiting {
    told: Told,
    acknowledgements: VecDeque<Acknowledgement>,
    flows: VecDeque<FlowEvent>,
    health: Option<Health>,
    facts: Option<Facts>,
    learned: Option<Learned>,
    flow_list: Option<FlowList>,
    lost_here: u64,
    lost_below: u64,
}

impl Outbox {
    /// Reports an image's fate at once.
    pub fn acknowledge(&self, acknowledgement: Acknowledgement) {
        let mut waiting = self.waiting();
        if waiting.acknowledgements.len() >= ACKNOWLEDGEMENTS_KEPT {
            waiting.acknowledgements.pop_front();
        }
        waiting.acknowledgements.push_back(acknowledgement);
        drop(waiting);
        self.urgent.notify_one();
    }

    /// Takes the health of this moment, and how many events the datapath has lost since it started.
    pub fn health(&self, health: Health, lost_below: u64) {
        let mut waiting = self.waiting();
        waiting.health = Some(health);
        waiting.lost_below = lost_below;
    }

    /// Takes what posture checks judge this machine by; news go at once.
    pub fn facts(&self, facts: Facts, news: bool) {
        self.waiting().facts = Some(facts);
        if news {
            self.urgent.notify_one();
        }
    }

    /// Takes what names stand for, all of it, which goes at once.
    pub fn learned(&self, learned: Learned) {
        self.waiting().learned = Some(learned);
        self.urgent.notify_one();
    }

    /// Takes the answer to control's question, which goes at once. Only the last question is still waited for.
    pub fn flow_list(&self, list: FlowList) {
        self.waiting().flow_list = Some(list);
        self.urgent.notify_one();
    }

    /// From now on control is told this of flows. What it is not told any more is not lost, and goes.
    pub fn tell(&self, told: Told) {
        let mut waiting = self.waiting();
        waiting.told = told;
        waiting.flows = waiting.flows.drain(..).filter_map(|event| told.of(event)).collect();
    }

    /// Adds flow events.
    pub fn flows(&self, events: impl IntoIterator<Item = FlowEvent>) {
        let mut waiting = self.waiting();
        let told = waiting.told;
        waiting.flows.extend(events.into_iter().filter_map(|event| told.of(event)));
        waiting.trim();
    }

    /// Events lost here since the agent started, because control was away too long.
    pub fn lost(&self) -> u64 {
        self.waiting().lost_here
    }

    /// Whether more flow events wait than go into one report.
    pub fn crowded(&self) -> bool {
        self.waiting().flows.len() >= FLOWS_IN_A_REPORT
    }

    /// Returns when something must not wait for the next report.
    pub async fn urgent(&self) {
        self.urgent.notified().await;
    }

    /// The next report, taken out.
    pub fn take(&self) -> ReportRequest {
        let mut waiting = self.waiting();
        let events = waiting.flows.len().min(FLOWS_IN_A_REPORT);
        ReportRequest {
            acknowledgements: waiting.acknowledgements.drain(..).collect(),
            health: waiting.health.take(),
            flows: waiting.flows.drain(..events).collect(),
            flow_events_lost: waiting.lost_here + waiting.lost_below,
            facts: waiting.facts.take(),
            flow_list: waiting.flow_list.take(),
            learned: waiting.learned.take(),
        }
    }

    /// Puts back a report that did not arrive; its health is old by now, and who asked for flows has given up.
    pub fn put_back(&self, report: ReportRequest) {
        let mut waiting = self.waiting();
        for acknowledgement in report.acknowledgements.into_iter().rev() {
            waiting.acknowledgements.push_front(acknowledgement);
        }
        let told = waiting.told;
        for event in report.flows.into_iter().rev().filter_map(|event| told.of(event)) {
            waiting.flows.push_front(event);
        }
        // Newer ones may have come meanwhile.
        let facts = waiting.facts.take().or(report.facts);
        waiting.facts = facts;
        let learned = waiting.learned.take().or(report.learned);
        waiting.learned = learned;
        waiting.trim();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn trim(&mut self) {
        let excess = self.flows.len().saturating_sub(FLOWS_KEPT);
        self.flows.drain(..excess);
        self.lost_here += excess as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_control_is_not_to_be_told_of_does_not_wait_for_it() {
        let outbox = Outbox::default();
        let counted = |time_ms| FlowEvent { packets: 7, bytes: 700, ..event(time_ms) };
        outbox.flows((0..3).map(counted));
        let under_way = outbox.take();
        outbox.flows([counted(3)]);
        outbox.tell(Told { events: true, counters: false });
        outbox.flows([counted(4)]);
        let report = outbox.take();
        assert_eq!(report.flows, [event(3), event(4)]);
        outbox.tell(Told { events: false, counters: true });
        outbox.flows([counted(5)]);
        // Nor what comes back after a report that did not arrive.
        outbox.put_back(under_way);
        let report = outbox.take();
        assert_eq!((report.flows.len(), report.flow_events_lost), (0, 0));
        outbox.tell(Told::default());
        outbox.flows([counted(6)]);
        assert_eq!(outbox.take().flows, [counted(6)]);
    }

    fn event(time_ms: u64) -> FlowEvent {
        FlowEvent { time_ms, ..FlowEvent::default() }
    }

    #[test]
    fn a_report_that_did_not_arrive_goes_again_in_order() {
        let outbox = Outbox::default();
        outbox.flows((0..3).map(event));
        outbox.acknowledge(Acknowledgement { revision: 1, ..Default::default() });
        let report = outbox.take();
        outbox.flows([event(3)]);
        outbox.acknowledge(Acknowledgement { revision: 2, ..Default::default() });
        outbox.put_back(report);
        let report = outbox.take();
        assert_eq!(report.flows.iter().map(|f| f.time_ms).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(report.acknowledgements.iter().map(|a| a.revision).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_newest_facts_go_and_go_again_when_they_did_not_arrive() {
        use sluicegate_api::agent::{Process, facts::Addresses};
        let outbox = Outbox::default();
        let facts = |address: &str| {
            let addresses = Some(Addresses { prefixes: vec![address.to_owned()] });
            Facts { addresses, processes: Vec::<Process>::new() }
        };
        outbox.facts(facts("192.0.2.1/24"), true);
        let report = outbox.take();
        assert_eq!((report.facts.as_ref(), outbox.take().facts), (Some(&facts("192.0.2.1/24")), None));
        outbox.put_back(report.clone());
        assert_eq!(outbox.take().facts, report.facts);
        outbox.facts(facts("2001:db8::1/64"), false);
        outbox.put_back(report);
        assert_eq!(outbox.take().facts, Some(facts("2001:db8::1/64")));
    }

    #[test]
    fn what_names_stand_for_goes_at_once_and_again_unless_there_is_something_newer() {
        use futures_util::FutureExt as _;
        use sluicegate_api::agent::LearnedAddress;
        let outbox = Outbox::default();
        let learned = |octets: &[u8]| {
            let (resource_id, name) = ("r".to_owned(), "db.example.org".to_owned());
            Learned { addresses: vec![LearnedAddress { resource_id, name, address: octets.to_vec() }] }
        };
        assert_eq!(outbox.urgent().now_or_never(), None);
        outbox.learned(learned(&[192, 0, 2, 1]));
        assert_eq!(outbox.urgent().now_or_never(), Some(()));
        let report = outbox.take();
        assert_eq!((report.learned.as_ref(), outbox.take().learned), (Some(&learned(&[192, 0, 2, 1])), None));
        outbox.put_back(report.clone());
        assert_eq!(outbox.take().learned, report.learned);
        // Also when nothing is left of it.
        outbox.learned(Learned::default());
        outbox.put_back(report);
        assert_eq!(outbox.take().learned, Some(Learned::default()));
    }

    #[test]
    fn events_beyond_the_limit_are_lost_oldest_first_and_counted() {
        let outbox = Outbox::default();
        outbox.flows((0..FLOWS_KEPT as u64 + 5).map(event));
        outbox.health(Health::default(), 7);
        let report = outbox.take();
        assert_eq!(report.flows[0].time_ms, 5);
        assert_eq!(report.flow_events_lost, 12);
        assert_eq!(report.flows.len(), FLOWS_IN_A_REPORT);
    }
}
