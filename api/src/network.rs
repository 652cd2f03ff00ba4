//! Changes of an agent's overlay: what differs between two [`NetworkConfig`]s, so that one peer more is not ten thousand sent again.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;
use std::sync::Arc;

use crate::agent::{
    AskersChange, Name, NamesChange, NetworkChange, NetworkConfig, PeerSet, PeersChange, RemotePeer, Route,
    RoutedChange, RoutedPrefix, RoutesChange,
};

/// Why a change cannot be made: it is for another configuration, or malformed. Then the stream is opened anew for a whole one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It starts from another configuration.
    #[error("the change of the overlay is for its serial {wanted}, and this is serial {held}")]
    Base {
        /// Serial that it starts from.
        wanted: u64,
        /// Serial of what is there.
        held: u64,
    },
    /// It says nothing of what is not in lists.
    #[error("the change of the overlay does not say what it leads to")]
    Nothing,
    /// Places do not rise, are outside of their list, or are not as many as there are entries.
    #[error("the change of the overlay's {0} names places that are not there")]
    Places(&'static str),
}

/// A [`NetworkConfig`] whose peers are shared with the overlays of other agents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay {
    /// All but the peers.
    pub rest: NetworkConfig,
    /// [`NetworkConfig::peers`].
    pub peers: Vec<Arc<RemotePeer>>,
}

impl Overlay {
    /// It as it is sent.
    #[must_use]
    pub fn whole(&self) -> NetworkConfig {
        let peers = self.peers.iter().map(|peer| RemotePeer::clone(peer)).collect();
        NetworkConfig { peers, ..self.rest.clone() }
    }
}

impl From<NetworkConfig> for Overlay {
    fn from(mut whole: NetworkConfig) -> Self {
        let peers = std::mem::take(&mut whole.peers).into_iter().map(Arc::new).collect();
        Self { rest: whole, peers }
    }
}

impl NetworkChange {
    /// What leads from `old` to `new`.
    ///
    /// Any two will do. What is in both is not said again when it stands in one order, as control has it.
    #[must_use]
    pub fn between(old: &Overlay, new: &Overlay) -> Self {
        let peers = Edits::between(&old.peers, &new.peers);
        let moved = Moved::by(peers.as_ref(), old.peers.len());
        let (old, new) = (&old.rest, &new.rest);
        let resolver_stays = old.resolver == new.resolver;
        let lists_apart = NetworkConfig {
            serial: new.serial,
            address_v4: new.address_v4.clone(),
            address_v6: new.address_v6.clone(),
            peers: Vec::new(),
            routes: Vec::new(),
            routed: Vec::new(),
            protocol: new.protocol,
            watched: new.watched.clone(),
            no_flow_events: new.no_flow_events,
            no_flow_counters: new.no_flow_counters,
            names: Vec::new(),
            resolver: if resolver_stays { None } else { new.resolver.clone() },
            askers: Vec::new(),
            login_expired: new.login_expired,
        };
        let routes = Edits::between(&old.routes, &new.routes);
        let routed = Edits::between(&old.routed, &new.routed);
        let names = Edits::between(&old.names, &new.names);
        Self {
            base_serial: old.serial,
            askers: askers_between(moved.sets(&old.askers), &new.askers),
            set: Some(lists_apart),
            resolver_stays,
            peers: peers.map(|Edits { removed, at, added }| {
                let added = added.iter().map(|peer| RemotePeer::clone(peer)).collect();
                PeersChange { removed, at, added }
            }),
            routes: routes.map(|Edits { removed, at, added }| RoutesChange { removed, at, added }),
            routed: routed.map(|Edits { removed, at, added }| RoutedChange { removed, at, added }),
            names: names.map(|Edits { removed, at, added }| NamesChange { removed, at, added }),
        }
    }

    /// What `old` becomes.
    ///
    /// # Errors
    /// When it starts from another configuration, or is malformed.
    pub fn apply(self, old: NetworkConfig) -> Result<NetworkConfig, Error> {
        if self.base_serial != old.serial {
            return Err(Error::Base { wanted: self.base_serial, held: old.serial });
        }
        let mut new = self.set.ok_or(Error::Nothing)?;
        if self.resolver_stays {
            new.resolver = old.resolver;
        }
        let peers = self.peers.map(|PeersChange { removed, at, added }| Edits { removed, at, added });
        if let Some(peers) = &peers {
            peers.check(old.peers.len())?;
        }
        let moved = Moved::by(peers.as_ref(), old.peers.len());
        new.askers = askers_apply(self.askers, moved.sets(&old.askers))?;
        let routes = self.routes.map(|RoutesChange { removed, at, added }| Edits { removed, at, added });
        let routed = self.routed.map(|RoutedChange { removed, at, added }| Edits { removed, at, added });
        let names = self.names.map(|NamesChange { removed, at, added }| Edits { removed, at, added });
        new.peers = Edits::apply(peers, old.peers)?;
        new.routes = Edits::apply(routes, old.routes)?;
        new.routed = Edits::apply(routed, old.routed)?;
        new.names = Edits::apply(names, old.names)?;
        Ok(new)
    }
}

/// An entry of a list.
trait Entry: Clone + PartialEq {
    /// What the list is of.
    const LIST: &'static str;
    /// What no other entry of the list has.
    type Key<'a>: Eq + Hash
    where
        Self: 'a;

    fn key(&self) -> Self::Key<'_>;
}

impl Entry for RemotePeer {
    const LIST: &'static str = "peers";
    type Key<'a> = &'a str;

    fn key(&self) -> &str {
        &self.id
    }
}

impl Entry for Arc<RemotePeer> {
    const LIST: &'static str = RemotePeer::LIST;
    type Key<'a> = &'a str;

    fn key(&self) -> &str {
        &self.id
    }
}

impl Entry for Route {
    const LIST: &'static str = "routes";
    type Key<'a> = (&'a str, &'a str);

    fn key(&self) -> (&str, &str) {
        (&self.resource_id, &self.prefix)
    }
}

impl Entry for RoutedPrefix {
    const LIST: &'static str = "routed prefixes";
    type Key<'a> = (&'a str, &'a str);

    fn key(&self) -> (&str, &str) {
        (&self.resource_id, &self.prefix)
    }
}

impl Entry for Name {
    const LIST: &'static str = "names";
    type Key<'a> = &'a str;

    fn key(&self) -> &str {
        &self.resource_id
    }
}

/// What turns a list into another one.
struct Edits<T> {
    removed: Vec<u32>,
    at: Vec<u32>,
    added: Vec<T>,
}

impl<T: Entry> Edits<T> {
    /// `None` when they are the same. As little as can be when what both have stands in one order.
    fn between(old: &[T], new: &[T]) -> Option<Self> {
        let alike = |(old, new): &(&T, &T)| old == new;
        let front = old.iter().zip(new).take_while(alike).count();
        if front == old.len() && front == new.len() {
            return None;
        }
        let (old, new) = (&old[front..], &new[front..]);
        let back = old.iter().rev().zip(new.iter().rev()).take_while(alike).count();
        let (old, new) = (&old[..old.len() - back], &new[..new.len() - back]);
        let places: HashMap<_, usize> = new.iter().enumerate().map(|(at, entry)| (entry.key(), at)).collect();

        let mut edits = Self { removed: Vec::new(), at: Vec::new(), added: Vec::new() };
        // Those before `done` of the new list are accounted for.
        let mut done = 0;
        for (place, entry) in old.iter().enumerate() {
            match places.get(&entry.key()) {
                Some(&at) if at >= done && new[at] == *entry => {
                    edits.add(front, new, done..at);
                    done = at + 1;
                }
                _ => edits.removed.push((front + place) as u32),
            }
        }
        edits.add(front, new, done..new.len());
        Some(edits)
    }

    fn add(&mut self, front: usize, new: &[T], places: Range<usize>) {
        self.at.extend(places.clone().map(|at| (front + at) as u32));
        self.added.extend_from_slice(&new[places]);
    }

    /// How long a list of `old` entries is to be, unless places are wrong.
    fn check(&self, old: usize) -> Result<usize, Error> {
        let Self { removed, at, added } = self;
        let length = old.saturating_sub(removed.len()) + added.len();
        let ends = |places: &[u32], length| places.last().is_none_or(|last| (*last as usize) < length);
        let right = ends(removed, old) && ends(at, length) && rise(removed) && rise(at);
        if right && at.len() == added.len() { Ok(length) } else { Err(Error::Places(T::LIST)) }
    }

    /// Every entry that stays is moved, none copied.
    fn apply(edits: Option<Self>, old: Vec<T>) -> Result<Vec<T>, Error> {
        let Some(edits) = edits else { return Ok(old) };
        let length = edits.check(old.len())?;
        let Self { removed, at, added } = edits;
        let mut removed = removed.into_iter().map(|place| place as usize).peekable();
        let stay = old.into_iter().enumerate().filter(|(place, _)| removed.next_if_eq(place).is_none());
        let mut stay = stay.map(|(_, entry)| entry);
        let mut added = at.into_iter().map(|at| at as usize).zip(added).peekable();
        // Every place is either one of `at` or the next of those that stay: there are as many as places in all.
        let next = |place| match added.next_if(|(at, _)| *at == place) {
            Some((_, entry)) => Some(entry),
            None => stay.next(),
        };
        Ok((0..length).map_while(next).collect())
    }
}

/// Where each entry of a list is after its edits; `None` when all stay where they are.
struct Moved(Option<Vec<Option<u32>>>);

impl Moved {
    /// The edits are of a list of `old` entries, and right.
    fn by<T>(edits: Option<&Edits<T>>, old: usize) -> Self {
        Self(edits.map(|Edits { removed, at, .. }| {
            let (mut removed, mut at) = (removed.iter().peekable(), at.iter().peekable());
            let mut next = 0;
            let place = |was| {
                if removed.next_if_eq(&&was).is_some() {
                    return None;
                }
                while at.next_if_eq(&&next).is_some() {
                    next += 1;
                }
                next += 1;
                Some(next - 1)
            };
            (0..old as u32).map(place).collect()
        }))
    }

    fn sets(&self, sets: &[PeerSet]) -> Vec<PeerSet> {
        let Some(places) = &self.0 else { return sets.to_vec() };
        let moved = |was: &u32| places.get(*was as usize).copied().flatten();
        sets.iter().map(|set| PeerSet { peers: set.peers.iter().filter_map(moved).collect() }).collect()
    }
}

fn askers_between(old: Vec<PeerSet>, new: &[PeerSet]) -> Option<AskersChange> {
    if old == new {
        return None;
    }
    let empty = PeerSet::default();
    let other = |(place, set): &(usize, &PeerSet)| old.get(*place).unwrap_or(&empty) != *set;
    let changed = new.iter().enumerate().filter(other);
    let (at, sets) = changed.map(|(place, set)| (place as u32, set.clone())).unzip();
    Some(AskersChange { length: new.len() as u32, at, sets })
}

fn askers_apply(change: Option<AskersChange>, mut old: Vec<PeerSet>) -> Result<Vec<PeerSet>, Error> {
    let Some(AskersChange { length, at, sets }) = change else { return Ok(old) };
    let inside = at.last().is_none_or(|last| *last < length);
    // A set that is new is either said or empty, and control has no more than one that is empty.
    let room = old.len() + sets.len() + 1;
    if !inside || !rise(&at) || at.len() != sets.len() || length as usize > room {
        return Err(Error::Places("askers"));
    }
    old.resize(length as usize, PeerSet::default());
    for (place, set) in at.into_iter().zip(sets) {
        old[place as usize] = set;
    }
    Ok(old)
}

fn rise(places: &[u32]) -> bool {
    places.is_sorted_by(|a, b| a < b)
}

#[cfg(test)]
mod tests;
