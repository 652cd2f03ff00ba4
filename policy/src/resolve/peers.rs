//! Peers by number. A peer keeps its number for as long as states follow each other and it keeps its addresses; a number that was
//! given up is given to nobody else among them. So whatever is noted by numbers holds in the next state, but for who came or went.

use std::collections::BTreeSet;
use std::mem;
use std::net::IpAddr;
use std::ops::Index;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::sets::key_of;
use crate::compile::{CompileError, side_by_side};
use crate::model::{Peer, State};

/// A peer that may take part.
#[derive(Clone, Debug)]
pub(crate) struct PeerEntry {
    pub(crate) id: Arc<str>,
    pub(crate) v4: u32,
    pub(crate) v6: u128,
    /// A hash of the id.
    pub(super) key: u64,
}

/// The states that have the same numbers for the same peers: the next number that none of them has given out.
pub(crate) type Numbering = Arc<AtomicU32>;

/// Every peer that may take part, and those whose numbers are nobody's any more.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    entries: Vec<PeerEntry>,
    numbers: FxHashMap<Arc<str>, u32>,
    /// In the order of their IPv4 addresses.
    pub(crate) by_v4: Vec<u32>,
    /// The addresses in that order: many look through all of them.
    v4: Vec<u32>,
    /// In the order of their IPv6 addresses.
    pub(crate) by_v6: Vec<u32>,
    /// Which of `by_v6` have the address directly behind that of the one before; the first, whether it has the first of all.
    pub(crate) adjoining: Vec<bool>,
    pub(crate) numbering: Numbering,
}

/// Ids of peers that came, went, or have another address.
pub(super) type Turned<'a> = BTreeSet<&'a str>;

/// Numbers that are nobody's are kept up to a quarter of those that are somebody's, and these: arrays have room for all of them.
const LEFT: usize = 1024;

impl Peers {
    /// Those of a state, numbered in the order of their IPv4 addresses.
    pub(super) fn new(state: &State) -> Result<Self, CompileError> {
        let mut entries = Vec::with_capacity(state.peers.len());
        for (id, peer) in state.peers.iter().filter(|(_, p)| p.allowed) {
            let outside = match (state.overlay_v4.contains(&peer.v4), state.overlay_v6.contains(&peer.v6)) {
                (true, true) => None,
                (false, _) => Some((IpAddr::V4(peer.v4), IpNet::V4(state.overlay_v4))),
                (_, false) => Some((IpAddr::V6(peer.v6), IpNet::V6(state.overlay_v6))),
            };
            if let Some((address, overlay)) = outside {
                return Err(CompileError::OutsideOverlay { peer: id.clone(), address, overlay });
            }
            entries.push(PeerEntry::new(id, peer));
        }
        entries.sort_unstable_by_key(|p| p.v4);
        let by_v4: Vec<u32> = (0..entries.len() as u32).collect();
        let mut by_v6 = by_v4.clone();
        by_v6.sort_unstable_by_key(|&i| entries[i as usize].v6);
        let twin = |a: &PeerEntry, b: &PeerEntry, address: IpAddr| {
            let mut ids = [a.id.to_string(), b.id.to_string()];
            ids.sort();
            Err(CompileError::SharedAddress { peers: ids, address })
        };
        if let Some([a, b]) = entries.array_windows().find(|[a, b]| a.v4 == b.v4) {
            return twin(a, b, IpAddr::V4(a.v4.into()));
        }
        let v6 = |i: u32| &entries[i as usize];
        if let Some(&[a, b]) = by_v6.array_windows().find(|&&[a, b]| v6(a).v6 == v6(b).v6) {
            return twin(v6(a), v6(b), IpAddr::V6(v6(a).v6.into()));
        }
        let numbers = entries.iter().zip(0..).map(|(peer, number)| (peer.id.clone(), number)).collect();
        let numbering = Arc::new(AtomicU32::new(entries.len() as u32));
        let (v4, adjoining) = Default::default();
        let mut this = Self { entries, numbers, by_v4, v4, by_v6, adjoining, numbering };
        this.adjoin();
        Ok(this)
    }

    /// Those of a state with the same overlay as `old`, which this is of, and who differs. `None` where it is no less to number all of
    /// them, or where the state breaks what `model` promises.
    pub(super) fn after<'a>(&self, state: &'a State, old: &'a State) -> Option<(Self, Turned<'a>)> {
        let mut turned = Turned::new();
        let addresses = |peer: Option<&Peer>| peer.filter(|p| p.allowed).map(|p| (p.v4, p.v6));
        let both = side_by_side(old.peers.iter(), state.peers.iter());
        turned
            .extend(both.filter(|&(_, was, is)| addresses(was) != addresses(is)).map(|(id, ..)| id.as_str()));
        let living = self.by_v4.len() + turned.len();
        if turned.len() > 64 + living / 64 || self.entries.len() + turned.len() > living + living / 4 + LEFT {
            return None;
        }
        let mut this = self.clone();
        let gone: BTreeSet<u32> = turned.iter().filter_map(|&id| this.numbers.remove(id)).collect();
        for order in [&mut this.by_v4, &mut this.by_v6] {
            order.retain(|number| gone.is_empty() || !gone.contains(number));
        }
        for &id in &turned {
            let Some(peer) = state.peers.get(id).filter(|peer| peer.allowed) else { continue };
            if !state.overlay_v4.contains(&peer.v4) || !state.overlay_v6.contains(&peer.v6) {
                return None;
            }
            this.push(PeerEntry::new(id, peer))?;
        }
        this.adjoin();
        Some((this, turned))
    }

    /// Gives a number to a newcomer; `None` where one of its addresses is another's, or other states have taken too many numbers.
    fn push(&mut self, peer: PeerEntry) -> Option<()> {
        let number = self.numbering.fetch_add(1, Ordering::Relaxed);
        if number as usize > self.entries.len() + LEFT {
            return None;
        }
        let v4 = self.by_v4.binary_search_by_key(&peer.v4, |&i| self.entries[i as usize].v4).err()?;
        let v6 = self.by_v6.binary_search_by_key(&peer.v6, |&i| self.entries[i as usize].v6).err()?;
        self.by_v4.insert(v4, number);
        self.by_v6.insert(v6, number);
        self.numbers.insert(peer.id.clone(), number);
        self.entries.resize_with(number as usize, PeerEntry::nobody);
        self.entries.push(peer);
        Some(())
    }

    /// Brings up to the orders what follows from them.
    fn adjoin(&mut self) {
        let mut next = Some(0);
        let rising = self.by_v6.iter().map(|&peer| self.entries[peer as usize].v6);
        let adjoins = |address: u128| mem::replace(&mut next, address.checked_add(1)) == Some(address);
        self.adjoining = rising.map(adjoins).collect();
        self.v4 = self.by_v4.iter().map(|&peer| self.entries[peer as usize].v4).collect();
    }

    /// One more than the highest number.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Numbers and IPv4 addresses, in the order of these.
    pub(crate) fn iter_v4(&self) -> impl Iterator<Item = (u32, u32)> {
        self.by_v4.iter().copied().zip(self.v4.iter().copied())
    }

    /// Numbers and peers, in the order of their IPv4 addresses.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &PeerEntry)> {
        self.by_v4.iter().map(|&number| (number, &self[number as usize]))
    }

    /// A peer's number, if it may take part.
    pub(crate) fn number(&self, id: &str) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    /// The peer that owns an overlay address, if it may take part.
    pub(super) fn at(&self, address: IpAddr) -> Option<u32> {
        let at = match address {
            IpAddr::V4(a) => self.by_v4.binary_search_by_key(&a.to_bits(), |&i| self[i as usize].v4),
            IpAddr::V6(a) => {
                let at = self.by_v6.binary_search_by_key(&a.to_bits(), |&i| self[i as usize].v6);
                return at.ok().map(|at| self.by_v6[at]);
            }
        };
        at.ok().map(|at| self.by_v4[at])
    }

    /// Whether a number of this means the peer that it means in the other.
    pub(crate) fn is_numbered_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.numbering, &other.numbering)
    }
}

impl Index<usize> for Peers {
    type Output = PeerEntry;

    fn index(&self, number: usize) -> &PeerEntry {
        &self.entries[number]
    }
}

impl PeerEntry {
    fn new(id: &str, peer: &Peer) -> Self {
        Self { id: id.into(), v4: peer.v4.to_bits(), v6: peer.v6.to_bits(), key: key_of(id) }
    }

    /// Whoever has a number that was given out by another state than those that this one follows.
    fn nobody() -> Self {
        Self { id: "".into(), v4: 0, v6: 0, key: 0 }
    }

    /// Whether nobody has this number here.
    pub(crate) fn is_nobody(&self) -> bool {
        self.id.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(peers: &[(&str, u8)]) -> State {
        let peer = |n: u8| Peer {
            name: String::new(),
            v4: [100, 64, 0, n].into(),
            v6: format!("fd5c:1::{n:x}").parse().unwrap(),
            allowed: true,
        };
        State {
            overlay_v4: "100.64.0.0/24".parse().unwrap(),
            overlay_v6: "fd5c:1::/64".parse().unwrap(),
            peers: peers.iter().map(|&(id, n)| (id.to_owned(), peer(n))).collect(),
            groups: Default::default(),
            networks: Default::default(),
            policies: Default::default(),
        }
    }

    fn ids(peers: &Peers) -> Vec<(&str, u32)> {
        peers.iter().map(|(number, peer)| (&*peer.id, number)).collect()
    }

    #[test]
    fn who_stays_keeps_its_number_and_nobody_gets_that_of_another() {
        let before = state(&[("a", 9), ("b", 5)]);
        let first = Peers::new(&before).unwrap();
        assert_eq!(ids(&first), [("b", 0), ("a", 1)]);
        let joined = state(&[("a", 9), ("b", 5), ("c", 7)]);
        let (second, turned) = first.after(&joined, &before).unwrap();
        assert_eq!((ids(&second), turned), (vec![("b", 0), ("c", 2), ("a", 1)], ["c"].into()));
        // Another state that follows the first one: its newcomer is not the other's.
        let other = state(&[("a", 9), ("d", 7)]);
        let (third, turned) = first.after(&other, &before).unwrap();
        assert_eq!((ids(&third), turned), (vec![("d", 3), ("a", 1)], ["b", "d"].into()));
        assert_eq!((third.len(), third.number("b")), (4, None));
        // An address that is another is another peer's, so to speak.
        let moved = state(&[("a", 2), ("b", 5), ("c", 7)]);
        let (fourth, turned) = second.after(&moved, &joined).unwrap();
        assert_eq!((ids(&fourth), turned), (vec![("a", 4), ("b", 0), ("c", 2)], ["a"].into()));
        for address in ["100.64.0.7", "fd5c:1::7"] {
            assert_eq!(fourth.at(address.parse().unwrap()), Some(2));
            assert_eq!(first.at(address.parse().unwrap()), None);
        }
        assert!(fourth.is_numbered_as(&first) && !Peers::new(&moved).unwrap().is_numbered_as(&first));
    }

    #[test]
    fn what_cannot_be_compiled_does_not_follow() {
        let before = state(&[("a", 9), ("b", 5)]);
        let first = Peers::new(&before).unwrap();
        let shared = state(&[("a", 9), ("b", 5), ("c", 5)]);
        assert!(first.after(&shared, &before).is_none());
        let mut outside = state(&[("a", 9), ("b", 5), ("c", 6)]);
        outside.peers.get_mut("c").unwrap().v6 = "fd5c:2::6".parse().unwrap();
        assert!(first.after(&outside, &before).is_none());
    }

    #[test]
    fn numbers_that_other_states_took_make_no_room_without_end() {
        let before = state(&[("a", 9)]);
        let first = Peers::new(&before).unwrap();
        let joined = state(&[("a", 9), ("b", 5)]);
        let follows = |_: &usize| first.after(&joined, &before).is_some();
        assert_eq!((0..2 * LEFT).filter(follows).count(), LEFT + 1);
    }

    #[test]
    fn adjoining_addresses_are_found_again() {
        let before = state(&[("a", 1), ("b", 3)]);
        let (after, _) =
            Peers::new(&before).unwrap().after(&state(&[("a", 1), ("b", 3), ("c", 2)]), &before).unwrap();
        assert_eq!(after.adjoining, [false, true, true]);
    }

    #[test]
    fn numbers_are_given_out_anew_before_too_many_are_nobodys() {
        let (mut now, mut numbered) = (state(&[("a", 1), ("b", 3)]), 0);
        let mut peers = Peers::new(&now).unwrap();
        for turn in 0..3 * LEFT {
            let next = state(&[("a", 1), ("b", 3 + (turn % 9) as u8 + 1)]);
            peers = match peers.after(&next, &now) {
                Some((peers, _)) => peers,
                None => {
                    numbered += 1;
                    Peers::new(&next).unwrap()
                }
            };
            now = next;
            assert!(peers.len() <= LEFT + 8);
        }
        assert!((2..4).contains(&numbered), "{numbered}");
    }
}
