//! `/api/dns/nameservers`.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use crate::app::App;
use crate::store::{self, NameserverGroupSpec};

/// One nameserver.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Nameserver {
    /// Its address.
    pub ip: String,
    /// `udp`.
    #[serde(default = "udp")]
    pub ns_type: String,
    /// Its port.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: i64,
}

/// Nameservers, and for which names which peers ask them.
#[derive(Debug, Serialize, ToSchema)]
pub struct NameserverGroup {
    /// Nameserver group id.
    pub id: String,
    /// The rest.
    #[serde(flatten)]
    pub request: NameserverGroupRequest,
}

/// A nameserver group to be.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct NameserverGroupRequest {
    /// Display name of 1 to 40 characters, unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// One to three of them.
    pub nameservers: Vec<Nameserver>,
    /// Whether it counts.
    pub enabled: bool,
    /// Ids of at least one group, whose peers ask them.
    pub groups: Vec<String>,
    /// Whether they answer every name; then there are no domains.
    pub primary: bool,
    /// The names they answer, with all below them.
    pub domains: Vec<String>,
    /// Whether the domains are searched for names without a dot.
    pub search_domains_enabled: bool,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// Nameserver groups.
#[utoipa::path(get, path = "/api/dns/nameservers", tag = "DNS", responses((status = 200, body = [NameserverGroup])))]
async fn list(State(app): State<App>) -> ApiResult<Vec<NameserverGroup>> {
    Ok(Json(app.store.nameserver_groups().await?.into_iter().map(shape).collect()))
}

/// One nameserver group.
#[utoipa::path(get, path = "/api/dns/nameservers/{nsgroupId}", tag = "DNS", params(("nsgroupId" = String, Path)),
    responses((status = 200, body = NameserverGroup)))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> ApiResult<NameserverGroup> {
    Ok(Json(shape(app.store.nameserver_group(&id).await?)))
}

/// Creates a nameserver group.
#[utoipa::path(post, path = "/api/dns/nameservers", tag = "DNS", request_body = NameserverGroupRequest,
    responses((status = 200, body = NameserverGroup)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<NameserverGroupRequest>,
) -> ApiResult<NameserverGroup> {
    Ok(Json(shape(app.store.create_nameserver_group(&caller.actor(), spec(request)?).await?)))
}

/// Replaces a nameserver group.
#[utoipa::path(put, path = "/api/dns/nameservers/{nsgroupId}", tag = "DNS", params(("nsgroupId" = String, Path)),
    request_body = NameserverGroupRequest, responses((status = 200, body = NameserverGroup)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<NameserverGroupRequest>,
) -> ApiResult<NameserverGroup> {
    Ok(Json(shape(app.store.update_nameserver_group(&caller.actor(), &id, spec(request)?).await?)))
}

/// Deletes a nameserver group.
#[utoipa::path(delete, path = "/api/dns/nameservers/{nsgroupId}", tag = "DNS", params(("nsgroupId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.delete_nameserver_group(&caller.actor(), &id).await?;
    Ok(Json(Empty {}))
}

fn udp() -> String {
    "udp".into()
}

fn spec(request: NameserverGroupRequest) -> Result<NameserverGroupSpec, ApiError> {
    let nameserver = |given: Nameserver| {
        if given.ns_type != "udp" {
            return Err(ApiError::invalid(format!("ns_type {:?} is unknown: udp", given.ns_type)));
        }
        let Ok(ip) = given.ip.trim().parse() else {
            return Err(ApiError::invalid(format!("nameservers: {:?} is no IP address", given.ip)));
        };
        match u16::try_from(given.port) {
            Ok(port) if port > 0 => Ok(store::Nameserver { ip, port }),
            _ => {
                Err(ApiError::invalid(format!("nameservers: port {} is not between 1 and 65535", given.port)))
            }
        }
    };
    Ok(NameserverGroupSpec {
        name: request.name,
        description: request.description,
        enabled: request.enabled,
        primary: request.primary,
        search_domains_enabled: request.search_domains_enabled,
        nameservers: request.nameservers.into_iter().map(nameserver).collect::<Result<_, _>>()?,
        domains: request.domains,
        groups: request.groups.into_iter().collect(),
    })
}

fn shape(group: store::NameserverGroup) -> NameserverGroup {
    let spec = group.spec;
    let nameserver = |given: store::Nameserver| Nameserver {
        ip: given.ip.to_string(),
        ns_type: udp(),
        port: given.port.into(),
    };
    NameserverGroup {
        id: group.id,
        request: NameserverGroupRequest {
            name: spec.name,
            description: spec.description,
            nameservers: spec.nameservers.into_iter().map(nameserver).collect(),
            enabled: spec.enabled,
            groups: spec.groups.into_iter().collect(),
            primary: spec.primary,
            domains: spec.domains,
            search_domains_enabled: spec.search_domains_enabled,
        },
    }
}
