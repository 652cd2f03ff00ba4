//! `/api/policy-file/suggest`: least privilege from what a broad policy was used for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sluicegate_policy::file::{self, End, Policy, PolicyFile, Prune, Rule};
use sluicegate_policy::model::{Action, Service};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::plan::Plan;
use super::traffic::{self, Amount, ICMP, ICMPV6, Row, TCP, Traffic, Tuple, UDP};
use super::{Carried, Files, Now, Refusal, Wish, compilers, http};
use crate::flows::FlowRecord;
use crate::rest::auth::Caller;
use crate::rest::body::Body;
use crate::rest::rfc3339;
use crate::store::StoreError;

/// Which policy, and how close to what was seen.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SuggestRequest {
    /// The broad policy's name.
    pub policy: String,
    /// What was seen in fewer flows gets no rule: 1 when absent.
    pub min_flows: u64,
    /// Whether a whole group is let in when any member of it was seen; otherwise only when all of them were.
    pub widen: bool,
}

/// Rules that could stand in a broad one's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct Suggestion {
    /// A policy file: the new policy, and the broad one turned off.
    pub file: String,
    /// Flows of the policy that were looked at.
    pub flows: u64,
    /// What the account's settings keep from being known of flows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When the first and the last event of them were seen; none without any.
    pub seen: Option<[String; 2]>,
    /// The new rules, with what each would have admitted.
    pub rules: Vec<SuggestedRule>,
    /// What the broad policy admitted and the new rules would have blocked.
    pub blocked: Vec<Traffic>,
    /// What applying the file would do.
    pub plan: Plan,
}

/// A new rule and what it would have admitted.
#[derive(Debug, Serialize, ToSchema)]
pub struct SuggestedRule {
    /// Its name.
    pub name: String,
    /// Where from, as in a policy file.
    pub from: String,
    /// Where to.
    pub to: String,
    /// Which packets.
    pub service: String,
    /// Flows it would have admitted.
    pub flows: u64,
    /// Their bytes in both directions.
    pub bytes: u64,
}

/// Routes for users who have shown their token.
pub fn routes() -> OpenApiRouter<Files> {
    OpenApiRouter::default().routes(routes!(suggest))
}

/// Least-privilege rules from the flows that control still holds of a broad policy, what each would have admitted, and what
/// would have been blocked. Nothing is written.
#[utoipa::path(post, path = "/api/policy-file/suggest", tag = "Policy files", request_body = SuggestRequest,
    responses((status = 200, body = Suggestion), (status = 404, description = "No such policy"),
    (status = 412, description = "The account's settings turn flow events off: there is nothing to suggest from")))]
async fn suggest(
    State(files): State<Files>,
    caller: Caller,
    Body(request): Body<SuggestRequest>,
) -> Response {
    match files.suggest(&caller, &request).await {
        Ok(suggestion) => Json(suggestion).into_response(),
        Err(refusal) => http::refuse(refusal),
    }
}

impl Files {
    async fn suggest(&self, caller: &Caller, request: &SuggestRequest) -> Result<Suggestion, Refusal> {
        let (text, _) = self.export().await?;
        let whole = file::parse(&text)?;
        let policies = self.store.policies().await?;
        let id = policies.into_iter().find(|policy| policy.name == request.policy).map(|policy| policy.id);
        let broad = whole.policies.iter().find(|policy| policy.name == request.policy);
        let (Some(id), Some(broad)) = (id, broad) else {
            return Err(StoreError::NotFound { kind: "policy", id: request.policy.clone() }.into());
        };
        let log = self.store.account().await?.settings.flow_log();
        if !log.enabled {
            return Err(Refusal::FlowsOff);
        }
        let seen = seen(&self.flows.recent(), &id);
        let mut off = broad.clone();
        off.enabled = false;
        off.break_glass = None;
        let name = free_name(&whole, &format!("{} by flows", request.policy));
        let rules = rules(&seen, &whole, request);
        let mut file = PolicyFile::default();
        if !rules.is_empty() {
            let description = Some(format!("What '{}' was used for", request.policy));
            let (enabled, break_glass) = (true, None);
            file.policies.push(Policy {
                name: name.clone(),
                description,
                enabled,
                break_glass,
                posture_checks: broad.posture_checks.clone(),
                rules,
            });
        }
        file.policies.push(off);
        let wish = Wish::File { text: file::write(&file), prune: Prune::Nothing };
        let carried = self.try_out(&caller.actor(), &wish).await?;
        let judged = {
            let now = self.now();
            tokio::task::spawn_blocking(move || judge(&carried, &now, &name, file, &seen))
        };
        let judged = judged.await.unwrap_or_else(|error| Err(Refusal::Compile(error.to_string())));
        Ok(Suggestion { note: traffic::note(&log), ..judged? })
    }
}

/// What was seen of a policy.
#[derive(Default)]
struct Seen {
    rows: BTreeMap<Row, Amount>,
    times: Option<(u64, u64)>,
}

/// Accepted flows of a policy. A flow is told of at its start and its end, and by each agent on its way.
fn seen(records: &[Arc<FlowRecord>], policy: &str) -> Seen {
    let mut flows = HashMap::<Tuple<'_>, (u64, &FlowRecord)>::new();
    let mut seen = Seen::default();
    let of =
        |record: &&Arc<FlowRecord>| record.rule.policy_id == policy && matches!(record.kind, "start" | "end");
    for record in records.iter().filter(of) {
        let (bytes, _) = flows.entry(traffic::tuple(record)).or_insert((0, record));
        *bytes = record.bytes.max(*bytes);
        let (first, last) = seen.times.get_or_insert((record.time_ms, record.time_ms));
        (*first, *last) = (record.time_ms.min(*first), record.time_ms.max(*last));
    }
    for (bytes, record) in flows.into_values() {
        let Some(row) = Row::of(record) else { continue };
        let amount = seen.rows.entry(row).or_default();
        amount.flows += 1;
        amount.bytes += bytes;
    }
    seen
}

/// One rule for each destination and set of sources, and each protocol.
fn rules(seen: &Seen, whole: &PolicyFile, request: &SuggestRequest) -> Vec<Rule> {
    let mut used = BTreeMap::<(bool, &str, u32, u16), (BTreeSet<&str>, Amount)>::new();
    for (row, amount) in &seen.rows {
        let protocol = if row.protocol == ICMPV6 { ICMP } else { row.protocol };
        let speaks = matches!(protocol, ICMP | TCP | UDP);
        if row.source_is_peer && speaks && !row.destination.is_empty() && amount.flows >= request.min_flows {
            let to = (row.destination_is_peer, row.destination.as_str(), protocol, row.port);
            let (sources, sum) = used.entry(to).or_default();
            sources.insert(&row.source);
            sum.flows += amount.flows;
            sum.bytes += amount.bytes;
        }
    }
    // Ports that the same sources use at the same destination go together.
    let mut joined = BTreeMap::<(bool, &str, u32, BTreeSet<&str>), (Vec<u16>, Amount)>::new();
    for ((is_peer, to, protocol, port), (sources, amount)) in used {
        let (ports, sum) = joined.entry((is_peer, to, protocol, sources)).or_default();
        ports.push(port);
        sum.flows += amount.flows;
        sum.bytes += amount.bytes;
    }
    let mut rules = Vec::new();
    for ((is_peer, to, protocol, sources), (ports, amount)) in joined {
        let ranges = || ports.iter().map(|port| *port..=*port).collect();
        let service = file::merged(match protocol {
            TCP => Service::Tcp(ranges()),
            UDP => Service::Udp(ranges()),
            _ => Service::Icmp,
        });
        for from in ends(&sources, whole, request.widen) {
            rules.push(Rule {
                name: format!("{} to {to} {service}", from.sorted().trim_start_matches("peer:")),
                description: Some(format!("{} flows with {} bytes to {to} seen", amount.flows, amount.bytes)),
                enabled: true,
                action: Action::Accept,
                bidirectional: false,
                service: service.clone(),
                ssh: None,
                from,
                to: if is_peer { End::Peer(to.to_owned()) } else { End::Resource(to.to_owned()) },
            });
        }
    }
    rules
}

/// Who is let in: groups of which every member was seen (or any, to widen), and the rest one by one.
fn ends(sources: &BTreeSet<&str>, whole: &PolicyFile, widen: bool) -> Vec<End> {
    let mut left = sources.clone();
    let members = |group: &file::Group| group.peers.clone().unwrap_or_default();
    let mut groups: Vec<(usize, usize, &file::Group)> = (whole.groups.iter())
        .map(|group| {
            let members = members(group);
            (members.iter().filter(|peer| sources.contains(peer.as_str())).count(), members.len(), group)
        })
        .filter(|(hits, size, _)| *hits > 0 && (widen || hits == size))
        .collect();
    // Those with the fewest who were not seen, and of these the largest, first.
    groups.sort_by_key(|(hits, size, group)| (size - hits, std::cmp::Reverse(*size), group.name.clone()));
    let mut named = Vec::new();
    for (_, _, group) in groups {
        let before = left.len();
        for member in members(group) {
            left.remove(member.as_str());
        }
        if left.len() < before {
            named.push(group.name.clone());
        }
    }
    let mut ends = Vec::new();
    if !named.is_empty() {
        named.sort();
        ends.push(End::Groups(named));
    }
    ends.extend(left.into_iter().map(|peer| End::Peer(peer.to_owned())));
    ends
}

fn free_name(whole: &PolicyFile, wish: &str) -> String {
    let taken = |name: &String| whole.policies.iter().any(|policy| policy.name == *name);
    let numbered = (2..).map(|number| format!("{wish} {number}"));
    std::iter::once(wish.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

/// What of the traffic passes once the file is applied, by the evaluator that images are compiled by.
fn judge(
    carried: &Carried,
    now: &Now,
    name: &str,
    file: PolicyFile,
    seen: &Seen,
) -> Result<Suggestion, Refusal> {
    let [_, after] = compilers(&carried.before, &carried.after)?;
    let mut rules: Vec<SuggestedRule> = (file.policies.iter().filter(|policy| policy.name == name))
        .flat_map(|policy| &policy.rules)
        .map(|rule| SuggestedRule {
            name: rule.name.clone(),
            from: rule.from.sorted(),
            to: rule.to.sorted(),
            service: rule.service.to_string(),
            flows: 0,
            bytes: 0,
        })
        .collect();
    let mut blocked = Vec::new();
    for (row, amount) in &seen.rows {
        let told = row.judge(&after);
        if told.allowed() {
            let by = told.rule.filter(|rule| rule.policy_name == name);
            if let Some(rule) = by.and_then(|by| rules.iter_mut().find(|rule| rule.name == by.rule_name)) {
                rule.flows += amount.flows;
                rule.bytes += amount.bytes;
            }
            continue;
        }
        blocked.push(row.told(*amount, told.summary));
    }
    let time = |time: u64| rfc3339(i64::try_from(time).unwrap_or(i64::MAX));
    Ok(Suggestion {
        file: file::write(&file),
        note: None,
        flows: seen.rows.values().map(|amount| amount.flows).sum(),
        seen: seen.times.map(|(first, last)| [time(first), time(last)]),
        rules,
        blocked,
        plan: Plan::new(carried, now)?.0,
    })
}
