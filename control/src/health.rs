//! `/healthz` (the process answers) and `/readyz` (it can do its work): one check per dependency, each with its reason.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::hub::Hub;
use crate::pki::Authority;
use crate::store::Store;

/// What readiness looks at.
#[derive(Clone)]
pub struct HealthState {
    store: Store,
    hub: Arc<Hub>,
    authority: Arc<Authority>,
}

/// The body of `/readyz`.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether every check passed.
    pub ready: bool,
    /// One entry per check.
    pub checks: Vec<Check>,
}

/// One thing control needs.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    /// `store`, `compiler` or `authority`.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What is there, or what is wrong.
    pub detail: String,
}

impl HealthState {
    /// Over these parts.
    pub fn new(store: Store, hub: Arc<Hub>, authority: Arc<Authority>) -> Self {
        Self { store, hub, authority }
    }

    /// Looks at everything now.
    pub async fn check(&self) -> Readiness {
        let checks = vec![self.store().await, self.compiler(), self.authority()];
        Readiness { ready: checks.iter().all(|check| check.ok), checks }
    }

    async fn store(&self) -> Check {
        match self.store.revision().await {
            Ok(revision) => Check { name: "store", ok: true, detail: format!("revision {revision}") },
            Err(error) => Check { name: "store", ok: false, detail: error.to_string() },
        }
    }

    fn compiler(&self) -> Check {
        let compilation = self.hub.compilation();
        match compilation.error {
            Some(error) => Check { name: "compiler", ok: false, detail: error },
            None if compilation.revision == 0 => {
                Check { name: "compiler", ok: false, detail: "nothing has been compiled yet".into() }
            }
            None => {
                let detail = format!("images stand for revision {}", compilation.revision);
                Check { name: "compiler", ok: true, detail }
            }
        }
    }

    fn authority(&self) -> Check {
        let expires = self.authority.expires();
        let ok = expires > OffsetDateTime::now_utc();
        Check { name: "authority", ok, detail: format!("expires at {expires}") }
    }
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "Health", responses((status = 200, body = str)))]
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Control can do its work: 200 when every check passed, else 503; the body says which.
#[utoipa::path(get, path = "/readyz", tag = "Health",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
pub async fn readyz(State(state): State<HealthState>) -> Response {
    let readiness = state.check().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}
