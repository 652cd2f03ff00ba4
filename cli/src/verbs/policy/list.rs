//! `sluice policy list`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::Client;
use crate::error::Failure;
use crate::rest::{Named, Network, Peer, Policy, Reference, Resource, Rule};
use crate::terminal::{Terminal, Tone, cell, text};
use crate::verbs::{names, on_off, read_all};

/// Prints all policies, one row per rule.
pub(super) async fn list(client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let items: Vec<Value> = client.get("/api/policies").await?;
    if terminal.is_json() {
        return terminal.json("policies", json!({ "policies": items }));
    }
    let mut policies: Vec<Policy> = read_all(&items, "a policy")?;
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    let ends = Ends::fetch(client, &policies).await?;
    let mut rows = Vec::new();
    for policy in &policies {
        for (index, rule) in policy.rules.iter().enumerate() {
            let first = index == 0;
            let arrow = if rule.bidirectional { "<->" } else { "->" };
            rows.push(vec![
                if first { text(&policy.name) } else { cell(Tone::Plain, "") },
                on_off(policy.enabled && rule.enabled),
                text(&rule.name),
                cell(action_tone(rule), &rule.action),
                text(ends.of(&rule.sources, rule.source_resource.as_ref())),
                cell(Tone::Plain, arrow),
                text(ends.of(&rule.destinations, rule.destination_resource.as_ref())),
                text(rule.service()),
                if first { text(&policy.id) } else { cell(Tone::Plain, "") },
            ]);
        }
    }
    let headers = ["POLICY", "ON", "~RULE", "ACTION", "FROM", "", "TO", "SERVICE", "~ID"];
    terminal.table(
        &headers,
        rows,
        "No policies: nothing may reach anything. Write some with `sluice policy apply -f FILE`.",
    )
}

fn action_tone(rule: &Rule) -> Tone {
    match rule.action.as_str() {
        "accept" => Tone::Good,
        "drop" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// Names of the peers and resources that rules name one by one.
struct Ends(BTreeMap<String, String>);

impl Ends {
    async fn fetch(client: &Client, policies: &[Policy]) -> Result<Self, Failure> {
        let references = || {
            policies
                .iter()
                .flat_map(|p| &p.rules)
                .flat_map(|r| r.source_resource.iter().chain(&r.destination_resource))
        };
        let mut known = BTreeMap::new();
        if references().any(|reference| reference.r#type == "peer") {
            let peers: Vec<Peer> = client.get("/api/peers").await?;
            known.extend(peers.into_iter().map(|peer| (peer.id, peer.name)));
        }
        if references().any(|reference| reference.r#type != "peer") {
            for network in client.get::<Vec<Network>>("/api/networks").await? {
                let resources: Vec<Resource> =
                    client.get(&format!("/api/networks/{}/resources", network.id)).await?;
                known.extend(resources.into_iter().map(|resource| (resource.id, resource.name)));
            }
        }
        Ok(Ends(known))
    }

    fn of(&self, groups: &[Named], reference: Option<&Reference>) -> String {
        let Some(reference) = reference else { return names(groups) };
        let name = self.0.get(&reference.id).unwrap_or(&reference.id);
        format!("{} {name}", reference.r#type)
    }
}
