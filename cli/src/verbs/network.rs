//! `sluice network`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{names, on_off, read, read_all};
use crate::client::Client;
use crate::error::Failure;
use crate::rest::{Group, Network, Peer, Resource, Router};
use crate::terminal::{Terminal, text};

/// Prints all networks: what is in them and who routes there.
pub(crate) async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let mut networks: Vec<Value> = client.get("/api/networks").await?;
    networks.sort_by_key(|network| network["name"].as_str().unwrap_or_default().to_owned());
    // The list names resources and routers by id only: their content is one request each per network.
    for network in &mut networks {
        let id = read::<Network>(network, "a network")?.id;
        let resources: Value = client.get(&format!("/api/networks/{id}/resources")).await?;
        let routers: Value = client.get(&format!("/api/networks/{id}/routers")).await?;
        network["resources"] = resources;
        network["routers"] = routers;
    }
    if terminal.is_json() {
        return terminal.json("networks", json!({ "networks": networks }));
    }
    let peers: Vec<Peer> = client.get("/api/peers").await?;
    let groups: Vec<Group> = client.get("/api/groups").await?;
    let names_by_id: BTreeMap<String, String> =
        peers.into_iter().map(|p| (p.id, p.name)).chain(groups.into_iter().map(|g| (g.id, g.name))).collect();

    if networks.is_empty() {
        return terminal.line("No networks. A policy file can make some: `sluice policy apply -f FILE`.");
    }
    for (index, item) in networks.iter().enumerate() {
        let network: Network = read(item, "a network")?;
        if index > 0 {
            terminal.line("")?;
        }
        let about =
            if network.description.is_empty() { String::new() } else { format!(": {}", network.description) };
        terminal.line(format!("{} ({}){about}", network.name, network.id))?;

        let mut resources: Vec<Resource> =
            read_all(item["resources"].as_array().map_or(&[], Vec::as_slice), "a resource")?;
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        let rows = resources.iter().map(|resource| {
            vec![
                text(&resource.name),
                text(&resource.address),
                text(&resource.r#type),
                on_off(resource.enabled),
                text(names(&resource.groups)),
            ]
        });
        terminal.line("")?;
        terminal.table(&["RESOURCE", "ADDRESS", "TYPE", "ON", "GROUPS"], rows.collect(), "no resources")?;

        let mut routers: Vec<Router> =
            read_all(item["routers"].as_array().map_or(&[], Vec::as_slice), "a router")?;
        routers.sort_by_key(|router| router.metric);
        let rows = routers.iter().map(|router| {
            let name = |id: &String| names_by_id.get(id).unwrap_or(id).clone();
            let who = if router.peer.is_empty() {
                format!("group {}", router.peer_groups.iter().map(name).collect::<Vec<_>>().join(", "))
            } else {
                name(&router.peer)
            };
            let masquerade = if router.masquerade { "yes" } else { "no" };
            vec![text(who), text(router.metric.to_string()), text(masquerade), on_off(router.enabled)]
        });
        terminal.line("")?;
        terminal.table(
            &["ROUTER", "METRIC", "MASQUERADE", "ON"],
            rows.collect(),
            "no routers: nobody can reach it",
        )?;
    }
    Ok(())
}
