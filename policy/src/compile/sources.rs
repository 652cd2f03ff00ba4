//! Who opens flows: a class for every kind of source.

use std::ops::Range;

use super::partition::Partition;
use super::slots;
use crate::resolve::{Resolved, Scope, SetId};

/// Source classes of one agent's image.
#[derive(Debug)]
pub(super) struct Sources {
    /// The class of each peer; 0 is nobody.
    pub(super) of_peer: Vec<u32>,
    /// The number of classes, 0 included.
    pub(super) count: u32,
    /// The classes in use.
    pub(super) classes: Vec<SourceClass>,
    sets: Vec<SetId>,
}

/// One kind of source.
#[derive(Debug)]
pub(super) struct SourceClass {
    pub(super) number: u32,
    /// Whether it is the agent itself: the source of outbound halves, and of no others.
    pub(super) own: bool,
    /// Where in `Sources::sets` its sets are.
    sets: Range<u32>,
}

impl Sources {
    pub(super) fn new(r: &Resolved, scope: &Scope) -> Self {
        let mut partition = Partition::new(r.peers.len());
        // Neighbours without a right are told from strangers: a packet of theirs is not spoofed, it is not permitted.
        const NEIGHBOUR: SetId = SetId::MAX - 1;
        partition.refine(NEIGHBOUR, scope.neighbours(r).iter());
        let mut starts: Vec<SetId> = scope.inbound.iter().map(|&h| r.halves[h as usize].source).collect();
        starts.sort_unstable();
        starts.dedup();
        for set in starts {
            partition.refine(set, r.sets.peers(set).iter().copied().filter(|&p| Some(p) != scope.me));
        }
        let mut first: Vec<Option<u32>> = vec![None; partition.len()];
        for peer in 0..r.peers.len() as u32 {
            first[partition.class(peer) as usize].get_or_insert(peer);
        }
        let mut used: Vec<(u32, u32)> = first
            .iter()
            .zip(0..)
            .skip(1)
            .filter_map(|(first, class)| first.map(|peer| (peer, class)))
            .collect();
        let own = scope.me.map(|me| (me, u32::MAX));
        used.extend(own);
        // A class is placed by the address of its first member: whatever rules come and go, it stays where it is.
        let keys: Vec<u64> = used.iter().map(|&(peer, _)| u64::from(r.peers[peer as usize].v4)).collect();
        let (numbers, count) = slots::assign(&keys);
        let mut number_of = vec![0; partition.len()];
        let mut classes = Vec::with_capacity(used.len());
        let mut sets = Vec::new();
        let mut own_number = 0;
        for (&(_, class), &number) in used.iter().zip(&numbers) {
            let own = class == u32::MAX;
            if own {
                own_number = number;
            } else {
                number_of[class as usize] = number;
            }
            let start = sets.len() as u32;
            if !own {
                partition.sets(class, &mut sets);
                // The first refinement is told last.
                sets.pop_if(|set| *set == NEIGHBOUR);
            }
            classes.push(SourceClass { number, own, sets: start..sets.len() as u32 });
        }
        let mut of_peer: Vec<u32> =
            (0..r.peers.len() as u32).map(|p| number_of[partition.class(p) as usize]).collect();
        if let Some(me) = scope.me {
            of_peer[me as usize] = own_number;
        }
        Self { of_peer, count, classes, sets }
    }

    /// The sets, among those that are sources of inbound halves, that a class's members are in.
    pub(super) fn sets(&self, class: &SourceClass) -> &[SetId] {
        &self.sets[class.sets.start as usize..class.sets.end as usize]
    }
}
