//! What has to be done to an account so that it is as a file says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::posture;
use super::words::{duration_text, plain_address};
use super::{Claim, End, Group, Network, Policy, PolicyFile, Resource, Router, Rule, Test, Via};
use crate::model::Action;

/// One object that is made, changed, removed or kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is.
    pub item: Item,
    /// Its name; of a router, who routes.
    pub name: String,
    /// The network of a resource or router.
    pub network: Option<String>,
    /// For objects whose name does not tell them apart: which of the same, from 0.
    pub nth: usize,
    /// What is done to it.
    pub doing: Doing,
}

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A group.
    Group,
    /// A posture check.
    PostureCheck,
    /// A network.
    Network,
    /// A resource of a network.
    Resource,
    /// A router of a network.
    Router,
    /// A policy.
    Policy,
    /// A test, which is kept with the revision.
    Test,
}

/// What is done to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It is made.
    Create,
    /// It is changed; each change in words.
    Update(Vec<String>),
    /// It is removed.
    Delete,
    /// Nothing.
    Keep,
}

/// What happens to objects that the file does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    /// They stay.
    Nothing,
    /// Policies go, everything else stays.
    Policies,
    /// They go.
    Everything,
}

impl Change {
    /// Whether anything is written.
    pub fn writes(&self) -> bool {
        self.doing != Doing::Keep
    }
}

impl Item {
    /// Its name in lists and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Item::Group => "group",
            Item::PostureCheck => "posture",
            Item::Network => "network",
            Item::Resource => "resource",
            Item::Router => "router",
            Item::Policy => "policy",
            Item::Test => "test",
        }
    }
}

impl Doing {
    /// Its name in lists and in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Doing::Create => "create",
            Doing::Update(_) => "update",
            Doing::Delete => "delete",
            Doing::Keep => "keep",
        }
    }
}

/// What makes `current`, which says everything, into what `wanted` says, in an order in which it can be done: what is
/// referred to before what refers to it, and removals the other way round. Tests that are kept are none of the account's
/// objects, and so are not among them.
pub fn differences(current: &PolicyFile, wanted: &PolicyFile, prune: Prune) -> Vec<Change> {
    let mut found = Found { changes: Vec::new(), removals: Vec::new() };
    let everything = prune == Prune::Everything;
    let name = |name: &String| name.clone();
    found.all(Item::Group, None, &current.groups, &wanted.groups, |g| name(&g.name), group, everything);
    // Files from before there were posture checks in them say nothing of any.
    if let (Some(has), Some(wanted)) = (&current.posture_checks, &wanted.posture_checks) {
        found.all(Item::PostureCheck, None, has, wanted, |c| name(&c.name), posture::changes, everything);
    }
    found.all(
        Item::Network,
        None,
        &current.networks,
        &wanted.networks,
        |n| name(&n.name),
        network,
        everything,
    );
    let empty =
        Network { name: String::new(), description: None, resources: Vec::new(), routers: Vec::new() };
    let named = |networks: &[Network], name: &str| networks.iter().find(|n| n.name == name).cloned();
    for wanted in &wanted.networks {
        let has = named(&current.networks, &wanted.name).unwrap_or_else(|| empty.clone());
        let at = Some(wanted.name.as_str());
        let (a, b) = (&has.resources, &wanted.resources);
        found.all(Item::Resource, at, a, b, |r| name(&r.name), resource, everything);
    }
    for wanted in &wanted.networks {
        let has = named(&current.networks, &wanted.name).unwrap_or_else(|| empty.clone());
        let at = Some(wanted.name.as_str());
        found.all(Item::Router, at, &has.routers, &wanted.routers, |r| r.via.to_string(), router, everything);
    }
    let policies = prune != Prune::Nothing;
    found.all(Item::Policy, None, &current.policies, &wanted.policies, |p| name(&p.name), policy, policies);
    found.all(Item::Test, None, &current.tests, &wanted.tests, |t| name(&t.name), test, policies);
    found.changes.retain(|change| change.item != Item::Test || change.writes());
    found.removals.sort_by_key(|change| std::cmp::Reverse(change.item));
    found.changes.extend(found.removals);
    found.changes
}

struct Found {
    changes: Vec<Change>,
    removals: Vec<Change>,
}

impl Found {
    /// Compares objects of one kind by name, the first of a name with the first and so on.
    #[expect(clippy::too_many_arguments, reason = "one list for all kinds, each with its own ways")]
    fn all<T>(
        &mut self,
        item: Item,
        network: Option<&str>,
        current: &[T],
        wanted: &[T],
        name: impl Fn(&T) -> String,
        compare: impl Fn(&T, &T) -> Vec<String>,
        prune: bool,
    ) {
        let change =
            |name: String, nth, doing| Change { item, name, network: network.map(str::to_owned), nth, doing };
        let mut seen = BTreeMap::<String, usize>::new();
        for wanted in wanted {
            let of = name(wanted);
            let nth = seen.entry(of.clone()).or_default();
            let has = current.iter().filter(|has| name(has) == of).nth(*nth);
            let doing = match has.map(|has| compare(has, wanted)) {
                None => Doing::Create,
                Some(changes) if changes.is_empty() => Doing::Keep,
                Some(changes) => Doing::Update(changes),
            };
            self.changes.push(change(of, *nth, doing));
            *nth += 1;
        }
        let mut current_seen = BTreeMap::<String, usize>::new();
        for has in current.iter().filter(|_| prune) {
            let of = name(has);
            let nth = current_seen.entry(of.clone()).or_default();
            if *nth >= seen.get(&of).copied().unwrap_or_default() {
                self.removals.push(change(of, *nth, Doing::Delete));
            }
            *nth += 1;
        }
    }
}

fn group(has: &Group, wanted: &Group) -> Vec<String> {
    let mut changes = Vec::new();
    members(&mut changes, "peers", &has.peers, &wanted.peers);
    changes
}

fn network(has: &Network, wanted: &Network) -> Vec<String> {
    let mut changes = Vec::new();
    optional(&mut changes, "description", &has.description, &wanted.description);
    changes
}

fn resource(has: &Resource, wanted: &Resource) -> Vec<String> {
    let mut changes = Vec::new();
    optional(&mut changes, "description", &has.description, &wanted.description);
    if plain_address(&has.address) != plain_address(&wanted.address) {
        differs(&mut changes, "address", &has.address, &wanted.address);
    }
    members(&mut changes, "groups", &has.groups, &wanted.groups);
    switched(&mut changes, "", has.enabled, wanted.enabled);
    changes
}

fn router(has: &Router, wanted: &Router) -> Vec<String> {
    let mut changes = Vec::new();
    differs(&mut changes, "metric", has.metric, wanted.metric);
    let word = |on| if on { "yes" } else { "no" };
    differs(&mut changes, "masquerade", word(has.masquerade), word(wanted.masquerade));
    switched(&mut changes, "", has.enabled, wanted.enabled);
    changes
}

fn policy(has: &Policy, wanted: &Policy) -> Vec<String> {
    let mut changes = Vec::new();
    optional(&mut changes, "description", &has.description, &wanted.description);
    match (has.break_glass, wanted.break_glass) {
        (None, None) => switched(&mut changes, "", has.enabled, wanted.enabled),
        (has, wanted) => {
            let text = |max: Option<u32>| {
                max.map_or("no".to_owned(), |max| format!("at most {}", duration_text(max)))
            };
            differs(&mut changes, "break glass", text(has), text(wanted));
        }
    }
    members(&mut changes, "posture checks", &has.posture_checks, &wanted.posture_checks);
    let key = |rules: &[Rule]| -> Vec<(String, usize)> {
        let mut seen = BTreeMap::<&str, usize>::new();
        let mut nth = |name| {
            let nth = seen.entry(name).or_default();
            *nth += 1;
            *nth - 1
        };
        rules.iter().map(|rule| (rule.name.clone(), nth(&rule.name))).collect()
    };
    let (had, wants) = (key(&has.rules), key(&wanted.rules));
    for (rule, key) in wanted.rules.iter().zip(&wants) {
        match had.iter().position(|known| known == key) {
            None => changes.push(format!("+ rule '{}': {}", rule.name, says(rule))),
            Some(at) => compare_rules(&mut changes, &has.rules[at], rule),
        }
    }
    for (rule, key) in has.rules.iter().zip(&had) {
        if !wants.contains(key) {
            changes.push(format!("- rule '{}': {}", rule.name, says(rule)));
        }
    }
    let common = |of: &[(String, usize)], other: &[(String, usize)]| -> Vec<String> {
        of.iter().filter(|key| other.contains(key)).map(|key| key.0.clone()).collect()
    };
    let (now, then) = (common(&had, &wants), common(&wants, &had));
    if now != then {
        changes.push(format!("order of rules: {} -> {}", now.join(", "), then.join(", ")));
    }
    changes
}

fn test(has: &Test, wanted: &Test) -> Vec<String> {
    let mut changes = Vec::new();
    differs(&mut changes, "from", has.from.sorted(), wanted.from.sorted());
    let claims = |claims: &[Claim]| Some(claims.iter().map(|claim| format!("'{claim}'")).collect());
    members(&mut changes, "may reach", &claims(&has.may_reach), &claims(&wanted.may_reach));
    members(&mut changes, "may not reach", &claims(&has.may_not_reach), &claims(&wanted.may_not_reach));
    changes
}

fn compare_rules(changes: &mut Vec<String>, has: &Rule, wanted: &Rule) {
    let of = format!("rule '{}' ", wanted.name);
    optional(changes, &format!("{of}description"), &has.description, &wanted.description);
    switched(changes, &of, has.enabled, wanted.enabled);
    differs(changes, &format!("{of}action"), action(has), action(wanted));
    differs(changes, &format!("{of}service"), has.service_text(), wanted.service_text());
    if !wanted.service.always_bidirectional() {
        differs(changes, &format!("{of}bidirectional"), has.bidirectional, wanted.bidirectional);
    }
    let users = |rule: &Rule| match &rule.ssh {
        Some(users) if !users.is_empty() => users
            .iter()
            .map(|(group, users)| format!("{group}: {}", users.join(" ")))
            .collect::<Vec<_>>()
            .join(", "),
        _ => "any".to_owned(),
    };
    differs(changes, &format!("{of}ssh users"), users(has), users(wanted));
    differs(changes, &format!("{of}from"), has.from.sorted(), wanted.from.sorted());
    differs(changes, &format!("{of}to"), has.to.sorted(), wanted.to.sorted());
}

fn says(rule: &Rule) -> String {
    let on = if rule.enabled { "" } else { "off, " };
    let arrow = if rule.bidirectional { "<->" } else { "->" };
    format!(
        "{on}{} {} {arrow} {} {}",
        action(rule),
        rule.from.sorted(),
        rule.to.sorted(),
        rule.service_text()
    )
}

impl Rule {
    /// Its service as it stands in a file.
    pub fn service_text(&self) -> String {
        let text = self.service.to_string();
        match self.ssh {
            Some(_) => text.replacen("tcp", "netbird-ssh", 1),
            None => text,
        }
    }
}

impl End {
    /// Its names in order, for comparing and for reading.
    pub fn sorted(&self) -> String {
        match self {
            End::Groups(names) => {
                let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
                names.into_iter().collect::<Vec<_>>().join(", ")
            }
            End::Peer(name) => format!("peer:{name}"),
            End::Resource(name) => format!("resource:{name}"),
        }
    }
}

impl fmt::Display for Via {
    /// One text for the same peer or groups, whatever their order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Via::Peer(name) => f.write_str(name),
            Via::Groups(names) => {
                let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
                write!(f, "group {}", names.into_iter().collect::<Vec<_>>().join(", "))
            }
        }
    }
}

fn action(rule: &Rule) -> &'static str {
    match rule.action {
        Action::Accept => "accept",
        Action::Drop => "drop",
    }
}

pub(super) fn differs<T: PartialEq + fmt::Display>(
    changes: &mut Vec<String>,
    field: &str,
    has: T,
    wanted: T,
) {
    if has != wanted {
        changes.push(format!("{field}: {has} -> {wanted}"));
    }
}

fn switched(changes: &mut Vec<String>, of: &str, has: bool, wanted: bool) {
    if has != wanted {
        changes.push(format!("{of}{}", if wanted { "on" } else { "off" }));
    }
}

pub(super) fn optional(
    changes: &mut Vec<String>,
    field: &str,
    has: &Option<String>,
    wanted: &Option<String>,
) {
    let Some(wanted) = wanted else { return };
    let has = has.as_deref().unwrap_or_default();
    if has != wanted {
        let shown = |text: &str| if text.is_empty() { "none".to_owned() } else { format!("'{text}'") };
        changes.push(format!("{field}: {} -> {}", shown(has), shown(wanted)));
    }
}

/// Names that come and go; nothing when the file leaves them alone.
pub(super) fn members(
    changes: &mut Vec<String>,
    field: &str,
    has: &Option<Vec<String>>,
    wanted: &Option<Vec<String>>,
) {
    let Some(wanted) = wanted else { return };
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    let (has, wanted) = (set(has.as_deref().unwrap_or_default()), set(wanted));
    let come = wanted.difference(&has).map(|name| format!("+{name}"));
    let go = has.difference(&wanted).map(|name| format!("-{name}"));
    let moves: Vec<String> = come.chain(go).collect();
    if !moves.is_empty() {
        changes.push(format!("{field}: {}", moves.join(" ")));
    }
}
