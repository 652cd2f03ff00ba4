//! `/api/users/{userId}/tokens`.

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
use super::time::rfc3339;
use crate::app::App;
use crate::store::{self, may_grant};

/// A personal access token without its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonalAccessToken {
    /// Token id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// RFC 3339.
    pub expiration_date: String,
    /// User id.
    pub created_by: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339, to the minute; absent before the first use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
}

/// A new token with its text, which is shown only here.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonalAccessTokenGenerated {
    /// `nbp_…`
    pub plain_token: String,
    /// The token.
    pub personal_access_token: PersonalAccessToken,
}

/// A token to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct PersonalAccessTokenRequest {
    /// Display name.
    pub name: String,
    /// Days, 1 to 365.
    pub expires_in: i64,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(get, delete))
}

/// The tokens of a user.
#[utoipa::path(get, path = "/api/users/{userId}/tokens", tag = "Tokens", params(("userId" = String, Path)),
    responses((status = 200, body = [PersonalAccessToken])))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(user): Path<String>,
) -> ApiResult<Vec<PersonalAccessToken>> {
    allowed(&app, &caller, &user).await?;
    Ok(Json(app.store.tokens(&user).await?.into_iter().map(shape).collect()))
}

/// One token.
#[utoipa::path(get, path = "/api/users/{userId}/tokens/{tokenId}", tag = "Tokens",
    params(("userId" = String, Path), ("tokenId" = String, Path)), responses((status = 200, body = PersonalAccessToken)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path((user, id)): Path<(String, String)>,
) -> ApiResult<PersonalAccessToken> {
    allowed(&app, &caller, &user).await?;
    Ok(Json(shape(app.store.token(&user, &id).await?)))
}

/// Creates a token for oneself, or for a service user of no higher role.
#[utoipa::path(post, path = "/api/users/{userId}/tokens", tag = "Tokens", params(("userId" = String, Path)),
    request_body = PersonalAccessTokenRequest, responses((status = 200, body = PersonalAccessTokenGenerated)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(user): Path<String>,
    Body(request): Body<PersonalAccessTokenRequest>,
) -> ApiResult<PersonalAccessTokenGenerated> {
    allowed(&app, &caller, &user).await?;
    let (token, plain_token) =
        app.store.create_token(&caller.user, &user, &request.name, request.expires_in).await?;
    Ok(Json(PersonalAccessTokenGenerated { plain_token, personal_access_token: shape(token) }))
}

/// Deletes a token, which opens nothing from then on.
#[utoipa::path(delete, path = "/api/users/{userId}/tokens/{tokenId}", tag = "Tokens",
    params(("userId" = String, Path), ("tokenId" = String, Path)), responses((status = 200, body = Empty)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((user, id)): Path<(String, String)>,
) -> ApiResult<Empty> {
    allowed(&app, &caller, &user).await?;
    app.store.delete_token(&caller.user, &user, &id).await?;
    Ok(Json(Empty {}))
}

/// A token acts as its user: nobody handles those of people, nor those of a role above the own.
async fn allowed(app: &App, caller: &Caller, id: &str) -> Result<(), ApiError> {
    if caller.user.id == id {
        return Ok(());
    }
    if caller.own_only() {
        return Err(ApiError::forbidden("only the own tokens can be seen and changed"));
    }
    let user = app.store.user(id).await?;
    if !user.is_service_user {
        return Err(ApiError::forbidden("tokens of other people cannot be seen or changed"));
    }
    Ok(may_grant(&caller.user, user.role)?)
}

fn shape(token: store::Token) -> PersonalAccessToken {
    PersonalAccessToken {
        id: token.id,
        name: token.name,
        expiration_date: rfc3339(token.expires_at),
        created_by: token.created_by,
        created_at: rfc3339(token.created_at),
        last_used: token.last_used.map(rfc3339),
    }
}
