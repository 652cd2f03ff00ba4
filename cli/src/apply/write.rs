//! Takes the steps of a plan, and says exactly how far it came when one fails.

use serde::Deserialize;
use serde_json::{Value, json};
use sluicegate_policy::model::Service;

use crate::apply::current::Current;
use crate::apply::ids::Ids;
use crate::apply::plan::{Kept, Plan, Step, Write, action_word};
use crate::apply::spec::{EndSpec, PolicySpec, ResourceSpec, RouterSpec, RuleSpec, Who};
use crate::client::Client;
use crate::error::Failure;
use crate::rest::{Reference, Resource};

/// Why a plan was not carried out to its end.
#[derive(Debug)]
pub struct Stopped {
    /// Index of the step that failed.
    pub at: usize,
    /// What failed.
    pub cause: Failure,
}

/// An object as the answer to its creation names it.
#[derive(Deserialize)]
struct Created {
    id: String,
}

/// Takes every step in order and calls `taken` after each that wrote something.
pub async fn carry_out(
    client: &Client,
    plan: &Plan,
    current: &Current,
    mut taken: impl FnMut(&Step) -> Result<(), Failure>,
) -> Result<(), Stopped> {
    let mut ids = Ids::of(current);
    for (at, step) in plan.steps.iter().enumerate() {
        if matches!(step.write, Write::Nothing) {
            continue;
        }
        let done = async {
            take(client, &step.write, &mut ids).await?;
            taken(step)
        };
        done.await.map_err(|cause| Stopped { at, cause })?;
    }
    Ok(())
}

async fn take(client: &Client, write: &Write, ids: &mut Ids) -> Result<(), Failure> {
    match write {
        Write::Nothing => {}
        Write::Group { id, name, peers, resources } => {
            let peers = peers
                .iter()
                .map(|peer| known(ids.peers.get(peer), "peer", peer))
                .collect::<Result<Vec<_>, _>>()?;
            let resources: Vec<_> = resources.iter().map(reference).collect();
            let body = json!({ "name": name, "peers": peers, "resources": resources });
            let group: Created = save(client, "/api/groups", id.as_deref(), &body).await?;
            ids.groups.insert(name.clone(), group.id);
        }
        Write::Network { id, name, description } => {
            let body = json!({ "name": name, "description": description });
            let network: Created = save(client, "/api/networks", id.as_deref(), &body).await?;
            ids.networks.insert(name.clone(), network.id);
        }
        Write::Resource { id, network, spec } => {
            let path =
                format!("/api/networks/{}/resources", known(ids.networks.get(network), "network", network)?);
            let resource: Resource = save(client, &path, id.as_deref(), &resource_body(spec, ids)?).await?;
            ids.resources.insert(spec.name.clone(), resource.reference());
        }
        Write::Router { id, network, spec } => {
            let path =
                format!("/api/networks/{}/routers", known(ids.networks.get(network), "network", network)?);
            let _: Created = save(client, &path, id.as_deref(), &router_body(spec, ids)?).await?;
        }
        Write::Policy { id, spec, kept } => {
            let _: Created =
                save(client, "/api/policies", id.as_deref(), &policy_body(spec, kept, ids)?).await?;
        }
        Write::DeletePolicy { id } => client.delete(&format!("/api/policies/{id}")).await?,
    }
    Ok(())
}

/// Replaces the object `id` under `path`, or creates one.
async fn save<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    id: Option<&str>,
    body: &Value,
) -> Result<T, Failure> {
    match id {
        Some(id) => client.put(&format!("{path}/{id}"), body).await,
        None => client.post(path, body).await,
    }
}

fn resource_body(spec: &ResourceSpec, ids: &Ids) -> Result<Value, Failure> {
    let groups = group_ids(spec.groups.iter().flatten(), ids)?;
    Ok(json!({
        "name": spec.name,
        "description": spec.description.as_deref().unwrap_or_default(),
        "address": spec.address,
        "enabled": spec.enabled,
        "groups": groups,
    }))
}

fn router_body(spec: &RouterSpec, ids: &Ids) -> Result<Value, Failure> {
    let mut body = json!({ "metric": spec.metric, "masquerade": spec.masquerade, "enabled": spec.enabled });
    match &spec.who {
        Who::Peer(peer) => body["peer"] = known(ids.peers.get(peer), "peer", peer)?.as_str().into(),
        Who::Groups(groups) => body["peer_groups"] = group_ids(groups.iter(), ids)?.into(),
    }
    Ok(body)
}

fn policy_body(spec: &PolicySpec, kept: &Kept, ids: &Ids) -> Result<Value, Failure> {
    let rules = spec.rules.iter().map(|rule| rule_body(rule, kept.rules.get(&rule.name), ids));
    Ok(json!({
        "name": spec.name,
        "description": spec.description.as_deref().unwrap_or_default(),
        "enabled": spec.enabled,
        "source_posture_checks": kept.posture_checks,
        "rules": rules.collect::<Result<Vec<_>, _>>()?,
    }))
}

/// A rule; `before` is the stored rule of its name, which gives the id and what a file cannot say.
fn rule_body(spec: &RuleSpec, before: Option<&Value>, ids: &Ids) -> Result<Value, Failure> {
    let (protocol, ranges) = match &spec.service {
        Service::All => ("all", &[][..]),
        Service::Icmp => ("icmp", &[][..]),
        Service::Tcp(ranges) => ("tcp", ranges.as_slice()),
        Service::Udp(ranges) => ("udp", ranges.as_slice()),
    };
    let mut body = json!({
        "name": spec.name,
        "description": spec.description.as_deref().unwrap_or_default(),
        "enabled": spec.enabled,
        "action": action_word(spec.action),
        "bidirectional": spec.bidirectional,
        "protocol": protocol,
    });
    if let Some(before) = before {
        body["id"] = before["id"].clone();
        // To a file, NetBird's SSH is tcp: a rule that is still tcp goes on being what it was, with its local users.
        if before["protocol"] == "netbird-ssh" && protocol == "tcp" {
            body["protocol"] = before["protocol"].clone();
            if !before["authorized_groups"].is_null() {
                body["authorized_groups"] = before["authorized_groups"].clone();
            }
        }
    }
    // The API takes single ports or ranges, not both.
    if ranges.iter().all(|range| range.start() == range.end()) {
        if !ranges.is_empty() {
            body["ports"] = ranges.iter().map(|range| range.start().to_string()).collect();
        }
    } else {
        body["port_ranges"] = ranges.iter().map(|r| json!({ "start": r.start(), "end": r.end() })).collect();
    }
    for (end, groups, resource) in [
        (&spec.sources, "sources", "sourceResource"),
        (&spec.destinations, "destinations", "destinationResource"),
    ] {
        match end {
            EndSpec::Groups(names) => body[groups] = group_ids(names.iter(), ids)?.into(),
            EndSpec::Peer(name) => {
                body[resource] = json!({ "id": known(ids.peers.get(name), "peer", name)?, "type": "peer" });
            }
            EndSpec::Resource(name) => {
                body[resource] = reference(known(ids.resources.get(name), "resource", name)?)
            }
        }
    }
    Ok(body)
}

fn reference(reference: &Reference) -> Value {
    json!({ "id": reference.id, "type": reference.r#type })
}

fn group_ids<'a>(names: impl Iterator<Item = &'a String>, ids: &Ids) -> Result<Vec<String>, Failure> {
    names.map(|name| known(ids.groups.get(name), "group", name).cloned()).collect()
}

/// The plan has checked every name, and creations come before uses: this fails only if control answers oddly.
fn known<'a, T>(id: Option<&'a T>, kind: &str, name: &str) -> Result<&'a T, Failure> {
    id.ok_or_else(|| Failure::failed(format!("{kind} '{name}' has no id")))
}
