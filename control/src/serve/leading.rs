//! What the replica that leads does now and then.

use std::time::Duration;

use crate::store::Store;

/// Does `work` while this replica leads, at once and then after `every` again, for as long as there is a store.
pub(super) async fn repeat<F: Future<Output = ()>>(store: &Store, every: Duration, work: impl Fn() -> F) {
    let mut leads = store.leads();
    loop {
        // The sender is in the store itself.
        if leads.wait_for(|leads| *leads).await.is_err() {
            return;
        }
        work().await;
        tokio::time::sleep(every).await;
    }
}
