//! `/api/dns/settings`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::body::Body;
use super::error::ApiResult;
use crate::app::App;

/// Whose resolver stays as it is.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = DNSSettings)]
pub struct DnsSettings {
    /// Ids of groups whose peers get neither nameservers nor zones.
    pub disabled_management_groups: Vec<String>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(get, update))
}

/// Settings of DNS.
#[utoipa::path(get, path = "/api/dns/settings", tag = "DNS", responses((status = 200, body = DnsSettings)))]
async fn get(State(app): State<App>) -> ApiResult<DnsSettings> {
    let groups = app.store.dns_disabled_groups().await?;
    Ok(Json(DnsSettings { disabled_management_groups: groups.into_iter().collect() }))
}

/// Replaces the settings of DNS.
#[utoipa::path(put, path = "/api/dns/settings", tag = "DNS", request_body = DnsSettings,
    responses((status = 200, body = DnsSettings)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<DnsSettings>,
) -> ApiResult<DnsSettings> {
    let wanted = request.disabled_management_groups.into_iter().collect();
    let groups = app.store.set_dns_disabled_groups(&caller.actor(), wanted).await?;
    Ok(Json(DnsSettings { disabled_management_groups: groups.into_iter().collect() }))
}
