//! Sums of flow events go to the store, some at a time.

use std::sync::Arc;
use std::time::Duration;

use super::sums::forget;
use super::{Flows, Inner};
use crate::store::{FlowBatch, FlowLog, Store, StoreError};

/// How often. A process that is killed has lost no more than what came since.
const EVERY: Duration = Duration::from_secs(5);
/// Rows of a kind in one transaction: others that write wait no longer than for these.
const AT_ONCE: usize = 512;

/// What is being written, and comes back where it is not: as much of it as may be kept by then.
struct Writing<'a> {
    flows: &'a Flows,
    /// The settings by which it was kept.
    log: FlowLog,
    batch: FlowBatch,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let mut inner = self.flows.lock();
        let Inner { keep, sums, .. } = &mut *inner;
        if *keep.log() != self.log {
            batch = forget(batch, &self.log, keep.log(), |id| keep.is_in(id));
        }
        sums.put_back(batch);
    }
}

/// What of a batch goes into one transaction: the sums at its end.
fn part(batch: &FlowBatch) -> FlowBatch {
    FlowBatch {
        sums: batch.sums[batch.sums.len().saturating_sub(AT_ONCE)..].to_vec(),
        days: batch.days.iter().take(AT_ONCE).map(|(of, day)| (of.clone(), *day)).collect(),
        lost: batch.lost.iter().take(AT_ONCE).map(|(agent, said)| (agent.clone(), *said)).collect(),
    }
}

fn remove(batch: &mut FlowBatch, part: &FlowBatch) {
    batch.sums.truncate(batch.sums.len() - part.sums.len());
    batch.days.retain(|of, _| !part.days.contains_key(of));
    batch.lost.retain(|agent, _| !part.lost.contains_key(agent));
}

impl Flows {
    /// Writes what has come to the store, now and then. It ends with the runtime.
    pub(crate) async fn keep_writing(self: Arc<Self>, store: Store) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut failing, mut said) = (false, None);
        loop {
            ticks.tick().await;
            let written = match self.say(&store, &mut said).await {
                Ok(()) => self.write(&store).await,
                failed => failed,
            };
            if let Err(error) = &written
                && !failing
            {
                tracing::warn!(%error, "sums of flow events cannot be written; they wait");
            }
            failing = written.is_err();
        }
    }

    /// Whether nothing waits to be written.
    pub(crate) fn are_written(&self) -> bool {
        self.lock().sums.is_empty()
    }

    /// Says that this process hears of flows, before it has any to write: killed from now on, it is missed.
    async fn say(&self, store: &Store, said: &mut Option<FlowLog>) -> Result<(), StoreError> {
        let _turn = self.writing.lock().await;
        let log = self.log();
        if said.as_ref() != Some(&log) && store.add_flow_sums(&log, &FlowBatch::default()).await?.is_some() {
            *said = Some(log);
        }
        Ok(())
    }

    /// Writes all that has come so far. What cannot be written waits; so it does while the account's settings are others than this
    /// process knows, which it soon will.
    pub(crate) async fn write(&self, store: &Store) -> Result<(), StoreError> {
        // Whoever waits here gets what another has begun to write as well.
        let _turn = self.writing.lock().await;
        let mut writing = self.take();
        while !writing.batch.is_empty() {
            let part = part(&writing.batch);
            let Some(added) = store.add_flow_sums(&writing.log, &part).await? else { break };
            remove(&mut writing.batch, &part);
            self.metrics.flow_sums_written.inc_by(added.rows);
            self.metrics.flow_events_unfit.inc_by(added.unfit);
        }
        Ok(())
    }

    /// All that has come so far.
    fn take(&self) -> Writing<'_> {
        let mut inner = self.lock();
        Writing { flows: self, log: inner.keep.log().clone(), batch: inner.sums.take() }
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_api::agent::FlowEvent;
    use sluicegate_api::agent::flow_event::Kind;

    use super::super::tests::state;
    use super::super::{Directory, Flows};
    use super::*;
    use crate::ids::DAY;
    use crate::metrics::Metrics;
    use crate::store::FlowDay;

    fn log(enabled: bool, groups: &[&str], counters: bool) -> FlowLog {
        FlowLog { enabled, groups: groups.iter().map(ToString::to_string).collect(), counters }
    }

    /// One event of each family, told of by a gateway, and what a gateway lost.
    fn heard(flows: &Flows) {
        let ends = [("100.90.0.2", "10.1.2.3"), ("fd5c::2", "fd00:1::9")];
        let event = |(source, destination): (&str, &str)| FlowEvent {
            kind: Kind::End.into(),
            protocol: 6,
            source: source.into(),
            destination: destination.into(),
            destination_port: 443,
            bytes: 5,
            ..FlowEvent::default()
        };
        flows.record("gw", ends.map(event).to_vec(), 7);
        flows.note_lost("gw", 3, 7);
    }

    #[tokio::test]
    async fn a_transaction_is_bounded_whatever_came_and_all_of_it_is_written() {
        let mut batch = FlowBatch::default();
        for number in 0..2 * AT_ONCE as i64 + 1 {
            let day = FlowDay { events: 1, unfit: 1, first_seen: 1 };
            batch.days.insert((20_000, format!("policy {number}")), day);
            batch.days.insert((20_000 + number, "policy".to_owned()), day);
            batch.lost.insert(format!("agent {number}"), (1, 20_000 * DAY));
        }
        let first = part(&batch);
        assert_eq!((first.days.len(), first.lost.len()), (AT_ONCE, AT_ONCE));
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let flows = Flows::new(Metrics::new().unwrap());
        flows.set_log(&store.account().await.unwrap().settings.flow_log(), &state());
        flows.lock().sums.put_back(batch);
        flows.write(&store).await.unwrap();
        assert!(flows.are_written());
        let coverage = store.flow_sums("policy", 0, |_, _| {}).await.unwrap();
        assert_eq!([coverage.events, coverage.unfit, coverage.lost], [2 * AT_ONCE as u64 + 1; 3]);
    }

    #[test]
    fn what_the_settings_forbid_while_it_is_being_written_does_not_come_back() {
        for (then, sums, unfit, bytes) in [
            (log(true, &[], true), 2, 0, 10),
            (log(true, &[], false), 2, 0, 0),
            (log(true, &["nobody"], true), 0, 2, 0),
            (log(false, &[], true), 0, 0, 0),
        ] {
            let flows = Flows::new(Metrics::new().unwrap());
            let state = state();
            flows.set_directory(Arc::new(Directory::new(&state)));
            heard(&flows);
            let writing = flows.take();
            assert_eq!(writing.batch.sums.len(), 2);
            flows.set_log(&then, &state);
            drop(writing);
            let back = flows.take();
            let of_days: u64 = back.batch.days.values().map(|day| day.unfit).sum();
            let of_sums: u64 = back.batch.sums.iter().map(|(_, amount)| amount.bytes).sum();
            assert_eq!((back.batch.sums.len(), of_days, of_sums), (sums, unfit, bytes), "{then:?}");
            assert_eq!(back.batch.lost.len(), usize::from(then.enabled), "{then:?}");
            drop(back);
            assert_eq!(flows.are_written(), !then.enabled, "{then:?}");
        }
    }

    #[test]
    fn where_nothing_is_kept_nothing_is_noted_of_what_agents_lost() {
        let flows = Flows::new(Metrics::new().unwrap());
        flows.set_log(&log(false, &[], true), &state());
        heard(&flows);
        assert!(flows.are_written());
    }

    #[tokio::test]
    async fn what_was_kept_by_other_settings_than_the_stores_waits_and_goes_by_those() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let flows = Flows::new(Metrics::new().unwrap());
        heard(&flows);
        let mut settings = store.account().await.unwrap().settings;
        settings.extra.network_traffic_logs_enabled = false;
        let account = store.update_settings(&crate::store::Actor::system(), settings).await.unwrap();
        flows.write(&store).await.unwrap();
        assert!(!flows.are_written(), "the process has not heard of it yet");
        flows.set_log(&account.settings.flow_log(), &state());
        assert!(flows.are_written());
    }

    #[tokio::test]
    async fn whoever_is_killed_before_it_has_written_anything_is_missed_too() {
        let directory = tempfile::tempdir().unwrap();
        for (enabled, broken_off) in [(false, 0), (true, 1)] {
            let store = Store::open(directory.path()).await.unwrap();
            let mut settings = store.account().await.unwrap().settings;
            settings.extra.network_traffic_logs_enabled = enabled;
            let account = store.update_settings(&crate::store::Actor::system(), settings).await.unwrap();
            let flows = Flows::new(Metrics::new().unwrap());
            flows.set_log(&account.settings.flow_log(), &state());
            let mut said = None;
            flows.say(&store, &mut said).await.unwrap();
            assert_eq!(said, Some(account.settings.flow_log()));
            store.close().await;
            drop(store);
            let store = Store::open(directory.path()).await.unwrap();
            assert_eq!(store.flow_sums("any", 0, |_, _| {}).await.unwrap().broken_off, broken_off);
            store.close().await;
        }
    }
}
