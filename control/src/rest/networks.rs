//! `/api/networks`.

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
use crate::app::App;
use crate::store::{self, NetworkChange};

/// A network.
#[derive(Debug, Serialize, ToSchema)]
pub struct Network {
    /// Network id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Router ids.
    pub routers: Vec<String>,
    /// How many peers route for it, groups expanded.
    pub routing_peers_count: usize,
    /// Resource ids.
    pub resources: Vec<String>,
    /// Ids of the policies towards its resources.
    pub policies: Vec<String>,
}

/// A network to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct NetworkRequest {
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// Networks.
#[utoipa::path(get, path = "/api/networks", tag = "Networks", responses((status = 200, body = [Network])))]
async fn list(State(app): State<App>) -> ApiResult<Vec<Network>> {
    Ok(Json(app.store.networks().await?.into_iter().map(shape).collect()))
}

/// One network.
#[utoipa::path(get, path = "/api/networks/{networkId}", tag = "Networks", params(("networkId" = String, Path)),
    responses((status = 200, body = Network)))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Network> {
    Ok(Json(shape(app.store.network(&id).await?)))
}

/// Creates a network.
#[utoipa::path(post, path = "/api/networks", tag = "Networks", request_body = NetworkRequest,
    responses((status = 200, body = Network)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<NetworkRequest>,
) -> ApiResult<Network> {
    Ok(Json(shape(app.store.create_network(&caller.actor(), change(request)).await?)))
}

/// Replaces name and description.
#[utoipa::path(put, path = "/api/networks/{networkId}", tag = "Networks", params(("networkId" = String, Path)),
    request_body = NetworkRequest, responses((status = 200, body = Network)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<NetworkRequest>,
) -> ApiResult<Network> {
    Ok(Json(shape(app.store.update_network(&caller.actor(), &id, change(request)).await?)))
}

/// Deletes a network with its resources and routers; refused while a policy names one of the resources.
#[utoipa::path(delete, path = "/api/networks/{networkId}", tag = "Networks", params(("networkId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.delete_network(&caller.actor(), &id).await?;
    Ok(Json(Empty {}))
}

fn change(request: NetworkRequest) -> NetworkChange {
    NetworkChange { name: request.name, description: request.description }
}

fn shape(network: store::Network) -> Network {
    Network {
        id: network.id,
        name: network.name,
        description: network.description,
        routers: network.routers,
        routing_peers_count: network.routing_peers,
        resources: network.resources,
        policies: network.policies,
    }
}
