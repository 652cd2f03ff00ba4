//! `/api/users`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use super::roles::permissions;
use super::time::rfc3339_or_never;
use crate::app::App;
use crate::store::{self, NewUser, UserChange, UserRole};

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub struct User {
    /// User id.
    pub id: String,
    /// Empty for service users.
    pub email: String,
    /// Display name.
    pub name: String,
    /// What it may do.
    pub role: UserRole,
    /// `active`, `invited` or `blocked`.
    pub status: String,
    /// RFC 3339; the year 1 for never.
    pub last_login: String,
    /// Group ids its peers are put into.
    pub auto_groups: Vec<String>,
    /// Whether it is who asks.
    pub is_current: bool,
    /// Whether it is a program.
    pub is_service_user: bool,
    /// A blocked user's tokens open nothing.
    pub is_blocked: bool,
    /// Whether somebody has to approve it before it may do anything.
    pub pending_approval: bool,
    /// Always `api`.
    pub issued: String,
    /// What the role may do; only of the user who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<UserPermissions>,
}

/// What a role may do.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserPermissions {
    /// Whether the account's `regular_users_view_blocked` keeps every view from the user; otherwise role `user` sees its own peers.
    pub is_restricted: bool,
    /// By part of the API: read, create, update, delete.
    pub modules: BTreeMap<String, BTreeMap<String, bool>>,
}

/// A user to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct UserCreateRequest {
    /// Needed unless it is a service user.
    pub email: String,
    /// Display name.
    pub name: String,
    /// `admin`, `network_admin`, `auditor` or `user`.
    pub role: String,
    /// Group ids.
    pub auto_groups: Vec<String>,
    /// Whether it is a program.
    pub is_service_user: bool,
}

/// What a user is to become.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct UserRequest {
    /// `owner` hands the caller's own role over.
    pub role: String,
    /// Group ids.
    pub auto_groups: Vec<String>,
    /// Whether its tokens open nothing; left out, as before.
    pub is_blocked: Option<bool>,
}

/// Filter of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UserQuery {
    /// Only service users, or only people.
    service_user: Option<bool>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .routes(routes!(current))
        .routes(routes!(get, update, delete))
        .routes(routes!(approve))
        .routes(routes!(reject))
}

/// Users; of role `user`, only itself.
#[utoipa::path(get, path = "/api/users", tag = "Users", params(UserQuery), responses((status = 200, body = [User])))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<UserQuery>,
) -> ApiResult<Vec<User>> {
    let users = app.store.users().await?.into_iter().filter(|user| {
        query.service_user.is_none_or(|wanted| wanted == user.is_service_user)
            && (!caller.own_only() || user.id == caller.user.id)
    });
    let blocked = blocked(&app, &caller).await?;
    Ok(Json(users.map(|user| shape(user, &caller, blocked)).collect()))
}

/// The user who asks.
#[utoipa::path(get, path = "/api/users/current", tag = "Users", responses((status = 200, body = User)))]
async fn current(State(app): State<App>, caller: Caller) -> ApiResult<User> {
    let user = app.store.user(&caller.user.id).await?;
    Ok(Json(shape(user, &caller, blocked(&app, &caller).await?)))
}

/// One user; of role `user`, only itself.
#[utoipa::path(get, path = "/api/users/{userId}", tag = "Users", params(("userId" = String, Path)),
    responses((status = 200, body = User)))]
async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<User> {
    if caller.own_only() && id != caller.user.id {
        return Err(ApiError::forbidden("only the own user can be seen"));
    }
    Ok(Json(shape(app.store.user(&id).await?, &caller, blocked(&app, &caller).await?)))
}

/// Creates a user: a service user, or one whom an identity provider will know by the e-mail address.
#[utoipa::path(post, path = "/api/users", tag = "Users", request_body = UserCreateRequest,
    responses((status = 200, body = User)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<UserCreateRequest>,
) -> ApiResult<User> {
    let new = NewUser {
        name: request.name,
        email: request.email,
        role: role(&request.role)?,
        is_service_user: request.is_service_user,
        auto_groups: request.auto_groups,
    };
    let user = app.store.create_user(&caller.user, new).await?;
    Ok(Json(shape(user, &caller, blocked(&app, &caller).await?)))
}

/// Changes role, auto groups and block.
#[utoipa::path(put, path = "/api/users/{userId}", tag = "Users", params(("userId" = String, Path)),
    request_body = UserRequest, responses((status = 200, body = User)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<UserRequest>,
) -> ApiResult<User> {
    let change = UserChange {
        role: role(&request.role)?,
        blocked: request.is_blocked,
        auto_groups: request.auto_groups,
    };
    let user = app.store.update_user(&caller.user, &id, change).await?;
    Ok(Json(shape(user, &caller, blocked(&app, &caller).await?)))
}

/// Admits a user who waits for approval.
#[utoipa::path(post, path = "/api/users/{userId}/approve", tag = "Users", params(("userId" = String, Path)),
    responses((status = 200, body = User)))]
async fn approve(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<User> {
    let user = app.store.approve_user(&caller.user, &id).await?;
    Ok(Json(shape(user, &caller, blocked(&app, &caller).await?)))
}

/// Removes a user who waits for approval.
#[utoipa::path(delete, path = "/api/users/{userId}/reject", tag = "Users", params(("userId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn reject(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.reject_user(&caller.user, &id).await?;
    Ok(Json(Empty {}))
}

/// Deletes a user with its tokens and peers; refused while a router or a policy names one of those.
#[utoipa::path(delete, path = "/api/users/{userId}", tag = "Users", params(("userId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.delete_user(&caller.user, &id).await?;
    Ok(Json(Empty {}))
}

pub(super) fn role(text: &str) -> Result<UserRole, ApiError> {
    UserRole::parse(text).ok_or_else(|| {
        ApiError::invalid(format!("role {text:?} is unknown: owner, admin, network_admin, auditor or user"))
    })
}

/// Whether the account's settings keep every view from the user who asks.
async fn blocked(app: &App, caller: &Caller) -> Result<bool, ApiError> {
    Ok(caller.user.role == UserRole::User && app.store.account().await?.settings.regular_users_view_blocked)
}

fn shape(user: store::User, caller: &Caller, blocked: bool) -> User {
    let is_current = user.id == caller.user.id;
    let status = match (user.blocked, user.invited) {
        (true, _) => "blocked",
        (false, true) => "invited",
        (false, false) => "active",
    };
    User {
        permissions: is_current
            .then(|| UserPermissions { is_restricted: blocked, modules: permissions(user.role) }),
        id: user.id,
        email: user.email,
        name: user.name,
        role: user.role,
        status: status.into(),
        last_login: rfc3339_or_never(user.last_login),
        auto_groups: user.auto_groups,
        is_current,
        is_service_user: user.is_service_user,
        is_blocked: user.blocked,
        pending_approval: user.pending_approval,
        issued: "api".into(),
    }
}
