//! Network routers: the peers that reach a network's resources.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sqlx::FromRow;

use super::error::{invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Store, groups, networks};
use crate::ids::new_id;

/// Metrics a router may have; lower is better.
const METRICS: std::ops::RangeInclusive<i64> = 1..=9999;

/// A router: one peer, or every peer of some groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Router {
    /// Router id.
    pub id: String,
    /// The network it routes for.
    pub network_id: String,
    /// The peer, unless groups are named.
    pub peer: Option<String>,
    /// Group ids, empty when a peer is named.
    pub peer_groups: Vec<String>,
    /// 1..=9999, lower is better.
    pub metric: i64,
    /// Whether sources are replaced by the router's own address.
    pub masquerade: bool,
    /// Whether it counts.
    pub enabled: bool,
}

/// What a router is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterChange {
    /// Peer id.
    pub peer: Option<String>,
    /// Group ids.
    pub peer_groups: Vec<String>,
    /// 1..=9999.
    pub metric: i64,
    /// Whether sources are replaced by the router's own address.
    pub masquerade: bool,
    /// Whether it counts.
    pub enabled: bool,
}

impl Store {
    /// Every router of a network, or of all of them, by id.
    pub async fn routers(&self, network: Option<&str>) -> Result<Vec<Router>> {
        let mut tx = self.read().await?;
        if let Some(network) = network {
            networks::row(&mut tx, network).await?;
        }
        let rows: Vec<Row> =
            sql::query_as("SELECT * FROM routers WHERE $1 IS NULL OR network_id = $1 ORDER BY id")
                .bind(network)
                .fetch_all(&mut tx)
                .await?;
        let members: Vec<(String, String)> =
            sql::query_as("SELECT router_id, group_id FROM router_groups").fetch_all(&mut tx).await?;
        let mut groups = BTreeMap::<String, Vec<String>>::new();
        for (router, group) in members {
            groups.entry(router).or_default().push(group);
        }
        Ok(rows
            .into_iter()
            .map(|row| {
                let groups = groups.remove(&row.id).unwrap_or_default();
                row.router(groups)
            })
            .collect())
    }

    /// One router of a network.
    pub async fn router(&self, network: &str, id: &str) -> Result<Router> {
        let mut tx = self.read().await?;
        networks::row(&mut tx, network).await?;
        router(&mut tx, network, id).await
    }

    /// Creates a router.
    pub async fn create_router(&self, actor: &Actor, network: &str, change: RouterChange) -> Result<Router> {
        let mut write = self.write(actor).await?;
        let (name, _) = networks::row(write.db(), network).await?;
        let id = new_id();
        put(&mut write, network, &id, change).await?;
        let after = router(write.db(), network, &id).await?;
        let meta = Meta::default().with("network_name", name).after(&after);
        write.event(Activity::RouterCreate, &id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Replaces a router.
    pub async fn update_router(
        &self,
        actor: &Actor,
        network: &str,
        id: &str,
        change: RouterChange,
    ) -> Result<Router> {
        let mut write = self.write(actor).await?;
        let (name, _) = networks::row(write.db(), network).await?;
        let before = router(write.db(), network, id).await?;
        put(&mut write, network, id, change).await?;
        let after = router(write.db(), network, id).await?;
        if after == before {
            return Ok(before);
        }
        let meta = Meta::default().with("network_name", name).before(&before).after(&after);
        write.event(Activity::RouterUpdate, id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Deletes a router.
    pub async fn delete_router(&self, actor: &Actor, network: &str, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        let (name, _) = networks::row(write.db(), network).await?;
        let before = router(write.db(), network, id).await?;
        sql::query("DELETE FROM routers WHERE id = $1").bind(id).execute(write.db()).await?;
        let meta = Meta::default().with("network_name", name).before(&before);
        write.event(Activity::RouterDelete, id, meta).await?;
        write.commit().await
    }
}

async fn put(write: &mut Write, network: &str, id: &str, change: RouterChange) -> Result<()> {
    check_metric(change.metric)?;
    let groups: BTreeSet<String> = change.peer_groups.into_iter().collect();
    let peer = check_carrier(write.db(), change.peer, &groups).await?;

    sql::query(
        "INSERT INTO routers (id, network_id, peer_id, metric, masquerade, enabled) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (id) DO UPDATE SET peer_id = excluded.peer_id, metric = excluded.metric,
         masquerade = excluded.masquerade, enabled = excluded.enabled",
    )
    .bind(id)
    .bind(network)
    .bind(peer)
    .bind(change.metric)
    .bind(change.masquerade)
    .bind(change.enabled)
    .execute(write.db())
    .await?;
    sql::query("DELETE FROM router_groups WHERE router_id = $1").bind(id).execute(write.db()).await?;
    for group in groups {
        sql::query("INSERT INTO router_groups (router_id, group_id) VALUES ($1, $2)")
            .bind(id)
            .bind(group)
            .execute(write.db())
            .await?;
    }
    Ok(())
}

/// Refuses a metric that is none.
pub(super) fn check_metric(metric: i64) -> Result<()> {
    match METRICS.contains(&metric) {
        true => Ok(()),
        false => invalid(format!("metric: {metric} is not between 1 and 9999")),
    }
}

/// Refuses who is to route where that is not exactly one peer there is, or groups there are; the peer.
pub(super) async fn check_carrier(
    db: &mut Connection,
    peer: Option<String>,
    groups: &BTreeSet<String>,
) -> Result<Option<String>> {
    let peer = peer.filter(|peer| !peer.is_empty());
    match (&peer, groups.is_empty()) {
        (Some(_), false) => return invalid("peer and peer_groups cannot be set together"),
        (None, true) => return invalid("either peer or peer_groups must be set"),
        _ => {}
    }
    if let Some(peer) = &peer {
        let found: i64 = sql::query_scalar("SELECT count(*) FROM peers WHERE id = $1")
            .bind(peer)
            .fetch_one(&mut *db)
            .await?;
        if found == 0 {
            return invalid(format!("peer {peer} does not exist"));
        }
    }
    groups::must_exist(db, groups).await?;
    Ok(peer)
}

pub(super) async fn router(db: &mut Connection, network: &str, id: &str) -> Result<Router> {
    let row: Option<Row> = sql::query_as("SELECT * FROM routers WHERE id = $1 AND network_id = $2")
        .bind(id)
        .bind(network)
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return not_found("router", id) };
    let groups =
        sql::query_scalar("SELECT group_id FROM router_groups WHERE router_id = $1 ORDER BY group_id")
            .bind(id)
            .fetch_all(db)
            .await?;
    Ok(row.router(groups))
}

#[derive(FromRow)]
struct Row {
    id: String,
    network_id: String,
    peer_id: Option<String>,
    metric: i64,
    masquerade: bool,
    enabled: bool,
}

impl Row {
    fn router(self, peer_groups: Vec<String>) -> Router {
        Router {
            id: self.id,
            network_id: self.network_id,
            peer: self.peer_id,
            peer_groups,
            metric: self.metric,
            masquerade: self.masquerade,
            enabled: self.enabled,
        }
    }
}
