//! `/api/login/device`: a machine waits for somebody to log in for it, and shows a code; who is logged in here types it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use super::time::rfc3339;
use crate::app::App;
use crate::store::{MachineLogin, StoreError};
use crate::text::fingerprint;

/// A machine's code, and what is to become of the machine.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct DeviceLoginRequest {
    /// What the machine shows; case, blanks and hyphens do not matter.
    pub code: String,
    /// Left out, the machine is shown and goes on waiting.
    pub decision: Option<Decision>,
}

/// What is to become of a machine.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It joins as one of the user who asks; or, where it is a peer already, the login on it is as of now.
    Admit,
    /// It is turned away.
    Refuse,
}

/// A machine that waits for somebody to log in for it.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceLogin {
    /// What it calls itself; of a peer, its name.
    pub hostname: String,
    /// Operating system.
    pub os: String,
    /// `peer` or `gateway`.
    pub role: String,
    /// Where it asks from; empty where that is not known.
    pub address: String,
    /// The beginning of the SHA-256 of its public key, as the machine shows it.
    pub fingerprint: String,
    /// Of a peer that is there already and whose login is to be renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<String>,
    /// Until when it waits, or may join; RFC 3339.
    pub expires_at: String,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(device))
}

/// Shows the machine that waits under a code, lets it in as one of the user who asks, or turns it away. A code is good once, for
/// ten minutes; a user types ten wrong ones at once, and one more each minute. A personal access token is not enough.
#[utoipa::path(post, path = "/api/login/device", tag = "Login", request_body = DeviceLoginRequest,
    responses((status = 200, body = DeviceLogin)))]
async fn device(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<DeviceLoginRequest>,
) -> ApiResult<DeviceLogin> {
    let user = &caller.user;
    if user.is_service_user {
        return Err(ApiError::invalid("machines of service users join with a setup key"));
    }
    caller.needs_login()?;
    app.identity.codes().attempt(&user.id).map_err(|wait| {
        let message = format!("too many wrong codes: wait {} s", wait.as_secs() + 1);
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, message)
    })?;
    let code = &request.code;
    let found = match request.decision {
        None => app.store.waiting_machine(code).await,
        Some(Decision::Admit) => app.store.admit_machine(user, code).await,
        Some(Decision::Refuse) => app.store.refuse_machine(user, code).await,
    };
    if !matches!(found, Err(StoreError::NotFound { .. })) {
        app.identity.codes().was_good(&user.id);
    }
    Ok(Json(shape(found?)))
}

fn shape(login: MachineLogin) -> DeviceLogin {
    DeviceLogin {
        hostname: login.hostname,
        os: login.os,
        role: login.role.as_str().into(),
        address: login.address,
        fingerprint: fingerprint(&login.identity_key),
        peer_id: Some(login.peer_id).filter(|id| !id.is_empty()),
        expires_at: rfc3339(login.expires_at),
    }
}
