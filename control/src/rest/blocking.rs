//! Work that computes and does not wait: it must not hold up the requests of others.

use axum::http::StatusCode;

use super::error::ApiError;

/// Does `work` on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request's work ended early");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the work ended early: {error}"))
    })
}
