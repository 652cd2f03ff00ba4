//! `sluice peer`.

use serde_json::{Value, json};

use super::{connected, read_all};
use crate::client::Client;
use crate::error::Failure;
use crate::human::ago;
use crate::rest::Peer;
use crate::terminal::{Terminal, text};

/// Prints all peers by name.
pub(crate) async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/peers").await?;
    if terminal.is_json() {
        return terminal.json("peers", json!({ "peers": items }));
    }
    let mut peers: Vec<Peer> = read_all(&items, "a peer")?;
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    let now = terminal.now;
    let rows = peers.iter().map(|peer| {
        vec![
            text(&peer.name),
            connected(peer.connected),
            text(&peer.ip),
            text(&peer.ipv6),
            text(groups(peer)),
            text(ago(&peer.last_seen, now)),
            text(&peer.id),
        ]
    });
    let headers = ["NAME", "STATE", "IPV4", "~IPV6", "GROUPS", "~SEEN", "~ID"];
    terminal.table(
        &headers,
        rows.collect(),
        "No peers yet. Make a key with `sluice setup-key create --name NAME`, then join a machine with it:\n  \
         sluicegate-gateway join --role peer --control URL --setup-key-file FILE",
    )
}

/// Names of its groups but `All`, which says nothing.
fn groups(peer: &Peer) -> String {
    let names = peer.groups.iter().map(|group| group.name.as_str()).filter(|name| *name != "All");
    names.collect::<Vec<_>>().join(", ")
}
