//! Built-in users: `/api/login/password`, passwords and one-time codes.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult, ErrorResponse};
use super::login::{LoggedIn, log_in};
use super::sessions::Asker;
use crate::app::App;

/// Who logs in.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct PasswordLoginRequest {
    /// E-mail address.
    pub email: String,
    /// Password.
    pub password: String,
    /// One-time code, of a user who has them.
    pub code: String,
}

/// Who makes a secret for the first one-time codes, at the login.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct FirstCodesRequest {
    /// E-mail address.
    pub email: String,
    /// Password.
    pub password: String,
}

/// Another password.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct PasswordChangeRequest {
    /// The one that is good now.
    pub old_password: String,
    /// 12 to 256 characters.
    pub new_password: String,
}

/// A secret for one-time codes.
#[derive(Serialize, ToSchema)]
pub struct OneTimeCodes {
    /// `otpauth://totp/…`, for an authenticator; shown only here.
    pub url: String,
}

/// A one-time code.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct OneTimeCode {
    /// Six digits.
    pub code: String,
}

/// Who begins the own one-time codes, or switches them off.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct OwnPassword {
    /// The own password; of another user's codes it is not asked for.
    pub password: String,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(change_password))
        .routes(routes!(begin_codes, end_codes))
        .routes(routes!(confirm_codes))
}

pub(super) fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(password)).routes(routes!(first_codes))
}

/// Logs a built-in user in. Whatever is wrong, the answer is the same. Where the account asks for one-time codes of everybody, who has none
/// and shows the right password is answered 428.
#[utoipa::path(post, path = "/api/login/password", tag = "Login", request_body = PasswordLoginRequest,
    responses((status = 200, body = LoggedIn),
        (status = 428, description = "The password is right, and a one-time code needed that the user has none for yet", body = ErrorResponse)))]
async fn password(
    State(app): State<App>,
    from: Asker,
    Body(request): Body<PasswordLoginRequest>,
) -> ApiResult<LoggedIn> {
    served(&app)?;
    let PasswordLoginRequest { email, password, code } = request;
    match app.store.password_login(&from.source(), &email, &password, &code).await? {
        Some(user) => Ok(Json(log_in(&app, &user, from.by("password")).await?)),
        None => Err(failed()),
    }
}

/// Makes a secret for the one-time codes of a user who cannot log in without and has none yet; a login with the first code of it switches
/// them on. Whatever is wrong, the answer is that of a login.
#[utoipa::path(post, path = "/api/login/password/totp", tag = "Login", request_body = FirstCodesRequest,
    responses((status = 200, body = OneTimeCodes)))]
async fn first_codes(
    State(app): State<App>,
    from: Asker,
    Body(request): Body<FirstCodesRequest>,
) -> ApiResult<OneTimeCodes> {
    served(&app)?;
    let FirstCodesRequest { email, password } = request;
    match app.store.begin_first_codes(&from.source(), &email, &password).await? {
        Some(url) => Ok(Json(OneTimeCodes { url })),
        None => Err(failed()),
    }
}

fn failed() -> ApiError {
    ApiError::unauthorized(
        "login failed: address, password or one-time code is wrong, or there were too many attempts: wait a while then",
    )
}

/// Changes the own password; every login of the user ends.
#[utoipa::path(put, path = "/api/users/{userId}/password", tag = "Users", params(("userId" = String, Path)),
    request_body = PasswordChangeRequest, responses((status = 200, body = Empty)))]
async fn change_password(
    State(app): State<App>,
    caller: Caller,
    from: Asker,
    Path(id): Path<String>,
    Body(request): Body<PasswordChangeRequest>,
) -> ApiResult<Empty> {
    own(&app, &caller, &id).await?;
    served(&app)?;
    let PasswordChangeRequest { old_password, new_password } = request;
    app.store.change_password(&caller.user, &from.source(), &old_password, &new_password).await?;
    Ok(Json(Empty {}))
}

/// Makes a secret for the own one-time codes, given the password; they are asked for once one of them was shown.
#[utoipa::path(post, path = "/api/users/{userId}/totp", tag = "Users", params(("userId" = String, Path)),
    request_body = OwnPassword, responses((status = 200, body = OneTimeCodes)))]
async fn begin_codes(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<OwnPassword>,
) -> ApiResult<OneTimeCodes> {
    own(&app, &caller, &id).await?;
    served(&app)?;
    Ok(Json(OneTimeCodes { url: app.store.begin_codes(&caller.user, &request.password).await? }))
}

/// Switches one-time codes on.
#[utoipa::path(post, path = "/api/users/{userId}/totp/confirm", tag = "Users", params(("userId" = String, Path)),
    request_body = OneTimeCode, responses((status = 200, body = Empty)))]
async fn confirm_codes(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<OneTimeCode>,
) -> ApiResult<Empty> {
    own(&app, &caller, &id).await?;
    served(&app)?;
    app.store.confirm_codes(&caller.user, &request.code).await?;
    Ok(Json(Empty {}))
}

/// Switches one-time codes off: the own ones, or those of somebody who lost the device. Where they are asked of everybody, every login of the
/// user ends.
#[utoipa::path(delete, path = "/api/users/{userId}/totp", tag = "Users", params(("userId" = String, Path)),
    request_body = OwnPassword, responses((status = 200, body = Empty)))]
async fn end_codes(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<OwnPassword>,
) -> ApiResult<Empty> {
    if caller.user.id == id {
        caller.needs_login()?;
        served(&app)?;
        app.store.end_own_codes(&caller.user, &request.password).await?;
    } else if caller.own_only() {
        return Err(ApiError::forbidden("only the own one-time codes can be switched off"));
    } else {
        served(&app)?;
        caller.needs_login_for(&app.store.user(&id).await?)?;
        app.store.end_codes_of(&caller.user, &id).await?;
    }
    Ok(Json(Empty {}))
}

/// Nobody handles the password and codes of others, nor with a token that was made long ago.
async fn own(app: &App, caller: &Caller, id: &str) -> Result<(), ApiError> {
    if caller.user.id == id {
        return caller.needs_login();
    }
    if !caller.own_only() {
        app.store.user(id).await?;
    }
    Err(ApiError::forbidden("only the own password and codes can be changed"))
}

/// Refuses where there are no built-in users, as NetBird does without its own identity provider.
pub(super) fn served(app: &App) -> Result<(), ApiError> {
    match app.identity.local_users().enabled {
        true => Ok(()),
        false => Err(ApiError::new(
            StatusCode::PRECONDITION_FAILED,
            "there are no built-in users here: [local_users] enabled is not set in control's configuration",
        )),
    }
}
