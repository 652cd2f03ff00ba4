//! Where things are: peers in the overlay, resources under trees of prefixes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluicegate_policy::model::{Network, Peer, Resource, Router, State};

use super::GATEWAY;
use super::shape::Shape;
use crate::random::Random;

/// The name of a peer.
pub(super) fn peer(i: usize) -> String {
    format!("peer{i:05}")
}

/// Peers in the order of their addresses, and the gateway.
pub(super) fn peers(count: usize) -> BTreeMap<String, Peer> {
    assert!(count <= 60_000, "the overlay has no room for {count} peers");
    let machine = |id: String, host: u32| {
        let v4 = Ipv4Addr::from_bits(0x6440_0000 | host);
        let v6 = Ipv6Addr::from_bits(0xfd5c_0001 << 96 | u128::from(host));
        (id.clone(), Peer { name: id, v4, v6, allowed: true })
    };
    let peers = (0..count).map(|i| machine(peer(i), 16 + i as u32));
    peers.chain([machine(GATEWAY.into(), 1)]).collect()
}

/// Makes networks with that many resources; their ids in the order of their addresses, so that neighbours in the list are
/// neighbours in the tree.
pub(super) fn networks(r: &mut Random, shape: &Shape, count: usize, state: &mut State) -> Vec<String> {
    let mut four = Tree::new(32, 0x0a00_0000, 8);
    let mut six = Tree::new(128, 0xfd10 << 112, 16);
    let mut placed: Vec<(Option<IpNet>, Option<IpNet>)> = (0..count)
        .map(|_| {
            let lengths: Vec<usize> = shape.lengths.iter().map(|l| l.0).collect();
            let (_, short, long) = shape.lengths[weighted(r, &lengths)];
            let v4 = r.chance(85).then(|| {
                let (bits, length) = four.grow(r, shape, short);
                IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits as u32), length))
            });
            let v6 = (v4.is_none() || r.chance(40)).then(|| {
                let (bits, length) = six.grow(r, shape, long);
                IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length))
            });
            (v4, v6)
        })
        .collect();
    placed.sort();
    let mut ids = Vec::with_capacity(count);
    let networks = (count / 500).clamp(1, 40);
    for (i, (v4, v6)) in placed.into_iter().enumerate() {
        let id = format!("resource{i:05}");
        let network = state.networks.entry(format!("net{:02}", i * networks / count)).or_insert_with(|| {
            let peers = BTreeSet::from([GATEWAY.to_owned()]);
            let router = Router { peers, metric: 100, masquerade: r.chance(70), enabled: true };
            Network {
                name: "a site".into(),
                resources: BTreeMap::new(),
                routers: BTreeMap::from([(format!("router{i:05}"), router)]),
            }
        });
        let prefixes = v4.into_iter().chain(v6).collect();
        network.resources.insert(
            id.clone(),
            Resource { name: id.clone(), prefixes, enabled: true, domain: None, distribution: None },
        );
        ids.push(id);
    }
    ids
}

/// One of several, by weight.
pub(super) fn weighted(r: &mut Random, weights: &[usize]) -> usize {
    let mut at = r.below(weights.iter().sum());
    weights
        .iter()
        .position(|&w| {
            at < w || {
                at -= w;
                false
            }
        })
        .expect("the roll is below the sum")
}

/// A tree of distinct prefixes below a root, most of them in few branches.
struct Tree {
    width: u8,
    root: (u128, u8),
    /// (address, length).
    all: Vec<(u128, u8)>,
    taken: BTreeSet<(u128, u8)>,
}

impl Tree {
    fn new(width: u8, root: u128, length: u8) -> Self {
        Self { width, root: (root, length), all: Vec::new(), taken: BTreeSet::new() }
    }

    /// A new prefix of about that length.
    fn grow(&mut self, r: &mut Random, shape: &Shape, length: u8) -> (u128, u8) {
        for attempt in 0.. {
            // The longer it takes, the more the branches are alike: there is room in the lighter ones.
            let skew = (shape.skew - attempt.min(shape.skew - 50)).max(50);
            let parent = match self.all.len() {
                0 => self.root,
                count if r.chance(shape.nested) => self.all[count - 1 - r.below(count.min(2000))],
                _ => self.root,
            };
            // Nothing lies within a host.
            let parent = if parent.1 < self.width { parent } else { self.root };
            let length = (length + (attempt / 8) as u8).clamp(parent.1 + 1, self.width);
            let mut bits = parent.0;
            for level in parent.1..length {
                // Which branch is the heavy one follows from where it is.
                let heavy = u128::from((bits >> (self.width - level)).count_ones() + u32::from(level)) & 1;
                let branch = if r.chance(skew) { heavy } else { 1 - heavy };
                bits |= branch << (self.width - level - 1);
            }
            if self.taken.insert((bits, length)) {
                self.all.push((bits, length));
                return (bits, length);
            }
        }
        unreachable!("a tree has room")
    }
}
