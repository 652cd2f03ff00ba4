//! `/api/accounts`.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use super::fixed;
use super::time::rfc3339;
use crate::app::App;
use crate::store::{self, Settings, StoreError};

/// The account.
#[derive(Debug, Serialize, ToSchema)]
pub struct Account {
    /// Account id.
    pub id: String,
    /// Its settings.
    pub settings: Settings,
    /// Domain of its owner, may be empty.
    pub domain: String,
    /// Always `private`.
    pub domain_category: String,
    /// RFC 3339.
    pub created_at: String,
    /// User id.
    pub created_by: String,
    /// Nothing is pending.
    pub onboarding: AccountOnboarding,
}

/// What a newcomer still has to do: nothing.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct AccountOnboarding {
    /// Always false.
    pub signup_form_pending: bool,
    /// Always false.
    pub onboarding_flow_pending: bool,
}

/// A change of the account.
#[derive(Debug, Deserialize, ToSchema)]
pub struct AccountRequest {
    /// The whole settings: what is left out takes its default, but for the ranges, which stay.
    pub settings: Settings,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(get, update))
}

/// The one account, as a list.
#[utoipa::path(get, path = "/api/accounts", tag = "Accounts", responses((status = 200, body = [Account])))]
async fn list(State(app): State<App>) -> ApiResult<Vec<Account>> {
    Ok(Json(vec![account(&app, app.store.account().await?)]))
}

/// The account, with the `ETag` that a change of it may name.
#[utoipa::path(get, path = "/api/accounts/{accountId}", tag = "Accounts", params(("accountId" = String, Path)),
    responses((status = 200, body = Account)))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Account> {
    let stored = app.store.account().await?;
    if stored.id != id {
        return Err(ApiError::from(StoreError::NotFound { kind: "account", id }));
    }
    Ok(Json(account(&app, stored)))
}

/// Replaces the settings.
#[utoipa::path(put, path = "/api/accounts/{accountId}", tag = "Accounts", params(("accountId" = String, Path)),
    request_body = AccountRequest, responses((status = 200, body = Account)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<AccountRequest>,
) -> ApiResult<Account> {
    let stored = app.store.account().await?;
    if stored.id != id {
        return Err(ApiError::from(StoreError::NotFound { kind: "account", id }));
    }
    let settings = fixed::taken_out(request.settings, &stored.settings, &app)?;
    Ok(Json(account(&app, app.store.update_settings(&caller.actor(), settings).await?)))
}

fn account(app: &App, account: store::Account) -> Account {
    Account {
        id: account.id,
        settings: fixed::filled_in(account.settings, app),
        domain: account.domain,
        domain_category: "private".into(),
        created_at: rfc3339(account.created_at),
        created_by: account.created_by,
        onboarding: AccountOnboarding::default(),
    }
}
