//! Rows of the store as the compiler has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sluicegate_policy::model;
use sqlx::FromRow;

use super::super::error::{corrupt, parse};
use super::super::policies::{Action, End, Protocol};
use super::super::resources::Address;
use super::super::sql::{self, Connection};
use super::super::standing::Standing;
use super::super::{NetworkRoute, Result, Role, Rule};
use super::super::{labels, learned};
use super::Agent;

/// The port of `netbird-ssh` where a rule names none.
const SSH_PORT: u16 = 22;

/// All rows of a table, and those about one id.
macro_rules! both {
    ($all:ident, $one:ident, $select:literal, $of:literal) => {
        const $all: &str = $select;
        const $one: &str = concat!($select, " WHERE ", $of, " = $1");
    };
}

// A peer whose user is blocked, not approved or gone takes no part, as little as one whose login has expired.
both!(
    PEERS,
    PEER,
    "SELECT p.id, p.name, p.ip, p.ipv6, NOT p.approval_required AND p.expired = '' AND (p.user_id = ''
     OR (u.id IS NOT NULL AND NOT u.blocked AND NOT u.pending_approval)) AS allowed,
     p.expired <> '' AS expired, p.role, p.wireguard_key, p.endpoint, p.os, p.dns_label FROM peers p LEFT JOIN users u ON u.id = p.user_id",
    "p.id"
);
both!(NETWORKS, NETWORK, "SELECT id, name FROM networks", "id");
both!(RESOURCES, RESOURCES_OF, "SELECT network_id, id, name, address, enabled FROM resources", "network_id");
both!(
    ROUTERS,
    ROUTERS_OF,
    "SELECT network_id, id, peer_id, metric, masquerade, enabled FROM routers",
    "network_id"
);
both!(
    ROUTER_GROUPS,
    ROUTER_GROUPS_OF,
    "SELECT g.router_id, g.group_id FROM routers r JOIN router_groups g ON g.router_id = r.id",
    "r.network_id"
);

type Peers = (BTreeMap<String, model::Peer>, BTreeMap<String, Agent>);

#[derive(FromRow)]
struct PeerRow {
    id: String,
    name: String,
    ip: String,
    ipv6: String,
    allowed: bool,
    expired: bool,
    role: String,
    wireguard_key: Vec<u8>,
    endpoint: Option<String>,
    os: String,
    dns_label: String,
}

impl PeerRow {
    fn peer(self, extra_labels: Vec<String>, standing: &Standing) -> Result<(String, model::Peer, Agent)> {
        let agent = Agent {
            role: if self.role == "gateway" { Role::Gateway } else { Role::Peer },
            wireguard_public_key: self
                .wireguard_key
                .try_into()
                .map_err(|_| corrupt("peers.wireguard_key")("not 32 bytes".into()))?,
            endpoint: self.endpoint.map(|text| parse("peers.endpoint", &text)).transpose()?,
            watched: standing.watched(&self.os),
            dns_labels: std::iter::once(self.dns_label).chain(extra_labels).collect(),
            login_expired: self.expired,
        };
        let peer = model::Peer {
            name: self.name,
            v4: parse("peers.ip", &self.ip)?,
            v6: parse("peers.ipv6", &self.ipv6)?,
            allowed: self.allowed,
        };
        Ok((self.id, peer, agent))
    }
}

/// Every peer, as rules name it and as the overlay sees it.
pub(super) async fn peers(db: &mut Connection, standing: &Standing) -> Result<Peers> {
    let rows: Vec<PeerRow> = sql::query_as(PEERS).fetch_all(&mut *db).await?;
    let mut labels = labels::all(db).await?;
    let (mut peers, mut agents) = (BTreeMap::new(), BTreeMap::new());
    for row in rows {
        let extra_labels = labels.remove(&row.id).unwrap_or_default();
        let (id, peer, agent) = row.peer(extra_labels, standing)?;
        agents.insert(id.clone(), agent);
        peers.insert(id, peer);
    }
    Ok((peers, agents))
}

/// One peer, if it is there.
pub(super) async fn peer(
    db: &mut Connection,
    id: &str,
    standing: &Standing,
) -> Result<Option<(model::Peer, Agent)>> {
    let row: Option<PeerRow> = sql::query_as(PEER).bind(id).fetch_optional(&mut *db).await?;
    let Some(row) = row else { return Ok(None) };
    let (_, peer, agent) = row.peer(labels::of(db, id).await?, standing)?;
    Ok(Some((peer, agent)))
}

/// Every group with its members.
pub(super) async fn groups(db: &mut Connection) -> Result<BTreeMap<String, model::Group>> {
    let rows: Vec<(String, String)> =
        sql::query_as("SELECT id, name FROM groups").fetch_all(&mut *db).await?;
    let mut groups: BTreeMap<String, model::Group> =
        rows.into_iter().map(|(id, name)| (id, model::Group { name, ..Default::default() })).collect();
    for (group, peer) in pairs(db, "SELECT group_id, peer_id FROM group_peers").await? {
        groups.entry(group).or_default().peers.insert(peer);
    }
    for (group, resource) in pairs(db, "SELECT group_id, resource_id FROM group_resources").await? {
        groups.entry(group).or_default().resources.insert(resource);
    }
    Ok(groups)
}

/// The name of a group, if it is there.
pub(super) async fn group_name(db: &mut Connection, id: &str) -> Result<Option<String>> {
    sql::query_scalar("SELECT name FROM groups WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The peers of a group.
pub(super) async fn group_peers(db: &mut Connection, id: &str) -> Result<BTreeSet<String>> {
    let peers = sql::query_scalar("SELECT peer_id FROM group_peers WHERE group_id = $1");
    Ok(peers.bind(id).fetch_all(db).await?.into_iter().collect())
}

/// Whether a peer is in a group.
pub(super) async fn is_member(db: &mut Connection, group: &str, peer: &str) -> Result<bool> {
    let found: i64 =
        sql::query_scalar("SELECT count(*) FROM group_peers WHERE group_id = $1 AND peer_id = $2")
            .bind(group)
            .bind(peer)
            .fetch_one(db)
            .await?;
    Ok(found > 0)
}

/// The resources of a group, without routes.
pub(super) async fn group_resources(db: &mut Connection, id: &str) -> Result<BTreeSet<String>> {
    let resources = sql::query_scalar("SELECT resource_id FROM group_resources WHERE group_id = $1");
    Ok(resources.bind(id).fetch_all(db).await?.into_iter().collect())
}

type Groups = BTreeMap<String, model::Group>;

/// Every network with what is in it. Names count where routers are to look them up.
pub(super) async fn networks(
    db: &mut Connection,
    groups: &Groups,
    names: bool,
) -> Result<BTreeMap<String, model::Network>> {
    let rows = NetworkRows {
        networks: sql::query_as(NETWORKS).fetch_all(db).await?,
        resources: sql::query_as(RESOURCES).fetch_all(db).await?,
        routers: sql::query_as(ROUTERS).fetch_all(db).await?,
        router_groups: sql::query_as(ROUTER_GROUPS).fetch_all(&mut *db).await?,
        learned: learned::of_resources(db, None).await?,
    };
    rows.networks(groups, names)
}

/// One network with what is in it, if it is there.
pub(super) async fn network(
    db: &mut Connection,
    id: &str,
    groups: &Groups,
    names: bool,
) -> Result<Option<model::Network>> {
    let rows = NetworkRows {
        networks: sql::query_as(NETWORK).bind(id).fetch_all(db).await?,
        resources: sql::query_as(RESOURCES_OF).bind(id).fetch_all(db).await?,
        routers: sql::query_as(ROUTERS_OF).bind(id).fetch_all(db).await?,
        router_groups: sql::query_as(ROUTER_GROUPS_OF).bind(id).fetch_all(&mut *db).await?,
        learned: learned::of_resources(db, Some(id)).await?,
    };
    Ok(rows.networks(groups, names)?.remove(id))
}

struct NetworkRows {
    networks: Vec<(String, String)>,
    resources: Vec<(String, String, String, String, bool)>,
    routers: Vec<(String, String, Option<String>, i64, bool, bool)>,
    router_groups: Vec<(String, String)>,
    /// What names of domain resources stand for, by resource id.
    learned: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl NetworkRows {
    fn networks(mut self, groups: &Groups, names: bool) -> Result<BTreeMap<String, model::Network>> {
        let network = |(id, name)| (id, model::Network { name, ..Default::default() });
        let mut networks: BTreeMap<String, model::Network> = self.networks.into_iter().map(network).collect();
        for (network, id, name, address, enabled) in self.resources {
            let (prefixes, domain) = match parse::<Address>("resources.address", &address)? {
                Address::Prefix(prefix) => (vec![prefix.trunc()], None),
                Address::Domain(domain) if names => {
                    let learned = self.learned.remove(&id).unwrap_or_default();
                    (learned.into_iter().map(IpNet::from).collect(), Some(domain))
                }
                Address::Domain(_) => (Vec::new(), None),
            };
            let resource = model::Resource { name, prefixes, domain, enabled, distribution: None };
            networks.entry(network).or_default().resources.insert(id, resource);
        }
        let mut by_group = BTreeMap::<String, BTreeSet<String>>::new();
        for (router, group) in self.router_groups {
            if let Some(group) = groups.get(&group) {
                by_group.entry(router).or_default().extend(group.peers.iter().cloned());
            }
        }
        for (network, id, peer, metric, masquerade, enabled) in self.routers {
            let mut peers = by_group.remove(&id).unwrap_or_default();
            peers.extend(peer);
            let metric = u16::try_from(metric).map_err(|error| corrupt("routers.metric")(Box::new(error)))?;
            let router = model::Router { peers, metric, masquerade, enabled };
            networks.entry(network).or_default().routers.insert(id, router);
        }
        Ok(networks)
    }
}

/// A route as a network of its own: one resource, which its access control groups hold, and one router. Beside it, where it
/// has no such groups, the policy that opens it to those it is distributed to.
pub(super) fn route_network(
    route: &NetworkRoute,
    groups: &mut BTreeMap<String, model::Group>,
) -> Result<(model::Network, Option<model::Policy>)> {
    let NetworkRoute { id, slot, spec } = route;
    for group in &spec.access_control_groups {
        if let Some(group) = groups.get_mut(group) {
            group.resources.insert(id.clone());
        }
    }
    let resource = model::Resource {
        name: spec.network_id.clone(),
        prefixes: spec.prefixes(),
        domain: None,
        enabled: spec.enabled,
        distribution: Some(model::Distribution {
            groups: spec.groups.clone(),
            by_choice: spec.skip_auto_apply,
        }),
    };
    let of_groups = spec.peer_groups.iter().filter_map(|group| groups.get(group));
    let router = model::Router {
        peers: of_groups.flat_map(|group| &group.peers).chain(&spec.peer).cloned().collect(),
        metric: u16::try_from(spec.metric).map_err(|error| corrupt("routes.metric")(Box::new(error)))?,
        masquerade: spec.masquerade,
        enabled: spec.enabled,
    };
    let network = model::Network {
        name: spec.network_id.clone(),
        resources: [(id.clone(), resource)].into(),
        routers: [(id.clone(), router)].into(),
    };
    let name = format!("route {}", spec.network_id);
    let permit = || model::Policy {
        name: name.clone(),
        enabled: spec.enabled,
        posture_failed: Default::default(),
        rules: vec![model::Rule {
            id: id.clone(),
            name: name.clone(),
            slot: *slot,
            enabled: true,
            action: model::Action::Accept,
            bidirectional: false,
            service: model::Service::All,
            sources: model::End::Groups(spec.groups.clone()),
            destinations: model::End::Resource(id.clone()),
        }]
        .into(),
    };
    Ok((network, spec.access_control_groups.is_empty().then(permit)))
}

/// A rule as the compiler has it.
pub(super) fn rule(rule: Rule) -> model::Rule {
    let mut ports = Vec::new();
    ports.extend(rule.spec.ports.iter().map(|port| *port..=*port));
    ports.extend(rule.spec.port_ranges.iter().map(|range| range.start..=range.end));
    let service = match rule.spec.protocol {
        Protocol::All => model::Service::All,
        Protocol::Icmp => model::Service::Icmp,
        Protocol::Udp => model::Service::Udp(ports),
        Protocol::Tcp => model::Service::Tcp(ports),
        Protocol::NetbirdSsh if ports.is_empty() => model::Service::Tcp(vec![SSH_PORT..=SSH_PORT]),
        Protocol::NetbirdSsh => model::Service::Tcp(ports),
    };
    model::Rule {
        id: rule.id,
        name: rule.spec.name,
        slot: rule.slot,
        enabled: rule.spec.enabled,
        action: match rule.spec.action {
            Action::Accept => model::Action::Accept,
            Action::Drop => model::Action::Drop,
        },
        bidirectional: rule.spec.bidirectional,
        service,
        sources: end(rule.spec.sources),
        destinations: end(rule.spec.destinations),
    }
}

fn end(end: End) -> model::End {
    match end {
        End::Groups(groups) => model::End::Groups(groups.into_iter().collect()),
        End::Peer(id) => model::End::Peer(id),
        End::Resource(id) => model::End::Resource(id),
    }
}

async fn pairs(db: &mut Connection, query: &'static str) -> Result<Vec<(String, String)>> {
    sql::query_as(query).fetch_all(db).await
}
