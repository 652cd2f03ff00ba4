//! `/api/routes`.

use axum::Json;
use axum::extract::{Path, State};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use crate::app::App;
use crate::store::{NetworkRoute, RouteSpec};

/// A prefix that peers reach through other peers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Route {
    /// Route id.
    pub id: String,
    /// `IPv4` or `IPv6`.
    pub network_type: String,
    /// Free text.
    pub description: String,
    /// A name that routes of equal prefixes share, by which peers stand in for each other.
    pub network_id: String,
    /// Whether it counts.
    pub enabled: bool,
    /// The peer that routes, unless groups are named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The groups whose peers route, unless a peer is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peer_groups: Vec<String>,
    /// The prefix; that of a default route stands for both families.
    pub network: String,
    /// 1 to 9999, lower is better.
    pub metric: i64,
    /// Whether sources are replaced by the router's own address.
    pub masquerade: bool,
    /// Distribution: groups whose peers alone get it.
    pub groups: Vec<String>,
    /// Kept for NetBird's clients. It says whether addresses that a route's domain does not resolve to any more stay, and routes
    /// by domain are not served: either value is the same.
    pub keep_route: bool,
    /// Groups by which policies name it; with none, it is open to its distribution groups.
    pub access_control_groups: Vec<String>,
    /// Whether agents take it only where their configuration names its network_id.
    pub skip_auto_apply: bool,
}

/// A route to be: of a peer, or of groups.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct RouteRequest {
    /// Free text.
    pub description: String,
    /// A name that routes of equal prefixes share, of 1 to 40 characters.
    pub network_id: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Peer id.
    pub peer: Option<String>,
    /// Group ids.
    pub peer_groups: Vec<String>,
    /// The prefix. `0.0.0.0/0` and `::/0` make an exit node, of both families.
    pub network: String,
    /// Refused: routes by name are not there yet.
    pub domains: Vec<String>,
    /// 1 to 9999, lower is better.
    #[schema(minimum = 1, maximum = 9999)]
    pub metric: i64,
    /// Whether sources are replaced by the router's own address.
    pub masquerade: bool,
    /// Distribution: ids of at least one group, whose peers alone get it.
    pub groups: Vec<String>,
    /// Kept for NetBird's clients. It says whether addresses that a route's domain does not resolve to any more stay, and routes
    /// by domain are not served: either value is the same.
    pub keep_route: bool,
    /// Ids of groups by which policies name it.
    pub access_control_groups: Vec<String>,
    /// Whether agents take it only where their configuration names its network_id.
    pub skip_auto_apply: bool,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// Routes.
#[utoipa::path(get, path = "/api/routes", tag = "Routes", responses((status = 200, body = [Route])))]
async fn list(State(app): State<App>) -> ApiResult<Vec<Route>> {
    Ok(Json(app.store.routes().await?.into_iter().map(shape).collect()))
}

/// One route.
#[utoipa::path(get, path = "/api/routes/{routeId}", tag = "Routes", params(("routeId" = String, Path)),
    responses((status = 200, body = Route)))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Route> {
    Ok(Json(shape(app.store.route(&id).await?)))
}

/// Creates a route.
#[utoipa::path(post, path = "/api/routes", tag = "Routes", request_body = RouteRequest,
    responses((status = 200, body = Route)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<RouteRequest>,
) -> ApiResult<Route> {
    Ok(Json(shape(app.store.create_route(&caller.actor(), spec(request)?).await?)))
}

/// Replaces a route.
#[utoipa::path(put, path = "/api/routes/{routeId}", tag = "Routes", params(("routeId" = String, Path)),
    request_body = RouteRequest, responses((status = 200, body = Route)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<RouteRequest>,
) -> ApiResult<Route> {
    Ok(Json(shape(app.store.update_route(&caller.actor(), &id, spec(request)?).await?)))
}

/// Deletes a route.
#[utoipa::path(delete, path = "/api/routes/{routeId}", tag = "Routes", params(("routeId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.delete_route(&caller.actor(), &id).await?;
    Ok(Json(Empty {}))
}

fn spec(request: RouteRequest) -> Result<RouteSpec, ApiError> {
    match (request.network.trim().is_empty(), request.domains.is_empty()) {
        (false, false) => return Err(ApiError::invalid("network and domains cannot be set together")),
        (true, true) => return Err(ApiError::invalid("network must be set: a prefix such as 10.64.0.0/24")),
        (_, false) => {
            return Err(ApiError::invalid(
                "domains: a route by name is not served: name the prefix, or make a network resource of the domain",
            ));
        }
        (false, true) => {}
    }
    let Ok(network) = request.network.trim().parse::<IpNet>() else {
        return Err(ApiError::invalid(format!("network: {:?} is no prefix", request.network)));
    };
    Ok(RouteSpec {
        network_id: request.network_id,
        description: request.description,
        network: network.trunc(),
        peer: request.peer.filter(|peer| !peer.is_empty()),
        peer_groups: request.peer_groups.into_iter().collect(),
        metric: request.metric,
        masquerade: request.masquerade,
        enabled: request.enabled,
        groups: request.groups.into_iter().collect(),
        access_control_groups: request.access_control_groups.into_iter().collect(),
        keep_route: request.keep_route,
        skip_auto_apply: request.skip_auto_apply,
    })
}

fn shape(route: NetworkRoute) -> Route {
    let spec = route.spec;
    Route {
        id: route.id,
        network_type: if spec.network.addr().is_ipv4() { "IPv4" } else { "IPv6" }.into(),
        description: spec.description,
        network_id: spec.network_id,
        enabled: spec.enabled,
        peer: spec.peer,
        peer_groups: spec.peer_groups.into_iter().collect(),
        network: spec.network.to_string(),
        metric: spec.metric,
        masquerade: spec.masquerade,
        groups: spec.groups.into_iter().collect(),
        keep_route: spec.keep_route,
        access_control_groups: spec.access_control_groups.into_iter().collect(),
        skip_auto_apply: spec.skip_auto_apply,
    }
}
