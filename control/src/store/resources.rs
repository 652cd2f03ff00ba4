//! Network resources: destinations behind routers.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;

use super::error::{invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, NamedRef, Result, Store, StoreError, groups, learned, networks, text};
use crate::ids::new_id;

/// What a resource's address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = NetworkResourceType)]
pub enum ResourceKind {
    /// One address.
    Host,
    /// A prefix.
    Subnet,
    /// A name, or every name below one.
    Domain,
}

impl ResourceKind {
    /// Its name in the store and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            ResourceKind::Host => "host",
            ResourceKind::Subnet => "subnet",
            ResourceKind::Domain => "domain",
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        match text {
            "host" => ResourceKind::Host,
            "subnet" => ResourceKind::Subnet,
            _ => ResourceKind::Domain,
        }
    }
}

/// The address of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host (/32 or /128) or a prefix; it keeps the host bits it was written with.
    Prefix(IpNet),
    /// `example.org` or `*.example.org`, in lower case.
    Domain(String),
}

/// Why a text is no address of a resource.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no IP address, prefix or domain name")]
pub struct AddressError(String);

impl Address {
    /// Host, subnet or domain. An IPv6 /32 is a subnet, whatever other implementations say.
    pub fn kind(&self) -> ResourceKind {
        match self {
            Address::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => ResourceKind::Host,
            Address::Prefix(_) => ResourceKind::Subnet,
            Address::Domain(_) => ResourceKind::Domain,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Address::Prefix(address.into()));
        }
        if let Ok(prefix) = text.parse::<IpNet>() {
            return Ok(Address::Prefix(prefix));
        }
        let domain = text.to_ascii_lowercase();
        if is_domain(domain.strip_prefix("*.").unwrap_or(&domain)) {
            return Ok(Address::Domain(domain));
        }
        Err(AddressError(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Prefix(prefix) => prefix.fmt(f),
            Address::Domain(domain) => domain.fmt(f),
        }
    }
}

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// Resource id.
    pub id: String,
    /// The network it belongs to.
    pub network_id: String,
    /// Display name, unique in the account.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Address, prefix or domain.
    pub address: String,
    /// Which of them.
    pub kind: ResourceKind,
    /// Whether it counts.
    pub enabled: bool,
    /// The groups it is in, by name.
    pub groups: Vec<NamedRef>,
    /// What routers have found a domain to stand for. Not a part of what clients change.
    #[serde(skip)]
    pub addresses: Vec<IpAddr>,
}

/// What a resource is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceChange {
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Address, prefix or domain.
    pub address: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Group ids.
    pub groups: Vec<String>,
}

impl Store {
    /// Every resource of a network, by id.
    pub async fn resources(&self, network: &str) -> Result<Vec<Resource>> {
        let mut tx = self.read().await?;
        networks::row(&mut tx, network).await?;
        let rows: Vec<Row> = sql::query_as("SELECT * FROM resources WHERE network_id = $1 ORDER BY id")
            .bind(network)
            .fetch_all(&mut tx)
            .await?;
        let memberships: Vec<(String, String, String)> = sql::query_as(
            "SELECT m.resource_id, g.id, g.name FROM resources r JOIN group_resources m ON m.resource_id = r.id
             JOIN groups g ON g.id = m.group_id WHERE r.network_id = $1 ORDER BY g.name",
        )
        .bind(network)
        .fetch_all(&mut tx)
        .await?;
        let mut groups = HashMap::<String, Vec<NamedRef>>::new();
        for (resource, id, name) in memberships {
            groups.entry(resource).or_default().push(NamedRef { id, name });
        }
        let mut learned = learned::of_resources(&mut tx, Some(network)).await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let groups = groups.remove(&row.id).unwrap_or_default();
                let addresses = learned.remove(&row.id).unwrap_or_default();
                row.resource(groups, addresses)
            })
            .collect())
    }

    /// One resource of a network.
    pub async fn resource(&self, network: &str, id: &str) -> Result<Resource> {
        let mut tx = self.read().await?;
        networks::row(&mut tx, network).await?;
        resource(&mut tx, network, id).await
    }

    /// What each resource's address is, by resource id.
    pub async fn resource_kinds(&self) -> Result<HashMap<String, ResourceKind>> {
        let rows: Vec<(String, String)> =
            sql::query_as("SELECT id, kind FROM resources").fetch_all(&mut self.reader().await?).await?;
        Ok(rows.into_iter().map(|(id, kind)| (id, ResourceKind::parse(&kind))).collect())
    }

    /// What one resource's address is, if there is such a resource.
    pub async fn resource_kind(&self, id: &str) -> Result<Option<ResourceKind>> {
        let kind: Option<String> = sql::query_scalar("SELECT kind FROM resources WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut self.reader().await?)
            .await?;
        Ok(kind.map(|kind| ResourceKind::parse(&kind)))
    }

    /// Creates a resource.
    pub async fn create_resource(
        &self,
        actor: &Actor,
        network: &str,
        change: ResourceChange,
    ) -> Result<Resource> {
        let mut write = self.write(actor).await?;
        let (network_name, _) = networks::row(write.db(), network).await?;
        let id = new_id();
        put(&mut write, network, &id, change).await?;
        let after = resource(write.db(), network, &id).await?;
        let meta = Meta::name(&after.name).with("network_name", network_name).after(&after);
        write.event(Activity::ResourceCreate, &id, meta).await?;
        regrouped(&mut write, &Resource { groups: Vec::new(), ..after.clone() }, &after).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Replaces a resource.
    pub async fn update_resource(
        &self,
        actor: &Actor,
        network: &str,
        id: &str,
        change: ResourceChange,
    ) -> Result<Resource> {
        let mut write = self.write(actor).await?;
        let (network_name, _) = networks::row(write.db(), network).await?;
        let before = resource(write.db(), network, id).await?;
        put(&mut write, network, id, change).await?;
        if !resource(write.db(), network, id).await?.address.eq_ignore_ascii_case(&before.address) {
            learned::forget(write.db(), id).await?;
        }
        let after = resource(write.db(), network, id).await?;
        if after == before {
            return Ok(before);
        }
        let meta = Meta::name(&after.name).with("network_name", network_name).before(&before).after(&after);
        write.event(Activity::ResourceUpdate, id, meta).await?;
        regrouped(&mut write, &before, &after).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Deletes a resource; refused while a policy names it.
    pub async fn delete_resource(&self, actor: &Actor, network: &str, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        let (network_name, _) = networks::row(write.db(), network).await?;
        let before = resource(write.db(), network, id).await?;
        refuse_if_linked(write.db(), "network resource", id).await?;
        sql::query("DELETE FROM resources WHERE id = $1").bind(id).execute(write.db()).await?;
        ungrouped(&mut write, &before).await?;
        let meta = Meta::name(&before.name).with("network_name", network_name).before(&before);
        write.event(Activity::ResourceDelete, id, meta).await?;
        write.commit().await
    }
}

/// An event for each group that a resource has left or entered, by a change of the resource. It is about the group, as NetBird's is.
async fn regrouped(write: &mut Write, before: &Resource, after: &Resource) -> Result<()> {
    let (was, is) = (&before.groups, &after.groups);
    let added = is.iter().filter(|group| !was.contains(group));
    let removed = was.iter().filter(|group| !is.contains(group));
    let added = added.map(|group| (Activity::ResourceGroupAdd, group));
    for (activity, group) in added.chain(removed.map(|group| (Activity::ResourceGroupDelete, group))) {
        let meta = Meta::name(&group.name)
            .with("resource_name", &after.name)
            .with("resource_id", &after.id)
            .with("resource_type", after.kind.as_str())
            .before(before)
            .after(after);
        write.event(activity, &group.id, meta).await?;
    }
    Ok(())
}

/// The same for a resource that goes.
pub(super) async fn ungrouped(write: &mut Write, gone: &Resource) -> Result<()> {
    regrouped(write, gone, &Resource { groups: Vec::new(), ..gone.clone() }).await
}

/// Refuses to delete `kind` while a rule names the resource itself.
pub(super) async fn refuse_if_linked(db: &mut Connection, kind: &'static str, id: &str) -> Result<()> {
    let policy: Option<String> = sql::query_scalar(
        "SELECT p.name FROM rules r JOIN policies p ON p.id = r.policy_id
         WHERE r.source_resource = $1 OR r.destination_resource = $1 LIMIT 1",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    match policy {
        Some(name) => Err(StoreError::InUse { kind, link: "policy", name }),
        None => Ok(()),
    }
}

async fn put(write: &mut Write, network: &str, id: &str, change: ResourceChange) -> Result<()> {
    let name = &text::name("resource", &change.name)?;
    text::description("resource", &change.description)?;
    let address: Address = match change.address.parse() {
        Ok(address) => address,
        Err(error) => return invalid(format!("address: {error}")),
    };
    // Refused here and not by the parser, which also reads what is stored.
    if let Address::Prefix(prefix) = &address
        && let Some(what) = never_routed(prefix)
    {
        return invalid(format!("address: {prefix} is {what}, which no router carries"));
    }
    let others: i64 = sql::query_scalar("SELECT count(*) FROM resources WHERE name = $1 AND id <> $2")
        .bind(name)
        .bind(id)
        .fetch_one(write.db())
        .await?;
    if others > 0 {
        return invalid(format!("resource with name {name} already exists"));
    }
    let groups = groups::assignable(write.db(), "groups", &change.groups).await?;
    // What a client wrote is shown again, but for a bare host, where it left no length to show.
    let given = change.address.trim();
    let shown = if given.parse::<IpAddr>().is_ok() { given.to_owned() } else { address.to_string() };

    const UPDATE: &str =
        "UPDATE resources SET network_id = $2, name = $3, description = $4, address = $5, kind = $6,
         enabled = $7 WHERE id = $1";
    const INSERT: &str = "INSERT INTO resources (id, network_id, name, description, address, kind, enabled)
         VALUES ($1, $2, $3, $4, $5, $6, $7)";
    for query in [UPDATE, INSERT] {
        let done = sql::query(query)
            .bind(id)
            .bind(network)
            .bind(name)
            .bind(&change.description)
            .bind(&shown)
            .bind(address.kind().as_str())
            .bind(change.enabled)
            .execute(write.db())
            .await?;
        if done.rows_affected() > 0 {
            break;
        }
    }
    sql::query("DELETE FROM group_resources WHERE resource_id = $1").bind(id).execute(write.db()).await?;
    for group in groups {
        sql::query("INSERT INTO group_resources (group_id, resource_id) VALUES ($1, $2)")
            .bind(group)
            .bind(id)
            .execute(write.db())
            .await?;
    }
    Ok(())
}

pub(super) async fn resource(db: &mut Connection, network: &str, id: &str) -> Result<Resource> {
    let row: Option<Row> = sql::query_as("SELECT * FROM resources WHERE id = $1 AND network_id = $2")
        .bind(id)
        .bind(network)
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return not_found("resource", id) };
    let groups = sql::query_as(
        "SELECT g.id, g.name FROM group_resources m JOIN groups g ON g.id = m.group_id WHERE m.resource_id = $1
         ORDER BY g.name",
    )
    .bind(id)
    .fetch_all(&mut *db)
    .await?;
    let addresses = learned::of_resource(db, id).await?;
    Ok(row.resource(groups, addresses))
}

/// What a prefix is that no router carries, if it is one; wider prefixes may include it.
pub(super) fn never_routed(prefix: &IpNet) -> Option<&'static str> {
    match prefix {
        IpNet::V4(prefix) => {
            let (address, first) = (prefix.addr(), prefix.addr().octets()[0]);
            match () {
                () if address.is_loopback() && prefix.prefix_len() >= 8 => Some("loopback"),
                () if address.is_multicast() && prefix.prefix_len() >= 4 => Some("multicast"),
                () if address.is_broadcast() => Some("broadcast"),
                () if first == 0 && prefix.prefix_len() >= 8 => Some("unspecified"),
                () => None,
            }
        }
        IpNet::V6(prefix) => {
            let (address, length) = (prefix.addr(), prefix.prefix_len());
            match () {
                () if address.is_loopback() && length == 128 => Some("loopback"),
                () if address.is_unspecified() && length == 128 => Some("unspecified"),
                () if address.is_multicast() && length >= 8 => Some("multicast"),
                () if address.is_unicast_link_local() && length >= 10 => Some("link-local"),
                () if address.to_ipv4_mapped().is_some() && length >= 96 => Some("IPv4 mapped into IPv6"),
                () => None,
            }
        }
    }
}

/// Letters, digits, hyphens and underscores in labels of 1 to 63, at least two labels, 253 at most, not all digits.
pub(super) fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let numeric_top =
        name.rsplit('.').next().is_some_and(|top| top.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.contains('.') && !numeric_top && name.split('.').all(label)
}

#[derive(FromRow)]
struct Row {
    id: String,
    network_id: String,
    name: String,
    description: String,
    address: String,
    kind: String,
    enabled: bool,
}

impl Row {
    fn resource(self, groups: Vec<NamedRef>, addresses: BTreeSet<IpAddr>) -> Resource {
        Resource {
            kind: ResourceKind::parse(&self.kind),
            id: self.id,
            network_id: self.network_id,
            name: self.name,
            description: self.description,
            address: self.address,
            enabled: self.enabled,
            groups,
            addresses: addresses.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_router_carries_is_no_resource() {
        let refused = |text: &str| match text.parse::<Address>() {
            Ok(Address::Prefix(prefix)) => never_routed(&prefix),
            other => panic!("{text}: {other:?}"),
        };
        for (wrong, what) in [
            ("127.0.0.1", "loopback"),
            ("127.0.0.0/8", "loopback"),
            ("::1", "loopback"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("0.0.0.0", "unspecified"),
            ("0.0.0.0/8", "unspecified"),
            ("::", "unspecified"),
            ("fe80::1", "link-local"),
            ("::ffff:10.0.0.1", "IPv4 mapped into IPv6"),
            ("::ffff:10.0.0.0/104", "IPv4 mapped into IPv6"),
        ] {
            assert_eq!(refused(wrong), Some(what), "{wrong}");
        }
        for right in ["0.0.0.0/0", "::/0", "10.0.0.0/8", "169.254.169.254", "240.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(refused(right), None, "{right}");
        }
    }

    #[test]
    fn addresses_are_told_apart() {
        let kind = |text: &str| text.parse::<Address>().ok().map(|address| address.kind());
        assert_eq!(kind("10.0.0.5"), Some(ResourceKind::Host));
        assert_eq!(kind("10.0.0.5/32"), Some(ResourceKind::Host));
        assert_eq!(kind("10.0.0.5/24"), Some(ResourceKind::Subnet));
        assert_eq!(kind("2001:db8::1"), Some(ResourceKind::Host));
        assert_eq!(kind("2001:db8::1/128"), Some(ResourceKind::Host));
        assert_eq!(kind("2001:db8::/32"), Some(ResourceKind::Subnet));
        assert_eq!(kind("0.0.0.0/0"), Some(ResourceKind::Subnet));
        assert_eq!(kind("example.org"), Some(ResourceKind::Domain));
        assert_eq!(kind("*.Example.org"), Some(ResourceKind::Domain));
        for wrong in
            ["", "10.0.0.300", "10.0.0.0/33", "*.", "a..b", "-a.org", "exa mple.org", "localhost", "1.2.3"]
        {
            assert_eq!(kind(wrong), None, "{wrong}");
        }
    }
}
