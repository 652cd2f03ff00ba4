//! Policies and their rules.

use std::collections::BTreeSet;

use serde_json::Value;
use sluicegate_policy::model::Service;

use super::diff::{action_word, differs, switched};
use super::{Kept, Planner, Write};
use crate::apply::spec::{EndSpec, PolicySpec, list, merged};
use crate::rest::{Named, Policy, Reference, Rule};

impl Planner<'_> {
    pub(super) fn policy(&mut self, spec: &PolicySpec) {
        let at = format!("policy '{}'", spec.name);
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

    fn end(&self, groups: &[Named], reference: Option<&Reference>) -> EndSpec {
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

fn or_none(names: &BTreeSet<String>) -> String {
    if names.is_empty() { "none".to_owned() } else { list(names) }
}
