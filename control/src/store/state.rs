//! The whole account as the compiler reads it, from one consistent snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use sluicegate_policy::model;

use super::account::account;
use super::error::corrupt;
use super::policies::{self, Action, End, Protocol};
use super::resources::Address;
use super::sql::{self, Connection};
use super::standing::Standing;
use super::{NetworkRoute, Result, Role, Rule, Store, routes};
use crate::ids::now;

/// The port of `netbird-ssh` where a rule names none.
const SSH_PORT: u16 = 22;

/// Everything the driver compiles from.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The revision this is the state of.
    pub revision: u64,
    /// What the compiler reads.
    pub state: model::State,
    /// How agents reach each other, by peer id. Every peer of `state` is here.
    pub agents: BTreeMap<String, Agent>,
    /// When the first break-glass policy that is on here ends, Unix milliseconds: the state is another one then, though
    /// nothing is written.
    pub break_glass_until: Option<i64>,
}

/// A peer as the overlay sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Gateway or peer.
    pub role: Role,
    /// X25519 public key.
    pub wireguard_public_key: [u8; 32],
    /// Where its WireGuard can be reached on the underlay.
    pub endpoint: Option<SocketAddr>,
    /// Paths of executables about which it is to report.
    pub watched: Arc<[String]>,
}

impl Store {
    /// The state alone.
    pub async fn state(&self) -> Result<model::State> {
        Ok(self.snapshot().await?.state)
    }

    /// State, revision and agents as of one instant.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let mut tx = self.read().await?;
        let account = account(&mut tx).await?;
        let (overlay_v4, overlay_v6) = account.settings.overlay()?;
        let mut standing = Standing::load(&mut tx).await?;
        let (peers, agents) = peers(&mut tx, &standing).await?;
        let mut groups = groups(&mut tx).await?;
        let mut networks = networks(&mut tx, &groups).await?;
        let now = now();
        let mut break_glass_until = None::<i64>;
        let mut policies: BTreeMap<String, model::Policy> = policies::all(&mut tx)
            .await?
            .into_iter()
            .map(|policy| {
                let until = policy.break_glass.as_ref().map(|glass| glass.until.filter(|until| *until > now));
                break_glass_until = break_glass_until.into_iter().chain(until.flatten()).min();
                let compiled = model::Policy {
                    name: policy.name,
                    // One whose time came while nobody was there to end it is off all the same.
                    enabled: policy.enabled && until.is_none_or(|until| until.is_some()),
                    posture_failed: standing.failed(&policy.source_posture_checks),
                    rules: policy.rules.into_iter().map(rule).collect(),
                };
                (policy.id, compiled)
            })
            .collect();
        for route in routes::all(&mut tx).await? {
            let (network, permit) = route_network(&route, &mut groups)?;
            networks.insert(route.id.clone(), network);
            policies.extend(permit.map(|permit| (route.id, permit)));
        }
        drop(tx);
        let state = model::State { overlay_v4, overlay_v6, peers, groups, networks, policies };
        Ok(Snapshot { revision: account.revision, state, agents, break_glass_until })
    }
}

type Peers = (BTreeMap<String, model::Peer>, BTreeMap<String, Agent>);

async fn peers(db: &mut Connection, standing: &Standing) -> Result<Peers> {
    type Row = (String, String, String, String, bool, String, Vec<u8>, Option<String>, String);
    // A peer whose user is blocked, not approved or gone takes no part, as little as one whose login has expired.
    let rows: Vec<Row> = sql::query_as(
        "SELECT p.id, p.name, p.ip, p.ipv6, NOT p.approval_required AND p.expired = '' AND (p.user_id = ''
         OR (u.id IS NOT NULL AND NOT u.blocked AND NOT u.pending_approval)) AS allowed, p.role, p.wireguard_key,
         p.endpoint, p.os FROM peers p LEFT JOIN users u ON u.id = p.user_id",
    )
    .fetch_all(db)
    .await?;
    let (mut peers, mut agents) = (BTreeMap::new(), BTreeMap::new());
    for (id, name, v4, v6, allowed, role, key, endpoint, os) in rows {
        let agent = Agent {
            role: if role == "gateway" { Role::Gateway } else { Role::Peer },
            wireguard_public_key: key
                .try_into()
                .map_err(|_| corrupt("peers.wireguard_key")("not 32 bytes".into()))?,
            endpoint: endpoint.map(|text| parse("peers.endpoint", &text)).transpose()?,
            watched: standing.watched(&os),
        };
        let peer = model::Peer { name, v4: parse("peers.ip", &v4)?, v6: parse("peers.ipv6", &v6)?, allowed };
        agents.insert(id.clone(), agent);
        peers.insert(id, peer);
    }
    Ok((peers, agents))
}

async fn groups(db: &mut Connection) -> Result<BTreeMap<String, model::Group>> {
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

async fn networks(
    db: &mut Connection,
    groups: &BTreeMap<String, model::Group>,
) -> Result<BTreeMap<String, model::Network>> {
    let mut networks: BTreeMap<String, model::Network> = pairs(db, "SELECT id, name FROM networks")
        .await?
        .into_iter()
        .map(|(id, name)| (id, model::Network { name, ..Default::default() }))
        .collect();

    let resources: Vec<(String, String, String, String, bool)> =
        sql::query_as("SELECT network_id, id, name, address, enabled FROM resources")
            .fetch_all(&mut *db)
            .await?;
    for (network, id, name, address, enabled) in resources {
        let prefixes = match parse::<Address>("resources.address", &address)? {
            Address::Prefix(prefix) => vec![prefix.trunc()],
            // Addresses of domains are learned by the agents' resolvers, which are not there yet.
            Address::Domain(_) => Vec::<IpNet>::new(),
        };
        let resource = model::Resource { name, prefixes, enabled, distribution: None };
        networks.entry(network).or_default().resources.insert(id, resource);
    }

    let mut by_group = BTreeMap::<String, BTreeSet<String>>::new();
    for (router, group) in pairs(db, "SELECT router_id, group_id FROM router_groups").await? {
        if let Some(group) = groups.get(&group) {
            by_group.entry(router).or_default().extend(group.peers.iter().cloned());
        }
    }
    let routers: Vec<(String, String, Option<String>, i64, bool, bool)> =
        sql::query_as("SELECT network_id, id, peer_id, metric, masquerade, enabled FROM routers")
            .fetch_all(db)
            .await?;
    for (network, id, peer, metric, masquerade, enabled) in routers {
        let mut peers = by_group.remove(&id).unwrap_or_default();
        peers.extend(peer);
        let metric = u16::try_from(metric).map_err(|error| corrupt("routers.metric")(Box::new(error)))?;
        let router = model::Router { peers, metric, masquerade, enabled };
        networks.entry(network).or_default().routers.insert(id, router);
    }
    Ok(networks)
}

/// A route as a network of its own: one resource, which its access control groups hold, and one router. Beside it, where it
/// has no such groups, the policy that opens it to those it is distributed to.
fn route_network(
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
        }],
    };
    Ok((network, spec.access_control_groups.is_empty().then(permit)))
}

fn rule(rule: Rule) -> model::Rule {
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

fn parse<T: FromStr>(column: &'static str, text: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error: T::Err| corrupt(column)(Box::new(error)))
}
