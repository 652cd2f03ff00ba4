//! Why a state cannot be compiled.

use std::net::IpAddr;

use ipnet::IpNet;
use sluicegate_engine::image::{INTERVALS_LOG_MAX, ROUTES_MAX, SERVICE_LOG_MAX, SLOTS_MAX};

/// Why a state, or one agent's part of it, has no image. The image before it stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The overlay has more addresses than an image holds.
    #[error(
        "the overlay range {overlay} has {addresses} addresses but an image holds at most {max}; choose a /16 or smaller"
    )]
    Overlay {
        /// The range.
        overlay: ipnet::Ipv4Net,
        /// Addresses in it.
        addresses: u64,
        /// The most there can be.
        max: u64,
    },
    /// A peer's address is not in the overlay.
    #[error(
        "peer {peer} has the address {address}, which is outside the overlay range {overlay}; give it another address"
    )]
    OutsideOverlay {
        /// Peer id.
        peer: String,
        /// Its address.
        address: IpAddr,
        /// The range.
        overlay: IpNet,
    },
    /// Two peers have one address.
    #[error("peers {} and {} both have the address {address}; give one of them another", peers[0], peers[1])]
    SharedAddress {
        /// Their ids.
        peers: [String; 2],
        /// The address.
        address: IpAddr,
    },
    /// A rule slot is too high.
    #[error("rule {rule} has slot {slot}, and slots are below {}", SLOTS_MAX)]
    Slot {
        /// Rule id.
        rule: String,
        /// Its slot.
        slot: u32,
    },
    /// Too many destinations.
    #[error(
        "agent {agent} would search {intervals} {what} intervals and an image holds at most {}; \
         join its resources' prefixes or spread its networks over more gateways", 1u32 << INTERVALS_LOG_MAX
    )]
    Intervals {
        /// Peer id.
        agent: String,
        /// Which search array: "IPv4 destination", ...
        what: &'static str,
        /// How many there would be.
        intervals: usize,
    },
    /// Too many port ranges between one kind of source and one kind of destination.
    #[error(
        "{rules} rules of agent {agent} meet on one destination and cut its ports into {entries} ranges; an image holds \
         at most {}; join their port lists (the first of them is rule {first_rule})", 1u32 << SERVICE_LOG_MAX
    )]
    Services {
        /// Peer id.
        agent: String,
        /// Rules that meet.
        rules: usize,
        /// The first of them.
        first_rule: String,
        /// Ranges they make.
        entries: usize,
    },
    /// Too many different outcomes between sources and destinations.
    #[error(
        "the rules of agent {agent} have {outcomes} different outcomes with {steps} port ranges in all before they are even \
         put together, and {max} ranges are far beyond what an image holds; give fewer kinds of sources different ports on the \
         same destinations, or spread its networks over more gateways"
    )]
    Outcomes {
        /// Peer id.
        agent: String,
        /// Different outcomes.
        outcomes: usize,
        /// Port ranges of all of them.
        steps: usize,
        /// The budget in port ranges.
        max: usize,
    },
    /// Too many routed prefixes.
    #[error(
        "agent {agent} routes {routes} prefixes and an image holds at most {}; spread its networks over more gateways",
        ROUTES_MAX
    )]
    Routes {
        /// Peer id.
        agent: String,
        /// How many.
        routes: usize,
    },
    /// The image is too large.
    #[error(
        "the image of agent {agent} needs {words} words ({sources} rows, {destinations} columns) and \
         the budget is {max}; use fewer distinct rules or spread its networks over more gateways"
    )]
    Words {
        /// Peer id.
        agent: String,
        /// Words needed, at least.
        words: u64,
        /// Rows of its matrix, at least.
        sources: u64,
        /// Columns of it.
        destinations: u64,
        /// The budget in words.
        max: u64,
    },
}
