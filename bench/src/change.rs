//! What one changed rule costs a gateway: processor time of the agent, with the kernel's maps and the disk.
//!
//! A change is what an agent does with a delta from control: decode, apply, hash, check, write to the idle half of the maps, publish,
//! wait for a grace period, and append to the journal on disk, with a new snapshot when that has become long. The accounts are those of
//! `sluicegate-policy`'s example `images`, *teams*.

#[path = "../../policy/examples/images/account.rs"]
mod teams;

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

use teams::GATEWAY;

/// What was measured of one size.
pub(crate) struct Changes {
    /// Words of the image.
    pub(crate) words: usize,
    /// Bytes of each delta.
    pub(crate) bytes: Vec<usize>,
    /// The first one compares both halves and looks at the whole image, as the first after a start does.
    pub(crate) first: Cost,
    /// Every other.
    pub(crate) costs: Vec<Cost>,
    /// The same image sent whole.
    pub(crate) whole: Cost,
}

/// Changes `changed` of `rules` rules and back in turn, `rounds` times each.
pub(crate) fn measure(rules: usize, changed: usize, rounds: usize) -> anyhow::Result<Changes> {
    let state = teams::of_size(rules, false);
    let compile = |state| -> anyhow::Result<Image> { Ok(Compiler::new(Arc::new(state))?.compile(GATEWAY)?) };
    let base = compile(state.clone())?;
    let others = (0..changed)
        .map(|i| compile(teams::with_a_changed_rule(&state, rules * (i + 1) / (changed + 1))))
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
    for round in 0..rounds * changed {
        let other = &others[round % changed];
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
    let first = costs.remove(0);
    lab.close()?;
    Ok(Changes { words: base.words.len(), bytes, first, costs, whole })
}

/// What an image cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Processor time of this process, in user space and in the kernel.
    pub(crate) cpu: Duration,
    /// From receipt to the first packet judged by it.
    pub(crate) took: Duration,
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
