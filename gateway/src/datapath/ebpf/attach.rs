//! Attaching the programs to devices by pinned links: they stay when the agent goes, and a new agent's programs take their
//! place in one step, without a packet in between that sees none. Nobody else's program is ever replaced or removed.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode, tc};
use aya::util::KernelVersion;

use super::links::{self, LinkInfo};
use super::{clsact, netlink, pins, sys};
use crate::datapath::{XdpChoice, device};

/// One place a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// TC ingress or egress.
    Tc(&'static str, TcAttachType),
    /// XDP, run by the driver or, with `generic`, by the stack.
    Xdp { program: &'static str, generic: bool },
}

/// The hooks of an overlay device, with or without Ethernet header.
pub(super) const fn overlay(ethernet: bool) -> [Hook; 2] {
    let [into, out] =
        if ethernet { ["overlay_in_l2", "overlay_out_l2"] } else { ["overlay_in_l3", "overlay_out_l3"] };
    [Hook::Tc(into, TcAttachType::Ingress), Hook::Tc(out, TcAttachType::Egress)]
}

/// The XDP program of a site device. It begins with the guard, for where that is wanted too.
pub(super) const SITE_XDP: &str = "site_xdp";
/// The XDP program of an overlay device that is an Ethernet.
pub(super) const OVERLAY_XDP: &str = "overlay_xdp";
/// The XDP program of a device that carries overlay or site in VLANs.
pub(super) const TRUNK_XDP: &str = "trunk_xdp";
/// The XDP program of a device that is guarded and leads to no site.
pub(super) const GUARD_XDP: &str = "underlay_guard";

/// The TC hooks of a site device.
pub(super) const SITE: [Hook; 2] =
    [Hook::Tc("site_in", TcAttachType::Ingress), Hook::Tc("site_out", TcAttachType::Egress)];

impl Hook {
    /// XDP as the operator wants it; `None` when it is not wanted.
    pub(super) fn xdp(program: &'static str, choice: XdpChoice) -> Option<Self> {
        match choice {
            XdpChoice::Off => None,
            XdpChoice::Native => Some(Self::Xdp { program, generic: false }),
            XdpChoice::Generic => Some(Self::Xdp { program, generic: true }),
        }
    }

    /// The program that belongs there.
    pub(super) fn program(self) -> &'static str {
        match self {
            Hook::Tc(program, _) | Hook::Xdp { program, .. } => program,
        }
    }

    /// The name in pins and messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Hook::Tc(_, TcAttachType::Egress) => "tc-egress",
            Hook::Tc(..) => "tc-ingress",
            Hook::Xdp { .. } => "xdp",
        }
    }
}

/// Sees to it that our program is at `hook` of `device`, now with index `index`. With `renew`, a program that is there
/// already is replaced by the one loaded now. Returns the kernel's id of the program there.
pub(super) fn ensure(
    ebpf: &mut Ebpf,
    bpf_dir: &Path,
    device: &str,
    index: u32,
    hook: Hook,
    renew: bool,
) -> anyhow::Result<Option<u32>> {
    let path = pin_path(bpf_dir, device, hook);
    if let Some((link, info)) = live(&path, index, hook) {
        if !renew {
            return Ok(Some(info.program));
        }
        match link {
            Some(link) if is_as_wanted(hook, index, info) => {
                if let Err(e) = replace(ebpf, link, hook).with_context(|| at(device, hook)) {
                    // Without ours, that of an earlier agent would go on judging by the image which that one had. XDP only takes
                    // work off TC, which judges whatever XDP leaves.
                    if matches!(hook, Hook::Xdp { .. }) {
                        remove(bpf_dir, &path).with_context(|| at(device, hook))?;
                    }
                    return Err(e);
                }
                return Ok(live(&path, index, hook).map(|(_, info)| info.program));
            }
            // Native and generic are two places: a link stays in the one it was made for.
            Some(_) => remove(bpf_dir, &path).with_context(|| at(device, hook))?,
            // A filter is replaced by attaching another.
            None => {}
        }
    }
    // The device is another one than before, or none was there: nothing of ours is attached to it.
    let _ = fs::remove_file(&path);
    attach(ebpf, bpf_dir, &path, device, index, hook).with_context(|| at(device, hook))?;
    Ok(live(&path, index, hook).map(|(_, info)| info.program))
}

/// Whether a program of an earlier agent is at `hook` of `device`, now with index `index`.
pub(super) fn holds(bpf_dir: &Path, device: &str, index: u32, hook: Hook) -> bool {
    live(&pin_path(bpf_dir, device, hook), index, hook).is_some()
}

/// Whether an earlier agent has left programs attached.
pub(super) fn any(bpf_dir: &Path) -> bool {
    !pinned(bpf_dir).is_empty()
}

/// Sees to it that no program of ours is at `hook` of `device`.
pub(super) fn release(bpf_dir: &Path, device: &str, hook: Hook) -> anyhow::Result<()> {
    let path = pin_path(bpf_dir, device, hook);
    if path.exists() { remove(bpf_dir, &path) } else { Ok(()) }
}

/// Removes what an earlier agent attached at places that are not among `wanted`: devices that lead to the site no longer.
pub(super) fn retain<'a>(
    bpf_dir: &Path,
    wanted: impl IntoIterator<Item = (&'a str, Hook)>,
) -> anyhow::Result<()> {
    let wanted: BTreeSet<PathBuf> =
        wanted.into_iter().map(|(device, hook)| pin_path(bpf_dir, device, hook)).collect();
    for path in pinned(bpf_dir).into_iter().filter(|path| !wanted.contains(path)) {
        remove(bpf_dir, &path)?;
    }
    Ok(())
}

/// Removes every program attached under `bpf_dir`, at once.
pub(super) fn detach_all(bpf_dir: &Path) -> anyhow::Result<()> {
    for path in pinned(bpf_dir) {
        remove(bpf_dir, &path)?;
    }
    for device in device::names() {
        let mark = clsact_mark(bpf_dir, &device);
        if mark.is_dir() {
            let index = device::index(&device);
            index.map_or(Ok(false), netlink::remove_idle_clsact).with_context(|| {
                format!("the clsact qdisc of {device} could not be removed; `tc qdisc del dev {device} clsact` does")
            })?;
        }
    }
    for mark in marks(bpf_dir) {
        fs::remove_dir(&mark).with_context(|| format!("{} could not be removed", mark.display()))?;
    }
    Ok(())
}

/// Whether TC programs are attached by links (`tcx`), which came with Linux 6.6; netlink filters before.
pub(super) fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

fn at(device: &str, hook: Hook) -> String {
    format!("the program for {} of device {device} could not be attached", hook.name())
}

fn pin_path(bpf_dir: &Path, device: &str, hook: Hook) -> PathBuf {
    pins::links(bpf_dir).join(format!("{}-{}", in_bpffs(device), hook.name()))
}

/// A directory that says the clsact qdisc of a device is ours: a bpffs holds nothing else.
fn clsact_mark(bpf_dir: &Path, device: &str) -> PathBuf {
    pins::links(bpf_dir).join(format!("{}-clsact", in_bpffs(device)))
}

/// A bpffs takes no dots in names, devices do (VLANs). No two devices have one name there.
fn in_bpffs(device: &str) -> String {
    device.replace('%', "%25").replace('.', "%2e")
}

fn pinned(bpf_dir: &Path) -> Vec<PathBuf> {
    entries(bpf_dir, false)
}

fn marks(bpf_dir: &Path) -> Vec<PathBuf> {
    entries(bpf_dir, true)
}

fn entries(bpf_dir: &Path, directories: bool) -> Vec<PathBuf> {
    let all = fs::read_dir(pins::links(bpf_dir)).into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|path| path.is_dir() == directories).collect()
}

/// The link pinned at `path`, when it is still attached to the device with `index`; `None` for the link of a filter.
fn live(path: &Path, index: u32, hook: Hook) -> Option<(Option<FdLink>, LinkInfo)> {
    if let (Hook::Tc(_, side), false) = (hook, has_tcx()) {
        return Some((None, LinkInfo { program: clsact::live(path, index, side)?, device: index }));
    }
    let pinned = sys::open_pinned(path).ok()?;
    let info = links::link_info(pinned.as_fd()).ok()?;
    if info.device != index {
        return None;
    }
    Some((Some(PinnedLink::from_pin(path).ok()?.into()), info))
}

/// Takes what is pinned at `path` off its device, and the pin away.
fn remove(bpf_dir: &Path, path: &Path) -> anyhow::Result<()> {
    let tc = [TcAttachType::Ingress, TcAttachType::Egress].map(|side| Hook::Tc("", side));
    let owners = device::names().into_iter().flat_map(|device| tc.map(|hook| (device.clone(), hook)));
    for (device, hook) in
        owners.filter(|(device, hook)| !has_tcx() && pin_path(bpf_dir, device, *hook) == path)
    {
        if let Hook::Tc(_, side) = hook {
            clsact::remove(path, &device, side)?;
        }
    }
    if let Ok(link) = sys::open_pinned(path) {
        // A link whose device is gone is off already, and a program is no link.
        let _ = links::detach(link.as_fd());
    }
    fs::remove_file(path).with_context(|| format!("{} could not be removed", path.display()))
}

/// Whether the link is where `hook` is: an XDP link may be of the other mode.
fn is_as_wanted(hook: Hook, index: u32, link: LinkInfo) -> bool {
    let Hook::Xdp { generic, .. } = hook else { return true };
    let Ok(there) = netlink::xdp_programs(index) else { return true };
    (if generic { there.generic } else { there.native }) == Some(link.program)
}

fn replace(ebpf: &mut Ebpf, link: FdLink, hook: Hook) -> anyhow::Result<()> {
    match hook {
        Hook::Tc(program, _) => {
            let program: &mut SchedClassifier = program_mut(ebpf, program)?.try_into()?;
            let id = program.attach_to_link(link.try_into()?)?;
            // As below.
            drop(FdLink::try_from(program.take_link(id)?)?);
        }
        Hook::Xdp { program, .. } => {
            let program: &mut Xdp = program_mut(ebpf, program)?.try_into()?;
            let id = program.attach_to_link(link.try_into()?)?;
            // Closing our descriptor of a pinned link detaches nothing.
            drop(FdLink::try_from(program.take_link(id)?)?);
        }
    }
    Ok(())
}

fn attach(
    ebpf: &mut Ebpf,
    bpf_dir: &Path,
    path: &Path,
    device: &str,
    index: u32,
    hook: Hook,
) -> anyhow::Result<()> {
    match hook {
        Hook::Tc(program, side) if has_tcx() => {
            let program: &mut SchedClassifier = program_mut(ebpf, program)?.try_into()?;
            // First, so that no other program judges or rewrites what ours has not judged; it goes on to the others.
            let id =
                program.attach_with_options(device, side, TcAttachOptions::TcxOrder(LinkOrder::first()))?;
            FdLink::try_from(program.take_link(id)?)?.pin(path)?;
        }
        Hook::Tc(program, side) => {
            // The qdisc may be there, and may be somebody else's: that is fine, but it is then not ours to remove.
            if tc::qdisc_add_clsact(device).is_ok() {
                let _ = fs::create_dir(clsact_mark(bpf_dir, device));
            }
            let program: &mut SchedClassifier = program_mut(ebpf, program)?.try_into()?;
            clsact::attach(program, device, side, path)?;
        }
        Hook::Xdp { program, generic } => {
            if !device::is_ethernet(device)? {
                bail!("its packets have no Ethernet header, which XDP programs here read");
            }
            let program: &mut Xdp = program_mut(ebpf, program)?.try_into()?;
            let mode = if generic { XdpMode::Skb } else { XdpMode::Driver };
            let id = program.attach_to_if_index(index, mode)?;
            FdLink::try_from(program.take_link(id)?)?.pin(path)?;
        }
    }
    Ok(())
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut aya::programs::Program> {
    ebpf.program_mut(name).with_context(|| format!("the object lacks program {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vlan_and_a_device_named_alike_have_pins_of_their_own() {
        let names = ["eth1.5", "eth1_5", "eth1%2e5"].map(in_bpffs);
        assert!(names.iter().all(|name| !name.contains('.')), "{names:?}");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }
}
