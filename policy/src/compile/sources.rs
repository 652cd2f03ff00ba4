//! Who opens flows: a class for every kind of source.

use super::partition::Partition;
use crate::resolve::{Resolved, Scope, SetId};

/// Source classes of one agent's image.
#[derive(Debug)]
pub(super) struct Sources {
    /// Index + 1 in `classes` of each peer's class; 0 is nobody.
    pub(super) of_peer: Vec<u32>,
    /// The classes in use.
    pub(super) classes: Vec<SourceClass>,
    partition: Partition,
}

/// One kind of source.
#[derive(Debug)]
pub(super) struct SourceClass {
    /// Where in the tree of classes it is; `None` for the agent itself: the source of outbound halves, and of no others.
    pub(super) node: Option<u32>,
    /// Its first member.
    pub(super) first: u32,
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
        let mut class_of: Vec<u32> = vec![0; partition.len()];
        let mut classes: Vec<SourceClass> = Vec::new();
        let mut of_peer = vec![0; r.peers.len()];
        for peer in 0..r.peers.len() as u32 {
            let node = partition.class(peer);
            let own = Some(peer) == scope.me;
            if node == 0 && !own {
                continue;
            }
            if own || class_of[node as usize] == 0 {
                classes.push(SourceClass { node: (!own).then_some(node), first: peer });
            }
            let last = classes.len() as u32;
            of_peer[peer as usize] = match own {
                true => last,
                false => match &mut class_of[node as usize] {
                    0 => {
                        class_of[node as usize] = last;
                        last
                    }
                    known => *known,
                },
            };
        }
        Self { of_peer, classes, partition }
    }

    /// Index of the agent's own class.
    pub(super) fn own(&self) -> Option<u32> {
        self.classes.iter().zip(0..).find(|(class, _)| class.node.is_none()).map(|(_, i)| i)
    }

    /// The tree of classes, without branches that lead to none.
    pub(super) fn tree(&self) -> Tree<'_> {
        let mut class_of = vec![None; self.partition.len()];
        let mut needed = vec![false; self.partition.len()];
        for (class, i) in self.classes.iter().zip(0..) {
            let Some(mut node) = class.node else { continue };
            class_of[node as usize] = Some(i);
            while !std::mem::replace(&mut needed[node as usize], true) && node != 0 {
                node = self.partition.parent(node).0;
            }
        }
        let mut children = vec![Vec::new(); self.partition.len()];
        for node in (1..self.partition.len() as u32).filter(|&n| needed[n as usize]) {
            children[self.partition.parent(node).0 as usize].push(node);
        }
        Tree { partition: &self.partition, class_of, children }
    }
}

/// Source classes as a tree: whoever is below a node is in its set, and in the sets of all nodes above.
pub(super) struct Tree<'a> {
    partition: &'a Partition,
    class_of: Vec<Option<u32>>,
    children: Vec<Vec<u32>>,
}

impl Tree<'_> {
    /// The set of a node; none of the image's for the root, 0, and for what neighbours alone share.
    pub(super) fn set(&self, node: u32) -> SetId {
        self.partition.parent(node).1
    }

    /// Index of the class whose members are in no further set.
    pub(super) fn class(&self, node: u32) -> Option<u32> {
        self.class_of[node as usize]
    }

    /// The next nodes down.
    pub(super) fn children(&self, node: u32) -> &[u32] {
        &self.children[node as usize]
    }
}
