//! `GET /api/gateways`: what every gateway is to enforce, what it says it enforces, and what it counts.

mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::hub::Hub;
use crate::store::{Network, Peer, Router, Store, StoreError};
pub use view::{Counters, Gateway, ImageState, LastRefusal, Link, Membership, RuleTraffic};

/// What these routes read.
#[derive(Clone)]
pub struct GatewaysState {
    store: Store,
    hub: Arc<Hub>,
}

impl GatewaysState {
    /// Over these parts.
    pub fn new(store: Store, hub: Arc<Hub>) -> Self {
        Self { store, hub }
    }
}

/// Every peer that joined as a gateway or routes a network, by name.
#[utoipa::path(get, path = "/api/gateways", tag = "Gateways", responses((status = 200, body = Vec<Gateway>)))]
pub async fn list(State(state): State<GatewaysState>) -> Response {
    match all(&state).await {
        Ok(gateways) => Json(gateways).into_response(),
        Err(failure) => failed(&failure),
    }
}

/// One gateway; any other agent can be asked for as well.
#[utoipa::path(get, path = "/api/gateways/{id}", tag = "Gateways", params(("id" = String, Path, description = "Peer id")),
    responses((status = 200, body = Gateway), (status = 404, description = "No such peer")))]
pub async fn show(State(state): State<GatewaysState>, Path(id): Path<String>) -> Response {
    match one(&state, &id).await {
        Ok(gateway) => Json(gateway).into_response(),
        Err(failure) => failed(&failure),
    }
}

/// What each rule of the gateway's image admitted and refused, by policy and rule name; rules it never met are there with
/// zeroes.
#[utoipa::path(get, path = "/api/gateways/{id}/rules", tag = "Gateways",
    params(("id" = String, Path, description = "Peer id")),
    responses((status = 200, body = Vec<RuleTraffic>), (status = 404, description = "No such peer")))]
pub async fn rules(State(state): State<GatewaysState>, Path(id): Path<String>) -> Response {
    match state.store.peer(&id).await {
        Ok(_) => {
            let image = state.hub.wanted_image(&id);
            Json(view::rules(image.as_deref(), &state.hub.overview(&id))).into_response()
        }
        Err(failure) => failed(&failure),
    }
}

/// The error body of NetBird's API.
pub(crate) fn error(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(json!({ "message": message.into(), "code": status.as_u16() }))).into_response()
}

async fn all(state: &GatewaysState) -> Result<Vec<Gateway>, StoreError> {
    let peers = state.store.peers(None, None).await?;
    let names: BTreeMap<String, String> =
        peers.iter().map(|peer| (peer.id.clone(), peer.name.clone())).collect();
    let memberships = memberships(&state.store).await?;
    let elsewhere = state.store.connected_elsewhere().await?;
    let gateways = state.hub.gateways();
    let served =
        peers.into_iter().filter(|peer| gateways.contains(&peer.id) || view::joined_as_gateway(peer));
    let mut list: Vec<Gateway> =
        served.map(|peer| describe(state, peer, &memberships, &names, &elsewhere)).collect();
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

async fn one(state: &GatewaysState, id: &str) -> Result<Gateway, StoreError> {
    let peer = state.store.peer(id).await?;
    let peers = state.store.peers(None, None).await?;
    let names = peers.into_iter().map(|peer| (peer.id, peer.name)).collect();
    let elsewhere = state.store.connected_elsewhere().await?;
    Ok(describe(state, peer, &memberships(&state.store).await?, &names, &elsewhere))
}

fn describe(
    state: &GatewaysState,
    peer: Peer,
    memberships: &[(Network, Vec<Router>)],
    names: &BTreeMap<String, String>,
    elsewhere: &BTreeSet<String>,
) -> Gateway {
    let overview = state.hub.overview(&peer.id);
    let elsewhere = elsewhere.contains(&peer.id);
    let mut gateway = view::gateway(peer, &overview, memberships, names);
    gateway.connected |= elsewhere;
    gateway
}

/// Every network with its routers.
async fn memberships(store: &Store) -> Result<Vec<(Network, Vec<Router>)>, StoreError> {
    let mut routers = BTreeMap::<String, Vec<Router>>::new();
    for router in store.routers(None).await? {
        routers.entry(router.network_id.clone()).or_default().push(router);
    }
    let networks = store.networks().await?.into_iter();
    Ok(networks
        .map(|network| {
            let own = routers.remove(&network.id).unwrap_or_default();
            (network, own)
        })
        .collect())
}

fn failed(failure: &StoreError) -> Response {
    match failure {
        StoreError::NotFound { .. } => error(StatusCode::NOT_FOUND, failure.to_string()),
        failure => {
            tracing::error!(error = %failure, "cannot list gateways");
            error(StatusCode::INTERNAL_SERVER_ERROR, "the store failed; see control's log")
        }
    }
}
