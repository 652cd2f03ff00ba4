//! `sluice status`.

use serde_json::{Value, json};

use super::{read, read_all};
use crate::client::Client;
use crate::error::Failure;
use crate::human::plural;
use crate::rest::gateway::Gateway;
use crate::rest::{Network, Peer, Policy, User};
use crate::terminal::{Terminal, Tone};

/// Prints what an operator looks at first, and whatever is wrong.
pub(crate) async fn run(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let user: Value = client.get("/api/users/current").await?;
    let gateways: Vec<Value> = client.get("/api/gateways").await?;
    let peers: Vec<Peer> = client.get("/api/peers").await?;
    let policies: Vec<Policy> = client.get("/api/policies").await?;
    let networks: Vec<Network> = client.get("/api/networks").await?;
    let user: User = read(&user, "a user")?;
    let gateways: Vec<Gateway> = read_all(&gateways, "a gateway")?;

    let connected = gateways.iter().filter(|gateway| gateway.connected).count();
    // What one that is away enforces is not known.
    let in_sync = gateways.iter().filter(|gateway| gateway.connected && gateway.image.in_sync).count();
    let peers_connected = peers.iter().filter(|peer| peer.connected).count();
    let on = policies.iter().filter(|policy| policy.enabled).count();
    let problems: Vec<(String, String)> = gateways
        .iter()
        .flat_map(|gateway| gateway.problems().into_iter().map(|problem| (gateway.name.clone(), problem)))
        .collect();

    if terminal.is_json() {
        let problems: Vec<_> = problems
            .iter()
            .map(|(gateway, problem)| json!({ "gateway": gateway, "problem": problem }))
            .collect();
        return terminal.json(
            "status",
            json!({
                "control": { "url": client.url(), "user": user.name, "role": user.role },
                "gateways": { "total": gateways.len(), "connected": connected, "in_sync": in_sync },
                "peers": { "total": peers.len(), "connected": peers_connected },
                "policies": { "total": policies.len(), "enabled": on },
                "networks": { "total": networks.len() },
                "problems": problems,
            }),
        );
    }
    let name = if user.name.is_empty() { &user.id } else { &user.name };
    terminal.line(format!("Control   {}, as {name} ({})", client.url(), user.role))?;
    let gateways_line = match gateways.len() {
        0 => "none has joined".to_owned(),
        total => format!("{connected} of {total} connected, {in_sync} of {total} enforce the newest image"),
    };
    terminal.line(format!("Gateways  {gateways_line}"))?;
    terminal.line(format!("Peers     {peers_connected} of {} connected", peers.len()))?;
    terminal.line(format!("Policies  {on} on, {} off", policies.len() - on))?;
    terminal.line(format!("Networks  {}", plural(networks.len(), "network")))?;
    for (index, (gateway, problem)) in problems.iter().enumerate() {
        let problem = terminal.paint(Tone::Warn, &format!("{gateway}: {problem}"));
        terminal.line(format!("{:<9} {problem}", if index == 0 { "Problems" } else { "" }))?;
    }
    Ok(())
}
