//! Nameserver groups: who answers which names for the peers of which groups.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::error::{corrupt, invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Store, groups, resources, text};
use crate::ids::new_id;

/// Longest name, in characters.
const NAME_MAX: usize = 40;
/// Nameservers a group may have.
const NAMESERVERS: std::ops::RangeInclusive<usize> = 1..=3;

/// A nameserver group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameserverGroup {
    /// Nameserver group id.
    pub id: String,
    /// What it says.
    #[serde(flatten)]
    pub spec: NameserverGroupSpec,
}

/// What a nameserver group says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameserverGroupSpec {
    /// Display name, unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Whether it answers every name that no other one does; then it has no domains.
    pub primary: bool,
    /// Whether its domains are searched for names without a dot.
    pub search_domains_enabled: bool,
    /// Who answers, one to three.
    pub nameservers: Vec<Nameserver>,
    /// The names it answers, with all below them, in lower case.
    pub domains: Vec<String>,
    /// Ids of the groups whose peers ask them. At least one.
    pub groups: BTreeSet<String>,
}

/// One nameserver, over UDP.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Nameserver {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
}

impl Store {
    /// Every nameserver group, by id.
    pub async fn nameserver_groups(&self) -> Result<Vec<NameserverGroup>> {
        all(&mut self.read().await?).await
    }

    /// One nameserver group.
    pub async fn nameserver_group(&self, id: &str) -> Result<NameserverGroup> {
        one(&mut self.read().await?, id).await
    }

    /// Creates a nameserver group.
    pub async fn create_nameserver_group(
        &self,
        actor: &Actor,
        spec: NameserverGroupSpec,
    ) -> Result<NameserverGroup> {
        let mut write = self.write(actor).await?;
        let id = new_id();
        put(&mut write, &id, spec).await?;
        let after = one(write.db(), &id).await?;
        write.event(Activity::NameserverGroupAdd, &id, Meta::name(&after.spec.name).after(&after)).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Replaces a nameserver group.
    pub async fn update_nameserver_group(
        &self,
        actor: &Actor,
        id: &str,
        spec: NameserverGroupSpec,
    ) -> Result<NameserverGroup> {
        let mut write = self.write(actor).await?;
        let before = one(write.db(), id).await?;
        put(&mut write, id, spec).await?;
        let after = one(write.db(), id).await?;
        if after == before {
            return Ok(before);
        }
        let meta = Meta::name(&after.spec.name).before(&before).after(&after);
        write.event(Activity::NameserverGroupUpdate, id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Deletes a nameserver group.
    pub async fn delete_nameserver_group(&self, actor: &Actor, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        let before = one(write.db(), id).await?;
        sql::query("DELETE FROM nameserver_groups WHERE id = $1").bind(id).execute(write.db()).await?;
        let meta = Meta::name(&before.spec.name).before(&before);
        write.event(Activity::NameserverGroupDelete, id, meta).await?;
        write.commit().await
    }
}

async fn put(write: &mut Write, id: &str, mut spec: NameserverGroupSpec) -> Result<()> {
    spec.name = text::name("nameserver group", &spec.name)?;
    if spec.name.chars().count() > NAME_MAX {
        return invalid(format!("nameserver group name must not be longer than {NAME_MAX} characters"));
    }
    text::description("nameserver group", &spec.description)?;
    check_names(&mut spec)?;
    if !NAMESERVERS.contains(&spec.nameservers.len()) {
        return invalid(format!("nameservers: {} is not between 1 and 3 of them", spec.nameservers.len()));
    }
    for (i, nameserver) in spec.nameservers.iter().enumerate() {
        let ip = nameserver.ip;
        if ip.is_unspecified() || ip.is_multicast() || nameserver.port == 0 {
            return invalid(format!("nameservers: {ip} port {} answers nobody", nameserver.port));
        }
        if spec.nameservers[..i].contains(nameserver) {
            return invalid(format!("nameservers: {ip} port {} is named twice", nameserver.port));
        }
    }
    if spec.groups.is_empty() {
        return invalid("groups must name at least one group: those whose peers ask these nameservers");
    }
    groups::must_exist(write.db(), &spec.groups).await?;
    let others: i64 =
        sql::query_scalar("SELECT count(*) FROM nameserver_groups WHERE name = $1 AND id <> $2")
            .bind(&spec.name)
            .bind(id)
            .fetch_one(write.db())
            .await?;
    if others > 0 {
        return invalid(format!("nameserver group with name {} already exists", spec.name));
    }

    let json = |text: serde_json::Result<String>| text.map_err(|e| corrupt("nameserver_groups")(e.into()));
    sql::query(
        "INSERT INTO nameserver_groups (id, name, description, enabled, is_primary, search_domains_enabled, nameservers,
         domains) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, description = excluded.description,
         enabled = excluded.enabled, is_primary = excluded.is_primary,
         search_domains_enabled = excluded.search_domains_enabled, nameservers = excluded.nameservers,
         domains = excluded.domains",
    )
    .bind(id)
    .bind(&spec.name)
    .bind(&spec.description)
    .bind(spec.enabled)
    .bind(spec.primary)
    .bind(spec.search_domains_enabled)
    .bind(json(serde_json::to_string(&spec.nameservers))?)
    .bind(json(serde_json::to_string(&spec.domains))?)
    .execute(write.db())
    .await?;
    sql::query("DELETE FROM nameserver_group_groups WHERE nameserver_group_id = $1")
        .bind(id)
        .execute(write.db())
        .await?;
    for group in &spec.groups {
        sql::query("INSERT INTO nameserver_group_groups (nameserver_group_id, group_id) VALUES ($1, $2)")
            .bind(id)
            .bind(group)
            .execute(write.db())
            .await?;
    }
    Ok(())
}

/// Primary means every name, and so no domains; the domains in lower case, each once.
fn check_names(spec: &mut NameserverGroupSpec) -> Result<()> {
    match (spec.primary, spec.domains.is_empty()) {
        (true, false) => {
            return invalid("primary nameserver groups answer every name: domains must be empty");
        }
        (false, true) => return invalid("either domains must be named, or primary be set"),
        (true, true) if spec.search_domains_enabled => {
            return invalid(
                "search_domains_enabled needs domains, of which primary nameserver groups have none",
            );
        }
        _ => {}
    }
    let mut seen = HashSet::new();
    for domain in &mut spec.domains {
        *domain = domain.trim().trim_end_matches('.').to_ascii_lowercase();
        // One label is a name to match, as `internal` is.
        if !resources::is_domain(&format!("{domain}.example")) || domain.is_empty() {
            return invalid(format!("domains: {domain:?} is no domain name"));
        }
    }
    spec.domains.retain(|domain| seen.insert(domain.clone()));
    Ok(())
}

/// Every nameserver group as the connection's transaction sees it, by id.
pub(super) async fn all(db: &mut Connection) -> Result<Vec<NameserverGroup>> {
    let rows: Vec<Row> =
        sql::query_as("SELECT * FROM nameserver_groups ORDER BY id").fetch_all(&mut *db).await?;
    let members: Vec<(String, String)> =
        sql::query_as("SELECT nameserver_group_id, group_id FROM nameserver_group_groups")
            .fetch_all(db)
            .await?;
    let mut groups = BTreeMap::<String, BTreeSet<String>>::new();
    for (id, group) in members {
        groups.entry(id).or_default().insert(group);
    }
    rows.into_iter()
        .map(|row| {
            let groups = groups.remove(&row.id).unwrap_or_default();
            row.group(groups)
        })
        .collect()
}

async fn one(db: &mut Connection, id: &str) -> Result<NameserverGroup> {
    match find(db, id).await? {
        Some(group) => Ok(group),
        None => not_found("nameserver group", id),
    }
}

/// One nameserver group, if it is there.
pub(super) async fn find(db: &mut Connection, id: &str) -> Result<Option<NameserverGroup>> {
    let row: Option<Row> = sql::query_as("SELECT * FROM nameserver_groups WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let groups: Vec<String> =
        sql::query_scalar("SELECT group_id FROM nameserver_group_groups WHERE nameserver_group_id = $1")
            .bind(id)
            .fetch_all(db)
            .await?;
    Ok(Some(row.group(groups.into_iter().collect())?))
}

#[derive(FromRow)]
struct Row {
    id: String,
    name: String,
    description: String,
    enabled: bool,
    is_primary: bool,
    search_domains_enabled: bool,
    nameservers: String,
    domains: String,
}

impl Row {
    fn group(self, groups: BTreeSet<String>) -> Result<NameserverGroup> {
        let wrong = |column| move |error: serde_json::Error| corrupt(column)(error.into());
        Ok(NameserverGroup {
            id: self.id,
            spec: NameserverGroupSpec {
                name: self.name,
                description: self.description,
                enabled: self.enabled,
                primary: self.is_primary,
                search_domains_enabled: self.search_domains_enabled,
                nameservers: serde_json::from_str(&self.nameservers)
                    .map_err(wrong("nameserver_groups.nameservers"))?,
                domains: serde_json::from_str(&self.domains).map_err(wrong("nameserver_groups.domains"))?,
                groups,
            },
        })
    }
}
