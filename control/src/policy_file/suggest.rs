//! `/api/policy-file/suggest`: least privilege from what a broad policy was used for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

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
use super::traffic::{self, Amount, ICMP, ICMPV6, Row, TCP, Traffic, UDP};
use super::{Carried, Files, Now, Refusal, Wish, compilers, http};
use crate::flows::{Directory, PartyKind};
use crate::ids::{DAY, now};
use crate::rest::auth::Caller;
use crate::rest::body::Body;
use crate::rest::error::ApiError;
use crate::rest::rfc3339;
use crate::store::{FlowAmount, FlowCoverage, FlowKey, StoreError};

/// How many days can be asked for: as many as sums of flows can be kept.
const DAYS_MAX: u32 = 366;
/// Kinds of flows that are looked at; those beyond are counted as missing.
const ROWS: usize = 200_000;

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
    /// What was seen in so many days, 1 to 366, today being one of them (UTC); all that is kept when absent.
    #[schema(minimum = 1, maximum = 366)]
    pub days: Option<u32>,
}

/// Rules that could stand in a broad one's place.
#[derive(Debug, Serialize, ToSchema)]
pub struct Suggestion {
    /// A policy file: the new policy, and the broad one turned off.
    pub file: String,
    /// Flows of the policy that were looked at. One that went on for several days counts once.
    pub flows: u64,
    /// What these are of, and what is missing.
    pub coverage: Coverage,
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

/// What a suggestion was made from. It is of all replicas; of other ones than this, events of the last seconds may not be in it yet.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Coverage {
    /// Whether nothing is missing that control knows of. What the account's settings keep from it is in `note`.
    pub whole: bool,
    /// When the first event of any policy was seen that is counted here: of what was before, nothing is known. None without any.
    pub since: Option<String>,
    /// Flow events of the policy in this time: a flow has one when it begins and one when it ends, and any agent on its way tells of it.
    pub events: u64,
    /// How many of them are in no sum, since there were too many different ones of a source or on a day: a port scan, for one.
    pub unfit: u64,
    /// Flow events that agents lost in this time, of whatever policy.
    pub lost: u64,
    /// How often in this time a control ended without having written what it had heard last: of five seconds, unless the store was away.
    pub broken_off: u64,
    /// Flows of peers that are there no more: no rule is suggested for them.
    pub gone: u64,
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

/// Least-privilege rules from what a broad policy was used for, as all replicas have counted it, what each would have admitted, and what
/// would have been blocked. Nothing is written to the account.
#[utoipa::path(post, path = "/api/policy-file/suggest", tag = "Policy files", request_body = SuggestRequest,
    responses((status = 200, body = Suggestion), (status = 404, description = "No such policy"),
    (status = 412, description = "The account's settings turn flow events off: there is nothing to suggest from"),
    (status = 422, description = "`days` is none that can be asked for")))]
async fn suggest(
    State(files): State<Files>,
    caller: Caller,
    Body(request): Body<SuggestRequest>,
) -> Response {
    if request.days.is_some_and(|days| !(1..=DAYS_MAX).contains(&days)) {
        return ApiError::invalid(format!("days must be between 1 and {DAYS_MAX}")).into_response();
    }
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
        let seen = self.seen(&id, request.days).await?;
        let mut off = broad.clone();
        off.enabled = false;
        off.break_glass = None;
        let name = free_name(&whole, &format!("{} by flows", request.policy));
        let rules = rules(&seen, &whole, request);
        let mut file = PolicyFile::default();
        if !rules.is_empty() {
            let description =
                Some(format!("What '{}' was used for{}", request.policy, seen.coverage.missing()));
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

impl Coverage {
    fn new(of: FlowCoverage) -> Self {
        let FlowCoverage { first_seen, events, unfit, lost, broken_off } = of;
        let whole = unfit == 0 && lost == 0 && broken_off == 0;
        Self { whole, since: first_seen.map(rfc3339), events, unfit, lost, broken_off, gone: 0 }
    }

    /// What a file says that was made from less than all of it.
    fn missing(&self) -> String {
        match self.whole {
            true => String::new(),
            false => format!(
                "; not all of it: {} of its {} flow events are in no sum, agents lost {} of any policy, and control broke off {} times",
                self.unfit, self.events, self.lost, self.broken_off
            ),
        }
    }
}

/// What was seen of a policy.
#[derive(Default)]
struct Seen {
    rows: BTreeMap<Row, Amount>,
    times: Option<(i64, i64)>,
    coverage: Coverage,
}

/// What the sums say of flows that are alike: where they come into the overlay, and where they leave.
#[derive(Clone, Copy, Default)]
struct Tally {
    begun: u64,
    ended: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, amount: &FlowAmount) {
        self.begun += amount.begun;
        self.ended += amount.ended;
        self.bytes = self.bytes.saturating_add(amount.bytes);
    }

    /// As many as were told of at one place, by their beginnings or by their ends: one that is told of more often is still one.
    fn amount([enters, leaves]: [Self; 2]) -> Amount {
        let flows = [enters.begun, enters.ended, leaves.begun, leaves.ended].into_iter().max();
        Amount { flows: flows.unwrap_or_default(), bytes: enters.bytes.max(leaves.bytes) }
    }
}

/// Sums while they are read: the same ones of several days and rules go together.
#[derive(Default)]
struct Sums {
    tallies: HashMap<Ends, ([Tally; 2], IpAddr)>,
    times: Option<(i64, i64)>,
    unfit: u64,
}

/// Peer, source, destination, version, protocol and port.
type Ends = (String, String, String, u8, u8, u16);

impl Sums {
    fn add(&mut self, key: FlowKey, amount: &FlowAmount) {
        let ends = (key.peer, key.source, key.destination, key.version, key.protocol, key.port);
        if self.tallies.len() >= ROWS && !self.tallies.contains_key(&ends) {
            self.unfit += amount.begun + amount.ended;
            return;
        }
        let (tallies, _) = self.tallies.entry(ends).or_insert_with(|| (Default::default(), amount.address));
        tallies[usize::from(!key.enters)].add(amount);
        let (first, last) = self.times.get_or_insert((amount.first_seen, amount.last_seen));
        (*first, *last) = (amount.first_seen.min(*first), amount.last_seen.max(*last));
    }

    /// By the names that peers and resources have now.
    fn seen(self, coverage: FlowCoverage, directory: &Directory) -> Seen {
        let unfit = coverage.unfit + self.unfit;
        let coverage = Coverage::new(FlowCoverage { unfit, ..coverage });
        let mut seen = Seen { rows: BTreeMap::new(), times: self.times, coverage };
        for (ends, (tallies, address)) in self.tallies {
            let amount = Tally::amount(tallies);
            match row(ends, address, directory) {
                Some(row) => seen.rows.entry(row).or_default().add(amount),
                None => seen.coverage.gone += amount.flows,
            }
        }
        seen
    }
}

/// None of a source that is no peer any more.
fn row(ends: Ends, address: IpAddr, directory: &Directory) -> Option<Row> {
    let (peer, source, destination, _, protocol, port) = ends;
    let from = match peer.is_empty() {
        // A peer by now, or known as one by now.
        true => Some(directory.party(source.parse().ok()?)).filter(|party| party.kind == PartyKind::Peer),
        false => None,
    };
    let from = match from {
        Some(party) => Some(party.name),
        None if peer.is_empty() => None,
        None => Some(directory.peer(&peer)?.0.to_owned()),
    };
    let (name, is_peer, address) = match (directory.peer(&destination), directory.resource_name(&destination))
    {
        // Where it is now.
        (Some((name, v4, v6)), _) => {
            (name.to_owned(), true, if address.is_ipv4() { v4.into() } else { v6.into() })
        }
        (None, Some(name)) => (name.to_owned(), false, address),
        (None, None) => {
            let party = directory.party(address);
            (party.name, party.kind == PartyKind::Peer, address)
        }
    };
    Some(Row {
        source_is_peer: from.is_some(),
        source: from.unwrap_or(source),
        destination: name,
        destination_is_peer: is_peer,
        address,
        protocol: protocol.into(),
        port: if matches!(u32::from(protocol), TCP | UDP) { port } else { 0 },
    })
}

impl Files {
    /// What was seen of a policy in so many days, by all replicas.
    async fn seen(&self, policy: &str, days: Option<u32>) -> Result<Seen, Refusal> {
        self.flows.write(&self.store).await?;
        let from = days.map_or(i64::MIN, |days| now().div_euclid(DAY) + 1 - i64::from(days));
        let mut sums = Sums::default();
        let coverage = self.store.flow_sums(policy, from, |key, amount| sums.add(key, &amount)).await?;
        let state = self.store.snapshot().await?.state;
        let seen = tokio::task::spawn_blocking(move || sums.seen(coverage, &Directory::new(&state))).await;
        seen.map_err(|error| Refusal::Compile(error.to_string()))
    }
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
            sum.bytes = sum.bytes.saturating_add(amount.bytes);
        }
    }
    // Ports that the same sources use at the same destination go together.
    let mut joined = BTreeMap::<(bool, &str, u32, BTreeSet<&str>), (Vec<u16>, Amount)>::new();
    for ((is_peer, to, protocol, port), (sources, amount)) in used {
        let (ports, sum) = joined.entry((is_peer, to, protocol, sources)).or_default();
        ports.push(port);
        sum.flows += amount.flows;
        sum.bytes = sum.bytes.saturating_add(amount.bytes);
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
                rule.bytes = rule.bytes.saturating_add(amount.bytes);
            }
            continue;
        }
        blocked.push(row.told(*amount, told.summary));
    }
    Ok(Suggestion {
        file: file::write(&file),
        note: None,
        flows: seen.rows.values().map(|amount| amount.flows).sum(),
        seen: seen.times.map(|(first, last)| [rfc3339(first), rfc3339(last)]),
        coverage: seen.coverage.clone(),
        rules,
        blocked,
        plan: Plan::new(carried, now)?.0,
    })
}
