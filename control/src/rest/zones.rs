//! `/api/dns/zones` and their records.

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
use crate::store::{self, RecordKind, RecordSpec, ZoneSpec};

/// Names that are answered for the peers of some groups.
#[derive(Debug, Serialize, ToSchema)]
pub struct Zone {
    /// Zone id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// The domain.
    pub domain: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Whether it is searched for names without a dot.
    pub enable_search_domain: bool,
    /// Ids of the groups whose peers get it.
    pub distribution_groups: Vec<String>,
    /// Its records.
    pub records: Vec<DnsRecord>,
}

/// A zone to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(default)]
pub struct ZoneRequest {
    /// Display name of 1 to 255 characters.
    pub name: String,
    /// The domain, unique; it stays.
    pub domain: String,
    /// Whether it counts; left out, it does.
    pub enabled: bool,
    /// Whether it is searched for names without a dot.
    pub enable_search_domain: bool,
    /// Ids of at least one group, whose peers get it.
    pub distribution_groups: Vec<String>,
}

impl Default for ZoneRequest {
    fn default() -> Self {
        ZoneRequest {
            name: String::new(),
            domain: String::new(),
            enabled: true,
            enable_search_domain: false,
            distribution_groups: Vec::new(),
        }
    }
}

/// A record of a zone.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DNSRecord)]
pub struct DnsRecord {
    /// Record id.
    pub id: String,
    /// The whole name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: RecordKind,
    /// An address, or for a CNAME a name.
    pub content: String,
    /// Seconds.
    pub ttl: i64,
}

/// A record to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = DNSRecordRequest)]
pub struct DnsRecordRequest {
    /// The whole name: the zone's domain or one below it.
    pub name: String,
    /// `A`, `AAAA` or `CNAME`.
    #[serde(rename = "type")]
    pub kind: String,
    /// An address, or for a CNAME a name.
    pub content: String,
    /// Seconds.
    #[schema(minimum = 0)]
    pub ttl: i64,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(records, create_record))
        .routes(routes!(get_record, update_record, delete_record))
}

/// DNS zones.
#[utoipa::path(get, path = "/api/dns/zones", tag = "DNS Zones", responses((status = 200, body = [Zone])))]
async fn list(State(app): State<App>) -> ApiResult<Vec<Zone>> {
    Ok(Json(app.store.zones().await?.into_iter().map(shape).collect()))
}

/// One DNS zone.
#[utoipa::path(get, path = "/api/dns/zones/{zoneId}", tag = "DNS Zones", params(("zoneId" = String, Path)),
    responses((status = 200, body = Zone)))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Zone> {
    Ok(Json(shape(app.store.zone(&id).await?)))
}

/// Creates a DNS zone.
#[utoipa::path(post, path = "/api/dns/zones", tag = "DNS Zones", request_body = ZoneRequest,
    responses((status = 200, body = Zone)))]
async fn create(State(app): State<App>, caller: Caller, Body(request): Body<ZoneRequest>) -> ApiResult<Zone> {
    Ok(Json(shape(app.store.create_zone(&caller.actor(), spec(request)).await?)))
}

/// Replaces a DNS zone, but for its records.
#[utoipa::path(put, path = "/api/dns/zones/{zoneId}", tag = "DNS Zones", params(("zoneId" = String, Path)),
    request_body = ZoneRequest, responses((status = 200, body = Zone)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<ZoneRequest>,
) -> ApiResult<Zone> {
    Ok(Json(shape(app.store.update_zone(&caller.actor(), &id, spec(request)).await?)))
}

/// Deletes a DNS zone with its records.
#[utoipa::path(delete, path = "/api/dns/zones/{zoneId}", tag = "DNS Zones", params(("zoneId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.delete_zone(&caller.actor(), &id).await?;
    Ok(Json(Empty {}))
}

/// Records of a zone.
#[utoipa::path(get, path = "/api/dns/zones/{zoneId}/records", tag = "DNS Zones", params(("zoneId" = String, Path)),
    responses((status = 200, body = [DnsRecord])))]
async fn records(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Vec<DnsRecord>> {
    Ok(Json(app.store.zone(&id).await?.records.into_iter().map(record_shape).collect()))
}

/// Creates a record.
#[utoipa::path(post, path = "/api/dns/zones/{zoneId}/records", tag = "DNS Zones", params(("zoneId" = String, Path)),
    request_body = DnsRecordRequest, responses((status = 200, body = DnsRecord)))]
async fn create_record(
    State(app): State<App>,
    caller: Caller,
    Path(zone): Path<String>,
    Body(request): Body<DnsRecordRequest>,
) -> ApiResult<DnsRecord> {
    let spec = record_spec(request)?;
    Ok(Json(record_shape(app.store.create_record(&caller.actor(), &zone, spec).await?)))
}

/// One record.
#[utoipa::path(get, path = "/api/dns/zones/{zoneId}/records/{recordId}", tag = "DNS Zones",
    params(("zoneId" = String, Path), ("recordId" = String, Path)), responses((status = 200, body = DnsRecord)))]
async fn get_record(
    State(app): State<App>,
    Path((zone, id)): Path<(String, String)>,
) -> ApiResult<DnsRecord> {
    Ok(Json(record_shape(app.store.record(&zone, &id).await?)))
}

/// Replaces a record.
#[utoipa::path(put, path = "/api/dns/zones/{zoneId}/records/{recordId}", tag = "DNS Zones",
    params(("zoneId" = String, Path), ("recordId" = String, Path)), request_body = DnsRecordRequest,
    responses((status = 200, body = DnsRecord)))]
async fn update_record(
    State(app): State<App>,
    caller: Caller,
    Path((zone, id)): Path<(String, String)>,
    Body(request): Body<DnsRecordRequest>,
) -> ApiResult<DnsRecord> {
    let spec = record_spec(request)?;
    Ok(Json(record_shape(app.store.update_record(&caller.actor(), &zone, &id, spec).await?)))
}

/// Deletes a record.
#[utoipa::path(delete, path = "/api/dns/zones/{zoneId}/records/{recordId}", tag = "DNS Zones",
    params(("zoneId" = String, Path), ("recordId" = String, Path)), responses((status = 200, body = Empty)))]
async fn delete_record(
    State(app): State<App>,
    caller: Caller,
    Path((zone, id)): Path<(String, String)>,
) -> ApiResult<Empty> {
    app.store.delete_record(&caller.actor(), &zone, &id).await?;
    Ok(Json(Empty {}))
}

fn spec(request: ZoneRequest) -> ZoneSpec {
    ZoneSpec {
        name: request.name,
        domain: request.domain,
        enabled: request.enabled,
        enable_search_domain: request.enable_search_domain,
        distribution_groups: request.distribution_groups.into_iter().collect(),
    }
}

fn record_spec(request: DnsRecordRequest) -> Result<RecordSpec, ApiError> {
    let kind = match request.kind.as_str() {
        "A" => RecordKind::A,
        "AAAA" => RecordKind::Aaaa,
        "CNAME" => RecordKind::Cname,
        kind => return Err(ApiError::invalid(format!("type {kind:?} is unknown: A, AAAA or CNAME"))),
    };
    Ok(RecordSpec { name: request.name, kind, content: request.content, ttl: request.ttl })
}

fn shape(zone: store::Zone) -> Zone {
    let spec = zone.spec;
    Zone {
        id: zone.id,
        name: spec.name,
        domain: spec.domain,
        enabled: spec.enabled,
        enable_search_domain: spec.enable_search_domain,
        distribution_groups: spec.distribution_groups.into_iter().collect(),
        records: zone.records.into_iter().map(record_shape).collect(),
    }
}

fn record_shape(record: store::DnsRecord) -> DnsRecord {
    let spec = record.spec;
    DnsRecord { id: record.id, name: spec.name, kind: spec.kind, content: spec.content, ttl: spec.ttl }
}
