//! `/api/users/invites`: invitations of built-in users by a link, which is for whoever invites to pass on: no mail is sent.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::Caller;
use super::body::{Body, BodyIfAny};
use super::error::{ApiError, ApiResult, ErrorResponse};
use super::local_users::served;
use super::sessions::Asker;
use super::time::rfc3339;
use super::users::role;
use crate::app::App;
use crate::ids::now;
use crate::store::{self, NewInvite, UserRole};

/// An invitation of a built-in user.
#[derive(Serialize, ToSchema)]
pub struct UserInvite {
    /// Its id.
    pub id: String,
    /// Whom it is for.
    pub email: String,
    /// Display name.
    pub name: String,
    /// What the user may do.
    pub role: UserRole,
    /// Group ids.
    pub auto_groups: Vec<String>,
    /// RFC 3339.
    pub expires_at: String,
    /// RFC 3339.
    pub created_at: String,
    /// Whether it is good no more.
    pub expired: bool,
    /// The user whose password it sets; without one it makes a new user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// `nbi_…`, which opens it; shown only here, after it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite_token: Option<String>,
}

/// An invitation to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct UserInviteCreateRequest {
    /// Whom it is for.
    pub email: String,
    /// Display name.
    pub name: String,
    /// `admin`, `network_admin`, `auditor` or `user`.
    pub role: String,
    /// Group ids.
    pub auto_groups: Vec<String>,
    /// Seconds, an hour to 30 days; three days where nothing is said.
    pub expires_in: Option<i64>,
}

/// Another secret for an invitation.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct UserInviteRegenerateRequest {
    /// Seconds, as when it was made.
    pub expires_in: Option<i64>,
}

/// Another secret of an invitation.
#[derive(Serialize, ToSchema)]
pub struct UserInviteRegenerateResponse {
    /// `nbi_…`; shown only here.
    pub invite_token: String,
    /// RFC 3339.
    pub invite_expires_at: String,
}

/// What an invitation says to who has it.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserInviteInfo {
    /// Whom it is for.
    pub email: String,
    /// Display name.
    pub name: String,
    /// RFC 3339.
    pub expires_at: String,
    /// Whether it is still good.
    pub valid: bool,
    /// The name of who invited.
    pub invited_by: String,
}

/// The password of somebody who accepts.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct UserInviteAcceptRequest {
    /// 12 to 256 characters.
    pub password: String,
}

/// Somebody has accepted.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserInviteAcceptResponse {
    /// Always true.
    pub success: bool,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .routes(routes!(take_back))
        .routes(routes!(regenerate))
        .routes(routes!(invite_user))
}

pub(super) fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(show)).routes(routes!(accept))
}

/// Invitations that nobody has accepted.
#[utoipa::path(get, path = "/api/users/invites", tag = "Users", responses((status = 200, body = [UserInvite])))]
async fn list(State(app): State<App>, caller: Caller) -> ApiResult<Vec<UserInvite>> {
    if caller.own_only() {
        return Err(ApiError::forbidden("invitations are seen by who sees all users"));
    }
    served(&app)?;
    Ok(Json(app.store.invites().await?.into_iter().map(|invite| shape(invite, None)).collect()))
}

/// Invites a built-in user, who is made when the link is used.
#[utoipa::path(post, path = "/api/users/invites", tag = "Users", request_body = UserInviteCreateRequest,
    responses((status = 200, body = UserInvite)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<UserInviteCreateRequest>,
) -> ApiResult<UserInvite> {
    served(&app)?;
    let new = NewInvite {
        email: request.email,
        name: request.name,
        role: role(&request.role)?,
        auto_groups: request.auto_groups,
        expires_in: request.expires_in,
    };
    let (invite, secret) = app.store.create_invite(&caller.user, new).await?;
    Ok(Json(shape(invite, Some(secret))))
}

/// Gives a user who is there a link by which it sets a password: one who has not come yet, or has forgotten it.
#[utoipa::path(post, path = "/api/users/{userId}/invite", tag = "Users", params(("userId" = String, Path)),
    responses((status = 200, body = UserInvite)))]
async fn invite_user(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> ApiResult<UserInvite> {
    served(&app)?;
    caller.needs_login_for(&app.store.user(&id).await?)?;
    let (invite, secret) = app.store.invite_user(&caller.user, &id).await?;
    Ok(Json(shape(invite, Some(secret))))
}

/// Takes an invitation back.
#[utoipa::path(delete, path = "/api/users/invites/{inviteId}", tag = "Users", params(("inviteId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn take_back(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    served(&app)?;
    app.store.delete_invite(&caller.user, &id).await?;
    Ok(Json(Empty {}))
}

/// Gives an invitation another link; the one before opens nothing any more.
#[utoipa::path(post, path = "/api/users/invites/{inviteId}/regenerate", tag = "Users",
    params(("inviteId" = String, Path)), request_body = UserInviteRegenerateRequest,
    responses((status = 200, body = UserInviteRegenerateResponse)))]
async fn regenerate(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    BodyIfAny(request): BodyIfAny<UserInviteRegenerateRequest>,
) -> ApiResult<UserInviteRegenerateResponse> {
    served(&app)?;
    // Another link for a user who is there resets its password, too.
    if let Some(user) = app.store.invite(&id).await?.user_id {
        caller.needs_login_for(&app.store.user(&user).await?)?;
    }
    let (invite, invite_token) = app.store.renew_invite(&caller.user, &id, request.expires_in).await?;
    Ok(Json(UserInviteRegenerateResponse { invite_token, invite_expires_at: rfc3339(invite.expires_at) }))
}

/// What an invitation says to who has its link, whose secret stands for the id.
#[utoipa::path(get, path = "/api/users/invites/{inviteId}", tag = "Users", params(("inviteId" = String, Path)),
    responses((status = 200, body = UserInviteInfo), (status = 404, body = ErrorResponse), (status = 412, body = ErrorResponse)))]
async fn show(State(app): State<App>, Path(token): Path<String>) -> ApiResult<UserInviteInfo> {
    served(&app)?;
    let invite = app.store.invite_by_secret(&token).await?;
    Ok(Json(UserInviteInfo {
        valid: invite.expires_at > now(),
        expires_at: rfc3339(invite.expires_at),
        email: invite.email,
        name: invite.name,
        invited_by: invite.invited_by,
    }))
}

/// Accepts an invitation, whose secret stands for the id: sets the password of the user, who is made if it is a new one.
#[utoipa::path(post, path = "/api/users/invites/{inviteId}/accept", tag = "Users", params(("inviteId" = String, Path)),
    request_body = UserInviteAcceptRequest, responses((status = 200, body = UserInviteAcceptResponse)))]
async fn accept(
    State(app): State<App>,
    from: Asker,
    Path(token): Path<String>,
    Body(request): Body<UserInviteAcceptRequest>,
) -> ApiResult<UserInviteAcceptResponse> {
    served(&app)?;
    if app.store.invite_by_secret(&token).await?.expires_at <= now() {
        return Err(ApiError::new(
            StatusCode::PRECONDITION_FAILED,
            "the invitation has expired: ask for another one",
        ));
    }
    app.store.accept_invite(&from.source(), &token, &request.password).await?;
    Ok(Json(UserInviteAcceptResponse { success: true }))
}

fn shape(invite: store::Invite, invite_token: Option<String>) -> UserInvite {
    UserInvite {
        expired: invite.expires_at <= now(),
        expires_at: rfc3339(invite.expires_at),
        created_at: rfc3339(invite.created_at),
        id: invite.id,
        email: invite.email,
        name: invite.name,
        role: invite.role,
        auto_groups: invite.auto_groups,
        user_id: invite.user_id,
        invite_token,
    }
}
