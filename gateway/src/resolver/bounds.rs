//! How many questions are answered at the same time, so that nobody can have this agent remember without end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Questions in flight, of all clients.
const ALL: usize = 1024;
/// Questions in flight of one client, which is a socket.
const CLIENT: usize = 64;
/// Connections that are open at the same time.
pub(super) const CONNECTIONS: usize = 64;
/// Connections of other machines, which are told that they are refused and no more.
pub(super) const STRANGERS: usize = 8;

/// Questions in flight.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds(Arc<Mutex<HashMap<SocketAddr, usize>>>);

/// Room for one question, until this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    bounds: Bounds,
    client: SocketAddr,
}

impl Bounds {
    /// Room for one more question of `client`, where there is any.
    pub(super) fn admit(&self, client: SocketAddr) -> Option<Room> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.values().sum::<usize>() >= ALL {
            return None;
        }
        let of_client = clients.entry(client).or_default();
        if *of_client >= CLIENT {
            return None;
        }
        *of_client += 1;
        Some(Room { bounds: self.clone(), client })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut clients = self.bounds.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1000 + n as u16))
    }

    #[test]
    fn one_client_cannot_take_the_room_of_others_and_all_together_have_no_more_than_there_is() {
        let bounds = Bounds::default();
        let mut first: Vec<Room> = std::iter::from_fn(|| bounds.admit(client(0))).collect();
        assert_eq!(first.len(), CLIENT);
        let others: Vec<Room> = (1..ALL).filter_map(|n| bounds.admit(client(n))).collect();
        assert_eq!(first.len() + others.len(), ALL);
        first.pop();
        assert!(bounds.admit(client(2000)).is_some());
        drop((first, others));
        assert!(bounds.0.lock().unwrap().is_empty(), "nobody is remembered who asks nothing");
    }
}
