//! Ends of rules as interned sets of peers and resources.

use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;

use super::Lists;
use crate::compile::mix_words;
use crate::model::{End, PostureFailed, State};

/// Number of a set.
pub(crate) type SetId = u32;

/// One end of a half.
#[derive(Debug)]
pub(crate) struct Set {
    key: Key,
    peers: OnceLock<Box<[u32]>>,
    resources: OnceLock<Box<[u32]>>,
}

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
    sets: Vec<Set>,
    numbers: FxHashMap<Key, SetId>,
    /// Peers that fail posture checks, one list for each distinct list; the first is empty.
    failing: Vec<Box<[u32]>>,
    failing_numbers: FxHashMap<Box<[u32]>, u32>,
    /// The number of each list that was asked for, by where it is.
    failing_seen: FxHashMap<usize, u32>,
    /// Groups that resources are distributed to, one list for each distinct list; the first stands for everybody.
    distributions: Arc<Vec<Box<[u32]>>>,
    /// The distribution of each resource.
    resource_distribution: Arc<Vec<Distribution>>,
    group_numbers: Arc<FxHashMap<Arc<str>, u32>>,
    peer_numbers: Arc<FxHashMap<Arc<str>, u32>>,
    resource_numbers: Arc<FxHashMap<Arc<str>, u32>>,
    /// A hash of the id of each group, peer and resource.
    group_keys: Arc<Vec<u64>>,
    peer_keys: Arc<Vec<u64>>,
    resource_keys: Arc<Vec<u64>>,
    members: Arc<Membership>,
    group_sets: Lists,
    peer_sets: Lists,
    resource_sets: Lists,
}

/// Who is in which group.
#[derive(Debug)]
struct Membership {
    group_peers: Lists,
    group_resources: Lists,
    peer_groups: Lists,
    resource_groups: Lists,
}

impl Membership {
    /// From (group, member) pairs, for so many groups, peers and resources.
    fn new(
        (groups, peers, resources): (usize, usize, usize),
        of_peers: &[(u32, u32)],
        of_resources: &[(u32, u32)],
    ) -> Arc<Self> {
        let turned = |pairs: &[(u32, u32)]| pairs.iter().map(|&(a, b)| (b, a)).collect::<Vec<_>>();
        Arc::new(Self {
            peer_groups: Lists::new(peers, &turned(of_peers)),
            resource_groups: Lists::new(resources, &turned(of_resources)),
            group_peers: Lists::new(groups, of_peers),
            group_resources: Lists::new(groups, of_resources),
        })
    }
}

impl Sets {
    /// Of a state, by the numbers of its peers and resources.
    pub(crate) fn new(
        state: &State,
        peers: Arc<FxHashMap<Arc<str>, u32>>,
        resources: Arc<FxHashMap<Arc<str>, u32>>,
    ) -> Self {
        let group_numbers: FxHashMap<Arc<str>, u32> =
            state.groups.keys().zip(0..).map(|(id, i)| (Arc::from(id.as_str()), i)).collect();
        let mut group_peers = Vec::new();
        let mut group_resources = Vec::new();
        for (group, number) in state.groups.values().zip(0..) {
            group_peers.extend(group.peers.iter().filter_map(|p| Some((number, *peers.get(p.as_str())?))));
            group_resources
                .extend(group.resources.iter().filter_map(|r| Some((number, *resources.get(r.as_str())?))));
        }
        let (distributions, resource_distribution) = distributions(state, &group_numbers, &resources);
        let counts = (state.groups.len(), peers.len(), resources.len());
        Self {
            sets: Vec::new(),
            numbers: FxHashMap::default(),
            failing: vec![Box::default()],
            failing_numbers: FxHashMap::default(),
            failing_seen: FxHashMap::default(),
            distributions: Arc::new(distributions),
            resource_distribution: Arc::new(resource_distribution),
            group_keys: Arc::new(state.groups.keys().map(|id| key_of(id)).collect()),
            peer_keys: Arc::new(keys(&peers)),
            resource_keys: Arc::new(keys(&resources)),
            group_numbers: Arc::new(group_numbers),
            members: Membership::new(counts, &group_peers, &group_resources),
            peer_numbers: peers,
            resource_numbers: resources,
            group_sets: Lists::default(),
            peer_sets: Lists::default(),
            resource_sets: Lists::default(),
        }
    }

    /// As [`Sets::new`], of a state whose peers and networks are the very ones of `old`, which `before` is of.
    pub(crate) fn after(state: &State, before: &Self, old: &State) -> Self {
        let groups_stay = state.groups.len() == old.groups.len() && state.groups.keys().eq(old.groups.keys());
        if !groups_stay {
            return Self::new(state, before.peer_numbers.clone(), before.resource_numbers.clone());
        }
        let members = if state.groups.is_same(&old.groups) {
            before.members.clone()
        } else {
            let (mut peers, mut resources) = (Vec::new(), Vec::new());
            for ((group, was), number) in state.groups.values().zip(old.groups.values()).zip(0..) {
                if group.peers.is_same(&was.peers) {
                    peers.extend(before.members.group_peers.get(number).iter().map(|&p| (number, p)));
                } else {
                    let known = group.peers.iter().filter_map(|p| before.peer_numbers.get(p.as_str()));
                    peers.extend(known.map(|&p| (number, p)));
                }
                if group.resources.is_same(&was.resources) {
                    resources.extend(before.members.group_resources.get(number).iter().map(|&r| (number, r)));
                } else {
                    let known =
                        group.resources.iter().filter_map(|r| before.resource_numbers.get(r.as_str()));
                    resources.extend(known.map(|&r| (number, r)));
                }
            }
            let counts = (state.groups.len(), before.peer_numbers.len(), before.resource_numbers.len());
            Membership::new(counts, &peers, &resources)
        };
        Self {
            sets: Vec::new(),
            numbers: FxHashMap::default(),
            failing: vec![Box::default()],
            failing_numbers: FxHashMap::default(),
            failing_seen: FxHashMap::default(),
            distributions: before.distributions.clone(),
            resource_distribution: before.resource_distribution.clone(),
            group_keys: before.group_keys.clone(),
            peer_keys: before.peer_keys.clone(),
            resource_keys: before.resource_keys.clone(),
            group_numbers: before.group_numbers.clone(),
            members,
            peer_numbers: before.peer_numbers.clone(),
            resource_numbers: before.resource_numbers.clone(),
            group_sets: Lists::default(),
            peer_sets: Lists::default(),
            resource_sets: Lists::default(),
        }
    }

    /// The number of a list of peers to leave out of sources.
    pub(crate) fn failing(&mut self, peers: &PostureFailed, numbers: &FxHashMap<Arc<str>, u32>) -> u32 {
        if peers.is_empty() {
            return 0;
        }
        // The state holds every list while this works, so none is at the address of another.
        if let Some(&number) = self.failing_seen.get(&peers.address()) {
            return number;
        }
        let mut list: Vec<u32> = peers.peers().filter_map(|p| numbers.get(p.as_str()).copied()).collect();
        list.sort_unstable();
        let number = match list.is_empty() {
            true => 0,
            false => *self.failing_numbers.entry(list.into()).or_insert_with_key(|list| {
                self.failing.push(list.clone());
                self.failing.len() as u32 - 1
            }),
        };
        self.failing_seen.insert(peers.address(), number);
        number
    }

    /// The distributions of the resources that an end names, rising; that to everybody is not among them.
    pub(crate) fn distributions_of(&self, end: &End) -> Vec<Distribution> {
        if self.distributions.len() == 1 {
            return Vec::new();
        }
        let of = |resource: &u32| self.resource_distribution[*resource as usize];
        let mut found: Vec<Distribution> = match end {
            End::Peer(_) => Vec::new(),
            End::Resource(id) => self.resource_numbers.get(id.as_str()).map(of).into_iter().collect(),
            End::Groups(ids) => {
                let numbers = ids.iter().filter_map(|id| self.group_numbers.get(id.as_str()));
                numbers.flat_map(|&group| self.members.group_resources.get(group)).map(of).collect()
            }
        };
        found.sort_unstable();
        found.dedup();
        found.retain(|&distribution| distribution != 0);
        found
    }

    /// The set of an end of a rule; `None` when it names nothing that exists.
    pub(crate) fn intern(
        &mut self,
        end: &End,
        failing: u32,
        within: Distribution,
        members: Members,
    ) -> Option<SetId> {
        let ends = match end {
            End::Groups(ids) => {
                let known: Box<[u32]> =
                    ids.iter().filter_map(|id| self.group_numbers.get(id.as_str()).copied()).collect();
                if known.is_empty() {
                    return None;
                }
                Ends::Groups(known)
            }
            End::Peer(id) => Ends::Peer(*self.peer_numbers.get(id.as_str())?),
            End::Resource(_) if members == Members::Peers => return None,
            End::Resource(id) => {
                let resource = *self.resource_numbers.get(id.as_str())?;
                if !self.holds(members, resource) {
                    return None;
                }
                Ends::Resource(resource)
            }
        };
        let key = Key { ends, failing, within, members };
        if let Some(&number) = self.numbers.get(&key) {
            return Some(number);
        }
        let number = self.sets.len() as u32;
        self.sets.push(Set { key: key.clone(), peers: OnceLock::new(), resources: OnceLock::new() });
        self.numbers.insert(key, number);
        Some(number)
    }

    /// To be called once every set is interned: makes it known who is in which set.
    pub(crate) fn index(&mut self) {
        let (mut groups, mut peers, mut resources) = (Vec::new(), Vec::new(), Vec::new());
        for (set, number) in self.sets.iter().zip(0..) {
            match &set.key.ends {
                Ends::Groups(list) => groups.extend(list.iter().map(|&g| (g, number))),
                Ends::Peer(peer) => peers.push((*peer, number)),
                Ends::Resource(resource) => resources.push((*resource, number)),
            }
        }
        self.group_sets = Lists::new(self.group_numbers.len(), &groups);
        self.peer_sets = Lists::new(self.peer_numbers.len(), &peers);
        self.resource_sets = Lists::new(self.resource_numbers.len(), &resources);
    }

    /// How many sets there are.
    pub(crate) fn len(&self) -> usize {
        self.sets.len()
    }

    /// The set's peers, rising.
    pub(crate) fn peers(&self, set: SetId) -> &[u32] {
        let set = &self.sets[set as usize];
        match &set.key.ends {
            _ if matches!(set.key.members, Members::Distributed(_)) => &[],
            Ends::Groups(groups) if groups.len() == 1 && set.key.failing == 0 && set.key.within == 0 => {
                self.members.group_peers.get(groups[0])
            }
            _ => set.peers.get_or_init(|| self.count_peers(&set.key)),
        }
    }

    /// The set's resources, rising.
    pub(crate) fn resources(&self, set: SetId) -> &[u32] {
        let set = &self.sets[set as usize];
        match &set.key.ends {
            _ if set.key.members == Members::Peers => &[],
            Ends::Peer(_) => &[],
            Ends::Resource(resource) => std::slice::from_ref(resource),
            Ends::Groups(groups) if groups.len() == 1 && self.distributions.len() == 1 => {
                self.members.group_resources.get(groups[0])
            }
            Ends::Groups(groups) => set.resources.get_or_init(|| {
                let all = merged(&self.members.group_resources, groups);
                all.into_iter().filter(|&resource| self.holds(set.key.members, resource)).collect()
            }),
        }
    }

    /// A hash of what the set's end names: the same whatever else there is.
    pub(crate) fn key(&self, set: SetId) -> u64 {
        let key = &self.sets[set as usize].key;
        let words = |key: u64| [key as u32, (key >> 32) as u32];
        let named = match &key.ends {
            Ends::Groups(groups) => {
                mix_words(groups.iter().flat_map(|&group| words(self.group_keys[group as usize])))
            }
            Ends::Peer(peer) => mix_words(words(self.peer_keys[*peer as usize])),
            Ends::Resource(resource) => mix_words(words(self.resource_keys[*resource as usize])),
        };
        let failing = self.failing[key.failing as usize].iter();
        let failing = failing.flat_map(|&peer| words(self.peer_keys[peer as usize]));
        let members = match key.members {
            Members::Peers => 0,
            Members::All => 1,
            Members::Distributed(_) => 2,
        };
        let distribution = match key.members {
            Members::Distributed(distribution) => distribution,
            Members::Peers | Members::All => key.within,
        };
        let groups = self.distributions[distribution as usize].iter();
        let groups = groups.flat_map(|&group| words(self.group_keys[group as usize]));
        mix_words(words(named).into_iter().chain([members]).chain(failing).chain(groups))
    }

    /// Sets the peer is a member of, rising.
    pub(crate) fn of_peer(&self, peer: u32) -> Vec<SetId> {
        let mut sets = self.peer_sets.get(peer).to_vec();
        sets.extend(self.members.peer_groups.get(peer).iter().flat_map(|&g| self.group_sets.get(g)));
        sets.sort_unstable();
        sets.dedup();
        sets.retain(|&s| {
            let key = &self.sets[s as usize].key;
            let peers = !matches!(key.members, Members::Distributed(_));
            peers && !self.leaves_out(s, peer) && self.reaches(key.within, peer)
        });
        sets
    }

    /// Sets the resource is a member of, rising.
    pub(crate) fn of_resource(&self, resource: u32) -> Vec<SetId> {
        let mut sets = self.resource_sets.get(resource).to_vec();
        sets.extend(self.members.resource_groups.get(resource).iter().flat_map(|&g| self.group_sets.get(g)));
        sets.sort_unstable();
        sets.dedup();
        sets.retain(|&s| self.holds(self.sets[s as usize].key.members, resource));
        sets
    }

    /// Whether a set is the far end of a rule as it is written: only there resources count.
    pub(crate) fn takes_resources(&self, set: SetId) -> bool {
        self.sets[set as usize].key.members != Members::Peers
    }

    /// Whether the end behind a set names a group, peer or resource of a kind, or is bound to a group of it.
    pub(crate) fn names(
        &self,
        set: SetId,
        group: impl Fn(u32) -> bool,
        peer: impl Fn(u32) -> bool,
        resource: impl Fn(u32) -> bool,
    ) -> bool {
        let key = &self.sets[set as usize].key;
        if self.distributions[key.within as usize].iter().any(|&g| group(g)) {
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
        let distribution = self.resource_distribution[resource as usize];
        match members {
            Members::Peers => false,
            Members::All => distribution == 0,
            Members::Distributed(wanted) => distribution == wanted,
        }
    }

    /// Whether something is distributed to the peer.
    fn reaches(&self, distribution: Distribution, peer: u32) -> bool {
        let groups = &self.distributions[distribution as usize];
        let mut of_peer = self.members.peer_groups.get(peer).iter();
        distribution == 0 || of_peer.any(|group| groups.binary_search(group).is_ok())
    }

    fn leaves_out(&self, set: SetId, peer: u32) -> bool {
        let failing = self.sets[set as usize].key.failing;
        failing != 0 && self.failing[failing as usize].binary_search(&peer).is_ok()
    }

    fn count_peers(&self, key: &Key) -> Box<[u32]> {
        let failing = &self.failing[key.failing as usize];
        let passes = |p: &u32| failing.binary_search(p).is_err();
        let all = match &key.ends {
            Ends::Groups(groups) => merged(&self.members.group_peers, groups),
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

fn key_of(id: &str) -> u64 {
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
