//! The writes that turn what control has into what a file wants, or everything about the file that control's objects
//! contradict.

mod diff;
mod names;
mod policy;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::apply::current::{Current, CurrentNetwork};
use crate::apply::spec::{
    GroupSpec, NetworkSpec, PolicySpec, ResourceSpec, RouterSpec, Spec, Who, list, plain_address,
};
use crate::rest::{Group, Named, Policy, Reference, Resource, Router};
pub(crate) use diff::action_word;
use diff::{differs, switched};
use names::Names;

/// The group that holds every peer.
const ALL: &str = "All";

/// Steps in the order in which they are taken: whatever is named comes before whoever names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Every object the file names, changed or not, then the policies that go.
    pub steps: Vec<Step>,
    /// Policies that the file does not name and that stay.
    pub left_alone: Vec<LeftAlone>,
}

/// A policy that the file does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// Its name.
    pub name: String,
    /// Whether it lets every peer reach every peer, as the policy of a new account does.
    pub opens_all: bool,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `group`, `network`, `resource`, `router` or `policy`.
    pub kind: &'static str,
    /// Its name; of a router, its network and who routes.
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// The request.
    pub(crate) write: Write,
}

/// What happens to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is not there yet.
    Create,
    /// It differs, in these ways.
    Update(Vec<String>),
    /// It is as the file says.
    Keep,
    /// The file does not name it, and `--prune` was given.
    Delete,
}

/// A request, with names where ids may not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Nothing,
    Group { id: Option<String>, name: String, peers: BTreeSet<String>, resources: Vec<Reference> },
    Network { id: Option<String>, name: String, description: String },
    Resource { id: Option<String>, network: String, spec: ResourceSpec },
    Router { id: Option<String>, network: String, spec: RouterSpec },
    Policy { id: Option<String>, spec: PolicySpec, kept: Kept },
    DeletePolicy { id: String },
}

/// What a policy keeps because the file does not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) posture_checks: Vec<String>,
    /// By rule name: the rule as control said it.
    pub(crate) rules: BTreeMap<String, Value>,
}

impl Plan {
    /// Compares `spec` with `current`. Every fault of the file is told, not only the first.
    pub fn new(spec: &Spec, current: &Current, prune: bool) -> Result<Self, Vec<String>> {
        let mut planner =
            Planner { current, names: Names::of(spec, current), faults: Vec::new(), steps: Vec::new() };
        for group in &spec.groups {
            planner.group(group);
        }
        for network in &spec.networks {
            planner.network(network);
        }
        for policy in &spec.policies {
            planner.policy(policy);
        }
        let left_alone = planner.others(spec, prune);
        if planner.faults.is_empty() {
            Ok(Plan { steps: planner.steps, left_alone })
        } else {
            Err(planner.faults)
        }
    }

    /// Steps that write something.
    pub fn writes(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.action != Action::Keep)
    }
}

struct Planner<'a> {
    current: &'a Current,
    names: Names,
    faults: Vec<String>,
    steps: Vec<Step>,
}

impl<'a> Planner<'a> {
    fn group(&mut self, spec: &GroupSpec) {
        let at = format!("group '{}'", spec.name);
        for peer in spec.peers.iter().flatten() {
            self.known_peer(&at, peer);
        }
        let current =
            self.only("group", &spec.name, self.current.groups.iter().filter(|g| g.name == spec.name));
        let mut changes = Vec::new();
        if let (Some(group), Some(wanted)) = (current, &spec.peers) {
            let has: BTreeSet<String> = group.peers.iter().map(|peer| peer.name.clone()).collect();
            for (sign, names) in [("+", wanted - &has), ("-", &has - wanted)] {
                changes.extend(names.iter().map(|name| format!("{sign} peer {name}")));
            }
        }
        let write = |group: Option<&Group>| Write::Group {
            id: group.map(|group| group.id.clone()),
            name: spec.name.clone(),
            peers: spec.peers.clone().unwrap_or_default(),
            resources: group.map(|group| group.resources.clone()).unwrap_or_default(),
        };
        self.push("group", spec.name.clone(), current.map(|_| changes), write(current));
    }

    fn network(&mut self, spec: &NetworkSpec) {
        let same_name = self.current.networks.iter().filter(|n| n.network.name == spec.name);
        let current: Option<&CurrentNetwork> = self.only("network", &spec.name, same_name);
        let has = current.map(|current| current.network.description.as_str());
        let mut changes = Vec::new();
        differs(&mut changes, "description", has, spec.description.as_deref());
        let description = spec.description.clone().or(has.map(str::to_owned)).unwrap_or_default();
        let id = current.map(|current| current.network.id.clone());
        let write = Write::Network { id, name: spec.name.clone(), description };
        self.push("network", spec.name.clone(), current.map(|_| changes), write);

        for resource in &spec.resources {
            self.resource(&spec.name, current, resource);
        }
        for router in &spec.routers {
            self.router(&spec.name, current, router);
        }
    }

    fn resource(&mut self, network: &str, in_network: Option<&CurrentNetwork>, spec: &ResourceSpec) {
        let at = format!("resource '{}'", spec.name);
        for group in spec.groups.iter().flatten() {
            self.known_group(&at, group);
        }
        let same_name = self.current.resources().filter(|(_, r)| r.name == spec.name);
        let found: Option<(&str, &Resource)> = self.only("resource", &spec.name, same_name);
        let network_id = in_network.map(|n| n.network.id.as_str());
        if let Some((other, _)) = found.filter(|(id, _)| Some(*id) != network_id) {
            let other = self
                .current
                .networks
                .iter()
                .find(|n| n.network.id == other)
                .map_or(other, |n| &n.network.name);
            self.faults.push(format!(
                "{at}: the name is taken by a resource of network '{other}', and resources do not move between networks"
            ));
            return;
        }
        let current = found.map(|(_, resource)| resource);
        let mut spec = spec.clone();
        let mut changes = Vec::new();
        if let Some(has) = current {
            differs(&mut changes, "description", Some(&has.description), spec.description.as_deref());
            differs(
                &mut changes,
                "address",
                Some(&plain_address(&has.address)),
                Some(&plain_address(&spec.address)),
            );
            switched(&mut changes, "", has.enabled, spec.enabled);
            let groups: BTreeSet<String> = has.groups.iter().map(|group| group.name.clone()).collect();
            differs(&mut changes, "groups", Some(&list(&groups)), spec.groups.as_ref().map(list).as_deref());
            spec.description.get_or_insert_with(|| has.description.clone());
            spec.groups.get_or_insert(groups);
        }
        let write = Write::Resource {
            id: current.map(|c| c.id.clone()),
            network: network.into(),
            spec: spec.clone(),
        };
        self.push("resource", spec.name, current.map(|_| changes), write);
    }

    fn router(&mut self, network: &str, in_network: Option<&CurrentNetwork>, spec: &RouterSpec) {
        let name = format!("{network}: {}", spec.who);
        let at = format!("router '{name}'");
        match &spec.who {
            Who::Peer(peer) => self.known_peer(&at, peer),
            Who::Groups(groups) => groups.iter().for_each(|group| self.known_group(&at, group)),
        }
        let current: Vec<&Router> = in_network
            .iter()
            .flat_map(|n| &n.routers)
            .filter(|router| self.who(router) == spec.who)
            .collect();
        let current = match current[..] {
            [] => None,
            [one] => Some(one),
            _ => {
                self.faults
                    .push(format!("{at}: control has {} of them; delete all but one first", current.len()));
                return;
            }
        };
        let mut changes = Vec::new();
        if let Some(has) = current {
            differs(&mut changes, "metric", Some(&has.metric.to_string()), Some(&spec.metric.to_string()));
            let word = |on| Some(if on { "yes" } else { "no" });
            differs(&mut changes, "masquerade", word(has.masquerade), word(spec.masquerade));
            switched(&mut changes, "", has.enabled, spec.enabled);
        }
        let write =
            Write::Router { id: current.map(|c| c.id.clone()), network: network.into(), spec: spec.clone() };
        self.push("router", name, current.map(|_| changes), write);
    }

    /// Policies the file does not name: they go with `--prune` and stay without; returns those that stay.
    fn others(&mut self, spec: &Spec, prune: bool) -> Vec<LeftAlone> {
        let named: BTreeSet<&str> = spec.policies.iter().map(|policy| policy.name.as_str()).collect();
        let mut left_alone = Vec::new();
        for (policy, _) in
            self.current.policies.iter().filter(|(policy, _)| !named.contains(policy.name.as_str()))
        {
            if prune {
                let write = Write::DeletePolicy { id: policy.id.clone() };
                self.steps.push(Step {
                    kind: "policy",
                    name: policy.name.clone(),
                    action: Action::Delete,
                    write,
                });
            } else {
                left_alone.push(LeftAlone { name: policy.name.clone(), opens_all: opens_all(policy) });
            }
        }
        left_alone
    }

    /// Adds a step: creation without `changes`, else an update if there are any.
    fn push(&mut self, kind: &'static str, name: String, changes: Option<Vec<String>>, write: Write) {
        let (action, write) = match changes {
            None => (Action::Create, write),
            Some(changes) if changes.is_empty() => (Action::Keep, Write::Nothing),
            Some(changes) => (Action::Update(changes), write),
        };
        self.steps.push(Step { kind, name, action, write });
    }
}

fn opens_all(policy: &Policy) -> bool {
    let all = |groups: &[Named]| groups.iter().any(|group| group.name == ALL);
    policy.enabled
        && policy.rules.iter().any(|rule| {
            let whole = rule.enabled && rule.action == "accept" && rule.protocol == "all";
            whole && all(&rule.sources) && all(&rule.destinations)
        })
}
