//! Ends of rules as interned sets of peers and resources.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;

use super::members::Membership;
use super::peers::Turned;
use super::{Lists, Peers};
use crate::compile::mix_words;
use crate::model::{End, PostureFailed, State};

/// Number of a set.
pub(crate) type SetId = u32;

/// What makes a set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    ends: Ends,
    /// Which peers are left out: a number of `Sets::failing`; 0 leaves out none.
    failing: u32,
    /// Whom the other end is distributed to: only peers of these groups are members. A number of `Sets::distributions`.
    within: Distribution,
    members: Members,
}

/// A number of `Sets::distributions`; 0 is everybody.
pub(crate) type Distribution = u32;

/// What of an end is in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Members {
    /// Its peers: where flows come from.
    Peers,
    /// Its peers and those of its resources that are for everybody: where flows go to.
    All,
    /// Its resources of one distribution: where flows of these peers alone go to.
    Distributed(Distribution),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Ends {
    Groups(Box<[u32]>),
    Peer(u32),
    Resource(u32),
}

/// Every set, and who is in which.
#[derive(Debug)]
pub(crate) struct Sets {
    peers: Arc<Peers>,
    ids: Arc<Ids>,
    interned: Arc<Interned>,
    /// The number of each list of failing peers that was asked for, by where it is.
    failing_seen: FxHashMap<usize, u32>,
    members: Arc<Membership>,
    /// Members of each set, once they were asked for.
    counted: Vec<Counted>,
}

/// What groups and resources are called, and whom resources are for.
#[derive(Debug)]
struct Ids {
    groups: FxHashMap<Arc<str>, u32>,
    resources: FxHashMap<Arc<str>, u32>,
    /// A hash of the id of each group and resource.
    group_keys: Vec<u64>,
    resource_keys: Vec<u64>,
    /// Groups that resources are distributed to, one list for each distinct list; the first stands for everybody.
    distributions: Vec<Box<[u32]>>,
    /// The distribution of each resource.
    resource_distribution: Vec<Distribution>,
}

/// The sets by number. Shared with the states that follow, until one of them has another set.
#[derive(Clone, Debug)]
struct Interned {
    keys: Vec<Key>,
    numbers: FxHashMap<Key, SetId>,
    /// Peers that fail posture checks, one list for each distinct list; the first is empty.
    failing: Vec<Arc<[u32]>>,
    failing_numbers: FxHashMap<Arc<[u32]>, u32>,
    /// How many of the sets are in the lists below.
    indexed: usize,
    /// Sets that name each group, peer and resource.
    of_group: Lists,
    of_peer: Lists,
    of_resource: Lists,
}

impl Ids {
    /// Of a state with the same groups; this one where resources are as they were.
    fn after(self: &Arc<Self>, state: &State, resources: FxHashMap<Arc<str>, u32>) -> Arc<Self> {
        let (distributions, resource_distribution) = distributions(state, &self.groups, &resources);
        if resources == self.resources
            && (&distributions, &resource_distribution) == (&self.distributions, &self.resource_distribution)
        {
            return self.clone();
        }
        Arc::new(Self {
            groups: self.groups.clone(),
            group_keys: self.group_keys.clone(),
            resource_keys: keys(&resources),
            resources,
            distributions,
            resource_distribution,
        })
    }
}

impl Interned {
    /// Gives resources other numbers. A set of one that has none any more is empty from now on.
    fn renumber(&mut self, numbers: &FxHashMap<u32, u32>) {
        for key in &mut self.keys {
            if let Ends::Resource(resource) = key.ends {
                let number = numbers.get(&resource);
                key.ends =
                    number.map_or_else(|| Ends::Groups(Box::default()), |&number| Ends::Resource(number));
            }
        }
        let nothing = |ends: &Ends| matches!(ends, Ends::Groups(groups) if groups.is_empty());
        let some = self.keys.iter().zip(0..).filter(|(key, _)| !nothing(&key.ends));
        self.numbers = some.map(|(key, number)| (key.clone(), number)).collect();
        self.indexed = 0;
    }
}

impl Default for Interned {
    fn default() -> Self {
        let empty: Arc<[u32]> = Arc::default();
        Self {
            keys: Vec::new(),
            numbers: FxHashMap::default(),
            failing: vec![empty.clone()],
            failing_numbers: FxHashMap::from_iter([(empty, 0)]),
            indexed: 0,
            of_group: Lists::default(),
            of_peer: Lists::default(),
            of_resource: Lists::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Counted {
    peers: OnceLock<Box<[u32]>>,
    resources: OnceLock<Box<[u32]>>,
}

impl Sets {
    /// Of a state, by the numbers of its peers and resources.
    pub(crate) fn new(state: &State, peers: Arc<Peers>, resources: FxHashMap<Arc<str>, u32>) -> Self {
        let groups: FxHashMap<Arc<str>, u32> =
            state.groups.keys().zip(0..).map(|(id, i)| (Arc::from(id.as_str()), i)).collect();
        let members = Membership::new(state, &peers, &resources);
        let (distributions, resource_distribution) = distributions(state, &groups, &resources);
        let ids = Ids {
            group_keys: state.groups.keys().map(|id| key_of(id)).collect(),
            resource_keys: keys(&resources),
            groups,
            resources,
            distributions,
            resource_distribution,
        };
        Self {
            peers,
            ids: Arc::new(ids),
            interned: Arc::default(),
            failing_seen: FxHashMap::default(),
            members: Arc::new(members),
            counted: Vec::new(),
        }
    }

    /// Of a state that follows another, whose sets these are: a set keeps its number. Peers have the same numbers but for those that
    /// are `turned`; `resources` has their numbers where they may have others. Tells as well which of these came or went. `None` where
    /// groups came or went, or what rules with distributed resources lead to may be other sets.
    pub(super) fn after(
        state: &State,
        (before, old): (&Self, &State),
        peers: Arc<Peers>,
        turned: &Turned<'_>,
        resources: Option<FxHashMap<Arc<str>, u32>>,
    ) -> Option<(Self, BTreeSet<Arc<str>>)> {
        let same_groups = state.groups.is_same(&old.groups);
        let distributed = before.ids.distributions.len() > 1;
        if !same_groups {
            let mut both = state.groups.values().zip(old.groups.values());
            if !state.groups.keys().eq(old.groups.keys())
                || distributed && both.any(|(now, was)| !now.resources.is_same(&was.resources))
            {
                return None;
            }
        }
        let ids = match resources {
            Some(resources) => before.ids.after(state, resources),
            None => before.ids.clone(),
        };
        let renumbered = !Arc::ptr_eq(&ids, &before.ids);
        if renumbered && (distributed || ids.distributions.len() > 1) {
            return None;
        }
        let members = match same_groups && turned.is_empty() && !renumbered {
            true => before.members.clone(),
            false => Arc::new(before.members.after(
                state,
                old,
                &peers,
                &ids.resources,
                (turned, &before.peers),
                renumbered,
            )),
        };
        let (mut interned, mut other) = (before.interned.clone(), BTreeSet::new());
        if renumbered {
            let number = |old: u32, id: &Arc<str>| Some((old, *ids.resources.get(id)?));
            let numbers = before.ids.resources.iter().filter_map(|(id, &old)| number(old, id)).collect();
            Arc::make_mut(&mut interned).renumber(&numbers);
            let in_one = |one: &Ids, other: &Ids| -> Vec<Arc<str>> {
                let ids = one.resources.keys().filter(|&id| !other.resources.contains_key(id));
                ids.cloned().collect()
            };
            other.extend(in_one(&before.ids, &ids).into_iter().chain(in_one(&ids, &before.ids)));
        }
        let failing_seen = FxHashMap::default();
        let mut sets = Self { peers, ids, interned, failing_seen, members, counted: Vec::new() };
        sets.index();
        Some((sets, other))
    }

    /// Forgets every set.
    pub(super) fn forget(&mut self) {
        self.interned = Arc::default();
        self.failing_seen.clear();
        self.counted.clear();
    }

    /// The number of a list of peers to leave out of sources.
    fn failing(&mut self, peers: &PostureFailed) -> u32 {
        if peers.is_empty() {
            return 0;
        }
        // The state holds every list while this works, so none is at the address of another.
        if let Some(&number) = self.failing_seen.get(&peers.address()) {
            return number;
        }
        let ids = peers.peers().filter_map(|p| self.peers.number(p));
        let mut list: Vec<u32> = ids.collect();
        list.sort_unstable();
        let number = self.interned.failing_numbers.get(&list[..]).copied().unwrap_or_else(|| {
            let interned = Arc::make_mut(&mut self.interned);
            let (list, number) = (Arc::<[u32]>::from(list), interned.failing.len() as u32);
            interned.failing.push(list.clone());
            interned.failing_numbers.insert(list, number);
            number
        });
        self.failing_seen.insert(peers.address(), number);
        number
    }

    /// The distributions of the resources that an end names, rising; that to everybody is not among them.
    pub(crate) fn distributions_of(&self, end: &End) -> Vec<Distribution> {
        if self.ids.distributions.len() == 1 {
            return Vec::new();
        }
        let of = |resource: &u32| self.ids.resource_distribution[*resource as usize];
        let mut found: Vec<Distribution> = match end {
            End::Peer(_) => Vec::new(),
            End::Resource(id) => self.ids.resources.get(id.as_str()).map(of).into_iter().collect(),
            End::Groups(ids) => {
                let numbers = ids.iter().filter_map(|id| self.ids.groups.get(id.as_str()));
                numbers.flat_map(|&group| self.members.resources.of_group.get(group)).map(of).collect()
            }
        };
        found.sort_unstable();
        found.dedup();
        found.retain(|&distribution| distribution != 0);
        found
    }

    /// The set of an end of a rule without the peers that are `failing`; `None` when it names nothing that exists. A list of failing
    /// peers gets its number only with a set that wants it: lists go when sets do.
    pub(crate) fn intern(
        &mut self,
        end: &End,
        failing: Option<&PostureFailed>,
        within: Distribution,
        members: Members,
    ) -> Option<SetId> {
        let ends = match end {
            End::Groups(ids) => {
                let known: Box<[u32]> =
                    ids.iter().filter_map(|id| self.ids.groups.get(id.as_str()).copied()).collect();
                if known.is_empty() {
                    return None;
                }
                Ends::Groups(known)
            }
            End::Peer(id) => Ends::Peer(self.peers.number(id)?),
            End::Resource(_) if members == Members::Peers => return None,
            End::Resource(id) => {
                let resource = *self.ids.resources.get(id.as_str())?;
                if !self.holds(members, resource) {
                    return None;
                }
                Ends::Resource(resource)
            }
        };
        let failing = failing.map_or(0, |peers| self.failing(peers));
        let key = Key { ends, failing, within, members };
        if let Some(&number) = self.interned.numbers.get(&key) {
            return Some(number);
        }
        let interned = Arc::make_mut(&mut self.interned);
        let number = interned.keys.len() as u32;
        interned.keys.push(key.clone());
        interned.numbers.insert(key, number);
        Some(number)
    }

    /// To be called once every set is interned: makes it known who is in which set.
    pub(crate) fn index(&mut self) {
        self.counted.resize_with(self.len(), Counted::default);
        if self.interned.indexed == self.len() {
            return;
        }
        let interned = Arc::make_mut(&mut self.interned);
        let (mut groups, mut peers, mut resources) = (Vec::new(), Vec::new(), Vec::new());
        for (key, number) in interned.keys.iter().zip(0..) {
            match &key.ends {
                Ends::Groups(list) => groups.extend(list.iter().map(|&g| (g, number))),
                Ends::Peer(peer) => peers.push((*peer, number)),
                Ends::Resource(resource) => resources.push((*resource, number)),
            }
        }
        interned.of_group = Lists::new(self.ids.groups.len(), &groups);
        interned.of_peer = Lists::new(self.peers.len(), &peers);
        interned.of_resource = Lists::new(self.ids.resources.len(), &resources);
        interned.indexed = interned.keys.len();
    }

    /// How many sets there are.
    pub(crate) fn len(&self) -> usize {
        self.interned.keys.len()
    }

    /// The set's peers, rising.
    pub(crate) fn peers(&self, set: SetId) -> &[u32] {
        let key = &self.interned.keys[set as usize];
        match &key.ends {
            _ if matches!(key.members, Members::Distributed(_)) => &[],
            Ends::Groups(groups) if groups.len() == 1 && key.failing == 0 && key.within == 0 => {
                self.members.peers.of_group.get(groups[0])
            }
            _ => self.counted[set as usize].peers.get_or_init(|| self.count_peers(key)),
        }
    }

    /// The set's resources, rising.
    pub(crate) fn resources(&self, set: SetId) -> &[u32] {
        let key = &self.interned.keys[set as usize];
        match &key.ends {
            _ if key.members == Members::Peers => &[],
            Ends::Peer(_) => &[],
            Ends::Resource(resource) => std::slice::from_ref(resource),
            Ends::Groups(groups) if groups.len() == 1 && self.ids.distributions.len() == 1 => {
                self.members.resources.of_group.get(groups[0])
            }
            Ends::Groups(groups) => self.counted[set as usize].resources.get_or_init(|| {
                let all = merged(&self.members.resources.of_group, groups);
                all.into_iter().filter(|&resource| self.holds(key.members, resource)).collect()
            }),
        }
    }

    /// A hash of what the set's end names, and of whom of these it leaves out: the same whatever else there is. Sets that leave
    /// out others beside may have the same.
    pub(crate) fn key(&self, set: SetId) -> u64 {
        let key = &self.interned.keys[set as usize];
        let words = |key: u64| [key as u32, (key >> 32) as u32];
        let (kind, named) = match &key.ends {
            Ends::Groups(groups) => {
                (0, mix_words(groups.iter().flat_map(|&group| words(self.ids.group_keys[group as usize]))))
            }
            Ends::Peer(peer) => (3, mix_words(words(self.peers[*peer as usize].key))),
            Ends::Resource(resource) => (6, mix_words(words(self.ids.resource_keys[*resource as usize]))),
        };
        let named_by_end = |&&peer: &&u32| match &key.ends {
            Ends::Groups(groups) => {
                self.members.peers.groups_of.get(peer).iter().any(|group| groups.binary_search(group).is_ok())
            }
            Ends::Peer(named) => *named == peer,
            Ends::Resource(_) => false,
        };
        let failing = self.interned.failing[key.failing as usize].iter().filter(named_by_end);
        // In an order that is none of their numbers.
        let mut failing: Vec<u64> = failing.map(|&peer| self.peers[peer as usize].key).collect();
        failing.sort_unstable();
        let failing = failing.into_iter().flat_map(words);
        let members = match key.members {
            Members::Peers => 0,
            Members::All => 1,
            Members::Distributed(_) => 2,
        };
        let distribution = match key.members {
            Members::Distributed(distribution) => distribution,
            Members::Peers | Members::All => key.within,
        };
        let groups = self.ids.distributions[distribution as usize].iter();
        let groups = groups.flat_map(|&group| words(self.ids.group_keys[group as usize]));
        mix_words(words(named).into_iter().chain([kind + members]).chain(failing).chain(groups))
    }

    /// Sets the peer is a member of, rising.
    pub(crate) fn of_peer(&self, peer: u32) -> Vec<SetId> {
        let mut sets = self.interned.of_peer.get(peer).to_vec();
        sets.extend(
            self.members.peers.groups_of.get(peer).iter().flat_map(|&g| self.interned.of_group.get(g)),
        );
        sets.sort_unstable();
        sets.dedup();
        sets.retain(|&s| {
            let key = &self.interned.keys[s as usize];
            let peers = !matches!(key.members, Members::Distributed(_));
            peers && !self.leaves_out(s, peer) && self.reaches(key.within, peer)
        });
        sets
    }

    /// Sets the resource is a member of, rising.
    pub(crate) fn of_resource(&self, resource: u32) -> Vec<SetId> {
        let mut sets = self.interned.of_resource.get(resource).to_vec();
        sets.extend(
            self.members
                .resources
                .groups_of
                .get(resource)
                .iter()
                .flat_map(|&g| self.interned.of_group.get(g)),
        );
        sets.sort_unstable();
        sets.dedup();
        sets.retain(|&s| self.holds(self.interned.keys[s as usize].members, resource));
        sets
    }

    /// Whether a set is the far end of a rule as it is written: only there resources count.
    pub(crate) fn takes_resources(&self, set: SetId) -> bool {
        self.interned.keys[set as usize].members != Members::Peers
    }

    /// Whether the end behind a set names a group, peer or resource of a kind, or is bound to a group of it.
    pub(crate) fn names(
        &self,
        set: SetId,
        group: impl Fn(u32) -> bool,
        peer: impl Fn(u32) -> bool,
        resource: impl Fn(u32) -> bool,
    ) -> bool {
        let key = &self.interned.keys[set as usize];
        if self.ids.distributions[key.within as usize].iter().any(|&g| group(g)) {
            return true;
        }
        match &key.ends {
            Ends::Groups(groups) => groups.iter().any(|&g| group(g)),
            Ends::Peer(p) => peer(*p),
            Ends::Resource(q) => resource(*q),
        }
    }

    /// Whether a set of these members has the resource, where its end names it.
    fn holds(&self, members: Members, resource: u32) -> bool {
        let distribution = self.ids.resource_distribution[resource as usize];
        match members {
            Members::Peers => false,
            Members::All => distribution == 0,
            Members::Distributed(wanted) => distribution == wanted,
        }
    }

    /// Whether something is distributed to the peer.
    fn reaches(&self, distribution: Distribution, peer: u32) -> bool {
        let groups = &self.ids.distributions[distribution as usize];
        let mut of_peer = self.members.peers.groups_of.get(peer).iter();
        distribution == 0 || of_peer.any(|group| groups.binary_search(group).is_ok())
    }

    fn leaves_out(&self, set: SetId, peer: u32) -> bool {
        let failing = self.interned.keys[set as usize].failing;
        failing != 0 && self.interned.failing[failing as usize].binary_search(&peer).is_ok()
    }

    fn count_peers(&self, key: &Key) -> Box<[u32]> {
        let failing = &self.interned.failing[key.failing as usize];
        let passes = |p: &u32| failing.binary_search(p).is_err();
        let all = match &key.ends {
            Ends::Groups(groups) => merged(&self.members.peers.of_group, groups),
            Ends::Peer(peer) => Box::new([*peer]),
            Ends::Resource(_) => Box::default(),
        };
        match (failing.is_empty(), key.within) {
            (true, 0) => all,
            _ => all.into_iter().filter(passes).filter(|&p| self.reaches(key.within, p)).collect(),
        }
    }
}

/// The lists of groups that resources are distributed to, and which of them each resource has.
fn distributions(
    state: &State,
    groups: &FxHashMap<Arc<str>, u32>,
    resources: &FxHashMap<Arc<str>, u32>,
) -> (Vec<Box<[u32]>>, Vec<Distribution>) {
    let mut lists = vec![Box::default()];
    let mut numbers = FxHashMap::<Box<[u32]>, Distribution>::default();
    let mut of_resource = vec![0; resources.len()];
    for (id, resource) in state.networks.values().flat_map(|network| &network.resources) {
        let (Some(bound), Some(&number)) = (&resource.distribution, resources.get(id.as_str())) else {
            continue;
        };
        let mut list: Vec<u32> =
            bound.groups.iter().filter_map(|id| groups.get(id.as_str()).copied()).collect();
        list.sort_unstable();
        of_resource[number as usize] = *numbers.entry(list.into()).or_insert_with_key(|list| {
            lists.push(list.clone());
            lists.len() as Distribution - 1
        });
    }
    (lists, of_resource)
}

/// A hash of an id.
pub(super) fn key_of(id: &str) -> u64 {
    mix_words(id.bytes().map(u32::from))
}

fn keys(numbers: &FxHashMap<Arc<str>, u32>) -> Vec<u64> {
    let mut keys = vec![0; numbers.len()];
    numbers.iter().for_each(|(id, &number)| keys[number as usize] = key_of(id));
    keys
}

fn merged(lists: &Lists, which: &[u32]) -> Box<[u32]> {
    let mut all: Vec<u32> = which.iter().flat_map(|&list| lists.get(list)).copied().collect();
    all.sort_unstable();
    all.dedup();
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Peer, Policy, Rule, Service};
    use crate::resolve::Resolved;

    fn rule(slot: u32, action: Action, source: &str) -> Rule {
        Rule {
            id: format!("r{slot}"),
            name: String::new(),
            slot,
            enabled: true,
            action,
            bidirectional: false,
            service: Service::All,
            sources: End::Peer(source.to_owned()),
            destinations: End::Peer("a".to_owned()),
        }
    }

    /// How many lists there are, that of nobody included, once each of four peers alone has failed.
    fn lists(rules: Vec<Rule>) -> usize {
        let peer = |n: u8| Peer {
            name: String::new(),
            v4: [100, 64, 0, n].into(),
            v6: format!("fd5c:1::{n}").parse().unwrap(),
            allowed: true,
        };
        let ids = ["a", "b", "c", "d"];
        let policy = Policy {
            name: String::new(),
            enabled: true,
            posture_failed: PostureFailed::default(),
            rules: rules.into(),
        };
        let mut state = State {
            overlay_v4: "100.64.0.0/24".parse().unwrap(),
            overlay_v6: "fd5c:1::/64".parse().unwrap(),
            peers: ids.map(str::to_owned).into_iter().zip((1..).map(peer)).collect(),
            groups: Default::default(),
            networks: Default::default(),
            policies: [("p".to_owned(), policy)].into(),
        };
        let mut resolved = Resolved::new(Arc::new(state.clone()), None).unwrap();
        for peer in ids {
            let failed = &mut state.policies.get_mut("p").unwrap().posture_failed;
            *failed = PostureFailed::default();
            failed.insert(peer.to_owned());
            resolved = Resolved::new(Arc::new(state.clone()), Some(&resolved)).unwrap();
        }
        resolved.sets.interned.failing.len()
    }

    #[test]
    fn a_list_of_failing_peers_that_no_set_wants_is_not_kept() {
        assert_eq!(lists(vec![rule(1, Action::Drop, "b"), rule(2, Action::Accept, "nobody")]), 1);
        assert_eq!(lists(vec![rule(1, Action::Drop, "b"), rule(2, Action::Accept, "b")]), 5);
    }
}
