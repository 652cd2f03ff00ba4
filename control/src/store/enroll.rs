//! Enrolment: a setup key, or a user's login, turned into a peer, in one transaction.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::PoisonError;

use super::account::account;
use super::error::StoreError;
use super::peers::{self, allocate_v4, allocate_v6, free_dns_label, free_name};
use super::setup_keys::{self, SetupKey, SetupKeyState};
use super::sql;
use super::write::{Meta, Write};
use super::{Activity, Actor, Peer, Role, Store, User, UserRole, groups, labels, sign_in, users};
use crate::ids::new_id;
use crate::secret::{looks_like_join_key, looks_like_machine_login, setup_key_hash};

/// For how long it is not told again that a used-up key was tried, in milliseconds.
const OVERUSE_SILENCE: i64 = 3_600_000;
/// Longest host name kept, in characters.
const NAME_LIMIT: usize = 100;

/// What an agent brings to join.
#[derive(Clone, Debug)]
pub struct Enrollment {
    /// The text of the setup key, of the key that a user made for this machine, or the secret of a login that let it in.
    pub setup_key: String,
    /// X25519 public key.
    pub wireguard_public_key: [u8; 32],
    /// SHA-256 of the certificate request's public key (SubjectPublicKeyInfo, DER). The request is signed with that
    /// key, so it proves who asks; the WireGuard key, which every peer is told, does not.
    pub identity_key: [u8; 32],
    /// Gateway or peer.
    pub role: Role,
    /// The name the machine gives itself.
    pub hostname: String,
    /// Operating system.
    pub os: String,
    /// Kernel release.
    pub kernel_version: String,
    /// Agent version.
    pub version: String,
    /// Where the request came from.
    pub connection_ip: Option<IpAddr>,
    /// DNS labels it asks for beside the one made of its name.
    pub dns_labels: Vec<String>,
}

/// The peer an enrolment made, or found made by an earlier try of the same agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolledPeer {
    /// Peer id.
    pub id: String,
    /// The display name it got.
    pub name: String,
    /// Overlay IPv4 address.
    pub ip: Ipv4Addr,
    /// Overlay IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Whether this call made it; false when an earlier one did whose answer was lost.
    pub created: bool,
}

/// Why an enrolment was refused. No use was counted, and nothing written but the event of a key that is used up.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// No such key; also what a malformed one gets.
    #[error("setup key is unknown: check it, or create a new one")]
    UnknownKey,
    /// Revoked by an operator.
    #[error("setup key {0} is revoked: create a new one")]
    Revoked(String),
    /// Past its expiry.
    #[error("setup key {0} is expired: create a new one")]
    Expired(String),
    /// Used as often as it may be.
    #[error("setup key {0} is used up: create a new one")]
    Overused(String),
    /// The WireGuard key belongs to a peer already, enrolled by another identity or another setup key.
    #[error("the WireGuard key belongs to peer {0} already: delete that peer first, or join with a new key")]
    KnownWireguardKey(String),
    /// All zeroes: no key at all.
    #[error("the WireGuard public key is empty")]
    EmptyWireguardKey,
    /// The user who let it join may not, or no longer.
    #[error("{0}")]
    User(String),
    /// The extra DNS labels it asks for cannot be given to it.
    #[error("extra DNS labels: {0}")]
    DnsLabels(String),
    /// No address is left.
    #[error("the overlay range {0} has no free address: widen it in the account settings, or delete peers")]
    NoAddress(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Makes a peer, if the setup key is valid at the instant the transaction runs, and counts the use.
    ///
    /// An agent whose answer was lost may ask again with the same keys: it gets the peer it made, and no second use
    /// is counted, unless the setup key has been revoked since.
    pub async fn enroll(&self, request: &Enrollment) -> Result<EnrolledPeer, EnrollError> {
        if request.wireguard_public_key == [0; 32] {
            return Err(EnrollError::EmptyWireguardKey);
        }
        if looks_like_join_key(&request.setup_key) {
            return self.enroll_by_join_key(request).await;
        }
        if looks_like_machine_login(&request.setup_key) {
            return self.enroll_by_login(request).await;
        }
        let hash = setup_key_hash(&request.setup_key);
        let found = {
            let mut db = self.read().await?;
            setup_keys::by_hash(&mut db, &hash).await?
        };
        // Unknown keys are turned away before they can queue for the writer.
        let Some(found) = found else { return Err(EnrollError::UnknownKey) };

        let actor = Actor { id: found.id, name: found.name, email: String::new() };
        let mut write = self.write(&actor).await?;
        let Some(key) = setup_keys::by_hash(write.db(), &hash).await? else {
            return Err(EnrollError::UnknownKey);
        };
        let labels = labels::checked(&request.dns_labels)?;
        if let Some(known) = repeated(&mut write, request, &key, &labels).await? {
            return Ok(known);
        }
        match key.state(write.at()) {
            SetupKeyState::Valid => {}
            SetupKeyState::Revoked => return Err(EnrollError::Revoked(key.name)),
            SetupKeyState::Expired => return Err(EnrollError::Expired(key.name)),
            SetupKeyState::Overused => {
                note_overuse(write, request, &key).await?;
                return Err(EnrollError::Overused(key.name));
            }
        }
        if !labels.is_empty() && !key.allow_extra_dns_labels {
            return Err(EnrollError::DnsLabels(format!(
                "setup key {} does not allow them: create one that does, or leave them out",
                key.name
            )));
        }
        let peer = insert(&mut write, request, Origin::Key(&key), &labels).await?;
        write.commit().await?;
        Ok(peer)
    }

    /// The login of `user` on a peer of its own is as of now: what had expired takes part again.
    pub async fn renew_peer(&self, user: &User, id: &str) -> Result<Peer, StoreError> {
        let mut write = self.write(&user.actor()).await?;
        // What the user may do may have changed while the request waited.
        sign_in::admit(&users::user(write.db(), &user.id).await?)?;
        let before = peers::peer(write.db(), id).await?;
        if before.user_id != user.id {
            return super::error::not_found("peer", id);
        }
        let after = log_in(&mut write, &before).await?;
        write.commit().await?;
        Ok(after)
    }
}

/// Makes a peer of a user who has just logged in for it, and puts it into the user's groups. An agent that is such a peer
/// already, by the same keys, has its login renewed.
pub(super) async fn enroll_as(
    write: &mut Write,
    user: &str,
    request: &Enrollment,
) -> Result<EnrolledPeer, EnrollError> {
    let user = match users::user(write.db(), user).await {
        Ok(user) => user,
        Err(StoreError::NotFound { .. }) => {
            return Err(EnrollError::User("the user is no longer there".into()));
        }
        Err(error) => return Err(error.into()),
    };
    if let Err(StoreError::Denied(why)) = sign_in::admit(&user) {
        return Err(EnrollError::User(why));
    }
    if user.is_service_user {
        return Err(EnrollError::User("machines of service users join with a setup key".into()));
    }
    if let Some(why) = no_gateways(&user, request.role) {
        return Err(EnrollError::User(why));
    }
    if !request.dns_labels.is_empty() {
        let why = "a user's key does not allow them: join with a setup key that does, or leave them out";
        return Err(EnrollError::DnsLabels(why.into()));
    }
    write.act_as(user.actor());
    match renewed(write, request, &user).await? {
        Some(known) => Ok(known),
        None => insert(write, request, Origin::User(&user), &BTreeSet::new()).await,
    }
}

/// Why a user may not let a machine of this role join, if so.
pub(super) fn no_gateways(user: &User, role: Role) -> Option<String> {
    (role == Role::Gateway && user.role < UserRole::NetworkAdmin)
        .then(|| format!("role {} may not let a gateway join", user.role.as_str()))
}

/// Whose word makes a peer.
enum Origin<'a> {
    Key(&'a SetupKey),
    User(&'a User),
}

/// The peer that this agent is already, with its login as of now.
async fn renewed(
    write: &mut Write,
    request: &Enrollment,
    user: &User,
) -> Result<Option<EnrolledPeer>, EnrollError> {
    let known: Option<(String, Vec<u8>)> =
        sql::query_as("SELECT id, identity_key FROM peers WHERE wireguard_key = $1")
            .bind(request.wireguard_public_key.as_slice())
            .fetch_optional(write.db())
            .await?;
    let Some((id, identity_key)) = known else { return Ok(None) };
    let before = peers::peer(write.db(), &id).await?;
    if identity_key != request.identity_key || before.user_id != user.id || before.role != request.role {
        return Err(EnrollError::KnownWireguardKey(before.name));
    }
    let after = log_in(write, &before).await?;
    Ok(Some(EnrolledPeer { id, name: after.name, ip: after.ip, ipv6: after.ipv6, created: false }))
}

/// The peer an earlier try of the same agent made.
async fn repeated(
    write: &mut Write,
    request: &Enrollment,
    key: &SetupKey,
    labels: &BTreeSet<String>,
) -> Result<Option<EnrolledPeer>, EnrollError> {
    let known: Option<(String, Vec<u8>, String)> =
        sql::query_as("SELECT id, identity_key, setup_key_id FROM peers WHERE wireguard_key = $1")
            .bind(request.wireguard_public_key.as_slice())
            .fetch_optional(write.db())
            .await?;
    let Some((id, identity_key, setup_key_id)) = known else { return Ok(None) };
    let peer = peers::peer(write.db(), &id).await?;
    if identity_key != request.identity_key || setup_key_id != key.id || peer.role != request.role {
        return Err(EnrollError::KnownWireguardKey(peer.name));
    }
    if key.revoked {
        return Err(EnrollError::Revoked(key.name.clone()));
    }
    if !peer.extra_dns_labels.iter().eq(labels) {
        return Err(EnrollError::DnsLabels(format!(
            "this machine has joined as {} with others: delete that peer first, or ask for the same",
            peer.name
        )));
    }
    Ok(Some(EnrolledPeer { id, name: peer.name, ip: peer.ip, ipv6: peer.ipv6, created: false }))
}

/// Tells of a used-up key that somebody tries: who has it need not be who it was made for. Once in a while, for whoever has such a
/// key could fill the trail.
async fn note_overuse(mut write: Write, request: &Enrollment, key: &SetupKey) -> Result<(), StoreError> {
    let at = write.at();
    let news = {
        let overused = &write.store().inner.overused;
        overused.lock().unwrap_or_else(PoisonError::into_inner).is_news(&key.id, at)
    };
    if !news {
        return Ok(());
    }
    let from = request.connection_ip.map(|ip| ip.to_canonical().to_string()).unwrap_or_default();
    let meta = Meta::name(&key.name)
        .with("key", &key.masked)
        .with("type", if key.reusable { "reusable" } else { "one-off" })
        .with("used_times", key.used_times.to_string())
        .with("hostname", clean(&request.hostname))
        .with("connection_ip", from);
    write.event(Activity::SetupKeyOveruse, &key.id, meta).await?;
    write.commit().await
}

/// When it was last told of each used-up key that somebody tried it, by key id, Unix milliseconds.
#[derive(Debug, Default)]
pub(super) struct Overused(HashMap<String, i64>);

impl Overused {
    /// Whether a try is to be told of; if so, no other is for a while.
    fn is_news(&mut self, key: &str, at: i64) -> bool {
        self.0.retain(|_, told| (0..OVERUSE_SILENCE).contains(&(at - *told)));
        let news = !self.0.contains_key(key);
        if news {
            self.0.insert(key.to_owned(), at);
        }
        news
    }
}

/// The login on a peer is as of now.
pub(super) async fn log_in(write: &mut Write, before: &Peer) -> Result<Peer, StoreError> {
    let at = write.at();
    sql::query("UPDATE peers SET last_login = $1, last_seen = $1, expired = '' WHERE id = $2")
        .bind(at)
        .bind(&before.id)
        .execute(write.db())
        .await?;
    let after = peers::peer(write.db(), &before.id).await?;
    write
        .event(Activity::PeerLogin, &before.id, Meta::name(&after.name).before(before).after(&after))
        .await?;
    Ok(after)
}

async fn insert(
    write: &mut Write,
    request: &Enrollment,
    origin: Origin<'_>,
    labels: &BTreeSet<String>,
) -> Result<EnrolledPeer, EnrollError> {
    let at = write.at();
    let (key, user) = match origin {
        Origin::Key(key) => (Some(key), None),
        Origin::User(user) => (None, Some(user)),
    };
    let settings = account(write.db()).await?.settings;
    let (range_v4, range_v6) = settings.overlay()?;
    let Some(ip) = allocate_v4(write.db(), range_v4).await? else {
        return Err(EnrollError::NoAddress(range_v4.to_string()));
    };
    let Some(ipv6) = allocate_v6(write.db(), range_v6).await? else {
        return Err(EnrollError::NoAddress(range_v6.to_string()));
    };
    let id = new_id();
    let hostname = clean(&request.hostname);
    let name = free_name(write.db(), &hostname).await?;
    let dns_label = free_dns_label(write.db(), &name, &id).await?;

    sql::query(
        "INSERT INTO peers (id, wireguard_key, identity_key, setup_key_id, role, name, hostname, dns_label, ip, ipv6,
         connection_ip, os, kernel_version, version, created_at, last_seen, last_login, connected, ephemeral,
         approval_required, ssh_enabled, login_expiration_enabled, inactivity_expiration_enabled, user_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $15, FALSE, $16, $17, FALSE, $18, $18,
         $19)",
    )
    .bind(&id)
    .bind(request.wireguard_public_key.as_slice())
    .bind(request.identity_key.as_slice())
    .bind(key.map_or("", |key| &key.id))
    .bind(request.role.as_str())
    .bind(&name)
    .bind(&hostname)
    .bind(&dns_label)
    .bind(ip.to_string())
    .bind(ipv6.to_string())
    .bind(request.connection_ip.map(|ip| ip.to_canonical().to_string()).unwrap_or_default())
    .bind(&request.os)
    .bind(&request.kernel_version)
    .bind(&request.version)
    .bind(at)
    .bind(key.is_some_and(|key| key.ephemeral))
    .bind(settings.extra.peer_approval_enabled)
    .bind(user.is_some())
    .bind(user.map_or("", |user| &user.id))
    .execute(write.db())
    .await?;

    labels::add(write.db(), &id, labels).await?;
    let all = groups::all_id(write.db()).await?;
    let inherited = match origin {
        Origin::Key(key) => key.auto_groups.as_slice(),
        Origin::User(user) if settings.groups_propagation_enabled => user.auto_groups.as_slice(),
        Origin::User(_) => &[],
    };
    for group in inherited.iter().chain([&all]) {
        sql::query("INSERT INTO group_peers (group_id, peer_id) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(group)
            .bind(&id)
            .execute(write.db())
            .await?;
    }
    if let Some(key) = key {
        sql::query("UPDATE setup_keys SET used_times = used_times + 1, last_used = $1 WHERE id = $2")
            .bind(at)
            .bind(&key.id)
            .execute(write.db())
            .await?;
    }

    let peer = peers::peer(write.db(), &id).await?;
    let meta = Meta::name(&name).after(&peer);
    let (activity, meta) = match origin {
        Origin::Key(key) => (Activity::PeerAdd, meta.with("setup_key_name", &key.name)),
        Origin::User(_) => (Activity::PeerUserAdd, meta),
    };
    write.event(activity, &id, meta).await?;
    Ok(EnrolledPeer { id, name, ip, ipv6, created: true })
}

/// A host name as a display name: no control characters, no blanks around it, never empty.
fn clean(hostname: &str) -> String {
    let name: String = hostname.chars().filter(|char| !char.is_control()).take(NAME_LIMIT).collect();
    let name = name.trim();
    if name.is_empty() { "peer".into() } else { name.into() }
}
