//! Loading the programs over pinned maps, so that a new agent continues where the one before stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use aya::maps::{Array, MapData};
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use sluicegate_engine::fragment::DATAGRAMS;

use super::pins::Pins;
use super::{attach, guard, ways};
use crate::datapath::{Settings, check};

/// The programs, built from `gateway-ebpf/`.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluicegate"));

/// The TC programs of every agent; those of the overlay device depend on its kind.
const TC_PROGRAMS: [&str; 3] = ["site_in", "site_out", "clock"];

/// Sizes in force: the ones asked for, or the ones of the maps found pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Lines of one image half.
    pub(super) image_lines: u32,
    /// Half-entries in each confirmed table.
    pub(super) flow_entries: u32,
    /// Half-entries in each half-open table.
    pub(super) half_open_entries: u32,
    /// Rule slots.
    pub(super) rule_slots: u32,
}

/// Loaded programs with their maps.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) sizes: Sizes,
    pub(super) pins: Pins,
    /// What is not as the settings ask, as sentences.
    pub(super) degraded: Vec<String>,
}

/// Loads every program, over the maps pinned under `settings.bpf_dir` where there are any that it reads alike.
pub(super) fn load(settings: &Settings, overlay_is_ethernet: bool) -> anyhow::Result<Loaded> {
    require_btf()?;
    let image_lines = settings.image_words.div_ceil(16).max(2);
    let pins = Pins::new(&settings.bpf_dir, OBJECT, image_lines, check::RULE_SLOTS)?;
    pins.make()?;
    require_bpffs(pins.rules())?;
    let asked = Sizes {
        image_lines,
        flow_entries: settings.flow_entries.max(1024),
        half_open_entries: settings.flows.half_open_entries(settings.flow_entries),
        rule_slots: check::RULE_SLOTS,
    };
    let sizes = Sizes {
        flow_entries: pins.entries("FLOWS4")?.unwrap_or(asked.flow_entries),
        half_open_entries: pins.entries("HALF_OPEN4")?.unwrap_or(asked.half_open_entries),
        ..asked
    };
    // Whoever asked for no size has nothing to do where another version had made it another one.
    let chosen = settings.flows.half_open_entries.is_some() || sizes.flow_entries != asked.flow_entries;
    let mut degraded = Vec::new();
    if chosen && sizes != asked {
        degraded.push(format!(
            "the flow tables keep the sizes they were made with ({} entries, {} half-open ones) so that no flow is lost; run \
             `sluicegate-gateway detach` and start again to get {} and {}",
            sizes.flow_entries,
            sizes.half_open_entries,
            asked.flow_entries,
            asked.half_open_entries
        ));
    }
    let guarded = settings.xdp.guard.is_some();
    // Where they are not asked for, they take next to no memory.
    let openings = if settings.flows.half_open_per_source == 0 { 1024 } else { 16_384 };
    let mappings = if settings.flows.endpoint_independent { 65_536 } else { 1024 };
    let mut loader = EbpfLoader::new();
    for (name, path) in pins.flows() {
        loader.map_pin_path(name, path);
    }
    let mut ebpf = loader
        .default_map_pin_directory(pins.rules())
        .map_max_entries("IMAGE", sizes.image_lines * 2)
        .map_max_entries("EGRESS", ways::ROWS)
        .map_max_entries("FLOWS4", sizes.flow_entries)
        .map_max_entries("FLOWS6", sizes.flow_entries)
        .map_max_entries("HALF_OPEN4", sizes.half_open_entries)
        .map_max_entries("HALF_OPEN6", sizes.half_open_entries)
        .map_max_entries("FRAGMENTS4", DATAGRAMS)
        .map_max_entries("FRAGMENTS6", DATAGRAMS)
        .map_max_entries("RULES", sizes.rule_slots)
        .map_max_entries("ROUTES", sluicegate_engine::image::ROUTES_MAX)
        .map_max_entries("OPENINGS4", openings)
        .map_max_entries("OPENINGS6", openings)
        .map_max_entries("MAPPINGS4", mappings)
        .map_max_entries("MAPPINGS6", mappings)
        .map_max_entries("GUARD_SOURCES", if guarded { guard::SOURCES } else { 1 })
        .override_global("GUARDED", &u32::from(guarded), true)
        .override_global("IMAGE_LINES", &sizes.image_lines, true)
        .override_global("OVERLAY_ETHERNET", &u32::from(overlay_is_ethernet), true)
        .load(OBJECT)
        .context("the eBPF maps could not be made; status of the kernel's eBPF: `bpftool feature`")?;
    let overlay = attach::overlay(overlay_is_ethernet).map(attach::Hook::program);
    for name in TC_PROGRAMS.into_iter().chain(overlay) {
        let program: &mut SchedClassifier =
            ebpf.program_mut(name).with_context(|| format!("the object lacks program {name}"))?.try_into()?;
        program.load().map_err(|e| refused(name, e))?;
    }
    for name in xdp_programs(overlay_is_ethernet, guarded) {
        let program: &mut Xdp =
            ebpf.program_mut(name).with_context(|| format!("the object lacks program {name}"))?.try_into()?;
        // TC judges all that XDP would have: it is slower without, and as safe.
        if let Err(e) = program.load() {
            let consequence =
                if name == attach::GUARD_XDP { "WireGuard's port is not guarded" } else { "TC alone judges" };
            degraded.push(format!("{consequence} where {name} would have run: {:#}", refused(name, e)));
        }
    }
    Ok(Loaded { ebpf, sizes, pins, degraded })
}

/// The XDP programs an agent may need.
fn xdp_programs(overlay_is_ethernet: bool, guarded: bool) -> impl Iterator<Item = &'static str> {
    let overlay = overlay_is_ethernet.then_some(attach::OVERLAY_XDP);
    let guard = guarded.then_some(attach::GUARD_XDP);
    [attach::SITE_XDP, attach::TRUNK_XDP].into_iter().chain(overlay).chain(guard)
}

fn refused(name: &str, error: ProgramError) -> anyhow::Error {
    // The verifier's log is thousands of lines: its end is where the reason is.
    if let ProgramError::LoadError { io_error, verifier_log } = &error {
        let log = verifier_log.to_string();
        let tail: Vec<&str> = log.lines().rev().take(12).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        return anyhow::anyhow!("the kernel refused program {name}: {io_error}\n{}", tail.join("\n"));
    }
    anyhow::Error::new(error).context(format!("the kernel refused program {name}"))
}

fn require_btf() -> anyhow::Result<()> {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Ok(());
    }
    bail!(
        "this kernel has no BTF (/sys/kernel/btf/vmlinux is missing); use a kernel with CONFIG_DEBUG_INFO_BTF=y, or --datapath userspace"
    )
}

fn require_bpffs(dir: &Path) -> anyhow::Result<()> {
    const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;
    let path = std::ffi::CString::new(dir.as_os_str().as_encoded_bytes())?;
    // SAFETY: a zeroed struct for the call to fill, and a C string that outlives it.
    let kind = unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        if libc::statfs(path.as_ptr(), &raw mut stat) != 0 {
            return Err(std::io::Error::last_os_error())
                .with_context(|| format!("{} cannot be looked at", dir.display()));
        }
        stat.f_type
    };
    if kind as libc::c_long != BPF_FS_MAGIC {
        bail!(
            "{} is not on a bpffs: mount one (mount -t bpf bpffs /sys/fs/bpf) or set --bpf-dir",
            dir.display()
        );
    }
    Ok(())
}

/// Ticks per second of the clock the programs read, by running the program that tells it twice. jiffies are not exported,
/// and the kernel's configuration file is not always there.
pub(super) fn tick_rate(ebpf: &mut Ebpf) -> anyhow::Result<u32> {
    const PROBE: Duration = Duration::from_millis(120);
    const ATTEMPTS: usize = 20;
    let mut measured = 0.0;
    for _ in 0..ATTEMPTS {
        let before = Instant::now();
        let first = ticks(ebpf)?;
        let began = Instant::now();
        std::thread::sleep(PROBE);
        let shortest = began.elapsed();
        let ticks = ticks(ebpf)? - first;
        let longest = before.elapsed();
        if let Some(rate) = only_rate(ticks, shortest, longest) {
            return Ok(rate);
        }
        measured = ticks as f64 / ((shortest + longest) / 2).as_secs_f64();
    }
    // A very busy host: time-outs that are a fifth too long are better than no gateway.
    let distance = |hz: &u32| (f64::from(*hz) - measured).abs();
    RATES.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).context("no tick rate")
}

/// The rates Linux can have (kernel/Kconfig.hz).
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// The one rate at which that many ticks pass in a time between the two; `None` when
/// several can, because the process was kept waiting between clock and clock.
fn only_rate(ticks: u64, shortest: Duration, longest: Duration) -> Option<u32> {
    let ticks = ticks as f64;
    let possible = |hz: f64| {
        // A tick more or less, by where between two ticks a reading falls.
        hz * shortest.as_secs_f64() < ticks + 1.0 && ticks - 1.0 < hz * longest.as_secs_f64()
    };
    let mut rates = RATES.into_iter().filter(|hz| possible(f64::from(*hz)));
    rates.next().filter(|_| rates.next().is_none())
}

/// The programs' clock now.
pub(super) fn ticks(ebpf: &mut Ebpf) -> anyhow::Result<u64> {
    let (answer, _) = run_once(ebpf, "clock", &[0; 64])?;
    anyhow::ensure!(answer == 0, "program clock could not tell the time");
    let clock: Array<&MapData, u64> = ebpf.map("CLOCK").context("the object lacks map CLOCK")?.try_into()?;
    clock.get(&0, 0).context("map CLOCK could not be read")
}

/// Runs a program once on a frame that goes nowhere: what it answers, and how long the kernel says it took.
pub(super) fn run_once(ebpf: &mut Ebpf, name: &str, frame: &[u8]) -> anyhow::Result<(u32, Duration)> {
    let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
    let program = ebpf.program_mut(name).with_context(|| format!("the object lacks program {name}"))?;
    let result = match program {
        Program::SchedClassifier(program) => program.test_run(options),
        Program::Xdp(program) => program.test_run(options),
        other => bail!("program {name} is a {:?}, which cannot be run on a frame", other.prog_type()),
    };
    let result = result.with_context(|| format!("program {name} could not be run"))?;
    Ok((result.return_value, result.duration))
}

/// The map called `name`, taken out of `ebpf`.
pub(super) fn take<M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>>(
    ebpf: &mut Ebpf,
    name: &str,
) -> anyhow::Result<M> {
    let map = ebpf.take_map(name).with_context(|| format!("the object lacks map {name}"))?;
    M::try_from(map).with_context(|| format!("map {name} is of another kind"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_only_when_no_other_one_can_be() {
        let ms = Duration::from_millis;
        for hz in RATES {
            assert_eq!(only_rate(u64::from(hz) * 120 / 1000, ms(120), ms(121)), Some(hz));
        }
        // Kept waiting for 25 ms before the second reading: 36 ticks are 120 ms at 300 Hz or 144 ms at 250 Hz.
        assert_eq!(only_rate(36, ms(120), ms(145)), None);
        assert_eq!(only_rate(5000, ms(120), ms(121)), None);
    }
}
