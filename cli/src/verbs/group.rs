//! `sluice group`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::read_all;
use crate::client::Client;
use crate::error::Failure;
use crate::rest::{Group, Network, Resource};
use crate::terminal::{Terminal, text};

/// Members named before the rest is only counted.
const NAMED: usize = 6;

/// Prints all groups with their members.
pub(crate) async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/groups").await?;
    if terminal.is_json() {
        return terminal.json("groups", json!({ "groups": items }));
    }
    let mut groups: Vec<Group> = read_all(&items, "a group")?;
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    let resources = if groups.iter().any(|group| !group.resources.is_empty()) {
        resource_names(client).await?
    } else {
        BTreeMap::new()
    };
    let rows = groups.iter().map(|group| {
        let peers = some(group.peers.iter().map(|peer| peer.name.as_str()));
        let members = group.resources.iter().map(|r| resources.get(&r.id).unwrap_or(&r.id).as_str());
        vec![text(&group.name), text(peers), text(some(members)), text(&group.id)]
    });
    terminal.table(&["NAME", "PEERS", "RESOURCES", "~ID"], rows.collect(), "No groups.")
}

/// `a, b, c and 12 more`; nothing for nobody.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    if names.len() <= NAMED {
        return names.join(", ");
    }
    format!("{} and {} more", names[..NAMED].join(", "), names.len() - NAMED)
}

/// Names of all resources by id.
async fn resource_names(client: &Client) -> Result<BTreeMap<String, String>, Failure> {
    let networks: Vec<Network> = client.get("/api/networks").await?;
    let mut names = BTreeMap::new();
    for network in networks {
        let resources: Vec<Resource> = client.get(&format!("/api/networks/{}/resources", network.id)).await?;
        names.extend(resources.into_iter().map(|resource| (resource.id, resource.name)));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut_with_a_count() {
        assert_eq!(some(["b", "a"].into_iter()), "a, b");
        assert_eq!(some(["g", "f", "e", "d", "c", "b", "a", "h"].into_iter()), "a, b, c, d, e, f and 2 more");
        assert_eq!(some([].into_iter()), "");
    }
}
