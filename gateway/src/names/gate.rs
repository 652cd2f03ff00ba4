//! Where answers are held until what they say is open: a packet that comes at once must find its way.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// How long an answer is held for where it is asked for: what a router says is open there has mostly come here, too.
const HOLD: Duration = Duration::from_secs(2);
/// How long at the router, which may have to tell control again.
const HOLD_AT_ROUTER: Duration = Duration::from_secs(3);
/// Answers on their way to who knows what is open.
const QUEUE: usize = 64;

/// What an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This agent routes the addresses as the resource's, by the image in force.
    Routed,
    /// This agent reaches the addresses through the resource's routers.
    Reached,
}

/// Addresses of a resource of which it is asked whether they are open.
pub struct Check {
    /// In which way.
    pub side: Side,
    /// The resource's id.
    pub resource: String,
    /// The addresses.
    pub addresses: BTreeSet<IpAddr>,
    opened: watch::Sender<BTreeSet<IpAddr>>,
}

impl Check {
    /// One, and where it is told what is open.
    pub(crate) fn new(
        side: Side,
        resource: &str,
        addresses: BTreeSet<IpAddr>,
    ) -> (Self, watch::Receiver<BTreeSet<IpAddr>>) {
        let (opened, known) = watch::channel(BTreeSet::new());
        (Self { side, resource: resource.to_owned(), addresses, opened }, known)
    }

    /// Tells which of them are open, as of now.
    pub fn tell(&self, open: BTreeSet<IpAddr>) {
        self.opened.send_if_modified(|known| {
            let differs = *known != open;
            *known = open;
            differs
        });
    }

    /// Whether nobody waits for it any more.
    pub fn is_over(&self) -> bool {
        self.opened.is_closed()
    }
}

/// The end that answers wait at.
#[derive(Clone)]
pub(super) struct Gate(mpsc::Sender<Check>);

impl Gate {
    /// Both ends: the other is for who knows what is open.
    pub(super) fn new() -> (Self, mpsc::Receiver<Check>) {
        let (gate, checks) = mpsc::channel(QUEUE);
        (Self(gate), checks)
    }

    /// Returns when all of `addresses` are open, or after a while; with those that are.
    pub(super) async fn pass(
        &self,
        side: Side,
        resource: &str,
        addresses: &BTreeSet<IpAddr>,
    ) -> BTreeSet<IpAddr> {
        let (check, mut known) = Check::new(side, resource, addresses.clone());
        let all = async {
            if self.0.send(check).await.is_ok() {
                // An agent that ends tells nothing more.
                let _ = known.wait_for(|open| open == addresses).await;
            }
        };
        let hold = match side {
            Side::Routed => HOLD_AT_ROUTER,
            Side::Reached => HOLD,
        };
        let _ = tokio::time::timeout(hold, all).await;
        known.borrow().clone()
    }
}
