//! `/api/users/{id}/sessions`: where a user is logged in, and how to end that.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::{self, Caller};
use super::error::{ApiError, ApiResult};
use super::limits::Client;
use super::time::rfc3339;
use crate::app::App;
use crate::store::{self, Source, Via, may_grant};

/// Longest name of a program that is kept, in characters.
const CLIENT_MAX: usize = 200;

/// A login.
#[derive(Serialize, ToSchema)]
pub struct UserSession {
    /// Its id; the token is not shown again.
    pub id: String,
    /// Whether it is the one that asks.
    pub is_current: bool,
    /// `password` or `oidc`; empty for one of an earlier version.
    pub method: String,
    /// The address it was made from; empty where that is not known.
    pub address: String,
    /// The program it was made by, as that calls itself (`User-Agent`).
    pub client: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub expires_at: String,
    /// RFC 3339, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
}

/// From where and by which program somebody asks.
pub(super) struct Asker {
    address: Option<IpAddr>,
    client: String,
}

impl Asker {
    /// What its attempts are counted by.
    pub(super) fn source(&self) -> Source {
        Source::of(self.address)
    }

    /// A login from there.
    pub(super) fn by(self, method: &'static str) -> Via {
        let address = self.address.map(|address| address.to_canonical().to_string()).unwrap_or_default();
        Via { method: method.into(), address, client: self.client }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let address = parts.extensions.get::<Client>().and_then(|client| client.0);
        let client = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Asker { address, client: client.chars().take(CLIENT_MAX).collect() })
    }
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(end))
}

/// Where a user is logged in, the newest first: oneself, or a user of no higher role.
#[utoipa::path(get, path = "/api/users/{userId}/sessions", tag = "Users", params(("userId" = String, Path)),
    responses((status = 200, body = [UserSession])))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Path(user): Path<String>,
) -> ApiResult<Vec<UserSession>> {
    allowed(&app, &caller, &user).await?;
    let current = app.store.session_id(auth::token(&headers)?).await?;
    let sessions = app.store.sessions(&user).await?.into_iter();
    Ok(Json(sessions.map(|session| shape(session, current.as_deref())).collect()))
}

/// Ends a login, whose token opens nothing from then on.
#[utoipa::path(delete, path = "/api/users/{userId}/sessions/{sessionId}", tag = "Users",
    params(("userId" = String, Path), ("sessionId" = String, Path)), responses((status = 200, body = Empty)))]
async fn end(
    State(app): State<App>,
    caller: Caller,
    Path((user, id)): Path<(String, String)>,
) -> ApiResult<Empty> {
    allowed(&app, &caller, &user).await?;
    app.store.end_session_of(&caller.user, &user, &id).await?;
    Ok(Json(Empty {}))
}

async fn allowed(app: &App, caller: &Caller, id: &str) -> Result<(), ApiError> {
    if caller.user.id == id {
        return Ok(());
    }
    if caller.own_only() {
        return Err(ApiError::forbidden("only the own logins can be seen and ended"));
    }
    Ok(may_grant(&caller.user, app.store.user(id).await?.role)?)
}

fn shape(session: store::Session, current: Option<&str>) -> UserSession {
    UserSession {
        is_current: current == Some(session.id.as_str()),
        id: session.id,
        method: session.method,
        address: session.address,
        client: session.client,
        created_at: rfc3339(session.created_at),
        expires_at: rfc3339(session.expires_at),
        last_used: session.last_used.map(rfc3339),
    }
}
