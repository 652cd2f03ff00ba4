//! Notices that devices, addresses or routes changed; what they are now is read anew, not pieced together.

use std::time::Duration;

use futures_util::StreamExt as _;
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{NetlinkError, failed};

/// A device that comes up brings several changes at once; one look after them is enough.
const SETTLE: Duration = Duration::from_millis(100);

/// Tells that something changed.
pub struct Changes {
    changed: mpsc::Receiver<()>,
    tasks: [JoinHandle<()>; 2],
}

impl Changes {
    /// Watches from now on. Needs a tokio runtime.
    pub fn watch() -> Result<Self, NetlinkError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|e| failed("changes of devices and routes cannot be watched", e))?;
        let (tell, changed) = mpsc::channel(1);
        let reader = tokio::spawn(connection);
        let teller = tokio::spawn(async move {
            while messages.next().await.is_some() {
                let settled = tokio::time::sleep(SETTLE);
                tokio::pin!(settled);
                loop {
                    tokio::select! {
                        () = &mut settled => break,
                        Some(_) = messages.next() => {}
                    }
                }
                // A full channel: the look that is due will see this change too.
                let _ = tell.try_send(());
            }
        });
        Ok(Self { changed, tasks: [reader, teller] })
    }

    /// Returns some time after something changed, once for changes that come together. Never returns when the kernel
    /// stopped telling; the agent also looks by the clock. Loses nothing when it is cancelled.
    pub async fn next(&mut self) {
        if self.changed.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
