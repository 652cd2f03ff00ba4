//! `sluice access`: temporary access.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::object::{Kind, peer_id, text};
use super::read;
use crate::args::{Access as Asked, Grant};
use crate::client::Client;
use crate::error::Failure;
use crate::human::ago;
use crate::rest::{Peer, Policy};
use crate::terminal::{self, Terminal};

const ACCESS: Kind =
    Kind { word: "temporary access", schema: "access", names: &["name"], list: "sluice access list" };

/// What control answers to a grant.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Granted {
    name: String,
    id: String,
    rules: Vec<String>,
    addresses: Vec<String>,
    remote: Remote,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Remote {
    public_key: String,
    allowed_ips: Vec<String>,
    endpoint: Option<String>,
}

pub(crate) async fn run(client: &Client, terminal: &mut Terminal<'_>, asked: Asked) -> Result<(), Failure> {
    match asked {
        Asked::List => list(client, terminal).await,
        Asked::Grant(options) => grant(client, terminal, &options).await,
        Asked::Revoke { name } => {
            let granted = all(client).await?;
            let found = ACCESS.find(&granted, &name)?;
            let path = format!("/api/peers/{}", text(found, "id"));
            ACCESS.delete(client, terminal, &path, found).await
        }
    }
}

/// Everybody who is let to a peer for a while: such a peer's policy has its id. Objects of `id`, `name`, `to`, `rules`,
/// `last_seen` and `addresses`.
async fn all(client: &Client) -> Result<Vec<Value>, Failure> {
    let peers: Vec<Peer> = client.get("/api/peers").await?;
    let policies: Vec<Policy> = client.get("/api/policies").await?;
    let mut granted: Vec<Value> = peers.iter().filter_map(|peer| {
        let policy = policies.iter().find(|policy| policy.id == peer.id)?;
        let targets: BTreeSet<&str> = policy
            .rules
            .iter()
            .filter_map(|rule| Some(rule.destination_resource.as_ref()?.id.as_str()))
            .map(|id| peers.iter().find(|peer| peer.id == id).map_or(id, |peer| peer.name.as_str()))
            .collect();
        // Each rule is called what it opens.
        let rules: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
        Some(json!({ "id": peer.id, "name": peer.name, "to": targets, "rules": rules, "last_seen": peer.last_seen,
            "addresses": [peer.ip, peer.ipv6] }))
    }).collect();
    granted.sort_by_key(|one| text(one, "name").to_owned());
    Ok(granted)
}

async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let granted = all(client).await?;
    if terminal.is_json() {
        return terminal.json("access-list", json!({ "access": granted }));
    }
    let now = terminal.now;
    let rows = granted.iter().map(|one| {
        vec![
            terminal::text(text(one, "name")),
            terminal::text(super::object::texts(&one["to"])),
            terminal::text(super::object::texts(&one["rules"])),
            terminal::text(ago(text(one, "last_seen"), now)),
            terminal::text(super::object::texts(&one["addresses"])),
            terminal::text(text(one, "id")),
        ]
    });
    let headings = ["NAME", "TO", "RULES", "LAST SEEN", "~ADDRESSES", "~ID"];
    terminal.table(&headings, rows.collect(), "Nobody has temporary access.")
}

/// Prints a WireGuard configuration that lacks the private key only, which control never sees.
async fn grant(client: &Client, terminal: &mut Terminal<'_>, options: &Grant) -> Result<(), Failure> {
    let peer = peer_id(client, &options.peer).await?;
    let body = json!({ "name": options.name, "wg_pub_key": options.public_key, "rules": options.rules });
    let made: Value = client.post(&format!("/api/peers/{peer}/temporary-access"), &body).await?;
    if terminal.is_json() {
        return terminal.json("access", json!({ "access": made }));
    }
    let granted: Granted = read(&made, "temporary access")?;
    terminal.line("[Interface]")?;
    terminal.line("# PrivateKey = the one of the public key that was named")?;
    terminal.line(format!("Address = {}", granted.addresses.join(", ")))?;
    terminal.line("")?;
    terminal.line("[Peer]")?;
    terminal.line(format!("PublicKey = {}", granted.remote.public_key))?;
    terminal.line(format!("AllowedIPs = {}", granted.remote.allowed_ips.join(", ")))?;
    match &granted.remote.endpoint {
        Some(endpoint) => {
            terminal.line(format!("Endpoint = {endpoint}"))?;
            terminal.line("PersistentKeepalive = 25")?;
        }
        None => terminal.line("# Endpoint = HOST:PORT of that peer, which control does not know")?,
    }
    terminal.note(format!(
        "{} may open {} on {}. It ends some ten minutes after it was last heard of, or by `sluice access revoke {}`.",
        granted.name,
        granted.rules.join(", "),
        options.peer,
        granted.id
    ));
    Ok(())
}
