//! `/api/networks/{networkId}/resources`.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::Caller;
use super::body::Body;
use super::error::ApiResult;
use super::groups::{GroupMinimum, expand, minimums};
use crate::app::App;
use crate::store::{self, ResourceChange, ResourceKind};

/// A destination behind routers.
#[derive(Debug, Serialize, ToSchema)]
pub struct NetworkResource {
    /// Resource id.
    pub id: String,
    /// What its address is.
    #[serde(rename = "type")]
    pub kind: ResourceKind,
    /// The groups it is in.
    pub groups: Vec<GroupMinimum>,
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Address, prefix or domain.
    pub address: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Of a domain, what its routers have found it to stand for; of a wildcard, what the names below it do that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// A resource to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct NetworkResourceRequest {
    /// Display name, unique in the account.
    pub name: String,
    /// Free text.
    pub description: String,
    /// `1.1.1.1`, `2001:db8::1`, `192.168.178.0/24`, `example.com` or `*.example.com`.
    pub address: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Group ids; not `All`.
    pub groups: Vec<String>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// Resources of a network.
#[utoipa::path(get, path = "/api/networks/{networkId}/resources", tag = "Networks",
    params(("networkId" = String, Path)), responses((status = 200, body = [NetworkResource])))]
async fn list(State(app): State<App>, Path(network): Path<String>) -> ApiResult<Vec<NetworkResource>> {
    let resources = app.store.resources(&network).await?;
    let groups = minimums(&app).await?;
    Ok(Json(resources.into_iter().map(|resource| shape(resource, &groups)).collect()))
}

/// One resource.
#[utoipa::path(get, path = "/api/networks/{networkId}/resources/{resourceId}", tag = "Networks",
    params(("networkId" = String, Path), ("resourceId" = String, Path)), responses((status = 200, body = NetworkResource)))]
async fn get(
    State(app): State<App>,
    Path((network, id)): Path<(String, String)>,
) -> ApiResult<NetworkResource> {
    let resource = app.store.resource(&network, &id).await?;
    Ok(Json(shape(resource, &minimums(&app).await?)))
}

/// Creates a resource.
#[utoipa::path(post, path = "/api/networks/{networkId}/resources", tag = "Networks",
    params(("networkId" = String, Path)), request_body = NetworkResourceRequest,
    responses((status = 200, body = NetworkResource)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(network): Path<String>,
    Body(request): Body<NetworkResourceRequest>,
) -> ApiResult<NetworkResource> {
    let resource = app.store.create_resource(&caller.actor(), &network, change(request)).await?;
    Ok(Json(shape(resource, &minimums(&app).await?)))
}

/// Replaces a resource.
#[utoipa::path(put, path = "/api/networks/{networkId}/resources/{resourceId}", tag = "Networks",
    params(("networkId" = String, Path), ("resourceId" = String, Path)), request_body = NetworkResourceRequest,
    responses((status = 200, body = NetworkResource)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path((network, id)): Path<(String, String)>,
    Body(request): Body<NetworkResourceRequest>,
) -> ApiResult<NetworkResource> {
    let resource = app.store.update_resource(&caller.actor(), &network, &id, change(request)).await?;
    Ok(Json(shape(resource, &minimums(&app).await?)))
}

/// Deletes a resource; refused while a policy names it.
#[utoipa::path(delete, path = "/api/networks/{networkId}/resources/{resourceId}", tag = "Networks",
    params(("networkId" = String, Path), ("resourceId" = String, Path)), responses((status = 200, body = Empty)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((network, id)): Path<(String, String)>,
) -> ApiResult<Empty> {
    app.store.delete_resource(&caller.actor(), &network, &id).await?;
    Ok(Json(Empty {}))
}

fn change(request: NetworkResourceRequest) -> ResourceChange {
    ResourceChange {
        name: request.name,
        description: request.description,
        address: request.address,
        enabled: request.enabled,
        groups: request.groups,
    }
}

fn shape(resource: store::Resource, groups: &HashMap<String, GroupMinimum>) -> NetworkResource {
    NetworkResource {
        id: resource.id,
        kind: resource.kind,
        groups: expand(resource.groups.iter().map(|group| &group.id), groups),
        name: resource.name,
        description: resource.description,
        address: resource.address,
        enabled: resource.enabled,
        addresses: resource.addresses.iter().map(ToString::to_string).collect(),
    }
}
