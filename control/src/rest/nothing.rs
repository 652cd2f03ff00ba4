//! What NetBird's clients ask of a server that has reverse proxies, ingress ports, agent networks or remote jobs: here there are none,
//! and the clients go on. `docs/conformance.md` lists these beside what is served and what is not.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::error::{ApiError, ApiResult};
use super::peers::visible;
use crate::app::App;

/// Records on a page where the request names no number, as NetBird has it.
const PAGE_SIZE: i64 = 50;
/// Most records on a page.
const PAGE_SIZE_MAX: i64 = 100;

/// Which page is asked for. What else narrows NetBird's lists narrows nothing.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// From 1.
    #[param(minimum = 1)]
    page: Option<i64>,
    /// Records on a page.
    #[param(minimum = 1, maximum = 100)]
    page_size: Option<i64>,
}

/// A page without records.
#[derive(Debug, Serialize, ToSchema)]
struct EmptyPage {
    /// None.
    #[schema(max_items = 0)]
    data: Vec<Value>,
    /// The page asked for.
    page: i64,
    /// Most records on a page.
    page_size: i64,
    /// None.
    total_records: i64,
    /// None.
    total_pages: i64,
}

/// A list without entries.
type Nothing = Vec<Value>;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(jobs))
        .routes(routes!(ingress_ports))
        .routes(routes!(ingress_peers))
        .routes(routes!(identity_providers))
        .routes(routes!(proxy_services))
        .routes(routes!(proxy_clusters))
        .routes(routes!(proxy_domains))
        .routes(routes!(proxy_tokens))
        .routes(routes!(proxy_events))
        .routes(routes!(agent_providers))
        .routes(routes!(agent_catalog))
        .routes(routes!(agent_policies))
        .routes(routes!(agent_guardrails))
        .routes(routes!(agent_budget))
        .routes(routes!(agent_consumption))
        .routes(routes!(agent_usage))
        .routes(routes!(agent_logs))
        .routes(routes!(agent_sessions))
}

macro_rules! lists {
    ($($name:ident $path:literal $text:literal,)*) => {
        $(#[doc = $text]
        #[utoipa::path(get, path = $path, tag = "Always empty",
            responses((status = 200, body = [Value], description = "An empty list")))]
        async fn $name() -> Json<Nothing> {
            Json(Vec::new())
        })*
    };
}

lists! {
    ingress_peers "/api/ingress/peers" "Peers that take connections from outside: none.",
    identity_providers "/api/identity-providers" "Identity providers that were added by the API: none.",
    proxy_services "/api/reverse-proxies/services" "Services behind reverse proxies: none.",
    proxy_clusters "/api/reverse-proxies/clusters" "Reverse proxies: none.",
    proxy_domains "/api/reverse-proxies/domains" "Domains of reverse proxies: none.",
    proxy_tokens "/api/reverse-proxies/proxy-tokens" "Tokens of reverse proxies: none.",
    agent_providers "/api/agent-network/providers" "Model providers of agent networks: none.",
    agent_catalog "/api/agent-network/catalog/providers" "Model providers that an agent network could have: none.",
    agent_policies "/api/agent-network/policies" "Policies of agent networks: none.",
    agent_guardrails "/api/agent-network/guardrails" "Guardrails of agent networks: none.",
    agent_budget "/api/agent-network/budget-rules" "Budgets of agent networks: none.",
    agent_consumption "/api/agent-network/consumption" "What agent networks have used up: nothing.",
    agent_usage "/api/agent-network/usage/overview" "Use of agent networks over time: none.",
}

macro_rules! pages {
    ($($name:ident $path:literal $text:literal,)*) => {
        $(#[doc = $text]
        #[utoipa::path(get, path = $path, tag = "Always empty", params(PageQuery),
            responses((status = 200, body = EmptyPage)))]
        async fn $name(Query(query): Query<PageQuery>) -> ApiResult<EmptyPage> {
            page(query)
        })*
    };
}

pages! {
    proxy_events "/api/events/proxy" "Requests through reverse proxies: none.",
    agent_logs "/api/agent-network/access-logs" "Requests through agent networks: none.",
    agent_sessions "/api/agent-network/access-log-sessions" "Sessions of agent networks: none.",
}

/// Jobs that a peer was given: none.
#[utoipa::path(get, path = "/api/peers/{peerId}/jobs", tag = "Always empty", params(("peerId" = String, Path)),
    responses((status = 200, body = [Value], description = "An empty list")))]
async fn jobs(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Nothing> {
    of_peer(&app, &caller, id).await
}

/// Ports of a peer that are open to the outside: none.
#[utoipa::path(get, path = "/api/peers/{peerId}/ingress/ports", tag = "Always empty", params(("peerId" = String, Path)),
    responses((status = 200, body = [Value], description = "An empty list")))]
async fn ingress_ports(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Nothing> {
    of_peer(&app, &caller, id).await
}

async fn of_peer(app: &App, caller: &Caller, id: String) -> ApiResult<Nothing> {
    visible(app, caller, id).await?;
    Ok(Json(Vec::new()))
}

fn page(query: PageQuery) -> ApiResult<EmptyPage> {
    let (page, page_size) = (query.page.unwrap_or(1), query.page_size.unwrap_or(PAGE_SIZE));
    if page < 1 || !(1..=PAGE_SIZE_MAX).contains(&page_size) {
        let message = format!("page is at least 1, and page_size between 1 and {PAGE_SIZE_MAX}");
        return Err(ApiError::invalid(message));
    }
    Ok(Json(EmptyPage { data: Vec::new(), page, page_size, total_records: 0, total_pages: 0 }))
}
