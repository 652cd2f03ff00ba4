//! Carries out what differs between the account and a file, by the store's own changes: each with its checks and its event.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_policy::file::{self, Change, Doing, Item, PolicyFile};
use sluicegate_policy::model::{self, Service};

use super::current::Current;
use crate::store::{
    Action, Actor, End, GroupChange, Issued, NetworkChange, PolicyChange, PortRange, PostureCheckChange,
    Protocol, ResourceChange, RouterChange, RuleChange, RuleSpec, Store, StoreError,
};

/// What could not be done, and on what.
#[derive(Debug)]
pub(super) struct Stopped {
    /// The object.
    pub(super) at: String,
    /// Why.
    pub(super) cause: StoreError,
}

/// Carries out `changes`, which make `current` into `wanted`. Remarks say what was left.
pub(super) async fn carry_out(
    store: &Store,
    actor: &Actor,
    current: &Current,
    wanted: &PolicyFile,
    changes: &[Change],
) -> Result<Vec<String>, Stopped> {
    let mut work = Work { store, actor, current, wanted, ids: Ids::of(current), remarks: Vec::new() };
    for change in changes.iter().filter(|change| change.writes()) {
        let done = work.one(change).await;
        done.map_err(|cause| Stopped { at: format!("{} '{}'", change.item.word(), change.name), cause })?;
    }
    Ok(work.remarks)
}

struct Work<'a> {
    store: &'a Store,
    actor: &'a Actor,
    current: &'a Current,
    wanted: &'a PolicyFile,
    ids: Ids,
    remarks: Vec<String>,
}

/// Ids by name: those there were, and those that came.
struct Ids {
    peers: BTreeMap<String, String>,
    groups: BTreeMap<String, String>,
    posture_checks: BTreeMap<String, String>,
    networks: BTreeMap<String, String>,
    resources: BTreeMap<String, String>,
}

impl Ids {
    fn of(current: &Current) -> Self {
        Self {
            peers: current.peers.clone(),
            groups: current.groups.iter().map(|(name, group)| (name.clone(), group.id.clone())).collect(),
            posture_checks: (current.posture_checks.iter())
                .map(|(name, check)| (name.clone(), check.id.clone()))
                .collect(),
            networks: current.networks.clone(),
            resources: current.resources.iter().map(|(name, q)| (name.clone(), q.id.clone())).collect(),
        }
    }

    fn groups<'n>(&self, names: impl IntoIterator<Item = &'n String>) -> Result<Vec<String>, StoreError> {
        names.into_iter().map(|name| known(&self.groups, "group", name)).collect()
    }

    fn end(&self, end: &file::End) -> Result<End, StoreError> {
        Ok(match end {
            file::End::Groups(names) => End::Groups(self.groups(names)?),
            file::End::Peer(name) => End::Peer(known(&self.peers, "peer", name)?),
            file::End::Resource(name) => End::Resource(known(&self.resources, "resource", name)?),
        })
    }
}

impl Work<'_> {
    async fn one(&mut self, change: &Change) -> Result<(), StoreError> {
        match (change.item, &change.doing) {
            (_, Doing::Keep) => Ok(()),
            (Item::Group, Doing::Delete) => self.remove_group(&change.name).await,
            (Item::Group, _) => self.put_group(&change.name).await,
            (Item::PostureCheck, Doing::Delete) => self.remove_posture_check(&change.name).await,
            (Item::PostureCheck, _) => self.put_posture_check(&change.name).await,
            (Item::Network, Doing::Delete) => {
                self.store
                    .delete_network(self.actor, &known(&self.ids.networks, "network", &change.name)?)
                    .await
            }
            (Item::Network, _) => self.put_network(&change.name).await,
            (Item::Resource, Doing::Delete) => self.remove_resource(change).await,
            (Item::Resource, _) => self.put_resource(change).await,
            (Item::Router, doing) => self.router(change, doing).await,
            (Item::Policy, Doing::Delete) => match self.current.policies.get(&change.name) {
                Some(policy) => self.store.delete_policy(self.actor, &policy.id).await,
                None => Err(gone("policy", &change.name)),
            },
            (Item::Policy, _) => self.put_policy(&change.name).await,
            // They are kept with the revision.
            (Item::Test, _) => Ok(()),
        }
    }

    async fn put_group(&mut self, name: &str) -> Result<(), StoreError> {
        let wanted = self.wanted.groups.iter().find(|group| group.name == name);
        let wanted = wanted.ok_or_else(|| gone("group", name))?;
        let before = self.current.groups.get(name);
        let peers = match (&wanted.peers, before) {
            (Some(peers), _) => {
                peers.iter().map(|peer| known(&self.ids.peers, "peer", peer)).collect::<Result<_, _>>()?
            }
            (None, Some(before)) => before.peers.iter().map(|peer| peer.id.clone()).collect(),
            (None, None) => Vec::new(),
        };
        let resources =
            before.iter().flat_map(|group| &group.resources).map(|resource| resource.id.clone()).collect();
        let change = GroupChange { name: name.to_owned(), peers, resources };
        let group = match before {
            Some(before) => self.store.update_group(self.actor, &before.id, change).await?,
            None => self.store.create_group(self.actor, change).await?,
        };
        self.ids.groups.insert(name.to_owned(), group.id);
        Ok(())
    }

    /// A group that something else needs, such as a setup key, stays.
    async fn remove_group(&mut self, name: &str) -> Result<(), StoreError> {
        let id = known(&self.ids.groups, "group", name)?;
        match self.store.delete_group(self.actor, &id).await {
            Err(StoreError::InUse { link, name: by, .. }) => {
                self.remarks.push(format!("group '{name}' stays: {link} '{by}' needs it"));
                Ok(())
            }
            done => done,
        }
    }

    async fn put_posture_check(&mut self, name: &str) -> Result<(), StoreError> {
        let wanted = self.wanted.posture_checks.iter().flatten().find(|check| check.name == name);
        let wanted = wanted.ok_or_else(|| gone("posture check", name))?;
        let before = self.current.posture_checks.get(name);
        let kept = before.map(|before| before.description.clone());
        let change = PostureCheckChange {
            name: name.to_owned(),
            description: wanted.description.clone().or(kept).unwrap_or_default(),
            checks: wanted.checks.clone(),
        };
        let check = match before {
            Some(before) => self.store.update_posture_check(self.actor, &before.id, change).await?,
            None => self.store.create_posture_check(self.actor, change).await?,
        };
        self.ids.posture_checks.insert(name.to_owned(), check.id);
        Ok(())
    }

    /// One that a policy asks for stays: a policy may leave its posture checks as they are.
    async fn remove_posture_check(&mut self, name: &str) -> Result<(), StoreError> {
        let id = known(&self.ids.posture_checks, "posture check", name)?;
        match self.store.delete_posture_check(self.actor, &id).await {
            Err(StoreError::InUse { link, name: by, .. }) => {
                self.remarks.push(format!("posture check '{name}' stays: {link} '{by}' asks for it"));
                Ok(())
            }
            done => done,
        }
    }

    async fn put_network(&mut self, name: &str) -> Result<(), StoreError> {
        let wanted = network(self.wanted, name)?;
        let had = self.current.file.networks.iter().find(|network| network.name == name);
        let kept = had.and_then(|network| network.description.clone());
        let description = wanted.description.clone().or(kept).unwrap_or_default();
        let change = NetworkChange { name: name.to_owned(), description };
        let network = match self.current.networks.get(name) {
            Some(id) => self.store.update_network(self.actor, id, change).await?,
            None => self.store.create_network(self.actor, change).await?,
        };
        self.ids.networks.insert(name.to_owned(), network.id);
        Ok(())
    }

    async fn put_resource(&mut self, change: &Change) -> Result<(), StoreError> {
        let name = change.network.as_deref().unwrap_or_default();
        let wanted =
            network(self.wanted, name)?.resources.iter().find(|resource| resource.name == change.name);
        let wanted = wanted.ok_or_else(|| gone("resource", &change.name))?;
        let network = known(&self.ids.networks, "network", name)?;
        let before = self.current.resources.get(&change.name).filter(|before| before.network_id == network);
        let groups = match (&wanted.groups, before) {
            (Some(groups), _) => self.ids.groups(groups)?,
            (None, Some(before)) => before.groups.iter().map(|group| group.id.clone()).collect(),
            (None, None) => Vec::new(),
        };
        let kept = before.map(|before| before.description.clone());
        let wish = ResourceChange {
            name: wanted.name.clone(),
            description: wanted.description.clone().or(kept).unwrap_or_default(),
            address: wanted.address.clone(),
            enabled: wanted.enabled,
            groups,
        };
        let resource = match before {
            Some(before) => self.store.update_resource(self.actor, &network, &before.id, wish).await?,
            None => self.store.create_resource(self.actor, &network, wish).await?,
        };
        self.ids.resources.insert(change.name.clone(), resource.id);
        Ok(())
    }

    async fn remove_resource(&mut self, change: &Change) -> Result<(), StoreError> {
        let resource =
            self.current.resources.get(&change.name).ok_or_else(|| gone("resource", &change.name))?;
        self.store.delete_resource(self.actor, &resource.network_id, &resource.id).await
    }

    async fn router(&mut self, change: &Change, doing: &Doing) -> Result<(), StoreError> {
        let name = change.network.as_deref().unwrap_or_default();
        let network_id = known(&self.ids.networks, "network", name)?;
        let here = self
            .current
            .routers
            .iter()
            .filter(|(network, router, _)| network == name && router.via.to_string() == change.name);
        let before = here.map(|(_, _, stored)| stored).nth(change.nth);
        if *doing == Doing::Delete {
            let before = before.ok_or_else(|| gone("router", &change.name))?;
            return self.store.delete_router(self.actor, &network_id, &before.id).await;
        }
        let routers = network(self.wanted, name)?.routers.iter();
        let wanted = routers.filter(|router| router.via.to_string() == change.name).nth(change.nth);
        let wanted = wanted.ok_or_else(|| gone("router", &change.name))?;
        let (peer, peer_groups) = match &wanted.via {
            file::Via::Peer(peer) => (Some(known(&self.ids.peers, "peer", peer)?), Vec::new()),
            file::Via::Groups(groups) => (None, self.ids.groups(groups)?),
        };
        let wish = RouterChange {
            peer,
            peer_groups,
            metric: wanted.metric.into(),
            masquerade: wanted.masquerade,
            enabled: wanted.enabled,
        };
        match before {
            Some(before) => {
                self.store.update_router(self.actor, &network_id, &before.id, wish).await.map(drop)
            }
            None => self.store.create_router(self.actor, &network_id, wish).await.map(drop),
        }
    }

    async fn put_policy(&mut self, name: &str) -> Result<(), StoreError> {
        let wanted = self.wanted.policies.iter().find(|policy| policy.name == name);
        let wanted = wanted.ok_or_else(|| gone("policy", name))?;
        let before = self.current.policies.get(name);
        let kept = before.map(|before| before.description.clone());
        let had = before.and_then(|before| before.break_glass.as_ref());
        // Neither is turned on by a file, and one that is on goes on.
        let enabled = match (had, before) {
            (Some(_), Some(before)) => before.enabled,
            _ => wanted.enabled,
        };
        let rules = wanted.rules.iter().map(|rule| {
            let had = before.and_then(|before| before.rules.iter().find(|had| had.spec.name == rule.name));
            Ok(RuleChange { id: None, spec: self.rule(rule, had.map(|had| &had.spec))? })
        });
        let change = PolicyChange {
            name: name.to_owned(),
            description: wanted.description.clone().or(kept).unwrap_or_default(),
            enabled,
            source_posture_checks: match (&wanted.posture_checks, before) {
                (Some(checks), _) => {
                    let checks =
                        checks.iter().map(|check| known(&self.ids.posture_checks, "posture check", check));
                    checks.collect::<Result<_, _>>()?
                }
                (None, Some(before)) => before.source_posture_checks.clone(),
                (None, None) => Vec::new(),
            },
            rules: rules.collect::<Result<_, StoreError>>()?,
        };
        let policy = match before {
            Some(before) => self.store.update_policy(self.actor, &before.id, change.clone()).await?,
            None => self.store.create_policy(self.actor, change.clone()).await?,
        };
        let policy = self.store.limit_break_glass(self.actor, &policy.id, wanted.break_glass).await?;
        if had.is_some() && wanted.break_glass.is_none() && policy.enabled != wanted.enabled {
            let change = PolicyChange { enabled: wanted.enabled, ..change };
            self.store.update_policy(self.actor, &policy.id, change).await?;
        }
        Ok(())
    }

    fn rule(&self, rule: &file::Rule, had: Option<&RuleSpec>) -> Result<RuleSpec, StoreError> {
        let (protocol, ranges) = match &rule.service {
            Service::All => (Protocol::All, &[][..]),
            Service::Icmp => (Protocol::Icmp, &[][..]),
            Service::Tcp(ranges) if rule.ssh.is_some() => (Protocol::NetbirdSsh, ranges.as_slice()),
            Service::Tcp(ranges) => (Protocol::Tcp, ranges.as_slice()),
            Service::Udp(ranges) => (Protocol::Udp, ranges.as_slice()),
        };
        // The store takes single ports or ranges, not both.
        let single = ranges.iter().all(|range| range.start() == range.end());
        let users = rule
            .ssh
            .iter()
            .flatten()
            .map(|(group, users)| Ok((known(&self.ids.groups, "group", group)?, users.clone())));
        let kept = had.map(|had| had.description.clone());
        Ok(RuleSpec {
            name: rule.name.clone(),
            description: rule.description.clone().or(kept).unwrap_or_default(),
            enabled: rule.enabled,
            action: match rule.action {
                model::Action::Accept => Action::Accept,
                model::Action::Drop => Action::Drop,
            },
            bidirectional: rule.bidirectional,
            protocol,
            ports: if single { ranges.iter().map(|range| *range.start()).collect() } else { Vec::new() },
            port_ranges: match single {
                true => Vec::new(),
                false => ranges.iter().map(|r| PortRange { start: *r.start(), end: *r.end() }).collect(),
            },
            authorized_groups: users.collect::<Result<_, StoreError>>()?,
            sources: self.ids.end(&rule.from)?,
            destinations: self.ids.end(&rule.to)?,
        })
    }
}

/// Leaves it to the identity provider which peers of users are in the groups that came from it. Remarks say where `wanted`
/// has it otherwise.
pub(super) fn provided(wanted: &mut PolicyFile, current: &Current) -> Vec<String> {
    let mut remarks = Vec::new();
    for group in &mut wanted.groups {
        let (Some(peers), Some(now)) = (&mut group.peers, current.groups.get(&group.name)) else { continue };
        if now.issued != Issued::Jwt {
            continue;
        }
        let is_users = |peer: &&String| current.of_users.contains(*peer);
        let others = peers.iter().filter(|peer| !is_users(peer)).cloned();
        let here = now.peers.iter().map(|peer| &peer.name).filter(is_users).cloned();
        let mended: BTreeSet<String> = others.chain(here).collect();
        if mended != peers.iter().cloned().collect() {
            remarks.push(format!(
                "group '{}' comes from the identity provider: which users' peers are in it stays as it is",
                group.name
            ));
            *peers = mended.into_iter().collect();
        }
    }
    remarks
}

/// Leaves out the local users that an earlier revision names for rules, and that the account does not have any more: they limited
/// nobody. Remarks say where.
pub(super) fn unlimited(wanted: &mut PolicyFile, current: &Current) -> Vec<String> {
    let mut remarks = Vec::new();
    for (i, j) in file::limited(wanted, &current.file) {
        let policy = &mut wanted.policies[i];
        let rule = &mut policy.rules[j];
        rule.ssh = Some(BTreeMap::new());
        remarks.push(format!(
            "`ssh_users` of rule '{}' of policy '{}' is left out, as it limited nobody: {}",
            rule.name,
            policy.name,
            file::NO_LOGINS
        ));
    }
    remarks
}

/// What an earlier revision becomes now: it leaves nothing open, peers that are gone are in no group, and those that joined
/// since stay in theirs, and come into no other by a name that another peer had.
pub(super) fn as_of(mut file: PolicyFile, at: i64, current: &Current) -> PolicyFile {
    let text = |text: &mut Option<String>| *text = Some(text.take().unwrap_or_default());
    let now: BTreeMap<&str, &file::Group> =
        current.file.groups.iter().map(|g| (g.name.as_str(), g)).collect();
    for group in &mut file.groups {
        let members = group.peers.take().unwrap_or_default();
        let since = |peer: &str| current.joined.get(peer).is_some_and(|joined| *joined > at);
        let mut members: BTreeSet<String> =
            members.into_iter().filter(|peer| current.peers.contains_key(peer) && !since(peer)).collect();
        let here = now.get(group.name.as_str()).and_then(|group| group.peers.as_ref()).into_iter().flatten();
        members.extend(here.filter(|peer| since(peer)).cloned());
        group.peers = Some(members.into_iter().collect());
    }
    for check in file.posture_checks.iter_mut().flatten() {
        text(&mut check.description);
    }
    for network in &mut file.networks {
        text(&mut network.description);
        for resource in &mut network.resources {
            text(&mut resource.description);
            resource.groups.get_or_insert_default();
        }
    }
    for policy in &mut file.policies {
        text(&mut policy.description);
        policy.posture_checks.get_or_insert_default();
        policy.rules.iter_mut().for_each(|rule| text(&mut rule.description));
    }
    file
}

fn network<'f>(file: &'f PolicyFile, name: &str) -> Result<&'f file::Network, StoreError> {
    file.networks.iter().find(|network| network.name == name).ok_or_else(|| gone("network", name))
}

/// The id behind a name. Every name was looked up before anything began.
fn known(ids: &BTreeMap<String, String>, kind: &'static str, name: &str) -> Result<String, StoreError> {
    ids.get(name).cloned().ok_or_else(|| gone(kind, name))
}

fn gone(kind: &'static str, name: &str) -> StoreError {
    StoreError::NotFound { kind, id: name.to_owned() }
}
