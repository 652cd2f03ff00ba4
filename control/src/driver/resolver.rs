//! How agents are to answer the questions of their hosts for names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluicegate_api::agent::{Forward, NameServer, Record, Resolver, RoutedName, Zone, record};
use sluicegate_policy::NetworkView;
use sluicegate_policy::model::{Peer, Shared, State};

use super::plan::router;
use crate::store::{self, Agent, Names, NameserverGroup, RecordKind};

/// What is told of names in one state of the store, and to whom.
pub(super) struct Resolvers {
    names: Names,
    /// The groups for which anything of it is.
    groups: BTreeSet<String>,
}

impl Resolvers {
    pub(super) fn new(names: Names) -> Self {
        let zones = names.zones.values().flat_map(|zone| &zone.spec.distribution_groups);
        let nameservers = names.nameservers.values().flat_map(|group| &group.spec.groups);
        let groups = zones.chain(nameservers).chain(&names.unmanaged).cloned().collect();
        Self { names, groups }
    }

    /// The zone of the peers' own names, the same for every agent.
    pub(super) fn domain(&self) -> &str {
        &self.names.domain
    }

    /// An agent's resolver. `None` where the names of its host are none of control's business: its DNS is not managed, or it may not
    /// take part.
    pub(super) fn of(
        &self,
        id: &str,
        state: &State,
        agents: &BTreeMap<String, Agent>,
        view: &NetworkView,
    ) -> Option<Resolver> {
        let (peer, agent) = (state.peers.get(id).filter(|peer| peer.allowed)?, agents.get(id)?);
        let has = |group: &&String| state.groups.get(*group).is_some_and(|group| group.peers.contains(id));
        let own: BTreeSet<&String> = self.groups.iter().filter(has).collect();
        let is_for = |groups: &BTreeSet<String>| groups.iter().any(|group| own.contains(group));
        if is_for(&self.names.unmanaged) {
            return None;
        }
        // Without a record it would only take its names away from whoever else answers them.
        let zones = self.names.zones.values().filter(|zone| zone.spec.enabled && !zone.records.is_empty());
        let forwards = self.names.nameservers.values().filter(|group| group.spec.enabled);
        let forwards = forwards.filter(|group| is_for(&group.spec.groups) && !is_nameserver(peer, group));
        Some(Resolver {
            domain: self.names.domain.clone(),
            dns_labels: agent.dns_labels.to_vec(),
            zones: zones
                .filter(|zone| is_for(&zone.spec.distribution_groups))
                .map(|z| told_zone(z))
                .collect(),
            routed: view.asked.iter().map(routed).collect(),
            forwards: forwards.map(|group| forward(group)).collect(),
        })
    }

    /// The agents that may have another resolver than `before`, in another state: because of what is told to whom, or of the groups in
    /// which they are. The zone of peers, the labels and addresses of peers, and what rules open are others' to look at.
    pub(super) fn concerned<'a>(
        &'a self,
        state: &'a State,
        before: &'a Self,
        old: &'a State,
    ) -> BTreeSet<&'a str> {
        let (was, is) = (&before.names, &self.names);
        let mut groups: BTreeSet<&String> = BTreeSet::new();
        if !was.unmanaged.is_same(&is.unmanaged) {
            groups.extend(was.unmanaged.symmetric_difference(&is.unmanaged));
        }
        let zones = differing(&was.zones, &is.zones).chain(differing(&is.zones, &was.zones));
        groups.extend(zones.flat_map(|zone| &zone.spec.distribution_groups));
        let nameservers = differing(&was.nameservers, &is.nameservers);
        let nameservers = nameservers.chain(differing(&is.nameservers, &was.nameservers));
        groups.extend(nameservers.flat_map(|group| &group.spec.groups));
        let members = |state: &'a State, id: &String| state.groups.get(id).map(|group| &group.peers);
        let mut concerned: BTreeSet<&String> = BTreeSet::new();
        for id in groups {
            concerned.extend([old, state].into_iter().filter_map(|state| members(state, id)).flatten());
        }
        if !old.groups.is_same(&state.groups) {
            for id in self.groups.intersection(&before.groups) {
                match (members(old, id), members(state, id)) {
                    (Some(old), Some(new)) if old.is_same(new) => {}
                    (Some(old), Some(new)) => concerned.extend(old.symmetric_difference(new)),
                    (one, other) => concerned.extend(one.into_iter().chain(other).flatten()),
                }
            }
        }
        if !old.peers.is_same(&state.peers) {
            let mut now = state.peers.iter().peekable();
            for (id, was) in &old.peers {
                while now.next_if(|(other, _)| *other < id).is_some() {}
                let turned = now.next_if(|(other, is)| *other == id && is.allowed != was.allowed);
                concerned.extend(turned.map(|(id, _)| id));
            }
        }
        concerned.into_iter().map(String::as_str).collect()
    }
}

/// What is not the same in the other map, or not there.
fn differing<'a, T: Eq>(
    one: &'a Shared<BTreeMap<String, Arc<T>>>,
    other: &'a Shared<BTreeMap<String, Arc<T>>>,
) -> impl Iterator<Item = &'a T> {
    let entries = (!one.is_same(other)).then(|| one.iter()).into_iter().flatten();
    entries.filter(|(id, entry)| other.get(*id) != Some(entry)).map(|(_, entry)| &**entry)
}

/// Whether a peer is one of the servers: then it is not to ask them, which would be itself.
fn is_nameserver(peer: &Peer, group: &NameserverGroup) -> bool {
    let servers = group.spec.nameservers.iter().map(|server| server.ip.to_canonical());
    servers.into_iter().any(|address| address == peer.v4 || address == peer.v6)
}

fn told_zone(zone: &store::Zone) -> Zone {
    let kind = |kind| match kind {
        RecordKind::A => record::Type::A,
        RecordKind::Aaaa => record::Type::Aaaa,
        RecordKind::Cname => record::Type::Cname,
    };
    let record = |record: &store::DnsRecord| Record {
        name: record.spec.name.clone(),
        r#type: kind(record.spec.kind).into(),
        content: record.spec.content.clone(),
        ttl: u32::try_from(record.spec.ttl).unwrap_or_default(),
    };
    Zone {
        domain: zone.spec.domain.clone(),
        search: zone.spec.enable_search_domain,
        records: zone.records.iter().map(record).collect(),
    }
}

fn forward(group: &NameserverGroup) -> Forward {
    let server =
        |server: &store::Nameserver| NameServer { address: server.ip.to_string(), port: server.port.into() };
    Forward {
        id: group.id.clone(),
        name: group.spec.name.clone(),
        servers: group.spec.nameservers.iter().map(server).collect(),
        domains: group.spec.domains.clone(),
        search: group.spec.search_domains_enabled,
    }
}

fn routed(name: &sluicegate_policy::network::AskedName) -> RoutedName {
    RoutedName {
        resource_id: name.resource_id.to_string(),
        name: name.name.clone(),
        routers: name.routers.iter().map(router).collect(),
    }
}

#[cfg(test)]
mod tests;
