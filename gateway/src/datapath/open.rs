//! Chooses the datapath: the kernel's where its programs can be loaded, else the same engine in this process.

use std::path::Path;

use anyhow::Context as _;

use super::ebpf::EbpfDatapath;
use super::userspace::UserspaceDatapath;
use super::{Choice, Datapath, Settings};
use crate::overlay::PacketChannels;
use crate::tun::Tun;

/// A datapath that is ready to be given an image.
pub struct Opened {
    /// It.
    pub datapath: Box<dyn Datapath>,
    /// The overlay's packets, when the datapath judges in this process and has taken the TUN device for itself;
    /// `None` when the overlay reads and writes the device.
    pub packets: Option<PacketChannels>,
    /// Why this is not the datapath one would wish for.
    pub degraded: Option<String>,
}

/// Opens the datapath `settings` ask for on the overlay device `tun`, taking over what an earlier process left pinned.
pub fn open(settings: &Settings, tun: &Tun) -> anyhow::Result<Opened> {
    match settings.choice {
        Choice::Ebpf => ebpf(settings, tun),
        Choice::Userspace => userspace(settings, tun),
        Choice::Auto => ebpf(settings, tun).or_else(|kernel| {
            // Falling back takes the pinned programs off, and their flows with them: not for a trouble that may pass.
            if guarded(settings, tun) {
                return Err(kernel.context(
                    "the kernel's datapath is pinned and cannot be taken over; it goes on judging by its last image. Try \
                     again, or run `sluicegate-gateway detach` to give up its flows",
                ));
            }
            let reason =
                format!("the user-space datapath is used because the kernel's cannot be: {kernel:#}");
            let mut opened = userspace(settings, tun).with_context(|| {
                format!("neither datapath can be used; the kernel's failed with: {kernel:#}")
            })?;
            opened.degraded = Some(reason);
            Ok(opened)
        }),
    }
}

/// Opens the kernel's datapath on an overlay device that is an Ethernet.
pub fn open_ethernet(settings: &Settings, overlay: &str) -> anyhow::Result<Opened> {
    let datapath = EbpfDatapath::open(settings, overlay)?;
    Ok(Opened { datapath: Box::new(datapath), packets: None, degraded: None })
}

/// Whether an earlier process left `tun` guarded by what `settings` ask for: then it may carry packets before
/// [`open`] has taken over.
pub fn guarded(settings: &Settings, tun: &Tun) -> bool {
    settings.choice != Choice::Userspace && super::ebpf::guards(&settings.bpf_dir, tun.name())
}

/// Takes everything off the host that a datapath left enforcing under `bpf_dir`; afterwards nothing is enforced.
pub fn detach(bpf_dir: &Path) -> anyhow::Result<()> {
    super::ebpf::detach(bpf_dir)
}

fn ebpf(settings: &Settings, tun: &Tun) -> anyhow::Result<Opened> {
    let datapath = EbpfDatapath::open(settings, tun.name())?;
    Ok(Opened { datapath: Box::new(datapath), packets: None, degraded: None })
}

fn userspace(settings: &Settings, tun: &Tun) -> anyhow::Result<Opened> {
    // Programs that an earlier process left would judge the same packets again, by an image that nobody exchanges.
    if settings.bpf_dir.is_dir() {
        detach(&settings.bpf_dir).context("the kernel's datapath could not be taken off the host")?;
    }
    let (datapath, packets) = UserspaceDatapath::open(settings, tun)?;
    Ok(Opened { datapath: Box::new(datapath), packets: Some(packets), degraded: None })
}
