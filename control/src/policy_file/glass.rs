//! `/api/break-glass`, and the end of what it turned on.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Files;
use crate::ids::now;
use crate::metrics::Metrics;
use crate::rest::auth::Caller;
use crate::rest::body::Body;
use crate::rest::error::ApiResult;
use crate::rest::rfc3339;
use crate::store::{Policy, Store, StoreError};

/// How often the store is looked at when nothing happens, and how soon again when it did not answer.
const LOOK: Duration = Duration::from_secs(30);

/// A break-glass policy.
#[derive(Debug, Serialize, ToSchema)]
pub struct Glass {
    /// Policy id.
    pub id: String,
    /// Policy name.
    pub name: String,
    /// The longest it may be on at once, in seconds.
    pub max_seconds: i64,
    /// Whether it is on.
    pub on: bool,
    /// While it is on: when it ends.
    pub until: Option<String>,
    /// While it is on: why.
    pub reason: String,
}

/// For how long, and why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GlassRequest {
    /// Seconds from now; the longest it may be when absent.
    pub seconds: Option<u32>,
    /// Why; kept in the audit trail.
    pub reason: String,
}

/// Routes for users who have shown their token.
pub fn routes() -> OpenApiRouter<Files> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(on, off))
}

/// Every break-glass policy, by name.
#[utoipa::path(get, path = "/api/break-glass", tag = "Policy files", responses((status = 200, body = Vec<Glass>)))]
async fn list(State(files): State<Files>) -> ApiResult<Vec<Glass>> {
    let mut glasses: Vec<Glass> = files.store.policies().await?.into_iter().filter_map(glass).collect();
    glasses.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(glasses))
}

/// Turns a break-glass policy on for a time; on again, the time begins anew.
#[utoipa::path(post, path = "/api/break-glass/{policyId}", tag = "Policy files", request_body = GlassRequest,
    params(("policyId" = String, Path, description = "Policy id")),
    responses((status = 200, body = Glass), (status = 404, description = "No such policy"),
        (status = 422, description = "No break-glass policy, no reason, or too long")))]
async fn on(
    State(files): State<Files>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<GlassRequest>,
) -> ApiResult<Glass> {
    let most = files.store.policy(&id).await?.break_glass.map_or(0, |glass| glass.max_seconds);
    let seconds = request.seconds.unwrap_or(u32::try_from(most).unwrap_or(u32::MAX));
    let policy = files.store.break_glass_on(&caller.actor(), &id, seconds, &request.reason).await?;
    tracing::warn!(
        policy = policy.name,
        by = caller.user.name,
        seconds,
        reason = request.reason,
        "BREAK GLASS is on"
    );
    shown(policy)
}

/// Turns a break-glass policy off before its time.
#[utoipa::path(delete, path = "/api/break-glass/{policyId}", tag = "Policy files",
    params(("policyId" = String, Path, description = "Policy id")),
    responses((status = 200, body = Glass), (status = 404, description = "No such policy"),
        (status = 422, description = "No break-glass policy")))]
async fn off(State(files): State<Files>, caller: Caller, Path(id): Path<String>) -> ApiResult<Glass> {
    shown(files.store.break_glass_off(&caller.actor(), &id).await?)
}

/// Ends what is on when its time has come, and keeps the metrics. Runs until the store is gone.
pub async fn keep(store: Store, metrics: Metrics) {
    let mut changes = store.changes();
    loop {
        changes.mark_unchanged();
        let next = match look(&store, &metrics).await {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "whether a break-glass policy has to end could not be looked up");
                None
            }
        };
        let wait = next.map_or(LOOK, |until| {
            Duration::from_millis(until.saturating_sub(now()).max(0).unsigned_abs()).min(LOOK)
        });
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn look(store: &Store, metrics: &Metrics) -> Result<Option<i64>, StoreError> {
    let (mut on, mut next) = store.break_glass().await?;
    if next.is_some_and(|next| next <= now()) && *store.leads().borrow() {
        for policy in store.end_break_glass(now()).await? {
            tracing::warn!(policy, "BREAK GLASS is over: the policy is off again");
        }
        (on, next) = store.break_glass().await?;
    }
    metrics.break_glass_on.set(on);
    metrics.break_glass_until.set(next.map_or(0.0, |until| until as f64 / 1e3));
    // Another replica ends it, if this one may not.
    Ok(next.filter(|_| *store.leads().borrow()))
}

fn shown(policy: Policy) -> ApiResult<Glass> {
    match glass(policy) {
        Some(glass) => Ok(Json(glass)),
        None => Err(StoreError::Invalid("the policy is no break-glass policy".into()).into()),
    }
}

fn glass(policy: Policy) -> Option<Glass> {
    let glass = policy.break_glass?;
    Some(Glass {
        id: policy.id,
        name: policy.name,
        max_seconds: glass.max_seconds,
        on: policy.enabled,
        until: glass.until.map(rfc3339),
        reason: glass.reason,
    })
}
