//! What control does with the audit trail by itself, on the replica that leads: it says once a day which event is the
//! newest, for whoever keeps its log elsewhere, and removes events that are older than they are kept.

use std::time::Duration;

use crate::ids::now;
use crate::store::Store;

/// How often.
const EVERY: Duration = Duration::from_secs(24 * 3600);
const DAY: i64 = 24 * 3600 * 1000;

/// Does it when this replica leads, at once and then every day. 0 days keep every event.
pub(super) async fn keep(store: Store, days: u32) {
    let mut leads = store.leads();
    loop {
        // The sender is in the store itself.
        if leads.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        once(&store, days).await;
        tokio::time::sleep(EVERY).await;
    }
}

async fn once(store: &Store, days: u32) {
    if days > 0 {
        match store.prune_events(now() - i64::from(days) * DAY).await {
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
