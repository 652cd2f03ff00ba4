//! `/api/instance` and `/api/setup`: what an installer asks before it has a token.

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use super::local_users::served;
use crate::app::App;
use crate::store::{Actor, FirstUser, UserRole};

/// Whether this server still has to be set up.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceStatus {
    /// Whether there are built-in users, and nobody is one yet: the first start makes the account and a service user that owns it.
    pub setup_required: bool,
}

/// The first person.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct SetupRequest {
    /// E-mail address, by which the user logs in.
    pub email: String,
    /// 12 to 256 characters.
    pub password: String,
    /// Display name; the address where it is empty.
    pub name: String,
    /// Whether a personal access token is made as well.
    pub create_pat: bool,
    /// Days that it lives, 1 to 365; one where nothing is said.
    pub pat_expire_in: Option<i64>,
}

/// The first person is there.
#[derive(Serialize, ToSchema)]
pub struct SetupResponse {
    /// User id.
    pub user_id: String,
    /// E-mail address.
    pub email: String,
    /// `nbp_…`, if one was asked for; shown only here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personal_access_token: Option<String>,
}

/// Version of this server.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceVersionInfo {
    /// The version that runs.
    pub management_current_version: String,
    /// Always false: this server looks nothing up elsewhere.
    pub management_update_available: bool,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(status)).routes(routes!(version)).routes(routes!(set_up))
}

/// Whether this server still has to be set up.
#[utoipa::path(get, path = "/api/instance", tag = "Instance", responses((status = 200, body = InstanceStatus)))]
async fn status(State(app): State<App>) -> ApiResult<InstanceStatus> {
    let enabled = app.identity.local_users().enabled;
    Ok(Json(InstanceStatus { setup_required: enabled && app.store.needs_set_up().await? }))
}

/// Makes the first person, who becomes the owner; the service user that was it is an admin from then on. Unless `[local_users]
/// open_setup` says otherwise, the request carries that service user's token.
#[utoipa::path(post, path = "/api/setup", tag = "Instance", request_body = SetupRequest,
    responses((status = 200, body = SetupResponse)))]
async fn set_up(
    State(app): State<App>,
    headers: HeaderMap,
    Body(request): Body<SetupRequest>,
) -> Result<Response, ApiError> {
    served(&app)?;
    let done = || ApiError::new(StatusCode::PRECONDITION_FAILED, "setup already completed");
    if !app.store.needs_set_up().await? {
        return Err(done());
    }
    let actor = match auth::token_user(&app, &headers).await? {
        Some(user) if user.role == UserRole::Owner => user.actor(),
        Some(_) => return Err(ApiError::forbidden("only the owner's token sets this server up")),
        None if app.identity.local_users().open_setup => Actor::system(),
        None => {
            return Err(ApiError::unauthorized(
                "no valid authentication provided: send the token in the file bootstrap-token of control's data directory, \
                 or set [local_users] open_setup in its configuration",
            ));
        }
    };
    let first = FirstUser {
        email: request.email,
        name: request.name,
        password: request.password,
        token_days: request.create_pat.then(|| request.pat_expire_in.unwrap_or(1)),
    };
    let (user, personal_access_token) = app.store.set_up(&actor, first).await?.ok_or_else(done)?;
    let answer = SetupResponse { user_id: user.id, email: user.email, personal_access_token };
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// Version of this server.
#[utoipa::path(get, path = "/api/instance/version", tag = "Instance",
    responses((status = 200, body = InstanceVersionInfo)))]
async fn version() -> Json<InstanceVersionInfo> {
    Json(InstanceVersionInfo {
        management_current_version: env!("CARGO_PKG_VERSION").into(),
        management_update_available: false,
    })
}
