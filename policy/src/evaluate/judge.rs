//! One agent's decision about one packet, from the same resolved rules the compiler reads.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::resolve::{Resolved, SetId};

/// What is at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// An overlay address: of this peer, or of nobody who may take part.
    Peer(Option<u32>),
    /// Anything else: every enabled resource around it, each with its longest prefix that does. Maybe none.
    Resources(Vec<(u32, IpNet)>),
}

impl Target {
    pub(super) fn at(r: &Resolved, address: IpAddr) -> Self {
        if r.in_overlay(address) {
            return Self::Peer(r.peer_at(address));
        }
        let longest = |(resource, number): (&crate::resolve::ResourceEntry, u32)| {
            let around = resource.prefixes.iter().filter(|p| p.contains(&address));
            around.max_by_key(|p| p.prefix_len()).map(|&prefix| (number, prefix))
        };
        Self::Resources(r.resources.iter().zip(0..).filter_map(longest).collect())
    }

    /// The sets that lead here in the image of `me`, for flows opened by `opener`. Rising.
    fn sets(&self, r: &Resolved, me: u32, opener: u32) -> Vec<SetId> {
        let own = me == opener;
        let mut sets = match self {
            Self::Peer(Some(peer)) if own != (*peer == me) => r.sets.of_peer(*peer),
            Self::Peer(_) => Vec::new(),
            Self::Resources(around) => {
                let concerns = |q: u32| match own {
                    true => !r.routes_resource(me, q) && !r.routers(q).is_empty(),
                    false => r.routes_resource(me, q),
                };
                around
                    .iter()
                    .filter(|(q, _)| concerns(*q))
                    .flat_map(|&(q, _)| r.sets.of_resource(q))
                    .collect()
            }
        };
        sets.sort_unstable();
        sets.dedup();
        sets
    }
}

/// The rule that decides at `me` about a flow from `opener` to `target`: any drop rule before any accept rule, then
/// the first. `l4` is a value of the image's axis.
pub(super) fn judge(r: &Resolved, me: u32, opener: u32, target: &Target, l4: u32) -> Option<u32> {
    let sets = target.sets(r, me, opener);
    let halves = r.sets.of_peer(opener).into_iter().flat_map(|set| r.halves_from(set));
    let leads_here =
        halves.map(|&h| &r.written.halves[h as usize]).filter(|h| sets.binary_search(&h.destination).is_ok());
    let covers = |rule: &u32| r.service(*rule).iter().any(|range| range.contains(&l4));
    leads_here
        .map(|h| h.rule)
        .filter(covers)
        .min_by_key(|&rule| (r.written.rules[rule as usize].accept, rule))
}
