//! What control does with the audit trail by itself, on the replica that leads: it says once a day which event is the
//! newest, for whoever keeps its log elsewhere, and removes events that are older than they are kept.

use std::time::Duration;

use super::leading;
use crate::ids::{DAY, now};
use crate::store::Store;

/// How often.
const EVERY: Duration = Duration::from_secs(24 * 3600);

/// Does it when this replica leads, at once and then every day. 0 days keep every event.
pub(super) async fn keep(store: Store, days: u32) {
    leading::repeat(&store, EVERY, || once(&store, days, now())).await;
}

async fn once(store: &Store, days: u32, now: i64) {
    if days > 0 {
        match store.prune_events(now - i64::from(days) * DAY).await {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(count, days, "removed audit events that are older than they are kept")
            }
            Err(error) => {
                tracing::error!(%error, "old audit events are kept, because they could not be removed")
            }
        }
    }
    match store.audit_head().await {
        Ok(head) => {
            tracing::info!(audit_head = %head, "the newest audit event, for `sluice audit verify --head`")
        }
        Err(error) => tracing::warn!(%error, "the newest audit event could not be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_removed_when_they_are_older_than_they_are_kept_and_never_by_default() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let codes = async || -> Vec<String> {
            store.events().await.unwrap().into_iter().map(|event| event.code).collect()
        };
        let first = codes().await;
        once(&store, 0, now() + 1_000 * DAY).await;
        once(&store, 10, now() + 9 * DAY).await;
        assert_eq!(codes().await, first);
        once(&store, 10, now() + 11 * DAY).await;
        assert_eq!(codes().await, ["audit.prune"]);
        assert_eq!(store.audit_head().await.unwrap().id, store.events().await.unwrap()[0].id);
    }
}
