//! The eBPF programs, run by the kernel one packet at a time (`BPF_PROG_TEST_RUN`).

use std::env;
use std::fs;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, DevMapHash, HashMap, MapData, PerCpuArray, PerCpuValues, RingBuf};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use sluicegate_engine::answer::Bucket;
use sluicegate_engine::classify::Line;
use sluicegate_engine::event::Event;
use sluicegate_engine::family::{Address4, Address6, Family, V4, V6};
use sluicegate_engine::flow::{Flow, Hop, KNOWN, Key, SENDS, Side, TRANSLATED, Timeouts};
use sluicegate_engine::fragment::{DATAGRAMS, Datagram, DatagramKey};
use sluicegate_engine::hop::{Link, NeighbourKey, Wire};
use sluicegate_engine::host::HostAddress;
use sluicegate_engine::image::ROUTES_MAX;
use sluicegate_engine::limit::Openings;
use sluicegate_engine::mapping::{Mapping, MappingKey, keys_of};
use sluicegate_engine::nat::NOTES;
use sluicegate_engine::tables::{Active, Config, Egress, Stage};

use crate::case::{Arrival, Counters, Exit, FlowDump, OVERLAY_DEVICE, SLOTS, Setup};
use crate::tables::{self, LINK};
use crate::tunnel::Tunnel;

/// Lines of one image, at the most.
const LINES: u32 = 2048;
/// Frames are below this.
const FRAME_MAX: usize = 4096;
const ETHERNET: usize = 14;
/// Bytes of `struct __sk_buff`, and where its `gso_size` is (include/uapi/linux/bpf.h).
const CONTEXT: usize = 192;
const GSO_SIZE: usize = 176;
/// The neighbour of every packet.
pub(crate) const HOP: [u8; 6] = [2, 9, 9, 9, 9, 9];
/// The site's frames come with this VLAN id as well as without.
const VLAN: u32 = 20;
/// The devices of cases.
const DEVICES: [u32; 3] = [OVERLAY_DEVICE, 11, 12];

/// Built from source with this crate.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluicegate"));

/// Plain data of the engine in a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T>(T);

// SAFETY: used with the engine's `repr(C)` records alone, which are integers and byte arrays without implicit padding.
unsafe impl<T: Copy + 'static> Pod for Raw<T> {}

type Flows<F> = HashMap<MapData, Raw<Key<<F as Family>::Address>>, Raw<Flow<<F as Family>::Address>>>;

/// A gateway in the kernel.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    /// The devices of an overlay without link layer.
    tunnel: Option<Tunnel>,
    setup: Option<Setup>,
    config: Array<MapData, Raw<Config>>,
    active: Array<MapData, u64>,
    image: Array<MapData, Raw<Line>>,
    egress: Array<MapData, Raw<Egress>>,
    /// Routes in each half of it.
    ways: [Vec<u16>; 2],
    four: [Flows<V4>; 2],
    six: [Flows<V6>; 2],
    sources4: Sources<V4>,
    sources6: Sources<V6>,
    drops: PerCpuArray<MapData, u64>,
    answers: PerCpuArray<MapData, u64>,
    bucket: PerCpuArray<MapData, Raw<Bucket>>,
    exhausted: Array<MapData, u64>,
    forwarded: PerCpuArray<MapData, Raw<[u64; 2]>>,
    rules: PerCpuArray<MapData, Raw<[u64; 2]>>,
    lost: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
    /// What the maps counted before this case.
    before: Counters,
    half: u32,
    /// Of the image in force: never the same twice, since what it said is kept beyond the case.
    epoch: u32,
    configured: Option<(u64, Option<u64>)>,
    /// Packets that XDP has sent on.
    pub(crate) carried: u64,
}

type Mappings<A> = HashMap<MapData, Raw<MappingKey<A>>, Raw<Mapping<A>>>;

/// What the programs remember of sources.
struct Sources<F: Family> {
    openings: HashMap<MapData, Raw<F::Address>, Raw<Openings>>,
    mappings: Mappings<F::Address>,
    datagrams: HashMap<MapData, Raw<DatagramKey<F::Address>>, Raw<Datagram>>,
    neighbours: HashMap<MapData, Raw<NeighbourKey<F::Address>>, Raw<Hop>>,
    senders: HashMap<MapData, Raw<F::Address>, Raw<Bucket>>,
    host: HashMap<MapData, Raw<F::Address>, u32>,
}

impl<F: Family> Sources<F> {
    fn clear(&mut self) -> Result<()> {
        for source in self.openings.keys().collect::<Result<Vec<_>, _>>()? {
            self.openings.remove(&source)?;
        }
        for key in self.mappings.keys().collect::<Result<Vec<_>, _>>()? {
            self.mappings.remove(&key)?;
        }
        for key in self.datagrams.keys().collect::<Result<Vec<_>, _>>()? {
            self.datagrams.remove(&key)?;
        }
        for key in self.senders.keys().collect::<Result<Vec<_>, _>>()? {
            self.senders.remove(&key)?;
        }
        for key in self.neighbours.keys().collect::<Result<Vec<_>, _>>()? {
            self.neighbours.remove(&key)?;
        }
        self.set_host(&[])
    }

    /// Makes these the addresses that are something to the host.
    fn set_host(&mut self, host: &[(F::Address, HostAddress)]) -> Result<()> {
        for key in self.host.keys().collect::<Result<Vec<_>, _>>()? {
            self.host.remove(&key)?;
        }
        host.iter().try_for_each(|(address, what)| Ok(self.host.insert(Raw(*address), *what as u32, 0)?))
    }

    fn hold(&mut self, held: bool) -> Result<()> {
        for key in self.datagrams.keys().collect::<Result<Vec<_>, _>>()? {
            let Raw(datagram) = self.datagrams.get(&key, 0)?;
            self.datagrams.insert(key, Raw(Datagram { busy: held.into(), ..datagram }), 0)?;
        }
        Ok(())
    }

    /// Notes by which neighbour a packet left, as the program on its way out does.
    fn learn(&mut self, source: F::Address, destination: F::Address, now: u64) -> Result<()> {
        let hop = Hop { learned: now as u32, mac: HOP, known: KNOWN | SENDS };
        for device in DEVICES {
            let key = NeighbourKey { source, destination, device, reserved: 0 };
            self.neighbours.insert(Raw(key), Raw(hop), 0)?;
        }
        Ok(())
    }

    /// Notes which ports flows use, as the agent does.
    fn note(&mut self, halves: &[Half<F::Address>]) -> Result<()> {
        for (_, key, flow) in halves {
            let first = if flow.is_reply() { flow.other_key(key.protocol) } else { *key };
            let Some((.., leaves)) = halves.iter().find(|(_, key, _)| *key == first) else { continue };
            if leaves.flags & TRANSLATED == 0 {
                continue;
            }
            for entry in keys_of(&first, leaves.source, leaves.source_port) {
                let Ok(Raw(mapping)) = self.mappings.get(&Raw(entry), 0) else { continue };
                let ours = (mapping.owner, mapping.source_port, mapping.port)
                    == (first.source, first.source_port, leaves.source_port);
                if ours && (flow.last_seen.wrapping_sub(mapping.last_used) as i32) > 0 {
                    let mapping = Mapping { last_used: flow.last_seen, ..mapping };
                    self.mappings.insert(Raw(entry), Raw(mapping), 0)?;
                }
            }
        }
        Ok(())
    }
}

/// What a program said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// To the next program, or the stack.
    Next(Vec<u8>),
    /// Out of another device.
    Redirect(Vec<u8>),
    /// Back to where the frame came from.
    Back(Vec<u8>),
    /// Dropped.
    Shot,
}

impl Kernel {
    /// The one that all tests of this process take turns at.
    pub(crate) fn shared() -> MutexGuard<'static, Self> {
        static KERNEL: LazyLock<Mutex<Kernel>> = LazyLock::new(|| Kernel::one(true));
        // A test that failed left nothing that `reset` does not clear.
        KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, whose overlay has no link layer.
    pub(crate) fn tunnelled() -> MutexGuard<'static, Self> {
        static KERNEL: LazyLock<Mutex<Kernel>> = LazyLock::new(|| Kernel::one(false));
        KERNEL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn one(ethernet: bool) -> Mutex<Self> {
        Mutex::new(Self::load(ethernet).unwrap_or_else(|e| panic!("{e:#}")))
    }

    /// Loads the programs. None of them is attached to a device of the host, and nothing stays when this process ends.
    fn load(ethernet: bool) -> Result<Self> {
        // SAFETY: a plain system call.
        let user = unsafe { libc::geteuid() };
        ensure!(
            user == 0,
            "the differential test runs eBPF programs in the kernel, which needs root: run it by `sudo -E cargo xtask test`"
        );
        ensure!(
            Path::new("/sys/kernel/btf/vmlinux").exists(),
            "the differential test needs a kernel with BTF (/sys/kernel/btf/vmlinux is not there)"
        );
        // Of its own, for a host need not have one.
        let pins = env::temp_dir().join(format!("sluicegate-differential-{}-{ethernet}", std::process::id()));
        fs::create_dir(&pins).with_context(|| format!("{} could not be made", pins.display()))?;
        let loaded = command("mount", &["-t", "bpf", "-o", "mode=0700", "bpf"], &pins).and_then(|()| {
            let loaded = Self::load_pinned(&pins, ethernet);
            // Open maps need no pins.
            command("umount", &[], &pins)?;
            loaded
        });
        fs::remove_dir(&pins).with_context(|| format!("{} could not be removed", pins.display()))?;
        loaded
    }

    fn load_pinned(pins: &Path, ethernet: bool) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(pins)
            .override_global("TEST_CLOCK", &1u32, true)
            .override_global("EVENTS_PER_TICK", &u32::MAX, true)
            .override_global("IMAGE_LINES", &LINES, true)
            .override_global("OVERLAY_ETHERNET", &u32::from(ethernet), true)
            .map_max_entries("IMAGE", 2 * LINES)
            .map_max_entries("EGRESS", 2 * ROUTES_MAX)
            .map_max_entries("RULES", SLOTS as u32)
            .map_max_entries("OPENINGS4", 1 << 14)
            .map_max_entries("OPENINGS6", 1 << 14)
            .map_max_entries("MAPPINGS4", 1 << 14)
            .map_max_entries("MAPPINGS6", 1 << 14)
            .map_max_entries("FRAGMENTS4", DATAGRAMS)
            .map_max_entries("FRAGMENTS6", DATAGRAMS)
            .map_max_entries("FLOWS4", 1 << 14)
            .map_max_entries("FLOWS6", 1 << 14)
            .map_max_entries("HALF_OPEN4", 1 << 14)
            .map_max_entries("HALF_OPEN6", 1 << 14)
            .load(OBJECT)
            .context("the eBPF object could not be loaded")?;
        for name in
            ["overlay_in_l2", "overlay_out_l2", "overlay_in_l3", "overlay_out_l3", "site_in", "site_out"]
        {
            let program: &mut SchedClassifier =
                ebpf.program_mut(name).context("the object lacks a program")?.try_into()?;
            program.load().with_context(|| format!("the kernel refused program {name}"))?;
        }
        for name in ["overlay_xdp", "site_xdp", "trunk_xdp"] {
            let program: &mut Xdp =
                ebpf.program_mut(name).context("the object lacks a program")?.try_into()?;
            program.load().with_context(|| format!("the kernel refused program {name}"))?;
        }

        let mut take =
            |name: &str| ebpf.take_map(name).with_context(|| format!("the object lacks map {name}"));
        let mut wires: HashMap<MapData, [u32; 2], Raw<Wire>> = take("WIRES")?.try_into()?;
        wires.insert(
            [LINK.device, 0],
            Raw(Wire { side: Side::Site as u16, sends: 1, ..Wire::default() }),
            0,
        )?;
        wires.insert(
            [LINK.device, VLAN],
            Raw(Wire { side: Side::Site as u16, sends: 1, ..Wire::default() }),
            0,
        )?;
        // A test run says where a frame would be sent, and does not.
        let mut devices: DevMapHash<MapData> = take("DEVICES")?.try_into()?;
        devices.insert(LINK.device, LINK.device, None, 0)?;
        let tunnel = if ethernet { None } else { Some(Tunnel::new(&mut ebpf)?) };
        let mut take =
            |name: &str| ebpf.take_map(name).with_context(|| format!("the object lacks map {name}"));
        Ok(Self {
            tunnel,
            setup: None,
            config: take("CONFIG")?.try_into()?,
            active: take("ACTIVE")?.try_into()?,
            image: take("IMAGE")?.try_into()?,
            egress: take("EGRESS")?.try_into()?,
            ways: [Vec::new(), Vec::new()],
            four: [take("FLOWS4")?.try_into()?, take("HALF_OPEN4")?.try_into()?],
            six: [take("FLOWS6")?.try_into()?, take("HALF_OPEN6")?.try_into()?],
            sources4: Sources {
                openings: take("OPENINGS4")?.try_into()?,
                mappings: take("MAPPINGS4")?.try_into()?,
                datagrams: take("FRAGMENTS4")?.try_into()?,
                neighbours: take("NEIGHBOURS4")?.try_into()?,
                senders: take("SENDERS4")?.try_into()?,
                host: take("HOST_ADDRESSES4")?.try_into()?,
            },
            sources6: Sources {
                openings: take("OPENINGS6")?.try_into()?,
                mappings: take("MAPPINGS6")?.try_into()?,
                datagrams: take("FRAGMENTS6")?.try_into()?,
                neighbours: take("NEIGHBOURS6")?.try_into()?,
                senders: take("SENDERS6")?.try_into()?,
                host: take("HOST_ADDRESSES6")?.try_into()?,
            },
            drops: take("DROPS")?.try_into()?,
            answers: take("ANSWERS")?.try_into()?,
            bucket: take("ANSWER_BUDGET")?.try_into()?,
            exhausted: take("EXHAUSTED")?.try_into()?,
            forwarded: take("FORWARDED")?.try_into()?,
            rules: take("RULES")?.try_into()?,
            lost: take("EVENTS_LOST")?.try_into()?,
            events: take("EVENTS")?.try_into()?,
            ebpf,
            before: Counters::new(),
            half: 0,
            epoch: 0,
            configured: None,
            carried: 0,
        })
    }

    /// Back to before a first image.
    pub(crate) fn reset(&mut self, setup: Setup) -> Result<()> {
        clear::<V4>(&mut self.four)?;
        clear::<V6>(&mut self.six)?;
        self.sources4.clear()?;
        self.sources6.clear()?;
        self.active.set(0, 0, 0)?;
        self.write_ways(0, &[])?;
        self.write_ways(1, &[])?;
        let full = vec![Raw(Bucket::default()); aya::util::nr_cpus().map_err(|(_, e)| e)?];
        self.bucket.set(0, PerCpuValues::try_from(full)?, 0)?;
        (0..NOTES).try_for_each(|place| self.exhausted.set(place, 0, 0))?;
        stay_here()?;
        self.half = 0;
        self.setup = Some(setup);
        self.configured = None;
        self.take_events()?;
        self.before = Counters::new();
        self.before = self.counters()?;
        Ok(())
    }

    pub(crate) fn set_image(&mut self, lines: &[Line], ways: &[(u16, Exit)]) -> Result<()> {
        ensure!(lines.len() <= LINES as usize, "an image of {} lines", lines.len());
        self.half = 1 - self.half;
        for (i, line) in (0..).zip(lines) {
            self.image.set(self.half * LINES + i, Raw(*line), 0)?;
        }
        self.write_ways(self.half, ways)?;
        self.epoch += 1;
        self.active.set(0, Active::new(self.half, self.epoch).0, 0)?;
        // Nobody reads the other half any more: what is there would be seen in every packet.
        let nobodys = Exit {
            device: 99,
            mtu: 600,
            source: ["192.0.2.99", "2001:db8::99"].map(|address| address.parse().ok()),
            pool: 1,
        };
        let nowhere: Vec<(u16, Exit)> = ways.iter().map(|(route, _)| (*route, nobodys)).collect();
        self.write_ways(1 - self.half, &nowhere)
    }

    pub(crate) fn set_egress(&mut self, ways: &[(u16, Exit)]) -> Result<()> {
        self.write_ways(self.half, ways)
    }

    pub(crate) fn set_addresses(&mut self, addresses: &[(IpAddr, u8)]) -> Result<()> {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for (address, what) in tables::host_addresses(addresses) {
            match Ipv6Addr::from(address).to_ipv4_mapped() {
                Some(v4) => four.push((v4.into(), what)),
                None => six.push((Address6(address), what)),
            }
        }
        self.sources4.set_host(&four)?;
        self.sources6.set_host(&six)
    }

    fn write_ways(&mut self, half: u32, ways: &[(u16, Exit)]) -> Result<()> {
        let index = |route: u16| half * ROUTES_MAX + u32::from(route);
        for route in std::mem::take(&mut self.ways[half as usize]) {
            if ways.iter().all(|(named, _)| *named != route) {
                self.egress.set(index(route), Raw(Egress::default()), 0)?;
            }
        }
        for (route, exit) in ways {
            self.egress.set(index(*route), Raw(Egress { link: LINK, ..tables::egress(exit) }), 0)?;
        }
        self.ways[half as usize] = ways.iter().map(|(route, _)| *route).collect();
        Ok(())
    }

    pub(crate) fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<()> {
        self.setup.as_mut().context("reset comes first")?.timeouts = timeouts;
        self.configured = None;
        Ok(())
    }

    /// Runs a packet through its program; `None` where the kernel does not take it for a test run.
    pub(crate) fn packet(
        &mut self,
        arrival: &Arrival,
        now: u64,
        deadline: Option<u64>,
    ) -> Result<Option<Said>> {
        if self.configured != Some((now, deadline)) {
            let setup = self.setup.as_ref().context("reset comes first")?;
            let config = Config {
                overlay_link: if self.tunnel.is_some() { Link::default() } else { LINK },
                ..tables::config(setup, now, deadline)
            };
            self.config.set(0, Raw(config), 0)?;
            self.configured = Some((now, deadline));
        }
        // Test runs take no frame without an IP header, since the stack has none there either.
        if arrival.bytes.len() < if arrival.six { 40 } else { 20 } {
            return Ok(None);
        }
        let sees_overlay = arrival.side != Side::Site && arrival.segment == 0;
        if let Some(tunnel) = self.tunnel.as_mut().filter(|_| sees_overlay) {
            return tunnel.packet(arrival).map(Some);
        }
        // Neighbour discovery of an overlay that is an Ethernet is the link's own, and passes; the model knows no links.
        if arrival.six
            && arrival.side != Side::Site
            && arrival.bytes[6..8] == [58, 255]
            && matches!(arrival.bytes.get(40), Some(135 | 136))
        {
            return Ok(None);
        }
        // A test run is on the loopback device, whose address this is.
        let mut frame = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2];
        frame.extend(if arrival.six { [0x86, 0xdd] } else { [0x08, 0x00] });
        frame.extend(&arrival.bytes);
        if arrival.screened && !(self.tunnel.is_some() && arrival.side == Side::Overlay) {
            // Every other frame of a site comes in a VLAN.
            let tagged = arrival.side == Side::Site && arrival.bytes.len().is_multiple_of(2);
            let name = match arrival.side {
                Side::Site if tagged => "trunk_xdp",
                Side::Site => "site_xdp",
                _ => "overlay_xdp",
            };
            if tagged {
                let tag = [[0x81, 0x00], (VLAN as u16).to_be_bytes()].concat();
                frame.splice(12..12, tag);
            }
            let (code, after) = self.run(name, &frame, None)?;
            match code {
                1 => return Ok(Some(Said::Shot)),
                2 => {
                    ensure!(after == frame, "{name} changed a packet that it passes on");
                    if tagged {
                        frame.drain(12..16);
                    }
                }
                4 => {
                    self.carried += 1;
                    // An answer goes back in the VLAN that the frame came in; to the overlay there is none.
                    let mut after = after;
                    let back = tagged && after.get(..6) == frame.get(6..12);
                    if tagged {
                        ensure!(!back || after[12..16] == frame[12..16], "{name} answers in another VLAN");
                        frame.drain(12..16);
                    }
                    if back {
                        after.drain(12..16);
                    }
                    return sent(name, &frame, &after).map(Some);
                }
                _ => bail!("{name} said {code}"),
            }
        }
        let name = match arrival.side {
            Side::Overlay => "overlay_in_l2",
            Side::Local => "overlay_out_l2",
            Side::Site => "site_in",
        };
        let mut context = [0; CONTEXT];
        context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&u32::from(arrival.segment).to_ne_bytes());
        let (code, after) = self.run(name, &frame, Some(&context))?;
        let said = match code {
            -1 => Said::Next(after[ETHERNET..].to_vec()),
            2 => Said::Shot,
            7 => sent(name, &frame, &after)?,
            _ => bail!("{name} said {code}"),
        };
        if let Said::Redirect(bytes) = &said {
            self.learn(bytes, now)?;
        }
        Ok(Some(said))
    }

    /// Runs a frame for `destination`, which the overlay device has too, through one program of the overlay; what it said.
    pub(crate) fn frame(
        &mut self,
        program: &str,
        destination: [u8; 6],
        arrival: &Arrival,
        now: u64,
    ) -> Result<i32> {
        let setup = self.setup.as_ref().context("reset comes first")?;
        let overlay_link = Link { mac: destination, ..LINK };
        self.config.set(0, Raw(Config { overlay_link, ..tables::config(setup, now, None) }), 0)?;
        self.configured = None;
        let kind: [u8; 2] = if arrival.six { [0x86, 0xdd] } else { [0x08, 0x00] };
        let frame = [&destination[..], &[2, 0, 0, 0, 0, 2], &kind, &arrival.bytes].concat();
        Ok(self.run(program, &frame, None)?.0)
    }

    /// Makes every datagram in fragments another processor's for the moment, or nobody's again.
    pub(crate) fn hold_datagrams(&mut self, held: bool) -> Result<()> {
        self.sources4.hold(held)?;
        self.sources6.hold(held)
    }

    fn learn(&mut self, packet: &[u8], now: u64) -> Result<()> {
        if packet[0] >> 4 == 4 {
            let address = |at: usize| Address4(std::array::from_fn(|i| packet[at + i]));
            self.sources4.learn(address(12), address(16), now)
        } else {
            let address = |at: usize| Address6(std::array::from_fn(|i| packet[at + i]));
            self.sources6.learn(address(8), address(24), now)
        }
    }

    fn run(&mut self, name: &str, frame: &[u8], context: Option<&[u8]>) -> Result<(i32, Vec<u8>)> {
        let mut out = vec![0; FRAME_MAX];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: context,
            ..TestRunOptions::default()
        };
        let result = match self.ebpf.program_mut(name) {
            Some(aya::programs::Program::SchedClassifier(program)) => program.test_run(options),
            Some(aya::programs::Program::Xdp(program)) => program.test_run(options),
            _ => bail!("the object lacks program {name}"),
        }
        .with_context(|| format!("{name} could not be run on {} bytes", frame.len()))?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value as i32, out))
    }

    pub(crate) fn take_events(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            ensure!(item.len() == size_of::<Event>(), "an event of {} bytes", item.len());
            // SAFETY: as long as an event, which is plain data; alignment is seen to.
            events.push(unsafe { std::ptr::read_unaligned(item.as_ptr().cast::<Event>()) });
        }
        Ok(events)
    }

    /// Counted since `reset`.
    pub(crate) fn counters(&self) -> Result<Counters> {
        let mut counters = Counters::new();
        for (i, drops) in (0..).zip(&mut counters.drops) {
            *drops = self.drops.get(&i, 0)?.iter().sum::<u64>() - self.before.drops[i as usize];
        }
        for (i, answers) in (0..).zip(&mut counters.answers) {
            *answers = self.answers.get(&i, 0)?.iter().sum::<u64>() - self.before.answers[i as usize];
        }
        for (i, pair) in (0..).zip(&mut counters.forwarded) {
            *pair = minus(total(&self.forwarded.get(&i, 0)?), self.before.forwarded[i as usize]);
        }
        for (i, pair) in (0..).zip(&mut counters.rules) {
            *pair = minus(total(&self.rules.get(&i, 0)?), self.before.rules[i as usize]);
        }
        ensure!(self.lost.get(&0, 0)?.iter().sum::<u64>() == 0, "events were lost");
        Ok(counters)
    }

    /// Removes what is over, as the agent does.
    pub(crate) fn sweep(&mut self, now: u64) -> Result<()> {
        self.sources4.note(&halves::<V4>(&self.four)?)?;
        self.sources6.note(&halves::<V6>(&self.six)?)?;
        sweep::<V4>(&mut self.four, now)?;
        sweep::<V6>(&mut self.six, now)
    }

    pub(crate) fn flows(&self, now: u64) -> Result<Result<Vec<FlowDump>, String>> {
        let (four, six) = (halves::<V4>(&self.four)?, halves::<V6>(&self.six)?);
        Ok(tables::flows::<V4>(four.into_iter(), now).and_then(|mut flows| {
            flows.extend(tables::flows::<V6>(six.into_iter(), now)?);
            flows.sort();
            Ok(flows)
        }))
    }
}

/// What a program means that sends a frame: its Ethernet header tells to whom.
fn sent(name: &str, frame: &[u8], after: &[u8]) -> Result<Said> {
    let kind = &frame[12..ETHERNET];
    let back = [&frame[6..12], &frame[..6], kind].concat();
    let on = [&HOP[..], &LINK.mac, kind].concat();
    let (header, bytes) = after.split_at_checked(ETHERNET).context("no frame came out")?;
    ensure!(
        header == back || header == on || header == &frame[..ETHERNET],
        "{name} changed the Ethernet header to {header:02x?}"
    );
    Ok(if header == back { Said::Back(bytes.to_vec()) } else { Said::Redirect(bytes.to_vec()) })
}

/// Keeps this thread on the processor it is on: test runs happen there, and each processor counts its own answers.
fn stay_here() -> Result<()> {
    // SAFETY: plain system calls on a set that lives on this stack.
    let done = unsafe {
        let mut here: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut here);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const here)
    };
    ensure!(done == 0, "the test cannot stay on its processor: {}", std::io::Error::last_os_error());
    Ok(())
}

fn total(values: &PerCpuValues<Raw<[u64; 2]>>) -> [u64; 2] {
    values.iter().fold([0; 2], |sum, value| [sum[0] + value.0[0], sum[1] + value.0[1]])
}

fn minus(a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
    [a[0] - b[0], a[1] - b[1]]
}

fn clear<F: Family>(tables: &mut [Flows<F>; 2]) -> Result<()> {
    for table in tables {
        let keys: Vec<_> = table.keys().collect::<Result<_, _>>()?;
        for key in keys {
            table.remove(&key)?;
        }
    }
    Ok(())
}

fn sweep<F: Family>(tables: &mut [Flows<F>; 2], now: u64) -> Result<()>
where
    F::Address: Hash,
{
    let all = halves::<F>(tables)?;
    let lives = |sought: &Key<F::Address>| {
        all.iter().any(|(_, key, flow)| key == sought && !flow.is_over(now as u32))
    };
    for (stage, key, flow) in &all {
        if flow.is_over(now as u32) && !lives(&flow.other_key(key.protocol)) {
            tables[*stage as usize].remove(&Raw(*key))?;
        }
    }
    Ok(())
}

type Half<A> = (Stage, Key<A>, Flow<A>);

fn halves<F: Family>(tables: &[Flows<F>; 2]) -> Result<Vec<Half<F::Address>>>
where
    F::Address: Hash,
{
    let mut all = Vec::new();
    for (stage, table) in [Stage::Confirmed, Stage::HalfOpen].into_iter().zip(tables) {
        for entry in table.iter() {
            let (key, flow) = entry?;
            all.push((stage, key.0, flow.0));
        }
    }
    Ok(all)
}

fn command(program: &str, arguments: &[&str], path: &Path) -> Result<()> {
    let done = Command::new(program).args(arguments).arg(path).output()?;
    let why = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program} {}: {}", path.display(), why.trim());
    Ok(())
}
