//! The kernel's datapath: programs in TC and XDP, everything they know in pinned maps.

mod addresses;
mod attach;
mod capture;
mod clsact;
mod devices;
mod evictions;
mod flows;
mod guard;
mod image;
mod links;
mod live;
mod load;
mod mappings;
mod memory;
mod netdev;
mod netlink;
mod pins;
mod pod;
mod ports;
mod routes;
mod sys;
mod tags;
mod ways;
mod wires;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues, RingBuf};
use ipnet::{Ipv4Net, Ipv6Net};
use sluicegate_api::image::{Hash, Image};
use sluicegate_engine::answer::Answer;
use sluicegate_engine::capture::{Captured, Filter};
use sluicegate_engine::event::Event as Record;
use sluicegate_engine::family::{Address4, V4, V6};
use sluicegate_engine::flow::Side;
use sluicegate_engine::nat::PROBES;
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::{CAPTURE, Config, ENDPOINT_INDEPENDENT, HAS_DEADLINE};

use self::addresses::AddressMaps;
use self::capture::CaptureMaps;
use self::devices::Devices;
use self::evictions::HalfOpenCounts;
use self::flows::{FlowMaps, Sweep};
use self::guard::GuardMaps;
use self::image::Images;
use self::live::LiveMaps;
use self::load::{Loaded, Sizes};
use self::mappings::MappingMaps;
use self::pins::Pins;
use self::pod::Raw;
use self::ports::HostPorts;
use self::routes::RouteCounts;
use self::ways::Ways;
use self::wires::Wires;
use super::events::from_record;
use super::ledger::{Gone, Ledger};
use super::slots::RuleSlots;
use super::totals::Totals;
use super::{
    ApplyError, Change, Counters, Datapath, Egress, Event, EventKind, FlowRecord, FlowTable, GuardState,
    InForce, Kind, Live, RuleCounters, Settings, XdpDevice, device,
};

/// Programs and maps in the kernel, which go on judging when this is dropped.
pub struct EbpfDatapath {
    ebpf: Ebpf,
    bpf_dir: PathBuf,
    pins: Pins,
    /// Programs of an agent whose maps are read otherwise judge, until an image and its routes are in ours.
    succeeding: bool,
    overlay: String,
    ethernet: bool,
    devices: Devices,
    /// Where the underlay guard is asked for.
    guard: Option<GuardMaps>,
    /// Trouble with the guard's maps, and with other programs on the overlay device.
    trouble: BTreeMap<&'static str, String>,
    sizes: Sizes,
    /// Bytes of the kernel's memory, by map.
    memory: BTreeMap<String, u64>,
    hz: u32,
    images: Images,
    config: Array<MapData, Raw<Config>>,
    settings: Config,
    ways: Ways,
    wires: Wires,
    drops: PerCpuArray<MapData, u64>,
    answers: PerCpuArray<MapData, u64>,
    forwarded: PerCpuArray<MapData, [u64; 2]>,
    rules: PerCpuArray<MapData, [u64; 2]>,
    /// The same map, for reading it in batches.
    rules_raw: MapData,
    processors: usize,
    lost: PerCpuArray<MapData, u64>,
    suppressed: PerCpuArray<MapData, u64>,
    ring: RingBuf<MapData>,
    flows4: FlowMaps<V4>,
    flows6: FlowMaps<V6>,
    mappings4: MappingMaps<V4>,
    mappings6: MappingMaps<V6>,
    half_open: HalfOpenCounts,
    collisions: PerCpuArray<MapData, u64>,
    entries: u64,
    events: Vec<Event>,
    totals: Totals,
    by_route: RouteCounts,
    capture: CaptureMaps,
    ledger: Ledger,
    slots: RuleSlots,
    /// Flows admitted by rules whose slot another rule has now.
    retired: u64,
    degraded: Vec<String>,
    ports: HostPorts,
    addresses: AddressMaps,
}

impl EbpfDatapath {
    /// Loads the programs and puts them on the overlay device and the site devices, over what an earlier agent left pinned:
    /// its flows, its image and its counters go on. A site device that is not there is attached to when it comes.
    ///
    /// Where that agent was of a version with other maps, or had room for images of another size, its programs stay until
    /// an image and its routes have been told to this one; then they are replaced, and its flows go on.
    pub fn open(settings: &Settings, overlay: &str) -> anyhow::Result<Self> {
        let index =
            device::index(overlay).with_context(|| format!("overlay device {overlay} is not there"))?;
        let ethernet =
            device::is_ethernet(overlay).with_context(|| format!("overlay device {overlay} has no type"))?;
        let Loaded { mut ebpf, sizes, pins, degraded } = load::load(settings, ethernet)?;
        let hz = load::tick_rate(&mut ebpf)?;
        let dir = &settings.bpf_dir;
        let guard =
            settings.xdp.guard.as_ref().map(|guard| GuardMaps::new(&mut ebpf, guard, hz)).transpose()?;
        let images = Images::new(
            &pins.open("ACTIVE")?,
            &pins.open("IMAGE")?,
            load::take(&mut ebpf, "IN_FORCE")?,
            sizes.image_lines,
            sizes.rule_slots,
        )?;
        let ways = Ways::new(&mut ebpf, &pins, images.active().half())?;
        let flows4 = FlowMaps::new(&pins, "FLOWS4", "HALF_OPEN4")?;
        let flows6 = FlowMaps::new(&pins, "FLOWS6", "HALF_OPEN6")?;
        let config: Array<MapData, Raw<Config>> = load::take(&mut ebpf, "CONFIG")?;
        let pinned = config.get(&0, 0).map(|raw| raw.0).unwrap_or_default();
        let processors = aya::util::nr_cpus().map_err(|(what, e)| anyhow::Error::new(e).context(what))?;
        let mut datapath = Self {
            bpf_dir: dir.clone(),
            overlay: overlay.to_owned(),
            ethernet,
            devices: Devices::new(settings, ethernet.then_some(overlay)),
            guard,
            trouble: BTreeMap::new(),
            sizes,
            memory: pins.memory()?,
            hz,
            images,
            settings: Config {
                ticks_per_second: hz,
                hop_lifetime: hz,
                overlay_device: index,
                overlay_mtu: settings.mtu.into(),
                nat_first: *settings.nat_ports.start(),
                nat_count: settings
                    .nat_ports
                    .end()
                    .saturating_sub(*settings.nat_ports.start())
                    .saturating_add(1),
                flags: pinned.flags & HAS_DEADLINE | settings.flows.flags(),
                half_open_per_source: settings.flows.half_open_per_source,
                timeouts: settings.flows.timeouts.ticks(hz),
                // Until the agent says otherwise the overlay and the deadline are the ones the programs go by already.
                ..pinned
            },
            config,
            ways,
            wires: Wires::new(&mut ebpf, &pins)?,
            drops: load::take(&mut ebpf, "DROPS")?,
            answers: load::take(&mut ebpf, "ANSWERS")?,
            forwarded: load::take(&mut ebpf, "FORWARDED")?,
            rules: load::take(&mut ebpf, "RULES")?,
            rules_raw: pins.open("RULES")?,
            processors,
            lost: load::take(&mut ebpf, "EVENTS_LOST")?,
            suppressed: load::take(&mut ebpf, "EVENTS_SUPPRESSED")?,
            capture: CaptureMaps::new(&mut ebpf)?,
            by_route: RouteCounts::new(&mut ebpf, &pins, processors)?,
            ring: load::take(&mut ebpf, "EVENTS")?,
            flows4,
            flows6,
            mappings4: MappingMaps::new(&mut ebpf, "MAPPINGS4")?,
            mappings6: MappingMaps::new(&mut ebpf, "MAPPINGS6")?,
            half_open: HalfOpenCounts::new(&mut ebpf)?,
            collisions: load::take(&mut ebpf, "PORT_COLLISIONS")?,
            entries: 0,
            events: Vec::new(),
            totals: Totals::default(),
            ledger: Ledger::default(),
            slots: RuleSlots::default(),
            retired: 0,
            degraded,
            ports: HostPorts::new(&mut ebpf, &settings.nat_ports, !settings.site_devices.is_empty())?,
            addresses: AddressMaps::new(&mut ebpf)?,
            succeeding: false,
            pins,
            ebpf,
        };
        // A capture of the agent before has ended with it.
        datapath.settings.flags &= !CAPTURE;
        datapath.write_config()?;
        // Without an image ours would cut what those of the agent before let pass.
        datapath.succeeding =
            datapath.images.in_force().is_none() && datapath.pins.has_others() && attach::any(dir);
        if datapath.succeeding {
            tracing::info!(
                "the programs of another version judge until an image is in force in this one's maps"
            );
            datapath.keep_up();
        } else {
            datapath.renew()?;
        }
        datapath.refresh_wires()?;
        Ok(datapath)
    }

    /// Puts the programs loaded now in the place of an earlier agent's at every hook, and takes away what that has left at
    /// others.
    fn renew(&mut self) -> anyhow::Result<()> {
        let (dir, overlay) = (self.bpf_dir.clone(), self.overlay.clone());
        let index =
            device::index(&overlay).with_context(|| format!("overlay device {overlay} is not there"))?;
        for hook in attach::overlay(self.ethernet) {
            attach::ensure(&mut self.ebpf, &dir, &overlay, index, hook, true)?;
        }
        let hooks = self.devices.hooks();
        let overlay_hooks = attach::overlay(self.ethernet).into_iter().map(|hook| (overlay.as_str(), hook));
        attach::retain(
            &dir,
            overlay_hooks.chain(hooks.iter().map(|(device, hook)| (device.as_str(), *hook))),
        )?;
        self.devices.attach(&mut self.ebpf, true);
        self.succeeding = false;
        self.pins.remove_others()
    }

    /// Replaces the programs of an agent whose maps are read otherwise, as soon as ours know all that they need.
    fn succeed(&mut self) {
        let overlay_is_known = self.settings.own4 != Address4::default();
        if !self.succeeding || !overlay_is_known || self.images.in_force().is_none() {
            return;
        }
        let renewed = self.renew();
        if renewed.is_ok() {
            tracing::info!("the programs of another version are replaced");
        }
        let sentence = |e| {
            format!("the programs of another version go on by their image, and could not be replaced: {e:#}")
        };
        self.note("succession", renewed.err().map(sentence));
    }

    /// Runs one of the programs once on `frame`, from its Ethernet header on if the program's device has one: with the
    /// flows and the image in force, but the frame goes nowhere. Returns the program's answer and how long it took.
    pub fn run_once(&mut self, program: &str, frame: &[u8]) -> anyhow::Result<(u32, Duration)> {
        load::run_once(&mut self.ebpf, program, frame)
    }

    /// Instructions the verifier walked for each program: the cost of loading, and the distance to the kernel's limit.
    pub fn verified_instructions(&self) -> anyhow::Result<BTreeMap<String, u32>> {
        let programs = self.ebpf.programs().filter(|(_, program)| program.fd().is_ok());
        programs
            .map(|(name, program)| {
                Ok((name.to_owned(), program.info()?.verified_instruction_count().unwrap_or(0)))
            })
            .collect()
    }

    /// Sets the counters of numbers to zero that stand for something else now. The image is in force whatever becomes of a
    /// counter.
    fn count_anew(&mut self, routes: Vec<u32>, slots: Vec<u32>) {
        for route in routes {
            if let Err(error) = self.by_route.start_anew(route) {
                tracing::warn!("route {route} goes on counting from its resource before: {error:#}");
            }
        }
        for slot in slots {
            if let Err(error) = self.start_anew(slot) {
                tracing::warn!("rule slot {slot} goes on counting from its rule before: {error:#}");
            }
        }
    }

    /// Sets a slot's counters to zero, since another rule has it now.
    fn start_anew(&mut self, slot: u32) -> anyhow::Result<()> {
        let counted = self.rules.get(&slot, 0).context("a rule counter could not be read")?;
        self.retired += counted.iter().map(|[flows, _]| flows).sum::<u64>();
        let zeros = PerCpuValues::try_from(vec![[0; 2]; self.processors])?;
        self.rules.set(slot, zeros, 0).context("a rule counter could not be cleared")?;
        self.totals.forget(slot);
        Ok(())
    }

    /// Keeps the ports of flows that live, where a port is kept towards every destination.
    fn note_ports(&mut self, live: &[FlowRecord], now: u32) -> anyhow::Result<()> {
        if self.settings.flags & ENDPOINT_INDEPENDENT == 0 {
            return Ok(());
        }
        let (hz, udp) = (self.hz, self.settings.timeouts.udp);
        self.mappings4.note(
            live,
            |ip| match ip {
                IpAddr::V4(v4) => Some(v4.into()),
                IpAddr::V6(_) => None,
            },
            now,
            hz,
            udp,
        )?;
        self.mappings6.note(
            live,
            |ip| match ip {
                IpAddr::V6(v6) => Some(v6.into()),
                IpAddr::V4(_) => None,
            },
            now,
            hz,
            udp,
        )
    }

    /// The flow tables, as of the last sweep.
    fn flow_tables(&self) -> Vec<FlowTable> {
        let (confirmed, half_open) = (self.sizes.flow_entries.into(), self.sizes.half_open_entries.into());
        [
            ("confirmed", "ipv4", "FLOWS4", self.flows4.entries(), confirmed),
            ("confirmed", "ipv6", "FLOWS6", self.flows6.entries(), confirmed),
            ("half_open", "ipv4", "HALF_OPEN4", self.flows4.half_open_entries(), half_open),
            ("half_open", "ipv6", "HALF_OPEN6", self.flows6.half_open_entries(), half_open),
        ]
        .map(|(stage, family, map, entries, capacity)| FlowTable {
            stage,
            family,
            entries,
            capacity,
            bytes: self.memory.get(map).copied().unwrap_or(0),
        })
        .into()
    }

    fn write_config(&mut self) -> anyhow::Result<()> {
        self.config.set(0, Raw(self.settings), 0).context("map CONFIG could not be written")
    }

    /// The programs' clock now.
    fn clock(&mut self) -> anyhow::Result<u64> {
        load::ticks(&mut self.ebpf)
    }

    /// Looks how frames travel now, and tells the programs where that has changed.
    fn refresh_wires(&mut self) -> anyhow::Result<()> {
        let overlay = self.ethernet.then_some(self.overlay.as_str());
        let (devices, ethernet) = (&self.devices, self.ethernet);
        let sends =
            |(index, name): &(u32, String)| Ok(ethernet && wires::device_sends(*index, devices.mode(name))?);
        if self.wires.refresh(overlay, devices.site(), sends)? {
            self.settings.overlay_link = self.wires.link(self.settings.overlay_device);
            self.write_config()?;
            let (wires, active) = (&self.wires, self.images.active().half());
            self.ways.refresh(active, |device| wires.link(device))?;
            // Flows remember whether XDP can send to their neighbour.
            self.forget_neighbours()?;
        }
        if self.wires.is_retiring() {
            self.images.wait_for_programs()?;
            self.wires.retire();
        }
        Ok(())
    }

    /// Exchanges the image and the ways out together.
    fn exchange(
        &mut self,
        next: InForce,
        image: &Image,
        ways: &[Egress],
        change: Option<Change<'_>>,
    ) -> Result<(), ApplyError> {
        if self.ways.named() != ways {
            // Before anything leaves by a device that came: answers that no program sees end in the host's stack, which resets
            // the flows they belong to.
            self.keep_up();
        }
        let Self { images, ways: rows, wires, .. } = self;
        let link = |device| wires.link(device);
        let half = images.exchange(next, image, change, |idle| rows.prepare(idle, ways, link))?;
        rows.publish(half, ways);
        Ok(())
    }

    /// Puts back what is missing, and tells the guard what has changed around it.
    fn keep_up(&mut self) {
        self.addresses_changed();
        self.devices.attach(&mut self.ebpf, false);
        let refreshed = self.guard.as_mut().map_or(Ok(()), GuardMaps::refresh);
        let wires = self.refresh_wires();
        self.note("wires", wires.err().map(|e| format!("XDP sends frames as before: {e:#}")));
        self.note("guard", refreshed.err().map(|e| format!("the underlay guard goes by what was: {e:#}")));
    }

    fn note(&mut self, what: &'static str, sentence: Option<String>) {
        match sentence {
            Some(sentence) => drop(self.trouble.insert(what, sentence)),
            None => drop(self.trouble.remove(what)),
        }
    }

    /// The overlay device may have been made anew under the same name.
    fn attach_overlay(&mut self) -> anyhow::Result<()> {
        let Some(index) = device::index(&self.overlay) else { return Ok(()) };
        if index != self.settings.overlay_device {
            self.settings.overlay_device = index;
            self.write_config()?;
        }
        for hook in attach::overlay(self.ethernet) {
            let program = attach::ensure(&mut self.ebpf, &self.bpf_dir, &self.overlay, index, hook, false)?;
            let in_front = program.and_then(|program| devices::in_front(&self.overlay, hook, program));
            self.note(hook.name(), in_front);
        }
        Ok(())
    }

    /// Counts what an ended flow had carried.
    fn end(&mut self, event: &Event) {
        self.ledger.note(event);
        if let Some(rule) = event.rule {
            self.totals.ended(rule, event.packets, event.bytes);
        }
        if let Some(route) = event.route {
            self.by_route.ended(route, event.packets, event.bytes);
        }
    }

    fn drain_ring(&mut self) {
        let mut told = Vec::new();
        while let Some(item) = self.ring.next() {
            let Some(bytes) = item.first_chunk::<{ size_of::<Record>() }>() else { continue };
            // SAFETY: a record as the programs write it: plain integers and byte arrays, every bit pattern valid.
            let record = unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast::<Record>()) };
            told.push(from_record(&record));
        }
        for event in told.iter().filter(|event| event.kind == EventKind::Revoke) {
            self.end(event);
        }
        self.events.append(&mut told);
    }
}

impl Datapath for EbpfDatapath {
    fn kind(&self) -> Kind {
        Kind::Ebpf
    }

    fn in_force(&self) -> Option<InForce> {
        self.images.in_force()
    }

    fn put(&mut self, revision: u64, hash: Hash, image: &Image, ways: &[Egress]) -> Result<(), ApplyError> {
        self.exchange(InForce { revision, hash }, image, ways, None)?;
        let (routes, slots) = (self.slots.rerouted(image), self.slots.renamed(image));
        self.count_anew(routes, slots);
        self.succeed();
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
        self.exchange(InForce { revision, hash }, image, ways, Some(change))?;
        let (routes, slots) =
            (self.slots.rerouted_by(image, change.undo), self.slots.renamed_by(image, change.undo));
        self.count_anew(routes, slots);
        self.succeed();
        Ok(())
    }

    fn set_overlay(&mut self, v4: Ipv4Net, v6: Ipv6Net) -> anyhow::Result<()> {
        self.settings.overlay4 = [v4.network().into(), v4.netmask().into()];
        self.settings.overlay6 = [v6.network().into(), v6.netmask().into()];
        (self.settings.own4, self.settings.own6) = (v4.addr().into(), v6.addr().into());
        self.write_config()?;
        self.succeed();
        Ok(())
    }

    fn set_egress(&mut self, routes: &[Egress]) -> anyhow::Result<()> {
        // Before anything leaves by a device that came back: answers that no program sees end in the host's stack, which
        // resets the flows they belong to.
        self.keep_up();
        let (wires, active) = (&self.wires, self.images.active().half());
        self.ways.set(active, routes, |device| wires.link(device))?;
        self.forget_neighbours()
    }

    fn egress(&self) -> &[Egress] {
        self.ways.named()
    }

    fn set_deadline(&mut self, after: Option<Duration>) -> anyhow::Result<()> {
        match after {
            None => self.settings.flags &= !HAS_DEADLINE,
            Some(after) => {
                let ticks = (after.as_millis() as u64).saturating_mul(self.hz.into()) / 1000;
                self.settings.deadline = self.clock()?.saturating_add(ticks);
                self.settings.flags |= HAS_DEADLINE;
            }
        }
        self.write_config()
    }

    fn counters(&mut self) -> anyhow::Result<Counters> {
        let sum = |map: &PerCpuArray<MapData, u64>, index: u32| -> anyhow::Result<u64> {
            Ok(map.get(&index, 0).context("a counter could not be read")?.iter().sum())
        };
        let drops = DropReason::ALL
            .iter()
            .map(|reason| Ok((reason.name(), sum(&self.drops, *reason as u32)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let answers = Answer::ALL
            .iter()
            .map(|answer| Ok((answer.name(), sum(&self.answers, *answer as u32)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let forwarded = Side::ALL
            .iter()
            .map(|side| {
                let values = self.forwarded.get(&(*side as u32), 0).context("a counter could not be read")?;
                let total = values.iter().fold([0, 0], |sum, pair| [sum[0] + pair[0], sum[1] + pair[1]]);
                Ok((side.name(), total[0], total[1]))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let slots = self.images.rule_slots().min(self.sizes.rule_slots);
        let counted = sys::sums(self.rules_raw.fd().as_fd(), slots, self.processors)
            .context("the rule counters could not be read")?;
        let rules: Vec<RuleCounters> = (0u32..)
            .zip(counted)
            .filter(|(_, pair)| *pair != [0, 0])
            .map(|(slot, [flows, drops])| {
                let (packets, bytes) = self.totals.of(slot);
                RuleCounters { slot, flows, drops, packets, bytes }
            })
            .collect();
        let routes = self.by_route.read(self.images.routes())?;
        Ok(Counters {
            routes,
            forwarded,
            drops,
            answers,
            flows_started: self.retired + rules.iter().map(|rule| rule.flows).sum::<u64>(),
            rules,
            events_lost: sum(&self.lost, 0)?,
            events_suppressed: sum(&self.suppressed, 0)?,
            flow_entries: (self.entries, u64::from(self.sizes.flow_entries) * 2),
            tables: self.flow_tables(),
            half_open_evicted: self.half_open.evicted(),
            port_collisions: (0..PROBES)
                .map(|taken| sum(&self.collisions, taken))
                .collect::<anyhow::Result<_>>()?,
            memory_bytes: self.memory.values().sum(),
        })
    }

    fn sweep(&mut self) -> anyhow::Result<Vec<FlowRecord>> {
        let now = self.clock()? as u32;
        let mut sweep = Sweep::default();
        let before = self.half_open.read()?;
        self.flows4.sweep(now, self.hz, &mut sweep)?;
        self.flows6.sweep(now, self.hz, &mut sweep)?;
        let present = self.flows4.half_open_entries() + self.flows6.half_open_entries();
        self.half_open.note(before, sweep.half_open_removed, present)?;
        self.entries = sweep.entries;
        self.note_ports(&sweep.live, now)?;
        self.drain_ring();
        for event in &sweep.ended {
            self.end(event);
        }
        let Gone { untold, revoked } = self.ledger.gone(&sweep.live);
        for event in &untold {
            self.end(event);
        }
        for flow in &revoked {
            // An event has told of the rest; of the route it says nothing.
            if let Some(route) = flow.route {
                self.by_route.ended(route, flow.packets, flow.bytes);
            }
        }
        self.totals.live(&sweep.live, |flow| Some(flow.rule));
        self.by_route.live(&sweep.live);
        self.events.append(&mut sweep.ended);
        self.events.extend(untold);
        self.attach_overlay()?;
        self.keep_up();
        self.succeed();
        self.ports.look()?;
        Ok(sweep.live)
    }

    fn events(&mut self) -> Vec<Event> {
        self.drain_ring();
        std::mem::take(&mut self.events)
    }

    fn set_capture(&mut self, filter: Option<Filter>) -> anyhow::Result<()> {
        self.settings.flags &= !CAPTURE;
        if let Some(filter) = filter {
            self.capture.begin(filter)?;
            self.settings.flags |= CAPTURE;
        }
        self.write_config()
    }

    fn captured(&mut self) -> (Vec<Captured>, u64) {
        self.capture.take()
    }

    fn live(&mut self) -> anyhow::Result<Box<dyn Live + '_>> {
        let now = self.clock()?;
        Ok(Box::new(LiveMaps { datapath: self, now }))
    }

    fn set_listen_port(&mut self, port: u16) -> anyhow::Result<()> {
        self.guard.as_mut().map_or(Ok(()), |guard| guard.set_port(port))
    }

    fn forget_neighbours(&mut self) -> anyhow::Result<()> {
        self.settings.hops_since = self.clock()? as u32;
        self.write_config()
    }

    fn addresses_changed(&mut self) {
        let looked = self.addresses.look();
        self.note(
            "addresses",
            looked.err().map(|e| format!("the programs go by addresses that were: {e:#}")),
        );
    }

    fn xdp(&self) -> Vec<XdpDevice> {
        self.devices.xdp(&self.wires)
    }

    fn guard(&self) -> Option<GuardState> {
        self.guard.as_ref().map(GuardMaps::state)
    }

    fn degraded(&self) -> Vec<String> {
        self.degraded
            .iter()
            .chain(self.ports.sentences())
            .chain(self.addresses.degraded())
            .chain(self.trouble.values())
            .chain(self.devices.degraded())
            .chain(self.guard.as_ref().and_then(GuardMaps::degraded))
            .cloned()
            .collect()
    }
}

/// Whether the programs of an earlier agent judge what the overlay device `overlay` carries now.
pub fn guards(bpf_dir: &Path, overlay: &str) -> bool {
    let Some(index) = device::index(overlay) else { return false };
    attach::overlay(false).into_iter().all(|hook| attach::holds(bpf_dir, overlay, index, hook))
}

/// Takes programs and maps under `bpf_dir` off the host. Afterwards nothing is enforced, and nothing is forwarded.
pub fn detach(bpf_dir: &Path) -> anyhow::Result<()> {
    attach::detach_all(bpf_dir)?;
    pins::remove_all(bpf_dir)
}
