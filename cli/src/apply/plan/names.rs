//! Names: whether they stand for exactly one object.

use std::collections::BTreeMap;

use super::Planner;
use crate::apply::current::Current;
use crate::apply::spec::{EndSpec, Spec, Who};
use crate::rest::Router;

/// How many objects have a name, those the file makes included.
pub(super) struct Names {
    peers: BTreeMap<String, usize>,
    groups: BTreeMap<String, usize>,
    resources: BTreeMap<String, usize>,
}

impl Names {
    pub(super) fn of(spec: &Spec, current: &Current) -> Self {
        let mut names = Names {
            peers: count(current.peers.iter().map(|p| &p.name)),
            groups: count(current.groups.iter().map(|g| &g.name)),
            resources: count(current.resources().map(|(_, r)| &r.name)),
        };
        for group in &spec.groups {
            names.groups.entry(group.name.clone()).or_insert(1);
        }
        for resource in spec.networks.iter().flat_map(|n| &n.resources) {
            names.resources.entry(resource.name.clone()).or_insert(1);
        }
        names
    }
}

fn count<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.clone()).or_default() += 1;
    }
    counts
}

impl Planner<'_> {
    /// The one object of a name; several are a fault.
    pub(super) fn only<T>(
        &mut self,
        kind: &str,
        name: &str,
        mut same_name: impl Iterator<Item = T>,
    ) -> Option<T> {
        let first = same_name.next();
        let more = same_name.count();
        if more > 0 {
            self.faults
                .push(format!("{kind} '{name}': control has {} of that name; rename all but one", more + 1));
        }
        first
    }

    pub(super) fn known_peer(&mut self, at: &str, name: &str) {
        let known = self.names.peers.get(name).copied().unwrap_or_default();
        self.known(
            at,
            "peer",
            name,
            known,
            "`sluice peer list` shows them; a machine becomes a peer by joining",
        );
    }

    pub(super) fn known_group(&mut self, at: &str, name: &str) {
        let known = self.names.groups.get(name).copied().unwrap_or_default();
        self.known(at, "group", name, known, "add it under `groups:`, or see `sluice group list`");
    }

    pub(super) fn known_end(&mut self, at: &str, end: &EndSpec) {
        match end {
            EndSpec::Groups(groups) if groups.is_empty() => {
                self.faults.push(format!("{at}: an end names nobody"))
            }
            EndSpec::Groups(groups) => groups.iter().for_each(|group| self.known_group(at, group)),
            EndSpec::Peer(peer) => self.known_peer(at, peer),
            EndSpec::Resource(name) => {
                let known = self.names.resources.get(name).copied().unwrap_or_default();
                self.known(at, "resource", name, known, "add it to a network, or see `sluice network list`");
            }
        }
    }

    pub(super) fn known(&mut self, at: &str, kind: &str, name: &str, known: usize, hint: &str) {
        match known {
            0 => self.faults.push(format!("{at}: there is no {kind} '{name}' ({hint})")),
            1 => {}
            many => self.faults.push(format!("{at}: {many} {kind}s are called '{name}'; rename all but one")),
        }
    }

    pub(super) fn who(&self, router: &Router) -> Who {
        if router.peer.is_empty() {
            let name = |id: &String| {
                self.current.groups.iter().find(|g| g.id == *id).map_or(id, |g| &g.name).clone()
            };
            return Who::Groups(router.peer_groups.iter().map(name).collect());
        }
        let peer = self.current.peers.iter().find(|peer| peer.id == router.peer);
        Who::Peer(peer.map_or(&router.peer, |peer| &peer.name).clone())
    }
}
