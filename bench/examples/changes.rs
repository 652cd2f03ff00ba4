//! Prints, as a table, what one changed rule costs a gateway by the size of its image: processor time of the agent, with the
//! kernel's maps and the disk.
//!
//! Needs root and a kernel with eBPF. Run with optimisation: `cargo run --release -p sluicegate-bench --example changes
//! [RULES ...]`. The accounts are those of `sluicegate-policy`'s example `images`, *teams*.
//!
//! Several rules are changed and changed back in turn. A change is what an agent does with a delta from control: decode, apply,
//! hash, check, write to the idle half of the maps, publish, wait for a grace period, and append to the journal on disk, with a new
//! snapshot when that has become long. The same image as a whole, in the last columns, is what each of these cost when they
//! covered all of it.

#[path = "../../policy/examples/images/account.rs"]
mod account;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sluicegate_api::agent::{self, Acknowledgement};
use sluicegate_api::image::{Delta, Image};
use sluicegate_gateway::agent::Images;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{Choice, FlowSettings, Settings, XdpChoice, XdpSettings};
use sluicegate_lab::Lab;
use sluicegate_policy::Compiler;

use account::GATEWAY;

/// Rules that are changed in turn, and how often.
const RULES: usize = 3;
const ROUNDS: usize = 10;

fn main() -> anyhow::Result<()> {
    let asked: Vec<usize> = std::env::args().skip(1).map(|n| n.parse().expect("a number of rules")).collect();
    let sizes = if asked.is_empty() { vec![1_000, 10_000, 50_000] } else { asked };
    println!(
        "| rules | image, words | changes | delta, bytes | agent's CPU, ms: median, worst | to in force, ms: median, worst | \
         whole image: agent's CPU, ms | to in force, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    sizes.into_iter().try_for_each(measure)
}

fn measure(rules: usize) -> anyhow::Result<()> {
    let state = account::of_size(rules, false);
    let compile = |state| -> anyhow::Result<Image> { Ok(Compiler::new(Arc::new(state))?.compile(GATEWAY)?) };
    let base = compile(state.clone())?;
    let others = (0..RULES)
        .map(|i| compile(account::with_a_changed_rule(&state, rules * (i + 1) / (RULES + 1))))
        .collect::<anyhow::Result<Vec<Image>>>()?;

    let lab = Lab::new()?;
    let [peers, gateway, site] = ["peers", "gateway", "site"].map(|name| lab.namespace(name));
    let (peers, gateway, site) = (peers?, gateway?, site?);
    lab.veth((&peers, "out"), (&gateway, "overlay"))?;
    lab.veth((&gateway, "site"), (&site, "in"))?;
    let settings = Settings {
        choice: Choice::Ebpf,
        bpf_dir: lab.bpffs()?.join("gateway"),
        site_devices: vec!["site".into()],
        nat_ports: 20_000..=32_767,
        flow_entries: 4096,
        image_words: 1 << 24,
        mtu: 1420,
        flows: FlowSettings::default(),
        xdp: XdpSettings { choice: XdpChoice::default(), guard: None },
    };
    let datapath = gateway.enter(|| EbpfDatapath::open(&settings, "overlay"))??;
    let mut images = Images::start(lab.dir(), Box::new(datapath));

    // Twice, so that both halves of the maps have been written.
    let mut whole = Cost::default();
    for revision in 1..=2 {
        let image = if revision == 1 { &others[0] } else { &base };
        let snapshot = agent::Snapshot { revision, hash: image.hash().to_vec(), image: image.encode() };
        whole = Cost::of(|| images.snapshot(&snapshot))?;
    }
    let (mut costs, mut bytes, mut revision) = (Vec::new(), Vec::new(), 2);
    for round in 0..ROUNDS * RULES {
        let other = &others[round % RULES];
        for (from, to) in [(&base, other), (other, &base)] {
            let delta = agent::Delta {
                base_revision: revision,
                base_hash: from.hash().to_vec(),
                revision: revision + 1,
                hash: to.hash().to_vec(),
                delta: Delta::between(from, to).encode(),
            };
            revision += 1;
            bytes.push(delta.delta.len());
            costs.push(Cost::of(|| images.delta(&delta))?);
        }
    }
    // The first one compares both halves and looks at the whole image, as the first after a start does.
    let first = costs.remove(0);
    let cpu = spread(costs.iter().map(|cost| cost.cpu));
    let took = spread(costs.iter().map(|cost| cost.took));
    println!(
        "| {rules} | {} | {} | {} to {} | {:.2}, {:.2} (the first: {:.1}) | {:.2}, {:.2} | {:.1} | {:.1} |",
        base.words.len(),
        costs.len(),
        bytes.iter().min().unwrap_or(&0),
        bytes.iter().max().unwrap_or(&0),
        cpu.0,
        cpu.1,
        ms(first.cpu),
        took.0,
        took.1,
        ms(whole.cpu),
        ms(whole.took),
    );
    Ok(())
}

/// What an image cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// Processor time of this process, in user space and in the kernel.
    cpu: Duration,
    /// From receipt to the first packet judged by it.
    took: Duration,
}

impl Cost {
    fn of(put: impl FnOnce() -> Acknowledgement) -> anyhow::Result<Self> {
        let (before, started) = (processor_time()?, Instant::now());
        let said = put();
        let (cpu, all) = (processor_time()? - before, started.elapsed());
        ensure!(said.applied, "refused: {}", said.refusal);
        Ok(Self { cpu, took: Duration::from_micros(said.apply_microseconds).min(all) })
    }
}

/// Median and worst, in milliseconds.
fn spread(all: impl Iterator<Item = Duration>) -> (f64, f64) {
    let mut all: Vec<f64> = all.map(ms).collect();
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[all.len() - 1])
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// CLOCK_PROCESS_CPUTIME_ID: time of all threads, system calls included.
fn processor_time() -> anyhow::Result<Duration> {
    // SAFETY: plain old data for the call to fill, which lives through it.
    let (failed, time) = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        (libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time), time)
    };
    ensure!(failed == 0, "the processor time cannot be read: {}", std::io::Error::last_os_error());
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Ok(Duration::new(seconds.context("a time before zero")?, nanoseconds.context("a time before zero")?))
}
