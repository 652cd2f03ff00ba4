//! Whether it is the host itself that asks: its questions come from one of its own addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::netlink::Netlink;

/// How often the host's addresses are looked up at the most: strangers may ask more often.
const REVIEW: Duration = Duration::from_secs(1);

/// The host's own addresses.
pub(super) struct Own {
    netlink: Netlink,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    addresses: BTreeSet<IpAddr>,
    looked: Option<Instant>,
}

impl Own {
    pub(super) fn new(netlink: Netlink) -> Self {
        Self { netlink, known: Mutex::default() }
    }

    /// Whether `address` is one of the host's own, as of a second ago.
    pub(super) async fn is_own(&self, address: IpAddr) -> bool {
        // The kernel lets loopback addresses in by no other device.
        if address.is_loopback() {
            return true;
        }
        let mut known = self.known.lock().await;
        if known.looked.is_none_or(|looked| looked.elapsed() >= REVIEW) {
            match self.netlink.all_addresses().await {
                Ok(found) => known.addresses = found.into_iter().map(|found| found.addr()).collect(),
                Err(e) => tracing::debug!("who asks is judged by addresses that may be old: {e}"),
            }
            known.looked = Some(Instant::now());
        }
        known.addresses.contains(&address)
    }
}
