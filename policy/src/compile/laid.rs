//! How an agent's image was laid out the last time, so that only what differs is written, encoded and hashed.
//!
//! Whoever has the image of the same hash has the words and the names that are noted here: what turns these into those of
//! another state turns that image into the other. Nothing is taken over for what a change was said to be.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::{Arc, Weak};

use sluicegate_api::image::{Delta, Hash, Parts, RouteInfo};

use super::words::Words;
use super::{Compiler, Made, side_by_side};
use crate::resolve::{NetworkEntry, Numbering, Resolved};

/// The image of an agent, but for its pages and blocks, which are kept with its rows.
#[derive(Debug)]
pub(super) struct Laid {
    hash: Hash,
    /// By which its peers are numbered.
    peers: Numbering,
    /// Those of the state it was of, compared by where they are; not kept alive. Routes follow from them.
    networks: Weak<Vec<NetworkEntry>>,
    routes: Routes,
    words: Words,
    names: Vec<Name>,
}

/// What is behind the number of each route.
type Routes = Arc<BTreeMap<u32, RouteInfo>>;

/// What is behind a slot: the slot, the reading of the rule's policy, and the rule's number then. By slot.
type Name = (u32, u64, u32);

impl Laid {
    /// Of the image of `hash`, which was made; `before` is the one before it.
    pub(super) fn new(compiler: &Compiler, hash: Hash, made: Made, before: Option<&Self>) -> Self {
        let r = compiler.resolved();
        let (peers, networks) = (r.peers.numbering.clone(), Arc::downgrade(&r.networks));
        let routes = before.and_then(|before| before.same_routes(r));
        let routes = routes.unwrap_or_else(|| Arc::new(compiler.route_infos(&made.scope)));
        let names = names(r, &made.rules);
        Self { hash, peers, networks, routes, words: made.words, names }
    }

    /// Its words.
    pub(super) fn words(&self) -> &Words {
        &self.words
    }

    /// The routes, if nothing that they follow from has changed.
    fn same_routes(&self, r: &Resolved) -> Option<Routes> {
        ptr::eq(self.networks.as_ptr(), Arc::as_ptr(&r.networks)).then(|| self.routes.clone())
    }

    /// What turns `before` into the image that was made of another state. `None` where it is not this image, or where next to
    /// everything may differ.
    pub(super) fn delta(&self, compiler: &Compiler, before: &Parts, made: &Made) -> Option<Delta> {
        let r = compiler.resolved();
        if before.hash() != self.hash || !Arc::ptr_eq(&self.peers, &r.peers.numbering) {
            return None;
        }
        let runs = made.words.over(&self.words, r, made.placed.tables())?;
        let routes = match self.same_routes(r) {
            Some(_) => BTreeMap::new(),
            None => turned(&self.routes, &compiler.route_infos(&made.scope)),
        };
        let names = names(r, &made.rules);
        let known =
            |names: &[Name], slot: u32| Some(names[names.binary_search_by_key(&slot, |n| n.0).ok()?].1);
        let gone =
            self.names.iter().filter(|name| known(&names, name.0).is_none()).map(|name| (name.0, None));
        let read = names.iter().filter(|name| known(&self.names, name.0) != Some(name.1));
        let rules: BTreeMap<_, _> =
            gone.chain(read.map(|name| (name.0, Some(compiler.rule_info(name.2))))).collect();
        // Images have at most `WORDS_MAX` words.
        Some(Delta { words: made.words.len() as u32, runs, rules, routes })
    }

    /// About how many bytes this takes.
    pub(super) fn size(&self) -> usize {
        let text = |info: &RouteInfo| {
            info.network_id.len() + info.resource_id.len() + info.resource_name.len() + size_of::<RouteInfo>()
        };
        let routes: usize = self.routes.values().map(text).sum();
        self.words.size() + self.names.len() * size_of::<Name>() + routes
    }
}

/// What is other than it was, and `None` for what is gone.
fn turned(
    old: &BTreeMap<u32, RouteInfo>,
    new: &BTreeMap<u32, RouteInfo>,
) -> BTreeMap<u32, Option<RouteInfo>> {
    let both = side_by_side(old.iter(), new.iter()).filter(|(_, was, is)| was != is);
    both.map(|(&number, _, is)| (number, is.cloned())).collect()
}

fn names(r: &Resolved, rules: &[u32]) -> Vec<Name> {
    let name = |&number: &u32| {
        let rule = &r.written.rules[number as usize];
        (rule.slot, r.written.readings[rule.policy as usize], number)
    };
    let mut names: Vec<Name> = rules.iter().map(name).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::*;

    const GATEWAY: &str = "gateway";

    /// Ten peers and a gateway, whose one resource the first five may reach.
    fn state() -> State {
        let ids = (0..10).map(|i| format!("peer{i}")).chain([GATEWAY.to_owned()]);
        let peer = |(id, n): (String, u8)| {
            let (v4, v6) = ([100, 64, 0, 2 * n].into(), format!("fd5c:1::{}", 2 * n).parse().unwrap());
            (id.clone(), Peer { name: id, v4, v6, allowed: true })
        };
        let users = (0..5).map(|i| format!("peer{i}")).collect();
        let resource = Resource {
            name: "resource".into(),
            prefixes: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            domain: None,
            enabled: true,
            distribution: None,
        };
        let router =
            Router { peers: [GATEWAY.to_owned()].into(), metric: 1, masquerade: true, enabled: true };
        let network = Network {
            name: "network".into(),
            resources: [("resource".to_owned(), resource)].into(),
            routers: [("router".to_owned(), router)].into(),
        };
        let rule = |slot: u32, service| Rule {
            id: format!("rule{slot}"),
            name: "rule".into(),
            slot,
            enabled: true,
            action: Action::Accept,
            bidirectional: false,
            service,
            sources: End::Groups(["users".to_owned()].into()),
            destinations: End::Resource("resource".into()),
        };
        let rules = vec![rule(3, Service::Tcp(vec![443..=443])), rule(4, Service::Tcp(vec![80..=80]))];
        let policy = Policy {
            name: "policy".into(),
            enabled: true,
            posture_failed: Default::default(),
            rules: rules.into(),
        };
        State {
            overlay_v4: "100.64.0.0/24".parse().unwrap(),
            overlay_v6: "fd5c:1::/64".parse().unwrap(),
            peers: ids.zip(1..).map(peer).collect(),
            groups: [("users".to_owned(), Group { peers: users, ..Group::default() })].into(),
            networks: [("network".to_owned(), network)].into(),
            policies: [("policy".to_owned(), policy)].into(),
        }
    }

    fn policy(state: &mut State) -> &mut Policy {
        state.policies.get_mut("policy").unwrap()
    }

    fn users(state: &mut State) -> &mut Group {
        state.groups.get_mut("users").unwrap()
    }

    fn come(state: &mut State, id: &str, n: u8) {
        let (v4, v6) = ([100, 64, 0, n].into(), format!("fd5c:1::{n}").parse().unwrap());
        state.peers.insert(id.to_owned(), Peer { name: id.to_owned(), v4, v6, allowed: true });
        users(state).peers.insert(id.to_owned());
    }

    fn go(state: &mut State, id: &str) {
        state.peers.remove(id);
        users(state).peers.remove(id);
    }

    /// What the gateway's image costs after a change: the delta, unless it is made anew.
    fn delta(change: impl Fn(&mut State), held: impl Fn(Parts) -> Parts) -> Option<Delta> {
        let before = Compiler::new(Arc::new(state())).unwrap().remembering();
        let had = before.compile_parts(GATEWAY, None).unwrap();
        let mut state = (**before.state()).clone();
        change(&mut state);
        let after = Compiler::after(Arc::new(state), &before).unwrap();
        let mut kept = before.memory.unwrap().take(GATEWAY);
        let laid = kept.as_mut().unwrap().laid.take().unwrap();
        let made = after.make(GATEWAY, kept, Some(&laid)).unwrap();
        let delta = laid.delta(&after, &held(had.clone()), &made)?;
        let scratch = Compiler::new(after.state().clone()).unwrap().compile(GATEWAY).unwrap();
        assert_eq!(had.apply(&delta).unwrap().image().unwrap(), scratch);
        Some(delta)
    }

    fn words(delta: &Delta) -> usize {
        delta.runs.iter().map(|run| run.1.len()).sum()
    }

    #[test]
    fn what_changes_little_is_written_little() {
        type Change = fn(&mut State);
        let changes: [(Change, usize, usize); 8] = [
            (|_| {}, 0, 0),
            (|state| assert!(users(state).peers.insert("peer7".into())), 60, 0),
            (|state| assert!(users(state).peers.remove("peer2")), 60, 0),
            (|state| assert!(policy(state).posture_failed.insert("peer1".into())), 60, 2),
            (|state| policy(state).rules[0].service = Service::Udp(vec![53..=53]), 120, 2),
            (|state| policy(state).name = "renamed".into(), 0, 2),
            // A newcomer with rights, ahead of others.
            (|state| come(state, "new", 3), 120, 0),
            (|state| go(state, "peer3"), 120, 0),
        ];
        for (i, (change, most, names)) in changes.into_iter().enumerate() {
            let delta = delta(change, |had| had).unwrap_or_else(|| panic!("change {i} is made anew"));
            assert!(words(&delta) <= most && (words(&delta) > 0) == (most > 0), "{i}: {:?}", delta.runs);
            assert_eq!((delta.rules.len(), delta.routes.len()), (names, 0), "{i}");
        }
    }

    #[test]
    fn a_name_that_is_gone_is_taken_out() {
        let delta = delta(|state| policy(state).rules[1].enabled = false, |had| had).unwrap();
        assert_eq!(delta.rules.get(&4), Some(&None));
    }

    #[test]
    fn another_image_is_made_anew_and_routes_that_are_named_otherwise_are_told() {
        let other = |_| Compiler::new(Arc::new(state())).unwrap().compile_parts("peer1", None).unwrap();
        assert_eq!(delta(|_| {}, other), None);
        let renamed = |state: &mut State| {
            let network = state.networks.get_mut("network").unwrap();
            network.resources.values_mut().for_each(|resource| resource.name = "renamed".into());
        };
        let delta = delta(renamed, |had| had).unwrap();
        assert_eq!((words(&delta), delta.rules.len(), delta.routes.len()), (0, 0, 2));
        assert!(delta.routes.values().flatten().all(|route| route.resource_name == "renamed"));
    }
}
