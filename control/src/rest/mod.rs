//! The REST API, in the paths and shapes NetBird's clients know.
//!
//! Every path under `/api` answers JSON, refusals included. Every path but those of [`open_routes`] needs a token, and
//! the role's right to it by the table in [`roles`]. What is served and what is documented is one list: routes are added
//! with their description, or not at all.

pub mod auth;
pub mod body;
pub mod cors;
pub mod error;
pub mod limits;
pub mod roles;

mod accessible;
pub mod accounts;
mod blocking;
pub mod device_login;
pub mod dns_settings;
pub mod events;
mod exactly;
pub mod explain;
mod fixed;
pub mod groups;
pub mod instance;
pub mod invites;
pub mod local_users;
pub mod locations;
pub mod login;
pub mod nameservers;
pub mod networks;
mod nothing;
pub mod peers;
pub mod policies;
pub mod posture;
pub mod resources;
pub mod routers;
pub mod routes;
pub mod sessions;
pub mod setup_keys;
pub mod temporary;
mod time;
pub mod tokens;
pub mod users;
pub mod zones;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn_with_state, map_response};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::openapi;
use cors::Origins;
use exactly::Exactly;
pub(crate) use exactly::is_object;
use limits::{Clients, Limits, Rates};
pub(crate) use time::rfc3339;

/// Largest request body, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;

/// What is served beside the routes of this module.
#[derive(Default)]
pub struct Extra {
    /// Routes that need a token.
    pub protected: OpenApiRouter,
    /// Routes anyone may ask.
    pub open: OpenApiRouter,
    /// How much each caller may ask for.
    pub rates: Rates,
    /// Pages of other origins that may ask.
    pub origins: Origins,
}

/// Everything that is served, and the document of it.
pub fn router(app: App, extra: Extra) -> (Router, Arc<OpenApi>) {
    let (protected, mut documented) =
        routes().with_state::<()>(app.clone()).merge(extra.protected).split_for_parts();
    let (open, mut documented_open) =
        open_routes().with_state::<()>(app.clone()).merge(extra.open).split_for_parts();
    let (own, documented_own) = openapi::routes().split_for_parts();
    openapi::protect(&mut documented);
    openapi::refuse(&mut documented_open);
    documented.merge(documented_open);
    documented.merge(documented_own);
    openapi::limit(&mut documented);
    let document = Arc::new(openapi::finish(documented));

    let conditions = Exactly { app: app.clone(), routes: protected.clone() };
    let protected = protected.route_layer(from_fn_with_state(conditions, exactly::exactly));
    let mut router = authenticated(app, protected)
        .merge(open)
        .merge(own.with_state(document.clone()))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(map_response(error::in_json));
    if let Some(limits) = Limits::new(&extra.rates) {
        router = router.layer(from_fn_with_state(Arc::new(limits), limits::limit));
    }
    let clients = Arc::new(Clients::new(extra.rates.trusted_proxies));
    let mut router = router.layer(from_fn_with_state(clients, limits::locate));
    if !extra.origins.is_empty() {
        // Outside of everything: a page is to read refusals as well.
        router = router.layer(from_fn_with_state(Arc::new(extra.origins), cors::cors));
    }
    (router, document)
}

/// Puts routes behind a token and the role's right to their path.
pub fn authenticated(app: App, router: Router) -> Router {
    router.route_layer(from_fn_with_state(app, auth::authenticate))
}

/// The routes that need a token.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .merge(accounts::routes())
        .merge(login::routes())
        .merge(device_login::routes())
        .merge(local_users::routes())
        .merge(invites::routes())
        .merge(sessions::routes())
        .merge(users::routes())
        .merge(tokens::routes())
        .merge(setup_keys::routes())
        .merge(groups::routes())
        .merge(peers::routes())
        .merge(policies::routes())
        .merge(posture::routes())
        .merge(locations::routes())
        .merge(networks::routes())
        .merge(resources::routes())
        .merge(routers::routes())
        .merge(routes::routes())
        .merge(temporary::routes())
        .merge(nameservers::routes())
        .merge(dns_settings::routes())
        .merge(zones::routes())
        .merge(events::routes())
        .merge(explain::routes())
        .merge(nothing::routes())
}

/// The routes anyone may ask.
pub fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .merge(instance::routes())
        .merge(login::open_routes())
        .merge(local_users::open_routes())
        .merge(invites::open_routes())
}

/// The body of a deletion's answer: an empty object.
#[derive(Debug, Default, serde::Serialize, utoipa::ToSchema)]
pub struct Empty {}
