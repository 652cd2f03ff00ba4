//! `/api/events/audit`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ApiResult;
use super::time::rfc3339;
use crate::app::App;
use crate::store;

/// An audit event.
#[derive(Debug, Serialize, ToSchema)]
pub struct Event {
    /// Rises with every event.
    pub id: String,
    /// RFC 3339.
    pub timestamp: String,
    /// What happened, as a sentence.
    pub activity: String,
    /// What happened, as a code.
    pub activity_code: String,
    /// Id of the user, setup key or `sys`.
    pub initiator_id: String,
    /// Its name.
    pub initiator_name: String,
    /// Its e-mail address, may be empty.
    pub initiator_email: String,
    /// Id of what it was done to.
    pub target_id: String,
    /// Names; `before` and `after` as JSON text; `revision`, the account revision the change made.
    pub meta: BTreeMap<String, String>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list))
}

/// Audit events, newest first: ten thousand, or fewer where their details are long.
#[utoipa::path(get, path = "/api/events/audit", tag = "Events", responses((status = 200, body = [Event])))]
async fn list(State(app): State<App>) -> ApiResult<Vec<Event>> {
    Ok(Json(app.store.events().await?.into_iter().map(event).collect()))
}

fn event(event: store::Event) -> Event {
    let mut meta = event.meta;
    meta.insert("revision".into(), event.revision.to_string());
    Event {
        id: event.id.to_string(),
        timestamp: rfc3339(event.at),
        activity: event.activity.into(),
        activity_code: event.code,
        initiator_id: event.initiator.id,
        initiator_name: event.initiator.name,
        initiator_email: event.initiator.email,
        target_id: event.target_id,
        meta,
    }
}
