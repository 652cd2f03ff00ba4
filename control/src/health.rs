//! `/healthz` (the process answers) and `/readyz` (it can do its work): one check per dependency, each with its reason.

use std::sync::Arc;
use std::time::Duration;

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

/// A compilation that takes longer is a sign of trouble.
const COMPILATION: Duration = Duration::from_secs(2);

/// What readiness looks at.
#[derive(Clone)]
pub struct HealthState {
    store: Store,
    hub: Arc<Hub>,
    authority: Arc<Authority>,
    patience: Duration,
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
        Self { store, hub, authority, patience: COMPILATION }
    }

    /// Looks at everything now; waits a moment for a compilation that is under way.
    pub async fn check(&self) -> Readiness {
        let (store, compiler) = match self.store.revision().await {
            Ok(revision) => {
                let store = Check { name: "store", ok: true, detail: format!("revision {revision}") };
                (store, self.compiler(revision).await)
            }
            Err(error) => {
                let store = Check { name: "store", ok: false, detail: error.to_string() };
                (store, self.compiler(0).await)
            }
        };
        let checks = vec![store, compiler, self.authority()];
        Readiness { ready: checks.iter().all(|check| check.ok), checks }
    }

    async fn compiler(&self, revision: u64) -> Check {
        let failed = |detail| Check { name: "compiler", ok: false, detail };
        if let Some(error) = self.hub.compilation().error {
            return failed(error);
        }
        let in_time = tokio::time::timeout(self.patience, self.hub.compiled(revision)).await.is_ok();
        let compilation = self.hub.compilation();
        let detail = format!("images stand for revision {}", compilation.revision);
        match compilation.error {
            Some(error) => failed(error),
            None if !in_time => failed(format!("{detail}, and the store is at {revision}")),
            None => Check { name: "compiler", ok: true, detail },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::Agents;

    #[tokio::test]
    async fn each_trouble_is_named_and_only_that_check_fails() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let agents = Agents::open(store.clone(), crate::geo::Places::none(), dir.path()).unwrap();
        let mut state = HealthState::new(store.clone(), agents.hub().clone(), agents.authority().clone());
        state.patience = Duration::ZERO;
        let failing = async || {
            let readiness = state.check().await;
            assert_eq!(readiness.ready, readiness.checks.iter().all(|check| check.ok));
            readiness
                .checks
                .into_iter()
                .filter(|check| !check.ok)
                .map(|check| (check.name, check.detail))
                .collect()
        };
        let seen: Vec<_> = failing().await;
        assert_eq!(seen, [("compiler", "images stand for revision 0, and the store is at 1".to_owned())]);
        agents.hub().compilation_failed("rule r has slot 9".into());
        let seen: Vec<_> = failing().await;
        assert_eq!(seen, [("compiler", "rule r has slot 9".to_owned())]);
        agents.hub().publish(1, Default::default(), true);
        let seen: Vec<_> = failing().await;
        assert_eq!(seen, []);
        store.close().await;
        let seen: Vec<_> = failing().await;
        assert!(matches!(seen.as_slice(), [("store", _)]), "{seen:?}");
    }
}
