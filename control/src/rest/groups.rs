//! `/api/groups`.

use std::collections::{BTreeSet, HashMap};

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use crate::app::App;
use crate::store::{self, GroupChange, Issued, NamedRef, ResourceKind};

/// A group without its members.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GroupMinimum {
    /// Group id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// How many peers it has.
    pub peers_count: usize,
    /// How many resources it has.
    pub resources_count: usize,
    /// Where it came from.
    pub issued: Issued,
}

/// A group with its members.
#[derive(Debug, Serialize, ToSchema)]
pub struct Group {
    /// The group.
    #[serde(flatten)]
    pub minimum: GroupMinimum,
    /// Its peers.
    pub peers: Vec<PeerMinimum>,
    /// Its resources.
    pub resources: Vec<Resource>,
}

/// A peer's id and name.
#[derive(Debug, Serialize, ToSchema)]
pub struct PeerMinimum {
    /// Peer id.
    pub id: String,
    /// Display name.
    pub name: String,
}

/// A resource, or in a policy also a peer, by id.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Resource {
    /// Resource or peer id.
    pub id: String,
    /// `host`, `subnet`, `domain`, or in a policy `peer`.
    #[serde(rename = "type", default)]
    pub kind: String,
}

impl Resource {
    /// Whether `type` says what the id is; left out, it agrees with everything.
    pub(super) fn agrees(&self, kind: ResourceKind) -> bool {
        self.kind.is_empty() || self.kind == kind.as_str()
    }
}

/// A group to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct GroupRequest {
    /// Display name.
    pub name: String,
    /// Peer ids.
    pub peers: Vec<String>,
    /// Resources.
    pub resources: Vec<Resource>,
}

/// Filter of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct GroupQuery {
    /// Only the group of exactly this name.
    name: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// Groups; 404 when a name is asked for that no group has.
#[utoipa::path(get, path = "/api/groups", tag = "Groups", params(GroupQuery),
    responses((status = 200, body = [Group])))]
async fn list(State(app): State<App>, Query(query): Query<GroupQuery>) -> ApiResult<Vec<Group>> {
    let mut groups = app.store.groups().await?;
    if let Some(name) = query.name {
        groups.retain(|group| group.name == name);
        if groups.is_empty() {
            return Err(store::StoreError::NotFound { kind: "group", id: name }.into());
        }
    }
    Ok(Json(groups.into_iter().map(shape).collect()))
}

/// One group.
#[utoipa::path(get, path = "/api/groups/{groupId}", tag = "Groups", params(("groupId" = String, Path)),
    responses((status = 200, body = Group)))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Group> {
    Ok(Json(shape(app.store.group(&id).await?)))
}

/// Creates a group.
#[utoipa::path(post, path = "/api/groups", tag = "Groups", request_body = GroupRequest,
    responses((status = 200, body = Group)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<GroupRequest>,
) -> ApiResult<Group> {
    let change = change(&app, request).await?;
    Ok(Json(shape(app.store.create_group(&caller.actor(), change).await?)))
}

/// Replaces name and members.
#[utoipa::path(put, path = "/api/groups/{groupId}", tag = "Groups", params(("groupId" = String, Path)),
    request_body = GroupRequest, responses((status = 200, body = Group)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<GroupRequest>,
) -> ApiResult<Group> {
    let change = change(&app, request).await?;
    Ok(Json(shape(app.store.update_group(&caller.actor(), &id, change).await?)))
}

/// Deletes a group; refused while anything refers to it.
#[utoipa::path(delete, path = "/api/groups/{groupId}", tag = "Groups", params(("groupId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.delete_group(&caller.actor(), &id).await?;
    Ok(Json(Empty {}))
}

/// Every group without its members, by id.
pub(super) async fn minimums(app: &App) -> Result<HashMap<String, GroupMinimum>, ApiError> {
    Ok(app.store.group_counts().await?.into_iter().map(minimum).collect())
}

/// The same of the groups that one answer names.
pub(super) async fn minimums_of(
    app: &App,
    ids: impl IntoIterator<Item = &String>,
) -> Result<HashMap<String, GroupMinimum>, ApiError> {
    let ids: BTreeSet<&str> = ids.into_iter().map(String::as_str).collect();
    Ok(app.store.group_counts_of(&ids).await?.into_iter().map(minimum).collect())
}

fn minimum(group: store::GroupCount) -> (String, GroupMinimum) {
    let minimum = GroupMinimum {
        id: group.id.clone(),
        name: group.name,
        peers_count: group.peers,
        resources_count: group.resources,
        issued: group.issued,
    };
    (group.id, minimum)
}

/// The groups of a member, with their counts.
pub(super) fn expand<'a>(
    ids: impl IntoIterator<Item = &'a String>,
    minimums: &HashMap<String, GroupMinimum>,
) -> Vec<GroupMinimum> {
    ids.into_iter().filter_map(|id| minimums.get(id).cloned()).collect()
}

async fn change(app: &App, request: GroupRequest) -> Result<GroupChange, ApiError> {
    for resource in &request.resources {
        if let Some(kind) = app.store.resource_kind(&resource.id).await?
            && !resource.agrees(kind)
        {
            let message = format!("resource {} is a {}, not a {}", resource.id, kind.as_str(), resource.kind);
            return Err(ApiError::invalid(message));
        }
    }
    let resources = request.resources.into_iter().map(|resource| resource.id).collect();
    Ok(GroupChange { name: request.name, peers: request.peers, resources })
}

fn shape(group: store::Group) -> Group {
    Group {
        minimum: GroupMinimum {
            id: group.id,
            name: group.name,
            peers_count: group.peers.len(),
            resources_count: group.resources.len(),
            issued: group.issued,
        },
        peers: group.peers.into_iter().map(|NamedRef { id, name }| PeerMinimum { id, name }).collect(),
        resources: group
            .resources
            .into_iter()
            .map(|resource| Resource { id: resource.id, kind: resource.kind.as_str().into() })
            .collect(),
    }
}
