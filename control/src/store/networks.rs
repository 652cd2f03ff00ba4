//! Networks: resources and the routers that reach them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::error::{duplicate, not_found};
use super::sql::{self, Connection};
use super::write::Meta;
use super::{Activity, Actor, Result, Store, resources, routers, text};
use crate::ids::new_id;

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Network id.
    pub id: String,
    /// Display name, unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Ids of its routers.
    pub routers: Vec<String>,
    /// Ids of its resources.
    pub resources: Vec<String>,
    /// Ids of the policies with a rule towards one of its resources.
    pub policies: Vec<String>,
    /// How many peers route for it, groups expanded.
    pub routing_peers: usize,
}

/// What a network is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkChange {
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
}

impl Store {
    /// Every network, by id.
    pub async fn networks(&self) -> Result<Vec<Network>> {
        let mut tx = self.read().await?;
        let rows: Vec<(String, String, String)> =
            sql::query_as("SELECT id, name, description FROM networks ORDER BY id")
                .fetch_all(&mut tx)
                .await?;
        let links = [
            "SELECT network_id, id FROM routers",
            "SELECT network_id, id FROM resources",
            "SELECT x.network_id, r.policy_id FROM rules r JOIN resources x ON x.id = r.destination_resource
             UNION
             SELECT x.network_id, r.policy_id FROM rules r
             JOIN rule_groups g ON g.rule_id = r.id AND g.side = 1
             JOIN group_resources m ON m.group_id = g.group_id JOIN resources x ON x.id = m.resource_id",
            "SELECT network_id, peer_id FROM routers WHERE peer_id IS NOT NULL
             UNION
             SELECT r.network_id, m.peer_id FROM routers r JOIN router_groups g ON g.router_id = r.id
             JOIN group_peers m ON m.group_id = g.group_id",
        ];
        let mut found: [BTreeMap<String, BTreeSet<String>>; 4] = Default::default();
        for (query, found) in links.into_iter().zip(&mut found) {
            let rows: Vec<(String, String)> = sql::query_as(query).fetch_all(&mut tx).await?;
            for (network, id) in rows {
                found.entry(network).or_default().insert(id);
            }
        }
        let [mut routers, mut resources, mut policies, mut peers] = found;
        let mut take = |id: &str| {
            [&mut routers, &mut resources, &mut policies, &mut peers]
                .map(|map| map.remove(id).unwrap_or_default().into_iter().collect::<Vec<_>>())
        };
        Ok(rows
            .into_iter()
            .map(|(id, name, description)| {
                let [routers, resources, policies, peers] = take(&id);
                Network { id, name, description, routers, resources, policies, routing_peers: peers.len() }
            })
            .collect())
    }

    /// One network.
    pub async fn network(&self, id: &str) -> Result<Network> {
        match self.networks().await?.into_iter().find(|network| network.id == id) {
            Some(network) => Ok(network),
            None => not_found("network", id),
        }
    }

    /// Creates a network.
    pub async fn create_network(&self, actor: &Actor, change: NetworkChange) -> Result<Network> {
        let mut write = self.write(actor).await?;
        let name = check_name(write.db(), &change.name, "").await?;
        let id = new_id();
        text::description("network", &change.description)?;
        let network = Network { id, name, description: change.description, ..Network::default() };
        sql::query("INSERT INTO networks (id, name, description) VALUES ($1, $2, $3)")
            .bind(&network.id)
            .bind(&network.name)
            .bind(&network.description)
            .execute(write.db())
            .await?;
        write.event(Activity::NetworkCreate, &network.id, Meta::name(&network.name).after(&network)).await?;
        write.commit().await?;
        Ok(network)
    }

    /// Replaces name and description.
    pub async fn update_network(&self, actor: &Actor, id: &str, change: NetworkChange) -> Result<Network> {
        let mut write = self.write(actor).await?;
        let (old_name, old_description) = row(write.db(), id).await?;
        let name = check_name(write.db(), &change.name, id).await?;
        text::description("network", &change.description)?;
        if (&name, &change.description) != (&old_name, &old_description) {
            sql::query("UPDATE networks SET name = $1, description = $2 WHERE id = $3")
                .bind(&name)
                .bind(&change.description)
                .bind(id)
                .execute(write.db())
                .await?;
            let object = |name: &str, description: &str| serde_json::json!({ "name": name, "description": description });
            let meta = Meta::name(&name)
                .before(&object(&old_name, &old_description))
                .after(&object(&name, &change.description));
            write.event(Activity::NetworkUpdate, id, meta).await?;
        }
        write.commit().await?;
        self.network(id).await
    }

    /// Deletes a network with its resources and routers; refused while a policy names one of the resources.
    pub async fn delete_network(&self, actor: &Actor, id: &str) -> Result<()> {
        let before = self.network(id).await?;
        let mut write = self.write(actor).await?;
        row(write.db(), id).await?;
        let resources: Vec<String> =
            sql::query_scalar("SELECT id FROM resources WHERE network_id = $1 ORDER BY id")
                .bind(id)
                .fetch_all(write.db())
                .await?;
        for resource in &resources {
            resources::refuse_if_linked(write.db(), "network", resource).await?;
        }
        for resource in &resources {
            let gone = resources::resource(write.db(), id, resource).await?;
            resources::ungrouped(&mut write, &gone).await?;
            let meta = Meta::name(&gone.name).with("network_name", &before.name).before(&gone);
            write.event(Activity::ResourceDelete, resource, meta).await?;
        }
        let routers: Vec<String> =
            sql::query_scalar("SELECT id FROM routers WHERE network_id = $1 ORDER BY id")
                .bind(id)
                .fetch_all(write.db())
                .await?;
        for router in &routers {
            let gone = routers::router(write.db(), id, router).await?;
            let meta = Meta::default().with("network_name", &before.name).before(&gone);
            write.event(Activity::RouterDelete, router, meta).await?;
        }
        sql::query("DELETE FROM networks WHERE id = $1").bind(id).execute(write.db()).await?;
        write.event(Activity::NetworkDelete, id, Meta::name(&before.name).before(&before)).await?;
        write.commit().await
    }
}

/// Name and description of a network, or that there is none.
pub(super) async fn row(db: &mut Connection, id: &str) -> Result<(String, String)> {
    let row = sql::query_as("SELECT name, description FROM networks WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await?;
    match row {
        Some(row) => Ok(row),
        None => not_found("network", id),
    }
}

async fn check_name(db: &mut Connection, name: &str, own: &str) -> Result<String> {
    let name = text::name("network", name)?;
    let others: i64 = sql::query_scalar("SELECT count(*) FROM networks WHERE name = $1 AND id <> $2")
        .bind(&name)
        .bind(own)
        .fetch_one(db)
        .await?;
    if others > 0 { duplicate(format!("network with name {name} already exists")) } else { Ok(name) }
}
