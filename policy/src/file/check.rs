//! What YAML cannot say: unique names, addresses, metrics, services, ends of rules.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_saphyr::{Location, Spanned};

use super::yaml::{self, Names};
use super::{End, FileError, Group, Network, Policy, PolicyFile, Problem, Resource, Router, Rule, Via};
use crate::model::Service;
use crate::service;

pub(super) fn check(document: yaml::Document) -> Result<PolicyFile, FileError> {
    let mut checker = Checker::default();
    let file = checker.file(document);
    if checker.problems.is_empty() {
        return Ok(file);
    }
    checker.problems.sort_by_key(|p| (p.line, p.column));
    Err(FileError { problems: checker.problems })
}

/// The group that holds every peer and no resource.
const ALL: &str = "All";

/// Metric of a router that names none: the last choice.
const METRIC_DEFAULT: u16 = 9999;

#[derive(Default)]
struct Checker {
    problems: Vec<Problem>,
}

/// Names seen so far, and the line of each.
#[derive(Default)]
struct Seen(BTreeMap<String, u64>);

impl Checker {
    fn problem(&mut self, at: Location, message: impl Into<String>) {
        self.problems.push(Problem { line: at.line(), column: at.column(), message: message.into() });
    }

    fn file(&mut self, document: yaml::Document) -> PolicyFile {
        let (mut groups, mut networks, mut policies) = (Seen::default(), Seen::default(), Seen::default());
        let mut resources = Seen::default();
        PolicyFile {
            groups: document.groups.into_iter().map(|g| self.group(g, &mut groups)).collect(),
            networks: document
                .networks
                .into_iter()
                .map(|n| self.network(n, &mut networks, &mut resources))
                .collect(),
            policies: document.policies.into_iter().map(|p| self.policy(p, &mut policies)).collect(),
        }
    }

    fn group(&mut self, group: yaml::Group, seen: &mut Seen) -> Group {
        if group.name.value == ALL {
            self.problem(
                group.name.referenced,
                "the group All holds every peer by itself; it cannot be defined here",
            );
        }
        let peers = group.peers.map(|peers| self.names(peers, group.name.referenced));
        Group { name: self.unique(group.name, "group", seen), peers }
    }

    fn network(&mut self, network: yaml::Network, seen: &mut Seen, resources: &mut Seen) -> Network {
        Network {
            name: self.unique(network.name, "network", seen),
            description: network.description,
            resources: network.resources.into_iter().map(|r| self.resource(r, resources)).collect(),
            routers: network.routers.into_iter().filter_map(|r| self.router(r)).collect(),
        }
    }

    fn resource(&mut self, resource: yaml::Resource, seen: &mut Seen) -> Resource {
        let address = resource.address;
        if !is_address(&address.value) {
            let message = format!(
                "`{}` is not an address, a prefix or a domain; write for example 10.0.0.1, 10.0.0.0/24, fd00::/64, \
                 db.example.com or *.example.com",
                address.value
            );
            self.problem(address.referenced, message);
        }
        Resource {
            name: self.unique(resource.name, "resource", seen),
            description: resource.description,
            groups: resource.groups.map(|groups| self.names(groups, address.referenced)),
            address: address.value,
            enabled: resource.enabled,
        }
    }

    fn router(&mut self, router: Spanned<yaml::Router>) -> Option<Router> {
        let (at, router) = (router.referenced, router.value);
        let metric = match router.metric {
            None => METRIC_DEFAULT,
            Some(metric) => match u16::try_from(metric.value) {
                Ok(value @ 1..=9999) => value,
                _ => {
                    self.problem(
                        metric.referenced,
                        format!("metric {} is not between 1 and 9999", metric.value),
                    );
                    METRIC_DEFAULT
                }
            },
        };
        let via = match (router.peer, router.groups) {
            (Some(peer), None) => Via::Peer(self.name(peer, "peer")),
            (None, Some(groups)) => {
                let groups = self.names(groups, at);
                if groups.is_empty() {
                    self.problem(at, "a router's `groups` must name at least one group");
                }
                Via::Groups(groups)
            }
            _ => {
                self.problem(at, "a router needs either `peer` or `groups`, and not both");
                return None;
            }
        };
        Some(Router { via, metric, masquerade: router.masquerade, enabled: router.enabled })
    }

    fn policy(&mut self, policy: yaml::Policy, seen: &mut Seen) -> Policy {
        let at = policy.name.referenced;
        let name = self.unique(policy.name, "policy", seen);
        if policy.rules.is_empty() {
            self.problem(at, format!("policy `{name}` has no rules; give it at least one"));
        }
        let mut rule_names = Seen::default();
        let posture_checks = policy.posture_checks.map(|checks| self.names(checks, at));
        let rules = policy.rules.into_iter().enumerate();
        let rules = rules.map(|(i, rule)| self.rule(&name, i, rule, &mut rule_names)).collect();
        Policy { name, description: policy.description, enabled: policy.enabled, posture_checks, rules }
    }

    fn rule(&mut self, policy: &str, index: usize, rule: Spanned<yaml::Rule>, seen: &mut Seen) -> Rule {
        let (at, rule) = (rule.referenced, rule.value);
        let name = rule.name.unwrap_or_else(|| {
            let name = if index == 0 { policy.to_owned() } else { format!("{policy} {}", index + 1) };
            Spanned::new(name, at, at)
        });
        let service = service::parse(&rule.service.value).unwrap_or_else(|error| {
            self.problem(rule.service.referenced, error.to_string());
            Service::All
        });
        let from = self.end(rule.from, "from");
        if let End::Resource(resource) = &from {
            self.problem(
                at,
                format!("resource `{resource}` cannot open flows; `from` takes groups or peer:NAME"),
            );
        }
        Rule {
            name: self.unique(name, "rule", seen),
            description: rule.description,
            enabled: rule.enabled,
            action: rule.action,
            bidirectional: rule.bidirectional,
            service,
            from,
            to: self.end(rule.to, "to"),
        }
    }

    fn end(&mut self, names: Spanned<Names>, field: &str) -> End {
        let at = names.referenced;
        let names = self.names(names.value, at);
        let single =
            |prefix: &str| names.iter().find_map(|n| n.strip_prefix(prefix)).map(|n| n.trim().to_owned());
        let end = match (single("peer:"), single("resource:")) {
            (Some(peer), None) => End::Peer(peer),
            (None, Some(resource)) => End::Resource(resource),
            (None, None) if !names.is_empty() => return End::Groups(names),
            (None, None) => {
                self.problem(
                    at,
                    format!("`{field}` must name at least one group, peer:NAME or resource:NAME"),
                );
                return End::Groups(names);
            }
            (Some(peer), Some(_)) => End::Peer(peer),
        };
        if names.len() > 1 {
            let message = format!(
                "`{field}` takes either groups, or one peer:NAME, or one resource:NAME; write one rule for each"
            );
            self.problem(at, message);
        }
        if let End::Peer(name) | End::Resource(name) = &end
            && name.is_empty()
        {
            self.problem(at, format!("`{}` in `{field}` names nothing", names[0]));
        }
        end
    }

    fn names(&mut self, names: Names, at: Location) -> Vec<String> {
        let mut seen = Vec::with_capacity(names.0.len());
        for (name, place) in names.0 {
            let place = place.unwrap_or(at);
            if name.trim().is_empty() {
                self.problem(place, "a name is empty");
            } else if seen.contains(&name) {
                self.problem(place, format!("`{name}` is named twice"));
            } else {
                seen.push(name);
            }
        }
        seen
    }

    fn name(&mut self, name: Spanned<String>, kind: &str) -> String {
        if name.value.trim().is_empty() {
            self.problem(name.referenced, format!("the {kind} has an empty name"));
        }
        name.value
    }

    fn unique(&mut self, name: Spanned<String>, kind: &str, seen: &mut Seen) -> String {
        let at = name.referenced;
        let name = self.name(name, kind);
        if let Some(line) = seen.0.get(&name) {
            self.problem(at, format!("{kind} `{name}` is already in line {line}; names are unique"));
        }
        seen.0.entry(name.clone()).or_insert(at.line());
        name
    }
}

/// An address, a prefix, a domain, or a domain behind `*.`.
fn is_address(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
        return true;
    }
    let domain = text.strip_prefix("*.").unwrap_or(text);
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    // RFC 1035 2.3.1, with the underscore of service names; a name whose last label is a number is a broken address.
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let numeric = domain.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    domain.len() <= 253 && domain.split('.').all(label) && !numeric
}
