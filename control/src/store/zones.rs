//! DNS zones: names that control answers, for the peers of some groups.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;

use super::account::account;
use super::error::{corrupt, duplicate, invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, Result, Store, groups, resources, text};
use crate::ids::new_id;

/// Longest content of a record, in characters.
const CONTENT_MAX: usize = 255;

/// A zone with its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Zone {
    /// Zone id.
    pub id: String,
    /// What it says.
    #[serde(flatten)]
    pub spec: ZoneSpec,
    /// Its records, by id.
    pub records: Vec<DnsRecord>,
}

/// What a zone says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ZoneSpec {
    /// Display name.
    pub name: String,
    /// The domain, unique, in lower case; it stays what it was made with.
    pub domain: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Whether it is searched for names without a dot.
    pub enable_search_domain: bool,
    /// Ids of the groups whose peers get it. At least one.
    pub distribution_groups: BTreeSet<String>,
}

/// A record of a zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DnsRecord {
    /// Record id.
    pub id: String,
    /// What it says.
    #[serde(flatten)]
    pub spec: RecordSpec,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordSpec {
    /// The whole name, in lower case: the zone's domain or one below it.
    pub name: String,
    /// Its type.
    pub kind: RecordKind,
    /// An address, or for a CNAME a name.
    pub content: String,
    /// Seconds.
    pub ttl: i64,
}

/// Types of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(as = DNSRecordType)]
pub enum RecordKind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Another name.
    Cname,
}

impl RecordKind {
    /// Its name in the store and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            RecordKind::A => "A",
            RecordKind::Aaaa => "AAAA",
            RecordKind::Cname => "CNAME",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [RecordKind::A, RecordKind::Aaaa, RecordKind::Cname].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl Store {
    /// Every zone, by id.
    pub async fn zones(&self) -> Result<Vec<Zone>> {
        all(&mut self.read().await?).await
    }

    /// One zone.
    pub async fn zone(&self, id: &str) -> Result<Zone> {
        zone(&mut self.read().await?, id).await
    }

    /// Creates a zone without records.
    pub async fn create_zone(&self, actor: &Actor, spec: ZoneSpec) -> Result<Zone> {
        let mut write = self.write(actor).await?;
        let id = new_id();
        put_zone(&mut write, &id, spec, None).await?;
        let after = zone(write.db(), &id).await?;
        write.event(Activity::ZoneCreate, &id, Meta::name(&after.spec.name).after(&after)).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Replaces what a zone says; its records stay.
    pub async fn update_zone(&self, actor: &Actor, id: &str, spec: ZoneSpec) -> Result<Zone> {
        let mut write = self.write(actor).await?;
        let before = zone(write.db(), id).await?;
        put_zone(&mut write, id, spec, Some(&before.spec.domain)).await?;
        let after = zone(write.db(), id).await?;
        if after == before {
            return Ok(before);
        }
        let meta = Meta::name(&after.spec.name).before(&before).after(&after);
        write.event(Activity::ZoneUpdate, id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Deletes a zone with its records.
    pub async fn delete_zone(&self, actor: &Actor, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        let before = zone(write.db(), id).await?;
        for record in &before.records {
            let meta = Meta::name(&record.spec.name).with("zone_name", &before.spec.name).before(record);
            write.event(Activity::RecordDelete, &record.id, meta).await?;
        }
        sql::query("DELETE FROM zones WHERE id = $1").bind(id).execute(write.db()).await?;
        write.event(Activity::ZoneDelete, id, Meta::name(&before.spec.name).before(&before)).await?;
        write.commit().await
    }

    /// One record of a zone.
    pub async fn record(&self, zone_id: &str, id: &str) -> Result<DnsRecord> {
        record(self.zone(zone_id).await?, id)
    }

    /// Creates a record.
    pub async fn create_record(&self, actor: &Actor, zone_id: &str, spec: RecordSpec) -> Result<DnsRecord> {
        let mut write = self.write(actor).await?;
        let zone = zone(write.db(), zone_id).await?;
        let id = new_id();
        let after = put_record(&mut write, &zone, &id, spec).await?;
        let meta = Meta::name(&after.spec.name).with("zone_name", &zone.spec.name).after(&after);
        write.event(Activity::RecordCreate, &id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Replaces a record.
    pub async fn update_record(
        &self,
        actor: &Actor,
        zone_id: &str,
        id: &str,
        spec: RecordSpec,
    ) -> Result<DnsRecord> {
        let mut write = self.write(actor).await?;
        let zone = zone(write.db(), zone_id).await?;
        let before = record(zone.clone(), id)?;
        let after = put_record(&mut write, &zone, id, spec).await?;
        if after == before {
            return Ok(before);
        }
        let meta =
            Meta::name(&after.spec.name).with("zone_name", &zone.spec.name).before(&before).after(&after);
        write.event(Activity::RecordUpdate, id, meta).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Deletes a record.
    pub async fn delete_record(&self, actor: &Actor, zone_id: &str, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        let zone = zone(write.db(), zone_id).await?;
        let name = zone.spec.name.clone();
        let before = record(zone, id)?;
        sql::query("DELETE FROM records WHERE id = $1").bind(id).execute(write.db()).await?;
        let meta = Meta::name(&before.spec.name).with("zone_name", name).before(&before);
        write.event(Activity::RecordDelete, id, meta).await?;
        write.commit().await
    }
}

async fn put_zone(write: &mut Write, id: &str, mut spec: ZoneSpec, domain: Option<&str>) -> Result<()> {
    spec.name = text::name("zone", &spec.name)?;
    spec.domain = fqdn("domain", &spec.domain)?;
    if domain.is_some_and(|before| before != spec.domain) {
        return invalid("domain: a zone keeps its domain; make another zone");
    }
    let peers = account(write.db()).await?.settings.dns_domain().to_ascii_lowercase();
    if spec.domain == peers {
        return invalid(format!("domain: {peers} is the zone of the peers' own names"));
    }
    if spec.distribution_groups.is_empty() {
        return invalid("distribution_groups must name at least one group: those whose peers get the zone");
    }
    groups::must_exist(write.db(), &spec.distribution_groups).await?;
    let others: i64 = sql::query_scalar("SELECT count(*) FROM zones WHERE domain = $1 AND id <> $2")
        .bind(&spec.domain)
        .bind(id)
        .fetch_one(write.db())
        .await?;
    if others > 0 {
        return duplicate(format!("zone with domain {} already exists", spec.domain));
    }
    sql::query(
        "INSERT INTO zones (id, name, domain, enabled, enable_search_domain) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, enabled = excluded.enabled,
         enable_search_domain = excluded.enable_search_domain",
    )
    .bind(id)
    .bind(&spec.name)
    .bind(&spec.domain)
    .bind(spec.enabled)
    .bind(spec.enable_search_domain)
    .execute(write.db())
    .await?;
    sql::query("DELETE FROM zone_groups WHERE zone_id = $1").bind(id).execute(write.db()).await?;
    for group in &spec.distribution_groups {
        sql::query("INSERT INTO zone_groups (zone_id, group_id) VALUES ($1, $2)")
            .bind(id)
            .bind(group)
            .execute(write.db())
            .await?;
    }
    Ok(())
}

async fn put_record(write: &mut Write, zone: &Zone, id: &str, mut spec: RecordSpec) -> Result<DnsRecord> {
    spec.name = fqdn("name", &spec.name)?;
    let domain = &zone.spec.domain;
    if spec.name != *domain && !spec.name.ends_with(&format!(".{domain}")) {
        return invalid(format!("name: {} is not in the zone {domain}", spec.name));
    }
    check_content(&mut spec)?;
    if spec.ttl < 0 || spec.ttl > i64::from(i32::MAX) {
        return invalid(format!("ttl: {} is not between 0 and 2147483647 (RFC 2181, section 8)", spec.ttl));
    }
    let of_name = zone.records.iter().filter(|other| other.id != id && other.spec.name == spec.name);
    for other in of_name {
        if (other.spec.kind, &other.spec.content) == (spec.kind, &spec.content) {
            return duplicate(format!("zone {domain} has this record already"));
        }
        // RFC 1034, section 3.6.2.
        if other.spec.kind == RecordKind::Cname || spec.kind == RecordKind::Cname {
            return duplicate(format!("{} has a record already, beside which no CNAME can be", spec.name));
        }
    }
    sql::query(
        "INSERT INTO records (id, zone_id, name, kind, content, ttl) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, kind = excluded.kind, content = excluded.content,
         ttl = excluded.ttl",
    )
    .bind(id)
    .bind(&zone.id)
    .bind(&spec.name)
    .bind(spec.kind.as_str())
    .bind(&spec.content)
    .bind(spec.ttl)
    .execute(write.db())
    .await?;
    Ok(DnsRecord { id: id.to_owned(), spec })
}

/// The content as its type writes it.
fn check_content(spec: &mut RecordSpec) -> Result<()> {
    let text = spec.content.trim();
    if text.chars().count() > CONTENT_MAX {
        return invalid(format!("content must not be longer than {CONTENT_MAX} characters"));
    }
    let content = match spec.kind {
        RecordKind::A => text.parse::<Ipv4Addr>().map(|ip| ip.to_string()).ok(),
        RecordKind::Aaaa => text.parse::<Ipv6Addr>().map(|ip| ip.to_string()).ok(),
        RecordKind::Cname => fqdn("content", text).ok(),
    };
    match content {
        Some(content) => {
            spec.content = content;
            Ok(())
        }
        None => {
            let wanted = match spec.kind {
                RecordKind::A => "IPv4 address",
                RecordKind::Aaaa => "IPv6 address",
                RecordKind::Cname => "domain name",
            };
            invalid(format!(
                "content: {text:?} is no {wanted}, which a record of type {} has",
                spec.kind.as_str()
            ))
        }
    }
}

/// A whole name, in lower case and without the root's dot.
fn fqdn(field: &str, text: &str) -> Result<String> {
    let name = text.trim().trim_end_matches('.').to_ascii_lowercase();
    match resources::is_domain(&name) {
        true => Ok(name),
        false => invalid(format!("{field}: {text:?} is no domain name")),
    }
}

fn record(zone: Zone, id: &str) -> Result<DnsRecord> {
    match zone.records.into_iter().find(|record| record.id == id) {
        Some(record) => Ok(record),
        None => not_found("record", id),
    }
}

/// Refuses a domain for the peers' own names that is a zone's.
pub(super) async fn must_not_be(db: &mut Connection, domain: &str) -> Result<()> {
    let domain = domain.to_ascii_lowercase();
    let zones: i64 =
        sql::query_scalar("SELECT count(*) FROM zones WHERE domain = $1").bind(&domain).fetch_one(db).await?;
    if zones > 0 {
        return invalid(format!(
            "dns_domain: {domain} is a zone already, whose names are not those of peers"
        ));
    }
    Ok(())
}

/// Every zone as the connection's transaction sees it, by id.
pub(super) async fn all(db: &mut Connection) -> Result<Vec<Zone>> {
    let rows: Vec<ZoneRow> = sql::query_as("SELECT * FROM zones ORDER BY id").fetch_all(&mut *db).await?;
    let members: Vec<(String, String)> =
        sql::query_as("SELECT zone_id, group_id FROM zone_groups").fetch_all(&mut *db).await?;
    let records: Vec<RecordRow> = sql::query_as("SELECT * FROM records ORDER BY id").fetch_all(db).await?;
    let mut parts = BTreeMap::<String, (BTreeSet<String>, Vec<DnsRecord>)>::new();
    for (zone, group) in members {
        parts.entry(zone).or_default().0.insert(group);
    }
    for row in records {
        let (zone, record) = row.record()?;
        parts.entry(zone).or_default().1.push(record);
    }
    let zone = |row: ZoneRow| {
        let (groups, records) = parts.remove(&row.id).unwrap_or_default();
        row.zone(groups, records)
    };
    Ok(rows.into_iter().map(zone).collect())
}

async fn zone(db: &mut Connection, id: &str) -> Result<Zone> {
    match find(db, id).await? {
        Some(zone) => Ok(zone),
        None => not_found("zone", id),
    }
}

/// One zone, if it is there.
pub(super) async fn find(db: &mut Connection, id: &str) -> Result<Option<Zone>> {
    let row: Option<ZoneRow> =
        sql::query_as("SELECT * FROM zones WHERE id = $1").bind(id).fetch_optional(&mut *db).await?;
    let Some(row) = row else { return Ok(None) };
    let groups: Vec<String> = sql::query_scalar("SELECT group_id FROM zone_groups WHERE zone_id = $1")
        .bind(id)
        .fetch_all(&mut *db)
        .await?;
    let records: Vec<RecordRow> =
        sql::query_as("SELECT * FROM records WHERE zone_id = $1 ORDER BY id").bind(id).fetch_all(db).await?;
    let records = records.into_iter().map(|row| Ok(row.record()?.1)).collect::<Result<_>>()?;
    Ok(Some(row.zone(groups.into_iter().collect(), records)))
}

#[derive(FromRow)]
struct ZoneRow {
    id: String,
    name: String,
    domain: String,
    enabled: bool,
    enable_search_domain: bool,
}

impl ZoneRow {
    fn zone(self, groups: BTreeSet<String>, records: Vec<DnsRecord>) -> Zone {
        Zone {
            id: self.id,
            spec: ZoneSpec {
                name: self.name,
                domain: self.domain,
                enabled: self.enabled,
                enable_search_domain: self.enable_search_domain,
                distribution_groups: groups,
            },
            records,
        }
    }
}

#[derive(FromRow)]
struct RecordRow {
    id: String,
    zone_id: String,
    name: String,
    kind: String,
    content: String,
    ttl: i64,
}

impl RecordRow {
    fn record(self) -> Result<(String, DnsRecord)> {
        let unknown = || corrupt("records.kind")(format!("{:?} is unknown", self.kind).into());
        let kind = RecordKind::parse(&self.kind).ok_or_else(unknown)?;
        let spec = RecordSpec { name: self.name, kind, content: self.content, ttl: self.ttl };
        Ok((self.zone_id, DnsRecord { id: self.id, spec }))
    }
}
