//! `/api/setup-keys`.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use super::time::{rfc3339, rfc3339_or_never};
use crate::app::App;
use crate::ids::now;
use crate::store::{self, NewSetupKey, SetupKeyState};

/// A setup key.
#[derive(Debug, Serialize, ToSchema)]
pub struct SetupKey {
    /// Setup key id.
    pub id: String,
    /// Its text in the answer to its creation; masked everywhere else.
    pub key: String,
    /// Display name.
    pub name: String,
    /// RFC 3339; the year 1 for never.
    pub expires: String,
    /// `one-off` or `reusable`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it makes peers.
    pub valid: bool,
    /// Whether it was taken back.
    pub revoked: bool,
    /// Peers it made.
    pub used_times: i64,
    /// RFC 3339; the year 1 for never.
    pub last_used: String,
    /// `valid`, `overused`, `expired` or `revoked`.
    pub state: String,
    /// Group ids its peers are put into.
    pub auto_groups: Vec<String>,
    /// RFC 3339.
    pub updated_at: String,
    /// Peers it may make; 0 is any number.
    pub usage_limit: i64,
    /// Whether its peers are removed some time after they left.
    pub ephemeral: bool,
    /// Whether its peers may ask for DNS labels beside the one made of their name.
    pub allow_extra_dns_labels: bool,
    /// Ours, in the answer to its creation: SHA-256 of the authority's certificate, for `KEY#sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_fingerprint: Option<String>,
}

/// A setup key to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CreateSetupKeyRequest {
    /// Display name.
    pub name: String,
    /// `one-off` or `reusable`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Seconds; 0 never expires.
    pub expires_in: i64,
    /// Group ids; not `All`.
    pub auto_groups: Vec<String>,
    /// Peers it may make; 0 is any number, and for a one-off key one.
    pub usage_limit: i64,
    /// Whether its peers are removed some time after they left.
    pub ephemeral: bool,
    /// Whether its peers may ask for DNS labels beside the one made of their name.
    pub allow_extra_dns_labels: bool,
}

/// A change of a setup key.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct SetupKeyRequest {
    /// True takes it back, for good.
    pub revoked: bool,
    /// Group ids; not `All`.
    pub auto_groups: Vec<String>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// Setup keys.
#[utoipa::path(get, path = "/api/setup-keys", tag = "Setup Keys", responses((status = 200, body = [SetupKey])))]
async fn list(State(app): State<App>) -> ApiResult<Vec<SetupKey>> {
    Ok(Json(app.store.setup_keys().await?.into_iter().map(shape).collect()))
}

/// One setup key.
#[utoipa::path(get, path = "/api/setup-keys/{keyId}", tag = "Setup Keys", params(("keyId" = String, Path)),
    responses((status = 200, body = SetupKey)))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> ApiResult<SetupKey> {
    Ok(Json(shape(app.store.setup_key(&id).await?)))
}

/// Creates a setup key; its text is shown only here.
#[utoipa::path(post, path = "/api/setup-keys", tag = "Setup Keys", request_body = CreateSetupKeyRequest,
    responses((status = 200, body = SetupKey)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<CreateSetupKeyRequest>,
) -> ApiResult<SetupKey> {
    let reusable = match request.kind.as_str() {
        "one-off" => false,
        "reusable" => true,
        kind => return Err(ApiError::invalid(format!("type {kind:?} is unknown: one-off or reusable"))),
    };
    let new = NewSetupKey {
        name: request.name,
        reusable,
        expires_in: request.expires_in,
        usage_limit: request.usage_limit,
        ephemeral: request.ephemeral,
        allow_extra_dns_labels: request.allow_extra_dns_labels,
        auto_groups: request.auto_groups,
    };
    let (key, text) = app.store.create_setup_key(&caller.actor(), new).await?;
    let fingerprint = app.control_fingerprint.as_deref().map(str::to_owned);
    Ok(Json(SetupKey { key: text, control_fingerprint: fingerprint, ..shape(key) }))
}

/// Changes the auto groups, or takes the key back.
#[utoipa::path(put, path = "/api/setup-keys/{keyId}", tag = "Setup Keys", params(("keyId" = String, Path)),
    request_body = SetupKeyRequest, responses((status = 200, body = SetupKey)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<SetupKeyRequest>,
) -> ApiResult<SetupKey> {
    let key = app.store.update_setup_key(&caller.actor(), &id, request.revoked, &request.auto_groups).await?;
    Ok(Json(shape(key)))
}

/// Deletes a setup key; the peers it made stay.
#[utoipa::path(delete, path = "/api/setup-keys/{keyId}", tag = "Setup Keys", params(("keyId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.delete_setup_key(&caller.actor(), &id).await?;
    Ok(Json(Empty {}))
}

fn shape(key: store::SetupKey) -> SetupKey {
    let state = key.state(now());
    SetupKey {
        id: key.id,
        key: key.masked,
        name: key.name,
        expires: rfc3339_or_never(key.expires_at),
        kind: if key.reusable { "reusable" } else { "one-off" }.into(),
        valid: state == SetupKeyState::Valid,
        revoked: key.revoked,
        used_times: key.used_times,
        last_used: rfc3339_or_never(key.last_used),
        state: state.as_str().into(),
        auto_groups: key.auto_groups,
        updated_at: rfc3339(key.updated_at),
        usage_limit: key.usage_limit,
        ephemeral: key.ephemeral,
        allow_extra_dns_labels: key.allow_extra_dns_labels,
        control_fingerprint: None,
    }
}
