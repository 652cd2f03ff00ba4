//! `/api/login` and `/api/logout`: how people get in, and out.

use axum::Json;
use axum::extract::State;
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::{self, Caller};
use super::body::Body;
use super::error::{ApiError, ApiResult};
use super::sessions::Asker;
use super::time::rfc3339;
use crate::app::App;
use crate::identity::oidc::{OidcOptions, TokenError};
use crate::store::{User, Via};

/// How people log in here.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginMethods {
    /// The identity provider, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<LoginProvider>,
    /// Whether there are built-in users (`POST /api/login/password`).
    pub passwords: bool,
    /// Whether these log in with one-time codes only.
    pub codes_required: bool,
    /// SHA-256 of the authority that agents are to pin (`sluicegate-gateway join --login --fingerprint`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_fingerprint: Option<String>,
}

/// What a program needs to log somebody in at the identity provider. It finds the rest in the issuer's discovery document.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginProvider {
    /// The provider.
    pub issuer: String,
    /// The client that command lines are there: a public one, with PKCE.
    pub client_id: String,
    /// What to ask for.
    pub scopes: String,
    /// The web page that people log in on, where one is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<LoginDashboard>,
}

/// What a web page needs to log somebody in beside issuer and scopes: by the code flow with PKCE, and then `POST /api/login/oidc`
/// with ID token and nonce.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginDashboard {
    /// The client that the page is at the provider: a public one, with PKCE.
    pub client_id: String,
    /// Where the provider sends browsers back to: those of the page that asks, by its `Origin`; all where it says none.
    pub redirect_uris: Vec<String>,
}

/// The identity provider's word for who logs in.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct OidcLoginRequest {
    /// The ID token.
    pub token: String,
    /// What the login was begun with; left out, it is not looked at.
    pub nonce: Option<String>,
}

/// A login.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoggedIn {
    /// `sgs_…`, for `Authorization: Bearer`; shown only here.
    pub token: String,
    /// RFC 3339.
    pub expires_at: String,
    /// User id.
    pub user_id: String,
}

pub(super) fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(methods)).routes(routes!(oidc))
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(logout)).routes(routes!(machine))
}

/// How people log in here.
#[utoipa::path(get, path = "/api/login", tag = "Login", responses((status = 200, body = LoginMethods)))]
async fn methods(State(app): State<App>, headers: HeaderMap) -> ApiResult<LoginMethods> {
    let origin = headers.get(ORIGIN).and_then(|value| value.to_str().ok());
    let oidc = app.identity.provider().map(|provider| {
        let options = provider.options();
        LoginProvider {
            issuer: options.issuer.clone(),
            client_id: options.client_id.clone(),
            scopes: options.scopes.clone(),
            dashboard: dashboard(options, origin),
        }
    });
    let passwords = app.identity.local_users().enabled;
    let codes_required = passwords && app.store.account().await?.settings.local_mfa_enabled;
    let control_fingerprint = app.control_fingerprint.as_deref().map(str::to_owned);
    Ok(Json(LoginMethods { oidc, passwords, codes_required, control_fingerprint }))
}

/// What is said of the dashboard to a page of this origin.
fn dashboard(options: &OidcOptions, origin: Option<&str>) -> Option<LoginDashboard> {
    let redirect_uris = options.dashboard.as_ref()?.redirect_uris.iter();
    let own = |uri: &&String| {
        let of = reqwest::Url::parse(uri).map(|uri| uri.origin().ascii_serialization());
        origin.is_none_or(|origin| of.is_ok_and(|of| of == origin))
    };
    Some(LoginDashboard {
        client_id: options.dashboard_client()?.to_owned(),
        redirect_uris: redirect_uris.filter(own).cloned().collect(),
    })
}

/// Exchanges the identity provider's ID token for a login of some hours.
#[utoipa::path(post, path = "/api/login/oidc", tag = "Login", request_body = OidcLoginRequest,
    responses((status = 200, body = LoggedIn)))]
async fn oidc(
    State(app): State<App>,
    from: Asker,
    Body(request): Body<OidcLoginRequest>,
) -> ApiResult<LoggedIn> {
    let claims = app.identity.verify(&request.token).await.map_err(refused)?;
    if let Some(nonce) = &request.nonce {
        let own = claims.nonce.as_deref().unwrap_or_default();
        if !bool::from(own.as_bytes().ct_eq(nonce.as_bytes())) {
            return Err(ApiError::unauthorized("token invalid: it is of another login (its nonce differs)"));
        }
    }
    let user = app.store.sign_in(&claims.person, |claim| claims.groups_at_login(claim)).await?;
    Ok(Json(log_in(&app, &user, from.by("oidc")).await?))
}

/// Ends the login that asks. A personal access token is no login, and stays.
#[utoipa::path(post, path = "/api/logout", tag = "Login", responses((status = 200, body = Empty)))]
async fn logout(State(app): State<App>, headers: HeaderMap) -> ApiResult<Empty> {
    app.store.end_session(auth::token(&headers)?).await?;
    Ok(Json(Empty {}))
}

/// A key for one machine of the user who asks.
#[derive(Serialize, ToSchema)]
pub struct MachineKey {
    /// `sgj_…`, in the place of a setup key; shown only here.
    pub key: String,
    /// RFC 3339.
    pub expires_at: String,
    /// SHA-256 of the authority that agents are to pin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_fingerprint: Option<String>,
}

/// Makes a key by which one machine joins as the own one, once and within ten minutes. A personal access token is not enough for
/// that: the login on a machine is as good as the one it was made with.
#[utoipa::path(post, path = "/api/login/machine", tag = "Login", responses((status = 200, body = MachineKey)))]
async fn machine(State(app): State<App>, caller: Caller) -> ApiResult<MachineKey> {
    // A service user has no login, and setup keys: that is said to it.
    if !caller.user.is_service_user {
        caller.needs_login()?;
    }
    let (key, expires_at) = app.store.create_join_key(&caller.user).await?;
    Ok(Json(MachineKey {
        key,
        expires_at: rfc3339(expires_at),
        control_fingerprint: app.control_fingerprint.as_deref().map(str::to_owned),
    }))
}

/// A new login of a user who has proved to be it.
pub(super) async fn log_in(app: &App, user: &User, via: Via) -> Result<LoggedIn, ApiError> {
    let (session, token) = app.store.create_session(user, &via).await?;
    Ok(LoggedIn { token, expires_at: rfc3339(session.expires_at), user_id: session.user_id })
}

/// Why a token of the provider opens nothing.
pub(super) fn refused(error: TokenError) -> ApiError {
    let status = match error {
        TokenError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    };
    ApiError::new(status, format!("token invalid: {error}"))
}
