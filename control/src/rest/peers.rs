//! `/api/peers`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use sluicegate_policy::posture::Place;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::accessible::Accessible;
use super::auth::Caller;
use super::blocking::blocking;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use super::groups::{GroupMinimum, expand, minimums, minimums_of};
use super::time::rfc3339;
use crate::app::App;
use crate::store::{self, PeerChange, Role, StoreError};

/// A peer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Peer {
    /// Peer id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// RFC 3339.
    pub created_at: String,
    /// Overlay IPv4 address.
    pub ip: String,
    /// Overlay IPv6 address.
    pub ipv6: String,
    /// The address its last connection to control came from.
    pub connection_ip: String,
    /// Whether it holds a stream open.
    pub connected: bool,
    /// RFC 3339.
    pub last_seen: String,
    /// Operating system.
    pub os: String,
    /// Kernel release.
    pub kernel_version: String,
    /// GeoNames' number of the city its connection comes from; 0 when that is not known.
    pub geoname_id: i64,
    /// Agent version.
    pub version: String,
    /// The groups it is in.
    pub groups: Vec<GroupMinimum>,
    /// Whether an earlier version stored that an SSH server is wanted; agents have none.
    pub ssh_enabled: bool,
    /// The user who logged in on it; empty for a peer that a setup key made.
    pub user_id: String,
    /// The name the machine gave itself.
    pub hostname: String,
    /// Empty: there is no desktop client.
    pub ui_version: String,
    /// Its name in the overlay's zone.
    pub dns_label: String,
    /// Whether its user has to log in again after the time that the settings say.
    pub login_expiration_enabled: bool,
    /// Whether it takes no part until its user logs in again.
    pub login_expired: bool,
    /// RFC 3339.
    pub last_login: String,
    /// Whether its user has to log in again when it was away for the time that the settings say.
    pub inactivity_expiration_enabled: bool,
    /// Whether it waits for approval and so takes no part.
    pub approval_required: bool,
    /// The country its connection comes from, ISO 3166-1 alpha-2; empty when that is not known.
    pub country_code: String,
    /// The city, by its English name; empty when that is not known.
    pub city_name: String,
    /// Empty: not reported.
    pub serial_number: String,
    /// Labels it asked for beside `dns_label` when it joined, without the zone.
    pub extra_dns_labels: Vec<String>,
    /// Whether it is removed some time after it left.
    pub ephemeral: bool,
    /// Ours: whether it joined as gateway or as peer.
    pub role: Role,
    /// Ours: where its WireGuard can be reached on the underlay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Ours: the posture checks that policies ask of it and that it fails.
    pub posture_failures: Vec<PostureFailure>,
}

/// A posture check that a peer fails.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PostureFailure {
    /// Check id.
    pub id: String,
    /// Name of the check.
    pub name: String,
    /// Which parts fail: `client_version`, `os_version`, `location`, `network_range`, `process`.
    pub checks: Vec<&'static str>,
    /// Why, as the end of a sentence about the peer.
    pub reason: String,
}

/// A peer in the list.
#[derive(Debug, Serialize, ToSchema)]
pub struct PeerBatch {
    /// The peer.
    #[serde(flatten)]
    pub peer: Peer,
    /// How many peers are at the other end of rules that name it.
    pub accessible_peers_count: usize,
}

/// A peer at the other end of a rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccessiblePeer {
    /// Peer id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Overlay IPv4 address.
    pub ip: String,
    /// Overlay IPv6 address.
    pub ipv6: String,
    /// Its name in the overlay's zone.
    pub dns_label: String,
    /// The user who logged in on it; empty for a peer that a setup key made.
    pub user_id: String,
    /// Operating system.
    pub os: String,
    /// The country its connection comes from, ISO 3166-1 alpha-2; empty when that is not known.
    pub country_code: String,
    /// The city, by its English name; empty when that is not known.
    pub city_name: String,
    /// GeoNames' number of the city its connection comes from; 0 when that is not known.
    pub geoname_id: i64,
    /// Whether it holds a stream open.
    pub connected: bool,
    /// RFC 3339.
    pub last_seen: String,
}

/// A change of a peer.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct PeerRequest {
    /// Display name.
    pub name: String,
    /// False, as agents have no SSH server; what an earlier version stored may stay.
    pub ssh_enabled: bool,
    /// Whether its user has to log in again after the time that the settings say.
    pub login_expiration_enabled: bool,
    /// Whether its user has to log in again when it was away for the time that the settings say.
    pub inactivity_expiration_enabled: bool,
    /// Approves or suspends; left out, it stays.
    pub approval_required: Option<bool>,
    /// A new overlay IPv4 address; left out, it stays.
    pub ip: Option<String>,
    /// A new overlay IPv6 address; left out, it stays.
    pub ipv6: Option<String>,
}

/// Filters of the list; both given must match.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PeerQuery {
    /// Only the peer of exactly this name.
    name: Option<String>,
    /// Only the peer with this overlay address.
    ip: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(get, update, delete))
        .routes(routes!(accessible))
        .routes(routes!(renew))
}

/// Peers; of role `user`, only its own.
#[utoipa::path(get, path = "/api/peers", tag = "Peers", params(PeerQuery), responses((status = 200, body = [PeerBatch])))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PeerQuery>,
) -> ApiResult<Vec<PeerBatch>> {
    let wanted = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let peers = app.store.peers(wanted(&query.name).as_deref(), wanted(&query.ip).as_deref()).await?;
    let shapes = Shapes::load(&app).await?;
    let state = app.store.followed_state().await?;
    let seen = peers.into_iter().filter(|peer| !caller.own_only() || peer.user_id == caller.user.id);
    let seen: Vec<_> = seen.collect();
    // Ten thousand peers are work: not on a thread that others' requests wait for.
    let batch = move || {
        let counts = Accessible::new(&state).counts();
        let batch = seen.into_iter().map(|peer| PeerBatch {
            accessible_peers_count: counts.get(peer.id.as_str()).copied().unwrap_or_default(),
            peer: shapes.peer(peer),
        });
        batch.collect()
    };
    Ok(Json(blocking(batch).await?))
}

/// One peer.
#[utoipa::path(get, path = "/api/peers/{peerId}", tag = "Peers", params(("peerId" = String, Path)),
    responses((status = 200, body = Peer)))]
async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Peer> {
    let peer = visible(&app, &caller, id).await?;
    Ok(Json(Shapes::of(&app, &peer).await?.peer(peer)))
}

/// Changes name, address and approval.
#[utoipa::path(put, path = "/api/peers/{peerId}", tag = "Peers", params(("peerId" = String, Path)),
    request_body = PeerRequest, responses((status = 200, body = Peer)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<PeerRequest>,
) -> ApiResult<Peer> {
    let change = PeerChange {
        name: request.name,
        ssh_enabled: request.ssh_enabled,
        login_expiration_enabled: request.login_expiration_enabled,
        inactivity_expiration_enabled: request.inactivity_expiration_enabled,
        approval_required: request.approval_required,
        ip: address("ip", request.ip)?,
        ipv6: address("ipv6", request.ipv6)?,
    };
    let peer = app.store.update_peer(&caller.actor(), &id, change).await?;
    Ok(Json(Shapes::of(&app, &peer).await?.peer(peer)))
}

/// Removes a peer from the overlay; refused while a router or a policy names it.
#[utoipa::path(delete, path = "/api/peers/{peerId}", tag = "Peers", params(("peerId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.delete_peer(&caller.actor(), &id).await?;
    Ok(Json(Empty {}))
}

/// The peers at the other end of rules that name this one.
#[utoipa::path(get, path = "/api/peers/{peerId}/accessible-peers", tag = "Peers", params(("peerId" = String, Path)),
    responses((status = 200, body = [AccessiblePeer])))]
async fn accessible(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<Vec<AccessiblePeer>> {
    let peer = visible(&app, &caller, id).await?;
    let state = app.store.followed_state().await?;
    let shapes = Shapes::load(&app).await?;
    let peers = app.store.peers(None, None).await?;
    let found = move || {
        let accessible = Accessible::new(&state).of(&peer.id);
        let found = peers.into_iter().filter(|peer| accessible.contains(peer.id.as_str()));
        found.map(|peer| shapes.accessible(peer)).collect()
    };
    Ok(Json(blocking(found).await?))
}

/// The login on an own peer, by its id or name, is as of now: what expired takes part again. A personal access token is not enough
/// for that.
#[utoipa::path(post, path = "/api/peers/{peerId}/login", tag = "Peers", params(("peerId" = String, Path)),
    responses((status = 200, body = Peer)))]
async fn renew(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Peer> {
    // By name as well: whoever is kept from seeing peers knows what the machine is called.
    let of_id = match app.store.peer(&id).await {
        Ok(peer) => Some(peer),
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let named = app.store.peers(Some(&id), None).await?;
    let Some(own) = of_id.into_iter().chain(named).find(|peer| peer.user_id == caller.user.id) else {
        return Err(StoreError::NotFound { kind: "peer", id }.into());
    };
    caller.needs_login()?;
    let peer = app.store.renew_peer(&caller.user, &own.id).await?;
    Ok(Json(Shapes::of(&app, &peer).await?.peer(peer)))
}

/// A peer, if the caller may know that it is there.
pub(super) async fn visible(app: &App, caller: &Caller, id: String) -> Result<store::Peer, ApiError> {
    let peer = app.store.peer(&id).await?;
    if caller.own_only() && peer.user_id != caller.user.id {
        return Err(StoreError::NotFound { kind: "peer", id }.into());
    }
    Ok(peer)
}

fn address<T: std::str::FromStr>(field: &str, text: Option<String>) -> Result<Option<T>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse() {
        Ok(address) => Ok(Some(address)),
        Err(_) => Err(ApiError::invalid(format!("{field}: {text:?} is no address of that family"))),
    }
}

/// What the names in a peer's answer are made with.
struct Shapes {
    groups: HashMap<String, GroupMinimum>,
    domain: String,
    places: HashMap<String, Place>,
    failures: HashMap<String, Vec<PostureFailure>>,
}

impl Shapes {
    /// For all peers.
    async fn load(app: &App) -> Result<Self, ApiError> {
        Self::with(app, None, minimums(app).await?).await
    }

    /// For one.
    async fn of(app: &App, peer: &store::Peer) -> Result<Self, ApiError> {
        let groups = minimums_of(app, peer.groups.iter().map(|group| &group.id)).await?;
        Self::with(app, Some(&peer.id), groups).await
    }

    async fn with(
        app: &App,
        peer: Option<&str>,
        groups: HashMap<String, GroupMinimum>,
    ) -> Result<Self, ApiError> {
        let domain = app.store.account().await?.settings.dns_domain().to_owned();
        let places = app.store.places(peer).await?;
        let mut failures = HashMap::<String, Vec<PostureFailure>>::new();
        for failing in app.store.failing(peer).await? {
            let failure = PostureFailure {
                id: failing.check.id,
                name: failing.check.name,
                checks: failing.verdict.failures.iter().map(|failure| failure.kind.name()).collect(),
                reason: failing.verdict.to_string(),
            };
            failures.entry(failing.peer).or_default().push(failure);
        }
        Ok(Shapes { groups, domain, places, failures })
    }

    fn place(&self, peer: &str) -> Place {
        self.places.get(peer).cloned().unwrap_or_default()
    }

    fn dns_label(&self, label: &str) -> String {
        format!("{label}.{}", self.domain)
    }

    fn peer(&self, peer: store::Peer) -> Peer {
        let Place { country_code, city_name, geoname_id } = self.place(&peer.id);
        Peer {
            posture_failures: self.failures.get(&peer.id).cloned().unwrap_or_default(),
            groups: expand(peer.groups.iter().map(|group| &group.id), &self.groups),
            dns_label: self.dns_label(&peer.dns_label),
            id: peer.id,
            name: peer.name,
            created_at: rfc3339(peer.created_at),
            ip: peer.ip.to_string(),
            ipv6: peer.ipv6.to_string(),
            connection_ip: peer.connection_ip,
            connected: peer.connected,
            last_seen: rfc3339(peer.last_seen),
            os: peer.os,
            kernel_version: peer.kernel_version,
            geoname_id: geoname_id.into(),
            version: peer.version,
            ssh_enabled: peer.ssh_enabled,
            user_id: peer.user_id,
            hostname: peer.hostname,
            ui_version: String::new(),
            login_expiration_enabled: peer.login_expiration_enabled,
            login_expired: peer.expired.is_some(),
            last_login: rfc3339(peer.last_login),
            inactivity_expiration_enabled: peer.inactivity_expiration_enabled,
            approval_required: peer.approval_required,
            country_code,
            city_name,
            serial_number: String::new(),
            extra_dns_labels: peer.extra_dns_labels,
            ephemeral: peer.ephemeral,
            role: peer.role,
            endpoint: peer.endpoint.map(|endpoint| endpoint.to_string()),
        }
    }

    fn accessible(&self, peer: store::Peer) -> AccessiblePeer {
        let Place { country_code, city_name, geoname_id } = self.place(&peer.id);
        AccessiblePeer {
            dns_label: self.dns_label(&peer.dns_label),
            id: peer.id,
            name: peer.name,
            ip: peer.ip.to_string(),
            ipv6: peer.ipv6.to_string(),
            user_id: peer.user_id,
            os: peer.os,
            country_code,
            city_name,
            geoname_id: geoname_id.into(),
            connected: peer.connected,
            last_seen: rfc3339(peer.last_seen),
        }
    }
}
