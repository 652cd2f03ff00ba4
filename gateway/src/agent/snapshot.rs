//! The agent's state as others read it.

use std::collections::BTreeMap;

use sluicegate_api::agent::LinkState;

use super::{Agent, hex, masquerade, report};
use crate::local::top;
use crate::overlay::{Link, Overlay};
use crate::status::{self, Status};
use crate::system;

impl<O: Overlay> Agent<'_, O> {
    /// The whole status.
    pub(super) fn status(&self) -> Status {
        let in_force = self.datapath.in_force();
        let contact = &self.around.contact;
        Status {
            schema: status::SCHEMA.into(),
            version: system::VERSION.into(),
            identity: self.identity(),
            control: status::Control {
                url: self.around.identity.card.control.clone(),
                connected: contact.connected,
                last_contact_ms: contact.last_ms,
                error: contact.error.clone(),
                login_expired: self.login_expired(),
            },
            datapath: status::Datapath {
                kind: report::kind_name(self.datapath.kind()).into(),
                site_devices: self.sites.values().cloned().collect(),
                xdp: self.datapath.xdp().into_iter().map(xdp).collect(),
                guard: self.datapath.guard().map(guard),
                tables: self.counters.tables.iter().map(table).collect(),
                memory_bytes: self.counters.memory_bytes,
                timeouts: self.timeouts(),
            },
            policy: status::Policy {
                revision: in_force.map(|now| now.revision),
                hash: in_force.map(|now| hex(&now.hash)),
                applied_ms: self.applied_ms,
                max_age_seconds: self.around.settings.max_policy_age.map(|age| age.as_secs()),
                expired: in_force.is_some() && contact.expired(std::time::Instant::now()),
                ends_ms: self.policy.ends_in().map(|left| system::unix_ms() + left.as_millis() as u64),
                ends: self.policy.ends() as u64,
                shut: self.policy.is_shut(),
                refused: self.policy.is_refused(),
            },
            peers: self.peers(),
            routes: self.routes(),
            routed: self.routed(),
            masquerade: self.masquerade(),
            names: self.around.domains.rows().into_iter().map(name).collect(),
            dns: self.around.resolver.status(),
            counters: self.totals(),
            degraded: self.degraded(),
        }
    }

    /// The links in control's words.
    pub(super) fn link_states(&self) -> Vec<LinkState> {
        let Some(network) = &self.network else { return Vec::new() };
        let now = system::unix_ms();
        let state = |(id, peer): (&String, &super::network::Peer)| {
            let link = self.links.iter().find(|l| l.key == peer.key)?;
            Some(LinkState {
                peer_id: id.clone(),
                endpoint: link.endpoint.map(|e| e.to_string()).unwrap_or_default(),
                last_handshake_ms: link.handshake.map_or(0, |age| now.saturating_sub(age.as_millis() as u64)),
                live: self.routing.live(&peer.key),
            })
        };
        network.peers.iter().filter_map(state).collect()
    }

    fn identity(&self) -> status::Identity {
        let card = &self.around.identity.card;
        status::Identity {
            peer_id: card.peer_id.clone(),
            name: card.name.clone(),
            role: card.role.name().into(),
            public_key: self.around.identity.keys.public().to_string(),
            address_v4: self.network.as_ref().map(|n| n.own_v4.to_string()),
            address_v6: self.network.as_ref().map(|n| n.own_v6.to_string()),
            device: self.device.name().into(),
            overlay_kind: self.around.settings.overlay.name().into(),
            listen_port: self.overlay.listen_port(),
            endpoint: self.around.settings.endpoint.map(|e| e.to_string()),
        }
    }

    fn peers(&self) -> Vec<status::Peer> {
        let Some(network) = &self.network else { return Vec::new() };
        let peer = |(id, peer): (&String, &super::network::Peer)| {
            let link: Option<&Link> = self.links.iter().find(|l| l.key == peer.key);
            status::Peer {
                id: id.clone(),
                name: peer.name.clone(),
                endpoint: link.and_then(|l| l.endpoint).map(|e| e.to_string()),
                live: self.routing.live(&peer.key),
                handshake_seconds: link.and_then(|l| l.handshake).map(|age| age.as_secs_f64()),
                round_trip_ms: link.and_then(|l| l.round_trip).map(|rtt| rtt.as_secs_f64() * 1e3),
                received: link.map_or(0, |l| l.received),
                sent: link.map_or(0, |l| l.sent),
            }
        };
        network.peers.iter().map(peer).collect()
    }

    fn routes(&self) -> Vec<status::Route> {
        let Some(network) = &self.network else { return Vec::new() };
        let router = |(id, metric): (&String, &u32)| {
            let peer = network.peers.get(id);
            status::Router {
                peer_id: id.clone(),
                name: peer.map(|p| p.name.clone()).unwrap_or_default(),
                metric: *metric,
                live: peer.is_some_and(|p| self.routing.live(&p.key)),
            }
        };
        let route = |route: &super::network::Route| {
            let active = self.routing.router(&route.prefix);
            status::Route {
                prefix: route.prefix.to_string(),
                network_id: route.network.clone(),
                resource_id: route.resource.clone(),
                active: active.map(str::to_owned),
                metric: active.and_then(|id| route.routers.get(id)).copied(),
                routers: route.routers.iter().map(router).collect(),
            }
        };
        network.routes.iter().map(route).collect()
    }

    fn routed(&self) -> Vec<status::Routed> {
        let Some(network) = &self.network else { return Vec::new() };
        let routed = |routed: &super::network::Routed| status::Routed {
            prefix: routed.prefix.to_string(),
            network_id: routed.network.clone(),
            resource_id: routed.resource.clone(),
            masquerade: routed.masquerade,
            metric: routed.metric,
            device: self.resolved.as_ref().and_then(|resolved| resolved.devices.get(&routed.prefix)).cloned(),
        };
        network.routed.iter().map(routed).collect()
    }

    fn timeouts(&self) -> BTreeMap<String, u32> {
        let timeouts = self.around.settings.datapath.flows.timeouts.named();
        timeouts.into_iter().map(|(name, seconds)| (name.to_owned(), seconds)).collect()
    }

    fn masquerade(&self) -> status::Masquerade {
        let ports = &self.around.settings.datapath.nat_ports;
        status::Masquerade {
            ports: (*ports.start(), *ports.end()),
            in_use: masquerade::in_use(&self.flows),
            exhausted: self.around.exhausted.destinations(),
            collisions: self.counters.port_collisions.clone(),
        }
    }

    fn totals(&self) -> status::Counters {
        let forwarded = |&(direction, packets, bytes): &(&str, u64, u64)| status::Forwarded {
            direction: direction.into(),
            packets,
            bytes,
        };
        let answers = |&(kind, packets): &(&str, u64)| status::IcmpAnswers { kind: kind.into(), packets };
        let drops = |&(reason, packets): &(&str, u64)| status::Drops { reason: reason.into(), packets };
        let names = self.names_now();
        let (rules, resources) = top::busiest(&self.counters, &names, &self.flows);
        status::Counters {
            forwarded: self.counters.forwarded.iter().map(forwarded).collect(),
            drops: self.counters.drops.iter().map(drops).collect(),
            icmp_answers: self.counters.answers.iter().map(answers).collect(),
            flows: self.flows.len() as u64,
            flows_started: self.counters.flows_started,
            flow_entries: self.counters.flow_entries.0,
            flow_entries_max: self.counters.flow_entries.1,
            half_open_evicted: self.counters.half_open_evicted,
            rules,
            resources,
            events_suppressed: self.counters.events_suppressed,
            events_lost: self.counters.events_lost + self.around.outbox.lost(),
            failovers: self.routing.transitions(),
            name_lookups: name_lookups(self.around.domains.lookups()),
            name_questions: name_questions(&self.around.domains.asked()),
        }
    }
}

fn table(table: &crate::datapath::FlowTable) -> status::FlowTable {
    status::FlowTable {
        stage: table.stage.into(),
        family: table.family.into(),
        entries: table.entries,
        capacity: table.capacity,
        bytes: table.bytes,
    }
}

fn name(row: crate::names::Row) -> status::Name {
    let address = |(address, confirmed): (std::net::IpAddr, tokio::time::Instant)| status::Address {
        address: address.to_string(),
        age_seconds: confirmed.elapsed().as_secs(),
    };
    status::Name {
        name: row.name,
        resource_id: row.resource,
        addresses: row.addresses.into_iter().map(address).collect(),
        looked_up_ms: row.looked_ms,
        reason: row.reason,
    }
}

fn name_lookups(lookups: crate::names::Lookups) -> Vec<status::NameLookups> {
    let results = [("ok", lookups.found), ("none", lookups.nothing), ("failed", lookups.failed)];
    results.map(|(result, count)| status::NameLookups { result: result.into(), count }).into()
}

fn name_questions([asked, heard]: &[Vec<(&'static str, u64)>; 2]) -> Vec<status::NameQuestions> {
    let of = |side: &str, counts: &[(&'static str, u64)]| {
        let one = |(result, count): &(&'static str, u64)| status::NameQuestions {
            side: side.into(),
            result: (*result).into(),
            count: *count,
        };
        counts.iter().map(one).collect::<Vec<_>>()
    };
    [of("asked", asked), of("heard", heard)].concat()
}

fn xdp(attached: crate::datapath::XdpDevice) -> status::Xdp {
    status::Xdp { device: attached.device, mode: attached.mode.name().into(), sends: attached.sends }
}

fn guard(state: crate::datapath::GuardState) -> status::Guard {
    status::Guard {
        devices: state.devices,
        port: state.port,
        handshakes_per_second: state.handshakes_per_second,
        burst: state.burst,
    }
}
