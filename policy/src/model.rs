//! The state policies are written over: what control keeps in its store, without the store.
//!
//! Ids are opaque text. Everything is in ordered containers, so that equal states compile to equal images.

mod posture_failed;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

pub use self::posture_failed::PostureFailed;
pub use self::shared::Shared;

/// Everything the compiler reads. A copy shares what it does not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Overlay IPv4 range, at most 65,536 addresses.
    pub overlay_v4: Ipv4Net,
    /// Overlay IPv6 range.
    pub overlay_v6: Ipv6Net,
    /// Peers by id.
    pub peers: Shared<BTreeMap<String, Peer>>,
    /// Groups by id. `All` is a group like the others: whoever builds the state puts every peer in.
    pub groups: Shared<BTreeMap<String, Group>>,
    /// Networks by id.
    pub networks: Shared<BTreeMap<String, Network>>,
    /// Policies by id.
    pub policies: Shared<BTreeMap<String, Policy>>,
}

/// A machine in the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Display name.
    pub name: String,
    /// Overlay IPv4 address, inside `State::overlay_v4`.
    pub v4: Ipv4Addr,
    /// Overlay IPv6 address, inside `State::overlay_v6`.
    pub v6: Ipv6Addr,
    /// False while the peer must not take part (unapproved, expired, blocked): it is in no source and no destination.
    pub allowed: bool,
}

/// A named set of peers and resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Display name.
    pub name: String,
    /// Peer ids.
    pub peers: Shared<BTreeSet<String>>,
    /// Resource ids.
    pub resources: Shared<BTreeSet<String>>,
}

/// Resources and the routers that reach them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Display name.
    pub name: String,
    /// Resources by id; ids are unique across networks.
    pub resources: BTreeMap<String, Resource>,
    /// Routers by id.
    pub routers: BTreeMap<String, Router>,
}

/// A destination behind routers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Display name.
    pub name: String,
    /// The addresses, masked; a host is a /32 or /128. A domain resource carries the addresses learned so far, maybe none.
    pub prefixes: Vec<IpNet>,
    /// Of a domain resource the name that its routers are to look up, or the wildcard; `None` of others, and where nobody is to.
    pub domain: Option<String>,
    /// Whether it counts.
    pub enabled: bool,
    /// For a route, whom it is for; `None` is no such bound.
    pub distribution: Option<Distribution>,
}

/// What a route says of the peers it is for, beyond a resource of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Groups whose peers alone reach it, whatever rule opens it to others; where they come out empty, that is nobody.
    pub groups: BTreeSet<String>,
    /// Whether agents take it only where their operators ask for it, by its name.
    pub by_choice: bool,
}

/// A gateway of a network, or all members of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// The peers that route: one named peer, or every peer of some groups (already expanded).
    pub peers: BTreeSet<String>,
    /// 1..=9999, lower is better.
    pub metric: u16,
    /// Whether the source is replaced by the router's own address.
    pub masquerade: bool,
    /// Whether it counts.
    pub enabled: bool,
}

/// Rules under one name and one switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Display name.
    pub name: String,
    /// Whether it counts.
    pub enabled: bool,
    /// Peers that fail this policy's posture checks: in no source of its accept rules. Its drop rules hold for them as well.
    pub posture_failed: PostureFailed,
    /// The rules, in order.
    pub rules: Shared<Vec<Rule>>,
}

/// One line of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Rule id, unique in the account.
    pub id: String,
    /// Display name.
    pub name: String,
    /// The number by which images and counters name this rule: unique in the account, kept for the rule's whole life
    /// and dense (the lowest free one is given out), below 2^28.
    pub slot: u32,
    /// Whether it counts.
    pub enabled: bool,
    /// Accept or drop.
    pub action: Action,
    /// Whether the mirror image is admitted as well (see `effectively_bidirectional`).
    pub bidirectional: bool,
    /// Which packets.
    pub service: Service,
    /// Where flows come from.
    pub sources: End,
    /// Where they go.
    pub destinations: End,
}

/// What a rule says about the packets it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Admit the flow.
    Accept,
    /// Refuse it, whatever any accept rule says.
    Drop,
}

/// Protocol and destination ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Every IP protocol.
    All,
    /// ICMP in IPv4 and ICMPv6 in IPv6, every type.
    Icmp,
    /// TCP to one of these ports; an empty list is every port.
    Tcp(Vec<RangeInclusive<u16>>),
    /// UDP to one of these ports; an empty list is every port.
    Udp(Vec<RangeInclusive<u16>>),
}

/// One end of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Members of groups. An unknown id, or an empty set, matches nothing.
    Groups(BTreeSet<String>),
    /// One peer.
    Peer(String),
    /// One resource.
    Resource(String),
}
