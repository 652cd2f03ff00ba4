//! What a policy file wants, in names: the words in which wish and reality are compared.
//!
//! An optional field that is absent leaves what control has.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use sluicegate_policy::file::{self, FileError, PolicyFile};
use sluicegate_policy::model::{Action, Service};

/// Everything a file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Groups, in order.
    pub groups: Vec<GroupSpec>,
    /// Networks, in order.
    pub networks: Vec<NetworkSpec>,
    /// Policies, in order.
    pub policies: Vec<PolicySpec>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// Name.
    pub name: String,
    /// Names of exactly the peers it is to hold.
    pub peers: Option<BTreeSet<String>>,
}

/// A network. Resources and routers that are not named stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Name.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// Resources, matched by name.
    pub resources: Vec<ResourceSpec>,
    /// Routers, matched by who routes.
    pub routers: Vec<RouterSpec>,
}

/// A resource of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceSpec {
    /// Name, unique in the account.
    pub name: String,
    /// What it is.
    pub description: Option<String>,
    /// Address, prefix or domain.
    pub address: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Names of exactly the groups it is to be in.
    pub groups: Option<BTreeSet<String>>,
}

/// A router of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterSpec {
    /// Who routes.
    pub who: Who,
    /// 1 to 9999, lower is better.
    pub metric: u16,
    /// Whether the source becomes the router's address.
    pub masquerade: bool,
    /// Whether it counts.
    pub enabled: bool,
}

/// Who routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The peer of this name.
    Peer(String),
    /// Every member of the groups of these names.
    Groups(BTreeSet<String>),
}

/// A policy; its rules are exactly these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// Name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it counts.
    pub enabled: bool,
    /// Names of exactly the posture checks its sources must pass.
    pub posture_checks: Option<BTreeSet<String>>,
    /// The rules, in order.
    pub rules: Vec<RuleSpec>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Name, unique in its policy.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it counts.
    pub enabled: bool,
    /// Accept or drop.
    pub action: Action,
    /// Whether the mirror image is admitted as well.
    pub bidirectional: bool,
    /// Which packets; ranges are [`merged`].
    pub service: Service,
    /// Where flows come from.
    pub sources: EndSpec,
    /// Where they go.
    pub destinations: EndSpec,
}

/// One end of a rule, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndSpec {
    /// Groups.
    Groups(BTreeSet<String>),
    /// One peer.
    Peer(String),
    /// One resource.
    Resource(String),
}

impl Spec {
    /// Reads a policy file; the error lists all that is wrong with it, each with its line.
    pub fn read(text: &str) -> Result<Self, FileError> {
        Ok(file::parse(text)?.into())
    }
}

impl From<PolicyFile> for Spec {
    fn from(file: PolicyFile) -> Self {
        Spec {
            groups: file
                .groups
                .into_iter()
                .map(|g| GroupSpec { name: g.name, peers: g.peers.map(set) })
                .collect(),
            networks: file.networks.into_iter().map(network).collect(),
            policies: file.policies.into_iter().map(policy).collect(),
        }
    }
}

fn set(names: Vec<String>) -> BTreeSet<String> {
    names.into_iter().collect()
}

fn network(network: file::Network) -> NetworkSpec {
    let resource = |resource: file::Resource| ResourceSpec {
        name: resource.name,
        description: resource.description,
        address: resource.address,
        enabled: resource.enabled,
        groups: resource.groups.map(set),
    };
    let router = |router: file::Router| RouterSpec {
        who: match router.via {
            file::Via::Peer(name) => Who::Peer(name),
            file::Via::Groups(names) => Who::Groups(set(names)),
        },
        metric: router.metric,
        masquerade: router.masquerade,
        enabled: router.enabled,
    };
    NetworkSpec {
        name: network.name,
        description: network.description,
        resources: network.resources.into_iter().map(resource).collect(),
        routers: network.routers.into_iter().map(router).collect(),
    }
}

fn policy(policy: file::Policy) -> PolicySpec {
    let end = |end: file::End| match end {
        file::End::Groups(names) => EndSpec::Groups(set(names)),
        file::End::Peer(name) => EndSpec::Peer(name),
        file::End::Resource(name) => EndSpec::Resource(name),
    };
    let rule = |rule: file::Rule| RuleSpec {
        name: rule.name,
        description: rule.description,
        enabled: rule.enabled,
        action: rule.action,
        bidirectional: rule.bidirectional,
        service: merged(rule.service),
        sources: end(rule.from),
        destinations: end(rule.to),
    };
    PolicySpec {
        name: policy.name,
        description: policy.description,
        enabled: policy.enabled,
        posture_checks: policy.posture_checks.map(set),
        rules: policy.rules.into_iter().map(rule).collect(),
    }
}

/// Sorts ranges and joins those that touch, so that two ways of writing the same ports are equal.
pub fn merged(service: Service) -> Service {
    match service {
        Service::Tcp(ranges) => Service::Tcp(merge(ranges)),
        Service::Udp(ranges) => Service::Udp(merge(ranges)),
        other => other,
    }
}

fn merge(mut ranges: Vec<RangeInclusive<u16>>) -> Vec<RangeInclusive<u16>> {
    ranges.sort_unstable_by_key(|range| (*range.start(), *range.end()));
    let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// One way to write an address: `10.0.0.1/32` and `10.0.0.1` are one host, host bits of a prefix do not count, and a
/// domain has no case.
pub fn plain_address(text: &str) -> String {
    if let Ok(address) = text.parse::<IpAddr>() {
        return address.to_string();
    }
    match text.parse::<IpNet>() {
        Ok(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        Ok(net) => net.trunc().to_string(),
        Err(_) => text.trim_end_matches('.').to_ascii_lowercase(),
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Peer(name) => f.write_str(name),
            Who::Groups(names) => write!(f, "group {}", list(names)),
        }
    }
}

impl fmt::Display for EndSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndSpec::Groups(names) => f.write_str(&list(names)),
            EndSpec::Peer(name) => write!(f, "peer {name}"),
            EndSpec::Resource(name) => write!(f, "resource {name}"),
        }
    }
}

/// `a, b`, or `nobody`.
pub fn list(names: &BTreeSet<String>) -> String {
    match names.len() {
        0 => "nobody".to_owned(),
        _ => names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_ports_are_equal_however_written() {
        let tcp = |ranges: &[RangeInclusive<u16>]| merged(Service::Tcp(ranges.to_vec()));
        assert_eq!(tcp(&[443..=443, 80..=80]), tcp(&[80..=80, 443..=443]));
        assert_eq!(tcp(&[80..=89, 90..=99]), tcp(&[80..=99]));
        assert_eq!(tcp(&[1..=65535, 80..=80]), tcp(&[1..=65535]));
        assert_ne!(tcp(&[80..=80, 82..=82]), tcp(&[80..=82]));
    }

    #[test]
    fn the_same_address_is_equal_however_written() {
        for (a, b) in [
            ("10.0.0.1/32", "10.0.0.1"),
            ("10.0.0.5/24", "10.0.0.0/24"),
            ("FD00:20:0::10", "fd00:20::10/128"),
            ("*.Example.com.", "*.example.com"),
        ] {
            assert_eq!(plain_address(a), plain_address(b));
        }
        assert_ne!(plain_address("10.0.0.0/24"), plain_address("10.0.0.0"));
    }
}
