//! `/api/explain`: why a flow is admitted, or what is missing.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sluicegate_policy::evaluate::{self, Carrier, Endpoint, Judgement, RouterRef, RuleRef};
use sluicegate_policy::service::Probe;
use sluicegate_policy::{Compiler, model};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::blocking::blocking;
use super::error::{ApiError, ApiResult};
use crate::app::App;

/// The flow that is asked about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExplainQuery {
    /// Who opens it: a peer's id, name or overlay address.
    source: String,
    /// Where to: an address, or the id or name of a peer or resource.
    destination: String,
    /// `443/tcp`, `53/udp`, `icmp`, or the number of another IP protocol.
    service: String,
}

/// What the rules say about a flow, as the compiler reads them. Whether gateways live is not part of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// Whether every agent on the way admits it.
    pub allowed: bool,
    /// `allowed`, `dropped` by a rule, `no_rule` admits it, `not_judged` because it does not cross the overlay, or
    /// `unknown` ends.
    pub verdict: String,
    /// The answer in one sentence.
    pub summary: String,
    /// The packet, as asked for.
    pub service: String,
    /// Who opens it, when known.
    pub source: Option<ExplainedEnd>,
    /// Where it goes, when known.
    pub destination: Option<ExplainedEnd>,
    /// The rule that decides, when one does.
    pub rule: Option<ExplainedRule>,
    /// The gateway that carries it, when the source has a route.
    pub gateway: Option<ExplainedGateway>,
    /// What each agent on the way says: the source, then the far end or the gateway.
    pub judgements: Vec<ExplainedJudgement>,
    /// Facts that stand in the way, whatever one rule says.
    pub missing: Vec<Fact>,
    /// Without a deciding rule: the accept rules that come nearest, and what each lacks.
    pub near_misses: Vec<ExplainedMiss>,
}

/// One end of a flow.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedEnd {
    /// Peer id, for a peer.
    pub peer_id: Option<String>,
    /// Peer name, for a peer.
    pub name: Option<String>,
    /// The address.
    pub address: String,
    /// Names of the resources around the address.
    pub resources: Vec<String>,
}

/// A rule, by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedRule {
    /// Policy id.
    pub policy_id: String,
    /// Policy name.
    pub policy_name: String,
    /// Rule id.
    pub rule_id: String,
    /// Rule name.
    pub rule_name: String,
    /// `accept` or `drop`.
    pub action: &'static str,
    /// Which packets, as in a policy file.
    pub service: String,
}

/// The gateway that carries a flow.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedGateway {
    /// Peer id.
    pub peer_id: String,
    /// Peer name.
    pub name: String,
    /// Its metric, lower is better.
    pub metric: u16,
    /// Network name.
    pub network: String,
    /// Resource name.
    pub resource: String,
    /// The prefix by which it is reached.
    pub prefix: String,
    /// Whether the destination sees the gateway's address.
    pub masquerade: bool,
    /// Gateways that could carry it and do not, next best first.
    pub others: Vec<ExplainedLoser>,
}

/// A gateway that was not chosen.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedLoser {
    /// Peer id.
    pub peer_id: String,
    /// Peer name.
    pub name: String,
    /// Its metric.
    pub metric: u16,
    /// Why not.
    pub why: String,
}

/// What one agent on the way says.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedJudgement {
    /// Peer id.
    pub agent_id: String,
    /// Peer name.
    pub agent_name: String,
    /// Whether it admits the flow.
    pub accepts: bool,
    /// The rule that decides there, if any.
    pub rule: Option<ExplainedRule>,
}

/// Something that is missing.
#[derive(Debug, Serialize, ToSchema)]
pub struct Fact {
    /// Its kind, for programs.
    pub what: String,
    /// The same, for a person.
    pub sentence: String,
}

/// An accept rule that would admit the flow if it were not for this.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainedMiss {
    /// The rule.
    pub rule: ExplainedRule,
    /// What the flow lacks for it; at least one.
    pub unmet: Vec<Fact>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(explain))
}

/// Says whether a flow is admitted, by which rule and through which gateway, or what is missing. It changes nothing and
/// sends no packet.
#[utoipa::path(get, path = "/api/explain", tag = "Policies", params(ExplainQuery),
    responses((status = 200, body = Explanation)))]
async fn explain(State(app): State<App>, Query(query): Query<ExplainQuery>) -> ApiResult<Explanation> {
    let probe =
        Probe::parse(&query.service).map_err(|error| ApiError::invalid(format!("service: {error}")))?;
    let state = app.store.state().await?;
    let query = evaluate::Query { source: query.source, destination: query.destination, probe };
    let explained = blocking(move || {
        let compiler = Compiler::new(Arc::new(state))?;
        Ok::<_, sluicegate_policy::CompileError>(evaluate::explain(&compiler, &query))
    });
    match explained.await? {
        Ok(explained) => Ok(Json(explained.into())),
        Err(error) => Err(failed(format!("the account's rules cannot be compiled: {error}"))),
    }
}

fn failed(message: String) -> ApiError {
    tracing::error!(%message, "cannot explain");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
}

impl From<evaluate::Explanation> for Explanation {
    fn from(told: evaluate::Explanation) -> Self {
        Self {
            allowed: told.allowed(),
            verdict: name(&told.verdict),
            summary: told.summary,
            service: told.service,
            source: told.source.map(end),
            destination: told.destination.map(end),
            rule: told.rule.map(rule),
            gateway: told.carrier.map(gateway),
            judgements: told.judgements.into_iter().map(judgement).collect(),
            missing: told.missing.iter().map(fact).collect(),
            near_misses: told
                .near_misses
                .into_iter()
                .map(|miss| ExplainedMiss {
                    rule: rule(miss.rule),
                    unmet: miss.unmet.iter().map(fact).collect(),
                })
                .collect(),
        }
    }
}

fn end(end: Endpoint) -> ExplainedEnd {
    let address = end.address.to_string();
    ExplainedEnd { peer_id: end.peer_id, name: end.name, address, resources: end.resources }
}

fn rule(rule: RuleRef) -> ExplainedRule {
    ExplainedRule {
        policy_id: rule.policy_id,
        policy_name: rule.policy_name,
        rule_id: rule.rule_id,
        rule_name: rule.rule_name,
        action: match rule.action {
            model::Action::Accept => "accept",
            model::Action::Drop => "drop",
        },
        service: rule.service,
    }
}

fn gateway(carrier: Carrier) -> ExplainedGateway {
    let RouterRef { peer_id, name, metric } = carrier.router;
    let others = carrier.others.into_iter().map(|other| {
        let RouterRef { peer_id, name, metric } = other.router;
        ExplainedLoser { peer_id, name, metric, why: other.why }
    });
    ExplainedGateway {
        peer_id,
        name,
        metric,
        network: carrier.network,
        resource: carrier.resource,
        prefix: carrier.prefix.to_string(),
        masquerade: carrier.masquerade,
        others: others.collect(),
    }
}

fn judgement(judgement: Judgement) -> ExplainedJudgement {
    ExplainedJudgement {
        agent_id: judgement.agent_id,
        agent_name: judgement.agent_name,
        accepts: judgement.accepts,
        rule: judgement.rule.map(rule),
    }
}

/// A variant as its tag and its sentence.
fn fact<T: Serialize + std::fmt::Display>(fact: &T) -> Fact {
    Fact { what: name(fact), sentence: fact.to_string() }
}

/// The serialized name of a variant: the text itself, or the tag `what`.
fn name<T: Serialize>(variant: &T) -> String {
    let value = serde_json::to_value(variant).unwrap_or_default();
    value.as_str().or(value["what"].as_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use sluicegate_policy::evaluate::{Missing, Verdict};

    use super::*;

    #[test]
    fn variants_go_by_the_names_programs_know() {
        assert_eq!(name(&Verdict::NoRule), "no_rule");
        let fact = fact(&Missing::ResourceDisabled { resource: "web".into() });
        assert_eq!(
            (fact.what.as_str(), fact.sentence.as_str()),
            ("resource_disabled", "resource web is disabled")
        );
    }
}
