//! What a change means: who reaches what, and which gateways get what.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Serialize;
use sluicegate_api::image::Image;
use sluicegate_policy::Compiler;
use sluicegate_policy::file::{Change, Doing};
use sluicegate_policy::model::{Action, End, Service, State};
use sluicegate_policy::reach::{self, Checked, Difference};
use utoipa::ToSchema;

use super::posture::Turns;
use super::traffic::{Judged, LiveFlows, live, note};
use super::{Carried, Now, Refusal, compilers};
use crate::store::{Role, Snapshot};

/// How many pairs of either side are named.
const PAIRS: usize = 12;
/// How many rules or routes of a gateway are named.
const NAMED: usize = 20;

/// What a change would do, or has done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Plan {
    /// Of what files describe, as it was before: an application may name it, to be refused when it has changed.
    pub version: String,
    /// What is written, in order.
    pub changes: Vec<PlannedChange>,
    /// How many objects that the file names are as it says.
    pub unchanged: usize,
    /// Which (source, destination, service) pairs open and close.
    #[schema(value_type = Object)]
    pub reach: Difference,
    /// Machines that come to fail, or cease to fail, what policies ask of them.
    pub posture: Turns,
    /// The gateways whose image or routes change.
    pub gateways: Vec<GatewayPlan>,
    /// How many other peers get a new image.
    pub peers: usize,
    /// What it does to flows that are live.
    pub flows: LiveFlows,
    /// What came of the tests that are in force with it.
    #[schema(value_type = Vec<Object>)]
    pub tests: Vec<Checked>,
    /// Names of policies that the file does not name, and that stay.
    pub left_alone: Vec<String>,
    /// What somebody should know before it is applied.
    pub warnings: Vec<String>,
}

/// One object that is written.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlannedChange {
    /// `create`, `update` or `delete`.
    pub action: &'static str,
    /// `group`, `posture`, `network`, `resource`, `router`, `policy` or `test`.
    pub kind: &'static str,
    /// Its name; of a router, who routes.
    pub name: String,
    /// The network of a resource or router.
    pub network: Option<String>,
    /// What is changed, each in words.
    pub changes: Vec<String>,
}

/// What one gateway gets.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct GatewayPlan {
    /// Peer id.
    pub id: String,
    /// Peer name.
    pub name: String,
    /// Rules that come into its image, by policy and rule; the first of them.
    pub rules_added: Vec<String>,
    /// Rules that go.
    pub rules_removed: Vec<String>,
    /// Prefixes that it begins to route, each with its resource.
    pub routes_added: Vec<String>,
    /// Prefixes that it ceases to route.
    pub routes_removed: Vec<String>,
    /// Whether who or what its rules match changes, though the rules are the same.
    pub members_change: bool,
}

impl Plan {
    /// Works it out, with both states as they were compared; some time of pure computing for a large account. Flows are judged by what
    /// events tell of them: nobody was asked.
    pub(super) fn new(carried: &Carried, now: &Now) -> Result<(Self, [Compiler; 2]), Refusal> {
        let [before, after] = compilers(&carried.before, &carried.after)?;
        let affected = after.affected(&before);
        let gateways = gateways(&carried.before, &carried.after);
        let mut warnings = carried.remarks.clone();
        let mut plans = Vec::new();
        let mut peers = 0;
        for agent in &affected {
            let Some(name) = gateways.get(&**agent) else {
                peers += 1;
                continue;
            };
            plans.extend(gateway(&before, &after, agent, name, &mut warnings)?);
        }
        plans.sort_by(|a, b| a.name.cmp(&b.name));
        let open = opens_all(&carried.after.state);
        for name in carried.left_alone.iter().filter(|name| open.contains(*name)) {
            warnings
                .push(format!("policy '{name}', which is not in the file, lets every peer reach every peer"));
        }
        for test in &carried.checked {
            warnings.extend(test.remarks.iter().map(|remark| format!("test '{}': {remark}", test.name)));
        }
        let mut judged = Judged::default();
        judged.add_known(&live(&now.records, &HashSet::new()), &after);
        let plan = Self {
            version: carried.version.clone(),
            changes: carried.changes.iter().filter(|change| change.writes()).map(described).collect(),
            unchanged: carried.changes.iter().filter(|change| !change.writes()).count(),
            reach: reach::compare(&before, &after, PAIRS),
            posture: carried.posture.clone(),
            gateways: plans,
            flows: LiveFlows { note: note(&now.log), ..judged.sum(now.reported, &after) },
            peers,
            tests: carried.checked.clone(),
            left_alone: carried.left_alone.clone(),
            warnings,
        };
        Ok((plan, [before, after]))
    }
}

fn described(change: &Change) -> PlannedChange {
    PlannedChange {
        action: change.doing.word(),
        kind: change.item.word(),
        name: change.name.clone(),
        network: change.network.clone(),
        changes: if let Doing::Update(changes) = &change.doing { changes.clone() } else { Vec::new() },
    }
}

/// Names of the agents that joined as gateways or route in either state, by id.
fn gateways(before: &Snapshot, after: &Snapshot) -> BTreeMap<String, String> {
    let mut ids = BTreeSet::new();
    for snapshot in [before, after] {
        let routers = snapshot.state.networks.values().flat_map(|network| network.routers.values());
        ids.extend(routers.flat_map(|router| router.peers.iter().cloned()));
        let joined = snapshot.agents.iter().filter(|(_, agent)| agent.role == Role::Gateway);
        ids.extend(joined.map(|(id, _)| id.clone()));
    }
    let named = ids.into_iter().filter_map(|id| {
        let name = after.state.peers.get(&id)?.name.clone();
        Some((id, name))
    });
    named.collect()
}

/// What the gateway gets; none when nothing of it changes after all.
fn gateway(
    before: &Compiler,
    after: &Compiler,
    agent: &str,
    name: &str,
    warnings: &mut Vec<String>,
) -> Result<Option<GatewayPlan>, Refusal> {
    let old = before.compile(agent);
    let new = match (after.compile(agent), &old) {
        (Ok(new), _) => new,
        (Err(error), Ok(_)) => return Err(Refusal::Images(error.to_string())),
        // So it was, and so it stays.
        (Err(error), Err(_)) => {
            warnings.push(format!("gateway '{name}' keeps the image it has, as before: {error}"));
            return Ok(None);
        }
    };
    let old = old.unwrap_or_else(|error| {
        warnings.push(format!("what gateway '{name}' has is of an earlier time, for as things are: {error}"));
        Image::default()
    });
    let rules = |image: &Image| -> BTreeSet<String> {
        let named = image.rules.values().map(|rule| match rule.policy_name == rule.rule_name {
            true => rule.policy_name.clone(),
            false => format!("{}/{}", rule.policy_name, rule.rule_name),
        });
        named.collect()
    };
    let routes = |image: &Image| -> BTreeSet<String> {
        image.routes.values().map(|route| format!("{} ({})", route.prefix, route.resource_name)).collect()
    };
    let less = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).take(NAMED).cloned().collect();
    let (old_rules, new_rules) = (rules(&old), rules(&new));
    let (old_routes, new_routes) = (routes(&old), routes(&new));
    let same = old_rules == new_rules && old_routes == new_routes;
    if same && old.words == new.words && before.network(agent) == after.network(agent) {
        return Ok(None);
    }
    Ok(Some(GatewayPlan {
        id: agent.to_owned(),
        name: name.to_owned(),
        rules_added: less(&new_rules, &old_rules),
        rules_removed: less(&old_rules, &new_rules),
        routes_added: less(&new_routes, &old_routes),
        routes_removed: less(&old_routes, &new_routes),
        members_change: same,
    }))
}

/// Names of policies that let every peer reach every peer by every protocol.
fn opens_all(state: &State) -> Vec<String> {
    let is_all = |end: &End| matches!(end, End::Groups(ids) if ids.iter().any(|id| state.groups.get(id).is_some_and(|g| g.name == "All")));
    let opens = state.policies.values().filter(|policy| policy.enabled).filter(|policy| {
        policy.rules.iter().any(|rule| {
            rule.enabled
                && rule.action == Action::Accept
                && rule.service == Service::All
                && is_all(&rule.sources)
                && is_all(&rule.destinations)
        })
    });
    opens.map(|policy| policy.name.clone()).collect()
}
