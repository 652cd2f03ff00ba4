//! Who asks: the `Authorization` header, and the role's right to the path.

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::error::ApiError;
use super::roles::{Right, admits};
use crate::app::App;
use crate::secret::looks_like_token;
use crate::store::{Actor, StoreError, User};

/// The user who asks, and how far its right goes for this path.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user.
    pub user: User,
    /// The right; `Own` obliges the handler to narrow.
    pub right: Right,
}

impl Caller {
    /// The user as the initiator of audit events.
    pub fn actor(&self) -> Actor {
        self.user.actor()
    }

    /// Whether only the user's own objects may be seen.
    pub fn own_only(&self) -> bool {
        self.right == Right::Own
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        // Missing only where a route was served outside `authenticate`: refused, not trusted.
        parts.extensions.get().cloned().ok_or_else(|| ApiError::unauthorized(MISSING))
    }
}

const MISSING: &str = "no valid authentication provided";
const INVALID: &str = "token invalid";
const NO_JWT: &str =
    "token invalid: this server takes no JWT; send a personal access token as `Authorization: Token nbp_…`";

/// Lets a request through if its token is good and the user's role has a right to the path.
pub async fn authenticate(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let token = credentials(request.headers())?;
    let user = match app.store.authenticate(token).await {
        Ok(Some(user)) => user,
        // The user was deleted between two statements.
        Ok(None) | Err(StoreError::NotFound { .. }) => return Err(ApiError::unauthorized(INVALID)),
        Err(error) => return Err(error.into()),
    };
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some(right) = admits(user.role, request.method(), path) else {
        let message = format!("role {} may not {} {path}", user.role.as_str(), request.method());
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    };
    request.extensions_mut().insert(Caller { user, right });
    Ok(next.run(request).await)
}

/// The personal access token of a request: `Token <PAT>` or, as NetBird also takes it, `Bearer <PAT>`.
fn credentials(headers: &HeaderMap) -> Result<&str, ApiError> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, value) = header.trim().split_once(' ').unwrap_or_default();
    let value = value.trim();
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    if value.is_empty() || !(bearer || scheme.eq_ignore_ascii_case("token")) {
        return Err(ApiError::unauthorized(MISSING));
    }
    if bearer && !looks_like_token(value) {
        return Err(ApiError::unauthorized(NO_JWT));
    }
    Ok(value)
}
