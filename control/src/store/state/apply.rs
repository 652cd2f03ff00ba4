//! Reading on: what was touched, and what follows from it elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate_policy::model::Shared;

use super::super::account::account;
use super::super::sql::{self, Connection};
use super::super::standing::Standing;
use super::super::{Result, facts, policies, routes};
use super::known::Known;
use super::rows;
use super::touched::Touched;

/// Up to so many peers that entered or left a group are looked for one by one, more of them by the whole group.
const MEMBERS: usize = 8;

impl Known {
    /// Reads what was touched since. False where everything is to be read; after that, and after an error, this is of no use.
    pub(super) async fn follow(&mut self, db: &mut Connection, now: i64) -> Result<bool> {
        let state = &self.snapshot.state;
        let objects = state.peers.len() + state.groups.len() + state.networks.len() + state.policies.len();
        let Some((mut touched, position)) = self.position.since(objects, db).await? else { return Ok(false) };
        let account = account(db).await?;
        // A setting that touches every network with names.
        if account.settings.routing_peer_dns_resolution_enabled != self.looked_up {
            return Ok(false);
        }
        let overlay = account.settings.overlay()?;
        (self.snapshot.state.overlay_v4, self.snapshot.state.overlay_v6) = overlay;
        self.snapshot.revision = account.revision;
        self.snapshot.flow_log = account.settings.flow_log();
        self.snapshot.names.follow(&touched, &account.settings, db).await?;
        self.position = position;
        spread(&mut touched, db).await?;

        self.read_policies(&touched.policies, db).await?;
        let linked: BTreeSet<&String> = self.checks.values().flatten().collect();
        if !self.standing.is_of(&linked) {
            // A check that was asked for by nobody was judged for nobody. What agents watch does not depend on it.
            self.standing = Standing::load(db).await?;
            self.judge_anew();
        }
        self.read_peers(&touched.peers, db).await?;
        self.read_groups(&touched, db).await?;
        self.read_networks(&touched, db).await?;
        self.read_routes(&touched, db).await?;
        self.by_the_clock(now);
        Ok(true)
    }

    async fn read_policies(&mut self, ids: &BTreeSet<String>, db: &mut Connection) -> Result<()> {
        for id in ids {
            if let Some(policy) = policies::find(db, id).await? {
                self.put_policy(policy);
                continue;
            }
            self.checks.remove(id);
            self.glass.remove(id);
            self.snapshot.state.policies.remove(id);
        }
        Ok(())
    }

    async fn read_peers(&mut self, ids: &BTreeSet<String>, db: &mut Connection) -> Result<()> {
        let mut turned = false;
        for id in ids {
            match rows::peer(db, id, &self.standing).await? {
                Some((peer, agent)) => {
                    put(&mut self.snapshot.state.peers, id, Some(peer));
                    put(&mut self.snapshot.agents, id, Some(agent));
                }
                None => {
                    put(&mut self.snapshot.state.peers, id, None);
                    put(&mut self.snapshot.agents, id, None);
                }
            }
            if self.standing.asks() {
                let known = facts::rows(db, Some(id)).await?.pop();
                turned |= self.standing.judge_again(id, known.as_ref())?;
            }
        }
        if turned {
            self.judge_anew();
        }
        Ok(())
    }

    /// Gives every policy who fails its checks.
    fn judge_anew(&mut self) {
        for (id, checks) in &self.checks {
            if let Some(policy) = self.snapshot.state.policies.get_mut(id) {
                policy.posture_failed = self.standing.failed(checks);
            }
        }
    }

    async fn read_groups(&mut self, touched: &Touched, db: &mut Connection) -> Result<()> {
        let groups = &mut self.snapshot.state.groups;
        for id in &touched.groups {
            match rows::group_name(db, id).await? {
                Some(name) => groups.entry(id.clone()).or_default().name = name,
                None => drop(groups.remove(id)),
            }
        }
        for (id, members) in &touched.members {
            let Some(group) = groups.get_mut(id) else { continue };
            if members.len() > MEMBERS {
                group.peers = rows::group_peers(db, id).await?.into();
                continue;
            }
            for peer in members {
                match rows::is_member(db, id, peer).await? {
                    true => group.peers.insert(peer.clone()),
                    false => group.peers.remove(peer),
                };
            }
        }
        Ok(())
    }

    async fn read_networks(&mut self, touched: &Touched, db: &mut Connection) -> Result<()> {
        let state = &mut self.snapshot.state;
        for id in &touched.networks {
            let network = rows::network(db, id, &state.groups, self.looked_up).await?;
            put(&mut state.networks, id, network);
        }
        Ok(())
    }

    /// Routes, and what groups hold, of which routes are a part.
    async fn read_routes(&mut self, touched: &Touched, db: &mut Connection) -> Result<()> {
        let mut holds = touched.holds.clone();
        let mut anew = Vec::new();
        for id in &touched.routes {
            let before = self.routes.remove(id);
            if before.is_some() {
                self.snapshot.state.networks.remove(id);
                self.snapshot.state.policies.remove(id);
            }
            let after = routes::find(db, id).await?;
            let guards = before.iter().chain(&after).flat_map(|route| &route.spec.access_control_groups);
            holds.extend(guards.cloned());
            anew.extend(after);
        }
        for id in &holds {
            let of_routes =
                self.routes.values().filter(|route| route.spec.access_control_groups.contains(id));
            let of_routes: Vec<String> = of_routes.map(|route| route.id.clone()).collect();
            if let Some(group) = self.snapshot.state.groups.get_mut(id) {
                let mut resources = rows::group_resources(db, id).await?;
                resources.extend(of_routes);
                group.resources = resources.into();
            }
        }
        // The peers of a group that routes are those of the route.
        let moved = |id: &String| touched.members.contains_key(id) || touched.groups.contains(id);
        let carried = self.routes.values().filter(|route| route.spec.peer_groups.iter().any(moved));
        anew.extend(carried.cloned().collect::<Vec<_>>());
        for route in anew {
            self.put_route(route)?;
        }
        Ok(())
    }
}

/// Takes in what was read, or that there is nothing; what is already there stays shared with copies.
pub(super) fn put<T: Clone + PartialEq>(map: &mut Shared<BTreeMap<String, T>>, id: &str, read: Option<T>) {
    match read {
        read if map.get(id) == read.as_ref() => {}
        Some(read) => drop(map.insert(id.to_owned(), read)),
        None => drop(map.remove(id)),
    }
}

/// What follows in the database itself: peers of users, networks of routers and resources, policies of rules.
async fn spread(touched: &mut Touched, db: &mut Connection) -> Result<()> {
    for id in &touched.users {
        let peers = sql::query_scalar("SELECT id FROM peers WHERE user_id = $1 AND user_id <> ''");
        touched.peers.extend(peers.bind(id).fetch_all(db).await?);
    }
    // Those of a router, resource or rule that is gone were touched when it went.
    for id in &touched.routers {
        let network = sql::query_scalar("SELECT network_id FROM routers WHERE id = $1");
        touched.networks.extend(network.bind(id).fetch_optional(db).await?);
    }
    for id in &touched.resources {
        let network = sql::query_scalar("SELECT network_id FROM resources WHERE id = $1");
        touched.networks.extend(network.bind(id).fetch_optional(db).await?);
    }
    for id in &touched.rules {
        let policy = sql::query_scalar("SELECT policy_id FROM rules WHERE id = $1");
        touched.policies.extend(policy.bind(id).fetch_optional(db).await?);
    }
    let moved: BTreeSet<&String> = touched.members.keys().chain(&touched.groups).collect();
    for id in moved {
        let networks = sql::query_scalar(
            "SELECT DISTINCT r.network_id FROM router_groups g JOIN routers r ON r.id = g.router_id
             WHERE g.group_id = $1",
        );
        touched.networks.extend(networks.bind(id).fetch_all(db).await?);
    }
    Ok(())
}
