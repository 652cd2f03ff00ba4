//! What the account has, in the words of policy files, and by which ids.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sluicegate_policy::file::{self, Known, PolicyFile};
use sluicegate_policy::model::{self, Service};

use crate::store::{
    Action, End, Group, Policy, PortRange, PostureCheck, Protocol, Resource, Result, Router, RuleSpec, Store,
};

/// The port of `netbird-ssh` where a rule names none.
const SSH_PORT: u16 = 22;

/// Everything a policy file can be about.
pub(super) struct Current {
    /// All of it, as a file that leaves nothing out. Tests are not part of the account: there are none here.
    pub(super) file: PolicyFile,
    /// Ids of peers by name.
    pub(super) peers: BTreeMap<String, String>,
    /// Names of peers that belong to users.
    pub(super) of_users: BTreeSet<String>,
    /// When each peer joined, Unix milliseconds, by name.
    pub(super) joined: BTreeMap<String, i64>,
    /// Groups by name, `All` among them.
    pub(super) groups: BTreeMap<String, Group>,
    /// Ids of networks by name.
    pub(super) networks: BTreeMap<String, String>,
    /// Resources by name.
    pub(super) resources: BTreeMap<String, Resource>,
    /// Routers in the order of the file, each with the name of its network.
    pub(super) routers: Vec<(String, file::Router, Router)>,
    /// Posture checks by name.
    pub(super) posture_checks: BTreeMap<String, PostureCheck>,
    /// Policies by name.
    pub(super) policies: BTreeMap<String, Policy>,
}

impl Current {
    /// Reads all of it. Inside a unit it is what the unit has made of it.
    pub(super) async fn read(store: &Store) -> Result<Self> {
        let peers = store.peers(None, None).await?;
        let groups = store.groups().await?;
        let networks = store.networks().await?;
        let mut resources = Vec::new();
        for network in &networks {
            resources.extend(store.resources(&network.id).await?);
        }
        let routers = store.routers(None).await?;
        let policies = store.policies().await?;
        let checks = store.posture_checks().await?;

        let names = Names {
            peers: peers.iter().map(|peer| (peer.id.as_str(), peer.name.as_str())).collect(),
            groups: groups.iter().map(|group| (group.id.as_str(), group.name.as_str())).collect(),
            resources: resources.iter().map(|q| (q.id.as_str(), q.name.as_str())).collect(),
            checks: checks.iter().map(|check| (check.id.as_str(), check.name.as_str())).collect(),
        };
        let mut file = PolicyFile {
            groups: groups.iter().filter(|group| !group.built_in).map(group_in_file).collect(),
            posture_checks: Some(checks.iter().map(posture_check_in_file).collect()),
            networks: Vec::new(),
            policies: policies.iter().map(|policy| names.policy(policy)).collect(),
            tests: Vec::new(),
        };
        let mut routers_by_place = Vec::new();
        for network in &networks {
            let mut mine: Vec<(file::Router, &Router)> = (routers.iter())
                .filter(|router| router.network_id == network.id)
                .map(|router| (names.router(router), router))
                .collect();
            // By who routes, then by preference: ids say nothing to a reader.
            mine.sort_by_key(|(router, stored)| (router.via.to_string(), router.metric, stored.id.clone()));
            let mut behind: Vec<file::Resource> = (resources.iter())
                .filter(|resource| resource.network_id == network.id)
                .map(resource_in_file)
                .collect();
            behind.sort_by(|a, b| a.name.cmp(&b.name));
            file.networks.push(file::Network {
                name: network.name.clone(),
                description: Some(network.description.clone()),
                resources: behind,
                routers: mine.iter().map(|(router, _)| router.clone()).collect(),
            });
            let placed =
                mine.into_iter().map(|(router, stored)| (network.name.clone(), router, stored.clone()));
            routers_by_place.extend(placed);
        }
        file.groups.sort_by(|a, b| a.name.cmp(&b.name));
        file.posture_checks.iter_mut().for_each(|checks| checks.sort_by(|a, b| a.name.cmp(&b.name)));
        file.networks.sort_by(|a, b| a.name.cmp(&b.name));
        file.policies.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            file,
            posture_checks: checks.into_iter().map(|check| (check.name.clone(), check)).collect(),
            of_users: (peers.iter().filter(|peer| !peer.user_id.is_empty()))
                .map(|peer| peer.name.clone())
                .collect(),
            joined: peers.iter().map(|peer| (peer.name.clone(), peer.created_at)).collect(),
            networks: networks.into_iter().map(|network| (network.name, network.id)).collect(),
            routers: routers_by_place,
            peers: peers.into_iter().map(|peer| (peer.name, peer.id)).collect(),
            groups: groups.into_iter().map(|group| (group.name.clone(), group)).collect(),
            resources: resources.into_iter().map(|resource| (resource.name.clone(), resource)).collect(),
            policies: policies.into_iter().map(|policy| (policy.name.clone(), policy)).collect(),
        })
    }

    /// The names a file may use.
    pub(super) fn known(&self) -> Known {
        Known {
            peers: self.peers.keys().cloned().collect(),
            groups: self.groups.keys().cloned().collect(),
            resources: self.resources.keys().cloned().collect(),
            posture_checks: self.posture_checks.keys().cloned().collect(),
        }
    }
}

fn group_in_file(group: &Group) -> file::Group {
    let mut peers: Vec<String> = group.peers.iter().map(|peer| peer.name.clone()).collect();
    peers.sort();
    file::Group { name: group.name.clone(), peers: Some(peers) }
}

fn posture_check_in_file(check: &PostureCheck) -> file::PostureCheck {
    file::PostureCheck {
        name: check.name.clone(),
        description: Some(check.description.clone()),
        checks: check.checks.clone(),
    }
}

fn resource_in_file(resource: &Resource) -> file::Resource {
    let mut groups: Vec<String> = resource.groups.iter().map(|group| group.name.clone()).collect();
    groups.sort();
    file::Resource {
        name: resource.name.clone(),
        description: Some(resource.description.clone()),
        address: file::plain_address(&resource.address),
        groups: Some(groups),
        enabled: resource.enabled,
    }
}

/// Names by id.
struct Names<'a> {
    peers: HashMap<&'a str, &'a str>,
    groups: HashMap<&'a str, &'a str>,
    resources: HashMap<&'a str, &'a str>,
    checks: HashMap<&'a str, &'a str>,
}

impl Names<'_> {
    fn router(&self, router: &Router) -> file::Router {
        let via = match &router.peer {
            Some(peer) => file::Via::Peer(name(&self.peers, peer)),
            None => file::Via::Groups(self.group_names(&router.peer_groups)),
        };
        file::Router {
            via,
            metric: u16::try_from(router.metric).unwrap_or(u16::MAX),
            masquerade: router.masquerade,
            enabled: router.enabled,
        }
    }

    fn policy(&self, policy: &Policy) -> file::Policy {
        file::Policy {
            name: policy.name.clone(),
            description: Some(policy.description.clone()),
            enabled: policy.enabled && policy.break_glass.is_none(),
            break_glass: policy.break_glass.as_ref().and_then(|glass| u32::try_from(glass.max_seconds).ok()),
            // None says the same as an empty list here, and most policies have none.
            posture_checks: Some(self.names(&policy.source_posture_checks))
                .filter(|checks| !checks.is_empty()),
            rules: policy.rules.iter().map(|rule| self.rule(&rule.spec)).collect(),
        }
    }

    fn rule(&self, spec: &RuleSpec) -> file::Rule {
        let ports = || {
            let single = spec.ports.iter().map(|port| *port..=*port);
            single
                .chain(spec.port_ranges.iter().map(|PortRange { start, end }| *start..=*end))
                .collect::<Vec<_>>()
        };
        let is_ssh = spec.protocol == Protocol::NetbirdSsh;
        let service = match spec.protocol {
            Protocol::All => Service::All,
            Protocol::Icmp => Service::Icmp,
            Protocol::Udp => Service::Udp(ports()),
            Protocol::NetbirdSsh if ports().is_empty() => Service::Tcp(vec![SSH_PORT..=SSH_PORT]),
            Protocol::Tcp | Protocol::NetbirdSsh => Service::Tcp(ports()),
        };
        let users = || {
            let named = spec.authorized_groups.iter();
            named.map(|(group, users)| (name(&self.groups, group), users.clone())).collect()
        };
        let from = self.end(&spec.sources);
        file::Rule {
            name: spec.name.clone(),
            description: Some(spec.description.clone()),
            // One that comes from a resource matches nothing; in a file it may stand only when it is off.
            enabled: spec.enabled && !matches!(from, file::End::Resource(_)),
            action: match spec.action {
                Action::Accept => model::Action::Accept,
                Action::Drop => model::Action::Drop,
            },
            bidirectional: spec.bidirectional,
            service: file::merged(service),
            ssh: is_ssh.then(users),
            from,
            to: self.end(&spec.destinations),
        }
    }

    fn end(&self, end: &End) -> file::End {
        match end {
            End::Groups(ids) => file::End::Groups(self.group_names(ids)),
            End::Peer(id) => file::End::Peer(name(&self.peers, id)),
            End::Resource(id) => file::End::Resource(name(&self.resources, id)),
        }
    }

    fn names(&self, checks: &[String]) -> Vec<String> {
        let mut names: Vec<String> = checks.iter().map(|id| name(&self.checks, id)).collect();
        names.sort();
        names
    }

    fn group_names(&self, ids: &[String]) -> Vec<String> {
        let mut names: Vec<String> = ids.iter().map(|id| name(&self.groups, id)).collect();
        names.sort();
        names
    }
}

/// The name of an id that the store refers to, and so has.
fn name(names: &HashMap<&str, &str>, id: &str) -> String {
    names.get(id).copied().unwrap_or(id).to_owned()
}
