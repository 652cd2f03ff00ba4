//! The same engine as the kernel's, in this process: for hosts where the programs cannot be loaded.
//!
//! Decrypted packets come by a channel from WireGuard, not through the TUN device, which carries only what is for this host
//! and from it. Site packets are the host's own copies, seen by packet sockets, and packets to the site leave by raw
//! sockets, so that no route, rule or setting of the host changes. Flows live as long as the process.

mod capture;
mod carry;
mod flows;
mod fragments;
mod judge;
mod live;
mod offload;
mod ports;
mod remembered;
mod site;
mod sites;
mod tables;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use sluicegate_api::image::{Hash, Image};
use sluicegate_engine::answer::Answer;
use sluicegate_engine::capture::{Captured, Filter};
use sluicegate_engine::flow::Side;
use sluicegate_engine::image::header;
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::{self as engine, HAS_DEADLINE};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::capture::Capture;
use self::judge::{HZ, Judge};
use self::live::Locked;
use self::ports::PortPool;
use self::sites::Sites;
use super::events::from_record;
use super::host::host_addresses;
use super::slots::RuleSlots;
use super::{
    ApplyError, Change, Counters, Datapath, Egress, Event, FlowRecord, InForce, Kind, Live, RouteCounters,
    RuleCounters, Settings, check, device,
};
use crate::overlay::PacketChannels;
use crate::tun::Tun;

pub use live::LiveTables;
pub use offload::Whole;
pub use tables::{Limits, PerFamily, RuleTotals, Totals, UserTables};

/// Packets waiting between WireGuard and the engine, each way.
const QUEUE: usize = 512;
/// Events waiting to be taken; they are taken about once a second.
const EVENTS: usize = 16_384;

/// The engine in this process, with its packets.
pub struct UserspaceDatapath {
    judge: Arc<Judge>,
    settings: Settings,
    in_force: Option<InForce>,
    checker: check::Checker,
    slots: RuleSlots,
    /// Where the routes of the image in force leave, as it was named.
    ways: Vec<Egress>,
    sites: Sites,
    /// Held for as long as flows may use them; empty on a peer, which masquerades nothing.
    ports: Option<PortPool>,
    /// Why there is no or hardly any port.
    trouble: Option<String>,
    /// Why it is not known which addresses this host has now.
    unseen: Option<String>,
    /// Packets that could not leave, when last looked, and whether there were new ones.
    unsent: (u64, bool),
    /// Aborted when this is dropped.
    _carriers: JoinSet<()>,
}

impl UserspaceDatapath {
    /// Takes the packets of `tun` and of the site devices; what is to be encrypted and what was decrypted goes through the
    /// channels returned. Needs a tokio runtime, in which it goes on until it is dropped.
    pub fn open(settings: &Settings, tun: &Tun) -> anyhow::Result<(Self, PacketChannels)> {
        let confirmed = settings.flow_entries as usize;
        let mut tables = UserTables::new(Limits {
            confirmed,
            half_open: settings.flows.half_open_entries(settings.flow_entries) as usize,
            events: EVENTS,
            ticks_per_second: HZ,
        });
        let mut trouble = None;
        let mut ports = None;
        if !settings.site_devices.is_empty() {
            match PortPool::reserve(&settings.nat_ports) {
                Ok(pool) => ports = Some(pool),
                Err(e) => {
                    let (first, last) = (settings.nat_ports.start(), settings.nat_ports.end());
                    trouble = Some(format!(
                        "nothing can be masqueraded: no port of {first}-{last} could be held: {e}; set other `nat_ports`"
                    ));
                }
            }
        }
        *tables.config_mut() = engine::Config {
            ticks_per_second: HZ,
            overlay_device: tun.index(),
            overlay_mtu: settings.mtu.into(),
            nat_first: ports.as_ref().map_or(0, PortPool::first),
            nat_count: ports.as_ref().map_or(0, PortPool::count),
            flags: settings.flows.flags(),
            half_open_per_source: settings.flows.half_open_per_source,
            timeouts: settings.flows.timeouts.ticks(HZ),
            ..engine::Config::default()
        };
        let judge = Arc::new(Judge::new(tables));
        let (to_host, decrypted) = mpsc::channel(QUEUE);
        let (to_overlay, from_host) = mpsc::channel(QUEUE);
        let overlay = to_overlay.downgrade();
        let mut carriers = JoinSet::new();
        carriers.spawn(carry::from_overlay(judge.clone(), decrypted, tun.clone(), overlay.clone()));
        carriers.spawn(carry::from_host(judge.clone(), tun.clone(), to_overlay));
        let sites = Sites::new(judge.clone(), overlay, settings.site_devices.clone());
        let mut datapath = Self {
            judge,
            settings: settings.clone(),
            in_force: None,
            checker: check::Checker::new(),
            slots: RuleSlots::default(),
            ways: Vec::new(),
            sites,
            ports,
            trouble,
            unseen: None,
            unsent: (0, false),
            _carriers: carriers,
        };
        datapath.sites.attach();
        datapath.addresses_changed();
        Ok((datapath, PacketChannels { to_host, from_host }))
    }
}

impl UserspaceDatapath {
    /// Routes leave by these ways now.
    fn leave_by(&mut self, ways: &[Egress]) {
        if self.ways != ways {
            self.ways = ways.to_vec();
        }
        self.sites.send_only_by(ways.iter().map(|way| way.device));
        self.sites.attach();
        self.addresses_changed();
    }
}

fn room(settings: &Settings) -> check::Room {
    check::Room { words: settings.image_words.into(), rule_slots: check::RULE_SLOTS }
}

/// The table of the ways out by route number. Without ports of our own there is no source either: such packets are dropped for
/// want of an egress.
fn egress(ways: &[Egress], ports: bool) -> Vec<engine::Egress> {
    let last = ways.iter().map(|way| usize::from(way.route) + 1).max().unwrap_or(0);
    let mut egress = vec![engine::Egress::default(); last];
    for way in ways {
        // A device that has just gone: the route is resolved anew when the agent hears of it.
        let mtu = device::name(way.device).and_then(|name| device::mtu(&name)).unwrap_or(0);
        let (source_v4, source_v6) = if ports { (way.source_v4, way.source_v6) } else { (None, None) };
        egress[usize::from(way.route)] = engine::Egress {
            device: way.device,
            mtu,
            source4: source_v4.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
            source6: source_v6.unwrap_or(Ipv6Addr::UNSPECIFIED).into(),
            pool: way.pool,
            ..engine::Egress::default()
        };
    }
    egress
}

/// What is to come into force with the next image: nothing where it leaves as the one before.
fn next_egress(
    sites: &mut Sites,
    before: &[Egress],
    ports: bool,
    ways: &[Egress],
) -> Option<Vec<engine::Egress>> {
    if before == ways {
        return None;
    }
    // It is a condition of the device until it can be sent by; the image is in force whether or not it can.
    if let Err(error) = sites.send_by(ways.iter().map(|way| way.device)) {
        tracing::warn!("{error:#}");
    }
    Some(egress(ways, ports))
}

/// Sets the totals of numbers to zero that stand for something else now.
fn count_anew(tables: &mut UserTables, slots: &[u32], routes: &[u32]) {
    slots.iter().for_each(|slot| tables.start_anew(*slot));
    routes.iter().filter_map(|route| u16::try_from(*route).ok()).for_each(|route| tables.reroute(route));
}

impl Datapath for UserspaceDatapath {
    fn kind(&self) -> Kind {
        Kind::Userspace
    }

    fn in_force(&self) -> Option<InForce> {
        self.in_force
    }

    fn put(&mut self, revision: u64, hash: Hash, image: &Image, ways: &[Egress]) -> Result<(), ApplyError> {
        let next = InForce { revision, hash };
        let lines = self.checker.check(self.in_force, next, image, None, room(&self.settings))?.to_vec();
        let egress = next_egress(&mut self.sites, &self.ways, self.ports.is_some(), ways);
        let (slots, routes) = (self.slots.renamed(image), self.slots.rerouted(image));
        let mut state = self.judge.state();
        state.tables.set_image(lines, check::epoch(revision), image.words[header::RULE_SLOTS]);
        egress.into_iter().for_each(|egress| state.tables.set_egress(egress));
        count_anew(&mut state.tables, &slots, &routes);
        drop(state);
        self.in_force = Some(next);
        self.leave_by(ways);
        Ok(())
    }

    fn change(
        &mut self,
        revision: u64,
        hash: Hash,
        image: &Image,
        ways: &[Egress],
        change: Change<'_>,
    ) -> Result<(), ApplyError> {
        if self.in_force.is_none_or(|now| now.hash != change.base) {
            return self.put(revision, hash, image, ways);
        }
        let next = InForce { revision, hash };
        let lines = self.checker.check(self.in_force, next, image, Some(change), room(&self.settings))?;
        let egress = next_egress(&mut self.sites, &self.ways, self.ports.is_some(), ways);
        let slots = self.slots.renamed_by(image, change.undo);
        let routes = self.slots.rerouted_by(image, change.undo);
        let changed = check::changed(change.undo, image.words.len());
        // No packet is judged while the words are written.
        let mut state = self.judge.state();
        let rule_slots = image.words[header::RULE_SLOTS];
        state.tables.change_image(lines, &changed, check::epoch(revision), rule_slots);
        egress.into_iter().for_each(|egress| state.tables.set_egress(egress));
        count_anew(&mut state.tables, &slots, &routes);
        drop(state);
        self.in_force = Some(next);
        self.leave_by(ways);
        Ok(())
    }

    fn set_overlay(&mut self, v4: Ipv4Net, v6: Ipv6Net) -> anyhow::Result<()> {
        let mut state = self.judge.state();
        let config = state.tables.config_mut();
        config.overlay4 = [v4.network().into(), v4.netmask().into()];
        config.overlay6 = [v6.network().into(), v6.netmask().into()];
        (config.own4, config.own6) = (v4.addr().into(), v6.addr().into());
        Ok(())
    }

    fn set_egress(&mut self, routes: &[Egress]) -> anyhow::Result<()> {
        // One device that cannot be sent by must not keep the other routes as they were.
        let opened = self.sites.send_by(routes.iter().map(|route| route.device));
        let egress = egress(routes, self.ports.is_some());
        self.judge.state().tables.set_egress(egress);
        self.leave_by(routes);
        opened
    }

    fn egress(&self) -> &[Egress] {
        &self.ways
    }

    fn set_deadline(&mut self, after: Option<Duration>) -> anyhow::Result<()> {
        let now = self.judge.now();
        let mut state = self.judge.state();
        let config = state.tables.config_mut();
        match after {
            None => config.flags &= !HAS_DEADLINE,
            Some(after) => {
                config.deadline = now.saturating_add(after.as_millis() as u64);
                config.flags |= HAS_DEADLINE;
            }
        }
        Ok(())
    }

    fn counters(&mut self) -> anyhow::Result<Counters> {
        let state = self.judge.state();
        let totals = state.tables.totals();
        let forwarded = Side::ALL.iter().map(|side| {
            let [packets, bytes] = totals.forwarded[*side as usize];
            (side.name(), packets, bytes)
        });
        let rules = (0u32..).zip(&totals.rules).filter(|(_, rule)| **rule != RuleTotals::default());
        let (live, most) = state.tables.entries();
        let tables = state.tables.sizes();
        let routes = totals.routes.iter().map(|(route, totals)| RouteCounters {
            route: *route,
            flows: totals.admitted,
            drops: totals.refused,
            packets: totals.packets,
            bytes: totals.bytes,
        });
        Ok(Counters {
            routes: routes.collect(),
            forwarded: forwarded.collect(),
            answers: Answer::ALL.iter().map(|a| (a.name(), totals.answers[*a as usize])).collect(),
            drops: DropReason::ALL.iter().map(|r| (r.name(), totals.dropped[*r as usize])).collect(),
            rules: rules
                .map(|(slot, rule)| RuleCounters {
                    slot,
                    flows: rule.admitted,
                    drops: rule.refused,
                    packets: rule.packets,
                    bytes: rule.bytes,
                })
                .collect(),
            flows_started: totals.started,
            events_lost: totals.lost,
            events_suppressed: totals.suppressed,
            flow_entries: (live as u64, most as u64),
            memory_bytes: tables.iter().map(|table| table.bytes).sum(),
            tables,
            half_open_evicted: totals.half_open_evicted,
            port_collisions: totals.port_collisions.into(),
        })
    }

    fn sweep(&mut self) -> anyhow::Result<Vec<FlowRecord>> {
        self.sites.attach();
        self.addresses_changed();
        let now = self.judge.now();
        let mut state = self.judge.state();
        let unsent = state.unsent.0;
        let live = state.tables.sweep(now as u32);
        drop(state);
        self.unsent = (unsent, unsent > self.unsent.0);
        Ok(live)
    }

    fn events(&mut self) -> Vec<Event> {
        let mut state = self.judge.state();
        let (told, ended) = (state.tables.take_events(), state.tables.take_ended());
        told.iter().map(from_record).chain(ended).collect()
    }

    fn set_capture(&mut self, filter: Option<Filter>) -> anyhow::Result<()> {
        self.judge.state().capture = filter.map(Capture::new);
        Ok(())
    }

    fn captured(&mut self) -> (Vec<Captured>, u64) {
        self.judge.state().capture.as_mut().map(Capture::take).unwrap_or_default()
    }

    fn live(&mut self) -> anyhow::Result<Box<dyn Live + '_>> {
        let now = self.judge.now();
        Ok(Box::new(LiveTables::new(Locked(self.judge.state()), now)))
    }

    fn addresses_changed(&mut self) {
        match host_addresses() {
            Ok(host) => {
                self.judge.state().tables.set_host_addresses(host);
                self.unseen = None;
            }
            Err(e) => {
                self.unseen = Some(format!("packets are judged by addresses of this host that were: {e}"))
            }
        }
    }

    fn degraded(&self) -> Vec<String> {
        let mut all: Vec<String> = self.trouble.iter().chain(&self.unseen).cloned().collect();
        if self.settings.xdp.guard.is_some() {
            all.push(
                "the underlay guard is an eBPF program and does not run in user space: WireGuard alone checks what arrives on its \
                 port, and its own limit of handshakes stays; use `--datapath ebpf`, or take `[underlay] guard` out"
                    .into(),
            );
        }
        all.extend(self.sites.degraded());
        if self.unsent.1 {
            let (count, why) = &self.judge.state().unsent;
            all.push(format!("{count} packets could not be sent on so far, the last one {why}"));
        }
        all
    }
}
