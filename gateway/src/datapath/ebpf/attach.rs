//! Attaching the programs to devices by pinned links: they stay when the agent goes, and a new agent's programs take their
//! place in one step, without a packet in between that sees none.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode, tc};
use aya::util::KernelVersion;

use super::load::links_dir;
use super::sys;
use crate::datapath::device;

/// Priority and handle of our filters where there is no tcx: fixed, so that a new agent replaces its own and no other.
const PRIORITY: u16 = 0x5c47;
const HANDLE: u32 = 1;

/// One place a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// TC ingress or egress.
    Tc(&'static str, TcAttachType),
    /// Native XDP.
    Xdp(&'static str),
}

/// The hooks of an overlay device, with or without Ethernet header.
pub(super) const fn overlay(ethernet: bool) -> [Hook; 2] {
    let [into, out] =
        if ethernet { ["overlay_in_l2", "overlay_out_l2"] } else { ["overlay_in_l3", "overlay_out_l3"] };
    [Hook::Tc(into, TcAttachType::Ingress), Hook::Tc(out, TcAttachType::Egress)]
}

/// The hooks of a site device: TC first, since XDP alone forwards nothing.
pub(super) const SITE: [Hook; 2] = [Hook::Tc("site_in", TcAttachType::Ingress), Hook::Xdp("site_screen")];

impl Hook {
    /// The program that belongs there.
    pub(super) fn program(self) -> &'static str {
        match self {
            Hook::Tc(program, _) | Hook::Xdp(program) => program,
        }
    }

    /// The name in pins and messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Hook::Tc(_, TcAttachType::Egress) => "tc-egress",
            Hook::Tc(..) => "tc-ingress",
            Hook::Xdp(_) => "xdp",
        }
    }
}

/// Sees to it that our program is at `hook` of `device`, now with index `index`. With `renew`, a program that is there
/// already is replaced by the one loaded now.
pub(super) fn ensure(
    ebpf: &mut Ebpf,
    bpf_dir: &Path,
    device: &str,
    index: u32,
    hook: Hook,
    renew: bool,
) -> anyhow::Result<()> {
    let path = pin_path(bpf_dir, device, hook);
    if let Some(link) = live(&path, index) {
        return if renew { replace(ebpf, link, hook).with_context(|| at(device, hook)) } else { Ok(()) };
    }
    // The device is another one than before, or none was there: nothing of ours is attached to it.
    let _ = fs::remove_file(&path);
    attach(ebpf, &path, device, index, hook).with_context(|| at(device, hook))
}

/// Whether a program of an earlier agent is at `hook` of `device`, now with index `index`.
pub(super) fn holds(bpf_dir: &Path, device: &str, index: u32, hook: Hook) -> bool {
    live(&pin_path(bpf_dir, device, hook), index).is_some()
}

/// Removes every program attached under `bpf_dir`.
pub(super) fn detach_all(bpf_dir: &Path) -> anyhow::Result<()> {
    let links = links_dir(bpf_dir);
    for entry in fs::read_dir(&links).into_iter().flatten().flatten() {
        let path = entry.path();
        fs::remove_file(&path).with_context(|| format!("{} could not be removed", path.display()))?;
    }
    if has_tcx() {
        return Ok(());
    }
    // Netlink filters have no pins; ours are known by the names of their programs.
    for device in device::names() {
        for hook in [overlay(false), overlay(true), SITE].into_iter().flatten() {
            if let Hook::Tc(program, side) = hook {
                // Not there is as good as removed.
                let _ = tc::qdisc_detach_program(&device, side, program);
            }
        }
    }
    Ok(())
}

/// Whether TC programs are attached by links (`tcx`), which came with Linux 6.6; netlink filters before.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

fn at(device: &str, hook: Hook) -> String {
    format!("the program for {} of device {device} could not be attached", hook.name())
}

fn pin_path(bpf_dir: &Path, device: &str, hook: Hook) -> PathBuf {
    // A bpffs takes no dots in names, devices do (VLANs).
    links_dir(bpf_dir).join(format!("{}-{}", device.replace('.', "_"), hook.name()))
}

/// The link pinned at `path`, when it is still attached to the device with `index`.
fn live(path: &Path, index: u32) -> Option<FdLink> {
    let pinned = sys::open_pinned(path).ok()?;
    // A link whose device is gone says 0.
    let device = sys::link_device(pinned.as_fd()).ok()?;
    if device == index { PinnedLink::from_pin(path).ok().map(FdLink::from) } else { None }
}

fn replace(ebpf: &mut Ebpf, link: FdLink, hook: Hook) -> anyhow::Result<()> {
    match hook {
        Hook::Tc(program, _) => {
            let program: &mut SchedClassifier = program_mut(ebpf, program)?.try_into()?;
            let id = program.attach_to_link(link.try_into()?)?;
            keep(program.take_link(id)?);
        }
        Hook::Xdp(program) => {
            let program: &mut Xdp = program_mut(ebpf, program)?.try_into()?;
            let id = program.attach_to_link(link.try_into()?)?;
            // Closing our descriptor of a pinned link detaches nothing.
            drop(FdLink::try_from(program.take_link(id)?)?);
        }
    }
    Ok(())
}

fn attach(ebpf: &mut Ebpf, path: &Path, device: &str, index: u32, hook: Hook) -> anyhow::Result<()> {
    match hook {
        Hook::Tc(program, side) if has_tcx() => {
            let program: &mut SchedClassifier = program_mut(ebpf, program)?.try_into()?;
            // First, so that no other program judges or rewrites what ours has not judged; it goes on to the others.
            let id =
                program.attach_with_options(device, side, TcAttachOptions::TcxOrder(LinkOrder::first()))?;
            FdLink::try_from(program.take_link(id)?)?.pin(path)?;
        }
        Hook::Tc(program, side) => {
            // The qdisc may be there, and may be somebody else's: that is fine.
            let _ = tc::qdisc_add_clsact(device);
            let program: &mut SchedClassifier = program_mut(ebpf, program)?.try_into()?;
            let handle = TcHandle::from(HANDLE);
            let there = SchedClassifierLink::attached(device, side, PRIORITY, handle, None)?;
            let id = program.attach_to_link(there).or_else(|_| {
                let options = NlOptions { priority: PRIORITY, handle, classid: None };
                program.attach_with_options(device, side, TcAttachOptions::Netlink(options))
            })?;
            keep(program.take_link(id)?);
        }
        Hook::Xdp(program) => {
            let program: &mut Xdp = program_mut(ebpf, program)?.try_into()?;
            let id = program.attach_to_if_index(index, XdpMode::Driver)?;
            FdLink::try_from(program.take_link(id)?)?.pin(path)?;
        }
    }
    Ok(())
}

/// A netlink filter has no descriptor to pin: it stays until removed, and dropping aya's link would remove it. A pinned
/// link stays either way.
fn keep(link: SchedClassifierLink) {
    std::mem::forget(link);
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut aya::programs::Program> {
    ebpf.program_mut(name).with_context(|| format!("the object lacks program {name}"))
}
