//! What tells the kinds of rule sets apart, in percent and weights.

/// A family of rule sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Access lists: one specific destination a rule, exact ports, few drops.
    Acl,
    /// Firewalls: broad sources and destinations, ranges, many drops.
    Firewall,
    /// Chains: long policies that mix both.
    Chains,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Acl, Self::Firewall, Self::Chains];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acl => "acl",
            Self::Firewall => "firewall",
            Self::Chains => "chains",
        }
    }

    /// Its numbers.
    pub fn shape(self) -> &'static Shape {
        match self {
            Self::Acl => &ACL,
            Self::Firewall => &FIREWALL,
            Self::Chains => &CHAINS,
        }
    }
}

/// The numbers of a kind. Arrays are weights in the order of what they choose among.
#[derive(Debug)]
pub struct Shape {
    /// Lengths of prefixes: weight, IPv4, IPv6.
    pub lengths: &'static [(usize, u8, u8)],
    /// Prefixes that lie within another one, percent.
    pub nested: usize,
    /// How often a branch is the heavy one, percent.
    pub skew: usize,
    /// Everybody; a subtree of the peers; a role; one peer.
    pub sources: [usize; 4],
    /// One resource; neighbouring resources; every resource, `broad` times at the most; the gateway itself.
    pub destinations: [usize; 4],
    /// Rules for every resource, at the most: nobody has a thousand of those, however many rules there are.
    pub broad: usize,
    /// All; ICMP; TCP; UDP.
    pub protocols: [usize; 4],
    /// Any; well known; another port; ephemeral; system ports; a range; a list.
    pub ports: [usize; 7],
    /// Rules that drop, percent.
    pub drops: usize,
    /// Rules that are bidirectional, percent.
    pub both_ways: usize,
    /// Rules of a policy, at the most.
    pub chain: usize,
}

const ACL: Shape = Shape {
    lengths: &[(1, 16, 40), (2, 20, 48), (16, 24, 56), (10, 28, 64), (71, 32, 128)],
    nested: 20,
    skew: 75,
    sources: [8, 50, 37, 5],
    destinations: [88, 10, 1, 1],
    broad: 6,
    protocols: [6, 4, 72, 18],
    ports: [18, 45, 20, 3, 2, 7, 5],
    drops: 8,
    both_ways: 5,
    chain: 3,
};

const FIREWALL: Shape = Shape {
    lengths: &[(3, 8, 32), (14, 16, 40), (18, 20, 48), (40, 24, 56), (25, 32, 128)],
    nested: 55,
    skew: 65,
    sources: [30, 30, 38, 2],
    destinations: [45, 46, 5, 4],
    broad: 20,
    protocols: [18, 9, 53, 20],
    ports: [25, 28, 8, 14, 6, 15, 4],
    drops: 35,
    both_ways: 10,
    chain: 6,
};

const CHAINS: Shape = Shape {
    lengths: &[(2, 12, 36), (10, 16, 44), (16, 22, 52), (34, 24, 60), (38, 32, 128)],
    nested: 45,
    skew: 70,
    sources: [15, 45, 35, 5],
    destinations: [68, 27, 3, 2],
    broad: 12,
    protocols: [10, 6, 62, 22],
    ports: [20, 36, 15, 8, 4, 11, 6],
    drops: 22,
    both_ways: 15,
    chain: 24,
};
