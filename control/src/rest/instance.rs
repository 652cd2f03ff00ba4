//! `/api/instance`: what an installer asks before it has a token.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;

/// Whether this server still has to be set up.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceStatus {
    /// Always false: the first start makes the account and its owner.
    pub setup_required: bool,
}

/// Version of this server.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceVersionInfo {
    /// The version that runs.
    pub management_current_version: String,
    /// Always false: this server looks nothing up elsewhere.
    pub management_update_available: bool,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(status)).routes(routes!(version))
}

/// Whether this server still has to be set up.
#[utoipa::path(get, path = "/api/instance", tag = "Instance", responses((status = 200, body = InstanceStatus)))]
async fn status() -> Json<InstanceStatus> {
    Json(InstanceStatus { setup_required: false })
}

/// Version of this server.
#[utoipa::path(get, path = "/api/instance/version", tag = "Instance",
    responses((status = 200, body = InstanceVersionInfo)))]
async fn version() -> Json<InstanceVersionInfo> {
    Json(InstanceVersionInfo {
        management_current_version: env!("CARGO_PKG_VERSION").into(),
        management_update_available: false,
    })
}
