//! `/api/networks/{networkId}/routers` and `/api/networks/routers`.

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
use crate::store::{self, RouterChange};

/// The peers that reach a network's resources.
#[derive(Debug, Serialize, ToSchema)]
pub struct NetworkRouter {
    /// Router id.
    pub id: String,
    /// The peer, unless groups are named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Group ids, unless a peer is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peer_groups: Vec<String>,
    /// 1 to 9999, lower is better.
    pub metric: i64,
    /// Whether sources are replaced by the router's own address.
    pub masquerade: bool,
    /// Whether it counts.
    pub enabled: bool,
}

/// A router to be: of a peer, or of groups.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct NetworkRouterRequest {
    /// Peer id.
    pub peer: Option<String>,
    /// Group ids.
    pub peer_groups: Vec<String>,
    /// 1 to 9999, lower is better.
    #[schema(minimum = 1, maximum = 9999)]
    pub metric: i64,
    /// Whether sources are replaced by the router's own address.
    pub masquerade: bool,
    /// Whether it counts.
    pub enabled: bool,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(list_all))
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
}

/// Routers of all networks.
#[utoipa::path(get, path = "/api/networks/routers", tag = "Networks", responses((status = 200, body = [NetworkRouter])))]
async fn list_all(State(app): State<App>) -> ApiResult<Vec<NetworkRouter>> {
    Ok(Json(app.store.routers(None).await?.into_iter().map(shape).collect()))
}

/// Routers of a network.
#[utoipa::path(get, path = "/api/networks/{networkId}/routers", tag = "Networks",
    params(("networkId" = String, Path)), responses((status = 200, body = [NetworkRouter])))]
async fn list(State(app): State<App>, Path(network): Path<String>) -> ApiResult<Vec<NetworkRouter>> {
    Ok(Json(app.store.routers(Some(&network)).await?.into_iter().map(shape).collect()))
}

/// One router.
#[utoipa::path(get, path = "/api/networks/{networkId}/routers/{routerId}", tag = "Networks",
    params(("networkId" = String, Path), ("routerId" = String, Path)), responses((status = 200, body = NetworkRouter)))]
async fn get(
    State(app): State<App>,
    Path((network, id)): Path<(String, String)>,
) -> ApiResult<NetworkRouter> {
    Ok(Json(shape(app.store.router(&network, &id).await?)))
}

/// Creates a router.
#[utoipa::path(post, path = "/api/networks/{networkId}/routers", tag = "Networks",
    params(("networkId" = String, Path)), request_body = NetworkRouterRequest,
    responses((status = 200, body = NetworkRouter)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(network): Path<String>,
    Body(request): Body<NetworkRouterRequest>,
) -> ApiResult<NetworkRouter> {
    Ok(Json(shape(app.store.create_router(&caller.actor(), &network, change(request)).await?)))
}

/// Replaces a router.
#[utoipa::path(put, path = "/api/networks/{networkId}/routers/{routerId}", tag = "Networks",
    params(("networkId" = String, Path), ("routerId" = String, Path)), request_body = NetworkRouterRequest,
    responses((status = 200, body = NetworkRouter)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path((network, id)): Path<(String, String)>,
    Body(request): Body<NetworkRouterRequest>,
) -> ApiResult<NetworkRouter> {
    Ok(Json(shape(app.store.update_router(&caller.actor(), &network, &id, change(request)).await?)))
}

/// Deletes a router.
#[utoipa::path(delete, path = "/api/networks/{networkId}/routers/{routerId}", tag = "Networks",
    params(("networkId" = String, Path), ("routerId" = String, Path)), responses((status = 200, body = Empty)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((network, id)): Path<(String, String)>,
) -> ApiResult<Empty> {
    app.store.delete_router(&caller.actor(), &network, &id).await?;
    Ok(Json(Empty {}))
}

fn change(request: NetworkRouterRequest) -> RouterChange {
    RouterChange {
        peer: request.peer,
        peer_groups: request.peer_groups,
        metric: request.metric,
        masquerade: request.masquerade,
        enabled: request.enabled,
    }
}

fn shape(router: store::Router) -> NetworkRouter {
    NetworkRouter {
        id: router.id,
        peer: router.peer,
        peer_groups: router.peer_groups,
        metric: router.metric,
        masquerade: router.masquerade,
        enabled: router.enabled,
    }
}
