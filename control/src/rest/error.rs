//! What a request that was not served is answered.

use axum::Json;
use axum::body::to_bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::geo::GeoError;
use crate::passwords::HashError;
use crate::store::StoreError;

/// Longest text of a refusal by the HTTP library that is passed on, in bytes.
const TEXT_LIMIT: usize = 16 * 1024;

/// The body of every answer that is not a success.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorResponse {
    /// What is wrong, for a person.
    pub message: String,
    /// The HTTP status again.
    pub code: u16,
}

/// A status and what to say with it.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
}

/// What a handler returns.
pub type ApiResult<T> = Result<Json<T>, ApiError>;

impl ApiError {
    /// An error of any status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into() }
    }

    /// 400: the request cannot be read.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401: nobody we know asks.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403: who asks may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// Status and message.
    pub(crate) fn into_parts(self) -> (StatusCode, String) {
        (self.status, self.message)
    }

    /// Whether the caller was refused, rather than the request or the service at fault.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }

    /// 422: the request contradicts the model.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::NotFound { .. } => StatusCode::NOT_FOUND,
            StoreError::Duplicate(_) => StatusCode::CONFLICT,
            StoreError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            // As NetBird's clients know both.
            StoreError::InUse { kind: "posture check", .. } => StatusCode::PRECONDITION_FAILED,
            StoreError::InUse { .. } => StatusCode::BAD_REQUEST,
            StoreError::Denied(_) => StatusCode::FORBIDDEN,
            StoreError::NeedsCodes => StatusCode::PRECONDITION_REQUIRED,
            // Not "nothing was changed": the answer to a COMMIT may have been lost.
            StoreError::Unavailable(_) => {
                tracing::error!(%error, "a request failed because the store's database does not answer");
                StatusCode::SERVICE_UNAVAILABLE
            }
            StoreError::Hash(HashError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Full
            | StoreError::ReadOnly
            | StoreError::Database(_)
            | StoreError::Hash(HashError::Failed(_))
            | StoreError::Corrupt { .. } => {
                tracing::error!(%error, "a request failed in the store");
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}; nothing was changed"));
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<GeoError> for ApiError {
    fn from(error: GeoError) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorResponse { message: self.message, code: self.status.as_u16() };
        (self.status, Json(body)).into_response()
    }
}

/// No such path.
pub async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no such path; GET /api/openapi.json lists those there are")
}

/// The path is there, the method is not.
pub async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not know that method")
}

/// Gives the plain-text refusals of the HTTP library the shape of all others.
pub async fn in_json(response: Response) -> Response {
    let status = response.status();
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = to_bytes(response.into_body(), TEXT_LIMIT).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let message = if text.is_empty() { status.canonical_reason().unwrap_or_default().into() } else { text };
    ApiError::new(status, message.to_lowercase()).into_response()
}
