//! A peer, a gateway and a site in namespaces; the user-space datapath at work in the gateway.
//!
//! Between peer and gateway packets are carried from one to the other as WireGuard would hand them on, but not encrypted.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sluicegate_gateway::datapath::userspace::UserspaceDatapath;
use sluicegate_gateway::datapath::{Choice, Datapath as _, Egress, FlowSettings, Settings, XdpSettings};
use sluicegate_gateway::overlay::PacketChannels;
use sluicegate_gateway::tun::{Tun, index_of};
use sluicegate_lab::{Lab, Namespace};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::image::{Rule, image};

/// Ports the gateway may masquerade with.
pub(crate) const PORTS: RangeInclusive<u16> = 20_000..=20_063;

/// Something to do with the datapath, in the thread it lives in.
type Ask = Box<dyn FnOnce(&mut UserspaceDatapath) + Send>;

/// The world; gone when dropped.
pub(crate) struct World {
    ask: Option<UnboundedSender<Ask>>,
    gateway_thread: Option<thread::JoinHandle<Result<()>>>,
    pub(crate) peer: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) site: Namespace,
    pub(crate) lab: Lab,
}

impl World {
    /// Everything up, and an image with `rule` in force as revision 1.
    pub(crate) fn new(rule: Rule) -> Result<Self> {
        let lab = Lab::new()?;
        let (peer, gateway, site) =
            (lab.namespace("peer")?, lab.namespace("gateway")?, lab.namespace("site")?);
        lab.veth((&gateway, "eth0"), (&site, "eth0"))?;
        for (namespace, device, addresses) in [
            (&gateway, "eth0", ["10.9.0.1/24", "fd09::1/64"]),
            (&site, "eth0", ["10.9.0.2/24", "fd09::2/64"]),
        ] {
            addresses.iter().try_for_each(|address| namespace.address(device, address))?;
        }
        let (ask, asked) = unbounded_channel();
        let (ready, is_ready) = mpsc::channel();
        let (in_gateway, at_peer) = (gateway.clone(), peer.clone());
        let gateway_thread = thread::spawn(move || in_gateway.enter(|| serve(&at_peer, asked, &ready))?);
        let mut world =
            Self { ask: Some(ask), gateway_thread: Some(gateway_thread), peer, gateway, site, lab };
        if is_ready.recv().is_err() {
            world.stop()?;
        }
        let ends = [
            (&world.peer, ["100.64.0.2/24", "fd64::2/64"]),
            (&world.gateway, ["100.64.0.1/24", "fd64::1/64"]),
        ];
        for (namespace, addresses) in ends {
            namespace.ip(&["link", "set", "sluice0", "up", "mtu", "1420"])?;
            addresses.iter().try_for_each(|address| namespace.address("sluice0", address))?;
        }
        for prefix in ["10.9.0.0/24", "fd09::/64"] {
            world.peer.ip(&["route", "add", prefix, "dev", "sluice0"])?;
        }
        // What the site answers to the overlay itself comes back by the gateway.
        world.site.route("100.64.0.0/24", "10.9.0.1")?;
        world.site.route("fd64::/64", "fd09::1")?;
        world.resolve()?;
        world.apply(1, rule);
        Ok(world)
    }

    /// Does something with the datapath.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut UserspaceDatapath) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = mpsc::channel();
        let job: Ask = Box::new(move |datapath| answer.send(what(datapath)).unwrap());
        self.ask.as_ref().unwrap().send(job).ok().unwrap();
        answered.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    /// Puts an image in force.
    pub(crate) fn apply(&self, revision: u64, rule: Rule) {
        self.ask(move |datapath| datapath.apply(revision, &image(rule))).unwrap();
    }

    /// Tells the datapath where the site is now.
    pub(crate) fn resolve(&self) -> Result<()> {
        self.masquerade_with("10.9.0.1", "fd09::1", 1)
    }

    /// Tells the datapath to masquerade with `count` addresses of each family from these on.
    pub(crate) fn masquerade_with(&self, v4: &str, v6: &str, count: u16) -> Result<()> {
        let (source_v4, source_v6): (Ipv4Addr, Ipv6Addr) = (v4.parse()?, v6.parse()?);
        let device = self.gateway.enter(|| index_of("eth0"))?.context("eth0 of the gateway")?;
        let egress = Egress {
            route: 0,
            device,
            source_v4: Some(source_v4),
            source_v6: Some(source_v6),
            pool: [count; 2],
        };
        self.ask(move |datapath| datapath.set_egress(&[egress]))
    }

    /// A counter of the gateway's own stack: `line` of a file of /proc/net, by the column's or line's name.
    pub(crate) fn host_counter(&self, file: &str, name: &str) -> u64 {
        let path = format!("/proc/thread-self/net/{file}");
        let text = self.gateway.enter(|| std::fs::read_to_string(path)).unwrap().unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let column = lines.iter().enumerate().find_map(|(i, line)| {
            let at = line.iter().position(|word| *word == name)?;
            // snmp names columns in one line and counts in the next; snmp6 has one name and count per line.
            if at == 0 { line.get(1) } else { lines.get(i + 1)?.get(at) }
        });
        column.unwrap_or_else(|| panic!("{file} has no {name}")).parse().unwrap()
    }

    /// How many packets were dropped for this reason.
    pub(crate) fn drops(&self, reason: &'static str) -> u64 {
        let counters = self.ask(|datapath| datapath.counters()).unwrap();
        counters.drops.iter().find(|(name, _)| *name == reason).unwrap().1
    }

    /// Waits for the thread of the gateway to end, as it does when the overlay's queue closes.
    pub(crate) fn stopped(&mut self) -> Result<()> {
        self.gateway_thread.take().map_or(Ok(()), |thread| thread.join().unwrap())
    }

    fn stop(&mut self) -> Result<()> {
        self.ask = None;
        self.stopped()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(e) = self.stop() {
            eprintln!("the gateway's thread failed: {e:#}");
        }
    }
}

/// As a gateway between `eth0` and the overlay.
pub(crate) fn settings() -> Settings {
    Settings {
        choice: Choice::Userspace,
        bpf_dir: "/nonexistent".into(),
        site_devices: vec!["eth0".into()],
        nat_ports: PORTS,
        flow_entries: 4096,
        image_words: 4096,
        mtu: 1420,
        flows: FlowSettings::default(),
        xdp: XdpSettings::default(),
    }
}

/// Opens the datapath and carries packets until nobody asks any more or the overlay's queue closes.
fn serve(peer: &Namespace, mut asked: UnboundedReceiver<Ask>, ready: &mpsc::Sender<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let handle = runtime.handle();
        let at_peer = peer.enter(|| {
            let _in_runtime = handle.enter();
            Tun::open("sluice0")
        })??;
        let tun = Tun::open("sluice0")?;
        let (mut datapath, PacketChannels { to_host, mut from_host }) =
            UserspaceDatapath::open(&settings(), &tun)?;
        datapath.set_overlay("100.64.0.1/24".parse()?, "fd64::1/64".parse()?)?;
        drop(tun);
        ready.send(())?;
        let mut buffer = vec![0; 65_535];
        loop {
            tokio::select! {
                ask = asked.recv() => match ask {
                    Some(ask) => ask(&mut datapath),
                    None => return Ok(()),
                },
                length = at_peer.recv(&mut buffer) => to_host.send(buffer[..length?].to_vec()).await?,
                packet = from_host.recv() => match packet {
                    Some(packet) => at_peer.send(&packet).await?,
                    None => return Ok(()),
                },
            }
        }
    })
}
