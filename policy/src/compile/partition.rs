//! Splits peers into classes by the sets they are in: one pass over the members of each set.

/// Classes of peers. Peers in exactly the same sets share a class; class 0 is the peers in none.
#[derive(Debug)]
pub(super) struct Partition {
    class: Vec<u32>,
    /// A class is its parent's sets and one more.
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    set: u32,
    /// Where this class's members went when `split_by` was the set last seen.
    split: u32,
    split_by: u32,
}

const NONE: u32 = u32::MAX;

impl Partition {
    pub(super) fn new(peers: usize) -> Self {
        let nobody = Node { parent: 0, set: NONE, split: 0, split_by: NONE };
        Self { class: vec![0; peers], nodes: vec![nobody] }
    }

    /// Tells members of `set` from others. To be called once for each set.
    pub(super) fn refine(&mut self, set: u32, members: impl IntoIterator<Item = u32>) {
        for member in members {
            let class = self.class[member as usize];
            let next = self.nodes.len() as u32;
            let node = &mut self.nodes[class as usize];
            if node.split_by != set {
                (node.split, node.split_by) = (next, set);
                self.nodes.push(Node { parent: class, set, split: 0, split_by: NONE });
            }
            self.class[member as usize] = self.nodes[class as usize].split;
        }
    }

    /// The class of a peer.
    pub(super) fn class(&self, peer: u32) -> u32 {
        self.class[peer as usize]
    }

    /// How many class numbers there are; some have no members.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The class that a class was part of before the last set it is in told them apart, and that set; the first class,
    /// which is in no set, is its own.
    pub(super) fn parent(&self, class: u32) -> (u32, u32) {
        let node = self.nodes[class as usize];
        (node.parent, node.set)
    }

    /// Appends the sets of a class, the last refined first.
    pub(super) fn sets(&self, class: u32, into: &mut Vec<u32>) {
        let mut at = class;
        while at != 0 {
            let node = self.nodes[at as usize];
            into.push(node.set);
            at = node.parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_in_the_same_sets_share_a_class() {
        let mut p = Partition::new(5);
        p.refine(10, [0, 1, 2]);
        p.refine(11, [1, 2, 3]);
        p.refine(12, [0]);
        let classes: Vec<u32> = (0..5).map(|i| p.class(i)).collect();
        assert_eq!(classes[1], classes[2]);
        assert_eq!(classes[4], 0);
        let sets = |class: u32| {
            let mut sets = Vec::new();
            p.sets(class, &mut sets);
            sets
        };
        let sets: Vec<_> = classes.iter().map(|&c| sets(c)).collect();
        assert_eq!(sets, [vec![12, 10], vec![11, 10], vec![11, 10], vec![11], vec![]]);
    }
}
