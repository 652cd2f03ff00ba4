//! What YAML cannot say: unique names, addresses, metrics, services, ends of rules.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_saphyr::{Location, Spanned};

use super::words::{duration_text, merged, parse_duration};
use super::write::default_name;
use super::yaml::{self, Names};
use super::{
    Claim, End, FileError, Group, Network, Policy, PolicyFile, Problem, Resource, Router, Rule, Target, Test,
    Via,
};
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
pub(super) const ALL: &str = "All";

/// Metric of a router that names none: the last choice.
pub(super) const METRIC_DEFAULT: u16 = 9999;

/// No break-glass policy may be on for longer than this at once, seconds: what is on for weeks is a policy.
const BREAK_GLASS_MAX: u32 = 7 * 86_400;

#[derive(Default)]
pub(super) struct Checker {
    problems: Vec<Problem>,
}

/// Names seen so far, and the line of each.
#[derive(Default)]
pub(super) struct Seen(BTreeMap<String, u64>);

impl Checker {
    /// How many problems there are so far.
    pub(super) fn count(&self) -> usize {
        self.problems.len()
    }

    pub(super) fn problem(&mut self, at: Location, message: impl Into<String>) {
        self.problems.push(Problem { line: at.line(), column: at.column(), message: message.into() });
    }

    fn file(&mut self, document: yaml::Document) -> PolicyFile {
        let (mut groups, mut networks, mut policies) = (Seen::default(), Seen::default(), Seen::default());
        let (mut resources, mut tests, mut checks) = (Seen::default(), Seen::default(), Seen::default());
        PolicyFile {
            groups: document.groups.into_iter().map(|g| self.group(g, &mut groups)).collect(),
            posture_checks: document
                .posture_checks
                .map(|list| list.into_iter().map(|c| self.posture_check(c, &mut checks)).collect()),
            networks: document
                .networks
                .into_iter()
                .map(|n| self.network(n, &mut networks, &mut resources))
                .collect(),
            policies: document.policies.into_iter().map(|p| self.policy(p, &mut policies)).collect(),
            tests: document.tests.into_iter().map(|t| self.test(t, &mut tests)).collect(),
        }
    }

    fn group(&mut self, group: yaml::Group, seen: &mut Seen) -> Group {
        if group.name.value == ALL {
            self.problem(
                group.name.referenced,
                "the group All holds every peer by itself; it cannot be defined here",
            );
        }
        if let Some(prefix) = super::not_a_group(&group.name.value) {
            self.problem(
                group.name.referenced,
                format!(
                    "the name of a group must not begin with `{prefix}`: in `from` and `to` that is no group"
                ),
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
        let break_glass = policy.break_glass.map(|glass| self.longest(glass.max));
        if let (Some(_), Some(enabled)) = (break_glass, &policy.enabled) {
            self.problem(
                enabled.referenced,
                "a break-glass policy has no `enabled`: `sluice policy break-glass on` turns it on for a time",
            );
        }
        let enabled = break_glass.is_none() && policy.enabled.is_none_or(|enabled| enabled.value);
        let posture_checks = policy.posture_checks.map(|checks| self.names(checks, at));
        let rules = policy.rules.into_iter().enumerate();
        let rules = rules.map(|(i, rule)| self.rule(&name, i, rule)).collect();
        Policy { name, description: policy.description, enabled, break_glass, posture_checks, rules }
    }

    /// The seconds of a break-glass policy.
    fn longest(&mut self, text: Spanned<String>) -> u32 {
        match parse_duration(&text.value) {
            Some(seconds @ 1..=BREAK_GLASS_MAX) => seconds,
            _ => {
                let message = format!(
                    "`{}` is no time between 1s and {}; write for example 30m or 4h",
                    text.value,
                    duration_text(BREAK_GLASS_MAX)
                );
                self.problem(text.referenced, message);
                BREAK_GLASS_MAX
            }
        }
    }

    fn test(&mut self, test: yaml::Test, seen: &mut Seen) -> Test {
        let at = test.name.referenced;
        let from_at = test.from.referenced;
        let name = self.unique(test.name, "test", seen);
        let from = self.end(test.from, "from");
        if let End::Resource(resource) = &from {
            self.problem(
                from_at,
                format!("resource `{resource}` cannot open flows; name groups or peer:NAME"),
            );
        }
        if test.may_reach.is_empty() && test.may_not_reach.is_empty() {
            self.problem(at, format!("test `{name}` says neither `may_reach` nor `may_not_reach`"));
        }
        let mut claims =
            |list: Vec<Spanned<String>>| list.into_iter().filter_map(|c| self.claim(c)).collect();
        let (may_reach, may_not_reach) = (claims(test.may_reach), claims(test.may_not_reach));
        Test { name, from, may_reach, may_not_reach }
    }

    fn claim(&mut self, text: Spanned<String>) -> Option<Claim> {
        let (at, text) = (text.referenced, text.value);
        let Some((to, service)) = text.trim().rsplit_once(char::is_whitespace) else {
            let message = format!(
                "`{text}` needs a destination and a service, such as `resource:web tcp/443` or `10.0.0.1 icmp`"
            );
            self.problem(at, message);
            return None;
        };
        let service = match service::parse(service) {
            Ok(service) => merged(service),
            Err(error) => {
                self.problem(at, error.to_string());
                return None;
            }
        };
        let to = to.trim();
        let to = match (to.strip_prefix("peer:"), to.strip_prefix("resource:"), to.parse::<IpAddr>()) {
            (Some(peer), _, _) => Target::Peer(peer.trim().to_owned()),
            (_, Some(resource), _) => Target::Resource(resource.trim().to_owned()),
            (_, _, Ok(address)) => Target::Address(address),
            _ => Target::Group(to.to_owned()),
        };
        if let Target::Peer(name) | Target::Resource(name) | Target::Group(name) = &to
            && name.is_empty()
        {
            self.problem(at, format!("`{text}` names no destination"));
        }
        Some(Claim { to, service })
    }

    fn rule(&mut self, policy: &str, index: usize, rule: Spanned<yaml::Rule>) -> Rule {
        let (at, rule) = (rule.referenced, rule.value);
        let name = rule.name.unwrap_or_else(|| Spanned::new(default_name(policy, index), at, at));
        let is_ssh = rule.service.value.starts_with("netbird-ssh");
        if rule.ssh_users.is_some() && !is_ssh {
            self.problem(at, "`ssh_users` is for the service netbird-ssh/PORT only");
        }
        let service = service::parse(&rule.service.value).unwrap_or_else(|error| {
            self.problem(rule.service.referenced, error.to_string());
            Service::All
        });
        let from = self.end(rule.from, "from");
        // One that is off comes from an account: rules of the REST interface may name a resource here, in vain.
        if let End::Resource(resource) = &from
            && rule.enabled
        {
            self.problem(
                at,
                format!("resource `{resource}` cannot open flows; `from` takes groups or peer:NAME"),
            );
        }
        Rule {
            name: self.name(name, "rule"),
            description: rule.description,
            enabled: rule.enabled,
            action: rule.action,
            bidirectional: rule.bidirectional,
            service: merged(service),
            ssh: is_ssh.then(|| rule.ssh_users.unwrap_or_default()),
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
        let mut known = HashSet::with_capacity(names.0.len());
        for (name, place) in names.0 {
            let place = place.unwrap_or(at);
            if name.trim().is_empty() {
                self.problem(place, "a name is empty");
            } else if !known.insert(name.clone()) {
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

    pub(super) fn unique(&mut self, name: Spanned<String>, kind: &str, seen: &mut Seen) -> String {
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
