//! The writes that turn what control has into what a file wants, or everything that is wrong with the file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sluicegate_policy::model::{self, Service};

use crate::apply::current::{Current, CurrentNetwork};
use crate::apply::spec::{
    EndSpec, GroupSpec, NetworkSpec, PolicySpec, ResourceSpec, RouterSpec, Spec, Who, list, merged,
    plain_address,
};
use crate::rest::{Group, Policy, Reference, Resource, Router, Rule};

/// The group that holds every peer, always.
const ALL: &str = "All";

/// Steps in the order in which they are taken: whatever is named comes before whoever names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Every object the file names, changed or not, then the policies that go.
    pub steps: Vec<Step>,
    /// Names of policies that the file does not name and that stay.
    pub left_alone: Vec<String>,
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
        planner.repeated(spec);
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

/// How many objects have a name, those the file makes included.
struct Names {
    peers: BTreeMap<String, usize>,
    groups: BTreeMap<String, usize>,
    resources: BTreeMap<String, usize>,
}

impl Names {
    fn of(spec: &Spec, current: &Current) -> Self {
        let mut names = Names {
            peers: count(current.peers.iter().map(|p| &p.name)),
            groups: count(current.groups.iter().map(|g| &g.name)),
            resources: count(current.resources().map(|(_, r)| &r.name)),
        };
        for group in &spec.groups {
            names.groups.entry(group.name.clone()).or_insert(1);
        }
        for resource in spec.networks.iter().flat_map(|n| &n.resources) {
            names.resources.entry(resource.name.clone()).or_insert(1);
        }
        names
    }
}

fn count<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.clone()).or_default() += 1;
    }
    counts
}

impl<'a> Planner<'a> {
    fn group(&mut self, spec: &GroupSpec) {
        let at = format!("group '{}'", spec.name);
        if spec.name == ALL && spec.peers.is_some() {
            self.faults.push(format!("{at}: holds every peer by itself; it cannot be given members"));
            return;
        }
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
        if !(1..=9_999).contains(&spec.metric) {
            self.faults.push(format!("{at}: metric {} is not between 1 and 9999", spec.metric));
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

    fn policy(&mut self, spec: &PolicySpec) {
        let at = format!("policy '{}'", spec.name);
        if spec.rules.is_empty() {
            self.faults.push(format!(
                "{at}: has no rules; switch it off with `enabled: false` if it is to do nothing"
            ));
        }
        for rule in &spec.rules {
            let at = format!("{at}, rule '{}'", rule.name);
            self.known_end(&at, &rule.sources);
            self.known_end(&at, &rule.destinations);
        }
        let same_name = self.current.policies.iter().filter(|(p, _)| p.name == spec.name);
        let found: Option<&(Policy, Value)> = self.only("policy", &spec.name, same_name);
        let mut spec = spec.clone();
        let mut kept = Kept::default();
        let mut changes = Vec::new();
        if let Some((has, value)) = found {
            differs(&mut changes, "description", Some(&has.description), spec.description.as_deref());
            spec.description.get_or_insert_with(|| has.description.clone());
            switched(&mut changes, "", has.enabled, spec.enabled);
            self.rules(&mut changes, has, &mut spec);
            kept.posture_checks = has.source_posture_checks.clone();
            let rules = value["rules"].as_array().map_or(&[][..], Vec::as_slice);
            kept.rules =
                rules.iter().filter_map(|r| Some((r["name"].as_str()?.to_owned(), r.clone()))).collect();
        }
        if let Some(wanted) = &spec.posture_checks {
            let ids = self.posture_checks(&at, wanted);
            if found.is_some() && BTreeSet::from_iter(&kept.posture_checks) != BTreeSet::from_iter(&ids) {
                changes.push(format!(
                    "posture checks: {} -> {}",
                    self.posture_names(&kept.posture_checks),
                    or_none(wanted)
                ));
            }
            kept.posture_checks = ids;
        }
        let id = found.map(|(policy, _)| policy.id.clone());
        let write = Write::Policy { id, spec: spec.clone(), kept };
        self.push("policy", spec.name, found.map(|_| changes), write);
    }

    /// Ids of posture checks; an unknown one is a fault, for a policy without it would let more through.
    fn posture_checks(&mut self, at: &str, names: &BTreeSet<String>) -> Vec<String> {
        let mut ids = Vec::new();
        for name in names {
            let mut same_name = self.current.posture_checks.iter().filter(|check| check.name == *name);
            let first = same_name.next();
            let known = usize::from(first.is_some()) + same_name.count();
            self.known(at, "posture check", name, known, "control must have it first");
            ids.extend(first.map(|check| check.id.clone()));
        }
        ids
    }

    fn posture_names(&self, ids: &[String]) -> String {
        let checks = &self.current.posture_checks;
        or_none(
            &ids.iter()
                .map(|id| checks.iter().find(|c| c.id == *id).map_or(id, |c| &c.name).clone())
                .collect(),
        )
    }

    /// Compares rules by name, then their order.
    fn rules(&mut self, changes: &mut Vec<String>, has: &Policy, spec: &mut PolicySpec) {
        for wanted in &mut spec.rules {
            let Some(rule) = has.rules.iter().find(|rule| rule.name == wanted.name) else {
                changes.push(format!("+ rule '{}'", wanted.name));
                continue;
            };
            let of = format!("rule '{}' ", rule.name);
            differs(
                changes,
                &format!("{of}description"),
                Some(&rule.description),
                wanted.description.as_deref(),
            );
            wanted.description.get_or_insert_with(|| rule.description.clone());
            switched(changes, &of, rule.enabled, wanted.enabled);
            differs(changes, &format!("{of}action"), Some(&rule.action), Some(action_word(wanted.action)));
            match service_of(rule) {
                Ok(service) => {
                    differs(
                        changes,
                        &format!("{of}service"),
                        Some(&service.to_string()),
                        Some(&wanted.service.to_string()),
                    );
                }
                Err(why) => changes.push(format!("{of}service: {why} -> {}", wanted.service)),
            }
            if rule.bidirectional != wanted.bidirectional && !wanted.service.always_bidirectional() {
                changes
                    .push(format!("{of}bidirectional: {} -> {}", rule.bidirectional, wanted.bidirectional));
            }
            let sources = self.end(&rule.sources, rule.source_resource.as_ref()).to_string();
            differs(changes, &format!("{of}from"), Some(&sources), Some(&wanted.sources.to_string()));
            let destinations = self.end(&rule.destinations, rule.destination_resource.as_ref()).to_string();
            differs(changes, &format!("{of}to"), Some(&destinations), Some(&wanted.destinations.to_string()));
        }
        let wanted: Vec<&str> = spec.rules.iter().map(|rule| rule.name.as_str()).collect();
        let has: Vec<&str> = has.rules.iter().map(|rule| rule.name.as_str()).collect();
        changes
            .extend(has.iter().filter(|name| !wanted.contains(name)).map(|name| format!("- rule '{name}'")));
        let common = |of: &[&str], other: &[&str]| {
            of.iter().filter(|n| other.contains(n)).map(|n| n.to_string()).collect()
        };
        let (now, then): (Vec<String>, Vec<String>) = (common(&has, &wanted), common(&wanted, &has));
        if now != then {
            changes.push(format!("order of rules: {} -> {}", now.join(", "), then.join(", ")));
        }
    }

    /// Policies the file does not name: they go with `--prune` and stay without; returns those that stay.
    fn others(&mut self, spec: &Spec, prune: bool) -> Vec<String> {
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
                left_alone.push(policy.name.clone());
            }
        }
        left_alone
    }

    /// Names that the file gives twice.
    fn repeated(&mut self, spec: &Spec) {
        let mut seen = BTreeSet::new();
        let mut once = |kind: &str, name: &str, faults: &mut Vec<String>| {
            if name.trim().is_empty() {
                faults.push(format!("a {kind} has an empty name"));
            }
            if !seen.insert((kind.to_owned(), name.to_owned())) {
                faults.push(format!("{kind} '{name}' stands in the file twice"));
            }
        };
        let faults = &mut self.faults;
        for group in &spec.groups {
            once("group", &group.name, faults);
        }
        for network in &spec.networks {
            once("network", &network.name, faults);
            for resource in &network.resources {
                once("resource", &resource.name, faults);
            }
            for router in &network.routers {
                once("router", &format!("{}: {}", network.name, router.who), faults);
            }
        }
        for policy in &spec.policies {
            once("policy", &policy.name, faults);
            for rule in &policy.rules {
                once(&format!("policy '{}', rule", policy.name), &rule.name, faults);
            }
        }
    }

    /// The one object of a name; several are a fault.
    fn only<T>(&mut self, kind: &str, name: &str, mut same_name: impl Iterator<Item = T>) -> Option<T> {
        let first = same_name.next();
        let more = same_name.count();
        if more > 0 {
            self.faults
                .push(format!("{kind} '{name}': control has {} of that name; rename all but one", more + 1));
        }
        first
    }

    fn known_peer(&mut self, at: &str, name: &str) {
        let known = self.names.peers.get(name).copied().unwrap_or_default();
        self.known(
            at,
            "peer",
            name,
            known,
            "`sluice peer list` shows them; a machine becomes a peer by joining",
        );
    }

    fn known_group(&mut self, at: &str, name: &str) {
        let known = self.names.groups.get(name).copied().unwrap_or_default();
        self.known(at, "group", name, known, "add it under `groups:`, or see `sluice group list`");
    }

    fn known_end(&mut self, at: &str, end: &EndSpec) {
        match end {
            EndSpec::Groups(groups) if groups.is_empty() => {
                self.faults.push(format!("{at}: an end names nobody"))
            }
            EndSpec::Groups(groups) => groups.iter().for_each(|group| self.known_group(at, group)),
            EndSpec::Peer(peer) => self.known_peer(at, peer),
            EndSpec::Resource(name) => {
                let known = self.names.resources.get(name).copied().unwrap_or_default();
                self.known(at, "resource", name, known, "add it to a network, or see `sluice network list`");
            }
        }
    }

    fn known(&mut self, at: &str, kind: &str, name: &str, known: usize, hint: &str) {
        match known {
            0 => self.faults.push(format!("{at}: there is no {kind} '{name}' ({hint})")),
            1 => {}
            many => self.faults.push(format!("{at}: {many} {kind}s are called '{name}'; rename all but one")),
        }
    }

    fn who(&self, router: &Router) -> Who {
        if router.peer.is_empty() {
            let name = |id: &String| {
                self.current.groups.iter().find(|g| g.id == *id).map_or(id, |g| &g.name).clone()
            };
            return Who::Groups(router.peer_groups.iter().map(name).collect());
        }
        let peer = self.current.peers.iter().find(|peer| peer.id == router.peer);
        Who::Peer(peer.map_or(&router.peer, |peer| &peer.name).clone())
    }

    fn end(&self, groups: &[crate::rest::Named], reference: Option<&Reference>) -> EndSpec {
        let Some(reference) = reference else {
            return EndSpec::Groups(groups.iter().map(|group| group.name.clone()).collect());
        };
        let id = &reference.id;
        if reference.r#type == "peer" {
            return EndSpec::Peer(
                self.current.peers.iter().find(|p| p.id == *id).map_or(id, |p| &p.name).clone(),
            );
        }
        EndSpec::Resource(
            self.current.resources().find(|(_, r)| r.id == *id).map_or(id, |(_, r)| &r.name).clone(),
        )
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

/// What a stored rule matches.
fn service_of(rule: &Rule) -> Result<Service, String> {
    let mut ranges = Vec::new();
    for port in &rule.ports {
        let port: u16 = port.parse().map_err(|_| format!("'{port}', which is no port"))?;
        ranges.push(port..=port);
    }
    ranges.extend(rule.port_ranges.iter().map(|range| range.start..=range.end));
    Ok(merged(match rule.protocol.as_str() {
        "all" => Service::All,
        "icmp" => Service::Icmp,
        "udp" => Service::Udp(ranges),
        "tcp" | "netbird-ssh" => Service::Tcp(ranges),
        other => return Err(format!("'{other}'")),
    }))
}

/// The API's word for an action.
pub(crate) fn action_word(action: model::Action) -> &'static str {
    match action {
        model::Action::Accept => "accept",
        model::Action::Drop => "drop",
    }
}

fn or_none(names: &BTreeSet<String>) -> String {
    if names.is_empty() { "none".to_owned() } else { list(names) }
}

/// Notes a difference when the file says something and control has something else.
fn differs(changes: &mut Vec<String>, what: &str, has: Option<&str>, wants: Option<&str>) {
    let (Some(has), Some(wants)) = (has, wants) else { return };
    if has != wants {
        let shown = |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.to_owned() };
        changes.push(format!("{what}: {} -> {}", shown(has), shown(wants)));
    }
}

fn switched(changes: &mut Vec<String>, of: &str, has: bool, wants: bool) {
    if has != wants {
        changes.push(format!("{of}switched {}", if wants { "on" } else { "off" }));
    }
}
