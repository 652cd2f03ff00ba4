//! What a person means by a name or an address.

use std::net::IpAddr;

use ipnet::IpNet;

use super::report::{Endpoint, Missing};
use crate::model::{Network, Peer, Resource, State};
use crate::resolve::Resolved;

/// Where a flow goes.
pub(super) struct Destination<'a> {
    pub(super) address: IpAddr,
    /// The peer that has the address, allowed or not.
    pub(super) peer: Option<&'a String>,
    /// Resources around the address, enabled or not: network id, network, resource id, resource.
    pub(super) resources: Vec<(&'a String, &'a Network, &'a String, &'a Resource)>,
}

impl Destination<'_> {
    pub(super) fn endpoint(&self, r: &Resolved) -> Endpoint {
        let mut endpoint = match self.peer {
            Some(id) => Endpoint::peer(&r.state, id, self.address.is_ipv6()),
            None => Endpoint { peer_id: None, name: None, address: self.address, resources: Vec::new() },
        };
        endpoint.address = self.address;
        endpoint.resources = self.resources.iter().map(|x| x.3.name.clone()).collect();
        endpoint
    }
}

/// The id of the peer that is meant: by id, overlay address or name.
pub(super) fn source<'a>(r: &'a Resolved, text: &str) -> Result<&'a String, Missing> {
    let state = &*r.state;
    if let Some((id, _)) = state.peers.get_key_value(text) {
        return Ok(id);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return peer_at(state, address).ok_or(Missing::NoSuchPeer { text: text.into() });
    }
    match &named(state.peers.iter().map(|(id, p)| (id, &p.name)), text)[..] {
        [] => Err(Missing::NoSuchPeer { text: text.into() }),
        [id] => Ok(id),
        ids => {
            Err(Missing::Ambiguous { text: text.into(), ids: ids.iter().map(|id| id.to_string()).collect() })
        }
    }
}

/// The address that is meant: itself, of a peer, or the first of a resource.
pub(super) fn destination<'a>(r: &'a Resolved, text: &str) -> Result<Destination<'a>, Missing> {
    let state = &*r.state;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(at(state, address));
    }
    if let Some(peer) = state.peers.get(text) {
        return Ok(at(state, peer.v4.into()));
    }
    let resources = || state.networks.values().flat_map(|n| &n.resources);
    if let Some((_, resource)) = resources().find(|(id, _)| *id == text) {
        return first_address(state, resource);
    }
    let peers = named(state.peers.iter().map(|(id, p)| (id, &p.name)), text);
    let behind = named(resources().map(|(id, q)| (id, &q.name)), text);
    match (&peers[..], &behind[..]) {
        ([], []) => Err(Missing::NoSuchDestination { text: text.into() }),
        ([id], []) => Ok(at(state, state.peers[*id].v4.into())),
        ([], [id]) => match resources().find(|(other, _)| other == id) {
            Some((_, resource)) => first_address(state, resource),
            None => Err(Missing::NoSuchDestination { text: text.into() }),
        },
        _ => {
            let ids = peers.iter().chain(&behind).map(|id| id.to_string()).collect();
            Err(Missing::Ambiguous { text: text.into(), ids })
        }
    }
}

fn first_address<'a>(state: &'a State, resource: &Resource) -> Result<Destination<'a>, Missing> {
    match resource.prefixes.first().map(IpNet::network) {
        Some(address) => Ok(at(state, address)),
        None => Err(Missing::NoAddress { resource: resource.name.clone() }),
    }
}

fn at(state: &State, address: IpAddr) -> Destination<'_> {
    let in_overlay = match address {
        IpAddr::V4(a) => state.overlay_v4.contains(&a),
        IpAddr::V6(a) => state.overlay_v6.contains(&a),
    };
    let all = state.networks.iter().flat_map(|(id, n)| n.resources.iter().map(move |(q, x)| (id, n, q, x)));
    let around = all.filter(|x| !in_overlay && x.3.prefixes.iter().any(|p| p.trunc().contains(&address)));
    Destination { address, peer: peer_at(state, address), resources: around.collect() }
}

/// The peer with an address; one that may take part before one that may not.
fn peer_at(state: &State, address: IpAddr) -> Option<&String> {
    let owns = |peer: &Peer| IpAddr::V4(peer.v4) == address || IpAddr::V6(peer.v6) == address;
    let owners = || state.peers.iter().filter(|(_, peer)| owns(peer));
    owners().find(|(_, peer)| peer.allowed).or_else(|| owners().next()).map(|(id, _)| id)
}

/// Ids of what has a name: written exactly so, or else but for case.
fn named<'a>(all: impl Iterator<Item = (&'a String, &'a String)> + Clone, text: &str) -> Vec<&'a String> {
    let exact: Vec<_> = all.clone().filter(|(_, name)| *name == text).map(|(id, _)| id).collect();
    if exact.is_empty() {
        all.filter(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(id, _)| id).collect()
    } else {
        exact
    }
}
