//! Policies and their rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{corrupt, duplicate, invalid, not_found};
use super::policy_rows::{PolicyRow, RuleRow};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{Activity, Actor, BreakGlass, Result, Store, groups, posture, text, unserved};
use crate::ids::new_id;

/// Sides of a rule in `rule_groups`.
const SOURCES: i64 = 0;
const DESTINATIONS: i64 = 1;

/// Rules under one name and one switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Policy id.
    pub id: String,
    /// Display name, unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Posture checks that its sources must pass, in order.
    pub source_posture_checks: Vec<String>,
    /// For a policy that is for emergencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BreakGlass>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// One stored rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Rule id.
    pub id: String,
    /// Its number in images and counters, kept for its life.
    pub slot: u32,
    /// What it says.
    #[serde(flatten)]
    pub spec: RuleSpec,
}

/// What a rule says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleSpec {
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Accept or drop.
    pub action: Action,
    /// As asked for; the compiler knows where the flag does not count.
    pub bidirectional: bool,
    /// Which packets.
    pub protocol: Protocol,
    /// Destination ports; empty when ranges are named.
    pub ports: Vec<u16>,
    /// Destination port ranges; empty when ports are named.
    pub port_ranges: Vec<PortRange>,
    /// Empty, or the local users that an earlier version stored for each source group of `netbird-ssh`; they limit nobody.
    pub authorized_groups: BTreeMap<String, Vec<String>>,
    /// Where flows come from.
    pub sources: End,
    /// Where they go.
    pub destinations: End,
}

impl RuleSpec {
    /// Whether its mirror image counts between peers: whatever the flag says where it names no ports, and never towards a
    /// resource.
    pub fn effectively_bidirectional(&self) -> bool {
        let always = match self.protocol {
            Protocol::All | Protocol::Icmp => true,
            Protocol::Tcp | Protocol::Udp => self.ports.is_empty() && self.port_ranges.is_empty(),
            Protocol::NetbirdSsh => false,
        };
        (self.bidirectional || always) && !matches!(self.destinations, End::Resource(_))
    }
}

/// Accept or drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PolicyRuleAction)]
pub enum Action {
    /// Admit the flow.
    Accept,
    /// Refuse it, whatever any accept rule says.
    Drop,
}

/// What a rule matches beside addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = PolicyRuleProtocol)]
pub enum Protocol {
    /// Every IP protocol.
    All,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
    /// TCP to the SSH port, or to the ports named.
    NetbirdSsh,
}

/// Ports from `start` to `end`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = RulePortRange)]
pub struct PortRange {
    /// First port.
    pub start: u16,
    /// Last port.
    pub end: u16,
}

/// One end of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Members of groups.
    Groups(Vec<String>),
    /// One peer.
    Peer(String),
    /// One resource.
    Resource(String),
}

/// What a policy is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    /// Display name.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Posture checks that its sources must pass.
    pub source_posture_checks: Vec<String>,
    /// The rules, in order.
    pub rules: Vec<RuleChange>,
}

/// A rule of a policy to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleChange {
    /// A rule of this policy, or `None` for one to be found by its name, or else made.
    pub id: Option<String>,
    /// What it is to say.
    pub spec: RuleSpec,
}

impl Store {
    /// Every policy, by id.
    pub async fn policies(&self) -> Result<Vec<Policy>> {
        let mut tx = self.read().await?;
        all(&mut tx).await
    }

    /// One policy.
    pub async fn policy(&self, id: &str) -> Result<Policy> {
        let mut tx = self.read().await?;
        policy(&mut tx, id).await
    }

    /// Creates a policy.
    pub async fn create_policy(&self, actor: &Actor, change: PolicyChange) -> Result<Policy> {
        let mut write = self.write(actor).await?;
        let id = insert(&mut write, change).await?;
        let after = policy(write.db(), &id).await?;
        write.event(Activity::PolicyAdd, &id, Meta::name(&after.name).after(&after)).await?;
        write.commit().await?;
        Ok(after)
    }

    /// Replaces a policy; rules named by id, or else by name, keep id and slot.
    pub async fn update_policy(&self, actor: &Actor, id: &str, change: PolicyChange) -> Result<Policy> {
        let mut write = self.write(actor).await?;
        let before = policy(write.db(), id).await?;
        if before.break_glass.is_some() && before.enabled != change.enabled {
            return invalid(format!(
                "policy {} is a break-glass policy: `sluice policy break-glass on` and `off` switch it, for a time",
                before.name
            ));
        }
        let (change, rules) = validate(write.db(), id, change).await?;
        let mut kept = adopt(&before, rules)?;
        for (id, spec) in &mut kept {
            let stored = before.rules.iter().find(|rule| Some(&rule.id) == id.as_ref());
            check_authorized_groups(spec, stored.map(|rule| &rule.spec))?;
        }

        let unchanged = (&before.name, &before.description, before.enabled, &before.source_posture_checks)
            == (&change.name, &change.description, change.enabled, &change.source_posture_checks)
            && before.rules.len() == kept.len()
            && before
                .rules
                .iter()
                .zip(&kept)
                .all(|(old, (id, spec))| Some(&old.id) == id.as_ref() && old.spec == *spec);
        if unchanged {
            return Ok(before);
        }

        sql::query("UPDATE policies SET name = $1, description = $2, enabled = $3 WHERE id = $4")
            .bind(&change.name)
            .bind(&change.description)
            .bind(change.enabled)
            .bind(id)
            .execute(write.db())
            .await?;
        posture::link(write.db(), id, &change.source_posture_checks).await?;
        for rule in &before.rules {
            if !kept.iter().any(|(id, _)| id.as_ref() == Some(&rule.id)) {
                sql::query("DELETE FROM rules WHERE id = $1").bind(&rule.id).execute(write.db()).await?;
            }
        }
        for (position, (rule, spec)) in kept.into_iter().enumerate() {
            put_rule(&mut write, id, position, rule, &spec).await?;
        }
        let after = policy(write.db(), id).await?;
        write
            .event(Activity::PolicyUpdate, id, Meta::name(&after.name).before(&before).after(&after))
            .await?;
        write.commit().await?;
        Ok(after)
    }

    /// Deletes a policy with its rules.
    pub async fn delete_policy(&self, actor: &Actor, id: &str) -> Result<()> {
        let mut write = self.write(actor).await?;
        let before = policy(write.db(), id).await?;
        sql::query("DELETE FROM policies WHERE id = $1").bind(id).execute(write.db()).await?;
        write.event(Activity::PolicyDelete, id, Meta::name(&before.name).before(&before)).await?;
        write.commit().await
    }
}

/// Writes a new policy; its id.
pub(super) async fn insert(write: &mut Write, change: PolicyChange) -> Result<String> {
    let id = new_id();
    insert_as(write, &id, change).await?;
    Ok(id)
}

/// Writes a new policy that is to have this id.
pub(super) async fn insert_as(write: &mut Write, id: &str, change: PolicyChange) -> Result<()> {
    let (change, rules) = validate(write.db(), id, change).await?;
    sql::query("INSERT INTO policies (id, name, description, enabled) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(&change.name)
        .bind(&change.description)
        .bind(change.enabled)
        .execute(write.db())
        .await?;
    posture::link(write.db(), id, &change.source_posture_checks).await?;
    for (position, mut rule) in rules.into_iter().enumerate() {
        // Ids come from the store: one in a request for a new policy would be another policy's.
        if let Some(rule) = rule.id {
            return invalid(format!(
                "rule {rule} does not belong to this policy: leave the id of a new rule out"
            ));
        }
        check_authorized_groups(&mut rule.spec, None)?;
        put_rule(write, id, position, None, &rule.spec).await?;
    }
    Ok(())
}

/// Every policy as the connection's transaction sees it, by id.
pub(super) async fn all(db: &mut Connection) -> Result<Vec<Policy>> {
    let policies = sql::query_as("SELECT * FROM policies ORDER BY id").fetch_all(&mut *db).await?;
    let rules = sql::query_as("SELECT * FROM rules ORDER BY policy_id, position").fetch_all(&mut *db).await?;
    let groups =
        sql::query_as("SELECT rule_id, side, group_id FROM rule_groups ORDER BY rule_id, side, position")
            .fetch_all(&mut *db)
            .await?;
    let checks = posture::links(db, None).await?;
    assemble(policies, rules, groups, checks)
}

pub(super) async fn policy(db: &mut Connection, id: &str) -> Result<Policy> {
    match find(db, id).await? {
        Some(policy) => Ok(policy),
        None => not_found("policy", id),
    }
}

/// The policy with this id, if there is one.
pub(super) async fn find(db: &mut Connection, id: &str) -> Result<Option<Policy>> {
    let policies = sql::query_as("SELECT * FROM policies WHERE id = $1").bind(id).fetch_all(&mut *db).await?;
    let rules = sql::query_as("SELECT * FROM rules WHERE policy_id = $1 ORDER BY position")
        .bind(id)
        .fetch_all(&mut *db)
        .await?;
    let groups = sql::query_as(
        "SELECT g.rule_id, g.side, g.group_id FROM rules r JOIN rule_groups g ON g.rule_id = r.id
         WHERE r.policy_id = $1 ORDER BY g.rule_id, g.side, g.position",
    )
    .bind(id)
    .fetch_all(&mut *db)
    .await?;
    let checks = posture::links(db, Some(id)).await?;
    Ok(assemble(policies, rules, groups, checks)?.pop())
}

fn assemble(
    policies: Vec<PolicyRow>,
    rules: Vec<RuleRow>,
    groups: Vec<(String, i64, String)>,
    mut checks: HashMap<String, Vec<String>>,
) -> Result<Vec<Policy>> {
    let mut ends = HashMap::<String, [Vec<String>; 2]>::new();
    for (rule, side, group) in groups {
        ends.entry(rule).or_default()[usize::from(side == DESTINATIONS)].push(group);
    }
    let mut by_policy = HashMap::<String, Vec<Rule>>::new();
    for row in rules {
        let [sources, destinations] = ends.remove(&row.id).unwrap_or_default();
        by_policy.entry(row.policy_id.clone()).or_default().push(row.rule(sources, destinations)?);
    }
    let policies = policies.into_iter().map(|row| Policy {
        rules: by_policy.remove(&row.id).unwrap_or_default(),
        source_posture_checks: checks.remove(&row.id).unwrap_or_default(),
        id: row.id,
        name: row.name,
        description: row.description,
        enabled: row.enabled,
        break_glass: row.break_glass.map(|max_seconds| BreakGlass {
            max_seconds,
            until: row.break_glass_until,
            reason: row.break_glass_reason,
        }),
    });
    Ok(policies.collect())
}

/// Checks all that can be wrong with a policy; the change with a trimmed name, and its rules apart.
async fn validate(
    db: &mut Connection,
    id: &str,
    mut change: PolicyChange,
) -> Result<(PolicyChange, Vec<RuleChange>)> {
    change.name = text::name("policy", &change.name)?;
    text::description("policy", &change.description)?;
    posture::must_exist(db, &mut change.source_posture_checks).await?;
    let mut rules = std::mem::take(&mut change.rules);
    if rules.is_empty() {
        return invalid("policy rules must not be empty");
    }
    let others: i64 = sql::query_scalar("SELECT count(*) FROM policies WHERE name = $1 AND id <> $2")
        .bind(&change.name)
        .bind(id)
        .fetch_one(&mut *db)
        .await?;
    if others > 0 {
        return duplicate(format!("policy with name {} already exists", change.name));
    }
    for RuleChange { spec, .. } in &mut rules {
        spec.name = text::name("rule", &spec.name)?;
        text::description("rule", &spec.description)?;
        check_service(spec)?;
        check_end(db, &mut spec.sources, "sources").await?;
        check_end(db, &mut spec.destinations, "destinations").await?;
    }
    Ok((change, rules))
}

fn check_service(spec: &mut RuleSpec) -> Result<()> {
    let mut seen = BTreeSet::new();
    spec.ports.retain(|port| seen.insert(*port));
    let name = &spec.name;
    if !spec.ports.is_empty() && !spec.port_ranges.is_empty() {
        return invalid(format!("rule {name}: specify either individual ports or port ranges, not both"));
    }
    let has_ports = !spec.ports.is_empty() || !spec.port_ranges.is_empty();
    if has_ports && matches!(spec.protocol, Protocol::All | Protocol::Icmp) {
        return invalid(format!("rule {name}: ports cannot be given with protocol all or icmp"));
    }
    for range in &spec.port_ranges {
        if range.start > range.end {
            return invalid(format!(
                "rule {name}: port range {}-{} ends before it starts",
                range.start, range.end
            ));
        }
    }
    Ok(())
}

/// Local users are not to be named. Where an earlier version stored some, it is by NetBird's rule for SSH: every source group has an
/// entry, and no other group has one.
fn check_authorized_groups(spec: &mut RuleSpec, stored: Option<&RuleSpec>) -> Result<()> {
    unserved::refuse_logins(spec, stored)?;
    if spec.protocol != Protocol::NetbirdSsh {
        spec.authorized_groups.clear();
    }
    if spec.authorized_groups.is_empty() {
        return Ok(());
    }
    let sources: BTreeSet<&String> = match &spec.sources {
        End::Groups(groups) => groups.iter().collect(),
        End::Peer(_) | End::Resource(_) => BTreeSet::new(),
    };
    let named: BTreeSet<&String> = spec.authorized_groups.keys().collect();
    match sources.symmetric_difference(&named).next() {
        Some(group) => invalid(format!(
            "rule {}: authorized_groups must name exactly the source groups; group {group} is in one of them only",
            spec.name
        )),
        None => Ok(()),
    }
}

async fn check_end(db: &mut Connection, end: &mut End, side: &str) -> Result<()> {
    let (kind, id, query) = match end {
        End::Groups(ids) => {
            let mut seen = BTreeSet::new();
            ids.retain(|id| seen.insert(id.clone()));
            if ids.is_empty() {
                return invalid(format!("{side} must name at least one group, peer or resource"));
            }
            return groups::must_exist(db, ids.iter()).await;
        }
        End::Peer(id) => ("peer", id, "SELECT count(*) FROM peers WHERE id = $1"),
        End::Resource(id) => ("resource", id, "SELECT count(*) FROM resources WHERE id = $1"),
    };
    let found: i64 = sql::query_scalar(query).bind(&*id).fetch_one(db).await?;
    if found == 0 { invalid(format!("{side}: {kind} {id} does not exist")) } else { Ok(()) }
}

/// Which stored rule each rule to be is: by its id, else the first yet unclaimed of the same name, else none.
fn adopt(before: &Policy, rules: Vec<RuleChange>) -> Result<Vec<(Option<String>, RuleSpec)>> {
    let mut free: Vec<&Rule> = before.rules.iter().collect();
    for rule in &rules {
        let Some(id) = &rule.id else { continue };
        match free.iter().position(|stored| stored.id == *id) {
            Some(index) => drop(free.remove(index)),
            None if before.rules.iter().any(|stored| stored.id == *id) => {
                return invalid(format!("rule {id} is named twice"));
            }
            None => return invalid(format!("rule {id} does not belong to policy {}", before.id)),
        }
    }
    let adopted = rules.into_iter().map(|rule| {
        let id = rule.id.or_else(|| {
            let index = free.iter().position(|stored| stored.spec.name == rule.spec.name)?;
            Some(free.remove(index).id.clone())
        });
        (id, rule.spec)
    });
    Ok(adopted.collect())
}

/// Writes a rule: in place of the stored one `id`, whose slot it keeps, or as a new one with the lowest free slot.
async fn put_rule(
    write: &mut Write,
    policy: &str,
    position: usize,
    id: Option<String>,
    spec: &RuleSpec,
) -> Result<()> {
    let json = |text: serde_json::Result<String>| text.map_err(|error| corrupt("rules")(error.into()));
    let (id, slot): (String, i64) = match id {
        Some(id) => {
            let slot = sql::query_scalar("DELETE FROM rules WHERE id = $1 RETURNING slot")
                .bind(&id)
                .fetch_one(write.db())
                .await?;
            (id, slot)
        }
        None => (new_id(), free_slot(write.db()).await?),
    };
    let end = |end: &End| match end {
        End::Groups(_) => (None, None),
        End::Peer(id) => (Some(id.clone()), None),
        End::Resource(id) => (None, Some(id.clone())),
    };
    let (source_peer, source_resource) = end(&spec.sources);
    let (destination_peer, destination_resource) = end(&spec.destinations);
    let position = i64::try_from(position).unwrap_or(i64::MAX);

    sql::query(
        "INSERT INTO rules (id, policy_id, position, slot, name, description, enabled, action, bidirectional,
         protocol, ports, port_ranges, authorized_groups, source_peer, source_resource, destination_peer,
         destination_resource) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
    )
    .bind(&id)
    .bind(policy)
    .bind(position)
    .bind(slot)
    .bind(&spec.name)
    .bind(&spec.description)
    .bind(spec.enabled)
    .bind(spec.action.as_str())
    .bind(spec.bidirectional)
    .bind(spec.protocol.as_str())
    .bind(json(serde_json::to_string(&spec.ports))?)
    .bind(json(serde_json::to_string(&spec.port_ranges))?)
    .bind(json(serde_json::to_string(&spec.authorized_groups))?)
    .bind(source_peer)
    .bind(source_resource)
    .bind(destination_peer)
    .bind(destination_resource)
    .execute(write.db())
    .await?;

    for (side, end) in [(SOURCES, &spec.sources), (DESTINATIONS, &spec.destinations)] {
        let End::Groups(groups) = end else { continue };
        for (position, group) in (0i64..).zip(groups) {
            sql::query("INSERT INTO rule_groups (rule_id, side, position, group_id) VALUES ($1, $2, $3, $4)")
                .bind(&id)
                .bind(side)
                .bind(position)
                .bind(group)
                .execute(write.db())
                .await?;
        }
    }
    Ok(())
}

/// The lowest slot that neither a rule nor a route has.
pub(super) async fn free_slot(db: &mut Connection) -> Result<i64> {
    let (count, next): (i64, i64) = sql::query_as(
        "SELECT count(*), coalesce(max(slot) + 1, 0) FROM (SELECT slot FROM rules UNION ALL SELECT slot FROM routes)
         AS taken",
    )
    .fetch_one(&mut *db)
    .await?;
    if count == next {
        return Ok(next);
    }
    let gap: Option<i64> = sql::query_scalar(
        "SELECT slot FROM (SELECT 0 AS slot UNION ALL SELECT slot + 1 FROM rules UNION ALL SELECT slot + 1 FROM routes)
         AS candidates WHERE slot NOT IN (SELECT slot FROM rules) AND slot NOT IN (SELECT slot FROM routes)
         ORDER BY slot LIMIT 1",
    )
    .fetch_optional(db)
    .await?;
    Ok(gap.unwrap_or(next))
}

impl Action {
    /// Its name in the store and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Accept => "accept",
            Action::Drop => "drop",
        }
    }

    /// The action of this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Action::Accept, Action::Drop].into_iter().find(|action| action.as_str() == text)
    }
}

impl Protocol {
    const ALL: [Protocol; 5] =
        [Protocol::All, Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::NetbirdSsh];

    /// Its name in the store and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::All => "all",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
            Protocol::NetbirdSsh => "netbird-ssh",
        }
    }

    /// The protocol of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == text)
    }
}
