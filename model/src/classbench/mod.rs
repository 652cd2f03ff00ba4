//! Rule sets as they are found in the field, and traffic for them, by seed.
//!
//! The idea is ClassBench's (Taylor and Turner, IEEE/ACM Transactions on Networking 15(3), 2007): real filter sets share a
//! structure that uniform chance has not, and that decides what a classifier costs. Prefixes nest and cluster in few
//! branches, ports fall into few classes, a few rules get most of the traffic, and packets come in bursts. The paper tells
//! three families apart: access lists, firewalls and chains; here each is a [`shape`](shape::Shape), as a state of groups,
//! resources and rules instead of five-tuples. Sources are subtrees of the peers, and roles that cut across them.
//!
//! Nothing here comes from the tool of that name; neither its seeds nor its code was used.

mod places;
mod rules;
pub mod serial;
pub mod shape;
mod trace;

use sluicegate_policy::model::State;

use crate::random::Random;
pub use shape::Kind;
pub use trace::{Header, Trace};

/// The only gateway: it routes every resource.
pub const GATEWAY: &str = "gateway";

/// How large a set is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub rules: usize,
    /// Resources, each with an IPv4 or IPv6 prefix or both.
    pub resources: usize,
    /// Peers, the gateway aside; at most 60,000.
    pub peers: usize,
}

impl Size {
    /// The proportions of a site with that many rules, up to 10,000 resources and peers.
    pub fn of(rules: usize) -> Self {
        Self { rules, resources: (rules / 2).clamp(8, 10_000), peers: (rules / 2).clamp(8, 10_000) }
    }
}

/// A state with rules of a kind, the same for the same seed.
pub fn state(kind: Kind, size: Size, seed: u64) -> State {
    let mut r = Random::new(seed ^ 0x5eed_0000 ^ (kind as u64) << 48);
    let shape = kind.shape();
    let mut state = State {
        overlay_v4: "100.64.0.0/16".parse().expect("a prefix"),
        overlay_v6: "fd5c:1::/64".parse().expect("a prefix"),
        peers: places::peers(size.peers).into(),
        groups: Default::default(),
        networks: Default::default(),
        policies: Default::default(),
    };
    let resources = places::networks(&mut r, shape, size.resources, &mut state);
    rules::policies(&mut r, shape, size, &resources, &mut state);
    state
}
