//! The account as it was read, with what is needed to read it on.

use std::collections::BTreeMap;

use super::super::account::account;
use super::super::sql::Connection;
use super::super::standing::Standing;
use super::super::{NetworkRoute, Policy, Result, policies, routes};
use super::touched::Position;
use super::{Ending, Names, Snapshot, rows};
use sluicegate_policy::model;

/// What was read.
pub(super) struct Known {
    pub(super) snapshot: Snapshot,
    /// What was written down as touched until then.
    pub(super) position: Position,
    pub(super) standing: Standing,
    /// The posture checks of the policies that have any.
    pub(super) checks: BTreeMap<String, Vec<String>>,
    /// Whether routers are to look names up.
    pub(super) looked_up: bool,
    /// Break-glass policies: whether one is stored as on, and until when. By the clock it may be off.
    pub(super) glass: BTreeMap<String, (bool, Option<i64>)>,
    pub(super) routes: BTreeMap<String, NetworkRoute>,
}

impl Known {
    /// Reads everything. `now` is in Unix milliseconds.
    pub(super) async fn load(db: &mut Connection, now: i64) -> Result<Self> {
        let account = account(db).await?;
        let (overlay_v4, overlay_v6) = account.settings.overlay()?;
        let position = Position::now(db).await?;
        let standing = Standing::load(db).await?;
        let (peers, agents) = rows::peers(db, &standing).await?;
        let groups = rows::groups(db).await?;
        let looked_up = account.settings.routing_peer_dns_resolution_enabled;
        let networks = rows::networks(db, &groups, looked_up).await?;
        let state = model::State {
            overlay_v4,
            overlay_v6,
            peers: peers.into(),
            groups: groups.into(),
            networks: networks.into(),
            policies: Default::default(),
        };
        let agents = agents.into();
        let flow_log = account.settings.flow_log();
        let names = Names::load(db, &account.settings).await?;
        let revision = account.revision;
        let snapshot = Snapshot { revision, state, agents, names, flow_log, ends: Vec::new() };
        let mut known = Self {
            snapshot,
            position,
            standing,
            checks: BTreeMap::new(),
            looked_up,
            glass: BTreeMap::new(),
            routes: BTreeMap::new(),
        };
        for policy in policies::all(db).await? {
            known.put_policy(policy);
        }
        for route in routes::all(db).await? {
            known.put_route(route)?;
        }
        known.by_the_clock(now);
        Ok(known)
    }

    /// What is not as `other` has it, down to the reasons why machines fail; `None` when all is the same.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let (a, b) = (&self.snapshot, &other.snapshot);
        let found = [
            (a.revision != b.revision).then(|| "the revision".to_owned()),
            ((a.state.overlay_v4, a.state.overlay_v6) != (b.state.overlay_v4, b.state.overlay_v6))
                .then(|| "the overlay".to_owned()),
            (a.flow_log != b.flow_log).then(|| "the settings of flow events".to_owned()),
            (a.names.domain != b.names.domain).then(|| "the zone of peers".to_owned()),
            (a.names.unmanaged != b.names.unmanaged).then(|| "whose DNS is not managed".to_owned()),
            differs("zone", &a.names.zones, &b.names.zones),
            differs("nameserver group", &a.names.nameservers, &b.names.nameservers),
            differs("peer", &a.state.peers, &b.state.peers),
            differs("agent", &a.agents, &b.agents),
            differs("group", &a.state.groups, &b.state.groups),
            differs("network", &a.state.networks, &b.state.networks),
            differs("policy", &a.state.policies, &b.state.policies),
            differs("posture of policy", &reasons(a), &reasons(b)),
            (a.ends != b.ends).then(|| "the end of break-glass".to_owned()),
            differs("checks of policy", &self.checks, &other.checks),
            differs("break-glass policy", &self.glass, &other.glass),
            differs("route", &self.routes, &other.routes),
        ];
        found.into_iter().flatten().next()
    }

    /// A copy of it as others see it.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// The same, for whoever does not read on.
    pub(super) fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }

    /// Takes in a policy, in place of one of its id.
    pub(super) fn put_policy(&mut self, policy: Policy) {
        match policy.source_posture_checks.is_empty() {
            true => self.checks.remove(&policy.id),
            false => self.checks.insert(policy.id.clone(), policy.source_posture_checks.clone()),
        };
        match &policy.break_glass {
            None => self.glass.remove(&policy.id),
            Some(glass) => self.glass.insert(policy.id.clone(), (policy.enabled, glass.until)),
        };
        let compiled = model::Policy {
            name: policy.name,
            enabled: policy.enabled,
            posture_failed: self.standing.failed(&policy.source_posture_checks),
            rules: policy.rules.into_iter().map(rows::rule).collect(),
        };
        self.snapshot.state.policies.insert(policy.id, compiled);
    }

    /// Takes in a route, of whose groups everything is known.
    pub(super) fn put_route(&mut self, route: NetworkRoute) -> Result<()> {
        let (network, permit) = rows::route_network(&route, &mut self.snapshot.state.groups)?;
        self.snapshot.state.networks.insert(route.id.clone(), network);
        match permit {
            Some(permit) => self.snapshot.state.policies.insert(route.id.clone(), permit),
            None => self.snapshot.state.policies.remove(&route.id),
        };
        self.routes.insert(route.id.clone(), route);
        Ok(())
    }

    /// Break-glass policies whose time came are off, whether or not anybody was there to end them.
    pub(super) fn by_the_clock(&mut self, now: i64) {
        let mut ends = BTreeMap::<i64, Vec<String>>::new();
        for (id, &(enabled, until)) in &self.glass {
            let until = until.filter(|until| enabled && *until > now);
            let on = until.is_some();
            if self.snapshot.state.policies.get(id).is_some_and(|policy| policy.enabled != on)
                && let Some(policy) = self.snapshot.state.policies.get_mut(id)
            {
                policy.enabled = on;
            }
            if let Some(until) = until {
                ends.entry(until).or_default().push(id.clone());
            }
        }
        self.snapshot.ends = ends.into_iter().map(|(at, policies)| Ending { at, policies }).collect();
    }
}

/// The first entry that is not the same, for people.
fn differs<T: PartialEq>(what: &str, a: &BTreeMap<String, T>, b: &BTreeMap<String, T>) -> Option<String> {
    let id = a.keys().chain(b.keys()).find(|id| a.get(*id) != b.get(*id))?;
    Some(format!("{what} {id}"))
}

/// Who fails the checks of each policy, and why.
fn reasons(snapshot: &Snapshot) -> BTreeMap<String, Vec<(&str, &str)>> {
    let policies = snapshot.state.policies.iter().filter(|(_, policy)| !policy.posture_failed.is_empty());
    let reasons = policies.map(|(id, policy)| {
        let failed = &policy.posture_failed;
        let peers = failed.peers().map(|peer| (peer.as_str(), failed.reason(peer).unwrap_or_default()));
        (id.clone(), peers.collect())
    });
    reasons.collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::{Actor, Store};
    use super::*;
    use crate::ids::now;

    #[tokio::test]
    async fn a_break_glass_policy_ends_by_the_clock_though_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let (actor, id) = (Actor::system(), store.policies().await.unwrap().remove(0).id);
        store.limit_break_glass(&actor, &id, Some(60)).await.unwrap();
        let begin = now();
        store.break_glass_on(&actor, &id, 60, "fire").await.unwrap();
        let mut known = Known::load(&mut store.read().await.unwrap(), begin).await.unwrap();
        let until = known.snapshot.ends_at().unwrap();
        assert!(known.snapshot.state.policies[&id].enabled);
        // Past its end, and back with a clock that was set.
        for (at, on) in [(until - 1, true), (until, false), (until + 1, false), (until - 1, true)] {
            let mut db = store.read().await.unwrap();
            assert!(known.follow(&mut db, at).await.unwrap());
            assert_eq!(known.snapshot.state.policies[&id].enabled, on, "{}", at - until);
            assert_eq!(known.snapshot.ends_at(), on.then_some(until));
            let whole = Known::load(&mut db, at).await.unwrap();
            assert_eq!(known.difference(&whole), None);
        }
    }

    #[tokio::test]
    async fn what_is_different_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let load = async || Known::load(&mut store.read().await.unwrap(), now()).await.unwrap();
        let (mut known, id) = (load().await, store.policies().await.unwrap().remove(0).id);
        assert_eq!(known.difference(&load().await), None);
        known.snapshot.state.policies.get_mut(&id).unwrap().posture_failed.set("p", Some("why".into()));
        let mut other = load().await;
        other.snapshot.state.policies.get_mut(&id).unwrap().posture_failed.set("p", Some("another".into()));
        assert_eq!(known.difference(&other), Some(format!("posture of policy {id}")));
        assert_eq!(known.difference(&load().await), Some(format!("policy {id}")));
    }
}
