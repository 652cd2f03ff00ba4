//! Counting REST requests, and the page itself.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus::TEXT_FORMAT;

use super::Metrics;

/// Middleware: counts and times every request under its route's pattern; what matches no route is one series.
pub async fn count_requests(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    let method = method_label(request.method());
    let response = next.run(request).await;
    metrics.http_requests.with_label_values(&[&route, method, response.status().as_str()]).inc();
    metrics.http_seconds.with_label_values(&[&route, method]).observe(started.elapsed().as_secs_f64());
    response
}

/// `GET /metrics`.
pub async fn metrics_page(State(metrics): State<Metrics>) -> Response {
    match metrics.render() {
        Ok(page) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], page).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot write the metrics page");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics page could not be written; see the log\n")
                .into_response()
        }
    }
}

/// A client can invent methods: only the known ones become labels.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
