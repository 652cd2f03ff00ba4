//! Peers: what control knows of each machine in the overlay.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;

use super::account::account;
use super::error::{corrupt, duplicate, invalid, not_found};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, NamedRef, Result, Store, StoreError, expiry, labels, policies, text, unserved};
use crate::ids::now;

/// Random addresses tried before the lowest free one is searched for.
const RANDOM_TRIES: usize = 16;

/// What an agent is in the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A machine with an address and nothing behind it.
    Peer,
    /// A routing peer: prefixes are behind it.
    Gateway,
}

impl Role {
    /// Its name in the store and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Peer => "peer",
            Role::Gateway => "gateway",
        }
    }
}

/// Why a peer takes no part until its user logs in again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Expired {
    /// The login is too old.
    Login,
    /// It was away for too long.
    Inactivity,
}

impl Expired {
    /// Its name in the store, where nothing is the empty text.
    pub(super) fn text(expired: Option<Self>) -> &'static str {
        match expired {
            None => "",
            Some(Expired::Login) => "login",
            Some(Expired::Inactivity) => "inactivity",
        }
    }

    fn parse(text: &str) -> Result<Option<Self>> {
        match text {
            "" => Ok(None),
            "login" => Ok(Some(Expired::Login)),
            "inactivity" => Ok(Some(Expired::Inactivity)),
            other => Err(corrupt("peers.expired")(format!("{other:?} is unknown").into())),
        }
    }
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Peer id.
    pub id: String,
    /// Display name, unique.
    pub name: String,
    /// The name the machine gave itself.
    pub hostname: String,
    /// First label of its name in the overlay's zone, unique.
    pub dns_label: String,
    /// Labels it asked for beside that one when it joined, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_dns_labels: Vec<String>,
    /// Gateway or peer.
    pub role: Role,
    /// WireGuard public key.
    #[serde(skip)]
    pub wireguard_public_key: [u8; 32],
    /// Overlay IPv4 address.
    pub ip: Ipv4Addr,
    /// Overlay IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Where its WireGuard can be reached on the underlay.
    pub endpoint: Option<SocketAddr>,
    /// The address its last connection to control came from, empty before the first.
    pub connection_ip: String,
    /// Operating system.
    pub os: String,
    /// Kernel release.
    pub kernel_version: String,
    /// Agent version.
    pub version: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub last_seen: i64,
    /// Unix milliseconds of its last enrolment.
    pub last_login: i64,
    /// Whether it holds a stream open.
    pub connected: bool,
    /// Whether it is removed some time after it left.
    pub ephemeral: bool,
    /// Whether it waits for approval and so takes no part.
    pub approval_required: bool,
    /// The user who logged in on it; empty for a peer that a setup key made.
    pub user_id: String,
    /// Why it takes no part until its user logs in again, if so.
    pub expired: Option<Expired>,
    /// Whether an earlier version stored that an SSH server is wanted; agents have none.
    pub ssh_enabled: bool,
    /// Whether its user has to log in again after the time that the settings say.
    pub login_expiration_enabled: bool,
    /// Whether its user has to log in again when it was away for the time that the settings say.
    pub inactivity_expiration_enabled: bool,
    /// The groups it is in, by name.
    pub groups: Vec<NamedRef>,
}

/// A change of a peer by an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerChange {
    /// Display name.
    pub name: String,
    /// False, as agents have no SSH server; what an earlier version stored may stay.
    pub ssh_enabled: bool,
    /// Whether its user has to log in again after the time that the settings say.
    pub login_expiration_enabled: bool,
    /// Whether its user has to log in again when it was away for the time that the settings say.
    pub inactivity_expiration_enabled: bool,
    /// Approve or suspend; `None` leaves it.
    pub approval_required: Option<bool>,
    /// A new overlay IPv4 address; `None` leaves it.
    pub ip: Option<Ipv4Addr>,
    /// A new overlay IPv6 address; `None` leaves it.
    pub ipv6: Option<Ipv6Addr>,
}

/// What an agent tells of itself whenever it connects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerFacts {
    /// The address its connection came from.
    pub connection_ip: Option<IpAddr>,
    /// Operating system; empty leaves what is known.
    pub os: String,
    /// Kernel release; empty leaves what is known.
    pub kernel_version: String,
    /// Agent version; empty leaves what is known.
    pub version: String,
}

impl Store {
    /// Every peer, by id; `name` and `ip` filter when given (exact).
    pub async fn peers(&self, name: Option<&str>, ip: Option<&str>) -> Result<Vec<Peer>> {
        let mut tx = self.read().await?;
        let rows: Vec<Row> = sql::query_as(
            "SELECT * FROM peers WHERE ($1 IS NULL OR name = $1) AND ($2 IS NULL OR ip = $2 OR ipv6 = $2) ORDER BY id",
        )
        .bind(name)
        .bind(ip)
        .fetch_all(&mut tx)
        .await?;
        let memberships: Vec<(String, String, String)> = sql::query_as(
            "SELECT m.peer_id, g.id, g.name FROM group_peers m JOIN groups g ON g.id = m.group_id
             ORDER BY m.peer_id, g.name",
        )
        .fetch_all(&mut tx)
        .await?;
        let mut groups = std::collections::HashMap::<String, Vec<NamedRef>>::new();
        for (peer, id, name) in memberships {
            groups.entry(peer).or_default().push(NamedRef { id, name });
        }
        let mut labels = labels::all(&mut tx).await?;
        rows.into_iter()
            .map(|row| {
                let groups = groups.remove(&row.id).unwrap_or_default();
                let labels = labels.remove(&row.id).unwrap_or_default();
                row.peer(groups, labels)
            })
            .collect()
    }

    /// One peer.
    pub async fn peer(&self, id: &str) -> Result<Peer> {
        let mut tx = self.read().await?;
        peer(&mut tx, id).await
    }

    /// Changes a peer as an operator asks.
    pub async fn update_peer(&self, actor: &Actor, id: &str, change: PeerChange) -> Result<Peer> {
        let mut write = self.write(actor).await?;
        let before = peer(write.db(), id).await?;
        let mut after = before.clone();
        change.name.trim().clone_into(&mut after.name);
        after.ssh_enabled = change.ssh_enabled;
        after.login_expiration_enabled = change.login_expiration_enabled;
        after.inactivity_expiration_enabled = change.inactivity_expiration_enabled;
        after.approval_required = change.approval_required.unwrap_or(before.approval_required);
        after.ip = change.ip.unwrap_or(before.ip);
        after.ipv6 = change.ipv6.unwrap_or(before.ipv6);
        unserved::refuse_ssh(before.ssh_enabled, after.ssh_enabled)?;
        if after == before {
            return Ok(before);
        }

        if after.name != before.name {
            after.name = text::name("peer", &after.name)?;
            if taken(write.db(), "SELECT count(*) FROM peers WHERE name = $1", &after.name).await? {
                return duplicate(format!("a peer named {} already exists", after.name));
            }
            after.dns_label = free_dns_label(write.db(), &after.name, id).await?;
        }
        check_addresses(write.db(), &before, &after).await?;
        sql::query(
            "UPDATE peers SET name = $1, dns_label = $2, ip = $3, ipv6 = $4, approval_required = $5, ssh_enabled = $6,
             login_expiration_enabled = $7, inactivity_expiration_enabled = $8 WHERE id = $9",
        )
        .bind(&after.name)
        .bind(&after.dns_label)
        .bind(after.ip.to_string())
        .bind(after.ipv6.to_string())
        .bind(after.approval_required)
        .bind(after.ssh_enabled)
        .bind(after.login_expiration_enabled)
        .bind(after.inactivity_expiration_enabled)
        .bind(id)
        .execute(write.db())
        .await?;
        for activity in activities(&before, &after) {
            let meta = Meta::name(&after.name).before(&before).after(&after);
            write.event(activity, id, meta).await?;
        }
        expiry::apply(&mut write).await?;
        let after = peer(write.db(), id).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Removes a peer from the overlay; refused while a router or a rule names it.
    pub async fn delete_peer(&self, actor: &Actor, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        delete(&mut write, id).await?;
        write.commit().await
    }

    /// An agent connected or spoke: when, from where, and what it is. Neither revision nor audit trail move.
    pub async fn peer_seen(&self, id: &str, facts: &PeerFacts) -> Result<()> {
        let done = sql::query(
            "UPDATE peers SET last_seen = $1, connected = TRUE, replica = $7,
             connection_ip = coalesce($2, connection_ip),
             os = CASE $4 WHEN '' THEN os ELSE $4 END,
             kernel_version = CASE $5 WHEN '' THEN kernel_version ELSE $5 END,
             version = CASE $6 WHEN '' THEN version ELSE $6 END
             WHERE id = $3",
        )
        .bind(now())
        .bind(facts.connection_ip.map(|ip| ip.to_canonical().to_string()))
        .bind(id)
        .bind(&facts.os)
        .bind(&facts.kernel_version)
        .bind(&facts.version)
        .bind(&self.inner.shared.id)
        .execute(&mut self.writer().await?)
        .await?;
        if done.rows_affected() == 0 { not_found("peer", id) } else { Ok(()) }
    }

    /// An agent's last stream ended.
    pub async fn peer_disconnected(&self, id: &str) -> Result<()> {
        sql::query(
            "UPDATE peers SET connected = FALSE, replica = '', last_seen = $1 WHERE id = $2 AND replica = $3",
        )
        .bind(now())
        .bind(id)
        .bind(&self.inner.shared.id)
        .execute(&mut self.writer().await?)
        .await?;
        Ok(())
    }

    /// The peers that have a stream at another replica.
    pub async fn connected_elsewhere(&self) -> Result<BTreeSet<String>> {
        let ids = sql::query_scalar("SELECT id FROM peers WHERE connected AND replica <> $1")
            .bind(&self.inner.shared.id)
            .fetch_all(&mut self.reader().await?)
            .await?;
        Ok(ids.into_iter().collect())
    }

    /// Where the agent's WireGuard can be reached on the underlay; true when that is news.
    pub async fn set_peer_endpoint(&self, id: &str, endpoint: Option<SocketAddr>) -> Result<bool> {
        let mut write = self.write(&Actor::system()).await?;
        let before = peer(write.db(), id).await?;
        if before.endpoint == endpoint {
            return Ok(false);
        }
        sql::query("UPDATE peers SET endpoint = $1 WHERE id = $2")
            .bind(endpoint.map(|endpoint| endpoint.to_string()))
            .bind(id)
            .execute(write.db())
            .await?;
        let text = |endpoint: Option<SocketAddr>| endpoint.map(|at| at.to_string()).unwrap_or_default();
        let meta =
            Meta::name(&before.name).with("before", text(before.endpoint)).with("after", text(endpoint));
        write.event(Activity::PeerEndpointUpdate, id, meta).await?;
        write.commit().await?;
        Ok(true)
    }

    /// Removes ephemeral peers last seen before `before` (Unix milliseconds) that hold no stream; how many.
    /// One that a router or a rule names stays.
    pub async fn delete_stale_ephemeral(&self, before: i64) -> Result<usize> {
        let ids: Vec<String> =
            sql::query_scalar("SELECT id FROM peers WHERE ephemeral AND NOT connected AND last_seen < $1")
                .bind(before)
                .fetch_all(&mut self.reader().await?)
                .await?;
        let mut deleted = 0;
        for id in &ids {
            match self.delete_if_stale(id, before).await {
                Ok(gone) => deleted += usize::from(gone),
                Err(StoreError::NotFound { .. } | StoreError::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

impl Store {
    /// Removes an ephemeral peer, unless it has come back since it was looked for, to whichever replica.
    async fn delete_if_stale(&self, id: &str, before: i64) -> Result<bool> {
        let mut write = self.write(&Actor::system()).await?;
        let stale: i64 = sql::query_scalar(
            "SELECT count(*) FROM peers WHERE id = $1 AND NOT connected AND last_seen < $2",
        )
        .bind(id)
        .bind(before)
        .fetch_one(write.db())
        .await?;
        if stale == 0 {
            return Ok(false);
        }
        delete(&mut write, id).await?;
        write.commit().await?;
        Ok(true)
    }
}

/// One peer as the connection's transaction sees it.
pub(super) async fn peer(db: &mut Connection, id: &str) -> Result<Peer> {
    let row: Option<Row> =
        sql::query_as("SELECT * FROM peers WHERE id = $1").bind(id).fetch_optional(&mut *db).await?;
    let Some(row) = row else { return not_found("peer", id) };
    let groups = sql::query_as(
        "SELECT g.id, g.name FROM group_peers m JOIN groups g ON g.id = m.group_id WHERE m.peer_id = $1
         ORDER BY g.name",
    )
    .bind(id)
    .fetch_all(&mut *db)
    .await?;
    row.peer(groups, labels::of(db, id).await?)
}

/// A free random address: not the network's, not the broadcast address, not the first (agents may take it for a router).
pub(super) async fn allocate_v4(db: &mut Connection, range: Ipv4Net) -> Result<Option<Ipv4Addr>> {
    let (first, last) = (u32::from(range.network()) + 2, u32::from(range.broadcast()) - 1);
    for _ in 0..RANDOM_TRIES {
        let address = Ipv4Addr::from(rand::random_range(first..=last));
        if !taken(db, "SELECT count(*) FROM peers WHERE ip = $1", &address.to_string()).await? {
            return Ok(Some(address));
        }
    }
    let used: Vec<String> = sql::query_scalar("SELECT ip FROM peers").fetch_all(db).await?;
    let used: std::collections::HashSet<Ipv4Addr> =
        used.iter().filter_map(|text| text.parse().ok()).collect();
    Ok((first..=last).map(Ipv4Addr::from).find(|address| !used.contains(address)))
}

/// A free random address of the range, never its first two.
pub(super) async fn allocate_v6(db: &mut Connection, range: Ipv6Net) -> Result<Option<Ipv6Addr>> {
    let host_bits = 128 - u32::from(range.prefix_len());
    let last = if host_bits >= 64 { u128::from(u64::MAX) } else { (1u128 << host_bits) - 1 };
    let base = u128::from(range.network());
    for _ in 0..RANDOM_TRIES {
        let address = Ipv6Addr::from(base + rand::random_range(2..last));
        if !taken(db, "SELECT count(*) FROM peers WHERE ipv6 = $1", &address.to_string()).await? {
            return Ok(Some(address));
        }
    }
    let used: Vec<String> = sql::query_scalar("SELECT ipv6 FROM peers").fetch_all(db).await?;
    let used: std::collections::HashSet<Ipv6Addr> =
        used.iter().filter_map(|text| text.parse().ok()).collect();
    Ok((2..last).map(|host| Ipv6Addr::from(base + host)).find(|address| !used.contains(address)))
}

/// `wanted`, or `wanted-1`, `wanted-2`… where it is taken.
pub(super) async fn free_name(db: &mut Connection, wanted: &str) -> Result<String> {
    let mut name = wanted.to_owned();
    for number in 1u32.. {
        if !taken(db, "SELECT count(*) FROM peers WHERE name = $1", &name).await? {
            break;
        }
        name = format!("{wanted}-{number}");
    }
    Ok(name)
}

/// A free DNS label made of a name, for the peer `own` (which may keep its own).
pub(super) async fn free_dns_label(db: &mut Connection, name: &str, own: &str) -> Result<String> {
    let base = dns_label(name);
    let mut label = base.clone();
    for number in 1u32.. {
        let others: i64 = sql::query_scalar(
            "SELECT (SELECT count(*) FROM peers WHERE dns_label = $1 AND id <> $2)
             + (SELECT count(*) FROM peer_labels WHERE label = $1)",
        )
        .bind(&label)
        .bind(own)
        .fetch_one(&mut *db)
        .await?;
        if others == 0 {
            break;
        }
        label = format!("{base}-{number}");
    }
    Ok(label)
}

/// Lower-case letters, digits and inner hyphens, at most 52 so that a number still fits into the 63 of RFC 1035.
fn dns_label(name: &str) -> String {
    let first = name.split('.').next().unwrap_or_default();
    let label: String = first
        .chars()
        .map(|char| if char.is_ascii_alphanumeric() { char.to_ascii_lowercase() } else { '-' })
        .take(52)
        .collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "peer".into() } else { label.into() }
}

async fn taken(db: &mut Connection, count: &'static str, value: &str) -> Result<bool> {
    let found: i64 = sql::query_scalar(count).bind(value).fetch_one(db).await?;
    Ok(found > 0)
}

async fn check_addresses(db: &mut Connection, before: &Peer, after: &Peer) -> Result<()> {
    let (v4, v6) = account(db).await?.settings.overlay()?;
    if after.ip != before.ip {
        if !v4.contains(&after.ip) || after.ip == v4.network() || after.ip == v4.broadcast() {
            return invalid(format!("ip: {} is no host address of the overlay range {v4}", after.ip));
        }
        if taken(db, "SELECT count(*) FROM peers WHERE ip = $1", &after.ip.to_string()).await? {
            return duplicate(format!("ip: {} belongs to another peer", after.ip));
        }
    }
    if after.ipv6 != before.ipv6 {
        if !v6.contains(&after.ipv6) || after.ipv6 == v6.network() {
            return invalid(format!("ipv6: {} is no host address of the overlay range {v6}", after.ipv6));
        }
        if taken(db, "SELECT count(*) FROM peers WHERE ipv6 = $1", &after.ipv6.to_string()).await? {
            return duplicate(format!("ipv6: {} belongs to another peer", after.ipv6));
        }
    }
    Ok(())
}

fn activities(before: &Peer, after: &Peer) -> Vec<Activity> {
    let mut activities = Vec::new();
    if before.name != after.name {
        activities.push(Activity::PeerRename);
    }
    if (before.ip, before.ipv6) != (after.ip, after.ipv6) {
        activities.push(Activity::PeerIpUpdate);
    }
    match (before.approval_required, after.approval_required) {
        (true, false) => activities.push(Activity::PeerApprove),
        (false, true) => activities.push(Activity::PeerApprovalRevoke),
        _ => {}
    }
    let switches = [
        (before.ssh_enabled, after.ssh_enabled, Activity::PeerSshEnable, Activity::PeerSshDisable),
        (
            before.login_expiration_enabled,
            after.login_expiration_enabled,
            Activity::PeerLoginExpirationEnable,
            Activity::PeerLoginExpirationDisable,
        ),
        (
            before.inactivity_expiration_enabled,
            after.inactivity_expiration_enabled,
            Activity::PeerInactivityExpirationEnable,
            Activity::PeerInactivityExpirationDisable,
        ),
    ];
    activities.extend(switches.into_iter().filter_map(Activity::of_switch));
    activities
}

/// Removes a peer; refused while a router or a rule names it.
pub(super) async fn delete(write: &mut Write, id: &str) -> Result<()> {
    let before = peer(write.db(), id).await?;
    let network: Option<String> = sql::query_scalar(
        "SELECT n.name FROM routers r JOIN networks n ON n.id = r.network_id WHERE r.peer_id = $1 LIMIT 1",
    )
    .bind(id)
    .fetch_optional(write.db())
    .await?;
    if let Some(name) = network {
        return Err(StoreError::InUse { kind: "peer", link: "network router", name });
    }
    let route: Option<String> =
        sql::query_scalar("SELECT network_id FROM routes WHERE peer_id = $1 ORDER BY id LIMIT 1")
            .bind(id)
            .fetch_optional(write.db())
            .await?;
    if let Some(name) = route {
        return Err(StoreError::InUse { kind: "peer", link: "route", name });
    }
    // Temporary access goes with the peer it is for.
    if let Some(own) = policies::find(write.db(), id).await? {
        sql::query("DELETE FROM policies WHERE id = $1").bind(id).execute(write.db()).await?;
        write.event(Activity::PolicyDelete, id, Meta::name(&own.name).before(&own)).await?;
    }
    let policy: Option<String> = sql::query_scalar(
        "SELECT p.name FROM rules r JOIN policies p ON p.id = r.policy_id
         WHERE r.source_peer = $1 OR r.destination_peer = $1 LIMIT 1",
    )
    .bind(id)
    .fetch_optional(write.db())
    .await?;
    if let Some(name) = policy {
        return Err(StoreError::InUse { kind: "peer", link: "policy", name });
    }
    sql::query("DELETE FROM peers WHERE id = $1").bind(id).execute(write.db()).await?;
    write.event(Activity::PeerDelete, id, Meta::name(&before.name).before(&before)).await
}

#[derive(FromRow)]
pub(super) struct Row {
    id: String,
    wireguard_key: Vec<u8>,
    role: String,
    name: String,
    hostname: String,
    dns_label: String,
    ip: String,
    ipv6: String,
    endpoint: Option<String>,
    connection_ip: String,
    os: String,
    kernel_version: String,
    version: String,
    created_at: i64,
    last_seen: i64,
    last_login: i64,
    connected: bool,
    ephemeral: bool,
    approval_required: bool,
    ssh_enabled: bool,
    login_expiration_enabled: bool,
    inactivity_expiration_enabled: bool,
    user_id: String,
    expired: String,
}

impl Row {
    pub(super) fn peer(self, groups: Vec<NamedRef>, extra_dns_labels: Vec<String>) -> Result<Peer> {
        Ok(Peer {
            wireguard_public_key: self
                .wireguard_key
                .try_into()
                .map_err(|_| corrupt("peers.wireguard_key")("not 32 bytes".into()))?,
            role: if self.role == "gateway" { Role::Gateway } else { Role::Peer },
            ip: parse("peers.ip", &self.ip)?,
            ipv6: parse("peers.ipv6", &self.ipv6)?,
            endpoint: self.endpoint.as_deref().map(|text| parse("peers.endpoint", text)).transpose()?,
            id: self.id,
            name: self.name,
            hostname: self.hostname,
            dns_label: self.dns_label,
            extra_dns_labels,
            connection_ip: self.connection_ip,
            os: self.os,
            kernel_version: self.kernel_version,
            version: self.version,
            created_at: self.created_at,
            last_seen: self.last_seen,
            last_login: self.last_login,
            connected: self.connected,
            ephemeral: self.ephemeral,
            approval_required: self.approval_required,
            ssh_enabled: self.ssh_enabled,
            login_expiration_enabled: self.login_expiration_enabled,
            inactivity_expiration_enabled: self.inactivity_expiration_enabled,
            user_id: self.user_id,
            expired: Expired::parse(&self.expired)?,
            groups,
        })
    }
}

fn parse<T: FromStr>(column: &'static str, text: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|error: T::Err| corrupt(column)(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::dns_label;

    #[test]
    fn a_dns_label_is_made_of_any_name() {
        assert_eq!(dns_label("Web_1.example.org"), "web-1");
        assert_eq!(dns_label("--"), "peer");
        assert_eq!(dns_label(""), "peer");
        assert_eq!(dns_label("größe"), "gr--e");
        assert_eq!(dns_label(&"x".repeat(80)).len(), 52);
    }
}
