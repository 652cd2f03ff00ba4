//! Sums of flows are removed when they are older than they are kept, by the replica that leads.

use std::time::Duration;

use super::leading;
use crate::ids::{DAY, now};
use crate::store::Store;

/// How often: a day that is over goes within this.
const EVERY: Duration = Duration::from_secs(3600);

/// Does it when this replica leads, at once and then now and then: today and `days` days before it are kept.
pub(super) async fn keep(store: Store, days: u32) {
    leading::repeat(&store, EVERY, || once(&store, days, now())).await;
}

async fn once(store: &Store, days: u32, now: i64) {
    match store.prune_flow_sums(now.div_euclid(DAY) - i64::from(days)).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, days, "removed sums of flows that are older than they are kept"),
        Err(error) => {
            tracing::error!(%error, "old sums of flows are kept, because they could not be removed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FlowAmount, FlowBatch, FlowDay, FlowKey, FlowVerdict};

    #[tokio::test]
    async fn a_day_goes_when_it_is_older_than_days_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let log = store.account().await.unwrap().settings.flow_log();
        let mut batch = FlowBatch::default();
        for (day, address) in [(100, "10.0.0.1"), (101, "fd00::1"), (102, "10.0.0.1")] {
            let key = FlowKey {
                day,
                peer: "peer".into(),
                verdict: FlowVerdict::Accept,
                source: String::new(),
                destination: "resource".into(),
                version: 4,
                protocol: 6,
                port: 443,
                policy_id: "policy".into(),
                rule_id: "rule".into(),
                enters: true,
            };
            let (begun, ended, packets, bytes) = (1, 1, 2, 100);
            let (first_seen, last_seen) = (day * DAY, day * DAY);
            let address = address.parse().unwrap();
            batch
                .sums
                .push((key, FlowAmount { address, begun, ended, packets, bytes, first_seen, last_seen }));
            let of = FlowDay { events: 2, unfit: 0, first_seen };
            batch.days.insert((day, "policy".into()), of);
        }
        store.add_flow_sums(&log, &batch).await.unwrap().unwrap();
        let days = async || {
            let mut days = Vec::new();
            let coverage = store.flow_sums("policy", 0, |key, _| days.push(key.day)).await.unwrap();
            assert_eq!(coverage.events, 2 * days.len() as u64);
            days
        };
        once(&store, 1, 101 * DAY + 1).await;
        assert_eq!(days().await, [100, 101, 102]);
        once(&store, 1, 102 * DAY).await;
        assert_eq!(days().await, [101, 102]);
        once(&store, 1, 110 * DAY).await;
        assert_eq!(days().await, [0_i64; 0]);
    }
}
