//! Contestants: three namespaces in a row, sender, gateway, receiver, with one way of enforcing the policy in the middle.

use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use sluicegate_api::image::Image;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{
    Choice, Datapath as _, Egress, FlowSettings, FlowTable, Settings, XdpChoice, XdpSettings,
};
use sluicegate_lab::{Lab, Namespace, Program};

use crate::traffic::{Burst, Family, Plan, SMALLEST, Traffic, require_arrival};
use crate::{account, processors};

/// How much ours has room for.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// Entries of the flow table of each family; a flow takes two.
    pub(crate) flow_entries: u32,
    /// Ports to masquerade with.
    pub(crate) nat_ports: RangeInclusive<u16>,
}

impl Default for Room {
    /// What an agent has unless an operator says otherwise; the kernel's connection table has as many buckets here.
    fn default() -> Self {
        Self { flow_entries: 262_144, nat_ports: 20_000..=32_767 }
    }
}

/// How the gateway in the middle enforces the policy.
pub(crate) enum Way {
    /// Ours, in TC, with the given number of resources and policies.
    Ours(u32),
    /// Ours, the whole path in XDP.
    OursXdp(u32),
    /// The kernel's forwarding and a ruleset.
    Nftables(String),
    /// The kernel's forwarding and no firewall.
    Plain,
    /// An XDP program that looks the route up and redirects, and nothing else.
    Floor,
}

/// What was carried while something else was going on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Packets of established flows.
    pub(crate) sent: u64,
    /// Those of them that arrived.
    pub(crate) arrived: u64,
    /// Packets that no rule admits.
    pub(crate) denied: u64,
    /// Those of them that arrived.
    pub(crate) passed: u64,
    /// By the gateway's own counters.
    pub(crate) gateway: Counted,
    /// From the first to the last, pauses included.
    pub(crate) took: Duration,
}

/// What our datapath counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// Packets that went on to the site.
    forwarded: u64,
    /// Packets that no rule admits.
    no_rule: u64,
    /// Packets dropped for any other reason; but for multicast, which hosts send by themselves.
    dropped: u64,
    /// Flows opened.
    pub(crate) opened: u64,
}

impl Counted {
    fn since(self, before: Self) -> Self {
        Self {
            forwarded: self.forwarded - before.forwarded,
            no_rule: self.no_rule - before.no_rule,
            dropped: self.dropped - before.dropped,
            opened: self.opened - before.opened,
        }
    }
}

impl Load {
    /// Packets of established flows that the gateway took in and that did not arrive.
    pub(crate) fn lost(&self) -> u64 {
        let misjudged = self.gateway.no_rule.saturating_sub(self.denied);
        self.gateway.forwarded.saturating_sub(self.arrived + self.passed) + self.gateway.dropped + misjudged
    }

    /// Packets that were sent and never came to the gateway: the queue in front of it was full.
    pub(crate) fn in_front(&self) -> u64 {
        let came = self.gateway.forwarded + self.gateway.no_rule + self.gateway.dropped;
        (self.sent + self.denied).saturating_sub(came)
    }

    /// Of the clock on the wall, per packet.
    pub(crate) fn nanoseconds(&self) -> f64 {
        self.took.as_nanos() as f64 / (self.sent + self.denied) as f64
    }
}

/// One contestant, ready to carry traffic.
pub(crate) struct Contestant {
    name: String,
    source: Namespace,
    gateway: Namespace,
    traffic: Traffic,
    plan: Plan,
    datapath: Option<EbpfDatapath>,
}

impl Contestant {
    /// Builds the namespaces `NAME-src`, `NAME-gw` and `NAME-dst` and puts `way` to work. Traffic goes to `resources` hosts.
    pub(crate) fn new(lab: &Lab, name: &str, way: &Way, resources: u32) -> Result<Self> {
        Self::with_room(lab, name, way, resources, &Room::default())
    }

    /// The same, with this room where it is ours.
    pub(crate) fn with_room(lab: &Lab, name: &str, way: &Way, resources: u32, room: &Room) -> Result<Self> {
        let [source, gateway, sink] =
            ["src", "gw", "dst"].map(|role| lab.namespace(&format!("{name}-{role}")));
        let (source, gateway, sink) = (source?, gateway?, sink?);
        lab.veth((&source, "out"), (&gateway, "overlay"))?;
        lab.veth((&gateway, "site"), (&sink, "in"))?;
        lay_routes(&source, &gateway, &sink)?;
        let mut traffic = Traffic::load()?;
        traffic.attach(&sink, "sink", "in")?;
        if matches!(way, Way::OursXdp(_) | Way::Floor) {
            // A veth device sends what XDP redirects to it only while its peer runs XDP.
            traffic.attach(&source, "pass", "out")?;
        } else {
            traffic.attach(&gateway, "pass", "overlay")?;
        }
        let ours = |policies: &u32, xdp| {
            let image = account::image(*policies)?;
            open(&settings(lab, name, xdp, room, &image)?, &gateway, &image, 1).map(Some)
        };
        let datapath = match way {
            Way::Ours(policies) => {
                traffic.attach(&gateway, "pass", "site")?;
                ours(policies, XdpChoice::Off)?
            }
            Way::OursXdp(policies) => ours(policies, XdpChoice::Native)?,
            Way::Floor => {
                traffic.attach(&gateway, "route", "overlay")?;
                traffic.attach(&gateway, "route", "site")?;
                // The helper wants it (net/core/filter.c, bpf_ipv4_fib_lookup).
                forward(&gateway)?;
                None
            }
            Way::Nftables(rules) => {
                traffic.attach(&gateway, "pass", "site")?;
                forward(&gateway)?;
                load_ruleset(lab, name, &gateway, rules)?;
                None
            }
            Way::Plain => {
                traffic.attach(&gateway, "pass", "site")?;
                forward(&gateway)?;
                None
            }
        };
        let mut ethernet = [0; 12];
        ethernet[..6].copy_from_slice(&mac(&gateway, "overlay")?);
        ethernet[6..].copy_from_slice(&mac(&source, "out")?);
        let plan = Plan {
            ethernet,
            source4: account::FIRST_PEER,
            destination4: account::FIRST_RESOURCE,
            source6: account::OVERLAY6,
            destination6: account::RESOURCE6,
            destinations: resources,
            port: account::PORT.into(),
            device: index(&source, "out")?,
            payload: SMALLEST,
            ..Plan::default()
        };
        Ok(Self { name: name.to_owned(), source, gateway, traffic, plan, datapath })
    }

    /// Opens `flows` flows and lets each be answered and go on, so that every contestant has them established.
    pub(crate) fn establish(&mut self, family: Family, flows: u32) -> Result<()> {
        // A flow is half open until its opener sends again: no more at a time than there is room for.
        const TOGETHER: u32 = 4_096;
        let plan = Plan { sequential: 1, ..self.flows(flows) };
        self.traffic.set_echo(true)?;
        for first in (0..flows).step_by(TOGETHER as usize) {
            for _ in 0..3 {
                self.traffic.start_with(first)?;
                self.traffic.send(&self.source, family, &plan, TOGETHER.min(flows - first))?;
            }
        }
        self.traffic.set_echo(false)?;
        self.traffic.start_with(0)?;
        let burst = self.traffic.send(&self.source, family, &plan, flows)?;
        require_arrival(&burst, &format!("{} ({} established flows, {})", self.name, flows, family.name()))?;
        self.require_established(family, flows)
    }

    /// Refuses flows that pass without being in our table of established ones: their packets would cost what openings cost.
    fn require_established(&mut self, family: Family, flows: u32) -> Result<()> {
        let Some(datapath) = &mut self.datapath else { return Ok(()) };
        self.gateway.enter(|| datapath.sweep())??;
        let tables = datapath.counters()?.tables;
        let is_it = |table: &&FlowTable| {
            table.stage == "confirmed" && table.family.eq_ignore_ascii_case(family.name())
        };
        let entries = tables.iter().find(is_it).map_or(0, |table| table.entries);
        // Two half-entries a flow, those of the points before among them.
        if entries * 100 < u64::from(flows) * 2 * 99 {
            bail!("{} has {entries} half-entries of {flows} {} flows", self.name, family.name());
        }
        Ok(())
    }

    /// One round of packets of established flows, in random order.
    pub(crate) fn established(&mut self, family: Family, flows: u32, count: u32) -> Result<f64> {
        let plan = self.flows(flows);
        let burst = self.traffic.send(&self.source, family, &plan, count)?;
        require_arrival(&burst, &self.name)?;
        Ok(burst.nanoseconds())
    }

    /// One round of packets each of which opens a flow of its own.
    pub(crate) fn first(&mut self, family: Family, count: u32) -> Result<f64> {
        // Never the same tuple twice: the counter goes on from round to round.
        let plan = self.opening();
        let burst = self.traffic.send(&self.source, family, &plan, count)?;
        if let Err(e) = require_arrival(&burst, &self.name) {
            let drops = self.datapath.as_mut().map(|d| d.counters()).transpose()?.map(|c| c.drops);
            bail!("{e}, drops {drops:?}");
        }
        Ok(burst.nanoseconds())
    }

    /// One round of packets to a port that no rule admits.
    pub(crate) fn denied(&mut self, family: Family, count: u32) -> Result<f64> {
        let plan = Plan { port: account::DENIED_PORT.into(), ..self.flows(account::PEERS) };
        let Burst { seen, took, sent } = self.traffic.send(&self.source, family, &plan, count)?;
        if seen != 0 {
            bail!("{} let {seen} of {sent} denied packets pass", self.name);
        }
        Ok(took.as_nanos() as f64 / f64::from(sent))
    }

    /// `count` packets that open flows of any source and port, whatever becomes of them. One in hundreds has been sent before.
    pub(crate) fn openings(&mut self, family: Family, count: u32) -> Result<Burst> {
        let plan = Plan { sequential: 0, ..self.opening() };
        self.traffic.send(&self.source, family, &plan, count)
    }

    /// One packet of each of `flows` established flows; how many did not arrive.
    pub(crate) fn missing(&mut self, family: Family, flows: u32) -> Result<u64> {
        let plan = Plan { sequential: 1, ..self.flows(flows) };
        self.traffic.start_with(0)?;
        let burst = self.traffic.send(&self.source, family, &plan, flows)?;
        Ok(u64::from(burst.sent).saturating_sub(burst.seen))
    }

    /// Packets of `flows` established flows of each family, and denied ones, in turn, for as long as `meanwhile` works on our datapath on
    /// another processor. `count` packets at a time.
    pub(crate) fn carry_while(
        &mut self,
        flows: u32,
        count: u32,
        meanwhile: impl FnOnce(&mut Option<EbpfDatapath>, &Namespace) -> Result<()> + Send,
    ) -> Result<Load> {
        let before = self.counted()?;
        let established = self.flows(flows);
        let denied = Plan { port: account::DENIED_PORT.into(), ..established };
        let Self { source, gateway, traffic, datapath, .. } = self;
        let mut load = Load::default();
        let begun = Instant::now();
        thread::scope(|scope| -> Result<()> {
            let worker = scope.spawn(|| processors::all().and_then(|()| meanwhile(datapath, gateway)));
            while !worker.is_finished() {
                for family in Family::BOTH {
                    let burst = traffic.send(source, family, &established, count)?;
                    load.sent += u64::from(burst.sent);
                    load.arrived += burst.seen;
                    let burst = traffic.send(source, family, &denied, count)?;
                    load.denied += u64::from(burst.sent);
                    load.passed += burst.seen;
                }
            }
            worker.join().map_err(|_| anyhow!("what was to happen meanwhile broke down"))?
        })?;
        load.took = begun.elapsed();
        load.gateway = self.counted()?.since(before);
        Ok(load)
    }

    fn counted(&mut self) -> Result<Counted> {
        let (datapath, _) = self.datapath().context("only ours counts packets")?;
        let counters = datapath.counters()?;
        let dropped = |counts: fn(&str) -> bool| {
            counters.drops.iter().filter(|(reason, _)| counts(reason)).map(|(_, packets)| packets).sum()
        };
        Ok(Counted {
            forwarded: counters.forwarded.iter().find(|(from, ..)| *from == "overlay").map_or(0, |way| way.1),
            no_rule: dropped(|reason| reason == "no_rule"),
            dropped: dropped(|reason| !["no_rule", "not_unicast"].contains(&reason)),
            opened: counters.flows_started,
        })
    }

    /// Flows that our datapath has opened since it was made.
    pub(crate) fn flows_started(&mut self) -> Result<u64> {
        let (datapath, _) = self.datapath().context("only ours counts flows")?;
        Ok(datapath.counters()?.flows_started)
    }

    /// Packets that our datapath has dropped for `reason`.
    pub(crate) fn dropped(&mut self, reason: &str) -> Result<u64> {
        let (datapath, _) = self.datapath().context("only ours counts drops")?;
        let drops = datapath.counters()?.drops;
        Ok(drops.iter().find(|(name, _)| *name == reason).map_or(0, |(_, packets)| *packets))
    }

    /// Makes the packets of later rounds carry `payload` bytes, at least [`SMALLEST`].
    pub(crate) fn set_payload(&mut self, payload: u32) {
        self.plan.payload = payload;
    }

    /// Our datapath, for running its programs on single frames, and the namespace it lives in.
    pub(crate) fn datapath(&mut self) -> Option<(&mut EbpfDatapath, &Namespace)> {
        self.datapath.as_mut().map(|datapath| (datapath, &self.gateway))
    }

    /// Over all sources and ports there are.
    fn opening(&self) -> Plan {
        const PORTS: u32 = 60_000;
        Plan { sequential: 1, flows: account::PEERS * PORTS, ports: PORTS, ..self.plan }
    }

    fn flows(&self, flows: u32) -> Plan {
        Plan { flows, ports: flows.div_ceil(account::PEERS), ..self.plan }
    }
}

/// Addresses, routes, and neighbours set by hand: resolving them is not what is measured.
fn lay_routes(source: &Namespace, gateway: &Namespace, sink: &Namespace) -> Result<()> {
    for (namespace, device, v4, v6) in [
        (source, "out", "100.64.0.2/16", "fd64::6440:2/64"),
        (gateway, "overlay", "100.64.0.1/16", "fd64::6440:1/64"),
        (gateway, "site", "10.0.0.1/24", "fd11::1/64"),
        (sink, "in", "10.0.0.2/24", "fd11::2/64"),
    ] {
        namespace.address(device, v4)?;
        namespace.address(device, v6)?;
    }
    let neighbour = |namespace: &Namespace, address: &str, device: &str, mac: [u8; 6]| -> Result<()> {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        namespace
            .ip(&["neigh", "replace", address, "lladdr", &mac, "dev", device, "nud", "permanent"])
            .map(drop)
    };
    neighbour(gateway, "100.64.0.2", "overlay", mac(source, "out")?)?;
    neighbour(gateway, "fd64::6440:2", "overlay", mac(source, "out")?)?;
    neighbour(gateway, "10.0.0.2", "site", mac(sink, "in")?)?;
    neighbour(gateway, "fd11::2", "site", mac(sink, "in")?)?;
    gateway.route("100.64.1.0/24", "100.64.0.2")?;
    gateway.route("10.128.0.0/9", "10.0.0.2")?;
    gateway.ip(&["-6", "route", "add", "fd64::6440:100/120", "via", "fd64::6440:2"])?;
    gateway.ip(&["-6", "route", "add", "fd10::/64", "via", "fd11::2"])?;
    Ok(())
}

fn forward(gateway: &Namespace) -> Result<()> {
    gateway.sysctl("net/ipv4/ip_forward", "1")?;
    gateway.sysctl("net/ipv6/conf/all/forwarding", "1")
}

/// What our datapath called `name` has and does.
pub(crate) fn settings(
    lab: &Lab,
    name: &str,
    xdp: XdpChoice,
    room: &Room,
    image: &Image,
) -> Result<Settings> {
    Ok(Settings {
        choice: Choice::Ebpf,
        bpf_dir: lab.bpffs()?.join(name),
        site_devices: vec!["site".into()],
        nat_ports: room.nat_ports.clone(),
        flow_entries: room.flow_entries,
        image_words: image.words.len() as u32,
        mtu: 1420,
        flows: FlowSettings::default(),
        xdp: XdpSettings { choice: xdp, guard: None },
    })
}

/// Ours, at work in `gateway` with `image`; takes over what one with the same settings, and an older `revision`, left there.
pub(crate) fn open(
    settings: &Settings,
    gateway: &Namespace,
    image: &Image,
    revision: u64,
) -> Result<EbpfDatapath> {
    let mut datapath = gateway.enter(|| EbpfDatapath::open(settings, "overlay"))??;
    gateway.enter(|| -> Result<()> {
        datapath.set_overlay("100.64.0.0/16".parse()?, "fd64::/64".parse()?)?;
        let device = index(gateway, "site")?;
        let routes: Vec<Egress> = image
            .routes
            .keys()
            .map(|route| Egress {
                route: *route as u16,
                device,
                source_v4: Some([10, 0, 0, 1].into()),
                source_v6: "fd11::1".parse().ok(),
                pool: [1, 1],
            })
            .collect();
        datapath.set_egress(&routes)?;
        datapath.apply(revision, image).context("the image was refused")
    })??;
    let degraded = datapath.degraded();
    if !degraded.is_empty() {
        bail!("{} is not what is to be measured: {}", settings.bpf_dir.display(), degraded.join("; "));
    }
    Ok(datapath)
}

fn load_ruleset(lab: &Lab, name: &str, gateway: &Namespace, rules: &str) -> Result<()> {
    let file = lab.dir().join(format!("{name}.nft"));
    std::fs::write(&file, rules)?;
    gateway.run(&Program::new("nft").arg("-f").arg(&file), Duration::from_secs(120))?.output().map(drop)
}

fn mac(namespace: &Namespace, device: &str) -> Result<[u8; 6]> {
    let text = namespace.ip(&["-o", "link", "show", "dev", device])?;
    let mac =
        text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).context("no MAC address")?;
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{mac} is no MAC address"))
}

fn index(namespace: &Namespace, device: &str) -> Result<u32> {
    let text = namespace.ip(&["-o", "link", "show", "dev", device])?;
    Ok(text.split(':').next().context("no index")?.trim().parse()?)
}
