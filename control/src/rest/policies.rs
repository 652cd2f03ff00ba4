//! `/api/policies`.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Empty;
use super::auth::Caller;
use super::body::Body;
use super::error::{ApiError, ApiResult};
use super::groups::{GroupMinimum, Resource, expand, minimums, minimums_of};
use crate::app::App;
use crate::store::{self, Action, End, PolicyChange, PortRange, Protocol, RuleChange, RuleSpec};

/// Rules under one name and one switch.
#[derive(Debug, Serialize, ToSchema)]
pub struct Policy {
    /// Policy id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Posture checks that its sources must pass.
    pub source_posture_checks: Vec<String>,
    /// The rules, in order.
    pub rules: Vec<PolicyRule>,
}

/// One rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyRule {
    /// Rule id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Accept or drop.
    pub action: Action,
    /// As it was asked for.
    pub bidirectional: bool,
    /// Ours: whether the mirror image is admitted between peers, which `all`, `icmp`, and `tcp` and `udp` without ports always
    /// are, and what goes to a resource never is.
    pub effective_bidirectional: bool,
    /// Which packets.
    pub protocol: Protocol,
    /// Destination ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Destination port ranges.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_ranges: Vec<PortRange>,
    /// Local users that an earlier version stored for each source group of `netbird-ssh`; they limit nobody.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub authorized_groups: BTreeMap<String, Vec<String>>,
    /// Source groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<GroupMinimum>>,
    /// Source peer or resource.
    #[serde(rename = "sourceResource", skip_serializing_if = "Option::is_none")]
    pub source_resource: Option<Resource>,
    /// Destination groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Vec<GroupMinimum>>,
    /// Destination peer or resource.
    #[serde(rename = "destinationResource", skip_serializing_if = "Option::is_none")]
    pub destination_resource: Option<Resource>,
}

/// A policy to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = PolicyUpdate)]
pub struct PolicyRequest {
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Posture checks that its sources must pass; one that is unknown is refused.
    pub source_posture_checks: Vec<String>,
    /// At least one.
    pub rules: Vec<RuleRequest>,
}

/// A rule of a policy to be. Each side names groups, or a peer or resource.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = PolicyRuleUpdate)]
pub struct RuleRequest {
    /// A rule of this policy; left out, the rule of this name, or else a new one.
    pub id: Option<String>,
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// `accept` or `drop`.
    pub action: String,
    /// Whether the mirror image is admitted as well.
    pub bidirectional: bool,
    /// `all`, `tcp`, `udp`, `icmp` or `netbird-ssh`.
    pub protocol: String,
    /// Destination ports, 1 to 65535, as text; not together with `port_ranges`, nor with `all` or `icmp`.
    pub ports: Vec<String>,
    /// Destination port ranges.
    pub port_ranges: Vec<PortRangeRequest>,
    /// To be left out: nothing limits a rule to local users. Only what an earlier version stored may stay.
    pub authorized_groups: BTreeMap<String, Vec<String>>,
    /// Source group ids.
    pub sources: Vec<String>,
    /// Source peer or resource.
    #[serde(rename = "sourceResource")]
    pub source_resource: Option<Resource>,
    /// Destination group ids.
    pub destinations: Vec<String>,
    /// Destination peer or resource.
    #[serde(rename = "destinationResource")]
    pub destination_resource: Option<Resource>,
}

/// A port range as asked for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = RulePortRangeRequest)]
pub struct PortRangeRequest {
    /// First port, 1 to 65535.
    pub start: i64,
    /// Last port, not below the first.
    pub end: i64,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list, create)).routes(routes!(get, update, delete))
}

/// Policies.
#[utoipa::path(get, path = "/api/policies", tag = "Policies", responses((status = 200, body = [Policy])))]
async fn list(State(app): State<App>) -> ApiResult<Vec<Policy>> {
    let shapes = Shapes::load(&app).await?;
    Ok(Json(app.store.policies().await?.into_iter().map(|policy| shapes.policy(policy)).collect()))
}

/// One policy.
#[utoipa::path(get, path = "/api/policies/{policyId}", tag = "Policies", params(("policyId" = String, Path)),
    responses((status = 200, body = Policy)))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> ApiResult<Policy> {
    let policy = app.store.policy(&id).await?;
    Ok(Json(Shapes::of(&app, &policy).await?.policy(policy)))
}

/// Creates a policy.
#[utoipa::path(post, path = "/api/policies", tag = "Policies", request_body = PolicyRequest,
    responses((status = 200, body = Policy)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<PolicyRequest>,
) -> ApiResult<Policy> {
    let change = change(&app, request).await?;
    let policy = app.store.create_policy(&caller.actor(), change).await?;
    Ok(Json(Shapes::of(&app, &policy).await?.policy(policy)))
}

/// Replaces a policy; rules named by id, or else by name, keep their id and counters.
#[utoipa::path(put, path = "/api/policies/{policyId}", tag = "Policies", params(("policyId" = String, Path)),
    request_body = PolicyRequest, responses((status = 200, body = Policy)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<PolicyRequest>,
) -> ApiResult<Policy> {
    app.store.policy(&id).await?;
    let change = change(&app, request).await?;
    let policy = app.store.update_policy(&caller.actor(), &id, change).await?;
    Ok(Json(Shapes::of(&app, &policy).await?.policy(policy)))
}

/// Deletes a policy.
#[utoipa::path(delete, path = "/api/policies/{policyId}", tag = "Policies", params(("policyId" = String, Path)),
    responses((status = 200, body = Empty)))]
async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> ApiResult<Empty> {
    app.store.delete_policy(&caller.actor(), &id).await?;
    Ok(Json(Empty {}))
}

async fn change(app: &App, request: PolicyRequest) -> Result<PolicyChange, ApiError> {
    let mut rules = Vec::with_capacity(request.rules.len());
    for rule in request.rules {
        rules.push(rule_change(app, rule).await?);
    }
    Ok(PolicyChange {
        name: request.name,
        description: request.description,
        enabled: request.enabled,
        source_posture_checks: request.source_posture_checks,
        rules,
    })
}

async fn rule_change(app: &App, rule: RuleRequest) -> Result<RuleChange, ApiError> {
    let action = Action::parse(&rule.action)
        .ok_or_else(|| ApiError::invalid(format!("action {:?} is unknown: accept or drop", rule.action)))?;
    let protocol = Protocol::parse(&rule.protocol).ok_or_else(|| {
        ApiError::invalid(format!(
            "protocol {:?} is unknown: all, tcp, udp, icmp or netbird-ssh",
            rule.protocol
        ))
    })?;
    let ports =
        rule.ports.iter().map(|text| port(text.trim().parse().ok(), text)).collect::<Result<_, _>>()?;
    let range = |range: &PortRangeRequest| {
        let bound = |value: i64| port(Some(value), &value.to_string());
        Ok(PortRange { start: bound(range.start)?, end: bound(range.end)? })
    };
    let port_ranges = rule.port_ranges.iter().map(range).collect::<Result<_, ApiError>>()?;
    let sources = end(app, "sources", "sourceResource", rule.sources, rule.source_resource).await?;
    let destinations =
        end(app, "destinations", "destinationResource", rule.destinations, rule.destination_resource).await?;
    let spec = RuleSpec {
        name: rule.name,
        description: rule.description,
        enabled: rule.enabled,
        action,
        bidirectional: rule.bidirectional,
        protocol,
        ports,
        port_ranges,
        authorized_groups: rule.authorized_groups,
        sources,
        destinations,
    };
    Ok(RuleChange { id: rule.id.filter(|id| !id.is_empty()), spec })
}

fn port(value: Option<i64>, text: &str) -> Result<u16, ApiError> {
    value
        .and_then(|value| u16::try_from(value).ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| ApiError::invalid(format!("port {text:?} is not between 1 and 65535")))
}

async fn end(
    app: &App,
    groups_field: &str,
    resource_field: &str,
    groups: Vec<String>,
    resource: Option<Resource>,
) -> Result<End, ApiError> {
    // Clients that know no resources send an empty one.
    let Some(resource) = resource.filter(|resource| !resource.id.is_empty()) else {
        return Ok(End::Groups(groups));
    };
    if !groups.is_empty() {
        let message = format!("specify either {groups_field} or {resource_field}, not both");
        return Err(ApiError::invalid(message));
    }
    if resource.kind == "peer" {
        return Ok(End::Peer(resource.id));
    }
    match app.store.resource_kind(&resource.id).await? {
        Some(kind) if !resource.agrees(kind) => Err(ApiError::invalid(format!(
            "{resource_field}: resource {} is a {}, not a {}",
            resource.id,
            kind.as_str(),
            resource.kind
        ))),
        _ => Ok(End::Resource(resource.id)),
    }
}

/// What the names in a policy's answer are taken from.
struct Shapes {
    groups: HashMap<String, GroupMinimum>,
    kinds: HashMap<String, store::ResourceKind>,
}

impl Shapes {
    async fn load(app: &App) -> Result<Self, ApiError> {
        Ok(Shapes { groups: minimums(app).await?, kinds: app.store.resource_kinds().await? })
    }

    /// For one policy.
    async fn of(app: &App, policy: &store::Policy) -> Result<Self, ApiError> {
        let (mut groups, mut kinds) = (Vec::new(), HashMap::new());
        for end in policy.rules.iter().flat_map(|rule| [&rule.spec.sources, &rule.spec.destinations]) {
            match end {
                End::Groups(ids) => groups.extend(ids),
                End::Peer(_) => {}
                End::Resource(id) => {
                    kinds.extend(app.store.resource_kind(id).await?.map(|kind| (id.clone(), kind)));
                }
            }
        }
        Ok(Shapes { groups: minimums_of(app, groups).await?, kinds })
    }

    fn policy(&self, policy: store::Policy) -> Policy {
        Policy {
            id: policy.id,
            name: policy.name,
            description: policy.description,
            enabled: policy.enabled,
            source_posture_checks: policy.source_posture_checks,
            rules: policy.rules.into_iter().map(|rule| self.rule(rule)).collect(),
        }
    }

    fn rule(&self, rule: store::Rule) -> PolicyRule {
        let effective_bidirectional = rule.spec.effectively_bidirectional();
        let spec = rule.spec;
        let (sources, source_resource) = self.end(spec.sources);
        let (destinations, destination_resource) = self.end(spec.destinations);
        PolicyRule {
            id: rule.id,
            name: spec.name,
            description: spec.description,
            enabled: spec.enabled,
            action: spec.action,
            bidirectional: spec.bidirectional,
            effective_bidirectional,
            protocol: spec.protocol,
            ports: spec.ports.iter().map(u16::to_string).collect(),
            port_ranges: spec.port_ranges,
            authorized_groups: spec.authorized_groups,
            sources,
            source_resource,
            destinations,
            destination_resource,
        }
    }

    fn end(&self, end: End) -> (Option<Vec<GroupMinimum>>, Option<Resource>) {
        match end {
            End::Groups(ids) => (Some(expand(&ids, &self.groups)), None),
            End::Peer(id) => (None, Some(Resource { id, kind: "peer".into() })),
            End::Resource(id) => {
                let kind = self.kinds.get(&id).map(|kind| kind.as_str()).unwrap_or_default().into();
                (None, Some(Resource { id, kind }))
            }
        }
    }
}
