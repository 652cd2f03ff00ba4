//! Groups of peers and resources.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;

use super::account::account;
use super::error::{duplicate, invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, ResourceKind, Result, Store, StoreError, text};
use crate::ids::new_id;

/// The setting whose links NetBird names before all but those of resources.
const TRAFFIC_SETTING: &str = "network_traffic_logs_groups";
/// Name of the group that holds every peer.
const ALL: &str = "All";

/// An id with the name a person knows.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, Serialize)]
pub struct NamedRef {
    /// Object id.
    pub id: String,
    /// Display name.
    pub name: String,
}

/// A resource as a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResourceRef {
    /// Resource id.
    pub id: String,
    /// What its address is.
    pub kind: ResourceKind,
}

/// Where a group came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = GroupIssued)]
pub enum Issued {
    /// An operator or a program by the REST API.
    Api,
    /// An integration.
    Integration,
    /// A claim in a user's token.
    Jwt,
}

impl Issued {
    fn parse(text: &str) -> Self {
        match text {
            "integration" => Issued::Integration,
            "jwt" => Issued::Jwt,
            _ => Issued::Api,
        }
    }
}

/// A group with its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Group id.
    pub id: String,
    /// Display name, unique.
    pub name: String,
    /// Where it came from.
    pub issued: Issued,
    /// Whether this is `All`.
    pub built_in: bool,
    /// Its peers, by id.
    pub peers: Vec<NamedRef>,
    /// Its resources, by id.
    pub resources: Vec<ResourceRef>,
}

/// A group with the number of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCount {
    /// Group id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Where it came from.
    pub issued: Issued,
    /// How many peers it has.
    pub peers: usize,
    /// How many resources it has.
    pub resources: usize,
}

/// What a group is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// Display name.
    pub name: String,
    /// Peer ids.
    pub peers: Vec<String>,
    /// Resource ids.
    pub resources: Vec<String>,
}

type CountRow = (String, String, String, i64, i64);

fn counted((id, name, issued, peers, resources): CountRow) -> GroupCount {
    let count = |count: i64| usize::try_from(count).unwrap_or_default();
    GroupCount { id, name, issued: Issued::parse(&issued), peers: count(peers), resources: count(resources) }
}

impl Store {
    /// Every group, by id.
    pub async fn groups(&self) -> Result<Vec<Group>> {
        let mut tx = self.read().await?;
        let rows: Vec<Row> = sql::query_as("SELECT id, name, issued, built_in FROM groups ORDER BY id")
            .fetch_all(&mut tx)
            .await?;
        let peers: Vec<(String, String, String)> = sql::query_as(
            "SELECT m.group_id, p.id, p.name FROM group_peers m JOIN peers p ON p.id = m.peer_id ORDER BY p.id",
        )
        .fetch_all(&mut tx)
        .await?;
        let resources: Vec<(String, String, String)> = sql::query_as(
            "SELECT m.group_id, r.id, r.kind FROM group_resources m JOIN resources r ON r.id = m.resource_id
             ORDER BY r.id",
        )
        .fetch_all(&mut tx)
        .await?;

        let mut members = HashMap::<String, (Vec<NamedRef>, Vec<ResourceRef>)>::new();
        for (group, id, name) in peers {
            members.entry(group).or_default().0.push(NamedRef { id, name });
        }
        for (group, id, kind) in resources {
            members.entry(group).or_default().1.push(ResourceRef { id, kind: ResourceKind::parse(&kind) });
        }
        Ok(rows
            .into_iter()
            .map(|row| {
                let (peers, resources) = members.remove(&row.id).unwrap_or_default();
                row.group(peers, resources)
            })
            .collect())
    }

    /// Every group with the number of its members.
    pub async fn group_counts(&self) -> Result<Vec<GroupCount>> {
        let rows: Vec<CountRow> = sql::query_as(
            "SELECT g.id, g.name, g.issued, (SELECT count(*) FROM group_peers m WHERE m.group_id = g.id),
             (SELECT count(*) FROM group_resources m WHERE m.group_id = g.id) FROM groups g ORDER BY g.id",
        )
        .fetch_all(&mut self.reader().await?)
        .await?;
        Ok(rows.into_iter().map(counted).collect())
    }

    /// The same of some groups; what is unknown is left out. Of a few it costs no more than their members.
    pub async fn group_counts_of(&self, ids: &BTreeSet<&str>) -> Result<Vec<GroupCount>> {
        let (mut db, mut found) = (self.read().await?, Vec::new());
        for id in ids {
            let row: Option<CountRow> = sql::query_as(
                "SELECT g.id, g.name, g.issued, (SELECT count(*) FROM group_peers m WHERE m.group_id = g.id),
                 (SELECT count(*) FROM group_resources m WHERE m.group_id = g.id) FROM groups g WHERE g.id = $1",
            )
            .bind(*id)
            .fetch_optional(&mut db)
            .await?;
            found.extend(row.map(counted));
        }
        Ok(found)
    }

    /// One group.
    pub async fn group(&self, id: &str) -> Result<Group> {
        let mut tx = self.read().await?;
        group(&mut tx, id).await
    }

    /// Creates a group.
    pub async fn create_group(&self, actor: &Actor, change: GroupChange) -> Result<Group> {
        let mut write = self.write(actor).await?;
        let name = check_name(write.db(), &change.name, None).await?;
        let id = new_id();
        sql::query("INSERT INTO groups (id, name, issued) VALUES ($1, $2, 'api')")
            .bind(&id)
            .bind(&name)
            .execute(write.db())
            .await?;
        set_members(write.db(), &id, &change).await?;
        let after = group(write.db(), &id).await?;
        write.event(Activity::GroupAdd, &id, Meta::name(&name).after(&after)).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Replaces name and members.
    pub async fn update_group(&self, actor: &Actor, id: &str, change: GroupChange) -> Result<Group> {
        let mut write = self.write(actor).await?;
        let before = group(write.db(), id).await?;
        if before.built_in {
            return invalid("group All cannot be changed: it holds every peer by itself");
        }
        let name = check_name(write.db(), &change.name, Some(id)).await?;
        sql::query("UPDATE groups SET name = $1 WHERE id = $2")
            .bind(&name)
            .bind(id)
            .execute(write.db())
            .await?;
        set_members(write.db(), id, &change).await?;
        let after = group(write.db(), id).await?;
        if after == before {
            // Nothing to keep: the transaction is dropped.
            return Ok(before);
        }
        write.event(Activity::GroupUpdate, id, Meta::name(&name).before(&before).after(&after)).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Deletes a group; refused while anything refers to it.
    pub async fn delete_group(&self, actor: &Actor, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        let before = group(write.db(), id).await?;
        if before.built_in {
            return invalid("group All cannot be deleted");
        }
        if let Some((link, name)) = link(write.db(), id).await? {
            return Err(StoreError::InUse { kind: "group", link, name });
        }
        sql::query("DELETE FROM groups WHERE id = $1").bind(id).execute(write.db()).await?;
        write.event(Activity::GroupDelete, id, Meta::name(&before.name).before(&before)).await?;
        write.commit().await
    }
}

/// Makes a group that an identity provider's token names; its id.
pub(super) async fn issue(write: &mut Write, name: &str) -> Result<String> {
    let id = new_id();
    sql::query("INSERT INTO groups (id, name, issued, built_in) VALUES ($1, $2, 'jwt', FALSE)")
        .bind(&id)
        .bind(name)
        .execute(write.db())
        .await?;
    let after = group(write.db(), &id).await?;
    write.event(Activity::GroupAdd, &id, Meta::name(name).after(&after)).await?;
    Ok(id)
}

/// The display name of a group.
pub(super) async fn name(db: &mut Connection, id: &str) -> Result<String> {
    let name = sql::query_scalar("SELECT name FROM groups WHERE id = $1").bind(id).fetch_optional(db).await?;
    match name {
        Some(name) => Ok(name),
        None => not_found("group", id),
    }
}

/// Id of the group `All`.
pub(super) async fn all_id(db: &mut Connection) -> Result<String> {
    sql::query_scalar("SELECT id FROM groups WHERE built_in").fetch_one(db).await
}

/// Refuses ids that name no group.
pub(super) async fn must_exist(db: &mut Connection, ids: impl IntoIterator<Item = &String>) -> Result<()> {
    for id in ids {
        let found: i64 = sql::query_scalar("SELECT count(*) FROM groups WHERE id = $1")
            .bind(id)
            .fetch_one(&mut *db)
            .await?;
        if found == 0 {
            return invalid(format!("group {id} does not exist"));
        }
    }
    Ok(())
}

/// Refuses ids that name no group, and `All`, which nobody is put into; the ids without repetition.
pub(super) async fn assignable(db: &mut Connection, what: &str, ids: &[String]) -> Result<BTreeSet<String>> {
    let ids: BTreeSet<String> = ids.iter().cloned().collect();
    must_exist(db, &ids).await?;
    if ids.contains(&all_id(db).await?) {
        return invalid(format!("{what}: group All holds every peer by itself and cannot be named here"));
    }
    Ok(ids)
}

async fn group(db: &mut Connection, id: &str) -> Result<Group> {
    let row: Option<Row> = sql::query_as("SELECT id, name, issued, built_in FROM groups WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return not_found("group", id) };
    let peers = sql::query_as(
        "SELECT p.id, p.name FROM group_peers m JOIN peers p ON p.id = m.peer_id WHERE m.group_id = $1 ORDER BY p.id",
    )
    .bind(id)
    .fetch_all(&mut *db)
    .await?;
    let resources: Vec<(String, String)> = sql::query_as(
        "SELECT r.id, r.kind FROM group_resources m JOIN resources r ON r.id = m.resource_id
         WHERE m.group_id = $1 ORDER BY r.id",
    )
    .bind(id)
    .fetch_all(db)
    .await?;
    let resources = resources
        .into_iter()
        .map(|(id, kind)| ResourceRef { id, kind: ResourceKind::parse(&kind) })
        .collect();
    Ok(row.group(peers, resources))
}

async fn check_name(db: &mut Connection, name: &str, own: Option<&str>) -> Result<String> {
    let name = text::group_name(name)?;
    let others: i64 = sql::query_scalar("SELECT count(*) FROM groups WHERE name = $1 AND id <> $2")
        .bind(&name)
        .bind(own.unwrap_or_default())
        .fetch_one(db)
        .await?;
    if others > 0 || (name == ALL && own.is_some()) {
        return duplicate(format!("group with name {name} already exists"));
    }
    Ok(name)
}

/// Makes these the members. Only who enters or leaves is written: most changes of a group are of one member.
async fn set_members(db: &mut Connection, group: &str, change: &GroupChange) -> Result<()> {
    let known = sql::query_scalar("SELECT peer_id FROM group_peers WHERE group_id = $1");
    let before: BTreeSet<String> = known.bind(group).fetch_all(&mut *db).await?.into_iter().collect();
    let after: BTreeSet<String> = change.peers.iter().cloned().collect();
    for peer in after.difference(&before) {
        let added =
            sql::query("INSERT INTO group_peers (group_id, peer_id) SELECT $1, id FROM peers WHERE id = $2")
                .bind(group)
                .bind(peer)
                .execute(&mut *db)
                .await?;
        if added.rows_affected() == 0 {
            return invalid(format!("peer {peer} does not exist"));
        }
    }
    for peer in before.difference(&after) {
        sql::query("DELETE FROM group_peers WHERE group_id = $1 AND peer_id = $2")
            .bind(group)
            .bind(peer)
            .execute(&mut *db)
            .await?;
    }
    let known = sql::query_scalar("SELECT resource_id FROM group_resources WHERE group_id = $1");
    let before: BTreeSet<String> = known.bind(group).fetch_all(&mut *db).await?.into_iter().collect();
    let after: BTreeSet<String> = change.resources.iter().cloned().collect();
    for resource in after.difference(&before) {
        let added = sql::query(
            "INSERT INTO group_resources (group_id, resource_id) SELECT $1, id FROM resources WHERE id = $2",
        )
        .bind(group)
        .bind(resource)
        .execute(&mut *db)
        .await?;
        if added.rows_affected() == 0 {
            return invalid(format!("resource {resource} does not exist"));
        }
    }
    for resource in before.difference(&after) {
        sql::query("DELETE FROM group_resources WHERE group_id = $1 AND resource_id = $2")
            .bind(group)
            .bind(resource)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// The first object that refers to a group: its kind and name.
async fn link(db: &mut Connection, id: &str) -> Result<Option<(&'static str, String)>> {
    // In NetBird's order; what it does not know comes last.
    const RESOURCE: [(&str, &str); 1] = [(
        "network resource",
        "SELECT r.name FROM group_resources m JOIN resources r ON r.id = m.resource_id WHERE m.group_id = $1
         ORDER BY r.id LIMIT 1",
    )];
    const LINKS: [(&str, &str); 8] = [
        (
            "route",
            "SELECT r.network_id FROM route_groups m JOIN routes r ON r.id = m.route_id WHERE m.group_id = $1
             ORDER BY r.id LIMIT 1",
        ),
        (
            "name server groups",
            "SELECT n.name FROM nameserver_group_groups m JOIN nameserver_groups n ON n.id = m.nameserver_group_id
             WHERE m.group_id = $1 ORDER BY n.id LIMIT 1",
        ),
        (
            "policy",
            "SELECT p.name FROM rule_groups m JOIN rules r ON r.id = m.rule_id JOIN policies p ON p.id = r.policy_id
             WHERE m.group_id = $1 LIMIT 1",
        ),
        (
            "setup key",
            "SELECT k.name FROM setup_key_groups m JOIN setup_keys k ON k.id = m.setup_key_id WHERE m.group_id = $1 LIMIT 1",
        ),
        (
            "user",
            "SELECT u.name FROM user_groups m JOIN users u ON u.id = m.user_id WHERE m.group_id = $1 LIMIT 1",
        ),
        (
            "network router",
            "SELECT n.name FROM router_groups m JOIN routers r ON r.id = m.router_id
             JOIN networks n ON n.id = r.network_id WHERE m.group_id = $1 LIMIT 1",
        ),
        (
            "DNS zone",
            "SELECT z.name FROM zone_groups m JOIN zones z ON z.id = m.zone_id WHERE m.group_id = $1
             ORDER BY z.id LIMIT 1",
        ),
        (
            "disabled DNS management groups",
            "SELECT g.name FROM dns_disabled_groups m JOIN groups g ON g.id = m.group_id WHERE m.group_id = $1",
        ),
    ];
    let settings = account(db).await?.settings;
    let setting = |of_traffic: bool| {
        let mut links = settings.group_links().filter(|(_, group)| *group == id);
        let found = links.find(|(setting, _)| (*setting == TRAFFIC_SETTING) == of_traffic);
        found.map(|(setting, _)| ("account setting", setting.to_owned()))
    };
    if let Some(link) = first_link(db, &RESOURCE, id).await? {
        return Ok(Some(link));
    }
    if let Some(link) = setting(true) {
        return Ok(Some(link));
    }
    if let Some(link) = first_link(db, &LINKS, id).await? {
        return Ok(Some(link));
    }
    Ok(setting(false))
}

async fn first_link(
    db: &mut Connection,
    links: &[(&'static str, &'static str)],
    id: &str,
) -> Result<Option<(&'static str, String)>> {
    for &(kind, query) in links {
        let name: Option<String> = sql::query_scalar(query).bind(id).fetch_optional(&mut *db).await?;
        if let Some(name) = name {
            return Ok(Some((kind, name)));
        }
    }
    Ok(None)
}

#[derive(FromRow)]
struct Row {
    id: String,
    name: String,
    issued: String,
    built_in: bool,
}

impl Row {
    fn group(self, peers: Vec<NamedRef>, resources: Vec<ResourceRef>) -> Group {
        Group {
            id: self.id,
            name: self.name,
            issued: Issued::parse(&self.issued),
            built_in: self.built_in,
            peers,
            resources,
        }
    }
}
