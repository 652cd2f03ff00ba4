//! Endpoint-independent mapping as the model sees it: who owns which port, and since when it is unused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::flow::Flow;

/// An address and a port.
type End = (IpAddr, u16);

/// Who owns which port of UDP.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    /// The port an owner got last at an address of the gateway.
    last: BTreeMap<(IpAddr, End), u16>,
    /// A port's owner, and its last use.
    owners: BTreeMap<End, (End, u64)>,
}

impl Mappings {
    /// Whether somebody else than `owner` has the port now; unused for a quarter longer than `lifetime`, it is nobody's.
    pub fn is_anothers(&self, port: End, owner: End, now: u64, lifetime: u32) -> bool {
        let used = self.owners.get(&port);
        used.is_some_and(|(other, used)| {
            *other != owner && now - used <= u64::from(lifetime) + u64::from(lifetime) / 4
        })
    }

    /// The port that `owner` has at an address of the gateway.
    pub fn port(&self, gateway: IpAddr, owner: End) -> Option<u16> {
        let port = *self.last.get(&(gateway, owner))?;
        self.owners.get(&(gateway, port)).filter(|(other, _)| *other == owner).map(|_| port)
    }

    /// `owner` opens a flow by this port.
    pub fn take(&mut self, (gateway, port): End, owner: End, now: u64) {
        self.last.insert((gateway, owner), port);
        self.owners.insert((gateway, port), (owner, now));
    }

    /// The agent's pass over the flows: a port that one of them uses was used when it last carried a packet.
    pub fn note(&mut self, flows: &[Flow]) {
        for flow in flows.iter().filter(|flow| flow.protocol == 17) {
            let Some((owner, used)) = self.owners.get_mut(&flow.translated) else { continue };
            if *owner == flow.source {
                let seen = flow.ways.iter().map(|way| way.last_seen).max();
                *used = seen.map_or(*used, |seen| seen.max(*used));
            }
        }
    }
}
