//! A file as an account of its own: what it says, judged without any control.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{End, PolicyFile, Router, Target, Via};
use crate::model::{self, State};

/// Where the peers of a file have their addresses, which stand for those that control gives out.
const OVERLAY: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(100, 64, 0, 0), Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, 0));

/// The most peers a file may name to be judged alone: the host addresses of the overlay's IPv4 range.
const PEERS_MAX: usize = (1 << 16) - 2;

/// A file as the only thing there is.
#[derive(Clone, Debug)]
pub struct Alone {
    /// Its peers, by the names it uses, with made-up addresses; its groups, networks and policies. Names are ids.
    pub state: State,
    /// What it uses and does not say: those things are taken as empty.
    pub remarks: Vec<String>,
}

/// A file names more peers than the overlay has addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file names {0} peers; without control it can be judged with at most {PEERS_MAX}")]
pub struct TooMany(usize);

impl PolicyFile {
    /// The file as the only thing there is: every peer it names exists, and no other.
    pub fn alone(&self) -> Result<Alone, TooMany> {
        let mut remarks = Vec::new();
        let names = self.peers();
        if names.len() > PEERS_MAX {
            return Err(TooMany(names.len()));
        }
        let peers: BTreeMap<String, model::Peer> = names
            .into_iter()
            .zip(1u32..)
            .map(|(name, number)| {
                let v4 = Ipv4Addr::from_bits(OVERLAY.0.to_bits() + number);
                let v6 = Ipv6Addr::from_bits(OVERLAY.1.to_bits() + u128::from(number));
                (name.to_owned(), model::Peer { name: name.to_owned(), v4, v6, allowed: true })
            })
            .collect();
        let mut groups = BTreeMap::<String, model::Group>::new();
        let all =
            model::Group { name: ALL.into(), peers: peers.keys().cloned().collect(), ..Default::default() };
        groups.insert(ALL.into(), all);
        for group in &self.groups {
            let peers = group.peers.iter().flatten().cloned().collect();
            groups.insert(
                group.name.clone(),
                model::Group { name: group.name.clone(), peers, ..Default::default() },
            );
            if group.peers.is_none() {
                let resources = || self.networks.iter().flat_map(|network| &network.resources);
                let holds =
                    resources().any(|q| q.groups.as_ref().is_some_and(|groups| groups.contains(&group.name)));
                if !holds {
                    remarks.push(format!("the file does not say who is in group `{}`", group.name));
                }
            }
        }
        let mut known = BTreeSet::new();
        for (network, resource) in self.networks.iter().flat_map(|n| n.resources.iter().map(move |q| (n, q)))
        {
            known.insert(resource.name.as_str());
            if resource.groups.is_none() {
                let (network, resource) = (&network.name, &resource.name);
                remarks.push(format!(
                    "the file does not say in which groups resource `{resource}` of `{network}` is"
                ));
            }
            for name in resource.groups.iter().flatten() {
                member(&mut groups, &mut remarks, name).resources.insert(resource.name.clone());
            }
        }
        for name in self.groups_used() {
            member(&mut groups, &mut remarks, name);
        }
        for rule in self.policies.iter().flat_map(|policy| &policy.rules) {
            if let End::Resource(name) = &rule.to
                && !known.contains(name.as_str())
            {
                remarks.push(format!("resource `{name}` is not in the file"));
            }
        }
        let networks =
            self.networks.iter().map(|network| (network.name.clone(), self.network(network, &groups)));
        let state = State {
            overlay_v4: Ipv4Net::new_assert(OVERLAY.0, 16),
            overlay_v6: Ipv6Net::new_assert(OVERLAY.1, 64),
            networks: networks.collect(),
            policies: self.model_policies().into(),
            peers: peers.into(),
            groups: groups.into(),
        };
        remarks.sort();
        remarks.dedup();
        Ok(Alone { state, remarks })
    }

    /// Names of the peers that the file uses anywhere.
    fn peers(&self) -> BTreeSet<&str> {
        let ends =
            self.policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| [&rule.from, &rule.to]);
        let ends = ends.chain(self.tests.iter().map(|test| &test.from));
        let ends = ends.filter_map(|end| if let End::Peer(name) = end { Some(name) } else { None });
        let routers = self.networks.iter().flat_map(|network| &network.routers);
        let routers = routers.filter_map(|r| if let Via::Peer(name) = &r.via { Some(name) } else { None });
        let claims = self.tests.iter().flat_map(|test| test.may_reach.iter().chain(&test.may_not_reach));
        let claims = claims.filter_map(|c| if let Target::Peer(name) = &c.to { Some(name) } else { None });
        let members = self.groups.iter().flat_map(|group| group.peers.iter().flatten());
        members.chain(ends).chain(routers).chain(claims).map(String::as_str).collect()
    }

    /// Names of the groups that rules, routers and tests use.
    fn groups_used(&self) -> BTreeSet<&str> {
        let ends =
            self.policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| [&rule.from, &rule.to]);
        let ends = ends.chain(self.tests.iter().map(|test| &test.from));
        let ends = ends.flat_map(|end| if let End::Groups(names) = end { names.as_slice() } else { &[] });
        let routers = self.networks.iter().flat_map(|network| &network.routers);
        let routers =
            routers.flat_map(|r| if let Via::Groups(names) = &r.via { names.as_slice() } else { &[] });
        ends.chain(routers).map(String::as_str).collect()
    }

    fn network(&self, network: &super::Network, groups: &BTreeMap<String, model::Group>) -> model::Network {
        let resource = |resource: &super::Resource| {
            let host = resource.address.parse::<IpAddr>().map(IpNet::from).ok();
            let prefix = resource.address.parse::<IpNet>().map(|prefix| prefix.trunc()).ok();
            let prefixes = host.or(prefix).into_iter().collect();
            (
                resource.name.clone(),
                model::Resource {
                    name: resource.name.clone(),
                    prefixes,
                    enabled: resource.enabled,
                    domain: None,
                    distribution: None,
                },
            )
        };
        let router = |(index, router): (usize, &Router)| {
            let peers = match &router.via {
                Via::Peer(name) => BTreeSet::from([name.clone()]),
                Via::Groups(names) => names
                    .iter()
                    .filter_map(|name| groups.get(name))
                    .flat_map(|group| group.peers.iter().cloned())
                    .collect(),
            };
            let Router { metric, masquerade, enabled, .. } = *router;
            (format!("{}/{index}", network.name), model::Router { peers, metric, masquerade, enabled })
        };
        model::Network {
            name: network.name.clone(),
            resources: network.resources.iter().map(resource).collect(),
            routers: network.routers.iter().enumerate().map(router).collect(),
        }
    }

    fn model_policies(&self) -> BTreeMap<String, model::Policy> {
        let mut slots = 0..;
        let end = |end: &End| match end {
            End::Groups(names) => model::End::Groups(names.iter().cloned().collect()),
            End::Peer(name) => model::End::Peer(name.clone()),
            End::Resource(name) => model::End::Resource(name.clone()),
        };
        let mut rule = |policy: &str, index: usize, rule: &super::Rule| model::Rule {
            id: format!("{policy}/{index}"),
            name: rule.name.clone(),
            slot: slots.next().unwrap_or_default(),
            enabled: rule.enabled,
            action: rule.action,
            bidirectional: rule.bidirectional,
            service: rule.service.clone(),
            sources: end(&rule.from),
            destinations: end(&rule.to),
        };
        let policies = self.policies.iter().map(|policy| {
            let rules =
                policy.rules.iter().enumerate().map(|(index, one)| rule(&policy.name, index, one)).collect();
            let (name, posture_failed) = (policy.name.clone(), model::PostureFailed::default());
            (policy.name.clone(), model::Policy { name, enabled: policy.enabled, posture_failed, rules })
        });
        policies.collect()
    }
}

const ALL: &str = super::check::ALL;

fn member<'g>(
    groups: &'g mut BTreeMap<String, model::Group>,
    remarks: &mut Vec<String>,
    name: &str,
) -> &'g mut model::Group {
    groups.entry(name.to_owned()).or_insert_with(|| {
        remarks.push(format!("group `{name}` is not in the file"));
        model::Group { name: name.to_owned(), ..Default::default() }
    })
}
