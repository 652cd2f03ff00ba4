//! Routes: prefixes that peers reach through other peers, without a network around them.
//!
//! A route is a resource of its own with routers of its own: it goes to the compiler as a network of one resource (see
//! `state.rs`). Peers of its distribution groups alone reach it. With access control groups, what reaches it is said by
//! policies whose destinations are these groups; without any, it is open to its distribution groups.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::Serialize;
use sqlx::FromRow;

use super::error::{corrupt, duplicate, invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Store, groups, policies, resources, routers, text};
use crate::ids::new_id;

/// Longest network identifier, in characters.
const NETWORK_ID_MAX: usize = 40;

/// What a group is to a route, in `route_groups`.
pub(super) const ROUTERS: i64 = 0;
pub(super) const DISTRIBUTION: i64 = 1;
pub(super) const ACCESS_CONTROL: i64 = 2;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkRoute {
    /// Route id.
    pub id: String,
    /// Its number in images and counters where it is a rule of its own, kept for its life.
    pub slot: u32,
    /// What it says.
    #[serde(flatten)]
    pub spec: RouteSpec,
}

/// What a route says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteSpec {
    /// A name that several routes may share, as those of equal prefixes by which peers stand in for each other do.
    pub network_id: String,
    /// Free text.
    pub description: String,
    /// The prefix, masked.
    pub network: IpNet,
    /// The peer that routes, unless groups are named.
    pub peer: Option<String>,
    /// The groups whose peers route, empty when a peer is named.
    pub peer_groups: BTreeSet<String>,
    /// 1..=9999, lower is better.
    pub metric: i64,
    /// Whether sources are replaced by the router's own address.
    pub masquerade: bool,
    /// Whether it counts.
    pub enabled: bool,
    /// Distribution: groups whose peers alone get it. At least one.
    pub groups: BTreeSet<String>,
    /// Groups by which policies name it; with none it is open to its distribution groups.
    pub access_control_groups: BTreeSet<String>,
    /// Kept for NetBird's clients. It says whether addresses that a route's domain does not resolve to any more stay, and routes
    /// by domain are not served: either value is the same.
    pub keep_route: bool,
    /// Whether agents take it only where their operators ask for it, by its network identifier.
    pub skip_auto_apply: bool,
}

impl RouteSpec {
    /// What it is a way to: a default route of one family is one of both.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        match self.network.prefix_len() {
            0 => vec![IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())],
            _ => vec![self.network],
        }
    }
}

impl Store {
    /// Every route, by id.
    pub async fn routes(&self) -> Result<Vec<NetworkRoute>> {
        all(&mut self.read().await?).await
    }

    /// One route.
    pub async fn route(&self, id: &str) -> Result<NetworkRoute> {
        route(&mut self.read().await?, id).await
    }

    /// Creates a route.
    pub async fn create_route(&self, actor: &Actor, spec: RouteSpec) -> Result<NetworkRoute> {
        let mut write = self.write(actor).await?;
        let id = new_id();
        let slot = policies::free_slot(write.db()).await?;
        put(&mut write, &id, slot, spec).await?;
        let after = route(write.db(), &id).await?;
        write.event(Activity::RouteAdd, &id, Meta::name(&after.spec.network_id).after(&after)).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Replaces a route.
    pub async fn update_route(&self, actor: &Actor, id: &str, spec: RouteSpec) -> Result<NetworkRoute> {
        let mut write = self.write(actor).await?;
        let before = route(write.db(), id).await?;
        put(&mut write, id, i64::from(before.slot), spec).await?;
        let after = route(write.db(), id).await?;
        if after == before {
            return Ok(before);
        }
        let meta = Meta::name(&after.spec.network_id).before(&before).after(&after);
        write.event(Activity::RouteUpdate, id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Deletes a route.
    pub async fn delete_route(&self, actor: &Actor, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        let before = route(write.db(), id).await?;
        sql::query("DELETE FROM routes WHERE id = $1").bind(id).execute(write.db()).await?;
        write.event(Activity::RouteDelete, id, Meta::name(&before.spec.network_id).before(&before)).await?;
        write.commit().await
    }
}

async fn put(write: &mut Write, id: &str, slot: i64, spec: RouteSpec) -> Result<()> {
    let network_id = text::name("route network_id", &spec.network_id)?;
    if network_id.chars().count() > NETWORK_ID_MAX {
        return invalid(format!("network_id must not be longer than {NETWORK_ID_MAX} characters"));
    }
    text::description("route", &spec.description)?;
    if let Some(what) = resources::never_routed(&spec.network) {
        return invalid(format!("network: {} is {what}, which no router carries", spec.network));
    }
    routers::check_metric(spec.metric)?;
    let peer = routers::check_carrier(write.db(), spec.peer.clone(), &spec.peer_groups).await?;
    if spec.groups.is_empty() {
        return invalid("groups must name at least one group: those whose peers get the route");
    }
    groups::must_exist(write.db(), &spec.groups).await?;
    // They come to hold the route, and All holds every peer and no resource.
    let guards: Vec<String> = spec.access_control_groups.iter().cloned().collect();
    groups::assignable(write.db(), "access_control_groups", &guards).await?;
    refuse_if_routed(write.db(), id, &spec).await?;

    sql::query(
        "INSERT INTO routes (id, network_id, description, network, peer_id, metric, masquerade, enabled, keep_route,
         skip_auto_apply, slot) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (id) DO UPDATE SET network_id = excluded.network_id, description = excluded.description,
         network = excluded.network, peer_id = excluded.peer_id, metric = excluded.metric,
         masquerade = excluded.masquerade, enabled = excluded.enabled, keep_route = excluded.keep_route,
         skip_auto_apply = excluded.skip_auto_apply",
    )
    .bind(id)
    .bind(&network_id)
    .bind(&spec.description)
    .bind(spec.network.trunc().to_string())
    .bind(peer)
    .bind(spec.metric)
    .bind(spec.masquerade)
    .bind(spec.enabled)
    .bind(spec.keep_route)
    .bind(spec.skip_auto_apply)
    .bind(slot)
    .execute(write.db())
    .await?;
    sql::query("DELETE FROM route_groups WHERE route_id = $1").bind(id).execute(write.db()).await?;
    let lists = [
        (ROUTERS, &spec.peer_groups),
        (DISTRIBUTION, &spec.groups),
        (ACCESS_CONTROL, &spec.access_control_groups),
    ];
    for (role, groups) in lists {
        for group in groups {
            sql::query("INSERT INTO route_groups (route_id, role, group_id) VALUES ($1, $2, $3)")
                .bind(id)
                .bind(role)
                .bind(group)
                .execute(write.db())
                .await?;
        }
    }
    Ok(())
}

/// Refuses a second route of the same prefix by the same peer: which of the two would count?
async fn refuse_if_routed(db: &mut Connection, id: &str, spec: &RouteSpec) -> Result<()> {
    let mut own: BTreeSet<String> = spec.peer.iter().cloned().collect();
    for group in &spec.peer_groups {
        let members: Vec<String> = sql::query_scalar("SELECT peer_id FROM group_peers WHERE group_id = $1")
            .bind(group)
            .fetch_all(&mut *db)
            .await?;
        own.extend(members);
    }
    for prefix in spec.prefixes() {
        let others: Vec<(String, String, String)> = sql::query_as(
            "SELECT p.id, p.name, r.network_id FROM routes r JOIN peers p ON p.id = r.peer_id
             WHERE r.network = $1 AND r.id <> $2
             UNION SELECT p.id, p.name, r.network_id FROM routes r
             JOIN route_groups g ON g.route_id = r.id AND g.role = 0
             JOIN group_peers m ON m.group_id = g.group_id JOIN peers p ON p.id = m.peer_id
             WHERE r.network = $1 AND r.id <> $2 ORDER BY 2, 1",
        )
        .bind(prefix.to_string())
        .bind(id)
        .fetch_all(&mut *db)
        .await?;
        if let Some((_, peer, route)) = others.into_iter().find(|(peer, ..)| own.contains(peer)) {
            return duplicate(format!(
                "peer {peer} has a route to {prefix} already, {route}: change that one, or name other peers"
            ));
        }
    }
    Ok(())
}

/// Every route as the connection's transaction sees it, by id.
pub(super) async fn all(db: &mut Connection) -> Result<Vec<NetworkRoute>> {
    let rows: Vec<Row> = sql::query_as("SELECT * FROM routes ORDER BY id").fetch_all(&mut *db).await?;
    let members: Vec<(String, i64, String)> =
        sql::query_as("SELECT route_id, role, group_id FROM route_groups").fetch_all(db).await?;
    let mut groups = BTreeMap::<String, Vec<(i64, String)>>::new();
    for (route, role, group) in members {
        groups.entry(route).or_default().push((role, group));
    }
    rows.into_iter()
        .map(|row| {
            let groups = groups.remove(&row.id).unwrap_or_default();
            row.route(groups)
        })
        .collect()
}

async fn route(db: &mut Connection, id: &str) -> Result<NetworkRoute> {
    match find(db, id).await? {
        Some(route) => Ok(route),
        None => not_found("route", id),
    }
}

/// The route with this id, if there is one.
pub(super) async fn find(db: &mut Connection, id: &str) -> Result<Option<NetworkRoute>> {
    let row: Option<Row> =
        sql::query_as("SELECT * FROM routes WHERE id = $1").bind(id).fetch_optional(&mut *db).await?;
    let Some(row) = row else { return Ok(None) };
    let groups = sql::query_as("SELECT role, group_id FROM route_groups WHERE route_id = $1")
        .bind(id)
        .fetch_all(db)
        .await?;
    row.route(groups).map(Some)
}

#[derive(FromRow)]
struct Row {
    id: String,
    network_id: String,
    description: String,
    network: String,
    peer_id: Option<String>,
    metric: i64,
    masquerade: bool,
    enabled: bool,
    keep_route: bool,
    skip_auto_apply: bool,
    slot: i64,
}

impl Row {
    fn route(self, groups: Vec<(i64, String)>) -> Result<NetworkRoute> {
        let of = |role: i64| groups.iter().filter(|(of, _)| *of == role).map(|(_, id)| id.clone()).collect();
        Ok(NetworkRoute {
            id: self.id,
            slot: u32::try_from(self.slot).map_err(|error| corrupt("routes.slot")(Box::new(error)))?,
            spec: RouteSpec {
                network_id: self.network_id,
                description: self.description,
                network: self.network.parse().map_err(|error| corrupt("routes.network")(Box::new(error)))?,
                peer: self.peer_id,
                peer_groups: of(ROUTERS),
                metric: self.metric,
                masquerade: self.masquerade,
                enabled: self.enabled,
                groups: of(DISTRIBUTION),
                access_control_groups: of(ACCESS_CONTROL),
                keep_route: self.keep_route,
                skip_auto_apply: self.skip_auto_apply,
            },
        })
    }
}
