//! Sums of flow events go to the store, some at a time.

use std::sync::Arc;
use std::time::Duration;

use super::Flows;
use crate::store::{FlowBatch, Store, StoreError};

/// How often. A process that is killed has lost no more than what came since.
const EVERY: Duration = Duration::from_secs(5);
/// Sums of one transaction: others that write wait no longer than for this.
const AT_ONCE: usize = 512;

/// What is being written, and comes back where it is not.
struct Writing<'a> {
    flows: &'a Flows,
    batch: FlowBatch,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.batch.is_empty() {
            self.flows.lock().sums.put_back(std::mem::take(&mut self.batch));
        }
    }
}

impl Flows {
    /// Writes what has come to the store, now and then. It ends with the runtime.
    pub(crate) async fn keep_writing(self: Arc<Self>, store: Store) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            let written = self.write(&store).await;
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

    /// Writes all that has come so far. What cannot be written waits; so it does while the account's settings are others than this
    /// process knows, which it soon will.
    pub(crate) async fn write(&self, store: &Store) -> Result<(), StoreError> {
        // Whoever waits here gets what another has begun to write as well.
        let _turn = self.writing.lock().await;
        let (log, batch) = {
            let mut inner = self.lock();
            (inner.keep.log().clone(), inner.sums.take())
        };
        let mut writing = Writing { flows: self, batch };
        while !writing.batch.is_empty() {
            let sums = writing.batch.sums.len();
            let part = FlowBatch {
                sums: writing.batch.sums[sums.saturating_sub(AT_ONCE)..].to_vec(),
                days: writing.batch.days.clone(),
                lost: writing.batch.lost.clone(),
            };
            let Some(added) = store.add_flow_sums(&log, &part).await? else { break };
            writing.batch.sums.truncate(sums.saturating_sub(AT_ONCE));
            writing.batch.days.clear();
            writing.batch.lost.clear();
            self.metrics.flow_sums_written.inc_by(added.rows);
            self.metrics.flow_events_unfit.inc_by(added.unfit);
        }
        Ok(())
    }
}
