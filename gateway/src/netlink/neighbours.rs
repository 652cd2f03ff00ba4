//! Notices that a neighbour's link-layer address has changed or gone, for those who remember such addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::{NetlinkError, failed};

/// Neighbours remembered at the most: beyond that, all are forgotten and any news counts as a change.
const REMEMBERED: usize = 16_384;

/// Between two tellings: a host that keeps changing its address must not keep everybody's from being remembered.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells that some neighbour is not where it was.
pub struct Neighbours {
    messages: BoxStream<'static, RouteNetlinkMessage>,
    /// Somebody has moved, which is yet to be told.
    moved: bool,
    /// When it may be told next.
    due: Instant,
    known: Known,
    task: JoinHandle<()>,
}

impl Neighbours {
    /// Watches from now on. Needs a tokio runtime.
    pub fn watch() -> Result<Self, NetlinkError> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Neigh])
            .map_err(|e| failed("changes of neighbours cannot be watched", e))?;
        let messages = messages.filter_map(|(message, _)| async move {
            match message.payload {
                NetlinkPayload::InnerMessage(message) => Some(message),
                _ => None,
            }
        });
        Ok(Self {
            messages: messages.boxed(),
            moved: false,
            due: Instant::now(),
            known: Known::default(),
            task: tokio::spawn(connection),
        })
    }

    /// Returns when a neighbour was lost or has another address than before: at once, or a tenth of a second after the last
    /// time. Never returns when the kernel stopped telling: what is remembered of neighbours is good for a second at the
    /// most, watched or not. Cancelled, it forgets nothing.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                message = self.messages.next() => match message {
                    Some(RouteNetlinkMessage::NewNeighbour(neighbour)) => self.moved |= self.known.heard(&neighbour),
                    Some(RouteNetlinkMessage::DelNeighbour(neighbour)) => self.moved |= self.known.lost(&neighbour),
                    Some(_) => {}
                    None => std::future::pending().await,
                },
                () = sleep_until(self.due), if self.moved => {
                    self.moved = false;
                    self.due = Instant::now() + PAUSE;
                    return;
                }
            }
        }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Link-layer addresses by device and network-layer address.
#[derive(Default)]
struct Known(HashMap<(u32, IpAddr), Vec<u8>>);

impl Known {
    /// Takes in what the kernel says. Whether somebody is elsewhere now.
    fn heard(&mut self, message: &NeighbourMessage) -> bool {
        let Some((key, address)) = facts(message) else { return false };
        if message.header.state == NeighbourState::Failed {
            return self.0.remove(&key).is_some();
        }
        let Some(address) = address else { return false };
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&key) {
            self.0.clear();
            return true;
        }
        self.0.insert(key, address.clone()).is_some_and(|before| before != address)
    }

    fn lost(&mut self, message: &NeighbourMessage) -> bool {
        facts(message).is_some_and(|(key, _)| self.0.remove(&key).is_some())
    }
}

type Facts = ((u32, IpAddr), Option<Vec<u8>>);

fn facts(message: &NeighbourMessage) -> Option<Facts> {
    let mut facts = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => facts.0 = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => facts.0 = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(address) => facts.1 = Some(address.to_vec()),
            _ => {}
        }
    }
    Some(((message.header.ifindex, facts.0?), facts.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(last: u8, state: NeighbourState, mac: Option<u8>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 3;
        message.header.state = state;
        let address = NeighbourAddress::Inet([10, 0, 0, last].into());
        message.attributes.push(NeighbourAttribute::Destination(address));
        message
            .attributes
            .extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, mac])));
        message
    }

    #[test]
    fn only_another_address_and_a_loss_are_changes() {
        let mut known = Known::default();
        assert!(!known.heard(&message(1, NeighbourState::Reachable, Some(7))));
        assert!(!known.heard(&message(1, NeighbourState::Stale, Some(7))));
        assert!(!known.heard(&message(2, NeighbourState::Incomplete, None)));
        assert!(known.heard(&message(1, NeighbourState::Reachable, Some(8))));
        assert!(known.heard(&message(1, NeighbourState::Failed, None)));
        assert!(!known.lost(&message(1, NeighbourState::Failed, None)));
        known.heard(&message(2, NeighbourState::Reachable, Some(9)));
        assert!(known.lost(&message(2, NeighbourState::Stale, Some(9))));
    }
}
