//! The traffic programs of `bench/ebpf`, loaded for one contestant.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{TestRun as _, Xdp, XdpMode};
use aya::programs::{TestRunAttrs, TestRunOptions};
use aya::{Ebpf, include_bytes_aligned};
use sluicegate_lab::Namespace;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/traffic"));

/// Frames the kernel sends before it lets the receiving side run: as many as one NAPI poll takes.
const BATCH: u32 = 64;
/// Bytes in front of the payload: Ethernet, IPv6 and UDP headers.
const HEADERS: usize = 14 + 40 + 8;
/// UDP payload of the smallest packets, bytes.
pub(crate) const SMALLEST: u32 = 18;

/// What to send; mirrored in `bench/ebpf/main.rs`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Plan {
    pub(crate) ethernet: [u8; 12],
    pub(crate) padding: [u8; 4],
    pub(crate) source4: u32,
    pub(crate) destination4: u32,
    pub(crate) source6: [u8; 12],
    pub(crate) destination6: [u8; 12],
    pub(crate) flows: u32,
    pub(crate) ports: u32,
    pub(crate) destinations: u32,
    pub(crate) port: u32,
    pub(crate) device: u32,
    pub(crate) sequential: u32,
    pub(crate) payload: u32,
}

// SAFETY: integers and byte arrays without padding; every bit pattern is valid.
unsafe impl aya::Pod for Plan {}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The name in figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Family::V4 => "generate4",
            Family::V6 => "generate6",
        }
    }
}

/// Loaded traffic programs.
pub(crate) struct Traffic {
    ebpf: Ebpf,
    plan: Array<MapData, Plan>,
    echo: Array<MapData, u32>,
    seen: PerCpuArray<MapData, u64>,
    next: PerCpuArray<MapData, u32>,
}

/// How one burst went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burst {
    pub(crate) sent: u32,
    pub(crate) seen: u64,
    pub(crate) took: Duration,
}

impl Burst {
    /// Nanoseconds per packet sent.
    pub(crate) fn nanoseconds(&self) -> f64 {
        self.took.as_nanos() as f64 / f64::from(self.sent)
    }
}

impl Traffic {
    pub(crate) fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT).context("the traffic programs could not be loaded")?;
        for name in ["generate4", "generate6", "sink", "pass", "route"] {
            program(&mut ebpf, name)?
                .load()
                .with_context(|| format!("the kernel refused traffic program {name}"))?;
        }
        let mut take =
            |name: &str| ebpf.take_map(name).with_context(|| format!("the traffic object lacks map {name}"));
        Ok(Self {
            plan: take("PLAN")?.try_into()?,
            echo: take("ECHO")?.try_into()?,
            seen: take("SEEN")?.try_into()?,
            next: take("NEXT")?.try_into()?,
            ebpf,
        })
    }

    /// Puts `sink` or `pass` on a device of `namespace`.
    pub(crate) fn attach(&mut self, namespace: &Namespace, name: &str, device: &str) -> Result<()> {
        let program = program(&mut self.ebpf, name)?;
        let attached = namespace.enter(|| program.attach(device, XdpMode::Driver).map(|_| ()))?;
        attached.with_context(|| {
            format!("traffic program {name} could not be put on {device} of {}", namespace.name())
        })
    }

    /// Whether `sink` echoes.
    pub(crate) fn set_echo(&mut self, on: bool) -> Result<()> {
        Ok(self.echo.set(0, u32::from(on), 0)?)
    }

    /// The next flow, when they come in order, is this one.
    pub(crate) fn start_with(&mut self, flow: u32) -> Result<()> {
        let flows = PerCpuValues::try_from(vec![flow; aya::util::nr_cpus().map_err(|(_, e)| e)?])?;
        Ok(self.next.set(0, flows, 0)?)
    }

    /// Sends `count` packets by `plan` from inside `source` and waits until the kernel has carried them through.
    pub(crate) fn send(
        &mut self,
        source: &Namespace,
        family: Family,
        plan: &Plan,
        count: u32,
    ) -> Result<Burst> {
        self.plan.set(0, *plan, 0)?;
        let before = self.total()?;
        let program = program(&mut self.ebpf, family.program())?;
        let took = source.enter(|| -> Result<Duration> {
            let frame = vec![0u8; HEADERS + plan.payload as usize];
            let mut options =
                TestRunOptions { data_in: Some(&frame), repeat: count, ..TestRunOptions::new() };
            options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            // The kernel's own time per frame: making and freeing the pool of pages takes tens of milliseconds around it.
            let per_frame = program.test_run(options).context("the generator could not be run")?.duration;
            Ok(per_frame * count)
        })??;
        // The last batch may still be on its way.
        for _ in 0..5 {
            if self.total()? - before >= count.into() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Burst { sent: count, seen: self.total()? - before, took })
    }

    fn total(&self) -> Result<u64> {
        Ok(self.seen.get(&0, 0)?.iter().sum())
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program =
        ebpf.program_mut(name).with_context(|| format!("the traffic object lacks program {name}"))?;
    Ok(program.try_into()?)
}

/// Refuses a burst that lost more than one packet in a hundred: it measured something else.
pub(crate) fn require_arrival(burst: &Burst, who: &str) -> Result<()> {
    let lost = u64::from(burst.sent).saturating_sub(burst.seen);
    ensure!(lost * 100 <= u64::from(burst.sent), "{who} delivered {} of {} packets", burst.seen, burst.sent);
    Ok(())
}
