//! `/api/posture-checks`.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use sluicegate_policy::posture::Checks;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult, ErrorResponse};
use crate::app::App;
use crate::store::{self, PostureCheckChange};

/// What is asked of machines before policies count them among their sources.
#[derive(Debug, Serialize, ToSchema)]
pub struct PostureCheck {
    /// Check id.
    pub id: String,
    /// Display name, unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// All of it must hold.
    pub checks: Checks,
}

/// A posture check to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = PostureCheckUpdate)]
pub struct PostureCheckRequest {
    /// Display name, unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// At least one of them. One that is not known is refused, for without it the check would ask for less.
    #[schema(value_type = Checks)]
    pub checks: serde_json::Value,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// Posture checks.
#[utoipa::path(get, path = "/api/posture-checks", tag = "Posture Checks",
    responses((status = 200, body = [PostureCheck])))]
async fn list(State(app): State<App>) -> ApiResult<Vec<PostureCheck>> {
    Ok(Json(app.store.posture_checks().await?.into_iter().map(shape).collect()))
}

/// One posture check.
#[utoipa::path(get, path = "/api/posture-checks/{postureCheckId}", tag = "Posture Checks",
    params(("postureCheckId" = String, Path)), responses((status = 200, body = PostureCheck)))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> ApiResult<PostureCheck> {
    Ok(Json(shape(app.store.posture_check(&id).await?)))
}

/// Creates a posture check.
#[utoipa::path(post, path = "/api/posture-checks", tag = "Posture Checks", request_body = PostureCheckRequest,
    responses((status = 200, body = PostureCheck),
        (status = 412, description = "It asks for a place, and control has no geo database", body = ErrorResponse)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<PostureCheckRequest>,
) -> ApiResult<PostureCheck> {
    let change = change(&app, request)?;
    Ok(Json(shape(app.store.create_posture_check(&caller.actor(), change).await?)))
}

/// Replaces a posture check; machines are judged anew at once.
#[utoipa::path(put, path = "/api/posture-checks/{postureCheckId}", tag = "Posture Checks",
    params(("postureCheckId" = String, Path)), request_body = PostureCheckRequest,
    responses((status = 200, body = PostureCheck),
        (status = 412, description = "It asks for a place, and control has no geo database", body = ErrorResponse)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<PostureCheckRequest>,
) -> ApiResult<PostureCheck> {
    app.store.posture_check(&id).await?;
    let change = change(&app, request)?;
    Ok(Json(shape(app.store.update_posture_check(&caller.actor(), &id, change).await?)))
}

/// Deletes a posture check; refused while a policy asks for it.
#[utoipa::path(delete, path = "/api/posture-checks/{postureCheckId}", tag = "Posture Checks",
    params(("postureCheckId" = String, Path)),
    responses((status = 200, body = Empty),
        (status = 412, description = "A policy asks for it", body = ErrorResponse)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.delete_posture_check(&caller.actor(), &id).await?;
    Ok(Json(Empty {}))
}

fn change(app: &App, request: PostureCheckRequest) -> Result<PostureCheckChange, ApiError> {
    let checks = match request.checks {
        serde_json::Value::Null => Checks::default(),
        checks => serde_json::from_value::<Checks>(checks)
            .map_err(|error| ApiError::invalid(format!("checks: {error}")))?,
    };
    let checks = checks.validated().map_err(|error| ApiError::invalid(error.to_string()))?;
    if checks.location.is_some() {
        // Every machine would fail it.
        app.places.database()?;
    }
    Ok(PostureCheckChange { name: request.name, description: request.description, checks })
}

fn shape(check: store::PostureCheck) -> PostureCheck {
    PostureCheck { id: check.id, name: check.name, description: check.description, checks: check.checks }
}
