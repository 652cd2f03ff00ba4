//! Who asks: the `Authorization` header, and the role's right to the path.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;

use super::error::ApiError;
use super::roles::{Right, admits, is_view};
use crate::app::App;
use crate::secret::{looks_like_session, looks_like_token};
use crate::store::{Actor, StoreError, User, UserRole};

/// How somebody proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By a personal access token, as programs do.
    Token,
    /// By a login: a session of ours or a token of the identity provider.
    Login,
}

/// The user who asks, and how far its right goes for this path.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user.
    pub user: User,
    /// How it proved that.
    pub proof: Proof,
    /// The right; `Own` obliges the handler to narrow.
    pub right: Right,
}

impl Caller {
    /// The user as the initiator of audit events.
    pub fn actor(&self) -> Actor {
        self.user.actor()
    }

    /// Refuses who proved itself by a token that was made long ago: what decides how a user logs in is changed by who logged in.
    pub fn needs_login(&self) -> Result<(), ApiError> {
        match self.proof {
            Proof::Login => Ok(()),
            Proof::Token => Err(ApiError::forbidden(
                "a personal access token cannot do this: log in, by `sluice login --user` for example",
            )),
        }
    }

    /// The same where it is about how an administrator logs in: a token of one must not open the way to another's login.
    pub fn needs_login_for(&self, target: &User) -> Result<(), ApiError> {
        match target.role >= UserRole::Admin && !target.is_service_user {
            true => self.needs_login(),
            false => Ok(()),
        }
    }

    /// Whether only the user's own objects may be seen.
    pub fn own_only(&self) -> bool {
        self.right == Right::Own
    }
}

/// The user whose personal access token a request carries, if it carries one; for routes that anyone may ask.
pub(super) async fn token_user(app: &App, headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    if !headers.contains_key(AUTHORIZATION) {
        return Ok(None);
    }
    match app.store.authenticate(token(headers)?).await? {
        Some(user) => Ok(Some(user)),
        None => Err(ApiError::unauthorized(INVALID)),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        // Missing only where a route was served outside `authenticate`: refused, not trusted.
        parts.extensions.get().cloned().ok_or_else(|| ApiError::unauthorized(MISSING))
    }
}

/// Marks the answer to somebody whose token was good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted;

const MISSING: &str = "no valid authentication provided";
const INVALID: &str = "token invalid";

/// How often a stream's right is looked at again where nothing changes: tokens expire by themselves.
const RECHECK: Duration = Duration::from_secs(60);

/// Lets a request through if its token is good and the user's role has a right to the path. An answer that is a stream
/// ends once that is no longer so.
pub async fn authenticate(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let (bearer, token) = credentials(request.headers())?;
    let demand = Demand { token: token.to_owned(), bearer, method: request.method().clone(), path };
    let caller = demand.admit(&app).await?;
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(Admitted);
    let content = response.headers().get(CONTENT_TYPE);
    if !content.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        return Ok(response);
    }
    Ok(response.map(|body| {
        Body::from_stream(body.into_data_stream().take_until(Box::pin(demand.until_refused(app))))
    }))
}

/// The user whom a token of the identity provider is about.
async fn bearer(app: &App, token: &str) -> Result<Result<Option<User>, StoreError>, ApiError> {
    let claims = app.identity.verify(token).await.map_err(super::login::refused)?;
    Ok(app.store.sign_in(&claims.person, |claim| claims.groups(claim)).await.map(Some))
}

/// What somebody with a token asks for.
struct Demand {
    token: String,
    bearer: bool,
    method: Method,
    path: String,
}

impl Demand {
    async fn admit(&self, app: &App) -> Result<Caller, ApiError> {
        let (user, proof) = self.user(app).await?;
        let Some(right) = admits(user.role, &self.method, &self.path) else {
            let message = format!("role {} may not {} {}", user.role.as_str(), self.method, self.path);
            return Err(ApiError::forbidden(message));
        };
        if is_view(right, &self.path) && app.store.account().await?.settings.regular_users_view_blocked {
            return Err(ApiError::forbidden(format!(
                "role {} may not {} {}: the account's setting regular_users_view_blocked is on; an administrator can turn it off",
                user.role.as_str(),
                self.method,
                self.path
            )));
        }
        Ok(Caller { user, proof, right })
    }

    async fn user(&self, app: &App) -> Result<(User, Proof), ApiError> {
        let token = self.token.as_str();
        let (found, proof) = if looks_like_session(token) {
            (app.store.session_user(token).await, Proof::Login)
        } else if looks_like_token(token) || !self.bearer {
            (app.store.authenticate(token).await, Proof::Token)
        } else {
            (bearer(app, token).await?, Proof::Login)
        };
        match found {
            Ok(Some(user)) => Ok((user, proof)),
            // The user was deleted between two statements.
            Ok(None) | Err(StoreError::NotFound { .. }) => Err(ApiError::unauthorized(INVALID)),
            Err(error) => Err(error.into()),
        }
    }

    /// Resolves when the token is deleted or expired, its user blocked or deleted, or the role's right gone.
    async fn until_refused(self, app: App) {
        let mut changes = app.store.changes();
        loop {
            changes.mark_unchanged();
            match self.admit(&app).await {
                Err(error) if error.is_refusal() => return,
                // A store that cannot be read just now takes no right away.
                _ => {}
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RECHECK) => {}
            }
        }
    }
}

/// The token of a request, and whether it may be one of the identity provider: `Token <PAT>`, `Bearer <JWT>` or, as NetBird
/// also takes it, `Bearer <PAT>`.
fn credentials(headers: &HeaderMap) -> Result<(bool, &str), ApiError> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, value) = header.trim().split_once(' ').unwrap_or_default();
    let value = value.trim();
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    if value.is_empty() || !(bearer || scheme.eq_ignore_ascii_case("token")) {
        return Err(ApiError::unauthorized(MISSING));
    }
    Ok((bearer, value))
}

/// The token of a request that has one.
pub(super) fn token(headers: &HeaderMap) -> Result<&str, ApiError> {
    credentials(headers).map(|(_, token)| token)
}
